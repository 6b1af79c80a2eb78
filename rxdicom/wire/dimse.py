"""DIMSE messages (PS3.7 §9, §10 and Annex E): one record, one table of elements, one table of commands, one codec.

A message is its command set, its presentation context and, where it has one, its dataset in encoded form. The
command set is always implicit VR little endian, group 0000 (PS3.7 §6.3.1).
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import partial
from io import BytesIO
from struct import Struct, calcsize, error, iter_unpack, pack
from typing import Any, Generic, TypeVar, overload

from attrs import field, frozen

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import clean_uid

NO_DATASET = 0x0101
"""Command Data Set Type of a message without a dataset; every other value announces one (PS3.7 §E.1)."""
DATASET = 0x0001
MAX_COMMAND_SET = 65536
"""Bytes of a command set that are accepted; real ones have about 200."""

_ELEMENT = Struct("<HHI")
_GROUP_LENGTH = Struct("<HHII")
_T = TypeVar("_T")


class Command(IntEnum):
    """The Command Field (0000,0100) of the 23 messages (PS3.7 §E.1)."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150

    @property
    def is_response(self) -> bool:
        return self >= 0x8000

    @property
    def message_name(self) -> str:
        """As the standard writes it.

        >>> Command.N_EVENT_REPORT_RQ.message_name
        'N-EVENT-REPORT-RQ'
        """
        return self.name.replace("_", "-")


_KINDS = {int(each): each for each in Command}
_NAMES = {int(each): each.message_name for each in Command}


class Element(Generic[_T]):
    """One command element as an attribute of :class:`Message`: its value, or None when it is absent."""

    def __init__(self, number: int, vr: str) -> None:
        self.number = number
        self.vr = vr
        self.keyword = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.keyword = name

    @overload
    def __get__(self, message: None, owner: type) -> "Element[_T]": ...
    @overload
    def __get__(self, message: "Message", owner: type) -> _T | None: ...
    def __get__(self, message: "Message | None", owner: type) -> "Element[_T] | _T | None":
        return self if message is None else message.command.get(self.keyword)


@frozen(slots=False)
class Message:
    """A DIMSE message. Its command elements are attributes under their DICOM keywords, None when absent.

    >>> rq = Message({"CommandField": 0x0030, "MessageID": 7}, context_id=1)
    >>> rq.name, rq.MessageID, rq.Priority
    ('C-ECHO-RQ', 7, None)
    """

    command: Mapping[str, Any]
    context_id: int = 0
    data: Encoded | None = field(default=None, eq=False)

    # One line per element of PS3.7 table E.1-1 in the order of their tags, in which they are also sent.
    CommandGroupLength = Element[int](0x0000, "UL")
    AffectedSOPClassUID = Element[str](0x0002, "UI")
    RequestedSOPClassUID = Element[str](0x0003, "UI")
    CommandField = Element[int](0x0100, "US")
    MessageID = Element[int](0x0110, "US")
    MessageIDBeingRespondedTo = Element[int](0x0120, "US")
    MoveDestination = Element[str](0x0600, "AE")
    Priority = Element[int](0x0700, "US")
    CommandDataSetType = Element[int](0x0800, "US")
    Status = Element[int](0x0900, "US")
    OffendingElement = Element[tuple[int, ...]](0x0901, "AT")
    ErrorComment = Element[str](0x0902, "LO")
    ErrorID = Element[int](0x0903, "US")
    AffectedSOPInstanceUID = Element[str](0x1000, "UI")
    RequestedSOPInstanceUID = Element[str](0x1001, "UI")
    EventTypeID = Element[int](0x1002, "US")
    AttributeIdentifierList = Element[tuple[int, ...]](0x1005, "AT")
    ActionTypeID = Element[int](0x1008, "US")
    NumberOfRemainingSuboperations = Element[int](0x1020, "US")
    NumberOfCompletedSuboperations = Element[int](0x1021, "US")
    NumberOfFailedSuboperations = Element[int](0x1022, "US")
    NumberOfWarningSuboperations = Element[int](0x1023, "US")
    MoveOriginatorApplicationEntityTitle = Element[str](0x1030, "AE")
    MoveOriginatorMessageID = Element[int](0x1031, "US")

    @property
    def kind(self) -> Command:
        """Which of the 23 messages this is."""
        return _KINDS[self.command["CommandField"]]

    @property
    def name(self) -> str:
        """As the standard writes it, e.g. ``C-STORE-RQ``."""
        return _NAMES[self.command["CommandField"]]

    @property
    def is_response(self) -> bool:
        return bool(self.command["CommandField"] & 0x8000)

    @property
    def has_dataset(self) -> bool:
        return self.command.get("CommandDataSetType", NO_DATASET) != NO_DATASET

    @property
    def DataSet(self) -> BytesIO | None:
        """The encoded dataset, a new stream each time, None if there is none; pynetdicom's name for it."""
        return None if self.data is None else BytesIO(self.data.read())

    def __repr__(self) -> str:
        # Identifiers of patients are in the dataset only, and that shows its size.
        shown = {key: value for key, value in self.command.items() if key != "CommandField"}
        return f"Message({self.name}, context {self.context_id}, {shown}, {self.data})"


ELEMENTS: dict[str, Element[Any]] = {key: each for key, each in vars(Message).items() if isinstance(each, Element)}


def _row(required: str, optional: str = "", *, dataset: str = "never") -> tuple[frozenset[str], frozenset[str], str]:
    return frozenset(required.split()), frozenset(optional.split()), dataset


_COUNTERS = (
    "NumberOfRemainingSuboperations NumberOfCompletedSuboperations "
    "NumberOfFailedSuboperations NumberOfWarningSuboperations"
)
_FAILURE = "OffendingElement ErrorComment ErrorID"
_AFFECTED = "AffectedSOPClassUID AffectedSOPInstanceUID"
_REQUESTED = "RequestedSOPClassUID RequestedSOPInstanceUID"
_REPLY = "MessageIDBeingRespondedTo Status"

COMMANDS: dict[Command, tuple[frozenset[str], frozenset[str], str]] = {
    Command.C_STORE_RQ: _row(
        f"MessageID Priority {_AFFECTED}",
        "MoveOriginatorApplicationEntityTitle MoveOriginatorMessageID",
        dataset="always",
    ),
    Command.C_STORE_RSP: _row(_REPLY, f"{_AFFECTED} {_FAILURE}"),
    Command.C_GET_RQ: _row("MessageID AffectedSOPClassUID Priority", dataset="always"),
    Command.C_GET_RSP: _row(_REPLY, f"AffectedSOPClassUID {_COUNTERS} {_FAILURE}", dataset="maybe"),
    Command.C_FIND_RQ: _row("MessageID AffectedSOPClassUID Priority", dataset="always"),
    Command.C_FIND_RSP: _row(_REPLY, f"AffectedSOPClassUID {_FAILURE}", dataset="maybe"),
    Command.C_MOVE_RQ: _row("MessageID AffectedSOPClassUID Priority MoveDestination", dataset="always"),
    Command.C_MOVE_RSP: _row(_REPLY, f"AffectedSOPClassUID {_COUNTERS} {_FAILURE}", dataset="maybe"),
    Command.C_ECHO_RQ: _row("MessageID AffectedSOPClassUID"),
    Command.C_ECHO_RSP: _row(_REPLY, f"AffectedSOPClassUID {_FAILURE}"),
    Command.C_CANCEL_RQ: _row("MessageIDBeingRespondedTo"),
    Command.N_EVENT_REPORT_RQ: _row(f"MessageID {_AFFECTED} EventTypeID", dataset="maybe"),
    Command.N_EVENT_REPORT_RSP: _row(_REPLY, f"{_AFFECTED} EventTypeID {_FAILURE}", dataset="maybe"),
    Command.N_GET_RQ: _row(f"MessageID {_REQUESTED}", "AttributeIdentifierList"),
    Command.N_GET_RSP: _row(_REPLY, f"{_AFFECTED} AttributeIdentifierList {_FAILURE}", dataset="maybe"),
    Command.N_SET_RQ: _row(f"MessageID {_REQUESTED}", dataset="always"),
    Command.N_SET_RSP: _row(_REPLY, f"{_AFFECTED} AttributeIdentifierList {_FAILURE}", dataset="maybe"),
    Command.N_ACTION_RQ: _row(f"MessageID {_REQUESTED} ActionTypeID", dataset="maybe"),
    Command.N_ACTION_RSP: _row(_REPLY, f"{_AFFECTED} ActionTypeID {_FAILURE}", dataset="maybe"),
    Command.N_CREATE_RQ: _row("MessageID AffectedSOPClassUID", "AffectedSOPInstanceUID", dataset="maybe"),
    Command.N_CREATE_RSP: _row(_REPLY, f"{_AFFECTED} AttributeIdentifierList {_FAILURE}", dataset="maybe"),
    Command.N_DELETE_RQ: _row(f"MessageID {_REQUESTED}"),
    Command.N_DELETE_RSP: _row(_REPLY, f"{_AFFECTED} {_FAILURE}"),
}
"""What a command set holds beside Command Field and Command Data Set Type: required, optional, dataset or not."""

_REQUIRED_TO_RECEIVE = {
    # Without these a message cannot be answered, or matched to its request. Peers leave out the rest and mean well.
    command: required & {"MessageID", "MessageIDBeingRespondedTo", "Status"}
    for command, (required, _, _) in COMMANDS.items()
}


def message(kind: Command, context_id: int = 0, data: Encoded | None = None, **elements: Any) -> Message:
    """A message to be sent: elements under their keywords, None for absent ones.

    Raises :class:`~rxdicom.errors.ArgumentError` when the table of PS3.7 does not allow them.

    >>> message(Command.C_ECHO_RSP, 1, MessageIDBeingRespondedTo=7, Status=0).Status
    0
    """
    required, permitted, with_dataset = _PERMITTED[kind]
    command = {key: value for key, value in elements.items() if value is not None}
    if not (required <= command.keys() <= permitted and (data is not None) in with_dataset):
        raise _not_allowed(kind, command, data)
    command["CommandField"] = int(kind)
    command["CommandDataSetType"] = NO_DATASET if data is None else DATASET
    return Message(command, context_id, data)


_PERMITTED = {
    kind: (required, required | optional, {"always": (True,), "never": (False,), "maybe": (True, False)}[dataset])
    for kind, (required, optional, dataset) in COMMANDS.items()
}
"""The same table, as :func:`message` asks it: required, required or optional, with or without a dataset."""


def _not_allowed(kind: Command, command: Mapping[str, Any], data: Encoded | None) -> ArgumentError:
    required, permitted, _ = _PERMITTED[kind]
    if missing := required - command.keys():
        return ArgumentError(f"{kind.message_name} needs {', '.join(sorted(missing))}")
    if surplus := command.keys() - permitted:
        return ArgumentError(f"{kind.message_name} cannot carry {', '.join(sorted(surplus))}")
    return ArgumentError(f"{kind.message_name} {'needs' if data is None else 'cannot carry'} a dataset")


def encode_command_set(command: Mapping[str, Any]) -> bytes:
    """The command set in the order of its tags, with its group length first."""
    try:
        body = b"".join([encode(command[keyword]) for keyword, encode in _ENCODERS if keyword in command])
    except (error, UnicodeEncodeError, TypeError, AttributeError) as reason:
        raise ArgumentError(f"a command element cannot be encoded: {reason}") from None
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _number_encoder(number: int, layout: str) -> Callable[[Any], bytes]:
    """One call of C for header and value: numbers are most of a command set."""
    whole = Struct("<HHI" + layout)
    return partial(whole.pack, 0, number, calcsize("<" + layout))


def _bytes_encoder(number: int, encode_value: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        encoded = encode_value(value)
        return _ELEMENT.pack(0, number, len(encoded)) + encoded

    return encode


def _encode_ui(value: str) -> bytes:
    encoded = value.encode("ascii")
    return encoded + b"\0" if len(encoded) & 1 else encoded


def _encode_text(value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded + b" " if len(encoded) & 1 else encoded


def _encode_at(value: tuple[int, ...]) -> bytes:
    return b"".join(pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)


_ENCODER_OF_VR: dict[str, Callable[[int], Callable[[Any], bytes]]] = {
    "US": lambda number: _number_encoder(number, "H"),
    "UL": lambda number: _number_encoder(number, "I"),
    "UI": lambda number: _bytes_encoder(number, _encode_ui),
    "AE": lambda number: _bytes_encoder(number, _encode_text),
    "LO": lambda number: _bytes_encoder(number, _encode_text),
    "AT": lambda number: _bytes_encoder(number, _encode_at),
}
_ENCODERS = tuple((keyword, _ENCODER_OF_VR[each.vr](each.number)) for keyword, each in ELEMENTS.items() if each.number)


def decode_command_set(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The elements of a command set by keyword; unknown ones are skipped, the group length is not needed.

    Raises :class:`~rxdicom.errors.PeerProtocolError` for what cannot be a command set, or not be answered.
    """
    command: dict[str, Any] = {}
    data = bytes(data)
    position, end = 0, len(data)
    while position < end:
        if end - position < 8:
            raise PeerProtocolError(f"{end - position} stray bytes at the end of a command set", 6)
        group, number, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if length > end - position:
            raise PeerProtocolError(f"not a command element: ({group:04X},{number:04X}) of {length} bytes", 6)
        # Some peers have the identifier of a response here, the list of failed instances for example.
        row = None if group else _DECODERS.get(number)
        if row is not None:
            keyword, decode = row
            if length == 2 and decode is _decode_us:
                command[keyword] = _US.unpack_from(data, position)[0]
            elif (value := decode(data, position, length)) is not None:
                command[keyword] = value
        position += length
    _check_received(command)
    return command


def _check_received(command: Mapping[str, Any]) -> None:
    required = _REQUIRED_TO_RECEIVE.get(command.get("CommandField", 0))
    if required is None:
        raise PeerProtocolError(f"a command set with Command Field {command.get('CommandField')}", 6)
    if not required <= command.keys():
        missing = ", ".join(sorted(required - command.keys()))
        raise PeerProtocolError(f"{_NAMES[command['CommandField']]} without {missing}", 6)


def _number_decoder(layout: str) -> Callable[[bytes, int, int], int | None]:
    value = Struct(layout)

    def decode(data: bytes, position: int, length: int) -> int | None:
        if length < value.size:
            if length:
                raise PeerProtocolError(f"a number of {length} bytes in a command set", 6)
            return None
        return value.unpack_from(data, position)[0]

    return decode


def _decode_ui(data: bytes, position: int, length: int) -> str:
    return clean_uid(data[position : position + length])


def _decode_text(data: bytes, position: int, length: int) -> str:
    return str(data[position : position + length], "ascii", "backslashreplace").strip(" \0")


def _decode_at(data: bytes, position: int, length: int) -> tuple[int, ...]:
    whole = data[position : position + length - length % 4]
    return tuple(group << 16 | number for group, number in iter_unpack("<HH", whole))


_US = Struct("<H")
_decode_us = _number_decoder("<H")

_DECODER_OF_VR: dict[str, Callable[[Any, int, int], Any]] = {
    "US": _decode_us,
    "UL": _number_decoder("<I"),
    "UI": _decode_ui,
    "AE": _decode_text,
    "LO": _decode_text,
    "AT": _decode_at,
}
_DECODERS = {each.number: (keyword, _DECODER_OF_VR[each.vr]) for keyword, each in ELEMENTS.items()}
