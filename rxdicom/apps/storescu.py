"""``rxdicom storescu``: C-STORE as a user; sends files and folders, as they lie on disk wherever the peer allows it."""

import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence

from rxdicom import Association
from rxdicom.apps.console import LOG, complain, reason, size
from rxdicom.apps.instances import Context, Instance, Lookahead, Unsendable, presentation_contexts, scan
from rxdicom.apps.interruption import cut, interruptible, nothing
from rxdicom.apps.options import add_client_options, connector, make_ae
from rxdicom.apps.progress import Progress, wants_progress
from rxdicom.apps.tables import told
from rxdicom.errors import ArgumentError, DatasetError, NoAcceptedContext, RxDicomError

PAUSES = (0.0, 1.0, 2.0)
"""Seconds before each new association after one was lost; used up without anything stored, the rest is given up."""

Connect = Callable[[Sequence[Context]], Association]


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument(
        "--no-convert",
        action="store_true",
        help="send files as they are or not at all; otherwise those whose transfer syntax the peer does not accept are "
        "converted to an uncompressed one",
    )
    add_client_options(parser, "STORESCU")
    parser.add_argument(
        "paths", metavar="path", nargs="+", help="a DICOM file, or a folder: everything below it is sent"
    )


def run(args: Namespace) -> int:
    """Send everything; 0 if all of it was stored."""
    ae = make_ae(args)
    ae.convert_datasets = not args.no_convert
    open_association = connector(ae, args)

    opened: list[Association] = []

    def connect(contexts: Sequence[Context]) -> Association:
        opened[:] = [open_association(presentation_contexts(contexts))]
        return opened[0]

    def cut_opened() -> None:
        for assoc in opened:
            cut(assoc)

    report = Report(progress=wants_progress(args))
    queue = Lookahead(report.sendable(scan(args.paths)))
    unsent = 0
    try:
        # The first Ctrl-C lets what is on its way arrive, and then releases the association.
        with interruptible(nothing, cut_opened) as stopped:
            unsent = send_all(queue, connect, report, stopped, convert=ae.convert_datasets)
        if stopped.is_set():
            raise KeyboardInterrupt
    finally:
        report.clear()
        if report.touched and not args.quiet:
            print(report.summary(unsent))
    if not (report.touched or unsent):
        report.complain("there is no DICOM file to send")
    return 0 if report.stored and not (report.failed or unsent) else 1


class Report:
    """What became of the files: counted, and told as it happens, failures in one line each."""

    def __init__(self, *, progress: bool) -> None:
        self.stored = self.warnings = self.failed = self.skipped = self.bytes = 0
        self.associations = 0
        self._progress = Progress(enabled=progress)

    @property
    def touched(self) -> bool:
        """Whether anything became of any file."""
        return bool(self.stored or self.failed)

    def sendable(self, found: Iterator[Instance | Unsendable]) -> Iterator[Instance]:
        """The instances among what was found; the others are accounted for as they come."""
        for each in found:
            if isinstance(each, Instance):
                yield each
            elif each.is_failure:
                self.fail(each.path, each.reason)
            else:
                self.skipped += 1
                LOG.info("%s: skipped: %s", each.path, each.reason)

    def succeed(self, instance: Instance, warning: str) -> None:
        """It was stored, perhaps with a warning of the peer."""
        self.stored += 1
        self.bytes += instance.size
        if warning:
            self.warnings += 1
        LOG.info("%s: stored%s", instance.path, warning and f" with warning {warning}")
        if self._progress.is_due:
            rate = size(self.bytes / self._progress.seconds)
            self._progress.show(f"{self.stored} stored, {self.failed} failed, {size(self.bytes)}, {rate}/s")

    def fail(self, path: str, why: str) -> None:
        """It could not be sent, or was refused."""
        self.failed += 1
        self.complain(f"{path}: {why}")

    def complain(self, message: str) -> None:
        """One line on stderr, where the progress was."""
        self.clear()
        complain("storescu", message)

    def clear(self) -> None:
        """Wipe the progress out."""
        self._progress.clear()

    def summary(self, unsent: int = 0) -> str:
        """What became of the files so far, in one line."""
        seconds = self._progress.seconds
        total = self.stored + self.failed + unsent
        text = (
            f"{self.stored} of {total} stored, {size(self.bytes)} in {seconds:.1f} s ({size(self.bytes / seconds)}/s)"
        )
        rows = (
            (self.warnings, "with warnings"),
            (self.failed, "failed"),
            (unsent, "not sent"),
            (self.skipped, "skipped that are not DICOM or hidden (-v lists them)"),
        )
        return "; ".join((text, *(f"{number} {what}" for number, what in rows if number)))


def send_all(
    queue: Lookahead,
    connect: Connect,
    report: Report,
    stopped: threading.Event,
    *,
    convert: bool,
    pauses: Sequence[float] = PAUSES,
) -> int:
    """Send what is in the queue, over as many associations as its contexts and mishaps need, one after the other.

    When an association is lost, a new one goes on with the instance that was on its way, once; an instance that loses
    a second one is a failure. Returns how many instances were given up because one association after the other was
    lost and nothing stored. A failure of the very first association is raised, because then nothing works at all.
    Once ``stopped`` is set nothing more is sent.
    """
    losses, stored, suspect = 0, 0, None
    while queue.first() is not None and not stopped.is_set():
        contexts = queue.contexts(convert=convert)
        sending = None
        try:
            with connect(contexts) as assoc:
                report.associations += 1
                for sending in queue.covered_by(contexts):
                    _send(assoc, sending, report)
                    if stopped.is_set():
                        break
                sending = None
        except NoAcceptedContext:
            for refused in queue.covered_by(contexts):
                report.fail(refused.path, f"the peer accepts no context for {_kind(refused)}")
        except RxDicomError as error:
            if stopped.is_set():
                break
            if not report.associations:
                raise
            why = str(error).partition(";")[0]
            if sending is not None and sending is suspect:
                report.fail(sending.path, f"tried twice, and each time {why}")
                queue.drop()
            suspect = sending
            losses, stored = (losses + 1 if report.stored == stored else 1), report.stored
            if losses > len(pauses):
                unsent = queue.count()
                report.complain(f"given up, {unsent} files are not sent: {losses} times in a row {why}")
                return unsent
            if queue.first() is not None:
                LOG.warning("goes on with a new association: %s", why)
                stopped.wait(pauses[losses - 1])
    return 0


def _send(assoc: Association, instance: Instance, report: Report) -> None:
    """Send one. What it did wrong itself is reported, what is wrong with the association raised."""
    try:
        status = assoc.send_c_store(instance.path)
    except NoAcceptedContext as error:
        report.fail(instance.path, f"the peer accepts no context for {error.wanted}")
    except (ArgumentError, DatasetError) as error:
        report.fail(instance.path, str(error).removeprefix(f"{instance.path}: "))
    except RxDicomError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file makes pydicom raise, the others are to be sent
        report.fail(instance.path, reason(error) if isinstance(error, OSError) else repr(error))
    else:
        if status.category in ("Success", "Warning"):
            report.succeed(instance, told(status) if status.category == "Warning" else "")
        else:
            report.fail(instance.path, f"the peer refused it: {told(status)}")


def _kind(instance: Instance) -> str:
    return f"{instance.head.sop_class_uid} in transfer syntax {instance.head.transfer_syntax_uid}"
