"""What is legal though never sent by us, or wrong but harmless: it is taken, and where it helps warned of."""

import random

import pytest
from attrs import evolve

from rxdicom.protocol.fsm import State
from rxdicom.protocol.negotiation import Replies, accept
from rxdicom.protocol.notices import Notice
from rxdicom.wire.dimse import Command, encode_command_set
from rxdicom.wire.items import MaximumLength
from rxdicom.wire.pdu import PDV, PDataTF

from .harness import (
    CT_CONTEXT,
    ECHO_CONTEXT,
    POLICY,
    REQUEST,
    aborts,
    command,
    contents,
    echo_rq,
    established,
    in_state,
    messages,
    of,
    receive,
    sent,
    store_rq,
)

PIXELS = random.Random(7).randbytes(601)
STORE = store_rq(PIXELS + b"\0", 5)
EXPECTED = contents([STORE, echo_rq(9)])


def test_command_and_dataset_in_one_pdu() -> None:
    [received] = messages(receive(established(), PDataTF((command(STORE), PDV(CT_CONTEXT, 2, PIXELS + b"\0")))))
    assert contents([received]) == EXPECTED[:1]


def test_several_messages_in_one_pdu() -> None:
    protocol = established()
    values = (command(echo_rq(1)), command(STORE, 1), PDV(CT_CONTEXT, 3, b""), PDV(CT_CONTEXT, 0, PIXELS))
    received = messages(receive(protocol, PDataTF((*values, PDV(CT_CONTEXT, 2, b"\0"), command(echo_rq(9))))))
    assert [message.MessageID for message in received] == [1, 5, 9]
    assert contents(received[1:]) == EXPECTED


def test_reserved_bits_of_the_control_header() -> None:
    protocol = established()
    values = (PDV(CT_CONTEXT, 0xFF, command(STORE).data), PDV(CT_CONTEXT, 0xFE, PIXELS + b"\0"))
    assert contents(messages(receive(protocol, *(PDataTF((value,)) for value in values)))) == EXPECTED[:1]


def test_odd_fragments_are_warned_of_once() -> None:
    """Once an association: a peer that sends a byte at a time must not fill the log."""
    protocol = established()
    values = (command(STORE), PDV(CT_CONTEXT, 0, PIXELS[:301]), PDV(CT_CONTEXT, 2, PIXELS[301:] + b"\0"))
    produced = receive(protocol, *(PDataTF((value,)) for value in values))
    assert contents(messages(produced)) == EXPECTED[:1]
    [(_, (text,))] = of(produced, Notice.WARNING)
    assert "301" in text


@pytest.mark.parametrize("reserved", [b"\x01\x02\x03\x04", b"", bytes(4)])
def test_releases_with_any_reserved_bytes(reserved: bytes) -> None:
    protocol = established()
    produced = receive(protocol, bytes((5, 0xAB)) + len(reserved).to_bytes(4, "big") + reserved)
    assert of(produced, Notice.RELEASE_INDICATED)
    protocol = established(True)
    protocol.release(0.0)
    produced = receive(protocol, bytes((6, 0xCD)) + len(reserved).to_bytes(4, "big") + reserved)
    assert of(produced, Notice.RELEASED)


@pytest.mark.parametrize(("source", "reason"), [(1, 0), (1, 9), (2, 3), (7, 7), (255, 255)])
def test_abort_codes_out_of_the_table(source: int, reason: int) -> None:
    for where in (State.AWAITING_RQ, False), (State.AWAITING_AC_OR_RJ, True), (State.AWAITING_RELEASE_RP, True):
        protocol = in_state(*where)
        produced = receive(protocol, bytes((7, 9, 0, 0, 0, 4, 8, 8, source, reason)))
        assert aborts(produced) == [(source, reason, "peer")]
        assert protocol.closing


def test_reject_codes_out_of_the_table() -> None:
    protocol = in_state(State.AWAITING_AC_OR_RJ, True)
    produced = receive(protocol, bytes((3, 0, 0, 0, 0, 4, 0, 9, 8, 7)))
    assert of(produced, Notice.REJECTED) == [(Notice.REJECTED, (9, 8, 7))]


def test_an_unlimited_peer() -> None:
    """Maximum length 0, or none at all: unlimited; what is sent has our own bounds."""
    for items in ((MaximumLength(0),), ()):
        request = evolve(REQUEST, user_information=items)
        protocol = in_state(State.AWAITING_RQ, False)
        receive(protocol, request)
        protocol.accept(accept(request, POLICY, 16384, Replies()), 0.0)
        sent(protocol)
        assert protocol.negotiated.maximum_length == 0
        protocol.send(echo_rq(), None, 0.0)
        [pdu] = sent(protocol)
        assert isinstance(pdu, PDataTF)


def test_a_command_set_without_group_length_and_data_set_type() -> None:
    bare = encode_command_set(STORE.command)[12:]
    protocol = established()
    assert messages(receive(protocol, PDataTF((PDV(CT_CONTEXT, 3, bare), PDV(CT_CONTEXT, 2, PIXELS + b"\0")))))
    echo = {key: value for key, value in echo_rq(3).command.items() if key != "CommandDataSetType"}
    [received] = messages(receive(protocol, PDataTF((PDV(ECHO_CONTEXT, 3, encode_command_set(echo)),))))
    assert received.kind is Command.C_ECHO_RQ
