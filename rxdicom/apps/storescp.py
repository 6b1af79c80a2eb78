"""``rxdicom storescp``: C-STORE as a provider; writes what comes into one folder, and nowhere else."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from rxdicom import evt
from rxdicom.apps.options import add_server_options, make_ae, positive
from rxdicom.apps.serving import serve
from rxdicom.apps.storage import add_storage_options, discard, keep, open_store
from rxdicom.wire.uids import VERIFICATION

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler
    from rxdicom.events.records import AsyncOps


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_storage_options(parser)
    parser.add_argument("--ignore", action="store_true", help="accept everything and keep nothing")
    parser.add_argument(
        "--window",
        metavar="N",
        type=positive,
        default=1,
        help="let a peer that asks for it send up to N objects ahead of our responses, and store those side by side "
        "(default 1)",
    )
    add_server_options(parser, "STORESCP")


def run(args: Namespace) -> int:
    """Serve until told to stop."""
    ae = make_ae(args)
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    handlers: list[EventHandler] = [(evt.EVT_ASYNC_OPS, window, [args.window])] if args.window > 1 else []
    if args.ignore:
        task = "keeps nothing of what it receives"
        return serve(ae, args, task, [(evt.EVT_C_STORE, discard), *handlers])
    store = open_store(args)
    store.spool_for(ae)
    task = f"stores in {store.folder}{'' if store.durable else ', relaxed'}"
    return serve(ae, args, task, [(evt.EVT_C_STORE, keep, [store]), *handlers])


def window(_event: "AsyncOps", most: int) -> tuple[int, int]:
    """The handler of the asynchronous operations window: what the peer proposes, but never above ``most``."""
    return most, 1
