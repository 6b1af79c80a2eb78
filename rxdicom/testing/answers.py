"""What a peer would be answered by a handler: the responses of its service, faults made into statuses."""

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from rxdicom.events.datasets import decode
from rxdicom.events.dispatcher import Dispatcher, Handler
from rxdicom.events.records import ServiceEvent
from rxdicom.runtimes.sub_operations import Route, finished
from rxdicom.services.effects import Open, SubOperation
from rxdicom.services.outcome import Result
from rxdicom.services.provider import ROWS
from rxdicom.sop_class import uid_to_service_class
from rxdicom.status import Status, StatusTable
from rxdicom.testing.performing import SteppedPerformance
from rxdicom.wire.dimse import Message

if TYPE_CHECKING:
    from pydicom import Dataset


@frozen
class Answers:
    """What came of a request: everything that the peer would have seen."""

    responses: "tuple[tuple[Status, Dataset | None], ...]"
    """Statuses and datasets, the final response last."""
    instances: tuple[Any, ...] = ()
    """What would have been sent by C-STORE sub-operations: datasets and paths, as the handler gave them."""
    destination: tuple[str, int] | None = None
    """Where to, for a C-MOVE."""
    fault: str = ""
    """What was wrong with the handler; empty if nothing was."""

    @property
    def status(self) -> Status:
        """The final status."""
        return self.responses[-1][0]

    @property
    def dataset(self) -> "Dataset | None":
        """The dataset of the final response."""
        return self.responses[-1][1]


@frozen
class _Kept(Route):
    """Sub-operations that are all answered alike, and go nowhere."""

    status: int
    instances: list[Any] = field(factory=list[Any])

    async def store(self, instance: Any) -> SubOperation:
        self.instances.append(instance)
        return SubOperation(self.status, str(getattr(instance, "SOPInstanceUID", "")))

    async def close(self) -> None:
        """There is nothing to close."""


def answers(handler: Handler, event: ServiceEvent, *args: Any, sub_operations: int = 0x0000) -> Answers:
    """Call a handler with a service event, and answer its request as a provider would, without a network.

    What the handler does wrong is the status that the peer gets, and is told in ``fault``. ``args`` are the further
    arguments of the handler, ``sub_operations`` is the status by which each C-STORE sub-operation is answered.

    >>> from rxdicom import evt
    >>> from rxdicom.testing import event
    >>> answers(lambda event: 0x0000, event(evt.EVT_C_ECHO)).status.category
    'Success'
    """
    handlers = Dispatcher()
    handlers.bind(event.event, handler, args)
    kept, sent, opened = _Kept(sub_operations), list[Message](), list[Open]()

    async def send(answer: Message) -> None:
        sent.append(answer)

    def open_route(destination: Open) -> Route:
        opened.append(destination)
        return kept

    performance = SteppedPerformance(handlers, send=send, route=kept, open_route=open_route)
    result: Result = finished(performance.perform(ROWS[event.request.kind], event))
    table = uid_to_service_class(event.context.abstract_syntax).status_table(event.request.name.removesuffix("-RQ"))
    return Answers(
        tuple(_response(answer, table) for answer in (*sent, result.response)),
        tuple(kept.instances),
        (opened[0].address, opened[0].port) if opened else None,
        result.fault,
    )


def _response(answer: Message, table: StatusTable) -> "tuple[Status, Dataset | None]":
    elements = {key: each for key, each in answer.command.items() if key in _ELEMENTS}
    return Status(answer.command["Status"], table, **elements), None if answer.data is None else decode(answer.data)


_ELEMENTS = frozenset(
    {
        "OffendingElement",
        "ErrorComment",
        "ErrorID",
        "AffectedSOPInstanceUID",
        "NumberOfRemainingSuboperations",
        "NumberOfCompletedSuboperations",
        "NumberOfFailedSuboperations",
        "NumberOfWarningSuboperations",
    }
)
