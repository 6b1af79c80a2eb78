"""Message IDs of requests: in turn, around the end, past those that are outstanding."""

import pytest

from rxdicom.errors import ArgumentError, StateError
from rxdicom.runtimes.user import MessageIDs


def test_in_turn_and_around() -> None:
    ids = MessageIDs({1, 3, 65_535})
    assert [ids.next(None) for _ in range(3)] == [2, 4, 5]
    assert [ids.next(None) for _ in range(65_534 - 5)][-1] == 65_534
    assert ids.next(None) == 2


def test_one_that_is_given_changes_nothing() -> None:
    ids = MessageIDs({7})
    assert [ids.next(each) for each in (0, 65_535, None)] == [0, 65_535, 1]
    with pytest.raises(ArgumentError, match="message ID 7 is outstanding"):
        ids.next(7)
    for wrong in (-1, 65_536):
        with pytest.raises(ArgumentError, match="from 0 to 65535"):
            ids.next(wrong)


def test_what_is_given_back_is_used_again() -> None:
    outstanding = set(range(1, 65_536))
    ids = MessageIDs(outstanding)
    with pytest.raises(StateError, match="all 65535 message IDs are outstanding"):
        ids.next(None)
    outstanding.remove(12)
    assert ids.next(None) == 12
