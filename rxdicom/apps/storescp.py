"""``rxdicom storescp``: C-STORE as a provider; writes what comes into one folder, and nowhere else."""

import errno
import os
import re
from argparse import ArgumentParser, Namespace
from hashlib import sha256
from typing import TYPE_CHECKING

from attrs import frozen

from rxdicom import evt
from rxdicom.apps.console import LOG, size
from rxdicom.apps.options import add_server_options, make_ae
from rxdicom.apps.serving import serve
from rxdicom.wire.uids import VERIFICATION

if TYPE_CHECKING:
    from rxdicom.events.records import CStore

_PLAIN_UID = re.compile(r"[0-9][0-9.]{0,63}")
_UNSAFE = re.compile(r"[^0-9A-Za-z.-]")
_KEPT = 64


@frozen
class Store:
    """Where and how objects are kept."""

    folder: str
    durable: bool = True


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument(
        "-od",
        "--output-directory",
        metavar="DIR",
        default=".",
        help="folder to store in, made if it is not there (default: the current)",
    )
    parser.add_argument("--ignore", action="store_true", help="accept everything and keep nothing")
    parser.add_argument(
        "--relaxed",
        action="store_true",
        help="answer before the disk has the object: faster, but when the machine (not just this program) crashes or "
        "loses power, objects that were acknowledged may be lost",
    )
    add_server_options(parser, "STORESCP")


def run(args: Namespace) -> int:
    """Serve until told to stop."""
    ae = make_ae(args)
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    if args.ignore:
        return serve(ae, args, "keeps nothing of what it receives", [(evt.EVT_C_STORE, discard)])
    folder = _usable(args.output_directory)
    # In the same folder, so that saving an object that was too large for memory is a rename.
    ae.spool_folder = folder
    task = f"stores in {folder}{', relaxed' if args.relaxed else ''}"
    return serve(ae, args, task, [(evt.EVT_C_STORE, keep, [Store(folder, not args.relaxed)])])


def _usable(folder: str) -> str:
    """The absolute path of a folder that is there and can be written to. Raises :class:`OSError` with its name."""
    path = os.path.abspath(folder)
    if os.path.exists(path) and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    os.makedirs(path, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return path


def keep(event: "CStore", store: Store) -> int:
    """The C-STORE handler. Success means stored; an OSError that leaves it means 0xA700, out of resources."""
    name = file_name(event.request.AffectedSOPInstanceUID or "")
    event.save(os.path.join(store.folder, name), durable=store.durable)
    LOG.info("%s: stored %s, %s in %s", event.assoc.name, name, size(event.encoded.size), event.context.transfer_syntax)
    return 0x0000


def discard(event: "CStore") -> int:
    """The C-STORE handler that keeps nothing."""
    LOG.info("%s: discarded %s", event.assoc.name, event.request.AffectedSOPInstanceUID)
    return 0x0000


def file_name(uid: str) -> str:
    """The name of an instance's file, for any UID that a peer may send: one name in the folder, another for each UID.

    What is not made of numbers and dots alone is cut, cleaned (a dot in front would hide it, a dash be taken for an
    option), and made unique again by its hash. Such names have an underscore, which those of plain UIDs never have.

    >>> file_name("1.2.840.113619.2")
    '1.2.840.113619.2.dcm'
    >>> file_name("../etc/passwd")[:15]
    'etc-passwd_7fef'
    """
    if _PLAIN_UID.fullmatch(uid):
        return f"{uid}.dcm"
    cleaned = _UNSAFE.sub("-", uid[:_KEPT]).lstrip("-.")
    return f"{cleaned or 'uid'}_{sha256(uid.encode('utf-8', 'surrogatepass')).hexdigest()}.dcm"
