"""What is logged of the life of associations: observers like any others, chosen by the level of the logger.

At INFO how each association began and ended; at DEBUG every PDU of association control and every message, a line each
with its structured fields, and aligned lines of detail behind it. Where patient data is asked for, also the heads of
datasets.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from attrs import define, field

from rxdicom.errors import aborted, rejected
from rxdicom.events import kinds
from rxdicom.log import LOG, AssociationLogger, concerning, wants_phi
from rxdicom.wire.items import UserIdentity
from rxdicom.wire.pdu import AssociateRQ

if TYPE_CHECKING:
    from rxdicom.events import records
    from rxdicom.events.bindings import EventHandler
    from rxdicom.protocol.negotiation import NegotiatedContext
    from rxdicom.wire.dimse import Message

_SHOWN = 3
"""Accepted SOP classes that are listed at INFO."""
_SENT = (kinds.EVT_ACSE_SENT, kinds.EVT_DIMSE_SENT)
_NAMED_IDENTITIES = (1, 2)


def observers() -> "list[EventHandler]":
    """The observers that log, ready to be bound to an association, a server or an AE; none if the level is off.

    What ``rxdicom`` and ``rxdicom.phi`` are set to counts now, when they are bound: nothing is built for what nobody
    will see.
    """
    journal = _Journal()
    chosen: list[EventHandler] = []
    if LOG.isEnabledFor(logging.INFO):
        chosen += [
            (kinds.EVT_ESTABLISHED, journal.on_established),
            (kinds.EVT_REJECTED, journal.on_rejected),
            (kinds.EVT_RELEASED, journal.on_released),
            (kinds.EVT_ABORTED, journal.on_aborted),
        ]
    if LOG.isEnabledFor(logging.DEBUG) or wants_phi():
        chosen += [
            (kinds.EVT_CONN_OPEN, journal.on_opened),
            (kinds.EVT_CONN_CLOSE, journal.on_closed),
            (kinds.EVT_ACSE_RECV, journal.on_control),
            (kinds.EVT_ACSE_SENT, journal.on_control),
            (kinds.EVT_DIMSE_RECV, journal.on_message),
            (kinds.EVT_DIMSE_SENT, journal.on_message),
        ]
    return chosen


@define
class _Course:
    """What is remembered of one association."""

    log: AssociationLogger
    who: dict[str, Any] = field(factory=dict[str, Any])
    began: datetime | None = None
    request: AssociateRQ | None = None
    asked: dict[tuple[bool, int], datetime] = field(factory=dict[tuple[bool, int], datetime])
    """When each outstanding request went by, by whether it was sent and its message ID."""


class _Journal:
    """The observers. They may be bound to any number of associations, each of which is told apart."""

    def __init__(self) -> None:
        self._courses: WeakKeyDictionary[Any, _Course] = WeakKeyDictionary()

    def _course(self, event: "records.Event") -> _Course:
        found = self._courses.get(event.assoc)
        if found is None:
            found = self._courses.setdefault(event.assoc, _Course(concerning(event)))
        return found

    def _log(
        self, level: int, event: "records.Event", text: str, *values: object, lines: Iterable[str] = (), **fields: Any
    ) -> None:
        """A record with the structured fields that all have, and one more for each line of detail."""
        course = self._course(event)
        if not course.who.get("calling_ae_title"):
            course.who = _participants(event.assoc)
        extra = {"event": event.name, **course.who, **{key: each for key, each in fields.items() if each is not None}}
        course.log.log(level, text, *values, extra=extra)
        for line in lines:
            course.log.log(level, "%s", line, extra={**extra, "detail": True})

    # ---- INFO

    def on_established(self, event: "records.Established") -> None:
        assoc, course = event.assoc, self._course(event)
        course.began = event.timestamp
        accepted, refused = assoc.accepted_contexts, assoc.rejected_contexts
        classes = list(dict.fromkeys(each.abstract_syntax for each in accepted))
        more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
        self._log(
            logging.INFO,
            event,
            "association with %r, %d of %d contexts accepted%s%s%s",
            assoc.acceptor if assoc.is_requestor else assoc.requestor,
            len(accepted),
            len(accepted) + len(refused),
            ": " if classes else "",
            ", ".join(classes[:_SHOWN]),
            more,
            accepted_contexts=[_context(each) for each in accepted],
            rejected_contexts=[_context(each) for each in refused],
        )

    def on_rejected(self, event: "records.Rejected") -> None:
        self._log(
            logging.INFO,
            event,
            "%s (result %d, source %d, reason %d)",
            rejected(event.result, event.source, event.reason),
            event.result,
            event.source,
            event.reason,
            result=event.result,
            source=event.source,
            reason=event.reason,
        )

    def on_released(self, event: "records.Released") -> None:
        seconds = _seconds(self._course(event).began, event.timestamp)
        after = "" if seconds is None else f" after {seconds:.3f} s"
        self._log(logging.INFO, event, "released%s", after, duration=seconds)

    def on_aborted(self, event: "records.Aborted") -> None:
        self._log(
            logging.INFO,
            event,
            "%s (source %d, reason %d)",
            aborted(event.source, event.reason, event.by, event.cause),
            event.source,
            event.reason,
            source=event.source,
            reason=event.reason,
            by=event.by,
            cause=event.cause or None,
            duration=_seconds(self._course(event).began, event.timestamp),
        )

    # ---- DEBUG

    def on_opened(self, event: "records.ConnectionOpened") -> None:
        towards = "to" if event.assoc.is_requestor else "from"
        self._log(logging.DEBUG, event, "connection %s %s:%d", towards, *event.address)

    def on_closed(self, event: "records.ConnectionClosed") -> None:
        self._log(logging.DEBUG, event, "connection closed")

    def on_control(self, event: "records.ACSEReceived | records.ACSESent") -> None:
        from rxdicom.events import transcript

        course, pdu, direction = self._course(event), event.primitive, _direction(event)
        if isinstance(pdu, AssociateRQ):
            course.request = pdu
        summary, lines = transcript.control(pdu, course.request, as_requestor=event.assoc.is_requestor)
        self._log(
            logging.DEBUG, event, f"{direction} %s%s", pdu.name, summary, lines=lines, direction=direction, pdu=pdu.name
        )
        for identity in pdu.items_of(UserIdentity) if isinstance(pdu, AssociateRQ) else ():
            if identity.type in _NAMED_IDENTITIES:
                course.log.phi("user name: %s", identity.primary.decode("utf-8", "backslashreplace"))

    def on_message(self, event: "records.DIMSEReceived | records.DIMSESent") -> None:
        from rxdicom.events import transcript

        message, course, direction = event.message, self._course(event), _direction(event)
        if LOG.isEnabledFor(logging.DEBUG):
            syntax = _abstract_syntax(course, message)
            summary, lines = transcript.message(message, syntax)
            fields = _message_fields(message)
            if message.is_response:
                fields["status_category"] = transcript.status(message, syntax).category
            seconds = _since_request(course, event)
            after = "" if seconds is None else f", after {seconds:.3f} s"
            self._log(
                logging.DEBUG,
                event,
                f"{direction} %s%s%s",
                message.name,
                summary,
                after,
                lines=lines,
                direction=direction,
                duration=seconds,
                **fields,
            )
        if message.data is not None and wants_phi():
            from rxdicom.events.excerpt import excerpt

            course.log.phi("the dataset of %s:", message.name)
            for line in excerpt(message.data):
                course.log.phi("%s", line)


def _participants(assoc: Any) -> dict[str, Any]:
    peer = assoc.acceptor if assoc.is_requestor else assoc.requestor
    return {
        "role": "requestor" if assoc.is_requestor else "acceptor",
        "calling_ae_title": assoc.requestor.ae_title,
        "called_ae_title": assoc.acceptor.ae_title,
        "peer_address": peer.address,
        "peer_port": peer.port,
    }


def _context(context: "NegotiatedContext") -> dict[str, Any]:
    """A presentation context as a structured field."""
    return {
        "context_id": context.context_id,
        "abstract_syntax": context.abstract_syntax,
        "transfer_syntax": list(context.transfer_syntax),
        "result": context.result,
    }


def _message_fields(message: "Message") -> dict[str, Any]:
    answered = message.MessageIDBeingRespondedTo
    return {
        "message_type": message.name,
        "message_id": message.MessageID if answered is None else answered,
        "context_id": message.context_id,
        "sop_class_uid": message.AffectedSOPClassUID or message.RequestedSOPClassUID,
        "sop_instance_uid": message.AffectedSOPInstanceUID or message.RequestedSOPInstanceUID,
        "status": message.Status,
        "dataset_size": None if message.data is None else message.data.size,
        "transfer_syntax": None if message.data is None else message.data.transfer_syntax,
    }


def _direction(event: "records.Event") -> str:
    return "sent" if event.event in _SENT else "received"


def _abstract_syntax(course: _Course, message: "Message") -> str:
    proposed = () if course.request is None else course.request.presentation_contexts
    return next((each.abstract_syntax for each in proposed if each.context_id == message.context_id), "")


def _since_request(course: _Course, event: "records.DIMSEReceived | records.DIMSESent") -> float | None:
    """Note a request; how long a response took, in seconds."""
    message, was_sent = event.message, event.event is kinds.EVT_DIMSE_SENT
    if message.is_response:
        return _seconds(course.asked.get((not was_sent, message.MessageIDBeingRespondedTo or 0)), event.timestamp)
    if message.MessageID is not None:
        course.asked[was_sent, message.MessageID] = event.timestamp
    return None


def _seconds(began: datetime | None, now: datetime) -> float | None:
    # Of a wall clock, which may be set back.
    return None if began is None else max(0.0, (now - began).total_seconds())
