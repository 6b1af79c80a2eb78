"""The head of a DICOM file (PS3.10 §7): what it holds, how it is encoded, where its data set begins. Works on bytes
that others have read and does no I/O, so that a file can be sent as it lies on disk, never decoded."""

import zlib
from struct import Struct, pack
from typing import Final

from attrs import frozen

from rxdicom.errors import ArgumentError, InvalidFile
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
    clean_uid,
)

HEAD_LIMIT: Final = 1 << 20
"""Bytes at the start of a file that :func:`read_head` looks at, at most."""

MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"

_INFLATE_LIMIT = 1 << 16
_UID_LIMIT = 128
"""Twice what PS3.5 §9.1 allows: archives hold files with longer UIDs, and it is the receiver's to judge them."""

_FIRST_LENGTH_LIMIT = 1 << 13
"""No data set begins with a longer element; more than that is another encoding, misread as an implicit VR length."""

_DEFLATED = frozenset({DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Deflated, and the two JPIP referenced deflate syntaxes (PS3.5 A.5, A.7, A.12): the whole data set is deflated."""

_PREFIX_END = 132
_META_GROUP = b"\x02\0"
_UNDEFINED = 0xFFFFFFFF
_ITEM_GROUP = 0xFFFE
_DELIMITERS = frozenset({0xFFFEE00D, 0xFFFEE0DD})
_CLASS, _INSTANCE, _SYNTAX = 0x00020002, 0x00020003, 0x00020010
_DATASET_CLASS, _DATASET_INSTANCE = 0x00080016, 0x00080018
_WANTED = frozenset({_CLASS, _INSTANCE, _SYNTAX, _DATASET_CLASS, _DATASET_INSTANCE})
_META_TAGS = (0x00020000, 0x0002FFFF)
_DATASET_TAGS = (0, _DATASET_INSTANCE)

_VR_16 = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_VR_32 = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_DONE, _SHORT, _LOST = "done", "short", "lost"


@frozen
class FileHead:
    """What a C-STORE needs of a file.

    The SOP Class and Instance UIDs are those of the data set, (0008,0016) and (0008,0018), because a receiver compares
    them with the command (PS3.7 §9.1.1.1); the file meta information answers only where the data set lacks them.
    ``transfer_syntax_uid`` is how the data set is encoded, ``offset`` the byte of the file where it begins. From there
    on the file is sent as it is.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


@frozen
class _Coding:
    """How elements are encoded (PS3.5 §7.1): ``header`` reads group, element, VR and a length of 16 bits."""

    syntax: str
    explicit: bool
    header: Struct
    length: Struct
    vr_16: frozenset[bytes]


_IMPLICIT = _Coding(IMPLICIT_VR_LITTLE_ENDIAN, False, Struct("<HH2sH"), Struct("<I"), frozenset())
_LITTLE = _Coding(EXPLICIT_VR_LITTLE_ENDIAN, True, Struct("<HH2sH"), Struct("<I"), _VR_16)
_BIG = _Coding(EXPLICIT_VR_BIG_ENDIAN, True, Struct(">HH2sH"), Struct(">I"), _VR_16)
_CODINGS = {IMPLICIT_VR_LITTLE_ENDIAN: _IMPLICIT, EXPLICIT_VR_BIG_ENDIAN: _BIG}
_CODING_OF_GROUP_8 = {b"\x08\0": _LITTLE, b"\0\x08": _BIG}


def read_head(start: bytes | memoryview, final: bool = False) -> FileHead | None:
    """Read the head of a file from ``start``, its first bytes; 8 KiB nearly always suffice.

    None means that more bytes are needed to decide: call again with more, from the first byte on. ``final`` says that
    there are no more, and then, as with :data:`HEAD_LIMIT` bytes or more, the answer is never None. What is wrong with
    the file, and what to do, is said by :exc:`~rxdicom.errors.InvalidFile`; nothing else is raised, whatever the bytes.

    Read are: files of PS3.10, with a file meta group length that is right, wrong or absent; files without preamble, and
    bare data sets without file meta information; a file meta group in implicit VR; a transfer syntax that is absent, or
    that names another of the uncompressed ones than the data set is in.
    """
    end = min(len(start), HEAD_LIMIT)
    final = final or end == HEAD_LIMIT
    if end < _PREFIX_END and not final:
        return None
    meta_at = _PREFIX_END if bytes(start[128:_PREFIX_END]) == b"DICM" else 0
    values, offset, state = _read_meta(start, meta_at, end)
    if state is _LOST:
        raise InvalidFile(f"the file meta information cannot be read from byte {offset} on; repair it or leave it out")
    if state is _SHORT:
        if final:
            raise InvalidFile(_ends_early(offset, end))
        return None
    declared = _uid(values, "Transfer Syntax UID", _SYNTAX)
    dataset = _read_dataset(start, offset, end, declared, final)
    if dataset is None:
        return None
    coding, found = dataset
    values |= found
    sop_class = _uid(values, "SOP Class UID", _DATASET_CLASS, _CLASS)
    instance = _uid(values, "SOP Instance UID", _DATASET_INSTANCE, _INSTANCE)
    if sop_class == MEDIA_STORAGE_DIRECTORY:
        raise InvalidFile("a DICOMDIR, which cannot be stored over the network; send the files that it refers to")
    if not (sop_class and instance):
        missing = "SOP Instance UID (0008,0018)" if sop_class else "SOP Class UID (0008,0016)"
        raise InvalidFile(f"no {missing}, neither in the data set nor in file meta information; add it or leave it out")
    syntax = coding.syntax if declared in UNCOMPRESSED or not declared else declared
    return FileHead(sop_class, instance, syntax, offset)


def _read_meta(start: bytes | memoryview, at: int, end: int) -> tuple[dict[int, bytes], int, str]:
    """The elements of group 0002 at ``at``, if any: those wanted, where they end, and how the reading ended.

    The group length is not looked at: it may be wrong, and what it would say is seen in the first tag of another group.
    """
    if end - at < 8:
        return {}, at, _SHORT
    first = bytes(start[at : at + 8])
    if first[:2] != _META_GROUP:
        return {}, at, _DONE
    return _scan(start, at, end, _LITTLE if _is_vr(first[4:6]) else _IMPLICIT, *_META_TAGS)


def _read_dataset(
    start: bytes | memoryview, at: int, end: int, declared: str, final: bool
) -> tuple[_Coding, dict[int, bytes]] | None:
    """How the data set at ``at`` is encoded and the UIDs in its head, or None if more bytes are needed to say."""
    offset, limit, size = at, HEAD_LIMIT, end
    if declared in _DEFLATED:
        start, ended = _inflate(start[at:end])
        at, end, limit, final = 0, len(start), _INFLATE_LIMIT, final or ended
        if end < 8 and not final:
            return None
    coding = _coding_of(bytes(start[at : at + 8]), declared)
    if coding is None:
        raise InvalidFile(_no_dataset(offset, declared))
    found, at, state = _scan(start, at, end, coding, *_DATASET_TAGS)
    if state is _SHORT and not final:
        return None
    if state is _SHORT and at < end < limit:
        raise InvalidFile(f"cut off within the data set, at byte {size}; get it anew from where it came")
    return coding, found


def _scan(
    data: bytes | memoryview, at: int, end: int, coding: _Coding, lowest: int, highest: int
) -> tuple[dict[int, bytes], int, str]:
    """Walk over the elements in ``data[at:end]`` while their tags are from ``lowest`` to ``highest``.

    Returns the values of the wanted ones, where the walk ended, and why: ``_DONE`` at a tag outside, ``_SHORT`` where
    the bytes ran out, ``_LOST`` at what is no element. Sequences of undefined length are walked through: every step
    takes at least eight bytes, and nothing is copied but wanted values.
    """
    header, long_length, vr_16 = coding.header.unpack_from, coding.length.unpack_from, coding.vr_16
    values: dict[int, bytes] = {}
    depth = 0
    while at + 8 <= end:
        group, element, vr, length = header(data, at)
        tag = group << 16 | element
        if not (lowest <= tag <= highest or depth):
            return values, at, _DONE
        value = at + 8
        if vr not in vr_16 or group == _ITEM_GROUP:
            if not coding.explicit or group == _ITEM_GROUP:
                length = long_length(data, at + 4)[0]
            elif vr not in _VR_32:
                return values, at, _LOST
            elif value + 4 > end:
                break
            else:
                length = long_length(data, value)[0]
                value += 4
            if length == _UNDEFINED:
                if vr == b"UN":  # its content is in implicit VR whatever is around it (PS3.5 §6.2.2)
                    return values, at, _LOST
                depth += 1
                at = value
                continue
        after = value + length
        if after > end:
            return values, at, _LOST if after > HEAD_LIMIT else _SHORT
        if depth:
            depth -= tag in _DELIMITERS
        elif tag in _WANTED:
            values[tag] = bytes(data[value:after])
        at = after
    return values, at, _SHORT


def _is_vr(code: bytes) -> bool:
    return code.isalpha() and code.isupper()


def _coding_of(first: bytes, declared: str) -> _Coding | None:
    """How a data set is encoded, from its first eight bytes and the transfer syntax declared ("" if none).

    The bytes win: with a syntax that names another encoding than they are in, the receiver could not read them.
    None if they are no element, or if nothing was declared and the data set does not begin with group 0008.
    """
    assumed = _CODINGS.get(declared, _LITTLE) if declared else None
    ordered = _CODING_OF_GROUP_8.get(first[:2], assumed)
    if len(first) < 8 or ordered is None or first[:2] == b"\0\0":
        return None
    if _is_vr(first[4:6]):
        return _BIG if ordered is _BIG else _LITTLE
    length = _IMPLICIT.length.unpack_from(first, 4)[0]
    if ordered is not _BIG and (length < _FIRST_LENGTH_LIMIT or length == _UNDEFINED):
        return _IMPLICIT
    return assumed


def _inflate(deflated: bytes | memoryview) -> tuple[bytes, bool]:
    """The first bytes of a deflated data set (PS3.5 A.5), at most 64 KiB, and whether there is nothing more to see."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        head = inflater.decompress(deflated, _INFLATE_LIMIT)
    except zlib.error as error:
        raise InvalidFile(f"the deflated data set cannot be inflated ({error}); repair it or leave it out") from None
    return head, inflater.eof or len(head) == _INFLATE_LIMIT


def _uid(values: dict[int, bytes], name: str, *tags: int) -> str:
    """The first value under ``tags`` that is not empty, or ""."""
    for tag in tags:
        raw = values.get(tag)
        uid = clean_uid(raw) if raw else ""
        if not uid:
            continue
        if len(uid) > _UID_LIMIT or not uid.replace(".", "").isdecimal():
            shown = repr(uid if len(uid) <= _UID_LIMIT else uid[:_UID_LIMIT] + "…")
            raise InvalidFile(
                f"the {name} ({tag >> 16:04X},{tag & 0xFFFF:04X}) is {shown}, which is no UID; correct it"
            )
        return uid
    return ""


def _ends_early(offset: int, end: int) -> str:
    if not end:
        return "an empty file; leave it out"
    if end == HEAD_LIMIT:
        return f"no data set begins within the first {HEAD_LIMIT} bytes; leave it out"
    if offset:
        return f"no data set: cut off at byte {end}; get it anew from where it came"
    return f"not a DICOM file: {end} bytes without file meta information or data set; leave it out"


def _no_dataset(offset: int, declared: str) -> str:
    if not offset:
        return "not a DICOM file: no 'DICM' at byte 128 and no data set at its start; leave it out"
    if declared:
        return f"no data set in transfer syntax {declared} follows the file meta information; repair it or leave it out"
    return "no Transfer Syntax UID (0002,0010), and the data set does not show it; add it or leave it out"


@frozen
class HeadTemplate:
    """What the heads of several files have in common: all around their SOP Instance UIDs."""

    before: bytes
    after: bytes

    def head(self, sop_instance_uid: str) -> bytes:
        """Preamble, prefix and file meta information (PS3.10 §7.1) of one of them.

        A UID of more than 65,534 bytes raises :exc:`~rxdicom.errors.ArgumentError`.
        """
        instance = _element(0x03, b"UI", sop_instance_uid)
        size = len(self.before) + len(instance) + len(self.after)
        return _PREAMBLE + _GROUP_LENGTH.pack(2, 0, b"UL", 4, size) + self.before + instance + self.after


def head_template(
    sop_class_uid: str,
    transfer_syntax_uid: str,
    *,
    implementation_class_uid: str,
    implementation_version_name: str,
    source_ae_title: str = "",
) -> HeadTemplate:
    """The heads of files to be written before data sets as they were received.

    An empty version name or AE title is left out. What a peer sent is kept as it is, even where it is no UID, but
    characters outside ASCII are written as escapes. A value of more than 65,534 bytes raises
    :exc:`~rxdicom.errors.ArgumentError`.
    """
    rows = (
        (0x10, b"UI", transfer_syntax_uid),
        (0x12, b"UI", implementation_class_uid),
        (0x13, b"SH", implementation_version_name),
        (0x16, b"AE", source_ae_title),
    )
    after = b"".join([_element(number, vr, text) for number, vr, text in rows if text or vr == b"UI"])
    return HeadTemplate(_VERSION + _element(0x02, b"UI", sop_class_uid), after)


_PREAMBLE = bytes(128) + b"DICM"
_VERSION = pack("<HH2sHIH", 2, 1, b"OB", 0, 2, 0x0100)
_GROUP_LENGTH = Struct("<HH2sHI")


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "backslashreplace")
    if len(value) & 1:
        value += b"\0" if vr == b"UI" else b" "
    if len(value) > 0xFFFE:
        raise ArgumentError(f"{len(value)} bytes do not fit into (0002,{number:04X}), which holds 65534; shorten it")
    return pack("<HH2sH", 2, number, vr, len(value)) + value
