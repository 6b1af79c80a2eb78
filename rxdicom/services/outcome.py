"""From what a handler returned to the status of a response: what it does wrong becomes a defined failure."""

import sys
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from rxdicom.status import Status
from rxdicom.wire.dimse import COMMANDS, Command, Message, message
from rxdicom.wire.encoded import Encoded

STATUS_MISSING = 0xC001
"""The handler returned a dataset without (0000,0900) Status."""
STATUS_UNUSABLE = 0xC002
"""The handler returned something that is no status."""

_OPTIONAL = ("ErrorComment", "OffendingElement", "ErrorID", "AffectedSOPInstanceUID")


@frozen
class Outcome:
    """A status code with the elements that go along in the response, and what was wrong with the handler, if so."""

    code: int
    elements: Mapping[str, Any] = field(factory=dict[str, Any])
    fault: str = ""


def outcome_of(value: Any) -> Outcome:
    """The outcome that a handler's status means: an int, a :class:`Status`, or a dataset with ``Status``.

    >>> outcome_of(0xB000).code, hex(outcome_of("done").code)
    (45056, '0xc002')
    """
    if isinstance(value, bool):
        return Outcome(STATUS_UNUSABLE, fault="the handler returned a bool instead of a status")
    if isinstance(value, int):
        if not 0 <= value <= 0xFFFF:
            return Outcome(
                STATUS_UNUSABLE, fault=f"the handler returned {value}, which is out of the range of statuses"
            )
        elements = _elements(value) if isinstance(value, Status) else {}
        return Outcome(int(value), elements)
    if _is_dataset(value):
        if "Status" not in value:
            return Outcome(STATUS_MISSING, fault="the handler returned a dataset without (0000,0900) Status")
        inner = outcome_of(value.Status)
        return inner if inner.fault else Outcome(inner.code, _elements(value))
    return Outcome(STATUS_UNUSABLE, fault=f"the handler returned {type(value).__name__} instead of a status")


def _elements(source: Any) -> dict[str, Any]:
    found = {keyword: getattr(source, keyword, None) for keyword in _OPTIONAL}
    elements = {keyword: value for keyword, value in found.items() if value is not None}
    if "ErrorComment" in elements:
        elements["ErrorComment"] = str(elements["ErrorComment"])[:64]
    tags = elements.get("OffendingElement")
    if tags is not None:
        elements["OffendingElement"] = (int(tags),) if isinstance(tags, int) else tuple(int(tag) for tag in tags)
    return elements


def _is_dataset(value: Any) -> bool:
    # A dataset can only be there if pydicom has been loaded; it is not loaded to find out.
    pydicom = sys.modules.get("pydicom.dataset")
    return pydicom is not None and isinstance(value, pydicom.Dataset)


def response(request: Message, outcome: Outcome, data: Encoded | None = None) -> Message:
    """The response to ``request``: its identification echoed, the outcome's status and elements."""
    kind = Command(request.kind | 0x8000)
    required, optional, _ = COMMANDS[kind]
    echoed = {
        "AffectedSOPClassUID": request.AffectedSOPClassUID or request.RequestedSOPClassUID,
        "AffectedSOPInstanceUID": request.AffectedSOPInstanceUID or request.RequestedSOPInstanceUID,
        "EventTypeID": request.EventTypeID,
        "ActionTypeID": request.ActionTypeID,
    }
    candidates = {**echoed, **outcome.elements}
    elements = {key: value for key, value in candidates.items() if value is not None and key in required | optional}
    return message(
        kind,
        request.context_id,
        data,
        MessageIDBeingRespondedTo=request.MessageID,
        Status=outcome.code,
        **elements,
    )
