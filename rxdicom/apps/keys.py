"""The identifier of a query or retrieval, from keys on the command line (``-k``) and a file (``-f``)."""

import re
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rxdicom.apps.tables import Path, leaves
from rxdicom.errors import ArgumentError, DatasetError

if TYPE_CHECKING:
    from pydicom import Dataset

LEVEL = 0x00080052
"""Query/Retrieve Level."""
CHARACTER_SET = 0x00080005
"""Specific Character Set."""

_STEP = re.compile(r"(?:\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?|([A-Za-z]\w*))(?:\[(\d+)\])?")
_FIRST_DATASET_GROUP = 0x0008
_NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), int),
    **dict.fromkeys(("FL", "FD"), float),
}
_BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_UNKNOWN_VR = "LO"
_UTF_8 = "ISO_IR 192"


@frozen
class Key:
    """A key as it was given: the steps of its path, each a tag and the number of an item or None, and its value."""

    given: str
    steps: tuple[tuple[int, int | None], ...]
    value: str

    @property
    def path(self) -> Path:
        return tuple(tag for tag, _ in self.steps)


def add_key_options(parser: ArgumentParser) -> None:
    """-k, -f and --character-set."""
    parser.add_argument(
        "-k",
        metavar="KEY",
        action="append",
        default=[],
        dest="keys",
        help="PatientName=DOE*, (0010,0010)=DOE*, or StudyDate alone for what the answers are to have; within a "
        "sequence ScheduledProcedureStepSequence[0].Modality=CT; may be repeated",
    )
    parser.add_argument("-f", "--file", metavar="FILE", help="a DICOM file with the keys, which those of -k replace")
    parser.add_argument(
        "--character-set",
        metavar="CS",
        help=f"Specific Character Set of the keys, e.g. 'ISO_IR 100' (default {_UTF_8} where they are not ASCII)",
    )


def identifier(args: Namespace) -> "tuple[Dataset, list[Path]]":
    """The identifier that the options describe, and its attributes in the order in which they are to be shown.

    Raises :class:`~rxdicom.errors.ArgumentError`, and :class:`OSError` for a file that cannot be read.
    """
    from pydicom import Dataset

    keys = [parse_key(each) for each in args.keys]
    if not (keys or args.file):
        raise ArgumentError("there is nothing to ask for; give a key with -k, or a file with -f")
    dataset = read_keys(args.file) if args.file else Dataset()
    for key in keys:
        put(dataset, key)
    settle_character_set(dataset, args.character_set)
    present = dict.fromkeys(leaves(dataset))
    shown = dict.fromkeys([key.path for key in keys if key.path in present] + list(present))
    return dataset, [path for path in shown if path not in ((LEVEL,), (CHARACTER_SET,))]


def parse_key(given: str) -> Key:
    """A key as on the command line, ``path`` or ``path=value``. Raises :class:`~rxdicom.errors.ArgumentError`.

    >>> parse_key("(0040,0100)[0].Modality=CT").steps
    ((4194560, 0), (524384, None))
    """
    path, _, value = given.partition("=")
    steps = tuple(_step(given, text.strip()) for text in path.split("."))
    # Who names a sequence on the way without an item means its first.
    return Key(given, (*((tag, index or 0) for tag, index in steps[:-1]), steps[-1]), value)


def _step(given: str, text: str) -> tuple[int, int | None]:
    from pydicom.datadict import keyword_dict, tag_for_keyword

    match = _STEP.fullmatch(text)
    if match is None:
        raise ArgumentError(f"key {given!r}: {text!r} is neither a keyword like PatientName nor a tag like 0010,0010")
    group, element, keyword, index = match.groups()
    tag = int(group + element, 16) if group else tag_for_keyword(keyword)
    if tag is None:
        near = get_close_matches(keyword, keyword_dict, 1)
        advice = f"; did you mean {near[0]}?" if near else "; give its tag, e.g. 0009,1001"
        raise ArgumentError(f"key {given!r}: there is no attribute {keyword}{advice}")
    if tag >> 16 < _FIRST_DATASET_GROUP:
        raise ArgumentError(f"key {given!r}: group {tag >> 16:04X} is no part of an identifier")
    return tag, None if index is None else int(index)


def title(path: Path) -> str:
    """The heading for an attribute: the keyword of the dictionary, or the tag."""
    from pydicom.datadict import keyword_for_tag

    tag = path[-1]
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def put(dataset: "Dataset", key: Key) -> None:
    """Add a key to an identifier, or replace it. Raises :class:`~rxdicom.errors.ArgumentError`."""
    from pydicom import DataElement
    from pydicom.config import IGNORE

    for tag, index in key.steps[:-1]:
        dataset = _item(dataset, tag, index or 0, key)
    tag, index = key.steps[-1]
    if index is not None:
        _item(dataset, tag, index, key)
        if key.value:
            raise ArgumentError(f"key {key.given!r}: an item of a sequence has attributes, and no value")
        return
    vr = _vr(tag)
    try:
        # A query may have what a stored value may not: wildcards, ranges, lists.
        dataset[tag] = DataElement(tag, vr, _value(vr, key.value), validation_mode=IGNORE)
    except (ValueError, TypeError, OverflowError):
        raise ArgumentError(f"key {key.given!r}: {key.value!r} is not a value of VR {vr}") from None


def _item(dataset: "Dataset", tag: int, index: int, key: Key) -> "Dataset":
    """The item of a sequence; the next one after those that are there is made."""
    from pydicom import DataElement, Dataset

    if _vr(tag) != "SQ":
        raise ArgumentError(f"key {key.given!r}: ({tag >> 16:04X},{tag & 0xFFFF:04X}) is not a sequence")
    if tag not in dataset:
        dataset[tag] = DataElement(tag, "SQ", [])
    items: Any = dataset[tag].value
    if index > len(items):
        raise ArgumentError(f"key {key.given!r}: item {index} comes after item {len(items)}, which is not there")
    if index == len(items):
        items.append(Dataset())
    return items[index]


def _vr(tag: int) -> str:
    """The VR of the dictionary, the first where there are several; text for attributes that are not in it."""
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return _UNKNOWN_VR


def _value(vr: str, text: str) -> Any:
    if not text:
        return [] if vr == "SQ" else b"" if vr in _BINARY else ""
    if vr == "SQ" or vr in _BINARY:
        raise ValueError
    if vr in _NUMBERS:
        numbers = [_NUMBERS[vr](part) for part in text.split("\\")]
        return numbers if len(numbers) > 1 else numbers[0]
    return text


def read_keys(path: str) -> "Dataset":
    """The dataset of a file that has the keys, everything in it decoded, without group lengths.

    Raises :class:`~rxdicom.errors.ArgumentError` when it has none, and :class:`OSError` when it cannot be read.
    """
    from pydicom.datadict import dictionary_has_tag

    from rxdicom.events.datasets import read_file

    try:
        dataset = read_file(path)
        for tag in sorted(dataset.keys()):
            if tag.group < _FIRST_DATASET_GROUP or tag.element == 0:
                del dataset[tag]
        known = [dictionary_has_tag(element.tag) for element in dataset.iterall()]
    except OSError:
        raise
    except Exception as error:
        why = str(error) if isinstance(error, DatasetError) else f"{path} cannot be decoded: {error!r}"
        raise ArgumentError(why) from error
    if not any(known):
        raise ArgumentError(f"{path}: not a DICOM file with keys")
    return dataset


def settle_character_set(dataset: "Dataset", wanted: str | None) -> None:
    """Declare in which character set the keys are: the wanted one, theirs, or UTF-8 where they need one.

    Raises :class:`~rxdicom.errors.ArgumentError` if it does not have their characters.
    """
    texts = list(_texts(dataset))
    if wanted:
        dataset.SpecificCharacterSet = wanted.split("\\")
    elif not dataset.get("SpecificCharacterSet") and not all(text.isascii() for text in texts):
        dataset.SpecificCharacterSet = _UTF_8
    declared: Any = dataset.get("SpecificCharacterSet") or ""
    names = [declared] if isinstance(declared, str) else list(declared)
    if not _can_be_encoded(texts, names):
        raise ArgumentError(f"the keys cannot be written in character set {chr(92).join(names)!r}")


def _texts(dataset: "Dataset") -> Iterator[str]:
    """The texts of a dataset that its character set is for (PS3.5 §6.1.2.3), person names in their components."""
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    for element in dataset.iterall():
        if element.VR in CUSTOMIZABLE_CHARSET_VR and element.value:
            values: Sequence[Any] = [element.value] if element.VM == 1 else element.value
            for value in values:
                yield from re.split("[=^]", str(value)) if element.VR == "PN" else [str(value)]


def _can_be_encoded(texts: Sequence[str], names: Sequence[str]) -> bool:
    from pydicom.charset import convert_encodings, encode_string, python_encoding

    # pydicom takes the names of Python's encodings too.
    if not all(name in python_encoding for name in names):
        return False
    with warnings.catch_warnings():
        # pydicom warns of what it does not know, and goes on with something else.
        warnings.simplefilter("error")
        try:
            encodings = convert_encodings(list(names))
            for text in texts:
                encode_string(text, encodings)
        except (UserWarning, UnicodeError, LookupError):
            return False
    return True
