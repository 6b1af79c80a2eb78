"""Replays: the streams of a recording keep the rules of live ones, at speed, in real time and in virtual time."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from reactivex import Observable, abc
from reactivex.scheduler import EventLoopScheduler, HistoricalScheduler, ImmediateScheduler, TimeoutScheduler
from reactivex.testing import TestScheduler

from rxdicom import AE, evt
from rxdicom.errors import ArgumentError, StateError
from rxdicom.operators import activity, completed_studies, summaries
from rxdicom.recording import ACTIVITY_KINDS, ALL_KINDS, InvalidRecording, RecordedAssociation, record, replay
from rxdicom.recording.entries import encode_line
from rxdicom.sop_class import Verification
from rxdicom.testing import Network
from tests.recording.support import HANDLERS, configured, contents_of, ct_file, names, replayed
from tests.support import DEADLINE


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two associations, a C-STORE each, ten seconds apart, and a third an hour later that is aborted."""
    network = Network()
    scu = network.entity(configured(AE("SCU")))
    server = network.entity(configured(AE("SCP"))).start_server(("h", 104), block=False, evt_handlers=HANDLERS)
    with record(server, tmp_path / "r", ALL_KINDS):
        for _ in range(2):
            with scu.associate("h", 104) as assoc:
                assoc.send_c_store(ct_file())
            network.clock.advance(10)
        network.clock.advance(3580)
        scu.associate("h", 104).abort()
    return tmp_path / "r"


def released(stream: Observable[Any]) -> tuple[list[Any], list[str]]:
    """What comes over a stream, and how it ends."""
    seen: list[Any] = []
    ends: list[str] = []
    stream.subscribe(seen.append, lambda error: ends.append(str(error)), lambda: ends.append("completed"))
    return seen, ends


def test_records_are_of_the_same_types_with_the_same_words(recorded: Path):
    source = replay(recorded)
    seen, ends = released(source.events.dimse_recv)
    source.run()
    assert [type(each) for each in seen] == [evt.EVT_DIMSE_RECV.record] * 2
    assert [each.dataset.PatientName for each in seen] == ["CompressedSamples^CT1"] * 2
    assert [each.assoc.name for each in seen] == ["SCP-1", "SCP-2"]
    assert ends == ["completed"]
    assert source.events[evt.EVT_DIMSE_RECV] is source.events.dimse_recv


def test_each_association_has_streams_of_its_own(recorded: Path):
    source = replay(recorded)
    told: list[tuple[str, str]] = []

    def begin(assoc: RecordedAssociation) -> None:
        def note(what: str) -> Callable[..., None]:
            return lambda *_: told.append((assoc.name, what))

        assoc.events.conn_open.subscribe(note("open"))
        assoc.events.released.subscribe(note("released"))
        assoc.events.aborted.subscribe(note("aborted"), on_completed=note("completed"))

    source.associations.subscribe(begin)
    source.run()
    assert told == [
        *((f"SCP-{number}", what) for number in (1, 2) for what in ("open", "released", "completed")),
        *(("SCP-3", what) for what in ("open", "aborted", "completed")),
    ]


def test_operators_apply_to_a_replay(recorded: Path):
    source = replay(recorded)
    seen, _ = released(activity(source.events).pipe(summaries()))
    source.run()
    assert [(each.calling_ae_title, each.called_ae_title, each.ended) for each in seen] == [
        ("SCU", "ANY-SCP", "released"),
        ("SCU", "ANY-SCP", "released"),
        ("SCU", "ANY-SCP", "aborted"),
    ]


def test_an_observer_that_raises_stays_subscribed(recorded: Path, caplog: pytest.LogCaptureFixture):
    source = replay(recorded)
    calls: list[Any] = []

    def raising(event: Any) -> None:
        calls.append(event)
        raise ValueError("mine")

    source.events.conn_open.subscribe(raising)
    source.run()
    assert len(calls) == 3


def test_who_subscribes_later_completes_at_once(recorded: Path):
    source = replay(recorded)
    source.run()
    assert released(source.events.dimse_recv) == ([], ["completed"])


def test_a_kind_that_was_not_recorded_fails_and_says_so(tmp_path: Path, recorded: Path):
    with record(AE("ME"), tmp_path / "few", [evt.EVT_DIMSE_RECV, evt.EVT_RELEASED]):
        pass
    source = replay(tmp_path / "few")
    assert source.kinds == (evt.EVT_DIMSE_RECV, evt.EVT_RELEASED)
    assert released(source.events.pdu_recv)[1] == [f"{tmp_path}/few has no EVT_PDU_RECV; record it as well"]
    assert released(activity(source.events))[1] == [f"{tmp_path}/few has no EVT_CONN_OPEN; record it as well"]
    _, ends = released(source.events.all)
    source.run()
    assert ends == ["completed"]


def test_it_is_replayed_once(recorded: Path):
    source = replay(recorded)
    source.run()
    with pytest.raises(StateError, match="make another replay"):
        source.run()
    with pytest.raises(StateError, match="make another replay"):
        source.start(TestScheduler())


@pytest.mark.parametrize("speed", [0, -1.0])
def test_a_speed_is_above_zero(recorded: Path, speed: float):
    with pytest.raises(ArgumentError, match="does not come to an end"):
        replay(recorded).start(TestScheduler(), speed)
    with pytest.raises(ArgumentError, match="does not come to an end"):
        replay(recorded).run(speed)


# ---- time


def test_when_it_began_is_known_before(recorded: Path):
    source = replay(recorded)
    began = source.began
    seen = contents_of(source.events)
    announced, _ = released(source.associations)
    source.run()
    assert began == seen[0][1]
    assert len(announced) == 3
    (recorded.parent / "empty").write_bytes(recorded.read_bytes().splitlines(keepends=True)[0])
    assert replay(recorded.parent / "empty").began is None


def test_events_come_at_their_virtual_times(recorded: Path):
    whole = replayed(replay(recorded))
    source, clock = replay(recorded), TestScheduler()
    times: list[float] = []
    source.events.all.subscribe(lambda _: times.append(clock.clock))
    seen = contents_of(source.events)
    source.start(clock, speed=2)
    assert times == []
    clock.start()
    assert seen == whole
    assert times == [(each[1] - whole[0][1]).total_seconds() / 2 for each in whole]
    assert times[-1] == 1800


def test_operators_share_the_virtual_time(recorded: Path):
    source = replay(recorded)
    assert source.began is not None
    clock = HistoricalScheduler(source.began)
    seen: list[tuple[Any, Any]] = []
    studies = activity(source.events).pipe(completed_studies(quiet=30, scheduler=clock))
    studies.subscribe(lambda study: seen.append((clock.now - source_began, study)))
    source_began = source.began
    source.start(clock)
    clock.start()
    (study,) = seen
    assert study[0] == timedelta(seconds=40)
    assert len(study[1].instances) == 1


@pytest.mark.parametrize("scheduler", [TimeoutScheduler.singleton, EventLoopScheduler])
def test_in_real_time_nothing_is_lost_or_out_of_order(recorded: Path, scheduler: Callable[[], abc.SchedulerBase]):
    whole = replayed(replay(recorded))
    source, ended = replay(recorded), threading.Event()
    seen = contents_of(source.events)
    source.events.released.subscribe(on_completed=ended.set)
    source.start(scheduler(), speed=3600 / 0.2)
    assert ended.wait(DEADLINE)
    assert seen == whole


def test_in_real_time_on_the_current_thread(recorded: Path):
    whole = replayed(replay(recorded))
    source = replay(recorded)
    seen = contents_of(source.events)
    source.run(speed=3600 / 0.2)
    assert seen == whole


# ---- leaving


def test_an_observer_can_stop_it(recorded: Path):
    source = replay(recorded)
    seen, ends = released(source.events.dimse_recv)
    source.events.dimse_recv.subscribe(lambda _: source.close())
    source.run()
    assert len(seen) == 1
    assert ends == ["completed"]


def test_an_observer_can_stop_it_in_virtual_time(recorded: Path):
    source, clock = replay(recorded), TestScheduler()
    seen, ends = released(source.events.dimse_recv)
    source.events.dimse_recv.subscribe(lambda _: source.close())
    source.start(clock)
    clock.start()
    assert (len(seen), ends) == (1, ["completed"])


def test_it_can_be_stopped_in_a_pause(recorded: Path):
    source, clock = replay(recorded), TestScheduler()
    seen, ends = released(source.events.aborted)
    source.start(clock)
    clock.advance_to(60.0)
    assert ends == []
    source.close()
    assert (seen, ends) == ([], ["completed"])
    clock.start()
    assert seen == []


def test_another_thread_can_stop_it_in_a_pause(recorded: Path):
    source, begun = replay(recorded), threading.Event()
    _, ends = released(source.events.aborted)
    source.events.released.subscribe(lambda _: begun.set())
    thread = threading.Thread(target=source.run, args=(1.0,))
    thread.start()
    assert begun.wait(DEADLINE)
    source.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert ends == ["completed"]


def test_a_block_that_is_left_without_running_completes_the_streams(recorded: Path):
    with replay(recorded) as source:
        seen, ends = released(source.events.dimse_recv)
    assert (seen, ends) == ([], ["completed"])


# ---- recordings that grow, and damaged ones


def test_a_recording_is_followed_while_it_grows(tmp_path: Path):
    server_ae = configured(AE("SCP"))
    seen: list[str] = []
    arrived = threading.Event()
    with server_ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=HANDLERS) as server:
        with record(server, tmp_path / "r", [*ACTIVITY_KINDS]):
            source = replay(tmp_path / "r", follow=True)

            def note(event: Any) -> None:
                seen.append(event.message.name)
                arrived.set()

            source.events.dimse_recv.subscribe(note)
            thread = threading.Thread(target=source.run)
            thread.start()
            scu = AE("SCU")
            scu.add_requested_context(Verification)
            for _ in range(2):
                arrived.clear()
                with scu.associate(*server.address) as assoc:
                    assoc.send_c_echo()
                assert arrived.wait(DEADLINE)
        # Now the recorder has said that there is no more.
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert seen == ["C-ECHO-RQ"] * 2


def test_following_can_be_stopped(recorded: Path):
    growing = recorded.parent / "growing"
    growing.write_bytes(b"".join(recorded.read_bytes().splitlines(keepends=True)[:3]))
    source, arrived = replay(growing, follow=True), threading.Event()
    source.events.all.subscribe(lambda _: arrived.set())
    thread = threading.Thread(target=source.run)
    thread.start()
    assert arrived.wait(DEADLINE)
    source.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_what_a_killed_recorder_left_is_replayed(recorded: Path):
    whole, raw = replayed(replay(recorded)), recorded.read_bytes()
    seen: list[Any] = []
    for size in (*range(400, len(raw), 4999), len(raw) - 1):
        (recorded.parent / "cut").write_bytes(raw[:size])
        seen = replayed(replay(recorded.parent / "cut"))
        assert seen == whole[: len(seen)]
    assert seen == whole


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"event": "released", "association": 9, "at": "2000-01-01T12:00:00+00:00"}, "association 9, of which nothing"),
        ({"event": "stirred", "association": 1, "at": "2000-01-01T12:00:00+00:00"}, "'stirred', which there is not"),
        ({"event": "released", "association": 1, "at": "noon"}, "'noon', which is no time"),
        ({"event": "rejected", "association": 1, "at": "2000-01-01T12:00:00+00:00"}, "rejected at .* cannot be read"),
        ({"event": "dimse_recv", "association": 1, "at": "2000-01-01T12:00:00+00:00"}, "dimse_recv at .* be read"),
        ({"event": "pdu_recv", "association": 1, "at": "2000-01-01T12:00:00+00:00"}, "no bytes for pdu"),
        ({"association": 2, "at": "2000-01-01T12:00:00+00:00"}, "an association that cannot be read"),
        ({"association": 1, "at": "2000-01-01T12:00:00+00:00", "contexts": 5}, "an association that cannot be read"),
        ({"association": 7, "at": "2000-01-01T12:00:00+00:00", "over": True}, "an association that cannot be read"),
    ],
)
def test_damage_is_raised_and_the_streams_complete(recorded: Path, line: dict[str, Any], said: str):
    damaged = recorded.parent / "damaged"
    start = recorded.read_bytes().splitlines(keepends=True)[:3]
    damaged.write_bytes(b"".join(start) + encode_line(line))
    source = replay(damaged)
    seen, ends = released(source.events.all)
    with pytest.raises(InvalidRecording, match=said):
        source.run()
    assert (names([(each.name,) for each in seen]), ends) == (["CONN_OPEN"], ["completed"])


def test_damage_is_raised_on_the_scheduler(recorded: Path):
    damaged = recorded.parent / "damaged"
    start = recorded.read_bytes().splitlines(keepends=True)[:3]
    damaged.write_bytes(b"".join(start) + b"junk\n")
    source = replay(damaged)
    _, ends = released(source.events.all)
    with pytest.raises(InvalidRecording, match="damaged at byte"):
        source.start(ImmediateScheduler.singleton())
    assert ends == ["completed"]


def test_what_is_neither_a_recording_nor_a_capture_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"DICM")
    with pytest.raises(InvalidRecording, match="neither a recording nor a packet capture"):
        replay(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        replay(tmp_path / "nothing")
