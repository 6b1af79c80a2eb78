"""The programs with those of DCMTK at the other end: every real file, both ways, and C-ECHO, also over TLS."""

from collections import defaultdict
from pathlib import Path

import pytest

from tests.apps.support import call, server
from tests.certificates import Certificates
from tests.interop.archives import DCMTK_OPTIONS
from tests.interop.test_dcmtk import NOT_FOR_DCMTK
from tests.ports import free_port
from tests.support import dataset_bytes, dcmtk, run, running, storable_files

pytestmark = pytest.mark.peer


def stored(folder: Path) -> dict[str, bytes]:
    """The datasets in a folder, by SOP instance, whatever precedes that in the file's name."""
    uids = [head.sop_instance_uid for head in storable_files().values()]
    found = {path.name.removesuffix(".dcm"): dataset_bytes(path) for path in folder.iterdir()}
    return {uid: data for uid in uids for name, data in found.items() if name.endswith(uid)}


def padded(data: bytes) -> bytes:
    return data + b"\0" * (len(data) & 1)


def test_storescu_to_storescp_of_dcmtk(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """All files by one command, in their own transfer syntaxes; the last one of an instance counts."""
    port = free_port()
    with running(dcmtk("storescp"), "+B", "+xa", "-fe", ".dcm", "-od", tmp_path, port, port=port):
        outcome = call(capsys, "storescu", "127.0.0.1", port, *storable_files(), "--no-convert")
    assert (outcome.code, outcome.err) == (0, "")
    sent = {head.sop_instance_uid: padded(dataset_bytes(path)) for path, head in storable_files().items()}
    assert stored(tmp_path).keys() == sent.keys()
    several = [head.sop_instance_uid for head in storable_files().values()]
    alone = {uid for uid in sent if several.count(uid) == 1}
    assert {uid: data for uid, data in stored(tmp_path).items() if uid in alone} == {uid: sent[uid] for uid in alone}


def test_storescu_of_dcmtk_to_storescp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every file that DCMTK sends is stored as its own bit-preserving receiver stores it."""
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path, head in storable_files().items():
        if path.name not in NOT_FOR_DCMTK:
            grouped[head.transfer_syntax_uid].append(path)
    # As it comes DCMTK stalls with itself for 40 ms an image.
    monkeypatch.setenv("TCP_NODELAY", "1")
    ours, theirs, port = tmp_path / "ours", tmp_path / "theirs", free_port()
    theirs.mkdir()
    with (
        running(dcmtk("storescp"), "+B", "+xa", "-fe", ".dcm", "-od", theirs, port, port=port),
        server("storescp", "-od", ours) as receiver,
    ):
        for syntax, paths in grouped.items():
            for to in (port, receiver.port):
                run(dcmtk("storescu"), "-R", DCMTK_OPTIONS[syntax], "127.0.0.1", to, *paths)
        assert receiver.stop() == 0
    assert "aborted" not in receiver.said
    assert stored(ours) == stored(theirs)
    sent = {storable_files()[path].sop_instance_uid for paths in grouped.values() for path in paths}
    assert stored(ours).keys() == sent


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_echo_both_ways(capsys: pytest.CaptureFixture[str], certificates: Certificates, tls: bool):
    own = ("--tls", "--cert", certificates.certificate, "--key", certificates.key, "--ca", certificates.certificate)
    their = ("+tls", certificates.key, certificates.certificate, "+cf", certificates.certificate)
    port = free_port()
    with running(dcmtk("storescp"), *(their if tls else ()), "--ignore", port, port=port):
        outcome = call(capsys, "echoscu", "127.0.0.1", port, *(own if tls else ()))
        assert (outcome.code, outcome.err) == (0, "")
    with server("echoscp", *((*own, "--require-client-cert") if tls else ())) as ours:
        run(dcmtk("echoscu"), *(their if tls else ()), "127.0.0.1", ours.port)
        assert ours.stop() == 0
    assert "released" in ours.said
