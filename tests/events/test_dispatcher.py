"""The single-slot dispatcher and its defaults, and what ``bind`` and ``unbind`` do with both sorts of events."""

from typing import Any

import pytest
from attrs import define

from rxdicom import evt
from rxdicom.errors import ArgumentError
from rxdicom.events import records
from rxdicom.events.bindings import Bindings
from rxdicom.events.dispatcher import DEFAULTS, Dispatcher
from rxdicom.events.kinds import INTERVENTION_KINDS, NOTIFICATION_KINDS, EventKind
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import Encoded
from tests.support import DEADLINE

DATA = Encoded("1.2.840.10008.1.2", b"")
CONTEXT = records.EventContext(1, "1.2.3", "1.2.840.10008.1.2")
REQUEST = Message({"CommandField": int(Command.C_ECHO_RQ), "MessageID": 1}, 1, DATA)

NEGOTIATION: dict[EventKind[Any], records.Event] = {
    evt.EVT_ASYNC_OPS: records.AsyncOps(nr_invoked=5, nr_performed=5),
    evt.EVT_SOP_COMMON: records.SOPCommon(items={}),
    evt.EVT_SOP_EXTENDED: records.SOPExtended(app_info={"1.2": b"\1"}),
    evt.EVT_USER_ID: records.UserID(user_id_type=1, primary_field=b"someone"),
}
EVENTS = NEGOTIATION | {
    kind: kind.record(request=REQUEST, context=CONTEXT) for kind in INTERVENTION_KINDS if kind not in NEGOTIATION
}
"""An event of each intervention kind, built by hand."""
ANSWERS: dict[EventKind[Any], Any] = {
    evt.EVT_ASYNC_OPS: None,
    evt.EVT_SOP_COMMON: {},
    evt.EVT_SOP_EXTENDED: {},
    evt.EVT_USER_ID: (True, None),
    evt.EVT_C_ECHO: 0x0000,
    evt.EVT_C_STORE: 0xC211,
    evt.EVT_C_FIND: [(0xC311, None)],
    evt.EVT_C_GET: [(0xC411, None)],
    evt.EVT_C_MOVE: [(0xC511, None)],
    evt.EVT_N_ACTION: (0x0110, None),
    evt.EVT_N_CREATE: (0x0110, None),
    evt.EVT_N_DELETE: 0x0110,
    evt.EVT_N_EVENT_REPORT: (0x0110, None),
    evt.EVT_N_GET: (0x0110, None),
    evt.EVT_N_SET: (0x0110, None),
}
"""What the defaults of the design answer, in the shape that it asks of a handler."""
ITERABLE = (evt.EVT_C_FIND, evt.EVT_C_GET, evt.EVT_C_MOVE)
EVERY_INTERVENTION = pytest.mark.parametrize("kind", INTERVENTION_KINDS, ids=lambda kind: kind.name)


def answer(dispatcher: Dispatcher, kind: EventKind[Any]) -> Any:
    """What the bound handler makes of an event of ``kind``, iterables as lists."""
    result = dispatcher.call(EVENTS[kind])
    return list(result) if kind in ITERABLE else result


def mine(event: records.Event) -> Any:
    return ["mine", event.name]


def other(event: records.Event) -> Any:
    return ["other", event.name]


# ---- the dispatcher


@EVERY_INTERVENTION
def test_the_defaults_are_those_of_the_design(kind: EventKind[Any]):
    assert answer(Dispatcher(), kind) == ANSWERS[kind]
    assert not Dispatcher().is_bound(kind)


def test_there_is_a_default_for_each_intervention_and_nothing_else():
    assert DEFAULTS.keys() == set(INTERVENTION_KINDS)


@EVERY_INTERVENTION
def test_there_is_one_handler_at_all_times(kind: EventKind[Any]):
    dispatcher = Dispatcher()
    default = answer(dispatcher, kind)
    dispatcher.bind(kind, mine)
    assert answer(dispatcher, kind) == ["mine", kind.name]
    dispatcher.bind(kind, other)
    assert answer(dispatcher, kind) == ["other", kind.name]
    dispatcher.unbind(kind, mine)
    assert answer(dispatcher, kind) == ["other", kind.name]
    assert dispatcher.is_bound(kind)
    dispatcher.unbind(kind, other)
    assert answer(dispatcher, kind) == default
    assert not dispatcher.is_bound(kind)
    dispatcher.unbind(kind, other)
    assert answer(dispatcher, kind) == default


def test_kinds_do_not_touch_each_other():
    dispatcher = Dispatcher()
    dispatcher.bind(evt.EVT_C_ECHO, mine)
    for kind in INTERVENTION_KINDS:
        assert dispatcher.is_bound(kind) is (kind is evt.EVT_C_ECHO)


def test_further_arguments_follow_the_event():
    seen: list[Any] = []

    def handler(*arguments: Any) -> int:
        seen.extend(arguments)
        return 0

    dispatcher = Dispatcher()
    dispatcher.bind(evt.EVT_C_STORE, handler, ["folder", 7])
    assert dispatcher.call(EVENTS[evt.EVT_C_STORE]) == 0
    assert seen == [EVENTS[evt.EVT_C_STORE], "folder", 7]
    dispatcher.unbind(evt.EVT_C_STORE, handler)
    assert dispatcher.slot(evt.EVT_C_STORE) == (DEFAULTS[evt.EVT_C_STORE], ())


def test_an_association_falls_back_on_its_server():
    server = Dispatcher()
    association = Dispatcher(server)
    sibling = Dispatcher(server)
    kind = evt.EVT_C_STORE
    server.bind(kind, mine)
    assert answer(association, kind) == ["mine", kind.name]
    assert association.is_bound(kind)
    association.bind(kind, other)
    assert answer(association, kind) == ["other", kind.name]
    assert answer(sibling, kind) == ["mine", kind.name]
    server.unbind(kind, mine)
    assert answer(sibling, kind) == 0xC211
    assert answer(association, kind) == ["other", kind.name]


def test_unbinding_restores_the_default_even_above_a_servers_handler():
    server = Dispatcher()
    association = Dispatcher(server)
    kind = evt.EVT_C_STORE
    server.bind(kind, mine)
    association.unbind(kind, other)
    assert answer(association, kind) == ["mine", kind.name]
    association.unbind(kind, mine)
    assert answer(association, kind) == 0xC211
    assert answer(Dispatcher(server), kind) == ["mine", kind.name]
    association.bind(kind, other)
    association.unbind(kind, other)
    assert answer(association, kind) == 0xC211


def test_what_a_handler_raises_comes_through():
    def failing(event: records.Event) -> int:
        raise LookupError(event.name)

    dispatcher = Dispatcher()
    dispatcher.bind(evt.EVT_C_ECHO, failing)
    with pytest.raises(LookupError, match="EVT_C_ECHO"):
        dispatcher.call(EVENTS[evt.EVT_C_ECHO])


@pytest.mark.parametrize("kind", NOTIFICATION_KINDS, ids=lambda kind: kind.name)
def test_a_notification_has_no_slot(kind: EventKind[Any]):
    with pytest.raises(ArgumentError, match="not an intervention"):
        Dispatcher().bind(kind, mine)


# ---- bind and unbind


def emit(bindings: Bindings, value: Any, kind: EventKind[Any] = evt.EVT_PDU_RECV) -> None:
    bindings.hub.append(kind.number, value)
    assert bindings.hub.drain(DEADLINE)


class Receiver:
    """Its methods are other objects each time they are looked up, and equal nevertheless."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def method(self, *arguments: Any) -> None:
        self.seen.append(arguments)


@define
class Unhashable:
    """What can be called need not be hashable: an object with an equality of its own is not."""

    seen: list[Any]

    def __call__(self, event: Any) -> None:
        self.seen.append(event)


def test_a_notification_takes_any_number_of_handlers_each_once():
    bindings = Bindings()
    first, second = Receiver(), Receiver()
    bindings.bind(evt.EVT_PDU_RECV, first.method)
    bindings.bind(evt.EVT_PDU_RECV, first.method)
    bindings.bind(evt.EVT_PDU_RECV, second.method)
    bindings.bind(evt.EVT_PDU_SENT, first.method)
    emit(bindings, "received")
    assert first.seen == second.seen == [("received",)]
    emit(bindings, "sent", evt.EVT_PDU_SENT)
    assert first.seen == [("received",), ("sent",)]
    bindings.unbind(evt.EVT_PDU_RECV, first.method)
    bindings.unbind(evt.EVT_PDU_RECV, first.method)
    emit(bindings, "again")
    emit(bindings, "sent again", evt.EVT_PDU_SENT)
    assert second.seen == [("received",), ("again",)]
    assert first.seen == [("received",), ("sent",), ("sent again",)]
    bindings.unbind(evt.EVT_PDU_RECV, second.method)
    bindings.unbind(evt.EVT_PDU_SENT, first.method)
    assert bindings.hub.mask == 0
    bindings.bind(evt.EVT_PDU_RECV, first.method)
    emit(bindings, "anew")
    assert first.seen[-1] == ("anew",)


def test_an_unhashable_handler_can_be_bound():
    bindings = Bindings()
    first, second = Unhashable([]), Unhashable(["differs"])
    for handler in (first, second):
        bindings.bind(evt.EVT_PDU_RECV, handler)
        bindings.bind(evt.EVT_C_ECHO, handler)
    bindings.unbind(evt.EVT_PDU_RECV, second)
    emit(bindings, 1)
    assert (first.seen, second.seen) == ([1], ["differs"])


def test_a_notification_handler_gets_its_further_arguments():
    bindings = Bindings()
    receiver = Receiver()
    bindings.bind(evt.EVT_PDU_RECV, receiver.method, ["log", 3])
    emit(bindings, "event")
    bindings.unbind(evt.EVT_PDU_RECV, receiver.method)
    emit(bindings, "event")
    assert receiver.seen == [("event", "log", 3)]


def test_interventions_go_to_the_dispatcher_and_notifications_to_the_hub():
    bindings = Bindings()
    bindings.bind(evt.EVT_C_ECHO, mine)
    assert bindings.hub.mask == 0
    assert answer(bindings.dispatcher, evt.EVT_C_ECHO) == ["mine", "EVT_C_ECHO"]
    bindings.unbind(evt.EVT_C_ECHO, other)
    assert bindings.dispatcher.is_bound(evt.EVT_C_ECHO)
    bindings.unbind(evt.EVT_C_ECHO, mine)
    assert not bindings.dispatcher.is_bound(evt.EVT_C_ECHO)


def test_bindings_of_an_association_know_those_of_its_server():
    server = Bindings()
    association = Bindings(server.dispatcher)
    server.bind(evt.EVT_C_STORE, mine)
    assert association.dispatcher.is_bound(evt.EVT_C_STORE)
    assert association.hub is not server.hub


def test_handlers_come_as_pairs_or_with_further_arguments():
    bindings = Bindings()
    receiver = Receiver()

    def arguments_of(_: records.Event, *arguments: Any) -> Any:
        return arguments

    bindings.bind_all(None)
    bindings.bind_all([])
    bindings.bind_all(
        [
            (evt.EVT_PDU_RECV, receiver.method),
            (evt.EVT_PDU_SENT, receiver.method, ["sent"]),
            (evt.EVT_C_ECHO, arguments_of, ["a", "b"]),
            (evt.EVT_N_GET, mine, []),
        ]
    )
    emit(bindings, 1)
    emit(bindings, 2, evt.EVT_PDU_SENT)
    assert receiver.seen == [(1,), (2, "sent")]
    assert answer(bindings.dispatcher, evt.EVT_C_ECHO) == ("a", "b")
    assert answer(bindings.dispatcher, evt.EVT_N_GET) == ["mine", "EVT_N_GET"]


@pytest.mark.parametrize("kind", [evt.EVT_PDU_RECV, evt.EVT_C_STORE])
@pytest.mark.parametrize("handler", [None, 0x0000, "on_store", (mine,)])
def test_what_cannot_be_called_is_refused(kind: EventKind[Any], handler: Any):
    bindings = Bindings()
    with pytest.raises(ArgumentError, match="cannot be called"):
        bindings.bind(kind, handler)
    assert bindings.hub.mask == 0
    assert not bindings.dispatcher.is_bound(evt.EVT_C_STORE)


@pytest.mark.parametrize("kind", ["EVT_C_STORE", None, mine])
def test_what_is_no_kind_is_refused(kind: Any):
    with pytest.raises(ArgumentError, match=r"evt\.EVT_"):
        Bindings().bind(kind, mine)


@pytest.mark.parametrize("row", [(evt.EVT_C_ECHO,), (evt.EVT_C_ECHO, mine, [], []), ()])
def test_a_row_of_another_length_is_refused(row: Any):
    with pytest.raises(ArgumentError, match="further arguments"):
        Bindings().bind_all([row])
