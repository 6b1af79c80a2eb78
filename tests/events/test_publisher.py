"""The publisher: nothing for nobody, one record for all, the fields of each notice, delivery to every hub."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import fields_dict

from rxdicom import evt
from rxdicom.events import records
from rxdicom.events.hub import ASSOCIATIONS, Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind
from rxdicom.protocol.notices import Notice
from rxdicom.runtimes.publisher import Publisher
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.pdu import Abort, ReleaseRQ
from tests.support import DEADLINE

MESSAGE = Message({"CommandField": int(Command.C_ECHO_RQ), "MessageID": 1}, 1)
ADDRESS = ("192.0.2.1", 104)
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
VALUES: dict[Notice, dict[str, Any]] = {
    Notice.CONN_OPEN: {"address": ADDRESS},
    Notice.CONN_CLOSE: {"address": ADDRESS},
    Notice.DATA_RECV: {"data": b"received"},
    Notice.DATA_SENT: {"data": b"sent"},
    Notice.PDU_RECV: {"pdu": ReleaseRQ()},
    Notice.PDU_SENT: {"pdu": Abort(2, 1)},
    Notice.ACSE_RECV: {"primitive": ReleaseRQ()},
    Notice.ACSE_SENT: {"primitive": Abort(2, 1)},
    Notice.DIMSE_RECV: {"message": MESSAGE},
    Notice.DIMSE_SENT: {"message": MESSAGE},
    Notice.FSM_TRANSITION: {
        "current_state": "Sta6",
        "fsm_event": "Evt10",
        "action": "DT-2",
        "next_state": "Sta6",
    },
    Notice.REQUESTED: {},
    Notice.ACCEPTED: {},
    Notice.REJECTED: {"result": 1, "source": 2, "reason": 3},
    Notice.ESTABLISHED: {},
    Notice.RELEASED: {},
    Notice.ABORTED: {"source": 2, "reason": 6, "by": "local", "cause": "a bad length"},
}
"""Each notice that becomes an event, with the values that it carries in the order of its record."""


class Clock:
    """A wall clock that stands still and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> datetime:
        self.asked += 1
        return NOON


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hubs() -> tuple[Hub, Hub, Hub]:
    """Those of an association, its server and its AE."""
    return Hub(), Hub(), Hub()


def observe(hub: Hub, kind: EventKind[Any]) -> list[Any]:
    seen: list[Any] = []
    hub.subscribe(kind.number, seen.append)
    return seen


@pytest.mark.parametrize("kind", NOTIFICATION_KINDS, ids=lambda kind: kind.name)
def test_a_notice_becomes_the_record_of_its_kind(kind: EventKind[Any], hubs: tuple[Hub, ...], clock: Clock):
    notice = Notice(kind.number)
    association = object()
    publisher = Publisher(association, hubs, clock)
    seen = observe(hubs[0], kind)
    publisher.publish(notice, tuple(VALUES[notice].values()))
    assert seen == []
    assert publisher.deliver(DEADLINE)
    (event,) = seen
    assert type(event) is kind.record
    assert event.event is kind
    assert event.assoc is association
    assert event.timestamp is NOON
    own = {name: getattr(event, name) for name in fields_dict(kind.record) if name not in ("assoc", "timestamp")}
    assert own == VALUES[notice]


@pytest.mark.parametrize("notice", [Notice.REQUESTED, Notice.ACCEPTED])
def test_values_that_are_no_part_of_the_event_are_dropped(notice: Notice, hubs: tuple[Hub, ...]):
    publisher = Publisher(None, hubs)
    seen = observe(hubs[0], NOTIFICATION_KINDS[notice])
    publisher.publish(notice, ("the PDU",))
    assert publisher.deliver(DEADLINE)
    assert len(seen) == 1


def test_nothing_is_built_for_nobody(hubs: tuple[Hub, ...], clock: Clock):
    publisher = Publisher(None, hubs, clock)
    publisher.publish_all([(notice, tuple(values.values())) for notice, values in VALUES.items()])
    assert publisher.mask() == 0
    observe(hubs[1], evt.EVT_PDU_RECV)
    publisher.publish_all([(Notice.PDU_SENT, (ReleaseRQ(),)), (Notice.DATA_RECV, (b"x",))])
    assert clock.asked == 0
    publisher.publish_all([(Notice.PDU_RECV, (ReleaseRQ(),))])
    assert clock.asked == 1


def test_one_record_goes_to_all_who_are_interested(hubs: tuple[Hub, ...], clock: Clock):
    publisher = Publisher(None, hubs, clock)
    by_association, by_ae = observe(hubs[0], evt.EVT_PDU_RECV), observe(hubs[2], evt.EVT_PDU_RECV)
    by_server = observe(hubs[1], evt.EVT_PDU_SENT)
    publisher.publish(Notice.PDU_RECV, (ReleaseRQ(),))
    assert publisher.deliver(DEADLINE)
    assert by_server == []
    assert by_association[0] is by_ae[0]
    assert clock.asked == 1


def test_notices_for_the_runtime_are_no_events(hubs: tuple[Hub, ...], clock: Clock):
    """The number of the first of them is that of the channel of associations."""
    publisher = Publisher(None, hubs, clock)
    seen: list[Any] = []
    for channel in range(ASSOCIATIONS + 1):
        hubs[0].subscribe(channel, seen.append)
    for notice in Notice:
        if notice not in VALUES:
            publisher.publish(notice, ("something",))
    assert publisher.deliver(DEADLINE)
    assert (seen, clock.asked) == ([], 0)


def test_the_mask_is_what_anybody_observes(hubs: tuple[Hub, ...]):
    publisher = Publisher(None, hubs)
    observe(hubs[0], evt.EVT_PDU_RECV)
    observe(hubs[2], evt.EVT_ABORTED)
    assert publisher.mask() == 1 << Notice.PDU_RECV | 1 << Notice.ABORTED


def test_events_come_in_the_order_of_the_notices(hubs: tuple[Hub, ...]):
    publisher = Publisher(None, hubs)
    seen: list[records.Event] = []
    for kind in NOTIFICATION_KINDS:
        hubs[1].subscribe(kind.number, seen.append)
    publisher.publish_all([(notice, tuple(VALUES[notice].values())) for notice in reversed(VALUES)])
    assert publisher.deliver(DEADLINE)
    assert [event.event.number for event in seen] == [int(notice) for notice in reversed(VALUES)]


def test_by_default_the_wall_clock_is_asked(hubs: tuple[Hub, ...]):
    seen = observe(hubs[0], evt.EVT_RELEASED)
    publisher = Publisher(None, hubs)
    before = datetime.now(UTC)
    publisher.publish(Notice.RELEASED, ())
    assert publisher.deliver(DEADLINE)
    assert before <= seen[0].timestamp <= datetime.now(UTC)
    assert seen[0].timestamp.tzinfo is not None


@pytest.fixture
def stuck(hubs: tuple[Hub, Hub, Hub]) -> Iterator[threading.Event]:
    """An observer of the association and one of the server do not return before this is set."""
    leave, inside = threading.Event(), threading.Semaphore(0)

    def stop(_: object) -> None:
        inside.release()
        assert leave.wait(2 * DEADLINE)

    def emit(hub: Hub) -> None:
        hub.append(Notice.CONN_OPEN, None)
        hub.drain()

    threads = [threading.Thread(target=emit, args=(hub,), daemon=True) for hub in hubs[:2]]
    for hub, thread in zip(hubs, threads, strict=False):
        hub.subscribe(Notice.CONN_OPEN, stop)
        thread.start()
        assert inside.acquire(timeout=DEADLINE)
    yield leave
    leave.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_one_observer_that_does_not_return_is_waited_for_once(
    hubs: tuple[Hub, ...], stuck: threading.Event, caplog: pytest.LogCaptureFixture
):
    publisher = Publisher(None, hubs)
    seen = [observe(hub, evt.EVT_RELEASED) for hub in hubs]
    publisher.publish(Notice.RELEASED, ())
    assert not publisher.deliver(0.01)
    assert len(caplog.records) == 1
    assert [len(each) for each in seen] == [0, 0, 1]
    stuck.set()
    assert publisher.deliver(DEADLINE)
    assert [len(each) for each in seen] == [1, 1, 1]


def test_delivery_without_waiting(hubs: tuple[Hub, ...], stuck: threading.Event, caplog: pytest.LogCaptureFixture):
    publisher = Publisher(None, hubs)
    seen = [observe(hub, evt.EVT_RELEASED) for hub in hubs]
    publisher.publish(Notice.RELEASED, ())
    assert publisher.deliver(0)
    assert [len(each) for each in seen] == [0, 0, 1]
    assert caplog.records == []
    stuck.set()
    assert publisher.deliver(DEADLINE)
    assert [len(each) for each in seen] == [1, 1, 1]


def test_a_busy_observer_of_the_server_does_not_hold_up_who_has_nothing_for_it(
    hubs: tuple[Hub, ...], stuck: threading.Event
):
    publisher = Publisher(None, hubs)
    seen = observe(hubs[2], evt.EVT_RELEASED)
    publisher.publish(Notice.RELEASED, ())
    assert publisher.deliver(0.01)
    assert len(seen) == 1
    assert not stuck.is_set()
