"""``user.py STACK PORT …``: a user by the API of rxdicom or pynetdicom, which have the same words.

``echo COUNT REPORT`` sends C-ECHOs inside one association and writes their latencies; ``find COUNT`` sends one C-FIND
and fails unless it has so many matches.
"""

import importlib
import sys
from typing import Any

SUCCESS = 0x0000
VERIFICATION = "1.2.840.10008.1.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def echo(assoc: Any, count: int, report: str) -> None:
    """Send so many C-ECHOs, one after the other, after a first one for which both sides load what they need."""
    from latencies import Latencies

    latencies = Latencies()
    assoc.send_c_echo()
    for _ in range(count):
        status: Any = latencies.time(assoc.send_c_echo)
        if getattr(status, "Status", None) != SUCCESS:
            raise SystemExit(f"a C-ECHO is answered with {status!r}")
    latencies.write(report)


def find(assoc: Any, count: int, study: str) -> None:
    """Send a C-FIND for all images of a study, and read one attribute of each match."""
    from pydicom import Dataset

    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study.partition("/")[0]
    query.SeriesInstanceUID = study.partition("/")[2]
    query.SOPInstanceUID = ""
    query.InstanceNumber = ""
    found = set[str]()
    status: Any = None
    for response in assoc.send_c_find(query, FIND):
        status, identifier = response
        if identifier is not None:
            found.add(str(identifier.SOPInstanceUID))
    if getattr(status, "Status", None) != SUCCESS or len(found) != count:
        raise SystemExit(f"{len(found)} of {count} matches, and {status!r} at the end")


def main(stack: str, port: str, title: str, task: str, count: str, what: str) -> None:
    """Do one of the two with the AE ``title``."""
    ae: Any = importlib.import_module(stack).AE()
    ae.add_requested_context(VERIFICATION if task == "echo" else FIND)
    assoc = ae.associate("127.0.0.1", int(port), ae_title=title)
    if not assoc.is_established:
        raise SystemExit("no association")
    (echo if task == "echo" else find)(assoc, int(count), what)
    assoc.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
