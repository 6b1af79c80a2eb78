"""``rxdicom watch``: the event streams of a server that it starts, of a recording or of a packet capture, in lines."""

import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import reactivex

from rxdicom import evt
from rxdicom.apps.chart import describe_message, describe_pdu
from rxdicom.apps.console import escaped, size
from rxdicom.apps.options import Parser, add_server_options, make_ae
from rxdicom.apps.serving import serve
from rxdicom.apps.storage import add_storage_options, discard, keep, open_store
from rxdicom.apps.tables import write_line
from rxdicom.errors import ArgumentError, aborted, rejected
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind
from rxdicom.operators import to_jsonl
from rxdicom.recording import ALL_KINDS, record, replay
from rxdicom.wire.uids import VERIFICATION

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler
    from rxdicom.events.streams import EventStreams

_NAMES = {kind.stream_name: kind for kind in NOTIFICATION_KINDS}
_USUAL = (
    evt.EVT_CONN_OPEN,
    evt.EVT_ACSE_RECV,
    evt.EVT_ACSE_SENT,
    evt.EVT_DIMSE_RECV,
    evt.EVT_DIMSE_SENT,
    evt.EVT_ABORTED,
    evt.EVT_CONN_CLOSE,
)
"""What is shown unless something else is asked for."""


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument(
        "source",
        help="a recording, a packet capture (.pcap, .pcapng), or the TCP port of a server to be started",
    )
    parser.add_argument(
        "--only",
        metavar="STREAM,…",
        type=_streams,
        help=f"show these streams: {', '.join(_NAMES)}, or all (default: {_names(_USUAL)})",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each event, without patient data")
    files = parser.add_argument_group("recordings and captures")
    files.add_argument("--follow", action="store_true", help="go on while the recording is being written")
    files.add_argument(
        "--speed", metavar="X", type=float, help="as fast as it occurred (1), or X times that; default: at once"
    )
    files.add_argument(
        "--side",
        choices=("acceptor", "requestor"),
        default="acceptor",
        help="whose side of a capture (default acceptor)",
    )
    server = parser.add_argument_group("a server; it answers C-ECHO, and refuses to store unless told where")
    server.add_argument("-ba", "--bind-address", metavar="HOST", default="", help="listen at this address only")
    server.add_argument("-aet", "--ae-title", metavar="AET", default="WATCH", help="our AE title (default WATCH)")
    server.add_argument("-od", "--output-directory", metavar="DIR", help="store what comes in this folder")
    server.add_argument("--ignore", action="store_true", help="accept what comes to be stored, and keep nothing")
    server.add_argument(
        "--record", metavar="FILE", help="record all events to a new file as well, patient data included"
    )


def _names(kinds: tuple[EventKind[Any], ...]) -> str:
    return ", ".join(each.stream_name for each in kinds)


def _streams(text: str) -> tuple[EventKind[Any], ...]:
    """The type of an option that names streams."""
    names = list(_NAMES) if text == "all" else text.split(",")
    if unknown := [each for each in names if each not in _NAMES]:
        raise ArgumentTypeError(f"{', '.join(unknown)}: no stream; there are {', '.join(_NAMES)}")
    return tuple(_NAMES[each] for each in names)


def run(args: Namespace) -> int:
    """Show until the end, or until told to stop."""
    screen = _Screen(_json_writer() if args.json else _rich_writer())
    if args.source.isdecimal():
        return _watch_server(args, screen)
    return _watch_file(args, screen)


class _Screen:
    """Shows events. Once nobody reads any more, ``leave`` is called."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self.leave: Callable[[], None] = _nothing
        self.broken: OSError | None = None

    def show(self, events: "EventStreams", kinds: tuple[EventKind[Any], ...]) -> None:
        """Show these kinds of events from now on."""
        reactivex.merge(*(events[kind] for kind in kinds)).subscribe(self._show, _raise)

    def _show(self, event: Any) -> None:
        if self.broken is None:
            try:
                self._write(event)
            except OSError as error:
                self.broken = error
                self.leave()


def _nothing() -> None:
    """There is nothing to be left."""


def _raise(error: Exception) -> None:
    raise error


def _watch_file(args: Namespace, screen: _Screen) -> int:
    with replay(args.source, side=args.side, follow=args.follow) as source:
        wanted = args.only or tuple(each for each in _USUAL if each in source.kinds)
        missing = tuple(each for each in wanted if each not in source.kinds)
        if missing and wanted != ALL_KINDS:
            raise ArgumentError(f"{args.source} has no {_names(missing)}")
        screen.leave = source.close
        screen.show(source.events, tuple(each for each in wanted if each in source.kinds))
        source.run(args.speed)
    if screen.broken is not None:
        raise screen.broken
    return 0


def _watch_server(args: Namespace, screen: _Screen) -> int:
    parser = Parser(prog="rxdicom watch")
    add_server_options(parser, args.ae_title)
    add_storage_options(parser)
    told = [args.source, "-ba", args.bind_address, "-od", args.output_directory or "."]
    options = parser.parse_args(told)
    ae = make_ae(options)
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    handlers: list[EventHandler] = [(evt.EVT_C_STORE, discard if args.ignore else _refuse)]
    if args.output_directory is not None:
        store = open_store(options)
        store.spool_for(ae)
        handlers = [(evt.EVT_C_STORE, keep, [store])]
    screen.leave = _stop_serving
    screen.show(ae.events, args.only or _USUAL)
    recorder = record(ae, args.record, ALL_KINDS) if args.record else None
    try:
        return serve(ae, options, "shows what happens", handlers)
    finally:
        if recorder is not None:
            recorder.close()


def _stop_serving() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _refuse(event: Any) -> int:
    """The C-STORE handler where nobody said what is to become of instances."""
    del event
    return 0xA700


# ---- what is shown of an event


def _address(event: Any) -> str:
    return "{}:{}".format(*event.address)


def _transition(event: Any) -> str:
    return f"{event.current_state} {event.fsm_event}: {event.action} {event.next_state}"


_TEXTS: dict[str, Callable[[Any], str]] = {
    "address": _address,
    "data": lambda event: size(len(event.data)),
    "pdu": lambda event: describe_pdu(event.pdu),
    "primitive": lambda event: describe_pdu(event.primitive),
    "message": lambda event: describe_message(event.message),
    "current_state": _transition,
    "result": lambda event: rejected(event.result, event.source, event.reason),
    "by": lambda event: aborted(event.source, event.reason, event.by, event.cause),
}
"""What is told of an event, by an attribute that it has."""


def describe(event: Any) -> str:
    """What there is to be told of an event in a few words, without patient data; empty if its name says it all."""
    return next((tell(event) for name, tell in _TEXTS.items() if hasattr(event, name)), "")


def _color(event: Any) -> str:
    name = event.event.stream_name
    if name in ("aborted", "rejected"):
        return "bold red"
    status = getattr(getattr(event, "message", None), "Status", None)
    if status is not None and status not in (0x0000, 0xFF00, 0xFF01):
        return "yellow"
    return "cyan" if name.endswith("_recv") else "green" if name.endswith("_sent") else ""


def _json_writer() -> Callable[[Any], None]:
    def write(event: Any) -> None:
        reactivex.of(event).pipe(to_jsonl()).subscribe(write_line)

    return write


def _rich_writer() -> Callable[[Any], None]:
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        raise ArgumentError("watching in a terminal needs rich: pip install rxdicom[terminal]; or use --json") from None
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)

    def write(event: Any) -> None:
        at = event.timestamp.astimezone().strftime("%H:%M:%S.%f")[:-3]
        assoc = escaped(getattr(event.assoc, "name", ""))
        line = Text.assemble(
            (at, "dim"),
            f"  {assoc}  ",
            (f"{event.event.stream_name:14}", _color(event)),
            f"  {escaped(describe(event))}",
        )
        console.print(line)
        sys.stdout.flush()

    return write
