"""The negotiation builders: what they accept, what they freeze to; pynetdicom is the oracle for names and bytes."""

import copy
from typing import Any

import pynetdicom.pdu_primitives as peer
import pytest
from pydicom.uid import UID

from rxdicom import pdu_primitives
from rxdicom.application_information import QueryRetrieveInformation, StorageInformation
from rxdicom.errors import ArgumentError
from rxdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    Builder,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from rxdicom.wire import items

CT = "1.2.840.10008.5.1.4.1.1.2"
LONGEST = b"x" * (0xFFFF - 6)
"""What fits one item beside a user identity's type, flag and two lengths."""

# Builder, the values to set, the record that it freezes to.
COMPLETE: list[tuple[type[Any], dict[str, Any], Any]] = [
    (MaximumLengthNotification, {"maximum_length_received": 0}, items.MaximumLength(0)),
    (MaximumLengthNotification, {"maximum_length_received": 2**32 - 1}, items.MaximumLength(2**32 - 1)),
    (ImplementationClassUIDNotification, {"implementation_class_uid": "1.2.3"}, items.ImplementationClassUID("1.2.3")),
    (
        ImplementationVersionNameNotification,
        {"implementation_version_name": "A NAME_OF_16_CHR"},
        items.ImplementationVersionName("A NAME_OF_16_CHR"),
    ),
    (
        AsynchronousOperationsWindowNegotiation,
        {"maximum_number_operations_invoked": 0, "maximum_number_operations_performed": 65535},
        items.AsyncOperationsWindow(0, 65535),
    ),
    (
        SCP_SCU_RoleSelectionNegotiation,
        {"sop_class_uid": CT, "scu_role": False, "scp_role": True},
        items.RoleSelection(CT, False, True),
    ),
    (
        SOPClassExtendedNegotiation,
        {"sop_class_uid": CT, "service_class_application_information": b"\x01\x00"},
        items.SOPClassExtended(CT, b"\x01\x00"),
    ),
    (
        SOPClassCommonExtendedNegotiation,
        {
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.40",
            "service_class_uid": "1.2.840.10008.4.2",
            "related_general_sop_class_identification": ["1.2.840.10008.5.1.4.1.1.88.22"],
        },
        items.SOPClassCommonExtended(
            "1.2.840.10008.5.1.4.1.1.88.40", "1.2.840.10008.4.2", ("1.2.840.10008.5.1.4.1.1.88.22",)
        ),
    ),
    (
        UserIdentityNegotiation,
        {"user_identity_type": 1, "primary_field": b"name"},
        items.UserIdentity(1, False, b"name", b""),
    ),
    (
        UserIdentityNegotiation,
        {
            "user_identity_type": 2,
            "positive_response_requested": True,
            "primary_field": b"name",
            "secondary_field": b"secret",
        },
        items.UserIdentity(2, True, b"name", b"secret"),
    ),
    (
        UserIdentityNegotiation,
        {"user_identity_type": 5, "primary_field": LONGEST},
        items.UserIdentity(5, False, LONGEST, b""),
    ),
    (UserIdentityNegotiation, {"server_response": b"ticket"}, items.UserIdentityResponse(b"ticket")),
]


def filled(kind: type[Any], values: dict[str, Any]) -> Any:
    builder = kind()
    for name, value in values.items():
        setattr(builder, name, value)
    return builder


@pytest.mark.parametrize(("kind", "values", "record"), COMPLETE)
def test_a_complete_builder_freezes_to_its_record(kind: type[Any], values: dict[str, Any], record: Any) -> None:
    builder = filled(kind, values)
    assert builder.freeze() == record
    assert {name: getattr(builder, name) for name in values} == values


@pytest.mark.parametrize(("kind", "values", "record"), COMPLETE)
def test_the_item_has_the_bytes_that_the_peer_sends(kind: type[Any], values: dict[str, Any], record: Any) -> None:
    theirs = filled(getattr(peer, kind.__name__), values).from_primitive()
    assert items.encode_items([record]) == theirs.encode()


@pytest.mark.parametrize("record", [QueryRetrieveInformation(fuzzy_person_names=True), StorageInformation()])
def test_application_information_may_be_given_as_a_record(record: Any) -> None:
    item = filled(SOPClassExtendedNegotiation, {"sop_class_uid": CT, "service_class_application_information": record})
    assert item.service_class_application_information == record.encode()
    assert item.freeze() == items.SOPClassExtended(CT, record.encode()) == record.item(CT)


def test_what_does_not_fit_an_item_is_refused_by_its_codec() -> None:
    item = filled(UserIdentityNegotiation, {"user_identity_type": 5, "primary_field": LONGEST + b"x"})
    with pytest.raises(ArgumentError, match="65535 fit"):
        items.encode_items([item.freeze()])


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in COMPLETE}, key=str))
def test_defaults_and_attribute_names_are_those_of_the_peer(kind: type[Any]) -> None:
    their_kind: type = getattr(peer, kind.__name__)
    ours, theirs = kind(), their_kind()
    names = {name for name, value in vars(their_kind).items() if isinstance(value, property)}
    assert set(ours.attribute_names()) == names
    for name in names - {"maximum_length_received"}:
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("kind", "values", "missing"),
    [
        (ImplementationClassUIDNotification, {}, "implementation_class_uid"),
        (ImplementationVersionNameNotification, {}, "implementation_version_name"),
        (SCP_SCU_RoleSelectionNegotiation, {"scu_role": True}, "sop_class_uid"),
        (SCP_SCU_RoleSelectionNegotiation, {"sop_class_uid": CT, "scu_role": False}, "role"),
        (SCP_SCU_RoleSelectionNegotiation, {"sop_class_uid": CT}, "role"),
        (SOPClassExtendedNegotiation, {"service_class_application_information": b"1"}, "sop_class_uid"),
        (SOPClassExtendedNegotiation, {"sop_class_uid": CT}, "service_class_application_information"),
        (SOPClassCommonExtendedNegotiation, {"service_class_uid": "1.2"}, "sop_class_uid"),
        (SOPClassCommonExtendedNegotiation, {"sop_class_uid": CT}, "service_class_uid"),
        (UserIdentityNegotiation, {"primary_field": b"name"}, "user_identity_type"),
        (UserIdentityNegotiation, {"user_identity_type": 1}, "primary_field"),
        (UserIdentityNegotiation, {"user_identity_type": 3, "primary_field": b""}, "primary_field"),
        (UserIdentityNegotiation, {"user_identity_type": 2, "primary_field": b"name"}, "secondary_field"),
    ],
)
def test_what_is_missing_is_named_when_freezing(kind: type[Any], values: dict[str, Any], missing: str) -> None:
    with pytest.raises(ArgumentError, match=missing):
        filled(kind, values).freeze()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (MaximumLengthNotification, "maximum_length_received", -1),
        (MaximumLengthNotification, "maximum_length_received", 2**32),
        (ImplementationClassUIDNotification, "implementation_class_uid", "not a uid"),
        (ImplementationVersionNameNotification, "implementation_version_name", ""),
        (ImplementationVersionNameNotification, "implementation_version_name", "x" * 17),
        (ImplementationVersionNameNotification, "implementation_version_name", "line\nbreak"),
        (ImplementationVersionNameNotification, "implementation_version_name", "Größe"),
        (AsynchronousOperationsWindowNegotiation, "maximum_number_operations_invoked", -1),
        (AsynchronousOperationsWindowNegotiation, "maximum_number_operations_performed", 65536),
        (SCP_SCU_RoleSelectionNegotiation, "sop_class_uid", "1." + "2" * 64),
        (SOPClassExtendedNegotiation, "sop_class_uid", "CTImageStorage"),
        (SOPClassCommonExtendedNegotiation, "service_class_uid", "1..2"),
        (SOPClassCommonExtendedNegotiation, "related_general_sop_class_identification", ["1.2", "x"]),
        (UserIdentityNegotiation, "user_identity_type", 0),
        (UserIdentityNegotiation, "user_identity_type", 6),
    ],
)
def test_bad_values_are_value_errors_and_change_nothing(kind: type[Any], name: str, value: object) -> None:
    builder = kind()
    before = getattr(builder, name)
    with pytest.raises(ValueError, match=r"give|fit"):
        setattr(builder, name, value)
    assert getattr(builder, name) == before


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (MaximumLengthNotification, "maximum_length_received", "16384"),
        (ImplementationClassUIDNotification, "implementation_class_uid", 12),
        (ImplementationVersionNameNotification, "implementation_version_name", 12),
        (AsynchronousOperationsWindowNegotiation, "maximum_number_operations_invoked", 1.0),
        (SCP_SCU_RoleSelectionNegotiation, "scu_role", 1),
        (SCP_SCU_RoleSelectionNegotiation, "scp_role", "yes"),
        (SOPClassExtendedNegotiation, "service_class_application_information", "text"),
        (SOPClassCommonExtendedNegotiation, "related_general_sop_class_identification", "1.2.3"),
        (SOPClassCommonExtendedNegotiation, "related_general_sop_class_identification", [12]),
        (SOPClassCommonExtendedNegotiation, "related_general_sop_class_identification", None),
        (UserIdentityNegotiation, "user_identity_type", "1"),
        (UserIdentityNegotiation, "positive_response_requested", None),
        (UserIdentityNegotiation, "primary_field", "name"),
        (UserIdentityNegotiation, "secondary_field", "secret"),
        (UserIdentityNegotiation, "server_response", "ticket"),
    ],
)
def test_values_of_a_wrong_type_are_type_errors(kind: type[Any], name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        setattr(kind(), name, value)


def test_uids_come_as_bytes_too() -> None:
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid = CT.encode() + b"\0"
    assert item.sop_class_uid == CT
    item.sop_class_uid = None
    assert item.sop_class_uid is None
    name = ImplementationVersionNameNotification()
    name.implementation_version_name = b"NAME"
    assert name.freeze() == items.ImplementationVersionName("NAME")


def test_a_passcode_counts_with_type_2_only() -> None:
    values = {"user_identity_type": 1, "primary_field": b"name", "secondary_field": b"secret"}
    assert filled(UserIdentityNegotiation, values).freeze() == items.UserIdentity(1, False, b"name", b"")


def test_typos_are_errors() -> None:
    item = SCP_SCU_RoleSelectionNegotiation()
    with pytest.raises(AttributeError, match="has no scp_rol, only sop_class_uid, scu_role, scp_role"):
        item.scp_rol = True  # pyright: ignore[reportAttributeAccessIssue]


def test_a_frozen_record_does_not_follow_its_builder() -> None:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = CT, "1.2"
    item.related_general_sop_class_identification = ["1.2.3"]
    record = item.freeze()
    item.related_general_sop_class_identification.append(UID("1.2.4"))
    assert item.freeze().related_general_sop_classes == ("1.2.3", "1.2.4")
    assert record.related_general_sop_classes == ("1.2.3",)
    assert all(type(uid) is str for uid in (record.sop_class_uid, *item.freeze().related_general_sop_classes))


def test_builders_share_nothing() -> None:
    one, other = SOPClassCommonExtendedNegotiation(), SOPClassCommonExtendedNegotiation()
    one.related_general_sop_class_identification.append(UID("1.2.3"))
    assert other.related_general_sop_class_identification == []


@pytest.mark.parametrize(("kind", "values", "record"), COMPLETE)
def test_equality_and_copies(kind: type[Any], values: dict[str, Any], record: Any) -> None:
    builder = filled(kind, values)
    assert copy.deepcopy(builder) == builder == filled(kind, values)
    assert copy.deepcopy(builder).freeze() == record
    assert builder != kind()
    assert builder != record
    with pytest.raises(TypeError):
        hash(builder)


def test_the_repr_names_values_but_no_secrets() -> None:
    values = {"user_identity_type": 2, "primary_field": b"name", "secondary_field": b"secret"}
    shown = repr(filled(UserIdentityNegotiation, values))
    assert "user_identity_type=2" in shown
    assert "name'" not in shown
    assert "secret'" not in shown
    assert "ticket" not in repr(filled(UserIdentityNegotiation, {"server_response": b"ticket"}))
    assert CT in repr(filled(SCP_SCU_RoleSelectionNegotiation, {"sop_class_uid": CT}))


def test_every_builder_is_tested_above() -> None:
    builders = {
        value for value in vars(pdu_primitives).values() if isinstance(value, type) and Builder in value.__bases__
    }
    assert builders == {kind for kind, _, _ in COMPLETE}
