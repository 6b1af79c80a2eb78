"""The negotiation items that a program fills in (PS3.7 Annex D.3.3): mutable builders of the frozen wire records.

Attributes are checked when they are set, completeness by ``freeze()``, which makes the record that goes on the wire.
Builders are copied that way when associating or listening, so that later changes to them affect nothing.
"""

from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING

from rxdicom.builders import Attribute, Builder, expect, optional_bool, optional_int, optional_uid, uids
from rxdicom.errors import ArgumentError
from rxdicom.wire import items

if TYPE_CHECKING:
    from rxdicom.application_information import ApplicationInformation


def _bool(value: bool, name: str) -> bool:
    expect(value, bool, name, "a bool")
    return value


def _number(highest: int) -> Callable[[int, str], int]:
    def check(value: int, name: str) -> int:
        expect(value, int, name, "an int")
        if not 0 <= value <= highest:
            raise ArgumentError(f"{name} {value} does not fit; give 0 to {highest}")
        return value

    return check


def _optional_bytes(value: bytes | None, name: str) -> bytes | None:
    expect(value, (bytes, NoneType), name, "bytes or None")
    return value


def _application_information(value: "bytes | ApplicationInformation | None", name: str) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    from rxdicom.application_information import ApplicationInformation

    expect(value, ApplicationInformation, name, "bytes, a record of rxdicom.application_information, or None")
    return value.encode()


def _identity_type(value: int | None, name: str) -> int | None:
    if optional_int(value, name) not in (None, 1, 2, 3, 4, 5):
        raise ArgumentError(f"{name} {value} does not exist; give 1 (name), 2 (name, passcode), 3, 4 or 5")
    return value


def _version_name(value: str | bytes | None, name: str) -> str | None:
    expect(value, (str, bytes, NoneType), name, "a str")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if text is not None and not (1 <= len(text) <= 16 and text.isascii() and text.isprintable()):
        raise ArgumentError(f"{name} {text[:40]!r} does not fit; give 1 to 16 printable ASCII characters")
    return text


class MaximumLengthNotification(Builder):
    """The largest P-DATA-TF that we accept, in bytes after its header, 0 for unlimited (PS3.8 Annex D.1)."""

    maximum_length_received = Attribute(_number(0xFFFFFFFF), 131072)

    def freeze(self) -> items.MaximumLength:
        return items.MaximumLength(self.maximum_length_received)


class ImplementationClassUIDNotification(Builder):
    """Which implementation this is (PS3.7 D.3.3.2)."""

    implementation_class_uid = Attribute(optional_uid)

    def freeze(self) -> items.ImplementationClassUID:
        return items.ImplementationClassUID(str(self._given("implementation_class_uid")))


class ImplementationVersionNameNotification(Builder):
    """The implementation's version, 1 to 16 characters (PS3.7 D.3.3.2)."""

    implementation_version_name = Attribute(_version_name)

    def freeze(self) -> items.ImplementationVersionName:
        return items.ImplementationVersionName(str(self._given("implementation_version_name")))


class AsynchronousOperationsWindowNegotiation(Builder):
    """How many operations the requestor may invoke, and perform, at a time; 0 is unlimited (PS3.7 D.3.3.3)."""

    maximum_number_operations_invoked = Attribute(_number(0xFFFF), 1)
    maximum_number_operations_performed = Attribute(_number(0xFFFF), 1)

    def freeze(self) -> items.AsyncOperationsWindow:
        return items.AsyncOperationsWindow(
            self.maximum_number_operations_invoked, self.maximum_number_operations_performed
        )


class SCP_SCU_RoleSelectionNegotiation(Builder):
    """The roles that the requestor proposes for itself, for one SOP class (PS3.7 D.3.3.4); unset ones are False.

    >>> item = SCP_SCU_RoleSelectionNegotiation()
    >>> item.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2"
    >>> item.scp_role = True
    >>> item.freeze()
    RoleSelection(sop_class_uid='1.2.840.10008.5.1.4.1.1.2', scu_role=False, scp_role=True)
    """

    sop_class_uid = Attribute(optional_uid)
    scu_role = Attribute(optional_bool)
    scp_role = Attribute(optional_bool)

    def freeze(self) -> items.RoleSelection:
        uid = str(self._given("sop_class_uid"))
        if not self.scu_role and not self.scp_role:
            raise ArgumentError(f"no role for {uid}; set scu_role, scp_role or both to True")
        return items.RoleSelection(uid, bool(self.scu_role), bool(self.scp_role))


class SOPClassExtendedNegotiation(Builder):
    """Application information that the service class of a SOP class defines (PS3.7 D.3.3.5).

    It is kept as bytes, and may be given as a record of :mod:`rxdicom.application_information`.

    >>> from rxdicom.application_information import QueryRetrieveInformation
    >>> item = SOPClassExtendedNegotiation()
    >>> item.service_class_application_information = QueryRetrieveInformation(relational_queries=True)
    >>> item.service_class_application_information
    b'\\x01'
    """

    sop_class_uid = Attribute(optional_uid)
    service_class_application_information = Attribute(_application_information)

    def freeze(self) -> items.SOPClassExtended:
        information = self.service_class_application_information
        if information is None:
            raise ArgumentError("service_class_application_information is not set; give bytes, b'' for none")
        return items.SOPClassExtended(str(self._given("sop_class_uid")), information)


class SOPClassCommonExtendedNegotiation(Builder):
    """The service class, and the related general SOP classes, of a SOP class (PS3.7 D.3.3.6)."""

    sop_class_uid = Attribute(optional_uid)
    service_class_uid = Attribute(optional_uid)
    related_general_sop_class_identification = Attribute(uids, ())

    def freeze(self) -> items.SOPClassCommonExtended:
        related = tuple(str(uid) for uid in self.related_general_sop_class_identification)
        return items.SOPClassCommonExtended(
            str(self._given("sop_class_uid")), str(self._given("service_class_uid")), related
        )


class UserIdentityNegotiation(Builder):
    """Who the requestor is (PS3.7 D.3.3.7): type 1 name, 2 name and passcode, 3 Kerberos, 4 SAML, 5 JSON Web Token.

    The fields are bytes, texts in UTF-8; all items of a request together fit 64 KiB. The secondary field counts with
    type 2 only. An item with a ``server_response`` is an acceptor's answer. The repr leaves the fields out, because
    they are secrets.
    """

    secrets = ("primary_field", "secondary_field", "server_response")

    user_identity_type = Attribute(_identity_type)
    positive_response_requested = Attribute(_bool, False)
    primary_field = Attribute(_optional_bytes)
    secondary_field = Attribute(_optional_bytes, b"")
    server_response = Attribute(_optional_bytes)

    def freeze(self) -> items.UserIdentity | items.UserIdentityResponse:
        if self.server_response is not None:
            return items.UserIdentityResponse(self.server_response)
        kind = self._given("user_identity_type")
        secondary = self._given("secondary_field") if kind == 2 else b""
        return items.UserIdentity(kind, self.positive_response_requested, self._given("primary_field"), secondary)
