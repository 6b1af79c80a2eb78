"""What users see of an association, and the state that notices give it: the same for every runtime."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from logging import INFO
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from rxdicom.errors import AssociationRejected, AssociationReleased, NoAcceptedContext, StateError
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.dispatcher import Dispatcher, Handler
from rxdicom.events.hub import Hub
from rxdicom.events.kinds import EventKind
from rxdicom.log import LOG, wants_phi
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.negotiation import NegotiatedContext
from rxdicom.protocol.notices import Notice
from rxdicom.protocol.policy import Limits, Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import SinkFactory
from rxdicom.runtimes.publisher import Publisher
from rxdicom.runtimes.titles import ServedTitle
from rxdicom.service_class import ServiceClass
from rxdicom.wire.items import UserIdentity, UserItem
from rxdicom.wire.pdu import AssociateAC, AssociateRQ

if TYPE_CHECKING:
    from rxdicom.events.streams import EventStreams

NOWHERE = ("", 0)
"""The address of what is not connected."""


@frozen(repr=False)
class Peer:
    """One of the two application entities of an association."""

    ae_title: str
    address: str
    port: int
    user_information: tuple[UserItem, ...] = ()
    """The items of extended negotiation that it sent, as records of :mod:`rxdicom.wire.items`."""
    certificate: dict[str, Any] | None = None
    """The TLS certificate that it showed, as :meth:`ssl.SSLSocket.getpeercert` gives it."""
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None

    @property
    def user_identity(self) -> UserIdentity | None:
        """Who it said that it acts for."""
        return next((item for item in self.user_information if isinstance(item, UserIdentity)), None)

    def __repr__(self) -> str:
        return f"{self.ae_title!r} at {self.address}:{self.port}"


@frozen
class Setup:
    """What an association is made with: by an AE for a requestor, by a server for an acceptor."""

    name: str
    """Names the association in the log."""
    timeouts: Timeouts
    limits: Limits
    hubs: tuple[Hub, ...]
    """Those of the server and the AE, to which its events go as well."""
    handlers: Dispatcher | None = None
    spool_folder: str | None = None
    dial: Callable[..., Any] | None = None
    """How associations to C-MOVE destinations are opened."""
    requested: tuple[PresentationContext, ...] = ()
    """The contexts that the AE requests, which those associations propose."""
    convert: bool = True
    """Whether a dataset may be converted to a transfer syntax that was accepted."""
    hold: Callable[[Any, int], None] | None = None
    """Told how many bytes an association of an acceptor holds of a request that has not come whole."""


class AssociationState(ABC):
    """Who takes part in an association, what was negotiated, its events, and how far it has come."""

    def __init__(self, setup: Setup, request: AssociateRQ | None) -> None:
        self.name = setup.name
        self._setup = setup
        self._request = request
        self._bindings = Bindings(setup.handlers)
        self._bindings.bind_all(_log_observers())
        self._publisher = Publisher(self, (self._bindings.hub, *setup.hubs))
        self._sinks = SinkFactory(setup.limits, setup.spool_folder, "")
        self._protocol = Protocol(
            is_requestor=request is not None,
            limits=setup.limits,
            timeouts=setup.timeouts,
            open_sink=self._sinks,
            hold=None if setup.hold is None else partial(setup.hold, self),
        )
        self._opened = False
        self.service_classes: Mapping[str, ServiceClass] = {}
        """Of SOP classes that nobody registered: what the requestor said by SOP Class Common Extended items."""
        self._outcome: Exception | None = None
        self._streams: EventStreams | None = None
        self.is_established = False
        self.is_released = False
        self.is_aborted = False
        self.is_rejected = False

    # ---- what the runtime knows of the connection

    @property
    def _remote_address(self) -> tuple[str, int]:
        return NOWHERE

    @property
    def _local_address(self) -> tuple[str, int]:
        return NOWHERE

    @property
    def _certificate(self) -> dict[str, Any] | None:
        return None

    # ---- what it is

    @property
    def setup(self) -> Setup:
        """What it was made with; for runtimes."""
        return self._setup

    @property
    def is_requestor(self) -> bool:
        return self._protocol.is_requestor

    @property
    def is_acceptor(self) -> bool:
        return not self._protocol.is_requestor

    @property
    def accepted_contexts(self) -> tuple[NegotiatedContext, ...]:
        """The presentation contexts that can be used, with this side's roles."""
        return self._protocol.negotiated.accepted

    @property
    def rejected_contexts(self) -> tuple[NegotiatedContext, ...]:
        return self._protocol.negotiated.rejected

    @property
    def operations_window(self) -> tuple[int, int]:
        """How many operations this side may invoke, and perform, at a time; 0 is unlimited (PS3.7 D.3.3.3)."""
        return self._protocol.negotiated.invoked, self._protocol.negotiated.performed

    @property
    def requestor(self) -> Peer:
        """The application entity that asked for the association; empty as long as it has not."""
        return self._peer(self._protocol.request, remote=self.is_acceptor)

    @property
    def acceptor(self) -> Peer:
        """The application entity that was asked."""
        return self._peer(self._protocol.answer, remote=self.is_requestor)

    def _peer(self, pdu: AssociateRQ | AssociateAC | None, *, remote: bool) -> Peer:
        request = self._protocol.request or self._request
        title = ""
        if request is not None:
            is_requestor = remote == self.is_acceptor
            title = request.calling_ae_title if is_requestor else request.called_ae_title
        return Peer(
            title,
            *(self._remote_address if remote else self._local_address),
            pdu.user_information if pdu else (),
            self._certificate if remote else None,
            pdu.implementation_class_uid if pdu else None,
            pdu.implementation_version_name if pdu else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has been released, aborted or rejected. The connection may still be open then."""
        return self.is_released or self.is_aborted or self.is_rejected

    def __repr__(self) -> str:
        return f"<Association {self.name}, {self._protocol.state.label}>"

    # ---- events

    @property
    def handlers(self) -> Dispatcher:
        """The intervention handlers of this association."""
        return self._bindings.dispatcher

    def is_bound(self, event: EventKind[Any]) -> bool:
        """Whether an intervention event has another handler than the default."""
        return self._bindings.dispatcher.is_bound(event)

    @property
    def events(self) -> "EventStreams":
        """An Observable per notification event: ``assoc.events.pdu_recv``, or ``assoc.events[evt.EVT_PDU_RECV]``."""
        if self._streams is None:
            from rxdicom.events.streams import EventStreams

            self._streams = EventStreams(self._bindings.hub)
        return self._streams

    def bind(self, event: EventKind[Any], handler: Handler, args: Sequence[Any] | None = None) -> None:
        """Observe a notification event, or handle an intervention event of this association alone."""
        self._bindings.bind(event, handler, args)

    def unbind(self, event: EventKind[Any], handler: Handler) -> None:
        """Stop observing, or put the default handler back."""
        self._bindings.unbind(event, handler)

    def serve_as(self, served: ServedTitle) -> None:
        """Be an association of that title from now on, with its handlers, and heard by its observers."""
        self._bindings.dispatcher.follow(served.bindings.dispatcher)
        self._publisher.add(served.bindings.hub, served.hub)
        self._setup = evolve(self._setup, dial=served.dial, requested=served.requested)

    # ---- what the notices mean

    def _over(self) -> Exception:
        """Why nothing can be sent."""
        if self._outcome is not None:
            return self._outcome
        if not self._opened and self.is_requestor:
            return StateError("the association is not open; call open(), or use it in a with statement")
        return AssociationReleased("the association is being released; open a new one to go on")

    def _nothing_accepted(self) -> NoAcceptedContext | None:
        """What a requestor raises that got no context."""
        if self.accepted_contexts or self._request is None:
            return None
        proposed = [each.abstract_syntax for each in self._request.presentation_contexts]
        more = f" and {len(proposed) - 3} more" if len(proposed) > 3 else ""
        return NoAcceptedContext(", ".join(proposed[:3]) + more, proposed)

    def _note(self, notice: Notice, values: tuple[Any, ...]) -> None:
        """Update the state that users see, before any observer is told."""
        react = REACTIONS.get(notice)
        if react is not None:
            react(self, *values)

    def _on_established(self) -> None:
        self.is_established = True

    def _on_rejected(self, result: int, source: int, reason: int) -> None:
        self.is_rejected = True
        self._outcome = AssociationRejected(result, source, reason)

    def _on_released(self) -> None:
        self.is_established, self.is_released = False, True
        self._outcome = AssociationReleased()

    def _on_aborted(self, source: int, reason: int, by: str, cause: str) -> None:
        self.is_established, self.is_aborted = False, True
        self._outcome = self._why_aborted(source, reason, by, cause)

    @abstractmethod
    def _why_aborted(self, source: int, reason: int, by: str, cause: str) -> Exception:
        """What requests raise from now on."""


def _log_observers() -> list[EventHandler]:
    """Those that the level of the logger asks for, which by default are none."""
    if not (LOG.isEnabledFor(INFO) or wants_phi()):
        return []
    from rxdicom.events.journal import observers

    return observers()


REACTIONS: dict[Notice, Callable[..., None]] = {
    Notice.ESTABLISHED: AssociationState._on_established,  # pyright: ignore[reportPrivateUsage]
    Notice.REJECTED: AssociationState._on_rejected,  # pyright: ignore[reportPrivateUsage]
    Notice.RELEASED: AssociationState._on_released,  # pyright: ignore[reportPrivateUsage]
    Notice.ABORTED: AssociationState._on_aborted,  # pyright: ignore[reportPrivateUsage]
}
