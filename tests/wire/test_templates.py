"""What is remembered of command sets: it changes nothing but how fast they are encoded and decoded."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire import templates
from rxdicom.wire.dimse import Command, Message, decode_command_set, encode_command_set, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.pdata import command_pdus
from rxdicom.wire.templates import CommandDecoder, CommandEncoder

from .strategies import REPEATABLE, any_message

DATA = Encoded("1.2.840.10008.1.2", b"")


def echo(number: int, context_id: int, uid: str) -> Message:
    return message(Command.C_ECHO_RQ, context_id, MessageID=number, AffectedSOPClassUID=uid)


def echo_response(number: int, context_id: int, uid: str) -> Message:
    del uid
    return message(Command.C_ECHO_RSP, context_id, MessageIDBeingRespondedTo=number, Status=0)


def store(number: int, context_id: int, uid: str, **elements: Any) -> Message:
    identity = {"AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "AffectedSOPInstanceUID": uid}
    return message(Command.C_STORE_RQ, context_id, DATA, MessageID=number, Priority=0, **identity, **elements)


def moved(number: int, context_id: int, uid: str) -> Message:
    """There are elements behind the UID."""
    originator = {"MoveOriginatorApplicationEntityTitle": "MOVER", "MoveOriginatorMessageID": 9}
    return store(number, context_id, uid, **originator)


def store_response(number: int, context_id: int, uid: str) -> Message:
    return message(
        Command.C_STORE_RSP, context_id, MessageIDBeingRespondedTo=number, AffectedSOPInstanceUID=uid, Status=0xB000
    )


MAKE: list[Callable[[int, int, str], Message]] = [echo, echo_response, store, moved, store_response]
UIDS = st.sampled_from(["1.2.3", "1.2.34", "1.2.345", "", "1." * 40, "1.2 ", "not a UID", "grün"])
SERIES = st.lists(
    st.tuples(
        st.sampled_from(MAKE), st.integers(0, 0xFFFF), st.sampled_from([1, 3]), UIDS, st.sampled_from([1024, 16, 130])
    ),
    max_size=12,
)


def encoded(encode: Callable[[], bytes]) -> bytes | str:
    try:
        return encode()
    except ArgumentError as error:
        return str(error)


@REPEATABLE
@given(SERIES)
def test_what_is_remembered_changes_nothing(series: list[tuple[Any, int, int, str, int]]) -> None:
    """One encoder and one decoder for a whole series give what the plain functions give for each."""
    encoder, decoder = CommandEncoder(), CommandDecoder()
    for make, number, context_id, uid, maximum in series:
        made = make(number, context_id, uid)
        wanted = encoded(lambda made=made, maximum=maximum: command_pdus(made, maximum))
        assert encoded(lambda made=made, maximum=maximum: encoder.encode(made, maximum)) == wanted
        if isinstance(wanted, bytes):
            raw = encode_command_set(made.command)
            assert decoder.decode(raw) == decode_command_set(raw)


@REPEATABLE
@given(st.lists(any_message, max_size=8))
def test_all_messages(messages: list[Message]) -> None:
    encoder, decoder = CommandEncoder(), CommandDecoder()
    for each in [*messages, *messages]:
        assert encoder.encode(each, 16384) == command_pdus(each, 16384)
        raw = encode_command_set(each.command)
        assert decoder.decode(raw) == decode_command_set(raw)


def outcome(decode: Callable[[bytes], dict[str, Any]], raw: bytes) -> dict[str, Any] | str:
    try:
        return decode(raw)
    except PeerProtocolError as error:
        return str(error)


@REPEATABLE
@given(
    st.sampled_from(MAKE),
    st.integers(0, 200),
    st.binary(max_size=6),
    st.integers(0, 6),
)
def test_what_looks_like_it_and_is_not(
    make: Callable[[int, int, str], Message], position: int, put: bytes, cut: int
) -> None:
    """Bytes replaced, put in or left out at one place: the answer is that of the plain function, errors included."""
    raw = encode_command_set(make(7, 1, "1.2.3").command)
    decoder = CommandDecoder()
    decoder.decode(raw)
    decoder.decode(raw)
    position = min(position, len(raw))
    changed = raw[:position] + put + raw[position + cut :]
    assert outcome(decoder.decode, changed) == outcome(decode_command_set, changed)
    assert decoder.decode(raw) == decode_command_set(raw)


def test_a_message_id_that_is_there_twice_is_not_remembered() -> None:
    raw = encode_command_set(echo(7, 1, "1.2").command)
    twice = raw + bytes.fromhex("00001001020000000900")
    decoder = CommandDecoder()
    for _ in range(3):
        assert decoder.decode(twice) == decode_command_set(twice)
        assert decoder.decode(raw)["MessageID"] == 7


def test_a_number_out_of_range_is_refused_also_when_the_rest_is_remembered() -> None:
    encoder = CommandEncoder()
    command = dict(echo(7, 1, "1.2").command)
    assert encoder.encode(Message(command, 1), 1024)
    with pytest.raises(ArgumentError):
        encoder.encode(Message({**command, "MessageID": 70000}, 1), 1024)
    assert encoder.encode(Message(command, 1), 1024) == command_pdus(Message(command, 1), 1024)


@pytest.mark.parametrize("make", MAKE)
def test_a_series_is_encoded_and_decoded_once(
    make: Callable[[int, int, str], Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Message IDs and SOP Instance UIDs of any length change, and nothing else is done again."""
    calls: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(templates, "command_pdus", counted("encode", command_pdus))
    monkeypatch.setattr(templates, "decode_command_set", counted("decode", decode_command_set))
    encoder, decoder = CommandEncoder(), CommandDecoder()
    for number in range(1, 3000, 13):
        uid = "1.2.840.10008.1.1" if make is echo else f"1.2.{number}"
        made = make(number, 1, uid)
        encoder.encode(made, 16384)
        decoder.decode(encode_command_set(made.command))
    assert sorted(calls) == ["decode", "encode"]
