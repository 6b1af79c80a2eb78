"""The association of the blocking runtime: what users hold, as SCU and as SCP."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from logging import INFO
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from rxdicom.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    NoAcceptedContext,
    RxDicomError,
    StateError,
    TimedOut,
)
from rxdicom.events.bindings import Bindings
from rxdicom.events.dispatcher import Dispatcher, Handler
from rxdicom.events.hub import Hub, forbid_in_observer, in_observer
from rxdicom.events.kinds import EventKind
from rxdicom.log import LOG, concerning, wants_phi
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.fsm import State
from rxdicom.protocol.negotiation import NegotiatedContext
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Limits, Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import SinkFactory, forget
from rxdicom.runtimes.publisher import Publisher
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.inbox import Inbox
from rxdicom.runtimes.threads.requests import Requests
from rxdicom.runtimes.threads.transport import Transport
from rxdicom.service_class import ServiceClass
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.items import UserIdentity, UserItem
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler
    from rxdicom.events.streams import EventStreams
    from rxdicom.runtimes.threads.driver import Dial
    from rxdicom.runtimes.threads.performer import Performer


_AFTER_ABORT = 1.0
"""Seconds for the peer to notice an A-ABORT and close, before the end of a ``with`` block goes on without it."""


@frozen(repr=False)
class Peer:
    """One of the two application entities of an association."""

    ae_title: str
    address: str
    port: int
    user_information: tuple[UserItem, ...] = ()
    """The items of extended negotiation that it sent, as records of :mod:`rxdicom.wire.items`."""
    certificate: dict[str, Any] | None = None
    """The TLS certificate that it showed, as :meth:`ssl.SSLSocket.getpeercert` gives it."""
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None

    @property
    def user_identity(self) -> UserIdentity | None:
        """Who it said that it acts for."""
        return next((item for item in self.user_information if isinstance(item, UserIdentity)), None)

    def __repr__(self) -> str:
        return f"{self.ae_title!r} at {self.address}:{self.port}"


@frozen
class Setup:
    """What an association is made with: by an AE for a requestor, by a server for an acceptor."""

    name: str
    """Names the association in the log."""
    timeouts: Timeouts
    limits: Limits
    hubs: tuple[Hub, ...]
    """Those of the server and the AE, to which its events go as well."""
    handlers: Dispatcher | None = None
    spool_folder: str | None = None
    dial: "Dial | None" = None
    """How associations to C-MOVE destinations are opened."""
    requested: tuple[PresentationContext, ...] = ()
    """The contexts that the AE requests, which those associations propose."""
    convert: bool = True
    """Whether a dataset may be converted to a transfer syntax that was accepted."""


class Association(Requests):
    """A DICOM association (PS3.8 §7). Made by :meth:`AE.associate`, :meth:`AE.association` and servers.

    As a context manager it opens if that has not been done, releases on the way out, and aborts when left by an
    exception.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        request: AssociateRQ | None = None,
        connect: "Callable[[], Transport] | None" = None,
        answer: "Callable[[Association, AssociateRQ], AssociateAC | AssociateRJ] | None" = None,
        on_over: "Callable[[Association], None] | None" = None,
    ) -> None:
        self.name = setup.name
        self._setup = setup
        self._request = request
        self._connect = connect
        self._answer = answer
        self._on_over = on_over
        self._bindings = Bindings(setup.handlers)
        self._bindings.bind_all(_log_observers())
        self._publisher = Publisher(self, (self._bindings.hub, *setup.hubs))
        self._sinks = SinkFactory(setup.limits, setup.spool_folder, "")
        self._protocol = Protocol(
            is_requestor=request is not None, limits=setup.limits, timeouts=setup.timeouts, open_sink=self._sinks
        )
        self._connection = Connection(self._protocol, self, setup.timeouts, f"rxdicom-{setup.name}")
        super().__init__(self._protocol, self._connection, setup.timeouts, convert=setup.convert)
        self._inbox = Inbox(f"rxdicom-{setup.name}", self._performed, self._connection.wake_reader)
        # Made, and its modules loaded, when the peer asks for something.
        self._performer: Performer | None = None
        self._transport: Transport | None = None
        self._opened = False
        # Aborted before there was anything to abort, by an observer of the new connection, say.
        self._abort_wanted = False
        # An observer has held up this association for too long: it waits for none any more.
        self._gave_up = False
        self.service_classes: Mapping[str, ServiceClass] = {}
        """Of SOP classes that nobody registered: what the requestor said by SOP Class Common Extended items."""
        self._outcome: Exception | None = None
        self._settled = threading.Event()
        self._streams: EventStreams | None = None
        self.is_established = False
        self.is_released = False
        self.is_aborted = False
        self.is_rejected = False
        self._log = concerning(self)

    # ---- what it is

    @property
    def is_requestor(self) -> bool:
        return self._protocol.is_requestor

    @property
    def is_acceptor(self) -> bool:
        return not self._protocol.is_requestor

    @property
    def accepted_contexts(self) -> tuple[NegotiatedContext, ...]:
        """The presentation contexts that can be used, with this side's roles."""
        return self._protocol.negotiated.accepted

    @property
    def rejected_contexts(self) -> tuple[NegotiatedContext, ...]:
        return self._protocol.negotiated.rejected

    @property
    def operations_window(self) -> tuple[int, int]:
        """How many operations this side may invoke, and perform, at a time; 0 is unlimited (PS3.7 D.3.3.3)."""
        return self._protocol.negotiated.invoked, self._protocol.negotiated.performed

    @property
    def requestor(self) -> Peer:
        """The application entity that asked for the association; empty as long as it has not."""
        return self._peer(self._protocol.request, remote=self.is_acceptor)

    @property
    def acceptor(self) -> Peer:
        """The application entity that was asked."""
        return self._peer(self._protocol.answer, remote=self.is_requestor)

    def _peer(self, pdu: AssociateRQ | AssociateAC | None, *, remote: bool) -> Peer:
        transport, request = self._transport, self._protocol.request or self._request
        address, port = ("", 0) if transport is None else transport.address if remote else transport.local_address
        title = ""
        if request is not None:
            is_requestor = remote == self.is_acceptor
            title = request.calling_ae_title if is_requestor else request.called_ae_title
        return Peer(
            title,
            address,
            port,
            pdu.user_information if pdu else (),
            transport.certificate if transport is not None and remote else None,
            pdu.implementation_class_uid if pdu else None,
            pdu.implementation_version_name if pdu else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has been released, aborted or rejected. The connection may still be open then."""
        return self.is_released or self.is_aborted or self.is_rejected

    def __repr__(self) -> str:
        return f"<Association {self.name}, {self._protocol.state.label}>"

    @property
    def is_current(self) -> bool:
        """Whether the current thread runs one of the handlers of this association."""
        return self._connection.in_reader or (self._performer is not None and self._performer.is_current)

    # ---- events

    @property
    def handlers(self) -> Dispatcher:
        """The intervention handlers of this association."""
        return self._bindings.dispatcher

    def is_bound(self, event: EventKind[Any]) -> bool:
        """Whether an intervention event has another handler than the default."""
        return self._bindings.dispatcher.is_bound(event)

    @property
    def events(self) -> "EventStreams":
        """An Observable per notification event: ``assoc.events.pdu_recv``, or ``assoc.events[evt.EVT_PDU_RECV]``."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._bindings.hub)
        return self._streams

    def bind(self, event: EventKind[Any], handler: Handler, args: Sequence[Any] | None = None) -> None:
        """Observe a notification event, or handle an intervention event of this association alone."""
        self._bindings.bind(event, handler, args)

    def unbind(self, event: EventKind[Any], handler: Handler) -> None:
        """Stop observing, or put the default handler back."""
        self._bindings.unbind(event, handler)

    # ---- its life

    def open(self) -> Self:
        """Connect and negotiate; returns once established.

        Raises :class:`~rxdicom.errors.ConnectionFailed`, :class:`~rxdicom.errors.AssociationRejected`,
        :class:`~rxdicom.errors.AssociationAborted`, :class:`~rxdicom.errors.NoAcceptedContext` or
        :class:`~rxdicom.errors.TimedOut`.
        """
        forbid_in_observer("open()")
        if self._opened or self._connect is None or self._request is None:
            raise StateError("this association has been opened before; make a new one")
        self._opened = True
        request = self._request
        self._protocol.watched = self.watched()
        self._publish_now(self._protocol.connect(request, time.monotonic()))
        try:
            transport = self._connect()
        except BaseException as error:
            self._end_unconnected(error)
            raise
        try:
            self.start(transport)
            self._settled.wait()
        except (OSError, RuntimeError) as error:
            transport.close()
            self._end_unconnected(error)
            raise ConnectionFailed(f"no resources for another association: {error}") from error
        except BaseException:
            self.abort()
            raise
        if self._outcome is not None:
            self.join(self._setup.timeouts.release)
            raise self._outcome
        if not self.accepted_contexts:
            proposed = [each.abstract_syntax for each in request.presentation_contexts]
            self.abort()
            more = f" and {len(proposed) - 3} more" if len(proposed) > 3 else ""
            raise NoAcceptedContext(", ".join(proposed[:3]) + more, proposed)
        return self

    def start(
        self,
        transport: Transport,
        announce: Callable[[], None] | None = None,
        handshake: Callable[[], None] | None = None,
    ) -> None:
        """Take over a connected transport; for runtimes. The reader starts: it announces the association, tells of
        the connection, shakes hands and goes on, so that no observer and no peer holds up the caller.
        """
        self._transport = transport

        def begin() -> None:
            if announce is not None:
                announce()
            self._publish_now([(Notice.CONN_OPEN, (transport.address,))])
            if handshake is not None:
                handshake()
            if self.is_requestor:
                self._publish_now([(Notice.REQUESTED, ())])
            self._connection.perform(self._protocol.connection_made)
            if self._abort_wanted:
                self.abort()

        self._connection.start(transport, begin)

    def _publish_now(self, produced: list[Produced]) -> None:
        self.publish(produced)
        self.deliver()

    def _end_unconnected(self, error: BaseException) -> None:
        produced = self._protocol.receive_eof(time.monotonic(), str(error))
        self._publish_now(produced)
        self._outcome = error if isinstance(error, Exception) else None
        self.lost()

    def release(self) -> None:
        """Release the association (PS3.8 §7.2) and wait until the connection is closed. Nothing happens if it is over.

        Called by an observer, or a second time, it does not wait. Raises :class:`~rxdicom.errors.TimedOut`, after
        aborting, when the peer does not answer.
        """
        self._operations.room(ending=True)
        if self.is_current or in_observer():
            self._request_release()
        else:
            # What the peer has asked for is answered before the end, and what it was asked for and left is drained.
            self._operations.await_drained()
            self._inbox.put_last(self._request_release)
        self._connection.wake_reader()
        if not in_observer():
            self._wait_until_over()

    def _request_release(self) -> None:
        if self._protocol.state is State.ESTABLISHED:
            try:
                self._connection.perform(self._protocol.release, may_wait=not in_observer())
            except StateError:
                self._log.debug("not released: the peer was faster")

    def _wait_until_over(self) -> None:
        seconds = self._setup.timeouts.release
        deadline = None if seconds is None else time.monotonic() + 2 * seconds
        if self._connection.in_reader:
            # The reader itself closes once it is back in its loop: here it only waits for the answer.
            while self._protocol.state not in (State.IDLE, State.AWAITING_CLOSE):
                self._pump(deadline)
        else:
            over = self.join(None if seconds is None else 2 * seconds)
            if not over:
                self.abort()
                raise TimedOut("release", seconds)
        if self._protocol.timed_out == "release":
            raise TimedOut("release", seconds)

    def abort(self) -> None:
        """Abort the association (PS3.8 §7.3). It waits for nothing, and may be called anywhere."""
        self.abandon("")

    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""
        self._abort_wanted = True
        self._connection.perform(lambda now: self._protocol.abort(now, cause), may_wait=False)

    def interrupt(self) -> None:
        """Cut the connection, if it still is there, without waiting for the peer to close it."""
        self._connection.interrupt(AssociationAborted(by="local", cause="cut by shutdown"))

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the association is over and its resources are given back. Whether it is."""
        return self._connection.join(timeout)

    def __enter__(self) -> Self:
        return self if self._opened or self.is_acceptor else self.open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()
            if not in_observer():
                # The reader goes on waiting for a peer that does not close; whoever is in a hurry need not.
                self.join(_AFTER_ABORT)

    # ---- what requests need

    def _over(self) -> Exception:
        """Why nothing can be sent."""
        if self._outcome is not None:
            return self._outcome
        if not self._opened and self.is_requestor:
            return StateError("the association is not open; call open(), or use it in a with statement")
        return AssociationReleased("the association is being released; open a new one to go on")

    def _pump(self, deadline: float | None) -> None:
        try:
            self._connection.pump(deadline)
        except (OSError, RxDicomError) as error:
            raise AssociationAborted(by="transport", cause=str(error)) from error

    # ---- the owner of the connection

    def watched(self) -> int:
        return self._publisher.mask

    def publish(self, produced: list[Produced]) -> bool:
        for notice, values in produced:
            react = _REACTIONS.get(notice)
            if react is not None:
                react(self, *values)
        return self._publisher.publish_all(produced)

    def deliver(self, *, may_wait: bool = True) -> None:
        seconds = self._setup.timeouts.observer if may_wait and not self._gave_up else 0.0
        if not self._publisher.deliver(seconds):
            self._gave_up = True
            self.abandon("timed out in phase 'observer'")

    def handle(self, produced: list[Produced]) -> None:
        for notice, values in produced:
            act = _ACTIONS.get(notice)
            if act is not None:
                act(self, *values)

    def work(self) -> None:
        self._inbox.work()

    def is_alone(self) -> bool:
        return self._operations.is_alone()

    def next_deadline(self) -> float | None:
        return self._operations.next_deadline()

    def handle_timeout(self, now: float) -> None:
        if self._operations.end_overdue(now):
            self.abandon("timed out in phase 'response'")

    def lost(self) -> None:
        if self._performer is not None:
            self._performer.stop()
        self._inbox.stop()
        if self._outcome is None:
            failure = self._connection.failure
            known = isinstance(failure, ConnectionFailed | TimedOut)
            self._outcome = failure if known else ConnectionFailed("closed before an association was there")
        self._operations.fail_all(self._outcome)
        self._settled.set()
        if self._on_over is not None:
            self._on_over(self)
        self._bindings.hub.complete()
        self.deliver()

    def _received(self, message: Message) -> None:
        if message.is_response:
            if not self._operations.complete(message):
                self._log.warning("a response to message %s, which is not outstanding", message)
                forget(message.data)
        elif message.kind is Command.C_CANCEL_RQ:
            self._provider().cancel(message)
        elif self._inbox.admits(reader=self._connection.in_reader):
            provider = self._provider()
            provider.expect(message)
            self._inbox.put(partial(provider.perform, message))
        else:
            forget(message.data)
            self.abandon("the peer sent more requests than its window allows")

    def _provider(self) -> "Performer":
        """Who performs what the peer asks for. Called by who has the read turn, or after there is one."""
        if self._performer is None:
            from rxdicom.runtimes.threads.performer import Performer

            self._performer = Performer(
                self,
                self._connection,
                self._protocol,
                self._bindings.dispatcher,
                self._setup.dial,
                self._setup.requested,
                self._inbox.finish,
            )
        return self._performer

    def _performed(self) -> int:
        return self._protocol.negotiated.performed

    def _sent(self, message: Message) -> None:
        self._operations.sent(message)

    def _not_sent(self, message: Message, error: Exception) -> None:
        if message.is_response:
            self._provider().not_sent(message, error)
        else:
            self._operations.failed(message, error)

    def _release_indicated(self) -> None:
        # Behind the answers to earlier requests; but who performs one and waits for a response gets none any more.
        if self._connection.in_reader and not self._inbox.is_pending:
            self._respond_to_release()
        else:
            self._inbox.put_last(self._respond_to_release)

    def _respond_to_release(self) -> None:
        try:
            self._connection.perform(self._protocol.release_response)
        except StateError:
            self._log.debug("no response to a release, it was aborted in between")

    def _requested(self, request: AssociateRQ) -> None:
        if self._answer is None:
            return
        self._sinks.source_ae_title = request.calling_ae_title
        answer = self._answer(self, request)

        def respond(now: float) -> list[Produced]:
            if self._protocol.state is not State.AWAITING_LOCAL_RESPONSE:
                return []
            if isinstance(answer, AssociateRJ):
                return self._protocol.reject(answer, now)
            return self._protocol.accept(answer, now)

        self._connection.perform(respond)

    # ---- what the notices mean for the state that users see

    def _on_message(self, message: Message) -> None:
        if message.is_response:
            self._operations.arrived(message)

    def _on_established(self) -> None:
        self.is_established = True

    def _on_rejected(self, result: int, source: int, reason: int) -> None:
        self.is_rejected = True
        self._outcome = AssociationRejected(result, source, reason)

    def _on_released(self) -> None:
        self.is_established, self.is_released = False, True
        self._outcome = AssociationReleased()

    def _on_aborted(self, source: int, reason: int, by: str, cause: str) -> None:
        self.is_established, self.is_aborted = False, True
        phase = self._protocol.timed_out
        failure = self._connection.failure
        if isinstance(failure, TimedOut):
            self._outcome = failure
        elif phase is not None:
            self._outcome = TimedOut(phase, getattr(self._setup.timeouts, phase))
        else:
            self._outcome = AssociationAborted(source, reason, by, cause)

    def _on_settled(self, *_: object) -> None:
        self._settled.set()

    def _on_ended(self, *_: object) -> None:
        self._operations.fail_all(self._over())
        self._settled.set()

    def _on_warning(self, text: str) -> None:
        self._log.warning("%s", text)


def _log_observers() -> "list[EventHandler]":
    """Those that the level of the logger asks for, which by default are none."""
    if not (LOG.isEnabledFor(INFO) or wants_phi()):
        return []
    from rxdicom.events.journal import observers

    return observers()


_ACTIONS: dict[Notice, Callable[..., None]] = {
    Notice.DIMSE_RECV: Association._received,  # pyright: ignore[reportPrivateUsage]
    Notice.MESSAGE_SENT: Association._sent,  # pyright: ignore[reportPrivateUsage]
    Notice.SEND_FAILED: Association._not_sent,  # pyright: ignore[reportPrivateUsage]
    Notice.REQUESTED: Association._requested,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASE_INDICATED: Association._release_indicated,  # pyright: ignore[reportPrivateUsage]
    Notice.ESTABLISHED: Association._on_settled,  # pyright: ignore[reportPrivateUsage]
    Notice.REJECTED: Association._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.ABORTED: Association._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASED: Association._on_ended,  # pyright: ignore[reportPrivateUsage]
    Notice.WARNING: Association._on_warning,  # pyright: ignore[reportPrivateUsage]
}
"""What is done about a notice, after its observers have seen it."""

_REACTIONS: dict[Notice, Callable[..., None]] = {
    Notice.DIMSE_RECV: Association._on_message,  # pyright: ignore[reportPrivateUsage]
    Notice.ESTABLISHED: Association._on_established,  # pyright: ignore[reportPrivateUsage]
    Notice.REJECTED: Association._on_rejected,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASED: Association._on_released,  # pyright: ignore[reportPrivateUsage]
    Notice.ABORTED: Association._on_aborted,  # pyright: ignore[reportPrivateUsage]
}

__all__ = ["Association", "Peer", "Setup"]
