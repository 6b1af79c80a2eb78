"""A handler is a plain function of its event: each of the 15 kinds called with an event built by hand, no network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread  # pyright: ignore[reportUnknownVariableType] - of another parameter

from rxdicom import Status, evt
from rxdicom.application_information import QueryRetrieveInformation, answer
from rxdicom.errors import ArgumentError, DatasetError
from rxdicom.events import records
from rxdicom.events.kinds import INTERVENTION_KINDS
from rxdicom.events.records import (
    AsyncOps,
    CEcho,
    CFind,
    CGet,
    CMove,
    CStore,
    EventContext,
    NAction,
    NCreate,
    NDelete,
    NEventReport,
    NGet,
    NSet,
    SOPCommon,
    SOPExtended,
    UserID,
)
from rxdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)
from rxdicom.wire.items import SOPClassCommonExtended
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

STORAGE = "1.2.840.10008.4.2"


def dataset(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def ct(number: int = 1) -> Dataset:
    uid = f"1.2.3.{number}"
    return dataset(SOPClassUID=CTImageStorage, SOPInstanceUID=uid, StudyInstanceUID="1.2.3", PatientID=f"P{number}")


ARCHIVE = {instance.SOPInstanceUID: instance for instance in (ct(1), ct(2), ct(3))}


# ---- negotiation


def on_async_ops(event: AsyncOps) -> tuple[int, int]:
    return min(event.nr_invoked or 8, 8), 1


def test_asynchronous_operations() -> None:
    assert on_async_ops(AsyncOps(nr_invoked=0, nr_performed=5)) == (8, 1)
    assert on_async_ops(AsyncOps(nr_invoked=3, nr_performed=5)) == (3, 1)


def on_sop_common(event: SOPCommon) -> dict[str, SOPClassCommonExtended]:
    return {uid: item for uid, item in event.items.items() if item.service_class_uid == STORAGE}


def test_sop_class_common_extended() -> None:
    storage = SOPClassCommonExtended("1.2.3", STORAGE)
    other = SOPClassCommonExtended("1.2.4", "1.2.5")
    assert on_sop_common(SOPCommon(items={"1.2.3": storage, "1.2.4": other})) == {"1.2.3": storage}


def on_sop_extended(event: SOPExtended) -> dict[str, bytes]:
    supported = QueryRetrieveInformation(relational_queries=True)
    return answer(event.app_info, {StudyRootQueryRetrieveInformationModelFind: supported})


def test_sop_class_extended() -> None:
    event = SOPExtended(app_info={StudyRootQueryRetrieveInformationModelFind: b"\1\1\1", "1.2.3": b"x"})
    assert on_sop_extended(event) == {StudyRootQueryRetrieveInformationModelFind: b"\1\0\0"}


def on_user_id(event: UserID, users: dict[bytes, bytes]) -> tuple[bool, None]:
    return event.user_id_type == 2 and users.get(event.primary_field) == event.secondary_field, None


def test_a_user_identity() -> None:
    users = {b"doe": b"open sesame"}
    for name, passcode, accepted in ((b"doe", b"open sesame", True), (b"doe", b"x", False), (b"roe", b"x", False)):
        event = UserID(user_id_type=2, primary_field=name, secondary_field=passcode)
        assert on_user_id(event, users) == (accepted, None)
    assert on_user_id(UserID(user_id_type=1, primary_field=b"doe"), users) == (False, None)


# ---- C services


def on_echo(event: CEcho) -> int:
    return 0x0000 if event.context.abstract_syntax == "1.2.840.10008.1.1" else 0x0122


def test_an_echo() -> None:
    assert on_echo(CEcho.by_hand(AffectedSOPClassUID="1.2.840.10008.1.1")) == 0x0000
    assert on_echo(CEcho.by_hand()) == 0x0122


def on_store(event: CStore, folder: Path) -> int:
    if not event.dataset.get("PatientID"):
        return 0xA900
    (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
    return 0x0000


def test_a_store(tmp_path: Path) -> None:
    assert on_store(CStore.by_hand(ct(), calling_ae_title="MODALITY"), tmp_path) == 0x0000
    stored = dcmread(tmp_path / "1.2.3.1.dcm")
    assert (stored, stored.file_meta.SourceApplicationEntityTitle) == (ct(), "MODALITY")
    assert on_store(CStore.by_hand(), tmp_path) == 0xA900


def on_find(event: CFind) -> Iterator[tuple[int, Dataset | None]]:
    wanted = event.identifier.get("PatientID")
    for instance in ARCHIVE.values():
        if event.is_cancelled:
            yield 0xFE00, None
            return
        if wanted in ("", instance.PatientID):
            yield 0xFF00, instance


def test_a_query() -> None:
    assert list(on_find(CFind.by_hand(dataset(PatientID="P2")))) == [(0xFF00, ct(2))]
    assert len(list(on_find(CFind.by_hand(dataset(PatientID=""))))) == 3


def test_a_query_that_is_cancelled() -> None:
    cancelled = iter([False, True])
    event = CFind.by_hand(dataset(PatientID=""), cancelled=lambda: next(cancelled))
    assert list(on_find(event)) == [(0xFF00, ct(1)), (0xFE00, None)]


def on_get(event: CGet) -> Iterator[Any]:
    found = [ARCHIVE[uid] for uid in event.identifier.SOPInstanceUID if uid in ARCHIVE]
    yield len(found)
    for instance in found:
        yield 0xFF00, instance


def test_a_retrieval() -> None:
    event = CGet.by_hand(dataset(QueryRetrieveLevel="IMAGE", SOPInstanceUID=["1.2.3.1", "1.2.3.3", "1.2.9"]))
    assert list(on_get(event)) == [2, (0xFF00, ct(1)), (0xFF00, ct(3))]


def on_move(event: CMove, known: dict[str, tuple[str, int]]) -> Iterator[Any]:
    yield known.get(event.move_destination, (None, None))
    yield len(ARCHIVE)
    yield from ((0xFF00, instance) for instance in ARCHIVE.values())


def test_a_move() -> None:
    known = {"WORKSTATION": ("10.0.0.5", 104)}
    query = dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")
    destination, number, *rest = on_move(CMove.by_hand(query, MoveDestination="WORKSTATION"), known)
    assert (destination, number, len(rest)) == (("10.0.0.5", 104), 3, 3)
    assert next(on_move(CMove.by_hand(query, MoveDestination="NOWHERE"), known)) == (None, None)


# ---- N services


def on_action(event: NAction) -> tuple[int, None]:
    if event.request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
        return 0x0112, None
    if event.action_type != 1:
        return 0x0123, None
    return (0x0000 if event.action_information.ReferencedSOPSequence else 0x0115), None


def commitment(instance: str = StorageCommitmentPushModelInstance, **elements: Any) -> NAction:
    reference = dataset(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID="1.2.3.1")
    asked = dataset(TransactionUID="1.2.7", ReferencedSOPSequence=[reference])
    uids = {"RequestedSOPClassUID": StorageCommitmentPushModel, "RequestedSOPInstanceUID": instance}
    return NAction.by_hand(asked, **uids, **elements)


def test_an_action() -> None:
    assert on_action(commitment()) == (0x0000, None)
    assert on_action(commitment(ActionTypeID=2)) == (0x0123, None)
    assert on_action(commitment("1.2.3")) == (0x0112, None)


def on_create(event: NCreate, steps: dict[str, Dataset]) -> tuple[int, Dataset | None]:
    uid = event.request.AffectedSOPInstanceUID or "1.2.840.99"
    if uid in steps:
        return 0x0111, None
    steps[uid] = event.attribute_list
    return 0x0000, dataset(AffectedSOPInstanceUID=uid)


def test_a_creation() -> None:
    steps: dict[str, Dataset] = {}
    asked = dataset(PerformedProcedureStepStatus="IN PROGRESS")
    event = NCreate.by_hand(asked, AffectedSOPClassUID=ModalityPerformedProcedureStep)
    assert on_create(event, steps) == (0x0000, dataset(AffectedSOPInstanceUID="1.2.840.99"))
    assert steps == {"1.2.840.99": asked}
    assert on_create(event, steps) == (0x0111, None)


def on_delete(event: NDelete, steps: set[str]) -> int:
    uid = event.request.RequestedSOPInstanceUID
    if uid not in steps:
        return 0x0112
    steps.remove(uid)
    return 0x0000


def test_a_deletion() -> None:
    steps = {"1.2.3"}
    event = NDelete.by_hand(RequestedSOPInstanceUID="1.2.3")
    assert [on_delete(event, steps), on_delete(event, steps)] == [0x0000, 0x0112]


def on_event_report(event: NEventReport, committed: list[str]) -> tuple[int, None]:
    if event.event_type not in (1, 2):
        return 0x0113, None
    committed += [item.ReferencedSOPInstanceUID for item in event.event_information.ReferencedSOPSequence]
    return 0x0000, None


def test_an_event_report() -> None:
    committed: list[str] = []
    report = dataset(ReferencedSOPSequence=[dataset(ReferencedSOPInstanceUID="1.2.3.1")])
    assert on_event_report(NEventReport.by_hand(report), committed) == (0x0000, None)
    assert on_event_report(NEventReport.by_hand(report, EventTypeID=3), committed) == (0x0113, None)
    assert committed == ["1.2.3.1"]


PRINTER = dataset(PrinterStatus="NORMAL", PrinterName="FILM")


def on_get_attributes(event: NGet) -> tuple[int | Status, Dataset]:
    wanted = event.attribute_identifiers or tuple(PRINTER.keys())
    known = Dataset()
    for tag in wanted:
        if tag in PRINTER:
            known.add(PRINTER[tag])
    missing = [tag for tag in wanted if tag not in PRINTER]
    return (Status(0x0107, AttributeIdentifierList=missing) if missing else 0x0000), known


def test_attributes() -> None:
    assert on_get_attributes(NGet.by_hand()) == (0x0000, PRINTER)
    status, known = on_get_attributes(NGet.by_hand(AttributeIdentifierList=(0x21100010, 0x00100010)))
    assert isinstance(status, Status)
    assert (status, status.AttributeIdentifierList) == (0x0107, (0x00100010,))
    assert known == dataset(PrinterStatus="NORMAL")


def on_set(event: NSet, step: Dataset) -> tuple[int, Dataset | None]:
    if step.PerformedProcedureStepStatus == "COMPLETED":
        return 0x0110, None
    step.update(event.modification_list)
    return 0x0000, step


def test_a_modification() -> None:
    step = dataset(PerformedProcedureStepStatus="IN PROGRESS", PerformedStationAETitle="CT1")
    event = NSet.by_hand(dataset(PerformedProcedureStepStatus="COMPLETED"), RequestedSOPInstanceUID="1.2.3")
    done = dataset(PerformedProcedureStepStatus="COMPLETED", PerformedStationAETitle="CT1")
    assert on_set(event, step) == (0x0000, done)
    assert on_set(event, step) == (0x0110, None)


# ---- what an event built by hand is

REQUESTS = [kind for kind in INTERVENTION_KINDS if issubclass(kind.record, records.ServiceEvent)]


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_every_request_can_be_built_with_nothing(kind: Any) -> None:
    event = kind.record.by_hand()
    assert type(event) is kind.record
    assert event.request.name == kind.name.removeprefix("EVT_").replace("_", "-") + "-RQ"
    assert (event.assoc, event.message_id, event.is_cancelled) == (None, 1, False)
    assert event.context.context_id == event.request.context_id == 1
    is_report = kind is evt.EVT_N_EVENT_REPORT
    assert (event.context.as_scu, event.context.as_scp) == (is_report, not is_report)


def test_it_is_identified_by_its_dataset_if_not_told_otherwise() -> None:
    event = CStore.by_hand(ct(), Priority=2, MessageID=9)
    assert (event.request.AffectedSOPClassUID, event.request.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3.1")
    assert (event.message_id, event.request.Priority) == (9, 2)
    assert event.context == EventContext(1, CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    told = CStore.by_hand(ct(), IMPLICIT_VR_LITTLE_ENDIAN, AffectedSOPClassUID="1.2", AffectedSOPInstanceUID="1.3")
    assert told.context == EventContext(1, "1.2", IMPLICIT_VR_LITTLE_ENDIAN)
    assert (told.request.AffectedSOPInstanceUID, told.dataset) == ("1.3", ct())


def test_the_dataset_goes_through_its_encoding() -> None:
    """What the handler sees is what it would see of a peer, not the object that the test has."""
    given = ct()
    seen = CStore.by_hand(given).dataset
    assert seen == given
    assert seen is not given
    no_dataset: Any = {"PatientID": "P1"}
    with pytest.raises(DatasetError):
        CFind.by_hand(no_dataset)


def test_fields_of_the_record_can_be_given() -> None:
    context = EventContext(7, "1.2", IMPLICIT_VR_LITTLE_ENDIAN, as_scu=True)
    event = CFind.by_hand(dataset(PatientID="P1"), assoc="the association", context=context)
    assert (event.assoc, event.context) == ("the association", context)
    with pytest.raises(TypeError, match="colour"):
        CFind.by_hand(colour="blue")


@pytest.mark.parametrize("build", [lambda: CEcho.by_hand(ct()), lambda: NGet.by_hand(MoveDestination="X")])
def test_what_such_a_request_cannot_carry_is_refused(build: Any) -> None:
    with pytest.raises(ArgumentError, match="cannot carry"):
        build()


def test_a_context_follows_from_the_request() -> None:
    """Also without ``by_hand``: a request is all that the constructor needs."""
    request = CFind.by_hand(dataset(PatientID="P1"), AffectedSOPClassUID="1.2").request
    assert CFind(request=request).context == EventContext(1, "1.2", EXPLICIT_VR_LITTLE_ENDIAN)
