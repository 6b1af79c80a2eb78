"""DCMTK talks to DCMTK, tshark listens: the event streams of both directions, without rxdicom in between."""

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import pytest

from rxdicom import AE
from rxdicom.events.records import DIMSEReceived
from rxdicom.recording import ALL_KINDS, RecordedAssociation, record, replay
from rxdicom.wire.dimse import Command
from tests.certificates import Certificates
from tests.ports import free_port
from tests.recording.support import CT, configured, contents_of, ct_file, large_file, names, replayed, serving, tshark
from tests.recording.test_captures import messages_apart, told
from tests.support import DEADLINE, dataset_bytes, dcmtk, run, running

pytestmark = pytest.mark.peer


class Listener:
    """tshark on the loopback, which is known to listen, and to have heard everything."""

    def __init__(self, path: Path, ports: list[int], *options: str) -> None:
        self._path = path
        # Its connections, from a port of its own to nobody, show how far the capture has come.
        self._probe = free_port()
        wanted = " or ".join(f"tcp port {each}" for each in (*ports, self._probe))
        # Before the first interface a filter is that of all.
        command = [tshark(), "-q", "-f", wanted, "-i", "lo", "-w", str(path), "-a", f"duration:{2 * DEADLINE:.0f}"]
        # In MiB: nothing is to be lost when it has to wait for a processor.
        command += ["-B", "64"]
        self._process = subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._said: list[str] = []
        # How the TCP headers of all probes began: a port may come again, and would be taken for what is captured now.
        self._marked: set[bytes] = set()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        self.catch_up()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self._said.extend(self._process.stderr)

    def catch_up(self) -> None:
        """Wait until what happened before this is in the file: what happens now is behind it."""
        deadline = monotonic() + DEADLINE
        # How the TCP headers of its connections begin: a file that grows may do so with what happened before.
        marks: list[bytes] = []
        while not any(mark in self._captured() for mark in marks):
            if self._process.poll() is not None or monotonic() > deadline:
                self._give_up()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                mark = struct.pack("!HH", probe.getsockname()[1], self._probe)
                if mark not in self._marked:
                    self._marked.add(mark)
                    marks.append(mark)
                probe.settimeout(0.05)
                # It is refused; or, where nothing is, a pause.
                probe.connect_ex(("127.0.0.1", self._probe))
            self._pause()

    def _give_up(self) -> None:
        self.stop()
        message = f"tshark does not listen: {''.join(self._said)}"
        if "permission" in message and not os.environ.get("CI"):
            pytest.skip(message)
        pytest.fail(message)

    def _captured(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    @staticmethod
    def _pause() -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            nobody.settimeout(0.02)
            try:
                nobody.accept()
            except TimeoutError:
                return

    def stop(self) -> None:
        """Have it write what it has, and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def listening(path: Path, *ports: int, options: tuple[str, ...] = ()) -> Generator[None]:
    """What happens meanwhile on these ports is captured."""
    listener = Listener(path, list(ports), *options)
    try:
        yield
        listener.catch_up()
    finally:
        listener.stop()


# The last one captures on two links of different types, and hears everything twice at least.
@pytest.mark.parametrize("options", [(), ("-F", "pcap"), ("-i", "any")])
def test_dcmtk_to_dcmtk(tmp_path: Path, options: tuple[str, ...]):
    capture, port, files = tmp_path / "capture", free_port(), [ct_file(), large_file()]
    folder = tmp_path / "stored"
    folder.mkdir()
    # It writes datasets bit by bit as it receives them.
    with running(dcmtk("storescp"), "--bit-preserving", "-od", folder, port, port=port):
        with listening(capture, port, options=options):
            run(dcmtk("echoscu"), "127.0.0.1", port)
            run(dcmtk("storescu"), "-aet", "MODALITY", "-aec", "ARCHIVE", "127.0.0.1", port, *files)
    source = replay(capture)
    found: list[RecordedAssociation] = []
    source.associations.subscribe(found.append)
    received: list[Any] = []
    sent: list[Any] = []

    def note(event: DIMSEReceived) -> None:
        # The bytes now: a large dataset is gone once its event was delivered.
        data = event.message.data
        received.append((event.message, None if data is None else data.read()))

    source.events.dimse_recv.subscribe(note)
    source.events.dimse_sent.subscribe(lambda event: sent.append(event.message))
    seen = contents_of(source.events)
    source.run()
    titles = [(each.requestor.ae_title, each.acceptor.ae_title, each.damage) for each in found]
    assert titles == [("ECHOSCU", "ANY-SCP", ""), ("MODALITY", "ARCHIVE", "")]
    assert [message.kind for message, _ in received] == [Command.C_ECHO_RQ, Command.C_STORE_RQ, Command.C_STORE_RQ]
    assert [message.kind for message in sent] == [Command.C_ECHO_RSP, Command.C_STORE_RSP, Command.C_STORE_RSP]
    assert [message.Status for message in sent] == [0, 0, 0]
    assert received[1][0].AffectedSOPClassUID == CT
    stored = {path.name.partition(".")[2]: dataset_bytes(path) for path in folder.iterdir()}
    assert {message.AffectedSOPInstanceUID: bytes(data) for message, data in received[1:]} == stored
    assert len(stored) == 2
    happened = names(seen)
    for name in ("CONN_OPEN", "REQUESTED", "ACCEPTED", "ESTABLISHED", "RELEASED", "CONN_CLOSE"):
        assert happened.count(name) == 2, name
    # storescp's answers were sent, the other way round for its peer.
    other = replayed(replay(capture, side="requestor"))
    assert [each[0] for each in other if "DIMSE" in each[0]] == ["EVT_DIMSE_SENT", "EVT_DIMSE_RECV"] * 3


def test_an_abort_of_dcmtk(tmp_path: Path):
    capture, port = tmp_path / "capture", free_port()
    with running(dcmtk("storescp"), "--ignore", port, port=port):
        with listening(capture, port):
            run(dcmtk("storescu"), "--abort", "127.0.0.1", port, ct_file())
    seen = replayed(replay(capture))
    assert [each[3:] for each in seen if each[0] == "EVT_ABORTED"] == [(0, 0, "peer", "")]


def test_tls_is_said_to_be_unreadable(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    server_context, client_context = Certificates(tmp_path).contexts()
    capture, ae = tmp_path / "capture", configured(AE("SECRET"))
    with ae.start_server(("127.0.0.1", 0), block=False, ssl_context=server_context) as server:
        with listening(capture, server.address[1]):
            with ae.associate(*server.address, tls_args=(client_context, "localhost")) as assoc:
                assoc.send_c_echo()
    caplog.clear()
    assert replayed(replay(capture)) == []
    assert [each.getMessage() for each in caplog.records] == [
        f"{capture}: 1 connection is encrypted by TLS and cannot be read (to 127.0.0.1:{server.address[1]}); "
        "if DICOM is inside, record it at one of its ends instead"
    ]


def test_a_capture_and_a_recording_of_the_same_session_agree(tmp_path: Path):
    with serving() as server:
        port = server.address[1]
        with record(server, tmp_path / "r", ALL_KINDS), listening(tmp_path / "capture", port):
            run(dcmtk("storescu"), "127.0.0.1", port, ct_file())
            scu = configured(AE("SCU"))
            with scu.associate("127.0.0.1", port) as assoc:
                assoc.send_c_echo()
            server.shutdown(drain=DEADLINE)
    recorded, captured = replayed(replay(tmp_path / "r")), replayed(replay(tmp_path / "capture"))
    assert messages_apart(told(captured)) == messages_apart(told(recorded))
    for name in ("EVT_DATA_RECV", "EVT_DATA_SENT"):
        both = [b"".join(each[3] for each in seen if each[0] == name) for seen in (recorded, captured)]
        assert both[0] == both[1] != b""
