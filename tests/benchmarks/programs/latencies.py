"""Latencies as a program measures them itself, and the file by which it tells the suite."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """Collects how long calls take."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def time(self, call: Callable[[], object]) -> object:
        """Make one call; returns what it returns."""
        started = perf_counter()
        result = call()
        self._seconds.append(perf_counter() - started)
        return result

    def write(self, path: str) -> None:
        """Write what :func:`summary` says as JSON."""
        Path(path).write_text(json.dumps(summary(self._seconds)))


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in seconds (nearest rank), as ``p50`` …, where there are enough values to tell; and the ``max``.

    >>> summary([0.3, 0.1, 0.2])
    {'p50': 0.2, 'max': 0.3}
    >>> summary([float(number) for number in range(1, 101)])
    {'p50': 50.0, 'p90': 90.0, 'p99': 99.0, 'max': 100.0}
    """
    ordered, count = sorted(seconds), len(seconds)
    told = {
        f"p{percentile:g}": ordered[math.ceil(percentile * count / 100) - 1]
        for percentile in PERCENTILES
        if count * (100 - percentile) >= 99.9  # at least one value lies above
    }
    return told | {"max": ordered[-1]}
