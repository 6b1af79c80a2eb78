"""The N services (PS3.7 §10): one handler call, one response, with a dataset where the service has one."""

from typing import Any

from attrs import evolve

from rxdicom.errors import DatasetError
from rxdicom.events.datasets import encode
from rxdicom.events.records import NCreate, ServiceEvent
from rxdicom.log import words
from rxdicom.services.effects import Called, Value
from rxdicom.services.outcome import Outcome, Result, outcome_of, pair, response
from rxdicom.status import STATUS_SUCCESS, STATUS_WARNING, code_to_category
from rxdicom.wire.dimse import COMMANDS, Command
from rxdicom.wire.encoded import Encoded

PROCESSING_FAILURE = 0x0110
"""The answer to whatever a handler does wrong."""

_INSTANCE = "AffectedSOPInstanceUID"


def normalized_answer(event: ServiceEvent, called: Called) -> Result:
    """Answer an N request with what the handler returned: a status, or a status and a dataset."""
    if isinstance(called, Value):
        return _answer(event, called.value)
    return _failure(event, f"the handler raised {words(called.error)}")


def _answer(event: ServiceEvent, value: Any) -> Result:
    try:
        status, dataset = pair(value) or (value, None)
        outcome = outcome_of(status)
        if outcome.fault:
            return _failure(event, outcome.fault)
        if code_to_category(outcome.code) not in (STATUS_SUCCESS, STATUS_WARNING):
            return Result(response(event.request, outcome))
        if isinstance(event, NCreate) and not event.request.AffectedSOPInstanceUID:
            outcome = _with_instance(outcome, dataset)
        return Result(response(event.request, outcome, _encoded(event, dataset)))
    except Exception as error:  # noqa: BLE001 - pydicom decodes elements when they are asked for, and raises anything
        return _failure(event, f"the handler returned what cannot be sent: {words(error)}")


def _with_instance(outcome: Outcome, dataset: Any) -> Outcome:
    """Where the request names no instance, the handler does, in its status or its dataset (PS3.7 §10.1.5.1.4)."""
    uid = outcome.elements.get(_INSTANCE) or getattr(dataset, _INSTANCE, None)
    if not isinstance(uid, str) or not uid or not uid.isascii():
        raise DatasetError("neither the request nor the handler named the instance that was created")
    return evolve(outcome, elements={**outcome.elements, _INSTANCE: str(uid)})


def _encoded(event: ServiceEvent, dataset: Any) -> Encoded | None:
    """The dataset of the response, None where the service has none or it holds nothing (but command elements)."""
    carries = COMMANDS[Command(event.request.kind | 0x8000)][2] != "never"
    if dataset is None or not carries:
        return None
    syntax = event.context.transfer_syntax
    data = encode(dataset, syntax)
    return Encoded(syntax, data) if data else None


def _failure(event: ServiceEvent, why: str) -> Result:
    return Result(response(event.request, Outcome(PROCESSING_FAILURE)), why)
