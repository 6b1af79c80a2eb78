"""What the workers of the tests do: functions of a module, as workers need them; and a parent, to be run and killed.

``python -m tests.runtimes.duties FOLDER DRAIN [fork]`` serves with two workers, and says where.
"""

import os
import signal
import ssl
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from rxdicom import AE, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CEcho, CStore
from rxdicom.runtimes.threads.server import AssociationServer
from rxdicom.runtimes.threads.workers import Workers
from rxdicom.wire.uids import VERIFICATION

CT = "1.2.840.10008.5.1.4.1.1.2"
HELD = "1.2.3.4.5.6"
"""The instance whose handler waits until the test says otherwise."""


def who(event: CEcho) -> Any:
    """A C-ECHO handler that says which process it runs in."""
    from pydicom import Dataset

    status = Dataset()
    status.Status = 0x0000
    status.ErrorComment = str(os.getpid())
    return status


def keep(event: CStore, folder: str) -> int:
    """A C-STORE handler that keeps instances durably, and one of them only when it may."""
    uid = event.request.AffectedSOPInstanceUID or ""
    if uid == HELD:
        # Opening a pipe waits for who opens its other end.
        Path(folder, "held").open("wb").close()
        Path(folder, "go").open("rb").close()
    event.save(os.path.join(folder, f"{uid}.dcm"))
    return 0x0000


def keep_relaxed(event: CStore, folder: str) -> int:
    """The same for all alike, and without waiting for the disk."""
    event.save(os.path.join(folder, f"{event.request.AffectedSOPInstanceUID}.dcm"), durable=False)
    return 0x0000


def pipes(folder: Path) -> None:
    """What :func:`keep` waits with for the test."""
    for name in ("held", "go"):
        os.mkfifo(folder / name)


def wait_until_held(folder: Path) -> None:
    (folder / "held").open("rb").close()


def let_go(folder: Path) -> None:
    (folder / "go").open("wb").close()


def handlers(folder: Path) -> list[EventHandler]:
    return [(evt.EVT_C_ECHO, who), (evt.EVT_C_STORE, keep, [str(folder)])]


def entity() -> AE:
    """An AE for C-ECHO and CT images, in both roles."""
    ae = AE("WORKERS")
    for uid in (VERIFICATION, CT):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    return ae


class ServerContext:
    """Makes the TLS context of a server."""

    def __init__(self, certificate: str, key: str) -> None:
        self.files = certificate, key

    def __call__(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.files)
        return context


# ---- preparations


def prepare(server: AssociationServer) -> None:
    """Observe, and answer with what cannot be passed to a process."""
    seen: list[str] = []
    lock = threading.Lock()

    def remember(event: Any) -> None:
        with lock:
            seen.append(event.assoc.requestor.ae_title)

    def tell(event: CEcho) -> Any:
        status = who(event)
        status.ErrorComment = ",".join(seen)
        return status

    server.bind(evt.EVT_ESTABLISHED, remember)
    server.bind(evt.EVT_C_ECHO, tell)


def fail(server: AssociationServer) -> None:
    raise ValueError("no database here")


def vanish(server: AssociationServer) -> None:
    os._exit(3)


def hang(server: AssociationServer) -> None:
    threading.Event().wait()


class VanishIf:
    """Fail to start as long as a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, server: AssociationServer) -> None:
        if self.path.exists():
            os._exit(3)


# ---- a parent


def main(folder: str, drain: str, *more: str) -> None:
    ae = entity()
    workers = Workers(2, drain=float(drain))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers(Path(folder)), workers=workers)
    forked = 0
    if "fork" in more:
        with warnings.catch_warnings():
            # It has threads; but what is forked does nothing.
            warnings.simplefilter("ignore")
            forked = os.fork()
        if not forked:
            # Holds everything that the parent has open, and stays.
            signal.pause()
    print(*server.address, forked, *(worker.pid for worker in server.workers), flush=True)
    if "leave" in more:
        return
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
