"""Files on the data path: sent from disk as they lie, received into a temporary name, renamed when complete."""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rxdicom.errors import InvalidFile
from rxdicom.events.datasets import file_heads
from rxdicom.protocol.assembler import Sink
from rxdicom.protocol.policy import Limits
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import BytesSource, Encoded, Source
from rxdicom.wire.part10 import HEAD_LIMIT, FileHead, HeadTemplate, read_head

if TYPE_CHECKING:
    from rxdicom.events.records import CStore

_FIRST_READ = 8192
_COPY = 1 << 20
_MOST_PARTS = 64
"""Parts that are written as they are, in one call; more are joined, for the system allows only so many."""


class FileSource:
    """A dataset in a file, from ``offset`` on. One zero byte is added to an odd one, as PS3.5 §A.5 has it."""

    __slots__ = ("_fd", "_offset", "_on_disk", "size")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._on_disk = size
        self.size = size + (size & 1)

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        views = [view for view in views if len(view)]
        wanted = sum(len(view) for view in views)
        padding = max(0, offset + wanted - self._on_disk)
        if padding:
            views[-1][-padding:] = bytes(padding)
        got = 0
        while got < wanted - padding:
            n = os.preadv(self._fd, views, self._offset + offset + got)
            if not n:
                raise OSError("the file was shortened while it was sent")
            got += n
            views = _behind(views, n)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _behind(views: Sequence[memoryview], n: int) -> list[memoryview]:
    """What is left of ``views`` after their first ``n`` bytes."""
    left: list[memoryview] = []
    for view in views:
        if n < len(view):
            left.append(view[n:])
        n = max(0, n - len(view))
    return left


def open_part10(path: str) -> tuple[FileHead, Source]:
    """Open a file to be sent. The caller closes the source. A file of a few kB is read, and closed, at once.

    Raises :class:`~rxdicom.errors.InvalidFile`, or :class:`OSError` where it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        head, start, wanted = None, b"", _FIRST_READ
        while head is None:
            start = os.pread(fd, wanted, 0)
            head = read_head(start, final=len(start) < wanted or wanted >= HEAD_LIMIT)
            wanted *= 8
        if len(start) < size:
            return head, FileSource(fd, head.offset, size - head.offset)
        whole = start[:size]
        padded = whole + b"\0" if (size - head.offset) & 1 else whole
        source = BytesSource(memoryview(padded)[head.offset :])
        os.close(fd)
        return head, source
    except InvalidFile as error:
        os.close(fd)
        raise InvalidFile(f"{path}: {error}") from None
    except BaseException:
        os.close(fd)
        raise


class SpoolSink:
    """Memory up to a limit, then a temporary Part 10 file in ``folder``. What goes wrong is kept for the result."""

    __slots__ = ("_data", "_error", "_fd", "_head", "_limits", "_mode", "_path", "_place", "_size", "_syntax")

    def __init__(self, transfer_syntax: str, limits: Limits, place: "SpoolPlace", head: bytes) -> None:
        self._syntax = transfer_syntax
        self._limits = limits
        self._place = place
        self._data: bytearray | None = bytearray()
        self._fd = -1
        self._path = ""
        self._mode: int | None = None
        self._size = 0
        self._error: Exception | None = None
        self._head = head

    def write(self, pieces: Sequence[memoryview]) -> None:
        self._size += sum(map(len, pieces))
        if self._error is not None:
            return
        try:
            if self._size > self._limits.dataset:
                raise OSError(f"the dataset has more than the limit of {self._limits.dataset} bytes")
            if self._data is None:
                write_all(self._fd, pieces)
            else:
                for piece in pieces:
                    self._data += piece
                if self._size > self._limits.memory:
                    self._spool(self._data)
        except OSError as error:
            self._give_up(error)

    def _spool(self, data: bytearray) -> None:
        self._mode = self._place.usual_mode()
        self._fd, self._path = create_temporary(self._place.folder or _folder_of_temporary_files(), 0o600)
        write_all(self._fd, [self._head, data])
        self._data = None

    def _give_up(self, error: Exception) -> None:
        self._error = error
        self._data = None
        self._remove()

    def _remove(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with suppress(OSError):
                os.unlink(self._path)

    def finish(self) -> Encoded:
        if self._error is not None:
            return Encoded(self._syntax, error=self._error)
        if self._data is not None:
            encoded = Encoded(self._syntax, self._data)
        else:
            os.close(self._fd)
            self._fd = -1
            encoded = Encoded(self._syntax, path=self._path, offset=len(self._head), size=self._size, temporary=True)
            encoded.mode = self._mode
        encoded.head = self._head
        encoded.inflated = self._limits.inflated
        return encoded

    def discard(self) -> None:
        self._data = None
        self._remove()


class SpoolPlace:
    """Where the files of spool sinks are, and what those have in common that stay there."""

    __slots__ = ("_mode", "folder")

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        """None for that of temporary files."""
        self._mode: int | None = None

    def usual_mode(self) -> int | None:
        """The permissions of new files in the folder, found out once. Raises :class:`OSError`."""
        if self._mode is None and self.folder is not None:
            self._mode = _usual_mode(self.folder)
        return self._mode


class SinkFactory:
    """Opens the sinks of one association; the peer's AE title is known once it is requested."""

    def __init__(self, limits: Limits, folder: str | None, source_ae_title: str) -> None:
        self._limits = limits
        self._place = SpoolPlace(folder)
        self.source_ae_title = source_ae_title
        # For the heads of files: what the last had in common with the one before, as nearly all have.
        self._terms: tuple[str, str, str] | None = None
        self._heads = HeadTemplate(b"", b"")

    def __call__(self, message: Message, transfer_syntax: str) -> Sink:
        return SpoolSink(transfer_syntax, self._limits, self._place, self._head(message.command, transfer_syntax))

    def _head(self, command: Mapping[str, Any], transfer_syntax: str) -> bytes:
        if command["CommandField"] != Command.C_STORE_RQ:
            return b""
        terms = command.get("AffectedSOPClassUID", ""), transfer_syntax, self.source_ae_title
        if terms != self._terms:
            self._terms, self._heads = terms, file_heads(*terms)
        return self._heads.head(command.get("AffectedSOPInstanceUID", ""))


def forget(encoded: Encoded | None) -> None:
    """Remove the spool file of a dataset that nobody saved."""
    if encoded is not None and encoded.path is not None and encoded.temporary:
        with suppress(OSError):
            os.unlink(encoded.path)


def create_temporary(folder: str, mode: int) -> tuple[int, str]:
    """A new file under a hidden name of its own: a process that crashed may have had this one's number."""
    path = os.path.join(folder, f".rxdicom-{os.urandom(8).hex()}.part")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), path


def _folder_of_temporary_files() -> str:
    import tempfile

    return tempfile.gettempdir()


def store(event: "CStore", path: str, durable: bool) -> None:
    """How :meth:`CStore.save` writes: a temporary name in the same folder, fsync, rename, fsync of the folder.

    The spool file, if there is one, becomes the first file that is saved on its file system; others are copies.
    """
    folder = os.path.dirname(path) or "."
    if not (event.encoded.temporary and _move(event.encoded, path, folder, durable)):
        _copy(event, path, folder, durable)
    if durable:
        sync(folder)


def _move(encoded: Encoded, path: str, folder: str, durable: bool) -> bool:
    """Give the spool file its final name. False if that is on another file system."""
    spooled = encoded.path or ""
    mode = encoded.mode if os.path.dirname(spooled) == folder else None
    try:
        if mode is None:
            if os.stat(spooled).st_dev != os.stat(folder).st_dev:
                return False
            mode = _usual_mode(folder)
        os.chmod(spooled, mode)
        if durable:
            sync(spooled)
        os.rename(spooled, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    encoded.path, encoded.temporary = path, False
    return True


def _usual_mode(folder: str) -> int:
    """The permissions that a new file has in a folder; those of a spool file are for its owner alone."""
    fd, path = create_temporary(folder, 0o666)
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
        os.unlink(path)


def _copy(event: "CStore", path: str, folder: str, durable: bool) -> None:
    fd, temporary = create_temporary(folder, 0o666)
    try:
        try:
            _write_file(fd, event)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _write_file(fd: int, event: "CStore") -> None:
    encoded = event.encoded
    if encoded.path is None:
        write_all(fd, [event.head(), encoded.data or b""])
        return
    with open(encoded.path, "rb") as spooled:
        while chunk := spooled.read(_COPY):
            write_all(fd, [chunk])


def sync(path: str) -> None:
    """Make a file, or the names in a folder, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write all of ``parts``; a short write goes on where it ended."""
    views = [memoryview(part) for part in (parts if len(parts) <= _MOST_PARTS else [b"".join(parts)])]
    while views:
        views = _behind(views, os.writev(fd, views))
