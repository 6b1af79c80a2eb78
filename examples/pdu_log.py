"""A filtered stream of PDUs to a log: who asks for associations, and how they end, of all a server's associations."""

import logging
import sys

import reactivex

from rxdicom import AE
from rxdicom.events.records import PDUReceived, PDUSent
from rxdicom.operators import of_pdu, to_ae
from rxdicom.sop_class import Verification
from rxdicom.wire.pdu import Abort, AssociateRQ, ReleaseRP

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
logging.getLogger("rxdicom").setLevel(logging.WARNING)  # what the library says itself is not the subject here
LOG = logging.getLogger("pdus")


def log(event: PDUReceived | PDUSent) -> None:
    LOG.info("%s %s %s", event.assoc.name, "<-" if isinstance(event, PDUReceived) else "->", event.pdu.name)


def main() -> None:
    ae = AE(ae_title="ECHO")
    ae.add_requested_context(Verification)
    ae.add_supported_context(Verification)
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        pdus = reactivex.merge(server.events.pdu_recv, server.events.pdu_sent)
        pdus.pipe(of_pdu(AssociateRQ, ReleaseRP, Abort), to_ae("ECHO")).subscribe(log)
        for called in ("ECHO", "SOMEBODY"):
            with ae.associate(*server.address, ae_title=called) as assoc:
                assoc.send_c_echo()


if __name__ == "__main__":
    main()
