"""IP datagrams put together again from their fragments: any order and repetition, and never without a bound."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdicom.recording.fragments import Fragment, Fragments

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
PAYLOAD = bytes(range(256)) * 4


def part(offset: int, size: int, number: int = 1, payload: bytes = PAYLOAD) -> Fragment:
    return Fragment(b"a", b"b", number, offset, offset + size >= len(payload), payload[offset : offset + size])


@given(st.lists(st.integers(1, 127), max_size=12, unique=True), st.data())
def test_any_order_and_repetition_gives_the_datagram_once(cuts: list[int], data: st.DataObject):
    ends = [0, *(8 * each for each in sorted(cuts)), len(PAYLOAD)]
    parts = [part(start, end - start) for start, end in pairwise(ends)]
    ordered = data.draw(st.permutations(parts))
    repeated = [each for number, one in enumerate(ordered) for each in (*ordered[: number % 3], one)]
    fragments, whole = Fragments(), list[bytes]()
    for each in repeated:
        made = fragments.add(NOON, each)
        if made is not None:
            whole.append(made)
            break
    assert whole == [PAYLOAD]
    assert fragments.bytes == 0


def test_overlapping_fragments_are_trimmed_and_the_earlier_part_counts():
    fragments = Fragments()
    assert fragments.add(NOON, part(0, 512)) is None
    assert fragments.add(NOON, part(256, 512)) is None
    assert fragments.add(NOON, part(768, 256)) == PAYLOAD


def test_what_is_behind_the_last_fragment_does_not_count():
    fragments = Fragments()
    assert fragments.add(NOON, Fragment(b"a", b"b", 1, 8, False, bytes(64))) is None
    assert fragments.add(NOON, Fragment(b"a", b"b", 1, 0, False, bytes(8))) is None
    assert fragments.add(NOON, Fragment(b"a", b"b", 1, 8, True, bytes(8))) == bytes(16)


def test_datagrams_are_told_apart_by_number_and_by_ends():
    fragments = Fragments()
    assert fragments.add(NOON, part(0, 512, number=1)) is None
    assert fragments.add(NOON, part(512, 512, number=2)) is None
    assert fragments.add(NOON, Fragment(b"b", b"a", 1, 512, True, PAYLOAD[512:])) is None
    assert fragments.add(NOON, part(512, 512, number=1)) == PAYLOAD


def test_fragments_of_another_minute_belong_to_another_datagram():
    fragments, later = Fragments(), NOON + timedelta(seconds=61)
    assert fragments.add(NOON, part(0, 512)) is None
    assert fragments.add(later, part(512, 512)) is None
    assert fragments.add(later, part(0, 512)) == PAYLOAD


def test_what_never_becomes_whole_is_kept_within_a_bound():
    fragments, piece = Fragments(), bytes(60_000)
    for number in range(1000):
        assert fragments.add(NOON, Fragment(b"a", b"b", number, 0, False, piece)) is None
        assert fragments.bytes <= 1 << 23
    assert fragments.bytes > (1 << 23) - 61_000
    # The newest are still there, the oldest gave way.
    assert fragments.add(NOON, Fragment(b"a", b"b", 999, 60_000, True, b"end")) == piece + b"end"
    assert fragments.add(NOON, Fragment(b"a", b"b", 0, 60_000, True, b"end")) is None


def test_a_datagram_has_no_more_than_it_can_have():
    fragments = Fragments()
    assert fragments.add(NOON, Fragment(b"a", b"b", 1, 65_528, True, bytes(8))) is None
    assert fragments.bytes == 0


@pytest.mark.parametrize("numbers", [50_000, 1])
def test_small_fragments_are_kept_within_a_bound_too(numbers: int):
    fragments = Fragments()
    tracemalloc.start()
    try:
        for number in range(50_000):
            fragments.add(NOON, Fragment(b"a", b"b", number % numbers, number % 8000 * 8, False, bytes(1)))
        assert tracemalloc.get_traced_memory()[1] < 3 << 23
    finally:
        tracemalloc.stop()
