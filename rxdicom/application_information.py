"""SOP Class Extended Negotiation in typed form: the application information of PS3.4 as records, to bytes and back.

A requestor proposes ``QueryRetrieveInformation(…).item(sop_class_uid)`` in ``ext_neg``; the handler of an acceptor
returns ``answer(event.app_info, supported)``. Imports :mod:`rxdicom.sop_class` and the wire's items, loads nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from attrs import astuple, field, fields, frozen

from rxdicom.errors import ArgumentError
from rxdicom.sop_class import checked_uid
from rxdicom.wire.items import SOPClassExtended


class ApplicationInformation(ABC):
    """What one side says about a SOP class (PS3.7 D.3.3.5): as proposed, as supported, or as answered."""

    __slots__ = ()

    @abstractmethod
    def encode(self) -> bytes:
        """The Service-class-application-information field."""

    @classmethod
    @abstractmethod
    def decode(cls, information: bytes) -> Self:
        """What a peer sent; ``b""`` stands for a peer that sent nothing.

        Missing bytes, and values that do not exist, mean the default of the standard; bytes beyond those that are
        known are of a later edition, and skipped.
        """

    @abstractmethod
    def answer(self, asked: bytes) -> bytes:
        """What an acceptor that supports this answers to what a requestor asked for."""

    def item(self, sop_class_uid: str) -> SOPClassExtended:
        """The negotiation item that proposes this for a SOP class; raises ArgumentError for a bad UID."""
        return SOPClassExtended(str(checked_uid(sop_class_uid, "sop_class_uid")), self.encode())


@frozen
class _Options(ApplicationInformation):
    """One byte for each option: 1 is yes."""

    _lengths: ClassVar[tuple[int, ...]] = ()
    """In bytes, that the editions of the standard had: an old acceptor may not expect any other."""

    def encode(self) -> bytes:
        options = bytes(astuple(self))
        used = len(options.rstrip(b"\0"))
        return options[: next(length for length in self._lengths if length >= used)]

    @classmethod
    def decode(cls, information: bytes) -> Self:
        given: dict[str, Any] = {each.name: byte == 1 for each, byte in zip(fields(cls), information, strict=False)}
        return cls(**given)

    def answer(self, asked: bytes) -> bytes:
        # As long as the question, as C.5.1.1 wants it, but for bytes of a later edition: what is missing counts as 0.
        return bytes(byte == 1 and option for byte, option in zip(asked, astuple(self), strict=False))


@frozen(kw_only=True)
class QueryRetrieveInformation(_Options):
    """Options of queries: SOP classes with C-FIND of Query/Retrieve (PS3.4 C.5.1.1) and of the worklists.

    >>> QueryRetrieveInformation(relational_queries=True, fuzzy_person_names=True).encode()
    b'\\x01\\x00\\x01'
    >>> QueryRetrieveInformation.decode(b"\\1").fuzzy_person_names
    False
    """

    _lengths = (1, 3, 4, 5, 7)

    relational_queries: bool = False
    """Keys of any level of the hierarchy in any combination, without the unique keys above."""
    date_time_matching: bool = False
    """A date and a time with ranges match as one range, not each for itself."""
    fuzzy_person_names: bool = False
    """Fuzzy semantic matching of person names."""
    timezone_adjustment: bool = False
    """Timezone Offset From UTC (0008,0201) of the query applies to its dates and times."""
    multi_frame_conversion: bool = False
    """Query/Retrieve View (0008,0053) chooses between classic and enhanced multi-frame images."""
    empty_value_matching: bool = False
    """Two quotation marks match an attribute without a value."""
    multiple_value_matching: bool = False
    """A key with several values matches an attribute that has all of them."""

    @classmethod
    def worklist(cls, *, fuzzy_person_names: bool = False, timezone_adjustment: bool = False) -> Self:
        """For Modality Worklist, Unified Procedure Step, hanging protocols, color palettes, implant templates and
        procedure protocols (PS3.4 K.5.1), where the first two options are fixed.

        >>> QueryRetrieveInformation.worklist(fuzzy_person_names=True).encode()
        b'\\x01\\x01\\x01'
        """
        return cls(
            relational_queries=True,
            date_time_matching=True,
            fuzzy_person_names=fuzzy_person_names,
            timezone_adjustment=timezone_adjustment,
        )


@frozen(kw_only=True)
class RetrieveInformation(_Options):
    """Options of retrievals: SOP classes with C-MOVE and C-GET of Query/Retrieve (PS3.4 C.5.2.1, C.5.3.1, Y.5.1.1).

    >>> RetrieveInformation(multi_frame_conversion=True).encode()
    b'\\x00\\x01'
    """

    _lengths = (1, 2)

    relational_retrieval: bool = False
    """The unique keys of the levels above are not needed; not for Composite Instance Root, which has no such levels."""
    multi_frame_conversion: bool = False
    """Query/Retrieve View (0008,0053) chooses between classic and enhanced multi-frame images."""


def _level(highest: int, default: int) -> Any:
    def check(_: object, attribute: Any, value: object) -> None:
        if value not in range(highest + 1):
            raise ArgumentError(f"{attribute.name} {value!r} does not exist; give 0 to {highest}")

    return field(default=default, validator=check, metadata={"highest": highest})


@frozen(kw_only=True)
class StorageInformation(ApplicationInformation):
    """How a side stores (PS3.4 tables B.3-1 and B.3-2). Each says what it is, and turns nothing down.

    The defaults are those of a side that is a storage SCU only.

    >>> StorageInformation(level_of_support=2, digital_signature_support=1, element_coercion=0).encode()
    b'\\x02\\x00\\x01\\x00\\x00\\x00'
    """

    level_of_support: int = _level(3, 3)
    """0, 1, 2: the level of a storage SCP (PS3.4 B.4.1), where 2 keeps all elements. 3: no SCP."""
    digital_signature_support: int = _level(3, 0)
    """1, 2, 3: the signature level of an SCP of level 2 (PS3.4 B.4.1). 0: unspecified."""
    element_coercion: int = _level(2, 2)
    """0: an SCP that changes no element. 1: one that may. 2: no SCP."""

    def encode(self) -> bytes:
        return bytes((self.level_of_support, 0, self.digital_signature_support, 0, self.element_coercion, 0))

    @classmethod
    def decode(cls, information: bytes) -> Self:
        # Every second byte is reserved and not looked at.
        sent = zip(fields(cls), information[::2], strict=False)
        return cls(**{each.name: value for each, value in sent if value <= each.metadata["highest"]})

    def answer(self, asked: bytes) -> bytes:
        del asked
        return self.encode()


def answer(asked: Mapping[str, bytes], supported: Mapping[str, ApplicationInformation]) -> dict[str, bytes]:
    """What a handler of ``EVT_SOP_EXTENDED`` returns: of what is asked for each SOP class that which is supported.

    SOP classes that ``supported`` does not have are not answered: the defaults of the standard hold for them.

    >>> supported = {"1.2.840.10008.5.1.4.1.2.2.1": QueryRetrieveInformation(relational_queries=True)}
    >>> answer({"1.2.840.10008.5.1.4.1.2.2.1": b"\\1\\1", "1.2.840.10008.5.1.4.31": b"\\1\\1\\1"}, supported)
    {'1.2.840.10008.5.1.4.1.2.2.1': b'\\x01\\x00'}
    """
    return {uid: supported[uid].answer(information) for uid, information in asked.items() if uid in supported}
