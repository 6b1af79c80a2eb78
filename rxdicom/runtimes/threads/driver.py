"""Drives a service on the current thread: calls the handler, holds its iterator, sends, stores, closes."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

from rxdicom.errors import (
    ArgumentError,
    DatasetError,
    InvalidFile,
    NoAcceptedContext,
    RxDicomError,
    TimedOut,
)
from rxdicom.events.datasets import transfer_syntax_of
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.log import concerning, words
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.runtimes.files import open_part10
from rxdicom.services.effects import (
    Call,
    Cancelled,
    Done,
    Effect,
    Open,
    Pull,
    Raised,
    Reply,
    Send,
    Service,
    SubOperation,
    SubStore,
    Value,
)
from rxdicom.status import STATUS_SUCCESS, STATUS_WARNING, Status
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.items import MAX_CONTEXTS
from rxdicom.wire.part10 import FileHead
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.association import Association

_Result = TypeVar("_Result")
_PROCESSING_FAILURE = 0x0110
_LOCAL_FAULTS = (InvalidFile, DatasetError, NoAcceptedContext, ArgumentError)
_SUB_OPERATION_FAULTS = (*_LOCAL_FAULTS, TimedOut)

Dial = Callable[..., "Association"]
"""Opens an association to a C-MOVE destination: (address, port, **arguments of ``associate``)."""


class Route(Protocol):
    """Where C-STORE sub-operations go."""

    def store(self, instance: Any) -> SubOperation: ...

    def close(self) -> None: ...


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


def _performed(instance: Any, status: Status) -> SubOperation:
    """The account of one that was answered. Only a failure names its instance: a file is opened again for that."""
    if status.category in (STATUS_SUCCESS, STATUS_WARNING):
        return SubOperation(int(status))
    return SubOperation(int(status), sop_instance_uid(instance))


def failed(instance: Any, error: Exception) -> SubOperation:
    """The account of a sub-operation that could not be performed."""
    return SubOperation(_PROCESSING_FAILURE, sop_instance_uid(instance), words(error))


class SameAssociation:
    """The route of a C-GET: back over the association of the request. What ends that ends the service."""

    def __init__(self, assoc: "Association", priority: int) -> None:
        self._assoc = assoc
        self._priority = priority

    def store(self, instance: Any) -> SubOperation:
        try:
            status = self._assoc.send_c_store(instance, priority=self._priority)
        except _SUB_OPERATION_FAULTS as error:
            return failed(instance, error)
        return _performed(instance, status)

    def close(self) -> None:
        """The association stays."""


class MoveDestination:
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
        self._association: Association | None = None
        self._lost: Exception | None = None

    def store(self, instance: Any) -> SubOperation:
        if self._lost is not None:
            return failed(instance, self._lost)
        try:
            return self._store(instance)
        except _LOCAL_FAULTS as error:
            return failed(instance, error)
        except RxDicomError as error:
            self._lost = error
            return failed(instance, error)

    def _store(self, instance: Any) -> SubOperation:
        # One that was idle for too long while the handler took its time is over by now; the destination is not.
        if self._association is not None and self._association.is_over:
            self._association = None
        refused = NoAcceptedContext(sop_instance_uid(instance))
        if self._proposed:
            try:
                return self._send(self._association or self._open(), instance)
            except NoAcceptedContext as error:
                refused = error
        known = {_terms(each) for each in self._proposed}
        missing = [each for each in derived_contexts(instance) if _terms(each) not in known]
        if not missing:
            # They were refused already.
            raise refused
        self.close()
        fit = len(self._proposed) + len(missing) <= MAX_CONTEXTS
        self._proposed = [*self._proposed, *missing] if fit else missing
        return self._send(self._open(), instance)

    def _open(self) -> "Association":
        options = {"ae_title": self._called, **self._destination.options, "contexts": self._proposed}
        self._association = self._dial(self._destination.address, self._destination.port, **options)
        return self._association

    def _send(self, association: "Association", instance: Any) -> SubOperation:
        status = association.send_c_store(instance, **self._elements)
        return _performed(instance, status)

    def close(self) -> None:
        """Release the association, if there is one."""
        association, self._association = self._association, None
        if association is not None:
            if self._lost is not None:
                association.abort()
            with suppress(RxDicomError):
                association.release()


def _terms(context: PresentationContext) -> tuple[str, tuple[str, ...]]:
    return str(context.abstract_syntax), tuple(str(uid) for uid in context.transfer_syntax)


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


def _nowhere(message: Message) -> None:
    raise RuntimeError(f"there is nobody to send {message} to")


class Performance:
    """One request that is being performed. ``cancelled`` is set by the reader, and stays."""

    def __init__(
        self,
        handlers: Dispatcher,
        send: Callable[[Message], None] = _nowhere,
        route: Route | None = None,
        open_route: Callable[[Open], Route] | None = None,
    ) -> None:
        self.cancelled = False
        self.request_kind: Command | None = None
        self.thread: int | None = None
        """The thread that performs it."""
        self._handlers = handlers
        self._send = send
        self._route = route
        self._open_route = open_route
        self._items: Iterator[Any] | None = None
        self._event: Any = None

    def is_cancelled(self) -> bool:
        """Whether C-CANCEL has come for this request, or its association is over."""
        return self.cancelled

    def run(self, service: Service[_Result]) -> _Result:
        """Run a service to its result. What ends the association is raised, after closing the service."""
        self.thread = threading.get_ident()
        try:
            effect = next(service)
            while True:
                effect = service.send(self._reply(effect))
        except StopIteration as stop:
            return stop.value
        finally:
            service.close()
            self._close()

    def _reply(self, effect: Effect) -> Reply:
        match effect:
            case Call(event):
                return self._call(event)
            case Pull():
                return self._pull()
            case Send(message):
                self._send(message)
                return None
            case Open():
                return self._open(effect)
            case SubStore(instance):
                return self._sub_store(instance)

    def _call(self, event: Any) -> Reply:
        self._event = event
        try:
            value = self._handlers.call(event)
            if event.event.iterates:
                self._items = iter(value)
            return Value(value)
        except BaseException as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(event, error)

    def _pull(self) -> Reply:
        if self._items is None:
            return Done()
        try:
            item = next(self._items)
        except StopIteration:
            return Cancelled() if self.cancelled else Done()
        except BaseException as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(self._event, error)
        return Cancelled(item) if self.cancelled else Value(item)

    def _open(self, destination: Open) -> Reply:
        if self._open_route is None:
            return Raised(RuntimeError("there is no way to open an association to a destination here"))
        try:
            self._route = self._open_route(destination)
        except (TypeError, ValueError, RxDicomError) as error:
            return Raised(error)
        return Value(None)

    def _sub_store(self, instance: Any) -> Reply:
        if self._route is None:
            return Value(failed(instance, RuntimeError("there is no route for sub-operations")))
        try:
            return Value(self._route.store(instance))
        except RxDicomError:
            raise
        except Exception as error:  # noqa: BLE001 - the handler's instance, and what pydicom raises about it
            return Value(failed(instance, error))

    def _close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the edge of the user's handler
                concerning(self._event).exception("exception while a handler's iterator was closed")
        if self._route is not None:
            self._route.close()


def _raised(event: Any, error: BaseException) -> Raised:
    concerning(event).debug("exception in the handler of %s", event.name, exc_info=True)
    if isinstance(error, Exception):
        return Raised(error)
    # SystemExit and its like would end the thread of the association, and nothing else.
    return Raised(RuntimeError(f"the handler raised {type(error).__name__}"))
