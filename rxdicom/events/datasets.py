"""Datasets between their encoded form and pydicom: the only place of the core that loads it, on first use."""

import zlib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rxdicom.errors import DatasetError
from rxdicom.wire.encoded import INFLATED, Encoded
from rxdicom.wire.part10 import HeadTemplate, head_template
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
)

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset

_INFLATE_STEP = 1024

MAX_NESTED = 128
"""Levels of sequences in a dataset that is encoded; real ones have fewer than ten."""

_FILE_META_OFFSET = 132
"""Bytes of preamble and prefix, before the file meta information (PS3.10 §7.1)."""

RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_CONVERTIBLE = (*UNCOMPRESSED, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
_PIXEL_DATA = 0x7FE00010
_FIRST_DATASET_TAG = 0x00030000
_ELEMENT_HEADER = 8
_UNDEFINED = 0xFFFFFFFF
_FIRST_FRAGMENT = b"\xfe\xff\0\xe0"
_WORD_SIZES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def encoded_bytes(encoded: Encoded) -> bytes | bytearray:
    """The dataset as it was transferred; it is read from its file where it was spooled to one."""
    return encoded.read()


def decode(encoded: Encoded) -> "Dataset":
    """The dataset, decoded once however often it is asked for.

    One with pixel data has a ``file_meta`` that names its transfer syntax, without which pixels mean nothing.

    Raises :class:`~rxdicom.errors.DatasetError` when the bytes are no dataset of that transfer syntax, or are cut off,
    and :class:`OSError` when they cannot be read.
    """
    return encoded.decoded(_decode)


def _decode(encoded: Encoded) -> "Dataset":
    data = encoded_bytes(encoded)
    syntax = encoded.transfer_syntax
    implicit, little = syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN
    try:
        if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            data = inflate(data, encoded.inflated)
        dataset = _read(data, implicit, little)
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"a dataset of {len(data)} bytes cannot be decoded as {syntax}: {error!r}") from error
    if _PIXEL_DATA in dataset:
        dataset.file_meta = _syntax_meta(syntax)
    return dataset


def _read(data: bytes | bytearray, implicit: bool, little: bool) -> "Dataset":
    """The whole of a dataset: pydicom by itself takes what is cut off for the end, and goes on with half an element."""
    from pydicom.filereader import read_dataset

    last = None

    def note(tag: int, vr: str | None, length: int) -> bool:
        nonlocal last
        del vr, length
        last = tag
        return False

    buffer = BytesIO(data)
    dataset = read_dataset(buffer, implicit, little, bytelength=len(data), stop_when=note)
    if last is not None and _is_cut_off(dataset, last):
        group, element = last >> 16, last & 0xFFFF
        raise DatasetError(f"a dataset is cut off at its end, byte {len(data)}, within ({group:04X},{element:04X})")
    # Fewer bytes than a header, at the end, are padding.
    if len(data) - buffer.tell() >= _ELEMENT_HEADER:
        raise DatasetError(f"a dataset of {len(data)} bytes is delimited at byte {buffer.tell()}, outside a sequence")
    return dataset


def _is_cut_off(dataset: "Dataset", tag: int) -> bool:
    element: Any = dataset.get_item(tag) if tag in dataset else None
    if element is None:
        return True
    return element.is_raw and element.length != _UNDEFINED and len(element.value or b"") != element.length


def _syntax_meta(transfer_syntax: str) -> "FileMetaDataset":
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax)
    return meta


def inflate(data: bytes | bytearray, most: int = INFLATED) -> bytes:
    """A deflated dataset (PS3.5 §A.5), with or without its padding, inflated if that is ``most`` bytes or less.

    It is measured first, so that a bomb takes no memory. Raises :class:`~rxdicom.errors.DatasetError`.
    """
    try:
        return zlib.decompress(data, -zlib.MAX_WBITS, bufsize=_inflated_size(data, most) or 1)
    except zlib.error as error:
        raise DatasetError(f"a deflated dataset cannot be inflated: {error}") from error


def _inflated_size(data: bytes | bytearray, most: int) -> int:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, view = 0, memoryview(data)
    for at in range(0, len(data), _INFLATE_STEP):
        size += len(inflater.decompress(view[at : at + _INFLATE_STEP]))
        if size > most:
            raise DatasetError(f"a deflated dataset has more than {most} bytes when inflated")
        if inflater.eof:
            return size
    raise DatasetError(f"a deflated dataset of {len(data)} bytes is cut off")


def encode(dataset: "Dataset", transfer_syntax: str) -> bytes:
    """The dataset in ``transfer_syntax``, without command and file meta groups.

    Raises :class:`~rxdicom.errors.DatasetError` when it cannot be written, when its sequences are nested deeper than
    :data:`MAX_NESTED`, or when its pixel data is compressed and the transfer syntax is not, or the other way round.
    """
    return _encode(dataset, transfer_syntax, swapped=False)


def _encode(dataset: "Dataset", transfer_syntax: str, *, swapped: bool) -> bytes:
    try:
        _match_pixel_data(dataset, transfer_syntax)
        implicit, little = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN, transfer_syntax != EXPLICIT_VR_BIG_ENDIAN
        data = _elements(dataset, _Coding(implicit, little, swapped))
    except DatasetError as error:
        raise DatasetError(f"the dataset cannot be encoded as {transfer_syntax}: {error}") from error
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
    return data + b"\0" if len(data) & 1 else data


@frozen
class _Coding:
    """How elements are written, and whether the words in them go into the other byte order."""

    implicit: bool
    little: bool
    swapped: bool

    def item(self, element: int, length: int) -> bytes:
        """The header of an item or a delimiter (PS3.5 §7.5)."""
        return pack("<HHI" if self.little else ">HHI", 0xFFFE, element, length)


def _elements(dataset: "Dataset", coding: _Coding, parent_encoding: Any = "iso8859", depth: int = 0) -> bytes:
    """The elements of a dataset or an item, written one by one.

    pydicom's own ``write_dataset`` would do, but the message of an exception in it is tripled at each level of nesting:
    some 14 levels around a value that cannot be written, as a peer may send them, take a gigabyte.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import correct_ambiguous_vr, write_data_element

    if depth > MAX_NESTED:
        raise DatasetError(f"its sequences are nested more than {MAX_NESTED} deep")
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = coding.implicit, coding.little
    tag = 0
    try:
        # What has not been looked at since it was received, and stays in its encoding, is written as it came.
        as_it_came = not coding.swapped and _is_encoded(dataset, coding)
        if not as_it_came:
            correct_ambiguous_vr(dataset, coding.little)
        encoding = dataset.get("SpecificCharacterSet", parent_encoding)
        for tag in sorted(dataset.keys()):
            if tag < _FIRST_DATASET_TAG or tag.element == 0:
                continue
            element: Any = dataset.get_item(tag) if as_it_came else dataset[tag]
            if element.VR == "SQ" and not element.is_raw:
                element = _written(element, _items(element.value, coding, encoding, depth + 1), coding)
            elif coding.swapped and element.VR in _WORD_SIZES and element.value:
                element = _written(element, _words_swapped(element.value, _WORD_SIZES[element.VR]), coding)
            write_data_element(buffer, element, encoding)
    except DatasetError:
        raise
    except Exception as error:
        # Its own words may quote the patient.
        where = f"({tag >> 16:04X},{tag & 0xFFFF:04X}): " if tag else ""
        raise DatasetError(where + type(error).__name__) from error
    return buffer.getvalue()


def _is_encoded(dataset: "Dataset", coding: _Coding) -> bool:
    """Whether the dataset was read in the same encoding and with the same character set."""
    current: Any = dataset._character_set  # pyright: ignore[reportPrivateUsage] - nothing public tells it
    same_text = dataset.original_character_set == current
    return same_text and dataset.original_encoding == (coding.implicit, coding.little)


def _items(items: Iterable["Dataset"], coding: _Coding, encoding: Any, depth: int) -> bytes:
    """The items of a sequence, each of defined or undefined length as it was (PS3.5 §7.5)."""
    written: list[bytes] = []
    for item in items:
        content = _elements(item, coding, encoding, depth)
        undefined = getattr(item, "is_undefined_length_sequence_item", False)
        written.append(coding.item(0xE000, _UNDEFINED if undefined else len(content)) + content)
        if undefined:
            written.append(coding.item(0xE00D, 0))
    return b"".join(written)


def _words_swapped(value: Any, size: int) -> bytes:
    """A value that pydicom keeps as bytes, in the other byte order (PS3.5 §7.3)."""
    data = bytearray(value)
    if size == 2 and len(data) & 1:
        data.append(0)
    for at in range(size // 2):
        data[at::size], data[size - 1 - at :: size] = data[size - 1 - at :: size], data[at::size]
    return bytes(data)


def _written(element: Any, value: bytes, coding: _Coding) -> Any:
    """An element whose value has been written already."""
    from pydicom.dataelem import RawDataElement

    length = _UNDEFINED if element.is_undefined_length else len(value)
    return RawDataElement(element.tag, element.VR, length, value, 0, coding.implicit, coding.little)


def _match_pixel_data(dataset: "Dataset", transfer_syntax: str) -> None:
    """Refuse pixel data that a receiver would misread under ``transfer_syntax`` (PS3.5 §A.4)."""
    from pydicom.uid import UID

    if _PIXEL_DATA not in dataset:
        return
    element: Any = dataset.get_item(_PIXEL_DATA)
    encapsulated = element.length == _UNDEFINED if element.is_raw else element.is_undefined_length
    if encapsulated and transfer_syntax in _CONVERTIBLE:
        raise DatasetError(
            "its pixel data is compressed; say how by file_meta.TransferSyntaxUID, so that it can be sent so, or "
            "decompress it"
        )
    uid = UID(transfer_syntax)
    if not encapsulated and uid.is_transfer_syntax and uid.is_encapsulated:
        if not element.is_buffered and not (element.value or b"").startswith(_FIRST_FRAGMENT):
            raise DatasetError(
                "its pixel data is not compressed; have another transfer syntax accepted, or compress it"
            )
        # As pydicom does for files.
        dataset[_PIXEL_DATA].is_undefined_length = True


def encode_failed_list(sop_instance_uids: Sequence[str], transfer_syntax: str) -> bytes:
    """The identifier of a final C-GET or C-MOVE response: Failed SOP Instance UID List (PS3.4 table C.4-2)."""
    from pydicom import Dataset

    failed = Dataset()
    failed.FailedSOPInstanceUIDList = list(sop_instance_uids)
    return encode(failed, transfer_syntax)


def read_file(path: str) -> "Dataset":
    """The dataset of a file, with its file meta information if it has one.

    Raises :class:`~rxdicom.errors.DatasetError` when it cannot be decoded, and :class:`OSError` when it cannot be read.
    """
    import pydicom

    try:
        return pydicom.dcmread(path, force=True)  # pyright: ignore[reportUnknownMemberType] - of a parameter's type
    except OSError:
        raise
    except Exception as error:
        raise DatasetError(f"{path} cannot be decoded: {error!r}") from error


def transfer_syntax_of(dataset: "Dataset") -> str | None:
    """The transfer syntax that a dataset is in, as far as it says; None for one that was just made."""
    meta = getattr(dataset, "file_meta", None)
    declared = None if meta is None else meta.get("TransferSyntaxUID")
    if declared:
        return str(declared)
    return _SYNTAX_OF_ENCODING.get(dataset.original_encoding)


_SYNTAX_OF_ENCODING: dict[tuple[bool | None, bool | None], str] = {
    (True, True): IMPLICIT_VR_LITTLE_ENDIAN,
    (False, True): EXPLICIT_VR_LITTLE_ENDIAN,
    (False, False): EXPLICIT_VR_BIG_ENDIAN,
}


def convert(dataset: "Dataset", source: str, target: str) -> bytes:
    """The bytes of a dataset that is in ``source``, in ``target``; the dataset itself is left as it is.

    Between the uncompressed transfer syntaxes nothing is lost; compressed pixel data is decompressed by pydicom, if
    it can. Raises :class:`~rxdicom.errors.DatasetError` for what cannot be done.
    """
    if source == target:
        return encode(dataset, target)
    if target not in _CONVERTIBLE:
        raise DatasetError(f"a dataset in {source} cannot be compressed to {target} here; send it as it is")
    if source not in _CONVERTIBLE:
        dataset, source = _decompressed(dataset, source), EXPLICIT_VR_LITTLE_ENDIAN
    return _encode(dataset, target, swapped=(source == EXPLICIT_VR_BIG_ENDIAN) != (target == EXPLICIT_VR_BIG_ENDIAN))


def _decompressed(dataset: "Dataset", source: str) -> "Dataset":
    if _PIXEL_DATA not in dataset:
        return dataset
    try:
        copied = deepcopy(dataset)
        copied.file_meta = _syntax_meta(source)
        # What was compressed without loss stays as it is; to RGB a colour is rounded.
        copied.decompress(as_rgb=source != RLE_LOSSLESS, generate_instance_uid=False)
    except Exception as error:
        raise DatasetError(f"pixel data in {source} cannot be decompressed: {error}") from error
    return copied


def file_heads(sop_class_uid: str, transfer_syntax: str, source_ae_title: str = "") -> HeadTemplate:
    """Preamble and file meta information of Part 10 files (PS3.10 §7.1) written by this implementation."""
    return head_template(
        sop_class_uid,
        transfer_syntax,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        source_ae_title=source_ae_title,
    )


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = "") -> bytes:
    """The same of one file."""
    return file_heads(sop_class_uid, transfer_syntax, source_ae_title).head(sop_instance_uid)


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str
) -> "FileMetaDataset":
    """The same as a dataset, for ``Dataset.file_meta``."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    head = BytesIO(file_head(sop_class_uid, sop_instance_uid, transfer_syntax, source_ae_title))
    head.seek(_FILE_META_OFFSET)
    return FileMetaDataset(read_dataset(head, is_implicit_VR=False, is_little_endian=True))
