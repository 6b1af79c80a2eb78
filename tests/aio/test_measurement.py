"""The measurement of the runtimes counts only what was stored, and computes what it says."""

from pathlib import Path

import pytest
from attrs import evolve

from tests.benchmarks.data import prepare
from tests.benchmarks.runtimes import RUNTIMES, Load, Run, as_scp, as_scu, line

pytestmark = pytest.mark.peer


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(prepare(tmp_path, (4, 6), 3).folder, associations=2, stores=3)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_runtime_stores_everything(load: Load, runtime: str) -> None:
    for run in (as_scp(runtime, load), as_scu(runtime, load)):
        assert run.seconds > 0
        assert run.cpu > 0


def test_a_run_that_is_not_complete_is_none(load: Load) -> None:
    with pytest.raises(RuntimeError, match="6 objects stored"):
        as_scp("aio", evolve(load, stores=4))


def test_the_ratio_is_that_of_the_medians() -> None:
    reference = [Run(each, 1.0) for each in (4.0, 90.0, 3.0)]
    found = [Run(each, 2.0) for each in (2.0, 1.0, 30.0)]
    assert line("small", "scp", "aio", found, reference).endswith("CPU   2.00 s  throughput × 2.00")
