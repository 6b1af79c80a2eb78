"""The service classes of PS3.4 as values: their DIMSE operations and their statuses. Imports :mod:`rxdicom.status`."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from rxdicom import status

_NO_TABLES: Mapping[str, status.StatusTable] = MappingProxyType({})


@frozen(eq=False, repr=False)
class ServiceClass:
    """A service class of PS3.4: what its SOP classes have in common. There is one object of each, compare with ``is``.

    >>> StorageServiceClass.operations, StorageServiceClass.status_table("C-STORE")[0xB007][0]
    (('C-STORE',), 'Warning')
    """

    name: str
    """The name under which this module has it, which is how it is copied and pickled."""
    operations: tuple[str, ...] = ()
    """The DIMSE services that the standard gives it: ``C-FIND``, ``N-CREATE`` …"""
    statuses: status.StatusTable = status.GENERAL_STATUS
    """What its responses may carry, where ``by_operation`` has nothing closer."""
    by_operation: Mapping[str, status.StatusTable] = _NO_TABLES

    def status_table(self, operation: str = "") -> status.StatusTable:
        """The statuses of one of its DIMSE services, e.g. ``"C-MOVE"``, or those of the service class as such."""
        return self.by_operation.get(operation, self.statuses)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __reduce__(self) -> str:
        return self.name


def _query_retrieve(name: str) -> ServiceClass:
    find, get, move = (
        status.QR_FIND_SERVICE_CLASS_STATUS,
        status.QR_GET_SERVICE_CLASS_STATUS,
        status.QR_MOVE_SERVICE_CLASS_STATUS,
    )
    return ServiceClass(name, ("C-FIND", "C-GET", "C-MOVE"), find, MappingProxyType({"C-GET": get, "C-MOVE": move}))


UnknownServiceClass = ServiceClass("UnknownServiceClass")
"""Of a SOP class that neither the standard nor ``register_uid`` gives a service."""

VerificationServiceClass = ServiceClass(
    "VerificationServiceClass", ("C-ECHO",), status.VERIFICATION_SERVICE_CLASS_STATUS
)
StorageServiceClass = ServiceClass("StorageServiceClass", ("C-STORE",), status.STORAGE_SERVICE_CLASS_STATUS)
NonPatientObjectStorageServiceClass = ServiceClass(
    "NonPatientObjectStorageServiceClass", ("C-STORE",), status.NON_PATIENT_SERVICE_CLASS_STATUS
)
QueryRetrieveServiceClass = _query_retrieve("QueryRetrieveServiceClass")
ColorPaletteQueryRetrieveServiceClass = _query_retrieve("ColorPaletteQueryRetrieveServiceClass")
DefinedProcedureProtocolQueryRetrieveServiceClass = _query_retrieve("DefinedProcedureProtocolQueryRetrieveServiceClass")
HangingProtocolQueryRetrieveServiceClass = _query_retrieve("HangingProtocolQueryRetrieveServiceClass")
ImplantTemplateQueryRetrieveServiceClass = _query_retrieve("ImplantTemplateQueryRetrieveServiceClass")
InventoryQueryRetrieveServiceClass = _query_retrieve("InventoryQueryRetrieveServiceClass")
ProtocolApprovalQueryRetrieveServiceClass = _query_retrieve("ProtocolApprovalQueryRetrieveServiceClass")
BasicWorklistManagementServiceClass = ServiceClass(
    "BasicWorklistManagementServiceClass", ("C-FIND",), status.MODALITY_WORKLIST_SERVICE_CLASS_STATUS
)
RelevantPatientInformationQueryServiceClass = ServiceClass(
    "RelevantPatientInformationQueryServiceClass", ("C-FIND",), status.RELEVANT_PATIENT_SERVICE_CLASS_STATUS
)
SubstanceAdministrationQueryServiceClass = ServiceClass(
    "SubstanceAdministrationQueryServiceClass", ("C-FIND",), status.SUBSTANCE_ADMINISTRATION_SERVICE_CLASS_STATUS
)
ApplicationEventLoggingServiceClass = ServiceClass(
    "ApplicationEventLoggingServiceClass", ("N-ACTION",), status.APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS
)
DisplaySystemManagementServiceClass = ServiceClass("DisplaySystemManagementServiceClass", ("N-GET",))
InstanceAvailabilityNotificationServiceClass = ServiceClass(
    "InstanceAvailabilityNotificationServiceClass", ("N-CREATE",)
)
MediaCreationManagementServiceClass = ServiceClass(
    "MediaCreationManagementServiceClass",
    ("N-CREATE", "N-GET", "N-ACTION"),
    status.MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS,
)
PrintManagementServiceClass = ServiceClass(
    "PrintManagementServiceClass",
    ("N-CREATE", "N-SET", "N-GET", "N-ACTION", "N-DELETE", "N-EVENT-REPORT"),
    status.PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS,
)
ProcedureStepServiceClass = ServiceClass(
    "ProcedureStepServiceClass", ("N-CREATE", "N-SET", "N-GET", "N-EVENT-REPORT"), status.PROCEDURE_STEP_STATUS
)
RTMachineVerificationServiceClass = ServiceClass(
    "RTMachineVerificationServiceClass",
    ("N-CREATE", "N-SET", "N-GET", "N-ACTION", "N-DELETE", "N-EVENT-REPORT"),
    status.RT_MACHINE_VERIFICATION_SERVICE_CLASS_STATUS,
)
StorageCommitmentServiceClass = ServiceClass(
    "StorageCommitmentServiceClass", ("N-ACTION", "N-EVENT-REPORT"), status.STORAGE_COMMITMENT_SERVICE_CLASS_STATUS
)
StorageManagementServiceClass = ServiceClass(
    "StorageManagementServiceClass", ("N-ACTION", "N-EVENT-REPORT"), status.STORAGE_MANAGEMENT_SERVICE_CLASS_STATUS
)
UnifiedProcedureStepServiceClass = ServiceClass(
    "UnifiedProcedureStepServiceClass",
    ("C-FIND", "N-CREATE", "N-SET", "N-GET", "N-ACTION", "N-EVENT-REPORT"),
    status.UNIFIED_PROCEDURE_STEP_N_STATUS,
    MappingProxyType({"C-FIND": status.UNIFIED_PROCEDURE_STEP_FIND_STATUS}),
)
