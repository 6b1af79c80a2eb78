"""Many objects to be stored: what becomes of each, and the count of it. The same for every runtime."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

from rxdicom.errors import ArgumentError, DatasetError, NoAcceptedContext, RxDicomError, TimedOut
from rxdicom.status import STATUS_SUCCESS, STATUS_WARNING, Status

if TYPE_CHECKING:
    from pydicom import Dataset

    Given = Dataset | str | os.PathLike[str]
    """What is to be stored: a dataset, or the path of a file."""


@frozen
class Sent:
    """What became of one object of a batch: the peer's status, or why there is none."""

    instance: "Given"
    """The dataset or path, as it was given."""
    status: Status | None = None
    error: Exception | None = None
    size: int = 0
    """Bytes of its dataset as it was sent."""
    attempts: int = 1
    """How often it was tried: twice where an association was lost, never where all was given up before its turn."""

    @property
    def is_stored(self) -> bool:
        """Whether the peer has it, perhaps with a warning."""
        return self.status is not None and self.status.category in (STATUS_SUCCESS, STATUS_WARNING)


@frozen
class Totals:
    """How far a batch has come."""

    stored: int = 0
    """Objects that the peer has, those with a warning among them."""
    warnings: int = 0
    failed: int = 0
    bytes: int = 0
    """Of the datasets that were stored."""

    @property
    def done(self) -> int:
        """Objects that are accounted for."""
        return self.stored + self.failed

    def with_one(self, sent: Sent) -> "Totals":
        """The count with one more."""
        category = None if sent.status is None else sent.status.category
        if category not in (STATUS_SUCCESS, STATUS_WARNING):
            return Totals(self.stored, self.warnings, self.failed + 1, self.bytes)
        warnings = self.warnings + (category == STATUS_WARNING)
        return Totals(self.stored + 1, warnings, self.failed, self.bytes + sent.size)


@runtime_checkable
class Supply(Protocol):
    """What a batch is taken from where the next one may be asked for while others are on their way: it is opened then,
    and leaves as soon as there is room for it."""

    def __iter__(self) -> Iterator[Any]: ...

    def wants(self, instance: Any, /) -> bool:
        """Whether one that was asked for is still to be sent, now that it is its turn. False: it was taken back."""
        ...


def concerns_one(error: Exception) -> bool:
    """Whether this is wrong with one object and says nothing about the others; otherwise the association is over."""
    if isinstance(error, TimedOut):
        return error.phase == "response"
    return isinstance(error, DatasetError | NoAcceptedContext | ArgumentError) or not isinstance(error, RxDicomError)
