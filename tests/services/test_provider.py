"""Which requests a provider takes, and the services that answer with a status: C-ECHO and C-STORE, fault by fault."""

from collections.abc import Callable
from typing import Any

import pynetdicom.service_class as peer_services
import pynetdicom.service_class_n as peer_n_services
import pynetdicom.status as peer_status
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from rxdicom import service_class
from rxdicom.errors import DatasetError
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.records import CEcho, CStore, EventContext, NAction, NGet, ServiceEvent
from rxdicom.protocol.negotiation import Replies, accept, negotiated, propose
from rxdicom.protocol.policy import Policy, SupportedContext
from rxdicom.service_class import (
    ServiceClass,
    StorageServiceClass,
    UnifiedProcedureStepServiceClass,
    UnknownServiceClass,
)
from rxdicom.services.effects import Raised, Value
from rxdicom.services.normalized import normalized_answer
from rxdicom.services.outcome import outcome_of, response
from rxdicom.services.provider import ROWS, is_listed, not_kept, refused, status_answer
from rxdicom.sop_class import StorageCommitmentPushModelInstance, register_uid
from rxdicom.status import STORAGE_SERVICE_CLASS_STATUS, Status
from rxdicom.wire.dimse import (
    COMMANDS,
    ELEMENTS,
    Command,
    Message,
    decode_command_set,
    encode_command_set,
    message,
)
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import RoleSelection

from ..wire.strategies import MANY, messages
from .scripted import event_of, play_single

CT, ECHO, IVR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
GRAYSCALE_PRINT, FILM_SESSION = "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.1.1"
UPS_PUSH, UPS_PULL = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.3"
CONTEXT = EventContext(3, CT, IVR)


def echo_rq() -> Message:
    return message(Command.C_ECHO_RQ, 1, MessageID=7, AffectedSOPClassUID=ECHO)


def store_rq(data: Encoded | None = None, **changes: Any) -> Message:
    elements: dict[str, Any] = {"AffectedSOPClassUID": CT, "AffectedSOPInstanceUID": "1.2.3", "Priority": 0} | changes
    return message(Command.C_STORE_RQ, 3, data or Encoded(IVR, b""), MessageID=8, **elements)


def echo() -> CEcho:
    return CEcho(request=echo_rq(), context=EventContext(1, ECHO, IVR))


def store(data: Encoded | None = None) -> CStore:
    return CStore(request=store_rq(data), context=CONTEXT)


def answer(event: ServiceEvent, handler: Callable[[Any], Any]) -> tuple[Message, str, int]:
    """The response, what was wrong with the handler, and how often it was called. Like a driver, but in one place."""
    result, calls = not_kept(event.request), 0
    if result is None:
        calls = 1
        try:
            called = Value(handler(event))
        except Exception as error:  # noqa: BLE001 - whatever the handler of a test raises
            called = Raised(error)
        result = status_answer(event, called)
    given, fault = result
    assert decode_command_set(encode_command_set(given.command))["Status"] == given.Status
    return given, fault, calls


def raising(error: Exception) -> Callable[[Any], Any]:
    def handler(event: object) -> Any:
        raise error

    return handler


def returning(value: Any) -> Callable[[Any], Any]:
    return lambda event: value


def dataset(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def unreadable_status() -> Dataset:
    """A dataset whose Status pydicom cannot decode, which shows when it is asked for."""
    made = Dataset()
    made[Tag(0x0000, 0x0900)] = RawDataElement(Tag(0x0000, 0x0900), "US", 3, b"abc", 0, True, True)
    return made


class Hostile(Dataset):
    """A dataset that raises what nobody expects."""

    def __contains__(self, name: object) -> bool:
        raise RuntimeError("hostile")


# ---- DESIGN §3, row by row


def junk() -> CStore:
    return store(Encoded(IVR, b"\xff" * 10))


@pytest.mark.parametrize(
    ("handler", "echoed", "stored"),
    [
        pytest.param(raising(ValueError("no")), 0x0000, 0xC211, id="raises"),
        pytest.param(raising(KeyError()), 0x0000, 0xC211, id="raises without a text"),
        pytest.param(raising(DatasetError("cut")), 0x0000, 0xC210, id="undecodable dataset"),
        pytest.param(raising(OSError(28, "No space left on device")), 0x0000, 0xA700, id="disk full"),
        pytest.param(returning(Dataset()), 0xC001, 0xC001, id="status dataset without Status"),
        pytest.param(returning(dataset(ErrorComment="x")), 0xC001, 0xC001, id="a comment is no status"),
        pytest.param(returning(None), 0xC002, 0xC002, id="None"),
        pytest.param(returning("Success"), 0xC002, 0xC002, id="text"),
        pytest.param(returning(0.0), 0xC002, 0xC002, id="float"),
        pytest.param(returning(True), 0xC002, 0xC002, id="bool"),
        pytest.param(returning((0x0000, None)), 0xC002, 0xC002, id="pair"),
        pytest.param(returning(-1), 0xC002, 0xC002, id="negative"),
        pytest.param(returning(0x10000), 0xC002, 0xC002, id="too large"),
        pytest.param(returning(dataset(Status=None)), 0xC002, 0xC002, id="Status without a value"),
        pytest.param(returning(unreadable_status()), 0xC002, 0xC002, id="unreadable Status"),
        pytest.param(returning(Hostile()), 0xC002, 0xC002, id="hostile dataset"),
        pytest.param(returning(Status(0x0000, ErrorID="x")), 0xC002, 0xC002, id="ErrorID of a wrong type"),
        pytest.param(returning(Status(0x0000, ErrorID=65536)), 0xC002, 0xC002, id="ErrorID too large"),
        pytest.param(returning(Status(0x0000, OffendingElement=1 << 32)), 0xC002, 0xC002, id="tag too large"),
        pytest.param(returning(Status(0x0000, AffectedSOPInstanceUID=5)), 0xC002, 0xC002, id="UID of a wrong type"),
        pytest.param(returning(Status(0x0000, AffectedSOPInstanceUID="1.2.é")), 0xC002, 0xC002, id="no UID"),
    ],
)
def test_faults(handler: Callable[[Any], Any], echoed: int, stored: int) -> None:
    """Each becomes one response with its status, and a text for the log."""
    for event, status in ((echo(), echoed), (store(), stored)):
        given, fault, calls = answer(event, handler)
        assert (given.Status, calls) == (status, 1)
        assert fault.startswith("the handler ")


def test_a_dataset_that_the_handler_cannot_decode() -> None:
    given, fault, _ = answer(junk(), lambda event: event.dataset.PatientID and 0)
    assert given.Status == 0xC210
    assert "DatasetError" in fault


def test_a_handler_that_copes_with_such_a_dataset() -> None:
    def handler(event: CStore) -> int:
        try:
            return len(event.dataset) and 0
        except DatasetError:
            return 0xB007

    assert answer(junk(), handler)[:2] == (response(store_rq(), outcome_of(0xB007)), "")


def test_a_dataset_that_was_not_kept() -> None:
    """Nobody is asked about a dataset that is not there."""
    given, fault, calls = answer(store(Encoded(IVR, error=OSError("disk full"))), returning(0))
    assert (given.Status, calls) == (0xA700, 0)
    assert given.ErrorComment
    assert "disk full" in fault


def test_the_defaults() -> None:
    for event, status in ((echo(), 0x0000), (store(), 0xC211)):
        given, fault, _ = answer(event, DEFAULTS[event.event])
        assert (given.Status, fault) == (status, "")


@pytest.mark.parametrize(
    ("request_", "abstract_syntax", "status"),
    [
        (echo_rq(), ECHO, None),
        (store_rq(), CT, None),
        (store_rq(), "1.2.840.10008.5.1.4.1.1.4", 0x0122),
        (store_rq(AffectedSOPClassUID="1.2.3"), CT, 0x0122),
        (echo_rq(), CT, 0x0211),
        (store_rq(), ECHO, 0x0211),
        (store_rq(AffectedSOPClassUID=FIND), FIND, 0x0211),
        (
            message(Command.N_DELETE_RQ, 3, MessageID=1, RequestedSOPClassUID=CT, RequestedSOPInstanceUID="1.2"),
            CT,
            0x0211,
        ),
        (
            message(Command.N_GET_RQ, 1, MessageID=1, RequestedSOPClassUID=ECHO, RequestedSOPInstanceUID="1.2"),
            ECHO,
            0x0211,
        ),
        (store_rq(AffectedSOPClassUID="1.2.3.4.5"), "1.2.3.4.5", None),
        (store_rq(AffectedSOPClassUID="1.2.3.4.6"), "1.2.3.4.5", 0x0122),
    ],
)
def test_what_a_context_does_not_carry(request_: Message, abstract_syntax: str, status: int | None) -> None:
    """Another SOP class than that of the context; an operation that its service does not have; a private SOP class."""
    answered = refused(request_, abstract_syntax)
    assert (answered and answered.Status) == status
    if answered is not None:
        assert answered.MessageIDBeingRespondedTo == request_.MessageID
        assert answered.context_id == request_.context_id
        assert encode_command_set(answered.command)


def an_n_request(sop_class: str) -> Message:
    return NGet.by_hand(RequestedSOPClassUID=sop_class, RequestedSOPInstanceUID="1.2").request


@pytest.mark.parametrize(
    ("abstract_syntax", "sop_class", "status"),
    [
        (GRAYSCALE_PRINT, FILM_SESSION, None),
        (UPS_PULL, UPS_PUSH, None),
        (UPS_PULL, FILM_SESSION, 0x0122),
        (GRAYSCALE_PRINT, "1.2.3.4", 0x0122),
        ("1.2.3.4", "1.2.3.4", None),
        ("1.2.3.4", "1.2.3.5", 0x0122),
        ("1.2.3.4", FILM_SESSION, 0x0122),
    ],
)
def test_a_context_carries_the_n_services_of_its_whole_service_class(
    abstract_syntax: str, sop_class: str, status: int | None
) -> None:
    """That two private SOP classes belong together nobody can know, unless both are registered."""
    answered = refused(an_n_request(sop_class), abstract_syntax)
    assert (answered and answered.Status) == status


def test_a_service_class_that_the_association_knows_counts() -> None:
    """As if the private SOP class had been registered: its operations, and 0211 for others."""
    stored = store_rq(AffectedSOPClassUID="1.2.3.4")
    assert refused(stored, "1.2.3.4", service=StorageServiceClass) is None
    for request in (an_n_request("1.2.3.4"), message(Command.C_ECHO_RQ, 3, MessageID=1, AffectedSOPClassUID="1.2.3.4")):
        assert refused(request, "1.2.3.4") is None
        answered = refused(request, "1.2.3.4", service=StorageServiceClass)
        assert answered is not None
        assert answered.Status == 0x0211


# ---- roles

ROLE_CASES = {
    Command.C_ECHO_RQ: ECHO,
    Command.C_STORE_RQ: CT,
    Command.C_FIND_RQ: FIND,
    Command.C_GET_RQ: "1.2.840.10008.5.1.4.1.2.2.3",
    Command.C_MOVE_RQ: "1.2.840.10008.5.1.4.1.2.2.2",
    **dict.fromkeys([command for command in ROWS if Command(command).name.startswith("N_")], FILM_SESSION),
}
"""A SOP class for each request."""


def a_request(command: Command) -> Message:
    uid = ROLE_CASES[command]
    role = "RequestedSOPClassUID" if "RequestedSOPClassUID" in COMMANDS[command][0] else "AffectedSOPClassUID"
    elements: dict[str, Any] = {role: uid}
    return ROWS[command].record.by_hand(**elements).request


@pytest.mark.parametrize("command", ROWS)
@pytest.mark.parametrize("as_scp", [True, False])
def test_a_request_of_a_peer_that_has_not_its_role(command: Command, as_scp: bool) -> None:
    """This side must be SCP of what it is asked to do; an echo and a notification are answered in any role."""
    allowed = as_scp or command in (Command.C_ECHO_RQ, Command.N_EVENT_REPORT_RQ)
    answered = refused(a_request(command), ROLE_CASES[command], as_scp=as_scp)
    assert (answered is None) == allowed
    if answered is not None:
        assert (answered.Status, answered.CommandField) == (0x0211, command | 0x8000)
        assert "role" in (answered.ErrorComment or "")
        assert encode_command_set(answered.command)


@pytest.mark.parametrize(
    ("proposed", "supported", "by_requestor", "by_acceptor"),
    [
        pytest.param(None, (None, None), True, False, id="defaults"),
        pytest.param((True, True), (True, True), True, True, id="both"),
        pytest.param((False, True), (True, True), False, True, id="SCP only, as for C-GET or a report"),
        pytest.param((True, True), (None, None), True, False, id="proposed, not answered"),
        pytest.param((True, True), (False, True), False, True, id="SCU turned down"),
        pytest.param((False, True), (None, None), True, False, id="SCP only, not answered"),
    ],
)
@pytest.mark.parametrize("command", [Command.C_STORE_RQ, Command.N_SET_RQ])
def test_roles_as_they_were_negotiated(
    command: Command,
    proposed: tuple[bool, bool] | None,
    supported: tuple[bool | None, bool | None],
    by_requestor: bool,
    by_acceptor: bool,
) -> None:
    """Who may store or set, by PS3.7 D.3.3.4."""
    uid = ROLE_CASES[command]
    asked = propose(
        "B", "A", [(uid, [IVR])], maximum_length=0, items=[RoleSelection(uid, *proposed)] if proposed else []
    )
    answer = accept(asked, Policy((SupportedContext(uid, (IVR,), *supported),)), 0, Replies())
    for receiver_is_requestor, may_send in ((False, by_requestor), (True, by_acceptor)):
        [context] = negotiated(asked, answer, as_requestor=receiver_is_requestor).accepted
        answered = refused(a_request(command), uid, as_scp=context.as_scp)
        assert (answered is None) == may_send


# ---- statuses that a service does not have

PEER_TABLES: dict[str, Any] = {
    "C-FIND": peer_status.QR_FIND_SERVICE_CLASS_STATUS,
    "C-GET": peer_status.QR_GET_SERVICE_CLASS_STATUS,
    "C-MOVE": peer_status.QR_MOVE_SERVICE_CLASS_STATUS,
}
SERVICES = [value for value in vars(service_class).values() if isinstance(value, ServiceClass) and value.operations]
BY_OPERATION = [(service, operation) for service in SERVICES for operation in service.operations]


def statuses_of_the_peer(service: ServiceClass, operation: str) -> set[int]:
    """The codes that pynetdicom has for an operation of a service class."""
    if service is UnifiedProcedureStepServiceClass:
        table = peer_status.UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS
        if operation != "C-FIND":
            # It has one table for all; those of its query are not for the N services.
            return {code for code, (_, meaning) in table.items() if not is_of_the_query(code, meaning)}
        table = peer_status.MODALITY_WORKLIST_SERVICE_CLASS_STATUS
    elif service is service_class.BasicWorklistManagementServiceClass:
        table = peer_status.MODALITY_WORKLIST_SERVICE_CLASS_STATUS
    elif "C-MOVE" in service.operations:
        table = PEER_TABLES[operation]
    else:
        module = peer_services if hasattr(peer_services, service.name) else peer_n_services
        table = getattr(module, service.name).statuses
    return set(table)


def is_of_the_query(code: int, meaning: str) -> bool:
    return code in (0xFF00, 0xFF01, 0xA700, 0xA900) or meaning == "Unable to Process"


def test_all_23_service_classes_are_looked_at() -> None:
    assert len(SERVICES) == 23
    assert len(BY_OPERATION) == 59


@pytest.mark.parametrize(("service", "operation"), BY_OPERATION, ids=str)
def test_the_statuses_of_a_service_are_those_of_the_peer(service: ServiceClass, operation: str) -> None:
    listed = statuses_of_the_peer(service, operation)
    edges = {code + step for code in listed for step in (-1, 0, 1)} | {*range(0, 0x10000, 97), 0xFFFF}
    codes = edges & {*range(0x10000)}
    assert {code for code in codes if is_listed(service, operation, code)} == listed


def test_of_an_unknown_service_every_status_of_a_category_is_its_own() -> None:
    for code in (0x0000, 0x0001, 0x0110, 0xA123, 0xB123, 0xC123, 0xFE00, 0xFF00, 0xFF01):
        assert is_listed(UnknownServiceClass, "N-ACTION", code)
    for code in (0x0002, 0x0300, 0x9999, 0xD000, 0xFF02, 0xFFFF):
        assert not is_listed(UnknownServiceClass, "N-ACTION", code)


# ---- well-known instances


def test_a_wrong_instance_is_for_the_handler_to_judge() -> None:
    """PS3.4 J.3.2.1 gives Storage Commitment one well-known instance, but no status to an SCP that is asked another."""
    push_model = "1.2.840.10008.1.20.1"
    event = event_of(NAction, push_model, RequestedSOPInstanceUID="1.2.3", ActionTypeID=1)
    assert refused(event.request, push_model) is None

    def on_action(event: NAction) -> tuple[int, None]:
        known = event.request.RequestedSOPInstanceUID == StorageCommitmentPushModelInstance
        return (0x0000 if known else 0x0112), None

    done = play_single(normalized_answer, event, on_action)
    assert (done.status, done.response.AffectedSOPInstanceUID) == (0x0112, "1.2.3")


# ---- registered


def test_a_registered_sop_class_has_the_operations_of_its_service() -> None:
    uid = "1.2.826.0.1.3680043.9.3811.77.1"
    register_uid(uid, "RefusedTestStorage", StorageServiceClass)
    assert refused(store_rq(AffectedSOPClassUID=uid), uid) is None
    other = message(Command.C_ECHO_RQ, 3, MessageID=1, AffectedSOPClassUID=uid)
    answered = refused(other, uid)
    assert answered is not None
    assert answered.Status == 0x0211


def test_a_request_without_a_sop_class_is_not_for_this_context() -> None:
    bare = Message({"CommandField": int(Command.C_STORE_RQ), "MessageID": 9}, 3)
    answered = refused(bare, CT)
    assert answered is not None
    assert (answered.Status, answered.AffectedSOPClassUID) == (0x0122, None)


# ---- what goes along


@pytest.mark.parametrize(
    ("value", "code", "elements"),
    [
        (0x0000, 0x0000, {}),
        (0xFFFF, 0xFFFF, {}),
        (Status.SUCCESS, 0x0000, {}),
        (Status(0xA700, STORAGE_SERVICE_CLASS_STATUS), 0xA700, {}),
        (Status(0xB000, ErrorComment="coerced"), 0xB000, {"ErrorComment": "coerced"}),
        (Status(0xA900, OffendingElement=0x00100010), 0xA900, {"OffendingElement": (0x00100010,)}),
        (Status(0xA900, OffendingElement=[0x00100010, 0x00080018]), 0xA900, {"OffendingElement": (0x100010, 0x80018)}),
        (Status(0x0110, ErrorID=0, ErrorComment=""), 0x0110, {"ErrorID": 0}),
        (dataset(Status=0xB000), 0xB000, {}),
        (dataset(Status=0x0000, PatientName="not for the command"), 0x0000, {}),
        (dataset(Status=0xA900, OffendingElement=0x00100010), 0xA900, {"OffendingElement": (0x00100010,)}),
        (
            dataset(Status=0xC000, OffendingElement=[0x00100010, 0x00080018], ErrorComment="é" * 70, ErrorID=65535),
            0xC000,
            {"OffendingElement": (0x100010, 0x80018), "ErrorComment": "é" * 64, "ErrorID": 65535},
        ),
        (dataset(Status=0x0000, AffectedSOPInstanceUID="1.9"), 0x0000, {"AffectedSOPInstanceUID": "1.9"}),
        (dataset(Status=0x0000, ErrorComment=None, OffendingElement=None), 0x0000, {}),
    ],
)
def test_a_status_and_its_elements(value: Any, code: int, elements: dict[str, Any]) -> None:
    outcome = outcome_of(value)
    assert (outcome.code, dict(outcome.elements), outcome.fault) == (code, elements, "")
    given, fault, _ = answer(store(), returning(value))
    assert fault == ""
    for keyword, wanted in elements.items():
        assert given.command[keyword] == wanted
    sent = decode_command_set(encode_command_set(given.command))
    assert sent.get("OffendingElement") == elements.get("OffendingElement")
    assert type(outcome.code) is int


def test_a_response_identifies_its_request() -> None:
    given, _, _ = answer(store(), returning(0))
    assert given == Message(
        {
            "CommandField": 0x8001,
            "MessageIDBeingRespondedTo": 8,
            "CommandDataSetType": 0x0101,
            "Status": 0,
            "AffectedSOPClassUID": CT,
            "AffectedSOPInstanceUID": "1.2.3",
        },
        3,
    )
    assert answer(echo(), returning(0))[0].AffectedSOPInstanceUID is None


def test_an_echo_response_carries_no_instance() -> None:
    """What PS3.7 does not allow in a response stays out of it, whatever the handler says."""
    given, fault, _ = answer(echo(), returning(Status(0x0000, AffectedSOPInstanceUID="1.2", ErrorComment="hello")))
    assert (given.AffectedSOPInstanceUID, given.ErrorComment, fault) == (None, "hello", "")


@MANY
@given(
    st.sampled_from([kind for kind in Command if not kind.is_response and kind != Command.C_CANCEL_RQ]).flatmap(
        messages
    )
)
def test_every_request_has_a_response(asked: Message) -> None:
    """For a status alone: the request identified, in elements that its response may carry."""
    given = response(asked, outcome_of(0x0110))
    assert given.CommandField == asked.kind | 0x8000
    assert (given.context_id, given.MessageIDBeingRespondedTo) == (asked.context_id, asked.MessageID)
    required, optional, _ = COMMANDS[given.kind]
    assert required <= given.command.keys() <= required | optional | {"CommandField", "CommandDataSetType"}
    decoded = decode_command_set(encode_command_set(given.command))
    assert {key: value for key, value in decoded.items() if key != "CommandGroupLength"} == given.command


# ---- whatever a handler does

_ANY = st.none() | st.booleans() | st.integers(-5, 70_000) | st.text(max_size=70) | st.lists(st.integers(0, 1 << 33))
_ELEMENTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("ErrorComment", "ErrorID", "AffectedSOPInstanceUID"), _ANY)
)


@st.composite
def _statuses(draw: st.DrawFn) -> Status:
    return Status(draw(st.integers(0, 0xFFFF)), **draw(_ELEMENTS))


@st.composite
def _datasets(draw: st.DrawFn) -> Dataset:
    made = Dataset()
    for keyword in draw(st.sets(st.sampled_from(["Status", "ErrorComment", "ErrorID", "OffendingElement"]))):
        raw = draw(st.binary(max_size=9))
        tag = Tag(0x0000, ELEMENTS[keyword].number)
        made[tag] = RawDataElement(tag, ELEMENTS[keyword].vr, len(raw), raw, 0, True, True)
    return made


_RETURNED = st.one_of(_ANY, _statuses(), _datasets(), st.tuples(_ANY, _ANY)).map(returning)
_RAISED = st.sampled_from([ValueError("x"), OSError(5, "EIO"), DatasetError("y"), StopIteration(3)]).map(raising)


@MANY
@given(st.sampled_from([echo, store]), _RETURNED | _RAISED)
def test_one_response_whatever_a_handler_does(make: Callable[[], ServiceEvent], handler: Callable[[Any], Any]) -> None:
    """One call, one response that can be sent and identifies its request; a fault has a failure status and a text."""
    event = make()
    given, fault, calls = answer(event, handler)
    assert calls == 1
    assert 0 <= (given.Status if given.Status is not None else -1) <= 0xFFFF
    assert given.MessageIDBeingRespondedTo == event.message_id
    assert given.CommandField == event.request.kind | 0x8000
    if fault:
        assert given.Status in (0x0000, 0xA700, 0xC001, 0xC002, 0xC210, 0xC211)
        assert given.Status or event.event.name == "EVT_C_ECHO"


Row = tuple[Callable[[Any], Any], int, int, bool]
"""What a handler does, the status of a C-ECHO and of a C-STORE by the table, and whether that is a fault."""

_CODES = st.integers(0, 0xFFFF) | st.sampled_from([0x0000, 0xB000, 0xB007, 0xA700, 0xC000, 0xFE00, 0xFF00, 0xFFFF])
_RAISES: list[Row] = [
    (raising(ValueError("x")), 0x0000, 0xC211, True),
    (raising(KeyError()), 0x0000, 0xC211, True),
    (raising(DatasetError("x")), 0x0000, 0xC210, True),
    (raising(OSError(28, "full")), 0x0000, 0xA700, True),
]


def _row(value: Any, code: int, *, is_fault: bool) -> Row:
    return returning(value), code, code, is_fault


def _good(code: int) -> st.SearchStrategy[Row]:
    forms = st.sampled_from([code, Status(code), dataset(Status=code), dataset(Status=code, ErrorComment="x")])
    return forms.map(lambda value: _row(value, code, is_fault=False))


_NO_STATUS = st.sampled_from([Dataset(), dataset(ErrorComment="x"), dataset(PatientID="7")])
_WRONG_TYPE = (
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.integers(max_value=-1) | st.integers(0x10000)
)
_WRONG_TYPES = _WRONG_TYPE | st.lists(_WRONG_TYPE) | st.tuples(st.just(0), st.none()) | st.just(dataset(Status=None))


@MANY
@given(
    st.booleans(),
    st.one_of(
        _CODES.flatmap(_good),
        _NO_STATUS.map(lambda value: _row(value, 0xC001, is_fault=True)),
        _WRONG_TYPES.map(lambda value: _row(value, 0xC002, is_fault=True)),
        st.sampled_from(_RAISES),
    ),
    st.booleans(),
)
def test_the_status_is_that_of_the_table(is_echo: bool, row: Row, kept: bool) -> None:
    """The same sequence for a dataset that was not kept: then the handler is not asked, and A700 is the answer."""
    handler, echoed, stored, is_fault = row
    event = echo() if is_echo else store(None if kept else Encoded(IVR, error=OSError("disk full")))
    given, fault, calls = answer(event, handler)
    if is_echo or kept:
        assert (given.Status, bool(fault), calls) == (echoed if is_echo else stored, is_fault, 1)
    else:
        assert (given.Status, bool(fault), calls) == (0xA700, True, 0)
