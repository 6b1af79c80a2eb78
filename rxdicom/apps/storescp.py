"""``rxdicom storescp``: C-STORE as a provider; writes what comes into one folder, and nowhere else."""

from argparse import ArgumentParser, Namespace

from rxdicom import evt
from rxdicom.apps.options import add_server_options, make_ae
from rxdicom.apps.serving import serve
from rxdicom.apps.storage import add_storage_options, discard, keep, open_store
from rxdicom.wire.uids import VERIFICATION


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_storage_options(parser)
    parser.add_argument("--ignore", action="store_true", help="accept everything and keep nothing")
    add_server_options(parser, "STORESCP")


def run(args: Namespace) -> int:
    """Serve until told to stop."""
    ae = make_ae(args)
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    if args.ignore:
        return serve(ae, args, "keeps nothing of what it receives", [(evt.EVT_C_STORE, discard)])
    store = open_store(args)
    # In the same folder, so that saving an object that was too large for memory is a rename.
    ae.spool_folder = store.folder
    task = f"stores in {store.folder}{'' if store.durable else ', relaxed'}"
    return serve(ae, args, task, [(evt.EVT_C_STORE, keep, [store])])
