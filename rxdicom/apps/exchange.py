"""A request with several responses, from the association to the final status, with ``--cancel`` and Ctrl-C."""

import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from rxdicom import Association, Status
from rxdicom.apps.console import complain
from rxdicom.apps.interruption import cut, interruptible
from rxdicom.apps.models import Models
from rxdicom.apps.options import Connect, positive
from rxdicom.apps.tables import told
from rxdicom.errors import RxDicomError, TimedOut
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.status import STATUS_CANCEL, STATUS_PENDING, STATUS_SUCCESS

if TYPE_CHECKING:
    from pydicom import Dataset

    from rxdicom.runtimes.threads.responses import Responses

Send = Callable[[Association, str], "Responses"]
"""Sends the request over an association, in the information model that was accepted."""
Show = Callable[[Status, "Dataset | None"], None]
"""Is called with each pending response, until the operation is cancelled."""


@frozen
class Ending:
    """The final response, and whether this side had asked for it: by ``--cancel``, or by Ctrl-C."""

    status: Status
    identifier: "Dataset | None" = None
    cancelled: bool = False
    interrupted: bool = False

    def exit_code(self, program: str) -> int:
        """0 for success and for a cancel that was asked for. Else 1, and the status is told in one line on stderr.

        Raises :class:`KeyboardInterrupt` if it was Ctrl-C that ended it.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        if self.status.category == STATUS_SUCCESS or (self.cancelled and self.status.category == STATUS_CANCEL):
            return 0
        complain(program, f"the peer ends with {told(self.status)}")
        return 1


def add_cancel_option(parser: ArgumentParser) -> None:
    """--cancel."""
    parser.add_argument("--cancel", metavar="N", type=positive, help="send C-CANCEL after so many responses")


def ask(
    connect: Connect,
    models: Models,
    send: Send,
    show: Show,
    args: Namespace,
    contexts: Sequence[PresentationContext] = (),
) -> Ending:
    """Open an association for the models and further ``contexts``, send the request, follow it to its end, release.

    The first Ctrl-C sends C-CANCEL and lets the peer end the operation; the second aborts, and raises
    :class:`KeyboardInterrupt`. Raises what opening an association and sending the request raise.
    """
    with connect([*(build_context(uid) for uid in models.uids), *contexts]) as assoc:
        model = models.accepted(assoc)
        responses = send(assoc, model)

        def cancel() -> None:
            assoc.send_c_cancel(responses.message_id, query_model=model)

        with interruptible(cancel, lambda: cut(assoc)) as interrupted:
            try:
                return _follow(assoc, responses, show, cancel, interrupted, args)
            except RxDicomError:
                if interrupted.is_set():
                    raise KeyboardInterrupt from None
                raise


def _follow(
    assoc: Association,
    responses: "Responses",
    show: Show,
    cancel: Callable[[], None],
    interrupted: threading.Event,
    args: Namespace,
) -> Ending:
    """Consume the responses. A peer that does not care about C-CANCEL has the time of one response to end."""
    shown, deadline = 0, None
    while True:
        status, identifier = next(responses)
        if status.category != STATUS_PENDING:
            return Ending(status, identifier, cancelled=shown == args.cancel, interrupted=interrupted.is_set())
        if shown == args.cancel or interrupted.is_set():
            now = time.monotonic()
            deadline = deadline or now + (args.dimse_timeout or float("inf"))
            if now >= deadline:
                assoc.abort()
                raise TimedOut("response", args.dimse_timeout)
            continue
        show(status, identifier)
        shown += 1
        if shown == args.cancel:
            cancel()
