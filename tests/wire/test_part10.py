"""The head of a DICOM file, against what pydicom reads, against hostile bytes, and at every cut."""

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset

from rxdicom.errors import ArgumentError, InvalidFile
from rxdicom.wire.part10 import HEAD_LIMIT, MEDIA_STORAGE_DIRECTORY, FileHead, head_template, read_head
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

DATA = Path(pydicom.__file__).parent / "data"
FILES = sorted(path for path in DATA.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
NAMES = [path.relative_to(DATA).as_posix() for path in FILES]

NOT_DICOM = "not a DICOM file"
REFUSED = {
    "test_files/empty_charset_LEI.dcm": "no SOP Class UID",  # neither in the data set nor in the meta
    "test_files/meta_missing_tsyntax.dcm": "no Transfer Syntax UID",  # private group 0001, from which nothing shows
    "test_files/nested_priv_SQ.dcm": "no SOP Class UID",  # empty in the meta, absent in the data set
    "test_files/no_meta.dcm": NOT_DICOM,  # one stray byte before a data set without file meta information
}
"""The files named .dcm that cannot be stored."""

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"
OF_ENCODING: dict[tuple[bool | None, bool | None], str] = {
    (True, True): IMPLICIT_VR_LITTLE_ENDIAN,
    (False, True): EXPLICIT_VR_LITTLE_ENDIAN,
    (False, False): EXPLICIT_VR_BIG_ENDIAN,
}


def read_file(name: str) -> bytes:
    return (DATA / name).read_bytes()


def by_pydicom(data: bytes) -> FileDataset:
    """What pydicom makes of it; its signature holds a bare ``PathLike``, which strict typing calls unknown."""
    return pydicom.dcmread(BytesIO(data), force=True)  # pyright: ignore[reportUnknownMemberType]


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidFile) as caught:
        read_head(data, final=True)
    return str(caught.value)


def encode_head(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    class_uid: str = IMPLEMENTATION_CLASS_UID,
    version_name: str = IMPLEMENTATION_VERSION_NAME,
    title: str = "",
) -> bytes:
    heads = head_template(
        sop_class_uid,
        transfer_syntax_uid,
        implementation_class_uid=class_uid,
        implementation_version_name=version_name,
        source_ae_title=title,
    )
    return heads.head(sop_instance_uid)


def head_of(head: FileHead) -> bytes:
    return encode_head(head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid, title="SENDER")


def element(group: int, number: int, vr: str, value: bytes, coding: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    order = ">" if coding == EXPLICIT_VR_BIG_ENDIAN else "<"
    tag = struct.pack(order + "HH", group, number)
    if coding == IMPLICIT_VR_LITTLE_ENDIAN:
        return tag + struct.pack("<I", len(value)) + value
    if vr in ("OB", "SQ", "UN", "UT"):
        return tag + vr.encode() + bytes(2) + struct.pack(order + "I", len(value)) + value
    return tag + vr.encode() + struct.pack(order + "H", len(value)) + value


def dataset(
    coding: str = EXPLICIT_VR_LITTLE_ENDIAN, sop_class: bytes = b"1.2\0", instance: bytes = b"1.9.9\0"
) -> bytes:
    return b"".join(
        element(group, number, vr, value, coding)
        for group, number, vr, value in (
            (8, 0x05, "CS", b"ISO_IR 100"),
            (8, 0x16, "UI", sop_class),
            (8, 0x18, "UI", instance),
            (8, 0x20, "DA", b"20240101"),
        )
        if value
    )


def meta(*, coding: str = EXPLICIT_VR_LITTLE_ENDIAN, length: int | None = None, **uids: bytes) -> bytes:
    """Group 0002 with the values given for ``sop_class``, ``instance`` and ``syntax``; ``length`` may lie."""
    numbers = {"sop_class": 2, "instance": 3, "syntax": 0x10}
    group_length = b"" if length is None else element(2, 0, "UL", struct.pack("<I", length), coding)
    version = element(2, 1, "OB", b"\0\1", coding)
    return group_length + version + b"".join(element(2, numbers[name], "UI", uids[name], coding) for name in uids)


PREAMBLE = bytes(128) + b"DICM"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", NAMES)
def test_reads_what_pydicom_reads(name: str) -> None:
    data = read_file(name)
    reference = by_pydicom(data)
    file_meta = reference.file_meta
    if name in REFUSED:
        assert REFUSED[name] in refusal(data)
        return
    if file_meta.get("MediaStorageSOPClassUID") == MEDIA_STORAGE_DIRECTORY:
        assert "DICOMDIR" in refusal(data)
        return
    if not name.endswith(".dcm") and data[128:132] != b"DICM":
        assert NOT_DICOM in refusal(data)
        return
    head = read_head(data[:8192], final=len(data) <= 8192)
    assert head is not None
    assert head.sop_class_uid == reference.get("SOPClassUID", file_meta.get("MediaStorageSOPClassUID"))
    assert head.sop_instance_uid == reference.get("SOPInstanceUID", file_meta.get("MediaStorageSOPInstanceUID"))
    assert head.transfer_syntax_uid == file_meta.get("TransferSyntaxUID", OF_ENCODING[reference.original_encoding])
    again = by_pydicom(head_of(head) + data[head.offset :])
    assert Dataset(again) == Dataset(reference)


def test_there_is_something_to_compare() -> None:
    """So that a moved folder cannot make the comparison above an empty one."""
    storable = [name for name in NAMES if name.endswith(".dcm") and name not in REFUSED and "DICOMDIR" not in name]
    assert len(storable) >= 95
    assert not REFUSED.keys() - set(NAMES)


def test_dataset_uids_win_over_the_meta() -> None:
    """A receiver compares the command with the data set (PS3.7 §9.1.1.1)."""
    data = read_file("test_files/rtdose.dcm")
    file_meta = by_pydicom(data).file_meta
    head = read_head(data)
    assert head is not None
    assert head.sop_instance_uid == "1.9.999.999.99.9.9999.9999.20030818153516"
    assert file_meta.MediaStorageSOPInstanceUID == "1.2.999.999.99.9.9999.9999.20030818153516"


@pytest.mark.parametrize("length", [None, 0, 4, 100_000, 0xFFFFFFFF], ids=str)
@pytest.mark.parametrize("preamble", [PREAMBLE, b""], ids=["preamble", "none"])
@pytest.mark.parametrize("meta_coding", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_any_file_meta_group(length: int | None, preamble: bytes, meta_coding: str) -> None:
    """Group length right, wrong or absent; no preamble; group 0002 in implicit VR."""
    syntax = JPEG_BASELINE.encode()
    group = preamble + meta(coding=meta_coding, length=length, sop_class=b"1.7\0", instance=b"1.8\0", syntax=syntax)
    expected = FileHead("1.2", "1.9.9", JPEG_BASELINE, len(group))
    assert read_head(group + dataset(), final=True) == expected


@pytest.mark.parametrize("coding", list(OF_ENCODING.values()))
@pytest.mark.parametrize("start", [b"", PREAMBLE, PREAMBLE + meta(instance=b"1.8\0")], ids=["bare", "prefix", "meta"])
def test_an_absent_transfer_syntax_is_seen_in_the_dataset(coding: str, start: bytes) -> None:
    assert read_head(start + dataset(coding), final=True) == FileHead("1.2", "1.9.9", coding, len(start))


@pytest.mark.parametrize("coding", list(OF_ENCODING.values()))
@pytest.mark.parametrize("declared", list(OF_ENCODING.values()))
def test_a_wrong_uncompressed_syntax_is_corrected(coding: str, declared: str) -> None:
    """What is sent as it lies must be announced as it lies."""
    group = PREAMBLE + meta(syntax=declared.encode())
    assert read_head(group + dataset(coding), final=True) == FileHead("1.2", "1.9.9", coding, len(group))


@pytest.mark.parametrize("coding", list(OF_ENCODING.values()))
@pytest.mark.parametrize("declared", ["1.2.840.113619.5.2", JPEG_BASELINE])
def test_other_syntaxes_are_kept_however_the_dataset_is_encoded(coding: str, declared: str) -> None:
    group = PREAMBLE + meta(syntax=declared.encode())
    assert read_head(group + dataset(coding), final=True) == FileHead("1.2", "1.9.9", declared, len(group))


def test_uids_fall_back_to_the_meta_one_by_one() -> None:
    group = PREAMBLE + meta(sop_class=b"1.7\0", instance=b"1.8\0", syntax=b"1.2.840.10008.1.2.1\0")
    for sop_class, instance, expected in (
        (b"", b"", ("1.7", "1.8")),
        (b"1.2\0", b"", ("1.2", "1.8")),
        (b"", b"1.9\0", ("1.7", "1.9")),
        (b"\0\0", b"  ", ("1.7", "1.8")),
    ):
        head = read_head(group + dataset(sop_class=sop_class, instance=instance), final=True)
        assert head is not None
        assert (head.sop_class_uid, head.sop_instance_uid) == expected


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0\0", b""])
@pytest.mark.parametrize("uid", ["1.2.3", "1.02.003", "1." + "9" * 90])
def test_tolerated_uids(uid: str, padding: bytes) -> None:
    head = read_head(dataset(instance=uid.encode() + padding), final=True)
    assert head is not None
    assert head.sop_instance_uid == uid


SEQUENCE_END = bytes.fromhex("fe ff dd e0 00 00 00 00")
ITEM_END = bytes.fromhex("fe ff 0d e0 00 00 00 00")
ITEM = bytes.fromhex("fe ff 00 e0 ff ff ff ff")
UNDEFINED = b"\xff" * 4


def language_codes(coding: str, depth: int) -> bytes:
    """(0008,0006), of undefined length, holding an item with decoy UIDs and, ``depth`` times, itself."""
    order = ">" if coding == EXPLICIT_VR_BIG_ENDIAN else "<"
    delimiters = [ITEM, ITEM_END, SEQUENCE_END]
    if order == ">":
        delimiters = [struct.pack(">HHI", *struct.unpack("<HHI", raw)) for raw in delimiters]
    item, item_end, sequence_end = delimiters
    explicit = b"" if coding == IMPLICIT_VR_LITTLE_ENDIAN else b"SQ\0\0"
    start = struct.pack(order + "HH", 8, 6) + explicit + UNDEFINED
    inner = dataset(coding, b"6.6\0", b"6.6.6\0") + (language_codes(coding, depth - 1) if depth else b"")
    of_length = struct.pack(order + "HHI", 0xFFFE, 0xE000, 4 + 4) + bytes(8)
    return start + of_length + item + inner + item_end + sequence_end


@pytest.mark.parametrize("depth", [0, 1, 20])
@pytest.mark.parametrize("coding", list(OF_ENCODING.values()))
def test_sequences_before_the_uids_are_skipped(coding: str, depth: int) -> None:
    """Language Code Sequence (0008,0006) is the one that the standard puts there."""
    data = dataset(coding)
    first = len(element(8, 5, "CS", b"ISO_IR 100", coding))
    with_sequence = data[:first] + language_codes(coding, depth) + data[first:]
    assert read_head(with_sequence, final=True) == FileHead("1.2", "1.9.9", coding, 0)


def test_what_cannot_be_skipped_leaves_the_meta_to_answer() -> None:
    group = PREAMBLE + meta(sop_class=b"1.7\0", instance=b"1.8\0", syntax=b"1.2.840.10008.1.2.1\0")
    first, rest = dataset()[:18], dataset()[18:]
    expected = FileHead("1.7", "1.8", EXPLICIT_VR_LITTLE_ENDIAN, len(group))
    for lost in (
        struct.pack("<HH", 8, 6) + b"UN\0\0" + UNDEFINED,  # implicit VR inside
        struct.pack("<HH", 8, 6) + b"ZZ\4\0" + bytes(4),  # a VR that nobody knows
        struct.pack("<HH", 8, 6) + b"OB\0\0\xf0\xff\xff\x7f",  # 2 GB
    ):
        assert read_head(group + first + lost + rest) == expected


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("syntax", [DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95"])
def test_deflated(syntax: str) -> None:
    group = PREAMBLE + meta(sop_class=b"1.7\0", instance=b"1.8\0", syntax=syntax.encode())
    data = group + deflate(dataset() + bytes(range(256)) * 16)
    expected = FileHead("1.2", "1.9.9", syntax, len(group))
    assert read_head(data, final=True) == expected
    for cut in range(len(data)):
        assert read_head(data[:cut]) in (None, expected)
    without = group + deflate(element(8, 0x20, "DA", b"20240101"))
    assert read_head(without) == FileHead("1.7", "1.8", syntax, len(group))
    assert "cannot be inflated" in refusal(group + b"\xff" * 64)
    assert "no data set in transfer syntax" in refusal(group + deflate(b"") + bytes(64))


def test_a_deflate_bomb_stays_small() -> None:
    group = PREAMBLE + meta(syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode())
    endless = struct.pack("<HH", 8, 5) + b"UT\0\0" + struct.pack("<I", 0xF0000)
    bomb = (group + deflate(endless + bytes(40_000_000)))[:HEAD_LIMIT]
    assert len(bomb) > 30_000
    tracemalloc.start()
    try:
        assert "no SOP Class UID" in refusal(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2 * HEAD_LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\n", NOT_DICOM),
        (b"Patient: Doe^John\n" * 500, NOT_DICOM),
        (b"PK\3\4" + bytes(5000), NOT_DICOM),
        (b"\x89PNG\r\n\x1a\n" + bytes(5000), NOT_DICOM),
        (bytes(100_000), NOT_DICOM),
        (b"\xff" * 100_000, NOT_DICOM),
        (b"DICM" * 100, "no Transfer Syntax UID"),
        (b"\x08\0\x05\0" + b"\xff\xff\xff\x7f" + bytes(5000), NOT_DICOM),
        (PREAMBLE, "cut off at byte 132"),
        (PREAMBLE + meta(syntax=b"1.2.840.10008.1.2.1\0"), "cut off at byte"),
        (PREAMBLE + meta(syntax=b"1.2.840.10008.1.2.1\0") + bytes(5), "cut off at byte"),
        (PREAMBLE + meta(syntax=b"1.2.840.10008.1.2.1\0") + bytes(5000), "no data set in transfer syntax"),
        (PREAMBLE + meta(syntax=b"junk") + dataset(), "is 'junk', which is no UID"),
        (PREAMBLE + b"\2\0\1\0ZZ\0\0" + dataset(), "cannot be read from byte 132"),
        (PREAMBLE + element(2, 1, "OB", b"\0\1") + b"\2\0\2\0UI\xff\xff" + dataset(), "cut off at byte"),
        (PREAMBLE + meta(sop_class=b"1.7\0", instance=b"1.8\0") + dataset()[:40], "cut off within the data set"),
        (dataset()[:12], "cut off within the data set, at byte 12"),
        (dataset(sop_class=b""), "no SOP Class UID"),
        (dataset(instance=b""), "no SOP Instance UID"),
        (dataset(instance=b"../../etc/passwd"), "is '../../etc/passwd', which is no UID"),
        (dataset(instance=b"1.2\\1.3\0"), "which is no UID"),
        (dataset(instance=b"...."), "which is no UID"),
        (dataset(instance="١.٢".encode()), "which is no UID"),
        (dataset(instance=b"1." + b"2" * 60_000), "which is no UID"),
        (dataset(instance=b"1.2\n1.3\x1b[2J\0"), r"\n1.3\x1b[2J"),
        (dataset(sop_class=MEDIA_STORAGE_DIRECTORY.encode()), "DICOMDIR"),
    ],
)
def test_refused_in_one_line(data: bytes, message: str) -> None:
    said = refusal(data)
    assert message in said
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 300


@pytest.mark.parametrize("data", [b"text " * 1700, b"PK\3\4" + bytes(8192), bytes(8192)], ids=["text", "zip", "zeros"])
def test_junk_is_refused_without_asking_for_more(data: bytes) -> None:
    with pytest.raises(InvalidFile):
        read_head(data[:132])
    assert read_head(data[:131]) is None


def test_the_limit_is_final() -> None:
    """A caller that never says ``final`` gets an answer nevertheless, and no length field asks for more than that."""
    group = PREAMBLE + meta(syntax=b"1.2.840.10008.1.2.1\0") + b"\2\0\2\1OB\0\0"
    to_the_limit = group + struct.pack("<I", HEAD_LIMIT - len(group) - 4)
    assert read_head(to_the_limit + bytes(8192)) is None
    assert read_head(to_the_limit + bytes(HEAD_LIMIT - 1 - len(to_the_limit))) is None
    with pytest.raises(InvalidFile, match="no data set begins within"):
        read_head(to_the_limit + bytes(HEAD_LIMIT))
    with pytest.raises(InvalidFile, match="cannot be read"):
        read_head(group + struct.pack("<I", HEAD_LIMIT - len(group) - 3) + bytes(8192))


def test_a_million_items_are_walked_once() -> None:
    nested = struct.pack("<HHI", 8, 6, 0xFFFFFFFF) + ITEM * (HEAD_LIMIT // 8)
    assert read_head(nested[:8192]) is None
    assert "no SOP Class UID" in refusal(nested)


def test_memoryview_and_more_than_the_limit() -> None:
    data = read_file("test_files/CT_small.dcm")
    assert read_head(memoryview(data)) == read_head(data)
    assert read_head(memoryview(bytearray(data + bytes(2 * HEAD_LIMIT)))) == read_head(data)


CUT = [
    "test_files/CT_small.dcm",
    "test_files/MR_small_implicit.dcm",
    "test_files/MR_small_bigendian.dcm",
    "test_files/image_dfl.dcm",
    "test_files/SC_rgb_rle.dcm",
    "test_files/rtdose.dcm",
    "test_files/rtstruct.dcm",
    "test_files/ExplVR_BigEndNoMeta.dcm",
    "test_files/ExplVR_LitEndNoMeta.dcm",
    "test_files/UN_sequence.dcm",
    "test_files/priv_SQ.dcm",
]


@pytest.mark.parametrize("name", CUT)
def test_every_cut_gives_none_or_the_answer(name: str) -> None:
    data = read_file(name)[:1500]
    answer = read_head(data, final=True)
    answers = [read_head(data[:cut]) for cut in range(len(data))]
    assert answer is not None
    decided = next(cut for cut, head in enumerate(answers) if head is not None)
    assert answers == [None] * decided + [answer] * (len(data) - decided)
    assert decided > min(answer.offset, 131)


@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_off_is_refused_or_answered_rightly(name: str) -> None:
    """Only where it ends exactly between two elements do its UIDs look absent, and the meta answers."""
    data = read_file(name)[:1500]
    answer = read_head(data, final=True)
    assert answer is not None
    for cut in range(len(data)):
        said = outcome(data[:cut], final=True)
        if isinstance(said, FileHead) and said != answer:
            assert name == "test_files/rtdose.dcm"
            assert said == evolve(answer, sop_instance_uid="1.2.999.999.99.9.9999.9999.20030818153516")
            assert data[cut : cut + 2] == b"\x08\0"


HEADS = st.sampled_from([read_file(name)[:1500] for name in CUT])


def outcome(data: bytes, final: bool) -> FileHead | str | None:
    try:
        return read_head(data, final)
    except InvalidFile as error:
        return str(error)


@given(st.binary(max_size=2000), st.sampled_from([b"", PREAMBLE, PREAMBLE + meta(), b"\x08\0", b"\0\x08", b"\2\0"]))
@example(b"", b"")
def test_arbitrary_bytes(tail: bytes, start: bytes) -> None:
    data = start + tail
    for final in (False, True):
        said = outcome(data, final)
        assert said is not None or not final
        assert not isinstance(said, str) or len(said) < 500


@given(HEADS, st.lists(st.tuples(st.integers(0, 1499), st.binary(min_size=1, max_size=8)), max_size=6), st.data())
def test_mutated_heads(head: bytes, changes: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Nothing but InvalidFile, and no answer that more bytes would take back."""
    for at, patch in changes:
        head = head[:at] + patch + head[at + len(patch) :]
    whole = outcome(head, final=True)
    assert whole is not None
    cut = data.draw(st.integers(0, len(head)))
    part = outcome(head[:cut], final=False)
    deflated = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode() in head
    assert part in (None, whole) or (deflated and "cannot be inflated" in str(whole))
    if isinstance(whole, FileHead):
        assert whole.offset < len(head)


UIDS = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True)
UNDEFLATED = st.sampled_from([*OF_ENCODING.values(), JPEG_BASELINE])


@given(UIDS, UIDS, UNDEFLATED, st.text(max_size=16), st.text(max_size=16))
def test_round_trip(sop_class: str, instance: str, syntax: str, version: str, title: str) -> None:
    head = encode_head(sop_class, instance, syntax, version_name=version, title=title)
    coding = syntax if syntax in OF_ENCODING.values() else EXPLICIT_VR_LITTLE_ENDIAN
    bare = element(8, 0x20, "DA", b"20240101", coding)
    assert read_head(head + bare, final=True) == FileHead(sop_class, instance, syntax, len(head))


@pytest.mark.parametrize("title", ["", "SENDER", "ODD"])
def test_encoded_head_as_pydicom_reads_it(title: str) -> None:
    instance = "1.2.826.0.1.3680043.8.498.1"
    head = encode_head(CT, instance, EXPLICIT_VR_LITTLE_ENDIAN, title=title)
    read = by_pydicom(head + dataset()).file_meta
    assert read.FileMetaInformationGroupLength == len(head) - 132 - 12
    assert read.FileMetaInformationVersion == b"\0\1"
    assert read.MediaStorageSOPClassUID == CT
    assert read.MediaStorageSOPInstanceUID == instance
    assert read.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert read.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert read.get("SourceApplicationEntityTitle", "") == title
    assert all(not length % 2 for length in explicit_lengths(head[132:]))


def explicit_lengths(group: bytes) -> list[int]:
    lengths: list[int] = []
    at = 0
    while at < len(group):
        long = group[at + 4 : at + 6] == b"OB"
        (length,) = struct.unpack_from("<I" if long else "<H", group, at + (8 if long else 6))
        lengths.append(length)
        at += (12 if long else 8) + length
    assert at == len(group)
    return lengths


def test_golden_head() -> None:
    head = encode_head("1.2", "1.2.3", "1.2.840.10008.1.2", class_uid="1.9", version_name="V")
    assert head == bytes(128) + b"DICM" + (
        b"\2\0\0\0UL\4\0\x58\0\0\0"
        b"\2\0\1\0OB\0\0\2\0\0\0\0\1"
        b"\2\0\2\0UI\4\x001.2\0"
        b"\2\0\3\0UI\6\x001.2.3\0"
        b"\2\0\x10\0UI\x12\x001.2.840.10008.1.2\0"
        b"\2\0\x12\0UI\4\x001.9\0"
        b"\2\0\x13\0SH\2\0V "
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"\(0002,0003\)"):
        encode_head("1.2", "1" * 65535, "1.2.3")
