"""The log: its two loggers, what every record goes through, and how to see it. For every layer but the core.

Imports the standard library only. Modules log by :data:`LOG` or, where an association is concerned, by
:func:`concerning`; what is logged of the life of an association is chosen in :mod:`rxdicom.events.journal`.
"""

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self, cast

from rxdicom.errors import RxDicomError

LOG = logging.getLogger("rxdicom")
"""Everything but what may identify a patient, or be a secret."""
PHI = logging.getLogger("rxdicom.phi")
"""What may identify a patient: see :func:`wants_phi`."""

LAYOUT = "%(asctime)s %(levelname)s %(message)s"
"""How :func:`debug_logger` and the programs show a record."""

_MOST = 1000
"""Characters of one argument, and of one line of a traceback, that are shown."""
_FIRST_FRAMES, _LAST_FRAMES = 12, 24
_LONGEST_CHAIN = 8


def wants_phi() -> bool:
    """Whether identifiers of patients are to be logged: only where somebody has asked for just that.

    That is, the logger ``rxdicom.phi`` has a level of its own, DEBUG; it does not inherit one. Configuring ``rxdicom``,
    or the root logger, therefore never turns it on.
    """
    return 0 < PHI.level <= logging.DEBUG and PHI.isEnabledFor(logging.DEBUG)


# ---- text


def escaped(text: str) -> str:
    """The text with its control characters, line ends among them, written as escapes.

    >>> escaped("A\\x1b[2J\\nB")
    'A\\\\x1b[2J\\\\nB'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def bounded(text: str, most: int = _MOST) -> str:
    """At most so many characters of a text, and how many there are more.

    >>> bounded("1.2.840.10008", 5)
    '1.2.8... (8 more characters)'
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"


def words(error: BaseException) -> str:
    """An exception in words that quote no dataset.

    Those of rxdicom and of the operating system, without the name of a file. What other exceptions say, pydicom's or a
    handler's, may quote the patient: of them the type only, and where they were raised.

    >>> words(OSError(28, "No space left on device", "DOE^JOHN.dcm"))
    'OSError: No space left on device'
    >>> words(KeyError("DOE^JOHN"))
    'KeyError'
    """
    name, said = type(error).__name__, ""
    if _is_ours(error):
        said = str(error)
    elif isinstance(error, OSError):
        said = error.strerror or ""
    if said:
        return f"{name}: {said}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {frames[-1].filename}:{frames[-1].lineno}" if frames else name


def _is_ours(error: BaseException | None) -> bool:
    """Whether the words are rxdicom's own, and do not repeat those of another exception."""
    if not isinstance(error, RxDicomError):
        return False
    before = error.__cause__ or error.__context__
    if before is None or isinstance(before, OSError) or _is_ours(before):
        return True
    return not any(said and said in str(error) for said in (str(before), repr(before)))


def named(function: object) -> str:
    """A callable by its name; its repr might show what it holds.

    >>> named(partial(print, "DOE^JOHN"))
    'builtins.print'
    """
    while isinstance(function, partial):
        given = cast("partial[Any]", function)
        function = next((each for each in given.args if callable(each)), given.func)
    shown: Any = function if hasattr(function, "__qualname__") else type(function)
    return ".".join(filter(None, (shown.__module__, shown.__qualname__)))


class _Shown:
    """An argument of a log call as it is shown: escaped and bounded, once somebody formats it."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return escaped(bounded(str(self._value)))

    def __repr__(self) -> str:
        return escaped(bounded(repr(self._value)))


class Lines(str):
    """Text whose line ends are meant: an argument that is not escaped again."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """Each line of ``text`` escaped by itself, and indented, so that none passes for a record."""
        return cls("\n".join(f"    {escaped(bounded(line))}" for line in text.splitlines()))


# ---- what every record goes through


def _prepare(record: logging.LogRecord) -> bool:
    """The filter of both loggers: whoever handles the record, arguments are escaped and tracebacks discreet."""
    record.__dict__.setdefault("association", "")
    if isinstance(record.args, Mapping):
        record.args = {key: _safe(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(_safe(value) for value in record.args)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.exc_info, record.exc_text = None, Lines.of(_traceback(error))
        if wants_phi():
            chain = _chain(error)
            concerning(record).phi(f"in full: {', then '.join(['%r'] * len(chain))}", *chain)
    return True


def _safe(value: object) -> object:
    # Numbers stay, because "%d" wants them; a template is ours and needs nothing.
    return value if isinstance(value, int | float | Lines) else _Shown(value)


def _traceback(error: BaseException) -> str:
    """A traceback as Python writes it, but for what the exceptions say."""
    parts: list[str] = []
    for each in _chain(error):
        frames = traceback.extract_tb(each.__traceback__)
        left_out = len(frames) - _FIRST_FRAMES - _LAST_FRAMES
        parts.append("Traceback (most recent call last):\n")
        if left_out > 0:
            parts += traceback.format_list(frames[:_FIRST_FRAMES])
            parts.append(f"  ... {left_out} more\n")
            frames = frames[-_LAST_FRAMES:]
        parts += traceback.format_list(frames)
        parts.append(f"{words(each)}\n")
    return "".join(parts)


def _chain(error: BaseException) -> list[BaseException]:
    """An exception behind those that led to it."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) < _LONGEST_CHAIN and all(each is not following for each in chain):
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return chain[::-1]


LOG.addHandler(logging.NullHandler())
LOG.addFilter(_prepare)
PHI.addFilter(_prepare)


# ---- logging about an association


class AssociationLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs about one association: messages begin with its name, and records have it as ``association``.

    ``extra`` adds structured fields, whose text is escaped as well. A log of no name is a plain one.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(LOG, {"association": escaped(name)})
        self.association = name

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        self._log_to(LOG, level, msg, args, kwargs)

    def phi(self, msg: str, *args: object, **kwargs: Any) -> None:
        """Log, at DEBUG, what may identify a patient; nothing happens unless that is asked for."""
        if wants_phi():
            self._log_to(PHI, logging.DEBUG, msg, args, kwargs)

    def _log_to(
        self, logger: logging.Logger, level: int, msg: object, args: tuple[object, ...], options: dict[str, Any]
    ) -> None:
        if not logger.isEnabledFor(level):
            return
        fields: dict[str, Any] = {**(options.pop("extra", None) or {}), **cast("dict[str, Any]", self.extra)}
        extra = {key: _escaped_field(value) for key, value in fields.items()}
        if self.association:
            text = str(msg) if args else str(msg).replace("%", "%%")
            msg, args = f"%s: {text}", (self.association, *args)
        # The record is to name the line that called, not this one.
        logger.log(level, msg, *args, extra=extra, stacklevel=options.pop("stacklevel", 1) + 2, **options)


def _escaped_field(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(bounded(value))
    if isinstance(value, list | tuple):
        return [_escaped_field(each) for each in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: _escaped_field(each) for key, each in cast("Mapping[str, Any]", value).items()}
    return value


def concerning(subject: object) -> AssociationLogger:
    """The log of an association, of the one that an event occurred in or a record is about; else of none."""
    assoc = getattr(subject, "assoc", subject)
    name = assoc.__dict__["association"] if isinstance(assoc, logging.LogRecord) else getattr(assoc, "name", "")
    return AssociationLogger(name if isinstance(name, str) else "")


# ---- seeing it


_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """One JSON object per record and line: time (UTC), level, logger, message, and the structured fields."""

    def format(self, record: logging.LogRecord) -> str:
        from json import dumps

        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line |= {key: value for key, value in fields.items() if value not in ("", None)}
        if record.exc_text or record.exc_info:
            line["exception"] = record.exc_text or self.formatException(cast(Any, record.exc_info))
        return dumps(line, default=str)


class DebugHandler(logging.StreamHandler[Any]):
    """What :func:`debug_logger` adds: writes to ``sys.stderr``, whatever that is at the time.

    :meth:`remove`, or leaving it as a context manager, puts everything back as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LAYOUT))
        self._levels = LOG.level, PHI.level

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def ask_for_phi(self, wanted: bool) -> None:
        """Log what may identify patients too, or as it was before this handler."""
        PHI.setLevel(logging.DEBUG if wanted else self._levels[1])

    def remove(self) -> None:
        """Log as before. A second time nothing happens."""
        if self in LOG.handlers:
            LOG.removeHandler(self)
            LOG.setLevel(self._levels[0])
            PHI.setLevel(self._levels[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def debug_logger(phi: bool = False) -> DebugHandler:
    """Show on stderr what happens: of associations that begin from now on every PDU and message.

    With ``phi`` also what may identify patients: identifiers and the heads of datasets, bounded in length, never pixel
    data, and what exceptions say. Called again it changes that only, there is one handler.

    Returns the handler: its ``remove()`` ends it, and ``with debug_logger():`` shows one block.
    """
    handler = next((each for each in LOG.handlers if isinstance(each, DebugHandler)), None)
    if handler is None:
        handler = DebugHandler()
        LOG.addHandler(handler)
        LOG.setLevel(logging.DEBUG)
    handler.ask_for_phi(phi)
    return handler
