"""Datasets between their encoded form and pydicom: the only place of the core that loads it, on first use."""

import zlib
from copy import deepcopy
from io import BytesIO
from typing import TYPE_CHECKING, Any

from rxdicom.errors import DatasetError
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.part10 import encode_head
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

MAX_INFLATED = 1 << 30
"""Bytes that a deflated dataset may have when it is decoded in memory: a deflate bomb ends here."""


def encoded_bytes(encoded: Encoded) -> bytes | bytearray:
    """The dataset as it was transferred; it is read from its file where it was spooled to one."""
    if encoded.data is not None:
        return encoded.data
    if encoded.path is None:
        raise DatasetError(f"the dataset was not kept: {encoded.error}")
    with open(encoded.path, "rb") as file:
        file.seek(encoded.offset)
        return file.read(encoded.size)


def decode(encoded: Encoded) -> "Dataset":
    """The dataset, decoded once however often it is asked for.

    Raises :class:`~rxdicom.errors.DatasetError` when the bytes are no dataset of that transfer syntax.
    """
    return encoded.decoded(_decode)


def _decode(encoded: Encoded) -> "Dataset":
    from pydicom.filereader import read_dataset

    data = encoded_bytes(encoded)
    syntax = encoded.transfer_syntax
    implicit, little = syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN
    try:
        if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            data = inflate(data)
        return read_dataset(BytesIO(data), implicit, little, bytelength=len(data))
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"a dataset of {len(data)} bytes cannot be decoded as {syntax}: {error!r}") from error


def inflate(data: bytes | bytearray) -> bytes:
    """A deflated dataset (PS3.5 §A.5), with or without its padding, inflated up to :data:`MAX_INFLATED`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, MAX_INFLATED)
    except zlib.error as error:
        raise DatasetError(f"a deflated dataset cannot be inflated: {error}") from error
    if inflater.unconsumed_tail:
        raise DatasetError(f"a deflated dataset has more than {MAX_INFLATED} bytes when inflated")
    return inflated


def encode(dataset: "Dataset", transfer_syntax: str) -> bytes:
    """The dataset in ``transfer_syntax``, without command and file meta groups.

    Raises :class:`~rxdicom.errors.DatasetError` when pydicom cannot write it.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    buffer.is_little_endian = transfer_syntax != EXPLICIT_VR_BIG_ENDIAN
    try:
        write_dataset(buffer, dataset)
    except Exception as error:
        raise DatasetError(f"the dataset cannot be encoded as {transfer_syntax}: {error!r}") from error
    data = buffer.getvalue()
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
    return data + b"\0" if len(data) & 1 else data


def read_file(path: str) -> "Dataset":
    """The dataset of a file, with its file meta information if it has one."""
    import pydicom

    dataset: Dataset = pydicom.dcmread(path, force=True)  # pyright: ignore[reportUnknownMemberType]
    return dataset


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
_CONVERTIBLE = (*UNCOMPRESSED, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
_WORD_SIZES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


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
        dataset = _decompressed(dataset, source)
        source = EXPLICIT_VR_LITTLE_ENDIAN
    if (source == EXPLICIT_VR_BIG_ENDIAN) != (target == EXPLICIT_VR_BIG_ENDIAN):
        dataset = deepcopy(dataset)
        _swap_words(dataset)
    return encode(dataset, target)


def _decompressed(dataset: "Dataset", source: str) -> "Dataset":
    copied = deepcopy(dataset)
    try:
        copied.decompress(generate_instance_uid=False)
    except Exception as error:
        raise DatasetError(f"pixel data in {source} cannot be decompressed: {error}") from error
    return copied


def _swap_words(dataset: "Dataset") -> None:
    """Other byte order for the values that pydicom keeps as bytes (PS3.5 §7.3)."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                _swap_words(item)
        elif element.VR in _WORD_SIZES and element.value:
            size = _WORD_SIZES[element.VR]
            data = bytearray(element.value)
            for at in range(size // 2):
                data[at::size], data[size - 1 - at :: size] = data[size - 1 - at :: size], data[at::size]
            element.value = bytes(data)


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = "") -> bytes:
    """Preamble and file meta information of a Part 10 file (PS3.10 §7.1) written by this implementation."""
    return encode_head(
        sop_class_uid,
        sop_instance_uid,
        transfer_syntax,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        source_ae_title=source_ae_title,
    )


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str
) -> "FileMetaDataset":
    """The same as a dataset, for ``Dataset.file_meta``."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    elements: dict[str, Any] = {
        "FileMetaInformationVersion": b"\x00\x01",
        "MediaStorageSOPClassUID": UID(sop_class_uid),
        "MediaStorageSOPInstanceUID": UID(sop_instance_uid),
        "TransferSyntaxUID": UID(transfer_syntax),
        "ImplementationClassUID": UID(IMPLEMENTATION_CLASS_UID),
        "ImplementationVersionName": IMPLEMENTATION_VERSION_NAME,
    }
    if source_ae_title:
        elements["SourceApplicationEntityTitle"] = source_ae_title
    meta = FileMetaDataset()
    for keyword, value in elements.items():
        setattr(meta, keyword, value)
    return meta
