"""A throughput meter: bytes, PDUs and messages per second that a server receives, every tenth of a second."""

from pathlib import Path

import pydicom

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.operators import Throughput, activity, throughput
from rxdicom.sop_class import CTImageStorage

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def on_store(_: CStore) -> int:
    return 0x0000


def show(window: Throughput) -> None:
    rate = window.received
    print(f"{rate.bytes / 1e6:7.2f} MB/s {rate.pdus:7.0f} PDUs/s {rate.messages:7.0f} messages/s")


def main() -> None:
    ae = AE(ae_title="STORE")
    ae.add_requested_context(CTImageStorage)
    ae.add_supported_context(CTImageStorage)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        # Bytes and PDUs cost something to observe: they are not part of the activity unless asked for.
        watched = activity(server.events, evt.EVT_DATA_RECV, evt.EVT_PDU_RECV)
        watched.pipe(throughput(0.1)).subscribe(show)
        with ae.associate(*server.address) as assoc:
            for _ in range(100):
                assoc.send_c_store(CT)


if __name__ == "__main__":
    main()
