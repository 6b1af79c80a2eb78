"""Servers that are configured and started for a test: DCMTK's dcmqrscp, wlmscpfs and dcmprscp, and Orthanc.

Each is a context manager that writes its configuration and data into a folder of the test's and stops it afterwards.
"""

import json
import os
import shutil
import urllib.request
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from rxdicom import sop_class
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.ports import free_port
from tests.support import DEADLINE, dcmtk, listening, run, running

_MODELS = {"P": "PatientRoot", "S": "StudyRoot", "O": "PatientStudyOnly"}
FINDS, GETS, MOVES = (
    {letter: str(getattr(sop_class, f"{name}QueryRetrieveInformationModel{kind}")) for letter, name in _MODELS.items()}
    for kind in ("Find", "Get", "Move")
)
"""The Query/Retrieve SOP classes, by the letters that DCMTK's options have for their information models."""
WORKLIST = str(sop_class.ModalityWorklistInformationModelFind)

DCMTK_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""The options by which DCMTK's programs propose, or with a plus prefer, a transfer syntax."""

# ---- DCMTK's archive

_ARCHIVE = """\
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {database} RW (200, 1024mb) ANY
AETable END
"""
# Without a profile of its own dcmqrscp takes one compressed transfer syntax at the most.
_PROFILE = """\
[[TransferSyntaxes]]
[Any]
{syntaxes}
[Plain]
TransferSyntax1 = {explicit}
TransferSyntax2 = {implicit}
[[PresentationContexts]]
[Contexts]
{contexts}
[[SCPSCURoleSelection]]
[Roles]
{roles}
[[Profiles]]
[Profile]
PresentationContexts = Contexts
SCPSCURoleSelection = Roles
"""


@contextmanager
def dcmqrscp(
    folder: Path, sop_classes: Iterable[str], syntaxes: Iterable[str], destinations: Mapping[str, int]
) -> Generator[int]:
    """An empty archive called ARCHIVE, for instances of these SOP classes; yields its port.

    ``destinations`` are the local ports of those that it may move instances to, by AE title.
    """
    database, port = folder / "database", free_port()
    database.mkdir()
    hosts = (f"host{number} = ({title}, localhost, {at})" for number, (title, at) in enumerate(destinations.items()))
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(_ARCHIVE.format(port=port, database=database, hosts="\n".join(hosts)))
    storage = sorted(sop_classes)
    plain = [VERIFICATION, *FINDS.values(), *GETS.values(), *MOVES.values()]
    contexts = [*(f"{uid}\\Plain" for uid in plain), *(f"{uid}\\Any" for uid in storage)]
    profile = folder / "profile.cfg"
    profile.write_text(
        _PROFILE.format(
            syntaxes=_numbered("TransferSyntax", syntaxes),
            explicit=EXPLICIT_VR_LITTLE_ENDIAN,
            implicit=IMPLICIT_VR_LITTLE_ENDIAN,
            contexts=_numbered("PresentationContext", contexts),
            roles=_numbered("Role", (f"{uid}\\BOTH" for uid in storage)),
        )
    )
    options = ("-c", configuration, "-xf", profile, "Profile", "Profile")
    with running(dcmtk("dcmqrscp"), *options, port=port):
        yield port


def _numbered(name: str, values: Iterable[str]) -> str:
    return "\n".join(f"{name}{number} = {value}" for number, value in enumerate(values, 1))


# ---- DCMTK's worklist


@contextmanager
def wlmscpfs(folder: Path, items: Iterable[Dataset], *options: str) -> Generator[int]:
    """A worklist SCP called WORKLIST with these items; yields its port."""
    files, port = folder / "WORKLIST", free_port()
    files.mkdir()
    (files / "lockfile").touch()
    for number, item in enumerate(items):
        write_file(files / f"item{number}.wl", item)
    with running(dcmtk("wlmscpfs"), "--single-process", *options, "-dfp", folder, port, port=port):
        yield port


def write_file(path: Path, dataset: Dataset) -> Path:
    """Write a dataset that is no instance as a file, for programs that read such."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    dataset.file_meta.MediaStorageSOPClassUID = UID(WORKLIST)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.save_as(path, enforce_file_format=True)
    return path


# ---- DCMTK's printer

_PRINT = """\
[[GENERAL]]
[APPLICATION]
LogDirectory = {folder}
[PRINT]
Directory = {folder}
[DATABASE]
Directory = {folder}
[LUT]
Directory = {folder}
[NETWORK]
Aetitle = DCMPSTATE
[[COMMUNICATION]]
[THEIRS]
Type = LOCALPRINTER
Aetitle = PRINTER
Port = {theirs}
{printer}
[OURS]
Type = PRINTER
Aetitle = RXPRINTER
Port = {ours}
{printer}
"""
_PRINTER = r"""Description = a printer
Hostname = localhost
DisplayFormat = 1,1\1,2
FilmDestination = MAGAZINE\PROCESSOR
FilmSizeID = 8INX10IN\14INX17IN
MagnificationType = REPLICATE\NONE
MaxDensity = 320
MaxPDU = 32768
MediumType = PAPER\BLUE FILM
Supports12Bit = true
SupportsPresentationLUT = true
PresentationLUTMatchRequired = false
"""


@frozen
class Printers:
    """DCMTK's printer, which keeps what it prints as files, and its print SCU, which prints such files to ours."""

    folder: Path
    port: int

    @property
    def printed(self) -> list[Path]:
        """The Stored Print objects of the films that were printed."""
        return sorted(self.folder.glob("SP_*.dcm"))

    def send(self, stored_print: Path) -> None:
        """Print a film to the printer of ours."""
        run(dcmtk("dcmprscu"), "-c", self.folder / "print.cfg", "-p", "OURS", stored_print)


@contextmanager
def dcmprscp(folder: Path, our_port: int) -> Generator[Printers]:
    """A printer called PRINTER; dcmprscu knows one of ours, called RXPRINTER, at ``our_port``."""
    port, configuration = free_port(), folder / "print.cfg"
    configuration.write_text(_PRINT.format(folder=folder, theirs=port, ours=our_port, printer=_PRINTER))
    with running(dcmtk("dcmprscp"), "-c", configuration, "-p", "THEIRS", port=port):
        yield Printers(folder, port)


# ---- Orthanc


@frozen
class Orthanc:
    """A running Orthanc, called ORTHANC."""

    port: int
    http_port: int

    def rest(self, path: str, body: object = None) -> Any:
        """What its REST API answers: to POST with a body, else to GET. Raises :class:`OSError` if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data)
        # Not through a proxy, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=DEADLINE) as response:
            return json.load(response)


@cache
def _find_orthanc() -> str | None:
    return shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextmanager
def orthanc(folder: Path, modalities: Mapping[str, int]) -> Generator[Orthanc]:
    """An empty Orthanc that knows these AE titles at these local ports, each as a modality of the same name."""
    program = _find_orthanc()
    if program is None:
        message = "Orthanc is not installed: apt-get install orthanc"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    port, http_port = free_port(), free_port()
    allowed = dict.fromkeys((f"DicomAlwaysAllow{what}" for what in ("Echo", "Store", "Find", "Get", "Move")), True)
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                **allowed,
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "HttpPort": http_port,
                "RemoteAccessAllowed": False,
                "DicomModalities": {title: [title, "127.0.0.1", at] for title, at in modalities.items()},
                "DicomAssociationCloseDelay": 0,
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "SyncStorageArea": False,
                "SaveJobs": False,
                "Plugins": [],
            }
        )
    )
    with running(program, configuration, port=port) as process:
        listening(http_port, process)
        yield Orthanc(port, http_port)
