"""DIMSE statuses: :class:`Status`, their categories (PS3.7 Annex C) and a table for each service (PS3.4).

Imports the standard library only. The tables hold meanings alone, because the category follows from the code.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from rxdicom.errors import ArgumentError

STATUS_SUCCESS = "Success"
STATUS_FAILURE = "Failure"
STATUS_WARNING = "Warning"
STATUS_CANCEL = "Cancel"
STATUS_PENDING = "Pending"
STATUS_UNKNOWN = "Unknown"

PENDING = (0xFF00, 0xFF01)
"""The codes after which more responses follow (PS3.7 Annex C)."""

# PS3.7 Annex C. All of 01xx and 02xx is a failure but for the two warnings, also codes that nobody has assigned yet.
_CATEGORIES: tuple[tuple[range | tuple[int, ...], str], ...] = (
    ((0x0000,), STATUS_SUCCESS),
    ((0xFF00, 0xFF01), STATUS_PENDING),
    ((0xFE00,), STATUS_CANCEL),
    ((0x0001, 0x0107, 0x0116), STATUS_WARNING),
    (range(0xB000, 0xC000), STATUS_WARNING),
    (range(0xA000, 0xB000), STATUS_FAILURE),
    (range(0xC000, 0xD000), STATUS_FAILURE),
    (range(0x0100, 0x0300), STATUS_FAILURE),
)


def code_to_category(code: int) -> str:
    """The category of a status code, one of the ``STATUS_…`` texts (PS3.7 Annex C).

    ``"Unknown"`` for a code that the standard gives no category. A negative code raises :class:`ArgumentError`.

    >>> code_to_category(0x0000), code_to_category(0xB007), code_to_category(0xC123)
    ('Success', 'Warning', 'Failure')
    """
    if not isinstance(code, int) or code < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"status {code!r} is not a code; give a number from 0x0000 to 0xFFFF")
    return next((category for codes, category in _CATEGORIES if code in codes), STATUS_UNKNOWN)


class StatusTable(Mapping[int, tuple[str, str]]):
    """The statuses of a service as a mapping from code to (category, meaning), immutable.

    Built from rows whose keys are codes or ranges of codes; a single code goes before a range, and before ``base``.

    >>> STORAGE_SERVICE_CLASS_STATUS[0xA7F0]
    ('Failure', 'refused: out of resources')
    >>> 0xFF00 in STORAGE_SERVICE_CLASS_STATUS
    False
    """

    __slots__ = ("_codes", "_ranges")

    def __init__(self, rows: Mapping[int | range, str], base: "StatusTable | None" = None) -> None:
        codes = {key: meaning for key, meaning in rows.items() if isinstance(key, int)}
        ranges = tuple((key, meaning) for key, meaning in rows.items() if isinstance(key, range))
        self._codes: dict[int, str] = {**base._codes, **codes} if base else codes
        self._ranges: tuple[tuple[range, str], ...] = (*ranges, *base._ranges) if base else ranges

    def meaning(self, code: int) -> str | None:
        """What ``code`` means in this service, None if it is not one of its statuses."""
        found = self._codes.get(code)
        if found is None:
            found = next((meaning for codes, meaning in self._ranges if code in codes), None)
        return found

    def __getitem__(self, code: int) -> tuple[str, str]:
        meaning = self.meaning(code)
        if meaning is None:
            raise KeyError(code)
        return code_to_category(code), meaning

    def __contains__(self, code: object) -> bool:
        return isinstance(code, int) and self.meaning(code) is not None

    def __iter__(self) -> Iterator[int]:
        yield from self._codes
        for codes, _ in self._ranges:
            yield from (code for code in codes if code not in self._codes)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<StatusTable of {len(self)} codes>"


_UNABLE_TO_PROCESS: dict[int | range, str] = {range(0xC000, 0xD000): "unable to process"}
_NO_OPTIONAL_ATTRIBUTES: dict[int | range, str] = {0x0001: "optional attributes that were asked for are not supported"}

GENERAL_STATUS = StatusTable(
    {
        0x0000: "success",
        0x0105: "no such attribute",
        0x0106: "invalid attribute value",
        0x0107: "some attributes were not recognised",
        0x0110: "processing failure",
        0x0111: "an instance with this UID exists already",
        0x0112: "no such SOP instance",
        0x0113: "no such event type",
        0x0114: "no such argument",
        0x0115: "invalid argument value",
        0x0116: "an attribute value is out of range",
        0x0117: "invalid SOP instance UID",
        0x0118: "no such SOP class",
        0x0119: "the instance is not of this SOP class",
        0x0120: "a required attribute is missing",
        0x0121: "a required attribute has no value",
        0x0122: "refused: SOP class not supported",
        0x0123: "no such action",
        0x0124: "refused: not authorised",
        0x0210: "the message ID is in use already",
        0x0211: "operation not recognised",
        0x0212: "mistyped argument: it was not agreed on",
        0x0213: "out of resources",
        0xFE00: "ended by a cancel request",
    }
)
"""What every service may answer (PS3.7 Annex C)."""

VERIFICATION_SERVICE_CLASS_STATUS = GENERAL_STATUS
"""PS3.4 Annex A."""

STORAGE_SERVICE_CLASS_STATUS = StatusTable(
    {
        range(0xA700, 0xA800): "refused: out of resources",
        range(0xA900, 0xAA00): "the dataset does not match its SOP class",
        range(0xC000, 0xD000): "the dataset cannot be understood",
        0xB000: "stored, with data elements coerced",
        0xB006: "stored, with elements discarded",
        0xB007: "stored, though the dataset does not match its SOP class",
    },
    GENERAL_STATUS,
)
"""PS3.4 B.2.3."""

_FIND: dict[int | range, str] = {
    0xA700: "refused: out of resources",
    0xA900: "the identifier does not match the SOP class",
    0xFF00: "one match; more may follow",
    0xFF01: "one match, some optional keys were not supported; more may follow",
}

QR_FIND_SERVICE_CLASS_STATUS = StatusTable(
    {
        **_FIND,
        **_UNABLE_TO_PROCESS,
        0xA710: "the prior record key is invalid",
        0xB001: "the limit of matches is reached; a further request may bring more",
    },
    GENERAL_STATUS,
)
"""PS3.4 C.4.1.1.4 and C.6.4.3, also for U, X, BB, HH, II and KK."""

_RETRIEVE: dict[int | range, str] = {
    0xA701: "refused: out of resources, the matches cannot be counted",
    0xA702: "refused: out of resources, sub-operations cannot be performed",
    0xA900: "the identifier does not match the SOP class",
    0xAA00: "none of the requested frames is in the instance",
    0xAA01: "no new object can be made for this SOP class",
    0xAA02: "the frames cannot be extracted",
    0xAA03: "a request by time for an instance that is not based on time",
    0xAA04: "invalid request",
    0xB000: "sub-operations are complete, some failed or warned",
    0xFF00: "sub-operations are continuing",
}

QR_MOVE_SERVICE_CLASS_STATUS = StatusTable(
    {**_RETRIEVE, **_UNABLE_TO_PROCESS, 0xA801: "refused: the move destination is unknown"}, GENERAL_STATUS
)
"""PS3.4 C.4.2.1.5 and Y.4.1.1.4, also for U, X, BB, HH, II and KK."""

QR_GET_SERVICE_CLASS_STATUS = StatusTable({**_RETRIEVE, **_UNABLE_TO_PROCESS}, GENERAL_STATUS)
"""PS3.4 C.4.3.1.4 and Y.4.2.1.4, also for U, X, BB, HH, II and KK."""

MODALITY_WORKLIST_SERVICE_CLASS_STATUS = StatusTable({**_FIND, **_UNABLE_TO_PROCESS}, GENERAL_STATUS)
"""PS3.4 K.4.1.1.4."""

RELEVANT_PATIENT_SERVICE_CLASS_STATUS = StatusTable(
    {
        0xA700: "refused: out of resources",
        0xA900: "the identifier does not match the SOP class",
        0xC000: "unable to process",
        0xC100: "more than one patient matches",
        0xC200: "the requested template is not supported",
        0xFF00: "the match",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex Q."""

SUBSTANCE_ADMINISTRATION_SERVICE_CLASS_STATUS = StatusTable({**_FIND, **_UNABLE_TO_PROCESS}, GENERAL_STATUS)
"""PS3.4 Annex V."""

NON_PATIENT_SERVICE_CLASS_STATUS = StatusTable(
    {
        0xA700: "refused: out of resources",
        0xA900: "the dataset does not match its SOP class",
        0xC000: "the dataset cannot be understood",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex GG."""

PROCEDURE_STEP_STATUS = StatusTable(
    {**_NO_OPTIONAL_ATTRIBUTES, 0x0110: "processing failure, or the performed procedure step is closed for updates"},
    GENERAL_STATUS,
)
"""PS3.4 Annex F."""

PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS = StatusTable(
    {
        0xB600: "memory allocation is not supported",
        0xB601: "printing a film session as one is not supported",
        0xB602: "the film session has no image box: an empty page",
        0xB603: "the film box has no image box: an empty page",
        0xB604: "the image is larger than its box and was demagnified",
        0xB605: "a density is beyond the printer's range; its limit is used",
        0xB609: "the image is larger than its box and was cropped",
        0xB60A: "the image is larger than its box and was decimated",
        0xC600: "the film session has no film box",
        0xC601: "no print job for the film session: the print queue is full",
        0xC602: "no print job for the film box: the print queue is full",
        0xC603: "the image is larger than its box",
        0xC605: "the printer has not enough memory for the image",
        0xC613: "the combined print image is larger than its box",
        0xC616: "the last film box is not printed yet, and film sessions cannot be printed",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex H."""

STORAGE_COMMITMENT_SERVICE_CLASS_STATUS = GENERAL_STATUS
"""PS3.4 Annex J."""

STORAGE_MANAGEMENT_SERVICE_CLASS_STATUS = StatusTable(
    {0xB010: "some key attributes are not supported for matching"}, GENERAL_STATUS
)
"""PS3.4 Annex KK."""

APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS = StatusTable(
    {
        0xB101: "logged, though the synchronisation frame of reference is another one",
        0xB102: "logged, under another study instance UID",
        0xB104: "logged, though the IDs do not agree with a current study",
        0xC101: "no procedural log for this study instance UID",
        0xC102: "the event information does not match its template",
        0xC103: "the event belongs to no current study",
        0xC104: "not logged: the IDs do not agree with a current study",
        0xC10E: "the operator may not add to the medication administration record",
        0xC110: "neither patient ID nor admission ID identifies a patient",
        0xC111: "the medication administration record could not be updated",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex P."""

MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS = StatusTable(
    {
        **_NO_OPTIONAL_ATTRIBUTES,
        0xA510: "media creation was initiated for this instance before",
        0xC201: "the media creation request is complete already",
        0xC202: "the media creation request is in progress and cannot be interrupted",
        0xC203: "the cancellation was denied",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex S."""

UNIFIED_PROCEDURE_STEP_FIND_STATUS = StatusTable({**_FIND, **_UNABLE_TO_PROCESS}, GENERAL_STATUS)
"""PS3.4 CC.2.8.4, where C3xx means what any other Cxxx does."""

UNIFIED_PROCEDURE_STEP_N_STATUS = StatusTable(
    {
        **_NO_OPTIONAL_ATTRIBUTES,
        0xB300: "the UPS was created, with modifications",
        0xB301: "the deletion lock was not granted",
        0xB304: "the UPS is CANCELED already",
        0xB305: "invalid values were coerced",
        0xB306: "the UPS is COMPLETED already",
        0xC300: "the UPS is closed for updates",
        0xC301: "the transaction UID is not the right one",
        0xC302: "the UPS is IN PROGRESS already",
        0xC303: "a UPS becomes SCHEDULED by N-CREATE only",
        0xC304: "the UPS lacks what its final state requires",
        0xC307: "no UPS with this instance UID is managed here",
        0xC308: "the receiving AE title is unknown",
        0xC309: "the procedure step state of a new UPS is not SCHEDULED",
        0xC310: "the UPS is not IN PROGRESS yet",
        0xC311: "the UPS is COMPLETED already",
        0xC312: "the performer cannot be reached",
        0xC313: "the performer declines to cancel",
        0xC314: "the action does not fit this instance",
        0xC315: "event reports are not supported",
    },
    GENERAL_STATUS,
)
"""PS3.4 CC.2.1 to CC.2.7."""

UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS = StatusTable(
    {**_FIND, **_UNABLE_TO_PROCESS}, UNIFIED_PROCEDURE_STEP_N_STATUS
)
"""PS3.4 Annex CC, all its services together."""

RT_MACHINE_VERIFICATION_SERVICE_CLASS_STATUS = StatusTable(
    {
        0xC112: "no such machine verification instance",
        0xC221: "the plan has no such fraction group number",
        0xC222: "the fraction group has no beams",
        0xC223: "busy with another verification",
        0xC224: "the fraction group has no such beam number",
        0xC225: "the referenced device or accessory is not supported",
        0xC226: "the beam has no such device or accessory",
        0xC227: "no such RT plan",
    },
    GENERAL_STATUS,
)
"""PS3.4 Annex DD."""


class Status(int):
    """The status of a DIMSE response (PS3.7 Annex C): a number with its meaning, immutable.

    It equals its number, hashes and prints like it, and works in ``match``, ``in``, formatting and JSON, but it is
    **always true**: a status that was received is never "nothing", 0x0000 included. The elements that a response can
    carry beside its status are attributes under their DICOM keywords, None when absent.

    ``table`` gives the meaning: that of the service, else :data:`GENERAL_STATUS`. Codes are from 0x0000 to 0xFFFF,
    others raise :class:`ArgumentError`; an element that is no attribute of this class raises :class:`TypeError`.

    >>> status = Status(0xA700, STORAGE_SERVICE_CLASS_STATUS, ErrorComment="disk full")
    >>> status
    <Status 0xA700 Failure: refused: out of resources, ErrorComment='disk full'>
    >>> status == 0xA700, bool(Status.SUCCESS), f"{status:04x}", status.OffendingElement
    (True, True, 'a700', None)
    """

    SUCCESS: ClassVar[Self]
    CANCEL: ClassVar[Self]
    PENDING: ClassVar[Self]
    MOVE_DESTINATION_UNKNOWN: ClassVar[Self]

    description: str = ""
    """What it means in the service that it came from; empty for a code that no table has."""

    OffendingElement: tuple[int, ...] | None = None
    ErrorComment: str | None = None
    ErrorID: int | None = None
    AffectedSOPClassUID: str | None = None
    AffectedSOPInstanceUID: str | None = None
    EventTypeID: int | None = None
    ActionTypeID: int | None = None
    AttributeIdentifierList: tuple[int, ...] | None = None
    NumberOfRemainingSuboperations: int | None = None
    NumberOfCompletedSuboperations: int | None = None
    NumberOfFailedSuboperations: int | None = None
    NumberOfWarningSuboperations: int | None = None

    def __new__(cls, code: int, table: StatusTable | None = None, **elements: Any) -> Self:
        if not isinstance(code, int) or not 0 <= code <= 0xFFFF:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{code!r} is not a status; give a number from 0x0000 to 0xFFFF")
        status = super().__new__(cls, code)
        attributes = vars(status)
        meaning = None if table is None else table.meaning(code)
        attributes["description"] = meaning or GENERAL_STATUS.meaning(code) or ""
        for keyword, value in elements.items():
            if keyword not in _ELEMENTS:
                raise TypeError(f"{keyword} is not an element of a status; these are: {', '.join(_ELEMENTS)}")
            if value is not None:
                attributes[keyword] = _tags(value) if keyword in _LISTS_OF_TAGS else value
        return status

    @classmethod
    def add(cls, name: str, code: int) -> None:
        """Name a status code of your own: ``Status.add("NO_SPACE", 0xA7F0)`` makes ``Status.NO_SPACE``.

        For the whole process, therefore a name that means something else already raises :class:`ArgumentError`.
        """
        if not name.isidentifier() or getattr(cls, name, code) != code:
            raise ArgumentError(f"Status.{name} cannot be {code!r}; choose a name that is free and an identifier")
        setattr(cls, name, cls(code))

    @property
    def code(self) -> int:
        """The number, as a plain ``int``."""
        return int(self)

    @property
    def Status(self) -> int:
        """The number, as a plain ``int``, under its DICOM keyword (0000,0900)."""
        return int(self)

    @property
    def category(self) -> str:
        """``"Success"``, ``"Warning"``, ``"Failure"``, ``"Cancel"``, ``"Pending"``, or ``"Unknown"``."""
        return code_to_category(self)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return int.__repr__(self)

    def __repr__(self) -> str:
        elements = "".join(f", {name}={value!r}" for name, value in vars(self).items() if name in _ELEMENTS)
        return f"<Status 0x{self:04X} {self.category}: {self.description}{elements}>"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Status cannot be changed; make a new one: Status(code, {name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Status cannot be changed; make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), int(self), vars(self))


_ELEMENTS = dict.fromkeys(name for name, value in vars(Status).items() if value is None and name[0].isupper())
_LISTS_OF_TAGS = ("OffendingElement", "AttributeIdentifierList")


def _tags(value: int | Iterable[int]) -> tuple[int, ...]:
    """The value of an AT element: pydicom gives one tag bare, several in a list that can be changed."""
    return (int(value),) if isinstance(value, int) else tuple(int(tag) for tag in value)


def _restored(cls: type[Status], code: int, attributes: dict[str, Any]) -> Status:
    """A copied or unpickled status, with the meaning that it had."""
    status = int.__new__(cls, code)
    vars(status).update(attributes)
    return status


Status.SUCCESS = Status(0x0000)
Status.CANCEL = Status(0xFE00)
Status.PENDING = Status(0xFF00, StatusTable({0xFF00: "matches or sub-operations are continuing"}))
Status.MOVE_DESTINATION_UNKNOWN = Status(0xA801, QR_MOVE_SERVICE_CLASS_STATUS)


def code_to_status(code: int) -> Status:
    """``code`` as a :class:`Status` with its general meaning; :class:`ArgumentError` outside 0x0000 to 0xFFFF."""
    return Status(code)
