"""Tests of the benchmark suite itself: that it counts only what arrived whole, and computes what it says."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

# pydicom leaves the PathLike in this function's signature without its parameter.
from pydicom import dcmread  # pyright: ignore[reportUnknownVariableType]

from .benchmarks import plots, report
from .benchmarks.__main__ import chosen_of, main
from .benchmarks.cases import Case, Result, Results, Scale, as_json, from_json, plan
from .benchmarks.data import Batch, complaint, image, prepare, prepare_sparse
from .benchmarks.measure import PROGRAMS, Sample, Trial, run
from .benchmarks.peers import PAIRS, REFERENCES, STACKS, WORKLOADS
from .benchmarks.processes import Program
from .benchmarks.programs.latencies import summary
from .benchmarks.report import as_markdown, as_text
from .benchmarks.requirements import Requirement, requirements
from .benchmarks.requirements import table as required
from .benchmarks.rows import Row, ratios, row, rows_of, table
from .benchmarks.sections import SECTIONS, basic, latency, memory, query, wide_area
from .ports import free_port
from .support import DEADLINE, dcmtk, listening

SHAPE = (4, 6)

PYTHON = (sys.executable, "-S", "-c")
NOTHING = Program((*PYTHON, "pass"))
ACCEPT = (
    "import socket, sys\ns = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile True: s.accept()[0].close()"
)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return prepare(tmp_path / "cache", SHAPE, 3)


def samples(*walls: float) -> tuple[Sample, ...]:
    return tuple(Sample(wall, wall / 2, wall / 4) for wall in walls)


def outcome(workload: str, pair: str, *runs: Sample, count: int = 1, sent: int = 1, section: str = "basic") -> Result:
    start_up = None if workload.startswith("start") else ("start-store", pair)
    return Result(section, workload, pair, PAIRS[pair].title if pair in PAIRS else pair, count, sent, 0, start_up, runs)


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


def test_a_sparse_image_is_large_and_takes_no_room(tmp_path: Path):
    batch = prepare_sparse(tmp_path, 1 << 26)
    path = batch.folder / "00000.dcm"
    assert path.stat().st_blocks * 512 < 1 << 20
    assert path.stat().st_size > batch.size > 1 << 26
    assert dcmread(path).PixelData == bytes(1 << 26)


def test_several_parts_are_folders_with_a_share_each(tmp_path: Path):
    batch = prepare(tmp_path, SHAPE, 4, 2)
    assert [sorted(path.name for path in (batch.folder / part).iterdir()) for part in "01"] == [
        ["00000.dcm", "00002.dcm"],
        ["00001.dcm", "00003.dcm"],
    ]
    assert len(batch.contents) == 4


def test_a_row_is_medians_without_start_up():
    of = row(outcome("small", "nodelay-nodelay", *samples(5, 3, 9)), outcome("start-store", "", *samples(1, 2, 1)))
    assert (of.wall, of.net, of.spread) == (5, 4, 6 / 5)
    assert (of.cpu_scu, of.cpu_scp, of.failure) == (2, 1, None)


def test_a_row_of_fewer_objects_is_scaled_but_its_start_up_is_not():
    runs = outcome("small", "stock-stock", *samples(5), count=2000, sent=100)
    of = row(runs, outcome("start-store", "stock-stock", *samples(1)))
    assert (of.wall, of.net, of.cpu_scu, of.cpu_scp) == (81, 80, 40, 20)
    assert "DCMTK → DCMTK*" in as_text(table("", [of], ()))


@pytest.mark.parametrize("bad", ["runs", "start-ups"])
def test_one_failed_run_makes_the_row_a_failure_without_times(bad: str):
    broken = [*samples(5, 5), Sample(failure="received 1 of 2 files")]
    runs, start_ups = (broken, samples(1)) if bad == "runs" else (samples(5), broken)
    pair = "rxdicom-rxdicom"
    of = row(outcome("small", pair, *runs), outcome("start-store", pair, *start_ups))
    for text in (as_text(table("heading", [of], ())), as_markdown(table("heading", [of], ()))):
        assert "FAILED" in text
        assert "1 of 3: received 1 of 2 files" in text
        assert "5.00" not in text
    assert not of.comparable


def test_ratios_are_of_net_times_to_each_reference_that_has_one():
    rows = [
        Row("small", "nodelay-nodelay", "", 1, 1, 1, net=2),
        Row("small", "stock-stock", "", 1, 1, 1, failure="no"),
        Row("small", "rxdicom-rxdicom", "", 1, 1, 1, net=1),
        Row("small", "rxdicom-nodelay", "", 2000, 100, 1, net=0.3),  # scaled from the 15 ms that were measured: noise
        Row("large", "pynetdicom-pynetdicom", "", 1, 1, 1, net=9),
    ]
    references = [(name, name) for name in REFERENCES]
    nothing = dict.fromkeys(REFERENCES)
    assert ratios(rows[2], rows, references) == nothing | {"nodelay-nodelay": 0.5}
    assert ratios(rows[1], rows, references) == ratios(rows[3], rows, references) == nothing


def case(workload: str, pair: str, section: str = "basic") -> Case:
    start_up = None if workload.startswith("start") else ("start", pair)
    return Case(section, workload, pair, "", Trial(NOTHING), start_up=start_up)


def test_every_round_runs_every_pair_at_everything_in_alternating_order():
    cases = [case(workload, pair) for workload in ("start", "echo", "large") for pair in "ab"]
    steps = [(turn, each.workload, each.pair) for turn, each in plan(2, [(1, cases)])]
    assert steps[:4] == [(0, "start", "a"), (0, "start", "b"), (0, "echo", "a"), (0, "echo", "b")]
    assert [step[2] for step in steps if step[:2] == (1, "large")] == ["b", "a"]
    assert len(steps) == len(set(steps)) == 2 * 3 * 2


def test_a_section_that_is_short_has_several_turns_in_each_round():
    steps = [(turn, each.pair) for turn, each in plan(2, [(2, [case("echo", "a"), case("echo", "b")])])]
    assert steps == [(0, "a"), (0, "b"), (0, "b"), (0, "a"), (1, "a"), (1, "b"), (1, "b"), (1, "a")]


def test_what_is_chosen_brings_its_start_up_along():
    cases = [case(workload, pair) for workload in ("start", "echo", "large") for pair in ("x-y", "y-y")]
    chosen = chosen_of(cases, ["large"], ["x-*"])
    assert [(each.workload, each.pair) for each in chosen] == [("start", "x-y"), ("large", "x-y")]
    assert chosen_of(cases, [], ["*"]) == cases
    assert chosen_of(cases, ["none"], ["*"]) == []


def test_the_tables_fit_together():
    assert set(REFERENCES) <= set(PAIRS)
    assert {stack for pair in PAIRS.values() for stack in (pair.scu, pair.scp)} == set(STACKS)
    assert [PAIRS["stock-stock"].sends(w.count, everything=False) for w in WORKLOADS.values()] == [40, 40, 40, 1]
    assert all(PAIRS["stock-stock"].sends(w.count, everything=True) == w.count for w in WORKLOADS.values())


@pytest.mark.parametrize("name", SECTIONS)
def test_the_cases_of_a_section_are_different_and_complete(name: str, tmp_path: Path):
    cases = SECTIONS[name].cases(Scale(tmp_path, quick=True))
    keys = [(each.section, each.workload, each.pair) for each in cases]
    assert len(set(keys)) == len(keys)
    assert {(name, *each.start_up) for each in cases if each.start_up} <= set(keys)
    # Nothing failed and nothing was measured: every row is there, and no figure is made up.
    results = Results(tuple(Result(*key, "title", 1, 1, 0, None, (Sample(failure="no"),)) for key in keys))
    rows = [cells for table in SECTIONS[name].tables(results) for cells in table.rows]
    assert rows
    assert all(cells[1:] in (("FAILED 1 of 1: no",), ("-",) * 6) for cells in rows)


# ---- one run


@pytest.mark.parametrize(
    ("scu", "scp", "said"),
    [
        (("unused",), ("no-such-program",), "no-such-program is not installed"),
        (("unused",), (*PYTHON, "print('E: no'); raise SystemExit(3)"), "the receiver did not start: E: no"),
        (("no-such-program",), (*PYTHON, ACCEPT, "{port}"), "no-such-program is not installed"),
        ((*PYTHON, "raise SystemExit('bad')"), (*PYTHON, ACCEPT, "{port}"), "the sender ended with 1: bad"),
        ((*PYTHON, "print('E: lost one')"), (*PYTHON, ACCEPT, "{port}"), "the sender reports: E: lost one"),
        ((*PYTHON, "print('1 of 3')"), (*PYTHON, ACCEPT, "{port}"), "the sender does not say: 3 of 3"),
        ((*PYTHON, "print('3 of 3')"), (*PYTHON, ACCEPT, "{port}"), "received 0 of 3 files"),
        ((*PYTHON, "while True: pass"), (*PYTHON, ACCEPT, "{port}"), "timed out after 0.2 s"),
    ],
)
def test_a_run_that_fails_is_never_a_time(
    batch: Batch, tmp_path: Path, scu: tuple[str, ...], scp: tuple[str, ...], said: str
):
    limit = 0.2 if "timed" in said else 30
    expected = ("3 of 3",) if "3" in said else ()
    trial = Trial(Program(scu), Program(scp), expected=batch.contents, said=expected)
    assert run(trial, tmp_path, limit) == Sample(failure=said)
    assert not (tmp_path / "received").exists()


def test_one_of_several_senders_that_fails_fails_the_run(tmp_path: Path):
    sender = Program((*PYTHON, "import sys; sys.exit(int(sys.argv[1]))", "{number}"))
    numbers = tuple({"number": number} for number in (0, 3, 0))
    assert run(Trial(sender, senders=numbers), tmp_path, 30).failure == "the sender ended with 3: no output"


def test_a_run_that_succeeds_is_a_time(batch: Batch, tmp_path: Path):
    accept, copy = (*PYTHON, ACCEPT, "{port}"), "import shutil, sys\nshutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    store = Program((*PYTHON, copy, "{source}", "{folder}"))
    trials = (
        Trial(store, Program(accept), ({"source": batch.folder},), batch.contents),
        Trial(NOTHING, Program(accept)),
    )
    for trial in trials:
        sample = run(trial, tmp_path, 30)
        assert sample.failure is None
        assert min(sample.wall, sample.cpu_scu, sample.cpu_scp) > 0


def test_several_senders_are_measured_from_the_first_to_the_last_and_their_cpu_is_added(tmp_path: Path):
    spend = "import time\nwhile time.process_time() < 0.1: pass"
    alone: tuple[dict[str, object]] = ({},)
    one, four = (run(Trial(Program((*PYTHON, spend)), senders=alone * number), tmp_path, 30) for number in (1, 4))
    assert one.cpu_scu >= 0.1
    assert four.cpu_scu >= 0.4
    assert four.wall >= 0.1


def test_the_memory_of_the_receiver_is_counted_above_what_it_has_when_idle(tmp_path: Path):
    serve = """import socket, sys
idle = bytes(1 << 26)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    if connection.recv(1):
        more = bytearray(1 << 25)
        more[::4096] = b"x" * len(more[::4096])
        connection.sendall(b".")
"""
    ask = (
        "import socket, sys\ns = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\ns.sendall(b'.')\ns.recv(1)"
    )
    trial = Trial(Program((*PYTHON, ask, "{port}")), Program((*PYTHON, serve, "{port}")))
    sample = run(trial, tmp_path, 30)
    assert sample.failure is None
    assert 1 << 25 <= sample.memory_scp < 1 << 26


def test_what_the_sender_tells_of_itself_is_kept(tmp_path: Path):
    tell = Program((*PYTHON, "import sys; open(sys.argv[1], 'w').write('{{\"p50\": 2.5}}')", "{report}"))
    assert run(Trial(tell), tmp_path, 30).figures == {"p50": 2.5}
    assert run(Trial(NOTHING), tmp_path, 30).figures == {}


# ---- the programs of the suite


def test_percentiles_are_told_where_there_are_values_above():
    assert summary([float(number) for number in range(1000)]) == {
        "p50": 499,
        "p90": 899,
        "p99": 989,
        "p99.9": 998,
        "max": 999,
    }
    assert set(summary([1.0] * 50)) == {"p50", "p90", "max"}


@contextmanager
def relay(target: int, delay: float) -> Generator[int]:
    port = free_port()
    command = [sys.executable, "-S", str(PROGRAMS / "relay.py"), str(port), str(target), str(delay)]
    process = subprocess.Popen(command, text=True)
    try:
        listening(port, process)
        yield port
    finally:
        process.kill()
        process.wait(DEADLINE)


def test_the_relay_delays_each_direction_keeps_the_order_and_the_end():
    with socket.create_server(("127.0.0.1", 0)) as server, relay(server.getsockname()[1], 0.1) as port:
        server.settimeout(DEADLINE)
        server.accept()[0].close()  # that of those who waited for the relay
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as near, server.accept()[0] as far:
            far.settimeout(DEADLINE)
            began, sent = time.monotonic(), bytes(range(256)) * 4096
            near.sendall(sent[: 1 << 19])
            near.sendall(sent[1 << 19 :])
            near.shutdown(socket.SHUT_WR)
            received = far.makefile("rb").read()
            there = time.monotonic()
            assert received == sent
            assert there - began >= 0.1
            far.sendall(b"back")
            assert near.recv(16) == b"back"
            assert time.monotonic() - there >= 0.1


def test_the_relay_delays_and_does_not_slow_down():
    with socket.create_server(("127.0.0.1", 0)) as server, relay(server.getsockname()[1], 0.2) as port:
        server.settimeout(DEADLINE)
        server.accept()[0].close()
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as near, server.accept()[0] as far:
            far.settimeout(DEADLINE)
            began = time.monotonic()
            for _ in range(30):  # together six seconds if each waited for the one before
                near.sendall(b"x")
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            near.shutdown(socket.SHUT_WR)
            assert far.makefile("rb").read() == b"x" * 30
            assert 0.2 <= time.monotonic() - began < 3


def test_the_bare_copy_copies_and_the_bare_exchange_is_timed(batch: Batch, tmp_path: Path):
    store = Trial(
        STACKS["bare"].program("store_scu"),
        STACKS["bare"].program("store_scp"),
        ({"source": batch.folder},),
        batch.contents,
    )
    assert run(store, tmp_path, 30).failure is None
    assert not list(tmp_path.rglob("received"))
    for count in (1, 2):
        assert run(store, tmp_path, 30, keep=True).failure is None
        kept = list(tmp_path.rglob("received"))
        assert [len(list(each.iterdir())) for each in kept] == [len(batch.contents)] * count
    lost = Trial(store.sender, store.receiver, store.senders, batch.contents[:2])
    assert run(lost, tmp_path, 30).failure == "received 3 of 2 files"
    [exchange] = [each for each in latency.cases(Scale(tmp_path, quick=True)) if each.pair == "bare-bare"]
    assert 0 < run(exchange.trial, tmp_path, 30).figures["max"] < 30


def run_quick(section: str, cache: Path, root: Path, workload: str, *pairs: str) -> list[Sample]:
    """Run some cases of a section, scaled down; none of them may fail."""
    root.mkdir(exist_ok=True)
    cases = SECTIONS[section].cases(Scale(cache, quick=True))
    chosen = [each for each in cases if each.workload == workload and each.pair in pairs]
    assert len(chosen) == len(pairs)
    done = [run(each.trial, root, 30) for each in chosen]
    assert [each.failure for each in done] == [None] * len(pairs)
    return done


@pytest.mark.parametrize(
    ("section", "workload", "pairs"),
    [
        (wide_area.NAME, wide_area.WORKLOAD, ["window-8"]),
        (query.NAME, query.FIND, ["rxdicom-rxdicom", "rxdicom-pynetdicom"]),
        (query.NAME, query.GET, ["rxdicom-rxdicom"]),
        ("events", "medium", ["stream", "receiver", "sender"]),
        ("growth", "associations", ["4"]),
        ("start", "start-up", ["python", "import"]),
    ],
)
def test_sections_work(section: str, workload: str, pairs: list[str], tmp_path: Path):
    run_quick(section, tmp_path / "cache", tmp_path / "root", workload, *pairs)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("section", "workload", "pair"),
    [
        (query.NAME, query.FIND, "nodelay-rxdicom"),
        (query.NAME, query.FIND, "rxdicom-nodelay"),
        (query.NAME, query.GET, "nodelay-nodelay"),
    ],
)
def test_sections_work_with_dcmtk(section: str, workload: str, pair: str, tmp_path: Path):
    dcmtk("dcmqrscp")
    run_quick(section, tmp_path / "cache", tmp_path / "root", workload, pair)


@pytest.mark.parametrize("operation", memory.WORKLOADS)
def test_the_memory_of_both_roles_is_told(operation: str, tmp_path: Path):
    [sample] = run_quick(memory.NAME, tmp_path / "cache", tmp_path / "root", operation, "rxdicom-rxdicom")
    scu, scp = memory.above_idle(sample)
    assert sample.figures["idle"] > 1 << 23
    assert 0 < scu < 1 << 28
    assert 0 < scp < 1 << 28


def test_the_latencies_are_those_of_the_user(tmp_path: Path):
    [sample] = run_quick(latency.NAME, tmp_path / "cache", tmp_path / "root", "echo", "rxdicom-rxdicom")
    assert 0 < sample.figures["p50"] <= sample.figures["p90"] <= sample.figures["max"] < sample.wall


# ---- what is made of it


def measured() -> Results:
    """Results as a run of four pairs would have them."""
    times = {"nodelay-nodelay": 3.0, "rxdicom-rxdicom": 2.0, "stock-stock": 5.0, "pynetdicom-pynetdicom": 11.0}
    return Results(
        (
            *(outcome("start-store", pair, *samples(1)) for pair in times),
            *(outcome("small", pair, *samples(wall)) for pair, wall in times.items()),
        )
    )


def test_json_has_everything_that_the_tables_have():
    results = measured()
    again = from_json(json.loads(json.dumps(as_json(results))))
    assert again == results
    assert report.markdown(again) == report.markdown(results)
    assert [each.net for each in rows_of(again, basic.NAME, "small")] == [2, 1, 4, 10]


def test_json_of_a_failure_has_no_times():
    [plain] = as_json(Results((outcome("start-store", "stock-stock", Sample(1, failure="no")),)))["cases"]
    assert plain["samples"] == [{"failure": "no"}]


def test_requirements_are_kept_or_not_or_were_not_measured():
    found = {each.what: (each.measured, each.is_kept) for each in requirements(measured())}
    assert found["images of 4 kB: net at both ends, ÷ tuned DCMTK with itself"] == (0.5, True)
    assert found["images of 4 kB: times faster than pynetdicom with itself"] == (10, False)
    assert found["images of 4 kB: net as SCP, ÷ tuned DCMTK with itself"] == (None, None)
    assert requirements(Results(())) == []
    assert "| NO |" in as_markdown(required(measured()) or pytest.fail("nothing is required"))
    assert required(evolve(measured(), quick=True)) is None
    assert Requirement("", 15, 15, at_least=True).is_kept
    assert not Requirement("", 64.1, 64).is_kept


def test_cpu_that_is_lost_in_the_noise_keeps_nothing():
    pairs = {"nodelay-nodelay": Sample(9, 0.5, 0.5), "nodelay-rxdicom": Sample(9, 0.5, 0.01)}
    results = Results(
        (
            *(outcome("start-store", pair, Sample(1)) for pair in pairs),
            *(outcome("small", pair, sample) for pair, sample in pairs.items()),
        )
    )
    found = {each.what: each.measured for each in requirements(results)}
    assert found["images of 4 kB: CPU as SCP, ÷ DCMTK's in that role"] is None


def test_each_section_of_the_report_has_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(as_json(measured())))
    assert report.main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "python -m tests.benchmarks --section basic\n" in said
    assert "| rxdicom → rxdicom | 2.00 | 1.00 |" in said


def test_plots_are_the_same_each_time(tmp_path: Path):
    written = [plots.draw(measured(), tmp_path / name) for name in "ab"]
    assert [path.name for path in written[0]] == ["basic-small.svg"]
    assert written[0][0].read_bytes() == written[1][0].read_bytes()
    assert "pynetdicom" in written[0][0].read_text()


def test_from_the_command_line_to_the_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "results.json"
    where = ["--output", str(tmp_path / "out"), "--json", str(path), "--timeout", "30"]
    assert main(["--section", "latency", "--pair", "bare-*", "--quick", *where]) == 0
    assert "QUICK RUN" in capsys.readouterr().out
    assert report.load(path).quick
    assert list((tmp_path / "out").iterdir()) == []
    assert plots.main([str(path), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "latency.svg").exists()
    assert main(["--section", "latency", "--pair", "nobody", *where]) == 2
