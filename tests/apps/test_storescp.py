"""The receiver: names that no UID can break out of, what is stored and how, faults of the disk, how it stops."""

import os
import shutil
import signal
import socket
import stat
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from rxdicom import AE, AssociationAborted, AssociationReleased
from rxdicom.apps.storage import Store, clean, file_name, keep
from rxdicom.presentation import build_context
from rxdicom.wire.items import AsyncOperationsWindow
from tests.apps.support import SECONDARY_CAPTURE, call, dicom_file, read, run, server

HOSTILE = (
    "../../escaped",
    "..",
    ".",
    "",
    "/etc/passwd",
    "1.2.3\0.dcm",
    "1.2/3.4",
    "1.2\\3",
    ".hidden",
    "-rf",
    "~",
    "1.2\r\n3",
    "\x1b[2J",
    "CON",
    "1.2.3.dcm",
    "1." * 60,
    "x" * 64,
    "ABC",
    "abc",
)


def is_safe(name: str) -> bool:
    return (
        os.path.basename(name) == name
        and name.isascii()
        and name.isprintable()
        and not name.startswith((".", "-"))
        and not set(name) & set("/\\:\0*?\"'<>| ")
        and name.endswith(".dcm")
        and len(name) < 144
    )


@pytest.mark.parametrize("uid", HOSTILE)
def test_a_hostile_uid_is_a_name_in_the_folder(uid: str):
    assert is_safe(file_name(uid))


def test_no_two_uids_share_a_file():
    # Lower case, as file systems compare that do not tell cases apart.
    assert len({file_name(uid).lower() for uid in HOSTILE}) == len(HOSTILE)


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_a_safe_name_of_its_own(one: str, other: str):
    assert is_safe(file_name(one))
    assert (file_name(one).lower() == file_name(other).lower()) == (one == other)


@given(st.from_regex(r"[0-9]+(\.[0-9]+)*", fullmatch=True).filter(lambda uid: len(uid) <= 64))
def test_a_plain_uid_is_its_own_name(uid: str):
    assert file_name(uid) == f"{uid}.dcm"


def instance(uid: str) -> Dataset:
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.SOPClassUID = SECONDARY_CAPTURE
        dataset.SOPInstanceUID = uid
    dataset.PatientName = "DOE^JOHN"
    return dataset


def test_hostile_uids_over_the_network_stay_in_the_folder(tmp_path: Path):
    folder = tmp_path / "a" / "folder"
    uids = [uid for uid in HOSTILE if uid]
    ae = AE()
    with server("storescp", "-od", folder) as running:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with ae.associate("127.0.0.1", running.port, [build_context(SECONDARY_CAPTURE)]) as assoc:
                statuses = {uid: assoc.send_c_store(instance(uid)) for uid in uids}
        assert running.stop() == 0
    assert set(statuses.values()) == {0x0000}
    stored = {path.name for path in folder.iterdir()}
    assert len(stored) == len(uids)
    assert all(is_safe(name) for name in stored)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {folder / name for name in stored}
    assert not {"\r", "\x1b", "\0"} & set(running.said)
    assert len(running.said.splitlines()) == len(uids) + 4


def test_what_is_stored_is_what_was_sent(tmp_path: Path):
    sent = dicom_file(tmp_path / "in" / "image.dcm", filling=100)
    with server("storescp", "-od", tmp_path / "out", "-aet", "ARCHIVE") as running:
        assert run("storescu", "127.0.0.1", running.port, sent, "-aet", "MODALITY").code == 0
        assert running.stop() == 0
    stored = read(tmp_path / "out" / "1.2.3.dcm")
    assert stored == read(sent)
    assert stored.file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert f"ARCHIVE listens on 127.0.0.1:{running.port}, stores in {tmp_path / 'out'}" in running.said
    assert running.said.count(": stored 1.2.3.dcm, ") == 1


def test_ignored_objects_are_accepted_and_not_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    sent = dicom_file(tmp_path / "in" / "image.dcm", filling=100)
    with server("storescp", "--ignore", "-od", tmp_path / "out") as running:
        assert call(capsys, "storescu", "127.0.0.1", running.port, sent).code == 0
        assert running.stop() == 0
    assert not (tmp_path / "out").exists()
    assert ": discarded 1.2.3" in running.said


def test_a_fault_of_the_disk_is_out_of_resources_and_the_server_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder = tmp_path / "out"
    sent = dicom_file(tmp_path / "in" / "image.dcm")
    with server("storescp", "-od", folder) as running:
        shutil.rmtree(folder)
        outcome = call(capsys, "storescu", "127.0.0.1", running.port, sent)
        assert outcome.code == 1
        assert "image.dcm: the peer refused it: 0xA700 refused: out of resources" in outcome.err
        folder.mkdir()
        assert call(capsys, "storescu", "127.0.0.1", running.port, sent).code == 0
        assert call(capsys, "echoscu", "127.0.0.1", running.port).code == 0
    assert [path.name for path in folder.iterdir()] == ["1.2.3.dcm"]


class Recorder:
    """A C-STORE event that only remembers how it was saved."""

    def __init__(self) -> None:
        self.request = SimpleNamespace(AffectedSOPInstanceUID="1.2.3")
        self.context = SimpleNamespace(transfer_syntax="1.2.840.10008.1.2")
        self.assoc = SimpleNamespace(name="A-1")
        self.encoded = SimpleNamespace(size=7)
        self.saved: list[tuple[str, bool]] = []

    def save(self, path: str, *, durable: bool = True) -> None:
        self.saved.append((path, durable))


@pytest.mark.parametrize("durable", [True, False])
def test_only_relaxed_does_not_wait_for_the_disk(durable: bool):
    event: Any = Recorder()
    store = Store("/folder", durable)
    assert keep(event, store) == 0x0000
    assert event.saved == [("/folder/1.2.3.dcm", durable)]
    assert (store.tally.instances, store.tally.bytes) == (1, 7)
    assert Store("/folder").durable


@pytest.mark.parametrize("options", [(), ("--relaxed",)])
def test_relaxed_is_said_and_large_objects_are_spooled_in_the_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...]
):
    folder = tmp_path / "out"
    large = tmp_path / "large.dcm"
    filling = bytes(3_000_000)
    small = dicom_file(large, instance="1.2.9").read_bytes()
    large.write_bytes(small + b"\xe0\x7f\x10\0OB\0\0" + len(filling).to_bytes(4, "little") + filling)
    with server("storescp", "-od", folder, *options) as running:
        assert (", relaxed" in running.said) == bool(options)
        assert call(capsys, "storescu", "127.0.0.1", running.port, large).code == 0
        assert running.stop() == 0
    assert [path.name for path in folder.iterdir()] == ["1.2.9.dcm"]
    assert len(read(folder / "1.2.9.dcm").PixelData) == len(filling)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", ["echoscp", "storescp"])
def test_it_stops_cleanly_with_an_association_open(program: str, how: signal.Signals, tmp_path: Path):
    ae = AE()
    ae.add_requested_context("1.2.840.10008.1.1")
    options = ("-od", tmp_path) if program == "storescp" else ()
    with server(program, *options) as running:
        assoc = ae.associate("127.0.0.1", running.port)
        assert assoc.send_c_echo() == 0x0000
        assert running.stop(how) == 0
        with pytest.raises((AssociationAborted, AssociationReleased)):
            assoc.send_c_echo()
        assoc.abort()
    assert f"stops on {how.name}" in running.said
    assert ": aborted here: by the service user (source 0, reason 0)" in running.said
    assert "Traceback" not in running.said


def test_a_folder_that_cannot_be_used_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    below = call(capsys, "storescp", "-od", tmp_path / "file" / "below", 0)
    assert (below.code, below.err) == (1, f"rxdicom storescp: {tmp_path / 'file' / 'below'}: Not a directory\n")

    def forbidden(path: str, mode: int) -> bool:
        return bool(path and not mode)

    monkeypatch.setattr(os, "access", forbidden)
    outcome = call(capsys, "storescp", "-od", tmp_path, 0)
    assert (outcome.code, outcome.err) == (1, f"rxdicom storescp: {tmp_path}: Permission denied\n")


UNFINISHED = ".rxdicom-0123456789abcdef.part"


def test_what_killed_programs_left_is_removed_once_it_is_a_day_old(tmp_path: Path):
    (tmp_path / "elsewhere").touch()
    links = tmp_path / ".rxdicom-00000000000000ff.part"
    links.symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".rxdicom-00000000000000fe.part").mkdir()
    names = {
        UNFINISHED: 2.0,
        ".rxdicom-0000000000000001.part": 0.9,
        ".rxdicom-00000000000000g1.part": 2.0,
        ".rxdicom-0000000000000001.part.dcm": 2.0,
        "1.2.3.dcm": 2.0,
    }
    now = time.time()
    for name, days in names.items():
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now, now - 86400 * days))
    os.utime(links, (now, now - 172800), follow_symlinks=False)
    os.utime(tmp_path / ".rxdicom-00000000000000fe.part", (now, now - 172800))
    before = set(os.listdir(tmp_path))
    assert clean(str(tmp_path)) == [UNFINISHED]
    assert before - set(os.listdir(tmp_path)) == {UNFINISHED}
    assert clean(str(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("program", ["storescp", "getscu", "movescu"])
def test_every_program_that_receives_cleans_its_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, program: str
):
    (tmp_path / UNFINISHED).touch()
    os.utime(tmp_path / UNFINISHED, (0, 0))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        own = {"getscu": ("127.0.0.1", port), "movescu": ("127.0.0.1", port, "--store", "--store-port", 0)}
        keys = ("-k", "PatientID=1") if program in own else ("-ba", "127.0.0.1")
        outcome = call(capsys, program, *own.get(program, (port,)), *keys, "-od", tmp_path, "-v")
    assert outcome.code == 1
    assert f"{UNFINISHED}: removed" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_permissions_that_the_process_gives(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    sent = dicom_file(tmp_path / "in" / "image.dcm")
    with server("storescp", "-od", tmp_path / "out") as running:
        assert call(capsys, "storescu", "127.0.0.1", running.port, sent).code == 0
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out" / "1.2.3.dcm").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    ("options", "proposed", "accepted"),
    [((), 9, 1), (("--window", 3), 2, 2), (("--window", 3), 9, 3), (("--window", 3), 0, 3)],
)
def test_a_window_is_accepted_up_to_what_it_was_told(
    tmp_path: Path, options: tuple[object, ...], proposed: int, accepted: int
):
    asked = AsyncOperationsWindow(proposed, 1)
    with server("storescp", *options, "-od", tmp_path) as scp:
        with AE().associate("127.0.0.1", scp.port, [build_context(SECONDARY_CAPTURE)], ext_neg=[asked]) as assoc:
            assert assoc.operations_window == (accepted, 1)
