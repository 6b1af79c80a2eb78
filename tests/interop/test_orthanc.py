"""Orthanc, the archive, in both roles: our SCUs ask it; through its REST API it asks SCPs of ours."""

import threading
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from attrs import frozen
from pydicom import Dataset

from rxdicom import AE, Association, AssociationServer, build_role, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, CStore, NAction, NEventReport
from rxdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from rxdicom.wire.uids import VERIFICATION
from tests.interop.archives import FINDS, GETS, MOVES, WORKLIST, Orthanc, orthanc
from tests.interop.memory import (
    LEVELS,
    Archive,
    as_values,
    identifier,
    own_contexts,
    syntax_of,
    twenty_files,
    twenty_instances,
    worklist,
)
from tests.ports import free_port
from tests.support import DEADLINE, FILES, read

pytestmark = pytest.mark.peer

COMMITMENT = str(StorageCommitmentPushModel)
MODELS = ("P", "S")
"""It has no Patient/Study Only model."""
STUDIES = ("STUDY", "SERIES", "IMAGE")
"""The levels of the Study Root model."""


@frozen
class Known:
    """Orthanc, and the port at which it expects RXDICOM."""

    orthanc: Orthanc
    our_port: int

    def associate(self, ae: AE, *handlers: EventHandler) -> Association:
        return ae.associate("127.0.0.1", self.orthanc.port, ae_title="ORTHANC", evt_handlers=handlers)

    def serve(self, ae: AE, *handlers: EventHandler) -> AssociationServer:
        return ae.start_server(("127.0.0.1", self.our_port), block=False, evt_handlers=handlers)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Generator[Known]:
    """Orthanc with twenty instances, which were sent to it as they lie on disk."""
    ours = free_port()
    with orthanc(tmp_path_factory.mktemp("orthanc"), {"RXDICOM": ours}) as archive:
        known = Known(archive, ours)
        ae = AE()
        ae.requested_contexts = own_contexts(twenty_instances())
        with known.associate(ae) as assoc:
            assert [assoc.send_c_store(path) for path in twenty_files()] == [0x0000] * 20
        yield known


@pytest.fixture
def ae() -> AE:
    """Ourselves, asking in all models, for everything that there is."""
    ae = AE()
    for uid in (VERIFICATION, COMMITMENT, *(models[each] for models in (FINDS, GETS, MOVES) for each in MODELS)):
        ae.add_requested_context(uid)
    for context in own_contexts(twenty_instances()):
        ae.add_requested_context(str(context.abstract_syntax), context.transfer_syntax)
    ae.add_supported_context(VERIFICATION)
    ae.accept_any_storage = True
    return ae


class Stored(dict[str, tuple[str, Dataset]]):
    """A C-STORE handler: transfer syntax and dataset by SOP instance."""

    def __call__(self, event: CStore) -> int:
        uid = event.request.AffectedSOPInstanceUID or ""
        self[uid] = (event.context.transfer_syntax, as_values(event.dataset))
        return 0x0000


def expected(instances: Iterable[Dataset]) -> dict[str, tuple[str, Dataset]]:
    return {str(instance.SOPInstanceUID): (syntax_of(instance), as_values(instance)) for instance in instances}


# ---- ours to Orthanc


@pytest.mark.parametrize(
    ("model", "level"), [*(("P", level) for level in LEVELS), *(("S", level) for level in STUDIES)]
)
def test_find_at_every_level(known: Known, ae: AE, model: str, level: str) -> None:
    unique = LEVELS[level]
    with known.associate(ae) as assoc:
        found = list(assoc.send_c_find(identifier(level, **{unique: ""}), FINDS[model]))
    assert [int(status) for status, _ in found] == [0xFF00] * (len(found) - 1) + [0x0000]
    values = [str(match[unique].value) for _, match in found if match is not None]
    assert sorted(values) == sorted({str(each[unique].value) for each in twenty_instances()})


@pytest.mark.parametrize(
    ("keys", "patients"),
    [
        ({"PatientName": "compressedsamples*"}, {"1CT1", "4MR1", "8NM1", "13US1"}),
        ({"PatientID": "?NM1"}, {"8NM1"}),
        ({"StudyDate": "20030801-20040331"}, {"1CT1", "id11111"}),
        ({"PatientName": "Nobody"}, set[str]()),
    ],
)
def test_find_by_keys(known: Known, ae: AE, keys: dict[str, str], patients: set[str]) -> None:
    query = identifier("STUDY", **{"PatientID": "", "StudyInstanceUID": "", **keys})
    with known.associate(ae) as assoc:
        found = [match for _, match in assoc.send_c_find(query, FINDS["S"])]
    assert {match.PatientID for match in found if match is not None} == patients


@pytest.mark.parametrize("model", MODELS)
def test_get_everything(known: Known, ae: AE, model: str) -> None:
    """Twenty instances in nine transfer syntaxes over one association, equal to the files."""
    stored = Stored()
    keys = identifier("STUDY", StudyInstanceUID=sorted({each.StudyInstanceUID for each in twenty_instances()}))
    with known.associate(ae, (evt.EVT_C_STORE, stored)) as assoc:
        *_, (status, failed) = assoc.send_c_get(keys, GETS[model])
        assert assoc.send_c_echo() == 0x0000
    assert (status, status.NumberOfCompletedSuboperations, failed) == (0x0000, 20, None)
    assert stored == expected(twenty_instances())


def test_get_what_we_refuse(known: Known, ae: AE) -> None:
    """It has the list of failed instances in the command set, where it does not belong."""

    def refuse(event: CStore) -> int:
        return 0xA700

    one = twenty_instances()[0]
    with known.associate(ae, (evt.EVT_C_STORE, refuse)) as assoc:
        *_, (status, _) = assoc.send_c_get(identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID), GETS["S"])
        assert assoc.send_c_echo() == 0x0000
    assert (status.category, status.NumberOfFailedSuboperations) == ("Failure", 1)


@pytest.mark.parametrize("model", MODELS)
def test_move_to_ourselves(known: Known, ae: AE, model: str) -> None:
    """The AE that asks for the move is where the instances go, at once."""
    stored = Stored()
    originators: set[Any] = set()

    def on_store(event: CStore) -> int:
        request = event.request
        originators.add((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        return stored(event)

    keys = identifier("STUDY", StudyInstanceUID=sorted({each.StudyInstanceUID for each in twenty_instances()}))
    with known.serve(ae, (evt.EVT_C_STORE, on_store)), known.associate(ae) as assoc:
        *_, (status, failed) = assoc.send_c_move(keys, "RXDICOM", MOVES[model], msg_id=77)
        assert assoc.send_c_echo() == 0x0000
    assert (status, status.NumberOfCompletedSuboperations, failed) == (0x0000, 20, None)
    assert stored == expected(twenty_instances())
    assert originators == {("RXDICOM", 77)}


def test_move_to_nowhere(known: Known, ae: AE) -> None:
    """A destination that it does not know; ourselves, where nobody listens now."""
    one = identifier("STUDY", StudyInstanceUID=twenty_instances()[0].StudyInstanceUID)
    with known.associate(ae) as assoc:
        unknown = [status for status, _ in assoc.send_c_move(one, "NOBODY", MOVES["S"])]
        absent = [status for status, _ in assoc.send_c_move(one, "RXDICOM", MOVES["S"])]
        assert assoc.send_c_echo() == 0x0000
    assert unknown[-1].category == "Failure"
    assert absent[-1].category == "Failure"


def commitment(*instances: Dataset) -> Dataset:
    items = [
        identifier(ReferencedSOPClassUID=each.SOPClassUID, ReferencedSOPInstanceUID=each.SOPInstanceUID)
        for each in instances
    ]
    return identifier(TransactionUID="1.2.3.4.5", ReferencedSOPSequence=items)


def test_storage_commitment(known: Known, ae: AE) -> None:
    """It reports over an association of its own, in which it is the SCP that requests."""
    reports: list[NEventReport] = []
    reported = threading.Event()

    def on_report(event: NEventReport) -> tuple[int, None]:
        reports.append(event)
        reported.set()
        return 0x0000, None

    ae.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    request = commitment(twenty_instances()[0], identifier(SOPClassUID="1.2.3", SOPInstanceUID="1.2.3.4"))
    with known.serve(ae, (evt.EVT_N_EVENT_REPORT, on_report)), known.associate(ae) as assoc:
        status, _ = assoc.send_n_action(request, 1, COMMITMENT, str(StorageCommitmentPushModelInstance))
        assert status == 0x0000
        assert reported.wait(DEADLINE)
    [report] = reports
    assert (report.event_type, report.context.as_scu) == (2, True)
    information = report.event_information
    assert information.TransactionUID == "1.2.3.4.5"
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == [
        twenty_instances()[0].SOPInstanceUID
    ]
    assert [item.ReferencedSOPInstanceUID for item in information.FailedSOPSequence] == ["1.2.3.4"]


# ---- Orthanc to ours


def test_it_echoes(known: Known, ae: AE) -> None:
    echoed: list[Any] = []

    def on_echo(event: Any) -> int:
        echoed.append(event.assoc.requestor.ae_title)
        return 0x0000

    with known.serve(ae, (evt.EVT_C_ECHO, on_echo)):
        known.orthanc.rest("/modalities/RXDICOM/echo", {})
    assert echoed == ["ORTHANC"]


def test_it_stores(known: Known, ae: AE) -> None:
    stored = Stored()
    with known.serve(ae, (evt.EVT_C_STORE, stored)):
        result = known.orthanc.rest("/modalities/RXDICOM/store", known.orthanc.rest("/instances"))
    assert (result["InstancesCount"], result["FailedInstancesCount"]) == (20, 0)
    assert stored == expected(twenty_instances())


def test_it_queries_and_retrieves(known: Known, ae: AE) -> None:
    """It finds a study that it does not have, and has us move that there."""
    one = read(FILES / "test-SR.dcm")
    for uid in (FINDS["S"], MOVES["S"]):
        ae.add_supported_context(uid)
    archive = Archive([one, *twenty_instances()], {"ORTHANC": ("127.0.0.1", known.orthanc.port)})
    rest = known.orthanc.rest
    with known.serve(ae, *archive.handlers):
        keys = {"StudyInstanceUID": "", "PatientName": "Test^S*"}
        query = rest("/modalities/RXDICOM/query", {"Level": "Study", "Query": keys})
        answers = [
            rest(f"{query['Path']}/answers/{each}/content?simplify") for each in rest(f"{query['Path']}/answers")
        ]
        assert [each["StudyInstanceUID"] for each in answers] == [one.StudyInstanceUID]
        wanted = {"Level": "Instance", "Query": {"SOPInstanceUID": str(one.SOPInstanceUID)}}
        assert rest("/tools/find", wanted) == []
        retrieved = rest(f"{query['Path']}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
        assert retrieved["Description"]
        [found] = rest("/tools/find", wanted)
    tags = rest(f"/instances/{found}/simplified-tags")
    assert tags["PatientName"] == "Test^S R"


def test_it_asks_for_the_worklist(known: Known, ae: AE) -> None:
    asked: list[CFind] = []
    archive = Archive(worklist())

    def on_find(event: CFind) -> Any:
        asked.append(event)
        return archive.find(event)

    ae.add_supported_context(WORKLIST)
    keys = {"PatientID": "", "PatientName": "", "ScheduledProcedureStepSequence": [{"Modality": "CT"}]}
    with known.serve(ae, (evt.EVT_C_FIND, on_find)):
        found = known.orthanc.rest("/modalities/RXDICOM/find-worklist", keys)
    assert [each["PatientName"] for each in found] == ["Müller^Jürgen", "Schmidt^Otto"]
    assert [event.context.abstract_syntax for event in asked] == [WORKLIST]


def test_it_asks_for_storage_commitment(known: Known, ae: AE) -> None:
    """We report over an association of our own, in which we are the SCP that requests."""
    actions: list[Dataset] = []
    asked = threading.Event()

    def on_action(event: NAction) -> tuple[int, None]:
        actions.append(event.action_information)
        asked.set()
        return 0x0000, None

    ae.add_supported_context(COMMITMENT)
    one = twenty_instances()[0]
    pair = {"SOPClassUID": str(one.SOPClassUID), "SOPInstanceUID": str(one.SOPInstanceUID)}
    with known.serve(ae, (evt.EVT_N_ACTION, on_action)):
        job = known.orthanc.rest("/modalities/RXDICOM/storage-commitment", {"DicomInstances": [pair]})
        assert asked.wait(DEADLINE)
    [action] = actions
    report = identifier(TransactionUID=action.TransactionUID, ReferencedSOPSequence=action.ReferencedSOPSequence)
    reporting = AE()
    reporting.add_requested_context(COMMITMENT)
    with reporting.associate(
        "127.0.0.1", known.orthanc.port, ae_title="ORTHANC", ext_neg=[build_role(COMMITMENT, scp_role=True)]
    ) as assoc:
        status, _ = assoc.send_n_event_report(report, 1, COMMITMENT, str(StorageCommitmentPushModelInstance))
        assert status == 0x0000
    shown = known.orthanc.rest(f"/storage-commitment/{job['ID']}")
    assert (shown["Status"], shown["Success"]) == ("Success", [pair])
