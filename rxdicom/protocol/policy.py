"""What a side allows and waits for: frozen records given to an AE, a listener or one association."""

from collections.abc import Callable

from attrs import frozen

from rxdicom.wire.encoded import INFLATED
from rxdicom.wire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


@frozen
class Timeouts:
    """Deadlines in seconds; None waits for ever, and is the caller's explicit wish only."""

    connect: float | None = 30.0
    """Name resolution and TCP connect together."""
    tls: float | None = 30.0
    """The TLS handshake."""
    association: float | None = 30.0
    """ARTIM (PS3.8 §9.1.4): from the connection to the end of the A-ASSOCIATE-RQ, from there to its answer, and from
    an abort or reject to the closing of the connection."""
    response: float | None = 30.0
    """From the end of a DIMSE request to its response."""
    operation: float | None = 3600.0
    """From a C-FIND, C-GET or C-MOVE request to its final response, however often pending ones come."""
    write: float | None = 60.0
    """For the peer to read something of what is sent to it."""
    idle: float | None = 60.0
    """Without any byte from the peer while no request is outstanding; then the association is aborted."""
    release: float | None = 30.0
    """From A-RELEASE-RQ to A-RELEASE-RP."""
    observer: float | None = 60.0
    """For other observers of the same events to finish, before a thread that waits for them gives up."""


@frozen
class Limits:
    """What a peer may use of this machine. Sizes in bytes."""

    associate: int = 524288
    """An A-ASSOCIATE PDU."""
    unfinished: int = 2097152
    """The A-ASSOCIATE-RQs together that have not come whole to a server; beyond it the largest is cut off."""
    pdu: int = 131072
    """A P-DATA-TF after its header, as advertised by the maximum length item (0: "unlimited" is advertised)."""
    pdu_unlimited: int = 67108864
    """A P-DATA-TF where "unlimited" is advertised: something always holds."""
    dataset: int = 8589934592
    """A dataset; beyond it the rest is discarded and the request refused with 0xA700."""
    memory: int = 1048576
    """A dataset held in memory; a larger one goes to a temporary file."""
    inflated: int = INFLATED
    """A deflated dataset when it is decoded: a deflate bomb ends here. A larger one can still be stored as it is."""
    associations: int = 10
    """Associations of an acceptor at a time; one more is rejected (2,3,2)."""
    connections: int = 4096
    """Connections of an acceptor at a time, with or without an association; one more is closed."""

    @property
    def receive(self) -> int:
        """The largest P-DATA-TF that is accepted."""
        return self.pdu or self.pdu_unlimited


@frozen
class SupportedContext:
    """What an acceptor supports for one abstract syntax: its transfer syntaxes in its own order of preference.

    A role of None keeps the default of PS3.7 D.3.3.4 (the requestor is SCU), and no role is answered.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    scu_role: bool | None = None
    scp_role: bool | None = None


@frozen
class Policy:
    """How an acceptor answers association requests."""

    contexts: tuple[SupportedContext, ...] = ()
    is_storage: Callable[[str], bool] | None = None
    """If given, every SOP class for which it is true is accepted, or that SOP Class Common Extended says is storage."""
    require_called_aet: str | None = None
    """Reject (1,1,7) another called AE title."""
    require_calling_aet: tuple[str, ...] = ()
    """Reject (1,1,3) other calling AE titles; an empty tuple takes all."""
    require_user_identity: bool = False
    """Reject (1,2,1) a request without a user identity."""
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME
