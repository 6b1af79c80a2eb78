"""Makes the DICOM files that the benchmarks send, and reads what arrived. Touches only the folders that it is given."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from attrs import frozen

if TYPE_CHECKING:
    from pydicom import FileDataset

VERSION = 1
"""Part of each cache folder's name: to be raised whenever the content of the generated files changes."""

Shape = tuple[int, int, int]
"""Frames, rows and columns of an image; a pixel has two bytes."""

Content = tuple[int, str]
"""The length in bytes of a dataset without its file meta information, and its digest."""

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE = "1.2.840.10008.5.1.4.1.1.7.3"
_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_META_START = b"DICM\x02\x00\x00\x00UL\x04\x00"


@frozen
class Batch:
    """A folder of files to send, and what must arrive."""

    folder: Path
    contents: tuple[Content, ...]


def prepare(cache: Path, shape: Shape, count: int) -> Batch:
    """Return the first ``count`` images of this shape, generated unless they lie complete in the cache."""
    folder = cache / f"v{VERSION}-{'x'.join(map(str, shape))}-{count}"
    manifest = folder.with_name(folder.name + ".json")
    known = json.loads(manifest.read_text()) if manifest.exists() else None
    if known is None or complaint(tuple((size, digest) for size, digest in known), folder):
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for index in range(count):
            image(shape, index).save_as(folder / f"{index:05}.dcm", enforce_file_format=True)
        known = [content_of(path) for path in folder.iterdir()]
        manifest.write_text(json.dumps(known))
    return Batch(folder, tuple((size, digest) for size, digest in known))


def complaint(expected: tuple[Content, ...], folder: Path) -> str | None:
    """Say what is wrong with the files in a folder: their number, their dataset bytes or their content; None: nothing."""
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
    """Return length and digest of the dataset in a Part 10 file; ValueError if it does not begin as PS3.10 §7.1 says."""
    with path.open("rb", buffering=0) as file:
        head = file.read(144)
        if head[128:140] != _META_START or len(head) < 144:
            raise ValueError(f"{path.name} is not a DICOM file")
        start = len(head) + int.from_bytes(head[140:], "little")
        file.seek(start)
        return path.stat().st_size - start, hashlib.file_digest(file, "blake2b").hexdigest()


def image(shape: Shape, index: int) -> "FileDataset":
    """Return a CT slice, or from more frames than one a multi-frame secondary capture; the same at every call."""
    import numpy as np
    from pydicom import Dataset, FileDataset
    from pydicom.dataset import FileMetaDataset

    frames, rows, columns = shape
    name = f"rxdicom benchmark {VERSION} {shape}"
    sop_class = _CT_IMAGE if frames == 1 else _MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    tissue = np.where(x * x + y * y < 0.8, 1000, 0).astype(np.uint16)
    pixels = np.random.default_rng([*shape, index]).integers(0, 200, shape, np.uint16) + tissue

    dataset = Dataset()
    elements: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"] if frames == 1 else ["DERIVED", "SECONDARY"],
        "SOPClassUID": sop_class,
        "SOPInstanceUID": _uid(f"{name} instance {index}"),
        "StudyDate": "20240101",
        "SeriesDate": "20240101",
        "ContentDate": "20240101",
        "StudyTime": "120000",
        "ContentTime": "120000",
        "AccessionNumber": "",
        "Modality": "CT",
        "ConversionType": "WSD",
        "Manufacturer": "rxdicom benchmark",
        "ReferringPhysicianName": "",
        "StudyDescription": "BENCHMARK",
        "PatientName": "BENCHMARK^NOBODY",
        "PatientID": "BENCHMARK",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "SliceThickness": "1",
        "KVP": "120",
        "StudyInstanceUID": _uid(f"{name} study"),
        "SeriesInstanceUID": _uid(f"{name} series"),
        "StudyID": "1",
        "SeriesNumber": "1",
        "AcquisitionNumber": "1",
        "InstanceNumber": str(index + 1),
        "ImagePositionPatient": ["0", "0", str(index)],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "FrameOfReferenceUID": _uid(f"{name} frame of reference"),
        "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": ["0.7", "0.7"],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
    }
    several: dict[str, object] = {
        "NumberOfFrames": str(frames),
        "FrameIncrementPointer": 0x00182005,
        "SliceLocationVector": [str(frame) for frame in range(frames)],
        "PresentationLUTShape": "IDENTITY",
    }
    for keyword, value in (elements | (several if frames > 1 else {})).items():
        setattr(dataset, keyword, value)
    dataset.add_new("PixelData", "OW", pixels.tobytes())

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = _EXPLICIT_VR_LITTLE_ENDIAN
    return FileDataset("", dataset, file_meta=meta)


def _uid(name: str) -> str:
    return f"2.25.{uuid5(NAMESPACE_OID, name).int}"
