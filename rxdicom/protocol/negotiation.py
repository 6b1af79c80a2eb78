"""Negotiation of an association (PS3.8 §7.1, PS3.7 Annex D) as pure functions, for the requestor and the acceptor."""

from collections.abc import Iterable, Mapping, Sequence

from attrs import Factory, evolve, field, frozen

from rxdicom.errors import ArgumentError
from rxdicom.protocol.policy import Policy, SupportedContext
from rxdicom.wire.items import (
    MAX_CONTEXTS,
    AsyncOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserIdentityResponse,
    UserItem,
)
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ
from rxdicom.wire.uids import (
    APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

ACCEPTANCE, USER_REJECTION, NO_REASON, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = range(5)
"""Results of a presentation context (PS3.8 table 9-18)."""

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"


@frozen
class NegotiatedContext:
    """One presentation context after the negotiation, with the roles of *this* side.

    ``transfer_syntax`` has the one that was accepted; of a rejected context those that were proposed.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: tuple[str, ...]
    result: int
    as_scu: bool
    as_scp: bool

    @property
    def status(self) -> str:
        """The result in words."""
        return _RESULTS.get(self.result, f"Unknown result {self.result}")


_RESULTS = {
    ACCEPTANCE: "Accepted",
    USER_REJECTION: "User Rejected",
    NO_REASON: "Provider Rejected",
    ABSTRACT_SYNTAX_NOT_SUPPORTED: "Abstract Syntax Not Supported",
    TRANSFER_SYNTAXES_NOT_SUPPORTED: "Transfer Syntax(es) Not Supported",
}


def _with_result(negotiated: "Negotiated", accepted: bool) -> tuple[NegotiatedContext, ...]:
    return tuple(each for each in negotiated.contexts.values() if (each.result == ACCEPTANCE) == accepted)


def _by_syntax_and_role(negotiated: "Negotiated") -> Mapping[tuple[str, bool], tuple[NegotiatedContext, ...]]:
    found: dict[tuple[str, bool], tuple[NegotiatedContext, ...]] = {}
    for each in negotiated.accepted:
        for as_scp in [role for role, has in ((False, each.as_scu), (True, each.as_scp)) if has]:
            key = each.abstract_syntax, as_scp
            found[key] = (*found.get(key, ()), each)
    return found


@frozen
class Negotiated:
    """What an association works with once it is accepted; ``invoked`` and ``performed`` are this side's windows."""

    contexts: Mapping[int, NegotiatedContext] = field(factory=dict[int, NegotiatedContext])
    maximum_length: int = 0
    invoked: int = 1
    performed: int = 1
    accepted: tuple[NegotiatedContext, ...] = field(
        init=False, eq=False, repr=False, default=Factory(lambda self: _with_result(self, True), takes_self=True)
    )
    rejected: tuple[NegotiatedContext, ...] = field(
        init=False, eq=False, repr=False, default=Factory(lambda self: _with_result(self, False), takes_self=True)
    )
    _usable: Mapping[tuple[str, bool], tuple[NegotiatedContext, ...]] = field(
        init=False, eq=False, repr=False, default=Factory(_by_syntax_and_role, takes_self=True)
    )

    def usable(self, abstract_syntax: str, *, as_scp: bool) -> tuple[NegotiatedContext, ...]:
        """The accepted contexts of an abstract syntax on which this side has the role of SCU, or SCP."""
        return self._usable.get((abstract_syntax, as_scp), ())


@frozen
class Replies:
    """What the intervention handlers of an acceptor answered."""

    window: tuple[int, int] | None = None
    extended: Mapping[str, bytes] = field(factory=dict[str, bytes])
    user_identity: bytes | None = None
    common_extended: Mapping[str, SOPClassCommonExtended] = field(factory=dict[str, SOPClassCommonExtended])


def propose(
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    maximum_length: int,
    items: Iterable[UserItem] = (),
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID,
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME,
) -> AssociateRQ:
    """The A-ASSOCIATE-RQ for ``contexts``, pairs of abstract syntax and transfer syntaxes.

    Raises :class:`~rxdicom.errors.ArgumentError` for no context, or more than 128.
    """
    if not contexts:
        raise ArgumentError("no presentation contexts requested; add at least one with add_requested_context()")
    if len(contexts) > MAX_CONTEXTS:
        raise ArgumentError(f"{len(contexts)} presentation contexts requested, {MAX_CONTEXTS} fit one association")
    proposed = tuple(
        PresentationContextRQ(2 * index + 1, abstract, tuple(transfer))
        for index, (abstract, transfer) in enumerate(contexts)
    )
    given = tuple(items)
    own: list[UserItem] = [MaximumLength(maximum_length), ImplementationClassUID(implementation_class_uid)]
    if implementation_version_name:
        own.append(ImplementationVersionName(implementation_version_name))
    replaced = {type(each) for each in given}
    kept = [each for each in own if type(each) not in replaced]
    return AssociateRQ(called_ae_title, calling_ae_title, _in_order([*kept, *given]), presentation_contexts=proposed)


def _in_order(items: Iterable[UserItem]) -> tuple[UserItem, ...]:
    return tuple(sorted(items, key=lambda each: each.item_type))


def refusal(request: AssociateRQ, policy: Policy) -> AssociateRJ | None:
    """Why a request is rejected before any handler is asked (PS3.8 table 9-21), or None."""
    ids = [each.context_id for each in request.presentation_contexts]
    identities = request.items_of(UserIdentity)
    rules = (
        (request.application_context != APPLICATION_CONTEXT, AssociateRJ(1, 1, 2)),
        (not ids or len(set(ids)) != len(ids) or any(not each & 1 for each in ids), AssociateRJ(1, 2, 1)),
        (policy.require_called_aet not in (None, request.called_ae_title), AssociateRJ(1, 1, 7)),
        (
            bool(policy.require_calling_aet) and request.calling_ae_title not in policy.require_calling_aet,
            AssociateRJ(1, 1, 3),
        ),
        (len(identities) > 1 or (policy.require_user_identity and not identities), AssociateRJ(1, 2, 1)),
    )
    return next((answer for refused, answer in rules if refused), None)


def accept(request: AssociateRQ, policy: Policy, maximum_length: int, replies: Replies) -> AssociateAC:
    """The A-ASSOCIATE-AC: contexts in the acceptor's order of preference, and the items that answer the request's."""
    supported = {each.abstract_syntax: each for each in policy.contexts}
    roles = {each.sop_class_uid: each for each in request.items_of(RoleSelection)}
    contexts: list[PresentationContextAC] = []
    answered: dict[str, RoleSelection] = {}
    for proposed in request.presentation_contexts:
        support = supported.get(proposed.abstract_syntax) or _any_storage(proposed, policy, replies)
        answer = _answer_context(proposed, support)
        role = roles.get(proposed.abstract_syntax)
        reply = _answer_role(role, support) if role and support and answer.result == ACCEPTANCE else None
        if reply:
            answered[reply.sop_class_uid] = reply
            if not (reply.scu_role or reply.scp_role):
                answer = evolve(answer, result=USER_REJECTION)
        contexts.append(answer)
    items: list[UserItem] = [MaximumLength(maximum_length), ImplementationClassUID(policy.implementation_class_uid)]
    if policy.implementation_version_name:
        items.append(ImplementationVersionName(policy.implementation_version_name))
    items += answered.values()
    items += _answer_items(request, replies)
    return AssociateAC(
        request.called_ae_title,
        request.calling_ae_title,
        _in_order(items),
        reserved=request.reserved,
        presentation_contexts=tuple(contexts),
    )


def _answer_items(request: AssociateRQ, replies: Replies) -> list[UserItem]:
    items: list[UserItem] = []
    window = request.item_of(AsyncOperationsWindow)
    if window and replies.window:
        invoked, performed = replies.window
        items.append(AsyncOperationsWindow(_clamp(invoked, window.invoked), _clamp(performed, window.performed)))
    proposed = {each.sop_class_uid for each in request.items_of(SOPClassExtended)}
    items += [SOPClassExtended(uid, info) for uid, info in replies.extended.items() if uid in proposed]
    identity = request.item_of(UserIdentity)
    if identity and identity.positive_response_requested and replies.user_identity is not None:
        items.append(UserIdentityResponse(replies.user_identity))
    return items


def _any_storage(proposed: PresentationContextRQ, policy: Policy, replies: Replies) -> SupportedContext | None:
    if policy.is_storage is None:
        return None
    common = replies.common_extended.get(proposed.abstract_syntax)
    is_common = common is not None and common.service_class_uid == STORAGE_SERVICE_CLASS
    if is_common or policy.is_storage(proposed.abstract_syntax):
        return SupportedContext(proposed.abstract_syntax, proposed.transfer_syntaxes)
    return None


def _answer_context(proposed: PresentationContextRQ, support: SupportedContext | None) -> PresentationContextAC:
    # Not significant in a refusal (PS3.8 §9.3.3.2), but some peers stumble over an empty one.
    unused = next(iter(proposed.transfer_syntaxes), "") or IMPLICIT_VR_LITTLE_ENDIAN
    if support is None:
        return PresentationContextAC(proposed.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED, unused)
    chosen = next((each for each in support.transfer_syntaxes if each and each in proposed.transfer_syntaxes), None)
    if chosen is None:
        return PresentationContextAC(proposed.context_id, TRANSFER_SYNTAXES_NOT_SUPPORTED, unused)
    return PresentationContextAC(proposed.context_id, ACCEPTANCE, chosen)


def _answer_role(role: RoleSelection, support: SupportedContext) -> RoleSelection | None:
    if support.scu_role is None or support.scp_role is None:
        return None
    return RoleSelection(role.sop_class_uid, role.scu_role and support.scu_role, role.scp_role and support.scp_role)


def _clamp(answered: int, proposed: int) -> int:
    """The window, 0 being unlimited, that is not above the proposed one.

    >>> _clamp(0, 8), _clamp(4, 0), _clamp(9, 8)
    (8, 4, 8)
    """
    return min((each for each in (answered, proposed) if each), default=0)


def negotiated(request: AssociateRQ, answer: AssociateAC, *, as_requestor: bool) -> Negotiated:
    """What was agreed, seen from one side.

    What the acceptor answered without being asked counts for nothing: unknown contexts are dropped, a transfer
    syntax that was not proposed makes a rejected context, and so does a missing answer.
    """
    answers = {each.context_id: each for each in answer.presentation_contexts}
    proposed_roles = {each.sop_class_uid: each for each in request.items_of(RoleSelection)}
    accepted_roles = {each.sop_class_uid: each for each in answer.items_of(RoleSelection)}
    contexts: dict[int, NegotiatedContext] = {}
    for proposed in request.presentation_contexts:
        uid = proposed.abstract_syntax
        scu, scp = _requestor_roles(proposed_roles.get(uid), accepted_roles.get(uid))
        result, syntax = _result(proposed, answers.get(proposed.context_id))
        roles = (scu, scp) if as_requestor else (scp, scu)
        contexts[proposed.context_id] = NegotiatedContext(proposed.context_id, uid, syntax, result, *roles)
    invoked, performed = _window(request, answer)
    return Negotiated(
        contexts,
        (answer if as_requestor else request).maximum_length,
        *((invoked, performed) if as_requestor else (performed, invoked)),
    )


def _result(proposed: PresentationContextRQ, answer: PresentationContextAC | None) -> tuple[int, tuple[str, ...]]:
    if answer is None:
        return NO_REASON, proposed.transfer_syntaxes
    if answer.result != ACCEPTANCE:
        return answer.result, proposed.transfer_syntaxes
    if answer.transfer_syntax not in proposed.transfer_syntaxes:
        return TRANSFER_SYNTAXES_NOT_SUPPORTED, proposed.transfer_syntaxes
    return ACCEPTANCE, (answer.transfer_syntax,)


def _requestor_roles(proposed: RoleSelection | None, accepted: RoleSelection | None) -> tuple[bool, bool]:
    if proposed is None or accepted is None:
        return True, False
    return proposed.scu_role and accepted.scu_role, proposed.scp_role and accepted.scp_role


def _window(request: AssociateRQ, answer: AssociateAC) -> tuple[int, int]:
    proposed = request.item_of(AsyncOperationsWindow)
    accepted = answer.item_of(AsyncOperationsWindow)
    if proposed is None or accepted is None:
        return 1, 1
    return _clamp(accepted.invoked, proposed.invoked), _clamp(accepted.performed, proposed.performed)
