"""The provider: which service answers which request, and the services that answer with a status alone."""

from typing import Any

from rxdicom.events import kinds
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import ServiceEvent
from rxdicom.services.effects import Call, Raised, Reply, Service, Value
from rxdicom.services.outcome import Outcome, Result, fault, outcome_of, response
from rxdicom.sop_class import uid_to_service_class
from rxdicom.wire.dimse import Command, Message

SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNISED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700

KIND_OF_REQUEST: dict[Command, EventKind[Any]] = {
    Command.C_ECHO_RQ: kinds.EVT_C_ECHO,
    Command.C_STORE_RQ: kinds.EVT_C_STORE,
}
"""The intervention event of each request that has a service here."""


def refused(request: Message, abstract_syntax: str) -> Message | None:
    """The response to a request that its presentation context cannot carry (PS3.7 Annex C), None for the others.

    Other commands than these, such as a C-FIND over a storage context, are unrecognised operations. A private SOP
    class without a registered service may be used for any.
    """
    sop_class = request.AffectedSOPClassUID or request.RequestedSOPClassUID
    operations = uid_to_service_class(abstract_syntax).operations
    operation = request.name.removesuffix("-RQ")
    if request.kind not in KIND_OF_REQUEST or (operations and operation not in operations):
        return response(request, Outcome(UNRECOGNISED_OPERATION))
    if sop_class != abstract_syntax:
        return response(request, Outcome(SOP_CLASS_NOT_SUPPORTED))
    return None


def status_service(event: ServiceEvent) -> Service[Result]:
    """C-ECHO (PS3.7 §9.1.5) and C-STORE (§9.1.1): one handler call, one response."""
    kept = event.request.data
    if kept is not None and kept.error is not None:
        comment = {"ErrorComment": "the dataset could not be kept"}
        outcome = Outcome(OUT_OF_RESOURCES, comment, f"the dataset was not kept: {kept.error}")
        return Result(response(event.request, outcome), outcome.fault)
    reply = yield Call(event)
    outcome = fault(event, reply.error) if isinstance(reply, Raised) else outcome_of(_value(reply))
    return Result(response(event.request, outcome), outcome.fault)


def _value(reply: Reply) -> Any:
    return reply.value if isinstance(reply, Value) else None
