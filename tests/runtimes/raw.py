"""A peer made of a bare socket, which speaks as much DICOM as an attack needs; its victims, and what it leaves."""

import gc
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from attrs import evolve

from rxdicom import AE, AssociationServer, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import Aborted, CStore, Event, Rejected, Released
from rxdicom.protocol.negotiation import propose
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.dimse import Command, Message, decode_command_set, message
from rxdicom.wire.encoded import BytesSource, Encoded
from rxdicom.wire.items import ImplementationClassUID, MaximumLength, PresentationContextAC, UserItem
from rxdicom.wire.pdata import message_runs
from rxdicom.wire.pdu import (
    HEADER,
    HEADER_SIZE,
    PDU,
    Abort,
    AssociateAC,
    AssociateRQ,
    PDataTF,
    decode_pdu,
    encode_pdu,
)
from rxdicom.wire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

CT = str(CTImageStorage)
ECHO_CONTEXT, CT_CONTEXT = 1, 3
DEADLINE = 10.0
"""Seconds that any single wait may take at the most."""
SOON = 1.0
"""Seconds within which an attack must be over, and everybody else served (RELIABILITY.md)."""
MEBIBYTE = 1 << 20


# ---- bytes


def request(items: Iterable[UserItem] = (), maximum_length: int = 16384, calling: str = "RAW") -> AssociateRQ:
    """An A-ASSOCIATE-RQ for C-ECHO and for CT images, in implicit VR."""
    contexts = [(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN]), (CT, [IMPLICIT_VR_LITTLE_ENDIAN])]
    return propose("ANY-SCP", calling, contexts, maximum_length=maximum_length, items=items)


def accepting(asked: AssociateRQ, maximum_length: int = 16384) -> AssociateAC:
    """The A-ASSOCIATE-AC that accepts everything in its first transfer syntax."""
    proposed = asked.presentation_contexts
    accepted = (PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[0]) for each in proposed)
    items = (MaximumLength(maximum_length), ImplementationClassUID("1.2.3"))
    titles = (asked.called_ae_title, asked.calling_ae_title)
    return AssociateAC(*titles, items, presentation_contexts=tuple(accepted))


def pdus(sent: Message, data: bytes | None = None, maximum_length: int = 16384) -> bytes:
    """A whole message as P-DATA-TF."""
    source = None if data is None else BytesSource(data)
    return b"".join(bytes(run) for run in message_runs(sent, source, maximum_length))


def echo_rq(message_id: int = 1) -> bytes:
    return pdus(message(Command.C_ECHO_RQ, ECHO_CONTEXT, MessageID=message_id, AffectedSOPClassUID=VERIFICATION))


def echo_rsp(asked: Message, status: int = 0x0000, message_id: int | None = None) -> bytes:
    answered = asked.MessageID if message_id is None else message_id
    return pdus(message(Command.C_ECHO_RSP, asked.context_id, MessageIDBeingRespondedTo=answered, Status=status))


def store_message(message_id: int = 1, instance: str = "1.2.3") -> Message:
    return message(
        Command.C_STORE_RQ,
        CT_CONTEXT,
        Encoded(IMPLICIT_VR_LITTLE_ENDIAN, b""),
        MessageID=message_id,
        Priority=0,
        AffectedSOPClassUID=CT,
        AffectedSOPInstanceUID=instance,
    )


def store_rq(data: bytes, message_id: int = 1, instance: str = "1.2.3", maximum_length: int = 16384) -> bytes:
    """A C-STORE-RQ whose dataset is ``data``, whatever that is."""
    return pdus(store_message(message_id, instance), data, maximum_length)


COMMAND, DATA, LAST = 1, 0, 2


def pdv(control: int, data: bytes, context_id: int = CT_CONTEXT, length: int | None = None) -> bytes:
    """A PDV, whose length field may lie."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context_id, control) + data


def p_data(*values: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF, whose length field may lie."""
    body = b"".join(values)
    return HEADER.pack(PDataTF.pdu_type, len(body) if length is None else length) + body


# ---- the peer


class Raw:
    """A socket that speaks DICOM only as far as it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        self.sock = sock

    def send(self, *parts: bytes | PDU) -> None:
        self.sock.sendall(b"".join(each if isinstance(each, bytes) else encode_pdu(each) for each in parts))

    def pdu(self) -> PDU:
        """The next PDU. Raises :class:`EOFError` where the connection is closed instead."""
        return decode_pdu(self.pdu_bytes())

    def pdu_bytes(self) -> bytes:
        header = self.take(HEADER_SIZE)
        return header + self.take(HEADER.unpack(header)[1])

    def take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self.sock.recv(count - len(data))
            if not chunk:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += chunk
        return bytes(data)

    def message(self) -> Message:
        """The next message, whose dataset is left out."""
        parts: dict[bool, bytes] = {True: b"", False: b""}
        found: Message | None = None
        while True:
            values = self.pdu()
            assert isinstance(values, PDataTF), values
            for value in values.values:
                parts[value.is_command] += value.data
                if value.is_command and value.is_last:
                    found = Message(decode_command_set(parts[True]), value.context_id)
                if value.is_last and found is not None and value.is_command != found.has_dataset:
                    return found

    def associate(self, asked: AssociateRQ | None = None) -> AssociateAC:
        self.send(asked or request())
        answer = self.pdu()
        assert isinstance(answer, AssociateAC), answer
        return answer

    def accept(self, maximum_length: int = 16384) -> AssociateRQ:
        """As acceptor: accept every context that is proposed."""
        asked = self.pdu()
        assert isinstance(asked, AssociateRQ), asked
        self.send(accepting(asked, maximum_length))
        return asked

    def aborted(self, within: float = SOON) -> tuple[int, int]:
        """The codes of the A-ABORT that comes next, ``within`` seconds."""
        before = time.monotonic()
        answer = self.pdu()
        took = time.monotonic() - before
        assert isinstance(answer, Abort), answer
        assert took < within, f"aborted after {took:.3f} s"
        return answer.source, answer.reason

    def is_closed(self, within: float = DEADLINE) -> bool:
        """Whether the other side closes, whatever it sends before."""
        deadline = time.monotonic() + within
        try:
            while True:
                self.sock.settimeout(max(0.001, deadline - time.monotonic()))
                if not self.sock.recv(65536):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def connect(server: AssociationServer) -> Raw:
    sock = socket.create_connection(server.address, timeout=DEADLINE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Raw(sock)


@contextmanager
def associated(server: AssociationServer, asked: AssociateRQ | None = None) -> Generator[Raw]:
    with connect(server) as raw:
        raw.associate(asked)
        yield raw


@contextmanager
def scripted(script: Callable[[Raw], None], host: str = "127.0.0.1") -> Generator[tuple[str, int]]:
    """A listening peer, for one connection, that does what ``script`` says. What fails in it fails the test."""
    failures: list[BaseException] = []
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(DEADLINE)

        def serve() -> None:
            try:
                with Raw(listener.accept()[0]) as raw:
                    script(raw)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
                failures.append(error)

        thread = threading.Thread(target=serve, name="scripted peer")
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            thread.join(DEADLINE)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


# ---- the victims


def entity(limits: dict[str, Any] | None = None, timeouts: dict[str, Any] | None = None) -> AE:
    """An AE for C-ECHO and CT images in implicit VR, in both roles; as SCP it takes deflated ones too."""
    ae = AE("VICTIM")
    for uid in (VERIFICATION, CT):
        ae.add_requested_context(uid, IMPLICIT_VR_LITTLE_ENDIAN)
        ae.add_supported_context(uid, [IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
    ae.limits = evolve(ae.limits, **limits or {})
    ae.timeouts = evolve(ae.timeouts, **timeouts or {})
    return ae


Terminal = Rejected | Released | Aborted


class Victim:
    """A server under attack, and how its associations end."""

    def __init__(
        self, ae: AE, handlers: Sequence[EventHandler], ssl_context: Any = None, host: str = "127.0.0.1"
    ) -> None:
        self.ae = ae
        self._closed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._terminal: dict[Any, list[Terminal]] = {}
        kinds = (evt.EVT_REJECTED, evt.EVT_RELEASED, evt.EVT_ABORTED)
        observers: list[EventHandler] = [(kind, self._on_terminal) for kind in kinds]
        observers.append((evt.EVT_CONN_CLOSE, self._on_close))
        self.server = ae.start_server(
            (host, 0), block=False, ssl_context=ssl_context, evt_handlers=[*observers, *handlers]
        )

    def _on_terminal(self, event: Terminal) -> None:
        self._terminal.setdefault(event.assoc, []).append(event)

    def _on_close(self, event: Event) -> None:
        self._closed.put(event.assoc)

    def end(self, within: float = DEADLINE) -> Terminal | None:
        """The one event that says how the next association ended; None for a connection that never became one."""
        assoc = self._closed.get(timeout=within)
        events = self._terminal.pop(assoc, [])
        assert len(events) <= 1, events
        return events[0] if events else None

    def ended_by(self, within: float = DEADLINE) -> tuple[int, int, str]:
        """Source, reason and originator of the abort that the next association ends with."""
        event = self.end(within)
        assert isinstance(event, Aborted), event
        return event.source, event.reason, event.by


@contextmanager
def victim(
    *handlers: EventHandler,
    limits: dict[str, Any] | None = None,
    timeouts: dict[str, Any] | None = None,
    spool: Path | None = None,
) -> Generator[Victim]:
    """A server to be attacked. At the end it answers a C-ECHO at once, and leaves nothing behind."""
    ae = entity(limits, timeouts)
    ae.spool_folder = None if spool is None else str(spool)
    with nothing_left():
        attacked = Victim(ae, handlers)
        try:
            yield attacked
            assert answers(attacked.server)
        finally:
            ae.shutdown()


def answers(server: AssociationServer) -> bool:
    """Whether a C-ECHO over an association of its own is answered soon."""
    before = time.monotonic()
    with entity(timeouts={"connect": SOON, "association": SOON, "response": SOON}).associate(*server.address) as assoc:
        return assoc.send_c_echo() == 0x0000 and time.monotonic() - before < SOON


class Store:
    """A C_STORE handler that saves under the SOP Instance UID, and what there is in its folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def __call__(self, event: CStore) -> int:
        event.save(self.path(event.request.AffectedSOPInstanceUID or ""))
        return 0x0000

    @property
    def binding(self) -> EventHandler:
        return (evt.EVT_C_STORE, self)

    def path(self, instance: str) -> Path:
        return self.folder / f"{instance}.dcm"

    def everything(self) -> list[str]:
        """The names in the folder, those of temporary files too."""
        return sorted(os.listdir(self.folder))

    def data(self, instance: str) -> bytes:
        """The dataset of a stored file: what follows the file meta information, whatever that is."""
        whole = self.path(instance).read_bytes()
        return whole[144 + struct.unpack_from("<I", whole, 140)[0] :]


# ---- what is left


@contextmanager
def nothing_left(within: float = SOON) -> Generator[None]:
    """Threads and descriptors are back at where they were, ``within`` seconds after the block."""
    before, descriptors = set(threading.enumerate()), _descriptors()
    yield
    deadline = time.monotonic() + within
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
    assert not left, f"threads left: {left}"
    if _descriptors() > descriptors:
        # What only waits for the collector is not left.
        gc.collect()
    assert _descriptors() <= descriptors


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory that this process has in use."""
    gc.collect()
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def keeps_nothing_of(count: int) -> Generator[None]:
    """What is done so many times in the block leaves nothing behind each time: not an object, not a number.

    That says more than the memory of the process, in which some bytes each time are lost in what is free anyway.
    """
    gc.collect()
    before = sys.getallocatedblocks()
    yield
    gc.collect()
    left = sys.getallocatedblocks() - before
    assert left < count / 5, f"{left} blocks are left of {count} times"


@contextmanager
def grows_at_most(limit: int) -> Generator[None]:
    """The memory of this process grows by at most ``limit`` bytes."""
    before = resident()
    yield
    grown = resident() - before
    assert grown <= limit, f"{grown / MEBIBYTE:.1f} MiB more"
