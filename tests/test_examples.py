"""Every example runs as the script that it is, shows what it says, and is short."""

import ast
import asyncio
import json
import os
import re
import runpy
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from rxdicom import AE, AssociationRejected, evt
from rxdicom.sop_class import CTImageStorage, Verification
from tests.ports import free_port
from tests.support import DEADLINE, FILES, python, run, running

EXAMPLES = Path(__file__).parent.parent / "examples"
GATEWAY = "gateway"
"""A web application, which has tests of its own."""
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != GATEWAY)
MOST_LINES = 40
SHOWN = {
    "failure_alert": (
        r"ALERT: 3 failures within a minute\n"
        r"  ME: status: refused: SOP class not supported\n"
        # Two associations: the one may be told of before the other.
        r"(?=(?s:.*)aborted: by the service user\n)(?=(?s:.*)rejected: called AE title not recognised\n)(  ME: .*\n){2}"
    ),
    "nats_instances": r"published\npublished\n",
    "pdu_log": r"INFO ECHO-1 <- A-ASSOCIATE-RQ\nINFO ECHO-1 -> A-RELEASE-RP\n",
    "prometheus_metrics": (
        r'dicom_operation_seconds_count\{name="C-STORE",status="Success"\} 1\.0\n'
        r"dicom_stored_bytes_total 38846\.0\ndicom_connections 0\.0\n"
    ),
    "pure_scp": r"Pending CITIZEN\^JANE\nPending SMITH\^JOHN\nSuccess -\n",
    "quickstart": r"PDUReceived\(.*AssociateAC.*\)\nSuccess\n.*0x0000.*\n",
    "retry": r"ConnectionFailed, once more in 0\.1 s\n(ConnectionFailed, .*\n)*answered 0x0000\n",
    "study_completed": (
        r"2\.25\.1: 3 instances, \d+ bytes, from ARCHIVE\n2\.25\.2: 2 instances, \d+ bytes, from ARCHIVE\n"
    ),
    "throughput_meter": r"( +\d+\.\d\d MB/s +\d+ PDUs/s +\d+ messages/s\n)+",
    "two_sinks": r"CT \d+ bytes from STORE\nMR \d+ bytes from STORE\n\['CT', 'MR'\]\n",
}
"""What each example prints."""


@pytest.fixture(scope="module")
def nats_url() -> Generator[str]:
    """Of a server that runs as long as the tests of this module."""
    program = shutil.which("nats-server", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin"]))
    if program is None:
        message = "nats-server is not installed: apt-get install nats-server"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    port = free_port()
    with running(program, "-a", "127.0.0.1", "-p", port, port=port):
        yield f"nats://127.0.0.1:{port}"


def test_every_example_is_tested():
    assert sorted(SHOWN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_an_example_shows(name: str, request: pytest.FixtureRequest):
    arguments = [request.getfixturevalue("nats_url")] if name == "nats_instances" else []
    done = run(python()[0], EXAMPLES / f"{name}.py", *arguments)
    assert re.fullmatch(SHOWN[name], done.stdout), done.stdout
    assert not done.stderr


def code_lines(text: str) -> int:
    """Lines of code: without blank ones, comments and docstrings."""
    tree = ast.parse(text)
    said: set[int] = set()
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node) is not None:
            first = node.body[0]
            said |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(number not in said and bool(line.strip()) and line.strip()[0] != "#" for number, line in lines)


def test_lines_of_code_are_counted():
    text = '"""Says\n\nthis."""\n\n# why\nimport os\n\n\nasync def f():\n    """That."""\n    return 1\n'
    assert code_lines(text) == 3


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str):
    assert code_lines((EXAMPLES / f"{name}.py").read_text()) < MOST_LINES


def test_prometheus_scrapes_what_a_server_does():
    """Over HTTP, by the words of the example, read by Prometheus's own parser."""
    measure = runpy.run_path(str(EXAMPLES / "prometheus_metrics.py"))["measure"]
    registry = CollectorRegistry()
    exporter, thread = start_http_server(0, "127.0.0.1", registry)

    def scraped() -> dict[tuple[str, ...], float]:
        page = urlopen(f"http://127.0.0.1:{exporter.server_port}/metrics", timeout=DEADLINE).read().decode()
        samples = [each for family in text_string_to_metric_families(page) for each in family.samples]
        unwanted = ("_bucket", "_created", "_sum")
        return {(each.name, *each.labels.values()): each.value for each in samples if not each.name.endswith(unwanted)}

    def refuse(event: Any) -> int:
        return 0xA700 if event.message_id == 2 else 0x0000

    ae = AE("ME")
    for uid in (Verification, CTImageStorage):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    ae.require_called_aet = True
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, refuse)]) as server:
        measure(server.events, registry)
        with ae.associate(*server.address, ae_title="ME") as assoc:
            assert scraped()["dicom_connections",] == 1
            assoc.send_c_echo(msg_id=1)
            assoc.send_c_store(FILES / "CT_small.dcm", msg_id=2)
            assoc.send_c_store(FILES / "CT_small.dcm", msg_id=3)
        with pytest.raises(AssociationRejected):
            ae.associate(*server.address, ae_title="SOMEBODY")
    assert scraped() == {
        ("dicom_operation_seconds_count", "C-ECHO", "Success"): 1,
        ("dicom_operation_seconds_count", "C-STORE", "Failure"): 1,
        ("dicom_operation_seconds_count", "C-STORE", "Success"): 1,
        ("dicom_stored_bytes_total",): 38846,
        ("dicom_failures_total", "local", "status"): 1,
        ("dicom_failures_total", "local", "rejected"): 1,
        ("dicom_connections",): 0,
    }
    exporter.shutdown()
    exporter.server_close()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_several_machines_consume_what_is_published_to_nats(nats_url: str):
    """Each subscriber gets all of it; those of a queue group share it."""
    everything, shared = asyncio.run(asyncio.wait_for(consumed(nats_url), DEADLINE))
    for told in everything:
        assert [(each["record"], each["modality"], each["calling_ae_title"]) for each in told] == [
            ("StoredInstance", "CT", "STORE"),
            ("StoredInstance", "MR", "STORE"),
        ]
        assert "CompressedSamples" not in json.dumps(told)
    together = [each["sop_instance_uid"] for told in shared for each in told]
    assert sorted(together) == sorted(each["sop_instance_uid"] for each in everything[0])


async def consumed(url: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """What machines get while the example runs: two that want everything, and three that share the work."""
    machines: list[Any] = [Client() for _ in range(5)]
    subscriptions: list[Subscription] = []
    for number, machine in enumerate(machines):
        await machine.connect(url)
        subscriptions.append(await machine.subscribe("dicom.stored", "" if number < 2 else "workers"))
        await machine.flush()
    script = await asyncio.create_subprocess_exec(
        *(python()[0], str(EXAMPLES / "nats_instances.py"), url), stdout=asyncio.subprocess.DEVNULL
    )
    assert await script.wait() == 0
    told = [await received(*pair) for pair in zip(machines, subscriptions, strict=True)]
    for machine in machines:
        await machine.close()
    return told[:2], told[2:]


async def received(machine: Client, subscription: Subscription) -> list[Any]:
    """What has come by now: the answer of the server comes behind it."""
    await machine.flush()
    return [json.loads((await subscription.next_msg()).data) for _ in range(subscription.pending_msgs)]
