"""PDUs and messages as lines for people: a summary, and aligned details. Pure, and without the content of datasets.

All text that peers send is escaped and bounded here. Naming UIDs loads pydicom's dictionary.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rxdicom.errors import abort_reason, rejected
from rxdicom.log import bounded, escaped
from rxdicom.protocol.negotiation import NegotiatedContext, negotiated
from rxdicom.sop_class import uid_to_service_class, uid_to_sop_class
from rxdicom.status import Status
from rxdicom.wire.dimse import ELEMENTS, Message
from rxdicom.wire.items import (
    AsyncOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserIdentityResponse,
)
from rxdicom.wire.pdu import PDU, Abort, Associate, AssociateAC, AssociateRJ, AssociateRQ

Row = tuple[str, str]
"""A label, empty where the value goes on with that of the row before, and a value."""

_MOST_CHARACTERS = 200
_MOST_VALUES = 32
_MOST_ROWS = 500

_PRIORITIES = {0: "medium", 1: "high", 2: "low"}
_IDENTITIES = {
    1: "user name",
    2: "user name and passcode",
    3: "Kerberos ticket",
    4: "SAML assertion",
    5: "JSON web token",
}
_IN_SUMMARY = ("CommandField", "CommandDataSetType", "CommandGroupLength", "MessageID", "Status")
_ANSWERED = "MessageIDBeingRespondedTo"


# ---- pieces


def text(value: object) -> str:
    """Any text of a peer: in one line, and not too long."""
    return escaped(bounded(str(value), _MOST_CHARACTERS))


def uid(value: str) -> str:
    """A UID with its name, if it has one.

    >>> uid("1.2.840.10008.1.1"), uid("1.2.3")
    ('Verification SOP Class (1.2.840.10008.1.1)', '1.2.3')
    """
    known = uid_to_sop_class(value)
    return f"{known.name} ({text(value)})" if known.keyword else text(value)


def _listed(values: Iterable[str]) -> str:
    shown = list(values)
    more = f" and {len(shown) - _MOST_VALUES} more" if len(shown) > _MOST_VALUES else ""
    return ", ".join(shown[:_MOST_VALUES]) + more


def _roles(scu: bool, scp: bool) -> str:
    return " and ".join(name for name, has in (("SCU", scu), ("SCP", scp)) if has) or "none"


def status(message: Message, abstract_syntax: str = "") -> Status:
    """The status of a response, with its meaning in the service of an abstract syntax, by default of its SOP class."""
    sop_class = abstract_syntax or message.AffectedSOPClassUID or ""
    table = uid_to_service_class(sop_class).status_table(message.name.removesuffix("-RSP"))
    return Status(message.Status or 0, table)


def aligned(rows: Iterable[Row]) -> list[str]:
    """The rows as lines, with their values one below the other.

    >>> aligned([("Priority", "low"), ("MoveDestination", "ARCHIVE")])
    ['  Priority         low', '  MoveDestination  ARCHIVE']
    """
    shown = list(rows)
    if len(shown) > _MOST_ROWS:
        shown = [*shown[:_MOST_ROWS], ("", f"and {len(shown) - _MOST_ROWS} more lines")]
    width = max((len(label) for label, _ in shown), default=0)
    return [f"  {label:{width}}  {value}" for label, value in shown]


# ---- association control


def control(pdu: PDU, request: AssociateRQ | None = None, *, as_requestor: bool = True) -> tuple[str, list[str]]:
    """A PDU of association control: what goes behind its name in the summary, and the details.

    ``request`` is the one that an A-ASSOCIATE-AC answers, ``as_requestor`` the side from which roles are seen.
    """
    match pdu:
        case AssociateRQ():
            titles = f" from '{text(pdu.calling_ae_title)}' to '{text(pdu.called_ae_title)}'"
            contexts = len(pdu.presentation_contexts)
            summary = f"{titles}, {contexts} context{'' if contexts == 1 else 's'}"
            return summary, aligned([*_association(pdu), *_proposed(pdu)])
        case AssociateAC():
            results = _results(pdu, request, as_requestor)
            accepted = sum(each.result == 0 for each in results)
            rows = [row for each in results for row in _result(each)]
            return f", {accepted} of {len(results)} contexts accepted", aligned([*_association(pdu), *rows])
        case AssociateRJ():
            codes = f" (result {pdu.result}, source {pdu.source}, reason {pdu.reason})"
            return f": {rejected(pdu.result, pdu.source, pdu.reason)}{codes}", []
        case Abort():
            return f": {abort_reason(pdu.source, pdu.reason)} (source {pdu.source}, reason {pdu.reason})", []
        case _:
            return "", []


def _association(pdu: Associate) -> Iterator[Row]:
    yield "Application context", uid(pdu.application_context)
    if pdu.protocol_version != 1:
        yield "Protocol version", f"0x{pdu.protocol_version:04X}"
    for item in pdu.user_information:
        label, shown = _ITEMS[type(item)]
        yield label, shown(item)


def _proposed(pdu: AssociateRQ) -> Iterator[Row]:
    for context in pdu.presentation_contexts:
        yield f"Context {context.context_id}", uid(context.abstract_syntax)
        syntaxes = context.transfer_syntaxes
        yield from (("", f"  {uid(each)}") for each in syntaxes[:_MOST_VALUES])
        if len(syntaxes) > _MOST_VALUES:
            yield "", f"  and {len(syntaxes) - _MOST_VALUES} more"


def _results(pdu: AssociateAC, request: AssociateRQ | None, as_requestor: bool) -> tuple[NegotiatedContext, ...]:
    if request is None:
        return tuple(
            NegotiatedContext(each.context_id, "", (each.transfer_syntax,), each.result, False, False)
            for each in pdu.presentation_contexts
        )
    return tuple(negotiated(request, pdu, as_requestor=as_requestor).contexts.values())


def _result(context: NegotiatedContext) -> Iterator[Row]:
    yield f"Context {context.context_id}", f"{context.status}: {uid(context.abstract_syntax)}"
    if context.result == 0:
        yield "", f"  {uid(context.transfer_syntax[0])}; here {_roles(context.as_scu, context.as_scp)}"


def _identity(item: UserIdentity) -> str:
    kind = _IDENTITIES.get(item.type, "unknown")
    fields = f"{len(item.primary)} and {len(item.secondary)} bytes" if item.secondary else f"{len(item.primary)} bytes"
    response = ", a response is requested" if item.positive_response_requested else ""
    return f"type {item.type}, {kind}: {fields}{response}"


_ITEMS: dict[type, tuple[str, Callable[[Any], str]]] = {
    MaximumLength: ("Maximum length", lambda item: f"{item.value} bytes" if item.value else "unlimited"),
    ImplementationClassUID: ("Implementation class UID", lambda item: text(item.uid)),
    ImplementationVersionName: ("Implementation version name", lambda item: text(item.name)),
    AsyncOperationsWindow: ("Operations window", lambda item: f"{item.invoked} invoked, {item.performed} performed"),
    RoleSelection: (
        "Role selection",
        lambda item: f"{uid(item.sop_class_uid)}: requestor {_roles(item.scu_role, item.scp_role)}",
    ),
    SOPClassExtended: (
        "SOP class extended",
        lambda item: f"{uid(item.sop_class_uid)}: {bounded(item.application_information.hex(' '), _MOST_CHARACTERS)}",
    ),
    SOPClassCommonExtended: (
        "SOP class common extended",
        lambda item: (
            f"{uid(item.sop_class_uid)}: {uid(item.service_class_uid)}, related to "
            f"{_listed(map(uid, item.related_general_sop_classes)) or 'none'}"
        ),
    ),
    UserIdentity: ("User identity", _identity),
    UserIdentityResponse: ("User identity response", lambda item: f"{len(item.server_response)} bytes"),
}
"""For each user-information item its label, and how it is shown; of identities never the fields, they are secrets."""


# ---- messages


def message(message: Message, abstract_syntax: str = "") -> tuple[str, list[str]]:
    """A DIMSE message: what goes behind its name in the summary, and the rest of its command set as details.

    ``abstract_syntax`` is that of its presentation context, which says what a status means.
    """
    parts: list[str] = []
    if message.MessageID is not None:
        parts.append(f" {message.MessageID}")
    if message.MessageIDBeingRespondedTo is not None:
        parts.append(f" to {message.MessageIDBeingRespondedTo}")
    parts.append(f" in context {message.context_id}")
    if message.Status is not None:
        known = status(message, abstract_syntax)
        meaning = known.description if known.description != known.category.lower() else ""
        parts.append(f": 0x{known:04X} {known.category}{meaning and f', {meaning}'}")
    if message.data is not None:
        parts.append(f"; dataset of {message.data.size} bytes, {uid(message.data.transfer_syntax)}")
    return "".join(parts), aligned(_elements(message))


def _elements(message: Message) -> Iterator[Row]:
    for keyword, element in ELEMENTS.items():
        value = message.command.get(keyword)
        if value is None or keyword in _IN_SUMMARY or keyword == _ANSWERED:
            continue
        if keyword == "Priority":
            yield keyword, _PRIORITIES.get(value, str(value))
        elif element.vr == "UI":
            yield keyword, uid(value)
        elif element.vr == "AT":
            yield keyword, _listed(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in value)
        else:
            yield keyword, text(value)
