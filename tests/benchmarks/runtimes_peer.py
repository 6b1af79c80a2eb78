"""One side of :mod:`.runtimes`, as a process: an SCP until its input ends, or an SCU with several associations.

It prints the port that it listens on, or the seconds that it took; at the end the number of objects stored and the CPU
seconds of the process.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rxdicom
from rxdicom import aio, evt
from rxdicom.runtimes.entity import Entity
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN

_AE = TypeVar("_AE", bound=Entity)
ANYWHERE = ("127.0.0.1", 0)


def main(role: str, runtime: str, *arguments: str) -> None:
    """Be the SCP or SCU of a runtime."""
    count = _ROLES[role, "blocking" if runtime == "threads" else "asyncio"](runtime, *arguments)
    print(count, time.process_time())


def scp(_: str) -> int:
    stored: list[None] = []

    def on_store(event: Any) -> int:
        stored.append(None)
        return 0x0000

    server = _configured(rxdicom.AE()).start_server(ANYWHERE, block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    print(server.address[1], flush=True)
    sys.stdin.read()
    server.shutdown()
    return len(stored)


def scp_on_loop(runtime: str) -> int:
    stored: list[None] = []

    def plainly(event: Any) -> int:
        stored.append(None)
        return 0x0000

    async def on_loop(event: Any) -> int:
        stored.append(None)
        return 0x0000

    async def serve() -> None:
        handler = plainly if runtime == "plain" else on_loop
        async with _configured(aio.AE()) as ae:
            async with ae.start_server(ANYWHERE, evt_handlers=[(evt.EVT_C_STORE, handler)]) as server:
                print(server.address[1], flush=True)
                await asyncio.to_thread(sys.stdin.read)

    asyncio.run(serve())
    return len(stored)


def scu(_: str, port: str, folder: str, associations: str) -> int:
    ae, paths = _configured(rxdicom.AE()), _files(folder)
    stored: list[int] = []

    def send() -> None:
        with ae.associate("127.0.0.1", int(port)) as assoc:
            stored.append(sum(sent.is_stored for sent in assoc.send_many(paths)))

    started = time.perf_counter()
    threads = [threading.Thread(target=send) for _ in range(int(associations))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(time.perf_counter() - started, flush=True)
    return sum(stored)


def scu_on_loop(_: str, port: str, folder: str, associations: str) -> int:
    paths = _files(folder)

    async def send(ae: aio.AE) -> int:
        async with ae.associate("127.0.0.1", int(port)) as assoc:
            return sum([sent.is_stored async for sent in assoc.send_many(paths)])

    async def send_all() -> int:
        async with _configured(aio.AE()) as ae:
            started = time.perf_counter()
            stored = await asyncio.gather(*(send(ae) for _ in range(int(associations))))
            print(time.perf_counter() - started, flush=True)
            return sum(stored)

    return asyncio.run(send_all())


def _configured(ae: _AE) -> _AE:
    ae.add_requested_context(CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.add_supported_context(CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.maximum_associations = 100
    ae.maximum_pdu_size = 131072
    return ae


def _files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).iterdir())


_ROLES: dict[tuple[str, str], Callable[..., int]] = {
    ("scp", "blocking"): scp,
    ("scp", "asyncio"): scp_on_loop,
    ("scu", "blocking"): scu,
    ("scu", "asyncio"): scu_on_loop,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
