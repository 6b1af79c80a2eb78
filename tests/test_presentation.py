"""Presentation contexts and the predefined lists; pynetdicom is the oracle for both."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynetdicom
import pynetdicom.presentation as peer
import pytest
from pydicom.uid import UID, ImplicitVRLittleEndian

import rxdicom
from rxdicom import presentation, sop_class
from rxdicom.errors import ArgumentError
from rxdicom.presentation import PresentationContext, build_context, build_role
from rxdicom.service_class import StorageServiceClass
from rxdicom.sop_class import LazyUID

ROOT = Path(presentation.__file__).parents[1]
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
LISTS = sorted(name for name in dir(peer) if name.endswith("PresentationContexts"))


def content(contexts: Any) -> list[tuple[str, list[str]]]:
    return [(context.abstract_syntax, context.transfer_syntax) for context in contexts]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_what_that_of_the_peer_has_in_its_order(name: str) -> None:
    ours, theirs = content(getattr(presentation, name)), content(getattr(peer, name))
    if name == "AllStoragePresentationContexts":  # a later pydicom may know more of them
        ours = [pair for pair in ours if pair in theirs]
    assert ours == theirs


def test_all_lists_are_there_with_their_sizes() -> None:
    names = [name for name in dir(presentation) if name.endswith("PresentationContexts")]
    assert set(names) == {*LISTS, "InventoryPresentationContexts", "StorageManagementPresentationContexts"}
    assert all(type(context) is PresentationContext for name in names for context in getattr(presentation, name))
    assert len(presentation.StoragePresentationContexts) == 120
    assert len(presentation.AllStoragePresentationContexts) >= 170
    assert [context.abstract_syntax for context in presentation.StorageManagementPresentationContexts] == [
        sop_class.InventoryCreation
    ]
    assert len(presentation.InventoryPresentationContexts) == 3


def test_what_is_proposed_together_is_storage_and_leaves_room() -> None:
    contexts = presentation.StoragePresentationContexts
    uids = [context.abstract_syntax for context in contexts if context.abstract_syntax is not None]
    assert len(set(uids)) == len(contexts) <= 128
    assert all(sop_class.uid_to_service_class(uid) is StorageServiceClass for uid in uids)


@pytest.mark.parametrize("name", [*LISTS, "DEFAULT_TRANSFER_SYNTAXES", "ALL_TRANSFER_SYNTAXES"])
def test_changing_a_list_changes_it_for_nobody_else(name: str) -> None:
    before = copy.deepcopy(getattr(presentation, name))
    mine = getattr(presentation, name)
    if name.endswith("PresentationContexts"):
        mine[0].transfer_syntax.append(LazyUID("1.2.3"))
        mine[0].scp_role = True
    mine.clear()
    assert getattr(presentation, name) == before != []
    assert build_context(CT).transfer_syntax == presentation.DEFAULT_TRANSFER_SYNTAXES


def test_transfer_syntaxes_are_lists_like_those_of_the_peer() -> None:
    assert presentation.DEFAULT_TRANSFER_SYNTAXES == pynetdicom.DEFAULT_TRANSFER_SYNTAXES
    assert isinstance(presentation.DEFAULT_TRANSFER_SYNTAXES, list)
    assert isinstance(presentation.ALL_TRANSFER_SYNTAXES, list)
    # The same from the top: users add their own to it.
    assert rxdicom.DEFAULT_TRANSFER_SYNTAXES == pynetdicom.DEFAULT_TRANSFER_SYNTAXES
    ours, theirs = presentation.ALL_TRANSFER_SYNTAXES, pynetdicom.ALL_TRANSFER_SYNTAXES
    assert [uid for uid in ours if uid in theirs] == theirs


def test_private_classes_do_not_join_the_predefined_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vars(sop_class)["_REGISTRY"], "entries", {})
    before = content(presentation.AllStoragePresentationContexts)
    sop_class.register_uid("1.2.3.4", "PrivateStorage", StorageServiceClass)
    assert content(presentation.AllStoragePresentationContexts) == before


@pytest.mark.parametrize("name", ["PresentationContexts", "NoSuchPresentationContexts", "NoSuch", "__wrapped__"])
def test_other_names_are_attribute_errors(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(presentation, name)


# Contexts


def test_a_new_context_is_empty() -> None:
    context = PresentationContext()
    names = ("context_id", "abstract_syntax", "transfer_syntax", "scu_role", "scp_role", "result", "as_scu", "as_scp")
    assert context.attribute_names() == names
    theirs: Any = peer.PresentationContext()
    assert [getattr(context, name) for name in names] == [getattr(theirs, name) for name in names]
    assert str(context) == "Transfer Syntax(es):\n    (none)"


@pytest.mark.parametrize("value", [1, 3, 127, 255, None])
def test_context_ids(value: int | None) -> None:
    context = PresentationContext()
    context.context_id = value
    assert context.context_id == value


@pytest.mark.parametrize("value", [-1, 0, 2, 254, 256, 257])
def test_context_ids_are_odd_and_one_byte(value: int) -> None:
    context = PresentationContext()
    with pytest.raises(ValueError, match="odd number from 1 to 255"):
        context.context_id = value
    assert context.context_id is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_id", "1"),
        ("abstract_syntax", 12),
        ("transfer_syntax", IMPLICIT),
        ("transfer_syntax", None),
        ("transfer_syntax", [12]),
        ("scu_role", 1),
        ("scp_role", "yes"),
        ("result", "accepted"),
        ("as_scu", 0),
    ],
)
def test_values_of_a_wrong_type_are_type_errors(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        setattr(PresentationContext(), name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("abstract_syntax", "Verification"), ("transfer_syntax", [IMPLICIT, "1..2"])]
)
def test_what_is_no_uid_is_a_value_error(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        setattr(PresentationContext(), name, value)


def test_typos_are_errors() -> None:
    with pytest.raises(AttributeError, match="transfer_syntaxes"):
        setattr(PresentationContext(), "transfer_syntaxes", [IMPLICIT])  # noqa: B010


def test_transfer_syntaxes_keep_their_order_and_are_there_once() -> None:
    context = PresentationContext()
    context.transfer_syntax = [EXPLICIT, IMPLICIT.encode(), EXPLICIT, ""]
    for syntax in (None, "", JPEG, IMPLICIT, JPEG.encode() + b"\0"):
        context.add_transfer_syntax(syntax)
    assert context.transfer_syntax == [EXPLICIT, IMPLICIT, JPEG]
    with pytest.raises(ArgumentError):
        context.add_transfer_syntax("JPEGBaseline8Bit")
    assert context.transfer_syntax == [EXPLICIT, IMPLICIT, JPEG]


def test_uids_answer_as_uids() -> None:
    context = build_context(CT, [IMPLICIT, JPEG])
    assert context.abstract_syntax is not None
    assert context.abstract_syntax.name == "CT Image Storage"
    assert [syntax.is_compressed for syntax in context.transfer_syntax] == [False, True]


def test_uids_that_are_uids_stay_what_they_are() -> None:
    private = UID("1.2.3.4")
    private.set_private_encoding(False, True)
    context = build_context(sop_class.CTImageStorage, [ImplicitVRLittleEndian, private])
    assert isinstance(context.abstract_syntax, sop_class.SOPClass)
    assert context.transfer_syntax[1] is private
    assert context.transfer_syntax[1].is_transfer_syntax


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "Pending"),
        (0, "Accepted"),
        (1, "User Rejected"),
        (2, "Provider Rejected"),
        (3, "Abstract Syntax Not Supported"),
        (4, "Transfer Syntax(es) Not Supported"),
        (5, "Unknown"),
    ],
)
def test_the_result_in_words(result: int | None, text: str) -> None:
    context = PresentationContext()
    context.result = result
    assert context.status == text


@pytest.mark.parametrize("roles", [(None, None), (True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("result", [None, 0, 4])
@pytest.mark.parametrize("context_id", [None, 7])
def test_it_prints_as_documented(
    roles: tuple[bool | None, bool | None], result: int | None, context_id: int | None
) -> None:
    context = build_context("1.2.840.10008.1.1", [IMPLICIT, JPEG])
    theirs: Any = peer.build_context("1.2.840.10008.1.1", [IMPLICIT, JPEG])
    context.context_id = theirs.context_id = context_id
    context.result = theirs.result = result
    context.as_scu, context.as_scp = vars(theirs)["_as_scu"], vars(theirs)["_as_scp"] = roles
    assert str(context) == str(theirs)


def test_equality_hash_and_copies() -> None:
    one, other = build_context(CT), build_context(CT)
    assert one == other
    assert len({one, other}) == 1
    other.context_id = 3
    assert one != other
    assert one != CT
    for same in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert same == other
        same.transfer_syntax.clear()
    assert len(other.transfer_syntax) == 4


def test_the_repr_shows_all_attributes() -> None:
    assert repr(build_context(CT, IMPLICIT)) == (
        f"PresentationContext(context_id=None, abstract_syntax={CT!r}, transfer_syntax=[{IMPLICIT!r}], scu_role=None, "
        "scp_role=None, result=None, as_scu=None, as_scp=None)"
    )


def test_as_tuple() -> None:
    context = build_context(CT, [EXPLICIT, IMPLICIT])
    with pytest.raises(ArgumentError, match="not complete"):
        _ = context.as_tuple
    context.context_id = 5
    assert context.as_tuple == (5, CT, EXPLICIT)
    assert context.as_tuple.transfer_syntax.is_implicit_VR is False


def test_build_context() -> None:
    assert build_context(CT).transfer_syntax == presentation.DEFAULT_TRANSFER_SYNTAXES
    assert build_context(CT, JPEG).transfer_syntax == [JPEG]
    assert build_context(CT, ImplicitVRLittleEndian).transfer_syntax == [IMPLICIT]
    assert build_context(CT, (JPEG, IMPLICIT)).transfer_syntax == [JPEG, IMPLICIT]
    assert build_context(CT).context_id is None
    with pytest.raises(ArgumentError):
        build_context("CTImageStorage")


def test_build_role() -> None:
    role, theirs = build_role(CT, scp_role=True), pynetdicom.build_role(CT, scp_role=True)
    assert [getattr(role, name) for name in ("sop_class_uid", "scu_role", "scp_role")] == [CT, False, True]
    assert [getattr(theirs, name) for name in ("sop_class_uid", "scu_role", "scp_role")] == [CT, False, True]
    with pytest.raises(ArgumentError, match="no role"):
        build_role(CT).freeze()


def test_importing_and_building_contexts_of_plain_uids_load_nothing() -> None:
    code = """
import sys
import rxdicom.status, rxdicom.pdu_primitives, rxdicom.presentation as presentation
context = presentation.build_context("1.2.840.10008.1.1", presentation.DEFAULT_TRANSFER_SYNTAXES)
context.context_id = 1
role = presentation.build_role(context.abstract_syntax, scu_role=True).freeze()
assert (repr(context), hash(context), context == presentation.build_context("1.2.3"), role.sop_class_uid)
assert not {"pydicom", "reactivex", "numpy"} & set(sys.modules), sys.modules
context.abstract_syntax.name
assert "pydicom" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
