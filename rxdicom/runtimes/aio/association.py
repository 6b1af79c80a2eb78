"""The association of the asyncio runtime: what users hold, as SCU and as SCP."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Self

from rxdicom.errors import ArgumentError, AssociationAborted, ConnectionFailed, StateError, TimedOut
from rxdicom.events.dispatcher import Handler
from rxdicom.events.kinds import EventKind
from rxdicom.log import concerning
from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.runtimes.aio.connection import Connection
from rxdicom.runtimes.aio.performer import Performer
from rxdicom.runtimes.aio.requests import Requests
from rxdicom.runtimes.aio.workers import Workers
from rxdicom.runtimes.association import AssociationState, Setup
from rxdicom.runtimes.files import forget
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

_AFTER_ABORT = 1.0
"""Seconds for the peer to notice an A-ABORT and close, before the end of an ``async with`` block goes on without it."""


class Association(AssociationState, Requests):
    """A DICOM association (PS3.8 §7). Made by :meth:`AE.associate`, :meth:`AE.association` and servers.

    Awaiting it opens it. As an asynchronous context manager it opens if that has not been done, releases on the way
    out, and aborts when left by an exception or by cancellation. All of it belongs to the event loop that it was opened
    on, but for :meth:`abort`, which may be called in any thread.
    """

    def __init__(
        self,
        setup: Setup,
        workers: Workers,
        buffer: memoryview,
        *,
        request: AssociateRQ | None = None,
        connect: Callable[[Connection], Awaitable[None]] | None = None,
        answer: "Callable[[Association, AssociateRQ], Awaitable[AssociateAC | AssociateRJ]] | None" = None,
        on_over: "Callable[[Association], None] | None" = None,
    ) -> None:
        AssociationState.__init__(self, setup, request)
        self._connection = Connection(self._protocol, self, setup.timeouts, buffer)
        Requests.__init__(self, self._protocol, self._connection, setup.timeouts, workers, convert=setup.convert)
        self._performer = Performer(self, self._connection, self._protocol, workers)
        self._connect = connect
        self._answer = answer
        self._on_over = on_over
        self._loop: asyncio.AbstractEventLoop | None = None
        # Aborted before there was anything to abort, by an observer of the new connection, say.
        self._abort_wanted = False
        self._settled = asyncio.Event()
        self._gone = asyncio.Event()
        self._leaving: set[asyncio.Task[Any]] = set()
        self._log = concerning(self)

    @property
    def _remote_address(self) -> tuple[str, int]:
        return self._connection.remote_address

    @property
    def _local_address(self) -> tuple[str, int]:
        return self._connection.local_address

    @property
    def _certificate(self) -> dict[str, Any] | None:
        return self._connection.certificate

    @property
    def is_current(self) -> bool:
        """Whether the current task runs one of the async handlers of this association."""
        return self._performer.inbox.is_current

    def bind(self, event: EventKind[Any], handler: Handler, args: Any = None) -> None:
        """Observe a notification event, or handle an intervention event of this association alone.

        Observers are plain functions, called on the loop: one that would have to be awaited is an
        :class:`~rxdicom.errors.ArgumentError`. Handlers may be of any kind.
        """
        check_observer(event, handler)
        super().bind(event, handler, args)

    # ---- its life

    def __await__(self) -> Generator[Any, None, Self]:
        return self.open().__await__()

    async def open(self) -> Self:
        """Connect and negotiate; returns once established.

        Raises :class:`~rxdicom.errors.ConnectionFailed`, :class:`~rxdicom.errors.AssociationRejected`,
        :class:`~rxdicom.errors.AssociationAborted`, :class:`~rxdicom.errors.NoAcceptedContext` or
        :class:`~rxdicom.errors.TimedOut`.
        """
        if self._opened or self._connect is None or self._request is None:
            raise StateError("this association has been opened before; make a new one")
        self._opened = True
        self._loop = asyncio.get_running_loop()
        self._workers.enter()
        self._protocol.watched = self.watched()
        self._publish_now(self._protocol.connect(self._request, self._connection.now()))
        try:
            await self._connect(self._connection)
        except BaseException as error:
            self.not_connected(error)
            raise
        try:
            await self._settled.wait()
        except BaseException:
            self._cut("cancelled")
            raise
        if self._outcome is not None:
            await self.join(self._setup.timeouts.release)
            raise self._outcome
        refused = self._nothing_accepted()
        if refused is not None:
            self.abort()
            raise refused
        return self

    def begin(self, sock: socket.socket) -> Connection:
        """Be the acceptor of a new connection, whose transport is to be made next; for runtimes."""
        self._loop = asyncio.get_running_loop()
        self._workers.enter()
        self._connection.attach(sock, self._loop)
        self._publish_now([(Notice.CONN_OPEN, (self._connection.remote_address,))])
        return self._connection

    def not_connected(self, error: BaseException) -> None:
        """The connection could not be made, or its making was cancelled."""
        if self._connection.is_connected:
            self._cut("cancelled")
        elif not self._gone.is_set():
            self._connection.never_made()
            produced = self._protocol.receive_eof(self._connection.now(), str(error))
            self._outcome = error if isinstance(error, Exception) else None
            self._connection.tell_end(produced)

    def connected(self) -> None:
        if self.is_requestor:
            self._publish_now([(Notice.CONN_OPEN, (self._connection.remote_address,)), (Notice.REQUESTED, ())])
        self._connection.perform(self._protocol.connection_made)
        if self._abort_wanted:
            self.abort()

    def _publish_now(self, produced: list[Produced]) -> None:
        self.publish(produced)
        self.deliver()

    async def release(self) -> None:
        """Release the association (PS3.8 §7.2) and wait until the connection is closed. Nothing happens if it is over.

        What the peer has asked for is answered before, and what it was asked for and left is drained. Raises
        :class:`~rxdicom.errors.TimedOut`, after aborting, when the peer does not answer. Cancelled, it aborts.
        """
        task = asyncio.current_task()
        assert task is not None
        self._leaving.add(task)
        seconds = self._setup.timeouts.release
        try:
            async with asyncio.timeout(None if seconds is None else 2 * seconds):
                await self._operations.drained()
                if self.is_current:
                    self._request_release()
                else:
                    self._performer.inbox.put_last(self._request_release)
                await self._until_gone()
        except TimeoutError:
            self.abort()
            raise TimedOut("release", seconds) from None
        except asyncio.CancelledError:
            self._cut("cancelled")
            raise
        finally:
            self._leaving.discard(task)
        if self._protocol.timed_out == "release":
            raise TimedOut("release", seconds)

    def _request_release(self) -> None:
        if self._protocol.state is State.ESTABLISHED:
            self._connection.perform(self._protocol.release)

    async def _until_gone(self) -> None:
        if self._loop is not None:
            await self._gone.wait()
            # Handlers that wait here do not wait for each other.
            if not self.is_current:
                await self._performer.inbox.join()

    def abort(self) -> None:
        """Abort the association (PS3.8 §7.3). It waits for nothing, and may be called in any thread."""
        self.abandon("")

    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""
        self._abort_wanted = True
        if self._loop is None or _is_running(self._loop):
            self._connection.perform(lambda now: self._protocol.abort(now, cause))
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abandon, cause)

    def interrupt(self) -> None:
        """Close the connection, if it still is there, without waiting for the peer to do it."""
        self._connection.interrupt(AssociationAborted(by="local", cause="cut by shutdown"))

    def _cut(self, cause: str) -> None:
        self.abandon(cause)
        self.interrupt()

    async def join(self, timeout: float | None = None) -> bool:
        """Wait until the association is over and its resources are given back. Whether it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._until_gone()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        return self if self._opened or self.is_acceptor else await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.release()
            return
        self.abort()
        if issubclass(kind, Exception) and await self.join(_AFTER_ABORT):
            return
        # Cancelled, or the peer does not close: nothing is left behind.
        self.interrupt()
        await self.join(_AFTER_ABORT)

    # ---- the owner of the connection

    def watched(self) -> int:
        return self._publisher.mask()

    def publish(self, produced: list[Produced]) -> bool:
        for notice, values in produced:
            if notice is Notice.DIMSE_RECV and values[0].is_response:
                self._operations.arrived(values[0])
            self._note(notice, values)
        return self._publisher.publish_all(produced)

    def deliver(self) -> None:
        # Never waiting: who is delivering, on this or another loop, delivers this too.
        self._publisher.deliver(0)

    def handle(self, produced: list[Produced]) -> None:
        for notice, values in produced:
            act = _ACTIONS.get(notice)
            if act is not None:
                act(self, *values)

    def wants_data(self) -> bool:
        return not (self._performer.inbox.is_full or self._operations.is_behind)

    def next_deadline(self) -> float | None:
        return self._operations.next_deadline()

    def handle_timeout(self, now: float) -> None:
        self._operations.handle_timeout(now)

    def lost(self) -> None:
        self._performer.stop(self._leaving)
        if self._outcome is None:
            failure = self._connection.failure
            known = isinstance(failure, ConnectionFailed | TimedOut)
            self._outcome = failure if known else ConnectionFailed("closed before an association was there")
        self._operations.fail_all(self._outcome)
        self._settled.set()
        self._gone.set()
        self._workers.leave()
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

    def _release_indicated(self) -> None:
        # Behind the answers to earlier requests.
        self._performer.inbox.put_last(self._respond_to_release)

    def _respond_to_release(self) -> None:
        try:
            self._connection.perform(self._protocol.release_response)
        except StateError:
            self._log.debug("no response to a release, it was aborted in between")

    def _requested(self, request: AssociateRQ) -> None:
        if self._answer is not None:
            self._sinks.source_ae_title = request.calling_ae_title
            self._performer.inbox.beside(self._respond(self._answer, request))

    async def _respond(
        self, decide: "Callable[[Association, AssociateRQ], Awaitable[AssociateAC | AssociateRJ]]", request: AssociateRQ
    ) -> None:
        answer = await decide(self, request)

        def respond(now: float) -> list[Produced]:
            if self._protocol.state is not State.AWAITING_LOCAL_RESPONSE:
                return []
            if isinstance(answer, AssociateRJ):
                return self._protocol.reject(answer, now)
            return self._protocol.accept(answer, now)

        self._connection.perform(respond)

    # ---- what the notices mean

    def _why_aborted(self, source: int, reason: int, by: str, cause: str) -> Exception:
        phase = self._protocol.timed_out
        if isinstance(self._connection.failure, TimedOut):
            return self._connection.failure
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


def check_observer(event: EventKind[Any], handler: Handler) -> None:
    """Raise :class:`~rxdicom.errors.ArgumentError` for an observer that nobody would await."""
    function: Any = handler
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(event, EventKind) and event.is_notification and iscoroutinefunction(function):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(
            f"an observer of {event!r} is called on the loop and cannot be awaited; "
            "iterate over the stream with rxdicom.operators.to_async_iterator instead"
        )


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the current thread runs this loop right now."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


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

__all__ = ["Association"]
