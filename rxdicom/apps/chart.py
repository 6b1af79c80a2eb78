"""The sequence chart of an association, drawn from its events: who sent what, and when. Events in, lines out."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from attrs import astuple, evolve, frozen

from rxdicom import Status, evt
from rxdicom.apps.console import escaped, size
from rxdicom.sop_class import uid_to_sop_class

KINDS = (evt.EVT_PDU_SENT, evt.EVT_PDU_RECV, evt.EVT_DIMSE_SENT, evt.EVT_DIMSE_RECV)
"""The events that a chart is drawn from."""
WITHOUT_PDUS = (evt.EVT_ACSE_SENT, evt.EVT_ACSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_DIMSE_RECV)
"""The same where PDUs were not observed: then P-DATA-TF are not counted."""

_SENT = (evt.EVT_PDU_SENT, evt.EVT_ACSE_SENT, evt.EVT_DIMSE_SENT)
_MESSAGES = (evt.EVT_DIMSE_SENT, evt.EVT_DIMSE_RECV)
_TIME, _NOTE = 9, 14


@frozen
class Step:
    """One arrow: a PDU of association control, or a message with the number of P-DATA-TF PDUs that it travelled in."""

    at: datetime
    is_sent: bool
    """Whether it went from the requestor to the acceptor."""
    label: str
    fragments: int = 0


@frozen
class Glyphs:
    """What arrows are made of."""

    line: str
    left: str
    right: str
    rail: str
    gap: str


UNICODE = Glyphs("─", "◀", "▶", "│", "⋮")
ASCII = Glyphs("-", "<", ">", "|", ":")


def finest(encoding: str | None) -> Glyphs:
    """The finest glyphs that an encoding has."""
    try:
        "".join(astuple(UNICODE)).encode(encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII
    return UNICODE


class Course:
    """The steps of one association, from its events of :data:`KINDS`, or of :data:`WITHOUT_PDUS`, in their order.

    A message is told after the PDUs in which it came, and before those in which it is sent; but in a packet capture
    after those (``overheard``).
    """

    def __init__(self, *, overheard: bool = False) -> None:
        self.steps: list[Step] = []
        self._overheard = overheard
        # By whether they were sent: PDUs that await their message.
        self._pending = {True: 0, False: 0}
        self._message_at = -1

    def add(self, event: Any) -> None:
        """Take one more event."""
        was_sent = event.event in _SENT
        # As the requestor sees it, whichever side it was observed on.
        is_sent = was_sent == (event.assoc is None or event.assoc.is_requestor)
        told_first = was_sent and not self._overheard
        if event.event in _MESSAGES:
            fragments = 0 if told_first else self._pending[was_sent]
            self.steps.append(Step(event.timestamp, is_sent, describe_message(event.message), fragments))
            self._pending[was_sent] = 0
            if told_first:
                self._message_at = len(self.steps) - 1
            return
        pdu = getattr(event, "pdu", None) or event.primitive
        if pdu.name != "P-DATA-TF":
            self.steps.append(Step(event.timestamp, is_sent, describe_pdu(pdu)))
        elif not told_first:
            self._pending[was_sent] += 1
        elif self._message_at >= 0:
            told = self.steps[self._message_at]
            self.steps[self._message_at] = evolve(told, fragments=told.fragments + 1)


def steps(events: Iterable[Any]) -> list[Step]:
    """The steps of one association, from its events of :data:`KINDS` in their order."""
    course = Course()
    for event in events:
        course.add(event)
    return course.steps


def _contexts(pdu: Any) -> str:
    count = len(pdu.presentation_contexts)
    return f"{count} presentation context{'s' * (count != 1)}"


def _answers(pdu: Any) -> str:
    accepted = sum(context.result == 0 for context in pdu.presentation_contexts)
    return f"{accepted} of {len(pdu.presentation_contexts)} accepted"


def _codes(pdu: Any) -> str:
    return f"source {pdu.source}, reason {pdu.reason}"


_DETAILS: dict[str, Callable[[Any], str]] = {
    "A-ASSOCIATE-RQ": _contexts,
    "A-ASSOCIATE-AC": _answers,
    "A-ASSOCIATE-RJ": _codes,
    "A-ABORT": _codes,
}


def describe_pdu(pdu: Any) -> str:
    """A PDU of association control in a few words."""
    detail = _DETAILS.get(pdu.name)
    return f"{pdu.name}: {detail(pdu)}" if detail else pdu.name


def describe_message(message: Any) -> str:
    """A message in a few words, without patient data."""
    if message.is_response:
        status = Status(message.Status)
        what = f"0x{status:04X} {status.description or status.category}"
        return f"{message.name} {message.MessageIDBeingRespondedTo}: {what}"
    named = message.AffectedSOPClassUID or message.RequestedSOPClassUID
    data = "" if message.data is None else size(message.data.size)
    sop_class = uid_to_sop_class(named).name.removesuffix(" Storage") if named else ""
    what = ", ".join(part for part in (data, sop_class) if part)
    return f"{message.name} {message.MessageID or message.MessageIDBeingRespondedTo}: {what}".removesuffix(": ")


def draw(
    done: Sequence[Step],
    requestor: str,
    acceptor: str,
    *,
    width: int = 80,
    shown: int = 12,
    glyphs: Glyphs = UNICODE,
) -> list[str]:
    """The chart as the requestor saw it, in lines of at most ``width`` columns: ``shown`` steps, without the middle."""
    if not done:
        return []
    span = width - _TIME - _NOTE
    left, right = escaped(requestor), escaped(acceptor)
    lines = [f"{'ms':>{_TIME - 2}}  {left}{right:>{max(span - len(left), len(right) + 1)}}"]
    tail = shown // 2 if len(done) > shown else 0
    begun = done[0].at
    for step in done[: shown - tail]:
        lines.append(_line(step, begun, span, glyphs))
    if tail:
        left_out = f"{glyphs.gap} {len(done) - shown} more {glyphs.gap}".center(span - 2)
        lines.append(f"{'':{_TIME}}{glyphs.rail}{left_out}{glyphs.rail}")
        lines += [_line(step, begun, span, glyphs) for step in done[-tail:]]
    return lines


def _line(step: Step, begun: datetime, span: int, glyphs: Glyphs) -> str:
    inner = span - 2
    label = f" {escaped(step.label)[: inner - 6]} ".center(inner - 1, glyphs.line)
    arrow = f"{label}{glyphs.right}" if step.is_sent else f"{glyphs.left}{label}"
    at = (step.at - begun).total_seconds() * 1000
    note = f"  {step.fragments} P-DATA" if step.fragments else ""
    return f"{at:{_TIME - 2}.1f}  {glyphs.rail}{arrow}{glyphs.rail}{note}"
