"""Retrieval and the N services of the asyncio runtime, with DCMTK and pynetdicom, in both directions."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import build_role as their_role
from pynetdicom import evt as their_evt

from rxdicom import evt
from rxdicom.aio import AE
from rxdicom.sop_class import ModalityPerformedProcedureStep
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.aio.support import on_both_loops, run, serving
from tests.aio.test_peers import program
from tests.interop import theirs
from tests.interop.archives import FINDS, GETS, MOVES, dcmqrscp
from tests.interop.memory import Archive, as_values, identifier, own_contexts, syntax_of, twenty_files, twenty_instances
from tests.ports import free_port
from tests.runtimes.queries import counters, statuses
from tests.support import dataset_bytes, dcmtk

# Of five SOP classes, three of them in explicit VR, and two compressed.
_CHOSEN = ("CT_small", "JPEG-lossy", "MR_small_RLE", "examples_palette", "waveform_ecg")
PATHS = [path for path in twenty_files() if path.stem in _CHOSEN]
INSTANCES = [each for path, each in zip(twenty_files(), twenty_instances(), strict=True) if path in PATHS]
PLAIN = [each for each in INSTANCES if syntax_of(each) == EXPLICIT_VR_LITTLE_ENDIAN]
FIND, GET, MOVE = FINDS["S"], GETS["S"], MOVES["S"]
MPPS = str(ModalityPerformedProcedureStep)


def entity(title: str) -> AE:
    """For the study root model and these instances, as they are, in both roles."""
    ae = AE(title)
    ae.convert_datasets = False
    for uid in (VERIFICATION, FIND, GET, MOVE, MPPS):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    for context in own_contexts(INSTANCES):
        ae.add_requested_context(str(context.abstract_syntax), context.transfer_syntax)
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax, scu_role=True, scp_role=True)
    return ae


class Stored(dict[str, Dataset]):
    """A C-STORE handler of either side; what it was given, by SOP instance."""

    def __call__(self, event: Any) -> int:
        dataset = event.dataset
        self[dataset.SOPInstanceUID] = as_values(dataset)
        return 0x0000


EVERYTHING = {each.SOPInstanceUID: as_values(each) for each in INSTANCES}


# ---- DCMTK


@pytest.mark.peer
@on_both_loops
def test_dcmtk_retrieves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """By getscu, over the association that it opened; by movescu, over another one."""
    got, moved, port = tmp_path / "got", tmp_path / "moved", free_port()
    got.mkdir()
    moved.mkdir()
    monkeypatch.chdir(moved)  # Where movescu writes what it preserves.
    getscu, movescu = dcmtk("getscu"), dcmtk("movescu")
    archive = Archive(INSTANCES, {"MOVESCU": ("127.0.0.1", port)}, own_contexts(INSTANCES), as_files=True)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=")

    async def answer() -> None:
        async with serving(*archive.handlers, ae=entity("ARCHIVE")) as (_, server):
            to = ("127.0.0.1", server.address[1])
            await program(getscu, "-S", "+B", "+xe", "-od", got, *keys, *to)
            await program(movescu, "-S", "+B", "+xa", "+P", port, "-aem", "MOVESCU", *keys, *to)

    run(answer(), loop)
    assert len(list(got.iterdir())) == len(PLAIN) == 3
    assert sorted(map(dataset_bytes, moved.iterdir())) == sorted(map(dataset_bytes, PATHS))


@pytest.mark.peer
@on_both_loops
def test_an_archive_of_dcmtk(tmp_path: Path, loop: str) -> None:
    """Filled over two associations, asked, and asked for everything by C-GET and by C-MOVE to ourselves."""
    got, moved = Stored(), Stored()
    ours = free_port()

    async def ask(port: int) -> None:
        async with entity("RXDICOM") as ae:
            transfer = ae.send("127.0.0.1", port, PATHS, 2, ae_title="ARCHIVE")
            assert [each.error async for each in transfer] == [None] * len(PATHS)
            assert transfer.totals.stored == len(PATHS)
            async with (
                ae.start_server(("127.0.0.1", ours), evt_handlers=[(evt.EVT_C_STORE, moved)]),
                ae.associate("127.0.0.1", port, ae_title="ARCHIVE", evt_handlers=[(evt.EVT_C_STORE, got)]) as assoc,
            ):
                wanted = identifier("STUDY", StudyInstanceUID="", PatientID="")
                found = [each async for each in assoc.send_c_find(wanted, FIND)]
                assert {each.PatientID for _, each in found if each} == {each.PatientID for each in INSTANCES}
                studies = [str(each.StudyInstanceUID) for _, each in found if each]
                wanted = identifier("STUDY", StudyInstanceUID=studies)
                answers = [each async for each in assoc.send_c_get(wanted, GET)]
                assert counters(answers[-1][0])[1:] == (len(PATHS), 0, 0)
                answers = [each async for each in assoc.send_c_move(wanted, "RXDICOM", MOVE)]
                assert counters(answers[-1][0])[1:] == (len(PATHS), 0, 0)

    syntaxes = sorted({syntax_of(each) for each in INSTANCES})
    sop_classes = {str(each.SOPClassUID) for each in INSTANCES}
    with dcmqrscp(tmp_path, sop_classes, syntaxes, {"RXDICOM": ours}) as port:
        run(ask(port), loop)
    assert got == moved == EVERYTHING


# ---- pynetdicom


def retrieving(instances: list[Dataset]) -> Callable[[Any], Iterator[Any]]:
    """A C-GET handler of their side."""

    def on_get(event: Any) -> Iterator[Any]:
        yield len(instances)
        for each in instances:
            yield 0xFF00, each

    return on_get


def test_we_retrieve_from_pynetdicom() -> None:
    got, moved = Stored(), Stored()

    async def ask(address: tuple[str, int]) -> None:
        async with entity("RXDICOM") as ae:
            async with ae.start_server(("127.0.0.1", 0), evt_handlers=[(evt.EVT_C_STORE, moved)]) as server:
                destination.append(server.address)
                async with ae.associate(*address, evt_handlers=[(evt.EVT_C_STORE, got)]) as assoc:
                    answers = [each async for each in assoc.send_c_get(identifier("STUDY"), GET)]
                    assert statuses(answers) == [0xFF00] * len(PLAIN) + [0x0000]
                    answers = [each async for each in assoc.send_c_move(identifier("STUDY"), "RXDICOM", MOVE)]
                    assert statuses(answers) == [0xFF00] * len(PLAIN) + [0x0000]

    def on_move(event: Any) -> Iterator[Any]:
        yield destination[0]
        yield from retrieving(PLAIN)(event)

    destination: list[tuple[str, int]] = []
    classes = {str(each.SOPClassUID) for each in PLAIN}
    handlers = [(their_evt.EVT_C_GET, retrieving(PLAIN)), (their_evt.EVT_C_MOVE, on_move)]
    roles = dict.fromkeys(classes, (True, True))
    with theirs.serving(handlers, GET, MOVE, roles=roles, requested=classes) as server:
        run(ask(server.server_address))
    assert got == moved == {each.SOPInstanceUID: as_values(each) for each in PLAIN}


def test_pynetdicom_retrieves_from_us() -> None:
    classes = {str(each.SOPClassUID) for each in PLAIN}
    got, moved = Stored(), Stored()

    def ask(address: tuple[str, int]) -> None:
        roles = [their_role(uid, scp_role=True) for uid in classes]
        handlers = [(their_evt.EVT_C_STORE, got)]
        with theirs.associated(address, GET, MOVE, *classes, ext_neg=roles, evt_handlers=handlers) as assoc:
            for send in (
                lambda: assoc.send_c_get(identifier("STUDY"), GET),
                lambda: assoc.send_c_move(identifier("STUDY"), "THEM", MOVE),
            ):
                answers = [status.Status for status, _ in send()]
                assert answers == [0xFF00] * len(PLAIN) + [0x0000]
                theirs.settle(assoc)

    async def answer(destination: tuple[str, int]) -> None:
        archive = Archive(PLAIN, {"THEM": destination}, own_contexts(PLAIN))
        async with serving(*archive.handlers, ae=entity("ARCHIVE")) as (_, server):
            await asyncio.to_thread(ask, server.address)

    with theirs.serving([(their_evt.EVT_C_STORE, moved)], *classes) as server:
        run(answer(server.server_address))
    assert got == moved == {each.SOPInstanceUID: as_values(each) for each in PLAIN}


CALLS: list[Callable[[Any], Any]] = [
    lambda assoc: assoc.send_n_create(identifier(PatientID="there"), MPPS, "1.2.3"),
    lambda assoc: assoc.send_n_set(identifier(PatientID="there"), MPPS, "1.2.3"),
]
"""What the SCU of a performed procedure step asks for, in the words of both sides."""


def n_handlers(kinds: Any, seen: list[str]) -> list[Any]:
    """Handlers of either side for the services of a performed procedure step."""

    def create(event: Any) -> Any:
        seen.append(f"create {event.attribute_list.PatientID}")
        return 0x0000, identifier(PatientID="back")

    def change(event: Any) -> Any:
        seen.append(f"set {event.modification_list.PatientID}")
        return 0x0000, identifier(PatientID="back")

    return [(kinds.EVT_N_CREATE, create), (kinds.EVT_N_SET, change)]


def test_n_services_with_pynetdicom() -> None:
    """In both directions: what is created and set there, and the answer."""
    seen: list[str] = []

    def their_calls(address: tuple[str, int]) -> None:
        with theirs.associated(address, MPPS) as assoc:
            for call in CALLS:
                status, answer = call(assoc)
                assert (status.Status, answer.PatientID) == (0x0000, "back")
                theirs.settle(assoc)

    async def both(address: tuple[str, int]) -> None:
        async with serving(*n_handlers(evt, seen), ae=entity("RXDICOM")) as (ae, server):
            async with ae.associate(*address) as assoc:
                for call in CALLS:
                    status, answer = await call(assoc)
                    assert (int(status), answer.PatientID) == (0x0000, "back")
            await asyncio.to_thread(their_calls, server.address)

    with theirs.serving(n_handlers(their_evt, seen), MPPS) as server:
        run(both(server.server_address))
    assert seen == ["create there", "set there"] * 2
