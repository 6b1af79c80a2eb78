"""The requests of this side that are outstanding: message IDs, the window, their deadlines, and who awaits them."""

import asyncio
from collections import deque
from collections.abc import Callable

from rxdicom.errors import PeerProtocolError, StateError, TimedOut
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.aio.connection import Connection, earliest
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.user import MessageIDs
from rxdicom.status import PENDING
from rxdicom.wire.dimse import Command, Message

BOUND = 64
"""Responses that wait for their consumer, before nothing more is read."""
LIMIT = 10_000
"""The same while other operations of the association wait for theirs, so that reading has to go on."""
_SEVERAL = (Command.C_FIND_RQ, Command.C_GET_RQ, Command.C_MOVE_RQ)


def is_final(answer: Message) -> bool:
    """Whether a response is the last one of its operation."""
    return answer.Status not in PENDING


class Exchange:
    """A request on its way through its response, or responses, to whoever consumes them."""

    def __init__(self, kind: Command, message_id: int) -> None:
        self.message_id = message_id
        self.kind = kind
        self.iterates = kind in _SEVERAL
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
        self.waiter: asyncio.Future[None] | None = None
        self.task = asyncio.current_task()

    @property
    def is_over(self) -> bool:
        """Whether no response will come any more."""
        return self.arrived_final or self.error is not None

    @property
    def is_awaited(self) -> bool:
        """Whether its deadline matters to anybody: while its consumer is busy with earlier responses it does not."""
        return self.waiter is not None or self.closed

    def accepts(self, answer: Message) -> bool:
        """Whether a response under its message ID can be its own."""
        return answer.CommandField == self.kind | 0x8000 and (self.iterates or is_final(answer))

    def put(self, answer: Message) -> None:
        """Hand a response over."""
        if self.closed:
            forget(answer.data)
        else:
            self.items.append(answer)
            self.wake()

    def end(self, error: Exception) -> None:
        """No response will come any more. Only the first call counts."""
        if not self.is_over:
            self.error = error
            self.wake()

    def wake(self) -> None:
        """Have its consumer, if it waits, look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def close(self) -> None:
        """Nobody consumes any more."""
        self.closed = True
        while self.items:
            forget(self.items.popleft().data)


class Operations:
    """All outstanding operations of an association."""

    def __init__(
        self, connection: Connection, protocol: Protocol, timeouts: Timeouts, abandon: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._timeouts = timeouts
        self._abandon = abandon
        self._outstanding: dict[int, Exchange] = {}
        self._ids = MessageIDs(self._outstanding)
        # Who waits for a place in the window, or for operations to be drained.
        self._waiting: list[asyncio.Future[None]] = []
        self._over: Exception | None = None

    # ---- places in the window

    def next_id(self, msg_id: int | None) -> int:
        """A message ID to be used: the given one, or the next that is free.

        Raises :class:`~rxdicom.errors.ArgumentError` for one that is outstanding or no message ID.
        """
        return self._ids.next(msg_id)

    async def register(self, exchange: Exchange, window: int) -> None:
        """Take a place in the window (0 is unlimited), or wait for one."""
        seconds = self._timeouts.response
        deadline = None if seconds is None else self._connection.now() + seconds
        while True:
            self._ids.check(exchange.message_id)
            if self._over is not None:
                raise self._over
            # Who has its last response is out of the window, though its consumer may not have gone on yet.
            running = [each for each in self._outstanding.values() if not each.is_over]
            if not window or len(running) < window:
                self._outstanding[exchange.message_id] = exchange
                return
            if any(each.iterates and not each.closed and each.task is exchange.task for each in running):
                raise StateError("responses that this task has not consumed fill the window; finish them first")
            if not await self._change(deadline):
                raise TimedOut("response", seconds)

    def remove(self, exchange: Exchange) -> None:
        """Give the place back."""
        if self._outstanding.get(exchange.message_id) is exchange:
            del self._outstanding[exchange.message_id]
            self._changed()

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _change(self, deadline: float | None) -> bool:
        """Wait until a place is given back, as one of those for whom reading goes on. False at the deadline."""
        changed = asyncio.get_running_loop().create_future()
        self._waiting.append(changed)
        self._connection.look()
        try:
            async with asyncio.timeout_at(deadline):
                await changed
        except TimeoutError:
            return False
        finally:
            if changed in self._waiting:
                self._waiting.remove(changed)
        return True

    async def drained(self) -> None:
        """Wait until operations that were left early have had their final response, or are overdue.

        Some peers do not answer a release request that comes before that.
        """
        while any(each.cancel_sent and not each.is_over for each in self._outstanding.values()):
            await self._change(None)

    # ---- waiting for responses

    async def next_of(self, exchange: Exchange) -> Message:
        """The next response. Raises what ended the exchange, or TimedOut when none comes in time."""
        while not exchange.items:
            if exchange.error is not None:
                raise exchange.error
            due = self._due(exchange)
            if due is not None and self._connection.now() >= due:
                raise TimedOut("response", self._timeouts.response)
            exchange.waiter = asyncio.get_running_loop().create_future()
            # What is due is waited for from now on, and reading goes on, however full the buffer of another is.
            self._connection.look()
            try:
                await exchange.waiter
            finally:
                exchange.waiter = None
        answer = exchange.items.popleft()
        if len(exchange.items) == BOUND // 2:
            self._connection.look()
        return answer

    def _due(self, exchange: Exchange) -> float | None:
        """When waiting any longer makes no sense. The instances of a C-GET are as good as its pending responses."""
        if exchange.arrived_final or exchange.deadline is None or exchange.kind is not Command.C_GET_RQ:
            return exchange.deadline
        heard = self._protocol.last_activity + (self._timeouts.response or 0)
        return max(exchange.deadline, heard if exchange.cap is None else min(heard, exchange.cap))

    @property
    def is_behind(self) -> bool:
        """Whether a consumer has so much to consume that nothing more is to be read.

        Not for ever: other operations of the association that wait for their responses have it go on, and an exchange
        that then falls too far behind is given up.
        """
        full = any(len(each.items) >= BOUND for each in self._outstanding.values())
        return full and not (self._waiting or any(each.waiter for each in self._outstanding.values()))

    # ---- what the peer says

    def sent(self, message: Message) -> None:
        """A request has left: its response is due from now on."""
        exchange = self._outstanding.get(message.MessageID or 0)
        if exchange is not None:
            self._rearm(exchange)

    def _rearm(self, exchange: Exchange) -> None:
        seconds = self._timeouts.response
        if seconds is None or exchange.cancel_sent:
            return
        now = self._connection.now()
        exchange.deadline = now + seconds
        if exchange.iterates:
            if exchange.cap is None and self._timeouts.operation is not None:
                exchange.cap = now + self._timeouts.operation
            exchange.deadline = earliest(exchange.deadline, exchange.cap)

    def arrived(self, answer: Message) -> None:
        """Note that a response is there, whatever observers of it do before it is handed over."""
        exchange = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if exchange is not None and exchange.accepts(answer) and is_final(answer):
            exchange.arrived_final = True

    def complete(self, answer: Message) -> bool:
        """Hand a response over. False if nothing was outstanding under its message ID."""
        exchange = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if exchange is None:
            return False
        if not exchange.accepts(answer):
            self._refuse(exchange, answer)
            return True
        self._rearm(exchange)
        exchange.put(answer)
        if is_final(answer):
            self.remove(exchange)
        elif len(exchange.items) > LIMIT:
            self._give_up(exchange, StateError(f"more than {LIMIT} responses wait for their consumer; read faster"))
        return True

    def _refuse(self, exchange: Exchange, answer: Message) -> None:
        """A response of another command: its Success would be that of another operation."""
        request = exchange.kind.message_name
        fault = f"{request} {exchange.message_id} answered by {answer.name} with status 0x{answer.Status or 0:04X}"
        forget(answer.data)
        self._give_up(exchange, PeerProtocolError(f"{fault}; the association is aborted"))
        self._abandon(fault)

    def _give_up(self, exchange: Exchange, error: Exception) -> None:
        exchange.end(error)
        self.remove(exchange)

    def failed(self, message: Message, error: Exception) -> None:
        """A request could not be sent."""
        exchange = self._outstanding.get(message.MessageID or 0)
        if exchange is not None:
            self._give_up(exchange, error)

    def fail_all(self, error: Exception) -> None:
        """No response will come any more."""
        self._over = self._over or error
        exchanges = tuple(self._outstanding.values())
        # A last response that is here already is handed over still, once its observers, one of whom ended this, return.
        for exchange in exchanges:
            if not exchange.arrived_final:
                del self._outstanding[exchange.message_id]
        for exchange in exchanges:
            exchange.end(error)
        self._changed()

    # ---- deadlines

    def next_deadline(self) -> float | None:
        """When the next response is due of those that somebody waits for, or that are drained."""
        if not self._outstanding:
            return None
        return earliest(*(self._due(each) for each in self._outstanding.values() if each.is_awaited))

    def handle_timeout(self, now: float) -> None:
        """Act on what is overdue: tell who waits, and give up what nobody waits for."""
        for exchange in tuple(self._outstanding.values()):
            due = self._due(exchange) if exchange.is_awaited else None
            if due is None or now < due:
                continue
            if exchange.waiter is not None:
                # It looks at the time again.
                exchange.wake()
            elif exchange.iterates:
                self._give_up(exchange, TimedOut("response", self._timeouts.response))
                self._abandon("timed out in phase 'response'")
            else:
                self.drop(exchange)

    def drop(self, exchange: Exchange) -> None:
        """Expect no response any more; the association may be idle without it."""
        self._protocol.invoked.discard(exchange.message_id)
        self.remove(exchange)
