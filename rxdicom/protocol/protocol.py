"""The sans-I/O object of one association (PS3.8 §9): bytes and the time in; bytes, notices and deadlines out.

A runtime calls it under one lock, writes what :meth:`Protocol.data_to_send` gives, and reads the clock for it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rxdicom.errors import PeerProtocolError, StateError
from rxdicom.protocol.assembler import Assembler, MemorySink, OpenSink
from rxdicom.protocol.fsm import ACTIONS, ALTERNATIVES, TRANSITIONS, Event, State
from rxdicom.protocol.negotiation import Negotiated, negotiated
from rxdicom.protocol.notices import ALWAYS, Notice, Produced
from rxdicom.protocol.policy import Limits, Timeouts
from rxdicom.protocol.receiver import COLLECT, SKIP, STREAM, Receiver
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import Source
from rxdicom.wire.pdata import message_runs
from rxdicom.wire.pdu import (
    HEADER,
    HEADER_SIZE,
    P_DATA_TF,
    PDU,
    PDU_NAMES,
    PDV_HEADER,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
    encode_pdu,
)
from rxdicom.wire.templates import CommandEncoder

_RECEIVED: dict[type, Event] = {
    AssociateRQ: Event.RQ_RECEIVED,
    AssociateAC: Event.AC_RECEIVED,
    AssociateRJ: Event.RJ_RECEIVED,
    PDataTF: Event.P_DATA_RECEIVED,
    ReleaseRQ: Event.RELEASE_RQ_RECEIVED,
    ReleaseRP: Event.RELEASE_RP_RECEIVED,
    Abort: Event.ABORT_RECEIVED,
}
_LOCAL = {
    Event.ASSOCIATE_REQUEST,
    Event.ASSOCIATE_ACCEPT,
    Event.ASSOCIATE_REJECT,
    Event.P_DATA_REQUEST,
    Event.RELEASE_REQUEST,
    Event.RELEASE_RESPONSE,
    Event.ABORT_REQUEST,
}
_UNCONNECTED = (State.IDLE, State.AWAITING_TRANSPORT)
_PENDING = {
    (kind, status)
    for kind in (Command.C_FIND_RSP, Command.C_GET_RSP, Command.C_MOVE_RSP)
    for status in (0xFF00, 0xFF01)
}
"""Of the other services every response is the final one, whatever its status says (PS3.7 §9.1, §10.1)."""
_ESTABLISHED = State.ESTABLISHED
# Masks as plain numbers, for what is looked at with each message.
_DATA_RECV, _DATA_SENT = 1 << Notice.DATA_RECV, 1 << Notice.DATA_SENT
_PDU_RECV, _PDU_SENT = 1 << Notice.PDU_RECV, 1 << Notice.PDU_SENT
_DIMSE_SENT, _FSM_TRANSITION = 1 << Notice.DIMSE_SENT, 1 << Notice.FSM_TRANSITION
_SENT = _PDU_SENT | _DATA_SENT
_PER_PDU = _PDU_RECV | _FSM_TRANSITION
_RESPONSE = 0x8000
_UNRECOGNISED_PDU, _UNEXPECTED_PDU, _INVALID_PARAMETER = 1, 2, 6
_PROVIDER = 2

_Sending = tuple[Message, Iterator[bytes | memoryview] | None, Source | None]
"""A message on its way; the runs of one with a dataset, and what they are read from, closed when it is given up."""


class Protocol:
    """One side of one association. Each call returns the notices that it produced, in order.

    ``open_sink`` chooses where a received dataset goes. ``watched`` is the mask of notices that somebody wants;
    those of :data:`ALWAYS` come in any case. ``closing`` says that the transport is to be closed once everything
    has been sent. Local primitives in a blank cell of table 9-10 raise :class:`~rxdicom.errors.StateError`.
    """

    def __init__(
        self,
        *,
        is_requestor: bool,
        limits: Limits,
        timeouts: Timeouts,
        open_sink: OpenSink = MemorySink,
        hold: Callable[[int], None] | None = None,
    ) -> None:
        self.is_requestor = is_requestor
        self.state = State.IDLE
        self.watched = 0
        self.closing = False
        self.negotiated = Negotiated()
        self.request: AssociateRQ | None = None
        self.answer: AssociateAC | None = None
        self.invoked: set[int] = set()
        """Message IDs of the requests sent and not finally answered."""
        self.performing: set[int] = set()
        """Message IDs of the requests received and not finally answered."""
        self.timed_out: str | None = None
        """The phase whose deadline ended the association, if one did."""
        self._limits = limits
        self._timeouts = timeouts
        self._produced: list[Produced] = []
        self.outgoing: deque[bytes | _Sending] = deque()
        """What is to be sent, behind ``sending``, of which something is left."""
        self.sending: _Sending | None = None
        self._encoder = CommandEncoder()
        self._receiver = Receiver(self)
        # Told how many bytes of an A-ASSOCIATE-RQ are held, as long as it has not come whole.
        self._hold = hold
        # The transfer syntaxes of the accepted contexts.
        self._syntaxes: dict[int, str] = {}
        self._assembler = Assembler(self._syntaxes.get, open_sink, limits.dataset)
        self._largest_alone = limits.receive - PDV_HEADER.size
        self._lost = False
        self._over = False
        self.is_associated = False
        """Whether there is, or was, an association: until then little is to be kept for the peer."""
        self._warned_of_odd = False
        self._artim: float | None = None
        self.last_activity = 0.0
        """When the last bytes came, or the last message was sent, on the clock of ``now``."""
        self._now = 0.0
        self._primitive: Any = None
        self._cause = ""
        self._abort = Abort(0, 0)
        self._aborted_by = "local"

    # ---- transport

    def connect(self, request: AssociateRQ, now: float) -> list[Produced]:
        """A-ASSOCIATE request primitive (Evt1): the runtime is to connect now.

        This and the two responses raise :class:`~rxdicom.errors.ArgumentError` for what cannot be encoded.
        """
        produced = self._issue(Event.ASSOCIATE_REQUEST, request, now)
        self.request = request
        return produced

    def connection_made(self, now: float) -> list[Produced]:
        """The transport connection is there, for either side (Evt2, Evt5)."""
        self.last_activity = now
        event = Event.TRANSPORT_CONFIRMED if self.is_requestor else Event.TRANSPORT_INDICATED
        produced = self._step(event, now)
        if self.state is State.AWAITING_AC_OR_RJ:
            # The standard leaves the wait for AC or RJ to the implementation; here it has ARTIM's deadline.
            self._start_artim()
        return produced

    def receive_data(self, data: memoryview, now: float) -> list[Produced]:
        """Bytes from the peer, cut anywhere."""
        self._now = self.last_activity = now
        if self.watched & _DATA_RECV:
            self._emit(Notice.DATA_RECV, bytes(data))
        if not (self._lost or self.closing or self.state in _UNCONNECTED):
            try:
                self._receiver.feed(data)
            except PeerProtocolError as error:
                self._invalid(error)
            self._assembler.flush()
            if self._hold is not None:
                self._hold(self._receiver.collected)
                if self.state is not State.AWAITING_RQ:
                    self._hold = None
        produced, self._produced = self._produced, []
        return produced

    def receive_eof(self, now: float, cause: str = "") -> list[Produced]:
        """The transport connection is closed, or lost for ``cause`` (Evt17)."""
        self._cause, self._aborted_by = cause, "transport"
        self._abort = Abort(_PROVIDER, 0)
        self._artim = None
        produced = self._step(Event.TRANSPORT_CLOSED, now)
        self.drop_outgoing()
        self._drop_received()
        self._receiver.close()
        return produced

    # ---- local primitives

    def accept(self, answer: AssociateAC, now: float) -> list[Produced]:
        """A-ASSOCIATE response primitive, accept (Evt7)."""
        return self._issue(Event.ASSOCIATE_ACCEPT, answer, now)

    def reject(self, answer: AssociateRJ, now: float) -> list[Produced]:
        """A-ASSOCIATE response primitive, reject (Evt8)."""
        return self._issue(Event.ASSOCIATE_REJECT, answer, now)

    def send(
        self, message: Message, source: Source | None, now: float, runs: Iterator[bytes | memoryview] | None = None
    ) -> list[Produced]:
        """P-DATA request primitive (Evt9): queue a message, whose dataset is read from ``source`` as it is sent.

        ``runs`` are those of the message, where they have been begun already.
        """
        self._now = self.last_activity = now
        if self.state is not _ESTABLISHED or self.watched & _FSM_TRANSITION:
            # Otherwise DT-1, which does nothing but what follows.
            self._fire(Event.P_DATA_REQUEST)
        length, encode = self.negotiated.maximum_length, self._encoder.encode
        if runs is None and source is not None:
            runs = message_runs(message, source, length, encode)
        self.outgoing.append((message, runs, source))
        command = message.command
        kind = command["CommandField"]
        if kind & _RESPONSE:
            if (kind, command["Status"]) not in _PENDING:
                self.performing.discard(command["MessageIDBeingRespondedTo"])
        elif kind != Command.C_CANCEL_RQ:
            self.invoked.add(command["MessageID"])
        produced, self._produced = self._produced, []
        return produced

    def release(self, now: float) -> list[Produced]:
        """A-RELEASE request primitive (Evt11)."""
        return self._step(Event.RELEASE_REQUEST, now)

    def release_response(self, now: float) -> list[Produced]:
        """A-RELEASE response primitive (Evt14)."""
        return self._step(Event.RELEASE_RESPONSE, now)

    def abort(self, now: float, cause: str = "", *, source: int = 0, reason: int = 0) -> list[Produced]:
        """A-ABORT request primitive (Evt15). Before an A-ASSOCIATE-RQ has come it closes the connection."""
        self._cause, self._aborted_by = cause, "local"
        self._abort = Abort(source, reason)
        self._now = now
        self._abort_or_close()
        return self._take()

    def _abort_or_close(self) -> None:
        if (self.state, Event.ABORT_REQUEST) in TRANSITIONS:
            self._fire(Event.ABORT_REQUEST)
        elif self.state is not State.IDLE:
            if self.state is State.AWAITING_RQ:
                self._indicate_aborted()
            # What is queued, the A-ABORT or A-RELEASE-RP that led here, still leaves.
            self.closing = True
            self._artim = None
            self._receiver.close()

    # ---- what goes out

    def data_to_send(self, now: float) -> tuple[bytes | memoryview | None, list[Produced]]:
        """The next bytes, or None: they must be written wholly before the next call."""
        self._now = now
        data = self._next_run()
        if data is not None and self.watched & _SENT:
            self._watch_sent(data)
        produced, self._produced = self._produced, []
        return data, produced

    @property
    def wants_to_send(self) -> bool:
        """Whether :meth:`data_to_send` has, or may have, more."""
        return bool(self.outgoing) or self.sending is not None

    def _next_run(self) -> bytes | memoryview | None:
        while self.sending is not None or self.outgoing:
            begun = self.sending is not None
            if self.sending is None:
                entry = self.outgoing.popleft()
                if isinstance(entry, bytes):
                    return entry
                self.sending = entry
            message, runs, _ = self.sending
            try:
                run = next(runs) if runs else self._encoder.encode(message, self.negotiated.maximum_length)
            except StopIteration:
                self._sent(message)
            except Exception as error:  # noqa: BLE001 - whatever a source raises, or an element that cannot be encoded
                self.sending = None
                self._send_failed(message, error, begun=begun)
            else:
                if not begun and self.watched & _DIMSE_SENT:
                    self._emit(Notice.DIMSE_SENT, message)
                if runs is None:
                    self._sent(message)
                return run
        return None

    def _sent(self, message: Message) -> None:
        self.sending = None
        if not message.command["CommandField"] & _RESPONSE:
            self._produced.append((Notice.MESSAGE_SENT, (message,)))

    def _send_failed(self, message: Message, error: Exception, *, begun: bool) -> None:
        self.invoked.discard(message.MessageID or 0)
        self.last_activity = self._now
        self._emit(Notice.SEND_FAILED, message, error)
        if begun:
            # Half a message is on the wire and cannot be taken back.
            self.drop_outgoing()
            self._cause, self._aborted_by, self._abort = f"a dataset could not be read: {error}", "local", Abort(0, 0)
            self._abort_or_close()

    def _watch_sent(self, data: bytes | memoryview) -> None:
        if self.watched & _PDU_SENT:
            position = 0
            while position < len(data):
                _, length = HEADER.unpack_from(data, position)
                stop = position + HEADER_SIZE + length
                self._emit(Notice.PDU_SENT, decode_pdu(memoryview(data)[position:stop]))
                position = stop
        if self.watched & _DATA_SENT:
            self._emit(Notice.DATA_SENT, bytes(data))

    # ---- time

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeout` is to be called, on the clock of ``now``."""
        if self._artim is not None:
            return self._artim
        idle = self._timeouts.idle
        if self.state is State.ESTABLISHED and idle is not None and not (self.invoked or self.performing):
            return self.last_activity + idle
        return None

    def handle_timeout(self, now: float) -> list[Produced]:
        """Act on a deadline that has passed; nothing happens before."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        self._aborted_by = "local"
        if self._artim is not None and self.state in (State.AWAITING_RQ, State.AWAITING_CLOSE):
            self._artim = None
            self._cause, self._abort = "no A-ASSOCIATE-RQ before ARTIM expired", Abort(0, 0)
            return self._step(Event.ARTIM_EXPIRED, now)
        self._artim = None
        phases = {State.AWAITING_AC_OR_RJ: "association", State.ESTABLISHED: "idle"}
        self.timed_out = phases.get(self.state, "release")
        return self.abort(now, f"timed out in phase '{self.timed_out}'")

    # ---- the state machine

    def _issue(self, event: Event, primitive: AssociateRQ | AssociateAC | AssociateRJ, now: float) -> list[Produced]:
        """A local primitive with a PDU: both are checked before anything changes."""
        self._cell(event)
        encode_pdu(primitive)
        self._primitive = primitive
        return self._step(event, now)

    def _step(self, event: Event, now: float) -> list[Produced]:
        self._now = now
        self._fire(event)
        return self._take()

    def _cell(self, event: Event) -> tuple[str, State] | None:
        cell = TRANSITIONS.get((self.state, event))
        if cell is None and event in _LOCAL:
            raise StateError(f"not possible in state {self.state.label}: {event.name.lower().replace('_', ' ')}")
        return cell

    def _fire(self, event: Event) -> None:
        cell = TRANSITIONS.get((self.state, event))
        if cell is None:
            self._cell(event)
            return
        action, following = cell
        if action in ALTERNATIVES and self._takes_alternative(action):
            following = ALTERNATIVES[action]
        before, self.state = self.state, following
        if self.watched & _FSM_TRANSITION:
            self._emit(Notice.FSM_TRANSITION, before.label, event.label, action, following.label)
        for step in ACTIONS[action]:
            _STEPS[step](self)

    def _takes_alternative(self, action: str) -> bool:
        if action == "AR-8":
            return not self.is_requestor
        return not self._primitive.protocol_version & 1

    def _emit(self, notice: Notice, *values: Any) -> None:
        if (self.watched | ALWAYS) >> notice & 1:
            self._produced.append((notice, values))

    def _take(self) -> list[Produced]:
        produced, self._produced = self._produced, []
        return produced

    def _send_pdu(self, pdu: PDU) -> None:
        self.outgoing.append(encode_pdu(pdu))
        self._emit(Notice.ACSE_SENT, pdu)

    def _send_associate(self) -> None:
        self._send_pdu(self._primitive)

    def _send_release_rq(self) -> None:
        self._send_pdu(ReleaseRQ())
        self._start_timer(self._timeouts.release)

    def _send_release_rp(self) -> None:
        self._send_pdu(ReleaseRP())

    def _send_abort(self) -> None:
        self.drop_outgoing()
        self._send_pdu(self._abort)

    def drop_outgoing(self) -> None:
        """Forget what cannot be sent any more."""
        for entry in (*self.outgoing, self.sending):
            if isinstance(entry, tuple) and entry[2] is not None:
                entry[2].close()
        self.outgoing.clear()
        self.sending = None

    def _start_artim(self) -> None:
        self._start_timer(self._timeouts.association)

    def _start_timer(self, seconds: float | None) -> None:
        self._artim = None if seconds is None else self._now + seconds

    def _stop_artim(self) -> None:
        self._artim = None

    def _close(self) -> None:
        # The peer has said its last word, or is given up: nothing that is queued matters to it any more.
        self.drop_outgoing()
        self.closing = True
        self._artim = None

    def _examine_request(self) -> None:
        self.request = self._primitive
        self.is_associated = True
        self._emit(Notice.ACSE_RECV, self._primitive)
        if self.state is State.AWAITING_CLOSE:
            self._primitive = AssociateRJ(1, 2, 2)
            self._send_associate()
            self._start_artim()
            self._indicate_rejected()
        else:
            self._emit(Notice.REQUESTED, self.request)

    def _indicate_accepted(self) -> None:
        self._artim = None
        self.last_activity = self._now
        self.is_associated = True
        self.answer = self._primitive
        if self.request is None or self.answer is None:
            raise StateError("accepted without a request")
        self.negotiated = negotiated(self.request, self.answer, as_requestor=self.is_requestor)
        self._syntaxes.update((each.context_id, each.transfer_syntax[0]) for each in self.negotiated.accepted)
        if self.is_requestor:
            self._emit(Notice.ACSE_RECV, self.answer)
        self._emit(Notice.ACCEPTED, self.answer)
        self._emit(Notice.ESTABLISHED)

    def _indicate_rejected(self) -> None:
        answer = self._primitive
        self._over = True
        if self.is_requestor:
            self._emit(Notice.ACSE_RECV, answer)
        self._emit(Notice.REJECTED, answer.result, answer.source, answer.reason)

    def _indicate_release(self) -> None:
        collision = self.state is State.COLLISION_ACCEPTOR_RP
        if self._primitive is not None:
            self._emit(Notice.ACSE_RECV, self._primitive)
        if not collision:
            self._emit(Notice.RELEASE_INDICATED)

    def _indicate_released(self) -> None:
        self._over = True
        if self.state is State.IDLE:
            self._emit(Notice.ACSE_RECV, self._primitive)
        self._emit(Notice.RELEASED)

    def _indicate_aborted(self) -> None:
        if self._aborted_by == "peer":
            self._emit(Notice.ACSE_RECV, self._abort)
        if not self._over:
            self._over = True
            self._emit(Notice.ABORTED, self._abort.source, self._abort.reason, self._aborted_by, self._cause)
        self._drop_received()

    def _drop_received(self) -> None:
        self._assembler.discard()
        self._receiver.skip()

    # ---- what comes in (the PDUHandler of the receiver)

    def _invalid(self, error: PeerProtocolError) -> None:
        self._lost = True
        provider = self.is_associated or self.is_requestor
        self._cause, self._aborted_by = str(error), "local"
        self._abort = Abort(_PROVIDER, error.reason) if provider else Abort(0, 0)
        self._fire(Event.INVALID_PDU)

    def begin_pdu(self, pdu_type: int, length: int) -> int:
        if pdu_type not in PDU_NAMES:
            raise PeerProtocolError(f"unrecognised PDU type {pdu_type:02X}H", _UNRECOGNISED_PDU)
        limit = {1: self._limits.associate, 2: self._limits.associate, P_DATA_TF: self._limits.receive}.get(pdu_type, 4)
        if length > limit:
            raise PeerProtocolError(f"a {PDU_NAMES[pdu_type]} of {length} bytes; {limit} is the limit", 6)
        if pdu_type != P_DATA_TF:
            return COLLECT
        if self.state not in (State.ESTABLISHED, State.AWAITING_RELEASE_RP):
            # Refused from its header, as table 9-10 has it for the whole PDU.
            self._unexpected(Event.P_DATA_RECEIVED, PDU_NAMES[pdu_type])
            return SKIP
        if length == 0:
            raise PeerProtocolError("a P-DATA-TF without a PDV", _INVALID_PARAMETER)
        if self.watched & _PDU_RECV:
            self._assembler.keep_copy()
        return STREAM

    def whole_fragment(self, context_id: int, control: int, data: memoryview) -> bool:
        size = len(data)
        ordinary = self.state is _ESTABLISHED and size <= self._largest_alone and not size & 1
        if not ordinary or self.watched & _PER_PDU:
            return False
        message = self._assembler.whole_fragment(context_id, control, data)
        if message is not None:
            self._indicate(message)
        return True

    def end_pdu(self, pdu: bytes) -> None:
        record = decode_pdu(pdu)
        self._emit(Notice.PDU_RECV, record)
        event = _RECEIVED[type(record)]
        if isinstance(record, Abort):
            self._abort, self._aborted_by, self._cause = record, "peer", ""
            self._fire(event)
        elif self._is_unexpected(event):
            self._unexpected(event, record.name)
        else:
            self._primitive = record
            self._fire(event)

    def _is_unexpected(self, event: Event) -> bool:
        cell = TRANSITIONS.get((self.state, event))
        return cell is not None and cell[0].startswith("AA-")

    def _unexpected(self, event: Event, name: str) -> None:
        if self.state is not State.AWAITING_CLOSE:
            self._cause, self._aborted_by = f"unexpected {name} in state {self.state.label}", "local"
            self._abort = Abort(0, 0) if self.state is State.AWAITING_RQ else Abort(_PROVIDER, _UNEXPECTED_PDU)
        self._fire(event)

    def begin_fragment(self, context_id: int, control: int, length: int) -> None:
        if length & 1 and not self._warned_of_odd:
            self._warned_of_odd = True
            self._emit(Notice.WARNING, f"the peer sent a fragment of {length} bytes, which is odd (PS3.8 §9.3.1)")
        self._assembler.begin_fragment(context_id, control, length)

    def fragment_data(self, data: memoryview) -> None:
        self._assembler.write(data)

    def end_fragment(self) -> None:
        self._assembler.end_fragment()

    def end_p_data(self) -> None:
        record = self._assembler.copied()
        if record is not None:
            self._emit(Notice.PDU_RECV, record)
        self._fire(Event.P_DATA_RECEIVED)
        for message in self._assembler.take():
            self._indicate(message)

    def _indicate(self, message: Message) -> None:
        """P-DATA indication of a whole message."""
        command = message.command
        kind = command["CommandField"]
        if kind & _RESPONSE:
            if (kind, command["Status"]) not in _PENDING:
                self.invoked.discard(command["MessageIDBeingRespondedTo"])
        elif kind != Command.C_CANCEL_RQ:
            self.performing.add(command["MessageID"])
        self._produced.append((Notice.DIMSE_RECV, (message,)))


_STEPS: dict[str, Callable[[Protocol], None]] = {
    step: getattr(Protocol, f"_{step}") for steps in ACTIONS.values() for step in steps
}
