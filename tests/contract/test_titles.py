"""Several called AE titles on one listener, each with contexts, handlers and rules of its own, in every runtime."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rxdicom import ArgumentError, AssociationRejected, NoAcceptedContext, evt
from rxdicom.events.records import CFind, CMove, CStore, Established
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.contract.conftest import Sides, entity
from tests.runtimes.queries import CT, FIND, MOVE, instance, query
from tests.support import DEADLINE


def finding(patient: str) -> Any:
    """A C-FIND handler with one match."""

    def find(_: CFind) -> Iterator[Any]:
        yield 0xFF00, query(patient)

    return find


def worklist(sides: Sides, *uids: str) -> Any:
    """Another entity of the runtime that answers."""
    ae = sides.scp_runtime.ae("WORKLIST")
    for uid in uids or (VERIFICATION, FIND):
        ae.add_supported_context(uid, IMPLICIT_VR_LITTLE_ENDIAN)
    return ae


def serve(sides: Sides, server: Any, ae: Any, *handlers: Any, **options: Any) -> None:
    bound = sides.scp_runtime.handlers(handlers)
    server.also_serve(getattr(ae, "target", ae), bound, **options)


def found(sides: Sides, server: Any, title: str) -> list[str]:
    with sides.associate(server, ae_title=title) as assoc:
        answers = list(assoc.send_c_find(query(), FIND))
    return [dataset.PatientID for _, dataset in answers if dataset is not None]


def test_each_title_has_its_handlers(sides: Sides) -> None:
    server = sides.start((evt.EVT_C_FIND, finding("archived")))
    serve(sides, server, worklist(sides), (evt.EVT_C_FIND, finding("planned")))
    assert found(sides, server, "SCP") == ["archived"]
    assert found(sides, server, "WORKLIST") == ["planned"]
    assert found(sides, server, "ANYTHING") == ["archived"]


def test_what_is_not_bound_has_its_default_and_not_the_handler_of_the_listener(sides: Sides) -> None:
    server = sides.start((evt.EVT_C_FIND, finding("archived")))
    serve(sides, server, worklist(sides))
    with sides.associate(server, ae_title="WORKLIST") as assoc:
        ((status, _),) = assoc.send_c_find(query(), FIND)
    assert status == 0xC311


def test_each_title_has_its_contexts(sides: Sides) -> None:
    server = sides.start()
    serve(sides, server, worklist(sides))
    with sides.associate(server, ae_title="WORKLIST") as assoc:
        assert {each.abstract_syntax for each in assoc.accepted_contexts} == {VERIFICATION, FIND}
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_store(instance("1.2.3"))
    with sides.associate(server) as assoc:
        assert CT in {each.abstract_syntax for each in assoc.accepted_contexts}


def test_each_title_has_its_rules(sides: Sides) -> None:
    """The listener wants its own title to be called, the other one wants certain callers."""
    sides.scp.require_called_aet = True
    server = sides.start()
    picky = worklist(sides)
    picky.require_calling_aet = ["FRIEND"]
    serve(sides, server, picky)
    serve(sides, server, worklist(sides), ae_title="OPEN")
    for title, reason in (("WORKLIST", 3), ("NOBODY", 7)):
        with pytest.raises(AssociationRejected) as caught:
            sides.associate(server, ae_title=title)
        assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, reason)
    for title in ("SCP", "OPEN"):
        with sides.associate(server, ae_title=title) as assoc:
            assert assoc.send_c_echo() == 0x0000


def test_observers_of_a_title_hear_of_its_associations_only(sides: Sides) -> None:
    of_title: list[Established] = []
    of_entity: list[Established] = []
    over = threading.Event()
    server = sides.start((evt.EVT_RELEASED, lambda _: over.set()))
    ae = worklist(sides)
    sides.scp_runtime.subscribe(ae.events.established, on_next=of_entity.append)
    serve(sides, server, ae, (evt.EVT_ESTABLISHED, of_title.append))
    for title in ("SCP", "WORKLIST"):
        over.clear()
        with sides.associate(server, ae_title=title) as assoc:
            assert assoc.send_c_echo() == 0x0000
        assert over.wait(DEADLINE)
    assert [each.assoc.acceptor.ae_title for each in of_title] == ["WORKLIST"]
    assert of_entity == of_title


def test_an_entity_may_have_a_second_title(sides: Sides) -> None:
    """With other contexts, and its events are told once."""
    seen: list[Any] = []
    sides.scp_runtime.subscribe(sides.scp.events.established, on_next=seen.append)
    server = sides.start()
    contexts = [each for each in sides.scp.supported_contexts if each.abstract_syntax == VERIFICATION]
    serve(sides, server, sides.scp, ae_title="ECHO", contexts=contexts)
    with sides.associate(server, ae_title="ECHO") as assoc:
        assert {each.abstract_syntax for each in assoc.accepted_contexts} == {VERIFICATION}
        assert assoc.send_c_echo() == 0x0000
    sides.scp.shutdown()
    assert len(seen) == 1


def test_who_moves_is_the_title_that_was_called(sides: Sides) -> None:
    """The destination of a C-MOVE is called by it."""
    callers: list[str] = []

    def store(event: CStore) -> int:
        callers.append(event.assoc.requestor.ae_title)
        return 0x0000

    destination = entity(sides.scp_runtime, "THIRD")
    bound = sides.scp_runtime.handlers(((evt.EVT_C_STORE, store),))
    third = destination.start_server(("127.0.0.1", 0), block=False, evt_handlers=bound)

    def move(_: CMove) -> Iterator[Any]:
        yield third.address
        yield 1
        yield 0xFF00, instance("1.2.3")

    server = sides.start()
    mover = entity(sides.scp_runtime, "MOVER")
    serve(sides, server, mover, (evt.EVT_C_MOVE, move))
    with sides.associate(server, ae_title="MOVER") as assoc:
        assert [int(status) for status, _ in assoc.send_c_move(query(), "THIRD", MOVE)][-1] == 0x0000
    assert callers == ["MOVER"]


def test_what_cannot_be_served(sides: Sides) -> None:
    server = sides.start()
    ae = worklist(sides)
    serve(sides, server, ae)
    with pytest.raises(ArgumentError, match="'WORKLIST' is served here already"):
        serve(sides, server, ae)
    with pytest.raises(ArgumentError, match="'SCP' is served here already"):
        serve(sides, server, ae, ae_title="SCP")
    with pytest.raises(ArgumentError, match="no presentation contexts"):
        serve(sides, server, sides.scp_runtime.ae("EMPTY"))
    with pytest.raises(ArgumentError, match="is not an AE title"):
        serve(sides, server, ae, ae_title="A TITLE THAT IS TOO LONG")
