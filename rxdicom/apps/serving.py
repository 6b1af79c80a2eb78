"""What the server programs share: listen, say so, serve until SIGINT or SIGTERM, stop cleanly."""

import signal
import ssl
import threading
import warnings
from argparse import Namespace
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rxdicom import AE, AssociationServer, evt
from rxdicom.apps.console import LOG, reason
from rxdicom.apps.identity import authenticate, read_users
from rxdicom.apps.options import server_tls
from rxdicom.errors import RxDicomError

if TYPE_CHECKING:
    from rxdicom import WorkerServer
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
    # Blocked in every thread, and one of them waits for the signals. A handler would run on the main thread alone, once
    # that is back from where it waits, and a signal that comes right before it waits does not wake it.
    stops = {each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    again: list[int] = []
    try:
        server: AssociationServer | WorkerServer
        if args.workers is None:
            server = make_server(ae, (args.bind_address, args.port), context, bound)
        else:
            server = _make_worker_server(ae, args, bound).start()
        stopping, over = threading.Event(), threading.Event()

        def obey() -> None:
            LOG.info("%s: stops on %s", server.ae_title, signal.Signals(signal.sigwait(stops)).name)
            stopping.set()
            # A second one, while associations end, is obeyed at once.
            again.append(signal.sigwait(stops))
            over.set()

        def stop() -> None:
            stopping.wait()
            server.shutdown(args.drain or 0.0)
            over.set()

        for work in (obey, stop):
            threading.Thread(target=work, name=f"rxdicom-{work.__name__}", daemon=True).start()
        LOG.info(
            "%s listens on %s%s, %s", server.ae_title, _shown(*server.address), " with TLS" if context else "", task
        )
        if isinstance(server, AssociationServer):
            server.serve_forever()
        over.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for number in again:
        signal.raise_signal(number)
    return 0


def make_server(
    ae: AE, address: tuple[str, int], context: ssl.SSLContext | None, handlers: "list[EventHandler]"
) -> AssociationServer:
    """A server that listens but does not serve yet. Raises :class:`CannotListen`."""
    with _listening(address):
        return ae.make_server(address, ssl_context=context, evt_handlers=handlers)


def _make_worker_server(ae: AE, args: Namespace, handlers: "list[EventHandler]") -> "WorkerServer":
    """The same for ``--workers``. Each worker reads the certificates itself."""
    from rxdicom import Workers

    address = (args.bind_address, args.port)
    workers = Workers(args.workers, partial(_prepare, args.debug), drain=args.drain or 0.0)
    tls = partial(_required_tls, args) if args.tls else None
    with _listening(address):
        return ae.make_server(address, ssl_context=tls, evt_handlers=handlers, workers=workers)


def _prepare(debug: bool, _server: AssociationServer) -> None:
    """Keep a worker as quiet as the program is."""
    if not debug:
        warnings.simplefilter("ignore")


def _required_tls(args: Namespace) -> ssl.SSLContext:
    context = server_tls(args)
    assert context is not None
    return context


@contextmanager
def _listening(address: tuple[str, int]) -> Generator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"cannot listen on {_shown(*address)}: {reason(error)}") from error


def _shown(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host or '*'}:{port}"
