"""What the programs say on stderr: errors in one line, and the log. Text from peers never breaks out of its line."""

import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rxdicom import evt

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler

LOG = logging.getLogger("rxdicom")


def escaped(text: str) -> str:
    """The text with its control characters, line ends among them, written as escapes.

    >>> escaped("A\\x1b[2J\\nB")
    'A\\\\x1b[2J\\\\nB'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def complain(program: str, message: str) -> None:
    """One line on stderr."""
    print(f"{f'rxdicom {program}'.strip()}: {escaped(message)}", file=sys.stderr, flush=True)


def reason(error: Exception) -> str:
    """An error in words, without the number of the operating system."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def size(count: float) -> str:
    """A number of bytes for people.

    >>> size(999), size(275_000_000)
    ('999 B', '275 MB')
    """
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 999.5 and unit != "TB":
        count /= 1000
        unit = next(units)
    return f"{count:.0f} {unit}" if count >= 99.95 or unit == "B" else f"{count:.1f} {unit}"


class _Formatter(logging.Formatter):
    """One escaped line for each record; the lines of a traceback are indented, so that none passes for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).splitlines())


@contextmanager
def logging_to_stderr(program: str, args: Namespace) -> Generator[logging.Logger]:
    """The logger of rxdicom on stderr, at the level that the options ask for, until the program ends."""
    detailed = args.verbose or args.debug
    level = (
        logging.DEBUG if args.debug else logging.INFO if detailed else logging.ERROR if args.quiet else logging.WARNING
    )
    handler = logging.StreamHandler(sys.stderr)
    layout = "%(asctime)s %(levelname)s %(message)s" if detailed else f"rxdicom {program}: %(message)s"
    handler.setFormatter(_Formatter(layout))
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(level)
    try:
        with warnings.catch_warnings():
            if not args.debug:
                # What pydicom thinks of other people's datasets would be lines that nobody can act upon.
                warnings.simplefilter("ignore")
            yield LOG
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)


def log_observers(args: Namespace) -> "list[EventHandler]":
    """Observers that log what happens to associations (-v), and every message (-d)."""
    if not (args.verbose or args.debug):
        return []
    chosen: list[EventHandler] = [
        (evt.EVT_ESTABLISHED, _log_established),
        (evt.EVT_RELEASED, _log_released),
        (evt.EVT_REJECTED, _log_rejected),
        (evt.EVT_ABORTED, _log_aborted),
    ]
    if args.debug:
        chosen += [(kind, _log_acse) for kind in (evt.EVT_ACSE_RECV, evt.EVT_ACSE_SENT)]
        chosen += [(kind, _log_message) for kind in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT)]
    return chosen


def _log_established(event: Any) -> None:
    assoc = event.assoc
    peer = assoc.acceptor if assoc.is_requestor else assoc.requestor
    accepted, rejected = assoc.accepted_contexts, assoc.rejected_contexts
    proposed = len(accepted) + len(rejected)
    LOG.info("%s: association with %r, %d of %d contexts accepted", assoc.name, peer, len(accepted), proposed)
    for context in (*accepted, *rejected):
        syntaxes = ", ".join(context.transfer_syntax)
        LOG.debug(
            "%s: context %d %s in %s: %s",
            assoc.name,
            context.context_id,
            context.abstract_syntax,
            syntaxes,
            context.status,
        )


def _log_released(event: Any) -> None:
    LOG.info("%s: released", event.assoc.name)


def _log_rejected(event: Any) -> None:
    codes = (event.result, event.source, event.reason)
    LOG.info("%s: rejected with result %d, source %d, reason %d", event.assoc.name, *codes)


def _log_aborted(event: Any) -> None:
    codes = (event.source, event.reason)
    LOG.info(
        "%s: aborted (%s), source %d, reason %d%s",
        event.assoc.name,
        event.by,
        *codes,
        event.cause and f": {event.cause}",
    )


def _log_acse(event: Any) -> None:
    LOG.debug("%s: %s %s", event.assoc.name, _direction(event), event.primitive.name)


def _log_message(event: Any) -> None:
    LOG.debug("%s: %s %r", event.assoc.name, _direction(event), event.message)


def _direction(event: Any) -> str:
    return "sent" if event.event in (evt.EVT_ACSE_SENT, evt.EVT_DIMSE_SENT) else "received"
