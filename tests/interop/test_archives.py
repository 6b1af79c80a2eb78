"""SCUs of ours against DCMTK's servers: the archive dcmqrscp, the worklist wlmscpfs, the printer dcmprscp."""

import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from pydicom import Dataset

from rxdicom import AE, Association, Status, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CStore
from rxdicom.runtimes.threads.responses import Responses
from rxdicom.wire.uids import VERIFICATION
from tests.interop.archives import FINDS, GETS, MOVES, WORKLIST, dcmqrscp, wlmscpfs
from tests.interop.memory import (
    LEVELS,
    as_values,
    identifier,
    own_contexts,
    syntax_of,
    twenty_files,
    twenty_instances,
    worklist,
)
from tests.ports import free_port
from tests.support import DEADLINE

pytestmark = pytest.mark.peer

SYNTAXES = sorted({syntax_of(instance) for instance in twenty_instances()})
LESTRADE = next(each for each in twenty_instances() if each.PatientID == "ID1").StudyInstanceUID


@frozen
class Known:
    """The archive at its port, and the port at which it expects us."""

    port: int
    our_port: int


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Generator[Known]:
    """dcmqrscp with twenty instances, which were sent to it as they lie on disk."""
    ours = free_port()
    sop_classes = {str(instance.SOPClassUID) for instance in twenty_instances()}
    with dcmqrscp(tmp_path_factory.mktemp("archive"), sop_classes, SYNTAXES, {"RXDICOM": ours}) as port:
        ae = AE()
        ae.requested_contexts = own_contexts(twenty_instances())
        with ae.associate("127.0.0.1", port, ae_title="ARCHIVE") as assoc:
            assert [assoc.send_c_store(path) for path in twenty_files()] == [0x0000] * 20
        yield Known(port, ours)


def asking(known: Known, *handlers: EventHandler, instances: Iterable[Dataset] = ()) -> Association:
    """An association for all models, and to be given these instances by C-GET."""
    ae = AE()
    for uid in (VERIFICATION, *FINDS.values(), *GETS.values(), *MOVES.values()):
        ae.add_requested_context(uid)
    for context in own_contexts(instances):
        ae.add_requested_context(str(context.abstract_syntax), context.transfer_syntax)
    return ae.associate("127.0.0.1", known.port, ae_title="ARCHIVE", evt_handlers=handlers)


class Stored(dict[str, tuple[str, Dataset]]):
    """A C-STORE handler: transfer syntax and dataset by SOP instance."""

    def __call__(self, event: CStore) -> int:
        self[event.request.AffectedSOPInstanceUID or ""] = (event.context.transfer_syntax, as_values(event.dataset))
        return 0x0000


def expected(instances: Iterable[Dataset]) -> dict[str, tuple[str, Dataset]]:
    return {str(instance.SOPInstanceUID): (syntax_of(instance), as_values(instance)) for instance in instances}


def counters(status: Status) -> tuple[int | None, int | None, int | None]:
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def of_lestrade(ending: str) -> list[Dataset]:
    """The instances of one study whose transfer syntaxes end so."""
    return [each for each in twenty_instances() if each.PatientID == "ID1" and syntax_of(each).endswith(ending)]


# ---- the archive


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        ("P", "PATIENT", {}),
        ("P", "STUDY", {"PatientID": "ID1"}),
        ("P", "SERIES", {"PatientID": "ID1", "StudyInstanceUID": LESTRADE}),
        ("S", "STUDY", {}),
        ("S", "SERIES", {"StudyInstanceUID": LESTRADE}),
        ("O", "PATIENT", {}),
        ("O", "STUDY", {"PatientID": "4MR1"}),
    ],
)
def test_find_at_every_level(archive: Known, model: str, level: str, keys: dict[str, str]) -> None:
    unique = LEVELS[level]
    query = identifier(level, **{unique: "", **keys})
    with asking(archive) as assoc:
        found = list(assoc.send_c_find(query, FINDS[model]))
    instances = [each for each in twenty_instances() if all(each[key].value == keys[key] for key in keys)]
    assert [int(status) for status, _ in found] == [0xFF00] * (len(found) - 1) + [0x0000]
    assert found[-1][1] is None
    values = [str(match[unique].value) for _, match in found if match is not None]
    assert sorted(values) == sorted({str(each[unique].value) for each in instances})


@pytest.mark.parametrize("model", ["P", "S"])
def test_find_instances(archive: Known, model: str) -> None:
    """All the way down, as the hierarchical model wants it."""
    wanted = of_lestrade("")
    above = identifier(PatientID="ID1", StudyInstanceUID=LESTRADE, SeriesInstanceUID=wanted[0].SeriesInstanceUID)
    query = identifier("IMAGE", SOPInstanceUID="", InstanceNumber="")
    query.update(above)
    with asking(archive) as assoc:
        found = [match for _, match in assoc.send_c_find(query, FINDS[model]) if match is not None]
    assert {str(match.SOPInstanceUID) for match in found} == set(expected(wanted))


def test_find_is_refused(archive: Known) -> None:
    """An identifier without a level is an error of its own, and the association goes on."""
    with asking(archive) as assoc:
        [(status, match)] = assoc.send_c_find(identifier(PatientName="*"), FINDS["S"])
        assert (status.category, match) == ("Failure", None)
        assert status.description
        assert assoc.send_c_echo() == 0x0000


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_get_in_every_transfer_syntax(archive: Known, syntax: str) -> None:
    """Each instance comes back equal to the file, in its transfer syntax."""
    wanted = [each for each in twenty_instances() if syntax_of(each) == syntax]
    stored = Stored()
    with asking(archive, (evt.EVT_C_STORE, stored), instances=wanted) as assoc:
        for each in wanted:
            query = identifier("IMAGE", SOPInstanceUID=each.SOPInstanceUID)
            query.update(identifier(StudyInstanceUID=each.StudyInstanceUID, SeriesInstanceUID=each.SeriesInstanceUID))
            *_, (status, failed) = assoc.send_c_get(query, GETS["S"])
            assert (status, counters(status), failed) == (0x0000, (1, 0, 0), None)
        assert assoc.send_c_echo() == 0x0000
    assert stored == expected(wanted)


@pytest.mark.parametrize("model", GETS)
def test_get_in_every_model(archive: Known, model: str) -> None:
    wanted = [each for each in twenty_instances() if each.PatientID == "021234567"]
    keys = identifier("STUDY", PatientID="021234567", StudyInstanceUID=wanted[0].StudyInstanceUID)
    stored = Stored()
    with asking(archive, (evt.EVT_C_STORE, stored), instances=wanted) as assoc:
        assert [int(status) for status, _ in assoc.send_c_get(keys, GETS[model])] == [0xFF00, 0x0000]
    assert stored == expected(wanted)


def test_get_what_cannot_be_given(archive: Known) -> None:
    """No context was proposed for most of a study, and we refuse the rest: the list names them all."""
    wanted = of_lestrade("")

    def refuse(event: CStore) -> int:
        return 0xA700

    keys = identifier("STUDY", StudyInstanceUID=LESTRADE)
    with asking(archive, (evt.EVT_C_STORE, refuse), instances=of_lestrade(".50")) as assoc:
        *_, (status, failed) = assoc.send_c_get(keys, GETS["S"])
        assert (status.category, counters(status)) == ("Failure", (0, len(wanted), 0))
        assert failed is not None
        assert set(failed.FailedSOPInstanceUIDList) == set(expected(wanted))
        assert assoc.send_c_echo() == 0x0000


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_move_to_ourselves(archive: Known, syntax: str) -> None:
    """The same AE asks for the move, and stores what comes over another association meanwhile."""
    wanted = [each for each in twenty_instances() if syntax_of(each) == syntax]
    stored: Stored = Stored()
    originators: set[Any] = set()

    def on_store(event: CStore) -> int:
        request = event.request
        originators.add((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        return stored(event)

    ae = AE()
    ae.add_requested_context(MOVES["S"])
    ae.supported_contexts = own_contexts(wanted)
    handlers = [(evt.EVT_C_STORE, on_store)]
    with (
        ae.start_server(("127.0.0.1", archive.our_port), block=False, evt_handlers=handlers),
        ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE") as assoc,
    ):
        for each in wanted:
            keys = identifier("IMAGE", SOPInstanceUID=each.SOPInstanceUID)
            keys.update(identifier(StudyInstanceUID=each.StudyInstanceUID, SeriesInstanceUID=each.SeriesInstanceUID))
            *_, (status, failed) = assoc.send_c_move(keys, "RXDICOM", MOVES["S"], msg_id=7)
            assert (status, counters(status), failed) == (0x0000, (1, 0, 0), None)
    assert stored == expected(wanted)
    assert originators == {("RXDICOM", 7)}


@pytest.mark.parametrize("model", MOVES)
def test_move_to_nowhere(archive: Known, model: str) -> None:
    """A destination that the archive does not know, and ourselves where nobody listens."""
    keys = identifier("STUDY", PatientID="4MR1")
    keys.StudyInstanceUID = next(each for each in twenty_instances() if each.PatientID == "4MR1").StudyInstanceUID
    with asking(archive) as assoc:
        unknown = [status for status, _ in assoc.send_c_move(keys, "NOBODY", MOVES[model])]
        absent = [status for status, _ in assoc.send_c_move(keys, "RXDICOM", MOVES[model])]
        assert assoc.send_c_echo() == 0x0000
    assert unknown == [0xA801]
    assert absent[-1].category == "Failure"


def test_leaving_a_find(archive: Known) -> None:
    """Whether the archive notices the C-CANCEL in time or not, the association is good for the next query."""
    query = identifier("STUDY", StudyInstanceUID="")
    with asking(archive) as assoc:
        for _ in range(3):
            for _ in assoc.send_c_find(query, FINDS["S"]):
                break
        found = list(assoc.send_c_find(query, FINDS["S"]))
    assert len(found) == 1 + len({each.StudyInstanceUID for each in twenty_instances()})


class HoldingUp(list[CStore]):
    """A C-STORE handler that keeps the second instance waiting until C-CANCEL is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = threading.Event()

    def __call__(self, event: CStore) -> int:
        self.append(event)
        assert len(self) == 1 or self.cancelled.wait(DEADLINE)
        return 0x0000

    def cancel(self, assoc: Association, responses: Responses, model: str) -> list[Status]:
        """Cancel after the first response; all statuses."""
        statuses = [next(responses)[0]]
        assoc.send_c_cancel(responses.message_id, query_model=model)
        self.cancelled.set()
        return [*statuses, *(status for status, _ in responses)]


def test_cancelling_a_move(archive: Known) -> None:
    store = HoldingUp()
    ae = AE()
    ae.add_requested_context(MOVES["S"])
    ae.supported_contexts = own_contexts(of_lestrade(".50"))
    with (
        ae.start_server(("127.0.0.1", archive.our_port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]),
        ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE") as assoc,
    ):
        responses = assoc.send_c_move(identifier("STUDY", StudyInstanceUID=LESTRADE), "RXDICOM", MOVES["S"])
        statuses = store.cancel(assoc, responses, MOVES["S"])
    assert statuses[0] == 0xFF00
    assert statuses[-1].category == "Cancel"
    assert statuses[-1].NumberOfRemainingSuboperations


def test_cancelling_a_get(archive: Known) -> None:
    store = HoldingUp()
    with asking(archive, (evt.EVT_C_STORE, store), instances=of_lestrade(".50")) as assoc:
        responses = assoc.send_c_get(identifier("STUDY", StudyInstanceUID=LESTRADE), GETS["S"])
        statuses = store.cancel(assoc, responses, GETS["S"])
        assert assoc.send_c_echo() == 0x0000
    assert statuses[0] == 0xFF00
    assert statuses[-1].category == "Cancel"
    assert statuses[-1].NumberOfRemainingSuboperations


# ---- the worklist


def test_worklist(tmp_path: Path) -> None:
    """All items, with a name that is not ASCII; by a key inside the sequence; none; one that is not complete."""
    step = identifier(Modality="", ScheduledProcedureStepStartDate="", ScheduledStationAETitle="")
    query = identifier(PatientName="", PatientID="", ScheduledProcedureStepSequence=[step])
    ae = AE()
    ae.add_requested_context(WORKLIST)
    with (
        wlmscpfs(tmp_path, worklist(), "-csk") as port,
        ae.associate("127.0.0.1", port, ae_title="WORKLIST") as assoc,
    ):
        everything = list(assoc.send_c_find(query, WORKLIST))
        step.Modality, step.ScheduledProcedureStepStartDate = "CT", "20250201-20250331"
        some = [match for _, match in assoc.send_c_find(query, WORKLIST)]
        query.PatientName = "Nobody"
        none = list(assoc.send_c_find(query, WORKLIST))
    names = sorted(str(match.PatientName) for _, match in everything if match is not None)
    assert names == ["Meier^Anna", "Müller^Jürgen", "Schmidt^Otto"]
    assert [match and match.PatientID for match in some] == ["W3", None]
    assert some[0] is not None
    assert some[0].ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "SCANNER2"
    assert none == [(0x0000, None)]


def test_cancelling_a_worklist(tmp_path: Path) -> None:
    """The SCP takes its time after each match, so that it finds the C-CANCEL."""
    query = identifier(PatientName="", ScheduledProcedureStepSequence=[identifier(Modality="")])
    ae = AE()
    ae.add_requested_context(WORKLIST)
    with (
        wlmscpfs(tmp_path, worklist(), "--sleep-during", "1") as port,
        ae.associate("127.0.0.1", port, ae_title="WORKLIST") as assoc,
    ):
        responses = assoc.send_c_find(query, WORKLIST)
        status, _ = next(responses)
        assoc.send_c_cancel(responses.message_id, query_model=WORKLIST)
        rest = [status for status, _ in responses]
    assert status == 0xFF00
    assert rest[-1] == 0xFE00
    assert len(rest) < len(worklist())
