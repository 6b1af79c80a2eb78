"""Requests with several responses (C-FIND, C-GET, C-MOVE): iterated by their caller, or flowing into Rx."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rxdicom.errors import StateError
from rxdicom.events.hub import as_observer, guarded
from rxdicom.runtimes.files import forget
from rxdicom.status import PENDING, Status
from rxdicom.wire.dimse import Message

if TYPE_CHECKING:
    from pydicom import Dataset
    from reactivex import Observable

Pair = tuple[Status, "Dataset | None"]
"""A status, and the dataset that came with it."""

BOUND = 64
"""Responses that wait for their consumer, before the reader reads no more."""
LIMIT = 10_000
"""The same while other operations of the association wait for theirs, so that the reader has to go on."""


def is_final(answer: Message) -> bool:
    """Whether a response is the last one of its operation."""
    return answer.Status not in PENDING


class Exchange:
    """A request on its way through its responses, between the reader and whoever consumes them."""

    __slots__ = (
        "arrived_final",
        "cancel_sent",
        "cap",
        "closed",
        "deadline",
        "error",
        "expected",
        "items",
        "listener",
        "message_id",
        "ready",
        "thread",
    )

    def __init__(self, request: Message, listener: "Callable[[Message | Exception], None] | None" = None) -> None:
        self.message_id = request.MessageID or 0
        self.expected = request.kind | 0x8000
        """The command field of its responses."""
        self.items: deque[Message] = deque()
        self.error: Exception | None = None
        self.deadline: float | None = None
        """When the next response is due; None until the request has left."""
        self.cap: float | None = None
        """When the final response is due, however many come before it."""
        self.arrived_final = False
        self.cancel_sent = False
        self.closed = False
        """Nobody consumes any more: what still comes is dropped."""
        self.listener = listener
        # A finalizer may run while its thread holds this.
        self.ready = threading.Condition(threading.RLock())
        self.thread = threading.get_ident()

    @property
    def is_over(self) -> bool:
        """Whether no response will come any more."""
        return self.arrived_final or self.error is not None

    @property
    def is_ready(self) -> bool:
        """Whether its consumer need not wait."""
        return bool(self.items) or self.error is not None

    @property
    def is_attended(self) -> bool:
        """Whether a thread waits for it, or is going to."""
        return self.listener is None and not self.closed

    @property
    def overdue_at(self) -> float | None:
        """When waiting any longer makes no sense; of responses that are here already, the last one need not be."""
        if self.arrived_final:
            return None
        return self.cap if self.items else self.deadline

    def await_news(self, seconds: float | None) -> None:
        """Wait until it is ready, or ``seconds``, while another thread reads."""
        with self.ready:
            if not self.is_ready:
                self.ready.wait(seconds)

    def take(self) -> Message | None:
        """The next response, None if there is none yet. Raises the error that ended this."""
        with self.ready:
            if self.items:
                return self.items.popleft()
            if self.error is not None:
                raise self.error
        return None

    def accepts(self, answer: Message) -> bool:
        """Whether a response under its message ID can be its own."""
        return answer.CommandField == self.expected

    def within_cap(self, deadline: float, seconds: float | None) -> float:
        """The deadline, but not later than ``seconds`` after this was asked for the first time."""
        if self.cap is None and seconds is not None:
            self.cap = time.monotonic() + seconds
        return deadline if self.cap is None else min(deadline, self.cap)

    def arrived(self, answer: Message) -> None:
        """Note, in the order of the wire, that a response is there."""
        self.arrived_final = self.arrived_final or is_final(answer)

    def complete(self, answer: Message) -> None:
        """Hand a response over; called by the reader, without any lock."""
        if self.closed:
            forget(answer.data)
        elif self.listener is not None:
            self._tell(answer)
        else:
            with self.ready:
                self.items.append(answer)
                self.ready.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """No response will come any more. Only the first call counts."""
        with self.ready:
            if self.is_over or error is None:
                return
            self.error = error
            self.ready.notify_all()
        if not self.closed:
            self._tell(error)

    def _tell(self, what: Message | Exception) -> None:
        """Call the listener as an observer: it must not wait for the network, and what it raises is logged."""
        if self.listener is not None:
            with as_observer():
                guarded(self.listener, what)

    def close(self) -> None:
        """Nobody consumes any more."""
        with self.ready:
            self.closed = True
            dropped = list(self.items)
            self.items.clear()
            self.ready.notify_all()
        for answer in dropped:
            forget(answer.data)


_Item = TypeVar("_Item")


class Results(Generic[_Item]):
    """Results as they come, of something that is done by iterating over this, or by subscribing to it, once.

    Leaving early (:meth:`close`, the end of a ``with`` block, disposing the subscription, or ``break`` where nobody
    else holds this) ends it and waits for nothing. What goes wrong as a whole is raised by the iteration as a typed
    error, and goes to ``on_error`` of a subscription. :meth:`close` is for the thread that iterates.
    """

    def __init__(
        self,
        run: "Callable[[], Generator[_Item]]",
        stream: "Callable[[Callable[[], None]], Observable[_Item]]",
    ) -> None:
        self._run = run
        self._stream = stream
        self._used = False
        self._iterator: Generator[_Item] | None = None

    def _use_once(self) -> None:
        self._check_unused()
        self._used = True

    def _check_unused(self) -> None:
        if self._used:
            raise StateError("these results have been consumed already; ask for them again")

    def __iter__(self) -> Iterator[_Item]:
        if self._iterator is None or getattr(self._iterator, "gi_frame", None) is None:
            self._use_once()
            self._iterator = self._run()
        return self._iterator

    def __next__(self) -> _Item:
        return next(self.__iter__() if self._iterator is None else self._iterator)

    def close(self) -> None:
        """Leave: what has not been done yet is not done, what still comes is dropped."""
        self._used = True
        if self._iterator is not None:
            self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def observable(self) -> "Observable[_Item]":
        """The results as an Observable: subscribing to it starts, disposing the subscription ends it."""
        self._check_unused()
        return self._stream(self._use_once)

    if TYPE_CHECKING:

        def pipe(self, *operators: Any) -> "Observable[Any]":
            """Compose the observable: ``assoc.send_c_find(…).pipe(ops.take(5))`` cancels after five."""
            ...
    else:

        def pipe(self, *operators: Any) -> Any:
            """Compose the observable: ``assoc.send_c_find(…).pipe(ops.take(5))`` cancels after five."""
            return self.observable.pipe(*operators)


class Responses(Results[Pair]):
    """The responses of one request, as pairs of :class:`Status` and dataset; the final one is the last.

    Iterating over this, or subscribing to it, sends the request. Leaving early sends C-CANCEL; the association stays
    usable.
    """

    def __init__(
        self,
        message_id: int,
        run: "Callable[[], Generator[Pair]]",
        stream: "Callable[[Callable[[], None]], Observable[Pair]]",
    ) -> None:
        super().__init__(run, stream)
        self.message_id = message_id
