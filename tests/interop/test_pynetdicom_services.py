"""pynetdicom in both roles: every SOP class of every service class that has a C service."""

import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_role as their_role
from pynetdicom import evt as their_evt

from rxdicom import AE, evt
from rxdicom.events.records import CFind, CGet, CMove, CStore
from rxdicom.service_class import (
    BasicWorklistManagementServiceClass,
    ColorPaletteQueryRetrieveServiceClass,
    DefinedProcedureProtocolQueryRetrieveServiceClass,
    HangingProtocolQueryRetrieveServiceClass,
    ImplantTemplateQueryRetrieveServiceClass,
    InventoryQueryRetrieveServiceClass,
    NonPatientObjectStorageServiceClass,
    ProtocolApprovalQueryRetrieveServiceClass,
    QueryRetrieveServiceClass,
    RelevantPatientInformationQueryServiceClass,
    ServiceClass,
    StorageServiceClass,
    SubstanceAdministrationQueryServiceClass,
    UnifiedProcedureStepServiceClass,
)
from rxdicom.sop_class import (
    CompositeInstanceRetrieveWithoutBulkDataGet,
    CTImageStorage,
    GeneralRelevantPatientInformationQuery,
    StudyRootQueryRetrieveInformationModelFind,
    sop_classes,
)
from tests.interop.memory import identifier
from tests.interop.theirs import associated, serving, settle
from tests.support import FILES, read

# How many SOP classes of each service have a C service of their own (PS3.4).
SERVICES = {
    QueryRetrieveServiceClass: 13,
    BasicWorklistManagementServiceClass: 1,
    RelevantPatientInformationQueryServiceClass: 3,
    SubstanceAdministrationQueryServiceClass: 2,
    HangingProtocolQueryRetrieveServiceClass: 3,
    ColorPaletteQueryRetrieveServiceClass: 3,
    DefinedProcedureProtocolQueryRetrieveServiceClass: 3,
    ImplantTemplateQueryRetrieveServiceClass: 9,
    ProtocolApprovalQueryRetrieveServiceClass: 3,
    InventoryQueryRetrieveServiceClass: 3,
    UnifiedProcedureStepServiceClass: 1,
}
MODELS = {str(uid): uid for service in SERVICES for uid in sop_classes(service) if uid.dimse_msg_type}
CT = str(CTImageStorage)
WITHOUT_BULK_DATA = str(CompositeInstanceRetrieveWithoutBulkDataGet)
QUERY = identifier("STUDY", PatientName="*")
INSTANCE = read(FILES / "CT_small.dcm")
TITLE = "DESTINATION"


def of(operation: str) -> list[Any]:
    """The SOP classes that stand for one C service, named in the test's ID."""
    return [pytest.param(uid, id=each.keyword) for uid, each in MODELS.items() if each.dimse_msg_type == operation]


def test_they_are_all_here() -> None:
    found = {service: sum(bool(uid.dimse_msg_type) for uid in sop_classes(service)) for service in SERVICES}
    assert found == SERVICES


def match(sop_class: str) -> Dataset:
    """What an SCP answers to a query: the SOP class by which it was asked."""
    return identifier("STUDY", PatientName="Some^One", SOPClassUID=sop_class)


def without_bulk_data(instance: Dataset) -> Dataset:
    return Dataset({tag: element for tag, element in instance.items() if instance[tag].keyword != "PixelData"})


class Stored(list[Dataset]):
    """A C-STORE handler for either side."""

    def __call__(self, event: Any) -> int:
        self.append(event.dataset)
        return 0x0000


def counters(status: Any) -> tuple[int, int, int]:
    """The same elements on the statuses of either side."""
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


# ---- ours to theirs


@pytest.fixture(scope="module")
def our_destination() -> Generator[tuple[tuple[str, int], Stored]]:
    """A storage SCP of ours."""
    stored = Stored()
    ae = AE(TITLE)
    ae.accept_any_storage = True
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)]) as server:
        yield server.address, stored


@pytest.fixture(scope="module")
def their_port(our_destination: tuple[tuple[str, int], Stored]) -> Generator[int]:
    """An SCP of theirs for all models; it moves to ours."""

    def on_find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        assert event.identifier == QUERY
        yield 0xFF00, match(event.request.AffectedSOPClassUID)

    def on_get(event: Any) -> Iterator[Any]:
        assert event.identifier == QUERY
        yield 1
        yield 0xFF00, read(FILES / "CT_small.dcm")

    def on_move(event: Any) -> Iterator[Any]:
        assert (event.identifier, event.move_destination) == (QUERY, TITLE)
        yield our_destination[0]
        yield 1
        yield 0xFF00, read(FILES / "CT_small.dcm")

    handlers = [(their_evt.EVT_C_FIND, on_find), (their_evt.EVT_C_GET, on_get), (their_evt.EVT_C_MOVE, on_move)]
    with serving(handlers, *MODELS, roles={CT: (True, True)}, requested=[CT]) as server:
        yield server.server_address[1]


def asking(*sop_classes: str) -> AE:
    ae = AE()
    for uid in sop_classes:
        ae.add_requested_context(uid)
    return ae


@pytest.mark.parametrize("uid", of("C-FIND"))
def test_find_of_theirs(their_port: int, uid: str) -> None:
    with asking(uid).associate("127.0.0.1", their_port) as assoc:
        found = list(assoc.send_c_find(QUERY, uid))
    assert [status for status, _ in found] == [0xFF00, 0x0000]
    assert found[0][1] == match(uid)


def test_an_identifier_with_their_final_response_is_dropped(their_port: int) -> None:
    """They repeat the match with the final response to a query for relevant patient information."""
    uid = str(GeneralRelevantPatientInformationQuery)
    with asking(uid).associate("127.0.0.1", their_port) as assoc:
        assert list(assoc.send_c_find(QUERY, uid)) == [(0xFF00, match(uid)), (0x0000, None)]


@pytest.mark.parametrize("uid", of("C-GET"))
def test_get_of_theirs(their_port: int, uid: str) -> None:
    stored = Stored()
    handlers = [(evt.EVT_C_STORE, stored)]
    with asking(uid, CT).associate("127.0.0.1", their_port, evt_handlers=handlers) as assoc:
        responses = list(assoc.send_c_get(QUERY, uid))
    assert [(status, counters(status)) for status, _ in responses] == [(0xFF00, (1, 0, 0)), (0x0000, (1, 0, 0))]
    assert stored == [without_bulk_data(INSTANCE) if uid == WITHOUT_BULK_DATA else INSTANCE]


@pytest.mark.parametrize("uid", of("C-MOVE"))
def test_move_of_theirs(their_port: int, our_destination: tuple[tuple[str, int], Stored], uid: str) -> None:
    _, stored = our_destination
    stored.clear()
    with asking(uid).associate("127.0.0.1", their_port) as assoc:
        responses = list(assoc.send_c_move(QUERY, TITLE, uid))
    assert [(status, counters(status)) for status, _ in responses] == [(0xFF00, (1, 0, 0)), (0x0000, (1, 0, 0))]
    assert stored == [INSTANCE]


# ---- theirs to ours


@pytest.fixture(scope="module")
def their_destination() -> Generator[tuple[tuple[str, int], Stored]]:
    """A storage SCP of theirs."""
    stored = Stored()
    with serving([(their_evt.EVT_C_STORE, stored)], CT, title=TITLE) as server:
        yield server.server_address, stored


@pytest.fixture(scope="module")
def our_address(their_destination: tuple[tuple[str, int], Stored]) -> Generator[tuple[str, int]]:
    """An SCP of ours for all models; it moves to theirs."""

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        assert event.identifier == QUERY
        yield 0xFF00, match(event.request.AffectedSOPClassUID or "")

    def on_get(event: CGet) -> Iterator[Any]:
        assert event.identifier == QUERY
        yield 1
        yield 0xFF00, INSTANCE

    def on_move(event: CMove) -> Iterator[Any]:
        assert (event.identifier, event.move_destination) == (QUERY, TITLE)
        yield their_destination[0]
        yield 1
        yield 0xFF00, INSTANCE

    ae = AE()
    for uid in MODELS:
        ae.add_supported_context(uid)
    ae.add_supported_context(CT, scu_role=True, scp_role=True)
    handlers: list[Any] = [(evt.EVT_C_FIND, on_find), (evt.EVT_C_GET, on_get), (evt.EVT_C_MOVE, on_move)]
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers) as server:
        yield server.address


@pytest.mark.parametrize("uid", of("C-FIND"))
def test_find_of_ours(our_address: tuple[str, int], uid: str) -> None:
    with associated(our_address, uid) as assoc:
        found = [(status.Status, given) for status, given in assoc.send_c_find(QUERY, uid)]
    assert found == [(0xFF00, match(uid)), (0x0000, None)]


@pytest.mark.parametrize("uid", of("C-GET"))
def test_get_of_ours(our_address: tuple[str, int], uid: str) -> None:
    stored = Stored()
    handlers = [(their_evt.EVT_C_STORE, stored)]
    with associated(our_address, uid, CT, ext_neg=[their_role(CT, scp_role=True)], evt_handlers=handlers) as assoc:
        responses = [(status.Status, counters(status)) for status, _ in assoc.send_c_get(QUERY, uid)]
    assert responses == [(0xFF00, (1, 0, 0)), (0x0000, (1, 0, 0))]
    assert stored == [INSTANCE]


@pytest.mark.parametrize("uid", of("C-MOVE"))
def test_move_of_ours(
    our_address: tuple[str, int], their_destination: tuple[tuple[str, int], Stored], uid: str
) -> None:
    _, stored = their_destination
    stored.clear()
    with associated(our_address, uid) as assoc:
        responses = [(status.Status, counters(status)) for status, _ in assoc.send_c_move(QUERY, TITLE, uid)]
    assert responses == [(0xFF00, (1, 0, 0)), (0x0000, (1, 0, 0))]
    assert stored == [INSTANCE]


# ---- storage


def batches(service: ServiceClass) -> list[list[str]]:
    """Its SOP classes, as many together as one association takes."""
    uids = [str(uid) for uid in sop_classes(service)]
    return [uids[first : first + 128] for first in range(0, len(uids), 128)]


def instance_of(sop_class: str) -> Dataset:
    made = identifier(SOPClassUID=sop_class, SOPInstanceUID=f"{sop_class}.1", InstanceNumber=7)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return made


@pytest.mark.parametrize(
    ("service", "count"), [(StorageServiceClass, 170), (NonPatientObjectStorageServiceClass, 9)], ids=str
)
def test_every_storage_sop_class_both_ways(service: ServiceClass, count: int) -> None:
    ours, theirs = Stored(), Stored()
    uids = [uid for batch in batches(service) for uid in batch]
    ae = AE()
    ae.accept_any_storage = True
    with (
        serving([(their_evt.EVT_C_STORE, theirs)], *uids) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, ours)]) as our_server,
    ):
        for batch in batches(service):
            with (
                associated(our_server.address, *batch) as their_association,
                asking(*batch).associate(*their_server.server_address) as our_association,
            ):
                for uid in batch:
                    assert our_association.send_c_store(instance_of(uid)) == 0x0000
                    assert their_association.send_c_store(instance_of(uid)).Status == 0x0000
                    settle(their_association)
    assert ours == theirs == [instance_of(uid) for uid in uids]
    assert len(uids) == count


# ---- cancelling


def test_leaving_theirs_cancels_it() -> None:
    cancelled: list[bool] = []
    uid = str(StudyRootQueryRetrieveInformationModelFind)

    with (
        serving([(their_evt.EVT_C_FIND, until_cancelled, [cancelled])], uid) as server,
        asking(uid).associate(*server.server_address) as assoc,
    ):
        for number, _ in enumerate(assoc.send_c_find(QUERY, uid)):
            if number == 2:
                break
        with assoc.send_c_find(QUERY, uid) as again:
            assert next(again) == (0xFF00, match(uid))
        assert list(assoc.send_c_find(identifier("STUDY"), uid)) == [(0x0000, None)]
    assert cancelled == [True, True]
    assert assoc.is_released


def until_cancelled(event: Any, cancelled: list[bool]) -> Iterator[tuple[int, Dataset | None]]:
    """A handler of theirs that has as many matches as the asker bears, of any name."""
    for _ in range(100_000 if "PatientName" in event.identifier else 0):
        # They read nothing as long as there is something to be sent.
        threading.Event().wait(0.002)
        if event.is_cancelled:
            cancelled.append(True)
            yield 0xFE00, None
            return
        yield 0xFF00, match(event.request.AffectedSOPClassUID)


def test_releasing_after_leaving_theirs() -> None:
    """They never answer a release that comes while they have not answered a query: it waits for the final response."""
    uid = str(StudyRootQueryRetrieveInformationModelFind)

    def on_find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, match(uid)
        until = time.monotonic() + 0.5
        while event.assoc.dul.peek_next_pdu() is None and time.monotonic() < until:
            threading.Event().wait(0.01)
        yield 0xFF00, match(uid)
        yield 0xFE00, None

    ae = asking(uid)
    ae.acse_timeout = 2
    with serving([(their_evt.EVT_C_FIND, on_find)], uid) as server:
        with ae.associate(*server.server_address) as assoc:
            for _ in assoc.send_c_find(QUERY, uid):
                break
        assert assoc.is_released


def test_they_cancel_ours() -> None:
    closed: list[bool] = []
    uid = str(StudyRootQueryRetrieveInformationModelFind)

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        try:
            for _ in range(100_000):
                yield 0xFF00, match(uid)
        finally:
            closed.append(event.is_cancelled)

    ae = AE()
    ae.add_supported_context(uid)
    statuses: list[int] = []
    with (
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find)]) as server,
        associated(server.address, uid) as assoc,
    ):
        for status, _ in assoc.send_c_find(QUERY, uid, msg_id=5):
            statuses.append(status.Status)
            if len(statuses) == 3:
                assoc.send_c_cancel(5, query_model=uid)
    assert statuses[-1] == 0xFE00
    assert closed == [True]


def test_they_store_what_we_refuse() -> None:
    """A status with a comment arrives as it was returned."""

    def refuse(event: CStore) -> Dataset:
        return identifier(Status=0xA700, ErrorComment="no room")

    ae = AE()
    ae.accept_any_storage = True
    with (
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, refuse)]) as server,
        associated(server.address, CT) as assoc,
    ):
        status = assoc.send_c_store(instance_of(CT))
    assert (status.Status, status.ErrorComment) == (0xA700, "no room")
