"""Two application entities in one process: a Storage SCP as a pure function, and an SCU that watches its PDUs."""

from pathlib import Path

import pydicom
from reactivex import operators as ops

from rxdicom import AE, evt
from rxdicom.events.records import CStore, PDUReceived
from rxdicom.sop_class import CTImageStorage, Verification
from rxdicom.wire.pdu import AssociateAC

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def on_store(event: CStore) -> int:
    """Called with an immutable record, returns a status: it can be tested without any network."""
    return 0x0000 if event.dataset.Modality == "CT" else 0xA900


def is_accept(event: PDUReceived) -> bool:
    return isinstance(event.pdu, AssociateAC)


def show(event: object) -> None:
    print(event)


def main() -> None:
    ae = AE(ae_title="ME")
    for sop_class in (Verification, CTImageStorage):
        ae.add_requested_context(sop_class)
        ae.add_supported_context(sop_class)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        assoc = ae.association(*server.address)  # not yet connected: subscribe first, miss nothing
        assoc.events.pdu_recv.pipe(ops.filter(is_accept)).subscribe(show)
        with assoc:  # opens, and releases on the way out
            print(assoc.send_c_echo().category)
            print(repr(assoc.send_c_store(CT)))


if __name__ == "__main__":
    main()
