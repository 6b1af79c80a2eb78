"""What was logged, kept for tests: the records, and everything that anybody could make of them."""

import io
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rxdicom.log import LAYOUT, LOG, PHI, JSONFormatter


class Logged(logging.Handler):
    """Keeps records, and formats each in several ways, as handlers of programs would."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []
        """As :func:`rxdicom.debug_logger` shows them, but for the time."""
        self.fields: list[dict[str, Any]] = []
        """The objects of the JSON lines."""
        self._everything = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        shown = logging.Formatter(LAYOUT.removeprefix("%(asctime)s ")).format(record)
        self.lines += shown.split("\n")
        line = JSONFormatter().format(record)
        self.fields.append(json.loads(line))
        print(shown, line, repr(vars(record)), repr(record.msg), repr(record.args), file=self._everything)

    @property
    def everything(self) -> str:
        """Every text of every record: formatted, as JSON, and the repr of all that it holds."""
        return self._everything.getvalue()

    def of(self, association: str) -> list[str]:
        """The lines about one association, without its name."""
        marks = {f"{level} {association}: ": f"{level} " for level in ("DEBUG", "INFO", "WARNING", "ERROR")}
        found = ((line, mark) for line in self.lines for mark in marks if line.startswith(mark))
        return [marks[mark] + line.removeprefix(mark) for line, mark in found]

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """The structured fields of the one record of an event that has these."""
        chosen = [each for each in self.fields if each.get("event") == name and "detail" not in each]
        (found,) = [each for each in chosen if fields.items() <= each.items()]
        return found


@contextmanager
def logged(level: int, *, phi: bool = False) -> Generator[Logged]:
    """Log at this level within the block."""
    handler = Logged()
    before = LOG.level, PHI.level
    LOG.addHandler(handler)
    LOG.setLevel(level)
    PHI.setLevel(logging.DEBUG if phi else logging.NOTSET)
    try:
        yield handler
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before[0])
        PHI.setLevel(before[1])
