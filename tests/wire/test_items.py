"""The items of A-ASSOCIATE PDUs: golden bytes of PS3.8 §9.3 and PS3.7 Annex D, round trips, tolerances, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pynetdicom import pdu_items as peer

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.items import (
    MAX_USER_ITEMS,
    AsyncOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserIdentityResponse,
    UserItem,
    encode_items,
    item,
    parse_user_information,
    split_items,
)
from rxdicom.wire.uids import clean_uid

from .strategies import MANY, REPEATABLE, USER_ITEMS, presentation_context_ac, presentation_context_rq

USER_GOLDEN: list[tuple[UserItem, bytes, type[peer.PDUItem]]] = [
    # PS3.8 D.1.1: 51H, reserved, length 4, maximum length received
    (MaximumLength(16384), b"\x51\x00\x00\x04" b"\x00\x00\x40\x00", peer.MaximumLengthSubItem),
    # PS3.7 D.3.3.2.1: 52H, reserved, length 27, the UID without padding
    (
        ImplementationClassUID("1.2.276.0.7230010.3.0.3.6.7"),
        b"\x52\x00\x00\x1b" b"1.2.276.0.7230010.3.0.3.6.7",
        peer.ImplementationClassUIDSubItem,
    ),
    # PS3.7 D.3.3.3.1: 53H, reserved, length 4, maximum invoked, maximum performed
    (
        AsyncOperationsWindow(5, 258),
        b"\x53\x00\x00\x04" b"\x00\x05" b"\x01\x02",
        peer.AsynchronousOperationsWindowSubItem,
    ),
    # PS3.7 D.3.3.4.1: 54H, reserved, length 29, UID length 25, UID, SCU role, SCP role
    (
        RoleSelection("1.2.840.10008.5.1.4.1.1.2", scu_role=False, scp_role=True),
        b"\x54\x00\x00\x1d" b"\x00\x19" b"1.2.840.10008.5.1.4.1.1.2" b"\x00" b"\x01",
        peer.SCP_SCU_RoleSelectionSubItem,
    ),
    # PS3.7 D.3.3.2.3: 55H, reserved, length 15, the name
    (
        ImplementationVersionName("OFFIS_DCMTK_367"),
        b"\x55\x00\x00\x0f" b"OFFIS_DCMTK_367",
        peer.ImplementationVersionNameSubItem,
    ),
    # PS3.7 D.3.3.5.1: 56H, reserved, length 33, UID length 27, UID, service class application information
    (
        SOPClassExtended("1.2.840.10008.5.1.4.1.2.1.1", b"\x01\x00\x01\x01"),
        b"\x56\x00\x00\x21" b"\x00\x1b" b"1.2.840.10008.5.1.4.1.2.1.1" b"\x01\x00\x01\x01",
        peer.SOPClassExtendedNegotiationSubItem,
    ),
    # PS3.7 D.3.3.6.1: 57H, version 0, length 84, SOP class (29), service class (17), list of 32: one UID (30)
    (
        SOPClassCommonExtended(
            "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.4.2", ("1.2.840.10008.5.1.4.1.1.88.222",)
        ),
        b"\x57\x00\x00\x54"
        b"\x00\x1d" b"1.2.840.10008.5.1.4.1.1.88.22"
        b"\x00\x11" b"1.2.840.10008.4.2"
        b"\x00\x20" b"\x00\x1e" b"1.2.840.10008.5.1.4.1.1.88.222",
        peer.SOPClassCommonExtendedNegotiationSubItem,
    ),
    # PS3.7 D.3.3.7.1: 58H, reserved, length 16, type, response requested, primary (4), secondary (6)
    (
        UserIdentity(2, True, b"jdoe", b"secret"),
        b"\x58\x00\x00\x10" b"\x02" b"\x01" b"\x00\x04" b"jdoe" b"\x00\x06" b"secret",
        peer.UserIdentitySubItemRQ,
    ),
    # The same without passcode: its length field stays
    (
        UserIdentity(1, False, b"jdoe"),
        b"\x58\x00\x00\x0a" b"\x01" b"\x00" b"\x00\x04" b"jdoe" b"\x00\x00",
        peer.UserIdentitySubItemRQ,
    ),
    # PS3.7 D.3.3.7.2: 59H, reserved, length 8, server response (6)
    (UserIdentityResponse(b"ticket"), b"\x59\x00\x00\x08" b"\x00\x06" b"ticket", peer.UserIdentitySubItemAC),
]  # fmt: skip

CONTEXT_GOLDEN: list[tuple[PresentationContextRQ | PresentationContextAC, bytes, type[peer.PDUItem]]] = [
    # PS3.8 §9.3.2.2: 20H, reserved, length 69, ID, 3 reserved; 30H abstract syntax (17); 40H transfer syntaxes (17, 19)
    (
        PresentationContextRQ(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")),
        b"\x20\x00\x00\x45" b"\x01\x00\x00\x00"
        b"\x30\x00\x00\x11" b"1.2.840.10008.1.1"
        b"\x40\x00\x00\x11" b"1.2.840.10008.1.2"
        b"\x40\x00\x00\x13" b"1.2.840.10008.1.2.1",
        peer.PresentationContextItemRQ,
    ),
    # PS3.8 §9.3.3.2: 21H, reserved, length 25, ID, reserved, result, reserved; 40H transfer syntax (17)
    (
        PresentationContextAC(3, 0, "1.2.840.10008.1.2"),
        b"\x21\x00\x00\x19" b"\x03\x00\x00\x00" b"\x40\x00\x00\x11" b"1.2.840.10008.1.2",
        peer.PresentationContextItemAC,
    ),
    # The same refused: abstract syntax not supported
    (
        PresentationContextAC(255, 3, "1.2.840.10008.1.2"),
        b"\x21\x00\x00\x19" b"\xff\x00\x03\x00" b"\x40\x00\x00\x11" b"1.2.840.10008.1.2",
        peer.PresentationContextItemAC,
    ),
]  # fmt: skip

AnyItem = UserItem | PresentationContextRQ | PresentationContextAC

GOLDEN = [*USER_GOLDEN, *CONTEXT_GOLDEN]
NAMES = [type(record).__name__ for record, _, _ in GOLDEN]
STRATEGIES: dict[type[AnyItem], SearchStrategy[AnyItem]] = {
    **USER_ITEMS,
    PresentationContextRQ: presentation_context_rq,
    PresentationContextAC: presentation_context_ac,
}

UID = "1.2.840.10008.1.1"
LONG_UID = "1.2." + "3" * 90
RAW_UIDS = {  # as received, and as understood
    UID.encode(): UID,
    UID.encode() + b"\0": UID,
    UID.encode() + b"\0\0 \0": UID,
    UID.encode() + b"   ": UID,
    b" " + UID.encode(): UID,
    b"1.02.003": "1.02.003",
    LONG_UID.encode(): LONG_UID,
    b"": "",
    b"\0\0": "",
    b"1.2\xe9\n": "1.2\\xe9\n",
}


def refused_or_understood(kind: type[AnyItem], body: bytes) -> None:
    """Parse; what is understood must come through encoding and parsing unchanged, anything else be a refusal."""
    try:
        understood = kind.parse(body)
    except PeerProtocolError as refusal:
        reason = refusal.reason
    else:
        assert kind.parse(understood.body()) == understood
        return
    assert reason == 6


@pytest.mark.parametrize(("record", "golden", "_peer"), GOLDEN, ids=NAMES)
def test_golden_bytes(record: AnyItem, golden: bytes, _peer: object) -> None:
    assert encode_items((record,)) == golden
    assert type(record).parse(golden[4:]) == record


@pytest.mark.parametrize(("_record", "golden", "peer_type"), GOLDEN, ids=NAMES)
def test_golden_bytes_are_those_of_an_independent_codec(
    _record: object, golden: bytes, peer_type: type[peer.PDUItem]
) -> None:
    theirs = peer_type()
    theirs.decode(golden)
    assert theirs.encode() == golden


def test_user_information_keeps_all_items_in_order() -> None:
    records = tuple(record for record, _, _ in USER_GOLDEN)
    assert parse_user_information(b"".join(golden for _, golden, _ in USER_GOLDEN)) == records
    assert {record.item_type for record in records} == set(range(0x51, 0x5A))


@pytest.mark.parametrize("kind", STRATEGIES)
@REPEATABLE
@given(data=st.data())
def test_round_trip(kind: type[AnyItem], data: st.DataObject) -> None:
    record = data.draw(STRATEGIES[kind])
    [(item_type, body)] = split_items(encode_items((record,)), "a test")
    assert item_type == kind.item_type
    assert kind.parse(body) == record


@pytest.mark.parametrize(("record", "golden", "_peer"), GOLDEN, ids=NAMES)
def test_a_body_cut_anywhere_or_too_long_is_refused_or_understood(
    record: AnyItem, golden: bytes, _peer: object
) -> None:
    body = golden[4:]
    for cut in [*(body[:end] for end in range(len(body))), body + b"\0", body + b"\x40\0\0\1"]:
        refused_or_understood(type(record), cut)


@pytest.mark.parametrize("kind", STRATEGIES)
@MANY
@given(body=st.binary(max_size=60))
def test_any_body_is_refused_or_understood(kind: type[AnyItem], body: bytes) -> None:
    refused_or_understood(kind, body)


@pytest.mark.parametrize(("raw", "uid"), RAW_UIDS.items())
def test_uids_are_tolerated_in_every_item(raw: bytes, uid: str) -> None:
    counted = len(raw).to_bytes(2, "big") + raw
    assert clean_uid(raw) == uid
    assert ImplementationClassUID.parse(raw) == ImplementationClassUID(uid)
    assert RoleSelection.parse(counted + b"\1\0") == RoleSelection(uid, scu_role=True, scp_role=False)
    assert SOPClassExtended.parse(counted + b"info") == SOPClassExtended(uid, b"info")
    related = len(counted).to_bytes(2, "big") + counted
    assert SOPClassCommonExtended.parse(counted * 2 + related) == SOPClassCommonExtended(uid, uid, (uid,))
    syntaxes = b"\1\0\0\0" + item(0x30, raw) + item(0x40, raw) * 2
    assert PresentationContextRQ.parse(syntaxes) == PresentationContextRQ(1, uid, (uid, uid))
    assert PresentationContextAC.parse(b"\1\0\0\0" + item(0x40, raw)) == PresentationContextAC(1, 0, uid)


@pytest.mark.parametrize(
    ("rest", "syntax"),
    [
        (b"", ""),
        (item(0x40, b""), ""),
        (item(0x40, b"\xff junk"), "\\xff junk"),
        (item(0x99, b"junk"), ""),
        (b"\x40\x00\xff\xff1.2", ""),
        (b"\x40", ""),
        (item(0x40, b"1.2") * 2, "1.2"),
    ],
)
@pytest.mark.parametrize("result", [1, 2, 3, 4, 5, 255])
def test_the_transfer_syntax_of_a_refused_context_is_not_looked_at(result: int, rest: bytes, syntax: str) -> None:
    refused = PresentationContextAC.parse(bytes((7, 0xFF, result, 0xFF)) + rest)
    assert refused == PresentationContextAC(7, result, syntax)
    assert PresentationContextAC.parse(refused.body()) == refused


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (PresentationContextAC, b"\1\0\0\0"),
        (PresentationContextAC, b"\1\0\0\0" + item(0x40, b"1.2") * 2),
        (PresentationContextAC, b"\1\0\0\0" + item(0x40, b"1.2") + b"\0"),
        (PresentationContextRQ, b"\1\0\0"),
        (PresentationContextRQ, b"\1\0\0\0" + item(0x40, b"1.2")),
        (PresentationContextRQ, b"\1\0\0\0" + item(0x30, b"1.2") * 2),
        (MaximumLength, b"\0\0\0"),
        (MaximumLength, b"\0\0\0\0\0"),
        (AsyncOperationsWindow, b"\0\1\0"),
        (AsyncOperationsWindow, b"\0\1\0\1\0"),
        (RoleSelection, b"\0\3" + b"1.2" + b"\1"),
        (RoleSelection, b"\0\2" + b"1.2" + b"\1\1"),
        (SOPClassExtended, b"\0\4" + b"1.2"),
        (SOPClassCommonExtended, b"\0\1" + b"1" + b"\0\1" + b"2"),
        (SOPClassCommonExtended, b"\0\1" + b"1" + b"\0\1" + b"2" + b"\0\3" + b"\0\2" + b"3"),
        (UserIdentity, b"\1\0\0\4" + b"jdoe"),
        (UserIdentity, b"\1\0\0\4" + b"jdoe" + b"\0\0\0"),
        (UserIdentityResponse, b""),
        (UserIdentityResponse, b"\0\1"),
        (UserIdentityResponse, b"\0\0\0"),
    ],
)
def test_structural_errors_are_refused_as_invalid_parameters(kind: type[AnyItem], body: bytes) -> None:
    with pytest.raises(PeerProtocolError) as refusal:
        kind.parse(body)
    assert refusal.value.reason == 6


def test_values_out_of_the_tables_are_kept_for_the_policy_to_judge() -> None:
    assert PresentationContextRQ.parse(b"\2\xff\xff\xff" + item(0x30, b"1.2")) == PresentationContextRQ(2, "1.2", ())
    assert RoleSelection.parse(b"\0\1" + b"1" + b"\2\xff") == RoleSelection("1", scu_role=False, scp_role=False)
    assert UserIdentity.parse(b"\6\2\0\0\0\0") == UserIdentity(6, False, b"", b"")
    assert ImplementationVersionName.parse(b"NAME \0\0") == ImplementationVersionName("NAME")
    assert ImplementationVersionName.parse(b"\xe9") == ImplementationVersionName("\\xe9")
    later_version = b"\0\1" + b"1" + b"\0\1" + b"2" + b"\0\0" + b"more, of a later version"
    assert SOPClassCommonExtended.parse(later_version) == SOPClassCommonExtended("1", "2", ())


def test_unknown_items_of_a_context_are_skipped() -> None:
    noise = item(0x99, b"later")
    body = b"\1\0\0\0" + noise + item(0x30, b"1.2") + noise + item(0x40, b"1.3") + noise
    assert PresentationContextRQ.parse(body) == PresentationContextRQ(1, "1.2", ("1.3",))
    assert PresentationContextAC.parse(b"\1\0\0\0" + noise + item(0x40, b"1.3")) == PresentationContextAC(1, 0, "1.3")


def test_unknown_user_items_are_skipped_and_repeated_ones_kept() -> None:
    items = [MaximumLength(1), MaximumLength(2), UserIdentity(1, False, b"a"), UserIdentity(1, False, b"b")]
    noise = item(0x5A, b"later") + item(0x00, b"") + item(0xFF, bytes(999))
    assert parse_user_information(noise.join(encode_items((each,)) for each in items) + noise) == tuple(items)
    assert parse_user_information(b"") == ()


def test_the_number_of_user_items_is_limited() -> None:
    one = encode_items((MaximumLength(0),))
    assert len(parse_user_information(one * MAX_USER_ITEMS)) == MAX_USER_ITEMS
    with pytest.raises(PeerProtocolError, match="more than 1024"):
        parse_user_information(one * (MAX_USER_ITEMS + 1))


def test_secrets_stay_out_of_the_repr() -> None:
    shown = repr((UserIdentity(2, True, b"jdoe", b"secret"), UserIdentityResponse(b"ticket")))
    assert not any(secret in shown for secret in ("jdoe", "secret", "ticket"))
    assert "type=2" in shown


@pytest.mark.parametrize(
    "record",
    [
        ImplementationClassUID("1" * 65536),
        ImplementationClassUID("1.é"),
        RoleSelection("1" * 65532, scu_role=True, scp_role=True),
        SOPClassExtended("1.2", bytes(65532)),
        SOPClassCommonExtended("1", "2", ("1" * 40000, "2" * 40000)),
        UserIdentity(3, True, bytes(65536)),
        PresentationContextRQ(1, "1.2", ("1" * 40000, "2" * 40000)),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_does_not_fit_is_a_local_error(record: AnyItem) -> None:
    with pytest.raises(ArgumentError):
        encode_items((record,))
