"""What an acknowledgement promises: written, synchronised, renamed and found again, wherever the process dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rxdicom import AssociationAborted, ConnectionFailed, evt
from rxdicom.events.datasets import encode
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.runtimes.queries import instance
from tests.runtimes.raw import Store, associated, entity, store_rq, victim

SMALL, LARGE = 100, 5000
"""Bytes of datasets, below and above what is kept in memory."""
MEMORY = 1000


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "relaxed"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_response_leaves_when_file_and_name_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, durable: bool
) -> None:
    steps: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(fd: int) -> None:
        steps.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
        fsync(fd)

    def noted_rename(source: str, target: str) -> None:
        steps.append((f"rename {os.path.basename(source)}", os.path.basename(target)))
        rename(source, target)

    def save(event: Any) -> int:
        event.save(tmp_path / "1.dcm", durable=durable)
        return 0x0000

    def answered(_: Any) -> None:
        steps.append(("answered", ""))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    handlers = ((evt.EVT_C_STORE, save), (evt.EVT_DIMSE_SENT, answered))
    with victim(*handlers, limits={"memory": MEMORY}, spool=tmp_path) as attacked, associated(attacked.server) as raw:
        raw.send(store_rq(bytes(size)))
        assert raw.message().Status == 0x0000
        seen = steps[:]
    (temporary,) = {what.removeprefix("rename ") for what, target in seen if target == "1.dcm"}
    assert temporary.startswith(".")
    synchronised = [("fsync", temporary), (f"rename {temporary}", "1.dcm"), ("fsync", tmp_path.name)]
    expected = synchronised if durable else [(f"rename {temporary}", "1.dcm")]
    # The response is told of as it leaves, which the peer may notice first.
    assert [step for step in seen if step[0] != "answered"] == expected
    assert seen[: len(expected)] == expected


DYING = """
import os, signal, sys
from attrs import evolve
from rxdicom import AE, evt

folder, memory = sys.argv[1], int(sys.argv[2])
left = 0

def dying(step):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)
    return call

def save(event):
    event.save(os.path.join(folder, str(number), event.request.AffectedSOPInstanceUID + ".dcm"))
    return 0x0000

def serve():
    ae = AE()
    ae.accept_any_storage = True
    ae.limits = evolve(ae.limits, memory=memory)
    ae.spool_folder = os.path.join(folder, str(number))
    os.mkdir(ae.spool_folder)
    server = ae.make_server(("127.0.0.1", 0), evt_handlers=[(evt.EVT_C_STORE, save)])
    for step in ("writev", "fchmod", "fsync", "rename"):
        setattr(os, step, dying(getattr(os, step)))
    print(server.address[1], flush=True)
    server.serve_forever()

number = 0
while True:
    if not os.fork():
        left = number
        serve()
    os.wait()
    number += 1
"""
"""Serves again and again, each time until one step later in what it does with files, and dies there."""


@contextmanager
def dying(folder: Path) -> Generator[Generator[int]]:
    """The ports at which it serves, one life after the other."""
    command = [sys.executable, "-c", DYING, folder, str(MEMORY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            yield (int(line) for line in process.stdout)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_killed_at_every_step_of_storing(tmp_path: Path) -> None:
    """What was acknowledged is there, whole; what is there under its name is whole, acknowledged or not."""
    images = {uid: instance(uid, size) for uid, size in (("1.2.1", SMALL), ("1.2.2", LARGE), ("1.2.3", SMALL))}
    sent = {uid: encode(image, IMPLICIT_VR_LITTLE_ENDIAN) for uid, image in images.items()}
    acknowledged: list[list[str]] = []
    with dying(tmp_path) as ports:
        for port in ports:
            stored: list[str] = []
            acknowledged.append(stored)
            try:
                with entity().associate("127.0.0.1", port) as assoc:
                    for uid, image in images.items():
                        assert assoc.send_c_store(image) == 0x0000
                        stored.append(uid)
            except (AssociationAborted, ConnectionFailed):
                pass
            if len(stored) == len(images):
                break
    for number, stored in enumerate(acknowledged):
        store = Store(tmp_path / str(number))
        visible = {name.removesuffix(".dcm") for name in store.everything() if not name.startswith(".")}
        assert set(stored) <= visible
        assert {uid: store.data(uid) for uid in visible} == {uid: sent[uid] for uid in visible}
    # Each of the small ones is written, synchronised, renamed, and its folder synchronised; the large one more.
    assert len(acknowledged) >= 3 * 4 + 1
    assert [len(stored) for stored in acknowledged] == sorted(len(stored) for stored in acknowledged)
    assert {len(stored) for stored in acknowledged} == {0, 1, 2, 3}
