"""A thousand associations at once on one server process: each stores, all of it arrives whole; what they cost."""

import os
import resource
import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest
from pydicom import Dataset
from pydicom.uid import UID

from rxdicom import AE, Association, evt
from rxdicom.events.datasets import encode
from rxdicom.runtimes.threads.workers import WorkerServer
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.runtimes import duties
from tests.runtimes.duties import CT
from tests.runtimes.raw import MEBIBYTE, Raw, request
from tests.support import dataset_bytes

MANY = 1000
PER_ACCEPTOR, PER_REQUESTOR = 3, 5
"""Descriptors of an association, at the most."""
KIBIBYTE = 1024

_Result = TypeVar("_Result")


@contextmanager
def descriptors(wanted: int) -> Generator[None]:
    """This process, and those that it starts, may have so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (resource.RLIM_INFINITY, -1) and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, and {hard} allowed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def one_server_process(folder: Path) -> Generator[tuple[WorkerServer, int]]:
    """A server in a process of its own, for as many associations as there are, and the process."""
    ae = duties.entity()
    ae.maximum_associations = 2 * MANY
    with ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, duties.keep_relaxed, [str(folder)])], workers=1
    ) as server:
        pid = server.workers[0].pid
        assert pid is not None
        yield server, pid


def memory(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads_and_descriptors(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def test_a_thousand_associations_store_at_once(tmp_path: Path) -> None:
    ae = AE("MANY")
    ae.add_requested_context(CT, IMPLICIT_VR_LITTLE_ENDIAN)
    with (
        descriptors(MANY * max(PER_ACCEPTOR, PER_REQUESTOR) + 500),
        one_server_process(tmp_path) as (server, pid),
        ThreadPoolExecutor(32) as pool,
    ):
        before, at_rest = memory(pid), threads_and_descriptors(pid)

        def each(act: Callable[[int], _Result]) -> list[_Result]:
            return list(pool.map(act, range(MANY)))

        associations: list[Association] = each(lambda _: ae.associate(*server.address))
        assert len(server.active_associations) == MANY
        sent = [image(number) for number in range(MANY)]
        assert each(lambda number: associations[number].send_c_store(sent[number])) == [0x0000] * MANY
        peak = memory(pid)
        now = threads_and_descriptors(pid)
        threads, opened = (after - earlier for after, earlier in zip(now, at_rest, strict=True))
        assert all(each.is_established for each in associations)
        each(lambda number: associations[number].release())
        assert server.active_associations == []
    print(f"{(peak - before) // MANY // KIBIBYTE} KiB, {threads} threads, {opened} descriptors")
    assert peak - before < 192 * MEBIBYTE
    stored = {path.stem: sha256(dataset_bytes(path)).digest() for path in tmp_path.iterdir()}
    expected = {str(each.SOPInstanceUID): sha256(encode(each, IMPLICIT_VR_LITTLE_ENDIAN)).digest() for each in sent}
    assert stored == expected


def image(number: int) -> Dataset:
    """A small one, different from all the others."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(CT), UID(f"1.2.3.{number}")
    dataset.add_new(0x7FE00010, "OW", number.to_bytes(2, "little") * (500 + number))
    return dataset


def test_the_memory_of_a_thousand_idle_associations(tmp_path: Path) -> None:
    with descriptors(MANY * PER_ACCEPTOR + 500), one_server_process(tmp_path) as (server, pid), ExitStack() as stack:
        before, at_rest = memory(pid), threads_and_descriptors(pid)
        for _ in range(MANY):
            raw = stack.enter_context(Raw(socket.create_connection(server.address)))
            raw.associate(request())
        assert len(server.active_associations) == MANY
        grown = memory(pid) - before
        now = threads_and_descriptors(pid)
        threads, opened = (after - earlier for after, earlier in zip(now, at_rest, strict=True))
        # Nobody releases: they are cut.
        server.shutdown()
    print(f"{grown // MANY // KIBIBYTE} KiB per idle association")
    assert threads == MANY
    assert opened <= MANY * PER_ACCEPTOR
    assert grown < 128 * MEBIBYTE
