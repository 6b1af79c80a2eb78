"""What is loaded when: scripts start programs thousands of times a day, so that every import counts.

Modules are counted instead of milliseconds, which depend on the machine. attrs and logging are paid for, with whatever
they load themselves in this version of Python; beyond them each step may load what is listed here.
"""

import subprocess
import sys

import pytest

from rxdicom import AE

FOUNDATION = "import attrs, datetime, logging, weakref"
IMPORT = "from rxdicom import AE, evt"
ENTITY = f"{IMPORT}; ae = AE()"
ASSOCIATION = f"{ENTITY}; ae.add_requested_context('1.2.840.10008.1.1'); ae.association('127.0.0.1', 104)"
ECHO = "from rxdicom.__main__ import script; assert script() == 0"

SOCKETS = {"_socket", "_struct", "array", "errno", "math", "select", "selectors", "socket", "struct", "zlib"}
"""What talks to a peer. zlib is for deflated datasets."""
COMMAND_LINE = {"argparse", "gc", "gettext", "locale", "_locale", "shutil", "fnmatch", "bz2", "lzma", "stringprep"}
"""What parses arguments (with what shutil tries to load), and resolves the name of a host."""
NOT_FOR_A_USER = {
    "rxdicom.aio",
    "rxdicom.application_information",
    "rxdicom.events.journal",
    "rxdicom.events.records",
    "rxdicom.events.streams",
    "rxdicom.events.transcript",
    "rxdicom.operators",
    "rxdicom.recording",
    "rxdicom.runtimes.aio",
    "rxdicom.runtimes.instances",
    "rxdicom.runtimes.provider",
    "rxdicom.runtimes.sub_operations",
    "rxdicom.runtimes.threads.driver",
    "rxdicom.runtimes.threads.performer",
    "rxdicom.runtimes.threads.server",
    "rxdicom.runtimes.threads.spreading",
    "rxdicom.runtimes.threads.tls",
    "rxdicom.runtimes.threads.workers",
    "rxdicom.services.acceptance",
    "rxdicom.services.effects",
    "rxdicom.services.provider",
    "rxdicom.testing",
}
"""What serves, watches or speaks TLS: of no use to who sends a C-ECHO."""


def loaded_by(code: str, *arguments: object) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def foundation() -> set[str]:
    return loaded_by(FOUNDATION)


def own(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "rxdicom"}


@pytest.mark.parametrize("code", [IMPORT, ENTITY], ids=["import", "entity"])
def test_an_application_entity_is_made_without_any_module_beyond_attrs_and_logging(foundation: set[str], code: str):
    loaded = loaded_by(code) - foundation
    assert loaded == own(loaded)
    # Configuration only: no record of the wire, nothing of the protocol but its limits, no socket.
    assert own(loaded) == {
        "rxdicom",
        "rxdicom.builders",
        "rxdicom.errors",
        "rxdicom.events",
        "rxdicom.events.hub",
        "rxdicom.events.kinds",
        "rxdicom.evt",
        "rxdicom.log",
        "rxdicom.presentation",
        "rxdicom.protocol",
        "rxdicom.protocol.policy",
        "rxdicom.runtimes",
        "rxdicom.runtimes.entity",
        "rxdicom.runtimes.threads",
        "rxdicom.runtimes.threads.ae",
        "rxdicom.service_class",
        "rxdicom.sop_class",
        "rxdicom.status",
        "rxdicom.wire",
        "rxdicom.wire.encoded",
        "rxdicom.wire.uids",
    }


def test_an_association_loads_sockets_and_nothing_that_serves(foundation: set[str]):
    loaded = loaded_by(ASSOCIATION) - foundation
    assert loaded - own(loaded) <= SOCKETS
    assert not own(loaded) & NOT_FOR_A_USER
    assert "rxdicom.runtimes.threads.association" in loaded


def test_echoscu_loads_the_command_line_besides(foundation: set[str]):
    ae = AE()
    ae.add_supported_context("1.2.840.10008.1.1")
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        loaded = loaded_by(ECHO, "echoscu", "-q", "127.0.0.1", server.address[1]) - foundation
    foreign = {name for name in loaded - own(loaded) if not name.startswith(("_", "encodings."))}
    assert foreign <= SOCKETS | COMMAND_LINE
    assert not own(loaded) & NOT_FOR_A_USER
    programs = {name for name in own(loaded) if name.startswith("rxdicom.apps.")}
    assert programs == {f"rxdicom.apps.{name}" for name in ("console", "echoscu", "identity", "options")}


@pytest.mark.parametrize("arguments", [["--version"], ["echoscu", "--help"], ["nothing"], []], ids=" ".join)
def test_a_program_leaves_what_was_loaded_to_itself(arguments: list[str]) -> None:
    """The garbage collector goes on, and need not look through modules: when the interpreter ends it is soon done."""
    code = (
        "import gc; from rxdicom.__main__ import script; script(); print(gc.isenabled(), gc.get_freeze_count() > 9999)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "True True"
