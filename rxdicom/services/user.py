"""The user side: which accepted presentation context carries a request."""

from collections.abc import Iterable

from rxdicom.errors import NoAcceptedContext
from rxdicom.protocol.negotiation import Negotiated, NegotiatedContext

_UNIFIED_PROCEDURE_STEP = "1.2.840.10008.5.1.4.34.6."


def contexts_for(
    negotiated: Negotiated, abstract_syntax: str, *, as_scp: bool = False
) -> tuple[NegotiatedContext, ...]:
    """The accepted contexts over which this side may be SCU (or, ``as_scp``, SCP) of a SOP class.

    The SOP classes of Unified Procedure Step share their instances: any of them carries requests for another.
    Raises :class:`~rxdicom.errors.NoAcceptedContext` when there is none.
    """
    found = negotiated.usable(abstract_syntax, as_scp=as_scp)
    if not found and abstract_syntax.startswith(_UNIFIED_PROCEDURE_STEP):
        usable = [each for each in negotiated.accepted if (each.as_scp if as_scp else each.as_scu)]
        found = tuple(each for each in usable if each.abstract_syntax.startswith(_UNIFIED_PROCEDURE_STEP))
    if not found:
        raise no_context(negotiated, abstract_syntax)
    return found


def no_context(negotiated: Negotiated, wanted: str) -> NoAcceptedContext:
    """The error that says what was wanted, proposed and accepted."""
    proposed = _syntaxes(negotiated.contexts.values())
    return NoAcceptedContext(wanted, proposed, _syntaxes(negotiated.accepted))


def _syntaxes(contexts: Iterable[NegotiatedContext]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.abstract_syntax for each in contexts))
