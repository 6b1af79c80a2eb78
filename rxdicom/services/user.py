"""The user side: which accepted presentation context carries a request."""

from collections.abc import Iterable

from rxdicom.errors import NoAcceptedContext
from rxdicom.protocol.negotiation import Negotiated, NegotiatedContext


def contexts_for(negotiated: Negotiated, abstract_syntax: str) -> tuple[NegotiatedContext, ...]:
    """The accepted contexts over which this side may be SCU of a SOP class.

    Raises :class:`~rxdicom.errors.NoAcceptedContext` when there is none.
    """
    found = tuple(each for each in negotiated.accepted if each.abstract_syntax == abstract_syntax and each.as_scu)
    if not found:
        raise no_context(negotiated, abstract_syntax)
    return found


def no_context(negotiated: Negotiated, wanted: str) -> NoAcceptedContext:
    """The error that says what was wanted, proposed and accepted."""
    proposed = _syntaxes(negotiated.contexts.values())
    return NoAcceptedContext(wanted, proposed, _syntaxes(negotiated.accepted))


def _syntaxes(contexts: Iterable[NegotiatedContext]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.abstract_syntax for each in contexts))
