"""An archive in memory: the matching of PS3.4 C.2.2.2, and C-FIND, C-GET and C-MOVE handlers over datasets."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from attrs import field, frozen
from pydicom import DataElement, Dataset
from pydicom.dataelem import empty_value_for_VR
from pydicom.multival import MultiValue

from rxdicom import build_context
from rxdicom.events.bindings import EventHandler
from rxdicom.events.kinds import EVT_C_FIND, EVT_C_GET, EVT_C_MOVE
from rxdicom.events.records import CFind, CGet, CMove
from rxdicom.presentation import PresentationContext
from tests.support import FILES, read

# One file for each of twenty instances, in nine transfer syntaxes, of nine SOP classes, in several character sets.
_NAMES = (
    "693_J2KI",
    "CT_small",
    "J2K_pixelrep_mismatch",
    "JPEG-lossy",
    "MR_small_RLE",
    "SC_rgb_dcmtk_+eb+cr",
    "SC_rgb_dcmtk_+eb+cy+np",
    "SC_rgb_dcmtk_+eb+cy+s2",
    "SC_rgb_gdcm_KY",
    "SC_rgb_jpeg_gdcm",
    "SC_rgb_small_odd_big_endian",
    "SC_ybr_full_422_uncompressed",
    "examples_overlay",
    "examples_palette",
    "examples_rgb_color",
    "examples_ybr_color",
    "liver_expb_1frame",
    "rtdose_1frame",
    "rtplan",
    "waveform_ecg",
)


@cache
def twenty_files() -> tuple[Path, ...]:
    """Twenty of pydicom's files, each another instance, with everything that an archive wants to know."""
    return tuple(FILES / f"{name}.dcm" for name in _NAMES)


@cache
def twenty_instances() -> tuple[Dataset, ...]:
    """What these files hold."""
    return tuple(read(path) for path in twenty_files())


# ---- matching (PS3.4 C.2.2.2)

LEVELS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
"""The unique key of each level of the Query/Retrieve information models."""

_PADDING = 0xFFFCFFFC
_NO_KEYS = ("QueryRetrieveLevel", "SpecificCharacterSet")
_RANGES = ("DA", "TM", "DT")
_NEVER_WILD = (*_RANGES, "UI", "IS", "DS", "SL", "SS", "UL", "US", "FL", "FD", "AT")


def matches(instance: Dataset, keys: Dataset) -> bool:
    """Whether an instance fits all keys of an identifier."""
    return all(_fits(instance.get(key.tag), key) for key in keys if key.keyword not in _NO_KEYS)


def _fits(element: DataElement | None, key: DataElement) -> bool:
    """Universal matching of an empty key, sequence matching, and the others for any value that the instance has."""
    wanted = _texts(key.value) if key.VR != "SQ" else ()
    if key.VR == "SQ":
        found = () if element is None else element.value
        return not key.value or not key.value[0] or any(matches(item, key.value[0]) for item in found)
    if wanted in ((), ("*",)):
        return True
    found = () if element is None else _texts(element.value)
    return any(_value_fits(each, one, key.VR) for each in found for one in wanted)


def _value_fits(found: str, wanted: str, vr: str) -> bool:
    if vr in _RANGES and "-" in wanted:
        first, _, last = wanted.partition("-")
        return found >= first and (not last or found <= last)
    if vr in _NEVER_WILD:
        return found == wanted
    pattern = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in wanted)
    return re.fullmatch(pattern, found, re.IGNORECASE if vr == "PN" else re.NOFLAG) is not None


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values: Sequence[Any] = cast("Sequence[Any]", value) if isinstance(value, MultiValue | list) else [value]
    return tuple(str(each) for each in values)


def answer(instance: Dataset, keys: Dataset) -> Dataset:
    """The identifier of a response: the attributes that were asked for, empty where the instance has none."""
    given = Dataset()
    for key in keys:
        if key.keyword in _NO_KEYS:
            given.add(key)
        elif key.VR == "SQ" and key.value:
            items = instance[key.tag].value if key.tag in instance else ()
            given.add(DataElement(key.tag, "SQ", [answer(item, key.value[0]) for item in items]))
        elif key.tag in instance:
            given.add(instance[key.tag])
        else:
            given.add(DataElement(key.tag, key.VR, [] if key.VR == "SQ" else empty_value_for_VR(key.VR)))
    if "SpecificCharacterSet" in instance:
        given.SpecificCharacterSet = instance.SpecificCharacterSet
    return given


# ---- handlers


@frozen
class Archive:
    """Instances, and the addresses of those that they may be moved to by AE title, maybe with ``associate`` options."""

    instances: Sequence[Dataset]
    destinations: Mapping[str, tuple[str, int]] = field(factory=dict[str, tuple[str, int]])
    contexts: Sequence[PresentationContext] | None = None
    """What is proposed to a destination; None to have it derived from the instances."""
    as_files: bool = False
    """Whether the files are given that the instances were read from, instead of these."""

    def find(self, event: CFind) -> Iterator[tuple[int, Dataset]]:
        """One match for each patient, study … that has matching instances; without a level for each of these."""
        keys = event.identifier
        level = keys.get("QueryRetrieveLevel")
        given: set[str] = set()
        for number, instance in enumerate(self.matching(keys)):
            unique = str(instance.get(LEVELS[level], "")) if level else str(number)
            if unique not in given:
                given.add(unique)
                yield 0xFF00, answer(instance, keys)

    def get(self, event: CGet) -> Iterator[Any]:
        """The number of matching instances, and these."""
        yield from self._sub_operations(event.identifier)

    def move(self, event: CMove) -> Iterator[Any]:
        """The same, after the address of the destination."""
        address = self.destinations.get(event.move_destination)
        if address is None:
            yield None, None
            return
        yield address if self.contexts is None else (*address, {"contexts": self.contexts})
        yield from self._sub_operations(event.identifier)

    def matching(self, keys: Dataset) -> list[Dataset]:
        return [instance for instance in self.instances if matches(instance, keys)]

    def _sub_operations(self, keys: Dataset) -> Iterator[Any]:
        instances = self.matching(keys)
        yield len(instances)
        for instance in instances:
            yield 0xFF00, instance.filename if self.as_files else instance

    @property
    def handlers(self) -> list[EventHandler]:
        return [(EVT_C_FIND, self.find), (EVT_C_GET, self.get), (EVT_C_MOVE, self.move)]


def syntax_of(instance: Dataset) -> str:
    """The transfer syntax of an instance that was read from a file."""
    return str(instance.file_meta.TransferSyntaxUID)


def as_values(instance: Dataset) -> Dataset:
    """An instance without what archives change: group lengths, padding at its end, OB for OW in compressed pixels."""
    made = Dataset()
    made.update({element.tag: element for element in instance if element.tag.element and element.tag != _PADDING})
    if "PixelData" in made:
        made["PixelData"] = DataElement("PixelData", "OW", made.PixelData)
    return made


def own_contexts(instances: Iterable[Dataset]) -> list[PresentationContext]:
    """The contexts in which instances travel as they are: one for each SOP class and transfer syntax."""
    pairs = dict.fromkeys((str(each.SOPClassUID), syntax_of(each)) for each in instances)
    return [build_context(*pair) for pair in pairs]


def worklist() -> list[Dataset]:
    """Three scheduled procedure steps; one of the names is not ASCII."""
    rows = (
        ("Meier^Anna", "W1", "MR", "20250101", "SCANNER1"),
        ("Müller^Jürgen", "W2", "CT", "20250102", "SCANNER2"),
        ("Schmidt^Otto", "W3", "CT", "20250301", "SCANNER2"),
    )
    return [_scheduled(number, *row) for number, row in enumerate(rows, 1)]


def _scheduled(number: int, name: str, patient: str, modality: str, date: str, station: str) -> Dataset:
    step = identifier(
        Modality=modality,
        ScheduledStationAETitle=station,
        ScheduledProcedureStepStartDate=date,
        ScheduledProcedureStepStartTime="101500",
        ScheduledPerformingPhysicianName="Who^Doctor",
        ScheduledProcedureStepDescription="what is to be done",
        ScheduledProcedureStepID=f"S{number}",
    )
    return identifier(
        SpecificCharacterSet="ISO_IR 100",
        AccessionNumber=f"A{number}",
        ReferringPhysicianName="Dolittle^John",
        PatientName=name,
        PatientID=patient,
        PatientBirthDate="19700101",
        PatientSex="O",
        StudyInstanceUID=f"1.2.3.{number}",
        RequestedProcedureDescription="the whole of it",
        RequestedProcedureID=f"R{number}",
        RequestedProcedurePriority="LOW",
        ScheduledProcedureStepSequence=[step],
    )


def identifier(level: str | None = None, **keys: Any) -> Dataset:
    """The identifier of a query, by keywords."""
    made = Dataset()
    if level:
        made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made
