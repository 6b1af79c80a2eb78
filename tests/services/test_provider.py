"""The services that answer with a status: C-ECHO and C-STORE, driven by hand through every fault of their handlers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from rxdicom.errors import DatasetError
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.records import CEcho, CStore, EventContext, ServiceEvent
from rxdicom.service_class import StorageServiceClass
from rxdicom.services.effects import Call, Raised, Reply, Value
from rxdicom.services.outcome import outcome_of, response
from rxdicom.services.provider import refused, status_service
from rxdicom.sop_class import register_uid
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

from ..wire.strategies import MANY, messages

CT, ECHO, IVR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
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
    service = status_service(event)
    reply: Reply = None
    calls = 0
    try:
        while True:
            effect = next(service) if reply is None else service.send(reply)
            assert isinstance(effect, Call)
            assert effect.event is event
            calls += 1
            try:
                reply = Value(handler(event))
            except Exception as error:  # noqa: BLE001 - whatever the handler of a test raises
                reply = Raised(error)
    except StopIteration as stop:
        given, fault = stop.value
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
