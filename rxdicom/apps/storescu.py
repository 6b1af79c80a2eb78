"""``rxdicom storescu``: C-STORE as a user; sends files and folders, as they lie on disk wherever the peer allows it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rxdicom import AE, evt
from rxdicom.apps.console import LOG, complain, reason, size
from rxdicom.apps.identity import IdentityNotConfirmed, check_confirmed, user_identity
from rxdicom.apps.interruption import cut, interruptible
from rxdicom.apps.options import add_client_options, client_tls, make_ae, positive
from rxdicom.apps.progress import Progress, wants_progress
from rxdicom.apps.tables import told
from rxdicom.errors import ArgumentError, DatasetError, NoAcceptedContext, RxDicomError
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.instances import Instance, Unsendable, scan
from rxdicom.runtimes.threads.spreading import PAUSES, Delivery

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler
    from rxdicom.events.records import Established

_FAULTS_OF_ONE = (ArgumentError, DatasetError, NoAcceptedContext)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument(
        "--no-convert",
        action="store_true",
        help="send files as they are or not at all; otherwise those whose transfer syntax the peer does not accept are "
        "converted to an uncompressed one",
    )
    parser.add_argument(
        "--associations",
        metavar="N",
        type=positive,
        default=1,
        help="send over up to N associations at a time (default 1)",
    )
    parser.add_argument(
        "--window",
        metavar="N",
        type=positive,
        default=1,
        help="send up to N files ahead of the peer's responses, in each association, if it allows that (default 1)",
    )
    add_client_options(parser, "STORESCU")
    parser.add_argument(
        "paths", metavar="path", nargs="+", help="a DICOM file, or a folder: everything below it is sent"
    )


def run(args: Namespace) -> int:
    """Send everything; 0 if all of it was stored."""
    ae = make_ae(args)
    ae.convert_datasets = not args.no_convert
    report = Report(progress=wants_progress(args))
    unconfirmed: list[IdentityNotConfirmed] = []

    def confirm(event: "Established") -> None:
        try:
            check_confirmed(event.assoc)
        except IdentityNotConfirmed as error:
            unconfirmed.append(error)
            transfer.stop()

    def cut_all() -> None:
        for association in ae.active_associations:
            cut(association)

    transfer = _delivery(ae, args, report, [(evt.EVT_ESTABLISHED, confirm)] if args.pos_response else [])
    try:
        # The first Ctrl-C lets what is on its way arrive, and then releases the associations.
        with interruptible(transfer.stop, cut_all) as stopped:
            for sent in transfer:
                report.add(sent)
        if stopped.is_set():
            raise KeyboardInterrupt
        if unconfirmed:
            raise unconfirmed[0]
        report.complain_of_the_rest()
    finally:
        report.clear()
        if report.touched and not args.quiet:
            print(report.summary())
    if not (report.touched or report.unsent):
        report.complain("there is no DICOM file to send")
    return 0 if report.stored and not (report.failed or report.unsent) else 1


def _delivery(ae: AE, args: Namespace, report: "Report", handlers: "list[EventHandler]") -> Delivery:
    identity = user_identity(args)
    return ae.send(
        args.host,
        args.port,
        report.sendable(scan(args.paths)),
        args.associations,
        window=args.window,
        ae_title=args.called_aet,
        ext_neg=[identity] if identity else [],
        tls_args=client_tls(args),
        evt_handlers=handlers,
    )


class Report:
    """What became of the files: counted, and told as it happens, failures in one line each."""

    def __init__(self, *, progress: bool) -> None:
        self.stored = self.warnings = self.failed = self.skipped = self.unsent = self.bytes = 0
        self._why_unsent = ""
        self._progress = Progress(enabled=progress)

    @property
    def touched(self) -> bool:
        """Whether anything became of any file."""
        return bool(self.stored or self.failed)

    def sendable(self, found: Iterator[Instance | Unsendable]) -> Iterator[Instance | Unsendable]:
        """What was found but for what is skipped, which is counted."""
        for each in found:
            if isinstance(each, Instance) or each.is_failure:
                yield each
            else:
                self.skipped += 1
                LOG.info("%s: skipped: %s", each.path, each.reason)

    def add(self, sent: Sent) -> None:
        """Something became of a file."""
        path = str(sent.instance)
        error = sent.error
        if error is None:
            self._answered(path, sent)
        elif sent.attempts > 1:
            self.fail(path, f"tried twice, and each time {_brief(error)}")
        elif isinstance(error, RxDicomError) and not isinstance(error, _FAULTS_OF_ONE):
            self.unsent += 1
            self._why_unsent = _brief(error)
        else:
            self.fail(path, _words(path, error))

    def _answered(self, path: str, sent: Sent) -> None:
        assert sent.status is not None
        text = told(sent.status)
        if sent.is_stored:
            self.succeed(path, sent.size, text if sent.status.category == "Warning" else "")
        else:
            self.fail(path, f"the peer refused it: {text}")

    def succeed(self, path: str, count: int, warning: str) -> None:
        """So many bytes were stored, perhaps with a warning of the peer."""
        self.stored += 1
        self.bytes += count
        if warning:
            self.warnings += 1
        LOG.info("%s: stored%s", path, warning and f" with warning {warning}")
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

    def complain_of_the_rest(self) -> None:
        """One line about what was given up, if anything was."""
        if self.unsent:
            times = f"{len(PAUSES) + 1} times in a row"
            self.complain(f"given up, {self.unsent} files are not sent: {times} {self._why_unsent}")

    def clear(self) -> None:
        """Wipe the progress out."""
        self._progress.clear()

    def summary(self) -> str:
        """What became of the files so far, in one line."""
        seconds = self._progress.seconds
        total = self.stored + self.failed + self.unsent
        text = (
            f"{self.stored} of {total} stored, {size(self.bytes)} in {seconds:.1f} s ({size(self.bytes / seconds)}/s)"
        )
        rows = (
            (self.warnings, "with warnings"),
            (self.failed, "failed"),
            (self.unsent, "not sent"),
            (self.skipped, "skipped that are not DICOM or hidden (-v lists them)"),
        )
        return "; ".join((text, *(f"{number} {what}" for number, what in rows if number)))


def _brief(error: Exception) -> str:
    """Without what to do about it, which is done."""
    return str(error).partition(";")[0]


def _words(path: str, error: Exception) -> str:
    """Why a file is not stored, for a line that begins with its path."""
    if isinstance(error, NoAcceptedContext):
        return f"the peer accepts no context for {error.wanted}"
    if isinstance(error, RxDicomError | OSError):
        return reason(error).removeprefix(f"{path}: ")
    return repr(error)
