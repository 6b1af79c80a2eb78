"""From what a handler returned to the status of a response: what it does wrong becomes a defined failure."""

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import frozen

from rxdicom.errors import DatasetError
from rxdicom.events import kinds
from rxdicom.events.dispatcher import FAULT
from rxdicom.events.records import ServiceEvent
from rxdicom.log import words
from rxdicom.status import PENDING, Status
from rxdicom.wire.dimse import COMMANDS, NO_DATASET, Command, Message, message
from rxdicom.wire.encoded import Encoded

STATUS_MISSING = 0xC001
"""The handler returned a dataset without (0000,0900) Status."""
STATUS_UNUSABLE = 0xC002
"""The handler returned something that is no status."""

SUCCESS, CANCEL = 0x0000, 0xFE00

_UNDECODABLE = {
    kinds.EVT_C_STORE: 0xC210,
    kinds.EVT_C_FIND: 0xC310,
    kinds.EVT_C_GET: 0xC410,
    kinds.EVT_C_MOVE: 0xC510,
}
_OUT_OF_RESOURCES = 0xA700

_NO_ELEMENTS: Mapping[str, Any] = MappingProxyType({})


@frozen
class Outcome:
    """A status code with the elements that go along in the response, and what was wrong with the handler, if so."""

    code: int
    elements: Mapping[str, Any] = _NO_ELEMENTS
    fault: str = ""


class Result(NamedTuple):
    """What a service ends with: the final response, and what was wrong with the handler, if anything was."""

    response: Message
    fault: str = ""


def fault(event: ServiceEvent, error: Exception) -> Outcome:
    """The outcome of a handler that raised ``error``."""
    code = FAULT[event.event]
    if isinstance(error, DatasetError):
        code = _UNDECODABLE.get(event.event, code)
    elif isinstance(error, OSError) and event.event is kinds.EVT_C_STORE:
        code = _OUT_OF_RESOURCES
    return Outcome(code, fault=f"the handler raised {words(error)}")


def pair(value: Any) -> tuple[Any, Any] | None:
    """The (status, dataset) that an item is, None if it is no pair."""
    match value:
        case (status, dataset):
            return status, dataset
        case _:
            return None


def outcome_of(value: Any) -> Outcome:
    """The outcome that a handler's status means: an int, a :class:`Status`, or a dataset with ``Status``.

    >>> outcome_of(0xB000).code, hex(outcome_of("done").code)
    (45056, '0xc002')
    """
    if type(value) is int and 0 <= value <= 0xFFFF:
        return Outcome(value)
    try:
        return _outcome(value)
    except Exception as error:  # noqa: BLE001 - pydicom decodes elements when they are asked for, and raises anything
        return Outcome(STATUS_UNUSABLE, fault=f"the handler returned a status that cannot be sent: {words(error)}")


def status_of(item: Any) -> Outcome:
    """The outcome that the status of a pair means; an item that is no pair is unusable."""
    given = pair(item)
    if given is None:
        why = f"the handler gave {type(item).__name__} instead of a pair of status and dataset"
        return Outcome(STATUS_UNUSABLE, fault=why)
    return outcome_of(given[0])


def after_cancel(item: Any) -> Outcome:
    """The outcome of the item that a handler gave after C-CANCEL (None if it gave nothing).

    A final status of the handler stands; what comes too late is dropped, and is no fault.
    """
    outcome = status_of(item)
    return Outcome(CANCEL) if outcome.fault or outcome.code in PENDING else outcome


def _outcome(value: Any) -> Outcome:
    if isinstance(value, bool):
        return Outcome(STATUS_UNUSABLE, fault="the handler returned a bool instead of a status")
    if isinstance(value, int):
        if not 0 <= value <= 0xFFFF:
            return Outcome(
                STATUS_UNUSABLE, fault=f"the handler returned {value}, which is out of the range of statuses"
            )
        elements = _elements(value) if isinstance(value, Status) else _NO_ELEMENTS
        return Outcome(int(value), elements)
    if _is_dataset(value):
        if "Status" not in value:
            return Outcome(STATUS_MISSING, fault="the handler returned a dataset without (0000,0900) Status")
        inner = _outcome(value.Status)
        return inner if inner.fault else Outcome(inner.code, _elements(value))
    return Outcome(STATUS_UNUSABLE, fault=f"the handler returned {type(value).__name__} instead of a status")


def _elements(source: Any) -> dict[str, Any]:
    """The optional elements that ``source`` has. Raises :class:`ValueError` for one that cannot be encoded."""
    found = {keyword: getattr(source, keyword, None) for keyword in _OPTIONAL}
    return {keyword: _OPTIONAL[keyword](value) for keyword, value in found.items() if value not in (None, "")}


def _comment(value: Any) -> str:
    return str(value)[:64]


def _number(value: Any, most: int = 0xFFFF) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most}")
    return int(value)


def _tags(value: Any) -> tuple[int, ...]:
    return tuple(_number(tag, 0xFFFFFFFF) for tag in ((value,) if isinstance(value, int) else value))


def _uid(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"{value!r} is not a UID")
    return str(value)


_OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "ErrorComment": _comment,
    "OffendingElement": _tags,
    "ErrorID": _number,
    "AffectedSOPInstanceUID": _uid,
    "AttributeIdentifierList": _tags,
    "EventTypeID": _number,
    "ActionTypeID": _number,
}


def _is_dataset(value: Any) -> bool:
    # A dataset can only be there if pydicom has been loaded; it is not loaded to find out.
    pydicom = sys.modules.get("pydicom.dataset")
    return pydicom is not None and isinstance(value, pydicom.Dataset)


_SOURCES = {
    "AffectedSOPClassUID": ("AffectedSOPClassUID", "RequestedSOPClassUID"),
    "AffectedSOPInstanceUID": ("AffectedSOPInstanceUID", "RequestedSOPInstanceUID"),
    "EventTypeID": ("EventTypeID",),
    "ActionTypeID": ("ActionTypeID",),
}
"""What a response repeats of its request, and under which of its elements that is found."""


_Echoed = tuple[tuple[str, tuple[str, ...]], ...]


def _row(kind: Command) -> tuple[Command, frozenset[str], _Echoed]:
    required, optional, _ = COMMANDS[kind]
    permitted = required | optional
    return kind, permitted, tuple((keyword, sources) for keyword, sources in _SOURCES.items() if keyword in permitted)


_RESPONSES = {int(kind) & 0x7FFF: _row(kind) for kind in COMMANDS if kind.is_response}
"""By the command field of the request: the response, the elements that it may have, those that it repeats."""


def response(request: Message, outcome: Outcome, data: Encoded | None = None) -> Message:
    """The response to ``request``: its identification echoed, the outcome's status and elements."""
    asked = request.command
    kind, permitted, echoed = _RESPONSES[asked["CommandField"]]
    elements: dict[str, Any] = {"MessageIDBeingRespondedTo": asked.get("MessageID"), "Status": outcome.code}
    for keyword, sources in echoed:
        for source in sources:
            if value := asked.get(source):
                elements[keyword] = value
                break
    if outcome.elements:
        elements |= {keyword: value for keyword, value in outcome.elements.items() if keyword in permitted}
    if data is not None:
        return message(kind, request.context_id, data, **elements)
    # Nothing but what the response may have is in there: that needs no second look.
    elements["CommandField"], elements["CommandDataSetType"] = int(kind), NO_DATASET
    return Message(elements, request.context_id)
