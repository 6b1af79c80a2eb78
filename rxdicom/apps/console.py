"""What the programs say on stderr: errors in one line, and the library's log at the level that the options ask for."""

import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Generator
from contextlib import contextmanager

from rxdicom.log import LAYOUT, LOG, escaped


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


@contextmanager
def logging_to_stderr(program: str, args: Namespace) -> Generator[logging.Logger]:
    """The logger of rxdicom on stderr, at the level that the options ask for, until the program ends."""
    detailed = args.verbose or args.debug
    level = (
        logging.DEBUG if args.debug else logging.INFO if detailed else logging.ERROR if args.quiet else logging.WARNING
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LAYOUT if detailed else f"rxdicom {program}: %(message)s"))
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
