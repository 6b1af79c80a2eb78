"""What is received: cut anywhere, refused from the header where it can be, bounded always, tolerated where harmless."""

import os
import random
import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from rxdicom.protocol.assembler import MemorySink, OpenSink
from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Limits
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import SinkFactory
from rxdicom.wire.dimse import MAX_COMMAND_SET, Message, encode_command_set
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.pdu import HEADER, PDU, PDU_NAMES, PDV, Abort, PDataTF, ReleaseRP, ReleaseRQ, encode_pdu

from ..wire.strategies import MANY, any_message, damaged, pdus
from .harness import (
    ANSWER,
    CT_CONTEXT,
    ECHO_CONTEXT,
    EVERYTHING,
    LIMITS,
    REACHABLE,
    REFUSED_CONTEXT,
    REJECTION,
    REQUEST,
    TERMINAL,
    aborts,
    command,
    contents,
    echo_rq,
    established,
    in_state,
    messages,
    of,
    receive,
    sent,
    split,
    store_rq,
    stream,
)

PIXELS = random.Random(7).randbytes(601)
STORE = store_rq(PIXELS + b"\0", 5)
EMPTY = store_rq(b"", 6)
BYTES = stream(STORE, 128) + stream(echo_rq(9)) + stream(EMPTY)


EXPECTED = contents([STORE, echo_rq(9), EMPTY])


@contextmanager
def allocating_at_most(size: int) -> Generator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size


# ---- cut anywhere


@pytest.mark.parametrize("watched", [0, EVERYTHING], ids=["streamed", "kept"])
def test_messages_cut_at_every_byte(watched: int) -> None:
    whole = split(BYTES)
    for cut in range(len(BYTES) + 1):
        protocol = established(watched=watched)
        produced = receive(protocol, BYTES[:cut]) + receive(protocol, BYTES[cut:])
        assert contents(messages(produced)) == EXPECTED, cut
        assert [values[0] for _, values in of(produced, Notice.PDU_RECV)] == (whole if watched else [])
        assert protocol.performing == {5, 6, 9}
        assert protocol.state is State.ESTABLISHED


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 7, 11, 12, 13, 127, 128, 133, 134, 135, 1000])
def test_messages_in_chunks(step: int) -> None:
    protocol = established(True, watched=EVERYTHING)
    produced: list[Produced] = []
    for at in range(0, len(BYTES), step):
        produced += receive(protocol, BYTES[at : at + step])
    assert contents(messages(produced)) == EXPECTED
    assert b"".join(values[0] for _, values in of(produced, Notice.DATA_RECV)) == BYTES
    assert [values[0] for _, values in of(produced, Notice.PDU_RECV)] == split(BYTES)


def test_every_association_pdu_cut_at_every_byte() -> None:
    whole = encode_pdu(REQUEST)
    for cut in range(len(whole) + 1):
        protocol = in_state(State.AWAITING_RQ, False)
        produced = receive(protocol, whole[:cut]) + receive(protocol, whole[cut:])
        assert of(produced, Notice.ACSE_RECV) == [(Notice.ACSE_RECV, (REQUEST,))]
        assert protocol.request == REQUEST
    tail = encode_pdu(ANSWER) + stream(echo_rq(9)) + encode_pdu(ReleaseRQ())
    for cut in range(len(tail) + 1):
        protocol = in_state(State.AWAITING_AC_OR_RJ, True)
        produced = receive(protocol, tail[:cut]) + receive(protocol, tail[cut:])
        told = [notice for notice, _ in of(produced, Notice.ESTABLISHED, Notice.DIMSE_RECV, Notice.RELEASE_INDICATED)]
        assert told == [Notice.ESTABLISHED, Notice.DIMSE_RECV, Notice.RELEASE_INDICATED], "nothing after the AC is lost"


@MANY
@given(any_message, st.integers(8, 300), st.data())
def test_any_message_in_any_pieces(message: Message, maximum: int, data: st.DataObject) -> None:
    """Whatever can be sent arrives as it was, however TCP cuts it."""
    message = evolve(message, context_id=CT_CONTEXT)
    whole = stream(message, maximum)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    protocol = established()
    produced: list[Produced] = []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        produced += receive(protocol, whole[start:stop])
    [received] = contents(messages(produced))
    [expected] = contents([message])
    assert received == expected


def test_nothing_received_aliases_the_buffer() -> None:
    """``receive`` overwrites its buffer; the bytes must have been copied by then."""
    protocol = established()
    produced = receive(protocol, stream(STORE))
    [received] = messages(produced)
    assert received.data is not None
    assert bytes(received.data.data or b"") == PIXELS + b"\0"
    [(_, (data,))] = of(produced, Notice.DATA_RECV)
    assert (type(data), data) == (bytes, stream(STORE))


# ---- lengths

_ENDLESS = (1 << 31, (1 << 32) - 1)
_LIMIT = {1: LIMITS.associate, 2: LIMITS.associate, 4: LIMITS.pdu}
_BEFORE, _CALLING, _UP = (State.AWAITING_RQ, False), (State.AWAITING_AC_OR_RJ, True), (State.ESTABLISHED, False)


def _code(where: tuple[State, bool], pdu_type: int, length: int) -> tuple[int, int] | None:
    """What answers a PDU with this length field, None where it is tolerated."""
    if length == 0 and pdu_type in (5, 6) and where != _BEFORE:
        # Releases without their four reserved bytes exist; these are judged like any other.
        return None if (where, pdu_type) == (_UP, 5) else (2, 2)
    if where == _BEFORE:
        return 0, 0
    if pdu_type == 4 and where == _CALLING and length <= LIMITS.pdu:
        return 2, 2
    return 2, 6


@pytest.mark.parametrize("where", [_BEFORE, _CALLING, _UP], ids=["Sta2", "Sta5", "Sta6"])
@pytest.mark.parametrize("pdu_type", PDU_NAMES)
def test_lengths_that_cannot_be(pdu_type: int, where: tuple[State, bool]) -> None:
    limit = _LIMIT.get(pdu_type, 4)
    for length in (0, 1, 3, limit + 1, *_ENDLESS):
        protocol = in_state(*where)
        header = HEADER.pack(pdu_type, length)
        with allocating_at_most(20_000):
            produced = receive(protocol, header)
            refused_at_once = bool(aborts(produced))
            produced += receive(protocol, bytes(min(length, 4)))
        assert refused_at_once or length <= 3, "from the header"
        code = _code(where, pdu_type, length)
        assert aborts(produced) == ([] if code is None else [(*code, "local")]), length
        assert [type(pdu) for pdu in sent(protocol)] == ([] if code is None else [Abort])


def test_a_length_within_the_limit_reserves_nothing() -> None:
    """The header promises half a megabyte; what is kept is what came."""
    for where, pdu_type in ((_BEFORE, 1), (_CALLING, 2), (_UP, 1), (_UP, 4)):
        protocol = in_state(*where)
        with allocating_at_most(20_000):
            receive(protocol, HEADER.pack(pdu_type, _LIMIT[pdu_type]), bytes(5))
            assert sent(protocol) == []


def test_our_own_maximum_is_the_last_length_that_fits() -> None:
    fitting = PDataTF((PDV(CT_CONTEXT, 1, bytes(LIMITS.pdu - 6)),))
    assert aborts(receive(established(), fitting)) == []
    beyond = PDataTF((PDV(CT_CONTEXT, 1, bytes(LIMITS.pdu - 5)),))
    assert aborts(receive(established(), beyond)) == [(2, 6, "local")]


def test_unlimited_is_advertised_but_something_holds() -> None:
    limits = Limits(pdu=0, pdu_unlimited=1 << 20)
    for length, wanted in (((1 << 20), []), ((1 << 20) + 1, [(2, 6, "local")])):
        protocol = established(limits=limits)
        assert aborts(receive(protocol, HEADER.pack(4, length))) == wanted


@pytest.mark.parametrize("pdu_type", [0, 8, 9, 0x16, 0x47, 0x7F, 0x80, 0xFF])
def test_unknown_pdu_types(pdu_type: int) -> None:
    for where, code in ((_BEFORE, (0, 0)), (_CALLING, (2, 1)), (_UP, (2, 1))):
        for length in (0, 4, 0xFFFFFFFF):
            protocol = in_state(*where)
            assert aborts(receive(protocol, HEADER.pack(pdu_type, length))) == [(*code, "local")]
            assert sent(protocol) == [Abort(*code)]
            assert receive(protocol, bytes(100), encode_pdu(REQUEST)) == [
                (Notice.DATA_RECV, (bytes(100) + encode_pdu(REQUEST),))
            ], "what follows cannot be told apart any more"


def _pdv(length: int, rest: bytes, context_id: int = CT_CONTEXT, control: int = 1) -> bytes:
    return length.to_bytes(4, "big") + bytes((context_id, control)) + rest


def _p_data(body: bytes) -> bytes:
    return HEADER.pack(4, len(body)) + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(1),
        bytes(5),
        _pdv(0, b""),
        _pdv(1, b""),
        _pdv(0, bytes(10)),
        _pdv(1, bytes(10)),
        _pdv(13, bytes(10)),
        _pdv(0x80000000, bytes(10)),
        _pdv(0xFFFFFFFF, bytes(10)),
        _pdv(0xFFFFFFFE, bytes(10)),
        _pdv(12, bytes(10)) + bytes(1),
        _pdv(12, bytes(10)) + bytes(5),
        _pdv(12, bytes(10)) + _pdv(1, b""),
        _pdv(12, bytes(10)) + _pdv(3, b""),
        _pdv(2, b"") + _pdv(0xFFFFFFFF, b""),
    ],
    ids=lambda body: body.hex()[:24],
)
def test_presentation_data_values_that_cannot_be(body: bytes) -> None:
    for watched in (0, EVERYTHING):
        for step in (1, 1000):
            protocol = established(watched=watched)
            produced: list[Produced] = []
            whole = _p_data(body)
            for at in range(0, len(whole), step):
                produced += receive(protocol, whole[at : at + step])
            assert aborts(produced) == [(2, 6, "local")]
            assert sent(protocol) == [Abort(2, 6)]


# ---- order of fragments

_COMMAND = encode_command_set(STORE.command)
_UNKNOWN_COMMAND = encode_command_set({**STORE.command, "CommandField": 0x0077})


def _values(*values: tuple[int, int, bytes]) -> list[PDU]:
    """Each in a P-DATA-TF of its own."""
    return [PDataTF((PDV(*value),)) for value in values]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param([(CT_CONTEXT, 0, b"data")], 5, id="dataset before command"),
        pytest.param([(CT_CONTEXT, 2, b"data")], 5, id="last of a dataset before command"),
        pytest.param([(CT_CONTEXT, 1, _COMMAND[:40]), (CT_CONTEXT, 0, b"data")], 5, id="dataset within command"),
        pytest.param([(CT_CONTEXT, 3, _COMMAND), (CT_CONTEXT, 1, _COMMAND)], 5, id="command within dataset"),
        pytest.param(
            [(CT_CONTEXT, 3, _COMMAND), (CT_CONTEXT, 0, b"data"), (CT_CONTEXT, 3, _COMMAND)], 5, id="interleaved"
        ),
        pytest.param([(CT_CONTEXT, 1, _COMMAND[:40]), (ECHO_CONTEXT, 3, _COMMAND[40:])], 5, id="context in command"),
        pytest.param([(CT_CONTEXT, 3, _COMMAND), (ECHO_CONTEXT, 2, b"data")], 5, id="context before dataset"),
        pytest.param(
            [(CT_CONTEXT, 3, _COMMAND), (CT_CONTEXT, 0, b"da"), (ECHO_CONTEXT, 2, b"ta")], 5, id="context in dataset"
        ),
        pytest.param([(CT_CONTEXT, 3, _COMMAND), (REFUSED_CONTEXT, 2, b"data")], 5, id="to a refused context"),
        pytest.param([(REFUSED_CONTEXT, 3, _COMMAND)], 6, id="refused context"),
        pytest.param([(7, 3, _COMMAND)], 6, id="context never proposed"),
        pytest.param([(2, 3, _COMMAND)], 6, id="even context"),
        pytest.param([(0, 3, _COMMAND)], 6, id="context 0"),
        pytest.param([(CT_CONTEXT, 3, b"")], 6, id="empty command set"),
        pytest.param([(CT_CONTEXT, 3, bytes(7))], 6, id="short command set"),
        pytest.param([(CT_CONTEXT, 3, b"\x5a" * 100)], 6, id="garbage"),
        pytest.param([(CT_CONTEXT, 3, _COMMAND[:12])], 6, id="without a command field"),
        pytest.param([(CT_CONTEXT, 3, _UNKNOWN_COMMAND)], 6, id="unknown command field"),
        pytest.param([(CT_CONTEXT, 3, _COMMAND[:-1])], 6, id="element beyond the end"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_fragments_out_of_order(values: list[tuple[int, int, bytes]], reason: int, together: bool) -> None:
    """Nothing is delivered, in whatever PDUs they come; a complete message before them is, if its PDU was."""
    protocol = established()
    pdus = _values(*values)
    if together:
        pdus = [PDataTF(tuple(PDV(*value) for value in values))]
    produced = receive(protocol, stream(echo_rq(8)), *pdus)
    assert [message.MessageID for message in messages(produced)] == [8]
    assert aborts(produced) == [(2, reason, "local")]
    assert sent(protocol) == [Abort(2, reason)]


def test_what_is_in_a_broken_pdu_is_not_delivered() -> None:
    """A whole message, then nonsense, in one PDU: as a whole it is invalid, and its sink is given back."""
    sinks: list[Recorder] = []
    protocol = established(open_sink=_recording(sinks))
    good = (command(STORE), PDV(CT_CONTEXT, 2, b"data"))
    produced = receive(protocol, PDataTF((*good, PDV(CT_CONTEXT, 0, b"data"))))
    assert messages(produced) == []
    assert aborts(produced) == [(2, 5, "local")]
    protocol.receive_eof(1.0)
    assert [sink.calls for sink in sinks] == [["write", "discard"]]


@pytest.mark.parametrize("releasing", [False, True], ids=["the peer releases", "we release"])
def test_a_release_in_the_middle_of_a_message(releasing: bool) -> None:
    """The association is released in order; the half message is given up."""
    sinks: list[Recorder] = []
    protocol = established(open_sink=_recording(sinks))
    receive(protocol, PDataTF((command(STORE), PDV(CT_CONTEXT, 0, b"half"))))
    if releasing:
        protocol.release(0.0)
        produced = receive(protocol, ReleaseRP())
    else:
        receive(protocol, ReleaseRQ())
        produced = protocol.release_response(0.0)
    assert of(produced, *TERMINAL) == [(Notice.RELEASED, ())]
    assert not of(protocol.receive_eof(1.0), *TERMINAL)
    assert [sink.calls for sink in sinks] == [["write", "discard"]]


class Recorder(MemorySink):
    """A sink that notes what is done with it."""

    def __init__(self, message: Message, transfer_syntax: str) -> None:
        super().__init__(message, transfer_syntax)
        self.calls: list[str] = []

    def write(self, pieces: Sequence[memoryview]) -> None:
        self.calls.append("write")
        super().write(pieces)

    def finish(self) -> Encoded:
        self.calls.append("finish")
        return super().finish()

    def discard(self) -> None:
        self.calls.append("discard")
        super().discard()


def _recording(sinks: list[Recorder]) -> OpenSink:
    def open_sink(message: Message, transfer_syntax: str) -> Recorder:
        sinks.append(Recorder(message, transfer_syntax))
        return sinks[-1]

    return open_sink


def test_p_data_is_copied_while_somebody_watches_and_only_then() -> None:
    protocol = established()
    parts = split(stream(STORE, 128))
    watching = [index % 3 != 1 for index in range(len(parts))]
    told: list[PDU] = []
    for part, watched in zip(parts, watching, strict=True):
        whole = encode_pdu(part)
        protocol.watched = watched << Notice.PDU_RECV
        for piece in (whole[:20], whole[20:]):
            produced = protocol.receive_data(memoryview(piece), 0.0)
            told += [values[0] for _, values in of(produced, Notice.PDU_RECV)]
    assert told == [part for part, watched in zip(parts, watching, strict=True) if watched]


@pytest.mark.parametrize("maximum_length", [8, 64, 16384])
def test_what_comes_in_one_go_is_written_in_one_go(maximum_length: int) -> None:
    """However many fragments it comes in: one call of the sink, and of the system where that is a file."""
    sinks: list[Recorder] = []
    protocol = established(open_sink=_recording(sinks))
    whole = stream(store_rq(PIXELS + b"\0", 5), maximum_length)
    received = messages(receive(protocol, whole[: len(whole) // 2])) + messages(
        receive(protocol, whole[len(whole) // 2 :])
    )
    assert contents(received) == contents([store_rq(PIXELS + b"\0", 5)])
    assert [sink.calls for sink in sinks] == [["write", "write", "finish"]]


@pytest.mark.parametrize("maximum_length", [8, 64])
def test_a_spool_file_takes_any_number_of_fragments_at_once(tmp_path: Path, maximum_length: int) -> None:
    """The system takes some thousand at a time."""
    limits = Limits(memory=100)
    protocol = established(open_sink=SinkFactory(limits, str(tmp_path), "PEER"))
    data = random.Random(9).randbytes(60000)
    (received,) = messages(receive(protocol, stream(store_rq(data, 5), maximum_length)))
    assert received.data is not None
    assert received.data.path is not None
    assert received.data.read() == data


def test_each_sink_is_finished_or_discarded_once() -> None:
    """Wherever a message stops, by whatever end; what peers say about it can only stand between two PDUs."""
    parts = [encode_pdu(pdu) for pdu in split(stream(STORE, 128) + stream(store_rq(b"more"), 128))]
    whole = b"".join(parts)
    between = {sum(map(len, parts[:count])) for count in range(len(parts) + 1)}
    for cut in range(len(whole) + 1):
        for end in ("eof", "abort", "timeout", *(("junk", "peer") if cut in between else ())):
            sinks: list[Recorder] = []
            protocol = established(open_sink=_recording(sinks))
            delivered = len(messages(receive(protocol, whole[:cut])))
            protocol.performing.clear()
            produced = _ENDS[end](protocol)
            assert len(aborts(produced)) == 1
            assert not of(receive(protocol, whole[cut:]), Notice.DIMSE_RECV, *TERMINAL)
            protocol.receive_eof(2e6)
            finals = [[call for call in sink.calls if call != "write"] for sink in sinks]
            assert finals == [["finish"]] * delivered + [["discard"]] * (len(sinks) - delivered), (cut, end)


_ENDS: dict[str, Callable[[Protocol], list[Produced]]] = {
    "eof": lambda protocol: protocol.receive_eof(1.0),
    "abort": lambda protocol: protocol.abort(1.0),
    "timeout": lambda protocol: protocol.handle_timeout(1e6),
    "junk": lambda protocol: receive(protocol, b"\xff" * 500),
    "peer": lambda protocol: receive(protocol, Abort(0, 0)),
    "bad fragment": lambda protocol: receive(protocol, PDataTF((PDV(CT_CONTEXT, 2, b""), PDV(CT_CONTEXT, 2, b"")))),
}


# ---- after the end


@pytest.mark.parametrize("watched", [0, EVERYTHING], ids=["streamed", "kept"])
@pytest.mark.parametrize("whole", [stream(STORE), BYTES], ids=["long fragments", "short fragments"])
def test_an_abort_within_a_pdu(whole: bytes, watched: int) -> None:
    """The rest of a message whose association was aborted here is passed over: no message, no second A-ABORT."""
    for cut in range(len(whole) + 1):
        protocol = established(watched=watched)
        receive(protocol, whole[:cut])
        assert aborts(protocol.abort(1.0)) == [(0, 0, "local")]
        assert sent(protocol) == [Abort(0, 0)]
        late = receive(protocol, whole[cut:], stream(echo_rq(2)), ReleaseRQ(), now=2.0)
        assert not of(late, Notice.DIMSE_RECV, *TERMINAL)
        assert sent(protocol) == []
        assert protocol.state is State.AWAITING_CLOSE
        receive(protocol, Abort(0, 0), now=3.0)
        assert protocol.closing, "the PDUs behind it are still told apart"


def test_data_after_closing_is_ignored() -> None:
    """The connection was closed before its request was there; the request that comes now opens nothing."""
    protocol = in_state(State.AWAITING_RQ, False)
    receive(protocol, encode_pdu(REQUEST)[:50])
    protocol.abort(1.0)
    assert not of(receive(protocol, encode_pdu(REQUEST)[50:]), Notice.REQUESTED, Notice.ACSE_RECV)
    assert protocol.closing


# ---- bounds


def test_a_command_set_that_never_ends() -> None:
    protocol = established()
    chunk = encode_pdu(PDataTF((PDV(CT_CONTEXT, 1, bytes(1000)),)))
    total = 0
    with allocating_at_most(4 * MAX_COMMAND_SET):
        while not (codes := aborts(receive(protocol, chunk))):
            total += 1000
            assert total <= MAX_COMMAND_SET
    assert codes == [(2, 6, "local")]
    assert total == MAX_COMMAND_SET - MAX_COMMAND_SET % 1000


def _limited(folder: Path) -> Protocol:
    limits = Limits(pdu=16384, dataset=100_000, memory=20_000)
    return established(limits=limits, open_sink=SinkFactory(limits, str(folder), "MODALITY"), watched=0)


def _store(size: int, *, last: bool) -> Iterator[bytes]:
    """The PDUs of a C-STORE whose dataset has ``size`` bytes, so far or at all."""
    yield encode_pdu(PDataTF((command(STORE),)))
    for left in range(size, 0, -10_000):
        yield encode_pdu(PDataTF((PDV(CT_CONTEXT, 2 if last and left <= 10_000 else 0, bytes(min(left, 10_000))),)))


def _receive_all(protocol: Protocol, pdus: Iterable[bytes]) -> list[Produced]:
    return [notice for pdu in pdus for notice in receive(protocol, pdu)]


def test_a_dataset_within_the_limit_is_kept(tmp_path: Path) -> None:
    for size in (20_000, 20_001, 100_000):
        [message] = messages(_receive_all(_limited(tmp_path), _store(size, last=True)))
        assert message.data is not None
        assert (message.data.error, message.data.size) == (None, size)
        assert (message.data.path is not None) == (size > 20_000)


def test_the_limit_is_that_of_each_dataset(tmp_path: Path) -> None:
    protocol = _limited(tmp_path)
    for _ in range(4):
        [message] = messages(_receive_all(protocol, _store(90_000, last=True)))
        assert message.data is not None
        assert message.data.error is None


@pytest.mark.parametrize("size", [100_001, 199_999, 200_000])
def test_a_dataset_beyond_the_limit_is_discarded(tmp_path: Path, size: int) -> None:
    protocol = _limited(tmp_path)
    with allocating_at_most(130_000):
        produced = _receive_all(protocol, _store(size, last=True))
    [message] = messages(produced)
    assert message.data is not None
    assert isinstance(message.data.error, OSError)
    assert (message.data.data, message.data.path) == (None, None)
    assert os.listdir(tmp_path) == []
    assert aborts(produced) == []
    assert messages(receive(protocol, stream(echo_rq(4)))), "the association lives on"


def test_a_dataset_that_never_ends_is_aborted(tmp_path: Path) -> None:
    protocol = _limited(tmp_path)
    assert aborts(_receive_all(protocol, _store(200_000, last=False))) == []
    assert aborts(receive(protocol, PDataTF((PDV(CT_CONTEXT, 0, bytes(2)),)))) == [(2, 0, "local")]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("end", _ENDS)
def test_no_file_is_left_of_half_a_dataset(tmp_path: Path, end: str) -> None:
    protocol = _limited(tmp_path)
    _receive_all(protocol, _store(50_000, last=False))
    assert len(os.listdir(tmp_path)) == 1
    assert len(aborts(_ENDS[end](protocol))) == 1
    assert os.listdir(tmp_path) == []


def test_a_command_set_that_no_file_can_have(tmp_path: Path) -> None:
    """A UID of 20,000 bytes that are not ASCII: no file meta information holds it, escaped as it would be."""
    protocol = _limited(tmp_path)
    set_of = encode_command_set(STORE.command).replace(b"1.2.3.4\0", b"\xff" * 20_000)
    at = set_of.index(b"\xff") - 4
    long = set_of[:at] + (20_000).to_bytes(4, "little") + set_of[at + 4 :]
    values = [PDV(CT_CONTEXT, 1, long[i : i + 8000]) for i in range(0, len(long), 8000)]
    values[-1] = PDV(CT_CONTEXT, 3, values[-1].data)
    assert aborts(receive(protocol, *(PDataTF((value,)) for value in values))) == [(2, 6, "local")]
    assert os.listdir(tmp_path) == []


def test_fragments_of_nothing_cost_nothing() -> None:
    protocol = established(watched=0)
    empty = encode_pdu(PDataTF((PDV(CT_CONTEXT, 1, b""),) * 2000))
    receive(protocol, empty)
    with allocating_at_most(40_000):
        for _ in range(5):
            assert receive(protocol, empty) == []


# ---- what is no DICOM at all

_JUNK = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeroes": bytes(1000),
    "ones": b"\xff" * 1000,
}


@pytest.mark.parametrize("junk", _JUNK.values(), ids=_JUNK)
def test_other_protocols(junk: bytes) -> None:
    for where, code in ((_BEFORE, (0, 0)), (_CALLING, (2, 1)), (_UP, (2, 1))):
        protocol = in_state(*where)
        with allocating_at_most(20_000):
            produced = receive(protocol, junk)
        assert aborts(produced) == [(*code, "local")]
        assert "unrecognised PDU" in of(produced, Notice.ABORTED)[0][1][3]
        assert sent(protocol) == [Abort(*code)]


_WHERE = st.sampled_from([(state, role) for state, role in REACHABLE if state not in (State.IDLE,)])
_ENCODED = st.one_of(
    pdus.map(encode_pdu),
    st.sampled_from([encode_pdu(pdu) for pdu in (REQUEST, ANSWER, REJECTION, ReleaseRQ(), ReleaseRP(), Abort(1, 9))]),
    st.sampled_from([stream(echo_rq()), stream(STORE, 100), BYTES]),
)


@MANY
@given(
    _WHERE,
    st.lists(st.one_of(_ENCODED, damaged(_ENCODED), st.binary(max_size=60)), max_size=6),
    st.integers(1, 400),
    st.sampled_from([0, EVERYTHING]),
)
def test_whatever_comes(where: tuple[State, bool], chunks: list[bytes], step: int, watched: int) -> None:
    """Any bytes in any state: no exception, one terminal notice at most, and only whole PDUs as an answer."""
    protocol = in_state(*where, watched=watched)
    was_over = where[0] is State.AWAITING_CLOSE
    data = b"".join(chunks)
    produced: list[Produced] = []
    for at in range(0, len(data), step):
        produced += receive(protocol, data[at : at + step])
        sent(protocol)
    produced += protocol.receive_eof(1.0)
    assert len(of(produced, *TERMINAL)) <= (0 if was_over else 1)
    assert protocol.state is State.IDLE
    terminal = [notice in TERMINAL for notice, _ in produced]
    if True in terminal:
        assert not of(produced[terminal.index(True) :], Notice.DIMSE_RECV, Notice.ESTABLISHED, Notice.REQUESTED)
