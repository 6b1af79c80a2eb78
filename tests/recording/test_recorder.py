"""What a recording holds, and what it does not; what happens where it cannot be written."""

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydicom import Dataset

from rxdicom import AE, evt
from rxdicom.errors import ArgumentError, DatasetError, PeerProtocolError
from rxdicom.events.hub import Hub
from rxdicom.events.records import DIMSEReceived, Event, PDUReceived
from rxdicom.events.streams import EventStreams
from rxdicom.pdu_primitives import UserIdentityNegotiation
from rxdicom.recording import ACTIVITY_KINDS, ALL_KINDS, record, replay
from rxdicom.recording.entries import Entry, Span
from rxdicom.recording.fields import discreet, to_event, to_line
from rxdicom.testing import MemoryAssociation, association, pair
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import UserIdentity
from rxdicom.wire.pdu import PDU, AssociateRQ, decode_pdu, encode_pdu
from tests.recording.support import CT, HANDLERS, configured, content, contents_of, ct_file, names, replayed
from tests.wire import strategies

NAME, PASSCODE = b"operator", b"correct horse battery staple"


def identity() -> UserIdentityNegotiation:
    made = UserIdentityNegotiation()
    made.user_identity_type, made.primary_field, made.secondary_field = 2, NAME, PASSCODE
    return made


def session(path: Path, *kinds: Any, **options: Any) -> list[tuple[Any, ...]]:
    """Record one association of the acceptor's side; what it observed itself."""
    both = pair(configured(AE("SCU")), configured(AE("SCP")), acceptor_handlers=HANDLERS, ext_neg=[identity()])
    seen = contents_of(both.server.events)
    with record(both.server, path, kinds or ALL_KINDS, **options), both:
        both.requestor.send_c_echo()
        both.requestor.send_c_store(ct_file())
    return seen


def test_an_association_is_replayed_as_it_was(tmp_path: Path):
    seen = session(tmp_path / "r")
    assert replayed(replay(tmp_path / "r")) == seen
    assert names(seen)[0] == "CONN_OPEN"
    assert set(names(seen)) >= {"DATA_RECV", "DATA_SENT", "PDU_RECV", "FSM_TRANSITION", "DIMSE_SENT", "RELEASED"}


def test_by_default_pieces_of_datasets_are_left_out(tmp_path: Path):
    seen = session(tmp_path / "r", *ACTIVITY_KINDS)
    pieces = ("EVT_DATA_RECV", "EVT_DATA_SENT", "EVT_PDU_RECV", "EVT_PDU_SENT")
    assert replayed(replay(tmp_path / "r")) == [each for each in seen if each[0] not in pieces]
    assert (tmp_path / "r").stat().st_size < 1.3 * ct_file().stat().st_size


def test_one_kind_alone_knows_its_association(tmp_path: Path):
    seen = session(tmp_path / "r", evt.EVT_DIMSE_RECV)
    source = replay(tmp_path / "r")
    known: list[tuple[Any, ...]] = []

    def note(event: DIMSEReceived) -> None:
        peers = event.assoc.requestor, event.assoc.acceptor
        known.append((event.assoc.name, *(each.ae_title for each in peers), len(event.assoc.accepted_contexts)))

    source.events.dimse_recv.subscribe(note)
    source.run()
    assert known == [("SCP-1", "SCU", "SCP", 3)] * names(seen).count("DIMSE_RECV")


def test_an_association_that_is_recorded_from_the_middle_is_known(tmp_path: Path):
    with pair(configured(AE("SCU")), configured(AE("SCP"))) as both, record(both.requestor, tmp_path / "r"):
        both.requestor.send_c_echo()
    source = replay(tmp_path / "r")
    known: list[Any] = []
    source.associations.subscribe(known.append)
    assert names(replayed(source))[:4] == ["FSM_TRANSITION", "DIMSE_SENT", "FSM_TRANSITION", "DIMSE_RECV"]
    assert [(each.is_requestor, each.requestor.ae_title, each.acceptor.port) for each in known] == [(True, "SCU", 104)]
    assert [each.abstract_syntax for each in known[0].accepted_contexts] == [
        each.abstract_syntax for each in both.requestor.accepted_contexts
    ]


def test_peers_are_replayed_with_what_they_said(tmp_path: Path):
    session(tmp_path / "r")
    source = replay(tmp_path / "r")
    known: list[Any] = []
    source.associations.subscribe(known.append)
    source.run()
    (assoc,) = known
    assert assoc.requestor.user_identity == UserIdentity(2, False, NAME, PASSCODE)
    assert assoc.acceptor.implementation_version_name == "RXDICOM_010"
    assert assoc.is_acceptor


# ---- patient data and secrets


def test_a_recording_holds_patient_data_and_is_for_its_owner_alone(tmp_path: Path):
    session(tmp_path / "r")
    whole = (tmp_path / "r").read_bytes()
    assert b"CompressedSamples^CT1" in whole
    assert PASSCODE in whole
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600


def test_without_datasets_there_are_neither_patient_data_nor_secrets(tmp_path: Path):
    seen = session(tmp_path / "r", *ACTIVITY_KINDS, without_datasets=True)
    whole = (tmp_path / "r").read_bytes()
    assert b"CompressedSamples" not in whole
    assert PASSCODE not in whole
    assert PASSCODE.hex().encode() not in whole
    assert NAME in whole
    source, messages = replay(tmp_path / "r"), list[Message]()
    source.events.dimse_recv.subscribe(lambda event: messages.append(event.message))
    source.run()
    assert len(messages) == names(seen).count("DIMSE_RECV")
    stored = messages[1].data
    assert stored is not None
    assert stored.size > 38_000
    with pytest.raises(DatasetError, match="left out of the recording"):
        stored.read()


def test_without_datasets_their_pieces_cannot_be_recorded(tmp_path: Path):
    both = pair(configured(AE("SCU")), configured(AE("SCP")))
    with pytest.raises(ArgumentError, match="EVT_PDU_SENT: with pieces of datasets"):
        record(both.server, tmp_path / "r", [evt.EVT_DIMSE_RECV, evt.EVT_PDU_SENT], without_datasets=True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", range(6))
def test_only_names_of_user_identities_are_discreet(kind: int):
    proposed = UserIdentity(kind, True, b"primary", b"secondary")
    pdu = discreet(AssociateRQ("A", "B", (proposed,)))
    assert isinstance(pdu, AssociateRQ)
    (left,) = pdu.items_of(UserIdentity)
    assert (left.primary, left.secondary) == (b"primary" if kind in (1, 2) else b"", b"")


@pytest.mark.parametrize("kinds", [[], [evt.EVT_DIMSE_RECV, evt.EVT_C_STORE]])
def test_only_notification_events_can_be_recorded(tmp_path: Path, kinds: list[Any]):
    with pytest.raises(ArgumentError, match="notification events only"):
        record(AE("ME"), tmp_path / "r", kinds)


# ---- any event


def restored(event: Event, path: Path) -> Any:
    line, payload = to_line(event, 1, with_datasets=True)
    path.write_bytes(b"".join(payload.chunks()) if payload else b"")
    return to_event(Entry(line, Span(str(path), 0, payload.size) if payload else None), event.assoc)


@strategies.MANY
@given(pdu=strategies.pdus)
def test_any_pdu_is_restored(tmp_path_factory: pytest.TempPathFactory, pdu: PDU):
    event = PDUReceived(pdu=pdu, assoc=association())
    assert content(restored(event, tmp_path_factory.getbasetemp() / "pdu")) == content(event)


@strategies.MANY
@given(data=strategies.damaged(strategies.pdus.map(encode_pdu)))
def test_any_pdu_that_was_understood_is_restored(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """What peers send is more than what this side would."""
    try:
        pdu = decode_pdu(data)
    except PeerProtocolError:
        return
    event = PDUReceived(pdu=pdu, assoc=association())
    assert content(restored(event, tmp_path_factory.getbasetemp() / "pdu")) == content(event)


@strategies.MANY
@given(sent=strategies.any_message)
def test_any_message_is_restored(tmp_path_factory: pytest.TempPathFactory, sent: Message):
    event = DIMSEReceived(message=sent, assoc=association())
    assert content(restored(event, tmp_path_factory.getbasetemp() / "message")) == content(event)


def received(data: Encoded) -> DIMSEReceived:
    elements = {"MessageID": 1, "Priority": 0, "AffectedSOPClassUID": CT, "AffectedSOPInstanceUID": "1.2"}
    return DIMSEReceived(message=message(Command.C_STORE_RQ, 1, data, **elements), assoc=association())


def test_a_dataset_in_a_file_is_copied_with_its_padding(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"head" + bytes(range(251)) * 9000)
    size = 251 * 9000
    for given_size in (size, size + 1):
        event = restored(
            received(Encoded("1.2", path=str(tmp_path / "file"), offset=4, size=given_size)), tmp_path / "e"
        )
        assert event.message.data.read() == (bytes(range(251)) * 9000).ljust(given_size, b"\0")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Encoded("1.2", size=7, error=OSError("disk full")), "disk full"),
        (Encoded("1.2", path="/nowhere/file", size=7), "its file is gone"),
    ],
)
def test_a_dataset_that_is_not_there_is_said_to_be_absent(tmp_path: Path, data: Encoded, said: str):
    event = restored(received(data), tmp_path / "e")
    assert event.message.data.size == 7
    with pytest.raises(DatasetError, match=said):
        event.message.data.read()


def test_a_dataset_whose_file_was_shortened_is_said_to_be_absent(tmp_path: Path):
    (tmp_path / "file").write_bytes(bytes(10))
    event = restored(received(Encoded("1.2", path=str(tmp_path / "file"), size=12)), tmp_path / "e")
    with pytest.raises(DatasetError, match="shortened"):
        event.message.data.read()


# ---- where it cannot be written


def test_an_existing_file_is_not_overwritten(tmp_path: Path):
    (tmp_path / "r").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        record(AE("ME"), tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == b"precious"


def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from rxdicom.recording import recorder as module

    write, left = module.write_all, 12

    def writes_some(fd: int, parts: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            write(fd, [b'{"half":'])
            raise OSError(28, os.strerror(28))
        write(fd, parts)

    monkeypatch.setattr(module, "write_all", writes_some)
    both = pair(configured(AE("SCU")), configured(AE("SCP")), acceptor_handlers=HANDLERS)
    seen = contents_of(both.server.events)
    with caplog.at_level(logging.ERROR, "rxdicom"), pytest.raises(OSError, match="No space left"):
        with record(both.server, tmp_path / "r", ALL_KINDS), both:
            assert both.requestor.send_c_store(ct_file()) == 0x0000
    assert [each.getMessage() for each in caplog.records] == [
        f"{tmp_path}/r: the recording ends: No space left on device"
    ]
    whole = replayed(replay(tmp_path / "r"))
    assert 0 < len(whole) < 12
    assert whole == seen[: len(whole)]


def test_what_the_block_raises_is_more_important_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rxdicom.recording import recorder as module

    recorder = record(AE("ME"), tmp_path / "r")
    monkeypatch.setattr(module, "write_all", _full)
    with pytest.raises(KeyError):
        with recorder:
            raise KeyError("mine")


def _full(fd: int, parts: Any) -> None:
    raise OSError(28, os.strerror(28))


def test_a_recording_ends_with_its_source(tmp_path: Path):
    both = pair(configured(AE("SCU")), configured(AE("SCP")))
    recorder = record(both.requestor, tmp_path / "r")
    with both:
        pass
    assert (tmp_path / "r").read_bytes().splitlines()[-1].startswith(b'{"end":')
    size = (tmp_path / "r").stat().st_size
    recorder.close()
    assert (tmp_path / "r").stat().st_size == size


def test_nothing_is_recorded_after_the_close(tmp_path: Path):
    with pair(configured(AE("SCU")), configured(AE("SCP"))) as both:
        with record(both.requestor, tmp_path / "r"):
            both.requestor.send_c_echo()
        both.requestor.send_c_echo()
    assert names(replayed(replay(tmp_path / "r"))).count("DIMSE_SENT") == 1


def test_several_sources_share_a_file(tmp_path: Path):
    both = pair(configured(AE("SCU")), configured(AE("SCP")))
    with record(both.requestor, tmp_path / "r", [evt.EVT_DIMSE_SENT]) as recorder:
        recorder.watch(both.server.events)
        with both:
            both.requestor.send_c_echo()
    assert [each[2] for each in replayed(replay(tmp_path / "r"))] == ["SCU-SCP-1", "SCP-1"]


def test_events_without_an_association_are_left_out(tmp_path: Path):
    hub = Hub()

    class Owner:
        events = EventStreams(hub)

    with record(Owner(), tmp_path / "r"):
        hub.append(evt.EVT_RELEASED.number, evt.EVT_RELEASED.record())
        hub.drain()
    assert replayed(replay(tmp_path / "r")) == []


def test_a_query_is_replayed_with_its_matches(tmp_path: Path):
    with pair(configured(AE("SCU")), configured(AE("SCP")), acceptor_handlers=HANDLERS) as both:
        with record(both.requestor, tmp_path / "r"):
            _query(both.requestor)
    patients: list[str] = []
    source = replay(tmp_path / "r")
    source.events.dimse_recv.subscribe(lambda event: patients.append(event.dataset.PatientID if event.dataset else "-"))
    source.run()
    assert patients == ["0", "1", "2", "-"]


def _query(assoc: MemoryAssociation) -> None:
    from tests.recording.support import FIND

    assert [status for status, _ in assoc.send_c_find(Dataset(), FIND)] == [0xFF00] * 3 + [0x0000]
