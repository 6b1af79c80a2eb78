"""The other side of pynetdicom's documented examples, the same on either stack: an SCP that has everything, and a SCU.

They are written in the words that both stacks have, so that each of them can play against the other.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from rxdicom.errors import AssociationRejected
from tests.interop.documented.play import port_of
from tests.support import FILES, read

CT = FILES / "CT_small.dcm"
CLASSES = (
    "Verification",
    "DisplaySystem",
    "ModalityPerformedProcedureStep",
    "BasicGrayscalePrintManagementMeta",
    "ModalityWorklistInformationFind",
    "GeneralRelevantPatientInformationQuery",
    "PatientRootQueryRetrieveInformationModelFind",
    "PatientRootQueryRetrieveInformationModelGet",
    "PatientRootQueryRetrieveInformationModelMove",
)
IMAGE_BOX = "1.2.840.10008.5.1.1.4"


def sop_class(name: str) -> str:
    """The UID of a SOP class by its keyword; a UID is its own."""
    return name if name[0].isdigit() else str(getattr(import_module("rxdicom.sop_class"), name))


class Archive:
    """An SCP of everything that the examples ask for. It notes what is requested, and by which users."""

    def __init__(self, package: str) -> None:
        self.stack: Any = import_module(package)
        self.requests: list[str] = []
        self.users: list[bytes] = []
        self.destination: tuple[str, int] | None = None
        """Where C-MOVE sends to; None for this archive itself."""
        ae = self.stack.AE(ae_title="ARCHIVE")
        for name in CLASSES:
            ae.add_supported_context(sop_class(name))
        for context in import_module(f"{package}.presentation").StoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, scu_role=True, scp_role=True)
        ae.add_requested_context(sop_class("CTImageStorage"), ExplicitVRLittleEndian)
        evt = self.stack.evt
        handlers: list[Any] = [(getattr(evt, f"EVT_{name}"), self._noting(name)) for name in _ANSWERS]
        handlers.append((evt.EVT_USER_ID, self._identify))
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = port_of(self._server)

    def forget(self) -> None:
        """Begin anew, for the next example."""
        self.requests, self.users, self.destination = [], [], None

    def shutdown(self) -> None:
        self._server.shutdown()

    def _noting(self, name: str) -> Callable[[Any], Any]:
        def handle(event: Any) -> Any:
            self.requests.append(name)
            return _ANSWERS[name](self, event)

        return handle

    def _identify(self, event: Any) -> tuple[bool, None]:
        self.users.append(event.primary_field)
        return True, None


def _success(archive: Archive, event: Any) -> int:
    return 0x0000


def _find(archive: Archive, event: Any) -> Iterator[Any]:
    match = Dataset()
    match.PatientName = "CITIZEN^Jan"
    yield 0xFF00, match


def _get(archive: Archive, event: Any) -> Iterator[Any]:
    yield 1
    yield 0xFF00, read(CT)


def _move(archive: Archive, event: Any) -> Iterator[Any]:
    yield archive.destination or ("127.0.0.1", archive.port)
    yield 1
    yield 0xFF00, read(CT)


def _n_get(archive: Archive, event: Any) -> tuple[int, Dataset]:
    attributes = Dataset()
    attributes.Manufacturer = "Somebody"
    attributes.PrinterStatus = "NORMAL"
    return 0x0000, attributes


def _n_create(archive: Archive, event: Any) -> tuple[int, Dataset]:
    created = event.attribute_list
    created.SOPClassUID = event.request.AffectedSOPClassUID
    created.SOPInstanceUID = event.request.AffectedSOPInstanceUID
    box = Dataset()
    box.ReferencedSOPClassUID = IMAGE_BOX
    box.ReferencedSOPInstanceUID = "1.2.3"
    created.ReferencedImageBoxSequence = [box]
    return 0x0000, created


def _n_set(archive: Archive, event: Any) -> tuple[int, Dataset]:
    return 0x0000, event.modification_list


def _n_action(archive: Archive, event: Any) -> tuple[int, None]:
    return 0x0000, None


_ANSWERS: dict[str, Callable[[Archive, Any], Any]] = {
    "C_ECHO": _success,
    "C_STORE": _success,
    "C_FIND": _find,
    "C_GET": _get,
    "C_MOVE": _move,
    "N_GET": _n_get,
    "N_CREATE": _n_create,
    "N_SET": _n_set,
    "N_ACTION": _n_action,
    "N_DELETE": _success,
}


class Visitor:
    """A SCU for one server, beside which an archive of the same stack stands."""

    def __init__(self, archive: Archive, host: str, port: int) -> None:
        self.archive = archive
        self.stack = archive.stack
        self.host = host
        self.port = port

    @contextmanager
    def associated(self, *classes: str, **options: Any) -> Generator[Any]:
        """An association with these SOP classes as contexts, released at the end."""
        assoc = self._associate(*classes, **options)
        assert assoc.is_established
        try:
            yield assoc
        finally:
            assoc.release()

    def is_rejected(self, **options: Any) -> bool:
        """Whether the server rejects an association for Verification."""
        try:
            assoc = self._associate("Verification", **options)
        except AssociationRejected:
            return True
        if assoc.is_established:
            assoc.release()
        # pynetdicom takes a rejection for an abort now and then.
        return assoc.is_rejected or (self.stack.__name__ == "pynetdicom" and assoc.is_aborted)

    def _associate(self, *classes: str, **options: Any) -> Any:
        ae = self.stack.AE(ae_title="VISITOR")
        for name in classes:
            ae.add_requested_context(sop_class(name))
        return ae.associate(self.host, self.port, **options)

    def echo(self, **options: Any) -> int:
        """The status of a C-ECHO."""
        with self.associated("Verification", **options) as assoc:
            return assoc.send_c_echo().Status

    def store(self, name: str = "CTImageStorage") -> int:
        """The status of storing a CT image, as what it is or as an instance of another SOP class."""
        instance = read(CT)
        instance.SOPClassUID = sop_class(name)
        with self.associated(name) as assoc:
            return assoc.send_c_store(instance).Status

    def find(self, model: str, identifier: Dataset) -> list[int]:
        """The statuses of a query."""
        with self.associated(model) as assoc:
            return [status.Status for status, _ in assoc.send_c_find(identifier, sop_class(model))]
