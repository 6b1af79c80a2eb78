"""The answer to an A-ASSOCIATE-RQ (PS3.7 Annex D): rules first, then the handlers of what was proposed."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import evolve, field, frozen

from rxdicom.errors import ArgumentError
from rxdicom.events import kinds
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import AsyncOps, SOPCommon, SOPExtended, UserID
from rxdicom.protocol.negotiation import Replies, accept, refusal
from rxdicom.protocol.policy import Policy
from rxdicom.service_class import ServiceClass, UnknownServiceClass
from rxdicom.services.effects import Call, Reply, Service, Value
from rxdicom.sop_class import uid_to_service_class
from rxdicom.wire.items import AsyncOperationsWindow, SOPClassCommonExtended, SOPClassExtended, UserIdentity
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ, encode_pdu

IDENTITY_REFUSED = AssociateRJ(1, 2, 1)
"""Rejected permanently, by the ACSE service provider, no reason given (PS3.7 D.3.3.7)."""
_IDENTITY_TYPES = range(1, 6)


@frozen
class Decision:
    """The answer to an association request, and what was learnt from the request."""

    answer: AssociateAC | AssociateRJ
    services: Mapping[str, ServiceClass] = field(factory=dict[str, ServiceClass])
    """The service classes of SOP classes that nobody registered, by UID: those that the SOP Class Common Extended
    items name that the handler accepted (PS3.7 D.3.3.6)."""


def decide(
    request: AssociateRQ,
    policy: Policy,
    maximum_length: int,
    is_bound: Callable[[EventKind[Any]], bool],
    assoc: object = None,
) -> Service[Decision]:
    """Decide on a request. Handlers are asked only about items that were proposed.

    A handler that raises, or answers nonsense or more than fits the PDU, leaves its item unanswered; for the user
    identity that is a refusal.
    """
    refused = refusal(request, policy)
    if refused is not None:
        return Decision(refused)
    common: dict[str, Any] = {"assoc": assoc, "associate": request}
    accepted, server_response = yield from _identity(request, policy, is_bound, common)
    if not accepted:
        return Decision(IDENTITY_REFUSED)
    window = yield from _window(request, common)
    extended = yield from _extended(request, common)
    related = yield from _related(request, common)
    replies = Replies(window, extended, server_response, related)
    for each in (replies, evolve(replies, extended={})):
        answer = accept(request, policy, maximum_length, each)
        if _can_be_encoded(answer):
            return Decision(answer, _services(related))
    return Decision(IDENTITY_REFUSED)


def _identity(
    request: AssociateRQ, policy: Policy, is_bound: Callable[[EventKind[Any]], bool], common: Mapping[str, Any]
) -> Service[tuple[bool, bytes | None]]:
    """Whether the requestor may come in, and what confirms it."""
    identity = request.item_of(UserIdentity)
    if identity is None:
        return True, None
    if _unusable(identity, policy, is_bound):
        return False, None
    event = UserID(
        user_id_type=identity.type,
        primary_field=identity.primary,
        secondary_field=identity.secondary if identity.type == 2 else None,
        positive_response_requested=identity.positive_response_requested,
        **common,
    )
    accepted, server_response = _identity_answer((yield Call(event)))
    if not is_bound(kinds.EVT_USER_ID):
        return accepted, None
    return accepted, b"" if identity.type in (1, 2) else server_response


def _window(request: AssociateRQ, common: Mapping[str, Any]) -> Service[tuple[int, int] | None]:
    proposed = request.item_of(AsyncOperationsWindow)
    if proposed is None:
        return None
    event = AsyncOps(nr_invoked=proposed.invoked, nr_performed=proposed.performed, **common)
    return _window_answer((yield Call(event)))


def _extended(request: AssociateRQ, common: Mapping[str, Any]) -> Service[Mapping[str, bytes]]:
    infos = {each.sop_class_uid: each.application_information for each in request.items_of(SOPClassExtended)}
    return _dict_answer((yield Call(SOPExtended(app_info=infos, **common))), bytes) if infos else {}


def _related(request: AssociateRQ, common: Mapping[str, Any]) -> Service[Mapping[str, SOPClassCommonExtended]]:
    items = {each.sop_class_uid: each for each in request.items_of(SOPClassCommonExtended)}
    if not items:
        return {}
    answer = _dict_answer((yield Call(SOPCommon(items=items, **common))), SOPClassCommonExtended)
    return {uid: item for uid, item in answer.items() if uid in items}


def _services(items: Mapping[str, SOPClassCommonExtended]) -> dict[str, ServiceClass]:
    """What is known of a SOP class goes before what a peer says."""
    named = {uid: uid_to_service_class(item.service_class_uid) for uid, item in items.items()}
    return {
        uid: service
        for uid, service in named.items()
        if service is not UnknownServiceClass and uid_to_service_class(uid) is UnknownServiceClass
    }


def _can_be_encoded(answer: AssociateAC) -> bool:
    """Whether what the handlers answered fits its items; 65,535 bytes are the most for all of them together."""
    try:
        encode_pdu(answer)
    except ArgumentError:
        return False
    return True


def _unusable(identity: UserIdentity, policy: Policy, is_bound: Callable[[EventKind[Any]], bool]) -> bool:
    """Whether an identity is refused without asking: nobody could check it, or there is nothing to check."""
    checked = policy.require_user_identity or is_bound(kinds.EVT_USER_ID)
    return checked and (identity.type not in _IDENTITY_TYPES or not identity.primary)


def _identity_answer(reply: Reply) -> tuple[bool, bytes | None]:
    match reply:
        case Value((True, None)):
            return True, b""
        case Value((True, bytes() as server_response)):
            return True, server_response
        case _:
            return False, None


def _window_answer(reply: Reply) -> tuple[int, int] | None:
    match reply:
        case Value((int() as invoked, int() as performed)) if 0 <= invoked <= 0xFFFF and 0 <= performed <= 0xFFFF:
            return invoked, performed
        case _:
            return None


def _dict_answer(reply: Reply, kind: type) -> dict[str, Any]:
    answered = reply.value if isinstance(reply, Value) else None
    if not isinstance(answered, Mapping):
        return {}
    items = cast("Mapping[Any, Any]", answered).items()
    return {str(uid): item for uid, item in items if isinstance(item, kind)}
