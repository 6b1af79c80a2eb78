"""Events by hand for every intervention kind, and what their requests would be answered."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import evt
from rxdicom.errors import ArgumentError
from rxdicom.events import kinds, records
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.kinds import INTERVENTION_KINDS, EventKind
from rxdicom.sop_class import (
    ModalityPerformedProcedureStep,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)
from rxdicom.testing import answers, association, event
from rxdicom.wire.items import AsyncOperationsWindow, SOPClassCommonExtended, SOPClassExtended, UserIdentity
from tests.recording.support import ct_file
from tests.support import read

FIND, MOVE = str(StudyRootQueryRetrieveInformationModelFind), str(StudyRootQueryRetrieveInformationModelMove)


@pytest.mark.parametrize("kind", INTERVENTION_KINDS, ids=lambda kind: kind.name)
def test_every_kind_can_be_made_and_handled(kind: EventKind[Any]):
    made = event(kind)
    assert type(made) is kind.record
    assert (made.event, made.assoc.requestor.ae_title, made.assoc.acceptor.ae_title) == (kind, "SCU", "SCP")
    assert made.assoc.is_acceptor
    DEFAULTS[kind](made)


@pytest.mark.parametrize(
    ("kind", "given", "item"),
    [
        (evt.EVT_ASYNC_OPS, {"nr_invoked": 5, "nr_performed": 2}, AsyncOperationsWindow(5, 2)),
        (
            evt.EVT_USER_ID,
            {"user_id_type": 2, "primary_field": b"me", "secondary_field": b"x", "positive_response_requested": True},
            UserIdentity(2, True, b"me", b"x"),
        ),
        (evt.EVT_SOP_EXTENDED, {"app_info": {"1.2": b"\1\0"}}, SOPClassExtended("1.2", b"\1\0")),
        (
            evt.EVT_SOP_COMMON,
            {"items": {"1.2": SOPClassCommonExtended("1.2", "1.3", ("1.4",))}},
            SOPClassCommonExtended("1.2", "1.3", ("1.4",)),
        ),
    ],
)
def test_a_negotiation_event_comes_with_its_request(kind: EventKind[Any], given: dict[str, Any], item: Any):
    made = event(kind, assoc=association("MODALITY", "ARCHIVE"), **given)
    assert {name: getattr(made, name) for name in given} == given
    assert made.associate.items_of(type(item)) == (item,)
    assert (made.associate.calling_ae_title, made.associate.called_ae_title) == ("MODALITY", "ARCHIVE")


def test_a_service_event_carries_what_is_given():
    query = Dataset()
    query.PatientID = "1"
    made = event(evt.EVT_C_FIND, query, AffectedSOPClassUID=FIND, Priority=1, cancelled=lambda: True)
    assert isinstance(made, records.CFind)
    assert (made.identifier.PatientID, made.request.Priority, made.is_cancelled) == ("1", 1, True)
    assert made.context.abstract_syntax == FIND


@pytest.mark.parametrize(
    ("kind", "dataset", "given"),
    [
        (evt.EVT_C_ECHO, None, {"Priority": 1}),
        (evt.EVT_USER_ID, Dataset(), {}),
        (evt.EVT_RELEASED, None, {}),
    ],
)
def test_what_such_a_request_cannot_carry_is_said(kind: Any, dataset: Dataset | None, given: dict[str, Any]):
    with pytest.raises(ArgumentError):
        event(kind, dataset, **given)


# ---- answers


def find_all(event: records.CFind) -> Iterator[tuple[int, Dataset]]:
    for number in "12":
        found = Dataset()
        found.PatientID = number
        yield 0xFF00, found


def test_responses_are_those_that_a_peer_would_get():
    done = answers(find_all, event(evt.EVT_C_FIND, Dataset(), AffectedSOPClassUID=FIND))
    assert [(int(status), found and found.PatientID) for status, found in done.responses] == [
        (0xFF00, "1"),
        (0xFF00, "2"),
        (0x0000, None),
    ]
    assert (done.status.category, done.dataset, done.fault) == ("Success", None, "")


def test_a_fault_of_the_handler_is_the_status_that_the_peer_gets():
    def broken(event: Any) -> int:
        raise KeyError("mine")

    done = answers(broken, event(evt.EVT_C_STORE, read(ct_file())))
    assert done.status == 0xC211
    assert "the handler raised KeyError" in done.fault
    assert answers(lambda event: "fine", event(evt.EVT_C_STORE, read(ct_file()))).status == 0xC002  # pyright: ignore[reportUnknownLambdaType]


def test_further_arguments_go_to_the_handler():
    def on_echo(event: Any, status: int) -> int:
        return status

    assert answers(on_echo, event(evt.EVT_C_ECHO), 0x0122).status == 0x0122


def test_a_dataset_of_an_n_service_is_in_the_answer():
    def on_create(event: records.NCreate) -> tuple[int, Dataset]:
        return 0x0000, event.attribute_list

    given = Dataset()
    given.PatientID = "1"
    uids = {"AffectedSOPClassUID": str(ModalityPerformedProcedureStep), "AffectedSOPInstanceUID": "1.2.3"}
    made = event(evt.EVT_N_CREATE, given, **uids)
    done = answers(on_create, made)
    assert done.dataset is not None
    assert (done.status, done.dataset.PatientID) == (0x0000, "1")


@pytest.mark.parametrize(("sub_operation", "status"), [(0x0000, 0x0000), (0xA700, 0xA702)])
def test_sub_operations_are_told(sub_operation: int, status: int):
    def on_move(event: records.CMove) -> Iterator[Any]:
        yield "viewer", 104
        yield 1
        yield 0xFF00, read(ct_file())

    made = event(evt.EVT_C_MOVE, Dataset(), AffectedSOPClassUID=MOVE, MoveDestination="VIEWER")
    done = answers(on_move, made, sub_operations=sub_operation)
    assert done.destination == ("viewer", 104)
    assert [each.PatientID for each in done.instances] == ["1CT1"]
    assert done.status == status
    assert done.status.NumberOfFailedSuboperations == (sub_operation != 0)


def test_kinds_are_all_of_the_interventions():
    assert set(DEFAULTS) == set(kinds.INTERVENTION_KINDS)
