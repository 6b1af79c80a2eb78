"""The examples of pynetdicom's documentation run with only their import lines changed, and do what they say.

Each plays against a peer of either stack, and once in the original, which shows that what is expected here is what
its readers are used to. Examples are named by page and place on it.
"""

import ast
import doctest
import logging
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import ConnectionFailed, LocalUsageError
from tests.interop.documented.pages import Key, code_blocks, docstrings, documents
from tests.interop.documented.peers import CT, Archive, Visitor, sop_class
from tests.interop.documented.play import Play, port_of
from tests.interop.documented.providers import PATIENT_ROOT, PRIVATE_STORAGE, PROVIDERS, certificates, stores_to_file
from tests.interop.documented.users import USERS, image_file
from tests.ports import free_port
from tests.support import read

STACKS = {
    "rxdicom-to-rxdicom": ("rxdicom", "rxdicom"),
    "rxdicom-to-pynetdicom": ("rxdicom", "pynetdicom"),
    "original-to-rxdicom": ("pynetdicom", "rxdicom"),
}
"""The stack that plays the example, and that of its peer."""


def _has_contexts(name: str, number: int) -> Callable[[Play], None]:
    def check(play: Play) -> None:
        expected = [str(each.abstract_syntax) for each in getattr(import_module("pynetdicom"), name)]
        assert len(expected) == number
        assert sorted(str(each.abstract_syntax) for each in play.names["ae"].requested_contexts) == sorted(expected)

    return check


def _logs_everything(play: Play) -> None:
    logger = logging.getLogger(play.package)
    assert logger.level == logging.DEBUG
    assert any(isinstance(each, logging.StreamHandler) for each in logger.handlers)


def _is_registered(name: str, service: str) -> Callable[[Play], None]:
    def check(play: Play) -> None:
        registered = getattr(import_module(f"{play.package}.sop_class"), name)
        assert registered.service_class is getattr(import_module(f"{play.package}.service_class"), service)
        assert str(registered) == PRIVATE_STORAGE

    return check


STATEMENTS: dict[Key, Callable[[Play], None]] = {
    ("examples/storage", (1,)): _has_contexts("StoragePresentationContexts", 120),
    ("examples/verification", (0,)): _logs_everything,
    ("examples/verification", (2,)): _has_contexts("VerificationPresentationContexts", 1),
    ("user/presentation_private", (2,)): _is_registered("PrivateRTPlanStorage", "StorageServiceClass"),
    ("user/presentation_private", (4,)): _is_registered("PrivateQueryFind", "QueryRetrieveServiceClass"),
}
"""What neither requests nor accepts an association, and how it shows that it has been done."""

IDENTIFIERS: dict[Key, str] = {
    ("examples/qr_find", (1,)): f"{PATIENT_ROOT}Find",
    ("examples/qr_find", (2,)): f"{PATIENT_ROOT}Find",
    ("examples/qr_get", (1,)): f"{PATIENT_ROOT}Find",
    ("examples/qr_move", (2,)): f"{PATIENT_ROOT}Find",
    ("examples/relevant_patient", (1,)): "GeneralRelevantPatientInformationQuery",
}
"""Identifiers that a page shows beside an example, and the information model with which they are sent."""

HANDLERS: tuple[Key, ...] = (("tutorials/create_scp", (5,)),)
"""Handlers of C-STORE alone."""

TALKS: tuple[Key, ...] = (
    ("user/ae_scp", (1,)),
    ("user/presentation_introduction", (0,)),
    ("user/presentation_introduction", (1,)),
    ("user/presentation_private", (0,)),
    ("user/presentation_private", (1,)),
)
"""Interactive examples, which show the same on both stacks."""

DOCSTRINGS = (
    "ae.ApplicationEntity.add_requested_context",
    "ae.ApplicationEntity.add_supported_context",
    "ae.ApplicationEntity.remove_requested_context",
    "ae.ApplicationEntity.remove_supported_context",
    "ae.ApplicationEntity.requested_contexts",
    "ae.ApplicationEntity.supported_contexts",
    "pdu_primitives.AsynchronousOperationsWindowNegotiation",
    "pdu_primitives.ImplementationClassUIDNotification",
    "pdu_primitives.SCP_SCU_RoleSelectionNegotiation",
    "pdu_primitives.SOPClassCommonExtendedNegotiation",
    "pdu_primitives.SOPClassExtendedNegotiation",
    "pdu_primitives.UserIdentityNegotiation",
    "presentation.build_context",
    "sop_class.register_uid",
)
"""The same in the docstrings."""

VERSION_NAME = "pdu_primitives.ImplementationVersionNameNotification"
"""Its own line raises in the original."""
STATUS = "status.Status"
"""A handler that answers with statuses of its own."""
FILE_META = "events.Event.file_meta"
"""Lines for a handler of C-STORE."""

OWN_SERVER: Key = ("README", (2,))
PRINTING: Key = ("examples/print", (0,))
NO_CLIENT: Key = ("user/association_requesting", (6,))
"""Its TLS context is one for servers, with which a client cannot connect."""

BROKEN: dict[Key, tuple[str, type[Exception]]] = {
    ("examples/qr_find", (3,)): ("indentation", IndentationError),
    ("examples/storage", (6,)): ("a module that it does not import", NameError),
    ("examples/verification", (3,)): ("indentation", IndentationError),
    ("user/presentation_requestor", (3,)): ("a name that pydicom has no more", ImportError),
}
"""What does not run in the original either, and why."""

LEFT_OUT: dict[Key, str] = {
    ("user/events_types", (0,)): "there is no process-wide configuration",
}


# ---- the tests


@pytest.fixture(scope="module")
def pages(pynetdicom_source: Path) -> dict[str, list[str]]:
    return documents(pynetdicom_source)


@pytest.fixture(scope="module")
def texts(pynetdicom_source: Path) -> dict[str, str]:
    return docstrings(pynetdicom_source)


@pytest.fixture(scope="module")
def archives() -> Generator[dict[str, Archive]]:
    made = {package: Archive(package) for package in ("rxdicom", "pynetdicom")}
    yield made
    for each in made.values():
        each.shutdown()


@pytest.fixture
def stage(tmp_path: Path) -> Generator[Callable[[str], Play]]:
    """Makes plays; what they leave open is closed at the end."""
    with ExitStack() as plays:

        def make(package: str) -> Play:
            play = Play(package, tmp_path)
            plays.callback(play.close)
            return play

        yield make


@pytest.fixture(params=STACKS.values(), ids=list(STACKS))
def pair(
    request: pytest.FixtureRequest, stage: Callable[[str], Play], archives: dict[str, Archive]
) -> tuple[Play, Archive]:
    """A play on one stack, and an archive on the other."""
    package, other = request.param
    archive = archives[other]
    archive.forget()
    play = stage(package)
    play.peers[11112] = archive.port
    return play, archive


def _blocks(pages: dict[str, list[str]], key: Key) -> list[str]:
    page, places = key
    return [pages[page][place] for place in places]


def _named(table: Iterable[Key]) -> Any:
    keys = list(table)
    return pytest.mark.parametrize("key", keys, ids=[f"{page}-{'-'.join(map(str, places))}" for page, places in keys])


def test_every_example_of_the_documentation_is_listed(pages: dict[str, list[str]]) -> None:
    tables = (USERS, PROVIDERS, STATEMENTS, IDENTIFIERS, HANDLERS, TALKS, BROKEN, LEFT_OUT, [NO_CLIENT])
    listed = {(page, place) for table in tables for page, places in table for place in places}
    assert listed == {(page, place) for page, blocks in pages.items() for place in range(len(blocks))}


def test_every_docstring_with_examples_is_listed(texts: dict[str, str]) -> None:
    assert texts.keys() == {*DOCSTRINGS, VERSION_NAME, STATUS, FILE_META}


@_named(USERS)
def test_users(key: Key, pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    play, archive = pair
    expected = USERS[key]
    expected.given(play)
    play.begin(*_blocks(pages, key))
    if expected.is_destination:
        archive.destination = ("127.0.0.1", play.listener().port)
    play.end()
    expected.check(play, archive)
    assert play.error is None
    assert tuple(archive.requests) == expected.requests
    assert tuple(play.statuses) == expected.statuses
    assert len(play.associations) == expected.associations
    assert all(each.is_released for each in play.associations[:-1])
    last = play.associations[-1]
    assert (last.is_released, last.is_established) == (expected.released, not expected.released)


@_named([key for key in USERS if key != OWN_SERVER])
def test_users_without_a_peer(key: Key, stage: Callable[[str], Play], pages: dict[str, list[str]]) -> None:
    """What the original leaves to an ``else``, and many an example to nobody, raises."""
    play = stage("rxdicom")
    play.peers[11112] = free_port()
    USERS[key].given(play)
    with pytest.raises(ConnectionFailed):
        play.run(*_blocks(pages, key))


@_named(PROVIDERS)
def test_providers(key: Key, pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    play, archive = pair
    expected = PROVIDERS[key]
    expected.given(play)
    play.begin(*_blocks(pages, key))
    listeners = [play.listener() for _ in range(expected.servers)]
    sleeps = len(expected.visits) > 1
    for visit in expected.visits:
        assert not sleeps or play.sleeps(), f"the example ended: {play.error!r}"
        for listener in listeners:
            visit(play, Visitor(archive, listener.host, listener.port))
        if sleeps:
            play.wake()
    if not sleeps:
        for listener in listeners:
            listener.shut_down()
    play.end()
    assert play.error is None
    assert tuple(play.calls) == expected.handlers


@pytest.mark.parametrize("package", ["rxdicom", "pynetdicom"])
@_named(STATEMENTS)
def test_statements(key: Key, package: str, stage: Callable[[str], Play], pages: dict[str, list[str]]) -> None:
    play = stage(package)
    play.run(*_blocks(pages, key))
    STATEMENTS[key](play)


@_named(IDENTIFIERS)
def test_identifiers(key: Key, pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    play, archive = pair
    play.names["Dataset"] = Dataset
    play.run(*_blocks(pages, key))
    visitor = Visitor(archive, "127.0.0.1", archive.port)
    assert visitor.find(IDENTIFIERS[key], play.names["ds"]) == [0xFF00, 0x0000]


@_named(HANDLERS)
def test_handlers_of_store(key: Key, pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    play, archive = pair
    play.run(*_blocks(pages, key))
    with _storing(play, play.names["handle_store"]) as port:
        stores_to_file(play, Visitor(archive, "127.0.0.1", port))


def test_a_handler_with_statuses_of_its_own(pair: tuple[Play, Archive], texts: dict[str, str]) -> None:
    play, archive = pair
    play.run(*code_blocks(texts[STATUS]))
    handler = play.names["handle_store"]
    with _storing(play, handler) as port:
        stores_to_file(play, Visitor(archive, "127.0.0.1", port))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "save_as", None)
        with _storing(play, handler) as port:
            assert Visitor(archive, "127.0.0.1", port).store() == 0xC000


@contextmanager
def _storing(play: Play, handler: Callable[..., Any]) -> Generator[int]:
    """A server of the play's stack with this handler of C-STORE, and its port."""
    ae = play.stack.AE()
    ae.add_supported_context(sop_class("CTImageStorage"))
    handlers = [(play.stack.evt.EVT_C_STORE, handler)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield port_of(server)
    finally:
        server.shutdown()


def test_printing(pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    """The steps after the first, which the example itself never comes to: see its row among the users."""
    play, archive = pair
    (text,) = _blocks(pages, PRINTING)
    image_file("path/to/file.dcm")(play)
    play.begin(text)
    play.end()
    ae = play.stack.AE()
    ae.add_requested_context(sop_class("BasicGrayscalePrintManagementMeta"))
    play.names["assoc"] = ae.associate("127.0.0.1", archive.port)
    archive.forget()
    (established,) = (each for each in ast.parse(text).body if isinstance(each, ast.If))
    printed = next(index for index, each in enumerate(established.body) if isinstance(each, ast.Expr))
    with pytest.raises(ValueError, match="context"):
        # The last one lacks the UID of the meta SOP class.
        exec(compile(ast.Module(established.body[printed:], []), "<steps>", "exec"), play.names)
    assert archive.requests == ["N_CREATE", "N_CREATE", "N_SET", "N_ACTION"]
    assert len(play.printed.splitlines()) == 6
    play.names["assoc"].release()


@_named(TALKS)
def test_interactive_examples(key: Key, stage: Callable[[str], Play], pages: dict[str, list[str]]) -> None:
    (text,) = _blocks(pages, key)
    _show_the_same(text, stage)


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_docstrings(name: str, stage: Callable[[str], Play], texts: dict[str, str]) -> None:
    _show_the_same(texts[name], stage)


def test_a_docstring_that_is_broken_in_the_original(stage: Callable[[str], Play], texts: dict[str, str]) -> None:
    with pytest.raises(TypeError):
        stage("pynetdicom").talk(texts[VERSION_NAME])
    ours = stage("rxdicom")
    ours.talk(texts[VERSION_NAME])
    assert ours.names["item"].implementation_version_name == "SOME_NAME"


def test_writing_a_file_with_its_meta_information(pair: tuple[Play, Archive], texts: dict[str, str]) -> None:
    play, archive = pair
    lines = texts[FILE_META].splitlines()
    second = doctest.DocTestParser().get_examples(texts[FILE_META])[3].lineno
    written: list[Dataset] = []

    def on_store(event: Any) -> int:
        play.names["event"] = event
        for part in (lines[:second], lines[second:]):
            play.talk("\n".join(part))
            written.append(read(play.folder / "example.dcm"))
        return 0x0000

    with _storing(play, on_store) as port:
        assert Visitor(archive, "127.0.0.1", port).store() == 0x0000
    assert written == [read(CT)] * 2


def _show_the_same(text: str, stage: Callable[[str], Play]) -> None:
    ours, theirs = (stage(package).talk(text) for package in ("rxdicom", "pynetdicom"))
    # A service class is a value here, not a class.
    assert ours == [re.sub(r"<class '.*\.(\w+)'>", r"<\1>", shown) for shown in theirs]


@pytest.mark.parametrize("package", ["rxdicom", "pynetdicom"])
@_named(BROKEN)
def test_broken_examples(key: Key, package: str, stage: Callable[[str], Play], pages: dict[str, list[str]]) -> None:
    """In the original too, therefore they are no measure."""
    (text,) = _blocks(pages, key)
    play = stage(package)
    error_of = play.talk if text.startswith(">>>") else play.run
    with pytest.raises(BROKEN[key][1]):
        error_of(text)


def test_a_tls_context_for_servers_is_refused(pair: tuple[Play, Archive], pages: dict[str, list[str]]) -> None:
    """The original fails without a word; here it raises."""
    play, _ = pair
    certificates(play)
    play.begin(*_blocks(pages, NO_CLIENT))
    play.end()
    if play.package == "rxdicom":
        assert isinstance(play.error, LocalUsageError)
    else:
        assert [each.is_established for each in play.associations] == [False]
