"""The server of the asyncio runtime: listens, accepts, and has an association for each connection."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from rxdicom.errors import StateError
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.dispatcher import Handler
from rxdicom.events.hub import ASSOCIATIONS, Hub
from rxdicom.events.kinds import EventKind
from rxdicom.log import LOG
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.policy import Limits, Policy, Timeouts
from rxdicom.runtimes.aio.association import Association, check_observer
from rxdicom.runtimes.aio.connection import Connection
from rxdicom.runtimes.aio.dialing import make, tls
from rxdicom.runtimes.aio.performer import LoopPerformance
from rxdicom.runtimes.aio.workers import Workers
from rxdicom.runtimes.association import Setup
from rxdicom.runtimes.sockets import listen
from rxdicom.runtimes.sub_operations import Dial
from rxdicom.runtimes.titles import Titles
from rxdicom.runtimes.unfinished import Unfinished
from rxdicom.services.acceptance import decide
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from reactivex import Observable

    from rxdicom.events.streams import EventStreams
    from rxdicom.runtimes.aio.ae import AE

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_LIMIT_EXCEEDED = AssociateRJ(2, 3, 2)
_UNFINISHED = "unfinished requests of all connections were too large, and this one the largest"
_AT_A_TIME = 64
"""Connections that are accepted before the associations of the loop have their turn."""
_PAUSE = 0.1
"""Seconds between attempts to accept a connection while the system has no resources for it."""


class AssociationServer:
    """A listening application entity. Made by :meth:`AE.start_server` and :meth:`AE.make_server`.

    Awaiting it starts it. As an asynchronous context manager it starts, and shuts down on the way out.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        ae_title: str,
        policy: Policy,
        timeouts: Timeouts,
        limits: Limits,
        hub: Hub,
        workers: Workers,
        buffer: memoryview,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        spool_folder: str | None = None,
        convert: bool = True,
        dial: Dial | None = None,
        requested: tuple[PresentationContext, ...] = (),
    ) -> None:
        self.ae_title = ae_title
        self.policy = policy
        self.timeouts = timeouts
        self.limits = limits
        self.address: tuple[str, int] = address
        """Host and port that it listens on; a port of 0 is resolved when it starts."""
        self._hub = hub
        self._workers = workers
        self._buffer = buffer
        self._spool_folder = spool_folder
        self._convert = convert
        self._dial = dial
        self._requested_contexts = requested
        self._ssl_context = ssl_context
        self._bindings = Bindings()
        for kind, handler, *args in evt_handlers or ():
            self.bind(kind, handler, *args)
        self._streams: EventStreams | None = None
        self._titles = Titles(ae_title)
        self._connected: set[Association] = set()
        self._requested: set[Association] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._serial = 0
        self._unfinished: Unfinished[Association] = Unfinished(limits.unfinished)
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry: asyncio.TimerHandle | None = None
        # Given up when descriptors run out, so that a connection can be accepted and closed instead of spinning.
        self._spare: int | None = None
        self._stopping = False
        self._stopped = asyncio.Event()

    # ---- what it is

    @property
    def active_associations(self) -> list[Association]:
        """The associations that are established right now."""
        return [each for each in self._connected if each.is_established]

    @property
    def associations(self) -> "Observable[Association]":
        """Each association as it connects, before its negotiation."""
        from rxdicom.events.streams import association_stream

        return association_stream(self._bindings.hub)

    @property
    def events(self) -> "EventStreams":
        """An Observable per notification event, merged over all associations of this server."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._bindings.hub)
        return self._streams

    def bind(self, event: EventKind[Any], handler: Handler, args: Sequence[Any] | None = None) -> None:
        """Observe a notification event of, or handle an intervention event for, all associations.

        Observers are plain functions, called on the loop; handlers may be of any kind.
        """
        check_observer(event, handler)
        self._bindings.bind(event, handler, args)

    def unbind(self, event: EventKind[Any], handler: Handler) -> None:
        """Stop observing, or put the default handler back."""
        self._bindings.unbind(event, handler)

    def also_serve(
        self,
        ae: "AE",
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
    ) -> None:
        """Answer for another application entity too, whenever its AE title is called.

        Its contexts, handlers and rules about requests are its own; ``ae_title`` and ``contexts`` stand in for those of
        ``ae``. Its observers, and those of ``ae.events``, hear of its associations from the request on. Deadlines,
        limits, TLS and the spool folder are those of this server, which answers for every other title itself.

        Raises :class:`~rxdicom.errors.ArgumentError` for a title that is served already, and without contexts.
        """
        handlers = list(evt_handlers or ())
        for event, handler, *_ in handlers:
            check_observer(event, handler)
        self._titles.add(ae.make_title(ae_title, contexts, handlers))

    def __repr__(self) -> str:
        return f"<AssociationServer {self.ae_title!r} at {self.address}>"

    # ---- its life

    def __await__(self) -> Generator[Any, None, Self]:
        return self.start().__await__()

    async def start(self) -> Self:
        """Listen and serve on the current loop. Raises :class:`OSError` if it cannot listen."""
        if self._loop is not None or self._stopping:
            raise StateError("this server has been started before; make a new one")
        sock = listen(self.address)
        self._loop = asyncio.get_running_loop()
        host, port = sock.getsockname()[:2]
        self._socket, self.address = sock, (host, port)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._loop.add_reader(sock.fileno(), self._accept)
        return self

    async def serve_forever(self) -> None:
        """Serve until :meth:`shutdown`, or until this is cancelled, which shuts down as well."""
        if self._loop is None:
            await self.start()
        try:
            await self._stopped.wait()
        finally:
            await self.shutdown()

    async def shutdown(self, drain: float = 0.0) -> None:
        """Stop listening; give associations ``drain`` seconds to end, then abort them and wait until they are over.

        Called by a handler it does not wait for that one's association. Cancelled, it goes on without draining.
        """
        first, self._stopping = not self._stopping, True
        self._close_descriptors()
        try:
            await self._join(drain)
        finally:
            for association in tuple(self._connected):
                association.abort()
                association.interrupt()
            for task in tuple(self._connecting):
                task.cancel()
            try:
                await self._join(self.timeouts.release)
            finally:
                if first:
                    self._bindings.hub.complete()
                    self._bindings.hub.drain(0)
                    self._stopped.set()

    async def _join(self, seconds: float | None) -> None:
        waiting = [asyncio.ensure_future(each.join()) for each in self._connected if not each.is_current]
        everything = [*waiting, *self._connecting]
        try:
            if everything and seconds != 0:
                await asyncio.wait(everything, timeout=seconds)
        finally:
            for each in waiting:
                each.cancel()

    def _close_descriptors(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def __aenter__(self) -> Self:
        return self if self._loop is not None else await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    # ---- connections

    def _accept(self) -> None:
        """Take the connections that wait."""
        for _ in range(_AT_A_TIME):
            if self._socket is None:
                return
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS or not self._refuse_one():
                    LOG.error("%s: cannot accept a connection: %s", self.ae_title, error)
                    self._pause()
                    return
                continue
            if len(self._connected) >= self.limits.connections:
                LOG.warning("%s: more than %s connections, one refused", self.ae_title, self.limits.connections)
                sock.close()
            else:
                self._begin(sock)

    def _refuse_one(self) -> bool:
        """Refuse a connection with the spare descriptor. False if somebody took that in between."""
        assert self._socket is not None
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        refused = False
        with suppress(OSError):
            self._socket.accept()[0].close()
            refused = True
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
        if refused:
            LOG.error("%s: out of file descriptors, a connection is refused; raise ulimit -n", self.ae_title)
        return refused

    def _pause(self) -> None:
        """What waits cannot be accepted now, and would be tried again without end: give others some time."""
        assert self._loop is not None
        assert self._socket is not None
        self._loop.remove_reader(self._socket.fileno())
        self._retry = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        if self._socket is not None and self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _begin(self, sock: socket.socket) -> None:
        assert self._loop is not None
        self._serial += 1
        setup = Setup(
            name=f"{self.ae_title}-{self._serial}",
            timeouts=self.timeouts,
            limits=self.limits,
            hubs=(self._bindings.hub, self._hub),
            handlers=self._bindings.dispatcher,
            spool_folder=self._spool_folder,
            dial=self._dial,
            requested=self._requested_contexts,
            convert=self._convert,
            hold=self._hold,
        )
        association = Association(setup, self._workers, self._buffer, answer=self._answer, on_over=self._over)
        self._connected.add(association)
        for hub in setup.hubs:
            if hub.mask >> ASSOCIATIONS & 1:
                hub.append(ASSOCIATIONS, association)
                hub.drain(0)
        task = self._loop.create_task(self._connect(association.begin(sock)))
        self._connecting.add(task)
        task.add_done_callback(partial(self._served, association))

    async def _connect(self, connection: Connection) -> None:
        assert self._loop is not None
        sock = connection.give_socket()
        options = {} if self._ssl_context is None else tls(self._ssl_context)
        await make(self._loop.connect_accepted_socket(lambda: connection, sock, **options), sock, self.timeouts.tls)

    def _served(self, association: Association, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            if not isinstance(error, asyncio.CancelledError):
                LOG.warning("%s: %s (from %s)", self.ae_title, error, association.requestor.address)
            association.not_connected(error)

    async def _answer(self, association: Association, request: AssociateRQ) -> AssociateAC | AssociateRJ:
        # Who has released or aborted but not yet closed the connection holds no association any more.
        if sum(not each.is_over for each in self._requested) >= self.limits.associations:
            return _LIMIT_EXCEEDED
        self._requested.add(association)
        policy = self._titles.policy_for(association, request.called_ae_title, self.policy)
        service = decide(request, policy, self.limits.pdu, association.is_bound, association)
        decision = await LoopPerformance(association.handlers, self._workers).run(service)
        association.service_classes = decision.services
        answer = decision.answer
        if isinstance(answer, AssociateRJ):
            self._requested.discard(association)
        return answer

    def _hold(self, association: Association, size: int) -> None:
        for largest in self._unfinished.hold(association, size):
            # Later: it may be the one that is receiving right now.
            asyncio.get_running_loop().call_soon(largest.abandon, _UNFINISHED)

    def _over(self, association: Association) -> None:
        self._unfinished.hold(association, 0)
        self._connected.discard(association)
        self._requested.discard(association)


__all__ = ["AssociationServer"]
