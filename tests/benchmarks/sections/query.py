"""C-FIND with many small responses, and C-GET of many small instances."""

import shutil
import subprocess
from pathlib import Path

from attrs import evolve

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import Batch, prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import HOST, SMALL, STACKS, TUNED, found, module_run, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import heading_of, rows_of, table

NAME = "query"
FIND, GET = "find", "get"

_MATCHES, _QUICK_MATCHES = 10_000, 20
_INSTANCES, _QUICK_INSTANCES = 500, 5
_ARCHIVED = 2000
"""Matches of DCMTK's archive, whose index is a file that is read from the beginning for each that is added."""
_SAMPLES = {FIND: 1000, GET: 100}
"""How many, where all of them take long: with pynetdicom at one end."""
_START = {FIND: "start-find", GET: "start-get"}
_TITLES = {"rxdicom": "rxdicom", "nodelay": "DCMTK nodelay", "pynetdicom": "pynetdicom", "dcmqrscp": "DCMTK nodelay"}
_PAIRS = (
    ("rxdicom", "rxdicom"),
    ("nodelay", "rxdicom"),
    ("pynetdicom", "rxdicom"),
    ("rxdicom", "nodelay"),
    ("rxdicom", "pynetdicom"),
    ("nodelay", "nodelay"),
    ("pynetdicom", "pynetdicom"),
)


def cases(scale: Scale) -> list[Case]:
    """Every pair at both, and at one response."""
    wanted = [name for name in (FIND, GET) if scale.wants(name)]
    return [
        _case(name, scu, scp, scale, is_start_up=is_start_up)
        for is_start_up in (True, False)
        for name in wanted
        for scu, scp in _PAIRS
    ]


def _count(name: str, scale: Scale) -> int:
    return scale.pick(_MATCHES, _QUICK_MATCHES) if name == FIND else scale.pick(_INSTANCES, _QUICK_INSTANCES)


def _case(name: str, scu: str, scp: str, scale: Scale, *, is_start_up: bool) -> Case:
    count = sent = 1 if is_start_up else _count(name, scale)
    if "pynetdicom" in (scu, scp) and not scale.full:
        sent = min(count, _SAMPLES[name])
    elif scp == "nodelay":
        sent = min(count, _ARCHIVED)
    needs_files = name == GET or scp == "nodelay"
    batch = prepare(scale.data, SMALL, sent if needs_files else 1)
    receiver = _archive(scale.cache, batch) if scp == "nodelay" else _provider(name, scp, sent, batch)
    study, series = _uids(batch)
    values = {"count": sent, "study": study, "series": series, "study_series": f"{study}/{series}"}
    expected = batch.contents if name == GET else ()
    said = _FOUND if (name, scu) == (FIND, "nodelay") else ()
    program = _FIND[scu] if name == FIND else _GET[scu]
    trial = Trial(program, receiver, (values,), expected, tuple(line.format_map(values) for line in said))
    title = f"{_TITLES[scu]} → {_TITLES[scp]}"
    size = batch.size if name == GET else 0
    pair = f"{scu}-{scp}"
    if is_start_up:
        return Case(NAME, _START[name], pair, title, trial)
    return Case(NAME, name, pair, title, trial, count, sent, size, (_START[name], pair))


def _provider(name: str, stack: str, count: int, batch: Batch) -> Program:
    what = ("--matches", str(count)) if name == FIND else ("--instances", str(batch.folder))
    return Program(own("archive", stack, "{port}", *what))


def _archive(cache: Path, batch: Batch) -> Program:
    """DCMTK's archive, with a database of the batch that is made unless it is there."""
    folder = cache / "dcmqrscp" / batch.folder.name
    database = folder / "database"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(batch.folder, database)
        (folder / "dcmqrscp.cfg").write_text(_CONFIGURATION.format(database=database))
        if program := shutil.which("dcmqridx"):
            files = sorted(str(path) for path in database.glob("*.dcm"))
            subprocess.run([program, str(database), *files], check=True, capture_output=True)
            (folder / "complete").touch()
    # Not in a single process: so it crashes when a connection ends without an association, as that of who waits for it.
    return Program((found("dcmqrscp"), "-c", str(folder / "dcmqrscp.cfg"), "{port}"), STACKS["nodelay"].environment)


_CONFIGURATION = """\
NetworkTCPPort = 104
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {database} RW (200, 1024mb) ANY
AETable END
"""


def _uids(batch: Batch) -> tuple[str, str]:
    from pydicom import dcmread  # pyright: ignore[reportUnknownVariableType]

    dataset = dcmread(batch.folder / "00000.dcm", stop_before_pixels=True)
    return str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)


_KEYS = ("-k", "StudyInstanceUID={study}", "-k", "SeriesInstanceUID={series}")
_IMAGES = ("-S", "-k", "QueryRetrieveLevel=IMAGE", *_KEYS, "-k", "SOPInstanceUID", "-k", "InstanceNumber")
_SERIES = ("-S", "-k", "QueryRetrieveLevel=SERIES", *_KEYS)
_PEER = ("-aec", "ARCHIVE", HOST, "{port}")

_USER = ("{port}", "ARCHIVE", "find", "{count}", "{study_series}")
_FIND = {
    "rxdicom": Program(own("user", "rxdicom", *_USER)),
    "pynetdicom": Program(own("user", "pynetdicom", *_USER)),
    "nodelay": Program((found("findscu"), *TUNED, "-v", "-sr", *_IMAGES, *_PEER), STACKS["nodelay"].environment),
}
# All that findscu tells of matches is this, with -v; they are neither shown nor counted otherwise.
_FOUND = ("Received Find Response {count} (Pending)", "Received Final Find Response (Success)")
_GET = {
    "rxdicom": Program(
        module_run("rxdicom", "getscu", "--relaxed", "--storage", "CTImageStorage", "-od", "{folder}", *_SERIES, *_PEER)
    ),
    "pynetdicom": Program(module_run("pynetdicom", "getscu", "-od", "{folder}", *_SERIES, *_PEER)),
    "nodelay": Program(
        (found("getscu"), *TUNED, "+B", "-od", "{folder}", *_SERIES, *_PEER), STACKS["nodelay"].environment
    ),
}


def tables(results: Results) -> list[Table]:
    """One table for C-FIND and one for C-GET."""
    shown: list[Table] = []
    references = (("nodelay-nodelay", "DCMTK"), ("pynetdicom-pynetdicom", "pynetdicom"))
    titles = {FIND: "C-FIND with {} matches", GET: "C-GET of {} images of 4 kB"}
    for name, title in titles.items():
        if rows := rows_of(results, NAME, name):
            heading = heading_of(rows, title.format(rows[0].count), results.rounds)
            notes = ("CPU scp of DCMTK's archive lacks its children, which it does not wait for",)
            shown.append(evolve(table(heading, rows, references), notes=notes))
    return shown


SECTION = Section(NAME, "C-FIND and C-GET", cases, tables)
