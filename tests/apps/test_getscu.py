"""C-GET from the command line: what is proposed, stored and counted, how it is cancelled, and how it fails."""

import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import AE, evt
from rxdicom.apps.getscu import storage_contexts
from rxdicom.errors import ArgumentError
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CGet, Established
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import DEADLINE, SECONDARY_CAPTURE, Outcome, Process, call, dicom_file, provider, run
from tests.interop import archives
from tests.interop.memory import as_values
from tests.support import read, storable_files

PATIENT_ROOT, STUDY_ROOT = (f"1.2.840.10008.5.1.4.1.2.{number}.3" for number in (1, 2))
CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"

Item = int | tuple[int, Any]


def instance(uid: str) -> Dataset:
    """An image under whatever its peer calls a UID."""
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.SOPClassUID, dataset.SOPInstanceUID = SECONDARY_CAPTURE, uid
    return dataset


class Archive:
    """A C-GET handler that sends always the same files, and remembers what it was asked."""

    def __init__(self, *files: Path, ending: int | None = None) -> None:
        self.files = files
        self.ending = ending
        self.asked: list[CGet] = []
        self.accepted: list[tuple[str, str]] = []

    def __call__(self, event: CGet) -> Iterator[Item]:
        self.asked.append(event)
        if self.ending is not None:
            yield self.ending, None
        yield len(self.files)
        for path in self.files:
            yield 0xFF00, str(path)

    def established(self, event: Established) -> None:
        contexts = event.assoc.accepted_contexts
        self.accepted = [(each.abstract_syntax, each.transfer_syntax[0]) for each in contexts if each.as_scu]


def get(
    capsys: pytest.CaptureFixture[str],
    archive: Archive,
    *options: object,
    storage: tuple[str, ...] = (SECONDARY_CAPTURE,),
) -> Outcome:
    """Retrieve from a peer that has these files."""
    ae = AE("ARCHIVE")
    for uid in storage:
        ae.add_supported_context(uid, [EXPLICIT_VR_LITTLE_ENDIAN, JPEG_2000], scu_role=True, scp_role=True)
    handlers: list[EventHandler] = [(evt.EVT_C_GET, archive), (evt.EVT_ESTABLISHED, archive.established)]
    with provider(handlers, STUDY_ROOT, ae=ae) as peer:
        return call(capsys, "getscu", *peer, *options)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [dicom_file(tmp_path / "in" / f"{number}.dcm", instance=f"1.2.{number}") for number in range(3)]


# ---- what arrives


def test_what_arrives_is_stored_as_it_was(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    archive = Archive(*files)
    outcome = get(capsys, archive, "-k", "StudyInstanceUID=1.2.3", "-od", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"3 stored in {tmp_path / 'out'}, ")
    stored = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in stored] == ["1.2.0.dcm", "1.2.1.dcm", "1.2.2.dcm"]
    assert [read(path) for path in stored] == [read(path) for path in files]
    (asked,) = archive.asked
    assert (asked.context.abstract_syntax, asked.identifier.QueryRetrieveLevel) == (STUDY_ROOT, "STUDY")


def test_a_peer_that_is_asked_cannot_write_outside_the_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    hostile = ("../../escaped", "/etc/escaped", "..", "1.2/3", "1.2\\3", "1.2\r\n3")
    folder = tmp_path / "a" / "out"

    def on_get(_: CGet) -> Iterator[Item]:
        yield len(hostile)
        for uid in hostile:
            yield 0xFF00, instance(uid)

    with provider([(evt.EVT_C_GET, on_get)], STUDY_ROOT, SECONDARY_CAPTURE, roles=True) as peer:
        outcome = call(capsys, "getscu", *peer, "-k", "StudyInstanceUID=1.2.3", "-od", folder)
    assert outcome.code == 0
    stored = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(stored) == len(hostile)
    assert {path.parent for path in stored} == {folder}
    assert all(path.name.isprintable() and not path.name.startswith(".") for path in stored)


def test_json_is_one_line_of_what_became_of_it(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    outcome = get(capsys, Archive(*files), "-k", "PatientID=1", "-S", "-od", tmp_path / "out", "--json", "-v")
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    seen = json.loads(line)
    assert seen.pop("bytes") > 0
    assert seen == {
        "status": 0,
        "meaning": "success",
        "completed": 3,
        "failed": 0,
        "warning": 0,
        "failed_instances": [],
        "stored": 3,
        "folder": str(tmp_path / "out"),
    }


def test_nothing_to_retrieve_is_success(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    outcome = get(capsys, Archive(), "-k", "StudyInstanceUID=1.2", "-od", tmp_path)
    assert outcome == Outcome(0, f"0 stored in {tmp_path}\n", "")
    assert get(capsys, Archive(), "-k", "StudyInstanceUID=1.2", "-od", tmp_path, "-q") == Outcome(0, "", "")


def said_by_the_program(outcome: Outcome) -> list[str]:
    """Its lines on stderr, without those that the archive in this process logs."""
    lines = [line.removeprefix("rxdicom getscu: ") for line in outcome.err.splitlines()]
    return [line for line in lines if not line.startswith("ARCHIVE-")]


def test_what_fails_is_named_and_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    other = dicom_file(tmp_path / "in" / "ct.dcm", sop_class=CT, instance="1.9.9")
    outcome = get(capsys, Archive(*files, other), "-k", "StudyInstanceUID=1.2", "-od", tmp_path / "out")
    assert outcome.code == 1
    assert "3 stored in " in outcome.out
    assert outcome.out.endswith("; 1 failed\n")
    told = said_by_the_program(outcome)
    assert told[0] == "not retrieved: 1.9.9"
    assert told[1].startswith("the peer ends with 0xB000 ")
    assert len(told) == 2
    seen = get(capsys, Archive(*files, other), "-k", "StudyInstanceUID=1.2", "-od", tmp_path / "out", "--json")
    assert json.loads(seen.out)["failed_instances"] == ["1.9.9"]
    assert len(said_by_the_program(seen)) == 1


def test_a_fault_of_the_disk_is_a_failure_of_the_instance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]
):
    (tmp_path / "out" / "1.2.1.dcm").mkdir(parents=True)
    outcome = get(capsys, Archive(*files), "-k", "StudyInstanceUID=1.2", "-od", tmp_path / "out")
    assert outcome.code == 1
    assert "2 stored in " in outcome.out
    assert "not retrieved: 1.2.1" in outcome.err


# ---- what is proposed


def test_the_common_storage_classes_are_proposed(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    archive = Archive()
    assert get(capsys, archive, "-k", "PatientID=1", "-S", "-od", tmp_path, storage=(SECONDARY_CAPTURE, CT)).code == 0
    assert {uid for uid, _ in archive.accepted} == {SECONDARY_CAPTURE, CT}


def test_classes_and_transfer_syntaxes_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    archive = Archive()
    options = ("--storage", "CTImageStorage", "--storage", SECONDARY_CAPTURE, "--transfer-syntax", "JPEG2000Lossless")
    storage = (SECONDARY_CAPTURE, CT, "1.2.840.10008.5.1.4.1.1.4")
    assert get(capsys, archive, "-k", "PatientID=1", "-S", "-od", tmp_path, *options, storage=storage).code == 0
    assert archive.accepted == [
        (uid, syntax) for uid in (CT, SECONDARY_CAPTURE) for syntax in (JPEG_2000, EXPLICIT_VR_LITTLE_ENDIAN)
    ]


def test_contexts_are_as_many_as_fit():
    assert len(storage_contexts([], [], 126)) == 120
    assert len(storage_contexts(["CTImageStorage", CT], [], 126)) == 1
    assert len(storage_contexts([CT], [JPEG_2000, "JPEG2000Lossless", "RLELossless"], 3)) == 3
    for classes, syntaxes, said in (
        ([], ["JPEG2000"], "are 240 presentation contexts, but only 126 fit"),
        (["Verification"], [], "Verification is not a storage SOP class"),
        (["1.2.3"], [], "1.2.3 is not a storage SOP class"),
        ([CT], ["Nothing"], "--transfer-syntax: nothing has the keyword Nothing"),
    ):
        with pytest.raises(ArgumentError) as caught:
            storage_contexts(classes, syntaxes, 126)
        assert said in str(caught.value)


# ---- how it ends


def test_n_responses_and_then_c_cancel(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    def endless(event: CGet) -> Iterator[Item]:
        yield 60_000
        while not event.is_cancelled:
            yield 0xFF00, str(files[0])
        yield 0xFE00, None

    ae = AE("ARCHIVE")
    ae.add_supported_context(SECONDARY_CAPTURE, scu_role=True, scp_role=True)
    with provider([(evt.EVT_C_GET, endless)], STUDY_ROOT, ae=ae) as peer:
        options = ("-k", "StudyInstanceUID=1.2", "-od", tmp_path / "out", "--relaxed", "--cancel", 3)
        outcome = call(capsys, "getscu", *peer, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(" not sent\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.2.0.dcm"]


def test_ctrl_c_cancels_and_releases(tmp_path: Path, files: list[Path]):
    begun, released = threading.Event(), threading.Event()

    def endless(event: CGet) -> Iterator[Item]:
        yield 60_000
        while not event.is_cancelled:
            yield 0xFF00, str(files[0])
            begun.set()
        yield 0xFE00, None

    ae = AE("ARCHIVE")
    ae.add_supported_context(SECONDARY_CAPTURE, scu_role=True, scp_role=True)
    handlers: list[EventHandler] = [
        (evt.EVT_C_GET, endless),
        (evt.EVT_RELEASED, lambda _: released.set()),  # pyright: ignore[reportUnknownLambdaType]
    ]
    with provider(handlers, STUDY_ROOT, ae=ae) as peer:
        process = Process("getscu", *peer, "-k", "StudyInstanceUID=1.2", "-od", tmp_path / "out", "--relaxed")
        assert begun.wait(DEADLINE)
        process.interrupt()
        outcome = process.outcome()
        assert released.wait(DEADLINE)
    assert (outcome.code, outcome.err) == (130, "rxdicom getscu: interrupted\n")
    assert f" stored in {tmp_path / 'out'}, " in outcome.out


@pytest.mark.parametrize(("ending", "said"), [(0xA701, "0xA701 "), (0xA900, "0xA900 "), (0xFE00, "0xFE00 ")])
def test_another_ending_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ending: int, said: str
):
    outcome = get(capsys, Archive(ending=ending), "-k", "StudyInstanceUID=1.2", "-od", tmp_path)
    assert outcome.code == 1
    assert outcome.err.startswith(f"rxdicom getscu: the peer ends with {said}")
    assert len(outcome.err.splitlines()) == 1


def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "file").touch()
    table = (
        (("-k", "PatientName=DOE*"), 2, "there is nothing to retrieve"),
        (("-k", "PatientID=1", "-W"), 2, "-W"),
        (("-k", "PatientID=1", "--fuzzy"), 2, "--fuzzy"),
        (("-k", "PatientID=1", "--model", "StudyRootQueryRetrieveInformationModelMove"), 2, "is for C-MOVE"),
        (("-k", "PatientID=1", "--storage", "Verification"), 2, "not a storage SOP class"),
        (("-k", "PatientID=1", "-od", tmp_path / "file"), 1, "file: Not a directory"),
    )
    for options, code, said in table:
        outcome = call(capsys, "getscu", "127.0.0.1", 104, *options)
        assert (outcome.code, outcome.out) == (code, ""), options
        assert said in outcome.err
        assert len(outcome.err.splitlines()) == 1, outcome.err


def test_a_peer_without_c_get_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with provider([], SECONDARY_CAPTURE) as peer:
        outcome = call(capsys, "getscu", *peer, "-k", "PatientID=1", "-od", tmp_path)
    assert outcome.code == 1
    assert f"no accepted presentation context for {PATIENT_ROOT}" in outcome.err
    assert len(outcome.err.splitlines()) == 1


# ---- DCMTK


@pytest.mark.peer
def test_dcmqrscp(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    wanted = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")
    files = {path: head for path, head in storable_files().items() if path.name in wanted}
    syntaxes = {head.transfer_syntax_uid for head in files.values()} | {IMPLICIT_VR_LITTLE_ENDIAN}
    with archives.dcmqrscp(tmp_path, {head.sop_class_uid for head in files.values()}, syntaxes, {}) as port:
        peer = ("127.0.0.1", port, "-aec", "ARCHIVE")
        assert call(capsys, "storescu", *peer, *files).code == 0
        plain = run("getscu", *peer, "-k", "PatientID=1CT1", "-od", tmp_path / "plain")
        compressed = next(path for path in files if path.name == "JPEG2000.dcm")
        study = f"StudyInstanceUID={read(compressed).StudyInstanceUID}"
        own = ("--storage", files[compressed].sop_class_uid, "--transfer-syntax", files[compressed].transfer_syntax_uid)
        whole = call(capsys, "getscu", *peer, "-k", study, "-od", tmp_path / "whole", "--json", *own)
    ct = next(path for path in files if path.name == "CT_small.dcm")
    assert (plain.code, plain.err) == (0, "")
    assert [as_values(read(path)) for path in (tmp_path / "plain").iterdir()] == [as_values(read(ct))]
    assert json.loads(whole.out)["completed"] == 1
    (path,) = (tmp_path / "whole").iterdir()
    assert read(path).PixelData == read(compressed).PixelData
    assert read(path).file_meta.TransferSyntaxUID == files[compressed].transfer_syntax_uid
