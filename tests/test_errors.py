"""The typed failures: one base class, the built-in ones that they also are, and messages that say what to do next."""

import inspect
from typing import Any

import pytest

import rxdicom
from rxdicom import errors

MADE: dict[type[errors.RxDicomError], tuple[Any, ...]] = {
    errors.AssociationRejected: (1, 1, 7),
    errors.AssociationAborted: (2, 6),
    errors.AssociationReleased: (),
    errors.TimedOut: ("response", 30.0),
    errors.NoAcceptedContext: ("1.2.3", ["1.2.3", "1.2.4"], ["1.2.4"]),
}
ALSO = {
    errors.StateError: RuntimeError,
    errors.ArgumentError: ValueError,
    errors.InvalidFile: ValueError,
    errors.DatasetError: ValueError,
    errors.NoAcceptedContext: ValueError,
    errors.ConnectionFailed: ConnectionError,
    errors.TimedOut: TimeoutError,
}
EVERY = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_there_is_one_base_class_and_each_can_be_imported_from_the_top(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.RxDicomError)
    assert getattr(rxdicom, kind.__name__) is kind
    assert kind.__name__ in rxdicom.__all__


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_what_they_also_are(kind: type[Exception]) -> None:
    builtin = {each for each in kind.__mro__ if each.__module__ == "builtins"} - {Exception, BaseException, object}
    assert builtin & {RuntimeError, ValueError, ConnectionError, TimeoutError} == (
        {ALSO[kind]} if kind in ALSO else set()
    )


def test_mistakes_of_the_program_are_told_from_those_of_the_peer() -> None:
    local = {kind for kind in EVERY if issubclass(kind, errors.LocalUsageError)}
    assert local == {errors.LocalUsageError, errors.StateError, errors.ArgumentError, errors.InvalidFile}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_the_message_says_what_to_do_next(kind: type[errors.RxDicomError]) -> None:
    what, advice = str(kind(*MADE[kind])).rsplit("; ", 1)
    assert what
    assert advice.split()[0] in ("check", "open", "raise", "request", "try")


def test_what_they_carry() -> None:
    rejected = errors.AssociationRejected(2, 3, 2)
    assert (rejected.result, rejected.source, rejected.reason) == (2, 3, 2)
    assert str(rejected) == "association rejected transiently: local limit exceeded; try again later"
    aborted = errors.AssociationAborted(2, 6, "local")
    assert (aborted.source, aborted.reason, aborted.by) == (2, 6, "local")
    late = errors.TimedOut("release", 0.5)
    assert (late.phase, late.seconds) == ("release", 0.5)
    refused = errors.NoAcceptedContext("1.2.3", ["1.2.3"], iter(["1.2.4"]))
    assert (refused.wanted, refused.proposed, refused.accepted) == ("1.2.3", ("1.2.3",), ("1.2.4",))


@pytest.mark.parametrize("source", [0, 1, 2, 3, 255])
@pytest.mark.parametrize("reason", [0, 3, 7, 255])
def test_codes_that_no_table_has_are_named_as_such(source: int, reason: int) -> None:
    for text in (errors.reject_reason(source, reason), errors.abort_reason(source, reason)):
        assert text
    if source == 255:
        assert errors.reject_reason(source, reason) == f"source 255, reason {reason}"
        assert str(errors.AssociationRejected(9, source, reason)).startswith("association rejected with result 9: ")
