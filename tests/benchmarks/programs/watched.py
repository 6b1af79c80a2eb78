"""``watched.py send|receive PORT FOLDER HOW``: stores with rxdicom, the PDUs unobserved or observed by a stream.

HOW is ``plain`` (streams are never touched), ``stream`` (they are there, and nobody subscribes) or ``subscribed``. The
receiver serves until SIGTERM. One that subscribed and saw no PDU fails.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rxdicom import AE, evt
from rxdicom.presentation import build_context
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from rxdicom.events.records import CStore
    from rxdicom.events.streams import EventStreams

CT = "1.2.840.10008.5.1.4.1.1.2"


class Seen:
    """How many PDUs were seen."""

    def __init__(self) -> None:
        self.pdus = 0

    def add(self, _event: object) -> None:
        """One more."""
        self.pdus += 1

    def observe(self, how: str, events: "Callable[[], EventStreams]", kind: evt.EventKind[Any]) -> None:
        """Do with the streams what is asked for."""
        if how == "plain":
            return
        stream = events()[kind]
        if how == "subscribed":
            stream.subscribe(self.add)

    def check(self, how: str) -> int:
        """The exit code."""
        if how == "subscribed" and not self.pdus:
            print("the subscriber saw no PDU")
            return 1
        return 0


def send(port: int, folder: Path, how: str) -> int:
    """Send all files of a folder, one after the other."""
    seen = Seen()
    contexts = [build_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)]
    with AE().associate("127.0.0.1", port, contexts) as assoc:
        seen.observe(how, lambda: assoc.events, evt.EVT_PDU_SENT)
        for path in sorted(folder.iterdir()):
            if (status := assoc.send_c_store(path)) != 0:
                print(f"{path.name}: {status!r}")
                return 1
    return seen.check(how)


def receive(port: int, folder: Path, how: str) -> int:
    """Store until SIGTERM."""
    seen, ae = Seen(), AE()
    ae.add_supported_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.spool_folder = str(folder)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def store(event: "CStore") -> int:
        event.save(folder / f"{event.request.AffectedSOPInstanceUID}.dcm", durable=False)
        return 0x0000

    server = ae.make_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])
    seen.observe(how, lambda: server.events, evt.EVT_PDU_RECV)
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.shutdown()
    return seen.check(how)


if __name__ == "__main__":
    task, port, folder, how = sys.argv[1:]
    sys.exit((send if task == "send" else receive)(int(port), Path(folder), how))
