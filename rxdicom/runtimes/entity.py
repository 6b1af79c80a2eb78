"""The configuration of an application entity, the same for every runtime: titles, contexts, deadlines, limits.

The records of the wire are loaded when the first request is made, so that importing this stays cheap.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from rxdicom.builders import Builder
from rxdicom.errors import ArgumentError
from rxdicom.presentation import PresentationContext, build_context
from rxdicom.protocol.policy import Limits, Policy, SupportedContext, Timeouts
from rxdicom.service_class import NonPatientObjectStorageServiceClass, StorageServiceClass
from rxdicom.sop_class import uid_to_service_class, uid_to_sop_class
from rxdicom.wire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from rxdicom.wire.items import UserItem
    from rxdicom.wire.pdu import AssociateRQ

DEFAULT_AE_TITLE = "RXDICOM"
ANY_SCP = "ANY-SCP"


def checked_ae_title(title: str) -> str:
    """An AE title (PS3.5 §6.2): 1 to 16 characters without backslash and control characters, spaces trimmed.

    Raises :class:`~rxdicom.errors.ArgumentError` (a :class:`ValueError`), and :class:`TypeError` for another type.

    >>> checked_ae_title(" STORE ")
    'STORE'
    """
    if not isinstance(title, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"an AE title is a str, not {type(title).__name__}")
    trimmed = title.strip(" ")
    usable = trimmed.isascii() and trimmed.isprintable() and "\\" not in trimmed
    if not 1 <= len(trimmed) <= 16 or not usable:
        raise ArgumentError(f"{title!r} is not an AE title; give 1 to 16 ASCII characters without backslash")
    return trimmed


class Entity:
    """Titles, presentation contexts, deadlines and limits, with pynetdicom's names for them.

    What is set later counts for the associations and servers that are made later.
    """

    def __init__(self, ae_title: str = DEFAULT_AE_TITLE) -> None:
        self._ae_title = checked_ae_title(ae_title)
        self.timeouts = Timeouts()
        """Every deadline, in one frozen record; the properties below are those that pynetdicom has."""
        self.limits = Limits()
        """What a peer may use of this machine."""
        self._requested: list[PresentationContext] = []
        self._supported: dict[str, PresentationContext] = {}
        self._require_called = False
        self._require_calling: tuple[str, ...] = ()
        self.require_user_identity = False
        """Reject an association request that carries no user identity."""
        self.accept_any_storage = False
        """Accept every storage SOP class that is proposed, in the first transfer syntax that is."""
        self.convert_datasets = True
        """Whether ``send_c_store`` may convert a dataset whose own transfer syntax was not accepted."""
        self.spool_folder: str | None = None
        """Where datasets above ``limits.memory`` are kept while they come in; None for that of temporary files."""
        self.implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name: str = IMPLEMENTATION_VERSION_NAME

    # ---- identification

    @property
    def ae_title(self) -> str:
        return self._ae_title

    @ae_title.setter
    def ae_title(self, value: str) -> None:
        self._ae_title = checked_ae_title(value)

    @property
    def require_called_aet(self) -> bool:
        """Whether requests must be addressed to the AE title that the server has."""
        return self._require_called

    @require_called_aet.setter
    def require_called_aet(self, value: bool) -> None:
        self._require_called = bool(value)

    @property
    def require_calling_aet(self) -> list[str]:
        """The AE titles that may request associations; an empty list for all."""
        return list(self._require_calling)

    @require_calling_aet.setter
    def require_calling_aet(self, titles: Iterable[str]) -> None:
        self._require_calling = tuple(checked_ae_title(title) for title in titles)

    # ---- deadlines and limits

    @property
    def acse_timeout(self) -> float | None:
        """Seconds for the answer to an association or release request, and ARTIM; None for ever."""
        return self.timeouts.association

    @acse_timeout.setter
    def acse_timeout(self, value: float | None) -> None:
        self.timeouts = evolve(self.timeouts, association=_seconds(value), release=_seconds(value))

    @property
    def dimse_timeout(self) -> float | None:
        """Seconds from the end of a request to its response; None for ever."""
        return self.timeouts.response

    @dimse_timeout.setter
    def dimse_timeout(self, value: float | None) -> None:
        self.timeouts = evolve(self.timeouts, response=_seconds(value))

    @property
    def network_timeout(self) -> float | None:
        """Seconds without anything from the peer before an idle association is aborted; None for ever."""
        return self.timeouts.idle

    @network_timeout.setter
    def network_timeout(self, value: float | None) -> None:
        self.timeouts = evolve(self.timeouts, idle=_seconds(value))

    @property
    def connection_timeout(self) -> float | None:
        """Seconds to connect, name resolution included; None for ever."""
        return self.timeouts.connect

    @connection_timeout.setter
    def connection_timeout(self, value: float | None) -> None:
        self.timeouts = evolve(self.timeouts, connect=_seconds(value))

    @property
    def maximum_pdu_size(self) -> int:
        """The largest P-DATA-TF that is accepted, in bytes; 0 advertises "unlimited"."""
        return self.limits.pdu

    @maximum_pdu_size.setter
    def maximum_pdu_size(self, value: int) -> None:
        self.limits = evolve(self.limits, pdu=_pdu_size(value))

    @property
    def maximum_associations(self) -> int:
        """How many associations a server has at a time."""
        return self.limits.associations

    @maximum_associations.setter
    def maximum_associations(self, value: int) -> None:
        if value < 1:
            raise ArgumentError(f"maximum_associations {value} must be at least 1")
        self.limits = evolve(self.limits, associations=value)

    # ---- requested contexts

    @property
    def requested_contexts(self) -> list[PresentationContext]:
        """What :meth:`associate` proposes, in this order, unless it is given contexts of its own."""
        return list(self._requested)

    @requested_contexts.setter
    def requested_contexts(self, contexts: Sequence[PresentationContext]) -> None:
        _check_contexts(contexts)
        self._requested = []
        for context in contexts:
            self.add_requested_context(_abstract_syntax(context), list(context.transfer_syntax))

    def add_requested_context(self, abstract_syntax: str, transfer_syntax: str | Sequence[str] | None = None) -> None:
        """Propose a SOP class, with one transfer syntax, several, or the default ones. At most 128 contexts."""
        from rxdicom.wire.items import MAX_CONTEXTS

        if len(self._requested) >= MAX_CONTEXTS:
            raise ArgumentError(f"{MAX_CONTEXTS} presentation contexts are the most that fit one association")
        context = _context(abstract_syntax, transfer_syntax)
        context.context_id = 2 * len(self._requested) + 1
        self._requested.append(context)

    def remove_requested_context(
        self, abstract_syntax: str, transfer_syntax: str | Sequence[str] | None = None
    ) -> None:
        """Take back a SOP class, or only some of its transfer syntaxes."""
        kept: list[PresentationContext] = []
        for context in self._requested:
            if context.abstract_syntax != abstract_syntax or _without(context, transfer_syntax):
                kept.append(context)
        self._requested = kept
        for index, context in enumerate(kept):
            context.context_id = 2 * index + 1

    # ---- supported contexts

    @property
    def supported_contexts(self) -> list[PresentationContext]:
        """What a server accepts, by SOP class, unless it is given contexts of its own."""
        return sorted(self._supported.values(), key=lambda context: str(context.abstract_syntax))

    @supported_contexts.setter
    def supported_contexts(self, contexts: Sequence[PresentationContext]) -> None:
        _check_contexts(contexts)
        self._supported = {}
        for context in contexts:
            self.add_supported_context(
                _abstract_syntax(context), list(context.transfer_syntax), context.scu_role, context.scp_role
            )

    def add_supported_context(
        self,
        abstract_syntax: str,
        transfer_syntax: str | Sequence[str] | None = None,
        scu_role: bool | None = None,
        scp_role: bool | None = None,
    ) -> None:
        """Accept a SOP class in these transfer syntaxes, the most wanted first.

        The roles say which of those that a requestor proposes for itself are accepted; both None: none is answered.
        """
        context = _context(abstract_syntax, transfer_syntax)
        known = self._supported.setdefault(str(abstract_syntax), context)
        if known is not context:
            for syntax in context.transfer_syntax:
                known.add_transfer_syntax(syntax)
        known.scu_role, known.scp_role = scu_role, scp_role

    def remove_supported_context(
        self, abstract_syntax: str, transfer_syntax: str | Sequence[str] | None = None
    ) -> None:
        """Take back a SOP class, or only some of its transfer syntaxes."""
        context = self._supported.get(str(abstract_syntax))
        if context is not None and not _without(context, transfer_syntax):
            del self._supported[str(abstract_syntax)]

    # ---- what runtimes make of it

    def make_request(
        self,
        called_ae_title: str,
        contexts: Sequence[PresentationContext] | None,
        max_pdu: int | None,
        ext_neg: "Iterable[Builder | UserItem] | None",
        calling_ae_title: str | None = None,
    ) -> "AssociateRQ":
        """The A-ASSOCIATE-RQ for these arguments of ``associate``."""
        from rxdicom.protocol.negotiation import propose
        from rxdicom.wire.items import RoleSelection

        chosen = self._requested if contexts is None else contexts
        _check_contexts(chosen)
        items = [_frozen(item) for item in ext_neg or ()]
        if not any(isinstance(item, RoleSelection) for item in items):
            items += _roles_for_get([_abstract_syntax(each) for each in chosen])
        return propose(
            checked_ae_title(called_ae_title),
            calling_ae_title or self._ae_title,
            [(_abstract_syntax(each), [str(uid) for uid in each.transfer_syntax]) for each in chosen],
            maximum_length=self.limits.pdu if max_pdu is None else _pdu_size(max_pdu),
            items=items,
            implementation_class_uid=self.implementation_class_uid,
            implementation_version_name=self.implementation_version_name,
        )

    def served(self, ae_title: str | None, contexts: Sequence[PresentationContext] | None) -> tuple[str, Policy]:
        """The title of a server, that of this entity unless another is given, and how it answers requests.

        Raises :class:`~rxdicom.errors.ArgumentError` where it would accept nothing.
        """
        title = checked_ae_title(ae_title or self.ae_title)
        policy = self.make_policy(title, contexts)
        if not policy.contexts and not policy.is_storage:
            raise ArgumentError("no presentation contexts are supported; add at least one with add_supported_context()")
        return title, policy

    def make_policy(self, ae_title: str, contexts: Sequence[PresentationContext] | None) -> Policy:
        """How a server answers association requests."""
        chosen = self.supported_contexts if contexts is None else contexts
        _check_contexts(chosen)
        return Policy(
            contexts=tuple(_supported(each) for each in chosen),
            is_storage=_is_storage if self.accept_any_storage else None,
            require_called_aet=ae_title if self._require_called else None,
            require_calling_aet=self._require_calling,
            require_user_identity=self.require_user_identity,
            implementation_class_uid=self.implementation_class_uid,
            implementation_version_name=self.implementation_version_name,
        )


def _roles_for_get(abstract_syntaxes: Sequence[str]) -> "list[UserItem]":
    """Who retrieves by C-GET is SCP of the storage classes that it requests: for these the role is proposed."""
    if not any(_is_get(uid) for uid in abstract_syntaxes):
        return []
    from rxdicom.wire.items import RoleSelection

    storage = dict.fromkeys(uid for uid in abstract_syntaxes if _is_storage(uid))
    return [RoleSelection(uid, True, True) for uid in storage]


def _is_get(abstract_syntax: str) -> bool:
    # Only for SOP classes of query and retrieve services is the dictionary needed, which loads pydicom.
    if "C-GET" not in uid_to_service_class(abstract_syntax).operations:
        return False
    return uid_to_sop_class(abstract_syntax).dimse_msg_type == "C-GET"


def _is_storage(abstract_syntax: str) -> bool:
    return uid_to_service_class(abstract_syntax) in (StorageServiceClass, NonPatientObjectStorageServiceClass)


def _supported(context: PresentationContext) -> SupportedContext:
    syntaxes = tuple(str(uid) for uid in context.transfer_syntax)
    return SupportedContext(_abstract_syntax(context), syntaxes, context.scu_role, context.scp_role)


def _frozen(item: "Builder | UserItem") -> "UserItem":
    return item.freeze() if isinstance(item, Builder) else item


def _check_contexts(contexts: Sequence[PresentationContext]) -> None:
    for context in contexts:
        if not isinstance(context, PresentationContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{context!r} is not a presentation context; make one with build_context()")


def _abstract_syntax(context: PresentationContext) -> str:
    if context.abstract_syntax is None:
        raise ArgumentError("a presentation context lacks its abstract syntax; set it first")
    return str(context.abstract_syntax)


def _context(abstract_syntax: str, transfer_syntax: str | Sequence[str] | None) -> PresentationContext:
    given = transfer_syntax if transfer_syntax is None or isinstance(transfer_syntax, str) else list(transfer_syntax)
    return build_context(str(abstract_syntax), given)


def _without(context: PresentationContext, transfer_syntax: str | Sequence[str] | None) -> bool:
    """Remove transfer syntaxes, None for all; whether any is left."""
    if transfer_syntax is None:
        return False
    removed = [transfer_syntax] if isinstance(transfer_syntax, str) else transfer_syntax
    context.transfer_syntax = [uid for uid in context.transfer_syntax if uid not in removed]
    return bool(context.transfer_syntax)


def _seconds(value: float | None) -> float | None:
    if value is not None and value < 0:
        raise ArgumentError(f"a timeout of {value} s is not possible; give seconds, or None to wait for ever")
    return value


def _pdu_size(value: int) -> int:
    if value != 0 and value < 1024:
        raise ArgumentError(f"a maximum PDU size of {value} bytes is too small; give 1024 or more, or 0 for unlimited")
    return value
