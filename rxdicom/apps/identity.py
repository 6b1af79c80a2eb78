"""User identity (PS3.7 D.3.3.7): what a client program says it acts for, and whom a server program lets in."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rxdicom import Association
from rxdicom.errors import ArgumentError, RxDicomError
from rxdicom.wire.items import UserIdentity, UserIdentityResponse

if TYPE_CHECKING:
    from rxdicom.events.records import UserID

_USERNAME, _USERNAME_AND_PASSCODE = 1, 2
_TICKETS = {"kerberos": 3, "saml": 4, "jwt": 5}
_MOST = 65535
"""Bytes that a field of the item has at the most."""


class IdentityNotConfirmed(RxDicomError):
    """The peer accepted the association, but did not confirm the identity as it was asked to."""


# ---- of a client


def add_identity_options(parser: ArgumentParser) -> None:
    """--user and its password, --kerberos, --saml, --jwt, --pos-response."""
    group = parser.add_argument_group("user identity (one of the four)")
    group.add_argument("-usr", "--user", metavar="NAME", help="a name, with or without a password")
    group.add_argument(
        "--password-file",
        metavar="FILE",
        help="its password: the first line of a file; - for stdin, which a terminal is asked on without echo",
    )
    group.add_argument("-pwd", "--password", metavar="TEXT", help="its password; other users of this machine see it")
    rows = (
        ("-kt", "--kerberos", "a Kerberos service ticket"),
        (None, "--saml", "a SAML assertion"),
        (None, "--jwt", "a JSON Web Token"),
    )
    for short, long, meaning in rows:
        names = [each for each in (short, long) if each]
        group.add_argument(*names, metavar="FILE", help=f"{meaning}; - for stdin")
    group.add_argument(
        "-rsp", "--pos-response", action="store_true", help="have the peer confirm the identity, or fail"
    )


def user_identity(args: Namespace) -> UserIdentity | None:
    """The item that the options describe, None without any.

    Raises :class:`~rxdicom.errors.ArgumentError`, and :class:`OSError` for a file that cannot be read.
    """
    given = [name for name in ("user", *_TICKETS) if getattr(args, name) is not None]
    secrets = [f"--{name}" for name in ("password", "password-file") if getattr(args, name.replace("-", "_"))]
    if len(given) > 1:
        raise ArgumentError(f"--{given[0]} and --{given[1]} exclude each other: there is one user identity")
    if len(secrets) > 1:
        raise ArgumentError("--password and --password-file exclude each other")
    if secrets and given != ["user"]:
        raise ArgumentError(f"{secrets[0]} needs --user")
    if args.pos_response and not given:
        raise ArgumentError("--pos-response needs --user, --kerberos, --saml or --jwt")
    if not given:
        return None
    if given == ["user"]:
        password = _password(args)
        return _item(_USERNAME_AND_PASSCODE if password else _USERNAME, _bytes(args.user), password, args)
    return _item(_TICKETS[given[0]], _ticket(getattr(args, given[0]), given[0]), b"", args)


def _item(kind: int, primary: bytes, secondary: bytes, args: Namespace) -> UserIdentity:
    if not primary:
        raise ArgumentError("the user identity is empty")
    if max(len(primary), len(secondary)) > _MOST:
        raise ArgumentError(f"the user identity has more than {_MOST} bytes, which no association request can carry")
    return UserIdentity(kind, args.pos_response, primary, secondary)


def _bytes(text: str) -> bytes:
    """Text of the command line in UTF-8, or, where it was not, as it came."""
    return text.encode("utf-8", "surrogateescape")


def _password(args: Namespace) -> bytes:
    """The password as it was given, the first line of a file or of stdin without its end; empty if there is none."""
    path = args.password_file
    if not path:
        return _bytes(args.password or "")
    if path == "-" and sys.stdin.isatty():
        import getpass

        return _bytes(getpass.getpass(f"password of {args.user}: "))
    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        line = file.readline(_MOST + 2)
    password = line.removesuffix(b"\n").removesuffix(b"\r")
    if not password:
        raise ArgumentError(f"--password-file: {path}: the first line is empty")
    return password


def _ticket(path: str, kind: str) -> bytes:
    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        data = file.read(_MOST + 1)
    # A token is text, and its file mostly ends with a line end that is none of it.
    return data.strip() if kind == "jwt" else data


def check_confirmed(assoc: Association) -> None:
    """Abort an association whose acceptor did not confirm the identity, and raise :class:`IdentityNotConfirmed`."""
    if not any(isinstance(item, UserIdentityResponse) for item in assoc.acceptor.user_information):
        assoc.abort()
        raise IdentityNotConfirmed("the peer does not confirm the user identity; leave out --pos-response to go on")


# ---- of a server


def read_users(path: str) -> dict[str, str | None]:
    """Who is let in: a line ``NAME:PASSWORD`` each, ``NAME`` alone for who needs none; ``#`` begins a comment line.

    Raises :class:`~rxdicom.errors.ArgumentError`, and :class:`OSError` for a file that cannot be read.
    """
    users: dict[str, str | None] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file.read().splitlines():
                if line.strip() and not line.startswith("#"):
                    name, colon, password = line.partition(":")
                    users[name] = password if colon else None
    except UnicodeDecodeError as error:
        raise ArgumentError(f"--users: {path}: not a text in UTF-8") from error
    if not users:
        raise ArgumentError(f"--users: {path}: nobody is in it")
    return users


def authenticate(event: "UserID", users: Mapping[str, str | None]) -> tuple[bool, bytes | None]:
    """The handler of ``evt.EVT_USER_ID``: whether a name, and its password if it has one, are those of a user.

    Tickets and tokens, which cannot be checked here, are refused.
    """
    name = event.primary_field.decode("utf-8", "replace")
    if event.user_id_type not in (_USERNAME, _USERNAME_AND_PASSCODE) or name not in users:
        return False, None
    password = users[name]
    given = event.secondary_field or b"" if event.user_id_type == _USERNAME_AND_PASSCODE else b""
    import hmac

    return password is None or hmac.compare_digest(password.encode(), given), None
