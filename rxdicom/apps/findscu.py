"""``rxdicom findscu``: C-FIND as a user; shows what matches as a table or JSON lines, or writes it into files."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rxdicom import Association, Status
from rxdicom.apps.console import LOG, complain
from rxdicom.apps.exchange import Ending, add_cancel_option, ask
from rxdicom.apps.keys import add_key_options, identifier, title
from rxdicom.apps.models import FIND, add_model_options, choose
from rxdicom.apps.options import add_client_options, connector, make_ae
from rxdicom.apps.storage import usable
from rxdicom.apps.tables import Path, Table, json_line, terminal_width, text_of, write_line
from rxdicom.errors import DatasetError
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

    from rxdicom.runtimes.threads.responses import Responses

_OPTIONAL_KEYS_NOT_SUPPORTED = 0xFF01


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_key_options(parser)
    add_model_options(parser, FIND)
    parser.add_argument("--json", action="store_true", help="show each match in the DICOM JSON model, a line each")
    parser.add_argument(
        "-w", "--write", action="store_true", help="write each match into a file as well, rsp000001.dcm …"
    )
    parser.add_argument(
        "-od", "--output-directory", metavar="DIR", default=".", help="folder for -w (default: the current)"
    )
    add_cancel_option(parser)
    add_client_options(parser, "FINDSCU")


def run(args: Namespace) -> int:
    """Send the query and show what matches; 0 if it ended with success."""
    query, shown = identifier(args)
    models = choose(args, FIND, query)
    connect = connector(make_ae(args), args, models.items())
    matches = Matches(shown, args)

    def send(assoc: Association, model: str) -> "Responses":
        matches.model = model
        return assoc.send_c_find(query, model)

    try:
        ending = ask(connect, models, send, matches.show, args)
    finally:
        matches.flush()
    matches.close(ending)
    return ending.exit_code("findscu") or int(matches.not_written > 0)


class Matches:
    """What matched: shown, and written where that is asked for, as it comes."""

    def __init__(self, shown: Sequence[Path], args: Namespace) -> None:
        self.model = ""
        self.not_written = 0
        self._count = 0
        self._shown = shown
        self._quiet = args.quiet
        self._folder = usable(args.output_directory) if args.write else None
        self._table = None if args.json else Table([title(path) for path in shown], limit=terminal_width())

    def show(self, status: Status, found: "Dataset | None") -> None:
        """One more match."""
        if status == _OPTIONAL_KEYS_NOT_SUPPORTED and not self._count:
            LOG.info("the peer does not support all keys; those count as not given")
        self._count += 1
        if self._table is None:
            write_line(json_line(found))
        else:
            self._table.add([text_of(found, path) for path in self._shown])
        if self._folder is not None and found is not None:
            self._write(found, os.path.join(self._folder, f"rsp{self._count:06}.dcm"))

    def _write(self, found: "Dataset", path: str) -> None:
        from pydicom.uid import generate_uid

        from rxdicom.events.datasets import encode, file_head, transfer_syntax_of

        syntax = transfer_syntax_of(found) or EXPLICIT_VR_LITTLE_ENDIAN
        try:
            data = encode(found, syntax)
        except DatasetError as error:
            self.not_written += 1
            complain("findscu", f"{path}: not written: {error}")
            return
        with open(path, "wb") as file:
            file.write(file_head(self.model, generate_uid(None), syntax) + data)

    def flush(self) -> None:
        """Show what a table holds back, however it ended."""
        if self._table is not None:
            self._table.finish()

    def close(self, ending: Ending) -> None:
        """Say how many there were, below a table."""
        if self._table is not None and not self._quiet:
            more = ", then cancelled" if ending.cancelled or ending.interrupted else ""
            write_line(f"{self._count} match{'es' * (self._count != 1)}{more}")
