"""The log: what every record goes through, the log of an association, and the ways to see it."""

import io
import json
import logging
import logging.config
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rxdicom
from rxdicom.errors import ArgumentError, ConnectionFailed, DatasetError, RxDicomError
from rxdicom.log import (
    LOG,
    PHI,
    AssociationLogger,
    DebugHandler,
    JSONFormatter,
    Lines,
    concerning,
    debug_logger,
    named,
    wants_phi,
    words,
)
from tests.logged import Logged, logged
from tests.support import DEADLINE

HOSTILE = "A\r\n\x1b[2J\u202e2026-01-01 ERROR forged"
ESCAPED = "A\\r\\n\\x1b[2J\\u202e2026-01-01 ERROR forged"
SECRET = "DOE^JOHN"


@pytest.fixture(autouse=True)
def as_before() -> Generator[None]:
    """The loggers are left as they were."""
    before = LOG.level, PHI.level, LOG.handlers[:]
    yield
    LOG.setLevel(before[0])
    PHI.setLevel(before[1])
    LOG.handlers[:] = before[2]


@pytest.fixture
def log() -> Generator[Logged]:
    with logged(logging.DEBUG) as log:
        yield log


class Named:
    """Something with a name, as associations have."""

    def __init__(self, name: str) -> None:
        self.name = name


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error, raised and caught."""
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


# ---- text


class Hostile:
    def __str__(self) -> str:
        return HOSTILE

    __repr__ = __str__


@pytest.mark.parametrize(
    ("template", "arguments", "shown"),
    [
        ("from %s", (HOSTILE,), f"from {ESCAPED}"),
        ("from %r", (HOSTILE,), "from 'A\\r\\n\\x1b[2J\\u202e2026-01-01 ERROR forged'"),
        ("from %s and %r", (Hostile(), Hostile()), f"from {ESCAPED} and {ESCAPED}"),
        ("failed: %s", (ValueError(HOSTILE),), f"failed: {ESCAPED}"),
        ("%(title)s, %(number)d", ({"title": HOSTILE, "number": 7},), f"{ESCAPED}, 7"),
        ("0x%04X after %.1f s: %s", (0xA700, 1.25, None), "0xA700 after 1.2 s: None"),
        ("%s", ("x" * 1500,), f"{'x' * 1000}... (500 more characters)"),
        ("100 % of it", (), "100 % of it"),
        ("stack:\n%s", (Lines.of(f"one\n{HOSTILE}"),), f"stack:\n    one\n    A\n    {ESCAPED[5:]}"),
    ],
)
def test_what_is_logged_is_escaped_whatever_formats_it(
    log: Logged, template: str, arguments: tuple[Any, ...], shown: str
) -> None:
    LOG.warning(template, *arguments)
    (record,) = log.records
    assert record.getMessage() == shown


def test_a_value_is_not_formatted_if_nobody_wants_to_see_it() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    with logged(logging.WARNING) as log:
        LOG.info("%s", Costly())
        concerning(Named("ME-1")).info("%s", Costly())
    assert log.records == []


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (print, "builtins.print"),
        (Named("x").__init__, f"{__name__}.Named.__init__"),
        (Named, f"{__name__}.Named"),
        (partial(int, SECRET), "builtins.int"),
        (partial(partial(print, SECRET)), "builtins.print"),
        (partial(max, int, [SECRET]), "builtins.int"),
        (Named("x"), f"{__name__}.Named"),
        ([SECRET].append, "list.append"),
        (None, "builtins.NoneType"),
    ],
)
def test_functions_are_named_without_what_they_hold(function: object, name: str) -> None:
    assert named(function) == name


# ---- exceptions


def test_words_of_ours_and_of_the_system_are_shown_others_may_quote_the_patient() -> None:
    system = OSError(28, "No space left on device", f"/data/{SECRET}")
    assert words(raised(system)) == "OSError: No space left on device"
    assert words(raised(ArgumentError("port 0"))) == "ArgumentError: port 0"
    assert words(raised(ConnectionFailed(f"no: {system.strerror}"), system)).startswith("ConnectionFailed: no: ")
    assert words(raised(ArgumentError("no"), RxDicomError("why"))) == "ArgumentError: no"
    assert words(raised(DatasetError("(0010,0010): ValueError"), ValueError(SECRET))).endswith(": ValueError")
    for error in (
        raised(ValueError(SECRET)),
        raised(OSError(SECRET)),
        raised(DatasetError(f"not decoded: {ValueError(SECRET)!r}"), ValueError(SECRET)),
        raised(DatasetError(f"not decoded: {SECRET}"), raised(RxDicomError(SECRET), ValueError(SECRET))),
    ):
        assert words(error).startswith(f"{type(error).__name__} at {__file__}:")
        assert SECRET not in words(error)


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    raise KeyError(f"{SECRET}\nINFO forged")


def test_tracebacks_say_where_and_not_what(log: Logged) -> None:
    def handler() -> None:
        try:
            fail(2)
        except KeyError as error:
            raise ValueError(f"unknown {SECRET}") from error

    try:
        handler()
    except ValueError:
        LOG.exception("it failed")
    assert log.lines[0] == "ERROR it failed"
    assert all(line.startswith("    ") for line in log.lines[1:])
    text = "\n".join(log.lines)
    assert [each in text for each in ("in handler", "in fail", "KeyError at ", "ValueError at ")] == [True] * 4
    assert text.index("KeyError at ") < text.index("ValueError at ")
    assert text.count("Traceback (most recent call last):") == 2
    assert SECRET not in log.everything
    assert log.records[0].exc_info is None


def test_a_traceback_of_a_thousand_frames_is_cut_in_the_middle(log: Logged) -> None:
    try:
        fail(500)
    except KeyError:
        LOG.exception("it failed")
    assert len(log.lines) < 120
    assert any("more" in line and line.startswith("      ... ") for line in log.lines)
    assert "test_a_traceback_of_a_thousand_frames" in log.lines[2]


def test_exceptions_that_go_in_circles(log: Logged) -> None:
    one, two = raised(ValueError("1")), raised(ValueError("2"))
    one.__cause__, two.__cause__ = two, one
    LOG.error("it failed", exc_info=one)
    assert "\n".join(log.lines).count("Traceback") == 2


def test_what_exceptions_say_is_shown_to_those_who_asked_for_patient_data() -> None:
    with logged(logging.DEBUG, phi=True) as log:
        try:
            fail(0)
        except KeyError:
            concerning(Named("ME-1")).exception("it failed")
    assert log.lines[0] == "DEBUG ME-1: in full: KeyError('DOE^JOHN\\nINFO forged')"
    assert log.records[0].name == "rxdicom.phi"
    assert SECRET not in "\n".join(log.lines[1:])


def test_an_exception_without_a_repr_does_no_harm() -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    with logged(logging.DEBUG) as log:
        LOG.error("it failed", exc_info=raised(Broken()))
    assert "Broken at " in log.everything


# ---- patient data


def test_patient_data_is_logged_only_where_that_is_asked_for(log: Logged) -> None:
    secret = concerning(Named("ME-1"))
    secret.phi("name: %s", SECRET)
    assert log.records == []
    assert not wants_phi()
    PHI.setLevel(logging.INFO)
    assert not wants_phi()
    PHI.setLevel(logging.DEBUG)
    secret.phi("name: %s", SECRET)
    assert log.lines == [f"DEBUG ME-1: name: {SECRET}"]
    logging.disable(logging.DEBUG)
    try:
        assert not wants_phi()
    finally:
        logging.disable(logging.NOTSET)


def configured(loggers: dict[str, Any]) -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": loggers})


def test_configuring_the_logger_above_does_not_ask_for_patient_data() -> None:
    """Python resets the levels of the loggers below the one that is configured."""
    PHI.setLevel(logging.ERROR)
    configured({"rxdicom": {"level": "DEBUG"}})
    assert PHI.getEffectiveLevel() == logging.DEBUG
    assert not wants_phi()
    configured({"rxdicom": {"level": "INFO"}, "rxdicom.phi": {"level": "DEBUG"}})
    assert wants_phi()


# ---- the log of an association


def test_records_name_their_association(log: Logged) -> None:
    concerning(Named("ME-YOU-1")).warning("odd: %d %%", 5)
    concerning(Named("100%s\n-2")).error("plain %")
    LOG.info("not about one")
    assert log.lines == ["WARNING ME-YOU-1: odd: 5 %", "ERROR 100%s\\n-2: plain %", "INFO not about one"]
    assert [vars(record)["association"] for record in log.records] == ["ME-YOU-1", "100%s\\n-2", ""]


def test_of_events_and_records_too(log: Logged) -> None:
    class Event:
        assoc = Named("ME-7")

    concerning(Event()).info("about its association")
    concerning(log.records[0]).info("about the same")
    Event.assoc = None  # pyright: ignore[reportAttributeAccessIssue] - of an event that was built by hand
    for subject in (Event(), None, 3, Named(3)):  # pyright: ignore[reportArgumentType]
        concerning(subject).info("about none")
    assert log.lines == ["INFO ME-7: about its association", "INFO ME-7: about the same", *["INFO about none"] * 4]


def test_structured_fields_are_escaped_and_kept_apart(log: Logged) -> None:
    fields = {"peer": HOSTILE, "uids": [HOSTILE, ("1.2",)], "more": {"title": HOSTILE}, "status": 0xA700, "x": None}
    AssociationLogger("ME-1").info("done", extra={**fields, "association": "forged"})
    (record,) = log.records
    shown = {key: vars(record)[key] for key in ("association", *fields)}
    assert shown == {
        "association": "ME-1",
        "peer": ESCAPED,
        "uids": [ESCAPED, ["1.2"]],
        "more": {"title": ESCAPED},
        "status": 0xA700,
        "x": None,
    }


def test_records_name_the_line_that_logged(log: Logged) -> None:
    PHI.setLevel(logging.DEBUG)
    mine = AssociationLogger("ME-1")
    mine.info("one")
    mine.log(logging.INFO, "two")
    mine.exception("three")
    mine.phi("four")
    assert {(record.pathname, record.funcName) for record in log.records} == {
        (__file__, "test_records_name_the_line_that_logged")
    }
    assert len({record.lineno for record in log.records}) == 4


def test_threads_do_not_mix_the_names_of_associations(log: Logged) -> None:
    """The reader and a caller of the same association, and those of another, at once."""
    loggers = {name: AssociationLogger(name) for name in ("ME-1", "ME-2")}
    together = threading.Barrier(4)

    def work(name: str) -> None:
        together.wait(DEADLINE)
        for number in range(50):
            loggers[name].info("%s says %d", name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in (*loggers, *loggers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(log.records) == 200
    for record in log.records:
        name = vars(record)["association"]
        assert record.getMessage().startswith(f"{name}: {name} says ")


# ---- seeing it


def test_debug_logger_shows_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    handler = rxdicom.debug_logger()
    assert debug_logger() is handler
    assert [isinstance(each, DebugHandler) for each in LOG.handlers].count(True) == 1
    LOG.debug("what %s does", HOSTILE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f" DEBUG what {ESCAPED} does")
    assert line[:4].isdigit()


def test_debug_logger_writes_to_stderr_as_it_is_at_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    debug_logger()
    later = io.StringIO()
    with redirect_stderr(later):
        LOG.info("hello")
    assert capsys.readouterr().err == ""
    assert later.getvalue().endswith("INFO hello\n")


def test_debug_logger_ends(capsys: pytest.CaptureFixture[str]) -> None:
    before = LOG.level, LOG.handlers[:]
    with debug_logger(phi=True) as handler:
        assert LOG.isEnabledFor(logging.DEBUG)
        assert wants_phi()
    assert not wants_phi()
    assert (LOG.level, LOG.handlers) == before
    LOG.setLevel(logging.ERROR)
    handler.remove()
    assert LOG.level == logging.ERROR
    LOG.error("hello")
    assert capsys.readouterr().err == ""


def test_the_last_call_of_debug_logger_says_whether_patients_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    debug_logger(phi=True)
    AssociationLogger().phi("one: %s", SECRET)
    debug_logger()
    AssociationLogger().phi("two: %s", SECRET)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"one: {SECRET}")


def test_debug_logger_leaves_what_was_configured() -> None:
    PHI.setLevel(logging.DEBUG)
    debug_logger()
    assert wants_phi()
    debug_logger(phi=True).remove()
    assert wants_phi()


def test_json_is_one_object_a_line(log: Logged) -> None:
    concerning(Named("ME-1")).info(
        "from %s", HOSTILE, extra={"status": 0, "accepted": [{"title": HOSTILE}], "cause": "", "by": None}
    )
    try:
        fail(0)
    except KeyError:
        LOG.exception("it failed")
    text = [JSONFormatter().format(record) for record in log.records]
    assert all(line.isascii() and line.isprintable() for line in text)
    first, second = map(json.loads, text)
    time = first.pop("time")
    assert time.endswith("+00:00")
    assert first == {
        "level": "INFO",
        "logger": "rxdicom",
        "message": f"ME-1: from {ESCAPED}",
        "association": "ME-1",
        "status": 0,
        "accepted": [{"title": ESCAPED}],
    }
    assert (second["level"], second["message"]) == ("ERROR", "it failed")
    assert "in fail" in second["exception"]
    assert SECRET not in text[1]


def test_json_of_a_record_of_somebody_else() -> None:
    error = raised(ValueError("no"))
    given = (type(error), error, error.__traceback__)
    record = logging.LogRecord("other", logging.INFO, "x.py", 1, "hello %s", ("you",), given)  # pyright: ignore
    shown = json.loads(JSONFormatter().format(record))
    assert (shown["logger"], shown["message"]) == ("other", "hello you")
    assert "ValueError: no" in shown["exception"]


SILENT = """
import sys
from rxdicom.log import LOG
LOG.error("somebody else's business")
print([each for each in ("pydicom", "reactivex", "attrs", "json") if each in sys.modules])
"""


def test_a_program_that_configures_nothing_sees_nothing_and_loads_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_levels_without_a_name_or_with_one(level: int) -> None:
    calls: list[Callable[..., None]] = [AssociationLogger("ME-1").log, LOG.log]
    with logged(level) as log:
        for call in calls:
            call(level - 10, "not shown")
            call(level, "shown")
    assert [record.levelno for record in log.records] == [level, level]


# ---- the documentation


DOCUMENTED = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "logging.md").read_text(), re.S
)


def play(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)


def test_the_documented_examples() -> None:
    shown, configured = DOCUMENTED
    log = "\nfrom rxdicom.log import concerning, wants_phi\nconcerning(None).info('hello', extra={'status': 0})\n"
    done = play(f"{shown}{log}")
    assert done.stderr == ""
    done = play(f"{configured}{log}print(wants_phi())")
    assert json.loads(done.stderr).items() >= {"logger": "rxdicom", "message": "hello", "status": 0}.items()
    assert done.stdout == "False\n"
    assert play(f"{configured.replace('# ', '')}{log}print(wants_phi())").stdout == "True\n"
