"""Runs a service by a script, without threads or sockets: real handlers, scripted sub-operations, recorded effects.

Every message is checked on its way: it answers the request, PS3.7 allows its elements, and it decodes to what it was.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from attrs import frozen
from pydicom import Dataset

from rxdicom.events.datasets import decode, encode
from rxdicom.events.records import CFind, CGet, CMove, EventContext, ServiceEvent
from rxdicom.services.effects import (
    Call,
    Called,
    Cancelled,
    Done,
    Effect,
    Open,
    Pull,
    Raised,
    Reply,
    Send,
    Service,
    SubOperation,
    SubStore,
    Value,
)
from rxdicom.services.outcome import Result
from rxdicom.wire.dimse import COMMANDS, NO_DATASET, Command, Message, decode_command_set, encode_command_set, message
from rxdicom.wire.encoded import Encoded

Handler = Callable[[Any], Any]
_E = TypeVar("_E", bound=ServiceEvent)

IVR, EVR, EVR_BE, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
CONTEXT_ID, MESSAGE_ID = 5, 77


def dataset(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def status_dataset(code: int, **elements: Any) -> Dataset:
    return dataset(Status=code, **elements)


def identifier_of(event: CFind | CGet | CMove) -> Dataset:
    return event.identifier


def event_of(
    record: type[_E], sop_class: str, data: Dataset | bytes | None = None, syntax: str = EVR, **elements: Any
) -> _E:
    """The event of a request; ``data`` is its dataset, or the bytes of one."""
    command = Command[f"{record.event.name.removeprefix('EVT_')}_RQ"]
    required = COMMANDS[command][0]
    role = "RequestedSOPClassUID" if "RequestedSOPClassUID" in required else "AffectedSOPClassUID"
    given = {
        "MessageID": MESSAGE_ID,
        role: sop_class,
        **({"Priority": 2} if "Priority" in required else {}),
        **elements,
    }
    encoded = None if data is None else Encoded(syntax, data if isinstance(data, bytes) else encode(data, syntax))
    request = message(command, CONTEXT_ID, encoded, **given)
    return record(request=request, context=EventContext(CONTEXT_ID, sop_class, syntax))


def yielding(*items: Any) -> Handler:
    """A handler that gives ``items`` one by one, and raises those that are exceptions."""

    def handler(event: object) -> Iterator[Any]:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return handler


def returning(value: Any) -> Handler:
    return lambda event: value


def raising(error: Exception) -> Handler:
    def handler(event: object) -> Any:
        raise error

    return handler


def counters(sent: Message) -> tuple[int | None, ...]:
    """The numbers of remaining, completed, failed and warned sub-operations."""
    return tuple(
        sent.command.get(f"NumberOf{name}Suboperations") for name in ("Remaining", "Completed", "Failed", "Warning")
    )


@frozen
class Played:
    """What came of a service."""

    response: Message
    fault: str
    effects: tuple[Effect, ...]

    @property
    def status(self) -> int | None:
        return self.response.Status

    @property
    def pending(self) -> list[Message]:
        return [effect.message for effect in self.effects if isinstance(effect, Send)]

    @property
    def stored(self) -> list[Any]:
        """The instances of the sub-operations."""
        return [effect.instance for effect in self.effects if isinstance(effect, SubStore)]

    @property
    def opened(self) -> list[Open]:
        return [effect for effect in self.effects if isinstance(effect, Open)]

    @property
    def pulls(self) -> int:
        return sum(isinstance(effect, Pull) for effect in self.effects)

    @property
    def data(self) -> Dataset | None:
        """The dataset of the final response."""
        return None if self.response.data is None else decode(self.response.data)

    @property
    def failed_list(self) -> list[str]:
        """The Failed SOP Instance UID List, decoded by pydicom; empty if there is none."""
        if self.data is None:
            return []
        assert list(self.data.keys()) == [0x00080058], "nothing else goes along"
        uids = self.data.FailedSOPInstanceUIDList
        return [uids] if isinstance(uids, str) else list(uids)


def play(
    start: Callable[[Any], Service[Result]],
    event: ServiceEvent,
    handler: Handler,
    *,
    stored: Iterable[SubOperation] = (),
    opened: Raised | None = None,
    cancelled_at: int | None = None,
    checked: bool = True,
) -> Played:
    """Run the service ``start(event)`` to its end, which must be one final response.

    Sub-operations end as ``stored`` has it, as many as there are; C-CANCEL comes before pull number ``cancelled_at``.
    Pending responses are not ``checked`` where the time is taken.
    """
    service = start(event)
    outcomes = iter(stored)
    effects: list[Effect] = []
    items: Iterator[Any] = iter(())
    reply: Reply = None
    pulls = 0
    try:
        while True:
            effect = service.send(reply)
            match effect:
                case Call():
                    assert not effects, "one call, before all else"
                    assert effect.event is event
                    reply = _attempt(handler, event)
                    if isinstance(event, CFind | CGet | CMove) and isinstance(reply, Value):
                        reply = _attempt(iter, reply.value)
                        items = reply.value if isinstance(reply, Value) else items
                case Pull():
                    reply = _next(items, cancelled_at is not None and pulls >= cancelled_at)
                    pulls += 1
                case Send(sent):
                    if checked:
                        _check(sent, event)
                    assert sent.Status in (0xFF00, 0xFF01)
                    reply = None
                case Open():
                    reply = opened or Value(None)
                case SubStore():
                    reply = Value(next(outcomes))
            effects.append(effect)
    except StopIteration as stop:
        result: Result = stop.value
    _check(result.response, event)
    return Played(result.response, result.fault, tuple(effects))


def play_single(answer: Callable[[Any, Called], Result], event: ServiceEvent, handler: Handler) -> Played:
    """Answer a request that has one response."""
    result = answer(event, _attempt(handler, event))
    _check(result.response, event)
    return Played(result.response, result.fault, ())


def _attempt(function: Callable[[Any], Any], argument: Any) -> Called:
    try:
        return Value(function(argument))
    except Exception as error:  # noqa: BLE001 - whatever the handler of a test raises
        return Raised(error)


def _next(items: Iterator[Any], cancelled: bool) -> Reply:
    try:
        item = next(items)
    except StopIteration:
        return Cancelled() if cancelled else Done()
    except Exception as error:  # noqa: BLE001 - whatever the handler of a test raises
        return Raised(error)
    return Cancelled(item) if cancelled else Value(item)


def _check(sent: Message, event: ServiceEvent) -> None:
    required, optional, carries = COMMANDS[Command(event.request.kind | 0x8000)]
    assert (sent.CommandField, sent.context_id) == (event.request.kind | 0x8000, CONTEXT_ID)
    assert sent.MessageIDBeingRespondedTo == MESSAGE_ID
    assert required <= sent.command.keys() <= required | optional | {"CommandField", "CommandDataSetType"}
    assert (sent.CommandDataSetType == NO_DATASET) == (sent.data is None)
    assert sent.data is None or carries != "never"
    decoded = decode_command_set(encode_command_set(sent.command))
    decoded.pop("CommandGroupLength")
    assert decoded == sent.command
