"""Received instances to two sinks: an index that must have all of them, and a display that may lag behind."""

import json
import tempfile
import threading
from pathlib import Path

import pydicom
from reactivex import operators as ops

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.operators import StoredInstance, activity, buffered, stored_instances, to_jsonl
from rxdicom.sop_class import CTImageStorage, MRImageStorage

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def on_store(_: CStore) -> int:
    return 0x0000


def show(instance: StoredInstance) -> None:
    print(f"{instance.modality} {instance.size} bytes from {instance.calling_ae_title}")


def main() -> None:
    ae = AE(ae_title="STORE")
    for sop_class in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(sop_class)
        ae.add_supported_context(sop_class)
    shown = threading.Event()
    with tempfile.TemporaryFile("w+") as index:
        with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
            instances = activity(server.events).pipe(stored_instances(), ops.share())
            # On the reader's thread: a slow disk slows the sender down, and nothing is lost.
            instances.pipe(to_jsonl()).subscribe(lambda line: print(line, file=index))
            # On a thread of its own: the oldest of a hundred that wait give way, and nobody waits.
            instances.pipe(buffered(100, "oldest")).subscribe(show, on_completed=shown.set)
            with ae.associate(*server.address) as assoc:
                for name in ("CT_small.dcm", "MR_small.dcm"):
                    assoc.send_c_store(FILES / name)
        shown.wait(10)
        index.seek(0)
        print([json.loads(line)["modality"] for line in index])


if __name__ == "__main__":
    main()
