"""For the tests of programs that use rxdicom: associations in memory, virtual time, events by hand, faults by script.

::

    from rxdicom.testing import pair

    with pair(scu, scp, acceptor_handlers=[(evt.EVT_C_STORE, on_store)]) as both:
        assert both.requestor.send_c_store(dataset) == 0x0000

Nothing in here is needed to use rxdicom; see ``docs/testing.md``.
"""

from rxdicom.testing.answers import Answers, answers
from rxdicom.testing.association import MemoryAssociation
from rxdicom.testing.clock import VirtualClock
from rxdicom.testing.entities import MemoryAE, MemoryServer
from rxdicom.testing.events import association, event
from rxdicom.testing.faults import Corrupt, Cut, Delay, Fault, Faults, Reorder, Split
from rxdicom.testing.marbles import Marbles, Outcome
from rxdicom.testing.network import Network
from rxdicom.testing.pairing import Pair, pair
from rxdicom.testing.relay import Relay, relay

__all__ = [
    "Answers",
    "Corrupt",
    "Cut",
    "Delay",
    "Fault",
    "Faults",
    "Marbles",
    "MemoryAE",
    "MemoryAssociation",
    "MemoryServer",
    "Network",
    "Outcome",
    "Pair",
    "Relay",
    "Reorder",
    "Split",
    "VirtualClock",
    "answers",
    "association",
    "event",
    "pair",
    "relay",
]
