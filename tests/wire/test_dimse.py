"""The 23 DIMSE messages: golden bytes of PS3.7 §9.3, §10.3 and Annex E, round trips, tolerances, refusals, bounds."""

import tracemalloc
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dsutils

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.dimse import (
    COMMANDS,
    DATASET,
    ELEMENTS,
    NO_DATASET,
    Command,
    Message,
    decode_command_set,
    encode_command_set,
    message,
)
from rxdicom.wire.encoded import Encoded

from .strategies import MANY, REPEATABLE, any_message, damaged, messages

h = bytes.fromhex

ELEMENT: dict[str, tuple[str, Any, bytes]] = {  # by number: keyword, value, tag (LE) + length (LE) + value
    "0002": ("AffectedSOPClassUID", "1.2.840.10008.1.1", h("0000 0200 12000000") + b"1.2.840.10008.1.1\0"),
    "0003": ("RequestedSOPClassUID", "1.2.840.10008.1.9", h("0000 0300 12000000") + b"1.2.840.10008.1.9\0"),
    "0110": ("MessageID", 7, h("0000 1001 02000000 0700")),
    "0120": ("MessageIDBeingRespondedTo", 0x1234, h("0000 2001 02000000 3412")),
    "0600": ("MoveDestination", "STORESCP", h("0000 0006 08000000") + b"STORESCP"),
    "0700": ("Priority", 2, h("0000 0007 02000000 0200")),
    "0900": ("Status", 0xA702, h("0000 0009 02000000 02A7")),
    "0901": ("OffendingElement", (0x00100020, 0x7FE00010), h("0000 0109 08000000 1000 2000 E07F 1000")),
    "0902": ("ErrorComment", "Out of space.", h("0000 0209 0E000000") + b"Out of space. "),
    "0903": ("ErrorID", 0xFFFF, h("0000 0309 02000000 FFFF")),
    "1000": ("AffectedSOPInstanceUID", "1.2.3.4", h("0000 0010 08000000") + b"1.2.3.4\0"),
    "1001": ("RequestedSOPInstanceUID", "1.2.3.45", h("0000 0110 08000000") + b"1.2.3.45"),
    "1002": ("EventTypeID", 1, h("0000 0210 02000000 0100")),
    "1005": ("AttributeIdentifierList", (0x00080018, 0x00280010), h("0000 0510 08000000 0800 1800 2800 1000")),
    "1008": ("ActionTypeID", 3, h("0000 0810 02000000 0300")),
    "1020": ("NumberOfRemainingSuboperations", 4, h("0000 2010 02000000 0400")),
    "1021": ("NumberOfCompletedSuboperations", 5, h("0000 2110 02000000 0500")),
    "1022": ("NumberOfFailedSuboperations", 0, h("0000 2210 02000000 0000")),
    "1023": ("NumberOfWarningSuboperations", 256, h("0000 2310 02000000 0001")),
    "1030": ("MoveOriginatorApplicationEntityTitle", "MOVER", h("0000 3010 06000000") + b"MOVER "),
    "1031": ("MoveOriginatorMessageID", 9, h("0000 3110 02000000 0900")),
}

# Command Field, Command Data Set Type (0101H is none), group length, elements in the order of their tags.
GOLDEN: dict[str, tuple[str, str, str, str]] = {
    "C-STORE-RQ": ("0100", "0100", "6A000000", "0002 0100 0110 0700 0800 1000 1030 1031"),
    "C-STORE-RSP": ("0180", "0101", "78000000", "0002 0100 0120 0800 0900 0901 0902 1000"),
    "C-GET-RQ": ("1000", "0100", "42000000", "0002 0100 0110 0700 0800"),
    "C-GET-RSP": ("1080", "0100", "90000000", "0002 0100 0120 0800 0900 0901 0902 1020 1021 1022 1023"),
    "C-FIND-RQ": ("2000", "0100", "42000000", "0002 0100 0110 0700 0800"),
    "C-FIND-RSP": ("2080", "0100", "68000000", "0002 0100 0120 0800 0900 0901 0902"),
    "C-MOVE-RQ": ("2100", "0100", "52000000", "0002 0100 0110 0600 0700 0800"),
    "C-MOVE-RSP": ("2180", "0100", "90000000", "0002 0100 0120 0800 0900 0901 0902 1020 1021 1022 1023"),
    "C-ECHO-RQ": ("3000", "0101", "38000000", "0002 0100 0110 0800"),
    "C-ECHO-RSP": ("3080", "0101", "58000000", "0002 0100 0120 0800 0900 0902"),
    "C-CANCEL-RQ": ("FF0F", "0101", "1E000000", "0100 0120 0800"),
    "N-EVENT-REPORT-RQ": ("0001", "0100", "52000000", "0002 0100 0110 0800 1000 1002"),
    "N-EVENT-REPORT-RSP": ("0081", "0100", "7C000000", "0002 0100 0120 0800 0900 0902 0903 1000 1002"),
    "N-GET-RQ": ("1001", "0101", "58000000", "0003 0100 0110 0800 1001 1005"),
    "N-GET-RSP": ("1081", "0100", "82000000", "0002 0100 0120 0800 0900 0902 0903 1000 1005"),
    "N-SET-RQ": ("2001", "0100", "48000000", "0003 0100 0110 0800 1001"),
    "N-SET-RSP": ("2081", "0100", "82000000", "0002 0100 0120 0800 0900 0902 0903 1000 1005"),
    "N-ACTION-RQ": ("3001", "0100", "52000000", "0003 0100 0110 0800 1001 1008"),
    "N-ACTION-RSP": ("3081", "0100", "7C000000", "0002 0100 0120 0800 0900 0902 0903 1000 1008"),
    "N-CREATE-RQ": ("4001", "0100", "48000000", "0002 0100 0110 0800 1000"),
    "N-CREATE-RSP": ("4081", "0100", "82000000", "0002 0100 0120 0800 0900 0902 0903 1000 1005"),
    "N-DELETE-RQ": ("5001", "0101", "48000000", "0003 0100 0110 0800 1001"),
    "N-DELETE-RSP": ("5081", "0101", "72000000", "0002 0100 0120 0800 0900 0902 0903 1000"),
}

# One of them once more, byte for byte as PS3.7 §9.3.5.1 has it, so that the composition itself is checked.
C_ECHO_RQ = h(
    "0000 0000 04000000 38000000"  # Command Group Length: 56
    "0000 0200 12000000 312E322E3834302E31303030382E312E3100"  # Affected SOP Class UID: 1.2.840.10008.1.1
    "0000 0001 02000000 3000"  # Command Field: 0030H
    "0000 1001 02000000 0700"  # Message ID: 7
    "0000 0008 02000000 0101"  # Command Data Set Type: none
)


def golden_bytes(name: str) -> bytes:
    command_field, dataset_type, group_length, numbers = GOLDEN[name]
    special = {"0100": "0000 0001 02000000" + command_field, "0800": "0000 0008 02000000" + dataset_type}
    elements = (h(special[number]) if number in special else ELEMENT[number][2] for number in numbers.split())
    return h("0000 0000 04000000" + group_length) + b"".join(elements)


def golden_message(name: str) -> Message:
    _, dataset_type, _, numbers = GOLDEN[name]
    elements = {key: value for key, value, _ in (ELEMENT[each] for each in numbers.split() if each in ELEMENT)}
    data = Encoded("1.2.840.10008.1.2", b"") if dataset_type == "0100" else None
    return message(Command[name.replace("-", "_")], 1, data, **elements)


def without_length(command: dict[str, Any]) -> dict[str, Any]:
    return {keyword: value for keyword, value in command.items() if keyword != "CommandGroupLength"}


def refused_or_understood(data: bytes) -> None:
    """Decode; what is understood must come through encoding and decoding unchanged, anything else be a refusal."""
    try:
        understood = decode_command_set(data)
    except PeerProtocolError as refusal:
        reason = refusal.reason
    else:
        assert without_length(decode_command_set(encode_command_set(understood))) == without_length(understood)
        return
    assert reason == 6


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    sent, golden = golden_message(name), golden_bytes(name)
    assert encode_command_set(sent.command) == golden
    received = decode_command_set(golden)
    assert encode_command_set(received) == golden
    assert received.pop("CommandGroupLength") == len(golden) - 12
    assert received == sent.command
    assert (sent.name, sent.kind.message_name) == (name, name)
    assert sent.is_response == sent.kind.is_response == name.endswith("RSP")
    assert sent.has_dataset == (sent.data is not None)


def test_golden_bytes_of_a_whole_command_set() -> None:
    assert golden_bytes("C-ECHO-RQ") == C_ECHO_RQ


def test_all_commands_and_elements_have_golden_bytes() -> None:
    assert {Command[name.replace("-", "_")] for name in GOLDEN} == set(Command) == set(COMMANDS)
    assert len(GOLDEN) == 23
    assert {keyword for keyword, _, _ in ELEMENT.values()} == set(ELEMENTS) - {
        "CommandGroupLength",
        "CommandField",
        "CommandDataSetType",
    }


def theirs(data: bytes) -> dict[str, Any]:
    """A command set as pydicom reads it, in our types."""
    found: dict[str, Any] = {}
    for element in dsutils.decode(BytesIO(data), True, True):
        value: Any = element.value
        if element.VR == "AT":
            values: Any = {0: (), 1: (value,)}.get(element.VM, value)
            value = tuple(int(tag) for tag in values)
        found[element.keyword] = "" if value is None else value
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_those_of_an_independent_codec(name: str) -> None:
    golden = golden_bytes(name)
    assert theirs(golden) == {**golden_message(name).command, "CommandGroupLength": len(golden) - 12}
    assert dsutils.encode(dsutils.decode(BytesIO(golden), True, True), True, True) == golden


@pytest.mark.parametrize("kind", Command)
@REPEATABLE
@given(data=st.data())
def test_round_trip(kind: Command, data: st.DataObject) -> None:
    sent = data.draw(messages(kind))
    encoded = encode_command_set(sent.command)
    assert len(encoded) % 2 == 0
    received = Message(without_length(decode_command_set(encoded)), sent.context_id)
    assert received == sent
    assert (received.kind, received.has_dataset) == (kind, sent.data is not None)


@REPEATABLE
@given(sent=any_message)
def test_an_independent_codec_reads_the_same(sent: Message) -> None:
    encoded = encode_command_set(sent.command)
    assert theirs(encoded) == decode_command_set(encoded)


@pytest.mark.parametrize("name", GOLDEN)
def test_wrong_length_fields_are_refused_or_understood(name: str) -> None:
    golden = golden_bytes(name)
    for width in (2, 4):
        top = (1 << 8 * width) - 1
        for at in range(len(golden) - width + 1):
            value = int.from_bytes(golden[at : at + width], "little")
            for wrong in (value - 1, value + 1, 0, top, top >> 1):
                refused_or_understood(golden[:at] + (wrong & top).to_bytes(width, "little") + golden[at + width :])
    for end in range(len(golden)):
        refused_or_understood(golden[:end])


@MANY
@given(data=st.binary(max_size=120))
def test_any_bytes_are_refused_or_understood(data: bytes) -> None:
    refused_or_understood(data)
    refused_or_understood(C_ECHO_RQ + data)
    refused_or_understood(C_ECHO_RQ + b"\0\0" + data)


@MANY
@given(data=damaged(any_message.map(lambda sent: encode_command_set(sent.command))))
def test_damaged_command_sets_are_refused_or_understood(data: bytes) -> None:
    refused_or_understood(data)


_FILLINGS = {
    "unknown elements": h("0000 9999 00000000") * 8190,
    "one element again and again": h("0000 0209 00000000") * 8190,
    "text to escape": h("0000 0209") + (65000).to_bytes(4, "little") + b"\xff" * 65000,
    "tags": h("0000 0510") + (65000).to_bytes(4, "little") + bytes(range(250)) * 260,
    "a UID": h("0000 0200") + (65000).to_bytes(4, "little") + b"1" * 65000,
}


@pytest.mark.parametrize("filling", _FILLINGS)
def test_64_kib_of_elements_cost_at_most_2_mib(filling: str) -> None:
    data = C_ECHO_RQ + _FILLINGS[filling]
    tracemalloc.start()
    try:
        assert decode_command_set(data)["MessageID"] == 7
        assert tracemalloc.get_traced_memory()[1] <= 2 << 20
    finally:
        tracemalloc.stop()


_FIELD = h("0000 0001 02000000 3000")
_ID = h("0000 1001 02000000 0700")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # without group length, with a wrong one, without anything that an answer does not need
        (C_ECHO_RQ[12:], {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandDataSetType": 0x0101}),
        (h("0000 0000 04000000 FFFFFFFF") + _FIELD + _ID, {"CommandGroupLength": 0xFFFFFFFF}),
        (_FIELD + _ID, {}),
        # out of order, repeated, with retired and private elements
        (_ID + _FIELD, {}),
        (_FIELD + h("0000 1001 02000000 0100") + _ID, {}),
        (h("0000 0100 04000000 FFFFFFFF") + _FIELD + _ID + h("0000 5008 00000000") + h("0000 FFFF 01000000 41"), {}),
        # with elements of a dataset, whose numbers would be those of command elements
        (_FIELD + _ID + h("0800 0000 04000000 0A000000") + h("0800 0007 02000000 0100"), {}),
        # UIDs: padded with NUL, space, nothing; leading zeros; longer than 64; empty; not ASCII
        (_FIELD + _ID + h("0000 0200 06000000") + b"1.2\0\0\0", {"AffectedSOPClassUID": "1.2"}),
        (_FIELD + _ID + h("0000 0200 04000000") + b"1.2 ", {"AffectedSOPClassUID": "1.2"}),
        (_FIELD + _ID + h("0000 0200 03000000") + b"1.2", {"AffectedSOPClassUID": "1.2"}),
        (_FIELD + _ID + h("0000 0200 06000000") + b"1.02.3", {"AffectedSOPClassUID": "1.02.3"}),
        (_FIELD + _ID + h("0000 0200 64000000") + b"1." * 49 + b"12", {"AffectedSOPClassUID": "1." * 49 + "12"}),
        (_FIELD + _ID + h("0000 0200 00000000"), {"AffectedSOPClassUID": ""}),
        (_FIELD + _ID + h("0000 0200 02000000 31E9"), {"AffectedSOPClassUID": "1\\xe9"}),
        # AE titles and text: padded on both sides, not ASCII
        (_FIELD + _ID + h("0000 0006 06000000") + b" DEST\0", {"MoveDestination": "DEST"}),
        (_FIELD + _ID + h("0000 0209 02000000 41E9"), {"ErrorComment": "A\\xe9"}),
        # numbers: empty is absent, a second value is ignored
        (_FIELD + _ID + h("0000 0007 00000000"), {}),
        (_FIELD + _ID + h("0000 0007 04000000 0200 0900"), {"Priority": 2}),
        # tags: a torn one is ignored
        (_FIELD + _ID + h("0000 0109 06000000 1000 2000 E07F"), {"OffendingElement": (0x00100020,)}),
        (_FIELD + _ID + h("0000 0109 00000000"), {"OffendingElement": ()}),
    ],
)
def test_what_slightly_wrong_peers_send_is_understood(data: bytes, expected: dict[str, Any]) -> None:
    received = decode_command_set(data)
    assert received == {"CommandField": 0x0030, "MessageID": 7, **expected}
    assert decode_command_set(bytearray(data)) == received


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _FIELD,
        _ID,
        _FIELD + _ID + b"\0" * 7,
        _FIELD + _ID + h("0000 0007 03000000 0200"),  # beyond the end
        _FIELD + _ID + h("0000 0007 FFFFFFFF 0200"),
        _FIELD + _ID + h("0000 0007 01000000 02"),
        h("0000 0000 02000000 3800") + _FIELD + _ID,
        h("0000 0001 00000000") + _ID,
        h("0000 0001 02000000 0000") + _ID,
        h("0000 0001 02000000 3100") + _ID,
        h("0000 0001 02000000 3080") + h("0000 2001 02000000 0700"),  # a response without status
        h("0000 0001 02000000 3080") + h("0000 0009 02000000 0000"),  # a response to nothing
        h("0000 0001 02000000 FF0F") + _ID,  # a cancellation of nothing
        h("0000 0001 02000000 3000") + h("0000 1001 00000000"),  # an empty message ID
    ],
)
def test_what_cannot_be_a_command_set_or_be_answered_is_refused(data: bytes) -> None:
    with pytest.raises(PeerProtocolError) as refusal:
        decode_command_set(data)
    assert refusal.value.reason == 6


@pytest.mark.parametrize("kind", Command)
def test_messages_carry_what_the_standard_allows_and_no_more(kind: Command) -> None:
    golden = golden_message(kind.message_name)
    given_elements = {key: golden.command[key] for key in golden.command if not key.startswith("Command")}
    required, optional, dataset = COMMANDS[kind]
    with_data, without_data = Encoded("1.2", b""), None
    data = without_data if dataset == "never" else with_data

    def build(data: Encoded | None, elements: dict[str, Any]) -> Message:
        return message(kind, 3, data, **elements)

    bare = build(data, {key: given_elements[key] for key in required})
    assert bare.CommandDataSetType == (NO_DATASET if data is None else DATASET)
    assert set(bare.command) == required | {"CommandField", "CommandDataSetType"}
    assert build(data, {**dict.fromkeys(optional), **given_elements}).command == golden.command
    for keyword in required:
        with pytest.raises(ArgumentError, match=f"needs {keyword}"):
            build(data, {**given_elements, keyword: None})
    for keyword in set(ELEMENTS) - required - optional:
        with pytest.raises(ArgumentError, match=f"cannot carry {keyword}"):
            build(data, {**given_elements, keyword: 0})
    refused: dict[str, Encoded | None] = {"never": with_data, "always": without_data}
    if dataset in refused:
        with pytest.raises(ArgumentError, match="a dataset"):
            build(refused[dataset], given_elements)
    else:
        assert not build(None, given_elements).has_dataset


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("MessageID", 65536),
        ("MessageID", -1),
        ("MessageID", "7"),
        ("AffectedSOPClassUID", "1.2.é"),
        ("OffendingElement", (1 << 32,)),
        ("OffendingElement", (-1,)),
    ],
)
def test_values_that_cannot_be_encoded_are_a_local_error(keyword: str, value: Any) -> None:
    with pytest.raises(ArgumentError):
        encode_command_set({"CommandField": 0x0030, "MessageID": 7, keyword: value})


def test_elements_are_attributes_and_none_when_absent() -> None:
    response = golden_message("C-GET-RSP")
    assert response.Status == 0xA702
    assert response.NumberOfFailedSuboperations == 0
    assert response.ErrorID is None
    assert {keyword: getattr(response, keyword) for keyword in response.command} == response.command
    assert Message.Status.keyword == "Status"


def test_a_message_without_data_set_type_has_none() -> None:
    assert not Message({"CommandField": 0x0030, "MessageID": 7}).has_dataset
    # PS3.7 §E.1: every value but 0101H announces a dataset.
    assert all(Message({"CommandDataSetType": value}).has_dataset for value in (0, 1, 0x0102, 0xFEFE))


def test_the_repr_shows_the_command_but_no_dataset() -> None:
    shown = repr(
        message(Command.C_FIND_RSP, 9, Encoded("1.2", b"DOE^JOHN"), MessageIDBeingRespondedTo=4, Status=0xFF00)
    )
    assert "C-FIND-RSP, context 9" in shown
    assert "DOE" not in shown
