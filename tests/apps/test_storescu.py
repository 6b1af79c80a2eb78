"""The sender: what it says and how it ends when files, contexts or associations fail, and on Ctrl-C."""

import itertools
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import field, frozen

from rxdicom import AE, Association, AssociationServer, evt
from rxdicom.apps import progress
from rxdicom.apps.storescu import Report
from rxdicom.events.records import AsyncOps, CStore, Established
from rxdicom.runtimes.threads import spreading
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import ARC, DEADLINE, SECONDARY_CAPTURE, Process, call, dicom_file, read

JPEG = "1.2.840.10008.1.2.4.50"


@frozen
class Receiver:
    """A Storage SCP in this process, and what it was sent."""

    server: AssociationServer
    stored: list[str] = field(factory=list[str])
    proposed: list[int] = field(factory=list[int])
    """How many contexts each association proposed."""

    @property
    def peer(self) -> tuple[str, int]:
        return self.server.address


@contextmanager
def receiving(handler: Callable[[CStore], int] | None = None, syntax: str | None = None) -> Generator[Receiver]:
    """A server that accepts every storage class, or secondary capture in one transfer syntax only."""
    ae = AE("RECEIVER")
    ae.accept_any_storage = syntax is None
    ae.add_supported_context(SECONDARY_CAPTURE if syntax else "1.2.840.10008.1.1", syntax)
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        receiver = Receiver(server)

        def on_store(event: CStore) -> int:
            status = handler(event) if handler else 0x0000
            if status == 0x0000:
                receiver.stored.append(event.request.AffectedSOPInstanceUID or "")
            return status

        def on_established(event: Established) -> None:
            assoc: Association = event.assoc
            receiver.proposed.append(len(assoc.accepted_contexts) + len(assoc.rejected_contexts))

        server.bind(evt.EVT_C_STORE, on_store)
        server.bind(evt.EVT_ESTABLISHED, on_established)
        yield receiver


# ---- what is sent


def test_a_batch_with_bad_files_sends_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for number in range(5):
        dicom_file(tmp_path / "study" / f"{number}.dcm", instance=f"1.2.{number}")
    (tmp_path / "study" / "README.txt").write_text("nothing" * 30)
    bad = tmp_path / "bad\n.dcm"
    bad.write_text("x" * 200)
    with receiving() as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, bad, tmp_path / "study", tmp_path / "none.dcm")
    assert outcome.code == 1
    assert sorted(receiver.stored) == [f"1.2.{number}" for number in range(5)]
    assert len(outcome.err.splitlines()) == 2
    assert "bad\\n.dcm: not a DICOM file" in outcome.err
    assert "none.dcm: No such file" in outcome.err
    assert outcome.out.startswith("5 of 7 stored, ")
    assert outcome.out.endswith("; 2 failed; 1 skipped that are not DICOM or hidden (-v lists them)\n")


def test_everything_stored_is_success_and_v_lists_it(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    dicom_file(tmp_path / "1.dcm")
    (tmp_path / "letter.txt").write_text("nothing" * 30)
    with receiving() as receiver:
        outcome = call(capsys, "storescu", "-v", *receiver.peer, tmp_path)
        assert call(capsys, "storescu", "-q", *receiver.peer, tmp_path).out == ""
    assert outcome.code == 0
    assert f"{tmp_path / '1.dcm'}: stored\n" in outcome.err
    assert f"{tmp_path / 'letter.txt'}: skipped: not a DICOM file" in outcome.err


def test_more_than_128_contexts_are_several_associations(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for number in range(150):
        dicom_file(tmp_path / f"{number:03d}.dcm", sop_class=f"{ARC}9999.{number}", instance=f"1.2.{number}")
    with receiving() as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("150 of 150 stored")
    assert receiver.proposed == [128, 128, 44]
    assert receiver.stored == [f"1.2.{number}" for number in range(150)]


def test_refusals_and_warnings_of_the_peer(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    answers = {"1.2.0": 0x0000, "1.2.1": 0xB000, "1.2.2": 0xA900, "1.2.3": 0x0000}
    for uid in answers:
        dicom_file(tmp_path / f"{uid}.dcm", instance=uid)
    with receiving(lambda event: answers[event.request.AffectedSOPInstanceUID or ""]) as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, tmp_path)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert "1.2.2.dcm: the peer refused it: 0xA900" in outcome.err
    assert outcome.out.startswith("3 of 4 stored, ")
    assert outcome.out.endswith("; 1 with warnings; 1 failed\n")


def test_conversion_unless_it_is_switched_off(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = dicom_file(tmp_path / "1.dcm", syntax=EXPLICIT_VR_LITTLE_ENDIAN)
    kept: list[object] = []

    def keep(event: CStore) -> int:
        kept.append((event.context.transfer_syntax, event.dataset))
        return 0x0000

    with receiving(keep, IMPLICIT_VR_LITTLE_ENDIAN) as receiver:
        assert call(capsys, "storescu", *receiver.peer, path).code == 0
        outcome = call(capsys, "storescu", "--no-convert", *receiver.peer, path)
    assert kept == [(IMPLICIT_VR_LITTLE_ENDIAN, read(path))]
    assert outcome.code == 1
    assert f"the peer accepts no context for {SECONDARY_CAPTURE} in transfer syntax" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_what_cannot_be_converted_fails_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    dicom_file(tmp_path / "1.dcm", instance="1.2.1")
    junk = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" + b"\xfe\xff\0\xe0\4\0\0\0junk"
    with dicom_file(tmp_path / "2.dcm", instance="1.2.2", syntax=JPEG).open("ab") as file:
        file.write(junk + b"\xfe\xff\xdd\xe0\0\0\0\0")
    dicom_file(tmp_path / "3.dcm", instance="1.2.3")
    with receiving(syntax=EXPLICIT_VR_LITTLE_ENDIAN) as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, tmp_path)
    assert outcome.code == 1
    assert receiver.stored == ["1.2.1", "1.2.3"]
    assert len(outcome.err.splitlines()) == 1
    assert f"2.dcm: the peer accepts no context for {SECONDARY_CAPTURE} in transfer syntax {JPEG}" in outcome.err


def test_a_file_that_vanishes_fails_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """The first is on its way then, and the second has been opened."""
    paths = [dicom_file(tmp_path / f"{number}.dcm", instance=f"1.2.{number}") for number in range(4)]

    def vanish(_: CStore) -> int:
        paths[2].unlink(missing_ok=True)
        return 0x0000

    with receiving(vanish) as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, *paths)
    assert receiver.stored == ["1.2.0", "1.2.1", "1.2.3"]
    assert outcome.code == 1
    assert outcome.err == f"rxdicom storescu: {paths[2]}: No such file or directory\n"


# ---- what happens to associations


def aborting(fatal: Sequence[str]) -> Callable[[CStore], int]:
    """A handler that aborts the association, once for each time that an instance is listed."""
    left = list(fatal)

    def handler(event: CStore) -> int:
        uid = event.request.AffectedSOPInstanceUID or ""
        if uid in left:
            left.remove(uid)
            event.assoc.abort()
            return 0xA700
        return 0x0000

    return handler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        dicom_file(tmp_path / "study" / f"{number}.dcm", instance=f"1.2.{number}")
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "PAUSES", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("options", [(), ("--window", 4), ("--associations", 3), ("--associations", 2, "--window", 2)])
def test_a_lost_association_is_made_good_by_a_new_one(
    capsys: pytest.CaptureFixture[str], folder: Path, options: tuple[object, ...]
):
    with receiving(aborting(["1.2.2"])) as receiver:
        outcome = call(capsys, "storescu", *options, *receiver.peer, folder)
    assert outcome.code == 0
    assert set(receiver.stored) == {f"1.2.{number}" for number in range(8)}
    assert outcome.out.startswith("8 of 8 stored, ")
    assert "goes on with a new association: AssociationAborted: " in outcome.err


def test_an_instance_that_loses_two_associations_is_left_out(capsys: pytest.CaptureFixture[str], folder: Path):
    with receiving(aborting(["1.2.3"] * 9)) as receiver:
        outcome = call(capsys, "storescu", "-q", *receiver.peer, folder)
    assert outcome.code == 1
    assert receiver.stored == [f"1.2.{number}" for number in range(8) if number != 3]
    assert len(receiver.proposed) == 3
    assert "3.dcm: tried twice, and each time association over, " in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_after_three_new_associations_in_a_row_the_rest_is_given_up_and_counted(
    capsys: pytest.CaptureFixture[str], folder: Path
):
    with receiving(aborting([f"1.2.{number}" for number in range(2, 8)] * 2)) as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, folder)
    assert outcome.code == 1
    assert receiver.stored == ["1.2.0", "1.2.1"]
    assert len(receiver.proposed) == 4
    assert "given up, 4 files are not sent: 4 times in a row association over, " in outcome.err
    assert outcome.out.startswith("2 of 8 stored, ")
    assert outcome.out.endswith("; 2 failed; 4 not sent\n")


@pytest.mark.parametrize("associations", [1, 3])
def test_a_peer_that_is_not_there_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, associations: int
):
    with receiving() as receiver:
        pass
    outcome = call(capsys, "storescu", "--associations", associations, *receiver.peer, folder)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("rxdicom storescu: cannot connect to 127.0.0.1:")
    assert len(outcome.err.splitlines()) == 1


def test_several_associations_and_a_window_are_asked_for(capsys: pytest.CaptureFixture[str], folder: Path):
    windows: list[tuple[int, int]] = []
    together = threading.Event()
    seen = set[Association]()

    def both(event: CStore) -> int:
        seen.add(event.assoc)
        if len(seen) == 2:
            together.set()
        return 0x0000 if together.wait(DEADLINE) else 0xA700

    def as_asked(event: AsyncOps) -> tuple[int, int]:
        windows.append((event.nr_invoked, event.nr_performed))
        return windows[-1]

    with receiving(both) as receiver:
        receiver.server.bind(evt.EVT_ASYNC_OPS, as_asked)
        outcome = call(capsys, "storescu", "--associations", 2, "--window", 3, *receiver.peer, folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert windows == [(3, 1), (3, 1)]
    assert sorted(receiver.stored) == [f"1.2.{number}" for number in range(8)]
    wrong = call(capsys, "storescu", "--window", 70_000, *receiver.peer, folder)
    assert wrong.code == 2


def test_nothing_is_sent_to_a_peer_that_does_not_confirm_the_identity(capsys: pytest.CaptureFixture[str], folder: Path):
    with receiving() as receiver:
        outcome = call(capsys, "storescu", "--user", "doe", "--pos-response", *receiver.peer, folder)
    assert (outcome.code, outcome.out) == (1, "")
    assert "the peer does not confirm the user identity" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert receiver.stored == []


def test_ctrl_c_releases_the_association_and_ends_in_one_line(folder: Path):
    entered, leave, released = threading.Event(), threading.Event(), threading.Event()

    def stall(_: CStore) -> int:
        entered.set()
        leave.wait(DEADLINE)
        return 0x0000

    with receiving(stall) as receiver:
        receiver.server.bind(evt.EVT_RELEASED, lambda _: released.set())
        process = Process("storescu", *receiver.peer, folder)
        assert entered.wait(DEADLINE)
        process.interrupt()
        leave.set()
        outcome = process.outcome()
        assert released.wait(DEADLINE)
    assert (outcome.code, outcome.err) == (130, "rxdicom storescu: interrupted\n")
    assert 1 <= len(receiver.stored) < 8
    assert f"{len(receiver.stored)} of {len(receiver.stored)} stored" in outcome.out


def test_ctrl_c_again_waits_for_nothing(folder: Path):
    entered, leave = threading.Event(), threading.Event()

    def stall(_: CStore) -> int:
        entered.set()
        leave.wait(DEADLINE)
        return 0x0000

    with receiving(stall) as receiver:
        process = Process("storescu", *receiver.peer, folder, "-v")
        try:
            assert entered.wait(DEADLINE)
            process.interrupt()
            process.wait_until_it_says("once more")
            process.interrupt()
            outcome = process.outcome()
        finally:
            leave.set()
    assert outcome.code == 130
    assert outcome.err.endswith("rxdicom storescu: interrupted\n")
    assert "Traceback" not in outcome.err


# ---- progress


def test_progress_on_a_terminal_and_no_line_of_it_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = itertools.count(step=0.25)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    report = Report(progress=True)
    for number in range(4):
        report.succeed(f"{number}.dcm", 1000, "")
    report.fail("x.dcm", "no")
    said = capsys.readouterr().err
    assert "\r\x1b[K4 stored, 0 failed, 4.0 kB, " in said
    assert said.endswith("\r\x1b[Krxdicom storescu: x.dcm: no\n")
    silent = Report(progress=False)
    for number in range(4):
        silent.succeed(f"{number}.dcm", 1000, "")
    assert capsys.readouterr().err == ""
