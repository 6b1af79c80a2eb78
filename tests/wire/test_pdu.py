"""The seven PDUs: golden bytes of PS3.8 §9.3, round trips, damage, memory, and what slightly wrong peers send."""

import contextlib
import tracemalloc
from collections.abc import Iterator

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu as peer

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.items import (
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
    item,
)
from rxdicom.wire.pdu import (
    PDU,
    PDU_NAMES,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
    encode_ae_title,
    encode_pdu,
)

from .strategies import MANY, PDUS, REPEATABLE, damaged, pdus

_IDENTIFICATION = (
    MaximumLength(16384),
    ImplementationClassUID("1.2.276.0.7230010.3.0.3.6.7"),
    ImplementationVersionName("OFFIS_DCMTK_367"),
)
_IDENTIFICATION_BYTES = (
    b"\x50\x00\x00\x3a"  # user information, 58 bytes
    b"\x51\x00\x00\x04" b"\x00\x00\x40\x00"  # maximum length 16384
    b"\x52\x00\x00\x1b" b"1.2.276.0.7230010.3.0.3.6.7"  # implementation class UID
    b"\x55\x00\x00\x0f" b"OFFIS_DCMTK_367"  # implementation version name
)  # fmt: skip

GOLDEN: dict[str, tuple[PDU, bytes, type[peer.PDU]]] = {
    "A-ASSOCIATE-RQ": (
        AssociateRQ(
            "ANY-SCP",
            "ECHOSCU",
            _IDENTIFICATION,
            presentation_contexts=(
                PresentationContextRQ(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")),
            ),
        ),
        b"\x01\x00\x00\x00\x00\xe4"  # type, reserved, 228 bytes follow
        b"\x00\x01" b"\x00\x00"  # protocol version 1, reserved
        b"ANY-SCP         " b"ECHOSCU         "  # called, calling AE title
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved
        b"\x10\x00\x00\x15" b"1.2.840.10008.3.1.1.1"  # application context
        b"\x20\x00\x00\x45" b"\x01\x00\x00\x00"  # presentation context 1
        b"\x30\x00\x00\x11" b"1.2.840.10008.1.1"  # abstract syntax
        b"\x40\x00\x00\x11" b"1.2.840.10008.1.2"  # transfer syntaxes
        b"\x40\x00\x00\x13" b"1.2.840.10008.1.2.1" + _IDENTIFICATION_BYTES,
        peer.A_ASSOCIATE_RQ,
    ),
    "A-ASSOCIATE-AC": (
        AssociateAC(
            "ANY-SCP",
            "ECHOSCU",
            _IDENTIFICATION,
            presentation_contexts=(PresentationContextAC(1, 0, "1.2.840.10008.1.2"),),
        ),
        b"\x02\x00\x00\x00\x00\xb8"  # type, reserved, 184 bytes follow
        b"\x00\x01" b"\x00\x00"  # protocol version 1, reserved
        b"ANY-SCP         " b"ECHOSCU         "  # reserved: the AE titles of the request
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved
        b"\x10\x00\x00\x15" b"1.2.840.10008.3.1.1.1"  # application context
        b"\x21\x00\x00\x19" b"\x01\x00\x00\x00"  # presentation context 1, acceptance
        b"\x40\x00\x00\x11" b"1.2.840.10008.1.2" + _IDENTIFICATION_BYTES,
        peer.A_ASSOCIATE_AC,
    ),
    "A-ASSOCIATE-RJ": (
        AssociateRJ(result=1, source=2, reason=1),
        b"\x03\x00\x00\x00\x00\x04" b"\x00" b"\x01" b"\x02" b"\x01",  # reserved, result, source, reason
        peer.A_ASSOCIATE_RJ,
    ),
    "P-DATA-TF": (
        PDataTF((PDV(1, 3, b"command"), PDV(255, 0, b""), PDV(3, 2, b"\x00\xff"))),
        b"\x04\x00\x00\x00\x00\x1b"  # type, reserved, 27 bytes follow
        b"\x00\x00\x00\x09" b"\x01" b"\x03" b"command"  # length, context 1, command and last
        b"\x00\x00\x00\x02" b"\xff" b"\x00"  # context 255, dataset, not last, empty
        b"\x00\x00\x00\x04" b"\x03" b"\x02" b"\x00\xff",  # context 3, dataset, last
        peer.P_DATA_TF,
    ),
    "A-RELEASE-RQ": (ReleaseRQ(), b"\x05\x00\x00\x00\x00\x04" b"\x00\x00\x00\x00", peer.A_RELEASE_RQ),
    "A-RELEASE-RP": (ReleaseRP(), b"\x06\x00\x00\x00\x00\x04" b"\x00\x00\x00\x00", peer.A_RELEASE_RP),
    "A-ABORT": (
        Abort(source=2, reason=5),
        b"\x07\x00\x00\x00\x00\x04" b"\x00\x00" b"\x02" b"\x05",  # 2 reserved, source, reason
        peer.A_ABORT_RQ,
    ),
}  # fmt: skip

FULL: dict[str, bytes] = {
    **{name: golden for name, (_, golden, _) in GOLDEN.items()},
    "RQ with every item": encode_pdu(
        AssociateRQ(
            "CALLED",
            "CALLING",
            (
                *_IDENTIFICATION,
                AsyncOperationsWindow(8, 1),
                RoleSelection("1.2.840.10008.5.1.4.1.1.2", scu_role=True, scp_role=True),
                SOPClassExtended("1.2.840.10008.5.1.4.1.2.1.1", b"\x01\x01"),
                SOPClassCommonExtended("1.2.3", "1.2.840.10008.4.2", ("1.2.4", "1.2.5")),
                UserIdentity(2, True, b"jdoe", b"secret"),
            ),
            presentation_contexts=tuple(PresentationContextRQ(n, "1.2.3", ("1.2.840.10008.1.2",)) for n in (1, 3)),
        )
    ),
    "AC with a user identity response": encode_pdu(
        AssociateAC("CALLED", "CALLING", (UserIdentityResponse(b"ticket"),), presentation_contexts=())
    ),
}


def pdu_bytes(pdu_type: int, body: bytes) -> bytes:
    return bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body


def request(*items: bytes) -> bytes:
    """An A-ASSOCIATE-RQ of the fixed part and these items."""
    return pdu_bytes(1, b"\0\1\0\0" + b"CALLED".ljust(16) + b"CALLING".ljust(16) + bytes(32) + b"".join(items))


def refused_or_understood(data: bytes) -> None:
    """Decode; what is understood must come through encoding and decoding unchanged, anything else be a refusal."""
    try:
        understood = decode_pdu(data)
    except PeerProtocolError as refusal:
        reason = refusal.reason
    else:
        assert decode_pdu(encode_pdu(understood)) == understood
        return
    assert reason in (1, 6)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    record, golden, _ = GOLDEN[name]
    assert encode_pdu(record) == golden
    assert decode_pdu(golden) == record
    assert PDU_NAMES[golden[0]] == record.name == name


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_those_of_an_independent_codec(name: str) -> None:
    _, golden, peer_type = GOLDEN[name]
    theirs = peer_type()
    theirs.decode(golden)
    assert theirs.encode() == golden


@pytest.mark.parametrize("kind", PDUS)
@REPEATABLE
@given(data=st.data())
def test_round_trip(kind: type[PDU], data: st.DataObject) -> None:
    record = data.draw(PDUS[kind])
    encoded = encode_pdu(record)
    assert decode_pdu(encoded) == record
    assert encode_pdu(decode_pdu(encoded)) == encoded


@REPEATABLE
@given(record=pdus)
def test_an_independent_codec_reads_and_writes_the_same(record: PDU) -> None:
    if isinstance(record, AssociateRQ | AssociateAC):
        record = evolve(record, reserved=bytes(32))
    theirs = GOLDEN[record.name][2]()
    theirs.decode(encode_pdu(record))
    assert decode_pdu(theirs.encode()) == record


def overwritten(data: bytes) -> Iterator[bytes]:
    """Every 16 and 32 bit field, wherever it may lie, one less, one more, 0, all ones, and half of that.

    Length fields are among them, and nothing here has to know where.
    """
    for width in (2, 4):
        top = (1 << 8 * width) - 1
        for at in range(len(data) - width + 1):
            value = int.from_bytes(data[at : at + width], "big")
            for wrong in (value - 1, value + 1, 0, top, top >> 1):
                yield data[:at] + (wrong & top).to_bytes(width, "big") + data[at + width :]


@pytest.mark.parametrize("name", FULL)
def test_wrong_length_fields_are_refused_without_allocating(name: str) -> None:
    tracemalloc.start()
    try:
        for wrong in overwritten(FULL[name]):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            refused_or_understood(wrong)
            assert tracemalloc.get_traced_memory()[1] - before < 32768
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FULL)
def test_truncated_and_overlong_pdus_are_refused(name: str) -> None:
    whole = FULL[name]
    for cut in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        with pytest.raises(PeerProtocolError) as refusal:
            decode_pdu(cut)
        assert refusal.value.reason == 6
    for end in range(6, len(whole)):
        refused_or_understood(pdu_bytes(whole[0], whole[6:end]))


@MANY
@given(data=st.binary(max_size=120))
def test_any_bytes_are_refused_or_understood(data: bytes) -> None:
    refused_or_understood(data)
    for pdu_type in (1, 2, 3, 4, 5, 6, 7, 8):
        refused_or_understood(pdu_bytes(pdu_type, data))
    for pdu_type in (1, 2):
        refused_or_understood(pdu_bytes(pdu_type, bytes(68) + data))
        refused_or_understood(pdu_bytes(pdu_type, bytes(68) + item(0x50, data)))


@MANY
@given(body=damaged(pdus.map(encode_pdu)), whole_header=st.booleans())
def test_damaged_pdus_are_refused_or_understood(body: bytes, whole_header: bool) -> None:
    refused_or_understood(pdu_bytes(body[0], body[6:]) if whole_header and len(body) > 6 else body)


_TINY = {
    "unknown items": request(item(0x99, b"") * 16300),
    "unknown user items": request(item(0x50, item(0x99, b"") * 16300)),
    "known user items": request(item(0x50, item(0x52, b"") * 16300)),
    "a thousand role selections": request(item(0x50, item(0x54, b"\0\x34" + b"1" * 52 + b"\1\1") * 1024)),
    "application contexts": request(item(0x10, b"") * 16300),
    "user informations": request(item(0x50, item(0x51, bytes(4))) * 5400),
    "contexts": request(item(0x20, b"\1\0\0\0" + item(0x30, b"")) * 5400),
    "empty transfer syntaxes": request(item(0x20, b"\1\0\0\0" + item(0x30, b"") + item(0x40, b"") * 16300)),
    "short transfer syntaxes": request(item(0x20, b"\1\0\0\0" + item(0x30, b"") + item(0x40, b"12") * 10800)),
    "empty related classes": request(item(0x50, item(0x57, bytes(4) + b"\xfe\x00" + bytes(0xFE00)))),
    "short related classes": request(item(0x50, item(0x57, bytes(4) + b"\xfe\x00" + b"\0\x0212" * 0x3F80))),
    "escaped related classes": request(item(0x50, item(0x57, bytes(4) + b"\xfd\xfe" + b"\0\1\xff" * 0x54AA))),
    "escapes": request(item(0x50, item(0x52, b"\xff" * 65000))),
    "presentation data values": pdu_bytes(4, b"\0\0\0\2\1\0" * 10900),
}


@pytest.mark.parametrize("name", _TINY)
def test_tens_of_thousands_of_tiny_items_cost_at_most_2_mib(name: str) -> None:
    data = _TINY[name]
    assert len(data) <= 65536 + 6
    tracemalloc.start()
    try:
        with contextlib.suppress(PeerProtocolError):
            decode_pdu(data)
        assert tracemalloc.get_traced_memory()[1] <= 2 << 20
    finally:
        tracemalloc.stop()


def test_too_many_contexts_are_refused() -> None:
    contexts = [item(0x20, bytes((n % 256, 0, 0, 0)) + item(0x30, b"1.2") + item(0x40, b"1.3")) for n in range(129)]
    decoded = decode_pdu(request(*contexts[:128]))
    assert isinstance(decoded, AssociateRQ)
    assert [context.context_id for context in decoded.presentation_contexts] == list(range(128))
    with pytest.raises(PeerProtocolError, match="more than 128"):
        decode_pdu(request(*contexts))


@pytest.mark.parametrize("pdu_type", [0x00, 0x08, 0x16, 0x47, 0xFF])
def test_an_unknown_pdu_is_unrecognised(pdu_type: int) -> None:
    with pytest.raises(PeerProtocolError) as refusal:
        decode_pdu(pdu_bytes(pdu_type, bytes(4)))
    assert refusal.value.reason == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04\0\0\0\0",
        pdu_bytes(1, b""),
        pdu_bytes(1, bytes(67)),
        pdu_bytes(2, bytes(67)),
        pdu_bytes(3, bytes(3)),
        pdu_bytes(3, b""),
        pdu_bytes(7, b""),
        pdu_bytes(5, bytes(3)),
        pdu_bytes(5, b"") + bytes(4),
        pdu_bytes(6, bytes(5)),
        pdu_bytes(4, b""),
        pdu_bytes(4, bytes(5)),
        pdu_bytes(4, b"\0\0\0\0\1\0"),
        pdu_bytes(4, b"\0\0\0\1\1\0"),
        pdu_bytes(4, b"\0\0\0\1\1" + b"\0\0\0\2\1\0"),
        pdu_bytes(4, b"\0\0\0\3\1\0"),
        pdu_bytes(4, b"\xff\xff\xff\xff\1\0"),
        pdu_bytes(4, b"\0\0\0\2\1\0" + bytes(5)),
        request(b"\x10\0\0"),
        request(b"\x10\0\0\1"),
    ],
)
def test_invalid_structures_are_refused(data: bytes) -> None:
    with pytest.raises(PeerProtocolError) as refusal:
        decode_pdu(data)
    assert refusal.value.reason == 6


def item_headers(data: bytes, start: int, end: int) -> Iterator[int]:
    """Where the items of an A-ASSOCIATE begin, nested ones too."""
    while start < end:
        yield start
        after = start + 4 + int.from_bytes(data[start + 2 : start + 4], "big")
        if (inner := {0x20: 8, 0x21: 8, 0x50: 4}.get(data[start])) is not None:
            yield from item_headers(data, start + inner, after)
        start = after


_RESERVED = {0x03: [6], 0x05: [6, 7, 8, 9], 0x06: [6, 7, 8, 9], 0x07: [6, 7]}


def reserved_bytes(data: bytes) -> Iterator[int]:
    """The offsets of all reserved bytes, but for the 32 that come back in the record."""
    yield 1
    yield from _RESERVED.get(data[0], [])
    if data[0] in (1, 2):
        yield from (8, 9)
        for at in item_headers(data, 74, len(data)):
            yield at + 1
            yield from {0x20: (at + 5, at + 6, at + 7), 0x21: (at + 5, at + 7)}.get(data[at], ())


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [0x01, 0xFF])
def test_reserved_fields_may_have_any_value(name: str, value: int) -> None:
    scribbled = bytearray(FULL[name])
    for at in reserved_bytes(FULL[name]):
        scribbled[at] = value
    assert scribbled != FULL[name]
    assert decode_pdu(bytes(scribbled)) == decode_pdu(FULL[name])


def test_the_reserved_field_of_a_request_is_kept_for_the_answer() -> None:
    data = bytearray(FULL["A-ASSOCIATE-RQ"])
    data[42:74] = bytes(range(32))
    decoded = decode_pdu(bytes(data))
    assert isinstance(decoded, AssociateRQ)
    assert decoded.reserved == bytes(range(32))


@pytest.mark.parametrize(
    ("data", "record"),
    [
        (pdu_bytes(3, b"\0\7\xff\x63"), AssociateRJ(7, 255, 99)),
        (pdu_bytes(7, b"\0\0\1\2"), Abort(1, 2)),
        (pdu_bytes(7, b"\0\0\xff\xff"), Abort(255, 255)),
        (pdu_bytes(5, b""), ReleaseRQ()),
        (pdu_bytes(6, b""), ReleaseRP()),
        (pdu_bytes(4, b"\0\0\0\2\2\xff"), PDataTF((PDV(2, 255, b""),))),
        (pdu_bytes(4, b"\0\0\0\5\1\0abc"), PDataTF((PDV(1, 0, b"abc"),))),
        (
            pdu_bytes(4, b"\0\0\0\4\1\3co" + b"\0\0\0\4\1\2da"),
            PDataTF((PDV(1, 3, b"co"), PDV(1, 2, b"da"))),
        ),
    ],
)
def test_codes_out_of_the_tables_and_short_releases_are_tolerated(data: bytes, record: PDU) -> None:
    assert decode_pdu(data) == record


def test_what_a_request_leaves_out_has_the_defaults_of_the_standard() -> None:
    bare = decode_pdu(request())
    assert isinstance(bare, AssociateRQ)
    assert (bare.called_ae_title, bare.calling_ae_title) == ("CALLED", "CALLING")
    assert (bare.application_context, bare.presentation_contexts, bare.user_information) == ("", (), ())
    assert (bare.maximum_length, bare.asynchronous_operations_window) == (0, (1, 1))
    assert bare.implementation_class_uid is bare.implementation_version_name is None
    assert bare.items_of(RoleSelection) == ()
    full = decode_pdu(FULL["RQ with every item"])
    assert isinstance(full, AssociateRQ)
    assert (full.maximum_length, full.asynchronous_operations_window) == (16384, (8, 1))
    assert full.implementation_class_uid == "1.2.276.0.7230010.3.0.3.6.7"
    assert full.implementation_version_name == "OFFIS_DCMTK_367"
    assert [role.sop_class_uid for role in full.items_of(RoleSelection)] == ["1.2.840.10008.5.1.4.1.1.2"]
    unlimited = decode_pdu(request(item(0x50, item(0x51, bytes(4)))))
    assert isinstance(unlimited, AssociateRQ)
    assert unlimited.maximum_length == 0


def test_items_for_the_policy_to_refuse_are_decoded() -> None:
    data = pdu_bytes(1, b"\0\0\0\0" + bytes(64) + item(0x10, b"1.2.3") + item(0x77, b"unknown"))
    decoded = decode_pdu(data)
    assert isinstance(decoded, AssociateRQ)
    assert (decoded.protocol_version, decoded.application_context, decoded.called_ae_title) == (0, "1.2.3", "")


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"  STORE SCP\0\0\0\0\0", "STORE SCP"),
        (b"SIXTEEN LETTERS!", "SIXTEEN LETTERS!"),
        (bytes(16), ""),
        (b" " * 16, ""),
        (b"PACS\xe9\xff          ", "PACS\\xe9\\xff"),
        (b"\xff" * 16, "\\xff" * 16),
        (b"A\r\n\x1b[31mB       ", "A\r\n\x1b[31mB"),
    ],
)
def test_ae_titles_are_tolerated_and_can_be_echoed(raw: bytes, title: str) -> None:
    data = pdu_bytes(1, b"\0\1\0\0" + raw + raw + bytes(32))
    decoded = decode_pdu(data)
    assert isinstance(decoded, AssociateRQ)
    assert decoded.called_ae_title == decoded.calling_ae_title == title
    # PS3.8 §9.3.3: the answer carries the titles of the request.
    answer = encode_pdu(AssociateAC(title, title))
    assert answer[10:26] == answer[26:42] == raw.strip(b" \0").ljust(16)


@pytest.mark.parametrize(("length", "tail"), [(65000, b""), (20000, b"\1\1")])
def test_what_was_decoded_can_be_echoed_whatever_its_bytes(length: int, tail: bytes) -> None:
    raw = b"\xff" * length
    items = item(0x52, raw) if not tail else item(0x54, length.to_bytes(2, "big") + raw + tail)
    decoded = decode_pdu(request(item(0x50, items)))
    assert encode_pdu(decoded) == request(item(0x10, b""), item(0x50, items))


@pytest.mark.parametrize(
    "record",
    [
        AssociateRQ("SEVENTEEN LETTERS", "ME"),
        AssociateRQ("IT", "SEVENTEEN LETTERS"),
        AssociateRQ("IT", "ME", protocol_version=65536),
        AssociateRQ("IT", "ME", (MaximumLength(-1),)),
        AssociateRQ("IT", "ME", (MaximumLength(1 << 32),)),
        AssociateRQ("IT", "ME", (AsyncOperationsWindow(65536, 1),)),
        AssociateRQ("IT", "ME", (UserIdentity(256, True, b""),)),
        AssociateRQ("IT", "ME", presentation_contexts=(PresentationContextRQ(256, "1.2", ()),)),
        AssociateRQ("IT", "ME", (ImplementationClassUID("1" * 40000), ImplementationClassUID("2" * 40000))),
        AssociateAC("IT", "ME", presentation_contexts=(PresentationContextAC(1, -1),)),
        AssociateRJ(256, 0, 0),
        Abort(0, -1),
        PDataTF((PDV(256, 0, b""),)),
    ],
)
def test_what_cannot_be_encoded_is_a_local_error(record: PDU) -> None:
    with pytest.raises(ArgumentError):
        encode_pdu(record)


def test_ae_titles_are_padded_with_spaces() -> None:
    assert encode_ae_title("") == b" " * 16
    assert encode_ae_title("EXACTLY SIXTEEN!") == b"EXACTLY SIXTEEN!"


@pytest.mark.parametrize("control", range(4))
def test_the_message_control_header(control: int) -> None:
    value = PDV(3, control, b"PATIENT^NAME")
    assert (value.is_command, value.is_last) == (control in (1, 3), control in (2, 3))
    assert "PATIENT" not in repr(PDataTF((value,)))
    assert "12 bytes" in repr(value)
