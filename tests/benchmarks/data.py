"""Makes the DICOM files that the benchmarks send, and reads what arrived. Touches only the folders that it is given."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from attrs import frozen

if TYPE_CHECKING:
    from pydicom import FileDataset

VERSION = 1
"""Part of each cache folder's name: to be raised whenever the content of the generated files changes."""

Shape = tuple[int, int]
"""Rows and columns of an image; a pixel has two bytes."""

Content = tuple[int, str]
"""The length in bytes of a dataset without its file meta information, and its digest."""

_META_START = b"DICM\x02\x00\x00\x00UL\x04\x00"


@frozen
class Batch:
    """A folder of files to send, and what must arrive."""

    folder: Path
    contents: tuple[Content, ...]

    @property
    def size(self) -> int:
        """Bytes of all datasets."""
        return sum(size for size, _ in self.contents)


def prepare(cache: Path, shape: Shape, count: int, parts: int = 1) -> Batch:
    """Return the first ``count`` images of this shape, generated unless they lie complete in the cache.

    With several ``parts`` they are spread evenly over as many folders in the folder of the batch, named 0, 1, ….
    """

    def make(folder: Path) -> None:
        for index in range(count):
            path = folder / (str(index % parts) if parts > 1 else ".") / f"{index:05}.dcm"
            path.parent.mkdir(exist_ok=True)
            image(shape, index).save_as(path, enforce_file_format=True)

    name = f"v{VERSION}-{'x'.join(map(str, shape))}-{count}" + (f"-{parts}" if parts > 1 else "")
    return _cached(cache / name, make)


def prepare_sparse(cache: Path, size: int) -> Batch:
    """Return an image with so many bytes of pixel data, all zero and a hole in the file: it takes no room on a disk."""

    def make(folder: Path) -> None:
        path = folder / "00000.dcm"
        image((1, 2), 0).save_as(path, enforce_file_format=True)
        with path.open("r+b") as file:
            start = file.seek(-4, os.SEEK_END)  # the pixel data, two of two bytes, are the last element
            file.seek(start - 4)
            file.write(size.to_bytes(4, "little") + bytes(4))
            file.truncate(start + size)

    return _cached(cache / f"v{VERSION}-sparse-{size}", make)


def _cached(folder: Path, make: Callable[[Path], None]) -> Batch:
    manifest = folder.with_name(folder.name + ".json")
    known = json.loads(manifest.read_text()) if manifest.exists() else None
    if known is None or complaint(tuple((size, digest) for size, digest in known), folder):
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"preparing {folder}", file=sys.stderr, flush=True)
        folder.mkdir(parents=True)
        make(folder)
        known = [content_of(path) for path in folder.rglob("*.dcm")]
        manifest.write_text(json.dumps(known))
    return Batch(folder, tuple((size, digest) for size, digest in known))


def complaint(expected: tuple[Content, ...], folder: Path) -> str | None:
    """Say what is wrong with the files in a folder: number, dataset bytes or content; None if nothing is."""
    try:
        found = [content_of(path) for path in folder.rglob("*") if path.is_file()]
    except (OSError, ValueError) as error:
        return str(error)
    if len(found) != len(expected):
        return f"{len(found)} of {len(expected)} files"
    arrived, sent = sum(size for size, _ in found), sum(size for size, _ in expected)
    if arrived != sent:
        return f"{arrived} of {sent} dataset bytes"
    return None if sorted(found) == sorted(expected) else "other datasets than those sent"


def content_of(path: Path) -> Content:
    """Return length and digest of the dataset in a Part 10 file (PS3.10 §7.1); ValueError if it is none."""
    with path.open("rb", buffering=0) as file:
        head = file.read(144)
        if head[128:140] != _META_START or len(head) < 144:
            raise ValueError(f"{path.name} is not a DICOM file")
        start = len(head) + int.from_bytes(head[140:], "little")
        file.seek(start)
        return path.stat().st_size - start, hashlib.file_digest(file, "blake2b").hexdigest()


def image(shape: Shape, index: int) -> "FileDataset":
    """Return a CT slice in explicit VR little endian, the same at every call."""
    import numpy as np
    from pydicom import Dataset, FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    rows, columns = shape
    name = f"rxdicom benchmark {VERSION} {shape}"
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    tissue = np.where(x * x + y * y < 0.8, 1000, 0).astype(np.uint16)
    pixels = np.random.default_rng([*shape, index]).integers(0, 200, shape, np.uint16) + tissue

    elements: dict[str, object] = {
        **dict.fromkeys(("StudyDate", "SeriesDate", "ContentDate"), "20240101"),
        **dict.fromkeys(("StudyTime", "SeriesTime", "ContentTime"), "120000"),
        **dict.fromkeys(("Manufacturer", "StudyDescription", "PatientName", "PatientID"), "BENCHMARK"),
        **dict.fromkeys(("AccessionNumber", "ReferringPhysicianName", "PatientBirthDate"), ""),
        **dict.fromkeys(("StudyID", "SeriesNumber", "AcquisitionNumber", "SliceThickness", "RescaleSlope"), "1"),
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": _uid(f"{name} instance {index}"),
        "StudyInstanceUID": _uid(f"{name} study"),
        "SeriesInstanceUID": _uid(f"{name} series"),
        "Modality": "CT",
        "PatientSex": "O",
        "PatientPosition": "HFS",
        "KVP": "120",
        "InstanceNumber": str(index + 1),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": ["0.7", "0.7"],
        **dict.fromkeys(("BitsAllocated", "BitsStored"), 16),
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleType": "HU",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "FrameOfReferenceUID": _uid(f"{name} frame of reference"),
        "PositionReferenceIndicator": "",
        "ImagePositionPatient": ["0", "0", str(index)],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    }
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.add_new("PixelData", "OW", pixels.tobytes())

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return FileDataset("", dataset, file_meta=meta)


def _uid(name: str) -> str:
    return f"2.25.{uuid5(NAMESPACE_OID, name).int}"
