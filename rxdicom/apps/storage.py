"""What the programs that receive share: the folder and nothing outside it, names from UIDs, files that are whole."""

import errno
import os
import re
import stat
import threading
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from rxdicom.apps.console import LOG, size

if TYPE_CHECKING:
    from rxdicom import AE
    from rxdicom.events.records import CStore

STALE_AFTER = 86400.0
"""Seconds after which an unfinished file is a killed program's: no deadline lets a transfer be silent for a day."""

_SMALL = 65536
"""Bytes of a dataset that is held in memory until it is whole: nobody looks at it before it is a file."""
_PLAIN_UID = re.compile(r"[0-9][0-9.]{0,63}")
_UNSAFE = re.compile(r"[^0-9A-Za-z.-]")
_KEPT = 64
_UNFINISHED = re.compile(r"\.rxdicom-[0-9a-f]{16}\.part")


class Tally:
    """How much was stored, counted by however many threads."""

    def __init__(self) -> None:
        self.instances = self.bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> "tuple[type[Tally], tuple[()]]":
        """For a worker process: it counts for itself."""
        return Tally, ()

    def add(self, count: int) -> None:
        """One more instance, of so many bytes."""
        with self._lock:
            self.instances += 1
            self.bytes += count


@frozen
class Store:
    """Where and how objects are kept, and how many were."""

    folder: str
    durable: bool = True
    tally: Tally = field(factory=Tally, eq=False)

    def spool_for(self, ae: "AE") -> None:
        """Have an entity write what is not small to the same folder while it comes in: then saving it is a rename."""
        ae.spool_folder = self.folder
        ae.limits = evolve(ae.limits, memory=_SMALL)


def add_storage_options(parser: ArgumentParser) -> None:
    """-od and --relaxed."""
    parser.add_argument(
        "-od",
        "--output-directory",
        metavar="DIR",
        default=".",
        help="folder to store in, made if it is not there (default: the current)",
    )
    parser.add_argument(
        "--relaxed",
        action="store_true",
        help="answer before the disk has the object: faster, but when the machine (not just this program) crashes or "
        "loses power, objects that were acknowledged may be lost",
    )


def open_store(args: Namespace) -> Store:
    """The store that the options describe, without what killed programs left there. Raises :class:`OSError`."""
    folder = usable(args.output_directory)
    for name in clean(folder):
        LOG.info("%s: removed, left unfinished by a program that was killed", os.path.join(folder, name))
    return Store(folder, not args.relaxed)


def usable(folder: str) -> str:
    """The absolute path of a folder that is there and can be written to. Raises :class:`OSError` with its name."""
    path = os.path.abspath(folder)
    if os.path.exists(path) and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    os.makedirs(path, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return path


def clean(folder: str) -> list[str]:
    """Remove unfinished files that nobody has written to for :data:`STALE_AFTER`; returns their names.

    The age is all that tells them from those of a program that still runs: it may be on another machine that shares
    the folder. What cannot be removed stays.
    """
    removed: list[str] = []
    with suppress(OSError):
        for name in os.listdir(folder):
            if _UNFINISHED.fullmatch(name) and _remove_stale(os.path.join(folder, name)):
                removed.append(name)
    return removed


def _remove_stale(path: str) -> bool:
    with suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > STALE_AFTER:
            os.unlink(path)
            return True
    return False


def keep(event: "CStore", store: Store) -> int:
    """The C-STORE handler. Success means stored; an OSError that leaves it means 0xA700, out of resources."""
    name = file_name(event.request.AffectedSOPInstanceUID or "")
    event.save(os.path.join(store.folder, name), durable=store.durable)
    store.tally.add(event.encoded.size)
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
