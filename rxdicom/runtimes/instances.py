"""What is to be sent: files, found below folders, and datasets; told apart by their heads, known only some way ahead.

Reads, never writes. The same for every runtime.
"""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from rxdicom.errors import ArgumentError, InvalidFile
from rxdicom.events.datasets import transfer_syntax_of
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.sop_class import checked_uid
from rxdicom.wire.items import MAX_CONTEXTS
from rxdicom.wire.part10 import HEAD_LIMIT, MEDIA_STORAGE_DIRECTORY, FileHead, read_head
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from rxdicom.runtimes.batches import Given

AHEAD = 1024
"""Instances that are known before the first of them is sent: for files, their heads."""
AHEAD_IN_MEMORY = 64
"""The same for datasets, which are there as a whole."""

_FIRST_READ = 8192
_PREFIX = slice(128, 132)

Context = tuple[str, tuple[str, ...]]
"""A SOP class, and transfer syntaxes of which one is to be accepted."""
# What every dataset can be converted to without loss. Big endian is left out: it is retired, and all have the others.
_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


@frozen(eq=False)
class Instance:
    """A file or dataset that can be sent."""

    given: "Given"
    """The path or dataset, as it was given; of a file that was found below a folder, its path."""
    sop_class_uid: str
    transfer_syntax_uid: str | None
    """None for a dataset that was just made, and is in none yet."""
    attempts: int = 0
    """How often it has been sent in vain, because the association was lost."""

    @property
    def is_in_memory(self) -> bool:
        """Whether it takes the memory of a whole dataset."""
        return not isinstance(self.given, str | os.PathLike)

    @property
    def context(self) -> Context:
        """What has to be accepted for it to be sent as it is."""
        syntax = self.transfer_syntax_uid
        return self.sop_class_uid, (_UNCOMPRESSED if syntax is None else (syntax,))

    def contexts(self, *, convert: bool) -> tuple[Context, ...]:
        """What is proposed for it: the same, and to ``convert`` it, one without compression."""
        return (self.context, (self.sop_class_uid, _UNCOMPRESSED)) if convert else (self.context,)


@frozen(eq=False)
class FileInstance(Instance):
    """A file that can be sent, and what its head says."""

    head: FileHead = field(kw_only=True)

    @property
    def path(self) -> str:
        return _path(self.given)


@frozen(eq=False)
class Unsendable:
    """What cannot be sent. It counts as a failure unless it just lies in a folder and does not claim to be DICOM."""

    given: "Given"
    error: Exception
    is_failure: bool

    @property
    def path(self) -> str:
        """Its path, empty for what has none."""
        return _path(self.given)

    @property
    def reason(self) -> str:
        """The error in words, for who has named the path."""
        if isinstance(self.error, OSError) and self.error.strerror:
            return self.error.strerror
        return str(self.error).removeprefix(f"{self.path}: ")


def _path(given: "Given") -> str:
    return os.fsdecode(given) if isinstance(given, str | os.PathLike) else ""


if TYPE_CHECKING:
    Batch = Iterable[Given | Instance | Unsendable] | Given
    """Paths, folders and datasets, mixed as they come, what was found of them by a scan, or just one of them."""


def batch_of(given: "Batch") -> "Iterable[Given | Instance | Unsendable]":
    """The same, and a batch of one for a single path or dataset, which could be iterated over as well."""
    single: Any = given
    return [single] if isinstance(given, str | os.PathLike) or hasattr(given, "original_encoding") else single


def scan(batch: "Iterable[Given | Instance | Unsendable]") -> Iterator[Instance | Unsendable]:
    """What is in a batch of paths and datasets: files, and everything below folders, by name within each of them.

    Links to files are followed, links to folders only if they are named themselves. What was found by another scan
    is taken as it is. Raises what ``batch`` raises, and nothing else.
    """
    for given in batch:
        if isinstance(given, Instance | Unsendable):
            yield given
        elif not isinstance(given, str | os.PathLike):
            yield _examine_dataset(given)
        elif os.path.isdir(given):
            yield from _below(os.fsdecode(given))
        else:
            yield examine(given, named=True)


def _below(folder: str) -> Iterator[Instance | Unsendable]:
    folders = [folder]
    while folders:
        folder = folders.pop()
        try:
            paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        except OSError as error:
            yield Unsendable(folder, error, is_failure=True)
            continue
        inner: list[str] = []
        for path in paths:
            if os.path.basename(path).startswith("."):
                yield _skipped(path, "hidden")
            elif not os.path.isdir(path):
                yield examine(path)
            elif os.path.islink(path):
                yield _skipped(path, "a link to a folder")
            else:
                inner.append(path)
        folders += reversed(inner)


def _skipped(path: str, why: str) -> Unsendable:
    return Unsendable(path, InvalidFile(f"{path}: {why}"), is_failure=False)


def examine(given: "str | os.PathLike[str]", *, named: bool = False) -> FileInstance | Unsendable:
    """What a file is. One that the user ``named`` must be DICOM; of the others those must be sound that claim to be."""
    path = os.fsdecode(given)
    start = b""
    try:
        # Looked at before it is opened, because opening a pipe waits for its other end.
        if not S_ISREG(os.stat(path).st_mode):
            raise InvalidFile("not a regular file")
        with open(path, "rb", buffering=0) as file:
            head: FileHead | None = None
            wanted = _FIRST_READ
            while head is None:
                more = file.read(wanted - len(start))
                start += more
                head = read_head(start, final=not more or len(start) >= HEAD_LIMIT)
                wanted = 8 * len(start)
        _check_context(head.sop_class_uid, head.transfer_syntax_uid)
        return FileInstance(given, head.sop_class_uid, head.transfer_syntax_uid, head=head)
    except OSError as error:
        return Unsendable(given, error, is_failure=True)
    except ValueError as error:
        # Also what the system calls no path.
        claims = start[_PREFIX] == b"DICM" and MEDIA_STORAGE_DIRECTORY.encode() not in start[: 2 * _PREFIX.stop]
        return Unsendable(given, InvalidFile(f"{path}: {error}"), is_failure=named or claims)


def _examine_dataset(dataset: Any) -> Instance | Unsendable:
    try:
        sop_class_uid, syntax = str(dataset.SOPClassUID), transfer_syntax_of(dataset)
        _check_context(sop_class_uid, syntax)
        return Instance(dataset, sop_class_uid, syntax)
    except Exception as error:  # noqa: BLE001 - whatever it is that was given, the others are to be sent
        fault = ArgumentError(f"the dataset cannot be stored: {error}; set SOPClassUID and SOPInstanceUID")
        return Unsendable(dataset, fault, is_failure=True)


def _check_context(sop_class_uid: str, transfer_syntax_uid: str | None) -> None:
    """Raise :class:`ArgumentError` unless a presentation context for these can be proposed."""
    checked_uid(sop_class_uid, "the SOP Class UID")
    if transfer_syntax_uid is not None:
        checked_uid(transfer_syntax_uid, "the Transfer Syntax UID")


class Lookahead:
    """The instances that are still to be sent; the next ones are known, the rest is found on demand.

    Every method raises what the iterator of instances raises.
    """

    def __init__(self, instances: Iterator[Instance], ahead: int = AHEAD) -> None:
        self._instances = instances
        self._known: deque[Instance] = deque()
        self._in_memory = 0
        self._ahead = ahead

    def first(self) -> Instance | None:
        """The next one to be sent, None if there is none."""
        return self._known[0] if self.holds(1) else None

    def first_again(self) -> Instance | None:
        """The same, if it was put back."""
        return self._known[0] if self._known and self._known[0].attempts else None

    def holds(self, number: int) -> bool:
        """Whether there are so many."""
        while len(self._known) < number and self._find():
            pass
        return len(self._known) >= number

    def take(self) -> Instance:
        """The first one, which is no longer among them."""
        instance = self._known.popleft()
        self._in_memory -= instance.is_in_memory
        return instance

    def put_back(self, instances: Sequence[Instance]) -> None:
        """These are the first ones now."""
        self._known.extendleft(reversed(instances))
        self._in_memory += sum(each.is_in_memory for each in instances)

    def contexts(self, *, convert: bool) -> list[Context]:
        """What to propose for the next ones, as many as fit into one association; always enough for the first.

        For each SOP class and transfer syntax a context of its own, so that the files can be sent as they are; to
        ``convert`` them where the peer does not accept that, another one for each SOP class without compression.
        """
        while len(self._known) < self._ahead and self._in_memory < AHEAD_IN_MEMORY and self._find():
            pass
        chosen: dict[Context, None] = {}
        for instance in self._known:
            wanted = dict.fromkeys(instance.contexts(convert=convert))
            if len(chosen | wanted) > MAX_CONTEXTS:
                break
            chosen |= wanted
        return list(chosen)

    def next_for(self, contexts: Collection[Context]) -> Instance | None:
        """The first one, if these contexts fit it."""
        instance = self.first()
        return instance if instance is not None and instance.context in contexts else None

    def _find(self) -> bool:
        instance = next(self._instances, None)
        if instance is None:
            return False
        self._known.append(instance)
        self._in_memory += instance.is_in_memory
        return True


def presentation_contexts(contexts: Iterable[Context]) -> list[PresentationContext]:
    """The same as they are given to an association."""
    return [build_context(abstract_syntax, list(syntaxes)) for abstract_syntax, syntaxes in contexts]
