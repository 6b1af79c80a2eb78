"""The typed failures of rxdicom. Imports nothing, so that every layer can raise them.

Local mistakes (:class:`LocalUsageError`) and remote ones (everything else) are different types: the first is mended
in the program, the second is handled by it.
"""

from collections.abc import Iterable


class RxDicomError(Exception):
    """Base class of everything that rxdicom raises on purpose."""


class LocalUsageError(RxDicomError):
    """The program called something wrongly. Raised as one of the two subclasses below."""


class StateError(LocalUsageError, RuntimeError):
    """The call does not fit the state that the association, server or thread is in."""


class ArgumentError(LocalUsageError, ValueError):
    """An argument has a value that cannot be used."""


class InvalidFile(ArgumentError):
    """A file that should be sent is not a DICOM file (PS3.10 §7), or lacks what a C-STORE needs."""


class DatasetError(RxDicomError, ValueError):
    """A dataset cannot be decoded from, or encoded to, its transfer syntax."""


class ConnectionFailed(RxDicomError, ConnectionError):
    """No transport connection: unknown host, refused, unreachable, or the TLS handshake failed."""


class AssociationRejected(RxDicomError):
    """The peer answered A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        self.result = result
        self.source = source
        self.reason = reason
        advice = "try again later" if result == 2 else "check AE titles and configuration on both sides"
        super().__init__(f"association {rejected(result, source, reason)}; {advice}")


class AssociationAborted(RxDicomError):
    """The association ended by A-ABORT (PS3.8 §9.3.8), or because the connection was lost.

    ``by`` is ``"local"``, ``"peer"`` or ``"transport"``.
    """

    def __init__(self, source: int = 0, reason: int = 0, by: str = "peer", cause: str = "") -> None:
        self.source = source
        self.reason = reason
        self.by = by
        super().__init__(f"association over, {aborted(source, reason, by, cause)}; open a new association to go on")


class AssociationReleased(RxDicomError):
    """The association was released, so that nothing more can be sent over it."""

    def __init__(self, message: str = "the association has been released; open a new one to go on") -> None:
        super().__init__(message)


class TimedOut(RxDicomError, TimeoutError):
    """A deadline passed. ``phase`` says in what: connect, tls, association, response, write, release or observer."""

    def __init__(self, phase: str, seconds: float | None = None) -> None:
        self.phase = phase
        self.seconds = seconds
        after = "" if seconds is None else f" after {seconds:g} s"
        super().__init__(f"timed out{after} in phase '{phase}'; raise that timeout, or see why the peer is slow")


class NoAcceptedContext(RxDicomError, ValueError):
    """No accepted presentation context fits. ``proposed`` and ``accepted`` hold abstract syntaxes."""

    def __init__(self, wanted: str, proposed: Iterable[str] = (), accepted: Iterable[str] = ()) -> None:
        self.wanted = wanted
        self.proposed = tuple(proposed)
        self.accepted = tuple(accepted)
        listed = ", ".join(self.accepted) or "none"
        super().__init__(
            f"no accepted presentation context for {wanted}: {len(self.proposed)} proposed, accepted: {listed}; "
            "request this SOP class and transfer syntax, or have the peer support it"
        )


class PeerProtocolError(RxDicomError):
    """The peer broke the protocol. ``reason`` is the A-ABORT reason of PS3.8 table 9-26 that answers it."""

    def __init__(self, message: str, reason: int = 0) -> None:
        self.reason = reason
        super().__init__(message)


_REJECT = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given (ACSE)",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}

_ABORT = {
    0: "reason not specified",
    1: "unrecognised PDU",
    2: "unexpected PDU",
    4: "unrecognised PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


def reject_reason(source: int, reason: int) -> str:
    """The meaning of an A-ASSOCIATE-RJ's source and reason (PS3.8 table 9-21); unknown codes are named as such."""
    return _REJECT.get((source, reason), f"source {source}, reason {reason}")


def abort_reason(source: int, reason: int) -> str:
    """The meaning of an A-ABORT's source and reason (PS3.8 table 9-26); unknown codes are named as such."""
    if source == 0:
        return "by the service user"
    return _ABORT.get(reason, f"reason {reason}")


def rejected(result: int, source: int, reason: int) -> str:
    """An A-ASSOCIATE-RJ (PS3.8 §9.3.4) in words.

    >>> rejected(1, 1, 7)
    'rejected permanently: called AE title not recognised'
    """
    how = {1: "permanently", 2: "transiently"}.get(result, f"with result {result}")
    return f"rejected {how}: {reject_reason(source, reason)}"


def aborted(source: int, reason: int, by: str, cause: str = "") -> str:
    """The end of an association by A-ABORT (PS3.8 §9.3.8), or by the loss of its connection, in words.

    >>> aborted(2, 2, "peer")
    'aborted by the peer: unexpected PDU'
    """
    who = {"local": "aborted here", "peer": "aborted by the peer"}.get(by, "the connection was lost")
    return f"{who}: {cause or (abort_reason(source, reason) if by != 'transport' else 'closed without a release')}"
