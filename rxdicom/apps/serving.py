"""What the server programs share: listen, say so, serve until SIGINT or SIGTERM, stop cleanly."""

import signal
import ssl
import threading
from argparse import Namespace
from typing import TYPE_CHECKING

from rxdicom import AE, AssociationServer, evt
from rxdicom.apps.console import LOG, reason
from rxdicom.apps.identity import authenticate, read_users
from rxdicom.apps.options import server_tls
from rxdicom.errors import RxDicomError

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler


class CannotListen(RxDicomError):
    """The address is taken, not ours, or not allowed."""


def serve(ae: AE, args: Namespace, task: str, handlers: "list[EventHandler] | None" = None) -> int:
    """Serve on this thread until the process is told to stop; returns the exit code. ``task`` goes into the log."""
    ae.maximum_associations = args.max_associations
    context = server_tls(args)
    bound = list(handlers or ())
    if args.users:
        ae.require_user_identity = True
        bound.append((evt.EVT_USER_ID, authenticate, [read_users(args.users)]))
    # Blocked in every thread that is started from here on: one of them waits for the signals, none is interrupted.
    stops = {each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        server = make_server(ae, (args.bind_address, args.port), context, bound)

        def stop() -> None:
            LOG.info("%s: stops on %s", server.ae_title, signal.Signals(signal.sigwait(stops)).name)
            server.shutdown()

        stopper = threading.Thread(target=stop, name="rxdicom-stop", daemon=True)
        stopper.start()
        LOG.info(
            "%s listens on %s%s, %s", server.ae_title, _shown(*server.address), " with TLS" if context else "", task
        )
        server.serve_forever()
    finally:
        # A second Ctrl-C, while associations end, is obeyed at once.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    stopper.join()
    return 0


def make_server(
    ae: AE, address: tuple[str, int], context: ssl.SSLContext | None, handlers: "list[EventHandler]"
) -> AssociationServer:
    """A server that listens but does not serve yet. Raises :class:`CannotListen`."""
    try:
        return ae.make_server(address, ssl_context=context, evt_handlers=handlers)
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"cannot listen on {_shown(*address)}: {reason(error)}") from error


def _shown(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host or '*'}:{port}"
