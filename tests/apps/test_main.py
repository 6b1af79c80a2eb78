"""The command line as a whole: what there is, wrong use, failures in one line, TLS, start-up."""

import logging
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Generator
from io import StringIO
from pathlib import Path

import pytest

from rxdicom import AE, __version__, evt
from rxdicom.__main__ import PROGRAMS
from rxdicom.apps.console import LOG, escaped, logging_to_stderr, reason, size
from rxdicom.events.bindings import EventHandler
from tests.apps.support import DEADLINE, Server, call, dicom_file, provider, run, server
from tests.certificates import Certificates


@pytest.fixture(scope="module")
def echoscp() -> Generator[Server]:
    with server("echoscp", "-aet", "ECHO") as running:
        yield running


# ---- what there is


def test_without_a_program_the_programs_are_listed(capsys: pytest.CaptureFixture[str]):
    outcome = call(capsys)
    assert outcome.code == 2
    assert all(f"  {name:10}{summary}" in outcome.err for name, (_, summary) in PROGRAMS.items())
    assert call(capsys, "--help") == type(outcome)(0, outcome.err, "")


@pytest.mark.parametrize("name", ["", *PROGRAMS])
def test_every_program_has_a_version_and_help(capsys: pytest.CaptureFixture[str], name: str):
    given = [name] if name else []
    assert call(capsys, *given, "--version").out == f"rxdicom {__version__}\n"
    shown = call(capsys, *given, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert f"usage: {f'rxdicom {name}'.strip()} " in shown.out


COMMON = "-aet -ta -td -tn -tc -pdu -v -d -q --version --tls --cert --key --ca"
IDENTITY = "-usr --user -pwd --password --password-file -kt --kerberos --saml --jwt -rsp --pos-response"
CLIENT = f"-aec --insecure --hostname {IDENTITY}"
SERVER = "-ba --bind-address --require-client-cert --max-associations --users"
QUERY = "-k -f -P -S -O --model --cancel --json --relational --multi-frame --character-set"
OWN = {
    "echoscu": f"{CLIENT} --repeat",
    "storescu": f"{CLIENT} --no-convert",
    "findscu": f"{CLIENT} {QUERY} -W -U -w -od --fuzzy --date-time --timezone",
    "getscu": f"{CLIENT} {QUERY} -od --relaxed --storage --transfer-syntax",
    "movescu": f"{CLIENT} {QUERY} -od --relaxed -aem --store --store-port",
    "echoscp": SERVER,
    "storescp": f"{SERVER} -od --relaxed --ignore",
}


@pytest.mark.parametrize("name", OWN)
def test_the_names_of_options_are_those_of_dcmtk_and_pynetdicom(capsys: pytest.CaptureFixture[str], name: str):
    words = call(capsys, name, "--help").out.replace(",", " ").replace("[", " ").replace("]", " ").split()
    assert {*COMMON.split(), *OWN[name].split()} <= set(words)


# ---- wrong use, and what fails: one line each


WRONG_USE = {
    "unknown program": ("storecsu", "there is no program 'storecsu'"),
    "no arguments": ("echoscu", "host, port"),
    "port of words": ("echoscu h dicom", "'dicom' is not a TCP port"),
    "port zero": ("echoscu h 0", "'0' is not a TCP port"),
    "port too large": ("storescp 65536", "'65536' is not a TCP port"),
    "unknown option": ("echoscu h 104 --fast", "--fast"),
    "abbreviated option": ("echoscu h 104 --rep 2", "--rep"),
    "AE title too long": ("echoscu 127.0.0.1 104 -aet ABCDEFGHIJKLMNOPQ", "16 ASCII characters"),
    "called AE title with a backslash": ("echoscu 127.0.0.1 104 -aec A\\B", "without backslash"),
    "timeout of words": ("echoscu h 104 -ta soon", "'soon' is not a number of seconds"),
    "negative timeout": ("echoscu h 104 -td -1", "-td"),
    "endless timeout": ("echoscu h 104 -tn inf", "'inf' is not a number of seconds"),
    "PDU too small": ("echoscu 127.0.0.1 104 -pdu 5", "5 bytes is too small"),
    "no repetitions": ("echoscu h 104 --repeat 0", "'0' is not a number from 1 on"),
    "nothing to send": ("storescu h 104", "path"),
    "TLS option without TLS": ("echoscu 127.0.0.1 104 --ca x.pem", "--ca needs --tls"),
    "key without certificate": ("echoscu 127.0.0.1 104 --tls --key x.pem", "--key needs --cert"),
    "CA that is not there": ("echoscu 127.0.0.1 104 --tls --ca /no/ca.pem", "/no/ca.pem: No such file"),
    "TLS server without certificate": ("echoscp 0 --tls", "--tls needs --cert"),
    "two identities": ("echoscu 127.0.0.1 104 --user a --jwt b", "--user and --jwt exclude each other"),
    "password without name": ("storescu 127.0.0.1 104 -pwd x f", "--password needs --user"),
    "no keys": ("findscu 127.0.0.1 104", "there is nothing to ask for"),
    "unknown key": ("getscu 127.0.0.1 104 -k Patient", "there is no attribute Patient"),
    "nothing to move": ("movescu 127.0.0.1 104 -k Modality=CT", "there is nothing to retrieve"),
    "no associations": ("echoscp 0 --max-associations 0", "'0' is not a number from 1 on"),
}


@pytest.mark.parametrize(("line", "said"), WRONG_USE.values(), ids=WRONG_USE.keys())
def test_wrong_use_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], line: str, said: str):
    outcome = call(capsys, *line.split(" "))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("rxdicom")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_what_fails_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
    echoscp: Server,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> object:
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)  # pyright: ignore

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    text = tmp_path / "letter.txt"
    text.write_text("Dear colleague,\n" * 100)
    image = dicom_file(tmp_path / "image.dcm")
    (tmp_path / "empty").mkdir()
    open_port, peer = echoscp.port, ("127.0.0.1", echoscp.port)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        closed_port = bound.getsockname()[1]
        table = (
            (("echoscu", "nowhere.example", 104), "unknown host 'nowhere.example'"),
            (("echoscu", "a..b", 104), "unknown host 'a..b'"),
            (("echoscu", "127.0.0.1", closed_port), f"cannot connect to 127.0.0.1:{closed_port}"),
            (("storescu", "127.0.0.1", closed_port, image), "Connection refused"),
            (("storescu", *peer, text), f"{text}: not a DICOM file"),
            (("storescu", *peer, tmp_path / "missing.dcm"), "missing.dcm: No such file or directory"),
            (("storescu", *peer, tmp_path / "empty"), "there is no DICOM file to send"),
            (("storescu", *peer, image), "the peer accepts no context for 1.2.840.10008.5.1.4.1.1.7 in"),
            (("echoscu", *peer, "--jwt", "/no/token"), "/no/token: No such file or directory"),
            (("findscu", "127.0.0.1", closed_port, "-k", "PatientName"), f"cannot connect to 127.0.0.1:{closed_port}"),
            (("getscu", *peer, "-k", "PatientID=1", "-od", text), f"{text}: Not a directory"),
            (("movescu", *peer, "-k", "PatientID=1"), "no accepted presentation context for "),
            (("storescu", *peer, "/dev/null"), "/dev/null: not a regular file"),
            (("echoscu", *peer, "--tls", "--ca", certificates.certificate), "TLS"),
            (
                ("echoscp", "-ba", "127.0.0.1", open_port),
                f"cannot listen on 127.0.0.1:{open_port}: Address already in use",
            ),
            (("echoscp", "-ba", "203.0.113.7", 0), "cannot listen on 203.0.113.7:0"),
            (("echoscp", "-ba", "a..b", 0), "cannot listen on a..b:0"),
            (("storescp", "-od", text, 0), f"{text}: Not a directory"),
        )
        for arguments, said in table:
            outcome = call(capsys, *arguments)
            assert outcome.code == 1, arguments
            assert said in outcome.err, arguments
            assert outcome.err.startswith(f"rxdicom {arguments[0]}: "), arguments
            assert len(outcome.err.splitlines()) == 1, outcome.err


def test_a_rejected_association_says_why(capsys: pytest.CaptureFixture[str]):
    with server("echoscp", "--max-associations", 1) as running:
        with socket.create_connection(("127.0.0.1", running.port)):
            # Connected, but nothing was requested: that takes no association.
            assert call(capsys, "echoscu", "127.0.0.1", running.port).code == 0
        ae = AE()
        ae.add_requested_context("1.2.840.10008.1.1")
        with ae.associate("127.0.0.1", running.port):
            outcome = call(capsys, "echoscu", "127.0.0.1", running.port)
        running.stop()
    assert "rejected transiently: local limit exceeded (result 2, source 3, reason 2)" in running.said
    assert outcome.code == 1
    assert "association rejected transiently: local limit exceeded; try again later" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_traceback_is_shown_with_d_only(capsys: pytest.CaptureFixture[str]):
    arguments = ("echoscu", "a..b", 104)
    assert "Traceback" not in call(capsys, *arguments, "-v").err
    assert "Traceback (most recent call last)" in call(capsys, *arguments, "-d").err


def test_a_reader_that_has_gone_is_no_traceback():
    command = f"{sys.executable} -m rxdicom demo | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


# ---- C-ECHO


def test_echo_says_who_answers_and_how_fast(echoscp: Server):
    once = run("echoscu", "127.0.0.1", echoscp.port, "-aec", "ECHO")
    assert (once.code, once.err) == (0, "")
    assert once.out.startswith(f"ECHO at 127.0.0.1:{echoscp.port} answers: ")
    often = run("echoscu", "--repeat", 30, "127.0.0.1", echoscp.port)
    assert "30 times in " in often.out
    assert run("echoscu", "-q", "127.0.0.1", echoscp.port).out == ""


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_and_all_addresses(capsys: pytest.CaptureFixture[str]):
    with server("echoscp", address="::1") as running:
        assert f"listens on [::1]:{running.port}" in running.said
        assert call(capsys, "echoscu", "::1", running.port).code == 0
        assert call(capsys, "echoscu", "127.0.0.1", running.port).code == 1
    with server("echoscp", address="") as running:
        assert call(capsys, "echoscu", "::1", running.port).code == 0
        assert call(capsys, "echoscu", "127.0.0.1", running.port).code == 0


def test_v_and_d_say_more_on_stderr(capsys: pytest.CaptureFixture[str], echoscp: Server):
    plain = call(capsys, "echoscu", "127.0.0.1", echoscp.port).err
    verbose = call(capsys, "echoscu", "127.0.0.1", echoscp.port, "-v").err
    debug = call(capsys, "echoscu", "127.0.0.1", echoscp.port, "-d").err
    assert plain == ""
    assert "INFO ECHOSCU-ANY-SCP-1: association with 'ANY-SCP' at 127.0.0.1" in verbose
    assert "INFO ECHOSCU-ANY-SCP-1: released" in verbose
    assert "C-ECHO" not in verbose
    for message in ("sent A-ASSOCIATE-RQ", "received A-ASSOCIATE-AC", "C-ECHO-RQ", "C-ECHO-RSP", "sent A-RELEASE-RQ"):
        assert message in debug
    assert [type(each) for each in LOG.handlers] == [logging.NullHandler]


# ---- TLS


def test_tls_with_certificates_on_both_sides(capsys: pytest.CaptureFixture[str], certificates: Certificates):
    own = ("--tls", "--cert", certificates.certificate, "--key", certificates.key, "--ca", certificates.certificate)
    only_ca = ("--tls", "--ca", certificates.certificate)
    with server("echoscp", *own, "--require-client-cert") as running:
        peer = ("echoscu", "127.0.0.1", running.port)
        assert " with TLS" in running.said
        assert call(capsys, *peer, *own).code == 0
        assert call(capsys, *peer, *own, "--hostname", "localhost").code == 0
        refused = {
            "no TLS": (),
            "no certificate": only_ca,
            "unknown authority": ("--tls",),
            "another name": (*own, "--hostname", "elsewhere.example"),
        }
        for fault, options in refused.items():
            outcome = call(capsys, *peer, *options, "-ta", 5)
            assert (outcome.code, outcome.out) == (1, ""), fault
            assert len(outcome.err.splitlines()) == 1, outcome.err
        assert call(capsys, *peer, *own).code == 0


def test_insecure_says_so(capsys: pytest.CaptureFixture[str], certificates: Certificates):
    with server("echoscp", "--tls", "--cert", certificates.certificate, "--key", certificates.key) as running:
        outcome = call(capsys, "echoscu", "127.0.0.1", running.port, "--tls", "--insecure")
    assert outcome.code == 0
    assert "--insecure: whoever answers at 127.0.0.1 is trusted" in outcome.err


def test_certificates_that_cannot_be_used_are_wrong_use(
    capsys: pytest.CaptureFixture[str], certificates: Certificates, tmp_path: Path
):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    encrypted.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    other = Certificates(tmp_path, "other")
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    table = (
        ((certificates.certificate, encrypted), "the private key is encrypted"),
        ((certificates.certificate, other.key), "KEY_VALUES_MISMATCH"),
        ((junk, certificates.key), "junk.pem: "),
        ((tmp_path / "none.pem", certificates.key), "--cert: "),
        ((certificates.certificate, tmp_path / "none.key"), "--key: "),
    )
    for (certificate, key_file), said in table:
        outcome = call(capsys, "echoscp", 0, "--tls", "--cert", certificate, "--key", key_file)
        assert outcome.code == 2
        assert said in outcome.err
        assert len(outcome.err.splitlines()) == 1, outcome.err


# ---- start-up


LOADED = """
import sys
from rxdicom.__main__ import script
code = script()
print(*sorted(sys.modules))
sys.exit(code)
"""
HEAVY = {"pydicom", "reactivex", "numpy", "asyncio"}


def loaded_by(*arguments: object) -> set[str]:
    """The modules that a program has loaded when it ends with success."""
    command = [sys.executable, "-c", LOADED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.splitlines()[-1].split())
    assert "rxdicom.apps.options" in modules
    assert not modules & {f"rxdicom.apps.{name}" for name in PROGRAMS if name != arguments[0]}
    return modules


def test_who_echoes_and_stores_loads_neither_pydicom_nor_reactivex(tmp_path: Path):
    image = dicom_file(tmp_path / "image.dcm")
    with server("storescp", "-od", tmp_path / "stored", interpreter=("-X", "importtime")) as running:
        for program, *paths in (("echoscu",), ("storescu", image)):
            assert not HEAVY & loaded_by(program, "127.0.0.1", running.port, *paths)
        assert running.stop() == 0
    # The same of the server, which has answered a C-ECHO and stored an instance by now.
    imported = {
        line.rpartition("|")[2].strip() for line in running.said.splitlines() if line.startswith("import time:")
    }
    assert {"rxdicom.apps.serving", "hashlib"} <= imported
    assert not HEAVY & imported


def test_who_queries_loads_pydicom_once_it_is_needed_and_reactivex_never():
    roots = [f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3)]
    for program in ("findscu", "getscu", "movescu"):
        assert not HEAVY & loaded_by(program, "--help"), program
    handlers: list[EventHandler] = [
        (evt.EVT_C_FIND, lambda _: [(0x0000, None)]),  # pyright: ignore[reportUnknownLambdaType]
        (evt.EVT_C_GET, lambda _: [0]),  # pyright: ignore[reportUnknownLambdaType]
        (evt.EVT_C_MOVE, lambda _: [("127.0.0.1", 104), 0]),  # pyright: ignore[reportUnknownLambdaType]
    ]
    with provider(handlers, *roots, "1.2.840.10008.5.1.4.1.1.2") as peer:
        for program in ("findscu", "getscu", "movescu"):
            modules = loaded_by(program, *peer, "-k", "StudyInstanceUID=1.2")
            assert "pydicom" in modules
            assert not {"reactivex", "asyncio"} & modules, program


# ---- the log


def test_control_characters_never_leave_their_line():
    assert escaped("A\r\n\x1b[2J\0\u2028\udcff é") == "A\\r\\n\\x1b[2J\\x00\\u2028\\udcff é"


def test_a_record_is_one_escaped_line(capsys: pytest.CaptureFixture[str]):
    def failing() -> None:
        raise ValueError("one\n2026-01-01 00:00:00,000 INFO forged")

    with logging_to_stderr("echoscp", Namespace(verbose=True, debug=False, quiet=False)) as log:
        log.info("from %s", "A\nB\x1b[2J")
        try:
            failing()
        except ValueError:
            log.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("INFO from A\\nB\\x1b[2J")
    assert lines[1].endswith("ERROR failed")
    assert all(line.startswith("    ") for line in lines[2:])
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), "WARNING"),
        (("quiet",), "ERROR"),
        (("verbose",), "INFO"),
        (("debug",), "DEBUG"),
        (("quiet", "debug"), "DEBUG"),
    ],
)
def test_levels(options: tuple[str, ...], shown: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    given = {name: name in options for name in ("verbose", "debug", "quiet")}
    with logging_to_stderr("echoscp", Namespace(**given)) as log:
        assert logging.getLevelName(log.level) == shown


def test_errors_of_the_system_come_without_their_number():
    assert reason(FileNotFoundError(2, "No such file or directory", "x.dcm")) == "x.dcm: No such file or directory"
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(ConnectionError("gone")) == "gone"


def test_sizes_for_people():
    counts = {
        0: "0 B",
        999: "999 B",
        1000: "1.0 kB",
        38_900: "38.9 kB",
        999_600: "1.0 MB",
        5e9: "5.0 GB",
        7e15: "7000 TB",
    }
    assert {count: size(count) for count in counts} == counts
