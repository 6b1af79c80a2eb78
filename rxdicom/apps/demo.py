"""``rxdicom demo``: real files travel between two application entities in this process, watched by an Rx pipeline.

Nothing is shown that was not observed: the tables come from the server's event streams, the chart from those of one
association, and each file is compared with what arrived.
"""

import os
import sys
import textwrap
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout
from hashlib import sha256
from importlib.util import find_spec
from io import StringIO
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import reactivex
from attrs import evolve, frozen
from reactivex import operators as ops

from rxdicom import AE, AssociationServer, evt
from rxdicom.apps import chart
from rxdicom.apps.console import escaped, reason, size
from rxdicom.apps.storage import file_name
from rxdicom.apps.traffic import Traffic, pace, traffic
from rxdicom.errors import RxDicomError
from rxdicom.runtimes.instances import FileInstance, Unsendable, examine, presentation_contexts, scan

if TYPE_CHECKING:
    from rxdicom.events.records import CStore

_HOST = "127.0.0.1"
_SCU, _SCP = "RXDICOM-SCU", "RXDICOM-SCP"
_SIDE_BY_SIDE = 4
_ROW_EVERY = 0.05
_WIDTH = 80
_PDU_TYPES = (
    "A-ASSOCIATE-RQ",
    "A-ASSOCIATE-AC",
    "A-ASSOCIATE-RJ",
    "P-DATA-TF",
    "A-RELEASE-RQ",
    "A-RELEASE-RP",
    "A-ABORT",
)


@frozen
class Item:
    """A file of the demonstration. Its number is its message ID, by which the copy that arrives is found again."""

    number: int
    instance: FileInstance
    failure: str = ""

    @property
    def name(self) -> str:
        return os.path.basename(self.instance.path)

    def copy_in(self, folder: str) -> str:
        """Where the copy that arrived lies."""
        return os.path.join(folder, _copy_name(self.number, self.instance.head.sop_instance_uid))


def _copy_name(number: int, uid: str) -> str:
    # The UID alone does not do: pydicom has the same instance in several transfer syntaxes.
    return f"{number:03d}-{file_name(uid)}"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument("--keep", action="store_true", help="keep the folder with the files that arrived")


def run(args: Namespace) -> int:
    """Send, watch, verify, show; 0 if everything that can be sent arrived identical and nothing failed."""
    with redirect_stdout(StringIO()) if args.quiet else nullcontext():
        return _demonstrate(args)


def _demonstrate(args: Namespace) -> int:
    begun = time.monotonic()
    items, unsendable = _shipped_with_pydicom()
    if not items:
        raise FileNotFoundError("pydicom's own test files are not there; reinstall pydicom")
    observed: list[Any] = []
    with _receiving_folder(keep=args.keep) as folder:
        items, seen = _send_and_watch(items, folder, observed)
        _show_totals(seen)
        _show_chart(observed)
        _show_unsendable(unsendable)
        failures = {item: item.failure or _difference(item, folder) for item in items}
    return _summarise(failures, seen, time.monotonic() - begun)


# ---- the files


def _shipped_with_pydicom() -> tuple[list[Item], list[Unsendable]]:
    """Every DICOM file in pydicom's own folder, and those of them that a C-STORE cannot carry."""
    spec = find_spec("pydicom")
    folders = spec.submodule_search_locations if spec else None
    found = list(scan([os.path.join(folder, "data") for folder in folders or ()]))
    instances = [each for each in found if isinstance(each, FileInstance)]
    others = [each for each in found if isinstance(each, Unsendable)]
    dicom = [each for each in others if each.path.endswith(".dcm") or not each.reason.startswith("not a DICOM file")]
    return [Item(number, instance) for number, instance in enumerate(instances, 1)], dicom


def _by_sop_class(items: Iterable[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.instance.head.sop_class_uid, []).append(item)
    return list(groups.values())


@contextmanager
def _receiving_folder(*, keep: bool) -> Generator[str]:
    if keep:
        yield mkdtemp(prefix="rxdicom-demo-")
    else:
        with TemporaryDirectory(prefix="rxdicom-demo-") as folder:
            yield folder


# ---- the journey


def _send_and_watch(items: Sequence[Item], folder: str, observed: list[Any]) -> tuple[list[Item], Traffic]:
    """Send everything to a server of our own, an association for each SOP class, several of them side by side.

    Returns the items with what failed, and the totals; ``observed`` is given the events of one association.
    """
    groups = _by_sop_class(items)
    drawn = max(groups, key=_variety)
    totals: list[Traffic] = []
    scu = AE(_SCU)
    with _server(folder) as server:
        port = server.address[1]
        print(f"A Storage SCP listens on {_HOST}:{port} and stores in {folder}.")
        print(f"{len(items)} DICOM files that ship with pydicom are sent to it by SOP class.")
        stream = traffic(server)
        stream.pipe(ops.last_or_default(Traffic())).subscribe(totals.append)
        print(_section("What an Rx pipeline sees of the server, while it happens"))
        print(f"{'ms':>7}{'associations':>15}{'open':>7}{'stored':>9}{'failures':>11}{'received':>12}{'rate':>14}")
        pace(stream, _ROW_EVERY).subscribe(_print_row)

        def send(group: list[Item]) -> list[Item]:
            return _send(scu, port, group, observed if group is drawn else None)

        with ThreadPoolExecutor(_SIDE_BY_SIDE) as senders:
            sent = [item for group in senders.map(send, groups) for item in group]
    return sorted(sent, key=_number), totals[0]


def _server(folder: str) -> AssociationServer:
    ae = AE(_SCP)
    ae.accept_any_storage = True
    ae.spool_folder = folder
    return ae.start_server((_HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, _keep, [folder])])


def _keep(event: "CStore", folder: str) -> int:
    """The C-STORE handler. The folder does not outlive the demonstration, so that nothing waits for the disk."""
    event.save(
        os.path.join(folder, _copy_name(event.message_id, event.request.AffectedSOPInstanceUID or "")), durable=False
    )
    return 0x0000


def _send(scu: AE, port: int, group: Sequence[Item], observed: list[Any] | None) -> list[Item]:
    """Send one group over an association of its own."""
    heads = [item.instance.head for item in group]
    contexts = dict.fromkeys((head.sop_class_uid, (head.transfer_syntax_uid,)) for head in heads)
    assoc = scu.association(_HOST, port, presentation_contexts(list(contexts)), _SCP)
    if observed is not None:
        # Subscribed before the association is opened: nothing is missed.
        reactivex.merge(*(assoc.events[kind] for kind in chart.KINDS)).subscribe(observed.append)
    done: list[Item] = []
    try:
        with assoc:
            for item in group:
                status = assoc.send_c_store(item.instance.path, msg_id=item.number)
                failure = "" if status.category == "Success" else f"answered with 0x{status:04X} {status.description}"
                done.append(evolve(item, failure=failure))
    except (RxDicomError, OSError) as error:
        done += [evolve(item, failure=reason(error)) for item in group[len(done) :]]
    return done


def _number(item: Item) -> int:
    return item.number


def _variety(group: Sequence[Item]) -> int:
    """How many transfer syntaxes there are in a group: the most varied one is drawn."""
    return len({item.instance.head.transfer_syntax_uid for item in group})


def _difference(item: Item, folder: str) -> str:
    """How the copy that arrived differs from what was sent, "" if it does not."""
    copy = examine(item.copy_in(folder), named=True)
    if isinstance(copy, Unsendable):
        return f"did not arrive: {copy.reason}"
    if evolve(copy.head, offset=0) != evolve(item.instance.head, offset=0):
        return f"arrived as another: {copy.head}"
    return "" if _digest(copy) == _digest(item.instance) else "arrived with another dataset"


def _digest(instance: FileInstance) -> str:
    """The SHA-256 of an encoded dataset; an odd one travels with one zero byte more (PS3.5 §A.5)."""
    with open(instance.path, "rb") as file:
        file.seek(instance.head.offset)
        data = file.read()
    return sha256(data + bytes(len(data) % 2)).hexdigest()


# ---- what is shown


def _section(title: str) -> str:
    line = _glyphs().line
    return f"\n{line * 2} {title} ".ljust(_WIDTH + 1, line) + "\n"


def _print_row(pair: tuple[Traffic, Traffic]) -> None:
    before, now = pair
    rate = (now.bytes_received - before.bytes_received) / max(now.seconds - before.seconds, 1e-6)
    print(
        f"{now.seconds * 1000:7.0f}{now.associations:15}{now.open:7}{now.stored:9}{now.failures:11}"
        f"{size(now.bytes_received):>12}{size(rate) + '/s':>14}",
        flush=True,
    )


def _show_totals(seen: Traffic) -> None:
    print(_section("What it saw in all"))
    rate = size(seen.bytes_received / max(seen.seconds, 1e-6))
    print(f"  associations  {seen.associations} connected, {seen.established} established, {seen.released} released,")
    print(f"                {seen.rejected} rejected, {seen.aborted} aborted")
    print(f"  instances     {seen.stored} stored, {seen.refused} refused")
    print(f"  bytes         {size(seen.bytes_received)} received, {size(seen.bytes_sent)} sent")
    print(f"  rate          {rate}/s over {seen.seconds * 1000:.0f} ms")
    print(f"  failures      {seen.failures}")
    print(f"  {'PDUs':14}{'':14}{'received':>10}{'sent':>8}")
    for name in _PDU_TYPES:
        received, sent = seen.pdus_received.get(name, 0), seen.pdus_sent.get(name, 0)
        if received or sent:
            print(f"  {'':14}{name:14}{received:10}{sent:8}")


def _show_chart(observed: Sequence[Any]) -> None:
    print(_section("One of the associations, drawn from its event stream"))
    for line in chart.draw(chart.steps(observed), _SCU, _SCP, width=_WIDTH, glyphs=_glyphs()):
        print(line)


def _glyphs() -> chart.Glyphs:
    """The finest that the terminal's encoding has."""
    return chart.finest(sys.stdout.encoding)


def _show_unsendable(unsendable: Sequence[Unsendable]) -> None:
    reasons: dict[str, list[str]] = {}
    for each in unsendable:
        reasons.setdefault(each.reason.partition(";")[0], []).append(os.path.basename(each.path))
    print(_section(f"{len(unsendable)} DICOM files of pydicom that no C-STORE can carry, as expected"))
    for why, names in reasons.items():
        text = f"{', '.join(names)}: {why}"
        print(textwrap.fill(escaped(text), _WIDTH, initial_indent="  ", subsequent_indent="    "))


def _summarise(failures: dict[Item, str], seen: Traffic, seconds: float) -> int:
    wrong = {item: why for item, why in failures.items() if why}
    if wrong:
        print(_section(f"{len(wrong)} files did not arrive as they were sent"))
        for item, why in wrong.items():
            print(f"  {item.name}: {escaped(why)}")
    syntaxes = {item.instance.head.transfer_syntax_uid for item in failures}
    print(
        f"\n{len(failures) - len(wrong)} of {len(failures)} datasets arrived identical (SHA-256) "
        f"in {len(syntaxes)} transfer syntaxes, {seconds:.1f} s"
    )
    return 0 if failures and not wrong and not seen.failures and seen.stored == len(failures) else 1
