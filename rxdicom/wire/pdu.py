"""The seven PDUs of the DICOM Upper Layer (PS3.8 §9.3) as frozen records, and their codec.

``encode_pdu`` and ``decode_pdu`` are inverses over whole PDUs. The data path does not come through here: P-DATA-TF
is written by :mod:`rxdicom.wire.pdata` and read in place by :mod:`rxdicom.protocol.receiver`.
"""

from collections.abc import Callable
from struct import Struct, error
from typing import Any, ClassVar, TypeVar

from attrs import field, frozen

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.items import (
    MAX_CONTEXTS,
    AsyncOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    UserItem,
    encode_items,
    invalid,
    item,
    parse_user_information,
    split_items,
    uid_bytes,
    unescaped,
)
from rxdicom.wire.uids import APPLICATION_CONTEXT, clean_uid

HEADER = Struct(">BxI")
"""PDU type, a reserved byte, and the length of what follows in bytes."""
HEADER_SIZE = HEADER.size
PDV_HEADER = Struct(">IBB")
"""Length of what follows the length field, presentation context ID, message control header (PS3.8 §9.3.5.1)."""

_ASSOCIATE = Struct(">H2x16s16s32s")
_Item = TypeVar("_Item")


@frozen
class Associate:
    """What A-ASSOCIATE-RQ and -AC have in common (PS3.8 §9.3.2, §9.3.3).

    ``protocol_version`` is a bit field; bit 0 is the only version there is. AE titles come without their padding.
    ``user_information`` holds the items in the order of the PDU.
    """

    called_ae_title: str
    calling_ae_title: str
    user_information: tuple[UserItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    reserved: bytes = field(default=bytes(32), repr=False)

    def items_of(self, kind: type[_Item]) -> tuple[_Item, ...]:
        """The user-information items of one type."""
        return tuple(each for each in self.user_information if isinstance(each, kind))

    def item_of(self, kind: type[_Item]) -> _Item | None:
        """The first user-information item of a type, or None."""
        return next((each for each in self.user_information if isinstance(each, kind)), None)

    @property
    def maximum_length(self) -> int:
        """The largest P-DATA-TF that the sender accepts, in bytes; 0 (also where it is absent) is unlimited."""
        found = self.item_of(MaximumLength)
        return found.value if found else 0

    @property
    def implementation_class_uid(self) -> str | None:
        found = self.item_of(ImplementationClassUID)
        return found.uid if found else None

    @property
    def implementation_version_name(self) -> str | None:
        found = self.item_of(ImplementationVersionName)
        return found.name if found else None

    @property
    def asynchronous_operations_window(self) -> tuple[int, int]:
        """(invoked, performed) of the requestor; (1, 1) where it was not negotiated (PS3.7 D.3.3.3)."""
        found = self.item_of(AsyncOperationsWindow)
        return (found.invoked, found.performed) if found else (1, 1)


@frozen
class AssociateRQ(Associate):
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""

    pdu_type: ClassVar[int] = 0x01
    name: ClassVar[str] = "A-ASSOCIATE-RQ"
    presentation_contexts: tuple[PresentationContextRQ, ...] = ()


@frozen
class AssociateAC(Associate):
    """A-ASSOCIATE-AC (PS3.8 §9.3.3)."""

    pdu_type: ClassVar[int] = 0x02
    name: ClassVar[str] = "A-ASSOCIATE-AC"
    presentation_contexts: tuple[PresentationContextAC, ...] = ()


@frozen
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4). Codes out of the tables are kept as they came."""

    pdu_type: ClassVar[int] = 0x03
    name: ClassVar[str] = "A-ASSOCIATE-RJ"
    result: int
    source: int
    reason: int


@frozen(repr=False)
class PDV:
    """A presentation data value: one fragment of a message (PS3.8 §9.3.5.1 and Annex E)."""

    context_id: int
    control: int
    data: bytes

    @property
    def is_command(self) -> bool:
        return bool(self.control & 1)

    @property
    def is_last(self) -> bool:
        return bool(self.control & 2)

    def __repr__(self) -> str:
        kind = "command" if self.is_command else "data"
        last = ", last" if self.is_last else ""
        return f"PDV(context {self.context_id}, {kind}{last}, {len(self.data)} bytes)"


@frozen
class PDataTF:
    """P-DATA-TF (PS3.8 §9.3.5)."""

    pdu_type: ClassVar[int] = 0x04
    name: ClassVar[str] = "P-DATA-TF"
    values: tuple[PDV, ...]


@frozen
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 §9.3.6)."""

    pdu_type: ClassVar[int] = 0x05
    name: ClassVar[str] = "A-RELEASE-RQ"


@frozen
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 §9.3.7)."""

    pdu_type: ClassVar[int] = 0x06
    name: ClassVar[str] = "A-RELEASE-RP"


@frozen
class Abort:
    """A-ABORT (PS3.8 §9.3.8): source 0 is the service user, 2 the provider."""

    pdu_type: ClassVar[int] = 0x07
    name: ClassVar[str] = "A-ABORT"
    source: int
    reason: int


PDU = AssociateRQ | AssociateAC | AssociateRJ | PDataTF | ReleaseRQ | ReleaseRP | Abort

P_DATA_TF = PDataTF.pdu_type
PDU_NAMES = {
    kind.pdu_type: kind.name for kind in (AssociateRQ, AssociateAC, AssociateRJ, PDataTF, ReleaseRQ, ReleaseRP, Abort)
}


def encode_ae_title(title: str) -> bytes:
    """An AE title as PS3.8 has it: 16 characters of the default repertoire, padded with spaces.

    >>> encode_ae_title("STORESCP")
    b'STORESCP        '
    """
    encoded = unescaped(title.encode("ascii", "backslashreplace"))
    if len(encoded) > 16:
        raise ArgumentError(f"AE title {title!r} has {len(encoded)} characters; 16 is the most")
    return encoded.ljust(16)


def decode_ae_title(raw: bytes) -> str:
    """An AE title as received, without padding; bytes that are not ASCII stay visible as escapes."""
    return raw.strip(b" \0").decode("ascii", "backslashreplace")


def encode_pdu(pdu: PDU) -> bytes:
    """The bytes of a PDU, header included.

    Raises :class:`~rxdicom.errors.ArgumentError` for values that its fields cannot hold.

    >>> encode_pdu(ReleaseRQ()).hex()
    '05000000000400000000'
    """
    try:
        body = _ENCODERS[pdu.pdu_type](pdu)
    except ArgumentError:
        raise
    except (error, ValueError) as reason:
        raise ArgumentError(f"{pdu.name} cannot be encoded: {reason}") from None
    return HEADER.pack(pdu.pdu_type, len(body)) + body


def decode_pdu(data: bytes | bytearray | memoryview) -> PDU:
    """The record of one whole PDU, header included. It refers to nothing of ``data``, which is copied once.

    Raises :class:`~rxdicom.errors.PeerProtocolError` with the A-ABORT reason that answers it.

    >>> decode_pdu(bytes.fromhex("07000000000400000205"))
    Abort(source=2, reason=5)
    """
    if len(data) < HEADER_SIZE:
        raise invalid(f"a PDU of {len(data)} bytes; its header alone has {HEADER_SIZE}")
    pdu_type, length = HEADER.unpack_from(data)
    if length != len(data) - HEADER_SIZE:
        raise invalid(f"PDU length says {length} bytes, {len(data) - HEADER_SIZE} are there")
    decoder = _DECODERS.get(pdu_type)
    if decoder is None:
        raise PeerProtocolError(f"unrecognised PDU type {pdu_type:02X}H", 1)
    body = memoryview(data)[HEADER_SIZE:]
    return _decode_pdata(body) if pdu_type == P_DATA_TF else decoder(bytes(body))


def _encode_associate(pdu: AssociateRQ | AssociateAC) -> bytes:
    fixed = _ASSOCIATE.pack(
        pdu.protocol_version, encode_ae_title(pdu.called_ae_title), encode_ae_title(pdu.calling_ae_title), pdu.reserved
    )
    return b"".join(
        (
            fixed,
            item(0x10, uid_bytes(pdu.application_context)),
            encode_items(pdu.presentation_contexts),
            item(0x50, encode_items(pdu.user_information)),
        )
    )


def _decode_associate(body: bytes, context_type: int) -> tuple[Associate, list[bytes]]:
    """The common part, and the bodies of the presentation contexts."""
    if len(body) < _ASSOCIATE.size:
        raise invalid(f"an A-ASSOCIATE of {len(body)} bytes; its fixed part has {_ASSOCIATE.size}")
    version, called, calling, reserved = _ASSOCIATE.unpack_from(body)
    application_context = ""
    user_information: tuple[UserItem, ...] = ()
    contexts: list[bytes] = []
    for item_type, content in split_items(body[_ASSOCIATE.size :], "an A-ASSOCIATE"):
        if item_type == 0x10:
            application_context = clean_uid(content)
        elif item_type == context_type:
            if len(contexts) == MAX_CONTEXTS:
                raise invalid(f"more than {MAX_CONTEXTS} presentation contexts")
            contexts.append(content)
        elif item_type == 0x50:
            user_information = parse_user_information(content)
    called_title, calling_title = decode_ae_title(called), decode_ae_title(calling)
    common = Associate(called_title, calling_title, user_information, application_context, version, reserved)
    return common, contexts


def _common_fields(common: Associate) -> tuple[str, str, tuple[UserItem, ...], str, int, bytes]:
    return (
        common.called_ae_title,
        common.calling_ae_title,
        common.user_information,
        common.application_context,
        common.protocol_version,
        common.reserved,
    )


def _decode_rq(body: bytes) -> AssociateRQ:
    common, contexts = _decode_associate(body, PresentationContextRQ.item_type)
    return AssociateRQ(*_common_fields(common), tuple(PresentationContextRQ.parse(each) for each in contexts))


def _decode_ac(body: bytes) -> AssociateAC:
    common, contexts = _decode_associate(body, PresentationContextAC.item_type)
    return AssociateAC(*_common_fields(common), tuple(PresentationContextAC.parse(each) for each in contexts))


def _four(body: bytes) -> tuple[int, int, int, int]:
    if len(body) != 4:
        raise invalid(f"a PDU body of {len(body)} bytes where there are always 4")
    return body[0], body[1], body[2], body[3]


def _decode_rj(body: bytes) -> AssociateRJ:
    return AssociateRJ(*_four(body)[1:])


def _decode_abort(body: bytes) -> Abort:
    return Abort(*_four(body)[2:])


def _decode_release_rq(body: bytes) -> ReleaseRQ:
    # The length of a release is tolerated as 0: such peers exist, and nothing is in it anyway.
    if body:
        _four(body)
    return ReleaseRQ()


def _decode_release_rp(body: bytes) -> ReleaseRP:
    if body:
        _four(body)
    return ReleaseRP()


def _encode_pdata(pdu: PDataTF) -> bytes:
    return b"".join(
        PDV_HEADER.pack(len(value.data) + 2, value.context_id, value.control) + value.data for value in pdu.values
    )


def _decode_pdata(body: bytes | memoryview) -> PDataTF:
    values: list[PDV] = []
    position, end = 0, len(body)
    while position < end:
        if end - position < PDV_HEADER.size:
            raise invalid(f"{end - position} stray bytes at the end of a P-DATA-TF")
        length, context_id, control = PDV_HEADER.unpack_from(body, position)
        if not 2 <= length <= end - position - 4:
            raise invalid(f"a PDV claims {length} bytes, {end - position - 4} are left in its P-DATA-TF")
        values.append(PDV(context_id, control, bytes(body[position + 6 : position + 4 + length])))
        position += 4 + length
    if not values:
        raise invalid("a P-DATA-TF without a PDV")
    return PDataTF(tuple(values))


def _encode_release(_: ReleaseRQ | ReleaseRP) -> bytes:
    return bytes(4)


def _encode_rj(pdu: AssociateRJ) -> bytes:
    return bytes((0, pdu.result, pdu.source, pdu.reason))


def _encode_abort(pdu: Abort) -> bytes:
    return bytes((0, 0, pdu.source, pdu.reason))


_ENCODERS: dict[int, Callable[[Any], bytes]] = {
    0x01: _encode_associate,
    0x02: _encode_associate,
    0x03: _encode_rj,
    0x04: _encode_pdata,
    0x05: _encode_release,
    0x06: _encode_release,
    0x07: _encode_abort,
}

_DECODERS: dict[int, Callable[[bytes], PDU]] = {
    0x01: _decode_rq,
    0x02: _decode_ac,
    0x03: _decode_rj,
    0x04: _decode_pdata,
    0x05: _decode_release_rq,
    0x06: _decode_release_rp,
    0x07: _decode_abort,
}
