"""The query program: what is sent, what is shown and written, how it is cancelled, and how it fails."""

import itertools
import json
import os
import pty
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import Status, TimedOut, evt
from rxdicom.application_information import QueryRetrieveInformation, answer
from rxdicom.apps import exchange
from rxdicom.apps.models import FIND, Models
from rxdicom.apps.tables import width
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, SOPExtended
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.apps.support import DEADLINE, Outcome, Process, call, provider, read, run
from tests.interop import archives
from tests.interop.memory import worklist
from tests.support import storable_files

PATIENT_ROOT, STUDY_ROOT, PATIENT_STUDY_ONLY = (f"1.2.840.10008.5.1.4.1.2.{number}.1" for number in (1, 2, 3))
WORKLIST, UPS_PULL = "1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.34.6.3"
HANGING_PROTOCOL = "1.2.840.10008.5.1.4.38.2"

Answer = tuple[int, Dataset | None]


def match(name: str, uid: str = "1.2.3", **more: object) -> Dataset:
    """What a peer answers."""
    found = Dataset()
    found.QueryRetrieveLevel = "STUDY"
    found.PatientName = name
    found.StudyInstanceUID = uid
    for keyword, value in more.items():
        setattr(found, keyword, value)
    return found


DOES = [match("DOE^JANE", "1.2.1"), match("DOE^JOHN^QUINCY", "1.2.22")]


class Archive:
    """A C-FIND handler that answers always the same, and remembers what it was asked."""

    def __init__(self, matches: Iterable[Dataset] = (), ending: int | Dataset = 0x0000) -> None:
        self.matches = matches
        self.ending = ending
        self.asked: list[tuple[str, Dataset]] = []

    def __call__(self, event: CFind) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        self.asked.append((event.context.abstract_syntax, event.identifier))
        for each in self.matches:
            yield 0xFF00, each
        yield self.ending, None


def ask(
    capsys: pytest.CaptureFixture[str], archive: Archive, *options: object, models: tuple[str, ...] = (STUDY_ROOT,)
) -> Outcome:
    """Query a peer that answers so."""
    with provider([(evt.EVT_C_FIND, archive)], *models) as peer:
        return call(capsys, "findscu", *peer, *options)


# ---- what is shown


def test_matches_are_a_table_of_the_keys(capsys: pytest.CaptureFixture[str]):
    outcome = ask(capsys, Archive(DOES), "-k", "StudyInstanceUID", "-k", "PatientName=DOE*")
    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (0, "")
    assert lines[0] == "StudyInstanceUID  PatientName"
    assert set(lines[1]) <= set("─- ")
    assert lines[2:] == ["1.2.1             DOE^JANE", "1.2.22            DOE^JOHN^QUINCY", "2 matches"]


def test_no_match_is_success(capsys: pytest.CaptureFixture[str]):
    assert ask(capsys, Archive(), "-k", "PatientName=X") == Outcome(0, "0 matches\n", "")
    assert ask(capsys, Archive(), "-k", "PatientName=X", "-q") == Outcome(0, "", "")
    assert ask(capsys, Archive(), "-k", "PatientName=X", "--json") == Outcome(0, "", "")


def test_matches_as_json_are_a_line_each_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    outcome = ask(capsys, Archive(DOES), "-k", "PatientName", "--json", "-v")
    found = [Dataset.from_json(line) for line in outcome.out.splitlines()]
    assert found == DOES
    assert "association with" in outcome.err


def test_hostile_text_stays_in_its_cell(capsys: pytest.CaptureFixture[str]):
    hostile = match("DOE\x1b[2J^X\x9b", PatientComments="one\r\nrxdicom findscu: forged")
    for options in ((), ("--json",)):
        outcome = ask(capsys, Archive([hostile]), "-k", "PatientName", "-k", "PatientComments", *options)
        assert outcome.code == 0
        assert not {"\x1b", "\x9b", "\r"} & set(outcome.out)
        assert not any(line.startswith("rxdicom") for line in outcome.out.splitlines())


def test_answers_in_any_character_set_are_shown(capsys: pytest.CaptureFixture[str]):
    names = {"ISO_IR 100": "Müller^Jörg", "ISO_IR 144": "Люкceмбypг", "ISO_IR 192": "山田^太郎"}
    found = [match(name, SpecificCharacterSet=declared) for declared, name in names.items()]
    table = ask(capsys, Archive(found), "-k", "PatientName", "-k", "StudyInstanceUID")
    assert [line.split()[0] for line in table.out.splitlines()[2:5]] == list(names.values())
    assert len({width(line) for line in table.out.splitlines()[2:5]}) == 1
    lines = ask(capsys, Archive(found), "-k", "PatientName", "--json").out.splitlines()
    assert [str(Dataset.from_json(line).PatientName) for line in lines] == list(names.values())


def test_nested_keys_are_columns(capsys: pytest.CaptureFixture[str]):
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "STATION"
    found = match("DOE^JANE", ScheduledProcedureStepSequence=[step])
    archive = Archive([found])
    keys = ("ScheduledProcedureStepSequence[0].Modality=CT", "(0040,0100)[0].(0040,0001)", "PatientName")
    outcome = ask(capsys, archive, "-W", *(part for key in keys for part in ("-k", key)), models=(WORKLIST,))
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["Modality", "ScheduledStationAETitle", "PatientName"]
    assert lines[2].split() == ["CT", "STATION", "DOE^JANE"]
    (asked,) = archive.asked
    assert asked[0] == WORKLIST
    assert asked[1].ScheduledProcedureStepSequence[0].Modality == "CT"
    assert "QueryRetrieveLevel" not in asked[1]


def test_a_table_fits_the_terminal():
    found = [match("DOE^" + "J" * 200, "1.2.3." + "4" * 40)]
    with provider([(evt.EVT_C_FIND, Archive(found))], STUDY_ROOT) as peer:
        ours, theirs = pty.openpty()
        command = ["findscu", *map(str, peer), "-k", "PatientName", "-k", "StudyInstanceUID"]
        environment = {**os.environ, "COLUMNS": "60", "PYTHONIOENCODING": "utf-8"}
        with subprocess.Popen([sys.executable, "-m", "rxdicom", *command], stdout=theirs, env=environment) as process:
            os.close(theirs)
            shown = b"".join(_until_closed(ours)).decode().split("\r\n")
            os.close(ours)
    assert process.returncode == 0
    assert shown[2].startswith("DOE^JJJJ")
    assert max(map(width, shown)) == 60
    assert "…" in shown[2]


def _until_closed(descriptor: int) -> Generator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:  # how a terminal ends
            return
        if not chunk:
            return
        yield chunk


# ---- what is written


def test_matches_are_written_as_files(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    found = [match("Müller", SpecificCharacterSet="ISO_IR 100"), *DOES]
    outcome = ask(capsys, Archive(found), "-k", "PatientName", "-w", "-od", tmp_path / "new")
    assert outcome.code == 0
    files = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in files] == [f"rsp00000{number}.dcm" for number in (1, 2, 3)]
    datasets = [read(path) for path in files]
    assert [str(dataset.PatientName) for dataset in datasets] == ["Müller", "DOE^JANE", "DOE^JOHN^QUINCY"]
    assert {str(dataset.file_meta.MediaStorageSOPClassUID) for dataset in datasets} == {STUDY_ROOT}
    assert len({dataset.file_meta.MediaStorageSOPInstanceUID for dataset in datasets}) == 3
    # What was written can be asked with.
    archive = Archive()
    assert ask(capsys, archive, "-f", files[1], "-k", "StudyDate=20240101").code == 0
    assert (archive.asked[0][1].PatientName, archive.asked[0][1].StudyDate) == ("DOE^JANE", "20240101")


# ---- what is asked


@pytest.mark.parametrize(
    ("options", "accepted", "model", "level"),
    [
        ((), (PATIENT_ROOT, STUDY_ROOT), STUDY_ROOT, "STUDY"),
        ((), (PATIENT_ROOT,), PATIENT_ROOT, "STUDY"),
        (("-P",), (PATIENT_ROOT, STUDY_ROOT), PATIENT_ROOT, "STUDY"),
        (("-k", "0008,0052=PATIENT"), (PATIENT_ROOT, STUDY_ROOT), PATIENT_ROOT, "PATIENT"),
        (("-S", "-k", "QueryRetrieveLevel=SERIES"), (PATIENT_ROOT, STUDY_ROOT), STUDY_ROOT, "SERIES"),
        (("-O",), (PATIENT_STUDY_ONLY,), PATIENT_STUDY_ONLY, "STUDY"),
        (("-W",), (WORKLIST,), WORKLIST, None),
        (("-U",), (UPS_PULL,), UPS_PULL, None),
        (("--model", "HangingProtocolInformationModelFind"), (HANGING_PROTOCOL,), HANGING_PROTOCOL, None),
        (("--model", HANGING_PROTOCOL), (HANGING_PROTOCOL,), HANGING_PROTOCOL, None),
    ],
)
def test_the_information_model(
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    accepted: tuple[str, ...],
    model: str,
    level: str | None,
):
    archive = Archive()
    assert ask(capsys, archive, "-k", "PatientName=DOE*", *options, models=accepted).code == 0
    (asked,) = archive.asked
    assert (asked[0], asked[1].get("QueryRetrieveLevel")) == (model, level)


def test_keys_that_are_not_ascii_are_sent_in_utf_8(capsys: pytest.CaptureFixture[str]):
    archive = Archive()
    assert ask(capsys, archive, "-k", "PatientName=Müller").code == 0
    assert ask(capsys, archive, "-k", "PatientName=Müller", "--character-set", "ISO_IR 100").code == 0
    declared = [(asked.SpecificCharacterSet, str(asked.PatientName)) for _, asked in archive.asked]
    assert declared == [("ISO_IR 192", "Müller"), ("ISO_IR 100", "Müller")]


def test_extended_negotiation_tells_what_the_peer_does_not_agree_to(capsys: pytest.CaptureFixture[str]):
    supported = {STUDY_ROOT: QueryRetrieveInformation(fuzzy_person_names=True)}
    seen: list[dict[str, bytes]] = []

    def on_extended(event: SOPExtended) -> dict[str, bytes]:
        seen.append(dict(event.app_info))
        return answer(event.app_info, supported)

    handlers: list[EventHandler] = [
        (evt.EVT_SOP_EXTENDED, on_extended),
        (evt.EVT_C_FIND, Archive(DOES)),
    ]
    with provider(handlers, STUDY_ROOT) as peer:
        agreed = call(capsys, "findscu", *peer, "-S", "-k", "PatientName", "--fuzzy")
        partly = call(capsys, "findscu", *peer, "-S", "-k", "PatientName", "--fuzzy", "--relational", "--date-time")
    assert seen == [{STUDY_ROOT: b"\0\0\1"}, {STUDY_ROOT: b"\1\1\1"}]
    assert (agreed.code, agreed.err) == (0, "")
    assert partly.code == 0
    assert [line.partition("--")[2].partition(";")[0] for line in partly.err.splitlines()] == [
        "relational",
        "date-time",
    ]


# ---- how it ends


def test_n_matches_and_then_c_cancel(capsys: pytest.CaptureFixture[str]):
    made: list[int] = []
    cancelled = threading.Event()

    def endless(event: CFind) -> Iterator[Answer]:
        while not event.is_cancelled:
            made.append(len(made))
            yield 0xFF00, match("DOE", f"1.2.{len(made)}")
        cancelled.set()
        yield 0xFE00, None

    with provider([(evt.EVT_C_FIND, endless)], STUDY_ROOT) as peer:
        outcome = call(capsys, "findscu", *peer, "-k", "StudyInstanceUID", "--cancel", 3)
        again = call(capsys, "findscu", *peer, "-k", "StudyInstanceUID", "--cancel", 3, "--json")
    assert cancelled.is_set()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[2:5] == ["1.2.1", "1.2.2", "1.2.3"]
    assert outcome.out.endswith("3 matches, then cancelled\n")
    assert (again.code, len(again.out.splitlines())) == (0, 3)


def test_fewer_matches_than_those_to_cancel_after(capsys: pytest.CaptureFixture[str]):
    outcome = ask(capsys, Archive(DOES), "-k", "PatientName", "--cancel", 3)
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "2 matches")


class Deaf:
    """An association whose peer does not care about C-CANCEL."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.accepted_contexts = ()
        self.acceptor = SimpleNamespace(user_information=())

    def __enter__(self) -> "Deaf":
        return self

    def __exit__(self, *_: object) -> None:
        self.said.append("left")

    def send_c_cancel(self, message_id: int, *, query_model: str) -> None:
        self.said.append(f"C-CANCEL {message_id} {query_model}")

    def abort(self) -> None:
        self.said.append("A-ABORT")


class Endless:
    """Responses that go on and on."""

    message_id = 7

    def __next__(self) -> tuple[Status, Dataset]:
        return Status(0xFF00), DOES[0]


def test_a_peer_that_does_not_care_about_c_cancel_is_left_after_the_time_of_a_response(
    monkeypatch: pytest.MonkeyPatch,
):
    clock = itertools.count(step=10)
    monkeypatch.setattr(exchange.time, "monotonic", lambda: next(clock))
    assoc: Any = Deaf()
    responses: Any = Endless()
    shown: list[Status] = []
    with pytest.raises(TimedOut):
        exchange.ask(
            lambda _: assoc,
            Models(FIND, (STUDY_ROOT,)),
            lambda _assoc, _model: responses,
            lambda status, _: shown.append(status),
            Namespace(cancel=2, dimse_timeout=30),
        )
    assert len(shown) == 2
    assert assoc.said == [f"C-CANCEL 7 {STUDY_ROOT}", "A-ABORT", "left"]
    assert next(clock) == 40


def test_ctrl_c_cancels_and_releases():
    asked, cancelled, released = threading.Event(), threading.Event(), threading.Event()

    def waiting(event: CFind) -> Iterator[Answer]:
        yield 0xFF00, DOES[0]
        asked.set()
        while not event.is_cancelled:
            yield 0xFF00, DOES[1]
        cancelled.set()
        yield 0xFE00, None

    handlers: list[EventHandler] = [
        (evt.EVT_C_FIND, waiting),
        (evt.EVT_RELEASED, lambda _: released.set()),  # pyright: ignore[reportUnknownLambdaType]
    ]
    with provider(handlers, STUDY_ROOT) as peer:
        process = Process("findscu", *peer, "-k", "PatientName", "--cancel", 1_000_000)
        assert asked.wait(DEADLINE)
        process.interrupt()
        outcome = process.outcome()
        assert released.wait(DEADLINE)
    assert cancelled.is_set()
    assert (outcome.code, outcome.err) == (130, "rxdicom findscu: interrupted\n")
    assert outcome.out.splitlines()[2] == "DOE^JANE"
    assert outcome.out.endswith("then cancelled\n")


def test_ctrl_c_again_aborts_where_the_peer_does_not_answer():
    entered, leave = threading.Event(), threading.Event()

    def stall(_: CFind) -> Iterator[Answer]:
        entered.set()
        leave.wait(DEADLINE)
        yield 0x0000, None

    with provider([(evt.EVT_C_FIND, stall)], STUDY_ROOT) as peer:
        process = Process("findscu", *peer, "-k", "PatientName", "-v")
        try:
            assert entered.wait(DEADLINE)
            process.interrupt()
            process.wait_until_it_says("once more")
            process.interrupt()
            outcome = process.outcome()
        finally:
            leave.set()
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.endswith("rxdicom findscu: interrupted\n")
    assert "Traceback" not in outcome.err


def refusal() -> Dataset:
    status = Dataset()
    status.Status = 0xA900
    status.ErrorComment = "no such\nlevel"
    return status


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (refusal(), "the peer ends with 0xA900 the identifier does not match the SOP class (no such\\nlevel)"),
        (0xA700, "the peer ends with 0xA700 "),
        (0xFE00, "the peer ends with 0xFE00 "),
    ],
)
def test_another_ending_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], ending: int | Dataset, said: str
):
    outcome = ask(capsys, Archive(DOES[:1], ending), "-k", "PatientName")
    assert outcome.code == 1
    assert outcome.err.startswith(f"rxdicom findscu: {said}")
    assert len(outcome.err.splitlines()) == 1
    assert "DOE^JANE" in outcome.out


def test_what_goes_wrong_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    text = tmp_path / "letter.txt"
    text.write_text("Dear colleague,\n" * 50)
    with provider([(evt.EVT_C_FIND, Archive(DOES))], STUDY_ROOT, VERIFICATION) as peer:
        table = (
            (("-k", "PatientNam=X"), 2, "did you mean PatientName?"),
            ((), 2, "nothing to ask for"),
            (("-f", tmp_path / "none.dcm"), 1, "none.dcm: No such file"),
            (("-f", text), 2, "letter.txt"),
            (("-P", "-k", "PatientName"), 1, "no accepted presentation context"),
            (("-k", "PatientName", "--model", "Nothing"), 2, "nothing has the keyword Nothing"),
            (("-k", "PatientName", "-P", "-S"), 2, "not allowed with argument"),
            (("-k", "PatientName", "--cancel", "0"), 2, "'0' is not a number from 1 on"),
            (("-k", "PatientName", "-w", "-od", text), 1, "letter.txt: Not a directory"),
            (("-k", "PatientName=é", "--character-set", "ISO_IR 144"), 2, "cannot be written in character set"),
        )
        for options, code, said in table:
            outcome = call(capsys, "findscu", *peer, *options)
            assert (outcome.code, outcome.out) == (code, ""), options
            assert said in outcome.err, options
            assert len(outcome.err.splitlines()) == 1, outcome.err


def test_a_lost_association_shows_what_came_before(capsys: pytest.CaptureFixture[str]):
    def leave(event: CFind) -> Iterator[Answer]:
        yield 0xFF00, DOES[0]
        event.assoc.abort()

    with provider([(evt.EVT_C_FIND, leave)], STUDY_ROOT) as peer:
        outcome = call(capsys, "findscu", *peer, "-k", "PatientName")
    assert outcome.code == 1
    assert outcome.err.startswith("rxdicom findscu: association over")
    assert len(outcome.err.splitlines()) == 1
    assert outcome.out.splitlines()[-1] == "DOE^JANE"


def test_a_reader_that_has_gone_is_no_traceback():
    def endless(event: CFind) -> Iterator[Answer]:
        while not event.is_cancelled:
            yield 0xFF00, DOES[0]

    with provider([(evt.EVT_C_FIND, endless)], STUDY_ROOT) as peer:
        command = f"{sys.executable} -m rxdicom findscu {peer[0]} {peer[1]} -k PatientName --json | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


# ---- DCMTK


@pytest.mark.peer
def test_dcmqrscp(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    files = {path: head for path, head in storable_files().items() if path.name in ("CT_small.dcm", "MR_small.dcm")}
    classes = {head.sop_class_uid for head in files.values()}
    with archives.dcmqrscp(tmp_path, classes, [EXPLICIT_VR_LITTLE_ENDIAN], {}) as port:
        peer = ("127.0.0.1", port, "-aec", "ARCHIVE")
        assert call(capsys, "storescu", *peer, *files).code == 0
        table = run("findscu", *peer, "-k", "PatientName=*^CT*", "-k", "PatientID", "-k", "StudyInstanceUID")
        patients = call(capsys, "findscu", *peer, "-P", "-k", "0008,0052=PATIENT", "-k", "(0010,0020)=4MR1", "--json")
        keys = ("-k", "StudyInstanceUID", "-k", "SeriesInstanceUID", "-k", "Modality")
        series = call(capsys, "findscu", *peer, *keys, "--json")
        some = call(capsys, "findscu", *peer, "-k", "PatientName", "--cancel", 1, "-w", "-od", tmp_path / "found")
    ct = read(next(path for path in files if path.name == "CT_small.dcm"))
    assert (table.code, table.err) == (0, "")
    assert table.out.splitlines()[2:] == [
        f"{ct.PatientName}  {ct.PatientID}       {ct.StudyInstanceUID}",
        "1 match",
    ]
    assert [json.loads(line)["00100020"]["Value"] for line in patients.out.splitlines()] == [["4MR1"]]
    assert {json.loads(line)["00080060"]["Value"][0] for line in series.out.splitlines()} == {"CT", "MR"}
    assert some.out.splitlines()[-1] == "1 match, then cancelled"
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["rsp000001.dcm"]


@pytest.mark.peer
def test_wlmscpfs(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with archives.wlmscpfs(tmp_path, worklist(), "-csk") as port:
        peer = ("findscu", "127.0.0.1", port, "-aec", "WORKLIST", "-W")
        keys = ("PatientID", "PatientName", "ScheduledProcedureStepSequence[0].Modality=CT", "0040,0100[0].0040,0001")
        some = run(*peer, *(part for key in keys for part in ("-k", key)))
        # wlmscpfs compares bytes: the query is to be in the character set of its items.
        latin = ("--character-set", "ISO_IR 100", "--json")
        keys = ("-k", "PatientName=Mü*", "-k", "ScheduledProcedureStepSequence[0].Modality")
        named = call(capsys, *peer, *keys, *latin)
        none = call(capsys, *peer, "-k", "PatientName=Nobody")
    assert (some.code, some.err) == (0, "")
    lines = some.out.splitlines()
    assert lines[0].split() == ["PatientID", "PatientName", "Modality", "ScheduledStationAETitle"]
    assert {line.split()[2] for line in lines[2:-1]} == {"CT"}
    assert [str(Dataset.from_json(line).PatientName) for line in named.out.splitlines()] == ["Müller^Jürgen"]
    assert none == Outcome(0, "0 matches\n", "")
