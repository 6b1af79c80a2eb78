"""The resident memory of a process (Linux only), from its status in /proc."""

import re
from pathlib import Path


def resident(process: int | str) -> int:
    """Bytes that are resident now."""
    return _read(process, "VmRSS")


def peak(process: int | str) -> int:
    """The most bytes that were resident since the process began or :func:`reset` its mark."""
    return _read(process, "VmHWM")


def reset(process: int | str) -> None:
    """Let the peak begin anew."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _read(process: int | str, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    if found is None:  # a process that is over has no memory
        raise ProcessLookupError(f"{process} has no {name}")
    return int(found[1]) * 1024
