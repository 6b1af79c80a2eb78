"""Tests of the benchmark suite itself: that it counts only what arrived whole, and computes what it says."""

import os
import sys
from pathlib import Path

import pytest

# pydicom leaves the PathLike in this function's signature without its parameter.
from pydicom import dcmread  # pyright: ignore[reportUnknownVariableType]

from .benchmarks.__main__ import plan
from .benchmarks.data import Batch, complaint, image, prepare
from .benchmarks.measure import Sample, run
from .benchmarks.peers import PAIRS, REFERENCES, STACKS, WORKLOADS, Pair, Stack
from .benchmarks.report import Row, as_json, ratios, row, table

SHAPE = (4, 6)

PYTHON = (sys.executable, "-S", "-c")
ACCEPT = (
    "import socket, sys\ns = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile True: s.accept()[0].close()"
)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return prepare(tmp_path / "cache", SHAPE, 3)


def samples(*walls: float) -> list[Sample]:
    return [Sample(wall, wall / 2, wall / 4) for wall in walls]


def test_an_image_is_valid_and_the_same_each_time(batch: Batch):
    dataset = dcmread(batch.folder / "00001.dcm")
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert (dataset.pixel_array.shape, dataset.pixel_array.nbytes) == (SHAPE, 48)
    assert dataset == image(SHAPE, 1)
    assert dataset != image(SHAPE, 2)


def test_the_cache_is_reused_when_complete_and_made_anew_when_not(batch: Batch):
    path = batch.folder / "00001.dcm"
    os.utime(path, ns=(1, 1))
    whole = path.read_bytes()
    assert prepare(batch.folder.parent, SHAPE, 3) == batch
    assert path.stat().st_mtime_ns == 1
    path.write_bytes(whole[:-1])
    prepare(batch.folder.parent, SHAPE, 3)
    assert path.read_bytes() == whole


def test_names_and_file_meta_information_may_differ(batch: Batch):
    dataset = dcmread(batch.folder / "00001.dcm")
    (batch.folder / "00001.dcm").unlink()
    dataset.file_meta.SourceApplicationEntityTitle = "ANYONE"
    dataset.save_as(batch.folder / "CT.1.2.3")
    assert complaint(batch.contents, batch.folder) is None


def test_anything_less_or_else_than_what_was_sent_is_a_complaint(batch: Batch):
    path = batch.folder / "00001.dcm"
    whole, other = path.read_bytes(), (batch.folder / "00002.dcm").read_bytes()
    total = sum(size for size, _ in batch.contents)
    harms = {
        whole[:-7]: f"{total - 7} of {total} dataset bytes",
        whole[:-1] + bytes([whole[-1] ^ 1]): "other datasets than those sent",
        other: "other datasets than those sent",
        whole[:143]: "00001.dcm is not a DICOM file",
        b"": "00001.dcm is not a DICOM file",
    }
    for content, said in harms.items():
        path.write_bytes(content)
        assert complaint(batch.contents, batch.folder) == said
    path.unlink()
    assert complaint(batch.contents, batch.folder) == "2 of 3 files"


def test_a_row_is_medians_without_start_up():
    result = row("small", "nodelay-nodelay", 10, 10, 1000, samples(5, 3, 9), samples(1, 2, 1))
    assert (result.wall, result.net, result.spread) == (5, 4, 6 / 5)
    assert (result.cpu_scu, result.cpu_scp, result.failure) == (2, 1, None)


def test_a_row_of_fewer_objects_is_scaled_but_its_start_up_is_not():
    result = row("small", "stock-stock", 2000, 100, 1000, samples(5), samples(1))
    assert (result.wall, result.net, result.cpu_scu, result.cpu_scp) == (81, 80, 40, 20)
    assert "DCMTK → DCMTK*" in table("", [result])


@pytest.mark.parametrize("bad", ["runs", "start-ups"])
def test_one_failed_run_makes_the_row_a_failure_without_times(bad: str):
    broken = [*samples(5, 5), Sample(failure="received 1 of 2 files")]
    runs, start_ups = (broken, samples(1)) if bad == "runs" else (samples(5), broken)
    result = row("small", "rxdicom-rxdicom", 2, 2, 10, runs, start_ups)
    text = table("heading", [result])
    assert "FAILED" in text
    assert "1 of 3: received 1 of 2 files" in text
    assert "5.00" not in text
    assert "wall" not in as_json([result])[0]


def test_ratios_are_of_net_times_to_each_reference_that_has_one():
    rows = [
        Row("small", "nodelay-nodelay", 1, 1, 1, net=2),
        Row("small", "stock-stock", 1, 1, 1, failure="no"),
        Row("small", "rxdicom-rxdicom", 1, 1, 1, net=1),
        Row("small", "rxdicom-nodelay", 2000, 100, 1, net=0.3),  # scaled from the 15 ms that were measured: noise
        Row("large", "pynetdicom-pynetdicom", 1, 1, 1, net=9),
    ]
    nothing = dict.fromkeys(REFERENCES)
    assert ratios(rows[2], rows) == nothing | {"nodelay-nodelay": 0.5}
    assert ratios(rows[1], rows) == ratios(rows[3], rows) == nothing


def test_every_round_runs_every_pair_at_everything_in_alternating_order():
    steps = plan(2, ["echo", "large"], ["a", "b"])
    assert steps[:4] == [
        (0, "start-echo", "a"),
        (0, "start-echo", "b"),
        (0, "start-store", "a"),
        (0, "start-store", "b"),
    ]
    assert [step[2] for step in steps if step[:2] == (1, "large")] == ["b", "a"]
    assert len(steps) == len(set(steps)) == 2 * 4 * 2


def test_the_tables_fit_together():
    assert set(REFERENCES) <= set(PAIRS)
    assert {stack for pair in PAIRS.values() for stack in (pair.scu, pair.scp)} == set(STACKS)
    assert [PAIRS["stock-stock"].sends(w.count, everything=False) for w in WORKLOADS.values()] == [100, 100, 100, 1]
    assert all(PAIRS["stock-stock"].sends(w.count, everything=True) == w.count for w in WORKLOADS.values())


@pytest.mark.parametrize(
    ("scu", "scp", "said"),
    [
        (("unused",), ("no-such-program",), "no-such-program is not installed"),
        (("unused",), (*PYTHON, "print('E: no'); raise SystemExit(3)"), "the receiver did not start: E: no"),
        (("no-such-program",), (*PYTHON, ACCEPT, "{port}"), "no-such-program is not installed"),
        ((*PYTHON, "raise SystemExit('bad')"), (*PYTHON, ACCEPT, "{port}"), "the sender ended with 1: bad"),
        ((*PYTHON, "print('E: lost one')"), (*PYTHON, ACCEPT, "{port}"), "the sender reports: E: lost one"),
        ((*PYTHON, "pass"), (*PYTHON, ACCEPT, "{port}"), "received 0 of 3 files"),
        ((*PYTHON, "while True: pass"), (*PYTHON, ACCEPT, "{port}"), "timed out after 0.2 s"),
    ],
)
def test_a_run_that_fails_is_never_a_time(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scu: tuple[str, ...], scp: tuple[str, ...], said: str
):
    monkeypatch.setitem(STACKS, "fake", Stack("fake", scu, scp, scu, scp))
    limit = 0.2 if "timed" in said else 30
    assert run(Pair("fake", "fake"), batch, tmp_path, limit) == Sample(failure=said)
    assert not (tmp_path / "received").exists()


def test_a_run_that_succeeds_is_a_time(batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    accept, copy = (*PYTHON, ACCEPT, "{port}"), "import shutil, sys\nshutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    store = (*PYTHON, copy, "{folder}", str(tmp_path / "received"))
    monkeypatch.setitem(STACKS, "fake", Stack("fake", (*PYTHON, "pass"), accept, store, accept))
    for job in (batch, 7):
        sample = run(Pair("fake", "fake"), job, tmp_path, 30)
        assert sample.failure is None
        assert min(sample.wall, sample.cpu_scu, sample.cpu_scp) > 0
