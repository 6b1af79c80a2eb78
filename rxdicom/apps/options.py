"""The options that programs share, named as users of DCMTK and pynetdicom know them, and what is made of them."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

from attrs import evolve

from rxdicom import AE, Association, __version__
from rxdicom.apps.console import escaped
from rxdicom.apps.identity import add_identity_options, check_confirmed, user_identity
from rxdicom.errors import ArgumentError
from rxdicom.presentation import PresentationContext
from rxdicom.wire.items import UserItem

if TYPE_CHECKING:
    import ssl

    from rxdicom.events.bindings import EventHandler

_TLS_OPTIONS = ("cert", "key", "ca", "insecure", "hostname", "require_client_cert")


class Parser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {escaped(message)}; see {self.prog} --help\n")


# ---- the options


def add_general_options(parser: ArgumentParser, *, verbosity: bool = True) -> None:
    """-v, -d, -q and --version."""
    group = parser.add_argument_group("general")
    if verbosity:
        group.add_argument("-v", "--verbose", action="store_true", help="say what happens, on stderr")
        group.add_argument("-d", "--debug", action="store_true", help="say everything, the tracebacks of errors too")
        group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    group.add_argument("--version", action="version", version=f"rxdicom {__version__}")


def add_client_options(parser: ArgumentParser, title: str, *, response_seconds: int = 30) -> None:
    """What a program that requests associations has: the peer, AE titles, deadlines, user identity, TLS.

    ``response_seconds`` is how long it waits for a response, unless it is told otherwise.
    """
    parser.add_argument("host", help="name or address of the peer")
    parser.add_argument("port", type=tcp_port, help="its TCP port")
    _add_title(parser, "--calling-aet", title)
    parser.add_argument(
        "-aec", "--called-aet", metavar="AET", default="ANY-SCP", help="the peer's AE title (default ANY-SCP)"
    )
    _add_limits(parser, response_seconds)
    add_identity_options(parser)
    _add_tls(
        parser,
        (
            ("--cert", "PEM", "our certificate, if the peer asks for one"),
            ("--ca", "PEM", "trust these instead of the system's"),
            ("--hostname", "NAME", "what the peer's certificate must name, if not the host"),
            ("--insecure", None, "do not verify who the peer is"),
        ),
    )


def add_server_options(parser: ArgumentParser, title: str) -> None:
    """What a program that accepts associations has: where to listen, how many to serve, deadlines, TLS."""
    parser.add_argument("port", type=any_tcp_port, help="TCP port to listen on, 0 for any free one")
    parser.add_argument("-ba", "--bind-address", metavar="HOST", default="", help="listen at this address only")
    _add_title(parser, "--ae-title", title)
    parser.add_argument(
        "--max-associations", metavar="N", type=positive, default=10, help="at a time, more are rejected (default 10)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="serve with so many processes, to use several processors"
    )
    parser.add_argument(
        "--drain",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="seconds for associations to end when it is told to stop; then they are aborted (default 0)",
    )
    parser.add_argument(
        "--users",
        metavar="FILE",
        help="reject associations without the user identity of one of these: NAME:PASSWORD in a line each, or NAME",
    )
    _add_limits(parser)
    _add_tls(
        parser,
        (
            ("--cert", "PEM", "our certificate, which TLS needs"),
            ("--ca", "PEM", "check the peers' certificates with these"),
            ("--require-client-cert", None, "refuse peers without a valid certificate"),
        ),
    )


def _add_title(parser: ArgumentParser, name: str, title: str) -> None:
    parser.add_argument(
        "-aet", name, dest="ae_title", metavar="AET", default=title, help=f"our AE title (default {title})"
    )


def _add_limits(parser: ArgumentParser, response_seconds: int = 30) -> None:
    group = parser.add_argument_group("deadlines in seconds (0 for none), and limits")
    rows = (
        ("-tc", "connection", 30, "to connect, and for the TLS handshake"),
        ("-ta", "acse", 30, "for the answer to an association or release request"),
        ("-td", "dimse", response_seconds, "for the response to a request"),
        ("-tn", "network", 60, "for any sign of life of an idle peer"),
    )
    for flag, name, seconds, meaning in rows:
        group.add_argument(
            flag,
            f"--{name}-timeout",
            metavar="S",
            type=_seconds,
            default=float(seconds),
            help=f"{meaning} (default {seconds})",
        )
    group.add_argument(
        "-pdu",
        "--max-pdu",
        metavar="BYTES",
        type=_count,
        help="largest PDU that we accept, 0 for unlimited (default 131072)",
    )


def _add_tls(parser: ArgumentParser, rows: Iterable[tuple[str, str | None, str]]) -> None:
    group = parser.add_argument_group("TLS (1.2 or later)")
    group.add_argument("--tls", action="store_true", help="speak TLS, and nothing else")
    for flag, metavar, meaning in (*rows, ("--key", "PEM", "the certificate's private key, if not in the same file")):
        if metavar is None:
            group.add_argument(flag, action="store_true", help=meaning)
        else:
            group.add_argument(flag, metavar=metavar, help=meaning)


# ---- the values of options


def _number(text: str, lowest: int, highest: int, what: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        raise ArgumentTypeError(f"{text!r} is not {what}")
    return value


def tcp_port(text: str) -> int:
    """The type of an option that is the port of a peer."""
    return _number(text, 1, 65535, "a TCP port from 1 to 65535")


def any_tcp_port(text: str) -> int:
    """The type of an option that is a port to listen on, 0 for any free one."""
    return _number(text, 0, 65535, "a TCP port from 0 to 65535")


def _count(text: str) -> int:
    return _number(text, 0, 1 << 32, "a number from 0 on")


def positive(text: str) -> int:
    """The type of an option that is a number from 1 on."""
    return _number(text, 1, 1 << 32, "a number from 1 on")


def _seconds(text: str) -> float | None:
    """Seconds, or None for 0: no deadline."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value or None


# ---- what is made of them


def make_ae(args: Namespace) -> AE:
    """The application entity that the options describe. Raises :class:`~rxdicom.errors.ArgumentError`."""
    ae = AE(args.ae_title)
    ae.connection_timeout = args.connection_timeout
    ae.timeouts = evolve(ae.timeouts, tls=args.connection_timeout)
    ae.acse_timeout = args.acse_timeout
    ae.dimse_timeout = args.dimse_timeout
    ae.network_timeout = args.network_timeout
    if args.max_pdu is not None:
        ae.maximum_pdu_size = args.max_pdu
    return ae


Connect = Callable[[Sequence[PresentationContext] | None], Association]
"""Requests an association with the peer, for these contexts or the AE's; raises what ``AE.associate`` raises."""


def connector(
    ae: AE, args: Namespace, items: Iterable[UserItem] = (), handlers: "Iterable[EventHandler]" = ()
) -> Connect:
    """What opens associations with the peer that the options name, with further negotiation items and handlers.

    Raises :class:`~rxdicom.errors.ArgumentError` for wrong options, and :class:`OSError` for files.
    """
    tls = client_tls(args)
    bound = list(handlers)
    identity = user_identity(args)
    negotiated = [*items, *([identity] if identity else [])]

    def connect(contexts: Sequence[PresentationContext] | None) -> Association:
        assoc = ae.associate(
            args.host,
            args.port,
            contexts,
            args.called_aet,
            ext_neg=negotiated,
            tls_args=tls,
            evt_handlers=bound,
        )
        if args.pos_response:
            check_confirmed(assoc)
        return assoc

    return connect


def client_tls(args: Namespace) -> "tuple[ssl.SSLContext, str] | None":
    """The TLS context of a client and the name that the peer's certificate must have, None without TLS.

    Raises :class:`~rxdicom.errors.ArgumentError`.
    """
    if not _wants_tls(args):
        return None
    from rxdicom.apps.tls import client_context

    return client_context(args), args.hostname or args.host


def server_tls(args: Namespace) -> "ssl.SSLContext | None":
    """The TLS context of a server, None if it is not to speak TLS. Raises :class:`~rxdicom.errors.ArgumentError`."""
    if not _wants_tls(args):
        return None
    from rxdicom.apps.tls import server_context

    return server_context(args)


def _wants_tls(args: Namespace) -> bool:
    given = [name for name in _TLS_OPTIONS if getattr(args, name, None)]
    if given and not args.tls:
        raise ArgumentError(f"--{given[0].replace('_', '-')} needs --tls")
    if args.key and not args.cert:
        raise ArgumentError("--key needs --cert")
    return args.tls
