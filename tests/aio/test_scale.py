"""A thousand associations at once, in one loop, within 100 MiB and without a thread."""

import resource
import subprocess
import sys

import pytest

ASSOCIATIONS = 1000

SCRIPT = f"""
import asyncio, os, threading
from pathlib import Path
from rxdicom.aio import AE

VERIFICATION = "1.2.840.10008.1.1"

async def main():
    ae = AE()
    ae.maximum_associations = {ASSOCIATIONS}
    ae.add_requested_context(VERIFICATION)
    ae.add_supported_context(VERIFICATION)
    async with ae, ae.start_server(("127.0.0.1", 0)) as server:
        assocs = await asyncio.gather(*(ae.associate(*server.address).open() for _ in range({ASSOCIATIONS})))
        statuses = await asyncio.gather(*(each.send_c_echo() for each in assocs))
        assert statuses == [0] * {ASSOCIATIONS}
        assert len(server.active_associations) == {ASSOCIATIONS}
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(pages * os.sysconf("SC_PAGESIZE") >> 20, threading.active_count())
        await asyncio.gather(*(each.release() for each in assocs))

asyncio.run(main())
"""


def test_a_thousand_associations_in_one_loop() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * ASSOCIATIONS + 100:
        pytest.skip(f"only {soft} descriptors here, both ends of {ASSOCIATIONS} connections need more: ulimit -n")
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    mebibytes, threads = map(int, shown.stdout.split())
    assert mebibytes < 100
    assert threads == 1
