"""The streams: an Observable per kind, subscribers and operators that raise, completion, types."""

import ast
import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import pytest
import reactivex
from reactivex import ConnectableObservable, Observable, Observer, Subject
from reactivex import operators as ops

from rxdicom import AE, Association, aio, evt
from rxdicom.events import records, streams
from rxdicom.events.hub import ASSOCIATIONS, Hub
from rxdicom.events.kinds import INTERVENTION_KINDS, NOTIFICATION_KINDS, EventKind
from rxdicom.events.streams import EventStreams, association_stream
from rxdicom.recording import RecordedAssociation, record, replay
from rxdicom.sop_class import Verification
from rxdicom.testing import pair
from tests.support import DEADLINE

KIND = evt.EVT_FSM_TRANSITION
EVERY_BIT = (1 << len(NOTIFICATION_KINDS)) - 1


class Emitter:
    """A hub with its streams; what it emits are plain values, since streams do not look at them."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.events = EventStreams(self.hub)
        self.stream: Observable[Any] = self.events[KIND]

    def __call__(self, *values: Any, kind: EventKind[Any] = KIND) -> None:
        for value in values:
            self.hub.append(kind.number, value)
        assert self.hub.drain(DEADLINE)

    def complete(self) -> None:
        self.hub.complete()
        assert self.hub.drain(DEADLINE)


@pytest.fixture
def emit() -> Emitter:
    return Emitter()


def unlucky(value: Any) -> None:
    raise LookupError(f"at {value}")


def twice(value: int) -> int:
    return 2 * value


def inverse(value: int) -> float:
    return 1 / value


@pytest.mark.parametrize("kind", NOTIFICATION_KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_its_stream_by_name_and_by_kind(emit: Emitter, kind: EventKind[Any]):
    by_name: list[str] = []
    by_kind: list[str] = []
    getattr(emit.events, kind.name.removeprefix("EVT_").lower()).subscribe(by_name.append)
    emit.events[kind].subscribe(by_kind.append)
    for each in NOTIFICATION_KINDS:
        emit(each.name, kind=each)
    assert by_name == by_kind == [kind.name]


@pytest.mark.parametrize("kind", INTERVENTION_KINDS, ids=lambda kind: kind.name)
def test_interventions_have_no_stream(emit: Emitter, kind: EventKind[Any]):
    with pytest.raises(KeyError, match="bind a handler"):
        emit.events[kind]
    assert not hasattr(emit.events, kind.name.removeprefix("EVT_").lower())


def test_operators_compose_and_unsubscribing_frees_the_hub(emit: Emitter):
    seen: list[int] = []
    even: Observable[int] = emit.stream.pipe(ops.filter(lambda value: value % 2 == 0), ops.map(twice), ops.take(2))
    assert emit.hub.mask == 0
    even.subscribe(seen.append)
    assert emit.hub.mask == 1 << KIND.number
    emit(*range(10))
    assert seen == [0, 4]
    assert emit.hub.mask == 0


def test_dispose_stops_a_subscription_even_from_within(emit: Emitter):
    seen: list[int] = []
    held: list[Any] = []

    def stop_at_two(value: int) -> None:
        seen.append(value)
        if value == 2:
            held[0].dispose()

    held.append(emit.stream.subscribe(stop_at_two))
    emit(1, 2, 3)
    assert seen == [1, 2]
    assert emit.hub.mask == 0


def test_streams_are_hot(emit: Emitter):
    emit(1)
    seen: list[int] = []
    emit.stream.subscribe(seen.append)
    emit(2)
    assert seen == [2]


# ---- subscribers that raise


class Unlucky(Observer[Any]):
    """An observer object, not derived from callbacks, that notes and then raises."""

    def __init__(self, calls: list[Any]) -> None:
        super().__init__()
        self._calls = calls

    def _on_next_core(self, value: Any) -> None:
        self._calls.append(value)
        unlucky(value)


def _direct(stream: Observable[Any]) -> Observable[Any]:
    return stream


def _piped(stream: Observable[Any]) -> Observable[Any]:
    return stream.pipe(ops.map(twice), ops.filter(bool))


def _fluent(stream: Observable[Any]) -> Observable[Any]:
    return stream.map(twice).filter(bool)


def _shared(stream: Observable[Any]) -> Observable[Any]:
    return stream.pipe(ops.map(twice), ops.share())


def _fluently_shared(stream: Observable[Any]) -> Observable[Any]:
    return stream.map(twice).publish().ref_count()


def _connected(stream: Observable[Any]) -> Observable[Any]:
    connectable: ConnectableObservable[Any] = stream.pipe(ops.publish())
    assert isinstance(connectable, ConnectableObservable)
    connectable.connect()
    return connectable.pipe(ops.map(twice))


def _auto_connected(stream: Observable[Any]) -> Observable[Any]:
    connectable: ConnectableObservable[Any] = stream.pipe(ops.publish())
    return connectable.auto_connect().pipe(ops.map(twice))


def _partitioned(stream: Observable[Any]) -> Observable[Any]:
    return stream.pipe(ops.partition(bool))[0]


def _merged(stream: Observable[Any]) -> Observable[Any]:
    return stream.pipe(ops.merge(reactivex.never()))


@pytest.mark.parametrize(
    "shape",
    [
        _direct,
        _piped,
        _fluent,
        _shared,
        _fluently_shared,
        _connected,
        _auto_connected,
        _partitioned,
        _merged,
    ],
)
@pytest.mark.parametrize("as_object", [False, True], ids=["callback", "observer"])
def test_a_subscriber_that_raises_is_logged_and_stays_and_nobody_else_notices(
    emit: Emitter,
    caplog: pytest.LogCaptureFixture,
    shape: Callable[[Observable[Any]], Observable[Any]],
    as_object: bool,
):
    calls: list[int] = []
    others: list[int] = []

    def note_and_raise(value: int) -> None:
        calls.append(value)
        unlucky(value)

    end = shape(emit.stream)
    end.subscribe(Unlucky(calls) if as_object else note_and_raise)
    end.subscribe(others.append)
    emit(1, 2, 3)
    assert len(calls) == 3
    assert others == calls
    assert caplog.text.count("LookupError at ") == 3
    assert caplog.text.count("Traceback") == 3
    emit.complete()


def test_a_bridge_to_a_subject_survives_its_subscribers(emit: Emitter, caplog: pytest.LogCaptureFixture):
    subject = Subject[int]()
    subject.subscribe(unlucky)
    emit.stream.subscribe(subject)
    direct: list[int] = []
    emit.stream.subscribe(direct.append)
    emit(1, 2)
    assert direct == [1, 2]
    assert "LookupError at " in caplog.text


def test_a_raising_completion_is_logged_and_the_others_are_completed(emit: Emitter, caplog: pytest.LogCaptureFixture):
    over: list[str] = []

    def fail() -> None:
        raise LookupError("at the end")

    emit.stream.subscribe(on_completed=fail)
    emit.stream.pipe(ops.map(twice)).subscribe(on_completed=fail)
    emit.stream.subscribe(on_completed=lambda: over.append("over"))
    emit.complete()
    assert over == ["over"]
    assert caplog.text.count("LookupError at ") == 2


# ---- operators that raise


def test_an_operator_that_raises_ends_its_own_pipeline_only(emit: Emitter, caplog: pytest.LogCaptureFixture):
    inverses: list[float] = []
    errors: list[Exception] = []
    plain: list[int] = []
    emit.stream.pipe(ops.map(inverse)).subscribe(inverses.append, errors.append)
    emit.stream.subscribe(plain.append)
    emit(1, 0, 2)
    assert inverses == [1.0]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert plain == [1, 0, 2]
    assert caplog.text == ""
    emit.complete()
    assert len(errors) == 1


def test_without_on_error_it_is_logged(emit: Emitter, caplog: pytest.LogCaptureFixture):
    inverses: list[float] = []
    plain: list[int] = []
    emit.stream.pipe(ops.map(inverse)).subscribe(inverses.append)
    emit.stream.subscribe(plain.append)
    emit(1, 0, 2)
    assert inverses == [1.0]
    assert plain == [1, 0, 2]
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_the_bit_of_an_ended_pipeline_goes_out(emit: Emitter):
    emit.stream.pipe(ops.map(inverse)).subscribe(on_error=lambda _: None)
    assert emit.hub.mask == 1 << KIND.number
    emit(0)
    assert emit.hub.mask == 0


# ---- completion


def test_completion_reaches_every_end_once(emit: Emitter):
    seen: list[str] = []

    def subscribe(name: str, stream: Observable[Any]) -> None:
        stream.subscribe(
            lambda value: seen.append(f"{name} {value}"),
            lambda error: seen.append(f"{name} failed: {error}"),
            lambda: seen.append(f"{name} over"),
        )

    ends = {
        "direct": emit.stream,
        "piped": emit.stream.pipe(ops.map(twice)),
        "last": emit.stream.pipe(ops.last()),
        "all": emit.events.all,
    }
    for name, stream in ends.items():
        subscribe(name, stream)
    emit(1)
    emit.complete()
    emit(2)
    emit.complete()
    assert sorted(seen) == sorted(
        ["direct 1", "piped 2", "all 1", "last 1", "direct over", "piped over", "all over", "last over"]
    )
    seen.clear()
    for name in ("direct", "piped", "all"):
        subscribe(f"late {name}", ends[name])
    assert seen == ["late direct over", "late piped over", "late all over"]
    emit(3)
    assert len(seen) == 3
    assert emit.hub.mask == 0


# ---- the merged ones


def test_all_gives_every_kind_in_the_order_of_the_wire(emit: Emitter):
    seen: list[str] = []
    subscription = emit.events.all.subscribe(lambda event: seen.append(str(event)))
    assert emit.hub.mask == EVERY_BIT
    order = [*NOTIFICATION_KINDS, *reversed(NOTIFICATION_KINDS)]
    for kind in order:
        emit.hub.append(kind.number, kind.name)
    emit.hub.append(ASSOCIATIONS, "an association")
    emit.hub.drain()
    assert seen == [kind.name for kind in order]
    subscription.dispose()
    assert emit.hub.mask == 0


def test_associations_have_a_stream_of_their_own(emit: Emitter):
    seen: list[str] = []
    over: list[bool] = []
    association_stream(emit.hub).subscribe(seen.append, on_completed=lambda: over.append(True))
    emit("no association")
    emit.hub.append(ASSOCIATIONS, "one")
    emit.complete()
    assert seen == ["one"]
    assert over == [True]


@pytest.mark.usefixtures("restless")
def test_many_threads_never_make_two_on_next_at_once(emit: Emitter):
    """Every subscription to a server's stream, and a pipeline over several kinds, keeps the Rx grammar."""
    busy = threading.Lock()
    seen: list[tuple[int, int]] = []
    overlaps: list[object] = []

    def observe(value: Any) -> None:
        if not busy.acquire(blocking=False):
            overlaps.append(value)
            return
        seen.append((*value,))
        busy.release()

    emit.events.all.pipe(ops.filter(bool)).subscribe(observe)
    start = threading.Barrier(8)
    kinds = NOTIFICATION_KINDS[:8]

    def work(thread: int) -> None:
        start.wait(DEADLINE)
        for number in range(300):
            emit((thread, number), kind=kinds[(thread + number) % 8])

    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert overlaps == []
    for thread in range(8):
        assert [number for who, number in seen if who == thread] == list(range(300))


# ---- types, which pyright checks


def test_streams_are_typed_by_their_kind(emit: Emitter):
    events = emit.events
    assert_type(events[evt.EVT_PDU_RECV], Observable[records.PDUReceived])
    assert_type(events.pdu_recv, Observable[records.PDUReceived])
    assert_type(events[evt.EVT_CONN_OPEN], Observable[records.ConnectionOpened])
    assert_type(events[evt.EVT_ABORTED], Observable[records.Aborted])
    assert_type(events.fsm_transition, Observable[records.FSMTransition])
    assert_type(events.all, Observable[records.Event])
    assert_type(evt.EVT_C_STORE, EventKind[records.CStore])
    assert_type(evt.EVT_C_STORE.record, type[records.CStore])
    assert_type(events.pdu_recv.pipe(ops.map(_length)), Observable[int])


def test_streams_are_typed_wherever_there_are_some(tmp_path: Path):
    """Of associations, servers and AEs of every runtime, of the testing kit, and of recordings."""
    ae = AE()
    ae.add_requested_context(Verification)
    ae.add_supported_context(Verification)
    assert_type(ae.events.pdu_recv, Observable[records.PDUReceived])
    assert_type(ae.association("192.0.2.1", 104).events.dimse_sent, Observable[records.DIMSESent])
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        assert_type(server.events.pdu_sent, Observable[records.PDUSent])
        assert_type(server.events[evt.EVT_REJECTED], Observable[records.Rejected])
        assert_type(server.associations, Observable[Association])
        recorder = record(server, tmp_path / "r")
    recorder.close()
    both = pair(ae, ae)
    assert_type(both.requestor.events.acse_recv, Observable[records.ACSEReceived])
    assert_type(both.server.events.conn_open, Observable[records.ConnectionOpened])
    recording = replay(tmp_path / "r")
    assert_type(recording.events.dimse_recv, Observable[records.DIMSEReceived])
    assert_type(recording.associations, Observable[RecordedAssociation])


def test_streams_of_asyncio_are_typed():
    async def streams() -> None:
        ae = aio.AE()
        ae.add_requested_context(Verification)
        ae.add_supported_context(Verification)
        assert_type(ae.events.aborted, Observable[records.Aborted])
        assert_type(ae.association("192.0.2.1", 104).events.pdu_recv, Observable[records.PDUReceived])
        async with ae.start_server(("127.0.0.1", 0)) as server:
            assert_type(server.events.data_recv, Observable[records.DataReceived])
            assert_type(server.associations, Observable[aio.Association])

    asyncio.run(streams())


def test_every_stream_is_declared_with_the_record_of_its_kind():
    """They are declared for type checkers only, so that nothing else would notice a wrong one."""
    nodes = ast.walk(ast.parse(Path(streams.__file__).read_text()))
    declared = {
        ast.unparse(node.target): ast.unparse(node.annotation) for node in nodes if isinstance(node, ast.AnnAssign)
    }
    for kind in NOTIFICATION_KINDS:
        assert declared[kind.stream_name] == f"Observable[records.{kind.record.__name__}]"


def _length(event: records.PDUReceived) -> int:
    return len(repr(event.pdu))
