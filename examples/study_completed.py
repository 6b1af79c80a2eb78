"""A callback for each study that is complete: nothing more came for a while, or its association was released."""

import threading
from pathlib import Path

import pydicom
from pydicom import Dataset

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.operators import CompletedStudy, activity, buffered, completed_studies
from rxdicom.sop_class import CTImageStorage

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def on_store(_: CStore) -> int:
    return 0x0000


def on_study(study: CompletedStudy) -> None:
    """Behind a buffer it is on a thread of its own: it may take its time, and send the study on, for example."""
    sent_by = ", ".join(study.calling_ae_titles)
    print(f"{study.study_instance_uid}: {len(study.instances)} instances, {study.size} bytes, from {sent_by}")


def slices(study: int, count: int) -> list[Dataset]:
    made: list[Dataset] = [pydicom.dcmread(CT) for _ in range(count)]  # pyright: ignore[reportUnknownMemberType]
    for number, each in enumerate(made):
        each.StudyInstanceUID, each.SOPInstanceUID = f"2.25.{study}", f"2.25.{study}.{number}"
    return made


def main() -> None:
    ae = AE(ae_title="ARCHIVE")
    ae.add_requested_context(CTImageStorage)
    ae.add_supported_context(CTImageStorage)
    over = threading.Event()
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        studies = activity(server.events).pipe(completed_studies(quiet=30, at_release=True), buffered(100))
        studies.subscribe(on_study, on_completed=over.set)
        for study, count in ((1, 3), (2, 2)):
            with ae.associate(*server.address) as assoc:
                for each in slices(study, count):
                    assoc.send_c_store(each)
    over.wait(10)


if __name__ == "__main__":
    main()
