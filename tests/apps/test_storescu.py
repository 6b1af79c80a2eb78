"""The sender: what it finds, what it proposes, what it does when files, contexts or associations fail."""

import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import field, frozen

from rxdicom import AE, Association, AssociationServer, ConnectionFailed, evt
from rxdicom.apps import progress, storescu
from rxdicom.apps.instances import AHEAD, Instance, Lookahead, Unsendable, presentation_contexts, scan
from rxdicom.apps.storescu import Report, send_all
from rxdicom.events.records import CStore, Established
from rxdicom.wire.part10 import FileHead
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


# ---- what is found


def found(*paths: Path) -> dict[str, str]:
    """What is found at paths: by name, "" for an instance, else why not, "!" in front for a failure."""
    return {
        os.path.basename(each.path): "" if isinstance(each, Instance) else f"{'!' * each.is_failure}{each.reason}"
        for each in scan([str(path) for path in paths])
    }


def test_folders_are_searched_in_order_and_to_the_bottom(tmp_path: Path):
    names = ["b/2.dcm", "b/1", "a/z/9.dcm", "a/3.dcm", "0.dcm", "c.d/x"]
    for name in names:
        dicom_file(tmp_path / name)
    order = [os.path.relpath(each.path, tmp_path) for each in scan([str(tmp_path)])]
    assert order == ["0.dcm", "a/3.dcm", "a/z/9.dcm", "b/1", "b/2.dcm", "c.d/x"]


def test_what_is_skipped_and_what_fails(tmp_path: Path):
    image = dicom_file(tmp_path / "image.dcm")
    whole = image.read_bytes()
    dicom_file(tmp_path / ".hidden")
    dicom_file(tmp_path / ".git" / "object")
    (tmp_path / "letter.txt").write_text("Dear colleague, " * 50)
    (tmp_path / "empty").touch()
    (tmp_path / "cut.dcm").write_bytes(whole[:-60])
    dicom_file(tmp_path / "DICOMDIR", sop_class="1.2.840.10008.1.3.10")
    (tmp_path / "bare").write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.dcm").symlink_to(image)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    reasons = found(tmp_path)
    starts = {
        "image.dcm": "",
        "link.dcm": "",
        "bare": "",
        ".hidden": "hidden",
        ".git": "hidden",
        "letter.txt": "not a DICOM file",
        "empty": "an empty file",
        "DICOMDIR": "a DICOMDIR",
        "loop": "a link to a folder",
        "pipe": "not a regular file",
        "cut.dcm": "!cut off within the data set",
        "dangling": "!No such file",
    }
    assert set(reasons) == set(starts)
    for name, start in starts.items():
        assert reasons[name].startswith(start), (name, reasons[name])
        assert bool(reasons[name]) == bool(start)
    # The same that are named are failures, all of them.
    for name in ("letter.txt", "empty", "DICOMDIR", "pipe", "cut.dcm"):
        assert found(tmp_path / name)[name].startswith("!")
    assert found(tmp_path / ".hidden") == {".hidden": ""}


def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    (each,) = scan([str(tmp_path)])
    assert each == Unsendable(str(tmp_path), f"{tmp_path}: Permission denied", is_failure=True)


def test_a_head_beyond_the_first_read_is_found(tmp_path: Path):
    path = dicom_file(tmp_path / "image.dcm")
    whole = path.read_bytes()
    at = whole.index(b"\x08\x00\x16\x00")
    private = b"\x08\0\x01\0UN\0\0" + (100_000).to_bytes(4, "little") + bytes(100_000)
    path.write_bytes(whole[:at] + private + whole[at:])
    (each,) = scan([str(path)])
    assert isinstance(each, Instance)
    assert each.head.sop_class_uid == SECONDARY_CAPTURE
    assert each.size == len(whole) + len(private)


# ---- what is proposed


def instances(kinds: Sequence[tuple[str, str]]) -> Iterator[Instance]:
    for number, (sop_class, syntax) in enumerate(kinds):
        yield Instance(f"{number}.dcm", FileHead(sop_class, f"1.2.{number}", syntax, 300), 1000)


def test_a_context_for_each_kind_and_one_to_convert_to():
    queue = Lookahead(instances([("1.1", JPEG), ("1.2", EXPLICIT_VR_LITTLE_ENDIAN), ("1.1", "1.2.3"), ("1.1", JPEG)]))
    uncompressed = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert queue.contexts(convert=True) == [
        ("1.1", (JPEG,)),
        ("1.1", uncompressed),
        ("1.2", (EXPLICIT_VR_LITTLE_ENDIAN,)),
        ("1.2", uncompressed),
        ("1.1", ("1.2.3",)),
    ]
    assert queue.contexts(convert=False) == [
        ("1.1", (JPEG,)),
        ("1.2", (EXPLICIT_VR_LITTLE_ENDIAN,)),
        ("1.1", ("1.2.3",)),
    ]
    (first, *_) = presentation_contexts(queue.contexts(convert=True))
    assert (first.abstract_syntax, first.transfer_syntax) == ("1.1", [JPEG])


@pytest.mark.parametrize(("convert", "associations"), [(True, [128, 128, 44]), (False, [128, 22])])
def test_no_association_has_more_than_128_contexts_and_every_instance_has_its_turn(
    convert: bool, associations: list[int]
):
    queue = Lookahead(instances([(f"1.2.{number}", JPEG) for number in range(150)]))
    sizes: list[int] = []
    sent: list[str] = []
    while queue.first() is not None:
        contexts = queue.contexts(convert=convert)
        sizes.append(len(contexts))
        sent += [each.path for each in queue.covered_by(contexts)]
    assert sizes == associations
    assert sent == [f"{number}.dcm" for number in range(150)]


def test_a_hundred_thousand_files_are_known_only_some_way_ahead():
    drawn = itertools.count()

    def endless() -> Iterator[Instance]:
        kinds = itertools.repeat(("1.2.840", JPEG), 100_000)
        for each in instances(kinds):  # pyright: ignore
            next(drawn)
            yield each

    queue = Lookahead(endless())
    contexts = queue.contexts(convert=True)
    assert next(drawn) == AHEAD
    sending = queue.covered_by(contexts)
    for _ in itertools.islice(sending, AHEAD + 10):
        pass
    assert next(drawn) == AHEAD + 11
    assert queue.count() == 100_000 - AHEAD - 9


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


def test_a_kind_that_comes_late_gets_an_association_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(9):
        kind = f"{ARC}2" if number < 6 else f"{ARC}4"
        dicom_file(tmp_path / f"{number}.dcm", sop_class=kind, instance=f"1.2.{number}")

    def near_sighted(instances: Iterator[Instance]) -> Lookahead:
        return Lookahead(instances, ahead=3)

    monkeypatch.setattr(storescu, "Lookahead", near_sighted)
    with receiving() as receiver:
        assert call(capsys, "storescu", *receiver.peer, tmp_path).code == 0
    assert receiver.stored == [f"1.2.{number}" for number in range(9)]
    assert receiver.proposed == [2, 2]


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
    paths = [dicom_file(tmp_path / f"{number}.dcm", instance=f"1.2.{number}") for number in range(3)]

    def vanish(_: CStore) -> int:
        paths[1].unlink(missing_ok=True)
        return 0x0000

    with receiving(vanish) as receiver:
        outcome = call(capsys, "storescu", *receiver.peer, *paths)
    assert receiver.stored == ["1.2.0", "1.2.2"]
    assert outcome.code == 1
    assert outcome.err == f"rxdicom storescu: {paths[1]}: {paths[1]}: No such file or directory\n"


# ---- what happens to associations


def send(
    receiver: Receiver,
    folder: Path,
    report: Report,
    stopped: threading.Event | None = None,
    pauses: Sequence[float] = (0, 0, 0),
) -> int:
    ae = AE()

    def connect(contexts: Sequence[tuple[str, tuple[str, ...]]]) -> Association:
        return ae.associate(*receiver.peer, presentation_contexts(contexts))

    queue = Lookahead(report.sendable(scan([str(folder)])))
    return send_all(queue, connect, report, stopped or threading.Event(), convert=True, pauses=pauses)


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


def test_a_lost_association_is_made_good_by_a_new_one(capsys: pytest.CaptureFixture[str], folder: Path):
    report = Report(progress=False)
    with receiving(aborting(["1.2.2", "1.2.5"])) as receiver:
        assert send(receiver, folder, report) == 0
    assert receiver.stored == [f"1.2.{number}" for number in range(8)]
    assert (report.stored, report.failed, report.associations) == (8, 0, 3)
    assert capsys.readouterr().out == ""


def test_an_instance_that_loses_two_associations_is_left_out(capsys: pytest.CaptureFixture[str], folder: Path):
    report = Report(progress=False)
    with receiving(aborting(["1.2.3"] * 9)) as receiver:
        assert send(receiver, folder, report) == 0
    assert receiver.stored == [f"1.2.{number}" for number in range(8) if number != 3]
    assert (report.stored, report.failed, report.associations) == (7, 1, 3)
    assert "3.dcm: tried twice, and each time association over, " in capsys.readouterr().err


def test_any_number_of_fatal_instances_is_left_out_as_long_as_others_are_stored(folder: Path):
    report = Report(progress=False)
    fatal = ("1.2.1", "1.2.3", "1.2.5", "1.2.7")
    with receiving(aborting([*fatal, *fatal])) as receiver:
        assert send(receiver, folder, report) == 0
    assert receiver.stored == ["1.2.0", "1.2.2", "1.2.4", "1.2.6"]
    assert (report.stored, report.failed, report.associations) == (4, 4, 8)


def test_after_three_new_associations_in_a_row_the_rest_is_given_up_and_counted(
    capsys: pytest.CaptureFixture[str], folder: Path
):
    report = Report(progress=False)
    with receiving(aborting([f"1.2.{number}" for number in range(2, 8)] * 2)) as receiver:
        assert send(receiver, folder, report) == 4
    assert receiver.stored == ["1.2.0", "1.2.1"]
    assert (report.stored, report.failed, report.associations) == (2, 2, 4)
    said = capsys.readouterr().err
    assert "given up, 4 files are not sent: 4 times in a row association over, " in said
    assert report.summary(4).endswith("; 2 failed; 4 not sent")


def test_a_peer_that_goes_away_for_good_is_given_up(folder: Path):
    report = Report(progress=False)
    with receiving() as receiver:

        def leave(_: CStore) -> int:
            if len(receiver.stored) == 4:
                receiver.server.shutdown()
            return 0x0000

        receiver.server.bind(evt.EVT_C_STORE, lambda event: receiver.stored.append("") or leave(event))
        unsent = send(receiver, folder, report)
    assert report.associations == 1
    assert report.stored + report.failed + unsent == 8
    assert unsent >= 4


def test_a_first_association_that_fails_is_raised_at_once(folder: Path):
    report = Report(progress=False)
    with receiving() as receiver:
        pass
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        send(receiver, folder, report)
    assert not report.touched


class Stopping(threading.Event):
    """Is set when somebody waits for it, as if Ctrl-C had come right then."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        self.set()
        return super().wait(timeout)


def test_a_pause_ends_when_it_is_to_stop(folder: Path):
    report, stopped = Report(progress=False), Stopping()
    with receiving(aborting(["1.2.2"])) as receiver:
        assert send(receiver, folder, report, stopped, pauses=(600.0,)) == 0
    assert stopped.waits == [600.0]
    assert receiver.stored == ["1.2.0", "1.2.1"]
    assert report.associations == 1


def test_what_is_on_its_way_arrives_before_it_stops(folder: Path):
    report, stopped = Report(progress=False), threading.Event()
    released = threading.Event()

    def stop(_: CStore) -> int:
        stopped.set()
        return 0x0000

    with receiving(stop) as receiver:
        receiver.server.bind(evt.EVT_RELEASED, lambda _: released.set())
        assert send(receiver, folder, report, stopped) == 0
        assert released.wait(DEADLINE)
    assert receiver.stored == ["1.2.0"]
    assert (report.stored, report.failed, report.associations) == (1, 0, 1)


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
    for each in instances([("1.2", JPEG)] * 4):
        report.succeed(each, "")
    report.fail("x.dcm", "no")
    said = capsys.readouterr().err
    assert "\r\x1b[K4 stored, 0 failed, 4.0 kB, " in said
    assert said.endswith("\r\x1b[Krxdicom storescu: x.dcm: no\n")
    silent = Report(progress=False)
    for each in instances([("1.2", JPEG)] * 4):
        silent.succeed(each, "")
    assert capsys.readouterr().err == ""
