"""The demonstration: it runs anywhere in no time, shows what happened, and notices when something is wrong."""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rxdicom import AE, evt
from rxdicom.apps import demo
from rxdicom.apps.chart import ASCII, Step, draw, steps
from rxdicom.apps.traffic import Traffic, fold, traffic
from rxdicom.events.records import CStore
from rxdicom.wire.dimse import Command, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.pdu import PDV, Abort, AssociateRJ, PDataTF, ReleaseRP, ReleaseRQ
from tests.apps.support import call, run
from tests.support import storable_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUMMARY = re.compile(r"^(\d+) of (\d+) datasets arrived identical \(SHA-256\) in (\d+) transfer syntaxes", re.MULTILINE)


def test_it_runs_without_arguments_within_15_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    begun = time.monotonic()
    outcome = run("demo")
    assert time.monotonic() - begun < 15
    assert (outcome.code, outcome.err) == (0, "")
    summary = SUMMARY.search(outcome.out)
    assert summary is not None
    identical, sent, syntaxes = map(int, summary.groups())
    assert identical == sent >= len(storable_files())
    assert syntaxes >= len({head.transfer_syntax_uid for head in storable_files().values()})
    assert os.listdir(tmp_path) == []
    for shown in (
        rf"instances     {sent} stored, 0 refused",
        r"failures      0\n",
        r"A-ASSOCIATE-RQ +(\d+) +0\n +A-ASSOCIATE-AC +0 +\1\n",
        r"P-DATA-TF +[1-9]\d+ +[1-9]\d+\n",
        r"0.0  │─+ A-ASSOCIATE-RQ: \d+ presentation contexts ─+▶│",
        r"│◀─+ C-STORE-RSP \d+: 0x0000 success ─+│  1 P-DATA",
        r"│◀─+ A-RELEASE-RP ─+│",
        r"no_meta.dcm: not a DICOM file",
    ):
        assert re.search(shown, outcome.out), shown
    lines = outcome.out.splitlines()
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []


def test_the_folder_is_kept_if_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = call(capsys, "demo", "--keep")
    assert outcome.code == 0
    (folder,) = tmp_path.iterdir()
    summary = SUMMARY.search(outcome.out)
    assert summary is not None
    assert len(list(folder.iterdir())) == int(summary[1])
    assert call(capsys, "demo", "-q").out == ""


FAULTS = {
    "corrupted": "arrived with another dataset",
    "exchanged": "arrived as another",
    "lost": "did not arrive: No such file",
    "refused": "answered with 0xA700",
    "aborted": "association over",
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_what_goes_wrong_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str, said: str
):
    def keep(event: CStore, folder: str) -> int:
        status = real(event, folder)
        if event.message_id == 40:
            (path,) = Path(folder).glob("040-*")
            whole = path.read_bytes()
            uid = (event.request.AffectedSOPInstanceUID or "").encode()
            match fault:
                case "corrupted":
                    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
                case "exchanged":
                    path.write_bytes(whole.replace(uid, bytes(reversed(uid))))
                case "lost":
                    path.unlink()
                case "refused":
                    return 0xA700
                case _:
                    event.assoc.abort()
        return status

    real: Any = vars(demo)["_keep"]
    monkeypatch.setattr(demo, "_keep", keep)
    outcome = call(capsys, "demo")
    assert outcome.code == 1
    assert said in outcome.out
    assert "files did not arrive as they were sent" in outcome.out
    summary = SUMMARY.search(outcome.out)
    assert summary is not None
    assert int(summary[1]) < int(summary[2])


def test_without_files_nothing_is_claimed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def nowhere(_: str) -> None: ...

    monkeypatch.setattr(demo, "find_spec", nowhere)
    outcome = call(capsys, "demo")
    assert outcome.code == 1
    assert outcome.err == "rxdicom demo: pydicom's own test files are not there; reinstall pydicom\n"


# ---- the chart


def at(milliseconds: int) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


def pdu(kind: Any, record: Any, milliseconds: int) -> Any:
    return kind.record(pdu=record, timestamp=at(milliseconds))


def test_steps_count_the_pdus_of_each_message():
    data = PDataTF((PDV(1, 0, b"x"),))
    identity = {"AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "AffectedSOPInstanceUID": "1.2.3"}
    request = message(
        Command.C_STORE_RQ, 1, Encoded("1.2.840.10008.1.2", bytes(5000)), MessageID=7, Priority=2, **identity
    )
    answer = message(Command.C_STORE_RSP, 1, MessageIDBeingRespondedTo=7, Status=0xA700)
    events = [
        pdu(evt.EVT_PDU_RECV, AssociateRJ(1, 1, 7), 0),
        evt.EVT_DIMSE_SENT.record(message=request, timestamp=at(2)),
        *(pdu(evt.EVT_PDU_SENT, data, 3) for _ in range(3)),
        *(pdu(evt.EVT_PDU_RECV, data, 4) for _ in range(2)),
        evt.EVT_DIMSE_RECV.record(message=answer, timestamp=at(5)),
        pdu(evt.EVT_PDU_SENT, ReleaseRQ(), 6),
        pdu(evt.EVT_PDU_RECV, ReleaseRP(), 7),
        pdu(evt.EVT_PDU_RECV, Abort(2, 1), 8),
    ]
    assert steps(events) == [
        Step(at(0), False, "A-ASSOCIATE-RJ: source 1, reason 7"),
        Step(at(2), True, "C-STORE-RQ 7: 5.0 kB, CT Image", 3),
        Step(at(5), False, "C-STORE-RSP 7: 0xA700 Failure", 2),
        Step(at(6), True, "A-RELEASE-RQ"),
        Step(at(7), False, "A-RELEASE-RP"),
        Step(at(8), False, "A-ABORT: source 2, reason 1"),
    ]


def test_the_chart_of_a_short_association():
    done = [Step(at(0), True, "A", 0), Step(at(12), False, "B\x1b", 3)]
    assert draw(done, "ONE", "TWO", width=51, glyphs=ASCII) == [
        "     ms  ONE                      TWO",
        "    0.0  |----------- A ----------->|",
        "   12.0  |<--------- B\\x1b ---------|  3 P-DATA",
    ]
    assert draw([], "ONE", "TWO") == []


def test_the_middle_of_a_long_association_is_left_out():
    done = [Step(at(number), True, f"number {number}") for number in range(100)]
    lines = draw(done, "ONE", "TWO", shown=6)
    assert len(lines) == 8
    assert [re.sub(r"\D*(\d+) .*", r"\1", line[9:]) for line in lines[1:]] == ["0", "1", "2", "94", "97", "98", "99"]
    assert "94 more" in lines[4]
    assert all(len(line) <= 80 for line in lines)


def test_a_label_that_does_not_fit_is_cut():
    lines = draw([Step(at(0), True, "x" * 200, 99999)], "ONE" * 50, "TWO" * 50, width=60)
    assert len(lines[1]) <= 60


# ---- the pipeline


def test_the_totals_are_a_fold_over_events():
    def answer(status: int) -> Any:
        return message(Command.C_STORE_RSP, 1, MessageIDBeingRespondedTo=1, Status=status)

    def event(kind: Any, milliseconds: int, **values: Any) -> Any:
        return kind.record(timestamp=at(milliseconds), **values)

    events = [
        event(evt.EVT_CONN_OPEN, 0, address=("127.0.0.1", 1)),
        event(evt.EVT_PDU_RECV, 1, pdu=ReleaseRQ()),
        event(evt.EVT_PDU_RECV, 1, pdu=ReleaseRQ()),
        event(evt.EVT_PDU_SENT, 1, pdu=ReleaseRP()),
        event(evt.EVT_ESTABLISHED, 1),
        event(evt.EVT_ESTABLISHED, 1),
        event(evt.EVT_DATA_RECV, 2, data=bytes(70)),
        event(evt.EVT_DATA_SENT, 2, data=bytes(7)),
        event(evt.EVT_DIMSE_SENT, 2, message=answer(0x0000)),
        event(evt.EVT_DIMSE_SENT, 2, message=answer(0xB000)),
        event(evt.EVT_DIMSE_SENT, 2, message=answer(0xC001)),
        event(
            evt.EVT_DIMSE_SENT, 2, message=message(Command.C_ECHO_RSP, 1, MessageIDBeingRespondedTo=1, Status=0xC001)
        ),
        event(evt.EVT_REJECTED, 3, result=1, source=1, reason=7),
        event(evt.EVT_ABORTED, 3, source=0, reason=0, by="peer"),
        event(evt.EVT_RELEASED, 500),
    ]
    seen = Traffic()
    for each in events:
        seen = fold(seen, each)
    assert seen == Traffic(
        begun=at(0),
        at=at(500),
        associations=1,
        established=2,
        released=1,
        aborted=1,
        rejected=1,
        stored=2,
        refused=1,
        bytes_received=70,
        bytes_sent=7,
        pdus_received={"A-RELEASE-RQ": 2},
        pdus_sent={"A-RELEASE-RP": 1},
    )
    assert (seen.open, seen.failures, seen.seconds) == (0, 3, 0.5)
    assert Traffic().seconds == 0.0


def test_the_pipeline_sees_a_server_until_it_is_shut_down():
    ae = AE()
    ae.add_supported_context("1.2.840.10008.1.1")
    ae.add_requested_context("1.2.840.10008.1.1")
    seen: list[Traffic] = []
    completed: list[bool] = []
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        traffic(server).subscribe(seen.append, on_completed=lambda: completed.append(True))
        for _ in range(2):
            with ae.associate(*server.address) as assoc:
                assoc.send_c_echo()
    assert completed == [True]
    last = seen[-1]
    assert (last.associations, last.established, last.released, last.failures) == (2, 2, 2, 0)
    assert last.pdus_received == {"A-ASSOCIATE-RQ": 2, "P-DATA-TF": 2, "A-RELEASE-RQ": 2}
    assert last.pdus_sent == {"A-ASSOCIATE-AC": 2, "P-DATA-TF": 2, "A-RELEASE-RP": 2}
    assert last.bytes_received > 0
