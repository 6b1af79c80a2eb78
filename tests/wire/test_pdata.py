"""Fragmentation: what runs of P-DATA-TF decode back to, how they are read from their source; and encoded datasets."""

import threading
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdicom.errors import ArgumentError
from rxdicom.wire.dimse import Command, Message, decode_command_set, encode_command_set, message
from rxdicom.wire.encoded import BytesSource, Encoded
from rxdicom.wire.pdata import (
    OVERHEAD,
    RUN_SIZE,
    UNLIMITED_LENGTH,
    command_pdus,
    fragment_header,
    fragment_length,
    message_runs,
)
from rxdicom.wire.pdu import PDV, PDataTF, decode_pdu

from .strategies import REPEATABLE, any_message

CONTEXT = 5
STORE = message(
    Command.C_STORE_RQ,
    CONTEXT,
    Encoded("1.2.840.10008.1.2", b""),
    MessageID=1,
    Priority=0,
    AffectedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
    AffectedSOPInstanceUID="1.2.3.4",
)
ECHO = message(Command.C_ECHO_RQ, CONTEXT, MessageID=1, AffectedSOPClassUID="1.2.840.10008.1.1")
PATTERN = bytes(range(251)) * 6000


class Recorder:
    """A source of any size that makes its bytes up, and notes what is asked of it."""

    def __init__(self, size: int, fails_at: int | None = None) -> None:
        self.size = size
        self.fails_at = fails_at
        self.reads: list[tuple[int, int]] = []
        self.closed = 0

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        if len(self.reads) == self.fails_at:
            raise OSError("unreadable")
        self.reads.append((offset, sum(map(len, views))))
        for view in views:
            start = offset % 251
            view[:] = PATTERN[start : start + len(view)]
            offset += len(view)

    def close(self) -> None:
        self.closed += 1


def split(stream: bytes) -> list[bytes]:
    """The whole PDUs that a stream consists of."""
    found: list[bytes] = []
    while stream:
        end = 6 + int.from_bytes(stream[2:6], "big")
        found.append(stream[:end])
        stream = stream[end:]
    return found


def values_of(pdus: Sequence[bytes]) -> list[PDV]:
    """The single presentation data value of each P-DATA-TF."""
    values: list[PDV] = []
    for pdu in pdus:
        decoded = decode_pdu(pdu)
        assert isinstance(decoded, PDataTF)
        [value] = decoded.values
        values.append(value)
    return values


def check(runs: Sequence[bytes], sent: Message, data: bytes | None, maximum_length: int) -> None:
    """What PS3.8 Annex E and PS3.7 Annex F ask of the P-DATA-TF of one message."""
    pdus = [pdu for run in runs for pdu in split(run)]
    assert not maximum_length or max(map(len, pdus)) - 6 <= maximum_length
    values = values_of(pdus)
    assert {value.context_id for value in values} == {sent.context_id}
    commands = [value for value in values if value.is_command]
    datasets = values[len(commands) :]
    assert not any(value.is_command for value in datasets), "the command set comes first"
    assert b"".join(value.data for value in commands) == encode_command_set(sent.command)
    assert [value.control for value in commands] == [1] * (len(commands) - 1) + [3]
    if data is None:
        assert not datasets
        return
    assert b"".join(value.data for value in datasets) == data
    assert [value.control for value in datasets] == [0] * (len(datasets) - 1) + [2]
    assert all(value.data for value in datasets) or (not data and len(datasets) == 1)
    lengths = [len(value.data) for value in (*commands, *datasets)]
    assert not any(length & 1 for length in (lengths[:-1] if len(data) & 1 else lengths))


def collected(sent: Message, source: BytesSource | Recorder | None, maximum_length: int) -> list[bytes]:
    return [bytes(run) for run in message_runs(sent, source, maximum_length)]


_MAXIMA = (8, 9, 15, 16, 100, 127, 1024, 16383, 16384, 65536, 131072, 131073, RUN_SIZE, 1 << 31, 0xFFFFFFFF, 0)


def _sizes(maximum_length: int) -> list[int]:
    """0 to 3 bytes, and each side of: a fragment, two, a run, two runs."""
    step = fragment_length(maximum_length)
    first = (RUN_SIZE - len(command_pdus(STORE, maximum_length))) // (step + OVERHEAD) * step
    run = max(1, first)
    edges = [0, step, 2 * step, *((run, 2 * run, 2 * run + step) if step > 1000 else ())]
    return sorted({max(0, edge + delta) for edge in edges for delta in (-2, -1, 0, 1, 2, 3)})


@pytest.mark.parametrize("maximum_length", _MAXIMA)
def test_runs_decode_to_what_was_sent(maximum_length: int) -> None:
    for size in _sizes(maximum_length):
        data = PATTERN[:size]
        runs = collected(STORE, BytesSource(data), maximum_length)
        check(runs, STORE, data, maximum_length)
        assert max(map(len, runs)) <= max(RUN_SIZE, fragment_length(maximum_length) + 2 * OVERHEAD + 200)


@pytest.mark.parametrize(("maximum_length", "expected"), [(131072, [3, 2]), (65536, [5, 4]), (16384, [17, 16])])
def test_runs_are_alike(maximum_length: int, expected: list[int]) -> None:
    """An image of 512 by 512 pixels of two bytes leaves in two, and not in three, of which the last has next to
    nothing."""
    source = Recorder(512 * 512 * 2 + 1100)
    collected(STORE, source, maximum_length)
    assert [-(-length // fragment_length(maximum_length)) for _, length in source.reads] == expected


def test_a_run_of_smallest_fragments_is_limited_too() -> None:
    size = 60001
    runs = collected(STORE, Recorder(size), 8)
    check(runs, STORE, PATTERN[:size], 8)
    assert len(runs) == 2
    assert max(map(len, runs)) <= RUN_SIZE


@REPEATABLE
@given(sent=any_message, data=st.binary(max_size=300), maximum_length=st.integers(8, 200))
def test_every_message_survives_fragmentation(sent: Message, data: bytes, maximum_length: int) -> None:
    source = BytesSource(data) if sent.has_dataset else None
    runs = collected(sent, source, maximum_length)
    check(runs, sent, data if sent.has_dataset else None, maximum_length)
    values = values_of([pdu for run in runs for pdu in split(run)])
    received = decode_command_set(b"".join(value.data for value in values if value.is_command))
    del received["CommandGroupLength"]
    assert received == sent.command


def test_a_message_without_dataset_is_its_command_alone() -> None:
    runs = collected(ECHO, None, 16384)
    check(runs, ECHO, None, 16384)
    assert runs == [command_pdus(ECHO, 16384)]


def test_command_and_first_fragments_leave_together() -> None:
    [run] = collected(STORE, BytesSource(b"pixels"), 16384)
    assert [value.control for value in values_of(split(run))] == [3, 2]


def test_golden_bytes_of_a_fragment() -> None:
    # P-DATA-TF, reserved, 8 bytes follow; PDV of 4 bytes, context 5, dataset and last; the data
    assert collected(STORE, BytesSource(b"\x01\x02"), 0)[0].endswith(
        b"\x04\x00\x00\x00\x00\x08" b"\x00\x00\x00\x04" b"\x05" b"\x02" b"\x01\x02"
    )  # fmt: skip
    assert fragment_header(2, 5, 2) == b"\x04\x00\x00\x00\x00\x08" b"\x00\x00\x00\x04" b"\x05" b"\x02"  # fmt: skip
    assert len(fragment_header(0, 1, 3)) == OVERHEAD


@pytest.mark.parametrize(
    ("maximum_length", "length"),
    [
        (8, 2),
        (9, 2),
        (10, 4),
        (16384, 16378),
        (16385, 16378),
        (UNLIMITED_LENGTH, UNLIMITED_LENGTH - 6),
        (0, UNLIMITED_LENGTH - 6),
        (0xFFFFFFFF, UNLIMITED_LENGTH - 6),
    ],
)
def test_fragment_lengths_are_even_and_bounded(maximum_length: int, length: int) -> None:
    assert fragment_length(maximum_length) == length


@pytest.mark.parametrize("maximum_length", [1, 6, 7])
def test_a_maximum_without_room_for_data_is_an_error_and_the_source_is_closed(maximum_length: int) -> None:
    source = Recorder(10)
    with pytest.raises(ArgumentError):
        collected(STORE, source, maximum_length)
    assert (source.reads, source.closed) == ([], 1)


@pytest.mark.parametrize("maximum_length", [4096, 16384, 0])
def test_the_source_is_read_a_run_at_a_time_in_order(maximum_length: int) -> None:
    source = Recorder(5 * RUN_SIZE + 1)
    runs = message_runs(STORE, source, maximum_length)
    assert source.reads == []
    asked = 0
    for run in runs:
        asked += 1
        assert len(run) <= RUN_SIZE
        assert (len(source.reads), source.closed) == (asked, 0)
    assert asked >= 6
    assert source.closed == 1
    position = 0
    for offset, length in source.reads:
        assert offset == position
        assert 0 < length < RUN_SIZE
        position += length
    assert position == source.size


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("ending", ["close", "forget"])
def test_the_source_is_closed_when_the_generator_is_given_up(taken: int, ending: str) -> None:
    source = Recorder(4 * RUN_SIZE)
    runs = message_runs(STORE, source, 16384)
    for _ in range(taken):
        next(runs)
    if ending == "close":
        runs.close()
    del runs
    assert (len(source.reads), source.closed) == (taken, 1)


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_source_that_fails_is_closed_and_its_error_raised(fails_at: int) -> None:
    source = Recorder(4 * RUN_SIZE, fails_at)
    runs = message_runs(STORE, source, 16384)
    for _ in range(fails_at):
        next(runs)
    with pytest.raises(OSError, match="unreadable"):
        next(runs)
    assert source.closed == 1
    assert list(runs) == []


def test_a_message_that_cannot_be_encoded_closes_its_source() -> None:
    source = Recorder(10)
    runs = message_runs(Message({**STORE.command, "MessageID": 65536}, 1), source, 16384)
    with pytest.raises(ArgumentError):
        next(runs)
    assert (source.reads, source.closed) == ([], 1)


@pytest.mark.parametrize("maximum_length", [4096, 131072, 0, 1 << 30, 0xFFFFFFFF])
def test_2_gib_are_sent_without_being_held(maximum_length: int) -> None:
    source = Recorder(2 << 30)
    tracemalloc.start()
    try:
        runs = message_runs(STORE, source, maximum_length)
        for _ in range(8):
            next(runs)
        assert tracemalloc.get_traced_memory()[1] < 2 * RUN_SIZE
        runs.close()
    finally:
        tracemalloc.stop()
    assert len(source.reads) == 8
    assert sum(length for _, length in source.reads) <= 8 * RUN_SIZE
    assert source.closed == 1


@pytest.mark.parametrize("data", [b"0123456789", bytearray(b"0123456789"), memoryview(b"0123456789")])
def test_bytes_are_a_source(data: bytes | bytearray | memoryview) -> None:
    source = BytesSource(data)
    first, second = bytearray(3), bytearray(4)
    source.read_into(2, [memoryview(first), memoryview(bytearray()), memoryview(second)])
    source.close()
    assert (source.size, first, second) == (10, b"234", b"5678")


def test_a_dataset_is_decoded_once_for_all_who_ask() -> None:
    calls: list[Encoded] = []
    together = threading.Barrier(8)

    def decode(encoded: Encoded) -> list[Encoded]:
        calls.append(encoded)
        return calls

    def ask() -> object:
        together.wait(timeout=10)
        return encoded.decoded(decode)

    encoded = Encoded("1.2.840.10008.1.2", b"data")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
        results = [each.result(timeout=10) for each in asked]
    assert calls == [encoded]
    assert all(result is calls for result in results)


def test_a_decoding_error_is_kept_and_raised_again() -> None:
    calls: list[Encoded] = []

    def fail(encoded: Encoded) -> None:
        calls.append(encoded)
        raise ValueError("not a dataset")

    encoded = Encoded("1.2.840.10008.1.2", b"data")
    for _ in range(3):
        with pytest.raises(ValueError, match="not a dataset"):
            encoded.decoded(fail)
    assert len(calls) == 1


def test_an_encoded_dataset_tells_its_size_and_place_but_no_content() -> None:
    in_memory = Encoded("1.2", b"DOE^JOHN")
    in_file = Encoded("1.2", path="/data/1.dcm", offset=300, size=7)
    assert (in_memory.size, in_file.size, in_file.offset, Encoded("1.2").size) == (8, 7, 300, 0)
    assert "DOE" not in repr(in_memory)
    assert "8 bytes" in repr(in_memory)
    assert "/data/1.dcm" in repr(in_file)
