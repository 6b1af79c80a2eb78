"""Sixteen threads that emit, subscribe, unsubscribe and raise at random: what stays subscribed misses nothing.

A survivor is subscribed from the beginning to the end. It must get every event once, those of each thread in their
order, never two at once, and one completion behind them; whatever comes and goes beside it.
"""

import logging
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import SerialDisposable

from rxdicom import AE, evt
from rxdicom.events.hub import ASSOCIATIONS, Hub
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import DIMSEReceived, Event
from rxdicom.events.streams import EventStreams, association_stream
from rxdicom.operators import activity, buffered, of_message
from rxdicom.sop_class import Verification
from rxdicom.wire.dimse import Command
from tests.support import DEADLINE

THREADS = 16
EVENTS = 100
ECHOES = 20
MOST_LEFT = 2 * THREADS
"""Subscriptions beside the survivors at a time, about."""
KINDS: tuple[EventKind[Any], ...] = (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_ESTABLISHED, evt.EVT_RELEASED)

pytestmark = pytest.mark.usefixtures("restless")


class Survivor:
    """Notes (whose, number), whether it was ever called by two threads at once, and how it ended."""

    def __init__(self, name: str, stream: Observable[Any], key: Callable[[Any], tuple[Any, int]]) -> None:
        self.name = name
        self.seen: defaultdict[Any, list[int]] = defaultdict(list)
        self.overlaps = 0
        self.endings: list[str] = []
        self.ended = threading.Event()
        self._key = key
        self._busy = threading.Lock()
        stream.subscribe(self._on_next, lambda error: self._end(repr(error)), lambda: self._end("completed"))

    def _on_next(self, value: Any) -> None:
        if not self._busy.acquire(blocking=False):
            self.overlaps += 1
            return
        whose, number = self._key(value)
        self.seen[whose].append(number)
        self._busy.release()

    def _end(self, how: str) -> None:
        self.endings.append(how)
        self.ended.set()

    def check(self, expected: list[int], *, completed: bool = True) -> None:
        assert self.ended.wait(DEADLINE if completed else 0) == completed, self.name
        assert (self.name, self.overlaps, self.endings) == (self.name, 0, ["completed"] * completed)
        assert (self.name, [*self.seen.values()]) == (self.name, [expected] * THREADS)


class Chaos:
    """Subscriptions that come and go, of all shapes; some raise. They are anybody's to dispose of."""

    def __init__(self, seed: int, left: list[abc.DisposableBase]) -> None:
        self._chance = random.Random(seed)
        self._left = left
        self.raised = Counter[str]()

    def stir(self, stream: Observable[Any]) -> None:
        """Subscribe to it, and leave something, perhaps what another thread has subscribed to."""
        make = self._chance.choice((self._plain, self._raising, self._failing, self._taking, self._leaving))
        self._left.append(make(stream))
        while len(self._left) > self._chance.randrange(MOST_LEFT):
            # Another thread may be faster.
            with suppress(IndexError, ValueError):
                self._left.pop(self._chance.randrange(len(self._left))).dispose()

    def _plain(self, stream: Observable[Any]) -> abc.DisposableBase:
        return stream.pipe(ops.map(id), ops.filter(bool)).subscribe(ignore)

    def _raising(self, stream: Observable[Any]) -> abc.DisposableBase:
        def observe(value: Any) -> None:
            self.raised["observer"] += 1
            raise LookupError(value)

        return stream.subscribe(observe)

    def _failing(self, stream: Observable[Any]) -> abc.DisposableBase:
        def convert(value: Any) -> int:
            self.raised["operator"] += 1
            raise LookupError(value)

        return stream.pipe(ops.map(convert)).subscribe(on_error=lambda _: None)

    def _taking(self, stream: Observable[Any]) -> abc.DisposableBase:
        return stream.pipe(ops.take(self._chance.randrange(1, 4))).subscribe(ignore)

    def _leaving(self, stream: Observable[Any]) -> abc.DisposableBase:
        """It leaves from inside its observer, and subscribes anew there."""

        def observe(value: Any) -> None:
            del value
            made[0].dispose()
            self._left.append(stream.pipe(ops.skip(1)).subscribe(ignore))

        made = [SerialDisposable()]
        made[0].disposable = stream.subscribe(observe)
        return made[0]


def ignore(value: Any) -> None:
    del value


@contextmanager
def quiet(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Thousands of tracebacks would be most of the work."""
    with caplog.at_level(logging.CRITICAL, "rxdicom"):
        yield


def at_once(work: Callable[[int], None]) -> None:
    """The same in all threads, and all of them come to their end."""
    start = threading.Barrier(THREADS)
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(DEADLINE)
            work(number)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
    assert not [thread.name for thread in threads if thread.is_alive()], "they are locked out"
    assert failed == []


# ---- hubs


class Owner:
    """What has event streams: a hub and the streams of it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.events = EventStreams(self.hub)

    def over(self) -> None:
        self.hub.complete()
        assert self.hub.drain(DEADLINE)


def emit(hubs: tuple[Hub, ...], kind: EventKind[Any], value: Any) -> None:
    """As an association does it: into all hubs, then each is drained."""
    for hub in hubs:
        if hub.mask >> kind.number & 1:
            hub.append(kind.number, value)
    for hub in hubs:
        assert hub.drain(DEADLINE)


def pair_of(value: Any) -> tuple[Any, int]:
    return value


def test_hubs_under_load(caplog: pytest.LogCaptureFixture):
    """Associations of two servers of one AE, as many as threads."""
    associations = [Owner() for _ in range(THREADS)]
    servers, ae = [Owner(), Owner()], Owner()
    announced = Hub()
    survivors = [
        Survivor("all of the AE", ae.events.all, pair_of),
        Survivor("the activity of the AE", activity(ae.events), pair_of),
        Survivor("both servers", reactivex.merge(*(each.events.all for each in servers)), pair_of),
        Survivor("both servers by way of a subject", servers_shared(servers), pair_of),
        Survivor("each association", association_stream(announced).pipe(ops.flat_map(everything_of)), pair_of),
        Survivor("behind a buffer", activity(ae.events).pipe(buffered(THREADS * EVENTS)), pair_of),
    ]
    for each in associations:
        announced.append(ASSOCIATIONS, each)
    announced.complete()
    announced.drain()
    left: list[abc.DisposableBase] = []
    chaos = [Chaos(number, left) for number in range(THREADS)]

    def work(number: int) -> None:
        mine, server, chance = associations[number], servers[number % 2], random.Random(number)
        hubs = (mine.hub, server.hub, ae.hub)
        for event in range(EVENTS):
            chosen = chance.choice((mine, server, ae, associations[chance.randrange(THREADS)])).events
            chaos[number].stir(chance.choice((chosen.all, activity(chosen), chosen[chance.choice(KINDS)])))
            emit(hubs, chance.choice(KINDS), (number, event))
        mine.over()

    with quiet(caplog):
        at_once(work)
        for each in (*servers, ae):
            each.over()
    for survivor in survivors:
        survivor.check([*range(EVENTS)])
    raised = sum((each.raised for each in chaos), Counter[str]())
    assert raised["observer"] > THREADS
    assert raised["operator"] > THREADS
    assert [each.hub.mask for each in (*associations, *servers, ae)] == [0] * (THREADS + 3)


def servers_shared(servers: list[Owner]) -> Observable[Any]:
    return reactivex.merge(*(activity(each.events) for each in servers)).pipe(ops.share())


def everything_of(owner: Owner) -> Observable[Event]:
    return owner.events.all


# ---- a server


def test_a_server_under_load(caplog: pytest.LogCaptureFixture):
    """Real associations, over sockets: each thread requests one, and echoes while observers come and go."""
    ae = AE("ME")
    ae.maximum_associations = THREADS
    ae.add_requested_context(Verification)
    ae.add_supported_context(Verification)
    left: list[abc.DisposableBase] = []
    chaos = [Chaos(number, left) for number in range(THREADS)]
    requests = of_message(Command.C_ECHO_RQ)
    with quiet(caplog), ae.start_server(("127.0.0.1", 0), block=False) as server:
        survivors = [
            Survivor("the server's messages", server.events.dimse_recv.pipe(requests), message_of),
            Survivor("the server's activity", activity(server.events).pipe(ops.filter(is_request)), message_of),
            Survivor("everything of the server", server.events.all.pipe(ops.filter(is_request)), message_of),
            Survivor("each association", server.associations.pipe(ops.flat_map(requests_of)), message_of),
            Survivor("behind a buffer", server.events.dimse_recv.pipe(requests, buffered(10_000)), message_of),
        ]
        mine = Survivor("the AE's own requests", ae.events.dimse_sent.pipe(requests), message_of)

        def work(number: int) -> None:
            chance = random.Random(number)
            with ae.associate(*server.address) as assoc:
                for echo in range(ECHOES):
                    events = chance.choice((assoc, server, ae)).events
                    chaos[number].stir(chance.choice((events.all, activity(events), events.dimse_recv)))
                    assert assoc.send_c_echo(msg_id=echo + 1) == 0x0000
            assert assoc.is_released

        at_once(work)
    ae.shutdown()
    for survivor in survivors:
        survivor.check([*range(1, ECHOES + 1)])
    # An AE can be used again: its streams are not over.
    mine.check([*range(1, ECHOES + 1)], completed=False)
    raised = sum((each.raised for each in chaos), Counter[str]())
    assert raised["observer"] > THREADS
    assert raised["operator"] > THREADS


def message_of(event: DIMSEReceived) -> tuple[Any, int]:
    return event.assoc, event.message.MessageID or 0


def is_request(event: Event) -> bool:
    return isinstance(event, DIMSEReceived) and event.message.CommandField == Command.C_ECHO_RQ


def requests_of(assoc: Any) -> Observable[DIMSEReceived]:
    return assoc.events.dimse_recv.pipe(of_message(Command.C_ECHO_RQ))
