"""``archive.py STACK PORT …``: a provider of all services by the API of rxdicom or pynetdicom: it has the same words.

``--matches N`` answers each C-FIND with so many small identifiers, ``--instances FOLDER`` each C-GET and C-MOVE with
all files of a folder, a C-MOVE to the port ``--destination`` of this machine. What is stored is written into
``--output``. Serves until it is killed.
"""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread  # pyright: ignore[reportUnknownVariableType]
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

PENDING, SUCCESS = 0xFF00, 0x0000
VERIFICATION = "1.2.840.10008.1.1"
FIND, GET, MOVE = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 3, 2))
"""Those of the study root."""


def match(number: int) -> Dataset:
    """One of the identifiers, at the level of images."""
    found = Dataset()
    found.QueryRetrieveLevel = "IMAGE"
    found.StudyInstanceUID = "2.25.1"
    found.SeriesInstanceUID = "2.25.2"
    found.SOPInstanceUID = f"2.25.3.{number + 1}"
    found.InstanceNumber = str(number + 1)
    return found


def main() -> None:
    """Serve."""
    options = _options()
    stack: Any = importlib.import_module(options.stack)
    evt: Any = stack.evt
    matches = [match(number) for number in range(options.matches)]
    files = sorted(options.instances.rglob("*.dcm")) if options.instances else []

    def instances() -> Iterator[Any]:
        # rxdicom sends a file as it lies on the disk; pynetdicom wants a dataset.
        for path in files:
            yield PENDING, path if options.stack == "rxdicom" else dcmread(path)

    def on_find(_: Any) -> Iterator[Any]:
        return ((PENDING, found) for found in matches)

    def on_get(_: Any) -> Iterator[Any]:
        yield len(files)
        yield from instances()

    def on_move(_: Any) -> Iterator[Any]:
        contexts = [stack.build_context(CTImageStorage, ExplicitVRLittleEndian)]
        yield "127.0.0.1", options.destination, {"contexts": contexts}
        yield len(files)
        yield from instances()

    def on_store(event: Any) -> int:
        (options.output / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return SUCCESS

    ae = stack.AE()
    ae.maximum_associations = 100
    for uid in (VERIFICATION, FIND, GET, MOVE):
        ae.add_supported_context(uid)
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_C_FIND, on_find),
        (evt.EVT_C_GET, on_get),
        (evt.EVT_C_MOVE, on_move),
        (evt.EVT_C_STORE, on_store),
    ]
    ae.start_server(("127.0.0.1", options.port), block=True, evt_handlers=handlers)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("stack", choices=("rxdicom", "pynetdicom"))
    parser.add_argument("port", type=int)
    parser.add_argument("--matches", type=int, default=0)
    parser.add_argument("--instances", type=Path)
    parser.add_argument("--destination", type=int)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
