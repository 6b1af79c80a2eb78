"""The kinds: exactly those of the user's document and of the design, with their words, in the order of the wire."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

from rxdicom import evt
from rxdicom.events import kinds, records
from rxdicom.events.kinds import INTERVENTION_KINDS, NOTIFICATION_KINDS, EventKind
from rxdicom.protocol.notices import Notice

SPECIFIED = {
    "EVT_ABORTED": "Association aborted",
    "EVT_ACCEPTED": "Association accepted",
    "EVT_ACSE_RECV": "ACSE received a primitive from the DUL service provider",
    "EVT_ACSE_SENT": "ACSE sent a primitive to the DUL service provider",
    "EVT_CONN_CLOSE": "Connection with remote closed",
    "EVT_CONN_OPEN": "Connection with remote opened",
    "EVT_DATA_RECV": "Data received from the peer AE",
    "EVT_DATA_SENT": "Data sent to the peer AE",
    "EVT_DIMSE_RECV": "DIMSE service received and decoded a message",
    "EVT_DIMSE_SENT": "DIMSE service encoded and sent a message",
    "EVT_ESTABLISHED": "Association established",
    "EVT_FSM_TRANSITION": "State machine transitioning",
    "EVT_PDU_RECV": "PDU received from the peer AE",
    "EVT_PDU_SENT": "PDU sent to the peer AE",
    "EVT_REJECTED": "Association rejected",
    "EVT_RELEASED": "Association released",
    "EVT_REQUESTED": "Association requested",
    "EVT_ASYNC_OPS": "Association request includes Asynchronous Operations Window negotiation item",
    "EVT_SOP_COMMON": "Association request includes SOP Class Common Extended negotiation item(s)",
    "EVT_SOP_EXTENDED": "Association request includes SOP Class Extended negotiation item(s)",
    "EVT_USER_ID": "Association request includes User Identity negotiation item",
    "EVT_C_ECHO": "Service class received C-ECHO request",
    "EVT_C_FIND": "Service class received C-FIND request",
    "EVT_C_GET": "Service class received C-GET request",
    "EVT_C_MOVE": "Service class received C-MOVE request",
    "EVT_C_STORE": "Service class received C-STORE request",
    "EVT_N_GET": "Service class received N-GET request",
}
"""The events of the document that the user handed over."""
DESIGNED = {
    f"EVT_N_{service}": f"Service class received N-{service.replace('_', '-')} request"
    for service in ("ACTION", "CREATE", "DELETE", "EVENT_REPORT", "SET")
}
"""Those that the design adds, in the same words."""
EVERY_KIND = (*NOTIFICATION_KINDS, *INTERVENTION_KINDS)


def test_the_kinds_are_the_specified_and_designed_ones_and_no_others():
    expected = SPECIFIED | DESIGNED
    assert {kind.name: kind.description for kind in EVERY_KIND} == expected
    assert {name for name in dir(evt) if name.startswith("EVT_")} == expected.keys()
    assert len(NOTIFICATION_KINDS) == 17
    assert len(INTERVENTION_KINDS) == 15


def test_notifications_and_interventions_are_told_apart():
    interventions = set(list(SPECIFIED)[17:]) | DESIGNED.keys()
    for kind in EVERY_KIND:
        assert kind.is_intervention is (kind.name in interventions)
        assert kind.is_notification is not kind.is_intervention


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)
def test_a_constant_is_its_kind(kind: EventKind[Any]):
    assert getattr(evt, kind.name) is kind
    assert getattr(kinds, kind.name) is kind
    assert repr(kind) == f"evt.{kind.name}"
    assert kind.stream_name == kind.name[4:].lower()
    assert kind.name in evt.__all__
    assert isinstance(kind, evt.EventKind)


def test_notification_kinds_are_in_the_order_of_the_notices():
    for kind in NOTIFICATION_KINDS:
        assert Notice(kind.number).name == kind.name.removeprefix("EVT_")
    assert [kind.number for kind in EVERY_KIND] == list(range(32))


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)
def test_each_kind_has_its_own_record_class(kind: EventKind[Any]):
    assert issubclass(kind.record, records.Event)
    assert kind.record.event is kind
    assert kinds.__annotations__[kind.name] == f"EventKind[records.{kind.record.__name__}]"


def test_no_two_kinds_share_a_record_class():
    assert len({kind.record for kind in EVERY_KIND}) == 32


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)
def test_copies_and_pickles_are_the_constant_itself(kind: EventKind[Any]):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(kind, protocol)) is kind
    assert copy.copy(kind) is kind
    assert copy.deepcopy({"kind": [kind]})["kind"][0] is kind


def test_the_constants_load_neither_pydicom_nor_reactivex():
    program = (
        "import sys; from rxdicom import evt; evt.EVT_C_STORE.description; "
        "sys.exit(' '.join({'pydicom', 'reactivex', 'attrs'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
