"""The application entity of the blocking runtime: makes associations and servers out of its configuration."""

import ssl
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, overload

from attrs import evolve

from rxdicom.errors import ArgumentError
from rxdicom.events.bindings import EventHandler
from rxdicom.events.hub import Hub, forbid_in_observer, in_observer
from rxdicom.pdu_primitives import Builder
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.entity import ANY_SCP, Entity, checked_ae_title
from rxdicom.runtimes.threads.association import Association, Setup
from rxdicom.runtimes.threads.server import AssociationServer, join_all
from rxdicom.runtimes.threads.transport import TLSTransport, Transport, connect
from rxdicom.wire.items import UserItem
from rxdicom.wire.pdu import AssociateRQ

if TYPE_CHECKING:
    from rxdicom.events.streams import EventStreams

TLSArguments = tuple[ssl.SSLContext, str | None]
"""The context, and the host name that the peer's certificate must have; None for the address that is connected to."""


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
        self._servers: list[AssociationServer] = []
        self._associations: set[Association] = set()
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
        if not 0 < port < 65536:
            raise ArgumentError(f"port {port} is not a TCP port; give one from 1 to 65535")
        timeouts = self.timeouts

        def connected() -> Transport:
            deadline = None if timeouts.connect is None else time.monotonic() + timeouts.connect
            sock = connect(addr, port, bind_address, deadline)
            if tls_args is None:
                return Transport(sock)
            context, hostname = tls_args
            if context.check_hostname and not hostname:
                # An SSLObject would leave the check out then, without a word.
                hostname = addr
            try:
                transport = TLSTransport(sock, context, hostname, server=False)
            except (ssl.SSLError, ValueError) as error:
                sock.close()
                raise ArgumentError(f"tls_args: not a context for clients, or no host name for it: {error}") from error
            try:
                transport.handshake(None if timeouts.tls is None else time.monotonic() + timeouts.tls)
            except BaseException:
                transport.close()
                raise
            return transport

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

    # ---- as acceptor

    @overload
    def start_server(
        self,
        address: tuple[str, int],
        block: Literal[True] = True,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> None: ...
    @overload
    def start_server(
        self,
        address: tuple[str, int],
        block: Literal[False],
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> AssociationServer: ...
    def start_server(
        self,
        address: tuple[str, int],
        block: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> AssociationServer | None:
        """Listen for associations. With ``block`` this returns after :meth:`shutdown` only; otherwise at once.

        ``address`` is (host, port): an empty host serves all interfaces, IPv4 and IPv6, port 0 a free one.
        ``ae_title`` and ``contexts`` stand in for those of the AE. Raises :class:`OSError` if it cannot listen.
        """
        handlers = [*(evt_handlers or ()), *(evt_handler or ())]
        server = self.make_server(address, ae_title, contexts, ssl_context, handlers)
        if not block:
            return server.start()
        try:
            server.serve_forever()
        finally:
            server.shutdown()
        return None

    def make_server(
        self,
        address: tuple[str, int],
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> AssociationServer:
        """A server that listens but does not serve yet: call its ``serve_forever()`` or ``start()``."""
        title = checked_ae_title(ae_title or self.ae_title)
        policy = self.make_policy(title, contexts)
        if not policy.contexts and not policy.is_storage:
            raise ArgumentError("no presentation contexts are supported; add at least one with add_supported_context()")
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
        self._servers.append(server)
        return server

    def shutdown(self) -> None:
        """Shut all servers down, abort all associations, and wait until they are over."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.shutdown()
        associations = tuple(self._associations)
        for association in associations:
            association.abort()
            association.interrupt()
        if not in_observer():
            join_all(associations, self.timeouts.release)
