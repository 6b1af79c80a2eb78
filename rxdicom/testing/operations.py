"""The requests of one side that are outstanding, in virtual time: message IDs, the window, deadlines."""

from collections import deque
from collections.abc import Callable

from rxdicom.errors import PeerProtocolError, StateError, TimedOut
from rxdicom.protocol.policy import Timeouts
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.user import MessageIDs
from rxdicom.services.outcome import PENDING
from rxdicom.wire.dimse import Command, Message

BOUND = 64
"""Responses that wait for their consumer, before nothing more is read."""
_SEVERAL = (Command.C_FIND_RQ, Command.C_GET_RQ, Command.C_MOVE_RQ)


class Exchange:
    """A request on its way through its responses."""

    def __init__(self, kind: Command, message_id: int) -> None:
        self.kind = kind
        self.message_id = message_id
        self.items: deque[Message] = deque()
        self.error: Exception | None = None
        self.deadline: float | None = None
        """When the next response is due; None until the request has left."""
        self.cap: float | None = None
        """When the final one is."""
        self.arrived_final = False
        self.closed = False
        """Nobody consumes any more."""

    @property
    def is_over(self) -> bool:
        """Whether no response will come any more."""
        return self.arrived_final or self.error is not None

    @property
    def is_ready(self) -> bool:
        """Whether its consumer need not wait."""
        return bool(self.items) or self.error is not None

    def accepts(self, answer: Message) -> bool:
        """Whether a response under its message ID can be its own."""
        return answer.CommandField == self.kind | 0x8000 and (self.kind in _SEVERAL or answer.Status not in PENDING)

    def end(self, error: Exception) -> None:
        """No response will come any more. Only the first call counts."""
        if not self.is_over:
            self.error = error

    def drop(self) -> None:
        """Drop what is there: nobody consumes it."""
        while self.items:
            forget(self.items.popleft().data)


class Operations:
    """All outstanding requests of an association."""

    def __init__(
        self,
        timeouts: Timeouts,
        now: Callable[[], float],
        last_heard: Callable[[], float],
        abandon: Callable[[str], None],
    ) -> None:
        self._timeouts = timeouts
        self._now = now
        self._last_heard = last_heard
        self._abandon = abandon
        self._outstanding: dict[int, Exchange] = {}
        self._ids = MessageIDs(self._outstanding)

    def begin(self, kind: Command, msg_id: int | None, window: int) -> Exchange:
        """A new exchange with a place in the window (0 is unlimited); :meth:`remove` gives it back."""
        exchange = Exchange(kind, self.next_id(msg_id))
        self.register(exchange, window)
        return exchange

    def next_id(self, msg_id: int | None) -> int:
        """A message ID to be used: the given one, or the next that is free."""
        return self._ids.next(msg_id)

    def register(self, exchange: Exchange, window: int) -> None:
        """Take a place in the window. There is one thread: that there is none now is an error."""
        if window and self.running >= window:
            raise StateError("requests that are not finished fill the window; consume their responses first")
        self._outstanding[exchange.message_id] = exchange

    @property
    def running(self) -> int:
        """How many places of the window are taken."""
        return sum(not each.is_over for each in self._outstanding.values())

    @property
    def is_drained(self) -> bool:
        """Whether there is nothing that was left early and has not been answered yet."""
        return not any(each.closed and not each.is_over for each in self._outstanding.values())

    @property
    def is_behind(self) -> bool:
        """Whether a consumer has so much to consume that nothing more is to be read."""
        return any(len(each.items) >= BOUND for each in self._outstanding.values())

    def leave(self, exchange: Exchange) -> bool:
        """Nobody consumes any more. Whether the peer is still at it: then it is to be told, and has its time again."""
        exchange.closed = True
        exchange.drop()
        if self._outstanding.get(exchange.message_id) is not exchange:
            return False
        exchange.error = None
        seconds = self._timeouts.response
        exchange.deadline = None if seconds is None else self._now() + seconds
        return True

    def remove(self, exchange: Exchange) -> None:
        """Give the place back."""
        if self._outstanding.get(exchange.message_id) is exchange:
            del self._outstanding[exchange.message_id]

    # ---- what happens to them

    def sent(self, request: Message) -> None:
        """A request has left: its response is due from now on."""
        exchange = self._outstanding.get(request.MessageID or 0)
        if exchange is not None:
            self._rearm(exchange)

    def _rearm(self, exchange: Exchange) -> None:
        seconds, most = self._timeouts.response, self._timeouts.operation
        if seconds is None:
            return
        exchange.deadline = self._now() + seconds
        if exchange.kind in _SEVERAL and most is not None:
            exchange.cap = exchange.cap or self._now() + most
            exchange.deadline = min(exchange.deadline, exchange.cap)

    def due(self, exchange: Exchange) -> float | None:
        """When waiting any longer makes no sense. The instances of a C-GET are as good as its pending responses."""
        if exchange.is_over or exchange.deadline is None or exchange.kind is not Command.C_GET_RQ:
            return None if exchange.is_over else exchange.deadline
        heard = self._last_heard() + (self._timeouts.response or 0)
        return max(exchange.deadline, heard if exchange.cap is None else min(heard, exchange.cap))

    def complete(self, answer: Message) -> bool:
        """Hand a response over. False if nothing was outstanding under its message ID."""
        exchange = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if exchange is None:
            return False
        if not exchange.accepts(answer):
            request = exchange.kind.message_name
            fault = f"{request} {exchange.message_id} answered by {answer.name} with status 0x{answer.Status or 0:04X}"
            forget(answer.data)
            self._end(exchange, PeerProtocolError(f"{fault}; the association is aborted"))
            self._abandon(fault)
            return True
        if not exchange.closed:
            self._rearm(exchange)
        exchange.items.append(answer)
        exchange.arrived_final = answer.Status not in PENDING
        if exchange.closed:
            exchange.drop()
        if exchange.arrived_final:
            self.remove(exchange)
        return True

    def failed(self, request: Message, error: Exception) -> None:
        """A request could not be sent."""
        exchange = self._outstanding.get(request.MessageID or 0)
        if exchange is not None:
            self._end(exchange, error)

    def fail_all(self, error: Exception) -> None:
        """No response will come any more."""
        for exchange in tuple(self._outstanding.values()):
            self._end(exchange, error)

    def _end(self, exchange: Exchange, error: Exception) -> None:
        exchange.end(error)
        self.remove(exchange)

    # ---- deadlines

    def next_deadline(self) -> float | None:
        """When the next response is due."""
        return min((due for each in self._outstanding.values() if (due := self.due(each)) is not None), default=None)

    def end_overdue(self) -> None:
        """End what is overdue. What was left early and is not even answered then ends the association."""
        for exchange in tuple(self._outstanding.values()):
            due = self.due(exchange)
            if due is None or self._now() < due:
                continue
            exchange.end(TimedOut("response", self._timeouts.response))
            if exchange.closed:
                self.remove(exchange)
                self._abandon("timed out in phase 'response'")
