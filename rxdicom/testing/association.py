"""The association in memory: what users hold in tests, with the words of :class:`rxdicom.Association`.

Everything happens on the current thread, when somebody waits for it or lets the clock go on.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

from rxdicom.errors import (
    AssociationAborted,
    ConnectionFailed,
    StateError,
    TimedOut,
)
from rxdicom.events.hub import forbid_in_observer, in_observer
from rxdicom.log import concerning
from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.runtimes.association import NOWHERE, AssociationState, Setup
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.publisher import Publisher
from rxdicom.testing.performing import Performer
from rxdicom.testing.requests import MemoryRequests
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import Source
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from rxdicom.testing.network import Network

Answer = Callable[["MemoryAssociation", AssociateRQ], AssociateAC | AssociateRJ]
Connect = Callable[["MemoryAssociation"], None]


class MemoryAssociation(AssociationState, MemoryRequests):
    """A DICOM association in memory. Made by :class:`~rxdicom.testing.MemoryAE`, :class:`~rxdicom.testing.MemoryServer`
    and :func:`~rxdicom.testing.pair`.

    It has the words of :class:`rxdicom.Association`, and raises what that raises, at the same virtual time.
    """

    def __init__(
        self,
        setup: Setup,
        network: "Network",
        *,
        request: AssociateRQ | None = None,
        connect: Connect | None = None,
        answer: Answer | None = None,
        on_over: "Callable[[MemoryAssociation], None] | None" = None,
    ) -> None:
        AssociationState.__init__(self, setup, request)
        clock = network.clock
        self._publisher = Publisher(self, (self._bindings.hub, *setup.hubs), lambda: clock.now)
        MemoryRequests.__init__(self, self._protocol, network, setup.timeouts, convert=setup.convert)
        self._performer = Performer(self)
        self._connect = connect
        self._answer = answer
        self._on_over = on_over
        self._addresses = NOWHERE, NOWHERE
        self._settled = False
        self._failure: Exception | None = None
        self._unanswered: AssociateRQ | None = None
        self.is_gone = False
        """Whether its connection is closed."""
        self._log = concerning(self)

    @property
    def _local_address(self) -> tuple[str, int]:
        return self._addresses[0]

    @property
    def _remote_address(self) -> tuple[str, int]:
        return self._addresses[1]

    @property
    def is_current(self) -> bool:
        """Whether one of the handlers of this association is running."""
        return self._performer.is_current

    # ---- its life

    def open(self) -> Self:
        """Connect and negotiate; returns once established.

        Raises what :meth:`rxdicom.Association.open` raises.
        """
        forbid_in_observer("open()")
        if self._opened or self._connect is None or self._request is None:
            raise StateError("this association has been opened before; make a new one")
        self._opened = True
        request = self._request
        self._perform(partial(self._protocol.connect, request))
        try:
            self._connect(self)
        except ConnectionFailed as error:
            self._failure = self._outcome = error
            self._end(str(error))
            raise
        self._network.run_until(lambda: self._settled or self.is_gone)
        if self._outcome is not None:
            self._network.run_until(lambda: self.is_gone)
            raise self._outcome
        refused = self._nothing_accepted()
        if refused is not None:
            self.abort()
            raise refused
        self._network.settle()
        return self

    def connected(self, local: tuple[str, int], remote: tuple[str, int]) -> None:
        """Be told that the connection is there; for networks."""
        self._addresses = local, remote
        requested: list[Produced] = [(Notice.REQUESTED, ())] if self.is_requestor else []
        self._publish([(Notice.CONN_OPEN, (remote,)), *requested])
        self._perform(self._protocol.connection_made)

    def release(self) -> None:
        """Release the association (PS3.8 §7.2) and wait until the connection is closed. Nothing happens if it is over.

        Raises :class:`~rxdicom.errors.TimedOut`, after aborting, when the peer does not answer.
        """
        if in_observer():
            self._performer.put_last(self._request_release)
            return
        self._network.run_until(lambda: self._operations.is_drained)
        if self.is_current:
            self._request_release()
        else:
            self._performer.put_last(self._request_release)
        if self._opened or self.is_acceptor:
            self._network.run_until(lambda: self.is_gone)
        self._network.settle()
        if self._protocol.timed_out == "release":
            raise TimedOut("release", self._setup.timeouts.release)

    def _request_release(self) -> None:
        if self._protocol.state is State.ESTABLISHED:
            self._perform(self._protocol.release)

    def abort(self) -> None:
        """Abort the association (PS3.8 §7.3). It may be called anywhere; the peer knows when this returns, but in
        observers and handlers."""
        self.abandon("")
        self._network.settle()

    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""
        self._perform(lambda now: self._protocol.abort(now, cause))

    def __enter__(self) -> Self:
        return self if self._opened or self.is_acceptor else self.open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    # ---- responses of this side

    @property
    def is_sending(self) -> bool:
        """Whether something waits to be read by the peer."""
        return self._protocol.wants_to_send

    def send_response(self, answer: Message, source: Source | None) -> None:
        """Send a response; for performers. Raises :class:`StateError` where the association is over."""
        self._perform(lambda now: self._protocol.send(answer, source, now))

    def respond(self, answer: Message, source: Source | None) -> None:
        """Send a response; that the association is over by now is nobody's fault."""
        try:
            self.send_response(answer, source)
        except StateError as error:
            self._log.debug("a response was not sent, the association is over: %s", error)

    # ---- what the network does with it

    @property
    def wants_data(self) -> bool:
        """Whether it reads what was sent to it."""
        return not self._operations.is_behind

    def take_data(self) -> bytes | None:
        """The next bytes that it sends, None if there are none."""
        data, produced = self._protocol.data_to_send(self._network.clock.seconds)
        taken = None if data is None else bytes(data)
        self._settle(produced)
        return taken

    @property
    def wants_to_close(self) -> bool:
        """Whether it is to be closed by its own side."""
        over = self._protocol.closing or self._protocol.timed_out is not None
        return over and not self._protocol.wants_to_send and not self.is_gone

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the peer."""
        self._perform(partial(self._protocol.receive_data, memoryview(data)))

    def close(self, cause: str = "") -> None:
        """The connection is closed, by whichever side, or lost for ``cause``."""
        if not self.is_gone:
            self._failure = self._failure or (ConnectionFailed(cause) if cause else None)
            self._end(cause)

    def step(self) -> bool:
        """Do a part of the work that there is. Whether there was any."""
        if self._unanswered is not None and self._answer is not None:
            request, self._unanswered = self._unanswered, None
            answer = self._answer(self, request)
            self._perform(partial(self._respond_to_request, answer))
            return True
        return self._performer.step()

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeouts` is to be called."""
        if self.is_gone:
            return None
        deadlines = (self._protocol.next_deadline(), self._operations.next_deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def handle_timeouts(self) -> None:
        """Act on the deadlines that have passed."""
        if not self.is_gone:
            self._operations.end_overdue()
            self._perform(self._protocol.handle_timeout)

    # ---- one step of the protocol

    def _perform(self, step: Callable[[float], list[Produced]]) -> None:
        self._protocol.watched = self._publisher.mask()
        self._settle(step(self._network.clock.seconds))

    def _settle(self, produced: list[Produced]) -> None:
        """Update the state, let observers see, act on it."""
        self._publish(produced)
        for notice, values in produced:
            act = _ACTIONS.get(notice)
            if act is not None:
                act(self, *values)

    def _publish(self, produced: list[Produced]) -> None:
        for notice, values in produced:
            self._note(notice, values)
        if self._publisher.publish_all(produced):
            self._publisher.deliver(0)

    def _respond_to_request(self, answer: AssociateAC | AssociateRJ, now: float) -> list[Produced]:
        if self._protocol.state is not State.AWAITING_LOCAL_RESPONSE:
            return []
        if isinstance(answer, AssociateRJ):
            return self._protocol.reject(answer, now)
        return self._protocol.accept(answer, now)

    def _end(self, cause: str) -> None:
        self.is_gone = True
        produced = self._protocol.receive_eof(self._network.clock.seconds, cause)
        closed = [] if self._addresses[1] == NOWHERE else [(Notice.CONN_CLOSE, (self._addresses[1],))]
        self._settle([*produced, *closed])
        self._performer.stop()
        if self._outcome is None:
            self._outcome = self._failure or ConnectionFailed("closed before an association was there")
        self._operations.fail_all(self._outcome)
        if self._on_over is not None:
            self._on_over(self)
        self._bindings.hub.complete()
        self._publisher.deliver(0)

    # ---- what the notices mean

    def _why_aborted(self, source: int, reason: int, by: str, cause: str) -> Exception:
        phase = self._protocol.timed_out
        if phase is not None:
            return TimedOut(phase, getattr(self._setup.timeouts, phase))
        return AssociationAborted(source, reason, by, cause)

    def _received(self, message: Message) -> None:
        if message.is_response:
            if not self._operations.complete(message):
                self._log.warning("a response to message %s, which is not outstanding", message)
                forget(message.data)
        elif message.kind is Command.C_CANCEL_RQ:
            self._performer.cancel(message)
        else:
            self._performer.put(message)

    def _sent(self, message: Message) -> None:
        self._operations.sent(message)

    def _not_sent(self, message: Message, error: Exception) -> None:
        if message.is_response:
            self._performer.not_sent(message, error)
        else:
            self._operations.failed(message, error)

    def _requested(self, request: AssociateRQ) -> None:
        self._sinks.source_ae_title = request.calling_ae_title
        self._unanswered = request

    def _release_indicated(self) -> None:
        # Behind the answers to earlier requests.
        self._performer.put_last(self._respond_to_release)

    def _respond_to_release(self) -> None:
        try:
            self._perform(self._protocol.release_response)
        except StateError:
            self._log.debug("no response to a release, it was aborted in between")

    def _on_settled(self, *_: object) -> None:
        self._settled = True

    def _on_ended(self, *_: object) -> None:
        self._settled = True
        self._operations.fail_all(self._over())

    def _on_warning(self, text: str) -> None:
        self._log.warning("%s", text)


_ACTIONS: dict[Notice, Callable[..., None]] = {
    Notice.DIMSE_RECV: MemoryAssociation._received,  # pyright: ignore[reportPrivateUsage]
    Notice.MESSAGE_SENT: MemoryAssociation._sent,  # pyright: ignore[reportPrivateUsage]
    Notice.SEND_FAILED: MemoryAssociation._not_sent,  # pyright: ignore[reportPrivateUsage]
    Notice.REQUESTED: MemoryAssociation._requested,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASE_INDICATED: MemoryAssociation._release_indicated,  # pyright: ignore[reportPrivateUsage]
    Notice.ESTABLISHED: MemoryAssociation._on_settled,  # pyright: ignore[reportPrivateUsage]
    Notice.REJECTED: MemoryAssociation._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.ABORTED: MemoryAssociation._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASED: MemoryAssociation._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.WARNING: MemoryAssociation._on_warning,  # pyright: ignore[reportPrivateUsage]
}
"""What is done about a notice, after its observers have seen it."""
