"""The provider: what answers which request, and the answers of the services that give a status alone."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from rxdicom.events.records import (
    CEcho,
    CFind,
    CGet,
    CMove,
    CStore,
    NAction,
    NCreate,
    NDelete,
    NEventReport,
    NGet,
    NSet,
    ServiceEvent,
)
from rxdicom.service_class import ServiceClass, UnknownServiceClass
from rxdicom.services.effects import Called, Service, Value
from rxdicom.services.normalized import normalized_answer
from rxdicom.services.outcome import Outcome, Result, fault, outcome_of, response
from rxdicom.services.query import find
from rxdicom.services.retrieve import get, move
from rxdicom.sop_class import uid_to_service_class
from rxdicom.status import STATUS_UNKNOWN, code_to_category
from rxdicom.wire.dimse import Command, Message

SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNISED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
DUPLICATE_INVOCATION = 0x0210

TOO_MANY = {Command.C_FIND_RQ: 0xA700, Command.C_GET_RQ: 0xA701, Command.C_MOVE_RQ: 0xA701}
"""Refused, out of resources: more requests than can be performed side by side."""


_IN_ANY_ROLE = (Command.C_ECHO_RQ, Command.N_EVENT_REPORT_RQ)
"""Notifications go from SCP to SCU (PS3.7 §7.2), but archives that report over a new association often leave the role
selection out; and who only asks whether somebody is there is told so."""


def refused(
    request: Message,
    abstract_syntax: str,
    *,
    as_scp: bool = True,
    service: ServiceClass | None = None,
) -> Message | None:
    """The response to a request that its presentation context cannot carry (PS3.7 Annex C), None for the others.

    ``as_scp`` says whether *this* side is SCP on that context. ``service`` is the service class of its abstract syntax
    where the association knows it (:attr:`~rxdicom.services.acceptance.Decision.services`). A private SOP class of an
    unknown service may be used for any operation.
    """
    service = service or uid_to_service_class(abstract_syntax)
    kind = request.kind
    if service.operations and _OPERATIONS.get(kind) not in service.operations:
        return response(request, Outcome(UNRECOGNISED_OPERATION))
    if not _carries(request, abstract_syntax, service):
        return response(request, Outcome(SOP_CLASS_NOT_SUPPORTED))
    # The roles are part of what both sides agreed on (PS3.7 D.3.3.4), and 0211 says that an operation is not among
    # that; 0122 would deny the SOP class, which in the other role is supported.
    if not as_scp and kind not in _IN_ANY_ROLE:
        return response(request, Outcome(UNRECOGNISED_OPERATION, {"ErrorComment": "not in the negotiated role"}))
    return None


def _carries(request: Message, abstract_syntax: str, service: ServiceClass) -> bool:
    sop_class = request.AffectedSOPClassUID or request.RequestedSOPClassUID
    if sop_class == abstract_syntax:
        return True
    # PS3.7 §10.1: a meta SOP class of print management, or one of Unified Procedure Step, carries the others as well.
    related = request.name.startswith("N-") and service is not UnknownServiceClass
    return related and sop_class is not None and uid_to_service_class(sop_class) is service


def is_listed(service: ServiceClass, operation: str, status: int) -> bool:
    """Whether a status is one of those that a service class has for an operation (``"C-FIND"`` …).

    Of a service that nobody knows no table is there: all statuses of a category of PS3.7 Annex C may be its own.
    """
    if service is UnknownServiceClass:
        return code_to_category(status) != STATUS_UNKNOWN
    return status in service.status_table(operation)


def not_kept(request: Message) -> Result | None:
    """The result of a C-STORE request whose dataset could not be kept: no handler is called. None for the others."""
    data = request.data
    if data is None or data.error is None or request.command["CommandField"] != Command.C_STORE_RQ:
        return None
    outcome = Outcome(OUT_OF_RESOURCES, {"ErrorComment": "the dataset could not be kept"})
    return Result(response(request, outcome), f"the dataset was not kept: {data.error}")


def status_answer(event: ServiceEvent, called: Called) -> Result:
    """The answer to C-ECHO (PS3.7 §9.1.5) and C-STORE (§9.1.1): the status that the handler gave."""
    outcome = outcome_of(called.value) if isinstance(called, Value) else fault(event, called.error)
    return Result(response(event.request, outcome), outcome.fault)


@frozen
class Single:
    """A request with one response: its handler is called once, and ``answer`` makes the response of what it gave."""

    record: type[ServiceEvent]
    answer: Callable[[Any, Called], Result]


@frozen
class Series:
    """A request with any number of responses: its handler returns an iterable, of which ``service`` makes them."""

    record: type[ServiceEvent]
    service: Callable[[Any], Service[Result]]


Row = Single | Series
"""How a request is answered."""

ROWS: Mapping[int, Row] = {
    Command.C_ECHO_RQ: Single(CEcho, status_answer),
    Command.C_STORE_RQ: Single(CStore, status_answer),
    Command.C_FIND_RQ: Series(CFind, find),
    Command.C_GET_RQ: Series(CGet, get),
    Command.C_MOVE_RQ: Series(CMove, move),
    Command.N_ACTION_RQ: Single(NAction, normalized_answer),
    Command.N_CREATE_RQ: Single(NCreate, normalized_answer),
    Command.N_DELETE_RQ: Single(NDelete, normalized_answer),
    Command.N_EVENT_REPORT_RQ: Single(NEventReport, normalized_answer),
    Command.N_GET_RQ: Single(NGet, normalized_answer),
    Command.N_SET_RQ: Single(NSet, normalized_answer),
}
"""Every request but C-CANCEL, which is no request but a wish."""
_OPERATIONS = {kind: Command(kind).message_name.removesuffix("-RQ") for kind in ROWS}
