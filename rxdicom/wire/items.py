"""The variable items of A-ASSOCIATE PDUs (PS3.8 §9.3.2, §9.3.3 and Annex D; PS3.7 Annex D.3.3): records and codecs.

Every record has ``item_type``, ``body()`` (what follows the item's header) and ``parse(body)``. Unknown items are
skipped, as PS3.8 §9.3.1 asks for; wrong lengths raise :class:`~rxdicom.errors.PeerProtocolError`.
"""

import re
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import ClassVar, Protocol, Self

from attrs import frozen

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.uids import clean_uid

INVALID_PARAMETER = 6
"""A-ABORT reason "invalid PDU parameter value" (PS3.8 table 9-26)."""
MAX_CONTEXTS = 128
"""Presentation contexts an A-ASSOCIATE can carry: the odd numbers from 1 to 255 (PS3.8 §9.3.2.2)."""
MAX_USER_ITEMS = 1024
"""User-information items accepted in one PDU, so that tiny items cannot exhaust memory."""

_HEADER = Struct(">BxH")
_U16 = Struct(">H")
_U32 = Struct(">I")
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def invalid(message: str) -> PeerProtocolError:
    """The error for bytes that violate the PDU structure."""
    return PeerProtocolError(message, INVALID_PARAMETER)


def item(item_type: int, body: bytes) -> bytes:
    """One item with its header: type, a reserved byte and a 16 bit length."""
    if len(body) > 0xFFFF:
        raise ArgumentError(f"item {item_type:02X}H would be {len(body)} bytes, 65535 fit; send less in it")
    return _HEADER.pack(item_type, len(body)) + body


def split_items(body: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """The (type, body) pairs that ``body`` consists of."""
    position, end = 0, len(body)
    while position < end:
        if end - position < 4:
            raise invalid(f"{end - position} stray bytes at the end of {where}")
        item_type, length = _HEADER.unpack_from(body, position)
        position += 4
        if length > end - position:
            raise invalid(f"item {item_type:02X}H in {where} claims {length} bytes, {end - position} are left")
        yield item_type, body[position : position + length]
        position += length


def unescaped(encoded: bytes) -> bytes:
    r"""Text in which bytes above 7FH were made visible on receipt, as it came: an answer echoes AE titles and UIDs.

    >>> unescaped(rb"PACS\xe9")
    b'PACS\xe9'
    """
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), encoded)


def uid_bytes(uid: str) -> bytes:
    """A UID as it goes into an item: not padded (PS3.8 Annex F)."""
    try:
        return unescaped(uid.encode("ascii"))
    except UnicodeEncodeError:
        raise ArgumentError(f"{uid!r} is not a UID; give digits and dots") from None


class _Reader:
    """Reads length-prefixed fields and names the item when one does not fit."""

    def __init__(self, body: bytes, name: str) -> None:
        self.body, self.name, self.position = body, name, 0

    def take(self, length: int) -> bytes:
        field = self.body[self.position : self.position + length]
        if len(field) != length:
            raise invalid(f"{self.name} is cut short: {length} bytes expected, {len(field)} found")
        self.position += length
        return field

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return _U16.unpack(self.take(2))[0]

    def counted(self) -> bytes:
        return self.take(self.u16())

    def rest(self) -> bytes:
        return self.take(len(self.body) - self.position)

    def end(self) -> None:
        if self.position != len(self.body):
            raise invalid(f"{self.name} has {len(self.body) - self.position} bytes too many")


def _counted(field: bytes) -> bytes:
    if len(field) > 0xFFFF:
        raise ArgumentError(f"a field of {len(field)} bytes does not fit an item; 65535 do")
    return _U16.pack(len(field)) + field


@frozen
class PresentationContextRQ:
    """One proposed presentation context (PS3.8 §9.3.2.2): an odd ID, an abstract syntax, its transfer syntaxes."""

    item_type: ClassVar[int] = 0x20
    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    def body(self) -> bytes:
        syntaxes = b"".join(item(0x40, uid_bytes(uid)) for uid in self.transfer_syntaxes)
        return bytes((self.context_id, 0, 0, 0)) + item(0x30, uid_bytes(self.abstract_syntax)) + syntaxes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "a proposed presentation context")
        context_id = reader.take(4)[0]
        abstract: list[str] = []
        transfer: list[str] = []
        for item_type, uid in split_items(reader.rest(), "a proposed presentation context"):
            if item_type in (0x30, 0x40):
                (abstract if item_type == 0x30 else transfer).append(clean_uid(uid))
        if len(abstract) != 1:
            raise invalid(f"presentation context {context_id} has {len(abstract)} abstract syntaxes, one is required")
        return cls(context_id, abstract[0], tuple(transfer))


@frozen
class PresentationContextAC:
    """The answer to one proposed context (PS3.8 §9.3.3.2). ``transfer_syntax`` counts with result 0 only."""

    item_type: ClassVar[int] = 0x21
    context_id: int
    result: int
    transfer_syntax: str = ""

    def body(self) -> bytes:
        return bytes((self.context_id, 0, self.result, 0)) + item(0x40, uid_bytes(self.transfer_syntax))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "a presentation context result")
        context_id, _, result, _ = reader.take(4)
        if result:
            # Peers leave the transfer syntax out, empty, or fill it with junk: it is not significant (§9.3.3.2).
            return cls(context_id, result, _first_syntax_or_empty(reader.rest()))
        syntaxes = [clean_uid(uid) for kind, uid in split_items(reader.rest(), "a context result") if kind == 0x40]
        if len(syntaxes) != 1:
            raise invalid(f"accepted context {context_id} has {len(syntaxes)} transfer syntaxes, one is required")
        return cls(context_id, result, syntaxes[0])


def _first_syntax_or_empty(body: bytes) -> str:
    try:
        return next((clean_uid(uid) for kind, uid in split_items(body, "") if kind == 0x40), "")
    except PeerProtocolError:
        return ""


@frozen
class MaximumLength:
    """The largest P-DATA-TF, in bytes after its header, that the sender accepts; 0 is unlimited (PS3.8 Annex D.1)."""

    item_type: ClassVar[int] = 0x51
    value: int

    def body(self) -> bytes:
        return _U32.pack(self.value)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) != 4:
            raise invalid(f"maximum length item of {len(body)} bytes, 4 are required")
        return cls(_U32.unpack(body)[0])


@frozen
class ImplementationClassUID:
    """Which implementation this is (PS3.7 D.3.3.2)."""

    item_type: ClassVar[int] = 0x52
    uid: str

    def body(self) -> bytes:
        return uid_bytes(self.uid)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(clean_uid(body))


@frozen
class AsyncOperationsWindow:
    """Operations that the requestor may invoke, and perform, at a time; 0 is unlimited (PS3.7 D.3.3.3)."""

    item_type: ClassVar[int] = 0x53
    invoked: int
    performed: int

    def body(self) -> bytes:
        return _U16.pack(self.invoked) + _U16.pack(self.performed)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "the asynchronous operations window")
        window = cls(reader.u16(), reader.u16())
        reader.end()
        return window


@frozen
class RoleSelection:
    """The roles of the *requestor* for one SOP class (PS3.7 D.3.3.4)."""

    item_type: ClassVar[int] = 0x54
    sop_class_uid: str
    scu_role: bool
    scp_role: bool

    def body(self) -> bytes:
        return _counted(uid_bytes(self.sop_class_uid)) + bytes((self.scu_role, self.scp_role))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "a role selection")
        uid = clean_uid(reader.counted())
        role = cls(uid, reader.u8() == 1, reader.u8() == 1)
        reader.end()
        return role


@frozen
class ImplementationVersionName:
    """The implementation's version, up to 16 characters (PS3.7 D.3.3.2)."""

    item_type: ClassVar[int] = 0x55
    name: str

    def body(self) -> bytes:
        return self.name.encode("ascii", "replace")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(body.rstrip(b"\0 ").decode("ascii", "backslashreplace"))


@frozen
class SOPClassExtended:
    """Service-class application information for one SOP class (PS3.7 D.3.3.5), opaque here."""

    item_type: ClassVar[int] = 0x56
    sop_class_uid: str
    application_information: bytes

    def body(self) -> bytes:
        return _counted(uid_bytes(self.sop_class_uid)) + self.application_information

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "a SOP class extended negotiation")
        return cls(clean_uid(reader.counted()), reader.rest())


@frozen
class SOPClassCommonExtended:
    """The service class, and the related general SOP classes, of a SOP class (PS3.7 D.3.3.6)."""

    item_type: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_classes: tuple[str, ...] = ()

    def body(self) -> bytes:
        related = b"".join(_counted(uid_bytes(uid)) for uid in self.related_general_sop_classes)
        return _counted(uid_bytes(self.sop_class_uid)) + _counted(uid_bytes(self.service_class_uid)) + _counted(related)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "a SOP class common extended negotiation")
        sop_class, service_class = clean_uid(reader.counted()), clean_uid(reader.counted())
        # A sub-item version above 0 may carry more behind the list: not ours to understand (D.3.3.6.1).
        related = _Reader(reader.counted(), "the related general SOP classes")
        uids: list[str] = []
        while related.position < len(related.body):
            uids.append(clean_uid(related.counted()))
        return cls(sop_class, service_class, tuple(uids))


@frozen(repr=False)
class UserIdentity:
    """Who asks (PS3.7 D.3.3.7): type 1 name, 2 name and passcode, 3 Kerberos, 4 SAML, 5 JWT.

    Its repr leaves the fields out, because they are secrets.
    """

    item_type: ClassVar[int] = 0x58
    type: int
    positive_response_requested: bool
    primary: bytes
    secondary: bytes = b""

    def body(self) -> bytes:
        return bytes((self.type, self.positive_response_requested)) + _counted(self.primary) + _counted(self.secondary)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "the user identity")
        identity = cls(reader.u8(), reader.u8() == 1, reader.counted(), reader.counted())
        reader.end()
        return identity

    def __repr__(self) -> str:
        return f"UserIdentity(type={self.type}, positive_response_requested={self.positive_response_requested})"


@frozen(repr=False)
class UserIdentityResponse:
    """The acceptor's positive answer to a user identity (PS3.7 D.3.3.7), e.g. a Kerberos ticket."""

    item_type: ClassVar[int] = 0x59
    server_response: bytes

    def body(self) -> bytes:
        return _counted(self.server_response)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = _Reader(body, "the user identity response")
        response = cls(reader.counted())
        reader.end()
        return response

    def __repr__(self) -> str:
        return f"UserIdentityResponse({len(self.server_response)} bytes)"


class Item(Protocol):
    """What all item records have in common."""

    item_type: ClassVar[int]

    def body(self) -> bytes: ...


UserItem = (
    MaximumLength
    | ImplementationClassUID
    | AsyncOperationsWindow
    | RoleSelection
    | ImplementationVersionName
    | SOPClassExtended
    | SOPClassCommonExtended
    | UserIdentity
    | UserIdentityResponse
)

_USER_ITEMS: dict[int, type[UserItem]] = {
    kind.item_type: kind
    for kind in (
        MaximumLength,
        ImplementationClassUID,
        AsyncOperationsWindow,
        RoleSelection,
        ImplementationVersionName,
        SOPClassExtended,
        SOPClassCommonExtended,
        UserIdentity,
        UserIdentityResponse,
    )
}


def encode_items(items: Iterable[Item]) -> bytes:
    """The items one after the other."""
    return b"".join(item(each.item_type, each.body()) for each in items)


def parse_user_information(body: bytes) -> tuple[UserItem, ...]:
    """The items of a user-information item (PS3.8 §9.3.2.3) in order, repeated ones too, unknown ones left out."""
    found: list[UserItem] = []
    for item_type, content in split_items(body, "the user information"):
        kind = _USER_ITEMS.get(item_type)
        if kind is not None:
            if len(found) == MAX_USER_ITEMS:
                raise invalid(f"more than {MAX_USER_ITEMS} user-information items")
            found.append(kind.parse(content))
    return tuple(found)
