"""``rxdicom movescu``: C-MOVE as a user; has a peer send instances to an AE, and may be that AE itself."""

from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from rxdicom import AE, Association, evt
from rxdicom.apps.console import LOG
from rxdicom.apps.exchange import ask
from rxdicom.apps.keys import identifier
from rxdicom.apps.models import MOVE, choose
from rxdicom.apps.options import add_client_options, any_tcp_port, connector, make_ae, server_tls
from rxdicom.apps.retrieval import RESPONSE_SECONDS, Account, add_retrieval_options
from rxdicom.apps.serving import make_server
from rxdicom.apps.storage import Store, add_storage_options, keep, open_store
from rxdicom.runtimes.entity import checked_ae_title
from rxdicom.wire.uids import VERIFICATION

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.responses import Responses

_DRAIN = 5.0
"""Seconds for associations of our own storage SCP to end once the C-MOVE has: everything has arrived by then."""


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_retrieval_options(parser, MOVE)
    parser.add_argument(
        "-aem",
        "--move-destination",
        metavar="AET",
        help="the AE title that the peer is to send to, as it knows it (default: ours)",
    )
    own = parser.add_argument_group("our own storage SCP, in the same process")
    own.add_argument("--store", action="store_true", help="be the destination: receive on --store-port, into -od")
    own.add_argument(
        "--store-port",
        metavar="PORT",
        type=any_tcp_port,
        default=11112,
        help="where the peer knows the destination to be (default 11112)",
    )
    add_storage_options(parser)
    add_client_options(parser, "MOVESCU", response_seconds=RESPONSE_SECONDS)
    parser.set_defaults(require_client_cert=False)


def run(args: Namespace) -> int:
    """Have it sent; 0 if everything was."""
    wanted, _ = identifier(args)
    models = choose(args, MOVE, wanted)
    destination = checked_ae_title(args.move_destination or args.ae_title)
    store = open_store(args) if args.store else None
    ae = make_ae(args)
    # However long it takes in all: each response has its deadline.
    ae.timeouts = evolve(ae.timeouts, operation=None)
    connect = connector(ae, args, models.items())
    account = Account("movescu", args, store, destination)

    def send(assoc: Association, model: str) -> "Responses":
        return assoc.send_c_move(wanted, destination, model)

    try:
        with _receiving(ae, args, store):
            ending = ask(connect, models, send, account.show, args)
    finally:
        account.clear()
    return account.close(ending)


@contextmanager
def _receiving(ae: AE, args: Namespace, store: Store | None) -> Generator[None]:
    """The AE is a storage SCP as well, as long as the block lasts, if there is a store to keep things in."""
    if store is None:
        yield
        return
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    store.spool_for(ae)
    handler = (evt.EVT_C_STORE, keep, [store])
    server = make_server(ae, ("", args.store_port), server_tls(args), [handler]).start()
    LOG.info("%s listens on port %d, stores in %s", server.ae_title, server.address[1], store.folder)
    try:
        yield
    finally:
        server.shutdown(drain=_DRAIN)
