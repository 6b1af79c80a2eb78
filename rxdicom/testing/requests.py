"""How an association in memory sends the requests of its user: what waits lets the network go on until it is done."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rxdicom.errors import (
    ArgumentError,
    AssociationAborted,
    DatasetError,
    NoAcceptedContext,
    RxDicomError,
    StateError,
    TimedOut,
)
from rxdicom.events.hub import as_observer, forbid_in_observer
from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.batches import Sent, Totals
from rxdicom.runtimes.requests import Pair, UserRequests
from rxdicom.runtimes.threads.responses import Responses, Results
from rxdicom.runtimes.user import Preparation, Request
from rxdicom.services.outcome import PENDING
from rxdicom.status import Status
from rxdicom.testing.operations import Exchange, Operations
from rxdicom.wire.dimse import Command, Message

if TYPE_CHECKING:
    from reactivex import Observable

    from rxdicom.testing.network import Network

_Item = TypeVar("_Item")

_OF_ONE = (ArgumentError, NoAcceptedContext, DatasetError, OSError)
"""What may be wrong with one object of a batch, as long as the association is there."""


class Transfer(Results[Sent]):
    """What becomes of the objects of a batch; ``totals`` counts them."""

    totals = Totals()


class MemoryRequests(UserRequests[Status, Pair, Responses, Transfer, None]):
    """What :class:`~rxdicom.testing.MemoryAssociation` sends."""

    is_established: bool

    def __init__(self, protocol: Protocol, network: "Network", timeouts: Timeouts, *, convert: bool) -> None:
        super().__init__(protocol, convert=convert)
        self._network = network
        self._operations = Operations(
            timeouts, lambda: network.clock.seconds, lambda: protocol.last_activity, self.abandon
        )

    @abstractmethod
    def _over(self) -> Exception:
        """Why nothing can be sent."""

    @abstractmethod
    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""

    @abstractmethod
    def _perform(self, step: Callable[[float], list[Produced]]) -> None:
        """Take one step of the protocol."""

    # ---- one response

    def _ask_status(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Status:
        return self._lone_status(*self._exchange(kind, msg_id, prepare))

    def _ask_pair(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Pair:
        return self._pair(*self._exchange(kind, msg_id, prepare))

    def _exchange(self, kind: Command, msg_id: int | None, prepare: Preparation) -> tuple[Message, Message]:
        exchange, request = self._begin(kind, msg_id, prepare)
        try:
            answer = self._next_of(exchange)
        except TimedOut:
            # It does not keep the association from being idle.
            self._protocol.invoked.discard(exchange.message_id)
            raise
        self._network.settle()
        return request, answer

    def _begin(self, kind: Command, msg_id: int | None, prepare: Preparation) -> tuple[Exchange, Message]:
        forbid_in_observer("a request")
        self._check_established()
        negotiated = self._protocol.negotiated
        exchange = self._operations.begin(kind, msg_id, negotiated.invoked)
        try:
            request = prepare(negotiated, exchange.message_id)
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise
        return exchange, request.message

    def _check_established(self) -> None:
        if not self.is_established:
            raise self._over()

    def _send(self, request: Request) -> None:
        try:
            self._perform(lambda now: self._protocol.send(request.message, request.source, now))
        except StateError:
            request.close()
            raise self._over() from None

    def _next_of(self, exchange: Exchange) -> Message:
        """The next response. Raises what ended the exchange; that is TimedOut when none comes in time."""
        self._network.run_until(lambda: exchange.is_ready)
        if exchange.items:
            return exchange.items.popleft()
        raise exchange.error or AssociationAborted()

    # ---- several responses

    def _send_cancel(self, msg_id: int, context_id: int | None, query_model: str | None) -> None:
        self._check_established()
        self._send(Request(self._cancel(msg_id, context_id, query_model)))

    def _ask_many(self, msg_id: int | None, prepare: Preparation) -> Responses:
        forbid_in_observer("a request")
        self._check_established()
        message_id = self._operations.next_id(msg_id)
        request = prepare(self._protocol.negotiated, message_id)
        run = partial(self._iterate, request)
        return Responses(message_id, run, partial(_observable, run))

    def _iterate(self, request: Request) -> Generator[Pair]:
        asked = request.message
        self._check_established()
        exchange = Exchange(asked.kind, asked.MessageID or 0)
        self._operations.register(exchange, self._protocol.negotiated.invoked)
        try:
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise
        try:
            while True:
                answer = self._next_of(exchange)
                yield self._pair(asked, answer)
                if answer.Status not in PENDING:
                    return
        finally:
            self._leave(exchange, asked.context_id)

    def _leave(self, exchange: Exchange, context_id: int) -> None:
        """Nobody consumes any more: cancel what is still running."""
        # The association may be on its way out, and the operation ends with it.
        if self._operations.leave(exchange) and self._protocol.state is State.ESTABLISHED:
            cancel = self._cancel(exchange.message_id, context_id)
            self._perform(lambda now: self._protocol.send(cancel, None, now))
        self._network.settle()

    # ---- many requests

    def _send_batch(self, instances: Iterable[Any], priority: int) -> Transfer:
        forbid_in_observer("a request")

        def run() -> Generator[Sent]:
            for sent in self._store_all(instances, priority):
                transfer.totals = transfer.totals.with_one(sent)
                yield sent

        transfer = Transfer(run, partial(_observable, run))
        return transfer

    def _store_all(self, instances: Iterable[Any], priority: int) -> Generator[Sent]:
        """What becomes of each, with as many outstanding as the window allows."""
        running: list[tuple[Any, Exchange, Message]] = []
        for instance in instances:
            try:
                running.append((instance, *self._begin(Command.C_STORE_RQ, None, self._storing(instance, priority))))
            except _OF_ONE as error:
                self._check_established()
                yield Sent(instance, error=error)
            window = self._protocol.negotiated.invoked
            while window and self._operations.running >= window:
                yield self._first_over(running)
        while running:
            yield self._first_over(running)

    def _first_over(self, running: list[tuple[Any, Exchange, Message]]) -> Sent:
        self._network.run_until(lambda: any(each.is_ready for _, each, _ in running))
        over = next(each for each in running if each[1].is_ready)
        running.remove(over)
        instance, exchange, request = over
        try:
            answer = self._next_of(exchange)
        except _OF_ONE as error:
            self._check_established()
            self._protocol.invoked.discard(exchange.message_id)
            return Sent(instance, error=error)
        size = 0 if request.data is None else request.data.size
        return Sent(instance, self._lone_status(request, answer), size=size)


def _observable(run: Callable[[], Generator[_Item]], use_once: Callable[[], None]) -> "Observable[_Item]":
    """What ``run`` gives, as an Observable: subscribing to it runs it to its end, disposing leaves it."""
    from reactivex.scheduler import CurrentThreadScheduler

    from rxdicom.events.streams import response_stream

    def subscribe(
        on_next: Callable[[_Item], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
    ) -> Callable[[], None]:
        left = False

        def leave() -> None:
            nonlocal left
            left = True

        def emit(*_: Any) -> None:
            items = run()
            try:
                for item in items:
                    with as_observer():
                        on_next(item)
                    if left:
                        break
            except (RxDicomError, OSError) as error:
                on_error(error)
            else:
                on_completed()
            finally:
                items.close()

        try:
            forbid_in_observer("a request")
            use_once()
        except RxDicomError as error:
            on_error(error)
        else:
            # Only when the whole chain of operators is there can one of them, such as take, end it in time.
            CurrentThreadScheduler.singleton().schedule(emit)
        return leave

    return response_stream(subscribe)
