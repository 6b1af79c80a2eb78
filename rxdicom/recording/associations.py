"""The association of replayed events: what one could see of the real one when its events occurred."""

from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field

from rxdicom.events.hub import Hub
from rxdicom.protocol.negotiation import NegotiatedContext
from rxdicom.recording.entries import Line
from rxdicom.recording.fields import without_secrets
from rxdicom.runtimes.association import NOWHERE, Peer
from rxdicom.wire.items import encode_items, parse_user_information

if TYPE_CHECKING:
    from rxdicom.events.streams import EventStreams

_UNKNOWN = Peer("", *NOWHERE)


@define(eq=False, kw_only=True)
class RecordedAssociation:
    """An association as it was recorded, or seen in a packet capture. Nothing can be sent over it.

    What its attributes say grows with the events, as it did: AE titles are there from the request on, the contexts from
    the answer on.
    """

    name: str
    is_requestor: bool
    """Whether it was recorded on the side that requested it: then what it *sent* came from the requestor."""
    requestor: Peer = _UNKNOWN
    acceptor: Peer = _UNKNOWN
    accepted_contexts: tuple[NegotiatedContext, ...] = ()
    rejected_contexts: tuple[NegotiatedContext, ...] = ()
    damage: str = ""
    """What is missing from a capture, or is no DICOM; the events end there. Empty if nothing is."""
    hub: Hub = field(factory=Hub, repr=False)
    """Delivers its own events; for those that replay."""
    _streams: "EventStreams | None" = field(default=None, init=False, repr=False)

    @property
    def is_acceptor(self) -> bool:
        return not self.is_requestor

    @property
    def events(self) -> "EventStreams":
        """The streams of its events alone."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self.hub)
        return self._streams


def to_line(assoc: Any, *, with_secrets: bool) -> Line:
    """What is to be known of an association, live or recorded, as part of a line."""
    return {
        "name": assoc.name,
        "is_requestor": assoc.is_requestor,
        "requestor": _peer_line(assoc.requestor, with_secrets),
        "acceptor": _peer_line(assoc.acceptor, with_secrets),
        "contexts": [attrs.asdict(each) for each in (*assoc.accepted_contexts, *assoc.rejected_contexts)],
    }


def _peer_line(peer: Peer, with_secrets: bool) -> Line:
    items = peer.user_information if with_secrets else map(without_secrets, peer.user_information)
    return {
        "ae_title": peer.ae_title,
        "address": peer.address,
        "port": peer.port,
        "implementation_class_uid": peer.implementation_class_uid,
        "implementation_version_name": peer.implementation_version_name,
        "user_information": encode_items(items).hex(),
    }


def update(assoc: RecordedAssociation, line: Line) -> None:
    """Have an association be as a line says. Raises :class:`KeyError`, :class:`TypeError` or :class:`ValueError`."""
    contexts = [_context(each) for each in line["contexts"]]
    assoc.requestor, assoc.acceptor = _peer(line["requestor"]), _peer(line["acceptor"])
    assoc.accepted_contexts = tuple(each for each in contexts if each.result == 0)
    assoc.rejected_contexts = tuple(each for each in contexts if each.result != 0)


def _context(said: Line) -> NegotiatedContext:
    fields: Line = {**said, "transfer_syntax": tuple(said["transfer_syntax"])}
    return NegotiatedContext(**fields)


def _peer(said: Line) -> Peer:
    fields: Line = {**said, "user_information": parse_user_information(bytes.fromhex(said["user_information"]))}
    return Peer(**fields)
