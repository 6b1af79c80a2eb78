"""A dataset in encoded form: where its bytes lie, in what transfer syntax, and its decoded form once asked for."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

from rxdicom.errors import DatasetError


class Source(Protocol):
    """Bytes to be sent, read at most a run at a time."""

    size: int
    """How many bytes there are."""

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill all ``views``, one after the other, from ``offset`` on."""
        ...

    def close(self) -> None: ...


class BytesSource:
    """A source in memory."""

    __slots__ = ("_view", "size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        for view in views:
            end = offset + len(view)
            view[:] = self._view[offset:end]
            offset = end

    def close(self) -> None:
        """Nothing is held open."""


INFLATED = 268435456
"""Bytes that a deflated dataset may have when it is decoded, unless whoever received it says otherwise."""


class Encoded:
    """A received or stored dataset, shared by a message and its events.

    ``data`` holds the bytes, or ``path`` and ``offset`` say where in a file they start (``data`` is then None).
    What it decodes to is computed once, by whoever asks first; an error is kept and raised again.
    """

    __slots__ = (
        "_lock",
        "_outcome",
        "_traceback",
        "data",
        "error",
        "head",
        "inflated",
        "mode",
        "offset",
        "path",
        "size",
        "temporary",
        "transfer_syntax",
    )

    def __init__(
        self,
        transfer_syntax: str,
        data: bytes | bytearray | None = None,
        *,
        path: str | None = None,
        offset: int = 0,
        size: int | None = None,
        temporary: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.transfer_syntax = transfer_syntax
        self.data = data
        self.path = path
        self.offset = offset
        self.size = size if size is not None else len(data) if data is not None else 0
        self.temporary = temporary
        """Whether the file is to be removed when nobody has saved it under a name of its own."""
        self.head = b""
        """Preamble and file meta information to go before it in a file, where those have been made already."""
        self.mode: int | None = None
        """Permissions that files usually have in the folder of a temporary one, which has others; None if unknown."""
        self.error = error
        """Why the dataset could not be kept (disk full, limit exceeded); then there are no bytes."""
        self.inflated = INFLATED
        """Bytes that it may have when it is decoded, if it is deflated."""
        self._lock = threading.Lock()
        self._outcome: tuple[Any, Exception | None] | None = None
        self._traceback: TracebackType | None = None

    def read(self) -> bytes | bytearray:
        """The bytes, from where they are. Raises :class:`~rxdicom.errors.DatasetError` if they were not kept."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise DatasetError(f"the dataset was not kept: {self.error}")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def decoded(self, decode: Callable[["Encoded"], Any]) -> Any:
        """What ``decode`` makes of this, computed at the first call only."""
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = (decode(self), None)
                except Exception as error:  # noqa: BLE001 - whatever the decoder raises is the outcome, kept for all
                    self._outcome = (None, error)
                    self._traceback = error.__traceback__
            value, failure = self._outcome
        if failure is not None:
            # With the traceback of the first time: it would grow with each raise otherwise, and keep all its frames.
            raise failure.with_traceback(self._traceback)
        return value

    def __repr__(self) -> str:
        place = f" in {self.path!r}" if self.path else ""
        return f"Encoded({self.size} bytes of {self.transfer_syntax}{place})"
