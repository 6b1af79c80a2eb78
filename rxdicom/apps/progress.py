"""A line of progress on a terminal's stderr, that leaves nothing behind."""

import sys
import time
from argparse import Namespace

_AFTER, _EVERY = 0.5, 0.1


class Progress:
    """Shown half a second after the beginning, ten times a second at the most, and only if ``enabled``."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._started = self._shown = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning; never zero, so that rates can be told."""
        return max(time.monotonic() - self._started, 0.001)

    @property
    def is_due(self) -> bool:
        """Whether it is time for another text."""
        return self._enabled and time.monotonic() >= max(self._started + _AFTER, self._shown + _EVERY)

    def show(self, text: str) -> None:
        """Put a text in the place of the last one."""
        self._shown = time.monotonic()
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipe it out, before a line is written or the program ends."""
        if self._shown > self._started:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def wants_progress(args: Namespace) -> bool:
    """Whether the progress would be seen, and not be among the lines of a log."""
    return sys.stderr.isatty() and not (args.quiet or args.verbose or args.debug)
