"""The requests of an association's user: the twelve ``send_…`` methods, each a line of what it sends and returns."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rxdicom.errors import ArgumentError, StateError, TimedOut
from rxdicom.events.datasets import decode
from rxdicom.events.hub import forbid_in_observer
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.operations import Batch, Operation, Operations
from rxdicom.runtimes.threads.responses import Exchange, Pair, Responses, is_final
from rxdicom.runtimes.threads.sending import Sender, Transfer
from rxdicom.runtimes.user import Request, echo_request, normalized_request, query_request, store_request
from rxdicom.services.user import contexts_for
from rxdicom.sop_class import uid_to_service_class
from rxdicom.status import Status, StatusTable
from rxdicom.wire.dimse import Command, Message, message

if TYPE_CHECKING:
    from pydicom import Dataset
    from reactivex import Observable

_STATUS_ELEMENTS = {
    "OffendingElement",
    "ErrorComment",
    "ErrorID",
    "AffectedSOPClassUID",
    "AffectedSOPInstanceUID",
    "EventTypeID",
    "ActionTypeID",
    "AttributeIdentifierList",
    "NumberOfRemainingSuboperations",
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
}


class Requests(ABC):
    """What :class:`Association` sends. Every method raises :class:`~rxdicom.errors.NoAcceptedContext` if no accepted
    context fits, :class:`~rxdicom.errors.TimedOut`, or what says that the association is over.

    ``msg_id`` is the next free message ID unless it is given; one that is outstanding is a
    :class:`~rxdicom.errors.LocalUsageError`.
    """

    is_established: bool

    def __init__(self, protocol: Protocol, connection: Connection, timeouts: Timeouts, *, convert: bool) -> None:
        self._protocol = protocol
        self._connection = connection
        self._timeouts = timeouts
        self._convert = convert
        self._operations = Operations(connection, timeouts, self.abandon)
        self._tables: dict[tuple[int, int], StatusTable] = {}

    @abstractmethod
    def _over(self) -> Exception:
        """Why nothing can be sent."""

    @abstractmethod
    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""

    # ---- C services

    def send_c_echo(self, msg_id: int | None = None) -> Status:
        """Verify the peer (PS3.7 §9.1.5). Returns its status."""
        return self._status_of(Command.C_ECHO_RQ, msg_id, partial(echo_request, self._protocol.negotiated))

    def send_c_store(
        self,
        dataset: "Dataset | str | Path",
        msg_id: int | None = None,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> Status:
        """Store a composite instance (PS3.7 §9.1.1). Returns the peer's status.

        A path is sent as the file lies on disk, never decoded, if its transfer syntax was accepted; otherwise, and
        for a ``Dataset``, it is converted to one that was. ``priority`` is 0 medium, 1 high, 2 low. The originator is
        that of the C-MOVE of which this is a sub-operation.

        Also raises :class:`~rxdicom.errors.InvalidFile`, :class:`~rxdicom.errors.DatasetError`, and :class:`OSError`
        for a file that cannot be read.
        """
        return self._status_of(
            Command.C_STORE_RQ, msg_id, self._preparing(dataset, priority, originator_aet, originator_id)
        )

    def send_many(self, instances: "Iterable[Dataset | str | Path]", priority: int = 2) -> Transfer:
        """Store many composite instances, datasets or paths, with as many requests outstanding as the window allows.

        Gives a :class:`~rxdicom.runtimes.batches.Sent` for each as it becomes known, to be iterated or piped;
        ``.totals`` counts them. ``instances`` may be an iterator: it is asked for the next one when there is room in
        the window. One that cannot be sent, or is refused, does not stop the rest. The window is 1 unless a larger one
        was negotiated by an :class:`~rxdicom.pdu_primitives.AsynchronousOperationsWindowNegotiation` in ``ext_neg``.

        Iterating raises what says that the association is over: what has not come by then is not known to be stored.
        """
        forbid_in_observer("a request")
        _check_priority(priority)

        def begin(instance: Any, batch: Batch) -> tuple[Operation, Message]:
            prepare = self._preparing(instance, priority, None, None)
            operation, request = self._begin(Command.C_STORE_RQ, None, prepare, batch)
            return operation, request

        def run() -> Generator[Sent]:
            sender = Sender(self._operations, self._protocol.negotiated.invoked, begin, self._status, self._give_up)
            return sender.run(instances)

        return Transfer(run, "rxdicom-send")

    def _preparing(
        self, instance: "Dataset | str | Path", priority: int, originator_aet: str | None, originator_id: int | None
    ) -> Callable[[int], Request]:
        _check_priority(priority)
        given = os.fspath(instance) if isinstance(instance, str | os.PathLike) else instance

        def prepare(message_id: int) -> Request:
            return store_request(
                self._protocol.negotiated,
                given,
                message_id,
                convert=self._convert,
                Priority=priority,
                MoveOriginatorApplicationEntityTitle=originator_aet,
                MoveOriginatorMessageID=originator_id,
            )

        return prepare

    def send_c_find(
        self, dataset: "Dataset", query_model: str, msg_id: int | None = None, priority: int = 2
    ) -> Responses:
        """Query the peer (PS3.7 §9.1.2): pairs of status and identifier, None with the final status."""
        return self._query(Command.C_FIND_RQ, dataset, query_model, msg_id, priority)

    def send_c_get(
        self, dataset: "Dataset", query_model: str, msg_id: int | None = None, priority: int = 2
    ) -> Responses:
        """Retrieve over this association (PS3.7 §9.1.3); the instances come to the handler of ``evt.EVT_C_STORE``.

        The statuses carry the counters; the final one comes with the list of failed instances, if there are any.
        """
        return self._query(Command.C_GET_RQ, dataset, query_model, msg_id, priority)

    def send_c_move(
        self, dataset: "Dataset", move_aet: str, query_model: str, msg_id: int | None = None, priority: int = 2
    ) -> Responses:
        """Have the peer send instances to the AE ``move_aet`` (PS3.7 §9.1.4). Yields as :meth:`send_c_get` does."""
        return self._query(Command.C_MOVE_RQ, dataset, query_model, msg_id, priority, MoveDestination=move_aet)

    def send_c_cancel(self, msg_id: int, context_id: int | None = None, query_model: str | None = None) -> None:
        """Ask the peer to end the operation with this message ID (PS3.7 §9.3.2.3); its final response still comes."""
        if not self.is_established:
            raise self._over()
        if context_id is None:
            if query_model is None:
                raise ArgumentError("give the presentation context ID or the query model of what is to be cancelled")
            context_id = contexts_for(self._protocol.negotiated, str(query_model))[0].context_id
        cancel = _cancel(msg_id, context_id)
        try:
            self._connection.perform(lambda now: self._protocol.send(cancel, None, now), may_wait=False)
        except StateError:
            raise self._over() from None

    # ---- N services

    def send_n_event_report(
        self,
        dataset: "Dataset | None",
        event_type: int,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> "tuple[Status, Dataset | None]":
        """Report an event to the peer, as SCP of the SOP class (PS3.7 §10.1.1): status and event reply."""
        return self._normalized(
            Command.N_EVENT_REPORT_RQ, dataset, msg_id, meta_uid or class_uid, as_scp=True,
            AffectedSOPClassUID=str(class_uid), AffectedSOPInstanceUID=str(instance_uid), EventTypeID=event_type,
        )  # fmt: skip

    def send_n_get(
        self,
        identifier_list: Sequence[int | tuple[int, int]] | None,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> "tuple[Status, Dataset | None]":
        """Get attributes, by their tags, all of them for None (PS3.7 §10.1.2): status and attribute list.

        A tag is a number, or a pair of group and element.
        """
        tags = tuple(tag if isinstance(tag, int) else tag[0] << 16 | tag[1] for tag in identifier_list or ()) or None
        return self._normalized(
            Command.N_GET_RQ, None, msg_id, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
            AttributeIdentifierList=tags,
        )  # fmt: skip

    def send_n_set(
        self,
        dataset: "Dataset",
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> "tuple[Status, Dataset | None]":
        """Set attributes (PS3.7 §10.1.3): status and attribute list."""
        return self._normalized(
            Command.N_SET_RQ, dataset, msg_id, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
        )  # fmt: skip

    def send_n_action(
        self,
        dataset: "Dataset | None",
        action_type: int,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> "tuple[Status, Dataset | None]":
        """Have the peer act (PS3.7 §10.1.4): status and action reply."""
        return self._normalized(
            Command.N_ACTION_RQ, dataset, msg_id, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid), ActionTypeID=action_type,
        )  # fmt: skip

    def send_n_create(
        self,
        dataset: "Dataset | None",
        class_uid: str,
        instance_uid: str | None = None,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> "tuple[Status, Dataset | None]":
        """Create an instance (PS3.7 §10.1.5), which the peer names if you do not: status and attribute list.

        The instance is ``status.AffectedSOPInstanceUID``.
        """
        return self._normalized(
            Command.N_CREATE_RQ, dataset, msg_id, meta_uid or class_uid,
            AffectedSOPClassUID=str(class_uid),
            AffectedSOPInstanceUID=None if instance_uid is None else str(instance_uid),
        )  # fmt: skip

    def send_n_delete(
        self, class_uid: str, instance_uid: str, msg_id: int | None = None, meta_uid: str | None = None
    ) -> Status:
        """Delete an instance (PS3.7 §10.1.6). Returns the status."""
        status, _ = self._normalized(
            Command.N_DELETE_RQ, None, msg_id, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
        )  # fmt: skip
        return status

    # ---- one response

    def _status_of(self, kind: Command, msg_id: int | None, prepare: Callable[[int], Request]) -> Status:
        request, answer = self._exchange(kind, msg_id, prepare)
        # These responses have no dataset; what a peer sends nevertheless is not kept.
        forget(answer.data)
        return self._status(request, answer)

    def _normalized(
        self,
        kind: Command,
        dataset: "Dataset | None",
        msg_id: int | None,
        abstract_syntax: str,
        *,
        as_scp: bool = False,
        **elements: Any,
    ) -> "tuple[Status, Dataset | None]":
        def prepare(message_id: int) -> Request:
            return normalized_request(
                self._protocol.negotiated,
                kind,
                dataset,
                message_id,
                abstract_syntax=str(abstract_syntax),
                as_scp=as_scp,
                **elements,
            )

        request, answer = self._exchange(kind, msg_id, prepare)
        return self._pair(request, answer)

    def _exchange(
        self, kind: Command, msg_id: int | None, prepare: Callable[[int], Request]
    ) -> tuple[Message, Message]:
        """Send a request that has one response, wait for it; returns both."""
        forbid_in_observer("a request")
        operation, request = self._begin(kind, msg_id, prepare)
        try:
            return request, self._operations.wait(operation)
        except TimedOut:
            self._give_up(operation)
            raise
        finally:
            self._operations.remove(operation)

    def _begin(
        self, kind: Command, msg_id: int | None, prepare: Callable[[int], Request], batch: Batch | None = None
    ) -> tuple[Operation, Message]:
        """Send a request, as soon as the window has room for it."""
        if not self.is_established:
            raise self._over()
        operation = self._operations.begin(kind, msg_id, self._protocol.negotiated.invoked)
        try:
            request = prepare(operation.message_id)
            self._send(request)
        except BaseException:
            self._operations.remove(operation)
            raise
        if batch is not None:
            batch.add(operation)
        return operation, request.message

    def _give_up(self, operation: Operation) -> None:
        """A response that did not come in time does not keep the association from being idle."""
        self._connection.perform(lambda _: self._no_longer_expect(operation.message_id), may_wait=False)

    def _no_longer_expect(self, message_id: int) -> list[Produced]:
        self._protocol.invoked.discard(message_id)
        return []

    def _send(self, request: Request) -> None:
        try:
            self._connection.perform(lambda now: self._protocol.send(request.message, request.source, now))
        except StateError:
            if request.source is not None:
                request.source.close()
            raise self._over() from None

    def _pair(self, request: Message, answer: Message) -> Pair:
        """A response as users see it; its dataset is decoded here, on the consumer's thread."""
        try:
            return self._status(request, answer), None if answer.data is None else decode(answer.data)
        finally:
            forget(answer.data)

    def _status(self, request: Message, answer: Message) -> Status:
        command = answer.command
        found = {key: command[key] for key in _STATUS_ELEMENTS & command.keys()}
        return Status(command["Status"], self._table(request), **found)

    def _table(self, request: Message) -> StatusTable:
        key = request.context_id, request.command["CommandField"]
        table = self._tables.get(key)
        if table is None:
            context = self._protocol.negotiated.contexts[request.context_id]
            service = uid_to_service_class(context.abstract_syntax)
            table = self._tables[key] = service.status_table(request.name.removesuffix("-RQ"))
        return table

    # ---- several responses

    def _query(
        self, kind: Command, identifier: "Dataset", query_model: str, msg_id: int | None, priority: int, **elements: Any
    ) -> Responses:
        forbid_in_observer("a request")
        if not self.is_established:
            raise self._over()
        _check_priority(priority)
        message_id = self._operations.next_id(msg_id)
        request = query_request(
            self._protocol.negotiated, kind, identifier, query_model, message_id, Priority=priority, **elements
        )
        return Responses(message_id, lambda: self._iterate(request), partial(self._stream, request))

    def _iterate(self, request: Request) -> Generator[Pair]:
        exchange = Exchange(request.message)
        self._start(exchange, request)
        try:
            while True:
                answer = self._operations.next_of(exchange)
                yield self._pair(request.message, answer)
                if is_final(answer):
                    return
        finally:
            self._leave(exchange, request.message.context_id)

    def _stream(self, request: Request, use_once: Callable[[], None]) -> "Observable[Pair]":
        from rxdicom.events.streams import response_stream

        def subscribe(
            on_next: Callable[[Pair], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
        ) -> Callable[[], None]:
            def listen(answer: Message | Exception) -> None:
                if isinstance(answer, Exception):
                    on_error(answer)
                    return
                try:
                    given = self._pair(request.message, answer)
                except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                    on_error(error)
                    self._leave(exchange, request.message.context_id)
                    return
                on_next(given)
                if is_final(answer):
                    on_completed()

            exchange = Exchange(request.message, listen)
            try:
                forbid_in_observer("a request")
                use_once()
                self._start(exchange, request)
                self._connection.wake_reader()
            except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                exchange.error = error
                on_error(error)
            return lambda: self._leave(exchange, request.message.context_id)

        return response_stream(subscribe)

    def _start(self, exchange: Exchange, request: Request) -> None:
        if not self.is_established:
            raise self._over()
        self._operations.register(exchange, self._protocol.negotiated.invoked)
        try:
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise

    def _leave(self, exchange: Exchange, context_id: int) -> None:
        """Nobody consumes any more: cancel what is still running. The reader drains it; nothing is waited for."""
        exchange.close()
        if exchange.is_over or exchange.cancel_sent:
            return
        exchange.cancel_sent = True
        seconds = self._timeouts.response
        exchange.deadline = None if seconds is None else time.monotonic() + seconds
        self._operations.room()

        def cancel(now: float) -> list[Produced]:
            try:
                return self._protocol.send(_cancel(exchange.message_id, context_id), None, now)
            except StateError:
                # The association is on its way out, and the operation ends with it.
                return []

        self._connection.perform_soon(cancel)
        self._connection.wake_reader()


def _cancel(message_id: int, context_id: int) -> Message:
    return message(Command.C_CANCEL_RQ, context_id, MessageIDBeingRespondedTo=message_id)


def _check_priority(priority: int) -> None:
    if priority not in (0, 1, 2):
        raise ArgumentError(f"priority {priority!r} is not 0 (medium), 1 (high) or 2 (low)")
