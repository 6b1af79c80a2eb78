"""The answer to an association request: which handlers are asked, what their answers mean, and what nonsense means."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdicom.events import kinds
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.kinds import EventKind
from rxdicom.protocol.negotiation import STORAGE_SERVICE_CLASS, propose
from rxdicom.protocol.policy import Policy, SupportedContext
from rxdicom.service_class import (
    ServiceClass,
    StorageManagementServiceClass,
    StorageServiceClass,
    UnifiedProcedureStepServiceClass,
)
from rxdicom.services.acceptance import Decision, decide
from rxdicom.services.effects import Call, Raised, Reply, Value
from rxdicom.sop_class import register_uid
from rxdicom.wire.items import (
    AsyncOperationsWindow,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserIdentityResponse,
    UserItem,
)
from rxdicom.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ, decode_pdu, encode_pdu

from ..wire.strategies import MANY

CT, MR, PRIVATE, IVR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.3", "1.2.840.10008.1.2"
POLICY = Policy((SupportedContext(CT, (IVR,)),))
REQUIRED = Policy(POLICY.contexts, require_user_identity=True)
REFUSED = AssociateRJ(1, 2, 1)
SECRET = b"open sesame"

USER, WINDOW, EXTENDED, COMMON = kinds.EVT_USER_ID, kinds.EVT_ASYNC_OPS, kinds.EVT_SOP_EXTENDED, kinds.EVT_SOP_COMMON
NAME = UserIdentity(1, True, b"doe")
PASSCODE = UserIdentity(2, True, b"doe", SECRET)
TICKET = UserIdentity(3, True, b"ticket")
EVERY_ITEM = (
    NAME,
    AsyncOperationsWindow(4, 2),
    SOPClassExtended(CT, b"\1\1"),
    SOPClassCommonExtended(PRIVATE, STORAGE_SERVICE_CLASS),
)


class Broken:
    """An answer that cannot even be looked at."""

    def __bool__(self) -> bool:
        raise RuntimeError("not to be asked")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def request(*items: UserItem) -> AssociateRQ:
    return propose("PACS", "MODALITY", [(CT, [IVR]), (PRIVATE, [IVR])], maximum_length=16384, items=items)


def decided(
    asked: AssociateRQ, replies: Mapping[EventKind[Any], Reply] | None = None, policy: Policy = POLICY
) -> tuple[Decision, list[Any]]:
    """The decision, and the events whose handlers were asked. A handler counts as bound if it has a reply here."""
    bound = replies or {}
    events: list[Any] = []
    service = decide(asked, policy, 8192, bound.__contains__, "the association")
    reply: Reply = None
    try:
        while True:
            effect = next(service) if reply is None else service.send(reply)
            assert isinstance(effect, Call)
            events.append(effect.event)
            kind = effect.event.event
            reply = bound[kind] if kind in bound else Value(DEFAULTS[kind](effect.event))
    except StopIteration as stop:
        decision: Decision = stop.value
    assert decode_pdu(encode_pdu(decision.answer)) == decision.answer, "whatever was decided can be sent"
    return decision, events


def answered(
    asked: AssociateRQ, replies: Mapping[EventKind[Any], Reply] | None = None, policy: Policy = POLICY
) -> tuple[AssociateAC | AssociateRJ, list[Any]]:
    decision, events = decided(asked, replies, policy)
    return decision.answer, events


def accepted(
    asked: AssociateRQ, replies: Mapping[EventKind[Any], Reply] | None = None, policy: Policy = POLICY
) -> AssociateAC:
    answer, _ = answered(asked, replies, policy)
    assert isinstance(answer, AssociateAC)
    return answer


# ---- who is asked


@pytest.mark.parametrize(
    ("items", "asked"),
    [
        ((), []),
        ((RoleSelection(CT, True, True),), []),
        ((NAME,), [USER]),
        ((AsyncOperationsWindow(1, 1),), [WINDOW]),
        ((SOPClassExtended(CT, b""),), [EXTENDED]),
        ((SOPClassCommonExtended(CT, "1.2"),), [COMMON]),
        (EVERY_ITEM, [USER, WINDOW, EXTENDED, COMMON]),
    ],
)
def test_handlers_are_asked_only_about_what_was_proposed(items: tuple[UserItem, ...], asked: list[object]) -> None:
    answer, events = answered(request(*items))
    assert [event.event for event in events] == asked
    assert isinstance(answer, AssociateAC)
    assert {each.item_type for each in answer.user_information} == {0x51, 0x52, 0x55}, "the defaults answer nothing"
    assert answer.maximum_length == 8192


def test_what_the_handlers_are_told() -> None:
    asked = request(PASSCODE, *EVERY_ITEM[1:], SOPClassExtended(MR, b""))
    _, [user, window, extended, common] = answered(asked)
    assert all(event.assoc == "the association" and event.associate is asked for event in (user, window))
    assert (user.user_id_type, user.primary_field, user.secondary_field) == (2, b"doe", SECRET)
    assert user.positive_response_requested is True
    assert (window.nr_invoked, window.nr_performed) == (4, 2)
    assert extended.app_info == {CT: b"\1\1", MR: b""}
    assert common.items == {PRIVATE: SOPClassCommonExtended(PRIVATE, STORAGE_SERVICE_CLASS)}
    assert SECRET.decode() not in repr(user)


def test_a_second_field_is_that_of_a_passcode_only() -> None:
    _, [event] = answered(request(UserIdentity(1, False, b"doe", b"stray")))
    assert event.secondary_field is None


def test_a_request_that_the_rules_reject_asks_nobody() -> None:
    for policy in (Policy(require_called_aet="OTHER"), Policy(require_calling_aet=("OTHER",))):
        answer, events = answered(request(*EVERY_ITEM), policy=policy)
        assert isinstance(answer, AssociateRJ)
        assert events == []


# ---- nonsense

NONSENSE: dict[str, Reply] = {
    "raises": Raised(ValueError("no")),
    "None": Value(None),
    "int": Value(7),
    "text": Value("ab"),
    "object": Value(object()),
    "broken": Value(Broken()),
    "empty": Value(()),
    "one": Value((1,)),
    "three": Value((True, None, None)),
    "texts": Value(("1", "2")),
    "dict of nonsense": Value({CT: 5, "x": None, 7: "y"}),
    "nested": Value(((True, None), None)),
    "no reply": None,
}
# A tuple of numbers answers a window, and a dict nothing else than a dict: these are tried where they are nonsense.
_NUMBERS: dict[str, Reply] = {"numbers": Value((1, 2)), "true": Value(True)}
_RANGES: dict[str, Reply] = {
    "negative": Value((-1, 1)),
    "too large": Value((1, 65536)),
    "floats": Value((1.0, 2.0)),
    "accepted": Value((None, True)),
}


@pytest.mark.parametrize("reply", (NONSENSE | _NUMBERS | _RANGES).values(), ids=NONSENSE | _NUMBERS | _RANGES)
def test_a_nonsensical_identity_answer_refuses(reply: Reply) -> None:
    for identity in (NAME, PASSCODE, TICKET):
        for policy in (POLICY, REQUIRED):
            assert answered(request(identity), {USER: reply}, policy)[0] == REFUSED


def is_image_storage(uid: str) -> bool:
    return uid in (CT, MR)


@pytest.mark.parametrize("kind", [WINDOW, EXTENDED, COMMON], ids=lambda kind: kind.name)
@pytest.mark.parametrize("reply", (NONSENSE | _RANGES).values(), ids=NONSENSE | _RANGES)
def test_other_nonsense_leaves_its_item_unanswered(kind: EventKind[Any], reply: Reply) -> None:
    if reply is not None:
        answer = accepted(request(*EVERY_ITEM[1:]), {kind: reply}, Policy(POLICY.contexts, is_storage=is_image_storage))
        assert {each.item_type for each in answer.user_information} == {0x51, 0x52, 0x55}
        assert [each.result for each in answer.presentation_contexts] == [0, 3]


# ---- the user identity


@pytest.mark.parametrize(
    ("identity", "reply", "response"),
    [
        (NAME, (True, None), b""),
        (NAME, (True, b"ignored"), b""),
        (PASSCODE, (True, b"ignored"), b""),
        (TICKET, (True, b"server ticket"), b"server ticket"),
        (TICKET, (True, None), b""),
        (UserIdentity(4, True, b"<saml/>"), (True, b"<saml/>"), b"<saml/>"),
        (UserIdentity(5, True, b"jwt"), [True, b"token"], b"token"),
        (UserIdentity(3, False, b"ticket"), (True, b"server ticket"), None),
    ],
)
def test_an_identity_that_is_accepted(identity: UserIdentity, reply: Any, response: bytes | None) -> None:
    answer = accepted(request(identity), {USER: Value(reply)}, REQUIRED)
    assert answer.item_of(UserIdentityResponse) == (None if response is None else UserIdentityResponse(response))


@pytest.mark.parametrize(
    "reply",
    [(False, None), (False, b"x"), (True, "text"), (True, 5), (1, None), ("yes", None), (True, bytearray(b"x"))],
)
def test_an_identity_that_is_refused(reply: Any) -> None:
    assert answered(request(TICKET), {USER: Value(reply)})[0] == REFUSED


@pytest.mark.parametrize(
    ("items", "is_bound", "policy", "asked", "result"),
    [
        pytest.param((), False, POLICY, 0, AssociateAC, id="absent, not required"),
        pytest.param((), True, POLICY, 0, AssociateAC, id="absent, handled, not required"),
        pytest.param((), False, REQUIRED, 0, AssociateRJ, id="absent"),
        pytest.param((), True, REQUIRED, 0, AssociateRJ, id="absent, handled"),
        pytest.param((NAME,), False, REQUIRED, 1, AssociateAC, id="there"),
        pytest.param((NAME,), True, REQUIRED, 1, AssociateAC, id="there, handled"),
        pytest.param((UserIdentity(1, True, b""),), False, REQUIRED, 0, AssociateRJ, id="empty"),
        pytest.param((UserIdentity(1, True, b""),), True, POLICY, 0, AssociateRJ, id="empty, handled"),
        pytest.param((UserIdentity(1, True, b""),), False, POLICY, 1, AssociateAC, id="empty, nobody cares"),
        pytest.param((UserIdentity(6, True, b"x"),), False, REQUIRED, 0, AssociateRJ, id="type 6"),
        pytest.param((UserIdentity(6, True, b"x"),), True, POLICY, 0, AssociateRJ, id="type 6, handled"),
        pytest.param((UserIdentity(0, True, b"x"),), True, POLICY, 0, AssociateRJ, id="type 0, handled"),
        pytest.param((UserIdentity(255, True, b"x"),), False, POLICY, 1, AssociateAC, id="type 255, nobody cares"),
        pytest.param((NAME, NAME), False, REQUIRED, 0, AssociateRJ, id="twice"),
        pytest.param((NAME, TICKET), True, POLICY, 0, AssociateRJ, id="twice, handled"),
        pytest.param((NAME, NAME), False, POLICY, 0, AssociateRJ, id="twice, nobody cares"),
    ],
)
def test_an_identity_fails_closed(
    items: tuple[UserIdentity, ...], is_bound: bool, policy: Policy, asked: int, result: type
) -> None:
    """A handler that would accept anything is not even asked about what cannot be checked."""
    answer, events = answered(request(*items), {USER: Value((True, None))} if is_bound else {}, policy)
    assert type(answer) is result
    assert len(events) == asked
    assert isinstance(answer, AssociateAC) or answer == REFUSED
    if isinstance(answer, AssociateAC):
        replied = bool(items) and is_bound
        assert answer.item_of(UserIdentityResponse) == (UserIdentityResponse(b"") if replied else None)


# ---- the other items


@pytest.mark.parametrize(
    ("reply", "window"),
    [((3, 1), (3, 1)), ([9, 9], (4, 2)), ((0, 0), (4, 2)), ((65535, 0), (4, 2)), ((True, 2), (1, 2))],
)
def test_a_window_is_clamped(reply: Any, window: tuple[int, int]) -> None:
    answer = accepted(request(AsyncOperationsWindow(4, 2)), {WINDOW: Value(reply)})
    assert answer.asynchronous_operations_window == window


def test_extended_answers_go_to_those_who_asked() -> None:
    reply = Value({CT: b"\0", MR: b"\1", PRIVATE: "text"})
    answer = accepted(request(SOPClassExtended(CT, b"\1"), SOPClassExtended(PRIVATE, b"\1")), {EXTENDED: reply})
    assert answer.items_of(SOPClassExtended) == (SOPClassExtended(CT, b"\0"),)


def test_common_extended_makes_storage_of_an_unknown_class() -> None:
    item = SOPClassCommonExtended(PRIVATE, STORAGE_SERVICE_CLASS)
    policy = Policy(POLICY.contexts, is_storage=is_image_storage)
    for proposed, reply, result in (
        (item, {PRIVATE: item}, 0),
        (item, {}, 3),
        (SOPClassCommonExtended(CT, STORAGE_SERVICE_CLASS), {PRIVATE: item}, 3),
        (item, {PRIVATE: SOPClassCommonExtended(PRIVATE, "1.2.840.10008.4.3")}, 3),
    ):
        answer = accepted(request(proposed), {COMMON: Value(reply)}, policy)
        assert [each.result for each in answer.presentation_contexts] == [0, result]
        assert not answer.items_of(SOPClassCommonExtended)


@pytest.mark.parametrize(
    ("proposed", "service_uid", "replied", "known"),
    [
        pytest.param(PRIVATE, STORAGE_SERVICE_CLASS, True, {PRIVATE: StorageServiceClass}, id="storage"),
        pytest.param(PRIVATE, "1.2.840.10008.5.1.4.34.6", True, {PRIVATE: UnifiedProcedureStepServiceClass}, id="UPS"),
        pytest.param(PRIVATE, STORAGE_SERVICE_CLASS, False, {}, id="not accepted by the handler"),
        pytest.param(PRIVATE, "1.2.3.4", True, {}, id="a private service class"),
        pytest.param(PRIVATE, "", True, {}, id="no service class"),
        pytest.param("1.2.840.10008.1.1", STORAGE_SERVICE_CLASS, True, {}, id="a SOP class of the standard"),
        pytest.param("1.2.3.9", STORAGE_SERVICE_CLASS, True, {}, id="a registered SOP class"),
    ],
)
def test_common_extended_tells_the_service_class_of_an_unknown_class(
    proposed: str, service_uid: str, replied: bool, known: dict[str, ServiceClass]
) -> None:
    """Of an unknown one only: what is known of a SOP class does not depend on what a peer says of it."""
    register_uid("1.2.3.9", "AcceptanceTestManagement", StorageManagementServiceClass)
    item = SOPClassCommonExtended(proposed, service_uid)
    decision, _ = decided(request(item), {COMMON: Value({proposed: item} if replied else {})})
    assert isinstance(decision.answer, AssociateAC)
    assert decision.services == known


def test_whom_the_rules_reject_nothing_is_learnt_of() -> None:
    item = SOPClassCommonExtended(PRIVATE, STORAGE_SERVICE_CLASS)
    refused = Policy(require_called_aet="OTHER")
    for asked, policy in ((request(item), refused), (request(item), REQUIRED)):
        assert decided(asked, {COMMON: Value({PRIVATE: item})}, policy)[0].services == {}


@pytest.mark.parametrize("size", [65535 - 4 - 2 - len(CT) + 1, 70_000, 1_000_000])
def test_an_extended_answer_that_does_not_fit(size: int) -> None:
    """It is left out, and the association comes about."""
    answer = accepted(request(*EVERY_ITEM), {EXTENDED: Value({CT: bytes(size)}), WINDOW: Value((4, 2))})
    assert answer.items_of(SOPClassExtended) == ()
    assert answer.asynchronous_operations_window == (4, 2)


def test_extended_answers_that_fit_alone_but_not_together() -> None:
    items = [SOPClassExtended(f"1.2.{number}", b"") for number in range(4)]
    reply = Value({item.sop_class_uid: bytes(20_000) for item in items})
    assert accepted(request(*items), {EXTENDED: reply}).items_of(SOPClassExtended) == ()


def test_a_server_response_that_does_not_fit() -> None:
    """The identity was to be confirmed and cannot be: it is refused."""
    assert answered(request(TICKET), {USER: Value((True, bytes(65_534)))})[0] == REFUSED
    assert answered(request(TICKET), {USER: Value((True, bytes(100_000)))})[0] == REFUSED
    fitting = Value((True, bytes(60_000)))
    answer = accepted(request(TICKET, EVERY_ITEM[2]), {USER: fitting, EXTENDED: Value({CT: bytes(9_000)})})
    assert answer.item_of(UserIdentityResponse) == UserIdentityResponse(bytes(60_000))
    assert answer.items_of(SOPClassExtended) == ()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70_000) | st.binary(max_size=8) | st.sampled_from([CT, MR, ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.sampled_from([CT, MR]), inner)
    ),
    max_leaves=6,
)
_REPLIES = st.builds(Value, _VALUES) | st.builds(Raised, st.builds(ValueError))


@MANY
@given(st.fixed_dictionaries({}, optional=dict.fromkeys((USER, WINDOW, EXTENDED, COMMON), _REPLIES)))
def test_whatever_handlers_answer(replies: dict[EventKind[Any], Reply]) -> None:
    """One answer that can be sent; accepted only if the identity was, and nothing in it that was not proposed."""
    answer, events = answered(request(*EVERY_ITEM), replies, REQUIRED)
    identity = replies.get(USER)
    if isinstance(answer, AssociateRJ):
        assert answer == REFUSED
        assert len(events) == 1
        assert isinstance(identity, Raised | Value)
    else:
        assert identity is None or (isinstance(identity, Value) and identity.value[0] is True)
        assert {each.sop_class_uid for each in answer.items_of(SOPClassExtended)} <= {CT}
        invoked, performed = answer.asynchronous_operations_window
        assert 1 <= invoked <= 4
        assert 1 <= performed <= 2
