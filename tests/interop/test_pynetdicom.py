"""pynetdicom as peer, in both directions: its programs, and the package where a test looks at what it received."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE as TheirAE
from pynetdicom import evt as their_evt

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.wire.uids import VERIFICATION
from tests.ports import free_port
from tests.support import dataset_bytes, python, read, run, running, storable_files

# What pynetdicom's SCU refuses: no file meta information, no UIDs in the dataset, or not what it says.
NOT_SENT_BY_THEM = {
    "ExplVR_BigEndNoMeta.dcm",
    "ExplVR_LitEndNoMeta.dcm",
    "SC_rgb_jpeg.dcm",
    "UN_sequence.dcm",
    "no_meta_group_length.dcm",
    "priv_SQ.dcm",
    "rtstruct.dcm",
}
FILES = sorted(storable_files())


def test_echo_both_ways() -> None:
    ae = AE()
    ae.add_requested_context(VERIFICATION)
    ae.add_supported_context(VERIFICATION)
    port = free_port()
    with running(*python("pynetdicom", "echoscp", port), port=port), ae.associate("127.0.0.1", port) as assoc:
        assert [assoc.send_c_echo() for _ in range(3)] == [0, 0, 0]
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        run(*python("pynetdicom", "echoscu", "127.0.0.1", server.address[1]))


def test_store_programs_both_ways(tmp_path: Path) -> None:
    path = next(path for path in FILES if path.name == "CT_small.dcm")
    head = storable_files()[path]
    port = free_port()
    ae = AE()
    ae.accept_any_storage = True
    ae.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
    with (
        running(*python("pynetdicom", "storescp", port, "-od", tmp_path), port=port),
        ae.associate("127.0.0.1", port) as assoc,
    ):
        assert assoc.send_c_store(path) == 0x0000
    assert read(next(tmp_path.iterdir())) == read(path)
    received: list[Dataset] = []

    def on_store(event: CStore) -> int:
        received.append(event.dataset)
        return 0x0000

    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        run(*python("pynetdicom", "storescu", "-xe", "127.0.0.1", server.address[1], path))
    assert received == [read(path)]


@pytest.fixture(scope="module")
def their_server() -> Generator[tuple[int, dict[str, bytes]]]:
    """A storage SCP of theirs, and the bytes that came over the wire by SOP instance."""
    received: dict[str, bytes] = {}

    def on_store(event: Any) -> int:
        received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0x0000

    theirs: Any = TheirAE()
    for head in storable_files().values():
        theirs.add_supported_context(head.sop_class_uid, head.transfer_syntax_uid)
    server = theirs.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(their_evt.EVT_C_STORE, on_store)])
    yield server.server_address[1], received
    server.shutdown()


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_what_we_send_arrives(path: Path, their_server: tuple[int, dict[str, bytes]]) -> None:
    """Byte for byte as it lies on disk."""
    port, received = their_server
    head = storable_files()[path]
    ae = AE()
    ae.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
    with ae.associate("127.0.0.1", port) as assoc:
        assert assoc.send_c_store(path) == 0x0000
    assert assoc.is_released
    expected = dataset_bytes(path)
    assert received.pop(head.sop_instance_uid) == expected + b"\0" * (len(expected) & 1)


def test_what_they_send_arrives() -> None:
    """Equal datasets, in the transfer syntaxes of the files."""
    received: dict[str, tuple[str, Dataset]] = {}
    released: list[object] = []

    def on_store(event: CStore) -> int:
        received[event.request.AffectedSOPInstanceUID or ""] = (event.context.transfer_syntax, event.dataset)
        return 0x0000

    ae = AE()
    ae.accept_any_storage = True
    files = [path for path in FILES if path.name not in NOT_SENT_BY_THEM]
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store), (evt.EVT_RELEASED, released.append)]
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers) as server:
        for path in files:
            head = storable_files()[path]
            theirs: Any = TheirAE()
            theirs.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
            assoc = theirs.associate("127.0.0.1", server.address[1])
            assert assoc.is_established
            assert assoc.send_c_store(path).Status == 0x0000, path.name
            assoc.release()
            expected = read(path)
            syntax, dataset = received.pop(str(expected.SOPInstanceUID))
            assert (syntax, dataset) == (head.transfer_syntax_uid, expected), path.name
    assert len(released) == len(files)
