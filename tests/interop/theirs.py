"""pynetdicom as peer inside the test: its servers and associations, which are over when their block is left."""

import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE

from tests.support import DEADLINE


@contextmanager
def serving(
    handlers: Iterable[Any],
    *sop_classes: str,
    title: str = "PYNETDICOM",
    roles: Mapping[str, tuple[bool | None, bool | None]] | None = None,
    requested: Iterable[str] = (),
) -> Generator[Any]:
    """A server for SOP classes, and for those with the roles that it grants; it can request others."""
    ae: Any = AE(title)
    for uid in sop_classes:
        ae.add_supported_context(uid)
    for uid, (scu, scp) in (roles or {}).items():
        ae.add_supported_context(uid, scu_role=scu, scp_role=scp)
    for uid in requested:
        ae.add_requested_context(uid)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    try:
        yield server
    finally:
        server.shutdown()


@contextmanager
def associated(address: tuple[str, int], *sop_classes: str, **arguments: Any) -> Generator[Any]:
    """An association that requests SOP classes, with further arguments of its ``associate``."""
    ae: Any = AE()
    for uid in sop_classes:
        ae.add_requested_context(uid)
    assoc = ae.associate(*address, **arguments)
    assert assoc.is_established
    try:
        yield assoc
    except BaseException:
        assoc.abort()
        raise
    assoc.release()
    assert assoc.is_released


def settle(assoc: Any) -> None:
    """Wait until its reactor has gone on after a request: it may take the response to the next one from it else."""
    deadline = time.monotonic() + DEADLINE
    while assoc._is_paused and time.monotonic() < deadline:
        threading.Event().wait(0.001)
