"""An SCP whose services are pure functions of immutable records, and their unit tests, without any network.

``python pure_scp.py`` runs the tests and then serves one query; ``pytest pure_scp.py`` runs the tests.
"""

from collections.abc import Iterator

from pydicom import Dataset

from rxdicom import AE, evt
from rxdicom.events.records import CFind, CStore
from rxdicom.sop_class import CTImageStorage
from rxdicom.sop_class import PatientRootQueryRetrieveInformationModelFind as PatientRoot

PATIENTS = {"1": "CITIZEN^JANE", "2": "SMITH^JOHN"}


def on_store(event: CStore) -> int:
    return 0x0000 if event.dataset.PatientID in PATIENTS else 0xA900


def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
    for number, name in PATIENTS.items():
        if event.identifier.PatientID in ("", number):
            yield 0xFF00, patient(number, name)


def patient(number: str, name: str = "") -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel, made.PatientID, made.PatientName = "PATIENT", number, name
    return made


def test_only_known_patients_are_stored() -> None:
    assert [on_store(CStore.by_hand(patient(number))) for number in "13"] == [0x0000, 0xA900]


def test_a_patient_is_found_by_number() -> None:
    assert [match.PatientName for _, match in on_find(CFind.by_hand(patient("2")))] == ["SMITH^JOHN"]
    assert len(list(on_find(CFind.by_hand(patient(""))))) == 2


def main() -> None:
    test_only_known_patients_are_stored()
    test_a_patient_is_found_by_number()
    ae = AE(ae_title="PURE")
    ae.add_requested_context(PatientRoot)
    for sop_class in (CTImageStorage, PatientRoot):
        ae.add_supported_context(sop_class)
    handlers = [(evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    with server, ae.associate(*server.address) as assoc:
        for status, match in assoc.send_c_find(patient(""), PatientRoot):
            print(status.category, match.PatientName if match else "-")


if __name__ == "__main__":
    main()
