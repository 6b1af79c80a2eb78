"""DCMTK, C++, as peer: both directions, every transfer syntax, TLS. It runs as installed programs."""

import ssl
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rxdicom import AE, AssociationRejected, AssociationServer, NoAcceptedContext, evt
from rxdicom.events.records import Aborted, CStore, Released
from rxdicom.wire.uids import VERIFICATION
from tests.certificates import Certificates
from tests.interop.archives import DCMTK_OPTIONS
from tests.ports import free_port
from tests.support import FILES, dataset_bytes, dcmtk, run, running, storable_files

pytestmark = pytest.mark.peer

# What DCMTK's own storescu refuses to read or to send.
NOT_FOR_DCMTK = {
    "MR_truncated.dcm",
    "SC_rgb_jpeg.dcm",
    "UN_sequence.dcm",
    "no_meta_group_length.dcm",
    "priv_SQ.dcm",
    "rtdose_rle.dcm",
    "rtdose_rle_1frame.dcm",
    "rtplan_truncated.dcm",
}


@contextmanager
def storing(
    folder: Path, ssl_context: ssl.SSLContext | None = None
) -> Generator[tuple[AssociationServer, list[object]]]:
    """A storage SCP of ours that takes everything, and how its associations ended."""
    folder.mkdir(exist_ok=True)
    ended: list[object] = []

    def save(event: CStore) -> int:
        event.save(folder / f"{event.request.AffectedSOPInstanceUID}.dcm")
        return 0x0000

    ae = AE("RXSTORE")
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    handlers = [(evt.EVT_C_STORE, save), (evt.EVT_RELEASED, ended.append), (evt.EVT_ABORTED, ended.append)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=ssl_context)
    with server:
        yield server, ended


def by_syntax() -> dict[str, list[Path]]:
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path, head in storable_files().items():
        grouped[head.transfer_syntax_uid].append(path)
    return grouped


def stored(folder: Path) -> dict[str, bytes]:
    """Dataset bytes by what identifies the instance."""
    found: dict[str, bytes] = {}
    for path in folder.iterdir():
        data = dataset_bytes(path)
        found[path.name.removesuffix(".dcm")] = data
    return found


def test_no_file_is_left_out_that_could_be_sent() -> None:
    """Of pydicom's 78 files these four lack a SOP class or transfer syntax, or are no DICOM files."""
    left_out = {path.name for path in FILES.glob("*.dcm")} - {path.name for path in storable_files()}
    assert left_out <= {"empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm", "no_meta.dcm"}
    assert len(storable_files()) >= 74


def test_every_transfer_syntax_is_among_the_files() -> None:
    assert by_syntax().keys() == DCMTK_OPTIONS.keys()


@pytest.mark.parametrize("syntax", DCMTK_OPTIONS)
def test_storescu_to_us(tmp_path: Path, syntax: str) -> None:
    """What we store is, byte for byte, what DCMTK's own bit-preserving receiver stores of the same sender."""
    files = [path for path in by_syntax()[syntax] if path.name not in NOT_FOR_DCMTK]
    storescu, theirs, port = dcmtk("storescu"), tmp_path / "theirs", free_port()
    theirs.mkdir()
    command = (storescu, "-R", DCMTK_OPTIONS[syntax], "127.0.0.1")
    with running(dcmtk("storescp"), "+B", "+xa", "-fe", ".dcm", "-od", theirs, port, port=port):
        run(*command, port, *files)
    with storing(tmp_path / "ours") as (server, ended):
        run(*command, server.address[1], *files)
    assert [type(each) for each in ended] == [Released]
    expected = {name.partition(".")[2]: data for name, data in stored(theirs).items()}
    assert stored(tmp_path / "ours") == expected
    assert len(expected) == len({storable_files()[path].sop_instance_uid for path in files})


@pytest.mark.parametrize("syntax", DCMTK_OPTIONS)
def test_us_to_storescp(tmp_path: Path, syntax: str) -> None:
    """A file arrives as it lies on disk."""
    port = free_port()
    ae = AE()
    files = by_syntax()[syntax]
    for uid in {storable_files()[path].sop_class_uid for path in files}:
        ae.add_requested_context(uid, syntax)
    with running(dcmtk("storescp"), "+B", "+xa", "-fe", ".dcm", "-od", tmp_path, port, port=port):
        with ae.associate("127.0.0.1", port) as assoc:
            for path in files:
                head = storable_files()[path]
                assert assoc.send_c_store(path) == 0x0000
                arrived = next(tmp_path.glob(f"*.{head.sop_instance_uid}.dcm"))
                sent = dataset_bytes(path)
                assert arrived.read_bytes().endswith(sent + b"\0" * (len(sent) & 1))
                arrived.unlink()
        assert assoc.is_released


def test_echo_both_ways() -> None:
    ae = AE()
    ae.add_requested_context(VERIFICATION)
    ae.add_supported_context(VERIFICATION)
    port = free_port()
    with running(dcmtk("storescp"), "--ignore", port, port=port), ae.associate("127.0.0.1", port) as assoc:
        assert assoc.send_c_echo() == 0x0000
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        run(dcmtk("echoscu"), "--repeat", "20", "127.0.0.1", server.address[1])


def test_reject_and_refuse() -> None:
    ae = AE()
    ae.add_requested_context(VERIFICATION)
    port = free_port()
    with running(dcmtk("storescp"), "--refuse", port, port=port), pytest.raises(AssociationRejected) as caught:
        ae.associate("127.0.0.1", port)
    assert caught.value.result in (1, 2)
    ae = AE()
    ae.add_requested_context("1.2.3.4.5")
    port = free_port()
    with running(dcmtk("storescp"), "--ignore", port, port=port), pytest.raises(NoAcceptedContext):
        ae.associate("127.0.0.1", port)


def test_abort_by_the_peer() -> None:
    """DCMTK's fault injection: it aborts after, or during, a C-STORE."""
    port = free_port()
    path, head = next(iter(storable_files().items()))
    ae = AE()
    ae.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
    with running(dcmtk("storescp"), "--ignore", "+xa", "--abort-after", port, port=port):
        aborted: list[Aborted] = []
        assoc = ae.associate("127.0.0.1", port, evt_handlers=[(evt.EVT_ABORTED, aborted.append)])
        with pytest.raises(Exception, match="abort") as caught:
            assoc.send_c_store(path)
        assert type(caught.value).__name__ == "AssociationAborted"
        assert assoc.is_aborted
        assert len(aborted) == 1
        assert aborted[0].by == "peer"


def test_tls_both_ways(tmp_path: Path, certificates: Certificates) -> None:
    path, head = next((p, h) for p, h in storable_files().items() if p.name == "MR_small.dcm")
    server_context, client_context = certificates.contexts()
    identity = ("+tls", certificates.key, certificates.certificate, "+cf", certificates.certificate)
    with storing(tmp_path / "ours", server_context) as (server, ended):
        run(dcmtk("storescu"), *identity, "127.0.0.1", server.address[1], path)
        assert [type(each) for each in ended] == [Released]
    arrived = stored(tmp_path / "ours")[head.sop_instance_uid]
    # DCMTK's storescu leaves the padding at the end of the dataset out.
    assert dataset_bytes(path).startswith(arrived)
    assert len(arrived) > 8192
    port, theirs = free_port(), tmp_path / "theirs"
    theirs.mkdir()
    ae = AE()
    ae.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
    tls = (client_context, "localhost")
    with (
        running(dcmtk("storescp"), *identity, "+B", "-od", theirs, port, port=port),
        ae.associate("127.0.0.1", port, tls_args=tls) as assoc,
    ):
        assert assoc.send_c_store(path) == 0x0000
        assert assoc.acceptor.certificate is not None
    assert next(theirs.iterdir()).read_bytes().endswith(dataset_bytes(path))
