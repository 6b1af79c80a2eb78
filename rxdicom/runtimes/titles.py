"""Several called AE titles on one listener, each with contexts, handlers and rules of its own. For every runtime."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from rxdicom.errors import ArgumentError
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.hub import Hub
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.policy import Policy

if TYPE_CHECKING:
    from rxdicom.runtimes.association import AssociationState


@frozen(eq=False)
class ServedTitle:
    """What answers when its title is called."""

    ae_title: str
    policy: Policy
    hub: Hub
    """That of its application entity, to which the events of its associations go as well."""
    dial: Callable[..., Any]
    """How it opens associations to C-MOVE destinations."""
    requested: tuple[PresentationContext, ...] = ()
    bindings: Bindings = field(factory=Bindings)

    @classmethod
    def made(
        cls,
        served: tuple[str, Policy],
        hub: Hub,
        dial: Callable[..., Any],
        requested: Iterable[PresentationContext],
        evt_handlers: Iterable[EventHandler] | None,
    ) -> "ServedTitle":
        """One for a title and its policy; ``dial`` is called with the title first."""
        title, policy = served
        made = cls(title, policy, hub, partial(dial, title), tuple(requested))
        made.bindings.bind_all(evt_handlers)
        return made


class Titles:
    """The titles that a listener serves beside its own."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._served: dict[str, ServedTitle] = {}

    def add(self, served: ServedTitle) -> None:
        """Serve one more. Raises :class:`~rxdicom.errors.ArgumentError` for one that is served already."""
        title = served.ae_title
        if title == self._own or title in self._served:
            raise ArgumentError(f"the AE title {title!r} is served here already; give another ae_title")
        # Looked up by other threads meanwhile.
        self._served = {**self._served, title: served}

    def policy_for(self, association: "AssociationState", called_ae_title: str, own: Policy) -> Policy:
        """The rules for a request. The association is one of the called title from now on, if that is served here."""
        served = self._served.get(called_ae_title.strip())
        if served is None:
            return own
        association.serve_as(served)
        return served.policy
