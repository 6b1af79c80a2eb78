"""Presentation contexts (PS3.8 §9.3.2.2) as a program fills them in, and the predefined lists of them.

Importing this module and building a context of plain UIDs load nothing; the lists load pydicom's UID dictionary. Each
access to a list makes it anew, so that nobody can change it for others.
"""

import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rxdicom import service_class as services
from rxdicom.builders import Attribute, Builder, optional_bool, optional_int, optional_uid, uids
from rxdicom.errors import ArgumentError
from rxdicom.sop_class import standard_sop_classes
from rxdicom.wire import uids as known

if TYPE_CHECKING:
    from pydicom.uid import UID

    from rxdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

    DEFAULT_TRANSFER_SYNTAXES: list[str]
    ALL_TRANSFER_SYNTAXES: list[str]

_RESULTS = {
    None: "Pending",
    0: "Accepted",
    1: "User Rejected",
    2: "Provider Rejected",
    3: "Abstract Syntax Not Supported",
    4: "Transfer Syntax(es) Not Supported",
}
_ROLES = {
    (True, False): "SCU only",
    (True, True): "SCU and SCP",
    (False, True): "SCP only",
    (False, False): "(none)",
}


def _context_id(value: int | None, name: str) -> int | None:
    if optional_int(value, name) is not None and value not in range(1, 256, 2):
        raise ArgumentError(f"{name} {value} is not allowed; give an odd number from 1 to 255")
    return value


class PresentationContextTuple(NamedTuple):
    """An accepted context: its ID, abstract syntax and the one transfer syntax."""

    context_id: int
    abstract_syntax: "UID"
    transfer_syntax: "UID"


class PresentationContext(Builder):
    """What is proposed, or supported, for one abstract syntax; after negotiation also how it ended.

    Bad UIDs and context IDs raise :class:`ArgumentError` (a :class:`ValueError`) and values of a wrong type
    :class:`TypeError`, when they are set.

    >>> cx = PresentationContext()
    >>> cx.context_id = 1
    >>> cx.abstract_syntax = "1.2.840.10008.1.1"
    >>> cx.transfer_syntax = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"]
    >>> print(cx)
    ID: 1
    Abstract Syntax: Verification SOP Class
    Transfer Syntax(es):
        =Implicit VR Little Endian
        =JPEG Baseline (Process 1)
    """

    context_id = Attribute(_context_id)
    """An odd number from 1 to 255, None until it is assigned."""
    abstract_syntax = Attribute(optional_uid)
    """The SOP class UID, usually; None until it is set."""
    transfer_syntax = Attribute(uids, ())
    """The transfer syntax UIDs, most wanted first; the accepted one alone in an accepted context."""
    scu_role = Attribute(optional_bool)
    """As acceptor: whether the requestor may be SCU, if it asks by role selection; None leaves it unanswered."""
    scp_role = Attribute(optional_bool)
    """As acceptor: whether the requestor may be SCP, if it asks by role selection; None leaves it unanswered."""
    result = Attribute(optional_int)
    """0 accepted, 1 to 4 rejected (PS3.8 table 9-18), None before the negotiation."""
    as_scu = Attribute(optional_bool)
    """Whether the local AE may be SCU of the context, None before the negotiation."""
    as_scp = Attribute(optional_bool)
    """Whether the local AE may be SCP of the context, None before the negotiation."""

    def add_transfer_syntax(self, syntax: str | bytes | None) -> None:
        """Append a transfer syntax; None, an empty one and one that is there already change nothing."""
        if syntax is not None:
            self.transfer_syntax = uids([*self.transfer_syntax, syntax], "transfer_syntax")

    @property
    def status(self) -> str:
        """The result in words; ``"Pending"`` before the negotiation."""
        return _RESULTS.get(self.result, "Unknown")

    @property
    def as_tuple(self) -> PresentationContextTuple:
        """The accepted context as a plain tuple."""
        if self.context_id is None or self.abstract_syntax is None or not self.transfer_syntax:
            raise ArgumentError("the context is not complete; it needs an ID, an abstract and a transfer syntax")
        return PresentationContextTuple(self.context_id, self.abstract_syntax, self.transfer_syntax[0])

    def __hash__(self) -> int:
        return hash(self.abstract_syntax)

    def __str__(self) -> str:
        role = _ROLES.get((self.as_scu, self.as_scp)) if self.as_scu is not None and self.as_scp is not None else None
        lines = (
            self.context_id is not None and f"ID: {self.context_id}",
            self.abstract_syntax is not None and f"Abstract Syntax: {self.abstract_syntax.name}",
            "Transfer Syntax(es):",
            *(f"    ={uid.name}" for uid in self.transfer_syntax),
            not self.transfer_syntax and "    (none)",
            self.result is not None and f"Result: {self.status}",
            role and f"Role: {role}",
        )
        return "\n".join(line for line in lines if line)


def build_context(
    abstract_syntax: str, transfer_syntax: "str | list[str] | tuple[str, ...] | None" = None
) -> PresentationContext:
    """A context for an abstract syntax, with one transfer syntax, a list of them, or the default ones.

    >>> build_context("1.2.840.10008.1.1", "1.2.840.10008.1.2").transfer_syntax
    ['1.2.840.10008.1.2']
    """
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    if transfer_syntax is None:
        transfer_syntax = known.DEFAULT_TRANSFER_SYNTAXES
    context.transfer_syntax = [transfer_syntax] if isinstance(transfer_syntax, str) else transfer_syntax
    return context


def build_role(uid: str, scu_role: bool = False, scp_role: bool = False) -> "SCP_SCU_RoleSelectionNegotiation":
    """The role selection item by which a requestor proposes roles for itself (PS3.7 D.3.3.4).

    >>> build_role("1.2.840.10008.5.1.4.1.1.2", scp_role=True).freeze().scp_role
    True
    """
    from rxdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = uid
    role.scu_role = scu_role
    role.scp_role = scp_role
    return role


# Name of a list, without "PresentationContexts", to its service.
_LISTS = {
    "AllStorage": services.StorageServiceClass,
    "ApplicationEventLogging": services.ApplicationEventLoggingServiceClass,
    "BasicWorklistManagement": services.BasicWorklistManagementServiceClass,
    "ColorPalette": services.ColorPaletteQueryRetrieveServiceClass,
    "DefinedProcedureProtocol": services.DefinedProcedureProtocolQueryRetrieveServiceClass,
    "DisplaySystem": services.DisplaySystemManagementServiceClass,
    "HangingProtocol": services.HangingProtocolQueryRetrieveServiceClass,
    "ImplantTemplate": services.ImplantTemplateQueryRetrieveServiceClass,
    "InstanceAvailability": services.InstanceAvailabilityNotificationServiceClass,
    "Inventory": services.InventoryQueryRetrieveServiceClass,
    "MediaCreationManagement": services.MediaCreationManagementServiceClass,
    "ModalityPerformed": services.ProcedureStepServiceClass,
    "NonPatientObject": services.NonPatientObjectStorageServiceClass,
    "PrintManagement": services.PrintManagementServiceClass,
    "ProcedureStep": services.ProcedureStepServiceClass,
    "ProtocolApproval": services.ProtocolApprovalQueryRetrieveServiceClass,
    "QueryRetrieve": services.QueryRetrieveServiceClass,
    "RelevantPatientInformation": services.RelevantPatientInformationQueryServiceClass,
    "RTMachineVerification": services.RTMachineVerificationServiceClass,
    "StorageCommitment": services.StorageCommitmentServiceClass,
    "StorageManagement": services.StorageManagementServiceClass,
    "SubstanceAdministration": services.SubstanceAdministrationQueryServiceClass,
    "UnifiedProcedure": services.UnifiedProcedureStepServiceClass,
    "Verification": services.VerificationServiceClass,
}

# The 120 storage SOP classes that are proposed together: the established ones, the retired ones that old archives still
# hold, and eight contexts to spare for other services (PS3.8 allows 128). By UID after the root 1.2.840.10008.
_COMMON_STORAGE = (
    r"5\.1\.1\.(27|29|30)|5\.1\.4\.34\.7|5\.1\.4\.1\.1\.("
    r"1(\.[123](\.1)?)?|2(\.[12])?|3(\.1)?|4(\.[1-4])?|5|6(\.[12])?|7(\.[1-4])?|8|"
    r"9(\.1\.[123]|\.[2356]\.1|\.4\.[12])?|10|11(\.[1-5])?|12\.([12](\.1)?|3)|13\.1\.[123]|14\.[12]|20|"
    r"66(\.[1-5])?|67|68\.[12]|77\.1(\.([124](\.1)?|3|5\.[1-4]|6))?|77\.2|78\.[1-8]|(79|80|81)\.1|"
    r"88\.(11|22|33|34|40|50|59|65|67|69|70)|104\.[12]|128(\.1)?|129|130|131|481\.[1-9])"
)
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_SUFFIX = "PresentationContexts"


def _common_storage() -> list[str]:
    common = re.compile(r"1\.2\.840\.10008\.(" + _COMMON_STORAGE + ")")
    return [uid for uid in standard_sop_classes(services.StorageServiceClass, True) if common.fullmatch(uid)]


def _all_transfer_syntaxes() -> list[str]:
    """The current ones and explicit VR big endian, by number; without encapsulated uncompressed, as in pynetdicom."""
    from pydicom._uid_dict import UID_dictionary

    current = {
        uid for uid, (_, kind, _, retired, _) in UID_dictionary.items() if kind == "Transfer Syntax" and not retired
    }
    chosen = current - {_ENCAPSULATED_UNCOMPRESSED} | {known.EXPLICIT_VR_BIG_ENDIAN}
    return sorted(chosen, key=lambda uid: [int(number) for number in uid.split(".")])


def __getattr__(name: str) -> list[PresentationContext]:
    if name == "DEFAULT_TRANSFER_SYNTAXES":
        return cast(Any, list(known.DEFAULT_TRANSFER_SYNTAXES))
    if name == "ALL_TRANSFER_SYNTAXES":
        return cast(Any, _all_transfer_syntaxes())
    service = _LISTS.get(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
    if service is not None:
        return [build_context(uid) for uid in standard_sop_classes(service)]
    if name == "StoragePresentationContexts":
        return [build_context(uid) for uid in _common_storage()]
    if name == "MediaStoragePresentationContexts":
        return [build_context(_MEDIA_STORAGE_DIRECTORY)]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    lists = (f"{name}{_SUFFIX}" for name in ("Storage", "MediaStorage", *_LISTS))
    return sorted({*globals(), *lists, "DEFAULT_TRANSFER_SYNTAXES", "ALL_TRANSFER_SYNTAXES"})
