"""C-FIND (PS3.7 §9.1.2, PS3.4 Annex C.4.1): a pending response per match, then the final one without identifier."""

from typing import Any

from rxdicom.events.datasets import encode
from rxdicom.events.records import CFind
from rxdicom.services.effects import Call, Cancelled, Done, Pull, Raised, Send, Service
from rxdicom.services.outcome import (
    CANCEL,
    PENDING,
    STATUS_UNUSABLE,
    SUCCESS,
    Outcome,
    Result,
    fault,
    outcome_of,
    pair,
    response,
)
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
                return _final(event, _after_cancel(item))
            case Done() | None:
                return _final(event, Outcome(SUCCESS))
            case reply:
                ended = yield from _match(event, reply.value)
                if ended is not None:
                    return _final(event, ended)


def _match(event: CFind, item: Any) -> Service[Outcome | None]:
    """Send one match. Returns the outcome if the item ends the query."""
    given = pair(item)
    if given is None:
        why = f"the handler gave {type(item).__name__} instead of a status and an identifier"
        return Outcome(STATUS_UNUSABLE, fault=why)
    status, identifier = given
    outcome = outcome_of(status)
    if outcome.code not in PENDING:
        return outcome
    if identifier is None:
        return Outcome(UNENCODABLE, fault="the handler gave a match without an identifier")
    syntax = event.context.transfer_syntax
    try:
        data = encode(identifier, syntax)
    except Exception as error:  # noqa: BLE001 - what a handler gives may be no dataset, and raise anything
        return Outcome(UNENCODABLE, fault=f"the handler gave a match that cannot be sent: {error}")
    yield Send(response(event.request, outcome, Encoded(syntax, data)))
    return None


def _after_cancel(item: Any) -> Outcome:
    """A final status of the handler stands; a match that comes too late is dropped."""
    given = pair(item)
    outcome = None if given is None else outcome_of(given[0])
    return Outcome(CANCEL) if outcome is None or outcome.fault or outcome.code in PENDING else outcome


def _final(event: CFind, outcome: Outcome) -> Result:
    return Result(response(event.request, outcome), outcome.fault)
