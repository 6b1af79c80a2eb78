"""``rxdicom getscu``: C-GET as a user; retrieves over the association that it requests, into one folder."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from attrs import evolve

from rxdicom import Association, evt, presentation
from rxdicom.apps.exchange import ask
from rxdicom.apps.keys import identifier
from rxdicom.apps.models import GET, choose, named_uid
from rxdicom.apps.options import add_client_options, connector, make_ae
from rxdicom.apps.retrieval import RESPONSE_SECONDS, Account, add_retrieval_options
from rxdicom.apps.storage import add_storage_options, keep, open_store
from rxdicom.errors import ArgumentError
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.service_class import NonPatientObjectStorageServiceClass, StorageServiceClass
from rxdicom.sop_class import uid_to_service_class
from rxdicom.wire.items import MAX_CONTEXTS
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.responses import Responses

# Explicit VR first: in the implicit one the VRs of private elements are lost.
_UNCOMPRESSED = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_retrieval_options(parser, GET)
    add_storage_options(parser)
    parser.add_argument(
        "--storage",
        metavar="SOPCLASS",
        action="append",
        default=[],
        help="accept instances of this SOP class only, by its keyword (CTImageStorage) or UID; may be repeated "
        "(default: the 120 common ones, uncompressed)",
    )
    parser.add_argument(
        "--transfer-syntax",
        metavar="SYNTAX",
        action="append",
        default=[],
        help="accept them in this transfer syntax too, by its keyword (JPEG2000Lossless) or UID; may be repeated, as "
        f"long as all of it fits the {MAX_CONTEXTS} presentation contexts of an association",
    )
    add_client_options(parser, "GETSCU", response_seconds=RESPONSE_SECONDS)


def run(args: Namespace) -> int:
    """Retrieve; 0 if everything arrived and is stored."""
    wanted, _ = identifier(args)
    models = choose(args, GET, wanted)
    contexts = storage_contexts(args.storage, args.transfer_syntax, MAX_CONTEXTS - len(models.uids))
    store = open_store(args)
    ae = make_ae(args)
    store.spool_for(ae)
    # However long it takes in all: each response has its deadline.
    ae.timeouts = evolve(ae.timeouts, operation=None)
    connect = connector(ae, args, models.items(), [(evt.EVT_C_STORE, keep, [store])])
    account = Account("getscu", args, store)

    def send(assoc: Association, model: str) -> "Responses":
        return assoc.send_c_get(wanted, model)

    try:
        ending = ask(connect, models, send, account.show, args, contexts)
    finally:
        account.clear()
    return account.close(ending)


def storage_contexts(classes: list[str], syntaxes: list[str], room: int) -> list[PresentationContext]:
    """What to accept: these storage classes, or the common ones, in a context for each of ``syntaxes``, and one
    for the uncompressed ones. A context of its own is what lets the peer send each instance as it has it.

    Raises :class:`~rxdicom.errors.ArgumentError`, also when there are more than ``room`` contexts.
    """
    uids = [named_uid("--storage", name) for name in classes]
    for uid, name in zip(uids, classes, strict=True):
        if uid_to_service_class(uid) not in (StorageServiceClass, NonPatientObjectStorageServiceClass):
            raise ArgumentError(f"--storage: {name} is not a storage SOP class")
    common = [str(context.abstract_syntax) for context in presentation.StoragePresentationContexts]
    own = dict.fromkeys(named_uid("--transfer-syntax", name) for name in syntaxes)
    chosen = dict.fromkeys(uids or common)
    count = len(chosen) * (len(own) + 1)
    if count > room:
        raise ArgumentError(
            f"{len(chosen)} storage classes in {len(own)} transfer syntaxes and uncompressed are {count} presentation "
            f"contexts, but only {room} fit; name the classes that you expect with --storage"
        )
    return [build_context(uid, syntax) for uid in chosen for syntax in (*own, _UNCOMPRESSED)]
