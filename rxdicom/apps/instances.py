"""Files to be sent: found below folders, told apart by their heads, known only some way ahead. Reads, never writes."""

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from stat import S_ISREG

from attrs import frozen

from rxdicom.apps.console import reason
from rxdicom.errors import InvalidFile
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.wire.part10 import HEAD_LIMIT, MEDIA_STORAGE_DIRECTORY, FileHead, read_head
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

AHEAD = 1024
"""Files whose heads are read before the first of them is sent."""
MAX_CONTEXTS = 128
"""Presentation contexts of one association (PS3.8 §9.3.2.2: odd numbers from 1 to 255)."""

_FIRST_READ = 8192
_PREFIX = slice(128, 132)

Context = tuple[str, tuple[str, ...]]
"""A SOP class, and transfer syntaxes of which one is to be accepted."""
# What every dataset can be converted to without loss. Big endian is left out: it is retired, and all have the others.
_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


@frozen
class Instance:
    """A file that can be sent; ``size`` is that of the whole file in bytes."""

    path: str
    head: FileHead
    size: int


@frozen
class Unsendable:
    """A file or folder that cannot be sent. It counts as a failure unless it just lies in a folder and is no DICOM."""

    path: str
    reason: str
    is_failure: bool


def scan(paths: Sequence[str]) -> Iterator[Instance | Unsendable]:
    """What is at ``paths``: files, and everything below folders, each folder's files in the order of their names.

    Links to files are followed, links to folders only if they are named themselves. Nothing is raised.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        else:
            yield examine(path, named=True)


def _below(folder: str) -> Iterator[Instance | Unsendable]:
    folders = [folder]
    while folders:
        folder = folders.pop()
        try:
            paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        except OSError as error:
            yield Unsendable(folder, reason(error), is_failure=True)
            continue
        inner: list[str] = []
        for path in paths:
            if os.path.basename(path).startswith("."):
                yield Unsendable(path, "hidden", is_failure=False)
            elif not os.path.isdir(path):
                yield examine(path)
            elif os.path.islink(path):
                yield Unsendable(path, "a link to a folder", is_failure=False)
            else:
                inner.append(path)
        folders += reversed(inner)


def examine(path: str, *, named: bool = False) -> Instance | Unsendable:
    """What a file is. One that the user ``named`` must be DICOM; of the others those must be sound that claim to be."""
    start = b""
    try:
        # Looked at before it is opened, because opening a pipe waits for its other end.
        if not S_ISREG(os.stat(path).st_mode):
            return Unsendable(path, "not a regular file", is_failure=named)
        with open(path, "rb", buffering=0) as file:
            head, wanted = None, _FIRST_READ
            while head is None:
                more = file.read(wanted - len(start))
                start += more
                head = read_head(start, final=not more or len(start) >= HEAD_LIMIT)
                wanted = 8 * len(start)
            return Instance(path, head, os.fstat(file.fileno()).st_size)
    except InvalidFile as error:
        claims = start[_PREFIX] == b"DICM" and MEDIA_STORAGE_DIRECTORY.encode() not in start[: 2 * _PREFIX.stop]
        return Unsendable(path, str(error), is_failure=named or claims)
    except OSError as error:
        return Unsendable(path, error.strerror or str(error), is_failure=True)


class Lookahead:
    """The instances that are still to be sent; the heads of the next ones are known, the rest is found on demand."""

    def __init__(self, instances: Iterator[Instance], ahead: int = AHEAD) -> None:
        self._instances = instances
        self._known: deque[Instance] = deque()
        self._ahead = ahead

    def first(self) -> Instance | None:
        """The next one to be sent, None if there is none."""
        self._know(1)
        return self._known[0] if self._known else None

    def drop(self) -> None:
        """The first one is done with."""
        self._known.popleft()

    def contexts(self, *, convert: bool) -> list[Context]:
        """What to propose for the next ones, as many as fit into one association; always enough for the first.

        For each SOP class and transfer syntax a context of its own, so that the files can be sent as they are; to
        ``convert`` them where the peer does not accept that, another one for each SOP class without compression.
        """
        self._know(self._ahead)
        chosen: dict[Context, None] = {}
        for instance in self._known:
            wanted = dict.fromkeys(_wanted(instance, convert=convert))
            if len(chosen | wanted) > MAX_CONTEXTS:
                break
            chosen |= wanted
        return list(chosen)

    def covered_by(self, contexts: Collection[Context]) -> Iterator[Instance]:
        """The next ones up to the first that these contexts do not fit. Each is dropped when the next is asked for."""
        while (instance := self.first()) is not None and _own(instance) in contexts:
            yield instance
            self.drop()

    def count(self) -> int:
        """How many are left. All of them are looked at for that, and given up."""
        return len(self._known) + sum(1 for _ in self._instances)

    def _know(self, number: int) -> None:
        while len(self._known) < number and (instance := next(self._instances, None)) is not None:
            self._known.append(instance)


def _own(instance: Instance) -> Context:
    return (instance.head.sop_class_uid, (instance.head.transfer_syntax_uid,))


def _wanted(instance: Instance, *, convert: bool) -> Iterator[Context]:
    yield _own(instance)
    if convert:
        yield (instance.head.sop_class_uid, _UNCOMPRESSED)


def presentation_contexts(contexts: Sequence[Context]) -> list[PresentationContext]:
    """The same as they are given to an association."""
    return [build_context(abstract_syntax, list(syntaxes)) for abstract_syntax, syntaxes in contexts]
