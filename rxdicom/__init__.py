"""rxdicom: a DICOM network stack in which every event is an Observable and every service a pure function.

Everything here is loaded on first use, so that ``from rxdicom import AE, evt`` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rxdicom import evt
    from rxdicom.errors import (
        ArgumentError,
        AssociationAborted,
        AssociationRejected,
        AssociationReleased,
        ConnectionFailed,
        DatasetError,
        InvalidFile,
        LocalUsageError,
        NoAcceptedContext,
        PeerProtocolError,
        RxDicomError,
        StateError,
        TimedOut,
    )
    from rxdicom.log import debug_logger
    from rxdicom.presentation import ALL_TRANSFER_SYNTAXES, DEFAULT_TRANSFER_SYNTAXES, build_context, build_role
    from rxdicom.protocol.policy import Limits, Policy, Timeouts
    from rxdicom.runtimes.batches import Sent
    from rxdicom.runtimes.threads.ae import AE
    from rxdicom.runtimes.threads.association import Association
    from rxdicom.runtimes.threads.responses import Responses
    from rxdicom.runtimes.threads.sending import Transfer
    from rxdicom.runtimes.threads.server import AssociationServer
    from rxdicom.runtimes.threads.spreading import Delivery
    from rxdicom.runtimes.threads.workers import WorkerFailed, Workers, WorkerServer
    from rxdicom.sop_class import register_uid
    from rxdicom.status import Status

__version__ = "0.1.0"

_HOMES = {
    "AE": "rxdicom.runtimes.threads.ae",
    "Association": "rxdicom.runtimes.threads.association",
    "AssociationServer": "rxdicom.runtimes.threads.server",
    "Responses": "rxdicom.runtimes.threads.responses",
    "Transfer": "rxdicom.runtimes.threads.sending",
    "Delivery": "rxdicom.runtimes.threads.spreading",
    "Sent": "rxdicom.runtimes.batches",
    **dict.fromkeys(("WorkerFailed", "WorkerServer", "Workers"), "rxdicom.runtimes.threads.workers"),
    "Limits": "rxdicom.protocol.policy",
    "Policy": "rxdicom.protocol.policy",
    "Timeouts": "rxdicom.protocol.policy",
    "Status": "rxdicom.status",
    "build_context": "rxdicom.presentation",
    "build_role": "rxdicom.presentation",
    "debug_logger": "rxdicom.log",
    "register_uid": "rxdicom.sop_class",
    "DEFAULT_TRANSFER_SYNTAXES": "rxdicom.presentation",
    "ALL_TRANSFER_SYNTAXES": "rxdicom.presentation",
    **dict.fromkeys(
        (
            "ArgumentError",
            "AssociationAborted",
            "AssociationRejected",
            "AssociationReleased",
            "ConnectionFailed",
            "DatasetError",
            "InvalidFile",
            "LocalUsageError",
            "NoAcceptedContext",
            "PeerProtocolError",
            "RxDicomError",
            "StateError",
            "TimedOut",
        ),
        "rxdicom.errors",
    ),
}

__all__ = [
    "AE",
    "ALL_TRANSFER_SYNTAXES",
    "DEFAULT_TRANSFER_SYNTAXES",
    "ArgumentError",
    "Association",
    "AssociationAborted",
    "AssociationRejected",
    "AssociationReleased",
    "AssociationServer",
    "ConnectionFailed",
    "DatasetError",
    "Delivery",
    "InvalidFile",
    "Limits",
    "LocalUsageError",
    "NoAcceptedContext",
    "PeerProtocolError",
    "Policy",
    "Responses",
    "RxDicomError",
    "Sent",
    "StateError",
    "Status",
    "TimedOut",
    "Timeouts",
    "Transfer",
    "WorkerFailed",
    "WorkerServer",
    "Workers",
    "build_context",
    "build_role",
    "debug_logger",
    "evt",
    "register_uid",
]


def __getattr__(name: str) -> Any:
    if name == "evt":
        return import_module("rxdicom.evt")
    home = "rxdicom.presentation" if name.endswith("PresentationContexts") else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rxdicom' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
