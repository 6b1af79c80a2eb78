"""rxdicom watch and rxdicom trace: what they show of recordings, captures and servers, and what they leave out."""

import json
import signal
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from rxdicom import AE, evt
from rxdicom.apps.chart import Course, Step
from rxdicom.apps.watch import describe
from rxdicom.events import records
from rxdicom.recording import ALL_KINDS, record, replay
from rxdicom.sop_class import CTImageStorage, Verification
from rxdicom.testing import Network, association
from tests.apps.support import Process, Server, call
from tests.recording.support import HANDLERS, Talk, configured, ct_file, names, replayed, write_capture
from tests.recording.test_captures import session
from tests.support import DEADLINE


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """An association that was released, and one whose connection was lost."""
    network = Network()
    scu = network.entity(configured(AE("SCU")))
    server = network.entity(configured(AE("SCP"))).start_server(("h", 104), block=False, evt_handlers=HANDLERS)
    with record(server, tmp_path / "r", ALL_KINDS):
        with scu.associate("h", 104, ae_title="SCP") as assoc:
            assoc.send_c_echo()
            network.clock.advance(1.5)
            assoc.send_c_store(ct_file())
        network.cut(scu.associate("h", 104, ae_title="SCP;#1"), reset=True)
    return tmp_path / "r"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "c.pcap", session()[0].frames())


# ---- watch


def streams(out: str) -> list[str]:
    return [line.split()[2] for line in out.splitlines()]


USUAL = ["conn_open", "acse_recv", "acse_sent"]


def test_watch_shows_what_is_usual(capsys: pytest.CaptureFixture[str], recorded: Path):
    outcome = call(capsys, "watch", recorded)
    assert (outcome.code, outcome.err) == (0, "")
    assert streams(outcome.out) == [
        *USUAL, *["dimse_recv", "dimse_sent"] * 2, "acse_recv", "acse_sent", "conn_close",
        *USUAL, "aborted", "conn_close",
    ]  # fmt: skip
    assert "  SCP-1  dimse_recv      C-STORE-RQ 2: 38.8 kB, CT Image\n" in outcome.out
    assert "  SCP-2  aborted         the connection was lost: Connection reset by peer\n" in outcome.out
    assert "\x1b" not in outcome.out
    assert "CompressedSamples" not in outcome.out


def test_watch_shows_the_streams_that_are_asked_for(capsys: pytest.CaptureFixture[str], recorded: Path):
    outcome = call(capsys, "watch", recorded, "--only", "dimse_recv,released,fsm_transition")
    assert set(streams(outcome.out)) == {"dimse_recv", "released", "fsm_transition"}
    assert "Sta1 Evt5: AE-5 Sta2" in outcome.out
    every = call(capsys, "watch", recorded, "--only", "all")
    assert [f"EVT_{each.upper()}" for each in streams(every.out)] == [each[0] for each in replayed(replay(recorded))]


def test_watch_shows_a_capture_from_either_side(capsys: pytest.CaptureFixture[str], capture: Path):
    acceptor = call(capsys, "watch", capture)
    requestor = call(capsys, "watch", capture, "--side", "requestor")
    swapped = {"recv": "sent", "sent": "recv"}
    assert len(streams(acceptor.out)) == 10
    expected = [each[:-4] + swapped.get(each[-4:], each[-4:]) for each in streams(acceptor.out)]
    assert streams(requestor.out) == expected
    every = call(capsys, "watch", capture, "--only", "all")
    assert len(streams(every.out)) == len(replayed(replay(capture)))


def test_watch_writes_json_without_patient_data(capsys: pytest.CaptureFixture[str], recorded: Path):
    outcome = call(capsys, "watch", recorded, "--json", "--only", "dimse_recv")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [each["message"]["name"] for each in lines] == ["C-ECHO-RQ", "C-STORE-RQ"]
    assert [each["calling_ae_title"] for each in lines] == ["SCU", "SCU"]
    assert "CompressedSamples" not in outcome.out


def test_watch_takes_its_time_if_asked_to(capsys: pytest.CaptureFixture[str], recorded: Path):
    assert call(capsys, "watch", recorded, "--speed", "30").out == call(capsys, "watch", recorded).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "dimse_recv,dimse"], "dimse: no stream; there are conn_open"),
        (["--speed", "0"], "a speed of 0.0 does not come to an end"),
    ],
)
def test_what_watch_cannot_do_is_said(
    capsys: pytest.CaptureFixture[str], recorded: Path, arguments: list[str], said: str
):
    outcome = call(capsys, "watch", recorded, *arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_a_stream_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path):
    outcome = call(capsys, "watch", capture, "--only", "fsm_transition")
    assert (outcome.code, outcome.err) == (2, f"rxdicom watch: {capture} has no fsm_transition\n")
    (tmp_path / "junk").write_bytes(b"junk")
    outcome = call(capsys, "watch", tmp_path / "junk")
    assert (outcome.code, outcome.out) == (1, "")
    assert "neither a recording nor a packet capture" in outcome.err


def test_without_rich_it_is_said_what_to_install(
    capsys: pytest.CaptureFixture[str], recorded: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    outcome = call(capsys, "watch", recorded)
    assert outcome.code == 2
    assert "pip install rxdicom[terminal]" in outcome.err
    assert call(capsys, "watch", recorded, "--json").code == 0


def test_a_reader_that_leaves_ends_it(recorded: Path, monkeypatch: pytest.MonkeyPatch):
    from rxdicom.apps import watch

    written: list[Any] = []

    def gone(event: Any) -> None:
        written.append(event)
        raise BrokenPipeError

    monkeypatch.setattr(watch, "_json_writer", lambda: gone)
    from rxdicom.__main__ import main

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert main(["watch", str(recorded), "--json"]) == 1
    assert len(written) == 1


def test_watch_follows_a_recording(tmp_path: Path):
    with configured(AE("SCP")).start_server(("127.0.0.1", 0), block=False, evt_handlers=HANDLERS) as server:
        with record(server, tmp_path / "r"):
            watching = Process("watch", tmp_path / "r", "--follow", "--only", "dimse_recv,released")
            scu = AE("SCU")
            scu.add_requested_context(Verification)
            with scu.associate(*server.address) as assoc:
                assoc.send_c_echo()
            server.shutdown(drain=DEADLINE)
        outcome = watching.outcome()
    assert (outcome.code, streams(outcome.out)) == (0, ["dimse_recv", "released"])


@pytest.mark.parametrize(("options", "status"), [([], 0xA700), (["--ignore"], 0), (["-od", "stored"], 0)])
def test_watch_starts_a_server_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int
):
    monkeypatch.chdir(tmp_path)
    scu = AE("SCU")
    for uid in (Verification, CTImageStorage):
        scu.add_requested_context(uid)
    watching = Server("watch", "--record", tmp_path / "r", *options)
    try:
        with scu.associate("127.0.0.1", watching.port) as assoc:
            assert assoc.send_c_echo() == 0x0000
            assert assoc.send_c_store(ct_file()) == status
        assert watching.stop(signal.SIGTERM) == 0
    finally:
        watching.close()
    assert names(replayed(replay(tmp_path / "r"))).count("DIMSE_SENT") == 2
    assert len(list(tmp_path.glob("stored/*.dcm"))) == ("-od" in options)


def test_events_are_described_in_a_few_words():
    assert [
        describe(event)
        for event in (
            records.ConnectionOpened(address=("192.0.2.1", 104)),
            records.DataSent(data=bytes(1200)),
            records.Rejected(result=2, source=3, reason=1),
            records.Released(),
        )
    ] == ["192.0.2.1:104", "1.2 kB", "rejected transiently: temporary congestion", ""]


# ---- trace


def test_trace_lists_what_there_is(capsys: pytest.CaptureFixture[str], recorded: Path):
    outcome = call(capsys, "trace", recorded)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "   1  2000-01-01 12:00:00.000+00:00  SCU → SCP  4 messages, released",
        "   2  2000-01-01 12:00:01.500+00:00  SCU → SCP;#1  0 messages, aborted",
    ]


def test_trace_draws_one_as_text(capsys: pytest.CaptureFixture[str], recorded: Path):
    outcome = call(capsys, "trace", recorded, 1)
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["ms", "SCU", "SCP"]
    assert [line.split()[0] for line in lines[1:]] == ["0.0"] * 4 + ["1500.0"] * 4
    assert "A-ASSOCIATE-RQ: 3 presentation contexts ───────▶│" in lines[1]
    assert "│◀─" in lines[2]
    assert lines[5].endswith("▶│  2 P-DATA")
    assert all(len(line) <= 80 for line in lines)
    lost = call(capsys, "trace", recorded, 2).out.splitlines()
    assert lost[-1] == "the connection was lost: Connection reset by peer"


def test_trace_of_a_capture_is_that_of_a_recording(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path):
    talk = session()[0]
    drawn = call(capsys, "trace", capture).out
    assert drawn.count("P-DATA") == 4
    other = write_capture(tmp_path / "d.pcapng", talk.frames(), pcapng=True)
    assert call(capsys, "trace", other).out == drawn


def test_trace_without_pdus_counts_none(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    network = Network()
    scu = network.entity(configured(AE("SCU")))
    scp = network.entity(configured(AE("SCP"))).start_server(("h", 104), block=False, evt_handlers=HANDLERS)
    del scp
    assoc = scu.association("h", 104)
    with record(assoc, tmp_path / "r"), assoc:
        assoc.send_c_echo()
    lines = call(capsys, "trace", tmp_path / "r").out.splitlines()
    assert len(lines) == 1 + 6
    assert "P-DATA" not in "".join(lines)
    assert "▶│" in lines[1]
    assert "▶│" in lines[3]


def test_trace_writes_mermaid(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path):
    outcome = call(capsys, "trace", recorded, 2, "-f", "mermaid")
    assert outcome.out.splitlines() == [
        "sequenceDiagram",
        "    participant R as SCU",
        "    participant A as SCP#59;#35;1",
        "    R->>A: A-ASSOCIATE-RQ: 3 presentation contexts (0.0 ms)",
        "    A-->>R: A-ASSOCIATE-AC: 3 of 3 accepted (0.0 ms)",
        "    Note over R,A: the connection was lost: Connection reset by peer",
    ]
    assert call(capsys, "trace", recorded, 1, "-o", tmp_path / "t.mmd", "--most", 4).out == ""
    lines = (tmp_path / "t.mmd").read_text().splitlines()
    assert len(lines) == 3 + 5
    assert lines[5] == "    Note over R,A: 4 more"


def test_trace_writes_svg(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path):
    assert call(capsys, "trace", recorded, 1, "-o", tmp_path / "t.svg").code == 0
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert texts[:2] == ["SCU", "SCP"]
    assert "C-STORE-RQ 2: 38.8 kB, CT Image" in texts
    arrows = [each for each in root.iter(f"{space}line") if each.get("class") != "r"]
    assert len(arrows) == 8
    assert [float(each.get("x1") or 0) < float(each.get("x2") or 0) for each in arrows] == [True, False] * 4
    call(capsys, "trace", recorded, 2, "-o", tmp_path / "u.svg", "--most", 1)
    texts = [each.text for each in ElementTree.parse(tmp_path / "u.svg").getroot().iter(f"{space}text")]
    assert texts[-2:] == ["1 more", "the connection was lost: Connection reset by peer"]


def test_titles_cannot_break_out_of_a_drawing(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    network = Network()
    network.entity(configured(AE("SCP"))).start_server(("h", 104), block=False)
    scu = network.entity(configured(AE("<b>&x")))
    assoc = scu.association("h", 104)
    with record(assoc, tmp_path / "r"), assoc:
        pass
    call(capsys, "trace", tmp_path / "r", "-o", tmp_path / "t.svg")
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    assert next(each.text for each in root.iter("{http://www.w3.org/2000/svg}text")) == "<b>&x"


def test_what_trace_cannot_do_is_said(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path):
    outcome = call(capsys, "trace", recorded, 3)
    assert (outcome.code, outcome.err) == (2, f"rxdicom trace: {recorded}: there is no association 3, but 2\n")
    (tmp_path / "empty").write_bytes(recorded.read_bytes().splitlines(keepends=True)[0])
    assert "there is no association in it" in call(capsys, "trace", tmp_path / "empty").err


def test_a_damaged_capture_is_drawn_as_far_as_it_goes(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    talk = session()[0]
    broken = Talk([*talk.turns[:4], (True, b"\x99\x00junk")])
    capture = write_capture(tmp_path / "c.pcap", broken.frames())
    outcome = call(capsys, "trace", capture)
    assert outcome.code == 0
    assert "the diagram is not complete: unrecognised PDU type 99H" in outcome.err
    assert len(outcome.out.splitlines()) == 1 + 4


def test_steps_are_as_the_requestor_sees_them():
    course = Course()
    course.add(evt.EVT_ACSE_SENT.record(primitive=_release(), assoc=association()))
    assert [(each.is_sent, each.label) for each in course.steps] == [(False, "A-RELEASE-RQ")]
    assert isinstance(course.steps[0], Step)


def _release() -> Any:
    from rxdicom.wire.pdu import ReleaseRQ

    return ReleaseRQ()
