"""Two application entities and one association between them, in memory: the shortest way to test both sides."""

from collections.abc import Iterable, Sequence
from typing import Self

from rxdicom.errors import StateError
from rxdicom.events.bindings import EventHandler
from rxdicom.pdu_primitives import Builder
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.entity import Entity
from rxdicom.testing.association import MemoryAssociation
from rxdicom.testing.clock import VirtualClock
from rxdicom.testing.entities import MemoryServer
from rxdicom.testing.faults import Faults
from rxdicom.testing.network import Network
from rxdicom.wire.items import UserItem

_PORT = 104


class Pair:
    """An association in memory, seen from both its sides. Made by :func:`pair`.

    As a context manager it opens the association, releases it on the way out, and aborts it when left by an exception.
    """

    def __init__(self, network: Network, requestor: MemoryAssociation, server: MemoryServer) -> None:
        self.network = network
        self.requestor = requestor
        """The side that asks, not yet open."""
        self.server = server
        """The listener of the other side, with the events of its association."""
        self._acceptor: list[MemoryAssociation] = []
        server.associations.subscribe(self._acceptor.append)

    @property
    def clock(self) -> VirtualClock:
        """The time of both sides, for operators too."""
        return self.network.clock

    @property
    def acceptor(self) -> MemoryAssociation:
        """The side that was asked. Raises :class:`~rxdicom.errors.StateError` before it is connected."""
        if not self._acceptor:
            raise StateError("there is no acceptor before the association is opened")
        return self._acceptor[0]

    def cut(self, *, reset: bool = False) -> None:
        """End the connection without a word, for both sides."""
        self.network.cut(self.requestor, reset=reset)

    def release_delays(self) -> None:
        """End the delays that have no time of their own."""
        self.network.release(self.requestor)

    def __enter__(self) -> Self:
        self.requestor.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.requestor.__exit__(kind)
        self.server.shutdown()


def pair(
    requestor: Entity,
    acceptor: Entity,
    *,
    evt_handlers: Iterable[EventHandler] | None = None,
    acceptor_handlers: Iterable[EventHandler] | None = None,
    contexts: Sequence[PresentationContext] | None = None,
    ext_neg: Iterable[Builder | UserItem] | None = None,
    faults: Faults | None = None,
    clock: VirtualClock | None = None,
) -> Pair:
    """An association between two AEs, configured like any others, in memory and in virtual time::

        with pair(scu, scp, acceptor_handlers=[(evt.EVT_C_STORE, on_store)]) as both:
            assert both.requestor.send_c_store(dataset) == 0x0000

    ``evt_handlers`` are those of the requestor's side. ``contexts`` and ``ext_neg`` are as for ``associate``,
    ``faults`` are what happens to the bytes, ``clock`` is another clock than a new one.
    """
    network = Network(clock)
    address = ("127.0.0.1", _PORT)
    server = network.entity(acceptor).start_server(address, block=False, evt_handlers=acceptor_handlers)
    network.harm(address, faults or Faults())
    association = network.entity(requestor).association(
        *address, contexts, acceptor.ae_title, ext_neg=ext_neg, evt_handlers=evt_handlers
    )
    return Pair(network, association, server)
