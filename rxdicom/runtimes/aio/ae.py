"""The application entity of the asyncio runtime: makes associations and servers out of its configuration."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

from attrs import evolve

from rxdicom.errors import ArgumentError
from rxdicom.events.bindings import EventHandler
from rxdicom.events.hub import Hub
from rxdicom.pdu_primitives import Builder
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.aio.association import Association
from rxdicom.runtimes.aio.connection import BUFFER_SIZE
from rxdicom.runtimes.aio.dialing import Dialing, TLSArguments
from rxdicom.runtimes.aio.server import AssociationServer
from rxdicom.runtimes.aio.spreading import Delivery
from rxdicom.runtimes.aio.workers import MOST_WORKERS, Workers
from rxdicom.runtimes.association import Setup
from rxdicom.runtimes.entity import ANY_SCP, Entity
from rxdicom.runtimes.instances import batch_of
from rxdicom.runtimes.spreading import items_for
from rxdicom.runtimes.titles import ServedTitle
from rxdicom.wire.items import UserItem
from rxdicom.wire.pdu import AssociateRQ

if TYPE_CHECKING:
    from rxdicom.events.streams import EventStreams
    from rxdicom.runtimes.instances import Batch


class AE(Entity):
    """An application entity on an event loop, as SCU and as SCP.

    ``workers`` is the number of threads in which handlers run that are plain functions or generators.

    >>> ae = AE("ME")
    >>> ae.add_requested_context("1.2.840.10008.1.1")
    >>> [context.abstract_syntax for context in ae.requested_contexts]
    ['1.2.840.10008.1.1']
    """

    def __init__(self, ae_title: str = "RXDICOM", *, workers: int = MOST_WORKERS) -> None:
        super().__init__(ae_title)
        if workers < 1:
            raise ArgumentError(f"{workers} workers; give at least 1")
        self._hub = Hub()
        self._streams: EventStreams | None = None
        self._workers = Workers(workers)
        # Where all connections receive, one after the other; of the loop that came last.
        self._buffer: tuple[asyncio.AbstractEventLoop | None, memoryview] = (None, memoryview(b""))
        # Held by the loop as long as they are at work; those that never were are nobody's.
        self._servers: WeakSet[AssociationServer] = WeakSet()
        self._associations: WeakSet[Association] = WeakSet()
        self._serial = 0

    @property
    def events(self) -> "EventStreams":
        """An Observable per notification event, merged over everything that this AE does."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._hub)
        return self._streams

    @property
    def active_associations(self) -> list[Association]:
        """The associations that are established right now, requested and accepted ones."""
        own = [each for each in tuple(self._associations) if each.is_established]
        return own + [each for server in tuple(self._servers) for each in server.active_associations]

    def _receive_buffer(self) -> memoryview:
        loop = asyncio.get_running_loop()
        if self._buffer[0] is not loop:
            self._buffer = loop, memoryview(bytearray(BUFFER_SIZE))
        return self._buffer[1]

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
        """An association to a peer, to be awaited or used by ``async with``: that connects and negotiates.

        ``contexts`` are proposed instead of :attr:`requested_contexts`, ``ae_title`` is the called one, ``max_pdu``
        the largest P-DATA-TF to be accepted, ``ext_neg`` further negotiation items, ``tls_args`` a context and the
        host name to be checked, ``evt_handlers`` pairs or triples for ``bind`` (``evt_handler`` is the same).

        Raises :class:`~rxdicom.errors.ArgumentError`; awaiting it raises what :meth:`Association.open` raises.
        """
        request = self.make_request(ae_title, contexts, max_pdu, ext_neg)
        return self._make(request, addr, port, bind_address, tls_args, [*(evt_handlers or ()), *(evt_handler or ())])

    association = associate
    """The same, by the name that it has where :meth:`associate` connects at once."""

    def _make(
        self,
        request: AssociateRQ,
        addr: str,
        port: int,
        bind_address: tuple[str, int] | None,
        tls_args: TLSArguments | None,
        evt_handlers: Iterable[EventHandler],
    ) -> Association:
        if not 0 < port < 65536:
            raise ArgumentError(f"port {port} is not a TCP port; give one from 1 to 65535")
        self._serial += 1
        setup = Setup(
            name=f"{self.ae_title}-{request.called_ae_title}-{self._serial}",
            timeouts=self.timeouts,
            limits=evolve(self.limits, pdu=request.maximum_length),
            hubs=(self._hub,),
            spool_folder=self.spool_folder,
            dial=partial(self._dial, request.calling_ae_title),
            requested=tuple(self._requested),
            convert=self.convert_datasets,
        )
        association = Association(
            setup,
            self._workers,
            self._receive_buffer(),
            request=request,
            connect=Dialing(addr, port, bind_address, tls_args, self.timeouts).connect,
            on_over=self._associations.discard,
        )
        for kind, handler, *args in evt_handlers:
            association.bind(kind, handler, *args)
        self._associations.add(association)
        return association

    async def _dial(
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
        return await self._make(request, addr, port, bind_address, tls_args, evt_handlers or ())

    def send(
        self,
        addr: str,
        port: int,
        paths: "Batch",
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
        some of them ahead, at most 1024 files or 128 datasets, in a thread. The presentation contexts are those that
        its next instances need, and one without compression for each SOP class unless :attr:`convert_datasets` is off;
        where they do not fit the next instance, or are more than 128, an association is released and another one
        opened. ``window`` is the number of requests that each association is to have outstanding (PS3.7 D.3.3.3), if
        the peer allows it. The others are those of :meth:`associate`.

        Gives a :class:`~rxdicom.runtimes.batches.Sent` for each object as it becomes known, to be iterated or piped,
        which starts to send; ``.totals`` counts them. One that cannot be sent, or is refused, does not stop the rest;
        nor does the loss of an association: see :class:`~rxdicom.runtimes.aio.spreading.Delivery`. What lies in a
        folder and does not claim to be DICOM is left out without a word.

        Raises :class:`~rxdicom.errors.ArgumentError`. Iterating raises what awaiting :meth:`associate` raises, if there
        never is an association, and what ``paths`` raises, after what came before.
        """
        items = items_for(associations, window, ext_neg)
        handlers = list(evt_handlers or ())

        def make(contexts: Sequence[PresentationContext]) -> Association:
            return self.associate(addr, port, contexts, ae_title, max_pdu, items, bind_address, tls_args, handlers)

        batch = batch_of(paths)
        return Delivery(make, batch, associations, convert=self.convert_datasets, workers=self._workers)

    # ---- as acceptor

    def start_server(
        self,
        address: tuple[str, int],
        *,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> AssociationServer:
        """A server, to be awaited or used by ``async with``: that has it listen; then it serves as long as the loop
        runs, and ``await server.serve_forever()`` waits for its end.

        ``address`` is (host, port): an empty host serves all interfaces, IPv4 and IPv6, port 0 a free one.
        ``ae_title`` and ``contexts`` stand in for those of the AE. Awaiting it raises :class:`OSError` if it cannot
        listen.
        """
        title, policy = self.served(ae_title, contexts)
        server = AssociationServer(
            address,
            ae_title=title,
            policy=policy,
            timeouts=self.timeouts,
            limits=self.limits,
            hub=self._hub,
            workers=self._workers,
            buffer=self._receive_buffer(),
            ssl_context=ssl_context,
            evt_handlers=[*(evt_handlers or ()), *(evt_handler or ())],
            spool_folder=self.spool_folder,
            convert=self.convert_datasets,
            dial=partial(self._dial, title),
            requested=tuple(self._requested),
        )
        self._servers.add(server)
        return server

    make_server = start_server
    """The same, by the name that it has where :meth:`start_server` starts at once."""

    def make_title(
        self,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> ServedTitle:
        """What a server of another entity takes to serve this one too: see :meth:`AssociationServer.also_serve`."""
        served = self.served(ae_title, contexts)
        return ServedTitle.made(served, self._hub, self._dial, self._requested, evt_handlers)

    async def shutdown(self) -> None:
        """Shut all servers down, abort all associations, wait until they are over, and end the threads.

        A plain handler that still runs has ``timeouts.release`` seconds from now. After that it is left alone, and what
        it has not saved of a received dataset that lies on disk is removed.
        """
        loop = asyncio.get_running_loop()
        seconds = self.timeouts.release
        deadline = None if seconds is None else loop.time() + seconds

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - loop.time())

        servers, self._servers = self._servers, WeakSet[AssociationServer]()
        for server in servers:
            await server.shutdown()
        associations = tuple(self._associations)
        for association in associations:
            association.abort()
            association.interrupt()
        for association in associations:
            await association.join(left())
        await self._workers.shutdown(left())

    async def __aenter__(self) -> "AE":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()
