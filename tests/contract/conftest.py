"""Two runtimes that talk to each other, every combination of them."""

from collections.abc import Generator
from importlib.util import find_spec
from typing import Any

import pytest
from attrs import frozen

from rxdicom import evt
from rxdicom.events.bindings import EventHandler
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.contract.runtime import PAIRS, RUNTIMES, Runtime
from tests.runtimes.queries import ALL, CT, as_proposed


@frozen
class Sides:
    """An entity that asks, and one that answers. Both can do everything, in either role."""

    scu_runtime: Runtime
    scp_runtime: Runtime
    scu: Any
    scp: Any

    def start(self, *handlers: EventHandler, **options: Any) -> Any:
        """The server of the one that answers; it accepts every window of asynchronous operations."""
        bound: list[EventHandler] = self.scp_runtime.handlers(((evt.EVT_ASYNC_OPS, as_proposed), *handlers))
        return self.scp.start_server(("127.0.0.1", 0), block=False, evt_handlers=bound, **options)

    def associate(self, server: Any, *handlers: EventHandler, **options: Any) -> Any:
        """An open association of the one that asks."""
        bound = self.scu_runtime.handlers(handlers)
        return self.scu.associate(*server.address, evt_handlers=bound, **options)


def entity(runtime: Runtime, title: str) -> Any:
    """An entity for everything here in both roles, in implicit VR."""
    ae = runtime.ae(title)
    for uid in ALL:
        ae.add_requested_context(uid, IMPLICIT_VR_LITTLE_ENDIAN)
        roles = (True, True) if uid == CT else (None, None)
        ae.add_supported_context(uid, IMPLICIT_VR_LITTLE_ENDIAN, *roles)
    return ae


@pytest.fixture(params=PAIRS, ids=["→".join(pair) for pair in PAIRS])
def sides(request: pytest.FixtureRequest) -> Generator[Sides]:
    if "uvloop" in request.param and find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    scu, scp = (RUNTIMES[each]() for each in request.param)
    try:
        yield Sides(scu, scp, entity(scu, "SCU"), entity(scp, "SCP"))
    finally:
        try:
            scu.close()
        finally:
            scp.close()
