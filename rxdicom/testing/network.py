"""A network in memory: application entities, servers and associations without sockets, threads or waiting."""

from collections.abc import Callable
from copy import deepcopy

from rxdicom.errors import ConnectionFailed, StateError
from rxdicom.events.hub import forbid_in_observer, in_observer
from rxdicom.runtimes.entity import Entity
from rxdicom.testing.association import MemoryAssociation
from rxdicom.testing.clock import VirtualClock
from rxdicom.testing.entities import MemoryAE, MemoryServer
from rxdicom.testing.faults import Faults
from rxdicom.testing.link import Link

_HOST = "127.0.0.1"
_FIRST_PORT = 49152
"""The first of the ports that are given to those who do not ask for one."""

Address = tuple[str, int]


class Network:
    """Where associations in memory meet. Everything happens on the thread that waits, in the same order each time.

    Time is :attr:`clock`: it goes on when the clock is told so, or when somebody waits and nothing else can happen.
    """

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.clock.attach(self)
        self._servers: dict[Address, MemoryServer] = {}
        self._faults: dict[Address, Faults] = {}
        self._links: list[Link] = []
        self._ports = _FIRST_PORT

    def entity(self, ae: Entity | str) -> MemoryAE:
        """An application entity of this network: with the configuration of ``ae`` as it is now, or by its AE title."""
        made = MemoryAE(self, ae if isinstance(ae, str) else ae.ae_title)
        if isinstance(ae, Entity):
            vars(made).update({name: deepcopy(getattr(ae, name)) for name in vars(Entity())})
        return made

    def harm(self, address: Address, faults: Faults) -> None:
        """Have faults on the connections to this address that are made from now on."""
        self._faults[address] = faults

    def cut(self, association: MemoryAssociation, *, reset: bool = False) -> None:
        """End the connection of an association without a word, as a cable that is pulled, for both its sides."""
        for link in self._links_of(association):
            link.cut(reset=reset)
        self.settle()

    def release(self, association: MemoryAssociation) -> None:
        """End the delays without a time on the connection of an association."""
        for link in self._links_of(association):
            link.release()
        self.settle()

    def _links_of(self, association: MemoryAssociation) -> list[Link]:
        return [each for each in self._links if association in (each.requestor, each.acceptor)]

    # ---- who is there

    def listen(self, server: MemoryServer, address: Address) -> Address:
        """Have a server be found at an address; port 0 is any. Raises :class:`OSError` if another one is there."""
        host, port = address[0] or _HOST, address[1] or self.next_port()
        if (host, port) in self._servers:
            raise OSError(f"another server listens at {host}:{port}")
        self._servers[host, port] = server
        return host, port

    def leave(self, server: MemoryServer) -> None:
        """Nobody is found at the address of this server any more."""
        self._servers = {address: each for address, each in self._servers.items() if each is not server}

    def next_port(self) -> int:
        """A port that nobody has."""
        self._ports += 1
        return self._ports

    def connect(self, address: Address, association: MemoryAssociation) -> None:
        """Connect an association to whoever listens at an address. Raises ConnectionFailed if nobody does."""
        address = address[0] or _HOST, address[1]
        server = self._servers.get(address)
        if server is None:
            raise ConnectionFailed(f"cannot connect to {address[0]}:{address[1]}; nobody listens there in this network")
        accepted = server.accept()
        own = _HOST, self.next_port()
        self._links.append(Link(self.clock, association, accepted, self._faults.get(address, Faults())))
        server.announce(accepted)
        accepted.connected(address, own)
        association.connected(own, address)

    # ---- what happens

    def step(self) -> bool:
        """Let one thing happen that takes no time. False if there is none.

        What has been sent is received before anybody goes on with anything else.
        """
        if any(link.step() for link in self._links):
            self._links = [each for each in self._links if not each.is_over]
            return True
        return any(each.step() for link in self._links for each in (link.acceptor, link.requestor) if not each.is_gone)

    def settle(self) -> None:
        """Let everything happen that takes no time. In an observer nothing: it happens when that has returned."""
        while not in_observer() and self.step():
            pass

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Let things happen, and time pass where nothing else does, until something is the case.

        Raises :class:`~rxdicom.errors.StateError` when nothing is left that could bring it about.
        """
        forbid_in_observer("what waits for the network")
        while not is_done():
            if not self.step() and not self.clock.step():
                raise StateError("this never happens: nothing is on its way in this network, and no deadline is set")

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeouts` is to be called."""
        moments = [each.next_deadline() for link in self._links for each in (link, link.requestor, link.acceptor)]
        return min((each for each in moments if each is not None), default=None)

    def handle_timeouts(self) -> None:
        """Act on the deadlines that have passed."""
        for link in tuple(self._links):
            link.requestor.handle_timeouts()
            link.acceptor.handle_timeouts()
