"""Packet captures: the associations in them, in both directions, through whatever a network does to segments."""

import logging
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from rxdicom import AE, evt
from rxdicom.errors import ArgumentError, StateError
from rxdicom.events.records import DIMSEReceived
from rxdicom.protocol.policy import Limits
from rxdicom.recording import InvalidRecording, RecordedAssociation, Replay, captures, replay, wiretap
from rxdicom.testing import pair
from tests.recording.support import (
    ACK,
    CLIENT,
    FIN,
    HANDLERS,
    PUSH,
    RST,
    SERVER,
    SYN,
    Frame,
    Interface,
    Speaker,
    Talk,
    block,
    configured,
    content,
    contents_of,
    ct_file,
    fragmented,
    names,
    replayed,
    section,
    write_capture,
)

UNSEEN = ("EVT_FSM_TRANSITION", "EVT_DATA_RECV", "EVT_DATA_SENT")


@cache
def session(ending: str = "release") -> tuple[Talk, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """An association in memory: what both sides said, and what each of them observed."""
    both = pair(configured(AE("SCU")), configured(AE("SCP")), acceptor_handlers=HANDLERS)
    turns: list[tuple[bool, bytes]] = []
    both.requestor.bind(evt.EVT_DATA_SENT, lambda event: turns.append((True, event.data)))
    both.requestor.bind(evt.EVT_DATA_RECV, lambda event: turns.append((False, event.data)))
    requestor, acceptor = contents_of(both.requestor.events), contents_of(both.server.events)
    both.requestor.open()
    both.requestor.send_c_echo()
    both.requestor.send_c_store(ct_file())
    getattr(both.requestor, ending)()
    return Talk(turns), requestor, acceptor


def told(contents: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What a capture can tell of what a side saw: without times and names, and messages as they were on the wire."""
    unseen = (*UNSEEN, "EVT_CONN_OPEN", "EVT_CONN_CLOSE")
    return [(each[0], *map(on_the_wire, each[3:])) for each in contents if each[0] not in unseen]


def on_the_wire(value: Any) -> Any:
    """A message without what its sender left to the codec: the order of its elements, and their length."""
    if not isinstance(value, tuple):
        return value
    command: dict[str, Any]
    command, _, context_id, data = cast("tuple[Any, ...]", value)
    return {key: each for key, each in command.items() if key != "CommandGroupLength"}, context_id, data


def messages_apart(contents: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Everything but the messages that were sent, and these."""
    sent = [each for each in contents if each[0] == "EVT_DIMSE_SENT"]
    return [each for each in contents if each[0] != "EVT_DIMSE_SENT"], sent


# ---- both sides


@pytest.mark.parametrize("ending", ["release", "abort"])
@pytest.mark.parametrize("side", ["requestor", "acceptor"])
def test_a_capture_tells_what_each_side_saw(tmp_path: Path, side: Any, ending: str):
    talk, requestor, acceptor = session(ending)
    capture = write_capture(tmp_path / "c.pcap", talk.frames())
    seen = replayed(replay(capture, side=side))
    assert messages_apart(told(seen)) == messages_apart(told(requestor if side == "requestor" else acceptor))


def test_the_bytes_are_those_that_were_sent(tmp_path: Path):
    talk, *_ = session()
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", talk.frames())))
    assert b"".join(each[3] for each in seen if each[0] == "EVT_DATA_RECV") == talk.said(True)
    assert b"".join(each[3] for each in seen if each[0] == "EVT_DATA_SENT") == talk.said(False)


def test_the_association_is_known(tmp_path: Path):
    talk, *_ = session()
    source = replay(write_capture(tmp_path / "c.pcap", talk.frames()))
    found: list[RecordedAssociation] = []
    source.associations.subscribe(found.append)
    source.run()
    (assoc,) = found
    assert assoc.name == "192.0.2.1:50000-192.0.2.2:104"
    assert (assoc.requestor.ae_title, assoc.requestor.address, assoc.requestor.port) == ("SCU", *CLIENT)
    assert (assoc.acceptor.ae_title, assoc.acceptor.address, assoc.acceptor.port) == ("SCP", *SERVER)
    assert assoc.acceptor.implementation_version_name == "RXDICOM_010"
    assert (len(assoc.accepted_contexts), assoc.is_acceptor, assoc.damage) == (3, True, "")


def test_events_have_the_times_of_their_segments(tmp_path: Path):
    talk, *_ = session()
    source = replay(write_capture(tmp_path / "c.pcap", talk.frames()))
    began = source.began
    seen = replayed(source)
    base = datetime.fromtimestamp(1_700_000_000, UTC)
    assert [(each[1] - base).total_seconds() for each in seen if each[0] in ("EVT_CONN_OPEN", "EVT_REQUESTED")] == [
        0,
        0.01,
    ]
    assert began is not None
    assert (began - base).total_seconds() == 0.01
    assert [each[1] for each in seen][1:] == sorted(each[1] for each in seen[1:])


def test_transitions_of_a_state_machine_are_not_in_a_capture(tmp_path: Path):
    talk, *_ = session()
    source, errors = replay(write_capture(tmp_path / "c.pcap", talk.frames())), list[Exception]()
    source.events.fsm_transition.subscribe(on_error=errors.append)
    assert isinstance(errors[0], StateError)
    with pytest.raises(ArgumentError, match="only recordings can be followed"):
        replay(tmp_path / "c.pcap", follow=True)


# ---- what networks do


def pieces(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def disturbed(frames: list[Frame], seed: int) -> list[Frame]:
    """Some frames repeated, some a little late; the times stay in order, as those of captures do."""
    chance = random.Random(seed)
    keyed = [(number + chance.choice((0, 0, 0, 3.5)), frame) for number, (_, frame) in enumerate(frames)]
    keyed += [(number + chance.uniform(0, 20), frame) for number, frame in keyed if chance.random() < 0.2]
    ordered = [frame for _, frame in sorted(keyed, key=lambda pair: pair[0])]
    return [(1_700_000_000 + number / 1000, frame) for number, frame in enumerate(ordered)]


@pytest.mark.parametrize("size", [1, 7, 536, 1460])
def test_segments_may_be_of_any_size(tmp_path: Path, size: int):
    talk, _, acceptor = session()

    def cut(data: bytes) -> list[bytes]:
        # Byte by byte only what is small, for the sake of time.
        return [data] if len(data) > 1000 * size else pieces(size)(data)

    seen = replayed(replay(write_capture(tmp_path / "c.pcap", talk.frames(cut=cut))))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


@pytest.mark.parametrize("seed", range(5))
def test_segments_may_come_again_and_late(tmp_path: Path, seed: int):
    talk, _, acceptor = session()
    # What answers what stays behind it, because the order of the two directions is that of the capture.
    disturbed_frames: list[Frame] = []
    sent = {True: 0, False: 0}
    client, server = Speaker(), Speaker(SERVER, CLIENT, 7_000_000)
    opening = [client.syn(0.0), server.syn(0.0, SYN | ACK)]
    for number, (by_client, data) in enumerate(talk.turns):
        turn: list[Frame] = []
        for part in pieces(1460)(data):
            speaker = client if by_client else server
            turn.append(speaker.segment(0.0, sent[by_client], part, PUSH | ACK))
            sent[by_client] += len(part)
        disturbed_frames += disturbed(turn, seed * 100 + number)
    whole = [(1_700_000_000 + n / 1000, frame) for n, (_, frame) in enumerate([*opening, *disturbed_frames])]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", whole)))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_sequence_numbers_may_wrap(tmp_path: Path):
    talk, _, acceptor = session()
    frames = talk.frames(Speaker(first=(1 << 32) - 20_000), pieces(1000))
    assert messages_apart(told(replayed(replay(write_capture(tmp_path / "c.pcap", frames))))) == messages_apart(
        told(acceptor)
    )


def test_connections_side_by_side_are_told_apart(tmp_path: Path):
    talk, *_ = session()
    first, second = Speaker(), Speaker(("192.0.2.9", 50000), SERVER)
    frames = sorted([*talk.frames(first, pieces(700)), *talk.frames(second, pieces(900))], key=lambda frame: frame[0])
    source = replay(write_capture(tmp_path / "c.pcap", frames))
    apart: dict[str, list[tuple[Any, ...]]] = {}

    def begin(assoc: RecordedAssociation) -> None:
        apart[assoc.name] = contents_of_parts(assoc)

    source.associations.subscribe(begin)
    source.run()
    one, other = (told(each) for each in apart.values())
    assert one == other
    assert len(one) > 10


def contents_of_parts(assoc: RecordedAssociation) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []
    for kind in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_ACSE_RECV, evt.EVT_PDU_RECV, evt.EVT_RELEASED):
        assoc.events[kind].subscribe(lambda event: seen.append(content(event)))
    return seen


def test_the_same_ports_may_be_used_again(tmp_path: Path):
    talk, *_ = session()
    later = [(at + 60, frame) for at, frame in talk.frames(Speaker(first=99_000))]
    frames = [*talk.frames(closed=False), *later]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert names(seen).count("RELEASED") == 2
    assert names(seen).count("CONN_CLOSE") == 1


def test_what_was_captured_again_when_it_was_over_is_no_other_association(tmp_path: Path):
    """As on a second interface, whose frames are written behind those of the first."""
    talk, _, acceptor = session()
    frames = talk.frames(cut=pieces(1460))
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", [*frames, *frames])))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_connections_that_are_over_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(captures, "_MOST_OVER", 10)

    def most(connections: int) -> int:
        brief = Talk([(True, b"x")])
        frames = [frame for port in range(connections) for frame in brief.frames(Speaker(("192.0.2.1", 1000 + port)))]
        source = replay(write_capture(tmp_path / "c.pcap", frames))
        tracemalloc.start()
        try:
            source.run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most(1)
    assert most(300) - most(100) < 100 * 200


def test_a_capture_may_begin_after_the_handshake(tmp_path: Path):
    talk, _, acceptor = session()
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", talk.frames(opened=False))))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_a_repeated_syn_and_an_empty_connection_are_nothing(tmp_path: Path):
    talk, _, acceptor = session()
    frames = talk.frames()
    probe = Speaker(("192.0.2.7", 1))
    more = [probe.syn(1.0), probe.segment(1.1, 0, flags=FIN | ACK), probe.segment(1.2, 0, flags=RST)]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", [*more, frames[0], *frames])))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_other_traffic_is_passed_over(tmp_path: Path):
    talk, _, acceptor = session()
    web = Speaker(("192.0.2.7", 1), ("192.0.2.8", 80))
    other = [
        web.syn(1.0),
        web.segment(1.1, 0, b"GET / HTTP/1.1\r\n"),
        (1.2, b"\xff" * 60),
        (1.3, b""),
        (1.4, bytes(12) + b"\x08\x06" + bytes(28)),
        (1.5, bytes(12) + b"\x08\x00" + b"\x45\x00\x00"),
        web.segment(1.6, 16, b"\x01\x00more"),
    ]
    source = replay(write_capture(tmp_path / "c.pcap", [*other, *talk.frames()]))
    assert source.began is not None
    assert source.began.year == 2023
    assert messages_apart(told(replayed(source))) == messages_apart(told(acceptor))


def test_a_server_that_speaks_first_is_not_one_of_dicom(tmp_path: Path):
    client = Speaker()
    server = Speaker(SERVER, CLIENT)
    frames = [client.syn(1.0), server.syn(1.1, SYN | ACK), server.segment(1.2, 0, b"\x01\x00\x00\x00\x00\x04abcd")]
    assert replayed(replay(write_capture(tmp_path / "c.pcap", frames))) == []


def test_large_datasets_are_kept_in_files_while_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    talk, _, acceptor = session()
    monkeypatch.setattr(wiretap, "_LIMITS", Limits(memory=1000))
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    source, paths = replay(write_capture(tmp_path / "c.pcap", talk.frames())), list[str]()

    def note(event: DIMSEReceived) -> None:
        if event.message.data is not None:
            paths.append(str(event.message.data.path))

    source.events.dimse_recv.subscribe(note)
    assert messages_apart(told(replayed(source))) == messages_apart(told(acceptor))
    assert [Path(path).parent for path in paths] == [tmp_path / "spool"]
    assert list((tmp_path / "spool").iterdir()) == []


# ---- how connections end


def ended(tmp_path: Path, frames: list[Frame]) -> tuple[list[str], list[tuple[Any, ...]]]:
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames)))
    return names(seen)[-2:], [each[3:] for each in seen if each[0] == "EVT_ABORTED"]


def test_a_connection_that_is_reset_is_an_abort_by_the_transport(tmp_path: Path):
    talk, *_ = session()
    frames = talk.frames(closed=False)[:8]
    reset = Speaker().segment(1_700_000_009.0, 10**6, flags=RST)
    assert ended(tmp_path, [*frames, reset]) == (["ABORTED", "CONN_CLOSE"], [(2, 0, "transport", "")])


def test_the_end_of_the_capture_is_not_the_end_of_the_association(tmp_path: Path):
    talk, *_ = session()
    last, aborts = ended(tmp_path, talk.frames(closed=False)[:8])
    assert (last[-1], aborts) != ("CONN_CLOSE", [(2, 0, "transport", "")])
    assert aborts == []


@pytest.mark.parametrize(("ending", "by"), [("abort", "peer")])
def test_who_aborted_is_told(tmp_path: Path, ending: str, by: str):
    talk, *_ = session(ending)
    frames = talk.frames()
    for side, who in (("acceptor", "peer"), ("requestor", "local")):
        seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames), side=side))  # pyright: ignore[reportArgumentType]
        assert [each[3:] for each in seen if each[0] == "EVT_ABORTED"] == [(0, 0, who, "")]


def test_a_rejection_is_told(tmp_path: Path):
    both = pair(configured(AE("SCU")), configured(AE("SCP")))
    both.server.policy = both.server.policy.__class__(require_calling_aet=("ANOTHER",))
    turns: list[tuple[bool, bytes]] = []
    both.requestor.bind(evt.EVT_DATA_SENT, lambda event: turns.append((True, event.data)))
    both.requestor.bind(evt.EVT_DATA_RECV, lambda event: turns.append((False, event.data)))
    with pytest.raises(Exception, match="rejected"):
        both.requestor.open()
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", Talk(turns).frames())))
    assert [each[3:] for each in seen if each[0] == "EVT_REJECTED"] == [(1, 1, 3)]
    assert names(seen)[-1] == "CONN_CLOSE"


# ---- what cannot be understood


def damage_of(source: Replay) -> tuple[list[str], list[str]]:
    found: list[RecordedAssociation] = []
    source.associations.subscribe(found.append)
    seen = replayed(source)
    return [each.damage for each in found], names(seen)


def test_a_segment_that_was_not_captured_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    talk, *_ = session()
    frames = talk.frames(cut=pieces(1460))
    del frames[20]
    with caplog.at_level(logging.WARNING, "rxdicom"):
        damages, happened = damage_of(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert damages == ["1460 bytes are missing in the capture"]
    assert "C-STORE" not in happened
    assert happened[-1] != "ABORTED"
    assert "not understood from here on: 1460 bytes are missing" in caplog.text


def test_a_segment_that_was_not_captured_is_said_of_a_connection_that_was_cut(tmp_path: Path):
    talk, *_ = session()
    frames = talk.frames(cut=pieces(1460))[:30]
    del frames[20]
    frames.append(Speaker().segment(frames[-1][0] + 1, 0, flags=RST))
    damages, happened = damage_of(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert damages == ["1460 bytes are missing in the capture"]
    assert happened[-1] == "CONN_CLOSE"
    assert "ABORTED" not in happened


def test_frames_that_were_cut_off_are_said(tmp_path: Path):
    talk, *_ = session()
    frames = [(at, frame[:400]) for at, frame in talk.frames(cut=pieces(1460))]
    damages, _ = damage_of(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert damages[0].endswith("bytes are missing in the capture")


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"\x01\x00\x00\x00\x00\x04abcd", "A-ASSOCIATE"),
        (b"\x01\x00\x7f\xff\xff\xff", "2147483647 bytes"),
        (b"\x01\x00\x00\x00\x00\x00", "A-ASSOCIATE"),
    ],
)
def test_what_is_no_dicom_ends_what_is_understood(tmp_path: Path, said: bytes, cause: str):
    talk = Talk([(True, said), (True, b"more"), (False, b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")])
    damages, happened = damage_of(replay(write_capture(tmp_path / "c.pcap", talk.frames())))
    assert cause in damages[0]
    assert happened == ["CONN_OPEN", "DATA_RECV", "DATA_RECV", "DATA_SENT", "CONN_CLOSE"]


def test_data_before_the_answer_is_not_understood(tmp_path: Path):
    talk, *_ = session()
    asked = talk.turns[0]
    damages, _ = damage_of(replay(write_capture(tmp_path / "c.pcap", Talk([asked, talk.turns[2]]).frames())))
    assert "which is not accepted" in damages[0]


# ---- files


def test_pcapng(tmp_path: Path):
    talk, _, acceptor = session()
    seen = replayed(replay(write_capture(tmp_path / "c.pcapng", talk.frames(), pcapng=True)))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("old", [False, True])
def test_pcapng_with_several_interfaces(tmp_path: Path, order: str, old: bool):
    """What the client sends was captured on one link, what it receives on another, by clocks of their own."""
    talk, _, acceptor = session()
    interfaces = [Interface(ticks=9), Interface(101, ticks=0x80 | 20, offset=1_600_000_000), Interface(1)]
    frames = [
        (0, frame) if number == 0 else (1, (frame[0], frame[1][14:]))
        for frame in talk.frames()
        for number in [0 if frame[1][26:30] == bytes((192, 0, 2, 1)) else 1]
    ]
    (tmp_path / "c").write_bytes(section(interfaces, frames, order, old=old))
    seen = replayed(replay(tmp_path / "c"))
    assert {number for number, _ in frames} == {0, 1}
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))
    alone = replayed(replay(write_capture(tmp_path / "d", talk.frames())))
    assert all(abs((one[1] - other[1]).total_seconds()) < 2e-6 for one, other in zip(seen, alone, strict=True))


def test_pcapng_with_several_sections(tmp_path: Path):
    """As of files that were joined: each has interfaces of its own."""
    talk, _, acceptor = session()
    frames = talk.frames()
    raw = [(0, (at, frame[14:])) for at, frame in frames[10:]]
    first = section([Interface()], [(0, frame) for frame in frames[:10]], "<")
    (tmp_path / "c").write_bytes(first + section([Interface(228)], raw, ">") + block(4, b"names", ">"))
    assert messages_apart(told(replayed(replay(tmp_path / "c")))) == messages_apart(told(acceptor))


def test_a_link_that_cannot_be_read_beside_others_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    talk, _, acceptor = session()
    frames = [(0, frame) for frame in talk.frames()]
    frames.insert(3, (1, (frames[3][1][0], b"\x80\x00not an IP packet")))
    (tmp_path / "c").write_bytes(section([Interface(), Interface(105)], frames))
    with caplog.at_level(logging.WARNING, "rxdicom"):
        seen = replayed(replay(tmp_path / "c"))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))
    assert [each.getMessage() for each in caplog.records] == [
        f"{tmp_path / 'c'}: captured on a link of type 105, which cannot be read here; the other links were"
    ]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (block(1, b""), "a block of type 1 is damaged"),
        (block(6, struct.pack("<IIIII", 5, 0, 0, 0, 0)), "a block of type 6 is damaged"),
        (block(6, struct.pack("<IIIII", 0, 0xFFFFFFFF, 0, 0, 0)), "a block of type 6 is damaged"),
        (struct.pack("<III", 6, 8, 8), "a block of 8 bytes at byte"),
        (struct.pack("<III", 6, 1 << 31, 0), "a block of 2147483648 bytes at byte"),
        (b"\x0a\x0d\x0d\x0a" + bytes(20), "a section without a byte order"),
    ],
)
def test_a_damaged_pcapng_is_said(tmp_path: Path, damage: bytes, why: str):
    (tmp_path / "c").write_bytes(section([Interface()], []) + damage)
    with pytest.raises(InvalidRecording, match=why):
        replay(tmp_path / "c").run()


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (("2001:db8::1", 50000), ("2001:db8::2", 104))])
@pytest.mark.parametrize("size", [8, 16, 1480])
def test_ip_fragments_are_put_together(tmp_path: Path, ends: Any, size: int):
    talk, _, acceptor = session()

    def cut(data: bytes) -> list[bytes]:
        # In fragments of a few bytes only what is small, for the sake of time.
        return pieces(4000 if size < 100 else 40_000)(data)

    plain = talk.frames(Speaker(*ends), cut)
    frames = [part for n, frame in enumerate(plain) for part in fragmented(frame, size if n < 9 else 1480, n)]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert len(frames) > len(plain)
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_ip_fragments_may_come_again_and_late(tmp_path: Path):
    talk, _, acceptor = session()
    chance = random.Random(1)
    frames: list[Frame] = []
    for number, frame in enumerate(talk.frames(cut=pieces(4000))):
        parts = fragmented(frame, 800, number)
        # The rest of a datagram that was sent twice would begin another one.
        frames += chance.sample(parts, len(parts)) if number % 2 else [parts[0], *parts]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames)))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_an_ip_fragment_that_was_not_captured_is_a_gap(tmp_path: Path):
    talk, *_ = session()
    whole = talk.frames(cut=pieces(4000))
    parts = [fragmented(frame, 1480, number) for number, frame in enumerate(whole)]
    large = next(number for number, each in enumerate(parts) if len(each) == 3)
    for damaged in (parts[large][:1], [(at, frame[:-100]) for at, frame in parts[large]]):
        frames = [part for number, each in enumerate(parts) for part in (damaged if number == large else each)]
        damages, _ = damage_of(replay(write_capture(tmp_path / "c.pcap", frames)))
        assert damages == ["4000 bytes are missing in the capture"]


# ---- TLS


def hello(client: Speaker) -> list[Frame]:
    server = Speaker(client.other, client.own, 7_000_000)
    return [
        client.syn(1.0),
        server.syn(1.1, SYN | ACK),
        client.segment(1.2, 0, b"\x16\x03\x01\x00\x05hello"),
        server.segment(1.3, 0, b"\x16\x03\x03\x00\x05hello"),
        client.segment(1.4, 10, b"\x17\x03\x03\x00\x01x", FIN | ACK),
    ]


def test_tls_cannot_be_read_and_that_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    talk, _, acceptor = session()
    first, second = (hello(Speaker(("192.0.2.5", port), ("192.0.2.2", 2762))) for port in (5001, 5002))
    capture = write_capture(tmp_path / "c.pcap", [*first, *second, *talk.frames()])
    with caplog.at_level(logging.WARNING, "rxdicom"):
        seen = replayed(replay(capture))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))
    assert [each.getMessage() for each in caplog.records] == [
        f"{capture}: 2 connections are encrypted by TLS and cannot be read (to 192.0.2.2:2762); "
        "if DICOM is inside, record it at one of its ends instead"
    ]


def test_a_packet_from_a_port_to_itself_is_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    capture = write_capture(tmp_path / "c.pcap", hello(Speaker(CLIENT, CLIENT)))
    assert replayed(replay(capture)) == []
    assert "1 connection is encrypted by TLS" in caplog.text


def test_ip_version_6(tmp_path: Path):
    talk, _, acceptor = session()
    frames = talk.frames(Speaker(("2001:db8::1", 50000), ("2001:db8::2", 104)))
    source = replay(write_capture(tmp_path / "c.pcap", frames))
    seen = replayed(source)
    assert seen[0][3] == ("2001:db8::1", 50000)
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


@pytest.mark.parametrize(
    ("linktype", "head"),
    [
        (0, struct.pack("=I", 2)),
        (12, b""),
        (101, b""),
        (228, b""),
        (113, bytes(14) + b"\x08\x00"),
        (276, b"\x08\x00" + bytes(18)),
        (1, bytes(12) + b"\x81\x00\x00\x05\x08\x00"),
    ],
)
def test_links_of_several_types(tmp_path: Path, linktype: int, head: bytes):
    talk, _, acceptor = session()
    frames = [(at, head + frame[14:]) for at, frame in talk.frames()]
    seen = replayed(replay(write_capture(tmp_path / "c.pcap", frames, linktype=linktype)))
    assert messages_apart(told(seen)) == messages_apart(told(acceptor))


def test_a_link_of_another_type_is_said(tmp_path: Path):
    capture = write_capture(tmp_path / "c.pcap", session()[0].frames(), linktype=105)
    with pytest.raises(InvalidRecording, match="a link of type 105, which cannot be read here"):
        replay(capture).run()


@pytest.mark.parametrize("pcapng", [False, True])
def test_a_capture_that_was_broken_off_is_told_up_to_there(tmp_path: Path, pcapng: bool):
    talk, *_ = session()
    capture = write_capture(tmp_path / "c", talk.frames(), pcapng=pcapng)
    whole, raw = replayed(replay(capture)), capture.read_bytes()
    for size in range(200, len(raw), 1777):
        (tmp_path / "cut").write_bytes(raw[:size])
        seen = replayed(replay(tmp_path / "cut"))
        assert told(seen) == told(whole)[: len(told(seen))]


@pytest.mark.parametrize("start", [b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a", b"\x0a\x0d\x0d\x0a" + bytes(40)])
def test_a_capture_that_cannot_be_read_is_said(tmp_path: Path, start: bytes):
    (tmp_path / "c").write_bytes(start)
    with pytest.raises(InvalidRecording, match="no capture that can be read"):
        replay(tmp_path / "c").run()


def test_without_dpkt_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    capture = write_capture(tmp_path / "c.pcap", [])
    monkeypatch.setitem(sys.modules, "dpkt", None)
    monkeypatch.setitem(sys.modules, "dpkt.pcap", None)
    with pytest.raises(ArgumentError, match=r"pip install rxdicom\[capture\]"):
        replay(capture).run()
