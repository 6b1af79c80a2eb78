"""The configuration of an AE, and what of it is on the wire, in both roles."""

from collections.abc import Generator
from typing import Any

import pytest
from attrs import asdict
from attrs.exceptions import FrozenInstanceError

from rxdicom import (
    AE,
    DEFAULT_TRANSFER_SYNTAXES,
    AssociationServer,
    LocalUsageError,
    VerificationPresentationContexts,
    build_context,
    build_role,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import ACSEReceived, ACSESent
from rxdicom.pdu_primitives import SOPClassExtendedNegotiation
from rxdicom.wire.items import (
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
)
from rxdicom.wire.pdu import AssociateAC, AssociateRQ
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.runtimes.queries import CT, FIND, GET, MOVE

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def ae() -> Generator[AE]:
    ae = AE("ME")
    ae.add_requested_context(VERIFICATION)
    ae.add_supported_context(VERIFICATION)
    yield ae
    ae.shutdown()


def start(ae: AE, **options: Any) -> AssociationServer:
    return ae.start_server(("127.0.0.1", 0), block=False, workers=None, **options)


def negotiated(ae: AE, server: AssociationServer, *arguments: Any, **options: Any) -> tuple[AssociateRQ, AssociateAC]:
    """The A-ASSOCIATE-RQ and -AC of an association."""
    seen: list[Any] = []

    def note(event: ACSESent | ACSEReceived) -> None:
        seen.append(event.primitive)

    handlers: list[EventHandler] = [(evt.EVT_ACSE_SENT, note), (evt.EVT_ACSE_RECV, note)]
    with ae.associate(*server.address, *arguments, evt_handlers=handlers, **options):
        request, answer, *_ = seen
    return request, answer


# ---- sizes


@pytest.mark.parametrize("ours", [0, 1024, 131072])
@pytest.mark.parametrize("theirs", [0, 4096])
def test_each_side_advertises_what_it_takes(ae: AE, ours: int, theirs: int) -> None:
    peer = AE("PEER")
    peer.add_supported_context(VERIFICATION)
    peer.maximum_pdu_size = theirs
    ae.maximum_pdu_size = ours
    with start(peer) as server:
        request, answer = negotiated(ae, server)
    assert request.items_of(MaximumLength) == (MaximumLength(ours),)
    assert answer.items_of(MaximumLength) == (MaximumLength(theirs),)


def test_128_kib_unless_it_is_set_and_one_association_may_differ(ae: AE) -> None:
    server = start(ae)
    assert ae.maximum_pdu_size == 131072
    request, answer = negotiated(ae, server)
    assert request.items_of(MaximumLength) == answer.items_of(MaximumLength) == (MaximumLength(131072),)
    request, answer = negotiated(ae, server, max_pdu=16384)
    assert request.items_of(MaximumLength) == (MaximumLength(16384),)
    assert answer.items_of(MaximumLength) == (MaximumLength(131072),)
    assert ae.maximum_pdu_size == 131072


@pytest.mark.parametrize("size", [-1, 1, 1023])
def test_a_pdu_size_without_room_is_refused(ae: AE, size: int) -> None:
    with pytest.raises(LocalUsageError, match="too small"):
        ae.maximum_pdu_size = size
    with pytest.raises(LocalUsageError, match="too small"):
        ae.association("127.0.0.1", 104, max_pdu=size)
    assert ae.maximum_pdu_size == 131072


# ---- identification


def test_the_implementation_is_ours_unless_it_is_set(ae: AE) -> None:
    server = start(ae)
    for pdu in negotiated(ae, server):
        (uid,), (name,) = pdu.items_of(ImplementationClassUID), pdu.items_of(ImplementationVersionName)
        assert uid.uid.startswith("2.25.")
        assert name.name.startswith("RXDICOM")
    ae.implementation_class_uid, ae.implementation_version_name = "1.2.3.4", "MINE_1"
    for pdu in negotiated(ae, start(ae)):
        assert pdu.items_of(ImplementationClassUID) == (ImplementationClassUID("1.2.3.4"),)
        assert pdu.items_of(ImplementationVersionName) == (ImplementationVersionName("MINE_1"),)


@pytest.mark.parametrize("title", ["", " ", "A" * 17, "A\\B", "A\nB", "Ä"])
def test_what_is_no_ae_title_is_refused(ae: AE, title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        AE(title)
    with pytest.raises(ValueError, match="AE title"):
        ae.ae_title = title
    with pytest.raises(ValueError, match="AE title"):
        ae.associate("h", 104, ae_title=title)
    with pytest.raises(ValueError, match="AE title"):
        ae.require_calling_aet = ["GOOD", title]
    assert (ae.ae_title, ae.require_calling_aet) == ("ME", [])


def test_who_calls_from_where_and_who_is_called(ae: AE) -> None:
    """``bind_address`` is where the connection comes from; the titles are those that were given."""
    server = start(ae, ae_title="STORE")
    with ae.associate(*server.address, ae_title="CALLED", bind_address=("127.0.0.3", 0)) as assoc:
        (accepted,) = server.active_associations
        assert accepted.requestor.address == assoc.requestor.address == "127.0.0.3"
        assert accepted.requestor.port == assoc.requestor.port
        assert (accepted.requestor.ae_title, accepted.acceptor.ae_title) == ("ME", "CALLED")


# ---- deadlines and limits


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("acse_timeout", {"association", "release"}),
        ("dimse_timeout", {"response"}),
        ("network_timeout", {"idle"}),
        ("connection_timeout", {"connect"}),
    ],
)
def test_a_timeout_by_the_name_that_it_has_elsewhere(ae: AE, name: str, fields: set[str]) -> None:
    before = asdict(ae.timeouts)
    for value in (0, 2.5, None):
        setattr(ae, name, value)
        assert getattr(ae, name) == value
        assert {field for field, seconds in asdict(ae.timeouts).items() if seconds != before[field]} == fields
    with pytest.raises(LocalUsageError, match="-1"):
        setattr(ae, name, -1)
    assert getattr(ae, name) is None


def test_what_an_association_was_made_with_does_not_change(ae: AE) -> None:
    """Timeouts and limits are frozen records: another one is for those that are made later."""
    server = start(ae)
    timeouts: Any = ae.timeouts
    with pytest.raises(FrozenInstanceError):
        timeouts.response = 1
    assoc = ae.association(*server.address)
    ae.remove_requested_context(VERIFICATION)
    ae.ae_title = "OTHER"
    ae.dimse_timeout = 0
    with assoc:
        assert assoc.requestor.ae_title == "ME"
        assert assoc.send_c_echo() == 0x0000


def test_a_server_takes_at_least_one_association(ae: AE) -> None:
    ae.maximum_associations = 7
    with pytest.raises(ValueError, match="at least 1"):
        ae.maximum_associations = 0
    assert ae.maximum_associations == ae.limits.associations == 7


# ---- contexts


def test_requested_contexts_are_proposed_in_their_order_with_odd_ids(ae: AE) -> None:
    ae.add_requested_context(MR, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
    ae.add_requested_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.add_requested_context(CT, IMPLICIT_VR_LITTLE_ENDIAN)
    server = start(ae)
    request, _ = negotiated(ae, server)
    assert [
        (each.context_id, each.abstract_syntax, each.transfer_syntaxes) for each in request.presentation_contexts
    ] == [
        (1, VERIFICATION, tuple(DEFAULT_TRANSFER_SYNTAXES)),
        (3, MR, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
        (5, CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
        (7, CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ]
    ae.remove_requested_context(MR, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.remove_requested_context(CT)
    assert [(each.context_id, each.abstract_syntax, each.transfer_syntax) for each in ae.requested_contexts] == [
        (1, VERIFICATION, DEFAULT_TRANSFER_SYNTAXES),
        (3, MR, [IMPLICIT_VR_LITTLE_ENDIAN]),
    ]
    ae.remove_requested_context(MR, [IMPLICIT_VR_LITTLE_ENDIAN])
    assert [each.abstract_syntax for each in ae.requested_contexts] == [VERIFICATION]


def test_contexts_of_one_association_or_server_replace_those_of_the_ae(ae: AE) -> None:
    server = start(ae, contexts=[build_context(CT)])
    request, answer = negotiated(ae, server, [build_context(VERIFICATION), build_context(CT)])
    assert [each.abstract_syntax for each in request.presentation_contexts] == [VERIFICATION, CT]
    assert [each.result for each in answer.presentation_contexts] == [3, 0]
    assert [each.abstract_syntax for each in ae.requested_contexts] == [VERIFICATION]


def test_128_contexts_are_the_most(ae: AE) -> None:
    for number in range(127):
        ae.add_requested_context(f"1.2.{number}")
    with pytest.raises(ValueError, match="128"):
        ae.add_requested_context("1.2.999")
    with pytest.raises(ValueError, match="128"):
        ae.requested_contexts = [build_context(f"1.2.{number}") for number in range(129)]
    with pytest.raises(ValueError, match="128"):
        ae.associate("127.0.0.1", 104, [build_context(f"1.2.{number}") for number in range(129)])


def test_supported_transfer_syntaxes_add_up_and_the_last_roles_count(ae: AE) -> None:
    ae.add_supported_context(CT, EXPLICIT_VR_LITTLE_ENDIAN, scu_role=True)
    ae.add_supported_context(CT, [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], scu_role=False, scp_role=True)
    _, context = ae.supported_contexts
    assert context.transfer_syntax == [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
    assert (context.scu_role, context.scp_role) == (False, True)
    ae.remove_supported_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
    assert ae.supported_contexts[1].transfer_syntax == [IMPLICIT_VR_LITTLE_ENDIAN]
    ae.remove_supported_context(CT)
    ae.remove_supported_context("1.2.3")
    assert [each.abstract_syntax for each in ae.supported_contexts] == [VERIFICATION]


def test_predefined_lists_are_not_changed_by_who_uses_them(ae: AE) -> None:
    ae.requested_contexts = ae.supported_contexts = VerificationPresentationContexts
    ae.remove_requested_context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
    ae.remove_supported_context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
    ae.requested_contexts.clear()
    assert ae.requested_contexts != VerificationPresentationContexts
    (context,) = VerificationPresentationContexts
    assert (context.context_id, context.transfer_syntax) == (None, DEFAULT_TRANSFER_SYNTAXES)


@pytest.mark.parametrize("wrong", [VERIFICATION, None, (VERIFICATION, [])])
def test_what_is_no_context_is_refused(ae: AE, wrong: Any) -> None:
    with pytest.raises(LocalUsageError, match="build_context"):
        ae.requested_contexts = [wrong]
    with pytest.raises(LocalUsageError, match="build_context"):
        ae.supported_contexts = [wrong]
    with pytest.raises(LocalUsageError, match="build_context"):
        ae.associate("127.0.0.1", 104, [wrong])
    with pytest.raises(LocalUsageError, match="abstract syntax"):
        ae.requested_contexts = [build_context(VERIFICATION), type(build_context(VERIFICATION))()]


# ---- who retrieves by C-GET takes what comes

BOTH = {CT: (True, True), MR: (True, True)}


@pytest.mark.parametrize(
    ("contexts", "ext_neg", "expected"),
    [
        pytest.param([GET, CT, VERIFICATION, MR], [], BOTH, id="for every storage class"),
        pytest.param([CT, MR, CT, GET], [], BOTH, id="once for each"),
        pytest.param([FIND, MOVE, CT, MR], [], {}, id="not without C-GET"),
        pytest.param([GET, CT, MR], [build_role(CT, scp_role=True)], {CT: (False, True)}, id="not beside given ones"),
        pytest.param([GET, CT, MR], [SOPClassExtendedNegotiation()], BOTH, id="beside other items"),
    ],
)
def test_the_roles_of_c_get_are_proposed(
    ae: AE, contexts: list[str], ext_neg: list[Any], expected: dict[str, tuple[bool, bool]]
) -> None:
    for item in ext_neg:
        if isinstance(item, SOPClassExtendedNegotiation):
            item.sop_class_uid, item.service_class_application_information = GET, b"\1"
    peer = AE("PEER")
    for uid in contexts:
        peer.add_supported_context(uid)
    with start(peer) as server:
        request, answer = negotiated(ae, server, [build_context(uid) for uid in contexts], ext_neg=ext_neg)
    proposed = request.items_of(RoleSelection)
    assert {each.sop_class_uid: (each.scu_role, each.scp_role) for each in proposed} == expected
    assert len(proposed) == len(expected)
    assert answer.items_of(RoleSelection) == (), "an acceptor without configured roles answers none"
