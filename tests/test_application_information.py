"""Application information as records: bytes by the tables of PS3.4, whatever peers send, and who agrees on what."""

from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation as PeersItem

from rxdicom import AE, evt
from rxdicom.application_information import (
    ApplicationInformation,
    QueryRetrieveInformation,
    RetrieveInformation,
    StorageInformation,
    answer,
)
from rxdicom.errors import ArgumentError
from rxdicom.events.records import SOPExtended
from rxdicom.wire.items import SOPClassExtended

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
WORKLIST, CT = "1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.1.1.2"
SCU_ONLY = StorageInformation()

GOLDEN: list[tuple[ApplicationInformation, str]] = [
    (QueryRetrieveInformation(), "00"),
    (QueryRetrieveInformation(relational_queries=True), "01"),
    (QueryRetrieveInformation(date_time_matching=True), "000100"),
    (QueryRetrieveInformation(fuzzy_person_names=True), "000001"),
    (QueryRetrieveInformation(timezone_adjustment=True), "00000001"),
    (QueryRetrieveInformation(multi_frame_conversion=True), "0000000001"),
    (QueryRetrieveInformation(empty_value_matching=True), "00000000000100"),
    (QueryRetrieveInformation(multiple_value_matching=True), "00000000000001"),
    (QueryRetrieveInformation.worklist(), "010100"),
    (QueryRetrieveInformation.worklist(fuzzy_person_names=True), "010101"),
    (QueryRetrieveInformation.worklist(timezone_adjustment=True), "01010001"),
    (RetrieveInformation(), "00"),
    (RetrieveInformation(relational_retrieval=True), "01"),
    (RetrieveInformation(multi_frame_conversion=True), "0001"),
    (RetrieveInformation(relational_retrieval=True, multi_frame_conversion=True), "0101"),
    (SCU_ONLY, "030000000200"),
    (StorageInformation(level_of_support=0, element_coercion=1), "000000000100"),
    (StorageInformation(level_of_support=2, digital_signature_support=3, element_coercion=0), "020003000000"),
]
IDS = [f"{type(record).__name__}-{text}" for record, text in GOLDEN]

_bool = st.booleans()
_queries = st.builds(
    QueryRetrieveInformation,
    relational_queries=_bool,
    date_time_matching=_bool,
    fuzzy_person_names=_bool,
    timezone_adjustment=_bool,
    multi_frame_conversion=_bool,
    empty_value_matching=_bool,
    multiple_value_matching=_bool,
)
_retrievals = st.builds(RetrieveInformation, relational_retrieval=_bool, multi_frame_conversion=_bool)
_storages = st.builds(
    StorageInformation,
    level_of_support=st.integers(0, 3),
    digital_signature_support=st.integers(0, 3),
    element_coercion=st.integers(0, 2),
)
_options = _queries | _retrievals
_kinds = st.sampled_from([QueryRetrieveInformation, RetrieveInformation, StorageInformation])


# ---- bytes


@pytest.mark.parametrize(("record", "text"), GOLDEN, ids=IDS)
def test_the_bytes_are_those_of_the_tables(record: ApplicationInformation, text: str) -> None:
    assert record.encode() == bytes.fromhex(text)
    assert type(record).decode(bytes.fromhex(text)) == record


@given(_options | _storages)
def test_what_is_encoded_is_decoded(record: ApplicationInformation) -> None:
    assert type(record).decode(record.encode()) == record


@given(_options)
def test_an_acceptor_of_any_edition_knows_the_length(record: ApplicationInformation) -> None:
    """Editions had one, three, four, five and seven bytes for queries, one and two for retrievals."""
    lengths = (1, 3, 4, 5, 7) if isinstance(record, QueryRetrieveInformation) else (1, 2)
    encoded = record.encode()
    shorter = [length for length in lengths if length < len(encoded)]
    assert len(encoded) in lengths
    assert all(1 in encoded[length:] for length in shorter), "no longer than it has to be"


@given(_kinds, st.binary(max_size=9))
def test_whatever_a_peer_sends_means_something(kind: type[Any], sent: bytes) -> None:
    assert kind.decode(sent[:7]) == kind.decode(sent), "what a later edition adds is skipped"
    assert type(kind.decode(sent)) is kind


@pytest.mark.parametrize(
    ("sent", "record"),
    [
        (b"", SCU_ONLY),
        (b"\2", StorageInformation(level_of_support=2)),
        (b"\2\0\1", StorageInformation(level_of_support=2, digital_signature_support=1)),
        (
            b"\1\xff\2\xff\0\xff\1\1",
            StorageInformation(level_of_support=1, digital_signature_support=2, element_coercion=0),
        ),
        (b"\4\0\4\0\3\0", SCU_ONLY),
    ],
    ids=["nothing", "level only", "cut", "reserved bytes and more", "no such values"],
)
def test_storage_information_that_is_not_as_it_should_be(sent: bytes, record: StorageInformation) -> None:
    assert StorageInformation.decode(sent) == record


def test_an_option_is_wanted_by_a_one_only() -> None:
    assert QueryRetrieveInformation.decode(b"\2\xff\1") == QueryRetrieveInformation(fuzzy_person_names=True)
    assert QueryRetrieveInformation.decode(b"") == QueryRetrieveInformation()


@pytest.mark.parametrize(
    "given_",
    [{"level_of_support": 4}, {"level_of_support": -1}, {"digital_signature_support": 4}, {"element_coercion": 3}],
)
def test_values_that_do_not_exist_are_refused(given_: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(given_))):
        StorageInformation(**given_)


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SCU_ONLY.level_of_support = 2  # pyright: ignore[reportAttributeAccessIssue]


# ---- answers


@given(_options, st.binary(max_size=9))
def test_an_answer_is_what_both_want(supported: ApplicationInformation, asked: bytes) -> None:
    """Never more than was asked for, never longer than the question; a byte that is missing is a no."""
    kind, answered = type(supported), supported.answer(asked)
    wanted, offered = (each.encode().ljust(7, b"\0") for each in (kind.decode(asked), supported))
    assert len(answered) == min(len(asked), 7 if kind is QueryRetrieveInformation else 2)
    assert answered.ljust(7, b"\0") == bytes(one & other for one, other in zip(wanted, offered, strict=True))


@given(_storages, st.binary(max_size=9))
def test_a_storage_scp_says_what_it_is_whatever_was_asked(own: StorageInformation, asked: bytes) -> None:
    assert StorageInformation.decode(own.answer(asked)) == own


SUPPORTED: dict[str, ApplicationInformation] = {
    FIND: QueryRetrieveInformation(relational_queries=True, fuzzy_person_names=True),
    WORKLIST: QueryRetrieveInformation.worklist(timezone_adjustment=True),
    CT: StorageInformation(level_of_support=2, element_coercion=0),
}


def test_the_answer_to_an_association_request() -> None:
    asked = {FIND: b"\1\1\1\1\1", WORKLIST: b"\1\1\1", GET: b"\1", CT: SCU_ONLY.encode()}
    assert answer(asked, SUPPORTED) == {FIND: b"\1\0\1\0\0", WORKLIST: b"\1\1\0", CT: b"\2\0\0\0\0\0"}
    assert answer({}, SUPPORTED) == answer(asked, {}) == {}


# ---- items, and associations


def test_a_record_makes_its_item() -> None:
    assert QueryRetrieveInformation(relational_queries=True).item(FIND) == SOPClassExtended(FIND, b"\1")
    with pytest.raises(ArgumentError, match="not a UID"):
        SCU_ONLY.item("CTImageStorage")


def on_sop_extended(event: SOPExtended) -> dict[str, bytes]:
    return answer(event.app_info, SUPPORTED)


def test_two_sides_agree() -> None:
    ae = AE()
    for uid in (FIND, GET, CT):
        ae.add_supported_context(uid)
        ae.add_requested_context(uid)
    wanted = QueryRetrieveInformation(relational_queries=True, date_time_matching=True, fuzzy_person_names=True)
    items = [wanted.item(FIND), RetrieveInformation(relational_retrieval=True).item(GET), SCU_ONLY.item(CT)]
    handlers = [(evt.EVT_SOP_EXTENDED, on_sop_extended)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        with ae.associate(*server.address, ext_neg=items) as assoc:
            answered = assoc.acceptor.user_information
    finally:
        server.shutdown()
    got = {each.sop_class_uid: each.application_information for each in answered if isinstance(each, SOPClassExtended)}
    assert QueryRetrieveInformation.decode(got[FIND]) == QueryRetrieveInformation(
        relational_queries=True, fuzzy_person_names=True
    )
    assert StorageInformation.decode(got[CT]) == SUPPORTED[CT]
    assert RetrieveInformation.decode(got.get(GET, b"")) == RetrieveInformation()


def test_a_peer_agrees() -> None:
    ae = AE()
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_SOP_EXTENDED, on_sop_extended)])
    try:
        peer = ApplicationEntity()
        peer.add_requested_context(FIND)
        item = PeersItem()
        item.sop_class_uid = FIND
        item.service_class_application_information = b"\1\1\1\0\0"
        assoc = peer.associate(*server.address, ext_neg=[item])  # pyright: ignore[reportUnknownMemberType]
        assert assoc.is_established
        answered = assoc.acceptor.sop_class_extended
        assoc.release()
    finally:
        server.shutdown()
    assert answered == {FIND: b"\1\0\1\0\0"}
