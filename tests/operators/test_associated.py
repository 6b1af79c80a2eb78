"""Operators on the streams of real associations, as SCU and as SCP, in one process."""

import asyncio
import json
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from reactivex import Observable

from rxdicom import AE, AssociationRejected, AssociationServer, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, CStore
from rxdicom.operators import (
    activity,
    buffered,
    completed_studies,
    failures,
    from_ae,
    of_message,
    of_pdu,
    paired,
    stored_instances,
    summaries,
    throughput,
    to_async_iterator,
    to_iterator,
    to_jsonl,
)
from rxdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind, Verification
from rxdicom.wire.dimse import Command
from rxdicom.wire.pdu import AssociateRQ
from tests.support import DEADLINE, FILES, read

CT = FILES / "CT_small.dcm"
FIND = StudyRootQueryRetrieveInformationModelFind


def on_store(event: CStore) -> int:
    return 0xA700 if event.message_id == 13 else 0x0000


def on_find(event: CFind) -> Iterable[tuple[int, Dataset | None]]:
    yield 0xFF00, event.identifier
    yield 0xFF00, event.identifier


@pytest.fixture
def ae() -> Generator[AE]:
    ae = AE("ME")
    for uid in (Verification, CTImageStorage, FIND):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    yield ae
    ae.shutdown()


@pytest.fixture
def server(ae: AE) -> AssociationServer:
    handlers: list[EventHandler] = [(evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find)]
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)


class Gathered:
    """What a stream brings, and how to wait for it."""

    def __init__(self, stream: Observable[Any]) -> None:
        self.items: list[Any] = []
        self.over = threading.Event()
        self._came = threading.Condition()
        stream.subscribe(self._next, on_completed=self.over.set)

    def _next(self, item: Any) -> None:
        with self._came:
            self.items.append(item)
            self._came.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.items) >= count, DEADLINE)
            return list(self.items)


def copies(study: str, count: int) -> list[Dataset]:
    """Instances of a study."""
    made: list[Dataset] = []
    for number in range(count):
        instance = read(CT)
        instance.StudyInstanceUID, instance.SOPInstanceUID = study, f"{study}.{number}"
        made.append(instance)
    return made


def test_studies_of_several_associations_at_release(ae: AE, server: AssociationServer) -> None:
    studies = Gathered(activity(server.events).pipe(completed_studies(DEADLINE, at_release=True)))
    with ae.associate(*server.address) as one, ae.associate(*server.address) as two:
        for first, second in zip(copies("1.1", 3), copies("1.2", 3), strict=True):
            one.send_c_store(first)
            two.send_c_store(second)
        two.send_c_store(copies("1.1", 4)[3])
        one.release()
        assert studies.items == []
    found = {study.study_instance_uid: study for study in studies.wait_for(2)}
    assert {uid: len(study.instances) for uid, study in found.items()} == {"1.1": 4, "1.2": 3}
    assert {study.completed_by for study in found.values()} == {"release"}
    assert found["1.1"].modalities == {"CT": 4}
    assert found["1.1"].calling_ae_titles == ("ME",)
    assert list(found["1.2"].instances) == ["1.2.0", "1.2.1", "1.2.2"]


def test_studies_after_a_quiet_time_and_at_the_end(ae: AE, server: AssociationServer) -> None:
    studies = Gathered(activity(server.events).pipe(completed_studies(0.05)))
    later = Gathered(activity(server.events).pipe(completed_studies(DEADLINE)))
    with ae.associate(*server.address) as assoc:
        assoc.send_c_store(copies("1.1", 1)[0])
        assoc.send_c_store(copies("1.1", 2)[1], msg_id=13)
        (study,) = studies.wait_for(1)
        assert (study.completed_by, list(study.instances)) == ("quiet", ["1.1.0"])
    server.shutdown()
    assert later.over.wait(DEADLINE)
    assert [study.completed_by for study in later.items] == ["end"]


def test_an_instance_received_into_a_file_has_its_path(ae: AE, tmp_path: Path) -> None:
    ae.spool_folder = str(tmp_path)
    saved = str(tmp_path / "saved.dcm")

    def save(event: CStore) -> int:
        event.save(saved)
        return 0x0000

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, save)])
    stored = Gathered(activity(server.events).pipe(stored_instances()))
    large = read(CT)
    large.Rows, large.Columns, large.PixelData = 1024, 1024, bytes(2 * 1024 * 1024)
    with ae.associate(*server.address) as assoc:
        assert assoc.send_c_store(large) == 0x0000
    (instance,) = stored.wait_for(1)
    assert instance.path == saved
    assert instance.study_instance_uid == large.StudyInstanceUID
    assert instance.size > 2 * 1024 * 1024


def test_operations_of_both_sides_and_their_failures(ae: AE, server: AssociationServer) -> None:
    performed = Gathered(activity(server.events).pipe(paired()))
    failed = Gathered(activity(server.events).pipe(failures()))
    assoc = ae.association(*server.address)
    asked = Gathered(activity(assoc.events).pipe(paired()))
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID = "STUDY", ""
    with assoc:
        assoc.send_c_echo()
        assoc.send_c_store(CT, msg_id=13)
        assert len(list(assoc.send_c_find(query, FIND))) == 3
    for operations, is_performed in ((performed.wait_for(3), True), (asked.wait_for(3), False)):
        told = [(each.name, int(each.status), each.pending, each.is_performed) for each in operations]
        assert told == [
            ("C-ECHO", 0x0000, 0, is_performed),
            ("C-STORE", 0xA700, 0, is_performed),
            ("C-FIND", 0x0000, 2, is_performed),
        ]
        assert all(0 <= each.duration < DEADLINE for each in operations)
    (failure,) = failed.wait_for(1)
    assert (failure.cause, failure.by, failure.calling_ae_title) == ("refused: out of resources", "local", "ME")


def test_each_association_as_a_summary(ae: AE, server: AssociationServer) -> None:
    watched = activity(server.events, evt.EVT_DATA_RECV, evt.EVT_DATA_SENT)
    ends = Gathered(watched.pipe(summaries()))
    carried = Gathered(watched.pipe(throughput(DEADLINE)))
    with ae.associate(*server.address) as assoc:
        assoc.send_c_store(CT)
    ends.wait_for(1)
    ae.associate(*server.address).abort()
    ends.wait_for(2)
    ae.require_calling_aet = ["SOMEBODY"]
    server.policy = ae.make_policy("STORE", None)
    with pytest.raises(AssociationRejected):
        ae.associate(*server.address)
    released, aborted, rejected = ends.wait_for(3)
    assert (released.ended, aborted.ended, rejected.ended) == ("released", "aborted", "rejected")
    assert released.messages_received == {"C-STORE-RQ": 1}
    assert released.messages_sent == {"C-STORE-RSP": 1}
    assert released.bytes_received > CT.stat().st_size - 1000
    assert 0 < released.bytes_sent < 10_000
    assert released.address[0] == "127.0.0.1"
    assert (aborted.by, rejected.by) == ("peer", "local")
    assert rejected.cause == "calling AE title not recognised"
    server.shutdown()
    assert carried.over.wait(DEADLINE)
    assert carried.items[-1].received.bytes > 0


def test_a_connection_that_fails_is_summed_up_at_once(ae: AE, server: AssociationServer) -> None:
    address = server.address
    server.shutdown()
    assoc = ae.association(*address)
    ends = Gathered(activity(assoc.events).pipe(summaries()))
    with pytest.raises(ConnectionError):
        assoc.open()
    assert ends.over.wait(DEADLINE)
    (summary,) = ends.items
    assert (summary.ended, summary.by, summary.address, summary.calling_ae_title) == (
        "aborted",
        "transport",
        None,
        "ME",
    )
    assert summary.cause


def test_filters_lines_and_iterators(ae: AE, server: AssociationServer) -> None:
    with (
        server.events.acse_recv.pipe(of_pdu(AssociateRQ), from_ae("ME"), to_jsonl(), to_iterator(10)) as requests,
        server.events.dimse_recv.pipe(of_message(Command.C_ECHO_RQ), buffered(10), to_iterator(10)) as echoes,
    ):
        with ae.associate(*server.address) as assoc:
            assoc.send_c_echo(msg_id=7)
        assert json.loads(next(requests))["primitive"]["calling_ae_title"] == "ME"
        assert next(echoes).message.MessageID == 7
        server.shutdown()
        assert list(requests) == list(echoes) == []


def test_a_loop_of_asyncio_watches_a_server(ae: AE, server: AssociationServer) -> None:
    def echo() -> None:
        with ae.associate(*server.address) as assoc:
            assoc.send_c_echo()
        server.shutdown()

    async def watch() -> list[str]:
        async with activity(server.events).pipe(paired(), to_async_iterator(10)) as operations:
            echoing = asyncio.ensure_future(asyncio.to_thread(echo))
            names = [operation.name async for operation in operations]
            await echoing
            return names

    assert asyncio.run(watch()) == ["C-ECHO"]


def test_an_observer_behind_a_buffer_may_use_the_network(ae: AE, server: AssociationServer) -> None:
    """As one that sends a study on: without the buffer it would be an error."""

    def verify(_: Any) -> int:
        with ae.associate(*server.address) as assoc:
            return assoc.send_c_echo()

    studies = activity(server.events).pipe(completed_studies(DEADLINE, at_release=True))
    verified = Gathered(studies.pipe(buffered(10)).map(verify))
    with ae.associate(*server.address) as assoc:
        assoc.send_c_store(CT)
    assert verified.wait_for(1) == [0x0000]
