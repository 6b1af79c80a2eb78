"""What the protocol tells its runtime: numbered notices with plain values, in the order of the wire."""

from enum import IntEnum
from typing import Any


class Notice(IntEnum):
    """The number of each notice, which is also its bit in :attr:`Protocol.watched`.

    The first 17 become the notification events of the same name; the rest is for the runtime alone.
    """

    CONN_OPEN = 0
    CONN_CLOSE = 1
    DATA_RECV = 2
    DATA_SENT = 3
    PDU_RECV = 4
    PDU_SENT = 5
    ACSE_RECV = 6
    ACSE_SENT = 7
    DIMSE_RECV = 8
    DIMSE_SENT = 9
    FSM_TRANSITION = 10
    REQUESTED = 11
    ACCEPTED = 12
    REJECTED = 13
    ESTABLISHED = 14
    RELEASED = 15
    ABORTED = 16

    RELEASE_INDICATED = 17
    """(): the peer asks for release, or the turn to answer has come (PS3.8 §7.2)."""
    MESSAGE_SENT = 18
    """(message): a request has left wholly."""
    SEND_FAILED = 19
    """(message, error): a message could not be read to be sent."""
    WARNING = 20
    """(text): something was tolerated."""


Produced = tuple[Notice, tuple[Any, ...]]

ALWAYS = sum(
    1 << notice
    for notice in Notice
    if notice
    not in (
        Notice.DATA_RECV,
        Notice.DATA_SENT,
        Notice.PDU_RECV,
        Notice.PDU_SENT,
        Notice.ACSE_RECV,
        Notice.ACSE_SENT,
        Notice.DIMSE_SENT,
        Notice.FSM_TRANSITION,
    )
)
"""The mask of the notices that are produced whether anybody watches or not: the runtime needs them."""
