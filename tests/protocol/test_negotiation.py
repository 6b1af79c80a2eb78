"""Negotiation as pure functions: PS3.8 §7.1 and PS3.7 Annex D, from both sides, by tables and against pynetdicom."""

from collections.abc import Sequence
from itertools import product

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom import presentation as peer

from rxdicom.errors import ArgumentError, NoAcceptedContext, PeerProtocolError
from rxdicom.protocol.negotiation import (
    STORAGE_SERVICE_CLASS,
    Negotiated,
    Replies,
    accept,
    negotiated,
    propose,
    refusal,
)
from rxdicom.protocol.policy import Policy, SupportedContext
from rxdicom.services.user import contexts_for, no_context
from rxdicom.wire.items import (
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
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ, decode_pdu, encode_pdu

from ..wire.strategies import MANY

CT, MR, ECHO, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1", "1.2.3"
IVR, EVR, BIG, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70"
NOTHING = Replies()


def request(*contexts: tuple[str, Sequence[str]], items: Sequence[UserItem] = (), **changes: object) -> AssociateRQ:
    made = propose("PACS", "MODALITY", contexts or [(CT, [IVR])], maximum_length=16384, items=items)
    return evolve(made, **changes)


def numbered(*ids: int) -> AssociateRQ:
    """A request whose contexts have these IDs."""
    return evolve(request(), presentation_contexts=tuple(PresentationContextRQ(each, CT, (IVR,)) for each in ids))


def policy(*contexts: tuple[str, Sequence[str]], **rules: object) -> Policy:
    supported = tuple(SupportedContext(uid, tuple(syntaxes)) for uid, syntaxes in contexts or [(CT, [IVR])])
    return evolve(Policy(supported), **rules)


def results(answer: AssociateAC) -> list[tuple[int, int, str]]:
    return [(each.context_id, each.result, each.transfer_syntax) for each in answer.presentation_contexts]


# ---- what is proposed


def test_a_proposal() -> None:
    items = (UserIdentity(1, False, b"me"), RoleSelection(CT, True, True), AsyncOperationsWindow(4, 2))
    made = request((CT, [EVR, IVR]), (ECHO, [IVR]), items=items)
    assert [each.context_id for each in made.presentation_contexts] == [1, 3]
    assert (made.called_ae_title, made.calling_ae_title, made.protocol_version) == ("PACS", "MODALITY", 1)
    assert (made.maximum_length, made.asynchronous_operations_window) == (16384, (4, 2))
    assert [each.item_type for each in made.user_information] == [0x51, 0x52, 0x53, 0x54, 0x55, 0x58]
    assert decode_pdu(encode_pdu(made)) == made


def test_an_item_that_is_given_replaces_our_own() -> None:
    given_items = (MaximumLength(0), ImplementationClassUID("1.9"), ImplementationVersionName("OTHER"))
    made = request(items=given_items)
    assert set(made.user_information) == set(given_items)
    nameless = propose("A", "B", [(CT, [IVR])], maximum_length=0, implementation_version_name="")
    assert nameless.implementation_version_name is None


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (128, True), (129, False)])
def test_one_to_128_contexts(count: int, good: bool) -> None:
    contexts = [(f"1.2.{number}", [IVR]) for number in range(count)]
    if not good:
        with pytest.raises(ArgumentError, match="128" if count else "add at least one"):
            propose("A", "B", contexts, maximum_length=0)
        return
    made = propose("A", "B", contexts, maximum_length=0)
    assert [each.context_id for each in made.presentation_contexts] == list(range(1, 2 * count, 2))
    answer = accept(made, policy(*contexts), 0, NOTHING)
    assert decode_pdu(encode_pdu(answer)) == answer
    assert len(negotiated(made, answer, as_requestor=True).accepted) == count


# ---- what is rejected

_NAMED = policy(require_called_aet="PACS", require_calling_aet=("MODALITY", "OTHER"))
_IDENTIFIED = policy(require_user_identity=True)
_ME = UserIdentity(1, False, b"me")


@pytest.mark.parametrize(
    ("asked", "rules", "codes"),
    [
        (request(), policy(), None),
        (request(application_context="1.2.840.10008.3.1.1.2"), policy(), (1, 1, 2)),
        (request(application_context=""), policy(), (1, 1, 2)),
        (request(presentation_contexts=()), policy(), (1, 2, 1)),
        (numbered(1, 3, 255), policy(), None),
        (numbered(3, 1), policy(), None),
        (numbered(1, 1), policy(), (1, 2, 1)),
        (numbered(1, 3, 5, 3), policy(), (1, 2, 1)),
        (numbered(2), policy(), (1, 2, 1)),
        (numbered(1, 4), policy(), (1, 2, 1)),
        (numbered(0), policy(), (1, 2, 1)),
        (request(), _NAMED, None),
        (request(called_ae_title="PACT"), _NAMED, (1, 1, 7)),
        (request(called_ae_title=""), _NAMED, (1, 1, 7)),
        (request(called_ae_title="pacs"), _NAMED, (1, 1, 7)),
        (request(called_ae_title="ANY"), policy(), None),
        (request(calling_ae_title="OTHER"), _NAMED, None),
        (request(calling_ae_title="STRANGER"), _NAMED, (1, 1, 3)),
        (request(calling_ae_title=""), _NAMED, (1, 1, 3)),
        (request(called_ae_title="X", calling_ae_title="X"), _NAMED, (1, 1, 7)),
        (request(), _IDENTIFIED, (1, 2, 1)),
        (request(items=[_ME]), _IDENTIFIED, None),
        (request(items=[_ME, _ME]), _IDENTIFIED, (1, 2, 1)),
        (request(items=[_ME, _ME]), policy(), (1, 2, 1)),
        (request(application_context="1.2", called_ae_title="X"), _NAMED, (1, 1, 2)),
    ],
)
def test_rejections(asked: AssociateRQ, rules: Policy, codes: tuple[int, int, int] | None) -> None:
    assert refusal(asked, rules) == (None if codes is None else AssociateRJ(*codes))


def test_a_129th_context_is_no_request_at_all() -> None:
    """It cannot have an ID of its own: the PDU is invalid, and the association aborted."""
    contexts = tuple(PresentationContextRQ(2 * number % 256 + 1, CT, (IVR,)) for number in range(129))
    with pytest.raises(PeerProtocolError, match="128"):
        decode_pdu(encode_pdu(evolve(request(), presentation_contexts=contexts)))


# ---- contexts


@pytest.mark.parametrize(
    ("proposed", "supported", "result", "syntax"),
    [
        pytest.param([IVR, EVR], [EVR, IVR], 0, EVR, id="the acceptor's preference counts"),
        pytest.param([BIG, IVR, EVR], [JPEG, EVR, BIG], 0, EVR, id="the first of its own that was proposed"),
        pytest.param([EVR, EVR, IVR, EVR], [IVR, EVR], 0, IVR, id="duplicates"),
        pytest.param([EVR], [JPEG, BIG], 4, EVR, id="no common one"),
        pytest.param([], [EVR], 4, IVR, id="none proposed"),
        pytest.param(["junk", "", r"\xff\xfe"], [EVR], 4, "junk", id="junk"),
        pytest.param(["", "junk", IVR], [IVR], 0, IVR, id="junk beside a good one"),
        pytest.param([""], ["", EVR], 4, IVR, id="empty on both sides"),
        pytest.param([EVR], [], 4, EVR, id="none supported"),
    ],
)
def test_transfer_syntaxes(proposed: list[str], supported: list[str], result: int, syntax: str) -> None:
    """A refusal carries a transfer syntax too, the first proposed: peers have stumbled over an empty one."""
    answer = accept(request((CT, proposed)), policy((CT, supported)), 0, NOTHING)
    assert results(answer) == [(1, result, syntax)]
    assert decode_pdu(encode_pdu(answer)) == answer


def test_each_context_is_answered_for_itself() -> None:
    """The usual way to keep all transfer syntaxes: a context for each."""
    asked = request((CT, [EVR]), (CT, [IVR]), (MR, [IVR]), (PRIVATE, [IVR]), (CT, [JPEG]), (CT, [EVR, IVR]))
    answer = accept(asked, policy((CT, [IVR, EVR]), (MR, [IVR])), 8192, NOTHING)
    assert results(answer) == [(1, 0, EVR), (3, 0, IVR), (5, 0, IVR), (7, 3, IVR), (9, 4, JPEG), (11, 0, IVR)]
    assert answer.maximum_length == 8192


def test_an_acceptor_accepts_even_if_it_supports_nothing() -> None:
    assert results(accept(request((PRIVATE, [IVR])), Policy(), 0, NOTHING)) == [(1, 3, IVR)]


def test_the_fixed_part_is_echoed() -> None:
    asked = request(called_ae_title=r"PACS\xe9", reserved=bytes(range(32)))
    rules = policy(implementation_class_uid="1.9", implementation_version_name="")
    answer = accept(asked, rules, 0, NOTHING)
    assert (answer.called_ae_title, answer.calling_ae_title, answer.reserved) == (
        asked.called_ae_title,
        asked.calling_ae_title,
        asked.reserved,
    )
    assert encode_pdu(answer)[10:74] == encode_pdu(asked)[10:74]
    assert (answer.implementation_class_uid, answer.implementation_version_name) == ("1.9", None)


def is_ct(uid: str) -> bool:
    return uid.startswith(CT)


@pytest.mark.parametrize(
    ("uid", "any_storage", "common", "result"),
    [
        (f"{CT}.99", False, None, 3),
        (f"{CT}.99", True, None, 0),
        (PRIVATE, True, None, 3),
        (PRIVATE, True, STORAGE_SERVICE_CLASS, 0),
        (PRIVATE, True, "1.2.840.10008.4.3", 3),
        (PRIVATE, False, STORAGE_SERVICE_CLASS, 3),
        (ECHO, True, None, 3),
    ],
)
def test_any_storage(uid: str, any_storage: bool, common: str | None, result: int) -> None:
    items = {} if common is None else {uid: SOPClassCommonExtended(uid, common)}
    rules = policy(is_storage=is_ct if any_storage else None)
    answer = accept(request((uid, ["", JPEG, IVR])), rules, 0, Replies(common_extended=items))
    assert results(answer) == [(1, result, JPEG if result == 0 else IVR)]


def test_what_is_configured_goes_before_any_storage() -> None:
    answer = accept(request((CT, [JPEG, IVR])), policy((CT, [IVR]), is_storage=is_ct), 0, NOTHING)
    assert results(answer) == [(1, 0, IVR)]


# ---- roles

_ROLES = (None, False, True)


def _role_answer(asked: tuple[bool, bool] | None, supported: tuple[bool | None, bool | None]) -> Negotiated:
    items = () if asked is None else (RoleSelection(CT, *asked),)
    proposal = request((CT, [IVR]), items=items)
    answer = accept(proposal, Policy((SupportedContext(CT, (IVR,), *supported),)), 0, NOTHING)
    ours = negotiated(proposal, answer, as_requestor=True)
    theirs = negotiated(proposal, answer, as_requestor=False)
    [requestor], [acceptor] = ours.contexts.values(), theirs.contexts.values()
    assert (requestor.as_scu, requestor.as_scp) == (acceptor.as_scp, acceptor.as_scu), "both sides agree"
    reply = answer.item_of(RoleSelection)
    replies = asked is not None and None not in supported
    assert (reply is not None) == replies
    if reply is not None and asked is not None:
        assert not reply.scu_role or asked[0], "no role is given that was not asked for (PS3.7 D.3.3.4)"
        assert not reply.scp_role or asked[1]
    return ours


@pytest.mark.parametrize(
    ("asked", "supported", "scu", "scp"),
    [
        # Requestor (SCU, SCP), acceptor's answer to each, what the requestor is then.
        (None, (None, None), True, False),
        (None, (True, True), True, False),
        (None, (False, True), True, False),
        ((True, True), (None, None), True, False),
        ((True, True), (None, True), True, False),
        ((True, True), (False, None), True, False),
        ((True, True), (True, True), True, True),
        ((True, True), (True, False), True, False),
        ((True, True), (False, True), False, True),
        ((True, False), (True, True), True, False),
        ((True, False), (True, False), True, False),
        ((False, True), (True, True), False, True),
        ((False, True), (False, True), False, True),
    ],
)
def test_roles(
    asked: tuple[bool, bool] | None, supported: tuple[bool | None, bool | None], scu: bool, scp: bool
) -> None:
    [context] = _role_answer(asked, supported).accepted
    assert (context.as_scu, context.as_scp) == (scu, scp)


@pytest.mark.parametrize(
    ("asked", "supported"),
    [
        ((True, True), (False, False)),
        ((True, False), (False, True)),
        ((False, True), (True, False)),
        ((False, False), (True, True)),
    ],
)
def test_a_context_without_any_role_is_rejected_by_the_user(
    asked: tuple[bool, bool], supported: tuple[bool, bool]
) -> None:
    [context] = _role_answer(asked, supported).rejected
    assert (context.result, context.status) == (1, "User Rejected")
    assert (context.as_scu, context.as_scp) == (False, False)


@pytest.mark.parametrize("asked", list(product((True, False), repeat=2)))
@pytest.mark.parametrize("supported", list(product(_ROLES, repeat=2)))
def test_roles_as_pynetdicom_has_them(asked: tuple[bool, bool], supported: tuple[bool | None, bool | None]) -> None:
    theirs = peer.SCP_SCU_ROLES[asked][supported]
    [context] = _role_answer(asked, supported).contexts.values()
    assert (context.as_scu, context.as_scp) == theirs[:2]
    assert (context.result == 0) == (theirs != peer.CONTEXT_REJECTED)


def test_a_role_is_answered_once_and_only_where_there_is_a_context() -> None:
    items = (RoleSelection(CT, False, True), RoleSelection(MR, False, True), RoleSelection(PRIVATE, True, True))
    asked = request((CT, [EVR]), (CT, [IVR]), (MR, [JPEG]), items=items)
    rules = Policy(tuple(SupportedContext(uid, (IVR, EVR), True, True) for uid in (CT, MR, PRIVATE)))
    answer = accept(asked, rules, 0, NOTHING)
    assert answer.items_of(RoleSelection) == (RoleSelection(CT, False, True),)
    contexts = negotiated(asked, answer, as_requestor=True).contexts
    assert [(each.as_scu, each.as_scp) for each in contexts.values()] == [(False, True), (False, True), (True, False)]


def test_an_answer_to_a_role_that_was_not_proposed_counts_for_nothing() -> None:
    asked = request((CT, [IVR]), (MR, [IVR]), items=[RoleSelection(MR, True, False)])
    answer = accept(asked, policy((CT, [IVR]), (MR, [IVR])), 0, NOTHING)
    surplus = (*answer.user_information, RoleSelection(CT, False, True), RoleSelection(MR, True, True))
    contexts = negotiated(asked, evolve(answer, user_information=surplus), as_requestor=True).contexts
    assert [(each.as_scu, each.as_scp) for each in contexts.values()] == [(True, False), (True, False)]


# ---- items


@pytest.mark.parametrize(
    ("proposed", "reply", "window"),
    [
        (None, None, None),
        (None, (5, 5), None),
        ((4, 2), None, None),
        ((4, 2), (4, 2), (4, 2)),
        ((4, 2), (3, 1), (3, 1)),
        ((4, 2), (9, 9), (4, 2)),
        ((4, 2), (0, 0), (4, 2)),
        ((0, 0), (0, 0), (0, 0)),
        ((0, 0), (7, 8), (7, 8)),
        ((0, 5), (0, 6), (0, 5)),
        ((1, 1), (0, 0), (1, 1)),
    ],
)
def test_the_window(
    proposed: tuple[int, int] | None, reply: tuple[int, int] | None, window: tuple[int, int] | None
) -> None:
    asked = request(items=[] if proposed is None else [AsyncOperationsWindow(*proposed)])
    answer = accept(asked, policy(), 0, Replies(window=reply))
    item = answer.item_of(AsyncOperationsWindow)
    assert item == (None if window is None else AsyncOperationsWindow(*window))
    ours, theirs = (negotiated(asked, answer, as_requestor=side) for side in (True, False))
    assert (ours.invoked, ours.performed) == (window or (1, 1))
    assert (theirs.performed, theirs.invoked) == (window or (1, 1)), "the acceptor sees it the other way round"


@pytest.mark.parametrize(("answered", "window"), [((9, 9), (4, 2)), ((0, 0), (4, 2)), ((1, 1), (1, 1)), (None, (1, 1))])
def test_a_peer_cannot_widen_the_window(answered: tuple[int, int] | None, window: tuple[int, int]) -> None:
    asked = request(items=[AsyncOperationsWindow(4, 2)])
    answer = accept(asked, policy(), 0, NOTHING)
    if answered is not None:
        answer = evolve(answer, user_information=(*answer.user_information, AsyncOperationsWindow(*answered)))
    agreed = negotiated(asked, answer, as_requestor=True)
    assert (agreed.invoked, agreed.performed) == window


def test_a_window_that_was_not_proposed_counts_for_nothing() -> None:
    answer = evolve(accept(request(), policy(), 0, NOTHING), user_information=(AsyncOperationsWindow(8, 8),))
    agreed = negotiated(request(), answer, as_requestor=True)
    assert (agreed.invoked, agreed.performed) == (1, 1)


def test_extended_items_only_for_those_proposed() -> None:
    asked = request(items=[SOPClassExtended(CT, b"\1"), SOPClassCommonExtended(MR, STORAGE_SERVICE_CLASS)])
    replies = Replies(extended={CT: b"\0\1", MR: b"\1"}, common_extended={MR: SOPClassCommonExtended(MR, "1.2")})
    answer = accept(asked, policy(), 0, replies)
    assert answer.items_of(SOPClassExtended) == (SOPClassExtended(CT, b"\0\1"),)
    assert answer.items_of(SOPClassCommonExtended) == (), "there is no reply to it (PS3.7 D.3.3.6)"
    assert accept(request(), policy(), 0, replies).items_of(SOPClassExtended) == ()


@pytest.mark.parametrize(
    ("identity", "response", "sent"),
    [
        (None, b"ticket", None),
        (UserIdentity(3, False, b"k"), b"ticket", None),
        (UserIdentity(3, True, b"k"), b"ticket", b"ticket"),
        (UserIdentity(1, True, b"k"), b"", b""),
        (UserIdentity(1, True, b"k"), None, None),
    ],
)
def test_an_identity_is_answered_only_if_asked_for(
    identity: UserIdentity | None, response: bytes | None, sent: bytes | None
) -> None:
    asked = request(items=[] if identity is None else [identity])
    answer = accept(asked, policy(), 0, Replies(user_identity=response))
    assert answer.item_of(UserIdentityResponse) == (None if sent is None else UserIdentityResponse(sent))


# ---- what comes back


def answered(*contexts: PresentationContextAC) -> AssociateAC:
    return evolve(accept(request(), policy(), 4096, NOTHING), presentation_contexts=contexts)


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        pytest.param((PresentationContextAC(1, 0, EVR),), (0, (EVR,), "Accepted"), id="accepted"),
        pytest.param((PresentationContextAC(1, 1, ""),), (1, (IVR, EVR), "User Rejected"), id="user"),
        pytest.param((PresentationContextAC(1, 2, "junk"),), (2, (IVR, EVR), "Provider Rejected"), id="provider"),
        pytest.param((PresentationContextAC(1, 3),), (3, (IVR, EVR), "Abstract Syntax Not Supported"), id="abstract"),
        pytest.param(
            (PresentationContextAC(1, 4, EVR),), (4, (IVR, EVR), "Transfer Syntax(es) Not Supported"), id="transfer"
        ),
        pytest.param((PresentationContextAC(1, 99, EVR),), (99, (IVR, EVR), "Unknown result 99"), id="out of table"),
        pytest.param((), (2, (IVR, EVR), "Provider Rejected"), id="missing"),
        pytest.param((PresentationContextAC(3, 0, IVR),), (2, (IVR, EVR), "Provider Rejected"), id="another's"),
        pytest.param(
            (PresentationContextAC(1, 0, JPEG),), (4, (IVR, EVR), "Transfer Syntax(es) Not Supported"), id="unproposed"
        ),
        pytest.param(
            (PresentationContextAC(1, 0, ""),), (4, (IVR, EVR), "Transfer Syntax(es) Not Supported"), id="empty"
        ),
    ],
)
def test_answers(contexts: tuple[PresentationContextAC, ...], expected: tuple[int, tuple[str, ...], str]) -> None:
    agreed = negotiated(request((CT, [IVR, EVR])), answered(*contexts), as_requestor=True)
    [context] = agreed.contexts.values()
    assert (context.result, context.transfer_syntax, context.status) == expected
    assert (context.context_id, context.abstract_syntax) == (1, CT)
    assert agreed.accepted == ((context,) if expected[0] == 0 else ())
    assert agreed.rejected == (() if expected[0] == 0 else (context,))
    assert agreed.maximum_length == 4096


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x40\0\0\0", b"\x40\0\0\x04junk", b"\x40\0\xff\xff", b"\x40\0\0\x02\xff\xfe", b"\x99\0\0\0", b"\x40"],
)
def test_any_transfer_syntax_in_a_rejected_context(junk: bytes) -> None:
    """It is not significant, and peers leave it out, empty, or send what they please (PS3.8 §9.3.3.2)."""
    answer = encode_pdu(answered(PresentationContextAC(3, 0, IVR)))
    rejected = bytes((0x21, 0)) + (4 + len(junk)).to_bytes(2, "big") + bytes((1, 0, 3, 0)) + junk
    at = answer.index(bytes((0x21, 0)), 74)
    whole = answer[:at] + rejected + answer[at:]
    decoded = decode_pdu(whole[:2] + (len(whole) - 6).to_bytes(4, "big") + whole[6:])
    assert isinstance(decoded, AssociateAC)
    agreed = negotiated(request((CT, [EVR]), (MR, [IVR])), decoded, as_requestor=True)
    assert [(each.context_id, each.result) for each in agreed.contexts.values()] == [(1, 3), (3, 0)]


def test_the_maximum_length_is_the_peer_s() -> None:
    asked = request()
    answer = accept(asked, policy(), 4096, NOTHING)
    assert negotiated(asked, answer, as_requestor=True).maximum_length == 4096
    assert negotiated(asked, answer, as_requestor=False).maximum_length == 16384


def test_contexts_for_a_request() -> None:
    asked = request((CT, [EVR]), (CT, [IVR]), (MR, [IVR]), items=[RoleSelection(MR, False, True)])
    rules = Policy((SupportedContext(CT, (IVR,)), SupportedContext(MR, (IVR,), True, True)))
    answer = accept(asked, rules, 0, NOTHING)
    ours = negotiated(asked, answer, as_requestor=True)
    assert [each.context_id for each in contexts_for(ours, CT)] == [3]
    for uid in (MR, ECHO):
        with pytest.raises(NoAcceptedContext, match=uid) as caught:
            contexts_for(ours, uid)
        assert (caught.value.proposed, caught.value.accepted) == ((CT, MR), (CT, MR))
    theirs = negotiated(asked, answer, as_requestor=False)
    assert [each.context_id for each in contexts_for(theirs, MR)] == [5], "where we asked to be SCP, the peer is SCU"
    assert no_context(Negotiated(), CT).wanted == CT


# ---- properties

_UIDS = st.sampled_from([CT, MR, ECHO, PRIVATE])
_SYNTAXES = st.lists(st.sampled_from([IVR, EVR, BIG, JPEG]), max_size=4)
_FLAGS = st.sampled_from(_ROLES)
_PROPOSED = st.lists(st.tuples(_UIDS, _SYNTAXES), min_size=1, max_size=12)
_SUPPORTED = st.dictionaries(_UIDS, st.tuples(_SYNTAXES.filter(bool), _FLAGS, _FLAGS))
_ROLE_ITEMS = st.dictionaries(_UIDS, st.tuples(st.booleans(), st.booleans()))


@MANY
@given(_PROPOSED, _SUPPORTED, _ROLE_ITEMS, st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_both_sides_agree_whatever_is_asked(
    proposed: list[tuple[str, list[str]]],
    supported: dict[str, tuple[list[str], bool | None, bool | None]],
    roles: dict[str, tuple[bool, bool]],
    window: tuple[int, int],
) -> None:
    items: list[UserItem] = [RoleSelection(uid, *flags) for uid, flags in roles.items()]
    asked = request(*proposed, items=[*items, AsyncOperationsWindow(*window)])
    rules = Policy(tuple(SupportedContext(uid, tuple(own), *flags) for uid, (own, *flags) in supported.items()))
    assert refusal(asked, rules) is None
    answer = accept(asked, rules, 0, Replies(window=(3, 0)))
    received = decode_pdu(encode_pdu(answer))
    assert received == answer
    assert isinstance(received, AssociateAC)
    ours, theirs = negotiated(asked, received, as_requestor=True), negotiated(asked, answer, as_requestor=False)
    assert (ours.invoked, ours.performed) == (theirs.performed, theirs.invoked)
    assert list(ours.contexts) == list(theirs.contexts)
    for context in ours.contexts.values():
        mirrored = evolve(context, as_scu=context.as_scp, as_scp=context.as_scu)
        assert theirs.contexts[context.context_id] == mirrored
        uid, syntaxes = proposed[context.context_id // 2]
        if context.result == 0:
            own = supported[uid][0]
            assert context.transfer_syntax[0] == next(each for each in own if each in syntaxes)
            assert context.as_scu or context.as_scp


@MANY
@given(_PROPOSED.filter(lambda proposed: all(syntaxes for _, syntaxes in proposed)), _SUPPORTED, _ROLE_ITEMS)
def test_the_results_are_those_of_pynetdicom(
    proposed: list[tuple[str, list[str]]],
    supported: dict[str, tuple[list[str], bool | None, bool | None]],
    roles: dict[str, tuple[bool, bool]],
) -> None:
    asked = request(*proposed, items=[RoleSelection(uid, *flags) for uid, flags in roles.items()])
    rules = Policy(tuple(SupportedContext(uid, tuple(own), *flags) for uid, (own, *flags) in supported.items()))
    ours = accept(asked, rules, 0, NOTHING)
    theirs = _as_pynetdicom(proposed, supported, roles)
    assert [(each.context_id, each.result) for each in ours.presentation_contexts] == [
        (each.context_id, each.result) for each in theirs
    ]
    accepted = [each for each in theirs if each.result == 0]
    agreed = negotiated(asked, ours, as_requestor=False).accepted
    assert [(each.transfer_syntax[0], each.as_scu, each.as_scp) for each in agreed] == [
        (each.transfer_syntax[0], each.as_scu, each.as_scp) for each in accepted
    ]


def _as_pynetdicom(
    proposed: list[tuple[str, list[str]]],
    supported: dict[str, tuple[list[str], bool | None, bool | None]],
    roles: dict[str, tuple[bool, bool]],
) -> list[peer.PresentationContext]:
    wanted: list[peer.PresentationContext] = []
    for index, (uid, syntaxes) in enumerate(proposed):
        wanted.append(peer.build_context(uid, list(dict.fromkeys(syntaxes))))
        wanted[-1].context_id = 2 * index + 1
    known: list[peer.PresentationContext] = []
    for uid, (own, scu, scp) in supported.items():
        known.append(peer.build_context(uid, list(dict.fromkeys(own))))
        known[-1].scu_role, known[-1].scp_role = scu, scp
    items: dict[UID, tuple[bool | None, bool | None]] = {UID(uid): flags for uid, flags in roles.items()}
    return peer.negotiate_as_acceptor(wanted, known, items)[0]
