"""The state machine of the DICOM Upper Layer (PS3.8 §9.2) as data: states, events, actions and table 9-10."""

from enum import IntEnum


class State(IntEnum):
    """PS3.8 tables 9-1 to 9-5."""

    IDLE = 1
    AWAITING_RQ = 2
    AWAITING_LOCAL_RESPONSE = 3
    AWAITING_TRANSPORT = 4
    AWAITING_AC_OR_RJ = 5
    ESTABLISHED = 6
    AWAITING_RELEASE_RP = 7
    AWAITING_LOCAL_RELEASE = 8
    COLLISION_REQUESTOR_LOCAL = 9
    COLLISION_ACCEPTOR_RP = 10
    COLLISION_REQUESTOR_RP = 11
    COLLISION_ACCEPTOR_LOCAL = 12
    AWAITING_CLOSE = 13

    @property
    def label(self) -> str:
        """The standard's name, such as ``Sta6``."""
        return f"Sta{self.value}"


class Event(IntEnum):
    """PS3.8 table 9-10, left column."""

    ASSOCIATE_REQUEST = 1
    TRANSPORT_CONFIRMED = 2
    AC_RECEIVED = 3
    RJ_RECEIVED = 4
    TRANSPORT_INDICATED = 5
    RQ_RECEIVED = 6
    ASSOCIATE_ACCEPT = 7
    ASSOCIATE_REJECT = 8
    P_DATA_REQUEST = 9
    P_DATA_RECEIVED = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_RECEIVED = 12
    RELEASE_RP_RECEIVED = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_RECEIVED = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19

    @property
    def label(self) -> str:
        """The standard's name, such as ``Evt12``."""
        return f"Evt{self.value}"


# The steps that each action consists of (PS3.8 tables 9-6 to 9-9), carried out in this order by Protocol.
ACTIONS: dict[str, tuple[str, ...]] = {
    "AE-1": (),
    "AE-2": ("send_associate",),
    "AE-3": ("indicate_accepted",),
    "AE-4": ("indicate_rejected", "close"),
    "AE-5": ("start_artim",),
    "AE-6": ("stop_artim", "examine_request"),
    "AE-7": ("send_associate", "indicate_accepted"),
    "AE-8": ("send_associate", "indicate_rejected", "start_artim"),
    "DT-1": (),
    "DT-2": (),
    "AR-1": ("send_release_rq",),
    "AR-2": ("indicate_release",),
    "AR-3": ("indicate_released", "close"),
    "AR-4": ("send_release_rp", "indicate_released", "start_artim"),
    "AR-5": ("stop_artim",),
    "AR-6": (),
    "AR-7": (),
    "AR-8": ("indicate_release",),
    "AR-9": ("send_release_rp",),
    "AR-10": ("indicate_release",),
    "AA-1": ("send_abort", "indicate_aborted", "start_artim"),
    "AA-2": ("stop_artim", "indicate_aborted", "close"),
    "AA-3": ("indicate_aborted", "close"),
    "AA-4": ("indicate_aborted",),
    "AA-5": ("stop_artim",),
    "AA-6": (),
    "AA-7": ("send_abort",),
    "AA-8": ("send_abort", "indicate_aborted", "start_artim"),
}

# Table 9-10: a row per event, a column per state Sta1 to Sta13, "action/next state"; a dot is a blank cell.
# AE-6 goes to Sta13 when it refuses the request, AR-8 to Sta9 as requestor and to Sta10 as acceptor.
_TABLE = """
Evt1   AE-1/4 .       .       .      .       .       .         .       .       .        .       .       .
Evt2   .      .       .       AE-2/5 .       .       .         .       .       .        .       .       .
Evt3   .      AA-1/13 AA-8/13 .      AE-3/6  AA-8/13 AA-8/13   AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt4   .      AA-1/13 AA-8/13 .      AE-4/1  AA-8/13 AA-8/13   AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt5   AE-5/2 .       .       .      .       .       .         .       .       .        .       .       .
Evt6   .      AE-6/3  AA-8/13 .      AA-8/13 AA-8/13 AA-8/13   AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-7/13
Evt7   .      .       AE-7/6  .      .       .       .         .       .       .        .       .       .
Evt8   .      .       AE-8/13 .      .       .       .         .       .       .        .       .       .
Evt9   .      .       .       .      .       DT-1/6  .         AR-7/8  .       .        .       .       .
Evt10  .      AA-1/13 AA-8/13 .      AA-8/13 DT-2/6  AR-6/7    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt11  .      .       .       .      .       AR-1/7  .         .       .       .        .       .       .
Evt12  .      AA-1/13 AA-8/13 .      AA-8/13 AR-2/8  AR-8/9    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt13  .      AA-1/13 AA-8/13 .      AA-8/13 AA-8/13 AR-3/1    AA-8/13 AA-8/13 AR-10/12 AR-3/1  AA-8/13 AA-6/13
Evt14  .      .       .       .      .       .       .         AR-4/13 AR-9/11 .        .       AR-4/13 .
Evt15  .      .       AA-1/13 AA-2/1 AA-1/13 AA-1/13 AA-1/13   AA-1/13 AA-1/13 AA-1/13  AA-1/13 AA-1/13 .
Evt16  .      AA-2/1  AA-3/1  .      AA-3/1  AA-3/1  AA-3/1    AA-3/1  AA-3/1  AA-3/1   AA-3/1  AA-3/1  AA-2/1
Evt17  .      AA-5/1  AA-4/1  AA-4/1 AA-4/1  AA-4/1  AA-4/1    AA-4/1  AA-4/1  AA-4/1   AA-4/1  AA-4/1  AR-5/1
Evt18  .      AA-2/1  .       .      .       .       .         .       .       .        .       .       AA-2/1
Evt19  .      AA-1/13 AA-8/13 .      AA-8/13 AA-8/13 AA-8/13   AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-7/13
"""


def _read_table() -> dict[tuple[State, Event], tuple[str, State]]:
    cells: dict[tuple[State, Event], tuple[str, State]] = {}
    for row in _TABLE.strip().splitlines():
        label, *columns = row.split()
        event = Event(int(label.removeprefix("Evt")))
        for state, cell in zip(State, columns, strict=True):
            if cell != ".":
                action, _, following = cell.partition("/")
                cells[state, event] = (action, State(int(following)))
    return cells


TRANSITIONS = _read_table()
"""(state, event) → (action, next state); a pair that is not there is a blank cell of table 9-10."""

ALTERNATIVES = {"AE-6": State.AWAITING_CLOSE, "AR-8": State.COLLISION_ACCEPTOR_RP}
"""The second of the two next states that table 9-10 gives for these actions."""
