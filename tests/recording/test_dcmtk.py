"""Sessions with DCMTK, recorded: they replay to the identical sequence of events."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import AE, AssociationServer
from rxdicom.protocol.policy import Limits
from rxdicom.recording import ALL_KINDS, record, replay
from tests.ports import free_port
from tests.recording.support import CT, FIND, configured, contents_of, ct_file, large_file, names, replayed, serving
from tests.support import DEADLINE, dcmtk, run, running, storable_files

pytestmark = pytest.mark.peer


@contextmanager
def recorded_server(path: Path, **options: Any) -> Generator[tuple[AssociationServer, list[tuple[Any, ...]]]]:
    """A server of which everything is recorded, and what was seen of it meanwhile."""
    with serving(**options) as server:
        seen = contents_of(server.events)
        with record(server, path, ALL_KINDS):
            yield server, seen
            # DCMTK ends before its connection is closed here.
            server.shutdown(drain=DEADLINE)


def test_dcmtk_as_requestor(tmp_path: Path):
    files = [ct_file(), large_file()]
    (tmp_path / "spool").mkdir()
    # The datasets are received into files, which are gone when they have been handled.
    small = {"spool_folder": str(tmp_path / "spool"), "limits": Limits(memory=1000)}
    with recorded_server(tmp_path / "r", **small) as (server, seen):
        address = ("127.0.0.1", server.address[1])
        run(dcmtk("echoscu"), "--repeat", 3, *address)
        run(dcmtk("storescu"), *address, *files)
        run(dcmtk("findscu"), "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=", *address)
    assert replayed(replay(tmp_path / "r")) == seen
    happened = names(seen)
    assert happened.count("RELEASED") == 3
    assert [happened.count("DIMSE_RECV"), happened.count("DIMSE_SENT")] == [3 + 2 + 1, 3 + 2 + 4]
    assert happened.count("PDU_RECV") > 12
    assert list((tmp_path / "spool").iterdir()) == []


def test_dcmtk_as_requestor_that_aborts(tmp_path: Path):
    with recorded_server(tmp_path / "r") as (server, seen):
        run(dcmtk("echoscu"), "--abort", "127.0.0.1", server.address[1])
        run(dcmtk("storescu"), "--abort", "127.0.0.1", server.address[1], ct_file())
    assert replayed(replay(tmp_path / "r")) == seen
    assert names(seen).count("ABORTED") == 2


def test_dcmtk_as_acceptor(tmp_path: Path):
    port = free_port()
    ae = configured(AE("SCU"))
    heads = {path: head for path, head in storable_files().items() if path in (ct_file(), large_file())}
    for head in heads.values():
        ae.add_requested_context(head.sop_class_uid, head.transfer_syntax_uid)
    with running(dcmtk("storescp"), "--ignore", port, port=port):
        assoc = ae.association("127.0.0.1", port)
        seen = contents_of(assoc.events)
        with record(assoc, tmp_path / "r", ALL_KINDS), assoc:
            assert assoc.send_c_echo() == 0x0000
            assert [assoc.send_c_store(path) for path in heads] == [0x0000, 0x0000]
            # Refused: storescp has no such service.
            assert not [each for each in assoc.accepted_contexts if each.abstract_syntax == FIND]
    assert replayed(replay(tmp_path / "r")) == seen
    assert names(seen).count("DIMSE_SENT") == 3


def test_a_query_to_dcmtk(tmp_path: Path):
    """wlmscpfs has one worklist item."""
    folder = tmp_path / "WL"
    folder.mkdir()
    (folder / "lockfile").touch()
    item = Dataset()
    item.PatientName, item.PatientID, item.Modality = "CITIZEN^JANE", "1", "CT"
    step = Dataset()
    step.ScheduledStationAETitle, step.Modality, step.ScheduledProcedureStepStartDate = "CT1", "CT", "20240229"
    step.ScheduledProcedureStepStartTime, step.ScheduledPerformingPhysicianName = "1200", "X"
    step.ScheduledProcedureStepDescription, step.ScheduledStationName, step.ScheduledProcedureStepID = "D", "S", "1"
    item.ScheduledProcedureStepSequence = [step]
    item.AccessionNumber, item.ReferringPhysicianName, item.StudyInstanceUID = "1", "Y", "1.2.3"
    item.PatientBirthDate, item.PatientSex, item.RequestedProcedureID = "19700101", "F", "1"
    item.RequestedProcedureDescription = "D"
    item.save_as(folder / "1.wl", implicit_vr=False, little_endian=True)
    worklist, port = "1.2.840.10008.5.1.4.31", free_port()
    ae = configured(AE("SCU"), worklist)
    query = Dataset()
    query.PatientName = ""
    with running(dcmtk("wlmscpfs"), "-dfr", "-dfp", tmp_path, port, port=port):
        assoc = ae.association("127.0.0.1", port, ae_title="WL")
        seen = contents_of(assoc.events)
        with record(assoc, tmp_path / "r", ALL_KINDS), assoc:
            found = [match.PatientName for _, match in assoc.send_c_find(query, worklist) if match]
    assert found == ["CITIZEN^JANE"]
    assert replayed(replay(tmp_path / "r")) == seen
    assert names(seen).count("DIMSE_RECV") == 2


def test_ct_is_what_the_session_was_about(tmp_path: Path):
    """The datasets that were replayed are those of the files."""
    with recorded_server(tmp_path / "r") as (server, _):
        run(dcmtk("storescu"), "127.0.0.1", server.address[1], ct_file())
    source = replay(tmp_path / "r")
    stored: list[Any] = []
    source.events.dimse_recv.subscribe(lambda event: stored.append((event.message, event.dataset)))
    source.run()
    ((message, dataset),) = stored
    assert message.AffectedSOPClassUID == CT
    assert dataset.PatientName == "CompressedSamples^CT1"
    assert len(dataset.PixelData) == 2 * 128 * 128
