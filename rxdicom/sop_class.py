"""SOP classes by keyword, and the service class of each (PS3.4, PS3.6 Annex A).

``from rxdicom.sop_class import CTImageStorage`` works for every SOP class and well-known SOP instance of pydicom's UID
dictionary, and for what :func:`register_uid` added. Importing this module loads nothing; asking it for a keyword, or
a :class:`LazyUID` for its name, loads pydicom.
"""

import re
import sys
from collections.abc import Mapping
from functools import cache
from keyword import iskeyword
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

from rxdicom import service_class as services
from rxdicom.errors import ArgumentError
from rxdicom.service_class import ServiceClass, UnknownServiceClass
from rxdicom.wire.uids import clean_uid

if TYPE_CHECKING:
    from pydicom.uid import UID

_DICOM_ROOT = "1.2.840.10008."

# The UIDs of each service class, without the root, its service class UID among them; the first row that fits counts.
# The last row takes whatever else is in the arc of the storage SOP classes, so that new, retired, DICOS and DICONDE
# objects are storable without being listed.
_RULES: tuple[tuple[ServiceClass, str], ...] = (
    (services.VerificationServiceClass, r"1\.1"),
    (services.StorageCommitmentServiceClass, r"1\.20\.1"),
    (services.ApplicationEventLoggingServiceClass, r"1\.4[02]"),
    (services.ProcedureStepServiceClass, r"3\.1\.2\.3\.[345]"),
    (services.PrintManagementServiceClass, r"5\.1\.1\.([129]|4(\.1)?|1[4568]|16\.376|23)"),
    (services.MediaCreationManagementServiceClass, r"5\.1\.1\.33"),
    (services.DisplaySystemManagementServiceClass, r"5\.1\.1\.40"),
    (services.NonPatientObjectStorageServiceClass, r"5\.1\.4\.((38|39|4[345]|1\.1\.201)\.1|1\.1\.200\.[137])"),
    (services.ProtocolApprovalQueryRetrieveServiceClass, r"5\.1\.4\.1\.1\.200\.[456]"),
    (services.InventoryQueryRetrieveServiceClass, r"5\.1\.4\.1\.1\.201\.[234]"),
    (services.StorageManagementServiceClass, r"5\.1\.4\.1\.1\.201\.5"),
    (services.QueryRetrieveServiceClass, r"5\.1\.4\.1\.(2\.[123]\.[123]|2\.4\.[23]|2\.5\.3|1\.201\.6)"),
    (services.DefinedProcedureProtocolQueryRetrieveServiceClass, r"5\.1\.4\.20\.[123]"),
    (services.BasicWorklistManagementServiceClass, r"5\.1\.4\.31"),
    (services.InstanceAvailabilityNotificationServiceClass, r"5\.1\.4\.33"),
    (services.UnifiedProcedureStepServiceClass, r"5\.1\.4\.34\.6(\.[1-5])?"),
    (services.RTMachineVerificationServiceClass, r"5\.1\.4\.34\.[89]"),
    (services.RelevantPatientInformationQueryServiceClass, r"5\.1\.4\.37\.[123]"),
    (services.HangingProtocolQueryRetrieveServiceClass, r"5\.1\.4\.38\.[234]"),
    (services.ColorPaletteQueryRetrieveServiceClass, r"5\.1\.4\.39\.[234]"),
    (services.SubstanceAdministrationQueryServiceClass, r"5\.1\.4\.4[12]"),
    (services.ImplantTemplateQueryRetrieveServiceClass, r"5\.1\.4\.4[345]\.[234]"),
    (services.StorageServiceClass, r"4\.2|5\.1\.1\.(27|29|30)|5\.1\.4\.34\.(7|10)|5\.1\.4\.1\.1\.(?!201\.)[0-9.]+"),
)

# Storage SOP classes of PS3.4 that pydicom 3.0 does not know yet; its own entries go first once it does.
_SUPPLEMENT = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}

# What pynetdicom's users import under a keyword that is not that of PS3.6.
_ALIASES = {
    "ModalityWorklistInformationFind": "ModalityWorklistInformationModelFind",
    "ColorPaletteInformationModelFind": "ColorPaletteQueryRetrieveInformationModelFind",
    "ColorPaletteInformationModelMove": "ColorPaletteQueryRetrieveInformationModelMove",
    "ColorPaletteInformationModelGet": "ColorPaletteQueryRetrieveInformationModelGet",
    "PseudoColorSoftcopyPresentationStageStorage": "PseudoColorSoftcopyPresentationStateStorage",
    "VariableModalityLUTSoftcopyPresentationStageStorage": "VariableModalityLUTSoftcopyPresentationStateStorage",
    "OphthlamicOpticalCoherenceTomographyBscanVolumeAnalysisStorage": (
        "OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage"
    ),
    "RoboticArmRadiationRecordStorage": "RoboticRadiationRecordStorage",
    "RTBrachyApplicationSetupDeliveryInstructionsStorage": "RTBrachyApplicationSetupDeliveryInstructionStorage",
}

_OPERATIONS = {"Find": "C-FIND", "Query": "C-FIND", "Get": "C-GET", "Move": "C-MOVE"}
_KINDS = ("SOP Class", "Meta SOP Class", "Well-known SOP Instance")


@frozen
class _Entry:
    """What PS3.6 table A-1 says of a UID, and for registered ones their service."""

    name: str = ""
    type: str = ""
    info: str = ""
    retired: str = ""
    keyword: str = ""
    service_class: ServiceClass = UnknownServiceClass
    dimse_msg_type: str = ""


class _Registry:
    """The SOP classes that the program registered: the one thing in rxdicom that a whole process shares.

    Writers hold the lock and replace the dict, therefore readers need none.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.entries: Mapping[str, _Entry] = {}

    def add(self, uid: str, entry: _Entry) -> None:
        with self._lock:
            taken: object = getattr(sys.modules[__name__], entry.keyword, None)
            if taken is not None and taken != uid:
                raise ArgumentError(f"the keyword {entry.keyword} means {taken} already; choose another")
            self.entries = {**self.entries, uid: entry}

    def find(self, keyword: str) -> str | None:
        """The UID that was registered under this keyword."""
        return next((uid for uid, entry in self.entries.items() if entry.keyword == keyword), None)


_REGISTRY = _Registry()


@cache
def _dictionary() -> Mapping[str, _Entry]:
    from pydicom._uid_dict import UID_dictionary

    missing = {uid: _Entry(name, "SOP Class", keyword=name.replace(" ", "")) for uid, name in _SUPPLEMENT.items()}
    return missing | {uid: _Entry(*row[:5]) for uid, row in UID_dictionary.items()}


@cache
def _keywords() -> Mapping[str, str]:
    """The UID of each keyword that the standard, or pynetdicom, has for a SOP class or well-known instance."""
    uids = {entry.keyword: uid for uid, entry in _dictionary().items() if entry.type in _KINDS and entry.keyword}
    return uids | {alias: uids[keyword] for alias, keyword in _ALIASES.items() if keyword in uids}


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<s{row}>{rule})" for row, (_, rule) in enumerate(_RULES)))


def _entry(uid: str) -> _Entry:
    return _REGISTRY.entries.get(uid) or _dictionary().get(uid) or _Entry()


def uid_to_service_class(uid: str) -> ServiceClass:
    """The service class of a SOP class UID or service class UID, registered ones first.

    :data:`~rxdicom.service_class.UnknownServiceClass` if there is none. Loads nothing.

    >>> uid_to_service_class("1.2.840.10008.5.1.4.1.2.2.1")
    <QueryRetrieveServiceClass>
    """
    registered = _REGISTRY.entries.get(uid)
    return _standard_service_class(uid) if registered is None else registered.service_class


def _standard_service_class(uid: str) -> ServiceClass:
    match = _pattern().fullmatch(uid, len(_DICOM_ROOT)) if uid.startswith(_DICOM_ROOT) else None
    return _RULES[int(cast(str, match.lastgroup)[1:])][0] if match else UnknownServiceClass


class _Traits(str):
    """What a SOP class has beyond a :class:`pydicom.uid.UID`."""

    __slots__ = ()

    @property
    def service_class(self) -> ServiceClass:
        """The service class that this SOP class belongs to."""
        return uid_to_service_class(str(self))

    @property
    def dimse_msg_type(self) -> str:
        """``"C-FIND"``, ``"C-GET"`` or ``"C-MOVE"`` where the SOP class stands for that one service, else empty."""
        entry = _entry(str(self))
        named = next((service for suffix, service in _OPERATIONS.items() if entry.keyword.endswith(suffix)), "")
        return entry.dimse_msg_type or (named if named in self.service_class.operations else "")

    @property
    def keyword(self) -> str:
        """The keyword of PS3.6, or the registered one."""
        return _entry(str(self)).keyword

    @property
    def name(self) -> str:
        """The name of PS3.6, or the registered keyword; the UID itself if there is none."""
        return _entry(str(self)).name or str(self)

    @property
    def type(self) -> str:
        """The kind of UID: ``"SOP Class"``, ``"Transfer Syntax"`` …"""
        return _entry(str(self)).type


if TYPE_CHECKING:

    class SOPClass(_Traits, UID):
        """A SOP class UID: a :class:`pydicom.uid.UID` that knows its service class."""


class LazyUID(str):
    """A UID that is plain text until something that only a ``pydicom.uid.UID`` has is asked of it, e.g. its name.

    >>> LazyUID("1.2.840.10008.1.2.4.50").name
    'JPEG Baseline (Process 1)'
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        kept = vars(self)
        if "uid" not in kept:
            # Not made anew each time, because a private transfer syntax stores its encoding in the UID.
            kept.setdefault("uid", uid_to_sop_class(str(self)))
        return getattr(kept["uid"], name)


_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def checked_uid(value: str | bytes, what: str) -> "UID":
    """A UID that a program gave: 1 to 64 characters, numbers and dots (PS3.5 §9.1; leading zeros are let through).

    What is plain ``str`` or ``bytes`` becomes a :class:`LazyUID`. Raises :class:`ArgumentError`, which names ``what``.
    """
    text = clean_uid(value) if isinstance(value, bytes) else value
    if not isinstance(cast(object, text), str):
        raise TypeError(f"{what} must be a UID as str or bytes, not {type(text).__name__}")
    plain = text.strip()
    if len(plain) > 64 or not _UID.fullmatch(plain):
        raise ArgumentError(f"{what} {text[:80]!r} is not a UID; give numbers and dots, 64 characters at most")
    return cast("UID", LazyUID(plain) if type(text) is str else text)


def uid_to_sop_class(uid: str) -> "SOPClass":
    """The :class:`SOPClass` of a UID, unknown ones too.

    >>> uid_to_sop_class("1.2.840.10008.5.1.4.1.1.2").keyword
    'CTImageStorage'
    """
    from pydicom.config import IGNORE

    # What peers send is named here too, and a UID that breaks the rules is no reason for a warning or an error then.
    return cast(Any, __getattr__("SOPClass"))(uid, IGNORE)


@cache
def standard_sop_classes(service_class: ServiceClass, obsolete: bool = False) -> tuple[str, ...]:
    """The UIDs of the SOP classes of PS3.4 for a service, sorted as text.

    ``obsolete`` adds the retired storage SOP classes and those of DICOS and DICONDE, which are storable too.
    """
    current_only = service_class is services.StorageServiceClass and not obsolete
    return tuple(
        uid
        for uid, entry in sorted(_dictionary().items())
        if entry.type in ("SOP Class", "Meta SOP Class") and _standard_service_class(uid) is service_class
        if not (current_only and (entry.retired or entry.info))
    )


def sop_classes(service_class: ServiceClass) -> "tuple[SOPClass, ...]":
    """The SOP classes of a service: the current ones of PS3.4, then those that were registered."""
    added = (uid for uid, entry in _REGISTRY.entries.items() if entry.service_class is service_class)
    return tuple(uid_to_sop_class(uid) for uid in dict.fromkeys((*standard_sop_classes(service_class), *added)))


def storage_sop_classes() -> "tuple[SOPClass, ...]":
    """The SOP classes of the Storage service: the 170 of PS3.4, then those that were registered."""
    return sop_classes(services.StorageServiceClass)


def register_uid(uid: str, keyword: str, service_class: ServiceClass, dimse_msg_type: str = "") -> None:
    """Make a private SOP class known, for the whole process: afterwards ``rxdicom.sop_class`` has ``keyword``.

    ``dimse_msg_type`` is ``"C-FIND"``, ``"C-GET"`` or ``"C-MOVE"``, which ``QueryRetrieveServiceClass`` requires.
    Registering a UID again replaces what was registered. Raises :class:`ArgumentError` (a :class:`ValueError`) for a
    bad UID, a keyword that is no identifier or is taken, and a bad ``dimse_msg_type``; :class:`TypeError` for
    something that is no service class.

    .. code-block:: python

        register_uid("1.2.246.352.70.1.70", "PrivatePlanStorage", StorageServiceClass)
        from rxdicom.sop_class import PrivatePlanStorage
    """
    if not keyword.isidentifier() or iskeyword(keyword) or keyword.startswith("_"):
        raise ArgumentError(f"{keyword!r} is not a Python identifier; choose a keyword that can be imported")
    if not isinstance(cast(object, service_class), ServiceClass):
        raise TypeError("service_class must be one of rxdicom.service_class, e.g. StorageServiceClass")
    optional = () if service_class is services.QueryRetrieveServiceClass else ("",)
    if dimse_msg_type not in (*_OPERATIONS.values(), *optional):
        raise ArgumentError(f"dimse_msg_type {dimse_msg_type!r} does not fit; give C-FIND, C-GET or C-MOVE")
    entry = _Entry(keyword, "SOP Class", keyword=keyword, service_class=service_class, dimse_msg_type=dimse_msg_type)
    _REGISTRY.add(str(checked_uid(uid, "uid")), entry)


def __getattr__(name: str) -> "SOPClass":
    if name == "__all__":
        return cast(Any, ["SOPClass", "sop_classes", "uid_to_service_class", *_keywords()])
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "SOPClass":
        from pydicom.uid import UID

        # One class only, also when two threads come here together: dict.setdefault is atomic.
        return globals().setdefault(name, type(name, (_Traits, UID), {"__doc__": _Traits.__doc__}))
    uid = _REGISTRY.find(name) or _keywords().get(name)
    if uid is None:
        raise AttributeError(f"no SOP class has the keyword {name}; register_uid() adds one")
    return uid_to_sop_class(uid)


def __dir__() -> list[str]:
    return sorted({*globals(), *_keywords()})
