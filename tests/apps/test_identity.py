"""User identity: what clients send of options, files and stdin, and whom servers let in."""

import getpass
import sys
from argparse import Namespace
from collections.abc import Generator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from rxdicom import AE, evt
from rxdicom.apps.identity import authenticate, read_users, user_identity
from rxdicom.errors import ArgumentError
from rxdicom.events.records import UserID
from rxdicom.wire.items import UserIdentity
from rxdicom.wire.uids import VERIFICATION
from tests.apps.support import Server, call, provider, server

NOTHING = dict.fromkeys(("user", "password", "password_file", "kerberos", "saml", "jwt"))


def made(**options: object) -> UserIdentity | None:
    """The item of these options."""
    return user_identity(Namespace(**{**NOTHING, "pos_response": False, **options}))


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Have something on stdin."""
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text)))


# ---- what is sent


def test_names_and_passwords(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes("pässword\r\nnot this\n".encode())
    assert made() is None
    assert made(user="doe") == UserIdentity(1, False, b"doe")
    assert made(user="dö", password="x") == UserIdentity(2, False, "dö".encode(), b"x")
    assert made(user="doe", password_file=str(secret)) == UserIdentity(2, False, b"doe", "pässword".encode())
    assert made(user="d\udcff", pos_response=True) == UserIdentity(1, True, b"d\xff")


@pytest.mark.parametrize(("name", "kind"), [("kerberos", 3), ("saml", 4), ("jwt", 5)])
def test_tickets_are_read_from_files_and_stdin(name: str, kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ticket = b"\0ticket \xff\n"
    sent = ticket.strip() if name == "jwt" else ticket
    (tmp_path / "ticket").write_bytes(ticket)
    typed(monkeypatch, ticket)
    assert made(**{name: str(tmp_path / "ticket")}) == UserIdentity(kind, False, sent)
    assert made(**{name: "-"}) == UserIdentity(kind, False, sent)


def test_a_password_from_stdin(monkeypatch: pytest.MonkeyPatch):
    typed(monkeypatch, b"secret\nmore\n")
    assert made(user="doe", password_file="-") == UserIdentity(2, False, b"doe", b"secret")


def test_a_terminal_is_asked_for_the_password(monkeypatch: pytest.MonkeyPatch):
    typed(monkeypatch, b"")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)

    def ask(prompt: str) -> str:
        return f"<{prompt}>"

    monkeypatch.setattr(getpass, "getpass", ask)
    assert made(user="doe", password_file="-") == UserIdentity(2, False, b"doe", b"<password of doe: >")


def test_wrong_use_is_said(tmp_path: Path):
    (tmp_path / "empty").touch()
    (tmp_path / "huge").write_bytes(bytes(70_000))
    table: list[tuple[dict[str, object], str]] = [
        ({"user": "doe", "jwt": "token"}, "--user and --jwt exclude each other"),
        ({"kerberos": "a", "saml": "b"}, "--kerberos and --saml exclude each other"),
        ({"user": "doe", "password": "x", "password_file": "y"}, "--password and --password-file exclude"),
        ({"password": "x"}, "--password needs --user"),
        ({"jwt": "x", "password_file": "y"}, "--password-file needs --user"),
        ({"pos_response": True}, "--pos-response needs"),
        ({"user": ""}, "is empty"),
        ({"user": "doe", "password_file": str(tmp_path / "empty")}, "the first line is empty"),
        ({"saml": str(tmp_path / "empty")}, "is empty"),
        ({"saml": str(tmp_path / "huge")}, "more than 65535 bytes"),
        ({"user": "doe", "password_file": str(tmp_path / "huge")}, "more than 65535 bytes"),
    ]
    for options, said in table:
        with pytest.raises(ArgumentError) as caught:
            made(**options)
        assert said in str(caught.value), options


def test_the_peer_sees_it_and_may_confirm_it(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    seen: list[UserID] = []
    (tmp_path / "token").write_text("a.b.c\n")

    def on_identity(event: UserID) -> tuple[bool, bytes | None]:
        seen.append(event)
        return event.primary_field != b"nobody", b"welcome"

    with provider([(evt.EVT_USER_ID, on_identity)], VERIFICATION) as peer:
        assert call(capsys, "echoscu", *peer, "-usr", "doe", "-pwd", "secret", "-rsp").code == 0
        assert call(capsys, "echoscu", *peer, "--jwt", tmp_path / "token").code == 0
        refused = call(capsys, "echoscu", *peer, "--user", "nobody")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("rxdicom echoscu: association rejected")
    assert len(refused.err.splitlines()) == 1
    fields = [
        (each.user_id_type, each.primary_field, each.secondary_field, each.positive_response_requested) for each in seen
    ]
    assert fields[:2] == [(2, b"doe", b"secret", True), (5, b"a.b.c", None, False)]


def test_a_peer_that_does_not_confirm_is_left(capsys: pytest.CaptureFixture[str]):
    with provider([], VERIFICATION) as peer:
        outcome = call(capsys, "echoscu", *peer, "--user", "doe", "--pos-response")
    assert outcome.code == 1
    assert "the peer does not confirm the user identity" in outcome.err
    assert len(outcome.err.splitlines()) == 1


# ---- who is let in


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    users = tmp_path_factory.mktemp("users") / "users"
    users.write_text("# who may\n\ndoe:secret:with colon\nguest\nempty:\n")
    with server("echoscp", "--users", users) as running:
        yield running


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("-usr", "doe", "-pwd", "secret:with colon"), 0),
        (("-usr", "guest"), 0),
        (("-usr", "guest", "-pwd", "whatever"), 0),
        (("-usr", "empty"), 0),
        (("-usr", "doe", "-pwd", "wrong"), 1),
        (("-usr", "doe"), 1),
        (("-usr", "stranger", "-pwd", "secret:with colon"), 1),
        (("-usr", "# who may"), 1),
        (("--saml", "/etc/hostname"), 1),
        ((), 1),
    ],
)
def test_only_users_are_let_in(
    capsys: pytest.CaptureFixture[str], guarded: Server, options: tuple[str, ...], code: int
):
    outcome = call(capsys, "echoscu", "127.0.0.1", guarded.port, *options)
    assert outcome.code == code
    assert len(outcome.err.splitlines()) == code


def test_authentication_is_a_function_of_its_event():
    def event(kind: int, name: bytes, password: bytes | None = None) -> UserID:
        return UserID(user_id_type=kind, primary_field=name, secondary_field=password)

    users = {"doe": "secret", "guest": None}
    assert authenticate(event(2, b"doe", b"secret"), users) == (True, None)
    assert authenticate(event(2, b"doe", b"\xff"), users) == (False, None)
    assert authenticate(event(1, b"doe", b"secret"), users) == (False, None)
    assert authenticate(event(1, b"guest"), users) == (True, None)
    assert authenticate(event(3, b"guest"), users) == (False, None)
    assert authenticate(event(1, b"\xff"), users) == (False, None)


@pytest.mark.parametrize("content", [b"", b"# nobody\n", b"\xff:x\n"])
def test_a_file_without_users_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes):
    path = tmp_path / "users"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match="--users"):
        read_users(str(path))
    outcome = call(capsys, "echoscp", 0, "--users", path)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert AE().require_user_identity is False
