"""DCMTK's findscu, getscu and movescu against SCPs of ours: handlers over an archive in memory."""

import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import AE, AssociationServer, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, CMove, DIMSESent
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.uids import UNCOMPRESSED, VERIFICATION
from tests.interop.archives import DCMTK_OPTIONS, FINDS, GETS, MOVES, WORKLIST, write_file
from tests.interop.memory import (
    LEVELS,
    Archive,
    answer,
    identifier,
    own_contexts,
    syntax_of,
    twenty_files,
    twenty_instances,
    worklist,
)
from tests.ports import free_port
from tests.support import DEADLINE, FILES, dataset_bytes, dcmtk, read, run, running

pytestmark = pytest.mark.peer

LESTRADE = "1.2.826.0.1.3680043.8.498.12406831542731051035295345080039845114"
TWO_INSTANCES = "1.2.777.777.77.7.7777.7777.20030903150023\\1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"
SYNTAXES = sorted({syntax_of(instance) for instance in twenty_instances()})


class Sent(list[Message]):
    """The responses that an SCP sent, C-STORE requests left out."""

    def __call__(self, event: DIMSESent) -> None:
        if event.message.is_response:
            self.append(event.message)

    @property
    def final(self) -> Message:
        return self[-1]

    @property
    def counters(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Remaining, completed, failed and warned of the final response."""
        final = self.final
        return (
            final.NumberOfRemainingSuboperations,
            final.NumberOfCompletedSuboperations,
            final.NumberOfFailedSuboperations,
            final.NumberOfWarningSuboperations,
        )


@contextmanager
def serving(
    handlers: Sequence[EventHandler],
    instances: Sequence[Dataset] = (),
    *,
    syntax: str | None = None,
    acse_timeout: float = DEADLINE,
) -> Generator[tuple[AssociationServer, Sent]]:
    """An SCP for all models, which gives these instances by C-GET in their own transfer syntaxes."""
    ae = AE("ARCHIVE")
    ae.acse_timeout = acse_timeout
    ae.convert_datasets = False
    for uid in (VERIFICATION, WORKLIST, *FINDS.values(), *GETS.values(), *MOVES.values()):
        ae.add_supported_context(uid, syntax)
    for context in own_contexts(instances):
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax, scu_role=True, scp_role=True)
    sent = Sent()
    observers: list[EventHandler] = [(evt.EVT_DIMSE_SENT, sent)]
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[*handlers, *observers]) as server:
        yield server, sent


def keys(level: str, **values: str) -> list[str]:
    """Options of DCMTK's programs for the keys of a query."""
    return [option for each in (("QueryRetrieveLevel", level), *values.items()) for option in ("-k", "=".join(each))]


def responses(folder: Path) -> list[Dataset]:
    """What findscu extracted since the last time, in the order of the responses."""
    found: list[Dataset] = []
    for path in sorted(folder.glob("rsp*.dcm")):
        found.append(Dataset())
        found[-1].update(read(path))
        path.unlink()
    return found


# ---- findscu

QUERIES = {
    "patients by wildcard": ("P", "PATIENT", {"PatientName": "CompressedSamples*"}, {"1CT1", "4MR1", "8NM1", "13US1"}),
    "patients by another": ("P", "PATIENT", {"PatientName": "Compressed*^?R1"}, {"4MR1"}),
    "patients by ID": ("P", "PATIENT", {"PatientID": "ID1"}, {"ID1"}),
    "studies by range": ("S", "STUDY", {"StudyDate": "20030801-20040331"}, {"1CT1", "id11111"}),
    "studies since": ("S", "STUDY", {"StudyDate": "20170101-"}, {"ID1", "JXD191021006"}),
    "studies of a patient": ("O", "STUDY", {"PatientID": "8NM1"}, {"8NM1"}),
    "series": ("P", "SERIES", {"StudyInstanceUID": LESTRADE, "Modality": "OT"}, {"ID1"}),
    "instances by list": ("S", "IMAGE", {"SOPInstanceUID": TWO_INSTANCES}, {"4MR1", "id00001"}),
    "nothing": ("S", "STUDY", {"PatientName": "Nobody"}, set[str]()),
}


@pytest.mark.parametrize("name", QUERIES)
def test_findscu(tmp_path: Path, name: str) -> None:
    model, level, values, expected = QUERIES[name]
    asked = {"PatientID": "", LEVELS[level]: "", "StudyDescription": "", **values}
    with serving(Archive(twenty_instances()).handlers) as (server, sent):
        command = (dcmtk("findscu"), f"-{model}", "-X", "-od", tmp_path, *keys(level, **asked))
        run(*command, "127.0.0.1", server.address[1])
    found = responses(tmp_path)
    assert {str(each.PatientID) for each in found} == expected
    assert [message.Status for message in sent] == [0xFF00] * len(found) + [0x0000]
    assert sent.final.data is None
    for each in found:
        unique = LEVELS[level]
        origin = next(instance for instance in twenty_instances() if instance[unique] == each[unique])
        assert each == answer(origin, identifier(level, **asked))


@pytest.mark.parametrize("model", FINDS)
def test_findscu_asks_for_everything(tmp_path: Path, model: str) -> None:
    level = "STUDY" if model == "O" else "IMAGE"
    seen: list[CFind] = []
    archive = Archive(twenty_instances())

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        seen.append(event)
        return archive.find(event)

    with serving([(evt.EVT_C_FIND, on_find)]) as (server, _):
        command = (dcmtk("findscu"), f"-{model}", "-X", "-od", tmp_path, *keys(level, **{LEVELS[level]: ""}))
        run(*command, "127.0.0.1", server.address[1])
    uids = {str(instance[LEVELS[level]].value) for instance in twenty_instances()}
    assert {str(each[LEVELS[level]].value) for each in responses(tmp_path)} == uids
    assert [event.context.abstract_syntax for event in seen] == [FINDS[model]]


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_findscu_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    """A name with an umlaut is found by that, and comes back."""
    query = write_file(tmp_path / "query.dcm", identifier("PATIENT", SpecificCharacterSet="ISO_IR 100", PatientID=""))
    name = "PatientName=M*^Jürgen".encode("latin-1")
    with serving(Archive(worklist()).handlers, syntax=syntax) as (server, _):
        command = (dcmtk("findscu"), "-P", DCMTK_OPTIONS[syntax], "-X", "-od", tmp_path)
        run(*command, "-k", os.fsdecode(name), "127.0.0.1", server.address[1], query)
    assert [str(each.PatientName) for each in responses(tmp_path)] == ["Müller^Jürgen"]


def test_findscu_worklist(tmp_path: Path) -> None:
    """A query file with a sequence, and a key inside a sequence."""
    step = identifier(Modality="CT", ScheduledProcedureStepStartDate="", ScheduledStationAETitle="")
    query = identifier(PatientName="", PatientID="", ScheduledProcedureStepSequence=[step])
    path = write_file(tmp_path / "query.dcm", query)
    inside = "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20250201-20250331"
    command = (dcmtk("findscu"), "-W", "-X", "-od", tmp_path)
    found: list[list[Dataset]] = []
    with serving(Archive(worklist()).handlers) as (server, _):
        for more in ((), ("-k", inside)):
            run(*command, *more, "127.0.0.1", server.address[1], path)
            found.append(responses(tmp_path))
    assert [[str(each.PatientID) for each in ones] for ones in found] == [["W2", "W3"], ["W3"]]
    given = found[0][0].ScheduledProcedureStepSequence[0]
    assert (given.Modality, given.ScheduledStationAETitle) == ("CT", "SCANNER2")


def test_findscu_cancels() -> None:
    """Of a query that never ends it takes three; the association goes on to its release."""
    closed: list[bool] = []
    released: list[Any] = []

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        try:
            yield from ((0xFF00, match) for match in itertools.repeat(identifier("PATIENT", PatientID="1")))
        finally:
            closed.append(event.is_cancelled)

    with serving([(evt.EVT_C_FIND, on_find), (evt.EVT_RELEASED, released.append)]) as (server, sent):
        run(dcmtk("findscu"), "-P", "--cancel", "3", *keys("PATIENT"), "127.0.0.1", server.address[1])
    assert len(released) == 1
    assert closed == [True]
    assert sent.final.Status == 0xFE00
    assert sent.final.data is None


def test_findscu_is_told_what_failed() -> None:
    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        yield 0xFF00, identifier("PATIENT", PatientID="1")
        raise RuntimeError("broken on purpose")

    with serving([(evt.EVT_C_FIND, on_find)]) as (server, sent):
        done = run(dcmtk("findscu"), "-v", "-P", *keys("PATIENT"), "127.0.0.1", server.address[1], check=False)
    assert "Received Final Find Response (Failed" in done.stdout + done.stderr
    assert [message.Status for message in sent] == [0xFF00, 0xC311]


# ---- getscu


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_getscu_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    """Files arrive as they lie on disk, undecoded."""
    files = [path for path in twenty_files() if syntax_of(read(path)) == syntax]
    instances = [read(path) for path in files]
    archive = Archive(instances, as_files=True)
    # Told to take implicit VR only, it proposes explicit VR only.
    option = DCMTK_OPTIONS[syntax].replace("-xi", "-xe").replace("-", "+")
    with serving(archive.handlers, instances) as (server, sent):
        command = (dcmtk("getscu"), "-S", "-v", "+B", option, "-od", tmp_path, *keys("STUDY", StudyInstanceUID=""))
        done = run(*command, "127.0.0.1", server.address[1])
    assert f"Number of Completed Suboperations : {len(files)}" in done.stdout + done.stderr
    assert sent.counters == (None, len(files), 0, 0)
    assert sorted(dataset_bytes(path) for path in tmp_path.iterdir()) == sorted(map(dataset_bytes, files))


@pytest.mark.parametrize("model", GETS)
def test_getscu_in_every_model(tmp_path: Path, model: str) -> None:
    """Datasets in memory arrive as they are, uncompressed ones in one transfer syntax."""
    plain = [each for each in twenty_instances() if syntax_of(each) == "1.2.840.10008.1.2.1"]
    with serving(Archive(plain).handlers, plain) as (server, sent):
        command = (dcmtk("getscu"), f"-{model}", "-od", tmp_path, *keys("STUDY", StudyDate="20040101-20051231"))
        run(*command, "127.0.0.1", server.address[1])
    assert by_uid(map(read, tmp_path.iterdir())) == by_uid(
        each for each in plain if each.get("StudyDate", "")[:4] in ("2004", "2005")
    )
    assert {message.AffectedSOPClassUID for message in sent} == {GETS[model]}


def test_getscu_where_sub_operations_fail(tmp_path: Path) -> None:
    """Those whose SOP class was not accepted, by name. getscu itself does not read the list."""
    instances = [read(FILES / name) for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")]
    with serving(Archive(instances).handlers, instances[:1]) as (server, sent):
        command = (dcmtk("getscu"), "-P", "-v", "-od", tmp_path)
        one = run(*command, *keys("PATIENT", PatientName=""), "127.0.0.1", server.address[1], check=False)
        failed = sent.final.data
        some = sent.final.Status, sent.counters
        run(*command, *keys("PATIENT", PatientID="4MR1"), "127.0.0.1", server.address[1], check=False)
    assert "Number of Failed Suboperations    : 2" in one.stdout + one.stderr
    assert some == (0xB000, (None, 1, 2, 0))
    assert failed is not None
    assert failed.data is not None
    assert str(instances[1].SOPInstanceUID).encode() in failed.data
    assert str(instances[2].SOPInstanceUID).encode() in failed.data
    assert (sent.final.Status, sent.counters) == (0xA702, (None, 0, 1, 0))
    assert by_uid(map(read, tmp_path.iterdir())) == by_uid(instances[:1])


def by_uid(instances: Any) -> dict[str, Dataset]:
    return {str(instance.SOPInstanceUID): instance for instance in instances}


# ---- movescu


@pytest.mark.parametrize("model", MOVES)
def test_movescu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Twenty files in nine transfer syntaxes, over one association, as they lie on disk."""
    monkeypatch.chdir(tmp_path)  # Where movescu writes what it preserves.
    port, instances = free_port(), twenty_instances()
    archive = Archive(instances, {"MOVESCU": ("127.0.0.1", port)}, own_contexts(instances), as_files=True)
    with serving(archive.handlers) as (server, sent):
        command = (dcmtk("movescu"), f"-{model}", "+B", "+xa", "+P", port, "-aem", "MOVESCU")
        run(*command, *keys("STUDY", StudyInstanceUID=""), "127.0.0.1", server.address[1])
    assert {message.kind for message in sent} == {Command.C_MOVE_RSP}
    assert {message.AffectedSOPClassUID for message in sent} == {MOVES[model]}
    assert [message.NumberOfRemainingSuboperations for message in sent] == [*reversed(range(20)), None]
    assert (sent.final.Status, sent.counters) == (0x0000, (None, 20, 0, 0))
    assert sorted(dataset_bytes(path) for path in tmp_path.iterdir()) == sorted(map(dataset_bytes, twenty_files()))


def test_movescu_to_another(tmp_path: Path) -> None:
    """DCMTK's storescp is the destination; what it does not accept fails, with the others unharmed."""
    port = free_port()
    instances = [read(FILES / name) for name in ("CT_small.dcm", "JPEG-lossy.dcm", "MR_small.dcm")]
    archive = Archive(instances, {"STORESCP": ("127.0.0.1", port)}, own_contexts(instances))
    with (
        running(dcmtk("storescp"), "+B", "-od", tmp_path, port, port=port),
        serving(archive.handlers, acse_timeout=2) as (server, sent),
    ):
        command = (dcmtk("movescu"), "-v", "-P", "-aem", "STORESCP", *keys("PATIENT", PatientID=""))
        done = run(*command, "127.0.0.1", server.address[1], check=False)
    assert "SubOperationsCompleteOneOrMoreFailures" in done.stdout + done.stderr
    assert (sent.final.Status, sent.counters) == (0xB000, (None, 2, 1, 0))
    assert by_uid(map(read, tmp_path.iterdir())) == by_uid([instances[0], instances[2]])


def test_movescu_where_one_association_does_not_do(tmp_path: Path) -> None:
    """The contexts are derived from what is sent, whatever comes next; storescp takes one association at a time."""
    port = free_port()
    instances = [read(path) for path in twenty_files()[:6]]
    archive = Archive(instances, {"STORESCP": ("127.0.0.1", port)}, as_files=True)
    with (
        running(dcmtk("storescp"), "+xa", "+B", "-od", tmp_path, port, port=port),
        serving(archive.handlers, acse_timeout=2) as (server, sent),
    ):
        command = (dcmtk("movescu"), "-P", "-aem", "STORESCP", *keys("PATIENT", PatientID=""))
        run(*command, "127.0.0.1", server.address[1], check=False)
    assert (sent.final.Status, sent.counters) == (0x0000, (None, 6, 0, 0))
    assert sorted(dataset_bytes(path) for path in tmp_path.iterdir()) == sorted(map(dataset_bytes, twenty_files()[:6]))


def test_movescu_to_nowhere() -> None:
    """An AE title that is not known; one where nobody listens; one that refuses."""
    refusing = free_port()
    archive = Archive(
        twenty_instances()[:2], {"ABSENT": ("127.0.0.1", free_port()), "REFUSING": ("127.0.0.1", refusing)}
    )
    final: dict[str, Any] = {}
    with (
        running(dcmtk("storescp"), "--refuse", refusing, port=refusing),
        serving(archive.handlers) as (server, sent),
    ):
        for destination in ("UNKNOWN", "ABSENT", "REFUSING"):
            command = (dcmtk("movescu"), "-v", "-P", "-aem", destination, *keys("PATIENT", PatientID=""))
            done = run(*command, "127.0.0.1", server.address[1], check=False)
            assert "Received Final Move Response (Refused" in done.stdout + done.stderr, destination
            final[destination] = sent.final.Status, sent.counters
    assert final == {
        "UNKNOWN": (0xA801, (None, None, None, None)),
        "ABSENT": (0xA702, (None, 0, 2, 0)),
        "REFUSING": (0xA702, (None, 0, 2, 0)),
    }


def test_movescu_cancels(tmp_path: Path) -> None:
    port = free_port()
    one = twenty_instances()[1]

    def on_move(event: CMove) -> Iterator[Any]:
        yield "127.0.0.1", port
        yield 60_000
        yield from itertools.repeat((0xFF00, one))

    with serving([(evt.EVT_C_MOVE, on_move)]) as (server, sent):
        command = (dcmtk("movescu"), "-P", "--ignore", "+P", port, "-aem", "MOVESCU", "--cancel", "3")
        run(*command, *keys("PATIENT", PatientID=""), "127.0.0.1", server.address[1], check=False)
    remaining, completed, failed, warned = sent.counters
    assert sent.final.Status == 0xFE00
    assert (failed, warned) == (0, 0)
    assert remaining is not None
    assert completed is not None
    assert 3 <= completed == 60_000 - remaining
