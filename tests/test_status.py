"""The status tables and :class:`Status`; pynetdicom is the oracle for which codes a service has."""

import copy
import json
import pickle
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pynetdicom.status as peer
import pytest

from rxdicom import status as module
from rxdicom.errors import ArgumentError
from rxdicom.status import GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS, Status, code_to_category, code_to_status

ROOT = Path(module.__file__).parents[1]
TABLES = sorted(name for name in dir(peer) if name.endswith("STATUS"))


def test_there_is_a_table_for_every_one_of_the_peer() -> None:
    assert len(TABLES) == 18


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_codes_and_categories_of_the_peer(name: str) -> None:
    theirs, ours = getattr(peer, name), getattr(module, name)
    assert set(ours) == set(theirs)
    assert len(ours) == len(theirs)
    assert {code for code in theirs if ours[code][0] != theirs[code][0]} == set()
    assert all(meaning for _, meaning in ours.values())


@pytest.mark.parametrize("name", TABLES)
def test_membership_agrees_with_iteration_over_all_codes(name: str) -> None:
    table = getattr(module, name)
    assert {code for code in range(0x10000) if code in table} == set(table)


def test_tables_are_ranges_not_thousands_of_entries() -> None:
    def kept(table: module.StatusTable) -> int:
        return sum(len(getattr(table, slot)) for slot in table.__slots__)

    assert max(kept(getattr(module, name)) for name in TABLES) < 60


def test_a_single_code_goes_before_its_range_and_before_the_general_meaning() -> None:
    ups = module.UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS
    assert ups[0xC302][1] != ups[0xC3FF][1] == "unable to process"
    assert module.PROCEDURE_STEP_STATUS[0x0110][1] != GENERAL_STATUS[0x0110][1]


def test_the_statuses_of_unified_procedure_steps_are_those_of_its_queries_and_of_its_n_services() -> None:
    """What C3xx means in an N service is no more than "unable to process" in a query, our own 0xC311 among them."""
    find, n = module.UNIFIED_PROCEDURE_STEP_FIND_STATUS, module.UNIFIED_PROCEDURE_STEP_N_STATUS
    assert set(find) | set(n) == set(peer.UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS)
    assert set(find) - set(n) >= {0xFF00, 0xFF01, 0xA700, 0xA900, 0xC000, 0xCFFF}
    assert set(n) - set(find) == {0x0001, 0xB300, 0xB301, 0xB304, 0xB305, 0xB306}
    assert find[0xC311][1] == find[0xC000][1] == "unable to process" != n[0xC311][1]
    assert dict(find) == dict(module.MODALITY_WORKLIST_SERVICE_CLASS_STATUS)


def test_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        GENERAL_STATUS[0xA700]
    assert 0xA700 not in GENERAL_STATUS
    for no_code in ("not a code", None, 1.5, [0x0000]):
        assert no_code not in module.STORAGE_SERVICE_CLASS_STATUS


def test_categories_are_those_of_the_peer_but_for_unassigned_failures() -> None:
    """PS3.7 Annex C makes all of 01xx and 02xx failures; the peer knows only the assigned ones."""
    differing = [code for code in range(0x10000) if code_to_category(code) != peer.code_to_category(code)]
    assert {code_to_category(code) for code in differing} == {"Failure"}
    assert {code >> 8 for code in differing} == {0x01, 0x02}
    assert code_to_category(0x10000) == peer.code_to_category(0x10000) == "Unknown"


def test_category_constants_are_the_texts_of_the_peer() -> None:
    for name in ("SUCCESS", "FAILURE", "WARNING", "CANCEL", "PENDING", "UNKNOWN"):
        assert getattr(module, f"STATUS_{name}") == getattr(peer, f"STATUS_{name}")


@pytest.mark.parametrize("bad", [-1, "0", 1.0, None])
def test_what_is_not_a_code_is_refused(bad: int) -> None:
    for function in (code_to_category, code_to_status, Status):
        with pytest.raises(ArgumentError, match="0x0000 to 0xFFFF"):
            function(bad)


def test_a_status_has_sixteen_bits() -> None:
    assert Status(0xFFFF) == 0xFFFF
    with pytest.raises(ArgumentError):
        Status(0x10000)


@pytest.mark.parametrize("code", [0x0000, 0x0122, 0xA700, 0xFF00, 0xFFFF])
def test_it_is_its_number_and_always_true(code: int) -> None:
    status = Status(code)
    assert status == code == status.code == status.Status
    assert type(status.code) is int
    assert type(status.Status) is int
    assert hash(status) == hash(code)
    assert bool(status) is True
    assert isinstance(status, int)
    assert {code: "found"}[status] == "found"
    assert status in (code,)
    assert status <= code
    assert f"{status:04x}" == f"{code:04x}"
    assert f"{status}" == str(status) == str(code)
    assert json.loads(json.dumps({"status": status})) == {"status": code}
    assert status.category == code_to_category(code)


def test_it_works_in_match_and_with_an_int_enum() -> None:
    class Answer(IntEnum):
        FULL = 0xA700

    match Status(Answer.FULL):
        case Status.SUCCESS:
            raise AssertionError("matched success")
        case Answer.FULL:
            assert Status(0xA700) == Answer.FULL
        case _:
            raise AssertionError("matched nothing")


def test_constants_have_the_numbers_of_the_peer() -> None:
    for constant in peer.Status:
        assert getattr(Status, constant.name) == int(constant)
        assert isinstance(getattr(Status, constant.name), Status)
        assert getattr(Status, constant.name).description


def test_the_meaning_comes_from_the_service() -> None:
    assert Status(0xA700).description == ""
    assert Status(0xA700, STORAGE_SERVICE_CLASS_STATUS).description == "refused: out of resources"
    assert Status(0x0122, module.StatusTable({0xB123: "own"})).description == GENERAL_STATUS[0x0122][1]
    assert Status(0xB123, module.StatusTable({0xB123: "own"})).description == "own"


def test_elements_are_none_when_absent() -> None:
    status = Status(0xB000, ErrorComment=None, NumberOfFailedSuboperations=0)
    assert status.NumberOfFailedSuboperations == 0
    absent = ("ErrorComment", "OffendingElement", "AffectedSOPInstanceUID", "AttributeIdentifierList", "ErrorID")
    counters = [f"NumberOf{kind}Suboperations" for kind in ("Remaining", "Completed", "Warning")]
    assert [getattr(status, name) for name in (*absent, *counters)] == [None] * 8


def test_lists_of_tags_become_tuples() -> None:
    status = Status(0x0107, AttributeIdentifierList=[0x00100010, 0x00100020], OffendingElement=0x00080018)
    assert status.AttributeIdentifierList == (0x00100010, 0x00100020)
    assert status.OffendingElement == (0x00080018,)


def test_an_element_that_no_status_has_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="PatientName is not an element of a status"):
        Status(0, PatientName="DOE")


def test_it_cannot_be_changed() -> None:
    status = Status(0xA700, ErrorComment="full")
    for name in ("ErrorComment", "description", "code", "category", "anything"):
        with pytest.raises(AttributeError):
            setattr(status, name, "changed")
    with pytest.raises(AttributeError):
        del status.ErrorComment
    assert status.ErrorComment == "full"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_copies_and_pickles_keep_everything(protocol: int) -> None:
    status = Status(0xA700, STORAGE_SERVICE_CLASS_STATUS, ErrorComment="full", OffendingElement=[0x00100010])
    for other in (copy.copy(status), copy.deepcopy(status), pickle.loads(pickle.dumps(status, protocol))):
        assert type(other) is Status
        assert (other, repr(other)) == (status, repr(status))
        assert other.OffendingElement == (0x00100010,)


def test_the_repr_says_what_it_means_on_one_line() -> None:
    shown = repr(Status(0xA7F0, STORAGE_SERVICE_CLASS_STATUS, ErrorComment="disk\r\nfull\x1b"))
    assert shown == r"<Status 0xA7F0 Failure: refused: out of resources, ErrorComment='disk\r\nfull\x1b'>"


def test_own_constants_can_be_added_but_none_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Status, "TEST_NO_SPACE", Status(0xA7F0), raising=False)
    Status.add("TEST_NO_SPACE", 0xA7F0)
    added: Status = getattr(Status, "TEST_NO_SPACE")  # noqa: B009
    assert added == 0xA7F0
    assert added.category == "Failure"
    for name, code in (("TEST_NO_SPACE", 0xA7F1), ("SUCCESS", 1), ("add", 1), ("description", 1), ("no name", 1)):
        with pytest.raises(ArgumentError):
            Status.add(name, code)
    assert Status.SUCCESS == 0


def test_code_to_status() -> None:
    assert code_to_status(0xFE00) == Status.CANCEL == peer.code_to_status(0xFE00).Status
    assert code_to_status(0xFE00).category == "Cancel"


def test_importing_it_loads_neither_pydicom_nor_attrs() -> None:
    code = "import sys, rxdicom.status; assert not {'pydicom', 'reactivex', 'attr'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
