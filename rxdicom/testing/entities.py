"""Application entities and servers of a network in memory, with the words of those that have sockets."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from rxdicom.errors import ArgumentError, StateError
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.dispatcher import Handler
from rxdicom.events.hub import ASSOCIATIONS, Hub, in_observer
from rxdicom.events.kinds import EventKind
from rxdicom.pdu_primitives import Builder
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.policy import Policy
from rxdicom.runtimes.association import Setup
from rxdicom.runtimes.entity import ANY_SCP, Entity
from rxdicom.runtimes.sub_operations import finished
from rxdicom.runtimes.titles import ServedTitle, Titles
from rxdicom.services.acceptance import decide
from rxdicom.testing.association import MemoryAssociation
from rxdicom.testing.performing import SteppedPerformance
from rxdicom.wire.items import UserItem
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from reactivex import Observable

    from rxdicom.events.streams import EventStreams
    from rxdicom.testing.network import Network

_LIMIT_EXCEEDED = AssociateRJ(2, 3, 2)

Address = tuple[str, int]


class MemoryAE(Entity):
    """An application entity in memory, with the words of :class:`rxdicom.AE`. Made by :meth:`Network.entity`."""

    def __init__(self, network: "Network", ae_title: str) -> None:
        super().__init__(ae_title)
        self.network = network
        self._hub = Hub()
        self._streams: EventStreams | None = None
        self._servers: list[MemoryServer] = []
        self._associations: list[MemoryAssociation] = []
        self._serial = 0

    @property
    def events(self) -> "EventStreams":
        """An Observable per notification event, merged over everything that this AE does."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._hub)
        return self._streams

    @property
    def active_associations(self) -> list[MemoryAssociation]:
        """The associations that are established right now, requested and accepted ones."""
        own = [each for each in self._associations if each.is_established]
        return own + [each for server in self._servers for each in server.active_associations]

    def associate(
        self,
        addr: str,
        port: int,
        contexts: Sequence[PresentationContext] | None = None,
        ae_title: str = ANY_SCP,
        max_pdu: int | None = None,
        ext_neg: Iterable[Builder | UserItem] | None = None,
        bind_address: tuple[str, int] | None = None,
        tls_args: None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> MemoryAssociation:
        """Connect to a server of the network and negotiate: as :meth:`rxdicom.AE.associate`, without TLS."""
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
        tls_args: None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> MemoryAssociation:
        """The same, not yet connected: subscribe first, miss nothing, then ``open()`` it."""
        del bind_address
        _no_tls(tls_args)
        request = self.make_request(ae_title, contexts, max_pdu, ext_neg)
        return self._make(request, (addr, port), [*(evt_handlers or ()), *(evt_handler or ())])

    def _make(self, request: AssociateRQ, address: Address, handlers: Iterable[EventHandler]) -> MemoryAssociation:
        self._serial += 1
        setup = Setup(
            name=f"{self.ae_title}-{request.called_ae_title}-{self._serial}",
            timeouts=self.timeouts,
            limits=evolve(self.limits, pdu=request.maximum_length),
            hubs=(self._hub,),
            spool_folder=self.spool_folder,
            dial=partial(self.dial, request.calling_ae_title),
            requested=tuple(self._requested),
            convert=self.convert_datasets,
        )
        connect = partial(self.network.connect, address)
        association = MemoryAssociation(
            setup, self.network, request=request, connect=connect, on_over=self._associations.remove
        )
        for kind, handler, *args in handlers:
            association.bind(kind, handler, args[0] if args else None)
        self._associations.append(association)
        return association

    def dial(
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
        tls_args: None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> MemoryAssociation:
        """An open association to a C-MOVE destination, called by the AE that performs the C-MOVE."""
        del bind_address
        _no_tls(tls_args)
        request = self.make_request(ae_title, contexts, max_pdu, ext_neg, calling_ae_title)
        return self._make(request, (addr, port), evt_handlers or ()).open()

    def start_server(
        self,
        address: tuple[str, int],
        block: bool = True,
        ssl_context: None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        evt_handler: Iterable[EventHandler] | None = None,
    ) -> "MemoryServer":
        """Be found at an address: as :meth:`rxdicom.AE.start_server` with ``block=False``, which has to be said."""
        if block:
            raise StateError("a server in memory has no thread to block; give block=False")
        _no_tls(ssl_context)
        title, policy = self.served(ae_title, contexts)
        handlers = [*(evt_handlers or ()), *(evt_handler or ())]
        server = MemoryServer(self, address, title, policy, self._hub, handlers, tuple(self._requested))
        self._servers.append(server)
        return server

    def make_title(
        self,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        evt_handlers: Iterable[EventHandler] | None = None,
    ) -> ServedTitle:
        """What a server of another entity takes to serve this one too: see :meth:`MemoryServer.also_serve`."""
        served = self.served(ae_title, contexts)
        return ServedTitle.made(served, self._hub, self.dial, self._requested, evt_handlers)

    def shutdown(self) -> None:
        """Shut all servers down and abort all associations."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.shutdown()
        for association in tuple(self._associations):
            association.abort()
            self.network.cut(association)


class MemoryServer:
    """A listening application entity in memory, with the words of :class:`rxdicom.AssociationServer`."""

    def __init__(
        self,
        ae: MemoryAE,
        address: Address,
        ae_title: str,
        policy: Policy,
        hub: Hub,
        handlers: Iterable[EventHandler],
        requested: tuple[PresentationContext, ...],
    ) -> None:
        self.ae_title = ae_title
        self.policy = policy
        self.timeouts = ae.timeouts
        self.limits = ae.limits
        self._network = ae.network
        self._setup = Setup(
            name=ae_title,
            timeouts=ae.timeouts,
            limits=ae.limits,
            hubs=(),
            spool_folder=ae.spool_folder,
            dial=partial(ae.dial, ae_title),
            requested=requested,
            convert=ae.convert_datasets,
        )
        self._hub = hub
        self._titles = Titles(ae_title)
        self._bindings = Bindings()
        self._bindings.bind_all(handlers)
        self._streams: EventStreams | None = None
        self._connected: list[MemoryAssociation] = []
        self._serial = 0
        self._is_shut_down = False
        self.address: Address = self._network.listen(self, address)
        """Host and port where it is found; a port of 0 is resolved."""

    @property
    def active_associations(self) -> list[MemoryAssociation]:
        """The associations that are established right now."""
        return [each for each in self._connected if each.is_established]

    @property
    def associations(self) -> "Observable[MemoryAssociation]":
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
        ae: MemoryAE,
        evt_handlers: Iterable[EventHandler] | None = None,
        ae_title: str | None = None,
        contexts: Sequence[PresentationContext] | None = None,
    ) -> None:
        """Answer for another application entity too: as :meth:`rxdicom.AssociationServer.also_serve`."""
        self._titles.add(ae.make_title(ae_title, contexts, evt_handlers))

    def shutdown(self, drain: float = 0.0) -> None:
        """Be found no more; give associations ``drain`` seconds of virtual time to end, then abort them."""
        first, self._is_shut_down = not self._is_shut_down, True
        self._network.leave(self)
        if drain and not in_observer():
            self._network.clock.advance(drain)
        for association in tuple(self._connected):
            association.abort()
            self._network.cut(association)
        if first:
            self._bindings.hub.complete()
            self._bindings.hub.drain(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<MemoryServer {self.ae_title!r} at {self.address}>"

    # ---- connections

    def accept(self) -> MemoryAssociation:
        """The association of a new connection; for networks."""
        self._serial += 1
        setup = evolve(
            self._setup,
            name=f"{self.ae_title}-{self._serial}",
            hubs=(self._bindings.hub, self._hub),
            handlers=self._bindings.dispatcher,
        )
        association = MemoryAssociation(setup, self._network, answer=self._answer, on_over=self._connected.remove)
        self._connected.append(association)
        return association

    def announce(self, association: MemoryAssociation) -> None:
        """Tell of a new association; for networks."""
        for hub in (self._bindings.hub, self._hub):
            if hub.mask >> ASSOCIATIONS & 1:
                hub.append(ASSOCIATIONS, association)
                hub.drain(0)

    def _answer(self, association: MemoryAssociation, request: AssociateRQ) -> AssociateAC | AssociateRJ:
        if len(self.active_associations) >= self.limits.associations:
            return _LIMIT_EXCEEDED
        policy = self._titles.policy_for(association, request.called_ae_title, self.policy)
        service = decide(request, policy, self.limits.pdu, association.is_bound, association)
        decision = finished(SteppedPerformance(association.handlers).run(service))
        association.service_classes = decision.services
        return decision.answer


def _no_tls(given: object) -> None:
    if given is not None:
        raise ArgumentError("there is no TLS in memory; test that with sockets")
