"""The server of the blocking runtime: listens, accepts, and starts an association per connection."""

import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from rxdicom.errors import ConnectionFailed
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.dispatcher import Handler
from rxdicom.events.hub import ASSOCIATIONS, Hub, in_observer
from rxdicom.events.kinds import EVT_ABORTED, EVT_RELEASED, EventKind
from rxdicom.log import LOG, concerning
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.policy import Limits, Policy, Timeouts
from rxdicom.runtimes.association import Setup
from rxdicom.runtimes.sockets import listen
from rxdicom.runtimes.threads.association import Association, join_all
from rxdicom.runtimes.threads.driver import Dial, Performance
from rxdicom.runtimes.threads.tls import TLSTransport
from rxdicom.runtimes.threads.transport import Transport
from rxdicom.runtimes.threads.waiting import WakeUp
from rxdicom.runtimes.titles import Titles
from rxdicom.runtimes.unfinished import Unfinished
from rxdicom.services.acceptance import decide
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from reactivex import Observable

    from rxdicom.events.streams import EventStreams
    from rxdicom.runtimes.threads.ae import AE

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_LIMIT_EXCEEDED = AssociateRJ(2, 3, 2)
_UNFINISHED = "unfinished requests of all connections were too large, and this one the largest"
_PAUSE = 100
"""Milliseconds between attempts to accept a connection while the system has no resources for it."""

ServerTLS = ssl.SSLContext | Callable[[], ssl.SSLContext] | None
"""A TLS context for servers, or a function that makes it, or None for none."""


class Places(Protocol):
    """The associations that several servers may have together, as one of them sees it. See :meth:`share`."""

    def take(self, held: int) -> bool:
        """Have one more than the ``held`` that this server has. False if that is too many for all together."""
        ...

    def hold(self, held: int) -> None:
        """This server has only so many any more."""
        ...


class AssociationServer:
    """A listening application entity. Made by :meth:`AE.start_server` and :meth:`AE.make_server`.

    As a context manager it shuts down on the way out.
    """

    def __init__(
        self,
        address: tuple[str, int] | socket.socket,
        *,
        ae_title: str,
        policy: Policy,
        timeouts: Timeouts,
        limits: Limits,
        hub: Hub,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        spool_folder: str | None = None,
        convert: bool = True,
        dial: Dial | None = None,
        requested: tuple[PresentationContext, ...] = (),
    ) -> None:
        self.ae_title = ae_title
        self.label = ae_title
        """What the names of its associations begin with, in the log."""
        self.policy = policy
        self.timeouts = timeouts
        self.limits = limits
        self._spool_folder = spool_folder
        self._convert = convert
        self._dial = dial
        self._requested_contexts = requested
        self._ssl_context = ssl_context() if callable(ssl_context) else ssl_context
        self._bindings = Bindings()
        self._bindings.bind_all(evt_handlers)
        self._streams: EventStreams | None = None
        self._titles = Titles(ae_title)
        self._lock = threading.Lock()
        self._connected: set[Association] = set()
        self._requested: set[Association] = set()
        self._places: Places | None = None
        self._hubs: tuple[Hub, ...] = (self._bindings.hub, hub)
        self._serial = 0
        self._unfinished: Unfinished[Association] = Unfinished(limits.unfinished)
        self._socket = listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        """Host and port that it listens on; a port of 0 is resolved."""
        self._wake = WakeUp()
        # Given up when descriptors run out, so that a connection can be accepted and closed instead of spinning.
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._stopping = False
        self._stopped = threading.Event()
        self._served_by: int | None = None

    # ---- what it is

    @property
    def active_associations(self) -> list[Association]:
        """The associations that are established right now."""
        with self._lock:
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
        """Observe a notification event of, or handle an intervention event for, all associations."""
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
        self._titles.add(ae.make_title(ae_title, contexts, evt_handlers))

    def share(self, places: Places) -> None:
        """Count associations together with other servers from now on, instead of by :attr:`limits`."""
        self._places = places
        self._hubs = (*self._hubs, _Ends(self._recount))

    def __repr__(self) -> str:
        return f"<AssociationServer {self.ae_title!r} at {self.address}>"

    # ---- its life

    def start(self) -> Self:
        """Serve on a thread of its own."""
        threading.Thread(target=self.serve_forever, name="rxdicom-server", daemon=True).start()
        return self

    def serve_forever(self) -> None:
        """Serve on the current thread until :meth:`shutdown`."""
        with self._lock:
            if self._stopping:
                return
            self._served_by = threading.get_ident()
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake.fileno(), select.POLLIN)
        try:
            while not self._stopping:
                poll.poll()
                self._accept()
        finally:
            self._close_descriptors()

    def shutdown(self, drain: float = 0.0) -> None:
        """Stop listening; give associations ``drain`` seconds to end, then abort them and wait until they are over.

        Called by an observer or a handler it does not wait.
        """
        with self._lock:
            first, self._stopping = not self._stopping, True
        waits = not in_observer() and not any(each.is_current for each in self._snapshot())
        if self._served_by is not None:
            self._wake.set()
            if waits and self._served_by != threading.get_ident():
                self._stopped.wait(self.timeouts.release)
        elif first:
            self._close_descriptors()
        self._end_associations(drain if waits else 0.0, waits)
        if first:
            self._bindings.hub.complete()
            self._bindings.hub.drain(self.timeouts.observer)

    def _end_associations(self, drain: float, waits: bool) -> None:
        deadline = time.monotonic() + drain
        for association in self._snapshot():
            if drain > 0:
                association.join(max(0.0, deadline - time.monotonic()))
        for association in self._snapshot():
            association.abort()
            association.interrupt()
        if waits:
            join_all(self._snapshot(), self.timeouts.release)

    def _snapshot(self) -> list[Association]:
        with self._lock:
            return list(self._connected)

    def _close_descriptors(self) -> None:
        """Called by the thread that serves, or instead of it where none does."""
        self._socket.close()
        self._wake.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        self._stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # ---- connections

    def _accept(self) -> None:
        """Take one of the connections that wait: the others may be for other processes that share the socket."""
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS or not self._refuse_one():
                LOG.error("%s: cannot accept a connection: %s", self.ae_title, error)
                self._pause()
            return
        if len(self._connected) >= self.limits.connections:
            LOG.warning("%s: more than %s connections, one refused", self.ae_title, self.limits.connections)
            sock.close()
        else:
            self._start(sock)

    def _refuse_one(self) -> bool:
        """Refuse a connection with the spare descriptor. False if another thread took that in between."""
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
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        poll.poll(_PAUSE)

    def _start(self, sock: socket.socket) -> None:
        self._serial += 1
        setup = Setup(
            name=f"{self.label}-{self._serial}",
            timeouts=self.timeouts,
            limits=self.limits,
            hubs=self._hubs,
            handlers=self._bindings.dispatcher,
            spool_folder=self._spool_folder,
            dial=self._dial,
            requested=self._requested_contexts,
            convert=self._convert,
            hold=self._hold,
        )
        association = Association(setup, answer=self._answer, on_over=self._over)
        transport = TLSTransport(sock, self._ssl_context, None, server=True) if self._ssl_context else Transport(sock)
        handshake = self._handshake(association, transport) if self._ssl_context else None
        with self._lock:
            # One that came in the same moment as the shutdown would not be ended by it.
            is_late = self._stopping
            if not is_late:
                self._connected.add(association)
        if is_late:
            transport.close()
            return

        def announce() -> None:
            for hub in setup.hubs:
                if hub.mask >> ASSOCIATIONS & 1:
                    hub.append(ASSOCIATIONS, association)
                    hub.drain(self.timeouts.observer)

        try:
            association.start(transport, announce, handshake)
        except (RuntimeError, OSError) as error:
            concerning(association).error("a connection is refused: %s", error)
            transport.close()
            self._over(association)

    def _handshake(self, association: Association, transport: Transport) -> Callable[[], None]:
        seconds = self.timeouts.tls

        def shake_hands() -> None:
            try:
                transport.handshake(None if seconds is None else time.monotonic() + seconds)
            except ConnectionFailed as error:
                concerning(association).warning("%s (from %s)", error, transport.address[0])
                raise

        return shake_hands

    def _answer(self, association: Association, request: AssociateRQ) -> AssociateAC | AssociateRJ:
        with self._lock:
            if not self._has_room():
                return _LIMIT_EXCEEDED
            self._requested.add(association)
        policy = self._titles.policy_for(association, request.called_ae_title, self.policy)
        service = decide(request, policy, self.limits.pdu, association.is_bound, association)
        decision = Performance(association.handlers).run(service)
        association.service_classes = decision.services
        answer = decision.answer
        if isinstance(answer, AssociateRJ):
            self._forget(association)
        return answer

    def _has_room(self) -> bool:
        held = self._held()
        return held < self.limits.associations if self._places is None else self._places.take(held)

    def _held(self) -> int:
        # Who has released or aborted but not yet closed the connection holds no association any more.
        return sum(not each.is_over for each in self._requested)

    def _recount(self) -> None:
        if self._places is not None:
            with self._lock:
                self._places.hold(self._held())

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._requested.discard(association)
        self._recount()

    def _hold(self, association: Association, size: int) -> None:
        # Under the state lock of that association: nobody else's may be taken.
        for largest in self._unfinished.hold(association, size):
            largest.abandon_later(_UNFINISHED)

    def _over(self, association: Association) -> None:
        self._unfinished.hold(association, 0)
        with self._lock:
            self._connected.discard(association)
        self._forget(association)


class _Ends(Hub):
    """Not for observers: it is told of the end of an association at once, before the peer can know of it."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.mask = 1 << EVT_RELEASED.number | 1 << EVT_ABORTED.number
        self._act = act

    def append(self, channel: int, value: Any) -> None:
        del channel, value
        self._act()
