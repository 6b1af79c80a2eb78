"""Requests of this side, made ready to be sent: the context chosen, the dataset opened or encoded."""

from collections.abc import Callable, Container, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rxdicom.errors import ArgumentError, DatasetError, NoAcceptedContext, StateError
from rxdicom.events.datasets import convert as convert_dataset
from rxdicom.events.datasets import encode, read_file, transfer_syntax_of
from rxdicom.protocol.negotiation import Negotiated
from rxdicom.runtimes.files import open_part10
from rxdicom.services.user import contexts_for, no_context
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import BytesSource, Encoded, Source
from rxdicom.wire.part10 import FileHead
from rxdicom.wire.pdata import message_runs
from rxdicom.wire.templates import CommandEncoder
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED, VERIFICATION

if TYPE_CHECKING:
    from pydicom import Dataset


class MessageIDTaken(ArgumentError):
    """A message ID was chosen that is outstanding."""

    def __init__(self, message_id: int) -> None:
        super().__init__(f"message ID {message_id} is outstanding; leave it out, and the next free one is taken")


class MessageIDs:
    """The message IDs of one association: 1 to 65535 in turn, but for those that are ``outstanding``."""

    __slots__ = ("_last", "_outstanding")

    def __init__(self, outstanding: Container[int]) -> None:
        self._outstanding = outstanding
        self._last = 0

    def next(self, given: int | None) -> int:
        """A message ID to be used: the given one, or the next that is free.

        Raises :class:`~rxdicom.errors.ArgumentError` for one that is outstanding or no message ID, and
        :class:`~rxdicom.errors.StateError` where all of them are outstanding.
        """
        if given is not None:
            if not 0 <= given <= 0xFFFF:
                raise ArgumentError(f"message ID {given} is out of range; give one from 0 to 65535, or none")
            self.check(given)
            return given
        for _ in range(0xFFFF):
            self._last = self._last % 0xFFFF + 1
            if self._last not in self._outstanding:
                return self._last
        raise StateError("all 65535 message IDs are outstanding; wait for responses")

    def check(self, message_id: int) -> None:
        """Raise :class:`MessageIDTaken` for one that is outstanding."""
        if message_id in self._outstanding:
            raise MessageIDTaken(message_id)


@frozen
class Request:
    """A request and, where it has a dataset, what that is read from while it is sent."""

    message: Message
    source: Source | None = None
    runs: Iterator[bytes | memoryview] | None = None
    """What is sent, where that has been begun."""

    def close(self) -> None:
        """It is not going to be sent."""
        if self.source is not None:
            self.source.close()

    def begun(self, maximum_length: int, encoder: CommandEncoder) -> "Request":
        """The same with the first of its runs made, for a peer's maximum length. Raises what its source raises."""
        runs = message_runs(self.message, self.source, maximum_length, encoder.encode)
        return Request(self.message, self.source, chain((next(runs),), runs))


Preparation = Callable[[Negotiated, int], Request]
"""Makes a request ready to be sent: (what was negotiated, message ID)."""


def echo_request(negotiated: Negotiated, message_id: int) -> Request:
    """C-ECHO-RQ. Raises :class:`~rxdicom.errors.NoAcceptedContext`."""
    context = contexts_for(negotiated, VERIFICATION)[0]
    return Request(Message({**_ECHO, "MessageID": message_id}, context.context_id))


_ECHO = message(Command.C_ECHO_RQ, MessageID=0, AffectedSOPClassUID=VERIFICATION).command
"""What all C-ECHO-RQ have in common."""


@frozen
class StorePreparation:
    """How a C-STORE-RQ is made ready: a file that lies in an accepted transfer syntax is opened, and not decoded;
    another one, where ``convert`` allows it, and a dataset, are encoded.
    """

    instance: "str | Dataset"
    convert: bool
    elements: Mapping[str, Any]

    def __call__(self, negotiated: Negotiated, message_id: int) -> Request:
        """The request. Raises NoAcceptedContext, InvalidFile, DatasetError and :class:`OSError`."""
        request = self.as_it_lies(negotiated, message_id)
        return self.encoded(negotiated, message_id) if request is None else request

    def as_it_lies(self, negotiated: Negotiated, message_id: int) -> Request | None:
        """The request for a file that needs no decoding; None for whatever has to be encoded, which takes time."""
        if not isinstance(self.instance, str):
            return None
        head, source = open_part10(self.instance)
        try:
            for context in contexts_for(negotiated, head.sop_class_uid):
                if context.transfer_syntax[0] == head.transfer_syntax_uid:
                    return self._of_file(context.context_id, head, source, message_id)
        except BaseException:
            source.close()
            raise
        source.close()
        if not self.convert:
            raise no_context(negotiated, f"{head.sop_class_uid} in transfer syntax {head.transfer_syntax_uid}")
        return None

    def _of_file(self, context_id: int, head: FileHead, source: Source, message_id: int) -> Request:
        encoded = Encoded(head.transfer_syntax_uid, path=str(self.instance), offset=head.offset, size=source.size)
        identity = head.sop_class_uid, head.sop_instance_uid
        return Request(_store_message(context_id, *identity, message_id, encoded, self.elements), source)

    def encoded(self, negotiated: Negotiated, message_id: int) -> Request:
        """The request for a dataset, or for a file that has to be converted; this may take its time."""
        if isinstance(self.instance, str):
            return _store_dataset(negotiated, read_file(self.instance), message_id, self.elements, convert=True)
        return _store_dataset(negotiated, self.instance, message_id, self.elements, convert=self.convert)


def _store_dataset(
    negotiated: Negotiated, dataset: "Dataset", message_id: int, elements: Mapping[str, Any], *, convert: bool
) -> Request:
    try:
        identity = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    except AttributeError as error:
        raise ArgumentError(f"the dataset cannot be stored: {error}; set SOPClassUID and SOPInstanceUID") from None
    own = transfer_syntax_of(dataset)
    contexts = contexts_for(negotiated, identity[0])
    chosen = next((each for each in contexts if each.transfer_syntax[0] == own), None)
    if chosen is None:
        # The uncompressed ones first: these every dataset can be converted to without loss.
        ordered = sorted(contexts, key=lambda each: each.transfer_syntax[0] not in UNCOMPRESSED)
        chosen = ordered[0]
        if own is not None and not convert:
            raise no_context(negotiated, f"{identity[0]} in transfer syntax {own}")
    syntax = chosen.transfer_syntax[0]
    try:
        # One that was just made holds its values in the byte order of little endian.
        data = convert_dataset(dataset, own or EXPLICIT_VR_LITTLE_ENDIAN, syntax)
    except DatasetError as error:
        if own == syntax:
            raise
        raise _not_convertible(negotiated, identity[0], own, error) from error
    encoded = Encoded(syntax, data)
    return Request(_store_message(chosen.context_id, *identity, message_id, encoded, elements), BytesSource(data))


def _not_convertible(negotiated: Negotiated, sop_class: str, own: str | None, error: Exception) -> NoAcceptedContext:
    return no_context(negotiated, f"{sop_class} in transfer syntax {own}, and converting it failed ({error})")


def query_request(
    negotiated: Negotiated,
    message_id: int,
    *,
    kind: Command,
    identifier: "Dataset",
    query_model: str,
    elements: Mapping[str, Any],
) -> Request:
    """C-FIND-RQ, C-GET-RQ or C-MOVE-RQ. Raises NoAcceptedContext, or DatasetError for a bad identifier."""
    context = contexts_for(negotiated, str(query_model))[0]
    syntax = context.transfer_syntax[0]
    data = encode(identifier, syntax)
    request = message(
        kind,
        context.context_id,
        Encoded(syntax, data),
        MessageID=message_id,
        AffectedSOPClassUID=str(query_model),
        **elements,
    )
    return Request(request, BytesSource(data))


def normalized_request(
    negotiated: Negotiated,
    message_id: int,
    *,
    kind: Command,
    dataset: "Dataset | None",
    abstract_syntax: str,
    as_scp: bool,
    elements: Mapping[str, Any],
) -> Request:
    """One of the six N requests, with a dataset where the service has one."""
    context = contexts_for(negotiated, abstract_syntax, as_scp=as_scp)[0]
    syntax = context.transfer_syntax[0]
    data = None if dataset is None else encode(dataset, syntax)
    encoded, source = (None, None) if data is None else (Encoded(syntax, data), BytesSource(data))
    return Request(message(kind, context.context_id, encoded, MessageID=message_id, **elements), source)


def _store_message(
    context_id: int, sop_class: str, sop_instance: str, message_id: int, data: Encoded, elements: Mapping[str, Any]
) -> Message:
    return message(
        Command.C_STORE_RQ,
        context_id,
        data,
        MessageID=message_id,
        AffectedSOPClassUID=sop_class,
        AffectedSOPInstanceUID=sop_instance,
        **elements,
    )
