"""The workloads, the programs and the pairings of the benchmarks, as tables. Touches nothing."""

import sys

from attrs import field, frozen

from .data import Shape


@frozen
class Workload:
    """What one association carries: ``count`` C-ECHOs, or as many C-STOREs of images of one shape."""

    title: str
    count: int
    quick_count: int
    shape: Shape | None = None
    quick_shape: Shape | None = None


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


SAMPLE = 100
"""Objects that a sampled pair sends: stock DCMTK at both ends takes 40 to 90 ms for each, however small it is."""

SMALL: Shape = (1, 64, 32)

WORKLOADS = {
    "echo": Workload("C-ECHO", 2000, 50),
    "small": Workload("images of 4 kB", 2000, 20, SMALL, SMALL),
    "medium": Workload("images of 512 kB", 400, 10, (1, 512, 512), (1, 512, 512)),
    "large": Workload("image of 275 MB", 1, 1, (525, 512, 512), (40, 512, 512)),
}

_HOST = "127.0.0.1"
_PYNETDICOM = (sys.executable, "-m", "pynetdicom")
_RXDICOM = (sys.executable, "-m", "rxdicom")
_PDU = ("-pdu", "131072")

STACKS = {
    "stock": Stack(
        "DCMTK",
        echo_scu=("echoscu", "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=("storescp", "-od", "{folder}", "{port}"),
        store_scu=("storescu", "+sd", "+r", _HOST, "{port}", "{folder}"),
        store_scp=("storescp", "-od", "{folder}", "{port}"),
    ),
    "nodelay": Stack(
        "DCMTK nodelay",
        echo_scu=("echoscu", *_PDU, "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=("storescp", *_PDU, "-od", "{folder}", "{port}"),
        store_scu=("storescu", *_PDU, "+sd", "+r", _HOST, "{port}", "{folder}"),
        store_scp=("storescp", *_PDU, "-od", "{folder}", "{port}"),
        environment={"TCP_NODELAY": "1"},
    ),
    "pynetdicom": Stack(
        "pynetdicom",
        echo_scu=(*_PYNETDICOM, "echoscu", "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=(*_PYNETDICOM, "echoscp", "-ba", _HOST, "{port}"),
        store_scu=(*_PYNETDICOM, "storescu", "-r", _HOST, "{port}", "{folder}"),
        store_scp=(*_PYNETDICOM, "storescp", "-ba", _HOST, "-od", "{folder}", "{port}"),
    ),
    "rxdicom": Stack(
        "rxdicom",
        echo_scu=(*_RXDICOM, "echoscu", "--repeat", "{count}", _HOST, "{port}"),
        echo_scp=(*_RXDICOM, "echoscp", "{port}"),
        store_scu=(*_RXDICOM, "storescu", _HOST, "{port}", "{folder}"),
        store_scp=(*_RXDICOM, "storescp", "-od", "{folder}", "{port}"),
    ),
}

PAIRS = {
    pair.name: pair
    for pair in (
        Pair("nodelay", "nodelay"),
        Pair("nodelay", "rxdicom"),
        Pair("rxdicom", "nodelay"),
        Pair("rxdicom", "rxdicom"),
        Pair("stock", "rxdicom"),
        Pair("rxdicom", "stock"),
        Pair("stock", "stock", sampled=True),
        Pair("pynetdicom", "rxdicom"),
        Pair("rxdicom", "pynetdicom"),
        Pair("pynetdicom", "pynetdicom"),
    )
}

REFERENCES = ("nodelay-nodelay", "stock-stock", "pynetdicom-pynetdicom")
"""The pairs that the others are compared with."""
