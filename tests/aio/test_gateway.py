"""The gateway of the examples, served over HTTP, in front of real peers, and its page in a browser."""

import asyncio
import json
import os
import shutil
import socket
import threading
import tokenize
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from attrs import field, frozen
from pydicom import Dataset
from pynetdicom import AE as TheirAE
from pynetdicom import evt as their_evt
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from rxdicom import AE, evt
from rxdicom.events.records import CFind, CStore
from rxdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind, Verification
from tests.ports import free_port
from tests.support import DEADLINE, FILES, read

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "gateway.py"
CT = FILES / "CT_small.dcm"
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def gateway_class() -> Any:
    """The example's class; examples are scripts, and no package."""
    spec = spec_from_file_location("gateway", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Gateway


# ---- the peers


@frozen
class Archive:
    """A peer that keeps what it is sent, and answers each query with two patients."""

    port: int
    stored: list[Dataset] = field(factory=list[Dataset])
    asked: list[Dataset] = field(factory=list[Dataset])

    def store(self, dataset: Dataset) -> int:
        self.stored.append(dataset)
        return 0x0000

    def find(self, identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        self.asked.append(identifier)
        for name in ("Citizen^Jane", "<b>Smith</b>"):
            match = Dataset()
            match.QueryRetrieveLevel = "STUDY"
            match.PatientID, match.PatientName, match.StudyDate = identifier.PatientID, name, "20240102"
            yield 0xFF00, match


@contextmanager
def ours() -> Generator[Archive]:
    archive = Archive(free_port())

    def on_store(event: CStore) -> int:
        return archive.store(event.dataset)

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        return archive.find(event.identifier)

    ae = AE("ARCHIVE")
    ae.require_called_aet = True
    ae.accept_any_storage = True
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers: Any = [(evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find)]
    with ae.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=handlers):
        yield archive


@contextmanager
def theirs() -> Generator[Archive]:
    archive = Archive(free_port())

    def on_store(event: Any) -> int:
        return archive.store(event.dataset)

    def on_find(event: Any) -> Iterator[tuple[int, Dataset]]:
        return archive.find(event.identifier)

    ae: Any = TheirAE("ARCHIVE")
    ae.require_called_aet = True
    for uid in (StudyRootQueryRetrieveInformationModelFind, CTImageStorage):
        ae.add_supported_context(uid)
    handlers: Any = [(their_evt.EVT_C_STORE, on_store), (their_evt.EVT_C_FIND, on_find)]
    server: Any = ae.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=handlers)
    try:
        yield archive
    finally:
        server.shutdown()


@pytest.fixture(params=[ours, theirs], ids=["rxdicom", "pynetdicom"])
def archive(request: pytest.FixtureRequest) -> Generator[Archive]:
    with request.param() as peer:
        yield peer


# ---- the gateway


@frozen
class Served:
    """Where the gateway is reached."""

    http: tuple[str, int]
    dicom: tuple[str, int]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        with self.asking(method, path, body) as response:
            return response.status, json.loads(response.read())

    @contextmanager
    def asking(self, method: str, path: str, body: bytes | None = None) -> Generator[HTTPResponse]:
        connection = HTTPConnection(*self.http, timeout=DEADLINE)
        try:
            connection.request(method, path, body)
            yield connection.getresponse()
        finally:
            connection.close()

    def echo(self) -> None:
        """Somebody verifies the gateway's SCP."""
        ae = AE("MODALITY")
        ae.add_requested_context(Verification)
        with ae.associate(*self.dicom) as assoc:
            assert assoc.send_c_echo() == 0x0000


@contextmanager
def serving(port: int) -> Generator[Served]:
    """The gateway in front of a peer, as a web server in a thread."""
    dicom = ("127.0.0.1", free_port())
    app = gateway_class()("ARCHIVE", ("127.0.0.1", port), dicom).app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), name="gateway")
        thread.start()
        served = Served(listening.getsockname(), dicom)
        try:
            # What connects before it has started waits until it has.
            with served.asking("GET", "/") as page:
                assert page.status == 200
            yield served
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def gateway(archive: Archive) -> Generator[Served]:
    with serving(archive.port) as served:
        yield served


# ---- over HTTP


def test_an_upload_is_stored_at_the_peer(gateway: Served, archive: Archive) -> None:
    assert gateway.ask("POST", "/instances", CT.read_bytes()) == (201, {"status": "0x0000", "description": "success"})
    assert [each.SOPInstanceUID for each in archive.stored] == [read(CT).SOPInstanceUID]
    assert archive.stored[0].PixelData == read(CT).PixelData


def test_an_upload_that_is_no_dicom(gateway: Served, archive: Archive) -> None:
    code, answer = gateway.ask("POST", "/instances", b"junk" * 1000)
    assert code == 400
    assert "error" in answer
    assert not archive.stored


def test_a_query_is_a_list_in_the_dicom_json_model(gateway: Served, archive: Archive) -> None:
    code, found = gateway.ask("GET", "/studies?PatientID=7&StudyDate=20240101-")
    assert code == 200
    assert [each["00100020"] for each in found] == [{"vr": "LO", "Value": ["7"]}] * 2
    assert found[0]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Citizen^Jane"}]}
    (asked,) = archive.asked
    assert (asked.QueryRetrieveLevel, asked.StudyDate, asked.StudyInstanceUID) == ("STUDY", "20240101-", "")


def test_a_query_that_makes_no_sense(gateway: Served, archive: Archive) -> None:
    assert gateway.ask("GET", "/studies?Nonsense=7") == (400, {"error": "there is no attribute Nonsense"})
    assert gateway.ask("GET", "/studies?Rows=many")[0] == 400
    assert not archive.asked


def test_a_peer_that_is_not_there() -> None:
    with serving(free_port()) as gateway:
        for code, answer in (gateway.ask("GET", "/studies"), gateway.ask("POST", "/instances", CT.read_bytes())):
            assert code == 502
            assert "refused" in answer["error"]


def test_events_of_the_scp_are_streamed(gateway: Served) -> None:
    with gateway.asking("GET", "/events") as events:
        assert events.getheader("content-type", "").startswith("text/event-stream")
        assert events.readline() == b": listening\n"
        assert events.readline() == b"\n"
        gateway.echo()
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != "EVT_RELEASED":
            seen.append(json.loads(events.readline().removeprefix(b"data: ")))
            assert events.readline() == b"\n"
    messages = [each["message"]["name"] for each in seen if "message" in each]
    assert messages == ["C-ECHO-RQ", "C-ECHO-RSP"]
    assert {each["calling_ae_title"] for each in seen[1:]} == {"MODALITY"}


def test_what_is_sent_to_the_scp_is_passed_on(gateway: Served, archive: Archive) -> None:
    ae = AE("MODALITY")
    (sent,) = ae.send(*gateway.dicom, [CT])
    assert sent.status == 0x0000
    assert archive.stored[0].PixelData == read(CT).PixelData


# ---- in a browser


@pytest.fixture
def browser(tmp_path: Path) -> Generator[Chrome]:
    """Chromium without a window. Where it is absent that is a failure in CI, and a skip elsewhere."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        message = "Chromium and its driver are not installed: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)  # pyright: ignore[reportUnknownMemberType]
    started = Chrome(options, Service(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.mark.peer
def test_the_page(gateway: Served, archive: Archive, browser: Chrome) -> None:
    """A file is chosen and stored, patients are looked for, and events come while it is open."""

    def shows(place: str, *texts: str) -> None:
        def appeared(_: Chrome) -> bool:
            shown = browser.find_element(By.ID, place).text
            return all(text in shown for text in texts)

        WebDriverWait(browser, DEADLINE).until(appeared, f"{texts} in {place}")

    browser.get("http://{}:{}/".format(*gateway.http))
    shows("events", "listening")
    browser.find_element(By.ID, "files").send_keys(str(CT))
    shows("stored", "CT_small.dcm: 0x0000 success")
    assert [each.SOPInstanceUID for each in archive.stored] == [read(CT).SOPInstanceUID]
    browser.find_element(By.NAME, "PatientID").clear()
    browser.find_element(By.NAME, "PatientID").send_keys("42")
    browser.find_element(By.TAG_NAME, "button").click()
    # What a peer says is text.
    shows("studies", "42 Citizen^Jane 20240102", "42 <b>Smith</b> 20240102")
    gateway.echo()
    shows("events", "EVT_ESTABLISHED", "EVT_DIMSE_RECV C-ECHO-RQ", "EVT_RELEASED")
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def test_the_example_is_short() -> None:
    """Lines of code: those on which a name, a number or an operator stands."""
    with tokenize.open(EXAMPLE) as source:
        tokens = list(tokenize.generate_tokens(source.readline))
    code = {each.start[0] for each in tokens if each.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP)}
    assert len(code) < 95
