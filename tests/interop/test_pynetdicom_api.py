"""What pynetdicom's documentation names exists here under the same name, and is called in the same way.

The names come from its API reference and from the cross references of its pages; pynetdicom itself is the oracle for
what they are. What differs is listed with the reason, and a difference that is none any more fails too.
"""

import inspect
import re
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pynetdicom import _handlers as documented_handlers  # pyright: ignore[reportPrivateUsage]
from pynetdicom import evt as their_evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association, ServiceUser
from pynetdicom.presentation import PresentationContext, PresentationContextTuple
from pynetdicom.sop_class import SOPClass
from pynetdicom.status import Status as TheirStatus
from pynetdicom.transport import ThreadedAssociationServer

from rxdicom import AE, Status, evt
from rxdicom.presentation import build_context
from rxdicom.sop_class import uid_to_sop_class
from rxdicom.wire.uids import VERIFICATION

HOMES = {
    "pynetdicom": "rxdicom",
    "pynetdicom._globals": "rxdicom",
    "pynetdicom.presentation": "rxdicom.presentation",
    "pynetdicom.pdu_primitives": "rxdicom.pdu_primitives",
    "pynetdicom.service_class": "rxdicom.service_class",
    "pynetdicom.service_class_n": "rxdicom.service_class",
    "pynetdicom.sop_class": "rxdicom.sop_class",
    "pynetdicom.status": "rxdicom.status",
}
"""The modules whose names are here too, and where."""

NO_HOME = {
    "pynetdicom._config": "no process-wide configuration: Timeouts, Limits and Policy",
    "pynetdicom._handlers": "documents handlers; the tests below compare what these are given",
    "pynetdicom.acse": "the protocol is a pure core",
    "pynetdicom.ae": "ApplicationEntity is imported as AE, and compared by its members",
    "pynetdicom.association": "compared by the members of its classes",
    "pynetdicom.dimse": "the protocol is a pure core",
    "pynetdicom.dimse_messages": "one record for all messages",
    "pynetdicom.dimse_primitives": "no primitives beside the messages",
    "pynetdicom.dsutils": "not for users",
    "pynetdicom.dul": "the protocol is a pure core",
    "pynetdicom.events": "compared kind by kind",
    "pynetdicom.fsm": "the state machine is a table",
    "pynetdicom.pdu": "records of our own",
    "pynetdicom.pdu_items": "records of our own",
    "pynetdicom.timer": "time is an argument",
    "pynetdicom.transport": "its server is compared by its members",
    "pynetdicom.utils": "not for users",
}
"""The documented modules that are not, and why."""

_IDENTITY = "the implementation is another one"
_PRIMITIVE = "no primitives beside the records of the PDUs"
_NEGOTIATION = "negotiation is for the core alone"
NO_NAME = {
    "pynetdicom.PYNETDICOM_IMPLEMENTATION_UID": _IDENTITY,
    "pynetdicom.PYNETDICOM_IMPLEMENTATION_VERSION": _IDENTITY,
    "pynetdicom.PYNETDICOM_UID_PREFIX": _IDENTITY,
    "pynetdicom.pdu_primitives.A_ABORT": _PRIMITIVE,
    "pynetdicom.pdu_primitives.A_ASSOCIATE": _PRIMITIVE,
    "pynetdicom.pdu_primitives.A_P_ABORT": _PRIMITIVE,
    "pynetdicom.pdu_primitives.A_RELEASE": _PRIMITIVE,
    "pynetdicom.pdu_primitives.P_DATA": _PRIMITIVE,
    "pynetdicom.presentation.negotiate_as_acceptor": _NEGOTIATION,
    "pynetdicom.presentation.negotiate_as_requestor": _NEGOTIATION,
}
"""The names of those modules that are not here, and why."""

_LAYER = "the layers below are not reached through an association"
_THREAD = "an association is no thread"
_TIMEOUTS = "the timeouts are those of the AE that it was made by"
_ITEMS = "user_information has the items"
_BEFORE = "what is negotiated is an argument of associate() and start_server()"
_FROZEN = "what was negotiated is a record; as_scu and as_scp are the roles"
_MODE = "the association has is_requestor and is_acceptor"
NO_MEMBER = {
    "AcceptedContext.add_transfer_syntax": _FROZEN,
    "AcceptedContext.as_tuple": _FROZEN,
    "AcceptedContext.scp_role": _FROZEN,
    "AcceptedContext.scu_role": _FROZEN,
    "Association.acse": _LAYER,
    "Association.acse_timeout": _TIMEOUTS,
    "Association.ae": "what it needs of its AE it has itself",
    "Association.dimse": _LAYER,
    "Association.dimse_timeout": _TIMEOUTS,
    "Association.dul": _LAYER,
    "Association.get_events": "bindings are not listed",
    "Association.get_handlers": "bindings are not listed",
    "Association.kill": _THREAD,
    "Association.local": "requestor and acceptor are the two sides",
    "Association.lock": _THREAD,
    "Association.mode": "is_requestor and is_acceptor",
    "Association.network_timeout": _TIMEOUTS,
    "Association.network_timeout_response": "an idle association is aborted",
    "Association.remote": "requestor and acceptor are the two sides",
    "Association.request": _THREAD,
    "Association.run_reactor": _THREAD,
    "Association.set_socket": _THREAD,
    "ServiceUser.accepted_common_extended": _ITEMS,
    "ServiceUser.add_negotiation_item": _BEFORE,
    "ServiceUser.address_info": "address and port",
    "ServiceUser.asynchronous_operations": _ITEMS,
    "ServiceUser.extended_negotiation": _ITEMS,
    "ServiceUser.get_contexts": "the association has accepted_contexts and rejected_contexts",
    "ServiceUser.info": "its attributes one by one",
    "ServiceUser.is_acceptor": _MODE,
    "ServiceUser.is_requestor": _MODE,
    "ServiceUser.maximum_length": _ITEMS,
    "ServiceUser.mode": _MODE,
    "ServiceUser.primitive": _PRIMITIVE,
    "ServiceUser.remove_negotiation_item": _BEFORE,
    "ServiceUser.requested_contexts": _BEFORE,
    "ServiceUser.reset_negotiation_items": _BEFORE,
    "ServiceUser.role_selection": _ITEMS,
    "ServiceUser.sop_class_common_extended": _ITEMS,
    "ServiceUser.sop_class_extended": _ITEMS,
    "ServiceUser.supported_contexts": _BEFORE,
    "ServiceUser.writeable": _BEFORE,
    "ThreadedAssociationServer.get_events": "bindings are not listed",
    "ThreadedAssociationServer.get_handlers": "bindings are not listed",
    "ThreadedAssociationServer.ssl_context": "given once, when it is made",
}
"""The members of the documented classes that are not here, and why."""

_NEXT = "the next free one"
OTHER_PARAMETERS = {
    "ApplicationEntity.associate.max_pdu": "that of the AE",
    "ApplicationEntity.make_server.server_class": "one class of servers",
    "ApplicationEntity.make_server.kwargs": "one class of servers",
    "Association.abort.block": "never waits",
    **{f"Association.{name}.msg_id": _NEXT for name in dir(Association) if re.match("send_(?!c_cancel)", name)},
}
"""The parameters that have another default, or are not here, and why."""

OTHER_DEFAULTS = {
    "ae_title": _IDENTITY,
    "connection_timeout": "every wait has a deadline",
    "implementation_class_uid": _IDENTITY,
    "implementation_version_name": _IDENTITY,
    "maximum_pdu_size": "128 KiB, for the sake of speed",
}
"""The attributes of a new AE that are set differently, and why."""

OTHER_ATTRIBUTES = {
    "EVT_ASYNC_OPS.invoked": "nr_invoked, which is what the original really has",
    "EVT_ASYNC_OPS.performed": "nr_performed, which is what the original really has",
    "EVT_C_STORE.dataset_path": "path",
}
"""The attributes that the documentation gives to an event, and it does not have, and why."""


# ---- what the documentation names


def documented_names(folder: Path) -> set[str]:
    """The names of modules' contents in the API reference and in cross references, fully qualified."""
    names: set[str] = set()
    for path in (folder / "docs").rglob("*.rst"):
        if "changelog" in path.parts:
            continue
        text = path.read_text()
        names |= {f"pynetdicom.{name}" for name in _REFERENCE.findall(text)}
        for module, section in _MODULE.findall(text):
            names |= {f"{module}.{name}" for table in _TABLE.findall(section) for name in table.split()}
    return names


_REFERENCE = re.compile(r":\w+:`(?:[^`<]*<)?~?pynetdicom\.([\w.]+)>?`")
_MODULE = re.compile(r"\.\. currentmodule:: (\S+)\n(.*?)(?=\.\. currentmodule::|\Z)", re.DOTALL)
_TABLE = re.compile(r"\.\. autosummary::\n(?: +:.*\n)*\n((?: +\w+\n)+)")


def split(name: str) -> tuple[str, str]:
    """Module and the name in it; a module itself has an empty one, and a member of a class is left out."""
    parts = name.split(".")
    return (name, "") if name in NO_HOME or name in HOMES else _split(parts)


def _split(parts: list[str]) -> tuple[str, str]:
    module = ".".join(parts[:2])
    return (module, parts[2]) if module in NO_HOME or module in HOMES else ("pynetdicom", parts[1])


def lookup(module: str, name: str) -> Any:
    return getattr(import_module(module), name) if name else import_module(module)


def members(kind: type) -> set[str]:
    """The public members of a class of pynetdicom's and the attributes in its docstring, not those of its bases."""
    inherited = {name for base in kind.__mro__ if not base.__module__.startswith("pynetdicom") for name in vars(base)}
    section = re.search(r"\nAttributes\n-+\n(.*?)(?:\n\n\w+\n-+|\Z)", inspect.getdoc(kind) or "", re.DOTALL)
    attributes = re.findall(r"^(\w+) : ", section[1], re.MULTILINE) if section else []
    return {name for name in (*dir(kind), *attributes) if not name.startswith("_")} - inherited


def differing(theirs: Any, ours: Any) -> set[str]:
    """The parameters by which a call as pynetdicom documents it would be another one here."""
    expected, found = (list(inspect.signature(each).parameters.values()) for each in (theirs, ours))
    names = {each.name: each for each in found}
    different = {
        each.name
        for place, each in enumerate(expected)
        if each.name not in names
        or found.index(names[each.name]) != place
        or (names[each.name].kind, names[each.name].default) != (each.kind, each.default)
    }
    known = {each.name for each in expected}
    return different | {each.name for each in found if each.name not in known and each.default is each.empty}


@pytest.fixture(scope="module")
def counterparts() -> Generator[dict[str, Any]]:
    """An object of ours for each class whose members are compared."""
    ae = AE()
    ae.add_supported_context(VERIFICATION)
    ae.add_requested_context(VERIFICATION)
    context = build_context(VERIFICATION)
    context.context_id = 1
    with ae.start_server(("127.0.0.1", 0), block=False) as server, ae.associate(*server.address) as assoc:
        yield {
            "ApplicationEntity": ae,
            "Association": assoc,
            "ServiceUser": assoc.acceptor,
            "ThreadedAssociationServer": server,
            "PresentationContext": context,
            "AcceptedContext": assoc.accepted_contexts[0],
            "PresentationContextTuple": context.as_tuple,
            "SOPClass": uid_to_sop_class(VERIFICATION),
            "Status": Status,
        }


CLASSES: dict[str, type] = {
    "ApplicationEntity": ApplicationEntity,
    "Association": Association,
    "ServiceUser": ServiceUser,
    "ThreadedAssociationServer": ThreadedAssociationServer,
    "PresentationContext": PresentationContext,
    "AcceptedContext": PresentationContext,
    "PresentationContextTuple": PresentationContextTuple,
    "SOPClass": SOPClass,
    "Status": TheirStatus,
}


# ---- the tests


def test_every_documented_name_is_here(pynetdicom_source: Path) -> None:
    names = {split(name) for name in documented_names(pynetdicom_source)}
    assert len(names) > 400
    for module, name in names:
        lookup(module, name)
    assert {module for module, _ in names} == HOMES.keys() | NO_HOME.keys()
    missing = {f"{module}.{name}" for module, name in names if module in HOMES and not _is_here(module, name)}
    assert missing == NO_NAME.keys()


def _is_here(module: str, name: str) -> bool:
    try:
        ours, theirs = lookup(HOMES[module], name), lookup(module, name)
    except AttributeError:
        return False
    return ours == theirs if isinstance(theirs, str) else True


def test_all_predefined_contexts_are_here_by_both_ways_of_import() -> None:
    lists = [name for name in dir(pynetdicom) if name.endswith("PresentationContexts")]
    assert len(lists) > 20
    for name in lists:
        for module in ("rxdicom", "rxdicom.presentation"):
            ours = {str(each.abstract_syntax) for each in lookup(module, name)}
            assert ours >= {str(each.abstract_syntax) for each in lookup("pynetdicom", name)}, name


def test_classes_have_the_documented_members(counterparts: dict[str, Any]) -> None:
    missing = {
        f"{name}.{member}"
        for name, kind in CLASSES.items()
        for member in members(kind)
        if not hasattr(counterparts[name], member)
    }
    assert missing == NO_MEMBER.keys()


def test_methods_are_called_in_the_same_way(counterparts: dict[str, Any]) -> None:
    different: set[str] = set()
    compared = 0
    for name, kind in CLASSES.items():
        ours_kind: Any = counterparts[name].__class__
        for member in members(kind):
            theirs, ours = getattr(kind, member, None), getattr(ours_kind, member, None)
            if inspect.isfunction(theirs) and inspect.isfunction(ours):
                compared += 1
                different |= {f"{name}.{member}.{parameter}" for parameter in differing(theirs, ours)}
    assert compared > 25
    assert different == OTHER_PARAMETERS.keys()


def test_functions_are_called_in_the_same_way(pynetdicom_source: Path) -> None:
    for module, name in {split(name) for name in documented_names(pynetdicom_source)}:
        theirs = lookup(module, name)
        if module in HOMES and inspect.isfunction(theirs) and f"{module}.{name}" not in NO_NAME:
            assert not differing(theirs, lookup(HOMES[module], name)), name


def test_a_new_ae_is_set_as_documented() -> None:
    ours, theirs = AE(), pynetdicom.AE()
    names = [name for name in members(ApplicationEntity) if not callable(getattr(theirs, name))]
    assert len(names) > 12
    assert {name for name in names if getattr(ours, name) != getattr(theirs, name)} == OTHER_DEFAULTS.keys()


def test_events_have_what_handlers_are_promised() -> None:
    """By kind, from the documentation of the handlers."""
    missing: set[str] = set()
    kinds: set[str] = set()
    for name, function in vars(documented_handlers).items():
        if not name.startswith("doc_handle_"):
            continue
        text = inspect.getdoc(function) or ""
        attributes = set(re.findall(r"events\.Event\.(\w+)`", text) + re.findall(r"^ *\* ``([a-z]\w*)``", text, re.M))
        for kind in set(re.findall(r"evt\.(EVT_\w+)", text)):
            record = getattr(evt, kind).record
            missing |= {f"{kind}.{each}" for each in attributes if not hasattr(record, each)}
            kinds.add(kind)
    assert kinds == {name for name in dir(their_evt) if name.startswith("EVT_")}
    assert missing == OTHER_ATTRIBUTES.keys()


def test_kinds_of_events_are_the_same() -> None:
    names = [name for name in dir(their_evt) if name.startswith("EVT_")]
    ours = [getattr(evt, name) for name in names]
    theirs = [getattr(their_evt, name) for name in names]
    assert [(each.name, each.is_intervention) for each in ours] == [
        (each.name, each.is_intervention) for each in theirs
    ]
