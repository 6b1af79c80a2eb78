"""TCP streams put together: whatever the network does to segments, the bytes come once, in order, or not at all."""

from datetime import UTC, datetime
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from rxdicom.recording.packets import Segment
from rxdicom.recording.tcp import Gap, Stream
from tests.recording.support import ACK, CLIENT, FIN, SERVER, SYN
from tests.wire.strategies import MANY

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


def segment(sequence: int, data: bytes = b"", flags: int = ACK, missing: int = 0) -> Segment:
    return Segment(NOON, CLIENT, SERVER, sequence % (1 << 32), flags, data, missing)


def through(*segments: Segment) -> list[bytes | Gap]:
    stream = Stream()
    return [part for each in segments for part in stream.add(each)]


def test_bytes_come_as_they_came():
    assert through(segment(9, flags=SYN), segment(10, b"ab"), segment(12, b"c")) == [b"ab", b"c"]


def test_what_comes_again_is_left_out():
    assert through(segment(9, flags=SYN), *[segment(10, b"ab")] * 3, segment(12, b"c")) == [b"ab", b"c"]


def test_what_overlaps_is_trimmed():
    assert through(segment(9, flags=SYN), segment(10, b"abc"), segment(11, b"bcde")) == [b"abc", b"de"]


def test_what_comes_late_is_waited_for():
    assert through(segment(9, flags=SYN), segment(12, b"c"), segment(13, b"d"), segment(10, b"ab")) == [
        b"ab",
        b"c",
        b"d",
    ]


def test_of_two_that_begin_alike_the_longer_counts():
    assert through(segment(9, flags=SYN), segment(12, b"cd"), segment(12, b"c"), segment(10, b"ab")) == [b"ab", b"cd"]


def test_a_keep_alive_says_nothing():
    assert through(segment(9, flags=SYN), segment(10, b"ab"), segment(11, b"b"), segment(11)) == [b"ab"]


def test_a_stream_whose_beginning_was_not_captured_begins_with_its_first_bytes():
    assert through(segment(500), segment(500, b"ab"), segment(502, b"c")) == [b"ab", b"c"]


def test_it_is_over_when_everything_before_the_end_is_there():
    stream = Stream()
    over: list[bool] = []
    for each in (segment(9, flags=SYN), segment(12, b"c", FIN | ACK), segment(10, b"ab")):
        list(stream.add(each))
        over.append(stream.is_over)
    assert over == [False, False, True]


def test_what_was_cut_off_a_frame_is_a_gap_and_nothing_comes_behind():
    assert through(segment(9, flags=SYN), segment(10, b"ab", missing=7), segment(19, b"c")) == [b"ab", Gap(7)]
    assert through(segment(9, flags=SYN), segment(10, b"", missing=7)) == [Gap(7)]


def test_what_never_comes_is_a_gap_at_the_end():
    stream = Stream()
    assert list(stream.add(segment(9, flags=SYN))) == []
    assert list(stream.add(segment(15, b"late"))) == []
    assert list(stream.finish()) == [Gap(5)]
    assert list(stream.finish()) == []


def test_what_never_comes_is_not_waited_for_without_end():
    stream = Stream()
    parts: list[bytes | Gap] = list(stream.add(segment(9, flags=SYN)))
    chunk = bytes(1 << 20)
    for number in range(20):
        parts += stream.add(segment(20 + number * len(chunk), chunk))
    assert parts == [Gap(10)]
    assert stream.is_lost


@MANY
@given(
    data=st.binary(min_size=1, max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    again=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 60)), max_size=8),
    first=st.sampled_from([0, 1, (1 << 32) - 1, (1 << 32) - 100, 12345]),
    order=st.randoms(use_true_random=False),
)
def test_any_order_and_repetition_gives_the_same_bytes(
    data: bytes, cuts: list[int], again: list[tuple[int, int]], first: int, order: Random
):
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    segments = [segment(first + 1 + start, data[start:stop]) for start, stop in pairwise(ends)]
    segments += [segment(first + 1 + at, data[at : at + size]) for at, size in again if at < len(data)]
    order.shuffle(segments)
    segments.append(segment(first + 1 + len(data), flags=FIN | ACK))
    stream = Stream()
    parts = [part for each in (segment(first, flags=SYN), *segments) for part in stream.add(each)]
    assert b"".join(part for part in parts if isinstance(part, bytes)) == data
    assert not [part for part in parts if isinstance(part, Gap)]
    assert stream.is_over
