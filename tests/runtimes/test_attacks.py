"""Hostile and broken peers over real sockets, against an SCP and against an SCU (RELIABILITY.md)."""

import logging
import queue
import random
import selectors
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from rxdicom import (
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    DatasetError,
    NoAcceptedContext,
    PeerProtocolError,
    RxDicomError,
    TimedOut,
    build_context,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.datasets import encode, file_head
from rxdicom.events.records import Aborted, CEcho, CStore, DataReceived, Rejected, Released
from rxdicom.wire.dimse import Command, Message, encode_command_set, message
from rxdicom.wire.items import PresentationContextRQ, SOPClassCommonExtended, item
from rxdicom.wire.pdu import (
    HEADER,
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    encode_pdu,
)
from rxdicom.wire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.runtimes import queries
from tests.runtimes.raw import (
    COMMAND,
    CT,
    CT_CONTEXT,
    DATA,
    DEADLINE,
    ECHO_CONTEXT,
    LAST,
    MEBIBYTE,
    SOON,
    Raw,
    Store,
    Victim,
    accepting,
    answers,
    associated,
    connect,
    echo_rq,
    echo_rsp,
    entity,
    grows_at_most,
    keeps_nothing_of,
    nothing_left,
    p_data,
    pdus,
    pdv,
    request,
    scripted,
    store_message,
    store_rq,
    victim,
)

INVALID, UNRECOGNISED, UNEXPECTED_PDU, UNEXPECTED = (2, 6), (2, 1), (2, 2), (2, 5)
"""A-ABORT source and reason (PS3.8 table 9-26)."""

# ---- junk

HTTP = b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n"
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
JUNK = {
    "HTTP": HTTP,
    "TLS": CLIENT_HELLO,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "random": random.Random(1).randbytes(100_000),
    "type 0": bytes(64),
    "type 8": b"\x08\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    "type 255": b"\xff" * 64,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_on_the_port(junk: bytes) -> None:
    with victim() as attacked:
        with connect(attacked.server) as raw:
            raw.send(junk)
            assert raw.aborted() == (0, 0)
        assert attacked.ended_by(SOON) == (0, 0, "local")
        with associated(attacked.server) as raw:
            raw.send(junk)
            assert raw.aborted() == UNRECOGNISED
        assert attacked.ended_by(SOON) == (*UNRECOGNISED, "local")


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_from_an_acceptor(junk: bytes) -> None:
    def instead_of_an_answer(raw: Raw) -> None:
        raw.pdu()
        raw.send(junk)
        assert raw.aborted() == UNRECOGNISED

    def instead_of_a_response(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(junk)
        assert raw.aborted() == UNRECOGNISED

    with nothing_left():
        with scripted(instead_of_an_answer) as address, pytest.raises(AssociationAborted) as caught:
            entity().associate(*address)
        assert (caught.value.source, caught.value.reason, caught.value.by) == (*UNRECOGNISED, "local")
        with scripted(instead_of_a_response) as address, pytest.raises(AssociationAborted) as caught:
            entity().associate(*address).send_c_echo()
        assert (caught.value.source, caught.value.reason, caught.value.by) == (*UNRECOGNISED, "local")


# ---- lengths

LENGTHS = (0, 1, 3, 131073, 524289, 1 << 31, (1 << 32) - 1)
TOLERATED = {(0x05, 0), (0x06, 0)}
"""A-RELEASE without its four reserved bytes: such peers exist."""


def with_length(pdu_type: int, length: int) -> bytes:
    """A PDU that claims ``length`` bytes, of which a few are there."""
    return HEADER.pack(pdu_type, length) + bytes(min(length, 64))


@pytest.mark.parametrize("pdu_type", range(1, 8))
def test_pdu_lengths_that_cannot_be(pdu_type: int) -> None:
    refused = [length for length in LENGTHS if (pdu_type, length) not in TOLERATED]
    if pdu_type in (1, 2):
        refused.remove(131073)
    with grows_at_most(8 * MEBIBYTE), victim() as attacked:
        for length in refused:
            with connect(attacked.server) as raw:
                raw.send(with_length(pdu_type, length))
                assert raw.aborted() == (0, 0), length
            assert attacked.ended_by(SOON) == (0, 0, "local")
            with associated(attacked.server) as raw:
                raw.send(with_length(pdu_type, length))
                assert raw.aborted() == INVALID, length
            assert attacked.ended_by(SOON) == (*INVALID, "local")


@pytest.mark.parametrize("pdu_type", range(1, 8))
def test_pdu_lengths_that_cannot_be_from_an_acceptor(pdu_type: int) -> None:
    with nothing_left(), grows_at_most(8 * MEBIBYTE):
        for length in (1, 3, 524289, 1 << 31, (1 << 32) - 1):

            def instead_of_an_answer(raw: Raw, length: int = length) -> None:
                raw.pdu()
                raw.send(with_length(pdu_type, length))
                # P-DATA cannot come yet, whatever its length.
                expected = UNEXPECTED_PDU if pdu_type == PDataTF.pdu_type and length < 131073 else INVALID
                assert raw.aborted() == expected

            with scripted(instead_of_an_answer) as address, pytest.raises(AssociationAborted, match="aborted here"):
                entity().associate(*address)


def test_a_release_request_without_reserved_bytes() -> None:
    with victim() as attacked, associated(attacked.server) as raw:
        raw.send(HEADER.pack(ReleaseRQ.pdu_type, 0))
        assert raw.pdu() == ReleaseRP()
        raw.sock.close()
        assert isinstance(attacked.end(), Released)


def length_fields(data: bytes, start: int, end: int) -> Iterator[int]:
    """Where the two-byte length fields of the items between ``start`` and ``end`` are, those of inner items too."""
    while start + 4 <= end:
        kind, length = struct.unpack_from(">BxH", data, start)
        yield start + 2
        inner = {0x20: 4, 0x21: 4, 0x50: 0}.get(kind)
        if inner is not None:
            yield from length_fields(data, start + 4 + inner, start + 4 + length)
        start += 4 + length


def test_item_lengths_that_lie() -> None:
    """Every one of them is answered: accepted, rejected or aborted, never met with silence."""
    whole = encode_pdu(request([SOPClassCommonExtended(CT, "1.2", ("1.3", "1.4"))]))
    fields = list(length_fields(whole, 6 + 68, len(whole)))
    assert len(fields) == 12
    with victim(timeouts={"association": 3}) as attacked:
        for at in fields:
            (right,) = struct.unpack_from(">H", whole, at)
            for wrong in (0, right - 1, right + 1, 0xFFFF):
                with connect(attacked.server) as raw:
                    raw.send(whole[:at] + struct.pack(">H", wrong) + whole[at + 2 :])
                    assert isinstance(raw.pdu(), AssociateAC | AssociateRJ | Abort)
                attacked.end(SOON)


def test_truncated_requests() -> None:
    """The end of the stream before the end of the A-ASSOCIATE-RQ."""
    whole = encode_pdu(request())
    with victim() as attacked:
        for cut in range(0, len(whole), 7):
            with connect(attacked.server) as raw:
                raw.send(whole[:cut])
            assert attacked.end(SOON) is None


def test_truncated_answers() -> None:
    """The end of the stream before the end of the A-ASSOCIATE-AC, or of a response."""

    def in_the_answer(raw: Raw, part: float) -> None:
        asked = raw.pdu()
        assert isinstance(asked, AssociateRQ)
        whole = encode_pdu(accepting(asked))
        raw.send(whole[: int(len(whole) * part)])

    def in_the_response(raw: Raw, part: float) -> None:
        raw.accept()
        whole = echo_rsp(raw.message())
        raw.send(whole[: int(len(whole) * part)])

    with nothing_left():
        for script in (in_the_answer, in_the_response):
            for part in (0, 0.02, 0.5, 0.99):
                before = time.monotonic()
                with scripted(partial(script, part=part)) as address, pytest.raises(AssociationAborted) as caught:
                    entity().associate(*address).send_c_echo()
                assert (caught.value.source, caught.value.by) == (2, "transport")
                assert time.monotonic() - before < SOON


def test_item_lengths_that_lie_from_an_acceptor() -> None:
    """Understood, or aborted: the caller knows at once, and so does the peer."""
    whole = encode_pdu(accepting(request()))
    fields = list(length_fields(whole, 6 + 68, len(whole)))
    assert len(fields) == 8
    with nothing_left():
        for at in fields:
            (right,) = struct.unpack_from(">H", whole, at)
            for wrong in (0, right - 1, right + 1, 0xFFFF):
                answer = whole[:at] + struct.pack(">H", wrong) + whole[at + 2 :]

                def script(raw: Raw, answer: bytes = answer) -> None:
                    raw.pdu()
                    raw.send(answer)
                    assert isinstance(raw.pdu(), ReleaseRQ | Abort)

                before = time.monotonic()
                with scripted(script) as address, suppress(AssociationAborted, NoAcceptedContext):
                    entity(timeouts={"release": 0}).associate(*address).abort()
                assert time.monotonic() - before < SOON


def test_truncated_stores(tmp_path: Path) -> None:
    """The end of the stream, or a reset, before the end of a C-STORE: nothing is left of it."""
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    whole = store_rq(bytes(20_000), maximum_length=4096)
    with victim(store.binding, limits={"memory": 1000}, spool=spool) as attacked:
        for index, cut in enumerate(range(1, len(whole), 499)):
            with associated(attacked.server) as raw:
                raw.send(whole[:cut])
                if index % 2:
                    raw.reset()
            assert attacked.ended_by(SOON) == (2, 0, "transport"), cut
            assert not list(spool.iterdir())
    assert store.everything() == []


# ---- requests that make no sense


def contexts(*ids: int, transfer: tuple[str, ...] = (IMPLICIT_VR_LITTLE_ENDIAN,)) -> AssociateRQ:
    return evolve(
        request(), presentation_contexts=tuple(PresentationContextRQ(each, VERIFICATION, transfer) for each in ids)
    )


def test_requests_that_are_refused() -> None:
    refused = {
        (1, 2, 1): [contexts(), contexts(1, 1), contexts(1, 2), contexts(0)],
        (1, 1, 2): [evolve(request(), application_context="1.2.3"), evolve(request(), application_context="")],
        (1, 2, 2): [evolve(request(), protocol_version=0), evolve(request(), protocol_version=2)],
    }
    with victim() as attacked:
        for codes, requests in refused.items():
            for asked in requests:
                with connect(attacked.server) as raw:
                    raw.send(asked)
                    assert raw.pdu() == AssociateRJ(*codes)
                event = attacked.end(SOON)
                assert isinstance(event, Rejected)
                assert (event.result, event.source, event.reason) == codes


def test_more_contexts_than_there_are_numbers() -> None:
    with victim() as attacked:
        with connect(attacked.server) as raw:
            raw.send(contexts(*range(1, 256, 2), 1))
            assert raw.aborted() == (0, 0)
        assert attacked.ended_by(SOON) == (0, 0, "local")
        with associated(attacked.server, contexts(*range(1, 256, 2))) as raw:
            raw.send(echo_rq())
            assert raw.message().Status == 0x0000


def test_a_context_without_transfer_syntax() -> None:
    with victim() as attacked, connect(attacked.server) as raw:
        answer = raw.associate(contexts(1, transfer=()))
        assert [each.result for each in answer.presentation_contexts] == [4]


def test_tens_of_thousands_of_tiny_items() -> None:
    """65 kB of A-ASSOCIATE-RQ do not become a megabyte, while they are read and as long as the association lives."""
    fixed = encode_pdu(request())[6:]
    tiny_syntaxes = item(0x20, bytes((9, 0, 0, 0)) + item(0x30, b"1.2.3") + b"".join([item(0x40, b"1.2")] * 9000))
    related = item(0x57, b"\0\x031.2\0\x031.3" + struct.pack(">H", 32_000) + b"\0\x021." * 8000)
    tiny = {
        "empty items": fixed + item(0x11, b"") * 16_000,
        "transfer syntaxes": fixed + tiny_syntaxes,
        "user items": fixed + item(0x50, item(0x51, bytes(4)) * 8000),
        "unknown user items": fixed + item(0x50, item(0x99, b"") * 16_000),
        "related SOP classes": fixed + item(0x50, item(0x51, bytes(4)) + related),
    }
    with victim() as attacked:
        for name, body in tiny.items():
            raws: list[Raw] = []
            with grows_at_most(20 * 2 * MEBIBYTE):
                for _ in range(20):
                    raw = connect(attacked.server)
                    raw.send(HEADER.pack(1, len(body)) + body)
                    raws.append(raw)
                    assert isinstance(raw.pdu(), AssociateAC | AssociateRJ | Abort), name
            for raw in raws:
                raw.sock.close()
            for _ in raws:
                attacked.end(SOON)


# ---- out of sequence

OUT_OF_SEQUENCE_BEFORE: list[PDU | bytes] = [
    accepting(request()),
    AssociateRJ(1, 1, 1),
    echo_rq(),
    ReleaseRQ(),
    ReleaseRP(),
]
OUT_OF_SEQUENCE_AFTER: list[PDU | bytes] = [request(), accepting(request()), AssociateRJ(1, 1, 1), ReleaseRP()]


def test_out_of_sequence() -> None:
    with victim() as attacked:
        for pdu in OUT_OF_SEQUENCE_BEFORE:
            with connect(attacked.server) as raw:
                raw.send(pdu)
                assert raw.aborted() == (0, 0)
            assert attacked.ended_by(SOON) == (0, 0, "local")
        for pdu in OUT_OF_SEQUENCE_AFTER:
            with associated(attacked.server) as raw:
                raw.send(pdu)
                assert raw.aborted() == UNEXPECTED_PDU
            assert attacked.ended_by(SOON) == (*UNEXPECTED_PDU, "local")


@pytest.mark.parametrize("pdu", [request(), echo_rq(), ReleaseRQ(), ReleaseRP()], ids=["RQ", "P-DATA", "RLRQ", "RLRP"])
def test_out_of_sequence_from_an_acceptor(pdu: PDU | bytes) -> None:
    def instead_of_an_answer(raw: Raw) -> None:
        raw.pdu()
        raw.send(pdu)
        assert raw.aborted() == UNEXPECTED_PDU

    with nothing_left(), scripted(instead_of_an_answer) as address:
        with pytest.raises(AssociationAborted) as caught:
            entity().associate(*address)
        assert (caught.value.source, caught.value.reason) == UNEXPECTED_PDU


@pytest.mark.parametrize("pdu", [accepting(request()), AssociateRJ(1, 1, 1), request()], ids=["AC", "RJ", "RQ"])
def test_a_second_answer_from_an_acceptor(pdu: PDU) -> None:
    def twice(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(pdu)
        assert raw.aborted() == UNEXPECTED_PDU

    with nothing_left(), scripted(twice) as address, pytest.raises(AssociationAborted):
        entity().associate(*address).send_c_echo()


@pytest.mark.parametrize("codes", [(0, 0), (1, 5), (2, 1), (2, 3), (7, 99)])
def test_aborted_at_any_time(tmp_path: Path, codes: tuple[int, int]) -> None:
    """Before the request, between messages, within one, and while a response is due; unknown codes are kept."""
    store = Store(tmp_path)
    with victim(store.binding) as attacked:
        with connect(attacked.server) as raw:
            raw.send(Abort(*codes))
            assert raw.is_closed(SOON)
        assert attacked.ended_by(SOON) == (*codes, "peer")
        for before in (b"", echo_rq(), store_rq(bytes(5000), maximum_length=1024)[:3000]):
            with associated(attacked.server) as raw:
                raw.send(before[: len(before)])
                if before and len(before) == 3000:
                    # Within a PDU these are bytes of it; at its end they are an A-ABORT.
                    whole = store_rq(bytes(5000), maximum_length=1024)
                    raw.send(whole[3000 : _pdu_end(whole, 3000)])
                raw.send(Abort(*codes))
                assert raw.is_closed(SOON)
            assert attacked.ended_by(SOON) == (*codes, "peer")
    assert store.everything() == []


def _pdu_end(stream: bytes, after: int) -> int:
    """Where the PDU ends that byte ``after`` belongs to."""
    end = 0
    while end < after:
        end += 6 + HEADER.unpack_from(stream, end)[1]
    return end


def test_aborted_by_an_acceptor() -> None:
    def at_once(raw: Raw) -> None:
        raw.send(Abort(2, 1))
        raw.is_closed()

    def instead_of_an_answer(raw: Raw) -> None:
        raw.pdu()
        raw.send(Abort(0, 0))
        raw.is_closed()

    def instead_of_a_response(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(Abort(2, 3))
        raw.is_closed()

    with nothing_left():
        for script, codes in ((at_once, (2, 1)), (instead_of_an_answer, (0, 0))):
            with scripted(script) as address, pytest.raises(AssociationAborted) as caught:
                entity().associate(*address)
            assert (caught.value.source, caught.value.reason, caught.value.by) == (*codes, "peer")
        with scripted(instead_of_a_response) as address, pytest.raises(AssociationAborted) as caught:
            entity().associate(*address).send_c_echo()
        assert (caught.value.source, caught.value.reason, caught.value.by) == (2, 3, "peer")


# ---- P-DATA

STORE_COMMAND = encode_command_set(store_message().command)
ECHO_COMMAND = encode_command_set(
    message(Command.C_ECHO_RQ, ECHO_CONTEXT, MessageID=1, AffectedSOPClassUID=VERIFICATION).command
)
WHOLE_COMMAND = pdv(COMMAND | LAST, STORE_COMMAND)
LONG_INSTANCE = struct.pack("<HHI", 0, 0x1000, 20_000) + b"\xff" * 20_000
P_DATA: dict[str, tuple[tuple[bytes, ...], tuple[int, int]]] = {
    "PDV of length 0": ((p_data(pdv(1, b"abcd", length=0)),), INVALID),
    "PDV of length 1": ((p_data(pdv(1, b"abcd", length=1)),), INVALID),
    "PDV beyond its PDU": ((p_data(pdv(1, b"abcd", length=7)),), INVALID),
    "PDV of 4 GB": ((p_data(pdv(1, b"abcd", length=(1 << 32) - 1)),), INVALID),
    "no PDV": ((p_data(),), INVALID),
    "half a PDV header": ((p_data(b"\0\0\0"),), INVALID),
    "stray bytes behind a PDV": ((p_data(WHOLE_COMMAND, b"\0\0\0"),), INVALID),
    "larger than our maximum": ((HEADER.pack(4, 131074) + bytes(131074),), INVALID),
    "context that was not proposed": ((p_data(pdv(COMMAND | LAST, ECHO_COMMAND, context_id=99)),), INVALID),
    "dataset before its command": ((p_data(pdv(DATA | LAST, b"abcd")),), UNEXPECTED),
    "dataset within its command": ((p_data(pdv(COMMAND, STORE_COMMAND[:40]), pdv(DATA, b"abcd")),), UNEXPECTED),
    "command within a dataset": ((p_data(WHOLE_COMMAND, pdv(DATA, b"abcd"), WHOLE_COMMAND),), UNEXPECTED),
    "context switched in the command": (
        (p_data(pdv(COMMAND, STORE_COMMAND[:40])), p_data(pdv(COMMAND | LAST, STORE_COMMAND[40:], ECHO_CONTEXT))),
        UNEXPECTED,
    ),
    "context switched in the dataset": (
        (p_data(WHOLE_COMMAND), p_data(pdv(DATA, b"abcd")), p_data(pdv(DATA | LAST, b"abcd", ECHO_CONTEXT))),
        UNEXPECTED,
    ),
    "two messages interleaved": (
        (p_data(WHOLE_COMMAND, pdv(DATA, b"abcd")), p_data(pdv(COMMAND | LAST, ECHO_COMMAND, ECHO_CONTEXT))),
        UNEXPECTED,
    ),
    "a whole store, then a lie in the same PDU": (
        (p_data(WHOLE_COMMAND, pdv(DATA | LAST, bytes(2000)), pdv(1, b"abcd", length=99)),),
        INVALID,
    ),
    "command set of garbage": ((p_data(pdv(COMMAND | LAST, b"\xff" * 100)),), INVALID),
    "command set of zeros": ((p_data(pdv(COMMAND | LAST, bytes(100))),), INVALID),
    "command set of nothing": ((p_data(pdv(COMMAND | LAST, b"")),), INVALID),
    "command without Command Field": ((p_data(pdv(COMMAND | LAST, encode_command_set({"MessageID": 1}))),), INVALID),
    "unknown command": (
        (p_data(pdv(COMMAND | LAST, encode_command_set({"CommandField": 0x0777, "MessageID": 1}))),),
        INVALID,
    ),
    "request without Message ID": (
        (p_data(pdv(COMMAND | LAST, encode_command_set({"CommandField": 0x0030, "CommandDataSetType": 0x0101}))),),
        INVALID,
    ),
    "element longer than its command set": (
        (p_data(pdv(COMMAND | LAST, struct.pack("<HHI", 0, 0x0100, 1 << 31) + b"\x30\x00")),),
        INVALID,
    ),
    "a UID that would become four times as long": (
        (
            p_data(
                pdv(COMMAND, STORE_COMMAND),
                pdv(COMMAND | LAST, struct.pack("<HHI", 0, 0x1000, 20_000) + b"\xff" * 20_000),
            ),
        ),
        INVALID,
    ),
    "a command set that never ends": ((p_data(pdv(COMMAND, bytes(16_000))),) * 5, INVALID),
}


@pytest.mark.parametrize(("parts", "codes"), P_DATA.values(), ids=P_DATA)
def test_p_data_that_cannot_be(tmp_path: Path, parts: tuple[bytes, ...], codes: tuple[int, int]) -> None:
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    with victim(store.binding, limits={"memory": 1000}, spool=spool) as attacked:
        with associated(attacked.server) as raw:
            raw.send(*parts)
            assert raw.aborted() == codes
        assert attacked.ended_by(SOON) == (*codes, "local")
        assert list(spool.iterdir()) == store.everything() == []


@pytest.mark.parametrize(("parts", "codes"), P_DATA.values(), ids=P_DATA)
def test_p_data_that_cannot_be_from_an_acceptor(parts: tuple[bytes, ...], codes: tuple[int, int]) -> None:
    def instead_of_a_response(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(*parts)
        assert raw.aborted() == codes

    with nothing_left(), scripted(instead_of_a_response) as address, pytest.raises(AssociationAborted) as caught:
        entity().associate(*address).send_c_echo()
    assert (caught.value.source, caught.value.reason, caught.value.by) == (*codes, "local")


def test_what_is_unusual_but_legal(tmp_path: Path) -> None:
    """Several PDVs in a PDU, command and dataset among them, odd fragments, empty ones, another role's bits."""
    store = Store(tmp_path)
    odd = [pdv(DATA, b"abc"), pdv(DATA, b""), pdv(DATA, b"d"), pdv(DATA | LAST, b"ef")]
    halves = (pdv(COMMAND, STORE_COMMAND[:41]), pdv(COMMAND | LAST, STORE_COMMAND[41:]))
    with victim(store.binding) as attacked, associated(attacked.server) as raw:
        raw.send(p_data(*halves, *odd))
        assert raw.message().Status == 0x0000
        assert store.data("1.2.3") == b"abcdef"
        raw.send(p_data(pdv(COMMAND | LAST | 0xFC, ECHO_COMMAND, ECHO_CONTEXT)))
        assert raw.message().Status == 0x0000
        raw.send(ReleaseRQ())
        assert raw.pdu() == ReleaseRP()


def nested(depth: int) -> bytes:
    """Sequences in sequences, of undefined length, in implicit VR."""
    begin = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return begin * depth + (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) * depth


def bomb(size: int) -> bytes:
    """A deflated dataset of so many MiB."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = deflater.compress(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, size * MEBIBYTE))
    head += deflater.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to what was before: the same bytes can be repeated.
    mebibyte = deflater.compress(bytes(MEBIBYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return head + mebibyte * size + deflater.flush()


DATASETS = {
    "element longer than the dataset": struct.pack("<HHI", 0x0010, 0x0010, 0xFFFFFFF0) + b"abcd",
    "sequence longer than the dataset": struct.pack("<HHIHHI", 0x0008, 0x1140, 0xFFFFFFF0, 0xFFFE, 0xE000, 0xFFFFFFF0),
    "sequences 300 deep": nested(300),
    "sequences 100,000 deep": nested(100_000),
    "sequences that never end": nested(1000)[:8000],
    "deflate bomb": bomb(1000),
    "deflate bomb, cut off": bomb(200)[:-100_000],
    "not deflated": b"\xff" * 100,
}


@pytest.mark.parametrize(("name", "data"), DATASETS.items(), ids=DATASETS)
def test_datasets_that_cannot_be_decoded(name: str, data: bytes) -> None:
    """0xC210 to a handler that decodes them, little memory, and the association lives."""

    def decode(event: CStore) -> int:
        str(event.dataset)
        return 0x0000

    deflated = "deflate" in name
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN if deflated else IMPLICIT_VR_LITTLE_ENDIAN
    asked = request()
    asked = evolve(
        asked,
        presentation_contexts=(asked.presentation_contexts[0], PresentationContextRQ(CT_CONTEXT, CT, (syntax,))),
    )
    with victim((evt.EVT_C_STORE, decode)) as attacked:
        with grows_at_most(16 * MEBIBYTE), associated(attacked.server, asked) as raw:
            raw.send(store_rq(data))
            assert raw.message().Status == 0xC210
            raw.send(echo_rq())
            assert raw.message().Status == 0x0000


def test_an_endless_dataset(tmp_path: Path) -> None:
    """Up to the limit it is kept, up to twice the limit it is refused, beyond that aborted. Memory stays flat."""
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    fragment = p_data(pdv(DATA, bytes(16_000)))
    limits = {"dataset": 1_000_000, "memory": 50_000}
    with victim(store.binding, limits=limits, spool=spool) as attacked:
        with associated(attacked.server) as raw:
            raw.send(p_data(WHOLE_COMMAND), fragment * 90, p_data(pdv(DATA | LAST, b"")))
            assert raw.message().Status == 0xA700
            raw.send(echo_rq())
            assert raw.message().Status == 0x0000
            assert not list(spool.iterdir())
            with grows_at_most(4 * MEBIBYTE):
                raw.send(p_data(WHOLE_COMMAND), fragment * 126)
                assert raw.aborted() == (2, 0)
        assert isinstance(attacked.end(), Aborted | Released)
        assert list(spool.iterdir()) == store.everything() == []


def test_an_endless_response(tmp_path: Path) -> None:
    """As SCU too: beyond the limit an error, and C-CANCEL; beyond twice the limit the end. Memory stays flat."""
    fragment = p_data(pdv(DATA, bytes(16_000)))

    def pending(asked: Message) -> bytes:
        elements = {"CommandField": 0x8020, "CommandDataSetType": 1, "Status": 0xFF00}
        command = encode_command_set({**elements, "MessageIDBeingRespondedTo": asked.MessageID})
        return p_data(pdv(COMMAND | LAST, command))

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        raw.send(pending(asked), fragment * 90, p_data(pdv(DATA | LAST, b"")))
        assert raw.message().kind is Command.C_CANCEL_RQ
        raw.send(queries.answer_to(asked, 0xFE00))
        raw.send(pending(raw.message()), fragment * 126)
        assert raw.aborted() == (2, 0)

    ae = entity(limits={"dataset": 1_000_000, "memory": 50_000})
    ae.spool_folder = str(tmp_path)
    contexts = [build_context(uid, IMPLICIT_VR_LITTLE_ENDIAN) for uid in (VERIFICATION, queries.FIND)]
    with nothing_left(), scripted(script) as address, grows_at_most(4 * MEBIBYTE):
        assoc = ae.associate(*address, contexts)
        with pytest.raises(DatasetError, match="limit of 1000000 bytes"):
            list(assoc.send_c_find(queries.query(), queries.FIND))
        assert assoc.is_established
        assert not list(tmp_path.iterdir())
        with pytest.raises(AssociationAborted) as caught:
            list(assoc.send_c_find(queries.query(), queries.FIND))
        assert (caught.value.source, caught.value.reason, caught.value.by) == (2, 0, "local")
    assert not list(tmp_path.iterdir())


def test_a_huge_dataset_takes_no_memory(tmp_path: Path) -> None:
    """It is spooled; when its sender aborts nothing is left of it."""
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    with victim(store.binding, spool=spool) as attacked, associated(attacked.server) as raw:
        fragment = p_data(pdv(DATA, bytes(131_000)))
        raw.send(p_data(WHOLE_COMMAND), fragment * 10)
        with grows_at_most(4 * MEBIBYTE):
            for _ in range(50):
                raw.send(fragment * 10)
            raw.send(Abort(0, 0))
            assert attacked.ended_by() == (0, 0, "peer")
        assert list(spool.iterdir()) == store.everything() == []


# ---- many


def test_idle_and_dripping_connections() -> None:
    """1,000 that send nothing and 100 that drip take no association slot, and ARTIM closes each of them in time."""
    seconds = 2.5
    with victim(limits={"associations": 2}, timeouts={"association": seconds}) as attacked:
        with grows_at_most(32 * MEBIBYTE), selectors.DefaultSelector() as selector:
            opened: dict[socket.socket, float] = {}
            for _ in range(1100):
                sock = socket.create_connection(attacked.server.address)
                opened[sock] = time.monotonic()
                selector.register(sock, selectors.EVENT_READ)
            drips = list(opened)[1000:]
            for drip in drips:
                drip.sendall(HEADER.pack(1, 5000))
            with associated(attacked.server):
                # They were accepted in their order: all of them are being timed by now.
                accepted = time.monotonic()
                assert answers(attacked.server)
            took: list[float] = []
            while opened:
                ready = selector.select(0.05)
                for key, _ in ready:
                    sock: Any = key.fileobj
                    assert sock.recv(100) == b""
                    took.append(time.monotonic() - opened.pop(sock))
                    selector.unregister(sock)
                    sock.close()
                if not ready:
                    for drip in drips:
                        if drip in opened:
                            drip.send(b"\0")
            assert seconds - 0.05 <= min(took)
            assert time.monotonic() < accepted + seconds + SOON


def test_what_artim_ends_says_so() -> None:
    with victim(timeouts={"association": 0.1}) as attacked, connect(attacked.server) as raw:
        raw.send(b"\x01")
        assert raw.is_closed(SOON)
        event = attacked.end()
        assert isinstance(event, Aborted)
        assert (event.by, "ARTIM" in event.cause) == ("local", True)


def test_probes_leave_nothing() -> None:
    """The health checks of a load balancer: connect and close."""

    def probe(attacked: Victim, count: int) -> None:
        for _ in range(count // 50):
            for _ in range(50):
                socket.create_connection(attacked.server.address).close()
            for _ in range(50):
                assert attacked.end() is None

    with victim() as attacked:
        probe(attacked, 1000)
        with grows_at_most(2 * MEBIBYTE), keeps_nothing_of(3000):
            probe(attacked, 3000)


def test_refused_requests_leave_nothing() -> None:
    asked = encode_pdu(evolve(request(), application_context="1.2.3"))

    def refuse(attacked: Victim, count: int) -> None:
        for _ in range(count):
            with connect(attacked.server) as raw:
                raw.send(asked)
                assert isinstance(raw.pdu(), AssociateRJ)
            assert isinstance(attacked.end(), Rejected)

    with victim() as attacked:
        refuse(attacked, 300)
        with grows_at_most(2 * MEBIBYTE), keeps_nothing_of(1500):
            refuse(attacked, 1500)


def test_more_associations_than_are_allowed() -> None:
    """One more is rejected (2,3,2); who has released or aborted makes room, even if it does not close."""
    with victim(limits={"associations": 2}) as attacked:
        first, second, third = (connect(attacked.server) for _ in range(3))
        first.associate()
        second.associate()
        third.send(request())
        assert third.pdu() == AssociateRJ(2, 3, 2)
        second.send(ReleaseRQ())
        assert second.pdu() == ReleaseRP()
        with associated(attacked.server) as fourth:
            fourth.send(b"\xff" * 6)
            assert fourth.aborted() == UNRECOGNISED
            with associated(attacked.server) as fifth:
                fifth.send(echo_rq())
                assert fifth.message().Status == 0x0000
        for raw in (first, second, third):
            raw.sock.close()
        for _ in range(5):
            attacked.end()


def test_one_after_the_other_where_one_is_allowed() -> None:
    """An association that was released takes no slot, however slowly its connection is closed."""
    with victim(limits={"associations": 1}) as attacked:
        ae = entity()
        for _ in range(100):
            with ae.associate(*attacked.server.address) as assoc:
                assert assoc.send_c_echo() == 0x0000


# ---- peers that do not read


def test_a_peer_that_reads_no_answers() -> None:
    """It asks and asks: the answers do not pile up, and at the write deadline it is cut off."""
    # Many small ones, so that more always is to be received; the response, a refusal, repeats the UID.
    command = message(Command.C_ECHO_RQ, ECHO_CONTEXT, MessageID=1, AffectedSOPClassUID="1." * 250)
    asked = pdus(command) * 1000
    with victim(timeouts={"write": 0.5}) as attacked, associated(attacked.server) as raw:
        with grows_at_most(16 * MEBIBYTE), pytest.raises(ConnectionError):
            _send_for_ever(raw, asked)
        assert answers(attacked.server)
        event = attacked.end()
        assert isinstance(event, Aborted)
        assert (event.by, "'write'" in event.cause) == ("transport", True)


def _send_for_ever(raw: Raw, data: bytes) -> None:
    """Until that fails, or the deadline shows that it never would."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        raw.send(data)


def test_a_peer_that_floods_while_we_wait_for_it_to_read() -> None:
    """An SCU sends a large file; its peer reads nothing, but asks for echoes without end."""
    over = threading.Event()

    def flood(raw: Raw) -> None:
        raw.accept()
        asked = b"".join(echo_rq(number) for number in range(1, 2001))
        raw.sock.settimeout(2)
        try:
            while not over.is_set():
                raw.sock.sendall(asked)
        except OSError:
            return

    with nothing_left(), scripted(flood) as address:
        assoc = entity(timeouts={"write": 1.0}).associate(*address)
        assoc.bind(evt.EVT_C_ECHO, _ok)
        with grows_at_most(40 * MEBIBYTE), pytest.raises(TimedOut) as caught:
            assoc.send_c_store(instance(30 * MEBIBYTE))
        over.set()
        assert caught.value.phase == "write"
        assert assoc.is_aborted
        assert assoc.join(SOON)


def _ok(event: CEcho) -> int:
    del event
    return 0x0000


def instance(size: int, uid: str = "1.2.3") -> Any:
    """A CT image of about ``size`` bytes."""
    from pydicom import Dataset
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(CT), UID(uid)
    dataset.add_new(0x7FE00010, "OW", bytes(size))
    return dataset


@pytest.mark.parametrize("in_mid_message", [False, True])
def test_an_acceptor_that_stops_reading(tmp_path: Path, in_mid_message: bool) -> None:
    def stop(raw: Raw) -> None:
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.accept()
        if in_mid_message:
            raw.take(10_000)
        stopped.wait(DEADLINE)

    stopped = threading.Event()
    path = tmp_path / "large.dcm"
    path.write_bytes(
        file_head(CT, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN) + encode(instance(16 * MEBIBYTE), IMPLICIT_VR_LITTLE_ENDIAN)
    )
    with nothing_left(), scripted(stop) as address:
        assoc = entity(timeouts={"write": 0.3}).associate(*address)
        before = time.monotonic()
        with grows_at_most(8 * MEBIBYTE), pytest.raises(TimedOut) as caught:
            assoc.send_c_store(path)
        assert time.monotonic() - before < 0.3 + SOON
        assert caught.value.phase == "write"
        assert assoc.join(SOON)
        stopped.set()


def test_abort_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """Another thread is in the middle of a large message; ARTIM ends what abort() began."""

    def stop(raw: Raw) -> None:
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.accept()
        raw.take(1000)
        begun.set()
        stopped.wait(DEADLINE)

    begun, stopped = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def send(assoc: Association) -> None:
        try:
            assoc.send_c_store(instance(16 * MEBIBYTE))
        except RxDicomError as error:
            raised.append(error)

    with nothing_left(), scripted(stop) as address:
        assoc = entity(timeouts={"write": 60, "association": 0.5}).associate(*address)
        thread = threading.Thread(target=send, args=(assoc,))
        thread.start()
        assert begun.wait(DEADLINE)
        before = time.monotonic()
        assoc.abort()
        assert time.monotonic() - before < 0.2
        thread.join(0.5 + SOON)
        assert not thread.is_alive()
        assert [type(each) for each in raised] == [AssociationAborted]
        assert assoc.join(SOON)
        stopped.set()


def test_a_peer_that_never_stops_sending_does_not_escape_artim() -> None:
    """It has been aborted, does not close, and floods."""
    with victim(timeouts={"association": 0.5}) as attacked, connect(attacked.server) as raw:
        before = time.monotonic()
        with pytest.raises(ConnectionError):
            _send_for_ever(raw, b"\xff" * 1_000_000)
        assert time.monotonic() - before < 0.5 + SOON


# ---- resets


def test_a_reset_anywhere_in_the_life_of_an_scu() -> None:
    """Each ends in a typed error, soon, and nothing is left."""

    def before_anything(raw: Raw) -> None:
        raw.reset()

    def before_the_answer(raw: Raw) -> None:
        raw.pdu()
        raw.reset()

    def after_the_answer(raw: Raw) -> None:
        raw.accept()
        raw.reset()

    def within_the_message(raw: Raw) -> None:
        raw.accept()
        raw.take(1_000_000)
        raw.reset()

    def before_the_response(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.reset()

    def within_the_response(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(pdv(COMMAND, b"")[:3])
        raw.reset()

    scripts = (
        before_anything,
        before_the_answer,
        after_the_answer,
        within_the_message,
        before_the_response,
        within_the_response,
    )
    image = instance(8 * MEBIBYTE)
    with nothing_left():
        for script in scripts:
            before = time.monotonic()
            with scripted(script) as address, pytest.raises(RxDicomError) as caught:
                entity().associate(*address).send_c_store(image)
            if script is before_anything and isinstance(caught.value, ConnectionFailed):
                continue
            assert isinstance(caught.value, AssociationAborted), script
            assert caught.value.by == "transport", script
            assert time.monotonic() - before < DEADLINE / 2


def test_closed_in_release() -> None:
    """A peer that answers a release by closing: the association is over, without a wait."""

    def close(raw: Raw) -> None:
        raw.accept()
        assert raw.pdu() == ReleaseRQ()

    with nothing_left(), scripted(close) as address:
        assoc = entity().associate(*address)
        before = time.monotonic()
        assoc.release()
        assert time.monotonic() - before < SOON
        assert assoc.is_aborted


# ---- releases


def test_release_collision_as_requestor() -> None:
    """Both ask at once: the requestor answers first (PS3.8 §7.2.2.1)."""

    def collide(raw: Raw) -> None:
        raw.accept()
        assert raw.pdu() == ReleaseRQ()
        raw.send(ReleaseRQ())
        assert raw.pdu() == ReleaseRP()
        raw.send(ReleaseRP())
        assert raw.is_closed(SOON)

    with nothing_left(), scripted(collide) as address:
        assoc = entity().associate(*address)
        before = time.monotonic()
        assoc.release()
        assert time.monotonic() - before < SOON
        assert assoc.is_released


def test_release_collision_as_acceptor() -> None:
    established = threading.Event()
    with (
        victim((evt.EVT_ESTABLISHED, lambda event: established.set())) as attacked,
        associated(attacked.server) as raw,
    ):
        assert established.wait(DEADLINE)
        (assoc,) = attacked.server.active_associations
        releasing = threading.Thread(target=assoc.release)
        releasing.start()
        assert raw.pdu() == ReleaseRQ()
        raw.send(ReleaseRQ())
        raw.send(ReleaseRP())
        assert raw.pdu() == ReleaseRP()
        raw.sock.close()
        releasing.join(SOON)
        assert not releasing.is_alive()
        assert isinstance(attacked.end(), Released)


def test_release_within_a_message(tmp_path: Path) -> None:
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    with victim(store.binding, limits={"memory": 1000}, spool=spool) as attacked:
        with associated(attacked.server) as raw:
            raw.send(p_data(WHOLE_COMMAND, pdv(DATA, bytes(5000))), ReleaseRQ())
            assert isinstance(raw.pdu(), ReleaseRP | Abort)
        assert attacked.end(SOON) is not None
        assert list(spool.iterdir()) == store.everything() == []


def test_release_behind_requests(tmp_path: Path) -> None:
    """A peer that does not wait for the responses gets them before the A-RELEASE-RP."""
    store = Store(tmp_path)
    with victim(store.binding) as attacked:
        with associated(attacked.server) as raw:
            raw.send(echo_rq(1), store_rq(b"abcd", 2), echo_rq(3), ReleaseRQ())
            assert [raw.message().MessageIDBeingRespondedTo for _ in range(3)] == [1, 2, 3]
            assert raw.pdu() == ReleaseRP()
        assert isinstance(attacked.end(SOON), Released)
    assert store.everything() == ["1.2.3.dcm"]


def test_released_instead_of_answered() -> None:
    def release(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(ReleaseRQ())
        assert raw.pdu() == ReleaseRP()

    with nothing_left(), scripted(release) as address:
        assoc = entity().associate(*address)
        before = time.monotonic()
        with pytest.raises(AssociationReleased):
            assoc.send_c_echo()
        assert time.monotonic() - before < SOON
        assert assoc.is_released


# ---- answers that make no sense


def test_rejected_with_unknown_codes() -> None:
    def reject(raw: Raw) -> None:
        raw.pdu()
        raw.send(AssociateRJ(9, 8, 7))
        assert raw.is_closed(SOON)

    with nothing_left(), scripted(reject) as address, pytest.raises(AssociationRejected) as caught:
        entity().associate(*address)
    assert (caught.value.result, caught.value.source, caught.value.reason) == (9, 8, 7)


def test_an_acceptor_that_accepts_what_nobody_asked_for() -> None:
    """Contexts that were not proposed, and a transfer syntax that was not, count for nothing."""

    def accept(raw: Raw) -> None:
        asked: Any = raw.pdu()
        answer = accepting(asked)
        first = evolve(answer.presentation_contexts[0], transfer_syntax="1.2.840.10008.1.2.2")
        raw.send(evolve(answer, presentation_contexts=(first, evolve(first, context_id=77))))
        assert raw.aborted() == (0, 0)

    with nothing_left(), scripted(accept) as address, pytest.raises(NoAcceptedContext):
        entity().associate(*address)


@pytest.mark.parametrize(("asked", "status"), [("store", 0x0000), ("echo", 0xFF00)])
def test_a_response_to_another_operation(asked: str, status: int) -> None:
    """C-ECHO-RSP does not make a C-STORE a success, nor does a Pending end an operation that has one response."""

    def answer(raw: Raw) -> None:
        raw.accept()
        raw.send(echo_rsp(raw.message(), status))
        assert raw.aborted() == (0, 0)

    with nothing_left(), scripted(answer) as address:
        assoc = entity().associate(*address)
        with pytest.raises(PeerProtocolError, match="answered by C-ECHO-RSP"):
            assoc.send_c_store(instance(100)) if asked == "store" else assoc.send_c_echo()
        assert assoc.is_aborted
        assert assoc.join(DEADLINE)


def test_responses_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """They are logged and dropped; the right one still counts, and a spooled one leaves no file."""

    def answer(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        raw.send(echo_rsp(asked, 0x0110, message_id=4711), echo_rsp(asked, 0x0122), echo_rsp(asked, 0x0000))
        raw.pdu()
        raw.send(ReleaseRP())

    caplog.set_level(logging.WARNING, logger="rxdicom")
    with nothing_left(), scripted(answer) as address, entity().associate(*address) as assoc:
        assert assoc.send_c_echo() == 0x0122
    assert "not outstanding" in caplog.text


def test_datasets_that_nobody_wants_leave_no_file(tmp_path: Path) -> None:
    """In a C-ECHO response, in a response to nothing, in a C-CANCEL: spooled, and removed at once."""
    data = bytes(5000)

    def with_dataset(command: dict[str, Any]) -> bytes:
        body = encode_command_set({**command, "CommandDataSetType": 1})
        return p_data(pdv(COMMAND | LAST, body, ECHO_CONTEXT), pdv(DATA | LAST, data, ECHO_CONTEXT))

    def answer(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        response = {"CommandField": 0x8030, "Status": 0}
        raw.send(
            with_dataset({**response, "MessageIDBeingRespondedTo": 4711}),
            with_dataset({"CommandField": 0x0FFF, "MessageIDBeingRespondedTo": 1}),
            with_dataset({"CommandField": 0x0030, "MessageID": 1, "AffectedSOPClassUID": VERIFICATION}),
            with_dataset({**response, "MessageIDBeingRespondedTo": asked.MessageID}),
        )
        assert raw.message().Status == 0x0000
        assert raw.pdu() == ReleaseRQ()
        assert not list(tmp_path.iterdir())
        raw.send(ReleaseRP())

    with nothing_left(), scripted(answer) as address:
        ae = entity(limits={"memory": 1000})
        ae.spool_folder = str(tmp_path)
        with ae.associate(*address) as assoc:
            assert assoc.send_c_echo() == 0x0000
    assert not list(tmp_path.iterdir())


# ---- text


def test_hostile_text_stays_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """CR, LF, ESC in AE titles and UIDs: escaped in every line of the log, the most detailed ones too."""
    caplog.set_level(logging.DEBUG, logger="rxdicom")
    hostile = "\r\n\x1b[2JERROR x"

    def raising(event: Any) -> int:
        raise ValueError(f"cannot store {event.request.AffectedSOPInstanceUID} of {event.assoc.requestor}")

    with victim((evt.EVT_C_STORE, raising)) as attacked:
        with associated(attacked.server, request(calling=hostile)) as raw:
            raw.send(store_rq(b"abcd", instance=hostile))
            assert raw.message().Status == 0xC211
            unknown = echo_rsp(message(Command.C_ECHO_RQ, ECHO_CONTEXT, MessageID=9, AffectedSOPClassUID="1.2"))
            raw.send(unknown)
            raw.send(echo_rq())
            assert raw.message().Status == 0x0000
        attacked.end()
        with connect(attacked.server) as raw:
            raw.send(evolve(request(calling=hostile), called_ae_title=hostile, application_context=hostile))
            assert isinstance(raw.pdu(), AssociateRJ)
        attacked.end()
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().isprintable(), record


# ---- cuts


PIXELS = bytes(range(256)) * 4


class Pieces:
    """Sends in pieces, each only after the one before has been received by itself."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    @property
    def binding(self) -> EventHandler:
        return (evt.EVT_DATA_RECV, self._on_data)

    def _on_data(self, event: DataReceived) -> None:
        self._received.put(event.data)

    def send(self, raw: Raw, *pieces: bytes) -> None:
        for piece in pieces:
            raw.send(piece)
            left = len(piece)
            while left:
                left -= len(self._received.get(timeout=DEADLINE))


def test_cut_at_every_byte() -> None:
    """What is received does not depend on how it is cut."""
    received: list[bytes] = []

    def store(event: CStore) -> int:
        received.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    pieces = Pieces()
    whole = store_rq(PIXELS, maximum_length=512)
    asked = encode_pdu(request())
    with victim((evt.EVT_C_STORE, store), pieces.binding) as attacked:
        with connect(attacked.server) as raw:
            pieces.send(raw, asked)
            assert isinstance(raw.pdu(), AssociateAC)
            for cut in range(1, len(whole)):
                pieces.send(raw, whole[:cut], whole[cut:])
                assert raw.message().Status == 0x0000
                assert received.pop() == PIXELS
        attacked.end()
        for cut in range(1, len(asked), 5):
            with connect(attacked.server) as raw:
                pieces.send(raw, asked[:cut], asked[cut:])
                assert isinstance(raw.pdu(), AssociateAC)
            attacked.end()


def test_byte_by_byte(tmp_path: Path) -> None:
    store, pieces = Store(tmp_path), Pieces()
    with victim(store.binding, pieces.binding) as attacked, connect(attacked.server) as raw:
        for part in (encode_pdu(request()), store_rq(PIXELS, maximum_length=512), encode_pdu(ReleaseRQ())):
            pieces.send(raw, *(bytes((byte,)) for byte in part))
            if part[0] == PDataTF.pdu_type:
                assert raw.message().Status == 0x0000
            else:
                assert isinstance(raw.pdu(), AssociateAC | ReleaseRP)
        assert store.data("1.2.3") == PIXELS


# ---- sizes of PDUs


@pytest.mark.parametrize("maximum", [0, 8, 9, 10, 13, 1024, 4096, 131072, (1 << 32) - 1])
def test_what_we_send_keeps_to_the_peers_maximum(maximum: int) -> None:
    """As SCU and as SCP: no P-DATA-TF is larger, every fragment is even, and the data arrive."""
    data = bytes(range(256)) * (4 if 0 < maximum < 100 else 2000)
    sizes: list[int] = []
    received = bytearray()

    def receive(raw: Raw) -> None:
        raw.accept(maximum)
        last = False
        while not last:
            pdu = raw.pdu_bytes()
            sizes.append(len(pdu) - 6)
            # One PDV in each PDU.
            _, control = pdu[10], pdu[11]
            if not control & COMMAND:
                received.extend(pdu[12:])
                last = bool(control & LAST)
        raw.send(p_data(pdv(COMMAND | LAST, encode_command_set(_stored().command))))
        assert raw.pdu() == ReleaseRQ()
        raw.send(ReleaseRP())

    image = instance(0)
    image.add_new(0x7FE00010, "OW", data)
    with nothing_left(), scripted(receive) as address, entity().associate(*address) as assoc:
        assert assoc.send_c_store(image) == 0x0000
    assert received.endswith(data)
    assert max(sizes) <= (maximum or 131072)
    assert all(size % 2 == 0 for size in sizes)
    with victim() as attacked, associated(attacked.server, request(maximum_length=maximum)) as raw:
        raw.send(echo_rq())
        answer = raw.pdu_bytes()
        assert len(answer) - 6 <= (maximum or 131072)


def _stored() -> Any:
    return message(Command.C_STORE_RSP, CT_CONTEXT, MessageIDBeingRespondedTo=1, Status=0)


@pytest.mark.parametrize("maximum", [1, 5, 7])
def test_a_maximum_that_leaves_no_room(maximum: int) -> None:
    """Nothing can ever be sent to such a peer: that is said, and not waited for."""
    with victim() as attacked:
        with associated(attacked.server, request(maximum_length=maximum)) as raw:
            raw.send(echo_rq())
            assert raw.aborted() == (0, 0)
        event = attacked.end()
        assert isinstance(event, Aborted)
        assert "maximum PDU length" in event.cause

    def accept(raw: Raw) -> None:
        raw.accept(maximum)
        assert raw.aborted() == (0, 0)

    with nothing_left(), scripted(accept) as address:
        assoc = entity().associate(*address)
        with pytest.raises(ValueError, match="maximum PDU length"):
            assoc.send_c_echo()
        assoc.abort()


@pytest.mark.parametrize("ours", [0, 1024, 4096])
@pytest.mark.parametrize("theirs", [0, 1024, 4096])
def test_sizes_between_ourselves(tmp_path: Path, ours: int, theirs: int) -> None:
    store = Store(tmp_path)
    image = instance(100_000)
    with victim(store.binding, limits={"pdu": ours}) as attacked:
        scu = entity(limits={"pdu": theirs})
        with scu.associate(*attacked.server.address) as assoc:
            assert assoc.send_c_store(image) == 0x0000
    assert store.data("1.2.3").endswith(bytes(100_000))


@pytest.mark.parametrize(("advertised", "limit"), [(1024, 1024), (4096, 4096), (0, 67108864)])
def test_what_is_larger_than_our_maximum(advertised: int, limit: int) -> None:
    """Refused from its header, where "unlimited" is advertised too."""
    with victim(limits={"pdu": advertised}) as attacked:
        with associated(attacked.server) as raw:
            raw.send(HEADER.pack(4, limit + 1))
            assert raw.aborted() == INVALID
        assert attacked.ended_by() == (*INVALID, "local")
