"""What is shown: tables that fit and flow, JSON lines, and no text that breaks out of its line."""

import json
import sys
from io import BytesIO, TextIOWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from rxdicom import Status
from rxdicom.apps.tables import MEASURED, Table, cut, json_line, leaves, text_of, told, width, write_line

NAME, DATE, STEPS, MODALITY = 0x00100010, 0x00080020, 0x00400100, 0x00080060


def table(headings: list[str], rows: list[list[str]], limit: int | None = None) -> list[str]:
    """The lines of a table."""
    lines: list[str] = []
    made = Table(headings, lines.append, limit)
    for row in rows:
        made.add(row)
    made.finish()
    return lines


# ---- tables


def test_columns_are_as_wide_as_their_widest_cell():
    lines = table(["Name", "Date"], [["DOE^JANE", "20240101"], ["X", ""], ["", "20240102"]])
    assert [line.replace("-", "─") for line in lines] == [
        "Name      Date",
        "────────  ────────",
        "DOE^JANE  20240101",
        "X",
        "          20240102",
    ]


def test_wide_and_combining_characters_take_their_columns():
    lines = table(["Name", "ID"], [["山田^太郎", "1"], ["Mu\u0308ller", "2"]])
    assert [line.rstrip("12") for line in lines[2:]] == ["山田^太郎  ", "Mu\u0308ller     "]
    assert {width(line) for line in lines[2:]} == {12}


def test_nothing_is_shown_without_rows():
    assert table(["Name"], []) == []


def test_a_terminal_is_not_overrun_and_the_widest_give_way():
    lines = table(["Name", "UID"], [["DOE^JANE", "1.2.840.10008.5.1.4.1.1.2"]], limit=24)
    assert lines[-1] == "DOE^JANE  1.2.840.10008…"
    assert all(width(line) <= 24 for line in lines)
    # Not below what can be read, however narrow it is.
    assert table(["Name", "UID"], [["DOE^JANE^ANNA", "1.2.840.10008"]], limit=5)[-1] == "DOE^JAN…  1.2.840…"


@given(st.text(), st.integers(1, 20))
def test_a_text_that_is_cut_fits(text: str, most: int):
    assert width(cut(text, most)) <= most
    assert cut(text, width(text)) == text


def test_rows_flow_once_the_columns_are_measured():
    lines: list[str] = []
    made = Table(["N"], lines.append)
    for number in range(MEASURED - 1):
        made.add([str(number)])
    assert not lines
    made.add(["last"])
    assert len(lines) == MEASURED + 2
    made.add(["wider than all before"])
    assert lines[-1] == "wider than all before"
    made.finish()
    assert len(lines) == MEASURED + 3


# ---- values


def answer() -> Dataset:
    """A match with all kinds of values."""
    dataset = Dataset()
    dataset.PatientName = "DOE^JANE"
    dataset.ModalitiesInStudy = ["CT", "MR"]
    dataset.Rows = 512
    dataset.StudyDate = ""
    dataset.InstanceNumber = None
    dataset.PatientComments = "one\r\n\x1b[2Jtwo\u2028"
    dataset[0x00091001] = DataElement(0x00091001, "OB", b"\0\1")
    dataset.ScheduledProcedureStepSequence = [Dataset(), Dataset(), Dataset()]
    for item, modality in zip(dataset.ScheduledProcedureStepSequence, ("CT", "", "MR"), strict=True):
        item.Modality = modality
    return dataset


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((NAME,), "DOE^JANE"),
        ((0x00080061,), "CT\\MR"),
        ((0x00280010,), "512"),
        ((DATE,), ""),
        ((0x00200013,), ""),
        ((0x00104000,), "one\\r\\n\\x1b[2Jtwo\\u2028"),
        ((0x00091001,), "2 bytes"),
        ((STEPS,), "3 items"),
        ((STEPS, MODALITY), "CT, MR"),
        ((STEPS, DATE), ""),
        ((0x00080050,), ""),
    ],
)
def test_a_value_is_one_line(path: tuple[int, ...], text: str):
    assert text_of(answer(), path) == text
    assert text_of(None, path) == ""


def test_a_value_that_breaks_the_rules_is_shown_as_it_came():
    dataset = Dataset()
    dataset[0x00200013] = RawDataElement(Tag(0x00200013), "IS", 6, b"\x1bwrong", 0, False, True)
    assert text_of(dataset, (0x00200013,)) == "\\x1bwrong"
    assert json.loads(json_line(dataset)) == {}


def test_the_leaves_are_what_answers_can_have():
    assert [path for path in leaves(answer()) if len(path) > 1] == [(STEPS, MODALITY)] * 3
    dataset = Dataset()
    dataset.ScheduledProcedureStepSequence = []
    assert list(leaves(dataset)) == [(STEPS,)]


def test_json_is_the_dicom_model_in_one_line_of_ascii():
    dataset = answer()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller\x9b^J"
    line = json_line(dataset)
    assert line.isascii()
    assert line.isprintable()
    model = json.loads(line)
    assert model["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert model["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller\x9b^J"}]}
    assert Dataset.from_json(line).PatientName == "Müller\x9b^J"
    assert json_line(None) == "{}"


def test_a_status_in_words():
    assert told(Status(0xA700, ErrorComment="disk full")).endswith("(disk full)")
    assert told(Status(0x0000)).startswith("0x0000 ")


def test_a_terminal_without_the_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch):
    buffer = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(buffer, "latin-1"))
    write_line("Müller 山田")
    assert buffer.getvalue() == b"M\xfcller \\u5c71\\u7530\n"
