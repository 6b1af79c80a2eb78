"""Associations from their beginning to their end, and the events of both sides, whichever runtimes they are on."""

import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import evolve

from rxdicom import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    LocalUsageError,
    NoAcceptedContext,
    StateError,
    TimedOut,
    build_context,
    build_role,
    evt,
)
from rxdicom.events.records import Aborted, DIMSEReceived, Event, UserID
from rxdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from rxdicom.wire.items import SOPClassExtended, UserIdentityResponse
from rxdicom.wire.uids import VERIFICATION
from tests.certificates import Certificates
from tests.contract.conftest import Sides
from tests.contract.runtime import Runtime
from tests.ports import free_port
from tests.runtimes.queries import CT, FIND, instance, query
from tests.support import DEADLINE


class Stream:
    """Everything that a stream gives."""

    def __init__(self, runtime: Runtime, observable: Any) -> None:
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.completed = threading.Event()
        runtime.subscribe(
            observable, on_next=self.items.append, on_error=self.errors.append, on_completed=self.completed.set
        )


def names(events: list[Event], *, but: tuple[str, ...] = ("DATA", "PDU", "FSM")) -> list[str]:
    """The kinds of events without those that depend on how bytes are cut."""
    shown = [each.name.removeprefix("EVT_") for each in events]
    return [each for each in shown if not each.startswith(but)]


# ---- the events of an ordinary association


def test_what_both_sides_see_and_in_which_order(sides: Sides) -> None:
    server = sides.start()
    accepted = Stream(sides.scp_runtime, server.events.all)
    associations = Stream(sides.scp_runtime, server.associations)
    assoc = sides.scu.association(*server.address)
    requested = Stream(sides.scu_runtime, assoc.events.all)
    with assoc:
        assert assoc.send_c_echo() == 0x0000
    assert requested.completed.wait(DEADLINE)
    assert names(requested.items) == [
        "CONN_OPEN", "REQUESTED", "ACSE_SENT", "ACSE_RECV", "ACCEPTED", "ESTABLISHED",
        "DIMSE_SENT", "DIMSE_RECV", "ACSE_SENT", "ACSE_RECV", "RELEASED", "CONN_CLOSE",
    ]  # fmt: skip
    server.shutdown()
    assert accepted.completed.wait(DEADLINE)
    assert names(accepted.items) == [
        "CONN_OPEN", "ACSE_RECV", "REQUESTED", "ACSE_SENT", "ACCEPTED", "ESTABLISHED",
        "DIMSE_RECV", "DIMSE_SENT", "ACSE_RECV", "ACSE_SENT", "RELEASED", "CONN_CLOSE",
    ]  # fmt: skip
    assert len(associations.items) == 1
    assert requested.errors == accepted.errors == []
    assert all(each.timestamp.tzinfo is not None for each in requested.items)


def test_bytes_and_pdus_are_those_of_the_wire(sides: Sides) -> None:
    server = sides.start()
    received = Stream(sides.scp_runtime, server.events.data_recv)
    pdus = Stream(sides.scp_runtime, server.events.pdu_recv)
    assoc = sides.scu.association(*server.address)
    sent = Stream(sides.scu_runtime, assoc.events.data_sent)
    with assoc:
        assert assoc.send_c_store(instance(size=500_000)) == 0xC211
    server.shutdown()
    assert b"".join(each.data for each in received.items) == b"".join(each.data for each in sent.items)
    kinds = [type(each.pdu).__name__ for each in pdus.items]
    assert kinds == ["AssociateRQ", *["PDataTF"] * (len(kinds) - 2), "ReleaseRQ"]
    assert len(kinds) > 5


def test_an_observer_that_raises_disturbs_nobody(sides: Sides) -> None:
    def raise_always(event: Event) -> None:
        raise ZeroDivisionError

    server = sides.start((evt.EVT_DIMSE_RECV, raise_always))
    stream = Stream(sides.scp_runtime, server.events.dimse_recv)
    with sides.associate(server, (evt.EVT_DIMSE_SENT, raise_always)) as assoc:
        assert assoc.send_c_echo() == 0x0000
        assert assoc.send_c_echo() == 0x0000
    assert len(stream.items) == 2


# ---- how it begins


def test_who_takes_part(sides: Sides) -> None:
    server = sides.start()
    with sides.associate(server, ae_title="YOU") as assoc:
        accepted = server.active_associations[0]
        assert (assoc.requestor.ae_title, assoc.acceptor.ae_title) == ("SCU", "YOU")
        assert (accepted.requestor.ae_title, accepted.acceptor.ae_title) == ("SCU", "YOU")
        assert assoc.acceptor.port == server.address[1] == accepted.acceptor.port
        assert assoc.requestor.port == accepted.requestor.port
        assert assoc.requestor.address == accepted.requestor.address == "127.0.0.1"
        assert len(assoc.accepted_contexts) == len(accepted.accepted_contexts) == 6
        assert len(sides.scu.active_associations) == 1
    assert not sides.scu.active_associations


def test_rejected(sides: Sides) -> None:
    sides.scp.require_called_aet = True
    seen: list[Any] = []
    with pytest.raises(AssociationRejected) as caught:
        sides.associate(sides.start(), (evt.EVT_REJECTED, seen.append), ae_title="WRONG")
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 7)
    assert [(each.result, each.source, each.reason) for each in seen] == [(1, 1, 7)]


def test_one_association_too_many(sides: Sides) -> None:
    sides.scp.maximum_associations = 1
    server = sides.start()
    with sides.associate(server):
        with pytest.raises(AssociationRejected) as caught:
            sides.associate(server)
        assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
    with sides.associate(server) as assoc:
        assert assoc.send_c_echo() == 0x0000


def test_one_connection_too_many(sides: Sides) -> None:
    """It is closed without a word, whatever it might ask for, and its place is free again as soon as one has gone."""
    sides.scp.limits = evolve(sides.scp.limits, connections=2)
    server = sides.start()
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(server.address)) for _ in range(2)]
        with socket.create_connection(server.address) as refused:
            refused.settimeout(DEADLINE)
            assert refused.recv(100) == b""
        silent[0].close()
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                with sides.associate(server) as assoc:
                    assert assoc.send_c_echo() == 0x0000
                break
            except (AssociationAborted, ConnectionFailed):
                # Its end has not been noticed yet.
                assert time.monotonic() < deadline


def test_no_context_is_accepted(sides: Sides) -> None:
    with pytest.raises(NoAcceptedContext) as caught:
        sides.associate(sides.start(), contexts=[build_context("1.2.3")])
    assert caught.value.proposed == ("1.2.3",)
    with sides.associate(sides.start(), contexts=[build_context(VERIFICATION)]) as assoc:
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_find(instance(), FIND)


def test_nobody_is_there(sides: Sides) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        sides.scu.associate("127.0.0.1", free_port())
    with pytest.raises(ConnectionFailed, match="unknown host"):
        sides.scu.associate("host.invalid", 104)
    with pytest.raises(LocalUsageError, match="port"):
        sides.scu.associate("127.0.0.1", 0)
    assert not sides.scu.active_associations


def test_a_peer_that_says_nothing(sides: Sides) -> None:
    sides.scu.acse_timeout = 0.3
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut) as caught:
        sides.scu.associate(*silent.getsockname())
    assert caught.value.phase == "association"


def test_a_peer_that_asks_for_nothing_is_dropped(sides: Sides) -> None:
    sides.scp.acse_timeout = 0.3
    server = sides.start()
    with socket.create_connection(server.address) as silent:
        silent.settimeout(DEADLINE)
        assert silent.recv(100) == b""


def test_opened_once(sides: Sides) -> None:
    assoc = sides.scu.association(*sides.start().address)
    with pytest.raises(StateError, match="open"):
        assoc.send_c_echo()
    with assoc:
        assert assoc.send_c_echo() == 0x0000
    with pytest.raises(StateError):
        assoc.open()


@pytest.mark.parametrize("accepted", [True, False])
def test_user_identity(sides: Sides, accepted: bool) -> None:
    def on_identity(event: UserID) -> tuple[bool, bytes | None]:
        assert (event.primary_field, event.secondary_field) == (b"user", b"secret")
        return accepted, None

    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = b"user", b"secret"
    identity.positive_response_requested = True
    server = sides.start((evt.EVT_USER_ID, on_identity))
    if not accepted:
        with pytest.raises(AssociationRejected) as caught:
            sides.associate(server, ext_neg=[identity])
        assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 2, 1)
        return
    with sides.associate(server, ext_neg=[identity]) as assoc:
        assert UserIdentityResponse(b"") in assoc.acceptor.user_information
        requestor = server.active_associations[0].requestor
        assert requestor.user_identity.primary == b"user"


def test_negotiation_handlers(sides: Sides) -> None:
    """The window, and both kinds of extended negotiation: what is asked, and what is answered."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 7
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\x02\x00"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = CT, "1.2.840.10008.4.2"
    seen: dict[str, Any] = {}

    def on_window(event: Any) -> tuple[int, int]:
        seen["window"] = event.nr_invoked, event.nr_performed
        return 3, 9

    def on_extended(event: Any) -> dict[str, bytes]:
        seen["extended"] = event.app_info
        return {CT: b"\x01", "1.2.3": b"not asked"}

    def on_common(event: Any) -> Any:
        seen["common"] = set(event.items)
        return event.items

    server = sides.start((evt.EVT_SOP_EXTENDED, on_extended), (evt.EVT_SOP_COMMON, on_common))
    for each in sides.scp_runtime.handlers(((evt.EVT_ASYNC_OPS, on_window),)):
        server.bind(*each)
    with sides.associate(server, ext_neg=[window, extended, common]) as assoc:
        assert seen == {"window": (5, 7), "extended": {CT: b"\x02\x00"}, "common": {CT}}
        assert assoc.operations_window == (3, 7)
        assert server.active_associations[0].operations_window == (7, 3)
        infos = [item for item in assoc.acceptor.user_information if isinstance(item, SOPClassExtended)]
        assert infos == [SOPClassExtended(CT, b"\x01")]


def test_role_selection(sides: Sides) -> None:
    with sides.associate(sides.start(), ext_neg=[build_role(CT, scp_role=True)]) as assoc:
        roles = {each.abstract_syntax: (each.as_scu, each.as_scp) for each in assoc.accepted_contexts}
        assert roles[CT] == (False, True)
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_store(instance())


# ---- how it ends


def test_the_peer_releases(sides: Sides) -> None:
    server = sides.start()
    assoc = sides.associate(server)
    server.active_associations[0].release()
    assert assoc.join(DEADLINE)
    assert assoc.is_released
    with pytest.raises(AssociationReleased):
        assoc.send_c_echo()


def test_the_peer_aborts(sides: Sides) -> None:
    server = sides.start()
    aborted: list[Aborted] = []
    assoc = sides.associate(server, (evt.EVT_ABORTED, aborted.append))
    server.active_associations[0].abort()
    assert assoc.join(DEADLINE)
    assert assoc.is_aborted
    assert [(each.source, each.by) for each in aborted] == [(0, "peer")]
    with pytest.raises(AssociationAborted, match="by the peer"):
        assoc.send_c_echo()


def test_leaving_by_an_exception_aborts(sides: Sides) -> None:
    seen = threading.Event()
    server = sides.start((evt.EVT_ABORTED, lambda event: seen.set()))
    with pytest.raises(ZeroDivisionError), sides.associate(server) as assoc:
        raise ZeroDivisionError
    assert assoc.is_aborted
    assert seen.wait(DEADLINE)


def test_ended_twice(sides: Sides) -> None:
    assoc = sides.associate(sides.start())
    assoc.release()
    assoc.release()
    assoc.abort()
    assert assoc.is_released
    assert not assoc.is_aborted


def test_a_request_that_is_under_way_when_the_peer_aborts(sides: Sides) -> None:
    def on_store(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with pytest.raises(AssociationAborted), sides.associate(sides.start((evt.EVT_C_STORE, on_store))) as assoc:
        assoc.send_c_store(instance())


def test_an_idle_association_is_aborted(sides: Sides) -> None:
    sides.scp.network_timeout = 0.3
    aborted: list[Aborted] = []
    server = sides.start((evt.EVT_ABORTED, aborted.append))
    assoc = sides.associate(server)
    assert assoc.join(DEADLINE)
    assert assoc.is_aborted
    server.shutdown()
    assert [(each.by, "idle" in each.cause) for each in aborted] == [("local", True)]


def test_shutting_down_ends_everything(sides: Sides) -> None:
    server = sides.start()
    assocs = [sides.associate(server) for _ in range(3)]
    server.shutdown()
    assert all(each.join(DEADLINE) for each in assocs)
    assert all(each.is_aborted for each in assocs)
    with pytest.raises(ConnectionFailed):
        sides.associate(server)


def test_a_shutdown_that_drains_lets_them_end(sides: Sides) -> None:
    server = sides.start()
    assoc = sides.associate(server)
    ending = threading.Thread(target=server.shutdown, args=(DEADLINE,))
    ending.start()
    assert assoc.send_c_echo() == 0x0000
    assoc.release()
    ending.join(DEADLINE)
    assert not ending.is_alive()
    assert assoc.is_released


@pytest.mark.parametrize("request_kind", ["echo", "find"])
def test_an_observer_of_the_last_response_aborts(sides: Sides, request_kind: str) -> None:
    """The response is there: whoever waits for it gets it, or hears of the abort, and does not wait for ever."""

    def abort(event: DIMSEReceived) -> None:
        if event.message.Status not in (0xFF00, None):
            event.assoc.abort()

    with sides.associate(sides.start(), (evt.EVT_DIMSE_RECV, abort)) as assoc:
        try:
            if request_kind == "echo":
                assert assoc.send_c_echo() == 0x0000
            else:
                assert [int(status) for status, _ in assoc.send_c_find(query(), FIND)] == [0xC311]
        except AssociationAborted:
            assert assoc.is_aborted


# ---- TLS and IPv6


def test_tls(sides: Sides, certificates: Certificates) -> None:
    server_context, client_context = certificates.contexts()
    server = sides.start(ssl_context=server_context)
    with sides.associate(server, tls_args=(client_context, "localhost")) as assoc:
        assert assoc.send_c_store(instance(size=2_000_000)) == 0xC211
        assert assoc.acceptor.certificate is not None
        assert server.active_associations[0].requestor.certificate is not None
    assert assoc.is_released
    with pytest.raises(ConnectionFailed, match="TLS"):
        sides.associate(server, tls_args=(client_context, "elsewhere"))
    sides.scu.timeouts = evolve(sides.scu.timeouts, association=DEADLINE)
    with pytest.raises((AssociationAborted, ConnectionFailed)):
        sides.associate(server)
    with sides.associate(server, tls_args=(client_context, "localhost")) as assoc:
        assert assoc.send_c_echo() == 0x0000


def test_a_handshake_that_stalls(sides: Sides, certificates: Certificates) -> None:
    server_context, client_context = certificates.contexts()
    sides.scu.timeouts = evolve(sides.scu.timeouts, tls=0.2)
    sides.scp.timeouts = evolve(sides.scp.timeouts, tls=0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut) as caught:
        sides.scu.associate(*silent.getsockname(), tls_args=(client_context, "localhost"))
    assert caught.value.phase == "tls"
    server = sides.start(ssl_context=server_context)
    with socket.create_connection(server.address) as silent:
        silent.settimeout(DEADLINE)
        assert silent.recv(100) == b""


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(sides: Sides) -> None:
    server = sides.scp.start_server(("::1", 0), block=False)
    with sides.scu.associate("::1", server.address[1]) as assoc:
        assert assoc.send_c_echo() == 0x0000
        assert assoc.acceptor.address == "::1"
