"""From the protocol's notices to event records in hubs, and the state that an association shows: for every runtime."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rxdicom.events.hub import Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS
from rxdicom.protocol.notices import Notice, Produced

_FIELDS: dict[Notice, tuple[str, ...]] = {
    Notice.CONN_OPEN: ("address",),
    Notice.CONN_CLOSE: ("address",),
    Notice.DATA_RECV: ("data",),
    Notice.DATA_SENT: ("data",),
    Notice.PDU_RECV: ("pdu",),
    Notice.PDU_SENT: ("pdu",),
    Notice.ACSE_RECV: ("primitive",),
    Notice.ACSE_SENT: ("primitive",),
    Notice.DIMSE_RECV: ("message",),
    Notice.DIMSE_SENT: ("message",),
    Notice.FSM_TRANSITION: ("current_state", "fsm_event", "action", "next_state"),
    Notice.REJECTED: ("result", "source", "reason"),
    Notice.ABORTED: ("source", "reason", "by", "cause"),
}
"""Where a notice's values go in its record; the values of the others are not part of it."""


def wall_clock() -> datetime:
    """Now, timezone-aware."""
    return datetime.now(UTC)


class Publisher:
    """Builds a record once if any of its hubs has an observer for it, and appends it to those that have."""

    __slots__ = ("_assoc", "_clock", "_hubs")

    def __init__(self, assoc: object, hubs: tuple[Hub, ...], clock: Callable[[], datetime] = wall_clock) -> None:
        self._assoc = assoc
        self._hubs = hubs
        self._clock = clock

    def add(self, *hubs: Hub) -> None:
        """Have these hear of what comes as well."""
        self._hubs = (*self._hubs, *(hub for hub in hubs if hub not in self._hubs))

    def mask(self) -> int:
        """Which notices anybody observes."""
        mask = 0
        for hub in self._hubs:
            mask |= hub.mask
        return mask

    def publish(self, notice: Notice, values: tuple[Any, ...]) -> bool:
        """Queue the event of a notice; nothing is built for nobody. Whether there was somebody."""
        number = int(notice)
        if number >= len(NOTIFICATION_KINDS):
            return False
        interested = [hub for hub in self._hubs if hub.mask >> number & 1]
        if not interested:
            return False
        record = self._record(notice, values)
        for hub in interested:
            hub.append(number, record)
        return True

    def publish_all(self, produced: list[Produced]) -> bool:
        """Publish several. Whether somebody observes one of them: then :meth:`deliver` is to follow."""
        mask, seen = self.mask(), False
        for notice, values in produced:
            if mask >> notice & 1:
                seen = self.publish(notice, values) or seen
        return seen

    def _record(self, notice: Notice, values: tuple[Any, ...]) -> Any:
        names = _FIELDS.get(notice, ())
        fields = dict(zip(names, values, strict=True)) if names else {}
        return NOTIFICATION_KINDS[notice].record(assoc=self._assoc, timestamp=self._clock(), **fields)

    def deliver(self, timeout: float | None) -> bool:
        """Let the observers see what is queued. False if one of them held the turn longer than ``timeout`` seconds.

        With 0 this does not wait: what is left is delivered by whoever has the turn.
        """
        in_time = True
        for hub in self._hubs:
            if not hub.drain(timeout):
                in_time, timeout = False, 0
        return in_time
