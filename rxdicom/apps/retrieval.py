"""What getscu and movescu share: how far a retrieval is, and what became of it."""

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from rxdicom import Status
from rxdicom.apps.console import complain, size
from rxdicom.apps.exchange import Ending, add_cancel_option
from rxdicom.apps.keys import add_key_options
from rxdicom.apps.models import add_model_options
from rxdicom.apps.progress import Progress, wants_progress
from rxdicom.apps.storage import Store
from rxdicom.apps.tables import write_line

if TYPE_CHECKING:
    from pydicom import Dataset

RESPONSE_SECONDS = 600
"""Between responses: an archive may say nothing before it has sent everything (PS3.4 C.4.2.3.1)."""

_COUNTERS = {
    "completed": "NumberOfCompletedSuboperations",
    "failed": "NumberOfFailedSuboperations",
    "warning": "NumberOfWarningSuboperations",
    "remaining": "NumberOfRemainingSuboperations",
}


def add_retrieval_options(parser: ArgumentParser, operation: str) -> None:
    """The keys, the model, --json and --cancel."""
    add_key_options(parser)
    add_model_options(parser, operation)
    parser.add_argument("--json", action="store_true", help="show what became of it as a line of JSON")
    add_cancel_option(parser)


def counters(status: Status) -> dict[str, int]:
    """The numbers of sub-operations that a response has (PS3.7 C.4.2)."""
    found = {name: getattr(status, element) for name, element in _COUNTERS.items()}
    return {name: int(count) for name, count in found.items() if count is not None}


class Account:
    """How far a retrieval is, shown on a terminal, and what became of it in the end."""

    def __init__(self, program: str, args: Namespace, store: Store | None, destination: str = "") -> None:
        self._program = program
        self._args = args
        self._store = store
        self._destination = destination
        self._progress = Progress(enabled=wants_progress(args))

    def show(self, status: Status, _identifier: "Dataset | None") -> None:
        """A pending response has come."""
        if self._progress.is_due:
            seen = counters(status)
            total = sum(seen.values()) if "remaining" in seen else "?"
            stored = f", {size(self._store.tally.bytes)}" if self._store else ""
            failed = f", {seen['failed']} failed" if seen.get("failed") else ""
            self._progress.show(f"{seen.get('completed', 0)} of {total}{failed}{stored}")

    def clear(self) -> None:
        """Wipe the progress out."""
        self._progress.clear()

    def close(self, ending: Ending) -> int:
        """Tell what became of it. Returns the exit code."""
        failed = _failed(ending.identifier)
        if self._args.json:
            write_line(json.dumps(self._record(ending, failed)))
        else:
            for uid in failed:
                complain(self._program, f"not retrieved: {uid}")
            if not self._args.quiet:
                write_line(self._summary(counters(ending.status)))
        return ending.exit_code(self._program)

    def _record(self, ending: Ending, failed: list[str]) -> dict[str, Any]:
        record: dict[str, Any] = {"status": int(ending.status), "meaning": ending.status.description}
        record |= {**counters(ending.status), "failed_instances": failed}
        if self._store:
            tally = self._store.tally
            record |= {"stored": tally.instances, "bytes": tally.bytes, "folder": self._store.folder}
        return record

    def _summary(self, seen: dict[str, int]) -> str:
        seconds = self._progress.seconds
        parts: list[str] = []
        if self._destination:
            parts.append(f"{seen.get('completed', 0)} sent to {self._destination} in {seconds:.1f} s")
        if self._store:
            tally = self._store.tally
            rate = f", {size(tally.bytes)} in {seconds:.1f} s ({size(tally.bytes / seconds)}/s)"
            parts.append(f"{tally.instances} stored in {self._store.folder}{rate if tally.instances else ''}")
        rows = (("failed", "failed"), ("warning", "with warnings"), ("remaining", "not sent"))
        return "; ".join((*parts, *(f"{seen[name]} {what}" for name, what in rows if seen.get(name))))


def _failed(identifier: "Dataset | None") -> list[str]:
    """The Failed SOP Instance UID List of a final response (PS3.4 table C.4-2)."""
    listed: Any = None if identifier is None else identifier.get("FailedSOPInstanceUIDList")
    return [] if not listed else [str(listed)] if isinstance(listed, str) else [str(uid) for uid in listed]
