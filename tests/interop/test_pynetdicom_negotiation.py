"""pynetdicom in both roles: the items of extended negotiation, role selection, and the asynchronous window."""

import itertools
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pynetdicom import build_role as their_role
from pynetdicom import evt as their_evt
from pynetdicom import pdu_primitives as their_items

from rxdicom import AE, AssociationRejected, AssociationServer, build_role, evt, pdu_primitives
from rxdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind, storage_sop_classes
from rxdicom.wire.items import SOPClassExtended, UserIdentityResponse
from rxdicom.wire.uids import VERIFICATION
from tests.interop.memory import identifier
from tests.interop.theirs import associated, serving

FIND, CT = str(StudyRootQueryRetrieveInformationModelFind), str(CTImageStorage)
STORAGE_SERVICE = "1.2.840.10008.4.2"
UNKNOWN = "1.2.3.4.5.6"
"""A SOP class that nobody knows."""


@contextmanager
def our_server(handlers: Sequence[Any], *sop_classes: str) -> Generator[AssociationServer]:
    ae = AE()
    ae.accept_any_storage = True
    for uid in (VERIFICATION, *sop_classes):
        ae.add_supported_context(uid)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers) as server:
        yield server


def requesting(*sop_classes: str) -> AE:
    ae = AE()
    for uid in sop_classes:
        ae.add_requested_context(uid)
    return ae


# ---- user identity

IDENTITIES = {
    1: (b"somebody", b""),
    2: (b"somebody", b"secret"),
    3: (b"a Kerberos ticket", b""),
    4: (b"a SAML assertion", b""),
    5: (b"a JSON Web Token", b""),
}


def identity(items: Any, kind: int) -> Any:
    """A user identity of either side's making."""
    item = items.UserIdentityNegotiation()
    item.user_identity_type = kind
    item.positive_response_requested = True
    item.primary_field, item.secondary_field = IDENTITIES[kind]
    return item


def on_user_id(event: Any) -> tuple[bool, bytes | None]:
    """A handler of either side, which accepts what is known."""
    known = IDENTITIES[event.user_id_type] == (event.primary_field, event.secondary_field or b"")
    return known, b"answer" if event.user_id_type > 2 else None


def test_our_user_identity() -> None:
    """Their answer to the first two types is none at all."""
    answers: dict[int, list[bytes]] = {}
    with serving([(their_evt.EVT_USER_ID, on_user_id)], VERIFICATION) as server:
        ae = requesting(VERIFICATION)
        for kind in IDENTITIES:
            with ae.associate(*server.server_address, ext_neg=[identity(pdu_primitives, kind)]) as assoc:
                assert assoc.send_c_echo() == 0x0000
                replies = [item for item in assoc.acceptor.user_information if isinstance(item, UserIdentityResponse)]
                answers[kind] = [reply.server_response for reply in replies]
        wrong = identity(pdu_primitives, 2)
        wrong.secondary_field = b"wrong"
        with pytest.raises(AssociationRejected) as caught:
            ae.associate(*server.server_address, ext_neg=[wrong])
    assert answers == {1: [], 2: [], 3: [b"answer"], 4: [b"answer"], 5: [b"answer"]}
    assert caught.value.source in (1, 2)


def test_their_user_identity() -> None:
    answers: dict[int, bytes] = {}
    received: list[Any] = []
    with our_server([(evt.EVT_USER_ID, on_user_id)]) as server:
        for kind in IDENTITIES:
            with associated(server.address, VERIFICATION, ext_neg=[identity(their_items, kind)]) as assoc:
                answers[kind] = assoc.acceptor.user_identity.server_response
        wrong = identity(their_items, 2)
        wrong.secondary_field = b"wrong"
        handlers = [(their_evt.EVT_PDU_RECV, received.append)]
        with (
            pytest.raises(AssertionError),
            associated(server.address, VERIFICATION, ext_neg=[wrong], evt_handlers=handlers),
        ):
            pytest.fail("the association is established")
    assert answers == {1: b"", 2: b"", 3: b"answer", 4: b"answer", 5: b"answer"}
    [rejection] = [event.pdu for event in received]
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (1, 2, 1)


# ---- extended negotiation


def extended(items: Any, uid: str, information: bytes) -> Any:
    item = items.SOPClassExtendedNegotiation()
    item.sop_class_uid = uid
    item.service_class_application_information = information
    return item


def on_extended(event: Any) -> dict[str, bytes]:
    """A handler of either side: it answers to one of the SOP classes, and to one that was not proposed."""
    assert {str(uid): info for uid, info in event.app_info.items()} == {FIND: b"\1\1\1", CT: b"\2"}
    return {FIND: b"\1\0\1"}


def test_sop_class_extended_both_ways() -> None:
    with (
        serving([(their_evt.EVT_SOP_EXTENDED, on_extended)], FIND, CT) as theirs,
        our_server([(evt.EVT_SOP_EXTENDED, on_extended)], FIND) as ours,
    ):
        proposed = [extended(pdu_primitives, FIND, b"\1\1\1"), extended(pdu_primitives, CT, b"\2")]
        ae = requesting(FIND, CT)
        with ae.associate(*theirs.server_address, ext_neg=proposed) as assoc:
            replies = [item for item in assoc.acceptor.user_information if isinstance(item, SOPClassExtended)]
        proposed = [extended(their_items, FIND, b"\1\1\1"), extended(their_items, CT, b"\2")]
        with associated(ours.address, FIND, CT, ext_neg=proposed) as assoc:
            their_replies = assoc.acceptor.sop_class_extended
    assert replies == [SOPClassExtended(FIND, b"\1\0\1")]
    assert their_replies == {FIND: b"\1\0\1"}


def common(items: Any) -> Any:
    item = items.SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = UNKNOWN
    item.service_class_uid = STORAGE_SERVICE
    item.related_general_sop_class_identification = [CT]
    return item


def test_sop_class_common_extended_both_ways() -> None:
    """An unknown SOP class is accepted, since it is said to be of the Storage service, and an instance is stored."""
    told: list[Any] = []

    def on_common(event: Any) -> Any:
        [(uid, item)] = event.items.items()
        told.append((str(uid), str(item.service_class_uid)))
        return event.items

    def on_store(event: Any) -> int:
        told.append(str(event.request.AffectedSOPClassUID))
        return 0x0000

    instance = identifier(SOPClassUID=UNKNOWN, SOPInstanceUID="1.2.3")
    with (
        serving([(their_evt.EVT_SOP_COMMON, on_common)], VERIFICATION) as theirs,
        our_server([(evt.EVT_SOP_COMMON, on_common), (evt.EVT_C_STORE, on_store)]) as ours,
    ):
        ae = requesting(VERIFICATION, UNKNOWN)
        with ae.associate(*theirs.server_address, ext_neg=[common(pdu_primitives)]) as assoc:
            assert assoc.send_c_echo() == 0x0000
        with ae.associate(*ours.address, ext_neg=[common(pdu_primitives)]) as assoc:
            assert assoc.send_c_store(instance) == 0x0000
        with associated(ours.address, VERIFICATION, UNKNOWN, ext_neg=[common(their_items)]) as assoc:
            accepted = {str(context.abstract_syntax) for context in assoc.accepted_contexts}
    item = (UNKNOWN, STORAGE_SERVICE)
    assert told == [item, item, UNKNOWN, item]
    assert accepted == {VERIFICATION, UNKNOWN}


# ---- role selection

CHOICES = (None, False, True)
SUPPORTED = {
    str(uid): roles
    for uid, roles in zip(storage_sop_classes(), itertools.product(CHOICES, CHOICES), strict=False)
    if (None in roles) == (roles == (None, None))
}
"""SOP classes, each with other roles that the acceptor grants; one without any."""
PROPOSED = [None, (True, False), (False, True), (True, True)]

Roles = dict[str, tuple[bool, bool]]


def roles_of(contexts: Any) -> Roles:
    return {str(each.abstract_syntax): (each.as_scu, each.as_scp) for each in contexts}


def mirrored(roles: Roles) -> Roles:
    return {uid: (scp, scu) for uid, (scu, scp) in roles.items()}


def agreed(proposed: tuple[bool, bool] | None) -> Roles:
    """The roles of the requestor (PS3.7 D.3.3.4); a context in which it has none is refused."""
    found: Roles = {}
    for uid, supported in SUPPORTED.items():
        if proposed is None or supported == (None, None):
            found[uid] = (True, False)
        else:
            roles = proposed[0] and bool(supported[0]), proposed[1] and bool(supported[1])
            if any(roles):
                found[uid] = roles
    return found


def test_roles_both_ways() -> None:
    """Both sides agree about what each may do, for every combination that can be proposed and granted."""
    ae = requesting(*SUPPORTED)
    for uid, (scu, scp) in SUPPORTED.items():
        ae.add_supported_context(uid, scu_role=scu, scp_role=scp)
    with (
        serving([], roles=SUPPORTED) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False) as own_server,
    ):
        for proposed in PROPOSED:
            items = [build_role(uid, *proposed) for uid in SUPPORTED] if proposed else []
            with ae.associate(*their_server.server_address, ext_neg=items) as assoc:
                accepted = their_server.active_associations[-1]
                assert roles_of(assoc.accepted_contexts) == agreed(proposed)
                assert mirrored(roles_of(accepted.accepted_contexts)) == agreed(proposed)
            items = [their_role(uid, *proposed) for uid in SUPPORTED] if proposed else []
            with associated(own_server.address, *SUPPORTED, ext_neg=items) as assoc:
                [accepted] = own_server.active_associations
                assert roles_of(assoc.accepted_contexts) == agreed(proposed)
                assert mirrored(roles_of(accepted.accepted_contexts)) == agreed(proposed)


# ---- asynchronous window


def window(items: Any, invoked: int, performed: int) -> Any:
    item = items.AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked = invoked
    item.maximum_number_operations_performed = performed
    return item


def test_our_window() -> None:
    """They are asked, and always answer that it is one."""
    asked: list[Any] = []

    def on_window(event: Any) -> tuple[int, int]:
        asked.append((event.nr_invoked, event.nr_performed))
        return 5, 5

    for handlers in ([], [(their_evt.EVT_ASYNC_OPS, on_window)]):
        with serving(handlers, VERIFICATION) as server:
            ae = requesting(VERIFICATION)
            with ae.associate(*server.server_address, ext_neg=[window(pdu_primitives, 7, 3)]) as assoc:
                assert assoc.operations_window == (1, 1)
                assert assoc.send_c_echo() == 0x0000
    assert asked == [(7, 3)]


def test_their_window() -> None:
    """They may propose one, which they do not use; our answer is clamped to it."""

    def on_window(event: Any) -> tuple[int, int]:
        assert (event.nr_invoked, event.nr_performed) == (7, 3)
        return 5, 0

    with our_server([(evt.EVT_ASYNC_OPS, on_window)]) as server:
        with associated(server.address, VERIFICATION, ext_neg=[window(their_items, 7, 3)]) as assoc:
            [mine] = server.active_associations
            windows = (assoc.acceptor.asynchronous_operations, mine.operations_window)
            assert assoc.send_c_echo().Status == 0x0000
    # What the requestor may invoke this side performs.
    assert windows == ((5, 3), (3, 5))
