"""One association as somebody hears it who takes no part: the bytes of both directions in, the events of one side out.

It uses the protocol's receiver, assembler and negotiation, and has no state machine: what a side did is known only by
what it sent.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import evolve

from rxdicom.errors import PeerProtocolError
from rxdicom.events.hub import Hub
from rxdicom.log import LOG
from rxdicom.protocol.assembler import Assembler
from rxdicom.protocol.negotiation import Negotiated, negotiated
from rxdicom.protocol.notices import Notice
from rxdicom.protocol.policy import Limits
from rxdicom.protocol.receiver import COLLECT, STREAM, Receiver
from rxdicom.recording.associations import RecordedAssociation
from rxdicom.recording.player import complete
from rxdicom.runtimes.files import SinkFactory, forget
from rxdicom.runtimes.publisher import Publisher
from rxdicom.wire.pdu import (
    P_DATA_TF,
    PDU,
    PDU_NAMES,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ReleaseRP,
    decode_pdu,
)

_LIMITS = Limits()


class Wiretap:
    """The events of an association into its own hub and ``hub``, at the times that it is told."""

    def __init__(self, assoc: RecordedAssociation, hub: Hub, opened: datetime) -> None:
        self.assoc = assoc
        self._hubs = (assoc.hub, hub)
        self._now = opened
        self._publisher = Publisher(assoc, self._hubs, lambda: self._now)
        self._directions = {received: _Direction(self, received) for received in (True, False)}
        self._request: AssociateRQ | None = None
        self._negotiated = Negotiated()
        self._over = False
        self.publish(Notice.CONN_OPEN, self._remote)

    # ---- what is heard

    def hear(self, at: datetime, *, from_requestor: bool, data: bytes) -> None:
        """Bytes of one direction, cut anywhere."""
        self._now = at
        received = from_requestor != self.assoc.is_requestor
        if received:
            self.publish(Notice.DATA_RECV, data)
        if not self.assoc.damage:
            try:
                self._directions[received].feed(data)
            except PeerProtocolError as error:
                self._damaged(str(error))
        if not received:
            self.publish(Notice.DATA_SENT, data)

    def lose(self, at: datetime, size: int) -> None:
        """Bytes were not captured: what follows cannot be understood."""
        self._now = at
        if not self.assoc.damage:
            self._damaged(f"{size} bytes are missing in the capture")

    def close(self, at: datetime) -> None:
        """The connection is closed."""
        self._now = at
        if not self._over and not self.assoc.damage:
            self._over = True
            self.publish(Notice.ABORTED, 2, 0, "transport", "")
        self.publish(Notice.CONN_CLOSE, self._remote)
        self.end()

    def end(self) -> None:
        """There is no more to hear."""
        for direction in self._directions.values():
            direction.assembler.discard()
        complete(self.assoc)

    # ---- what it means

    @property
    def _remote(self) -> tuple[str, int]:
        peer = self.assoc.acceptor if self.assoc.is_requestor else self.assoc.requestor
        return peer.address, peer.port

    def _damaged(self, cause: str) -> None:
        self.assoc.damage = cause
        LOG.warning("%s: not understood from here on: %s", self.assoc.name, cause)

    def watches(self, notice: Notice) -> bool:
        """Whether anybody observes a kind of event right now."""
        return bool(self._publisher.mask() >> notice & 1)

    def publish(self, notice: Notice, *values: Any) -> None:
        """Have the observers see an event."""
        if self._publisher.publish(notice, values):
            self._publisher.deliver(None)

    def understand(self, pdu: PDU, *, received: bool) -> None:
        """A PDU of association control: told in the order in which the side itself would have."""
        outcome = _OUTCOMES.get(type(pdu))
        before = isinstance(pdu, AssociateRQ) and not received
        if received:
            self.publish(Notice.PDU_RECV, pdu)
        self._learn(pdu)
        if before and outcome is not None:
            outcome(self, pdu, received)
        self.publish(Notice.ACSE_RECV if received else Notice.ACSE_SENT, pdu)
        if not before and outcome is not None:
            outcome(self, pdu, received)
        if not received:
            self.publish(Notice.PDU_SENT, pdu)

    def _learn(self, pdu: PDU) -> None:
        assoc = self.assoc
        if isinstance(pdu, AssociateRQ):
            self._request = pdu
            assoc.requestor = evolve(assoc.requestor, ae_title=pdu.calling_ae_title, **_said_by(pdu))
            assoc.acceptor = evolve(assoc.acceptor, ae_title=pdu.called_ae_title)
        elif isinstance(pdu, AssociateAC) and self._request is not None:
            self._negotiated = negotiated(self._request, pdu, as_requestor=assoc.is_requestor)
            assoc.acceptor = evolve(assoc.acceptor, **_said_by(pdu))
            assoc.accepted_contexts = self._negotiated.accepted
            assoc.rejected_contexts = self._negotiated.rejected

    def syntax_of(self, context_id: int) -> str | None:
        """The transfer syntax of an accepted context."""
        context = self._negotiated.contexts.get(context_id)
        return context.transfer_syntax[0] if context is not None and context.result == 0 else None

    def requested(self, pdu: AssociateRQ, received: bool) -> None:
        del pdu, received
        self.publish(Notice.REQUESTED)

    def accepted(self, pdu: AssociateAC, received: bool) -> None:
        del pdu, received
        self.publish(Notice.ACCEPTED)
        self.publish(Notice.ESTABLISHED)

    def _ended(self, notice: Notice, *values: Any) -> None:
        if not self._over:
            self._over = True
            self.publish(notice, *values)

    def rejected(self, pdu: AssociateRJ, received: bool) -> None:
        del received
        self._ended(Notice.REJECTED, pdu.result, pdu.source, pdu.reason)

    def released(self, pdu: ReleaseRP, received: bool) -> None:
        del pdu, received
        self._ended(Notice.RELEASED)

    def aborted(self, pdu: Abort, received: bool) -> None:
        self._ended(Notice.ABORTED, pdu.source, pdu.reason, "peer" if received else "local", "")


_OUTCOMES: dict[type, Callable[[Wiretap, Any, bool], None]] = {
    AssociateRQ: Wiretap.requested,
    AssociateAC: Wiretap.accepted,
    AssociateRJ: Wiretap.rejected,
    ReleaseRP: Wiretap.released,
    Abort: Wiretap.aborted,
}
"""What a PDU of association control means for the association."""


def _said_by(pdu: AssociateRQ | AssociateAC) -> dict[str, Any]:
    return {
        "user_information": pdu.user_information,
        "implementation_class_uid": pdu.implementation_class_uid,
        "implementation_version_name": pdu.implementation_version_name,
    }


class _Direction:
    """What one side says (the PDUHandler of a receiver)."""

    def __init__(self, tap: Wiretap, received: bool) -> None:
        self._tap = tap
        self._received = received
        self._pdu = Notice.PDU_RECV if received else Notice.PDU_SENT
        self._message = Notice.DIMSE_RECV if received else Notice.DIMSE_SENT
        self._receiver = Receiver(self)
        self.assembler = Assembler(tap.syntax_of, SinkFactory(_LIMITS, None, ""), _LIMITS.dataset)

    def feed(self, data: bytes) -> None:
        self._receiver.feed(memoryview(data))
        self.assembler.flush()

    def begin_pdu(self, pdu_type: int, length: int) -> int:
        if pdu_type not in PDU_NAMES:
            raise PeerProtocolError(f"unrecognised PDU type {pdu_type:02X}H")
        if length > (_LIMITS.pdu_unlimited if pdu_type == P_DATA_TF else _LIMITS.associate):
            raise PeerProtocolError(f"a {PDU_NAMES[pdu_type]} of {length} bytes")
        if pdu_type != P_DATA_TF:
            return COLLECT
        if self._tap.watches(self._pdu):
            self.assembler.keep_copy()
        return STREAM

    def whole_fragment(self, context_id: int, control: int, data: memoryview) -> bool:
        del context_id, control, data
        return False

    def end_pdu(self, pdu: bytes) -> None:
        self._tap.understand(decode_pdu(pdu), received=self._received)

    def begin_fragment(self, context_id: int, control: int, length: int) -> None:
        self.assembler.begin_fragment(context_id, control, length)

    def fragment_data(self, data: memoryview) -> None:
        self.assembler.write(data)

    def end_fragment(self) -> None:
        self.assembler.end_fragment()

    def end_p_data(self) -> None:
        record = self.assembler.copied()
        if record is not None:
            self._tap.publish(self._pdu, record)
        for message in self.assembler.take():
            self._tap.publish(self._message, message)
            forget(message.data)
