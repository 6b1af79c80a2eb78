"""Keys of queries: what is written on the command line and in files, and the identifier that comes of it."""

from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from rxdicom.apps.keys import identifier, parse_key, put, title
from rxdicom.apps.models import FIND, GET, MOVE, Models, choose, named_uid
from rxdicom.apps.tables import Path as TagPath
from rxdicom.errors import ArgumentError
from rxdicom.events.datasets import encode
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import dicom_file
from tests.support import FILES

QR = "1.2.840.10008.5.1.4.1.2."


def query(*keys: str, file: Path | None = None, character_set: str | None = None) -> tuple[Dataset, list[TagPath]]:
    """The identifier, and what is shown of the answers."""
    return identifier(Namespace(keys=list(keys), file=file and str(file), character_set=character_set))


def shown(*keys: str, file: Path | None = None) -> list[str]:
    """The headings of the answers."""
    return [title(path) for path in query(*keys, file=file)[1]]


# ---- keys


@pytest.mark.parametrize(
    ("key", "keyword", "value"),
    [
        ("PatientName=DOE*", "PatientName", "DOE*"),
        ("(0010,0010)=DOE*", "PatientName", "DOE*"),
        ("0010,0010=DOE*", "PatientName", "DOE*"),
        ("00100010=DOE*", "PatientName", "DOE*"),
        (" PatientName =DOE*", "PatientName", "DOE*"),
        ("PatientName=A=B=C", "PatientName", "A=B=C"),
        ("StudyDate=20240101-20241231", "StudyDate", "20240101-20241231"),
        ("StudyTime=-1200", "StudyTime", "-1200"),
        ("StudyInstanceUID=1.2\\1.3", "StudyInstanceUID", ["1.2", "1.3"]),
        ("ModalitiesInStudy=CT\\MR", "ModalitiesInStudy", ["CT", "MR"]),
        ("PatientID=*?", "PatientID", "*?"),
        ("0020,0013=12", "InstanceNumber", 12),
        ("Rows=512", "Rows", 512),
        ("Rows=512\\256", "Rows", [512, 256]),
        ("PixelSpacing=0.5\\0.5", "PixelSpacing", [0.5, 0.5]),
        ("FrameIncrementPointer=00181063", "FrameIncrementPointer", 0x00181063),
        ("StudyDate", "StudyDate", ""),
        ("StudyDate=", "StudyDate", ""),
        ("InstanceNumber", "InstanceNumber", None),
        ("SmallestImagePixelValue=7", "SmallestImagePixelValue", 7),
        ("QueryRetrieveLevel=STUDY", "QueryRetrieveLevel", "STUDY"),
    ],
)
def test_a_key_is_an_attribute_with_a_value_of_its_type(key: str, keyword: str, value: object):
    dataset, _ = query(key)
    assert dataset[keyword].value == value or (value is None and dataset[keyword].is_empty)
    assert len(dataset) == 1
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        assert encode(dataset, syntax)


def test_keys_within_sequences():
    dataset, paths = query(
        "ScheduledProcedureStepSequence[0].Modality=CT",
        "(0040,0100)[0].(0040,0002)=20240101",
        "ScheduledProcedureStepSequence.ScheduledStationAETitle",
        "ScheduledProcedureStepSequence[1].Modality=MR",
        "ReferencedStudySequence",
        "RequestedProcedureCodeSequence[0]",
        "0040,0100[0].ScheduledProtocolCodeSequence[0].CodeValue=X",
    )
    first, second = dataset.ScheduledProcedureStepSequence
    assert (first.Modality, first.ScheduledProcedureStepStartDate, second.Modality) == ("CT", "20240101", "MR")
    assert first["ScheduledStationAETitle"].is_empty
    assert first.ScheduledProtocolCodeSequence[0].CodeValue == "X"
    assert len(dataset.ReferencedStudySequence) == 0
    assert [len(item) for item in dataset.RequestedProcedureCodeSequence] == [0]
    # What has been named is shown in that order; an empty item asks for whatever is in it.
    assert [title(path) for path in paths] == [
        "Modality",
        "ScheduledProcedureStepStartDate",
        "ScheduledStationAETitle",
        "ReferencedStudySequence",
        "CodeValue",
    ]


def test_the_answers_show_what_was_asked_for_in_its_order(tmp_path: Path):
    assert shown("StudyDate", "PatientName=A", "QueryRetrieveLevel=STUDY", "0009,1001=x") == [
        "StudyDate",
        "PatientName",
        "(0009,1001)",
    ]
    # Those of a file come after them, in the order of their tags.
    assert shown("PatientID", file=dicom_file(tmp_path / "query.dcm")) == [
        "PatientID",
        "SOPClassUID",
        "SOPInstanceUID",
        "PatientName",
        "ScheduledStationName",
    ]


WRONG_KEYS = {
    "misspelt": ("PatientNam=DOE", "there is no attribute PatientNam; did you mean PatientName?"),
    "unknown": ("Zzz", "there is no attribute Zzz; give its tag"),
    "no path": ("=DOE", "neither a keyword like PatientName nor a tag"),
    "half a tag": ("0010=DOE", "'0010' is neither"),
    "junk": ("(0010;0010)", "is neither"),
    "open bracket": ("ScheduledProcedureStepSequence[0.Modality", "is neither"),
    "command group": ("0000,0110=1", "group 0000 is no part"),
    "file meta group": ("TransferSyntaxUID=1.2", "group 0002 is no part"),
    "gap": ("ScheduledProcedureStepSequence[1].Modality=CT", "item 1 comes after item 0"),
    "endless gap": ("ScheduledProcedureStepSequence[99999999999].Modality", "which is not there"),
    "no sequence": ("PatientName[0].Modality=CT", "(0010,0010) is not a sequence"),
    "value of a sequence": ("ScheduledProcedureStepSequence=CT", "'CT' is not a value of VR SQ"),
    "value of an item": ("ScheduledProcedureStepSequence[0]=CT", "and no value"),
    "no number": ("Rows=many", "'many' is not a value of VR US"),
    "no integer string": ("InstanceNumber=1*", "'1*' is not a value of VR IS"),
    "binary": ("PixelData=abc", "is not a value of VR OB"),
    "no character": ("PatientName=A\udcffB", "cannot be written in character set 'ISO_IR 192'"),
}


@pytest.mark.parametrize(("key", "said"), WRONG_KEYS.values(), ids=WRONG_KEYS.keys())
def test_a_wrong_key_is_said(key: str, said: str):
    with pytest.raises(ArgumentError) as caught:
        query(key)
    assert said in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_key_is_an_identifier_or_said_to_be_wrong(key: str):
    dataset = Dataset()
    try:
        put(dataset, parse_key(key))
    except ArgumentError:
        return
    assert len(dataset) == 1


def test_without_any_key_there_is_nothing_to_ask():
    with pytest.raises(ArgumentError, match="nothing to ask for"):
        query()


# ---- files


def test_a_file_has_the_keys_and_those_of_the_command_line_replace_them(tmp_path: Path):
    path = dicom_file(tmp_path / "query.dcm")
    dataset, _ = query("PatientName=ROE*", "StudyDate", file=path)
    assert (dataset.PatientName, dataset.StudyDate, dataset.SOPInstanceUID) == ("ROE*", "", "1.2.3")
    bare = path.read_bytes()
    (tmp_path / "bare").write_bytes(bare[bare.index(b"\x08\x00\x16\x00") :])
    assert query(file=tmp_path / "bare")[0].SOPInstanceUID == "1.2.3"


@pytest.mark.parametrize("content", [b"Dear colleague,\n" * 50, b"\xff" * 500, bytes(500)])
def test_a_file_without_keys_is_said(tmp_path: Path, content: bytes):
    (tmp_path / "letter").write_bytes(content)
    with pytest.raises(ArgumentError, match="letter"):
        query(file=tmp_path / "letter")
    with pytest.raises(FileNotFoundError):
        query(file=tmp_path / "missing")


# ---- character sets


def name_bytes(dataset: Dataset) -> bytes:
    """The encoded patient's name."""
    data = encode(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    at = data.index(b"\x10\0\x10\0PN")
    return data[at + 8 : at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")].rstrip(b" ")


@pytest.mark.parametrize(
    ("keys", "wanted", "declared", "encoded"),
    [
        (["PatientName=DOE"], None, None, b"DOE"),
        (["PatientName=Müller"], None, "ISO_IR 192", "Müller".encode()),
        (["PatientName=Müller"], "ISO_IR 100", "ISO_IR 100", b"M\xfcller"),
        (["PatientName=Müller", "SpecificCharacterSet=ISO_IR 100"], None, "ISO_IR 100", b"M\xfcller"),
        (["PatientName=DOE"], "ISO_IR 144", "ISO_IR 144", b"DOE"),
        (
            ["PatientName=Yamada^Tarou=山田^太郎"],
            "\\ISO 2022 IR 87",
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        ),
        (["PatientName=Yamada^Tarou=山田^太郎=やまだ^たろう"], None, "ISO_IR 192", None),
    ],
)
def test_the_keys_are_written_in_their_character_set(
    keys: list[str], wanted: str | None, declared: object, encoded: bytes | None
):
    dataset, _ = query(*keys, character_set=wanted)
    assert dataset.get("SpecificCharacterSet") == declared
    if encoded is not None:
        assert name_bytes(dataset) == encoded


def test_keys_that_replace_those_of_a_file_are_not_mixed_with_its_encoding(tmp_path: Path):
    japanese = FILES.parent / "charset_files" / "chrH31.dcm"
    # Already in a set that has the characters: that stays.
    same, _ = query("PatientName=山田", file=japanese)
    assert same.SpecificCharacterSet == ["", "ISO 2022 IR 87"]
    # In another one everything is written anew.
    other, _ = query("AccessionNumber", file=japanese, character_set="ISO_IR 192")
    assert name_bytes(other).decode() == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    with pytest.raises(ArgumentError, match="cannot be written in character set 'ISO_IR 100'"):
        query("AccessionNumber", file=japanese, character_set="ISO_IR 100")


def test_a_nested_text_counts_too():
    assert query("ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription=Schädel")[0].SpecificCharacterSet


@pytest.mark.parametrize("name", ["ISO_IR 999", "latin", "ISO IR 100"])
def test_a_character_set_that_does_not_exist_is_said(name: str):
    with pytest.raises(ArgumentError, match="cannot be written"):
        query("PatientName=DOE", character_set=name)


# ---- models and levels


def chosen(operation: str, *keys: str, model: str | None = None, **options: bool) -> tuple[Models, str | None]:
    """The models, and the level of the identifier."""
    flags = ("relational", "date_time", "fuzzy", "timezone", "multi_frame", "empty_value", "multiple_value")
    given = {flag: options.get(flag, False) for flag in flags}
    dataset, _ = query(*keys)
    models = choose(Namespace(model=model, **given), operation, dataset)
    return models, dataset.get("QueryRetrieveLevel")


@pytest.mark.parametrize(
    ("operation", "keys", "level"),
    [
        (FIND, ["PatientName=DOE*"], "STUDY"),
        (FIND, ["PatientID=1", "StudyDate"], "STUDY"),
        (FIND, ["StudyInstanceUID=1.2"], "STUDY"),
        (FIND, ["StudyInstanceUID=1.2", "SeriesInstanceUID"], "SERIES"),
        (FIND, ["SeriesInstanceUID=1.2", "SOPInstanceUID"], "IMAGE"),
        (FIND, ["SOPInstanceUID", "QueryRetrieveLevel=SERIES"], "SERIES"),
        (GET, ["PatientID=1"], "PATIENT"),
        (GET, ["PatientID=1", "StudyInstanceUID=1.2"], "STUDY"),
        (MOVE, ["SeriesInstanceUID=1.3", "StudyInstanceUID=1.2"], "SERIES"),
        (MOVE, ["SOPInstanceUID=1.4"], "IMAGE"),
    ],
)
def test_the_level_follows_from_the_unique_keys(operation: str, keys: list[str], level: str):
    models, settled = chosen(operation, *keys)
    assert settled == level
    number = {FIND: 1, MOVE: 2, GET: 3}[operation]
    roots = "1" if level == "PATIENT" else "21"
    assert models.uids == tuple(f"{QR}{root}.{number}" for root in roots)


def test_a_retrieval_without_a_unique_key_is_said():
    with pytest.raises(ArgumentError, match=r"give one of SOPInstanceUID, .*, PatientID with -k"):
        chosen(GET, "PatientName=DOE*")


def test_a_model_of_ones_own():
    assert chosen(FIND, "PatientName", model="HangingProtocolInformationModelFind") == (
        Models(FIND, ("1.2.840.10008.5.1.4.38.2",)),
        None,
    )
    assert chosen(FIND, "PatientName", model=f"{QR}1.1")[1] == "STUDY"
    assert chosen(GET, "SOPInstanceUID=1", model="1.2.3.4")[0].uids == ("1.2.3.4",)
    with pytest.raises(ArgumentError, match="is for C-FIND, and not for C-MOVE"):
        chosen(MOVE, "PatientID=1", model="StudyRootQueryRetrieveInformationModelFind")


@pytest.mark.parametrize("name", ["Nothing", "re", "_DICOM_ROOT", "__all__", "1.2.x", "", "UID"])
def test_a_name_that_is_no_uid_is_said(name: str):
    with pytest.raises(ArgumentError, match="--model"):
        named_uid("--model", name)


def test_what_is_proposed_in_extended_negotiation():
    assert chosen(FIND, "PatientName")[0].items() == []
    items = chosen(FIND, "PatientName", relational=True, fuzzy=True)[0].items()
    assert [(item.sop_class_uid, item.application_information) for item in items] == [
        (f"{QR}2.1", b"\1\0\1"),
        (f"{QR}1.1", b"\1\0\1"),
    ]
    worklist = chosen(FIND, "PatientName", model="1.2.840.10008.5.1.4.31", fuzzy=True)[0].items()
    assert worklist[0].application_information == b"\1\1\1"
    retrieval = chosen(MOVE, "PatientID", multi_frame=True)[0].items()
    assert retrieval[0].application_information == b"\0\1"
