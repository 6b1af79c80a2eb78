"""The N services as a provider: one handler call, one response, and 0x0110 for whatever a handler does wrong."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag

from rxdicom.errors import DatasetError
from rxdicom.events.datasets import decode
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.records import NAction, NCreate, NDelete, NEventReport, NGet, NSet, ServiceEvent
from rxdicom.services.normalized import normalized_answer
from rxdicom.status import Status

from ..wire.strategies import MANY
from .scripted import (
    DEFLATED,
    EVR,
    EVR_BE,
    IVR,
    MESSAGE_ID,
    Handler,
    Played,
    dataset,
    event_of,
    play_single,
    raising,
    returning,
    status_dataset,
)

SOP_CLASS, INSTANCE, MADE = "1.2.840.10008.3.1.2.3.3", "1.2.3", "1.2.840.99"
REQUESTS: dict[type[ServiceEvent], dict[str, Any]] = {
    NAction: {"RequestedSOPInstanceUID": INSTANCE, "ActionTypeID": 3},
    NCreate: {"AffectedSOPInstanceUID": INSTANCE},
    NDelete: {"RequestedSOPInstanceUID": INSTANCE},
    NEventReport: {"AffectedSOPInstanceUID": INSTANCE, "EventTypeID": 2},
    NGet: {"RequestedSOPInstanceUID": INSTANCE, "AttributeIdentifierList": (0x00100010,)},
    NSet: {"RequestedSOPInstanceUID": INSTANCE},
}
WITH_DATASET = (NAction, NCreate, NEventReport, NSet)
ALL = pytest.mark.parametrize("record", REQUESTS)
REPLY = dataset(PatientName="DOE^JOHN", PatientID="7")
CARRYING = (0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB300)
BARE = (0x0110, 0x0112, 0x0122, 0x0213, 0xA700, 0xC300, 0xFE00, 0xFF00, 0x0005, 0xFFFF)


class Hostile(Dataset):
    """A dataset that raises what nobody expects."""

    def keys(self) -> Any:
        raise RuntimeError("hostile")


def answered(
    record: type[ServiceEvent], handler: Handler, data: Any = None, syntax: str = EVR, **changes: Any
) -> Played:
    given_ = dataset(PatientID="1") if data is None and record in WITH_DATASET else data
    elements = {key: value for key, value in {**REQUESTS[record], **changes}.items() if value is not None}
    return play_single(normalized_answer, event_of(record, SOP_CLASS, given_, syntax, **elements), handler)


def created(value: Any, syntax: str = EVR) -> Played:
    """What a handler's answer to an N-CREATE that names no instance becomes."""
    return answered(NCreate, returning(value), syntax=syntax, AffectedSOPInstanceUID=None)


def unreadable(keyword: str) -> Dataset:
    """A dataset with an element that pydicom cannot decode, which shows when it is asked for."""
    made = dataset(Status=0x0000)
    tag = Tag(keyword)
    made[tag] = RawDataElement(tag, "US", 3, b"abc", 0, True, True)
    return made


# ---- what is answered


@ALL
def test_a_response_identifies_its_request(record: type[ServiceEvent]) -> None:
    sent = answered(record, returning(0x0000)).response
    asked = REQUESTS[record]
    wanted = {
        "CommandField": sent.CommandField,
        "MessageIDBeingRespondedTo": MESSAGE_ID,
        "CommandDataSetType": 0x0101,
        "Status": 0,
        "AffectedSOPClassUID": SOP_CLASS,
        "AffectedSOPInstanceUID": INSTANCE,
        **{key: asked[key] for key in ("ActionTypeID", "EventTypeID") if key in asked},
    }
    assert sent.command == wanted


@ALL
@pytest.mark.parametrize("status", [*CARRYING, *BARE])
def test_every_form_of_a_status(record: type[ServiceEvent], status: int) -> None:
    """Bare or in a pair; an int, a Status, a dataset."""
    for given_ in (status, Status(status), dataset(Status=status)):
        for value in (given_, (given_, None), [given_, None], (given_, Dataset())):
            done = answered(record, returning(value))
            assert (done.status, done.data, done.fault) == (status, None, "")


@ALL
@pytest.mark.parametrize("status", [*CARRYING, *BARE])
def test_a_dataset_goes_with_success_and_warnings_only(record: type[ServiceEvent], status: int) -> None:
    done = answered(record, returning((status, REPLY)))
    carried = status in CARRYING and record is not NDelete
    assert (done.status, done.data, done.fault) == (status, REPLY if carried else None, "")


@pytest.mark.parametrize("syntax", [IVR, EVR, EVR_BE, DEFLATED])
def test_the_transfer_syntax_is_that_of_the_context(syntax: str) -> None:
    sent = answered(NGet, returning((0x0000, REPLY)), syntax=syntax).response
    assert sent.data is not None
    assert (sent.data.transfer_syntax, decode(sent.data)) == (syntax, REPLY)


@ALL
@pytest.mark.parametrize("make", [Status, status_dataset])
def test_a_status_takes_its_elements_along(record: type[ServiceEvent], make: Any) -> None:
    sent = answered(record, returning(make(0x0110, ErrorComment="no", ErrorID=7))).response
    assert (sent.Status, sent.ErrorComment, sent.ErrorID) == (0x0110, "no", 7)
    warned = answered(record, returning((make(0x0107, ErrorComment="well"), None))).response
    assert (warned.Status, warned.ErrorComment) == (0x0107, "well")


@ALL
def test_the_default(record: type[ServiceEvent]) -> None:
    done = answered(record, DEFAULTS[record.event])
    assert (done.status, done.fault) == (0x0110, "")


def test_a_dataset_that_was_read_from_a_file() -> None:
    """Its class has another constructor than Dataset has; file meta and command elements stay here."""
    meta = FileMetaDataset()
    meta.ImplementationVersionName = "X"
    read = FileDataset("x.dcm", dataset(ErrorComment="x", PatientID="7"), file_meta=meta)
    done = answered(NGet, returning((0x0000, read)))
    assert (done.status, done.data, done.fault) == (0x0000, dataset(PatientID="7"), "")
    assert "ErrorComment" in read, "the handler's own is left as it was"


# ---- DESIGN §3: every fault of an N handler


FAULTY: list[Any] = [
    None,
    "Success",
    0.0,
    True,
    -1,
    0x10000,
    (),
    (0x0000,),
    (0x0000, None, None),
    ("x", None),
    (None, REPLY),
    (REPLY, 0x0000),
    Dataset(),
    REPLY,
    (Dataset(), None),
    dataset(Status=None),
    (dataset(ErrorComment="x"), REPLY),
    unreadable("Status"),
    unreadable("ErrorID"),
    Status(0x0000, ErrorID="x"),
    Status(0x0000, AffectedSOPInstanceUID="1.\N{SNOWMAN}"),
]
BAD_DATASETS: list[Any] = ["x", 5, [REPLY], {"PatientName": "DOE"}, object(), Hostile()]


@ALL
@pytest.mark.parametrize("value", FAULTY)
def test_a_status_that_cannot_be_sent(record: type[ServiceEvent], value: Any) -> None:
    done = answered(record, returning(value))
    assert (done.status, done.data) == (0x0110, None)
    assert done.fault
    assert "DOE" not in done.fault


@ALL
@pytest.mark.parametrize("bad", BAD_DATASETS)
def test_a_dataset_that_cannot_be_sent(record: type[ServiceEvent], bad: Any) -> None:
    """It matters only where it would be sent."""
    for status in (0x0000, 0xB000):
        done = answered(record, returning((status, bad)))
        assert (done.status, bool(done.fault)) == ((status, False) if record is NDelete else (0x0110, True))
        assert done.data is None
    assert answered(record, returning((0xC300, bad))).status == 0xC300


@ALL
@pytest.mark.parametrize("error", [ValueError("no"), KeyError(), OSError(28, "full"), DatasetError("cut off")])
def test_a_handler_that_raises(record: type[ServiceEvent], error: Exception) -> None:
    done = answered(record, raising(error))
    assert (done.status, done.data) == (0x0110, None)
    assert type(error).__name__ in done.fault


@pytest.mark.parametrize(
    ("record", "attribute"),
    [
        (NAction, "action_information"),
        (NCreate, "attribute_list"),
        (NEventReport, "event_information"),
        (NSet, "modification_list"),
        (NSet, "attribute_list"),
    ],
)
def test_a_dataset_that_the_handler_cannot_decode(record: type[ServiceEvent], attribute: str) -> None:
    done = answered(record, lambda event: (0x0000, getattr(event, attribute)), b"\xff" * 10)
    assert (done.status, done.data) == (0x0110, None)
    assert "DatasetError" in done.fault


def test_a_handler_that_yields() -> None:
    """As those of the C services do: it is not one."""

    def handler(event: object) -> Iterator[Any]:
        yield 0x0000, REPLY

    assert answered(NGet, handler).status == 0x0110


# ---- N-CREATE without an instance in the request


@pytest.mark.parametrize("status", [0x0000, 0x0107, 0xB300])
@pytest.mark.parametrize("syntax", [IVR, EVR_BE])
def test_the_handler_names_what_it_created(status: int, syntax: str) -> None:
    """In the status or the dataset: the UID goes into the command, and nothing of it stays in the dataset."""
    named = dataset(AffectedSOPInstanceUID=MADE, PatientName="DOE^JOHN", PatientID="7")
    for value, sent in [
        (Status(status, AffectedSOPInstanceUID=MADE), None),
        (dataset(Status=status, AffectedSOPInstanceUID=MADE), None),
        ((dataset(Status=status, AffectedSOPInstanceUID=MADE), REPLY), REPLY),
        ((status, named), REPLY),
        ((status, dataset(AffectedSOPInstanceUID=MADE)), None),
        ((Status(status, AffectedSOPInstanceUID=MADE), dataset(AffectedSOPInstanceUID="1.9")), None),
    ]:
        done = created(value, syntax)
        assert (done.status, done.response.AffectedSOPInstanceUID, done.fault) == (status, MADE, "")
        assert done.data == sent
    assert named.AffectedSOPInstanceUID == MADE, "the handler's own is left as it was"


@pytest.mark.parametrize(
    "beside",
    [None, Dataset(), REPLY, "x", 5]
    + [dataset(AffectedSOPInstanceUID=uid) for uid in ("", None, ["1.2", "1.3"], "1.é")],
)
def test_nobody_names_what_was_created(beside: Any) -> None:
    for status in (0x0000, 0xB300):
        done = created((status, beside))
        assert (done.status, done.response.AffectedSOPInstanceUID, done.data) == (0x0110, None, None)
        assert "named the instance" in done.fault


@pytest.mark.parametrize("status", [0x0110, 0x0111, 0xC309])
def test_what_was_not_created_needs_no_name(status: int) -> None:
    done = created((status, None))
    assert (done.status, done.response.AffectedSOPInstanceUID, done.fault) == (status, None, "")


def test_the_name_in_the_request_is_the_name() -> None:
    done = answered(NCreate, returning((0x0000, dataset(AffectedSOPInstanceUID="1.9", PatientID="7"))))
    assert (done.status, done.response.AffectedSOPInstanceUID) == (0x0000, INSTANCE)
    assert done.data == dataset(PatientID="7")


# ---- any answer whatever

_statuses = st.sampled_from([*CARRYING, *BARE]).flatmap(
    lambda code: st.sampled_from([(code, code), (Status(code), code), (dataset(Status=code), code)])
)
_faulty = st.sampled_from([(value, None) for value in FAULTY if not isinstance(value, tuple | list)])
_datasets = st.sampled_from(
    [(None, True), (REPLY, True), (Dataset(), True), (Hostile(), False), ("x", False), (7, False)]
)


@MANY
@given(
    st.sampled_from(list(REQUESTS)),
    st.booleans(),
    _statuses | _faulty,
    st.none() | _datasets,
    st.sampled_from(["returns", "returns", "returns", "raises"]),
)
def test_one_response_whatever_the_handler_does(
    record: type[ServiceEvent], named: bool, status: tuple[Any, int | None], beside: Any, does: str
) -> None:
    value, code = status
    returned = value if beside is None else (value, beside[0])
    handler = returning(returned) if does == "returns" else raising(ValueError("x"))
    unnamed = record is NCreate and not named
    names: dict[str, Any] = {"AffectedSOPInstanceUID": None} if unnamed else {}
    done = answered(record, handler, **names)

    accepted = code in CARRYING
    faulty = (
        does == "raises"
        or code is None
        or (accepted and unnamed)
        or (accepted and record is not NDelete and beside is not None and not beside[1])
    )
    carried = accepted and not faulty and record is not NDelete and beside is not None and beside[0] == REPLY
    assert (done.status, bool(done.fault)) == (0x0110 if faulty else code, faulty)
    assert done.data == (REPLY if carried else None)
