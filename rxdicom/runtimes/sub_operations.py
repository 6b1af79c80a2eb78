"""C-STORE sub-operations: where they go, what becomes of each, and which contexts carry them.

Written once for every runtime, with ``async`` where one awaits; a runtime that blocks gives what never suspends.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeGuard, TypeVar

from rxdicom.errors import (
    ArgumentError,
    AssociationAborted,
    DatasetError,
    InvalidFile,
    NoAcceptedContext,
    RxDicomError,
    TimedOut,
)
from rxdicom.events.datasets import transfer_syntax_of
from rxdicom.log import words
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.runtimes.files import open_part10
from rxdicom.services.effects import Open, SubOperation
from rxdicom.status import STATUS_SUCCESS, STATUS_WARNING, Status
from rxdicom.wire.items import MAX_CONTEXTS
from rxdicom.wire.part10 import FileHead
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED

_Result = TypeVar("_Result")
_PROCESSING_FAILURE = 0x0110
_LOCAL_FAULTS = (InvalidFile, DatasetError, NoAcceptedContext, ArgumentError)
_SUB_OPERATION_FAULTS = (*_LOCAL_FAULTS, TimedOut)


class Storing(Protocol):
    """An association, as far as sub-operations need one."""

    @property
    def is_over(self) -> bool: ...

    def abort(self) -> None: ...

    def release(self) -> Awaitable[None]: ...

    def send_c_store(
        self,
        dataset: Any,
        msg_id: int | None = None,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> Awaitable[Status]: ...


Dial = Callable[..., Awaitable[Storing]]
"""Opens an association to a C-MOVE destination: (address, port, **arguments of ``associate``)."""


class Blocking(Storing):
    """An association whose calls block, for those who await them."""

    def __init__(self, assoc: Any) -> None:
        self._assoc = assoc

    @property
    def is_over(self) -> bool:
        return self._assoc.is_over

    def abort(self) -> None:
        self._assoc.abort()

    async def release(self) -> None:
        self._assoc.release()

    async def send_c_store(self, *args: Any, **elements: Any) -> Status:
        return self._assoc.send_c_store(*args, **elements)


def finished(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of what waits for nobody, but for those that let others have their turn."""
    while True:
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value


class Route(ABC):
    """Where C-STORE sub-operations go."""

    @abstractmethod
    async def store(self, instance: Any) -> SubOperation:
        """Perform one."""

    @abstractmethod
    async def close(self) -> None:
        """There are no more."""


class SameAssociation(Route):
    """The route of a C-GET: back over the association of the request. What ends that ends the service."""

    def __init__(self, assoc: Storing, priority: int) -> None:
        self._assoc = assoc
        self._priority = priority

    async def store(self, instance: Any) -> SubOperation:
        try:
            status = await self._assoc.send_c_store(instance, priority=self._priority)
        except _SUB_OPERATION_FAULTS as error:
            return failed(instance, error)
        return performed(instance, status)

    async def close(self) -> None:
        """The association stays."""


class MoveDestination(Route):
    """The route of a C-MOVE: one association to the destination, opened for the first sub-operation.

    Where its contexts do not fit an instance it is released, because many destinations serve one at a time, and opened
    again with further ones. Once the destination cannot be reached, or has ended it, the rest fails at once.
    """

    def __init__(
        self,
        dial: Dial,
        destination: Open,
        called_ae_title: str,
        requested: tuple[PresentationContext, ...],
        elements: Mapping[str, Any],
    ) -> None:
        self._dial = dial
        self._destination = destination
        self._called = called_ae_title
        self._proposed = list(destination.options.get("contexts", requested))
        self._elements = dict(elements)
        self._association: Storing | None = None
        self._lost: Exception | None = None

    async def store(self, instance: Any) -> SubOperation:
        if self._lost is not None:
            return failed(instance, self._lost)
        try:
            return await self._store(instance)
        except _LOCAL_FAULTS as error:
            return failed(instance, error)
        except RxDicomError as error:
            self._lost = error
            return failed(instance, error)
        except Exception:
            # Of this instance, whatever pydicom raised about it.
            raise
        except BaseException:
            # Cancelled: nobody knows what the destination has of this one.
            self._lost = AssociationAborted(by="local", cause="cancelled")
            raise

    async def _store(self, instance: Any) -> SubOperation:
        # One that was idle for too long while the handler took its time is over by now; the destination is not.
        if self._association is not None and self._association.is_over:
            self._association = None
        refused = NoAcceptedContext(sop_instance_uid(instance))
        if self._proposed:
            try:
                return await self._send(self._association or await self._open(), instance)
            except NoAcceptedContext as error:
                refused = error
        known = {_terms(each) for each in self._proposed}
        missing = [each for each in derived_contexts(instance) if _terms(each) not in known]
        if not missing:
            # They were refused already.
            raise refused
        await self.close()
        fit = len(self._proposed) + len(missing) <= MAX_CONTEXTS
        self._proposed = [*self._proposed, *missing] if fit else missing
        return await self._send(await self._open(), instance)

    async def _open(self) -> Storing:
        options = {"ae_title": self._called, **self._destination.options, "contexts": self._proposed}
        self._association = await self._dial(self._destination.address, self._destination.port, **options)
        return self._association

    async def _send(self, association: Storing, instance: Any) -> SubOperation:
        return performed(instance, await association.send_c_store(instance, **self._elements))

    async def close(self) -> None:
        """Release the association, if there is one."""
        association, self._association = self._association, None
        if association is not None:
            if self._lost is not None:
                association.abort()
            with suppress(RxDicomError):
                await association.release()


def _terms(context: PresentationContext) -> tuple[str, tuple[str, ...]]:
    return str(context.abstract_syntax), tuple(str(uid) for uid in context.transfer_syntax)


def performed(instance: Any, status: Status) -> SubOperation:
    """The account of one that was answered. Only a failure names its instance: a file is opened again for that."""
    if status.category in (STATUS_SUCCESS, STATUS_WARNING):
        return SubOperation(int(status))
    return SubOperation(int(status), sop_instance_uid(instance))


def failed(instance: Any, error: Exception) -> SubOperation:
    """The account of a sub-operation that could not be performed."""
    return SubOperation(_PROCESSING_FAILURE, sop_instance_uid(instance), words(error))


def _is_path(instance: Any) -> "TypeGuard[str | os.PathLike[str]]":
    return isinstance(instance, str | os.PathLike)


def _head(path: str | os.PathLike[str]) -> FileHead:
    head, source = open_part10(os.fspath(path))
    source.close()
    return head


def sop_instance_uid(instance: Any) -> str:
    """The SOP Instance UID of a dataset or file, empty if it has none."""
    if _is_path(instance):
        try:
            return _head(instance).sop_instance_uid
        except (OSError, InvalidFile):
            return ""
    return str(getattr(instance, "SOPInstanceUID", ""))


def derived_contexts(instance: Any) -> list[PresentationContext]:
    """The contexts that carry an instance: in its own transfer syntax, and uncompressed."""
    if _is_path(instance):
        head = _head(instance)
        sop_class, syntax = head.sop_class_uid, head.transfer_syntax_uid
    else:
        sop_class, syntax = str(instance.SOPClassUID), transfer_syntax_of(instance)
    plain = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
    if not syntax or syntax in UNCOMPRESSED:
        return [build_context(sop_class, list(dict.fromkeys([syntax or plain[0], *plain])))]
    return [build_context(sop_class, syntax), build_context(sop_class, plain)]
