"""The workloads, the programs and the pairings of the benchmarks, as tables. Touches nothing."""

import sys

from attrs import field, frozen

from tests.support import find_dcmtk

from .data import Shape


@frozen
class Workload:
    """What one association carries: ``count`` C-ECHOs, or as many C-STOREs of images of one shape."""

    title: str
    count: int
    quick_count: int
    shape: Shape | None = None
    quick_shape: Shape | None = None

    @property
    def start_up(self) -> str:
        return "start-echo" if self.shape is None else "start-store"


@frozen
class Stack:
    """The programs of one DICOM implementation; ``{count}``, ``{folder}`` and ``{port}`` are filled in."""

    title: str
    echo_scu: tuple[str, ...]
    echo_scp: tuple[str, ...]
    store_scu: tuple[str, ...]
    store_scp: tuple[str, ...]
    environment: dict[str, str] = field(factory=dict[str, str])


@frozen
class Pair:
    """A sender and a receiver. A sampled pair sends at most ``SAMPLE`` objects unless all of them are asked for."""

    scu: str
    scp: str
    sampled: bool = False

    @property
    def name(self) -> str:
        return f"{self.scu}-{self.scp}"

    @property
    def title(self) -> str:
        return f"{STACKS[self.scu].title} → {STACKS[self.scp].title}"

    def sends(self, count: int, everything: bool) -> int:
        """Return how many of ``count`` objects this pair sends; the time is scaled to all of them."""
        return min(count, SAMPLE) if self.sampled and not everything else count


SAMPLE = 100
"""Objects that a sampled pair sends: stock DCMTK or pynetdicom at both ends stalls for 40 to 90 ms in each of them, and
pynetdicom loses responses of a fast peer in a race of its own, every few thousand messages."""

SMALL: Shape = (64, 32)

WORKLOADS = {
    "echo": Workload("C-ECHO", 2000, 50),
    "small": Workload("images of 4 kB", 2000, 20, SMALL, SMALL),
    "medium": Workload("images of 512 kB", 400, 10, (512, 512), (512, 512)),
    "large": Workload("image of 275 MB", 1, 1, (11726, 11726), (3240, 3240)),
}

START_UPS = {
    "start-echo": Workload("C-ECHO", 1, 1),
    "start-store": Workload("image of 4 kB", 1, 1, SMALL, SMALL),
}
"""The minimal jobs, whose time is subtracted as start-up."""

_HOST = "127.0.0.1"
_TUNED = ("-pdu", "131072")


def _found(program: str) -> str:
    """DCMTK's program, not pynetdicom's of the same name; the bare name, which then fails to start, without it."""
    return find_dcmtk(program) or program


def _dcmtk(title: str, options: tuple[str, ...] = (), write: tuple[str, ...] = (), **environment: str) -> Stack:
    return Stack(
        title,
        echo_scu=(_found("echoscu"), *options, "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=(_found("storescp"), *options, "-od", "{folder}", "{port}"),  # there is no echoscp
        store_scu=(_found("storescu"), *options, "+sd", _HOST, "{port}", "{folder}"),
        store_scp=(_found("storescp"), *options, *write, "-od", "{folder}", "{port}"),
        environment=environment,
    )


def _python(
    module: str,
    title: str,
    store_scu: tuple[str, ...] = (),
    scp: tuple[str, ...] = (),
    write: tuple[str, ...] = (),
) -> Stack:
    run = (sys.executable, "-m", module)
    return Stack(
        title,
        echo_scu=(*run, "echoscu", "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=(*run, "echoscp", *scp, "{port}"),
        store_scu=(*run, "storescu", *store_scu, _HOST, "{port}", "{folder}"),
        store_scp=(*run, "storescp", *scp, *write, "-od", "{folder}", "{port}"),
    )


STACKS = {
    "stock": _dcmtk("DCMTK"),
    "nodelay": _dcmtk("DCMTK nodelay", _TUNED, TCP_NODELAY="1"),
    # By default storescp decodes what it receives and encodes it again; with +B it writes it as it came.
    "preserving": _dcmtk("DCMTK nodelay +B", _TUNED, ("+B",), TCP_NODELAY="1"),
    # Without -xe, its own storescp, and no other, would make pynetdicom recode every dataset as implicit VR.
    "pynetdicom": _python("pynetdicom", "pynetdicom", store_scu=("-xe",), scp=("-ba", _HOST)),
    # None of the others has what it acknowledges on the disk: with --relaxed ours does as they do. By default it fsyncs
    # file and folder before it answers, which is measured as a receiver of its own.
    "rxdicom": _python("rxdicom", "rxdicom", write=("--relaxed",)),
    "durable": _python("rxdicom", "rxdicom durable"),
}
PAIRS = {
    pair.name: pair
    for pair in (
        Pair("nodelay", "nodelay"),
        Pair("nodelay", "preserving"),
        Pair("nodelay", "rxdicom"),
        Pair("nodelay", "durable"),
        Pair("rxdicom", "nodelay"),
        Pair("rxdicom", "rxdicom"),
        Pair("stock", "rxdicom"),
        Pair("rxdicom", "stock"),
        Pair("stock", "stock", sampled=True),
        Pair("pynetdicom", "rxdicom", sampled=True),
        Pair("rxdicom", "pynetdicom"),
        Pair("pynetdicom", "pynetdicom", sampled=True),
    )
}

REFERENCES = ("nodelay-nodelay", "stock-stock", "pynetdicom-pynetdicom")
"""The pairs that the others are compared with."""
