"""The application entity of the blocking runtime: makes associations and servers out of its configuration.

What associations and servers are made of is loaded when the first one is made, so that importing this stays cheap.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import WeakSet

from attrs import evolve

from rxdicom.errors import ArgumentError
from rxdicom.events.hub import Hub, forbid_in_observer, in_observer
from rxdicom.runtimes.entity import ANY_SCP, Entity

if TYPE_CHECKING:
    import socket
    import ssl

    from rxdicom.builders import Builder
    from rxdicom.events.bindings import EventHandler
    from rxdicom.events.streams import EventStreams
    from rxdicom.presentation import PresentationContext
    from rxdicom.runtimes.instances import Batch
    from rxdicom.runtimes.threads.association import Association
    from rxdicom.runtimes.threads.server import AssociationServer, ServerTLS
    from rxdicom.runtimes.threads.spreading import Delivery
    from rxdicom.runtimes.threads.transport import Transport
    from rxdicom.runtimes.threads.workers import Workers, WorkerServer
    from rxdicom.runtimes.titles import ServedTitle
    from rxdicom.wire.items import UserItem
    from rxdicom.wire.pdu import AssociateRQ

    TLSArguments = tuple[ssl.SSLContext, str | None]
    """The context, and the host name that the peer's certificate must have; None for the address connected to."""

_LARGEST_WINDOW = 0xFFFF


class AE(Entity):
    """An application entity, as SCU and as SCP.

    >>> ae = AE("ME")
    >>> ae.add_requested_context("1.2.840.10008.1.1")
    >>> [context.abstract_syntax for context in ae.requested_contexts]
    ['1.2.840.10008.1.1']
    """

    def __init__(self, ae_title: str = "RXDICOM") -> None:
        super().__init__(ae_title)
        self._hub = Hub()
        self._streams: EventStreams | None = None
        # Held by their threads as long as they are at work; those that never were are nobody's.
        self._servers: WeakSet[AssociationServer] = WeakSet()
        self._worker_servers: list[WorkerServer] = []
        self._associations: WeakSet[Association] = WeakSet()
        self._serial = 0

    def __getstate__(self) -> dict[str, Any]:
        """The configuration: what it has open does not go along when it is copied or pickled."""
        return {name: getattr(self, name) for name in vars(Entity())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        AE.__init__(self)
        vars(self).update(state)

    @property
    def events(self) -> EventStreams:
        """An Observable per notification event, merged over everything that this AE does."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._hub)
        return self._streams

    @property
    def active_associations(self) -> list[Association]:
        """The associations that are established right now, requested and accepted ones; not those of workers."""
        own = [each for each in tuple(self._associations) if each.is_established]
        return own + [each for server in tuple(self._servers) for each in server.active_associations]

    # ---- as requestor

    def associate(
        self,
        addr: str,
        port: int,
        contexts: Sequence[PresentationContext] | None = None,
        ae_title: str = ANY_SCP,
        max_pdu: int | None = None,
        ext_neg: Iterable[Builder | UserItem] | None = None,
        bind_address: tuple[str, int] | None = None,
        tls_args: TLSArguments | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> Association:
        """Connect to a peer and negotiate; returns the established association.

        ``contexts`` are proposed instead of :attr:`requested_contexts`, ``ae_title`` is the called one, ``max_pdu``
        the largest P-DATA-TF to be accepted, ``ext_neg`` further negotiation items, ``tls_args`` a context and the
        host name to be checked, ``evt_handlers`` pairs or triples for ``bind`` (``evt_handler`` is the same).

        Raises what :meth:`Association.open` raises, and :class:`~rxdicom.errors.ArgumentError`.
        """
        forbid_in_observer("associate()")
        return self.association(
            addr, port, contexts, ae_title, max_pdu, ext_neg, bind_address, tls_args, evt_handlers,
            evt_handler=evt_handler,
        ).open()  # fmt: skip

    def association(
        self,
        addr: str,
        port: int,
        contexts: Sequence[PresentationContext] | None = None,
        ae_title: str = ANY_SCP,
        max_pdu: int | None = None,
        ext_neg: Iterable[Builder | UserItem] | None = None,
        bind_address: tuple[str, int] | None = None,
        tls_args: TLSArguments | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> Association:
        """The same, not yet connected: subscribe first, miss nothing, then ``open()`` it."""
        request = self.make_request(ae_title, contexts, max_pdu, ext_neg)
        return self._make(request, addr, port, bind_address, tls_args, [*(evt_handlers or ()), *(evt_handler or ())])

    def _make(
        self,
        request: AssociateRQ,
        addr: str,
        port: int,
        bind_address: tuple[str, int] | None,
        tls_args: TLSArguments | None,
        evt_handlers: Iterable[EventHandler],
    ) -> Association:
        from rxdicom.runtimes.association import Setup
        from rxdicom.runtimes.threads.association import Association
        from rxdicom.runtimes.threads.transport import Transport, connect

        if not 0 < port < 65536:
            raise ArgumentError(f"port {port} is not a TCP port; give one from 1 to 65535")
        timeouts = self.timeouts

        def connected() -> Transport:
            deadline = None if timeouts.connect is None else time.monotonic() + timeouts.connect
            sock = connect(addr, port, bind_address, deadline)
            if tls_args is None:
                return Transport(sock)
            from rxdicom.runtimes.threads.tls import secured

            return secured(sock, *tls_args, addr, timeouts.tls)

        self._serial += 1
        setup = Setup(
            name=f"{self.ae_title}-{request.called_ae_title}-{self._serial}",
            timeouts=timeouts,
            limits=evolve(self.limits, pdu=request.maximum_length),
            hubs=(self._hub,),
            spool_folder=self.spool_folder,
            dial=partial(self._dial, request.calling_ae_title),
            requested=tuple(self._requested),
            convert=self.convert_datasets,
        )
        association = Association(setup, request=request, connect=connected, on_over=self._associations.discard)
        for kind, handler, *args in evt_handlers:
            association.bind(kind, handler, args[0] if args else None)
        self._associations.add(association)
        return association

    def _dial(
        self,
        calling_ae_title: str,
        addr: str,
        port: int,
        *,
        ae_title: str = ANY_SCP,
        contexts: Sequence[PresentationContext] | None = None,
        max_pdu: int | None = None,
        ext_neg: Iterable[Builder | UserItem] | None = None,
        bind_address: tuple[str, int] | None = None,
        tls_args: TLSArguments | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> Association:
        """An open association to a C-MOVE destination, called by the AE that performs the C-MOVE."""
        request = self.make_request(ae_title, contexts, max_pdu, ext_neg, calling_ae_title)
        return self._make(request, addr, port, bind_address, tls_args, evt_handlers or ()).open()

    def send(
        self,
        addr: str,
        port: int,
        paths: Batch,
        associations: int = 1,
        *,
        window: int = 1,
        ae_title: str = ANY_SCP,
        max_pdu: int | None = None,
        ext_neg: Iterable[Builder | UserItem] | None = None,
        bind_address: tuple[str, int] | None = None,
        tls_args: TLSArguments | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> Delivery:
        """Store a batch at a peer, over up to so many ``associations`` at a time (C-STORE, PS3.7 §9.1.1).

        ``paths`` are files, folders (everything below them) and datasets, mixed as they come; an iterator is asked for
        some of them ahead, 1024 files or 64 datasets, by the threads that send, one at a time. The presentation
        contexts are those that its next instances need, and one without compression for each SOP class unless
        :attr:`convert_datasets` is off; where they do not fit the next instance, or are more than 128, an association
        is released and another one opened. ``window`` is the number of requests that each association is to have
        outstanding (PS3.7 D.3.3.3), if the peer allows it. The others are those of :meth:`associate`; handlers are
        called by several threads.

        Gives a :class:`~rxdicom.runtimes.batches.Sent` for each object as it becomes known, to be iterated or piped,
        which starts to send; ``.totals`` counts them. One that cannot be sent, or is refused, does not stop the rest;
        nor does the loss of an association: see :class:`~rxdicom.runtimes.threads.spreading.Delivery`. What lies in a
        folder and does not claim to be DICOM is left out without a word.

        Raises :class:`~rxdicom.errors.ArgumentError`. Iterating raises what :meth:`associate` raises, if there never
        is an association, and what ``paths`` raises, after what came before.
        """
        from rxdicom.runtimes.instances import batch_of
        from rxdicom.runtimes.threads.spreading import Delivery
        from rxdicom.wire.items import AsyncOperationsWindow

        forbid_in_observer("send()")
        if associations < 1 or not 1 <= window <= _LARGEST_WINDOW:
            raise ArgumentError(
                f"{associations} associations with a window of {window} are not possible; give 1 or more of both"
            )
        items = [*(ext_neg or ()), *([AsyncOperationsWindow(window, 1)] if window > 1 else [])]
        handlers = list(evt_handlers or ())

        def make(contexts: Sequence[PresentationContext]) -> Association:
            return self.association(
                addr, port, contexts, ae_title, max_pdu, items, bind_address, tls_args, handlers
            )  # fmt: skip

        return Delivery(make, batch_of(paths), associations, convert=self.convert_datasets)

    # ---- as acceptor

    @overload
    def start_server(
        self,
        address: tuple[str, int],
        block: Literal[True] = True,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
        workers: int | Workers | None = None,
    ) -> None: ...
    @overload
    def start_server(
        self,
        address: tuple[str, int],
        block: Literal[False],
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
        workers: None = None,
    ) -> AssociationServer: ...
    @overload
    def start_server(
        self,
        address: tuple[str, int],
        block: Literal[False],
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
        workers: int | Workers,
    ) -> WorkerServer: ...
    def start_server(
        self,
        address: tuple[str, int],
        block: bool = True,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
        workers: int | Workers | None = None,
    ) -> AssociationServer | WorkerServer | None:
        """Listen for associations. With ``block`` this returns after :meth:`shutdown` only; otherwise at once.

        ``address`` is (host, port): an empty host serves all interfaces, IPv4 and IPv6, port 0 a free one.
        ``ae_title`` and ``contexts`` stand in for those of the AE, ``ssl_context`` may be a function that makes one.
        With ``workers`` so many processes serve: see :class:`~rxdicom.runtimes.threads.workers.Workers`.

        Raises :class:`OSError` if it cannot listen, :class:`~rxdicom.errors.ArgumentError` for what cannot be passed to
        workers, and :class:`~rxdicom.runtimes.threads.workers.WorkerFailed` if one does not start.
        """
        handlers = [*(evt_handlers or ()), *(evt_handler or ())]
        server: AssociationServer | WorkerServer
        if workers is None:
            server = self.make_server(address, ae_title, contexts, ssl_context, handlers)
        else:
            server = self.make_server(address, ae_title, contexts, ssl_context, handlers, workers=workers)
        if not block:
            return server.start()
        try:
            server.serve_forever()
        finally:
            server.shutdown()
        return None

    @overload
    def make_server(
        self,
        address: tuple[str, int] | socket.socket,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        workers: None = None,
    ) -> AssociationServer: ...
    @overload
    def make_server(
        self,
        address: tuple[str, int] | socket.socket,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        workers: int | Workers,
    ) -> WorkerServer: ...
    def make_server(
        self,
        address: tuple[str, int] | socket.socket,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        ssl_context: ServerTLS = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        workers: int | Workers | None = None,
    ) -> AssociationServer | WorkerServer:
        """A server that listens but does not serve yet: call its ``serve_forever()`` or ``start()``.

        ``address`` may be a socket that listens already.
        """
        title, policy = self.served(ae_title, contexts)
        if workers is not None:
            from rxdicom.runtimes.threads.workers import make_worker_server

            handlers = evt_handlers or ()
            several = make_worker_server(self, address, workers, title, contexts, ssl_context, handlers)
            self._worker_servers.append(several)
            return several
        from rxdicom.runtimes.threads.server import AssociationServer

        server = AssociationServer(
            address,
            ae_title=title,
            policy=policy,
            timeouts=self.timeouts,
            limits=self.limits,
            hub=self._hub,
            ssl_context=ssl_context,
            evt_handlers=evt_handlers,
            spool_folder=self.spool_folder,
            convert=self.convert_datasets,
            dial=partial(self._dial, title),
            requested=tuple(self._requested),
        )
        self._servers.add(server)
        return server

    def make_title(
        self,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> ServedTitle:
        """What a server of another entity takes to serve this one too: see :meth:`AssociationServer.also_serve`."""
        from rxdicom.runtimes.titles import ServedTitle

        served = self.served(ae_title, contexts)
        return ServedTitle.made(served, self._hub, self._dial, self._requested, evt_handlers)

    def shutdown(self) -> None:
        """Shut all servers down, abort all associations, and wait until they are over."""
        servers, self._servers = self._servers, WeakSet()
        worker_servers, self._worker_servers = self._worker_servers, []
        for server in (*worker_servers, *servers):
            server.shutdown()
        associations = tuple(self._associations)
        for association in associations:
            association.abort()
            association.interrupt()
        if associations and not in_observer():
            from rxdicom.runtimes.threads.association import join_all

            join_all(associations, self.timeouts.release)
