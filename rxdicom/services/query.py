"""C-FIND (PS3.7 §9.1.2, PS3.4 Annex C.4.1): a pending response per match, then the final one without identifier."""

from typing import Any

from rxdicom.events.datasets import encode
from rxdicom.events.records import CFind
from rxdicom.log import words
from rxdicom.services.effects import Call, Cancelled, Done, Pull, Raised, Send, Service
from rxdicom.services.outcome import SUCCESS, Outcome, Result, after_cancel, fault, response, status_of
from rxdicom.status import PENDING
from rxdicom.wire.encoded import Encoded

UNENCODABLE = 0xC312
"""The handler's identifier cannot be encoded."""


def find(event: CFind) -> Service[Result]:
    """Answer a query with what the handler yields: pairs of status and identifier."""
    reply = yield Call(event)
    if isinstance(reply, Raised):
        return _final(event, fault(event, reply.error))
    while True:
        match (yield Pull()):
            case Raised(error):
                return _final(event, fault(event, error))
            case Cancelled(item):
                return _final(event, after_cancel(item))
            case Done() | None:
                return _final(event, Outcome(SUCCESS))
            case reply:
                ended = yield from _match(event, reply.value)
                if ended is not None:
                    return _final(event, ended)


def _match(event: CFind, item: Any) -> Service[Outcome | None]:
    """Send one match. Returns the outcome if the item ends the query."""
    outcome = status_of(item)
    if outcome.code not in PENDING:
        return outcome
    _, identifier = item
    if identifier is None:
        return Outcome(UNENCODABLE, fault="the handler gave a match without an identifier")
    syntax = event.context.transfer_syntax
    try:
        data = encode(identifier, syntax)
    except Exception as error:  # noqa: BLE001 - what a handler gives may be no dataset, and raise anything
        return Outcome(UNENCODABLE, fault=f"the handler gave a match that cannot be sent: {words(error)}")
    yield Send(response(event.request, outcome, Encoded(syntax, data)))
    return None


def _final(event: CFind, outcome: Outcome) -> Result:
    return Result(response(event.request, outcome), outcome.fault)
