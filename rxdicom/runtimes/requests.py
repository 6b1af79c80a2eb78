"""The requests of an association's user: the twelve ``send_…`` methods, written once for every runtime.

A method says what is sent and what the answer becomes. Sending and waiting is the runtime's: what it gives is a value
where callers block, and a coroutine of that value where they await. These are the type parameters.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rxdicom.errors import ArgumentError
from rxdicom.events.datasets import decode
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.user import Preparation, StorePreparation, echo_request, normalized_request, query_request
from rxdicom.services.user import contexts_for
from rxdicom.sop_class import uid_to_service_class
from rxdicom.status import PENDING, Status, StatusTable
from rxdicom.wire.dimse import Command, Message, message

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

Pair = tuple[Status, "Dataset | None"]
"""A status, and the dataset that came with it."""

_OneStatus = TypeVar("_OneStatus")
_OnePair = TypeVar("_OnePair")
_Many = TypeVar("_Many")
_Batch = TypeVar("_Batch")
_Done = TypeVar("_Done")

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


class UserRequests(ABC, Generic[_OneStatus, _OnePair, _Many, _Batch, _Done]):
    """What an association sends. Every request raises :class:`~rxdicom.errors.NoAcceptedContext` if no accepted
    context fits, :class:`~rxdicom.errors.TimedOut`, or what says that the association is over.

    ``msg_id`` is the next free message ID unless it is given; one that is outstanding is a
    :class:`~rxdicom.errors.LocalUsageError`.
    """

    def __init__(self, protocol: Protocol, *, convert: bool) -> None:
        self._protocol = protocol
        self._convert = convert
        self._tables: dict[tuple[int, int], StatusTable] = {}

    # ---- what the runtime does

    @abstractmethod
    def _ask_status(self, kind: Command, msg_id: int | None, prepare: Preparation) -> _OneStatus:
        """Send a request that has one response; its status."""

    @abstractmethod
    def _ask_pair(self, kind: Command, msg_id: int | None, prepare: Preparation) -> _OnePair:
        """Send a request that has one response; its status and dataset."""

    @abstractmethod
    def _ask_many(self, msg_id: int | None, prepare: Preparation) -> _Many:
        """The responses of a request that has several, which is sent once they are asked for."""

    @abstractmethod
    def _send_batch(self, instances: Iterable[Any], priority: int) -> _Batch:
        """What becomes of instances that are sent once that is asked for."""

    @abstractmethod
    def _send_cancel(self, msg_id: int, context_id: int | None, query_model: str | None) -> _Done:
        """Send a C-CANCEL-RQ, which has no response."""

    # ---- C services

    def send_c_echo(self, msg_id: int | None = None) -> _OneStatus:
        """Verify the peer (PS3.7 §9.1.5). Returns its status."""
        return self._ask_status(Command.C_ECHO_RQ, msg_id, echo_request)

    def send_c_store(
        self,
        dataset: "Dataset | str | Path",
        msg_id: int | None = None,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> _OneStatus:
        """Store a composite instance (PS3.7 §9.1.1). Returns the peer's status.

        A path is sent as the file lies on disk, never decoded, if its transfer syntax was accepted; otherwise, and
        for a ``Dataset``, it is converted to one that was. ``priority`` is 0 medium, 1 high, 2 low. The originator is
        that of the C-MOVE of which this is a sub-operation.

        Also raises :class:`~rxdicom.errors.InvalidFile`, :class:`~rxdicom.errors.DatasetError`, and :class:`OSError`
        for a file that cannot be read.
        """
        prepare = self._storing(dataset, priority, originator_aet, originator_id)
        return self._ask_status(Command.C_STORE_RQ, msg_id, prepare)

    def send_many(self, instances: "Iterable[Dataset | str | Path]", priority: int = 2) -> _Batch:
        """Store many composite instances, datasets or paths, with as many requests outstanding as the window allows.

        Gives a :class:`~rxdicom.runtimes.batches.Sent` for each as it becomes known, to be iterated or piped;
        ``.totals`` counts them. ``instances`` may be an iterator: it is asked for the next one when there is room in
        the window. The next one of a list may be opened earlier, while others are on their way. One that cannot be
        sent, or is refused, does not stop the rest. The window is 1 unless a larger one was negotiated by an
        :class:`~rxdicom.pdu_primitives.AsynchronousOperationsWindowNegotiation` in ``ext_neg``.

        Iterating raises what says that the association is over: what has not come by then is not known to be stored.
        """
        check_priority(priority)
        return self._send_batch(instances, priority)

    def send_c_find(self, dataset: "Dataset", query_model: str, msg_id: int | None = None, priority: int = 2) -> _Many:
        """Query the peer (PS3.7 §9.1.2): pairs of status and identifier, None with the final status."""
        return self._query(Command.C_FIND_RQ, dataset, query_model, msg_id, priority)

    def send_c_get(self, dataset: "Dataset", query_model: str, msg_id: int | None = None, priority: int = 2) -> _Many:
        """Retrieve over this association (PS3.7 §9.1.3); the instances come to the handler of ``evt.EVT_C_STORE``.

        The statuses carry the counters; the final one comes with the list of failed instances, if there are any.
        """
        return self._query(Command.C_GET_RQ, dataset, query_model, msg_id, priority)

    def send_c_move(
        self, dataset: "Dataset", move_aet: str, query_model: str, msg_id: int | None = None, priority: int = 2
    ) -> _Many:
        """Have the peer send instances to the AE ``move_aet`` (PS3.7 §9.1.4). Yields as :meth:`send_c_get` does."""
        return self._query(Command.C_MOVE_RQ, dataset, query_model, msg_id, priority, MoveDestination=move_aet)

    def send_c_cancel(self, msg_id: int, context_id: int | None = None, query_model: str | None = None) -> _Done:
        """Ask the peer to end the operation with this message ID (PS3.7 §9.3.2.3); its final response still comes."""
        return self._send_cancel(msg_id, context_id, query_model)

    # ---- N services

    def send_n_event_report(
        self,
        dataset: "Dataset | None",
        event_type: int,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> _OnePair:
        """Report an event to the peer, as SCP of the SOP class (PS3.7 §10.1.1): status and event reply."""
        prepare = _normalized(
            Command.N_EVENT_REPORT_RQ, dataset, meta_uid or class_uid, as_scp=True,
            AffectedSOPClassUID=str(class_uid), AffectedSOPInstanceUID=str(instance_uid), EventTypeID=event_type,
        )  # fmt: skip
        return self._ask_pair(Command.N_EVENT_REPORT_RQ, msg_id, prepare)

    def send_n_get(
        self,
        identifier_list: Sequence[int | tuple[int, int]] | None,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> _OnePair:
        """Get attributes, by their tags, all of them for None (PS3.7 §10.1.2): status and attribute list.

        A tag is a number, or a pair of group and element.
        """
        tags = tuple(tag if isinstance(tag, int) else tag[0] << 16 | tag[1] for tag in identifier_list or ()) or None
        prepare = _normalized(
            Command.N_GET_RQ, None, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
            AttributeIdentifierList=tags,
        )  # fmt: skip
        return self._ask_pair(Command.N_GET_RQ, msg_id, prepare)

    def send_n_set(
        self,
        dataset: "Dataset",
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> _OnePair:
        """Set attributes (PS3.7 §10.1.3): status and attribute list."""
        prepare = _normalized(
            Command.N_SET_RQ, dataset, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
        )  # fmt: skip
        return self._ask_pair(Command.N_SET_RQ, msg_id, prepare)

    def send_n_action(
        self,
        dataset: "Dataset | None",
        action_type: int,
        class_uid: str,
        instance_uid: str,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> _OnePair:
        """Have the peer act (PS3.7 §10.1.4): status and action reply."""
        prepare = _normalized(
            Command.N_ACTION_RQ, dataset, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid), ActionTypeID=action_type,
        )  # fmt: skip
        return self._ask_pair(Command.N_ACTION_RQ, msg_id, prepare)

    def send_n_create(
        self,
        dataset: "Dataset | None",
        class_uid: str,
        instance_uid: str | None = None,
        msg_id: int | None = None,
        meta_uid: str | None = None,
    ) -> _OnePair:
        """Create an instance (PS3.7 §10.1.5), which the peer names if you do not: status and attribute list.

        The instance is ``status.AffectedSOPInstanceUID``.
        """
        prepare = _normalized(
            Command.N_CREATE_RQ, dataset, meta_uid or class_uid,
            AffectedSOPClassUID=str(class_uid),
            AffectedSOPInstanceUID=None if instance_uid is None else str(instance_uid),
        )  # fmt: skip
        return self._ask_pair(Command.N_CREATE_RQ, msg_id, prepare)

    def send_n_delete(
        self, class_uid: str, instance_uid: str, msg_id: int | None = None, meta_uid: str | None = None
    ) -> _OneStatus:
        """Delete an instance (PS3.7 §10.1.6). Returns the status."""
        prepare = _normalized(
            Command.N_DELETE_RQ, None, meta_uid or class_uid,
            RequestedSOPClassUID=str(class_uid), RequestedSOPInstanceUID=str(instance_uid),
        )  # fmt: skip
        return self._ask_status(Command.N_DELETE_RQ, msg_id, prepare)

    # ---- what they have in common

    def _storing(
        self,
        instance: "Dataset | str | Path",
        priority: int,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> StorePreparation:
        check_priority(priority)
        elements = {
            "Priority": priority,
            "MoveOriginatorApplicationEntityTitle": originator_aet,
            "MoveOriginatorMessageID": originator_id,
        }
        given = os.fspath(instance) if isinstance(instance, str | os.PathLike) else instance
        return StorePreparation(given, self._convert, elements)

    def _query(
        self, kind: Command, identifier: "Dataset", query_model: str, msg_id: int | None, priority: int, **elements: Any
    ) -> _Many:
        check_priority(priority)
        prepare = partial(
            query_request,
            kind=kind,
            identifier=identifier,
            query_model=query_model,
            elements={"Priority": priority, **elements},
        )
        return self._ask_many(msg_id, prepare)

    def _cancel(self, msg_id: int, context_id: int | None, query_model: str | None = None) -> Message:
        """The C-CANCEL-RQ for a message ID."""
        if context_id is None:
            if query_model is None:
                raise ArgumentError("give the presentation context ID or the query model of what is to be cancelled")
            context_id = contexts_for(self._protocol.negotiated, str(query_model))[0].context_id
        return message(Command.C_CANCEL_RQ, context_id, MessageIDBeingRespondedTo=msg_id)

    # ---- what an answer becomes

    def _lone_status(self, request: Message, answer: Message) -> Status:
        """The status of a response that has no dataset; what a peer sends nevertheless is not kept."""
        if answer.data is not None:
            forget(answer.data)
        return self._status(request, answer)

    def _pair(self, request: Message, answer: Message) -> Pair:
        """A response as users see it; its dataset is decoded here, where it is consumed.

        The final one of a C-FIND is no match, even where a peer repeats one there.
        """
        final = request.kind is Command.C_FIND_RQ and answer.Status not in PENDING
        try:
            return self._status(request, answer), None if answer.data is None or final else decode(answer.data)
        finally:
            forget(answer.data)

    def _status(self, request: Message, answer: Message) -> Status:
        command = answer.command
        found = {key: value for key, value in command.items() if key in _STATUS_ELEMENTS}
        return Status(command["Status"], self._table(request), **found)

    def _table(self, request: Message) -> StatusTable:
        key = request.context_id, request.command["CommandField"]
        table = self._tables.get(key)
        if table is None:
            context = self._protocol.negotiated.contexts[request.context_id]
            service = uid_to_service_class(context.abstract_syntax)
            table = self._tables[key] = service.status_table(request.name.removesuffix("-RQ"))
        return table


def _normalized(
    kind: Command, dataset: "Dataset | None", abstract_syntax: str, *, as_scp: bool = False, **elements: Any
) -> Preparation:
    return partial(
        normalized_request,
        kind=kind,
        dataset=dataset,
        abstract_syntax=str(abstract_syntax),
        as_scp=as_scp,
        elements=elements,
    )


def check_priority(priority: int) -> None:
    """Raise :class:`~rxdicom.errors.ArgumentError` for what is no priority (PS3.7 §E.1)."""
    if priority not in (0, 1, 2):
        raise ArgumentError(f"priority {priority!r} is not 0 (medium), 1 (high) or 2 (low)")
