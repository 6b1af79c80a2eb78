"""The workloads, the programs and the pairings of the benchmarks, as tables. Touches nothing."""

import sys
from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen

from tests.support import find_dcmtk

from .data import Shape
from .measure import PROGRAMS
from .processes import Program


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
    """The programs of one implementation; filled in are ``{count}``, ``{port}``, ``{source}`` (what folder is sent) and
    ``{folder}`` (where what is received goes).
    """

    title: str
    echo_scu: tuple[str, ...]
    echo_scp: tuple[str, ...]
    store_scu: tuple[str, ...]
    store_scp: tuple[str, ...]
    environment: dict[str, str] = field(factory=dict[str, str])

    def program(self, task: str, environment: Mapping[str, str] = MappingProxyType({})) -> Program:
        """Return the program for one of the four tasks, with more in its environment if wanted."""
        return Program(getattr(self, task), {**self.environment, **environment})


@frozen
class Pair:
    """A sender and a receiver. A sampled pair sends so many objects at most, unless all of them are asked for."""

    scu: str
    scp: str
    sample: int | None = None

    @property
    def name(self) -> str:
        return f"{self.scu}-{self.scp}"

    @property
    def title(self) -> str:
        return f"{STACKS[self.scu].title} → {STACKS[self.scp].title}"

    def sends(self, count: int, everything: bool) -> int:
        """Return how many of ``count`` objects this pair sends; the time is scaled to all of them."""
        return count if self.sample is None or everything else min(count, self.sample)


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
AT_ONCE = {"TCP_NODELAY": "1"}
"""For minimal jobs. Stock DCMTK stalls for 86 ms in that of one image, between the command set and so small a dataset,
and before the end of the response: that is no start-up, and a large image has only the second of these stalls."""

HOST = "127.0.0.1"
TUNED = ("-pdu", "131072")


def found(program: str) -> str:
    """DCMTK's program, not pynetdicom's of the same name; the bare name, which then fails to start, without it."""
    return find_dcmtk(program) or program


def _dcmtk(title: str, options: tuple[str, ...] = (), write: tuple[str, ...] = (), **environment: str) -> Stack:
    return Stack(
        title,
        echo_scu=(found("echoscu"), *options, "--repeat", "{count}", HOST, "{port}"),
        echo_scp=(found("storescp"), *options, "-od", "{folder}", "{port}"),  # there is no echoscp
        store_scu=(found("storescu"), *options, "+sd", HOST, "{port}", "{source}"),
        store_scp=(found("storescp"), *options, *write, "-od", "{folder}", "{port}"),
        environment=environment,
    )


def module_run(module: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs a module."""
    return (sys.executable, "-m", module, *arguments)


def own(program: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs a program of the suite itself."""
    return (sys.executable, str(PROGRAMS / f"{program}.py"), *arguments)


def _python(
    module: str,
    title: str,
    store_scu: tuple[str, ...] = (),
    scp: tuple[str, ...] = (),
    write: tuple[str, ...] = (),
) -> Stack:
    run = module_run(module)
    return Stack(
        title,
        echo_scu=(*run, "echoscu", "--repeat", "{count}", HOST, "{port}"),
        echo_scp=(*run, "echoscp", *scp, "{port}"),
        store_scu=(*run, "storescu", *store_scu, HOST, "{port}", "{source}"),
        store_scp=(*run, "storescp", *scp, *write, "-od", "{folder}", "{port}"),
    )


STACKS = {
    "stock": _dcmtk("DCMTK"),
    "nodelay": _dcmtk("DCMTK nodelay", TUNED, TCP_NODELAY="1"),
    # By default storescp decodes what it receives and encodes it again; with +B it writes it as it came.
    "preserving": _dcmtk("DCMTK nodelay +B", TUNED, ("+B",), TCP_NODELAY="1"),
    # Without -xe, its own storescp, and no other, would make pynetdicom recode every dataset as implicit VR.
    "pynetdicom": _python("pynetdicom", "pynetdicom", store_scu=("-xe",), scp=("-ba", HOST)),
    # None of the others has what it acknowledges on the disk: with --relaxed ours does as they do. By default it fsyncs
    # file and folder before it answers, which is measured as a receiver of its own.
    "rxdicom": _python("rxdicom", "rxdicom", write=("--relaxed",)),
    "durable": _python("rxdicom", "rxdicom durable"),
    "bare": Stack(
        "bare socket",
        echo_scu=own("bare", "echo", "{port}", "{count}"),
        echo_scp=own("bare", "receive", "{port}", "{folder}"),
        store_scu=own("bare", "send", "{port}", "{source}"),
        store_scp=own("bare", "receive", "{port}", "{folder}"),
    ),
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
        Pair("stock", "stock", sample=40),
        Pair("pynetdicom", "rxdicom", sample=100),
        Pair("rxdicom", "pynetdicom", sample=400),
        Pair("pynetdicom", "pynetdicom", sample=100),
        Pair("bare", "bare"),
    )
}
"""The pairs of the basic workloads.

Sampled are those that take long. Stock DCMTK stalls for 40 to 90 ms in each message, and so does pynetdicom; it also
loses responses of a fast peer in a race of its own, every few thousand messages.
"""

REFERENCES = ("nodelay-nodelay", "stock-stock", "pynetdicom-pynetdicom", "bare-bare")
"""The pairs that the others are compared with."""
