"""A Protocol without a network: what two sides exchange, and the public calls that bring one into any state."""

import hashlib
from collections.abc import Callable, Sequence

from rxdicom.protocol.assembler import MemorySink, OpenSink
from rxdicom.protocol.fsm import Event, State
from rxdicom.protocol.negotiation import Replies, accept, propose
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Limits, Policy, SupportedContext, Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.wire.dimse import Command, Message, encode_command_set, message
from rxdicom.wire.encoded import BytesSource, Encoded
from rxdicom.wire.pdata import message_runs
from rxdicom.wire.pdu import (
    HEADER,
    HEADER_SIZE,
    PDU,
    PDV,
    Abort,
    AssociateRJ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
    encode_pdu,
)
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

CT = "1.2.840.10008.5.1.4.1.1.2"
ECHO_CONTEXT, CT_CONTEXT, REFUSED_CONTEXT = 1, 3, 5
MAXIMUM_LENGTH = 16384
EVERYTHING = (1 << len(Notice)) - 1
TERMINAL = (Notice.REJECTED, Notice.RELEASED, Notice.ABORTED)

LIMITS = Limits(pdu=MAXIMUM_LENGTH)
TIMEOUTS = Timeouts(association=30, idle=60, release=20)
PATIENT = Timeouts(association=None, idle=None, release=None)

REQUEST = propose(
    "PACS",
    "MODALITY",
    [
        (VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN]),
        (CT, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]),
        ("1.2.3", [IMPLICIT_VR_LITTLE_ENDIAN]),
    ],
    maximum_length=MAXIMUM_LENGTH,
)
POLICY = Policy(
    (
        SupportedContext(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        SupportedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    )
)
ANSWER = accept(REQUEST, POLICY, MAXIMUM_LENGTH, Replies())
REJECTION = AssociateRJ(1, 1, 3)

Step = Callable[[Protocol, float], list[Produced]]


def echo_rq(message_id: int = 1) -> Message:
    return message(Command.C_ECHO_RQ, ECHO_CONTEXT, MessageID=message_id, AffectedSOPClassUID=VERIFICATION)


def echo_rsp(message_id: int = 1, status: int = 0) -> Message:
    return message(Command.C_ECHO_RSP, ECHO_CONTEXT, MessageIDBeingRespondedTo=message_id, Status=status)


def find_rq(data: bytes = b"query ", message_id: int = 1) -> Message:
    identifier = Encoded(IMPLICIT_VR_LITTLE_ENDIAN, data)
    return message(Command.C_FIND_RQ, CT_CONTEXT, identifier, MessageID=message_id, Priority=0, AffectedSOPClassUID=CT)


def find_rsp(message_id: int = 1, status: int = 0) -> Message:
    return message(Command.C_FIND_RSP, CT_CONTEXT, MessageIDBeingRespondedTo=message_id, Status=status)


def store_rq(data: bytes, message_id: int = 1) -> Message:
    return message(
        Command.C_STORE_RQ,
        CT_CONTEXT,
        Encoded(IMPLICIT_VR_LITTLE_ENDIAN, data),
        MessageID=message_id,
        Priority=0,
        AffectedSOPClassUID=CT,
        AffectedSOPInstanceUID="1.2.3.4",
    )


def command(sent: Message, control: int = 3) -> PDV:
    """The whole command set of a message as one fragment."""
    return PDV(sent.context_id, control, encode_command_set(sent.command))


def stream(sent: Message, maximum_length: int = MAXIMUM_LENGTH) -> bytes:
    """A message as it leaves, in PDUs of at most ``maximum_length`` bytes."""
    source = None if sent.data is None else BytesSource(sent.data.data or b"")
    return b"".join(bytes(run) for run in message_runs(sent, source, maximum_length))


def encoded(pdu: PDU | bytes) -> bytes:
    return pdu if isinstance(pdu, bytes) else encode_pdu(pdu)


def receive(protocol: Protocol, *pdus: PDU | bytes, now: float = 0.0) -> list[Produced]:
    """Let ``protocol`` receive PDUs, or bytes of them, as one chunk in a buffer that is reused afterwards."""
    buffer = bytearray(b"".join(map(encoded, pdus)))
    produced = protocol.receive_data(memoryview(buffer), now)
    buffer[:] = b"\xaa" * len(buffer)
    return produced


def sent(protocol: Protocol, now: float = 0.0) -> list[PDU]:
    """Everything that goes out, as PDUs."""
    found: list[PDU] = []
    while True:
        data, _ = protocol.data_to_send(now)
        if data is None:
            return found
        found += split(bytes(data))


def split(data: bytes) -> list[PDU]:
    """The whole PDUs that ``data`` consists of."""
    found: list[PDU] = []
    while data:
        end = HEADER_SIZE + HEADER.unpack_from(data)[1]
        found.append(decode_pdu(data[:end]))
        data = data[end:]
    return found


def contents(received: Sequence[Message]) -> list[tuple[dict[str, object], int, str | None]]:
    """What messages consist of, their datasets as hashes."""
    return [
        (
            {key: value for key, value in each.command.items() if key != "CommandGroupLength"},
            each.context_id,
            None if each.data is None else hashlib.sha256(each.data.data or b"").hexdigest(),
        )
        for each in received
    ]


def of(produced: list[Produced], *notices: Notice) -> list[Produced]:
    """Those of some kinds."""
    return [each for each in produced if each[0] in notices]


def aborts(produced: list[Produced]) -> list[tuple[int, int, str]]:
    """(source, reason, by) of the ABORTED notices."""
    return [values[:3] for _, values in of(produced, Notice.ABORTED)]


def messages(produced: list[Produced]) -> list[Message]:
    return [values[0] for _, values in of(produced, Notice.DIMSE_RECV)]


# ---- the events of table 9-10 as public calls, and the way to each state

UNKNOWN_PDU = bytes((0x7F, 0, 0, 0, 0, 2, 1, 1))


def receives(*pdus: PDU | bytes) -> Step:
    return lambda protocol, now: receive(protocol, *pdus, now=now)


EVENTS: dict[Event, Step] = {
    Event.ASSOCIATE_REQUEST: lambda protocol, now: protocol.connect(REQUEST, now),
    Event.TRANSPORT_CONFIRMED: lambda protocol, now: protocol.connection_made(now),
    Event.AC_RECEIVED: receives(ANSWER),
    Event.RJ_RECEIVED: receives(REJECTION),
    Event.TRANSPORT_INDICATED: lambda protocol, now: protocol.connection_made(now),
    Event.RQ_RECEIVED: receives(REQUEST),
    Event.ASSOCIATE_ACCEPT: lambda protocol, now: protocol.accept(ANSWER, now),
    Event.ASSOCIATE_REJECT: lambda protocol, now: protocol.reject(REJECTION, now),
    Event.P_DATA_REQUEST: lambda protocol, now: protocol.send(echo_rq(), None, now),
    Event.P_DATA_RECEIVED: receives(PDataTF((command(echo_rq(7)),))),
    Event.RELEASE_REQUEST: lambda protocol, now: protocol.release(now),
    Event.RELEASE_RQ_RECEIVED: receives(ReleaseRQ()),
    Event.RELEASE_RP_RECEIVED: receives(ReleaseRP()),
    Event.RELEASE_RESPONSE: lambda protocol, now: protocol.release_response(now),
    Event.ABORT_REQUEST: lambda protocol, now: protocol.abort(now, "wanted"),
    Event.ABORT_RECEIVED: receives(Abort(2, 5)),
    Event.TRANSPORT_CLOSED: lambda protocol, now: protocol.receive_eof(now, "cable"),
    Event.ARTIM_EXPIRED: lambda protocol, now: protocol.handle_timeout(protocol.next_deadline() or now),
    Event.INVALID_PDU: receives(UNKNOWN_PDU),
}

_AS_REQUESTOR = (1, 2, 3)
_AS_ACCEPTOR = (5, 6, 7)
_ROUTES: dict[tuple[int, bool], tuple[int, ...]] = {
    (1, True): (),
    (1, False): (),
    (2, False): (5,),
    (3, False): (5, 6),
    (4, True): (1,),
    (5, True): (1, 2),
    (9, True): (*_AS_REQUESTOR, 11, 12),
    (10, False): (*_AS_ACCEPTOR, 11, 12),
    (11, True): (*_AS_REQUESTOR, 11, 12, 14),
    (12, False): (*_AS_ACCEPTOR, 11, 12, 13),
    **{(6 + n, True): (*_AS_REQUESTOR, *events) for n, events in enumerate(((), (11,), (12,)))},
    **{(6 + n, False): (*_AS_ACCEPTOR, *events) for n, events in enumerate(((), (11,), (12,)))},
    (13, True): (*_AS_REQUESTOR, 15),
    (13, False): (*_AS_ACCEPTOR, 12, 14),
}
"""The events that lead to a state, by role; what is not here cannot be reached in that role."""

REACHABLE = tuple((State(state), is_requestor) for state, is_requestor in _ROUTES)


def in_state(
    state: State,
    is_requestor: bool,
    *,
    limits: Limits = LIMITS,
    timeouts: Timeouts = TIMEOUTS,
    open_sink: OpenSink = MemorySink,
    watched: int = EVERYTHING,
) -> Protocol:
    """A Protocol that came into ``state`` at time 0, with nothing left to send."""
    protocol = Protocol(is_requestor=is_requestor, limits=limits, timeouts=timeouts, open_sink=open_sink)
    protocol.watched = watched
    for number in _ROUTES[state, is_requestor]:
        EVENTS[Event(number)](protocol, 0.0)
        sent(protocol)
    assert protocol.state is state
    return protocol


def established(is_requestor: bool = False, **options: object) -> Protocol:
    return in_state(State.ESTABLISHED, is_requestor, **options)  # pyright: ignore[reportArgumentType]
