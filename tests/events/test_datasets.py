"""Datasets decoded, encoded and converted: real files in every transfer syntax, and bytes that mean harm."""

import random
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from struct import pack

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless

from rxdicom.errors import DatasetError
from rxdicom.events import datasets
from rxdicom.events.datasets import (
    convert,
    decode,
    encode,
    encode_failed_list,
    encoded_bytes,
    inflate,
    read_file,
    transfer_syntax_of,
)
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
)
from tests.support import FILES, dataset_bytes, read, storable_files

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what is odd in its test files

CONVERTIBLE = (*UNCOMPRESSED, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
SYNTAX_NAMES = {
    IMPLICIT_VR_LITTLE_ENDIAN: "implicit",
    EXPLICIT_VR_LITTLE_ENDIAN: "explicit",
    EXPLICIT_VR_BIG_ENDIAN: "big",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "deflated",
}
CUT_OFF = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
"""Files of pydicom's that end in the middle of an element."""
WHOLE = [path for path in storable_files() if path.name not in CUT_OFF]
EVERY_FILE = pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
EVERY_TARGET = pytest.mark.parametrize("target", CONVERTIBLE, ids=SYNTAX_NAMES.get)
PIXEL_DATA = 0x7FE00010


def received(path: Path) -> Encoded:
    return Encoded(storable_files()[path].transfer_syntax_uid, dataset_bytes(path))


def decoded(syntax: str, data: bytes | bytearray) -> Dataset:
    return decode(Encoded(syntax, data))


def without_group_lengths(dataset: Dataset) -> Dataset:
    for tag in [element.tag for element in dataset if element.tag.element == 0]:
        del dataset[tag]
    return dataset


def sample() -> Dataset:
    """Text, numbers, a sequence, words and empty elements."""
    item = Dataset()
    item.CodeMeaning = "Schädel"
    item.RedPaletteColorLookupTableData = b"\1\2\3\4"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Jörg"
    dataset.PatientID = ""
    dataset.Rows = 258
    dataset.ReferencedSeriesSequence = Sequence()
    dataset.AnatomicRegionSequence = Sequence([item])
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.FrameIncrementPointer = Tag(0x00181063)
    return dataset


# ---- round trips


def test_the_files_cover_the_transfer_syntaxes():
    found = {head.transfer_syntax_uid for head in storable_files().values()}
    assert found > {*CONVERTIBLE, RLELossless, JPEGBaseline8Bit}
    assert len(WHOLE) > 70


@EVERY_FILE
def test_a_real_file_decodes_and_encodes_to_itself(path: Path):
    encoded = received(path)
    dataset = decode(encoded)
    assert without_group_lengths(deepcopy(dataset)) == read(path)
    again = encode(dataset, encoded.transfer_syntax)
    assert len(again) % 2 == 0
    assert without_group_lengths(decoded(encoded.transfer_syntax, again)) == read(path)
    assert decoded(encoded.transfer_syntax, bytearray(again)) == decoded(encoded.transfer_syntax, again)


@EVERY_TARGET
@EVERY_FILE
def test_datasets_are_written_as_pydicom_does(path: Path, target: str):
    encoded = received(path)
    if target == CONVERTIBLE[3] or (encoded.transfer_syntax not in CONVERTIBLE and PIXEL_DATA in decode(encoded)):
        target = encoded.transfer_syntax
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = target == IMPLICIT_VR_LITTLE_ENDIAN
    buffer.is_little_endian = target != EXPLICIT_VR_BIG_ENDIAN
    write_dataset(buffer, decode(received(path)))
    expected = buffer.getvalue()
    data = encode(decode(encoded), target)
    assert (inflate(data) if target == CONVERTIBLE[3] else data) == expected + b"\0" * (len(expected) % 2)


@pytest.mark.parametrize("path", [FILES / name for name in sorted(CUT_OFF)], ids=lambda path: path.name)
def test_a_file_that_is_cut_off_is_refused(path: Path):
    with pytest.raises(DatasetError, match=r"cut off .* within \((7FE0,0010|300A,00B0)\)"):
        decode(received(path))


@EVERY_TARGET
def test_a_made_dataset_survives(target: str):
    dataset = sample()
    data = encode(dataset, target)
    assert len(data) % 2 == 0
    assert decoded(target, data) == sample()
    assert dataset == sample()
    for other in CONVERTIBLE:
        assert decoded(other, encode(decoded(target, data), other)).PatientName == "Müller^Jörg"


def test_an_empty_dataset_is_no_bytes():
    for syntax in UNCOMPRESSED:
        assert encode(Dataset(), syntax) == b""
        assert decoded(syntax, b"") == Dataset()
    assert decoded(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, encode(Dataset(), CONVERTIBLE[3])) == Dataset()


def test_elements_are_little_or_big_endian_with_or_without_their_vr():
    dataset = Dataset()
    dataset.Rows = 258
    assert encode(dataset, IMPLICIT_VR_LITTLE_ENDIAN) == b"\x28\0\x10\0\2\0\0\0\2\1"
    assert encode(dataset, EXPLICIT_VR_LITTLE_ENDIAN) == b"\x28\0\x10\0US\2\0\2\1"
    assert encode(dataset, EXPLICIT_VR_BIG_ENDIAN) == b"\0\x28\0\x10US\0\2\1\2"
    assert inflate(encode(dataset, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)) == b"\x28\0\x10\0US\2\0\2\1"


def test_elements_of_the_command_and_of_file_meta_are_left_out():
    dataset = sample()
    dataset.Status = 0xFF00
    dataset.AffectedSOPClassUID = "1.2.3"
    dataset.add_new(0x00020010, "UI", IMPLICIT_VR_LITTLE_ENDIAN)
    for syntax in CONVERTIBLE:
        assert decoded(syntax, encode(dataset, syntax)) == sample()
    assert dataset.Status == 0xFF00


def test_a_wrong_vr_is_tolerated_as_pydicom_does():
    """Some peers send implicit VR where explicit was agreed, or the other way round."""
    for sent, agreed in ((UNCOMPRESSED[0], UNCOMPRESSED[1]), (UNCOMPRESSED[1], UNCOMPRESSED[0])):
        dataset = decoded(agreed, encode(sample(), sent))
        assert dataset.PatientName == "Müller^Jörg"
        assert dataset.Rows == 258


def test_text_is_encoded_anew_where_the_character_set_was_changed():
    latin, unicode = Dataset(), Dataset()
    latin.SpecificCharacterSet, unicode.SpecificCharacterSet = "ISO_IR 100", "ISO_IR 192"
    latin.PatientName = unicode.PatientName = "Müller^Jörg"
    for syntax in UNCOMPRESSED:
        dataset = decoded(syntax, encode(latin, syntax))
        dataset.SpecificCharacterSet = "ISO_IR 192"
        assert encode(dataset, syntax) == encode(unicode, syntax)


@pytest.mark.parametrize(("signed", "vr"), [(0, b"US"), (1, b"SS")])
def test_an_ambiguous_vr_is_settled_by_the_dataset(signed: int, vr: bytes):
    dataset = Dataset()
    dataset.PixelRepresentation = signed
    dataset.SmallestImagePixelValue = 5
    assert dataset["SmallestImagePixelValue"].VR == "US or SS"
    assert encode(dataset, EXPLICIT_VR_LITTLE_ENDIAN).endswith(b"\x28\0\6\1" + vr + b"\2\0\5\0")


def test_what_cannot_be_encoded_says_so():
    dataset = Dataset()
    dataset.Rows = 258
    dataset["Rows"].VR = "US or SS or something"
    with pytest.raises(DatasetError, match=r"cannot be encoded as 1\.2\.840\.10008\.1\.2\.1: \(0028,0010\): "):
        encode(dataset, EXPLICIT_VR_LITTLE_ENDIAN)


def test_the_failed_list_is_one_element():
    for syntax in UNCOMPRESSED:
        dataset = decoded(syntax, encode_failed_list(["1.2.3", "1.2.4"], syntax))
        assert list(dataset.FailedSOPInstanceUIDList) == ["1.2.3", "1.2.4"]
        assert len(dataset) == 1


# ---- where the bytes are, and what syntax they are in


def test_bytes_come_from_memory_or_from_a_part_of_a_file(tmp_path: Path):
    file = tmp_path / "spooled"
    file.write_bytes(b"head" + b"dataset" + b"rest")
    assert encoded_bytes(Encoded("1.2", b"in memory")) == b"in memory"
    assert encoded_bytes(Encoded("1.2", path=str(file), offset=4, size=7)) == b"dataset"
    with pytest.raises(DatasetError, match="was not kept: disk full"):
        encoded_bytes(Encoded("1.2", error=OSError("disk full")))


def test_a_spool_file_that_is_gone_is_an_error_of_the_system(tmp_path: Path):
    encoded = Encoded(IMPLICIT_VR_LITTLE_ENDIAN, path=str(tmp_path / "gone"), size=8)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            decode(encoded)


def test_pixel_data_knows_its_transfer_syntax():
    """Without that a received image could neither be shown nor sent on."""
    for path in WHOLE:
        encoded = received(path)
        dataset = decode(encoded)
        if PIXEL_DATA in dataset:
            assert transfer_syntax_of(dataset) == encoded.transfer_syntax
        else:
            assert not hasattr(dataset, "file_meta")


def test_the_transfer_syntax_of_others_is_how_they_were_read():
    assert transfer_syntax_of(Dataset()) is None
    for syntax in UNCOMPRESSED:
        assert transfer_syntax_of(decoded(syntax, encode(sample(), syntax))) == syntax
    deflated = decoded(CONVERTIBLE[3], encode(sample(), CONVERTIBLE[3]))
    assert transfer_syntax_of(deflated) == EXPLICIT_VR_LITTLE_ENDIAN
    declared = sample()
    declared.file_meta = FileMetaDataset()
    assert transfer_syntax_of(declared) is None
    declared.file_meta.TransferSyntaxUID = RLELossless
    assert transfer_syntax_of(declared) == str(RLELossless)
    assert transfer_syntax_of(read_file(str(FILES / "MR_small_RLE.dcm"))) == str(RLELossless)


def test_a_file_that_cannot_be_decoded_says_which(tmp_path: Path):
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(nested(IMPLICIT_VR_LITTLE_ENDIAN, 1000, undefined=True))
    with pytest.raises(DatasetError, match=r"broken\.dcm cannot be decoded"):
        read_file(str(broken))
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "absent.dcm"))


# ---- conversion


def as_little_endian(dataset: Dataset, syntax: str) -> bytes:
    """The bytes of the pixel data as words of little endian.

    An OW is of 16-bit words, whatever they mean (PS3.5 §6.2). Of pixels with 1 or 32 bits in big endian ``pixel_array``
    makes something else; DCMTK's dcmconv converts them as it is done here.
    """
    pixels: bytes = dataset.PixelData
    if syntax != EXPLICIT_VR_BIG_ENDIAN or dataset["PixelData"].VR != "OW":
        return pixels
    return numpy.frombuffer(pixels, "<u2").byteswap().tobytes()


UNCOMPRESSED_FILES = [path for path in WHOLE if storable_files()[path].transfer_syntax_uid in CONVERTIBLE]


@EVERY_TARGET
@pytest.mark.parametrize("path", UNCOMPRESSED_FILES, ids=lambda path: path.name)
def test_conversion_between_uncompressed_syntaxes_keeps_everything(path: Path, target: str):
    source = storable_files()[path].transfer_syntax_uid
    dataset = read(path)
    converted = decoded(target, convert(dataset, source, target))
    assert dataset == read(path)
    assert converted.keys() == dataset.keys()
    if PIXEL_DATA not in dataset:
        return
    back = decoded(source, convert(converted, target, source))
    for each, syntax in ((converted, target), (back, source)):
        assert as_little_endian(each, syntax) == as_little_endian(dataset, source)
        if dataset.BitsAllocated in (8, 16):
            assert (each.pixel_array == dataset.pixel_array).all()


@pytest.mark.parametrize(("vr", "size"), [("OW", 2), ("OF", 4), ("OL", 4), ("OD", 8), ("OV", 8), ("OB", 1), ("UN", 1)])
def test_each_vr_of_words_is_swapped_by_its_size_also_in_sequences(vr: str, size: int):
    value = bytes(range(16))
    item = Dataset()
    item.add_new(0x00091002, vr, value)
    dataset = Dataset()
    dataset.AnatomicRegionSequence = Sequence([item])
    dataset.add_new(0x00091002, vr, value)
    expected = b"".join(value[at : at + size][::-1] for at in range(0, 16, size))
    big = decoded(EXPLICIT_VR_BIG_ENDIAN, convert(dataset, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN))
    assert big[0x00091002].value == expected
    assert big.AnatomicRegionSequence[0][0x00091002].value == expected
    assert dataset[0x00091002].value == value
    assert item[0x00091002].value == value
    little = convert(big, EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert decoded(EXPLICIT_VR_LITTLE_ENDIAN, little) == dataset
    # The source that is named counts, not how the dataset was read.
    again = decoded(EXPLICIT_VR_BIG_ENDIAN, encode(big, EXPLICIT_VR_BIG_ENDIAN))
    swapped = decoded(EXPLICIT_VR_BIG_ENDIAN, convert(again, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN))
    assert swapped[0x00091002].value == value


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_lookup_tables_whose_vr_depends_on_others_are_swapped(syntax: str):
    """LUT Data is US or OW, Smallest Pixel Value US or SS: in implicit VR the values do not say."""
    dataset = Dataset()
    dataset.BitsAllocated = 16
    dataset.PixelRepresentation = 1
    dataset.add_new(0x00280106, "SS", -2)
    item = Dataset()
    item.add_new(0x00283002, "US", [3, 0, 16])
    item.add_new(0x00283006, "OW", b"\1\2\3\4\5\6")
    dataset.ModalityLUTSequence = Sequence([item])
    sent = decoded(syntax, encode(dataset, syntax))
    big = decoded(EXPLICIT_VR_BIG_ENDIAN, convert(sent, syntax, EXPLICIT_VR_BIG_ENDIAN))
    assert big.SmallestImagePixelValue == -2
    assert list(big.ModalityLUTSequence[0].LUTDescriptor) == [3, 0, 16]
    lut = big.ModalityLUTSequence[0][0x00283006]
    numbers = list(lut.value) if lut.VR == "US" else [int(each) for each in numpy.frombuffer(lut.value, ">u2")]
    assert numbers == [0x0201, 0x0403, 0x0605]


def test_words_of_odd_length_are_padded_before_they_are_swapped():
    dataset = Dataset()
    dataset.add_new(PIXEL_DATA, "OW", b"\1\2\3")
    big = decoded(EXPLICIT_VR_BIG_ENDIAN, convert(dataset, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN))
    assert big.PixelData == b"\2\1\0\3"


@pytest.mark.parametrize("value", [b"\1\2\3", b"\1\2\3\4\5\6"], ids=len)
def test_what_is_no_number_of_words_is_refused(value: bytes):
    dataset = Dataset()
    dataset.add_new(0x00091002, "OF", value)
    with pytest.raises(DatasetError, match=r"\(0009,1002\): ValueError"):
        convert(dataset, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)


def test_a_value_that_cannot_be_read_is_refused():
    sent = b"\x28\0\x10\0US\3\0abc"
    with pytest.raises(DatasetError, match=r"\(0028,0010\): "):
        convert(decoded(EXPLICIT_VR_LITTLE_ENDIAN, sent), EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)


@EVERY_TARGET
@pytest.mark.parametrize(
    "path",
    [path for path in WHOLE if storable_files()[path].transfer_syntax_uid == RLELossless],
    ids=lambda path: path.name,
)
def test_rle_is_decompressed(path: Path, target: str):
    dataset = read_file(str(path))
    pixels = dataset.pixel_array
    instance = dataset.SOPInstanceUID
    for source in (dataset, decode(received(path))):
        before = deepcopy(source)
        converted = decoded(target, convert(source, RLELossless, target))
        assert source == before
        assert source.file_meta.TransferSyntaxUID == RLELossless
        assert converted.SOPInstanceUID == instance
        if dataset.BitsAllocated < 32 or target != EXPLICIT_VR_BIG_ENDIAN:
            assert (converted.pixel_array == pixels).all()


def test_colours_that_were_compressed_without_loss_are_not_converted():
    dataset = Dataset()
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "YBR_FULL"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 8, 8, 7
    dataset.PixelRepresentation = 0
    samples = numpy.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
    dataset.file_meta = FileMetaDataset()
    dataset.PixelData = samples.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    dataset.set_original_encoding(False, True)
    dataset.compress(RLELossless, generate_instance_uid=False)
    converted = decoded(EXPLICIT_VR_LITTLE_ENDIAN, convert(dataset, RLELossless, EXPLICIT_VR_LITTLE_ENDIAN))
    assert converted.PhotometricInterpretation == "YBR_FULL"
    by_plane = converted.get("PlanarConfiguration") == 1
    expected = samples.transpose(2, 0, 1) if by_plane else samples
    assert converted.PixelData == expected.tobytes()


def test_compressed_data_that_pydicom_cannot_decompress_is_refused():
    dataset = read_file(str(FILES / "SC_rgb_jpeg_gdcm.dcm"))
    fragments = encapsulate([b"this is no JPEG "])
    dataset.PixelData = fragments
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    with pytest.raises(DatasetError, match=f"pixel data in {syntax} cannot be decompressed"):
        convert(dataset, syntax, EXPLICIT_VR_LITTLE_ENDIAN)
    assert dataset.PixelData == fragments


def test_without_pixels_there_is_nothing_to_decompress():
    path = FILES / "UN_sequence.dcm"
    syntax = storable_files()[path].transfer_syntax_uid
    assert syntax not in CONVERTIBLE
    converted = convert(decode(received(path)), syntax, IMPLICIT_VR_LITTLE_ENDIAN)
    assert decoded(IMPLICIT_VR_LITTLE_ENDIAN, converted) == read(path)


def test_nothing_is_compressed_here():
    with pytest.raises(DatasetError, match="send it as it is"):
        convert(sample(), EXPLICIT_VR_LITTLE_ENDIAN, RLELossless)


# ---- pixel data under a transfer syntax in which it would be misread


def image(pixels: bytes, undefined: bool) -> Dataset:
    dataset = Dataset()
    dataset.BitsAllocated = 8
    dataset.add_new(PIXEL_DATA, "OB", pixels)
    dataset["PixelData"].is_undefined_length = undefined
    return dataset


@EVERY_TARGET
def test_compressed_pixel_data_is_not_passed_off_as_uncompressed(target: str):
    made = image(encapsulate([b"fragment"]), undefined=True)
    got = decoded(RLELossless, encode(made, RLELossless))
    for dataset in (made, got):
        with pytest.raises(DatasetError, match="its pixel data is compressed"):
            encode(dataset, target)


def test_uncompressed_pixel_data_is_not_passed_off_as_compressed():
    made = image(b"12345678", undefined=False)
    got = decoded(EXPLICIT_VR_LITTLE_ENDIAN, encode(made, EXPLICIT_VR_LITTLE_ENDIAN))
    for dataset in (made, got):
        with pytest.raises(DatasetError, match="its pixel data is not compressed"):
            encode(dataset, JPEGBaseline8Bit)


def test_fragments_get_their_undefined_length_as_in_files():
    data = encode(image(encapsulate([b"fragment"]), undefined=False), JPEGBaseline8Bit)
    assert data.endswith(b"fragment\xfe\xff\xdd\xe0\0\0\0\0")
    assert decoded(JPEGBaseline8Bit, data)["PixelData"].is_undefined_length


@pytest.mark.parametrize("undefined", [False, True])
def test_of_private_transfer_syntaxes_nothing_is_known(undefined: bool):
    pixels = encapsulate([b"fragment"]) if undefined else b"12345678"
    assert decoded("1.2.3.4", encode(image(pixels, undefined), "1.2.3.4")).PixelData.startswith(pixels)


# ---- deflate


@pytest.mark.parametrize("extra", range(8))
def test_deflated_datasets_of_odd_length_are_padded(extra: int):
    dataset = Dataset()
    dataset.PatientID = "x" * extra
    data = encode(dataset, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert len(data) % 2 == 0
    plain = encode(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    assert inflate(data) == plain
    assert inflate(data.removesuffix(b"\0") + b"\0\0") == plain


def test_odd_and_even_deflated_lengths_both_occur_unpadded():
    lengths = {len(_deflated(b"x" * size)) % 2 for size in range(20)}
    assert lengths == {0, 1}
    for size in range(20):
        assert inflate(_deflated(b"x" * size)) == b"x" * size


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff\xff", b"\x07", zlib.compress(b"with a header")], ids=repr)
def test_what_is_not_deflated_is_refused(data: bytes):
    with pytest.raises(DatasetError, match="deflated dataset"):
        inflate(data)
    with pytest.raises(DatasetError):
        decoded(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, data)


def test_a_deflated_dataset_that_is_cut_off_is_refused():
    data = _deflated(random.Random(0).randbytes(1000))
    for kept in (1, 10, len(data) - 1):
        with pytest.raises(DatasetError, match="cut off"):
            inflate(data[:kept])


def test_a_deflate_bomb_ends_at_the_limit():
    bomb = _deflated(bytes(64 << 20))
    assert len(bomb) < 70_000
    encoded = Encoded(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bomb)
    encoded.inflated = 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="more than 1048576 bytes"):
            decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_what_follows_a_deflated_dataset_is_ignored_however_much():
    assert inflate(_deflated(b"dataset") + bytes(10 << 20)) == b"dataset"


def test_a_large_deflated_dataset_is_held_once():
    large = random.Random(0).randbytes(1 << 20) * 16
    deflated = _deflated(large)
    tracemalloc.start()
    try:
        assert inflate(deflated) == large
        assert tracemalloc.get_traced_memory()[1] < 17 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_itself_is_allowed():
    assert inflate(_deflated(bytes(1000)), 1000) == bytes(1000)
    for size in (1001, 1010, 1258, 1259, 5000):
        with pytest.raises(DatasetError):
            inflate(_deflated(bytes(size)), 1000)


# ---- bytes that lie


def outcome(syntax: str, data: bytes) -> Dataset | DatasetError:
    """What decoding gives; anything else that is raised fails the test."""
    try:
        return decoded(syntax, data)
    except DatasetError as error:
        return error


def element(vr: str, value: bytes, length: int | None = None) -> bytes:
    """(0010,0020) in explicit VR little endian."""
    size = len(value) if length is None else length
    layout = "<HH2sHI" if vr in ("OB", "UN", "SQ", "UT") else "<HH2sH"
    fields = (0, size) if layout.endswith("I") else (size,)
    return pack(layout, 0x0010, 0x0020, vr.encode(), *fields) + value


BEFORE = b"\x08\0\x05\0CS\x0a\0ISO_IR 100"


@pytest.mark.parametrize("vr", ["LO", "OB", "UN", "SQ", "UT"])
@pytest.mark.parametrize("length", [9, 10, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE])
def test_a_length_beyond_the_end_is_refused(vr: str, length: int):
    if vr == "LO" and length > 0xFFFF:
        length >>= 16
    with pytest.raises(DatasetError, match=r"cut off .* within \(0010,0020\)"):
        decoded(EXPLICIT_VR_LITTLE_ENDIAN, BEFORE + element(vr, b"12345678", length))


def test_a_length_beyond_the_end_is_refused_in_the_very_first_tag_too():
    with pytest.raises(DatasetError, match=r"within \(0000,0000\)"):
        decoded(IMPLICIT_VR_LITTLE_ENDIAN, b"\0\0\0\0\x09\0\0\0" + b"12345678")


@pytest.mark.parametrize("vr", ["OB", "UN", "SQ"])
def test_an_undefined_length_without_its_end_is_refused(vr: str):
    for value in (b"", b"12345678", b"\xfe\xff\0\xe0\xff\xff\xff\xff", b"\xfe\xff\0\xe0\4\0\0\0"):
        with pytest.raises(DatasetError):
            decoded(EXPLICIT_VR_LITTLE_ENDIAN, BEFORE + element(vr, value, 0xFFFFFFFF))


def test_what_follows_a_stray_delimiter_is_not_dropped_silently():
    stray = BEFORE + b"\xfe\xff\x0d\xe0\0\0\0\0"
    assert len(decoded(EXPLICIT_VR_LITTLE_ENDIAN, stray)) == 1
    with pytest.raises(DatasetError, match="outside a sequence"):
        decoded(EXPLICIT_VR_LITTLE_ENDIAN, stray + element("LO", b"12"))


@pytest.mark.parametrize("syntax", CONVERTIBLE, ids=SYNTAX_NAMES.get)
def test_a_dataset_cut_anywhere_gives_whole_elements_or_an_error(syntax: str):
    whole = sample()
    data = encode(whole, syntax)
    plain = inflate(data) if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else data
    for cut in range(len(plain)):
        sent = _deflated(plain[:cut]) if plain is not data else plain[:cut]
        found = outcome(syntax, sent)
        if isinstance(found, Dataset):
            assert all(found[tag] == whole[tag] for tag in found.keys())  # noqa: SIM118 - it iterates over elements
            assert len(plain[:cut]) - len(encode(found, syntax if plain is data else UNCOMPRESSED[1])) < 8


SEEDS = {
    (syntax, encode(sample(), syntax)) for syntax in CONVERTIBLE if syntax != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
} | {
    (received(FILES / name).transfer_syntax, dataset_bytes(FILES / name))
    for name in ("rtplan.dcm", "nested_priv_SQ.dcm", "UN_sequence.dcm", "MR_small_RLE.dcm")
    if FILES / name in storable_files()
}


DAMAGE = st.sampled_from([b"\0", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"SQ", b"\xfe\xff\0\xe0"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_damaged_bytes_give_a_dataset_or_an_error(seed: tuple[str, bytes], data: st.DataObject):
    syntax, original = seed
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damage = data.draw(DAMAGE)
        damaged[at : at + len(damage)] = damage
    assert isinstance(outcome(syntax, bytes(damaged)), Dataset | DatasetError)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*CONVERTIBLE, str(RLELossless), "1.2.3"]), st.binary(max_size=200))
@example(IMPLICIT_VR_LITTLE_ENDIAN, b"\0" * 200)
@example(IMPLICIT_VR_LITTLE_ENDIAN, b"\0" * 4 + b"\1" * 20)
@example(EXPLICIT_VR_LITTLE_ENDIAN, b"\x10\0\x10\0\0\0\xff\xff\xff\xff")
def test_any_bytes_give_a_dataset_or_an_error(syntax: str, data: bytes):
    assert isinstance(outcome(syntax, data), Dataset | DatasetError)


# ---- sequences, nested deeply

DEPTHS = pytest.mark.parametrize("depth", [100, 300, 100_000])


def nested(syntax: str, depth: int, *, undefined: bool, vr: bytes = b"SQ") -> bytes:
    """Sequences of one item each, one within the other."""
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    explicit = syntax != IMPLICIT_VR_LITTLE_ENDIAN
    tail = pack(order + "HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)

    def level(inner: int) -> bytes:
        item, sequence = (0xFFFFFFFF, 0xFFFFFFFF) if undefined else (inner, inner + 8)
        tag = pack(order + "HH", 0x0040, 0xA730)
        header = tag + (vr + b"\0\0" if explicit else b"") + pack(order + "I", sequence)
        return header + pack(order + "HHI", 0xFFFE, 0xE000, item)

    size = len(level(0))
    heads = b"".join(level(size * inner) for inner in range(depth - 1, -1, -1))
    return heads + tail * depth if undefined else heads


def depth_of(dataset: Dataset) -> int:
    """How deep the sequences of a decoded dataset can be followed."""
    depth = 0
    while "ContentSequence" in dataset:
        dataset = dataset.ContentSequence[0]
        depth += 1
    return depth


@DEPTHS
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("syntax", CONVERTIBLE, ids=SYNTAX_NAMES.get)
def test_deep_sequences_give_a_dataset_or_an_error(syntax: str, undefined: bool, depth: int):
    data = nested(syntax, depth, undefined=undefined)
    found = outcome(syntax, _deflated(data) if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else data)
    if depth == 100:
        assert isinstance(found, Dataset)
        assert depth_of(found) == 100
    elif undefined and depth == 100_000:
        assert isinstance(found, DatasetError)
        assert "RecursionError" in str(found)
    else:
        assert isinstance(found, Dataset | DatasetError)


@DEPTHS
def test_deep_sequences_of_unknown_vr_give_a_dataset_or_an_error(depth: int):
    data = nested(EXPLICIT_VR_LITTLE_ENDIAN, depth, undefined=True, vr=b"UN")
    assert isinstance(outcome(EXPLICIT_VR_LITTLE_ENDIAN, data), Dataset | DatasetError)


@pytest.fixture
def shallow() -> Iterator[None]:
    """As on a thread with little of its stack left."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(_frames() + 150)
    yield
    sys.setrecursionlimit(limit)


def _frames() -> int:
    depth, frame = 0, sys._getframe()  # pyright: ignore[reportPrivateUsage] - the only way to count
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def wrapped(dataset: Dataset, depth: int) -> Dataset:
    """A dataset at the bottom of that many sequences."""
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([dataset])
        dataset = outer
    return dataset


@pytest.mark.usefixtures("shallow")
def test_what_is_too_deep_for_the_stack_cannot_be_decoded_or_encoded():
    data = nested(IMPLICIT_VR_LITTLE_ENDIAN, 100, undefined=True)
    with pytest.raises(DatasetError, match="RecursionError"):
        decoded(IMPLICIT_VR_LITTLE_ENDIAN, data)
    for target in (EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
        with pytest.raises(DatasetError, match="RecursionError"):
            convert(wrapped(sample(), 100), EXPLICIT_VR_LITTLE_ENDIAN, target)
    assert decoded(IMPLICIT_VR_LITTLE_ENDIAN, encode(sample(), IMPLICIT_VR_LITTLE_ENDIAN)) == sample()


@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("target", UNCOMPRESSED, ids=SYNTAX_NAMES.get)
@pytest.mark.parametrize("source", UNCOMPRESSED, ids=SYNTAX_NAMES.get)
def test_a_hundred_levels_can_be_converted(source: str, target: str, undefined: bool):
    data = nested(source, 100, undefined=undefined)
    assert convert(decoded(source, data), source, target) == nested(target, 100, undefined=undefined)


@pytest.mark.parametrize("depth", [datasets.MAX_NESTED + 1, 300])
def test_deeper_sequences_are_not_encoded(depth: int):
    assert encode(wrapped(Dataset(), datasets.MAX_NESTED), EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(DatasetError, match="nested more than 128 deep"):
        encode(wrapped(Dataset(), depth), EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("source", UNCOMPRESSED, ids=SYNTAX_NAMES.get)
def test_a_hundred_thousand_levels_are_sent_on_as_they_came_or_not_at_all(source: str):
    data = nested(source, 100_000, undefined=False)
    assert encode(decoded(source, data), source) == data
    for target in UNCOMPRESSED:
        if target != source:
            with pytest.raises(DatasetError, match=r"nested more than 128 deep|RecursionError"):
                convert(decoded(source, data), source, target)


def test_a_bad_value_at_any_depth_is_told_in_few_words_and_without_the_value():
    """With pydicom alone each level triples the message: at 14 levels it had more than a gigabyte."""
    bad = Dataset()
    bad["PatientID"] = DataElement(0x00100020, "US", "CITIZEN", already_converted=True)
    with pytest.raises(DatasetError) as caught:
        encode(wrapped(bad, 100), EXPLICIT_VR_LITTLE_ENDIAN)
    assert "(0010,0020): " in str(caught.value)
    assert "CITIZEN" not in str(caught.value)
    assert len(str(caught.value)) < 150
