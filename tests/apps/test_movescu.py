"""C-MOVE from the command line: to another, to ourselves, how it is cancelled, and how it fails."""

import json
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rxdicom import AE, AssociationServer, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CMove, CStore
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import DEADLINE, Outcome, Process, call, dicom_file, provider, run
from tests.certificates import Certificates
from tests.interop import archives
from tests.interop.memory import as_values
from tests.ports import free_port
from tests.support import read, storable_files

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.2"

Move = Callable[[CMove], Iterator[Any]]


def archive(*files: Path, destinations: dict[str, tuple[str, int]]) -> Move:
    """A C-MOVE handler that has these files, and knows these destinations."""

    def move(event: CMove) -> Iterator[Any]:
        yield destinations.get(event.move_destination, (None, None))
        yield len(files)
        for path in files:
            yield 0xFF00, str(path)

    return move


@contextmanager
def destination() -> Generator[tuple[AssociationServer, list[CStore]]]:
    """A storage SCP in this process, and what was stored there."""
    stored: list[CStore] = []

    def store(event: CStore) -> int:
        stored.append(event)
        return 0x0000

    ae = AE("WORKSTATION")
    ae.accept_any_storage = True
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]) as server:
        yield server, stored


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [dicom_file(tmp_path / "in" / f"{number}.dcm", instance=f"1.2.{number}") for number in range(3)]


def move(capsys: pytest.CaptureFixture[str], handler: Move, *options: object) -> Outcome:
    """Have a peer move that answers so."""
    with provider([(evt.EVT_C_MOVE, handler)], STUDY_ROOT) as peer:
        return call(capsys, "movescu", *peer, "-k", "StudyInstanceUID=1.2", *options)


# ---- to others


def test_to_another(capsys: pytest.CaptureFixture[str], files: list[Path]):
    with destination() as (server, stored):
        handler = archive(*files, destinations={"WORKSTATION": server.address})
        outcome = move(capsys, handler, "-aem", "WORKSTATION")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("3 sent to WORKSTATION in ")
    assert len(outcome.out.splitlines()) == 1
    assert [event.request.AffectedSOPInstanceUID for event in stored] == ["1.2.0", "1.2.1", "1.2.2"]
    assert {event.request.MoveOriginatorApplicationEntityTitle for event in stored} == {"MOVESCU"}


def test_json_is_one_line(capsys: pytest.CaptureFixture[str], files: list[Path]):
    with destination() as (server, _):
        handler = archive(*files, destinations={"WORKSTATION": server.address})
        outcome = move(capsys, handler, "--move-destination", "WORKSTATION", "--json")
    assert json.loads(outcome.out) == {
        "status": 0,
        "meaning": "success",
        "completed": 3,
        "failed": 0,
        "warning": 0,
        "failed_instances": [],
    }
    assert len(outcome.out.splitlines()) == 1


def test_the_destination_is_us_unless_it_is_named(capsys: pytest.CaptureFixture[str]):
    asked: list[str] = []

    def unknown(event: CMove) -> Iterator[Any]:
        asked.append(event.move_destination)
        yield None, None

    outcome = move(capsys, unknown, "-aet", "ME")
    assert asked == ["ME"]
    assert outcome.code == 1
    assert outcome.err.startswith("rxdicom movescu: the peer ends with 0xA801 ")
    assert len(outcome.err.splitlines()) == 1


# ---- to ourselves


def test_to_ourselves(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    port = free_port()
    handler = archive(*files, destinations={"ME": ("127.0.0.1", port)})
    options = ("-aet", "ME", "--store", "--store-port", port, "-od", tmp_path / "out")
    outcome = move(capsys, handler, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("3 sent to ME in ")
    assert f"; 3 stored in {tmp_path / 'out'}, " in outcome.out
    stored = sorted((tmp_path / "out").iterdir())
    assert [read(path) for path in stored] == [read(path) for path in files]
    # The port is free again.
    seen = json.loads(move(capsys, handler, *options, "--json").out)
    assert (seen["completed"], seen["stored"], seen["folder"]) == (3, 3, str(tmp_path / "out"))


def test_to_ourselves_over_tls(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path], certificates: Certificates
):
    port = free_port()
    own = ("--tls", "--cert", certificates.certificate, "--key", certificates.key, "--ca", certificates.certificate)
    server, client = certificates.contexts()
    options = {"tls_args": (client, "localhost")}

    def handler(event: CMove) -> Iterator[Any]:
        yield "127.0.0.1", port, options
        yield len(files)
        for path in files:
            yield 0xFF00, str(path)

    ae = AE("ARCHIVE")
    ae.add_supported_context(STUDY_ROOT)
    handlers: list[EventHandler] = [(evt.EVT_C_MOVE, handler)]
    with ae.start_server(("127.0.0.1", 0), block=False, ssl_context=server, evt_handlers=handlers) as running:
        where = ("--store", "--store-port", port, "-od", tmp_path / "out", "-k", "StudyInstanceUID=1.2")
        outcome = call(capsys, "movescu", *running.address, *own, *where)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_what_fails_is_named_and_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]):
    port = free_port()
    (tmp_path / "out" / "1.2.1.dcm").mkdir(parents=True)
    handler = archive(*files, destinations={"MOVESCU": ("127.0.0.1", port)})
    outcome = move(capsys, handler, "--store", "--store-port", port, "-od", tmp_path / "out")
    assert outcome.code == 1
    assert outcome.out.startswith("2 sent to MOVESCU ")
    assert outcome.out.endswith("; 1 failed\n")
    assert "rxdicom movescu: not retrieved: 1.2.1\n" in outcome.err
    assert "rxdicom movescu: the peer ends with 0xB000 " in outcome.err


def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with destination() as (server, _):
        taken = ("--store", "--store-port", server.address[1], "-od", tmp_path)
        table = (
            (("-k", "PatientID=1", *taken), 1, "Address already in use"),
            (("-k", "PatientID=1", "--store", "--tls", "-od", tmp_path), 2, "--tls needs --cert"),
            (("-k", "PatientID=1", "--store", "--store-port", "dicom"), 2, "'dicom' is not a TCP port"),
            (("-k", "PatientName=X"), 2, "there is nothing to retrieve"),
            (("-k", "PatientID=1", "-aem", "A\\B"), 2, "is not an AE title"),
        )
        for options, code, said in table:
            outcome = call(capsys, "movescu", "127.0.0.1", server.address[1], *options)
            assert (outcome.code, outcome.out) == (code, ""), options
            assert said in outcome.err
            assert len(outcome.err.splitlines()) == 1, outcome.err


# ---- how it ends


def test_ctrl_c_cancels_and_releases(tmp_path: Path, files: list[Path]):
    port = free_port()
    begun, released = threading.Event(), threading.Event()

    def endless(event: CMove) -> Iterator[Any]:
        yield "127.0.0.1", port
        yield 60_000
        while not event.is_cancelled:
            yield 0xFF00, str(files[0])
            begun.set()
        yield 0xFE00, None

    handlers: list[EventHandler] = [
        (evt.EVT_C_MOVE, endless),
        (evt.EVT_RELEASED, lambda _: released.set()),  # pyright: ignore[reportUnknownLambdaType]
    ]
    with provider(handlers, STUDY_ROOT) as peer:
        own = ("--store", "--store-port", port, "-od", tmp_path / "out", "--relaxed")
        process = Process("movescu", *peer, "-k", "StudyInstanceUID=1.2", *own)
        assert begun.wait(DEADLINE)
        process.interrupt()
        outcome = process.outcome()
        assert released.wait(DEADLINE)
    assert (outcome.code, outcome.err) == (130, "rxdicom movescu: interrupted\n")
    assert " sent to MOVESCU in " in outcome.out
    assert os.listdir(tmp_path / "out") == ["1.2.0.dcm"]


def test_n_responses_and_then_c_cancel(capsys: pytest.CaptureFixture[str], files: list[Path]):
    with destination() as (server, _):

        def endless(event: CMove) -> Iterator[Any]:
            yield server.address
            yield 60_000
            while not event.is_cancelled:
                yield 0xFF00, str(files[0])
            yield 0xFE00, None

        outcome = move(capsys, endless, "--cancel", 2)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(" not sent\n")


# ---- DCMTK


@pytest.mark.peer
def test_dcmqrscp(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    wanted = ("CT_small.dcm", "MR_small.dcm")
    files = {path: head for path, head in storable_files().items() if path.name in wanted}
    classes, port = {head.sop_class_uid for head in files.values()}, free_port()
    with archives.dcmqrscp(tmp_path, classes, [EXPLICIT_VR_LITTLE_ENDIAN], {"ME": port}) as at:
        peer = ("127.0.0.1", at, "-aec", "ARCHIVE", "-aet", "ME")
        assert call(capsys, "storescu", *peer, *files).code == 0
        own = ("--store", "--store-port", port, "-od", tmp_path / "out")
        one = run("movescu", *peer, "-k", "PatientID=1CT1", *own)
        unknown = call(capsys, "movescu", *peer, "-k", "PatientID=1CT1", "-aem", "STRANGER")
    ct = next(path for path in files if path.name == "CT_small.dcm")
    assert (one.code, one.err) == (0, "")
    assert one.out.startswith("1 sent to ME in ")
    assert [as_values(read(path)) for path in (tmp_path / "out").iterdir()] == [as_values(read(ct))]
    assert unknown.code == 1
    assert "0xA801" in unknown.err
