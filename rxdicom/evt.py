"""The kinds of events, as users import them: ``from rxdicom import evt``, then ``evt.EVT_C_STORE``."""

from rxdicom.events import kinds as _kinds
from rxdicom.events.kinds import *  # noqa: F403
from rxdicom.events.kinds import INTERVENTION_KINDS, NOTIFICATION_KINDS, EventKind

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll] - the constants come from one table
    "INTERVENTION_KINDS",
    "NOTIFICATION_KINDS",
    "EventKind",
    *(each.name for each in (*_kinds.NOTIFICATION_KINDS, *_kinds.INTERVENTION_KINDS)),
]
