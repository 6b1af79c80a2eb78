"""The association of the blocking runtime: what users hold, as SCU and as SCP."""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from rxdicom.errors import (
    AssociationAborted,
    ConnectionFailed,
    RxDicomError,
    StateError,
    TimedOut,
)
from rxdicom.events.hub import forbid_in_observer, in_observer
from rxdicom.log import concerning
from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.runtimes.association import NOWHERE, REACTIONS, AssociationState, Setup
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.inbox import Inbox
from rxdicom.runtimes.threads.requests import Requests
from rxdicom.runtimes.threads.transport import Transport
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.performer import Performer


_AFTER_ABORT = 1.0
"""Seconds for the peer to notice an A-ABORT and close, before the end of a ``with`` block goes on without it."""


class Association(AssociationState, Requests):
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
        AssociationState.__init__(self, setup, request)
        self._connect = connect
        self._answer = answer
        self._on_over = on_over
        self.watched = self._publisher.mask
        self._connection = Connection(self._protocol, self, setup.timeouts, f"rxdicom-{setup.name}")
        Requests.__init__(self, self._protocol, self._connection, setup.timeouts, convert=setup.convert)
        self._inbox = Inbox(f"rxdicom-{setup.name}", self._connection.wake_reader)
        # What the connection asks of its owner is answered by its parts.
        self.is_alone, self.next_deadline = self._operations.is_alone, self._operations.next_deadline
        self.work = self._inbox.work
        # Made, and its modules loaded, when the peer asks for something.
        self._performer: Performer | None = None
        self._transport: Transport | None = None
        # Aborted before there was anything to abort, by an observer of the new connection, say.
        self._abort_wanted = False
        # An observer has held up this association for too long: it waits for none any more.
        self._gave_up = False
        self._settled = threading.Event()
        self._log = concerning(self)

    # ---- what it is

    @property
    def _remote_address(self) -> tuple[str, int]:
        return NOWHERE if self._transport is None else self._transport.address

    @property
    def _local_address(self) -> tuple[str, int]:
        return NOWHERE if self._transport is None else self._transport.local_address

    @property
    def _certificate(self) -> dict[str, Any] | None:
        return None if self._transport is None else self._transport.certificate

    @property
    def is_current(self) -> bool:
        """Whether the current thread runs one of the handlers of this association."""
        return self._connection.in_reader or (self._performer is not None and self._performer.is_current)

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
        self._protocol.watched = self.watched()
        self._publish_now(self._protocol.connect(self._request, time.monotonic()))
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
        refused = self._nothing_accepted()
        if refused is not None:
            self.abort()
            raise refused
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
        self._protocol.watched = self.watched()
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

    def abandon_later(self, cause: str) -> None:
        """Have the reader do that. No lock is taken: this may be called within a step of another association."""
        self._connection.postpone(lambda now: self._protocol.abort(now, cause))

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

    def _pump(self, deadline: float | None) -> None:
        try:
            self._connection.pump(deadline)
        except (OSError, RxDicomError) as error:
            raise AssociationAborted(by="transport", cause=str(error)) from error

    # ---- the owner of the connection

    def publish(self, produced: list[Produced]) -> bool:
        watched, seen = self._protocol.watched, False
        for notice, values in produced:
            react = _NOTED.get(notice)
            if react is not None:
                react(self, *values)
            if watched >> notice & 1:
                seen = self._publisher.publish(notice, values) or seen
        return seen

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
        field = message.command["CommandField"]
        if field & 0x8000:
            if not self._operations.complete(message):
                self._log.warning("a response to message %s, which is not outstanding", message)
                forget(message.data)
            return
        provider = self._performer or self._provider()
        if field == Command.C_CANCEL_RQ:
            provider.cancel(message)
            return
        provider.expect(message)
        # Nobody but who has the read turn calls this.
        if not self._inbox.put(partial(provider.perform, message), reader=not self._connection.leader):
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

    def _on_established(self) -> None:
        super()._on_established()
        self._inbox.window = self._protocol.negotiated.performed

    def _note_message(self, message: Message) -> None:
        if message.command["CommandField"] & 0x8000:
            self._operations.arrived(message)

    def _why_aborted(self, source: int, reason: int, by: str, cause: str) -> Exception:
        phase = self._protocol.timed_out
        failure = self._connection.failure
        if isinstance(failure, TimedOut):
            return failure
        if phase is not None:
            return TimedOut(phase, getattr(self._setup.timeouts, phase))
        return AssociationAborted(source, reason, by, cause)

    def _on_settled(self, *_: object) -> None:
        self._settled.set()

    def _on_ended(self, *_: object) -> None:
        self._operations.fail_all(self._over())
        self._settled.set()

    def _on_warning(self, text: str) -> None:
        self._log.warning("%s", text)


_NOTED: dict[Notice, Callable[..., None]] = {
    **REACTIONS,
    Notice.ESTABLISHED: Association._on_established,  # pyright: ignore[reportPrivateUsage]
    Notice.DIMSE_RECV: Association._note_message,  # pyright: ignore[reportPrivateUsage]
}
"""What a notice changes at once, before its observers see it."""

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


def join_all(associations: Iterable[Association], seconds: float | None) -> None:
    """Wait until all are over, for so many seconds together."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for association in associations:
        association.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
