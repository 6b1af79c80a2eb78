"""The 17 + 15 kinds of events: typed constants, from one table each. Loads nothing else before a record is needed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from rxdicom.events import records

_R = TypeVar("_R", covariant=True)


class EventKind(Generic[_R]):
    """A kind of event, one of the ``evt.EVT_`` constants. Compared by identity, and safe to pickle.

    ``name`` is the constant's name; ``number`` orders the kinds, and is the bit of a notification kind in the masks
    of its hubs.
    """

    __slots__ = ("_record", "description", "is_notification", "iterates", "name", "number")

    def __init__(self, number: int, name: str, description: str, record: str, *, is_notification: bool) -> None:
        self.number = number
        self.name = name
        self.iterates = name in ("EVT_C_FIND", "EVT_C_GET", "EVT_C_MOVE")
        """Whether the handler of an intervention kind returns an iterable."""
        self.description = description
        self.is_notification = is_notification
        # The name of the class until it is needed for the first time.
        self._record: Any = record

    @property
    def is_intervention(self) -> bool:
        return not self.is_notification

    @property
    def stream_name(self) -> str:
        """The attribute of ``events`` under which a notification kind is found."""
        return self.name.removeprefix("EVT_").lower()

    @property
    def record(self) -> "type[_R]":
        """The class of its event records."""
        if isinstance(self._record, str):
            from rxdicom.events import records

            self._record = getattr(records, self._record)
        return self._record

    def __repr__(self) -> str:
        return f"evt.{self.name}"

    def __reduce__(self) -> str:
        return self.name


def _numbered(offset: int, notification: bool) -> Iterator[Any]:
    """Makes the constants below in the order in which they ask."""
    table = _NOTIFICATIONS if notification else _INTERVENTIONS
    for index, (name, record, description) in enumerate(table):
        yield EventKind[Any](offset + index, f"EVT_{name}", description, record, is_notification=notification)


# In the order of rxdicom.protocol.notices.Notice.
_NOTIFICATIONS = (
    ("CONN_OPEN", "ConnectionOpened", "Connection with remote opened"),
    ("CONN_CLOSE", "ConnectionClosed", "Connection with remote closed"),
    ("DATA_RECV", "DataReceived", "Data received from the peer AE"),
    ("DATA_SENT", "DataSent", "Data sent to the peer AE"),
    ("PDU_RECV", "PDUReceived", "PDU received from the peer AE"),
    ("PDU_SENT", "PDUSent", "PDU sent to the peer AE"),
    ("ACSE_RECV", "ACSEReceived", "ACSE received a primitive from the DUL service provider"),
    ("ACSE_SENT", "ACSESent", "ACSE sent a primitive to the DUL service provider"),
    ("DIMSE_RECV", "DIMSEReceived", "DIMSE service received and decoded a message"),
    ("DIMSE_SENT", "DIMSESent", "DIMSE service encoded and sent a message"),
    ("FSM_TRANSITION", "FSMTransition", "State machine transitioning"),
    ("REQUESTED", "Requested", "Association requested"),
    ("ACCEPTED", "Accepted", "Association accepted"),
    ("REJECTED", "Rejected", "Association rejected"),
    ("ESTABLISHED", "Established", "Association established"),
    ("RELEASED", "Released", "Association released"),
    ("ABORTED", "Aborted", "Association aborted"),
)
_INTERVENTIONS = (
    ("ASYNC_OPS", "AsyncOps", "Association request includes Asynchronous Operations Window negotiation item"),
    ("SOP_COMMON", "SOPCommon", "Association request includes SOP Class Common Extended negotiation item(s)"),
    ("SOP_EXTENDED", "SOPExtended", "Association request includes SOP Class Extended negotiation item(s)"),
    ("USER_ID", "UserID", "Association request includes User Identity negotiation item"),
    ("C_ECHO", "CEcho", "Service class received C-ECHO request"),
    ("C_FIND", "CFind", "Service class received C-FIND request"),
    ("C_GET", "CGet", "Service class received C-GET request"),
    ("C_MOVE", "CMove", "Service class received C-MOVE request"),
    ("C_STORE", "CStore", "Service class received C-STORE request"),
    ("N_ACTION", "NAction", "Service class received N-ACTION request"),
    ("N_CREATE", "NCreate", "Service class received N-CREATE request"),
    ("N_DELETE", "NDelete", "Service class received N-DELETE request"),
    ("N_EVENT_REPORT", "NEventReport", "Service class received N-EVENT-REPORT request"),
    ("N_GET", "NGet", "Service class received N-GET request"),
    ("N_SET", "NSet", "Service class received N-SET request"),
)

_next = _numbered(0, True)
EVT_CONN_OPEN: "EventKind[records.ConnectionOpened]" = next(_next)
EVT_CONN_CLOSE: "EventKind[records.ConnectionClosed]" = next(_next)
EVT_DATA_RECV: "EventKind[records.DataReceived]" = next(_next)
EVT_DATA_SENT: "EventKind[records.DataSent]" = next(_next)
EVT_PDU_RECV: "EventKind[records.PDUReceived]" = next(_next)
EVT_PDU_SENT: "EventKind[records.PDUSent]" = next(_next)
EVT_ACSE_RECV: "EventKind[records.ACSEReceived]" = next(_next)
EVT_ACSE_SENT: "EventKind[records.ACSESent]" = next(_next)
EVT_DIMSE_RECV: "EventKind[records.DIMSEReceived]" = next(_next)
EVT_DIMSE_SENT: "EventKind[records.DIMSESent]" = next(_next)
EVT_FSM_TRANSITION: "EventKind[records.FSMTransition]" = next(_next)
EVT_REQUESTED: "EventKind[records.Requested]" = next(_next)
EVT_ACCEPTED: "EventKind[records.Accepted]" = next(_next)
EVT_REJECTED: "EventKind[records.Rejected]" = next(_next)
EVT_ESTABLISHED: "EventKind[records.Established]" = next(_next)
EVT_RELEASED: "EventKind[records.Released]" = next(_next)
EVT_ABORTED: "EventKind[records.Aborted]" = next(_next)
_next = _numbered(len(_NOTIFICATIONS), False)
EVT_ASYNC_OPS: "EventKind[records.AsyncOps]" = next(_next)
EVT_SOP_COMMON: "EventKind[records.SOPCommon]" = next(_next)
EVT_SOP_EXTENDED: "EventKind[records.SOPExtended]" = next(_next)
EVT_USER_ID: "EventKind[records.UserID]" = next(_next)
EVT_C_ECHO: "EventKind[records.CEcho]" = next(_next)
EVT_C_FIND: "EventKind[records.CFind]" = next(_next)
EVT_C_GET: "EventKind[records.CGet]" = next(_next)
EVT_C_MOVE: "EventKind[records.CMove]" = next(_next)
EVT_C_STORE: "EventKind[records.CStore]" = next(_next)
EVT_N_ACTION: "EventKind[records.NAction]" = next(_next)
EVT_N_CREATE: "EventKind[records.NCreate]" = next(_next)
EVT_N_DELETE: "EventKind[records.NDelete]" = next(_next)
EVT_N_EVENT_REPORT: "EventKind[records.NEventReport]" = next(_next)
EVT_N_GET: "EventKind[records.NGet]" = next(_next)
EVT_N_SET: "EventKind[records.NSet]" = next(_next)
del _next

_ALL: list[EventKind[Any]] = [globals()[f"EVT_{row[0]}"] for row in (*_NOTIFICATIONS, *_INTERVENTIONS)]
NOTIFICATION_KINDS = tuple(each for each in _ALL if each.is_notification)
INTERVENTION_KINDS = tuple(each for each in _ALL if each.is_intervention)
