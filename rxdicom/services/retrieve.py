"""C-GET and C-MOVE (PS3.7 §9.1.3, §9.1.4; PS3.4 Annex C.4.2, C.4.3): C-STORE sub-operations, and their account."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from attrs import evolve, frozen

from rxdicom.events.datasets import encode_failed_list
from rxdicom.events.records import CGet, CMove
from rxdicom.log import words
from rxdicom.services.effects import (
    Call,
    Cancelled,
    Done,
    Open,
    Pull,
    Raised,
    Reply,
    Send,
    Service,
    SubOperation,
    SubStore,
    Value,
)
from rxdicom.services.outcome import (
    CANCEL,
    SUCCESS,
    Outcome,
    Result,
    after_cancel,
    fault,
    response,
    status_of,
)
from rxdicom.status import PENDING, STATUS_SUCCESS, STATUS_WARNING, Status, code_to_category
from rxdicom.wire.encoded import Encoded

UNKNOWN_DESTINATION = 0xA801
ALL_FAILED = 0xA702
SOME_FAILED = 0xB000

_MAX_SUB_OPERATIONS = 0xFFFF
_MAX_NUMBER = 1 << 32  # A much longer one Python refuses to print.
_BAD_NUMBER = {"get": 0xC413, "move": 0xC513}
_TOO_MANY = {"get": 0xC416, "move": 0xC516}
_BAD_FIRST_ITEM = 0xC514
_BAD_DESTINATION = 0xC515
_NOT_PERFORMED = 0x0110


@frozen
class Account:
    """How many sub-operations of one request remain, and how the others ended."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0

    def add(self, status: int) -> "Account":
        """The account after one more sub-operation."""
        left = self.remaining - 1
        category = code_to_category(status)
        if category == STATUS_SUCCESS:
            return evolve(self, remaining=left, completed=self.completed + 1)
        if category == STATUS_WARNING:
            return evolve(self, remaining=left, warning=self.warning + 1)
        return evolve(self, remaining=left, failed=self.failed + 1)

    @property
    def final_status(self) -> int:
        """What all, some or none failed or warned means (PS3.4 tables C.4-2 and C.4-3)."""
        if not (self.failed or self.warning):
            return SUCCESS
        return SOME_FAILED if self.completed or self.warning else ALL_FAILED

    def elements(self, *, with_remaining: bool) -> dict[str, int]:
        """The counters as command elements; the number of remaining ones only goes with Pending and Cancel."""
        counters = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": self.failed,
            "NumberOfWarningSuboperations": self.warning,
        }
        return {"NumberOfRemainingSuboperations": self.remaining, **counters} if with_remaining else counters


def get(event: CGet) -> Service[Result]:
    """Answer a C-GET: the handler yields the number of sub-operations, then pairs of status and instance."""
    reply = yield Call(event)
    if isinstance(reply, Raised):
        return _final(event, fault(event, reply.error))
    number = _number((yield Pull()), event, "get")
    if isinstance(number, Outcome):
        return _final(event, number)
    return (yield from _perform(event, number))


def move(event: CMove) -> Service[Result]:
    """Answer a C-MOVE: the handler yields the destination's address, the number, then pairs of status and instance."""
    reply = yield Call(event)
    if isinstance(reply, Raised):
        return _final(event, fault(event, reply.error))
    destination = _destination((yield Pull()), event)
    if isinstance(destination, Outcome):
        return _final(event, destination)
    number = _number((yield Pull()), event, "move")
    if isinstance(number, Outcome):
        return _final(event, number)
    if number:
        opened = yield destination
        if isinstance(opened, Raised):
            # None has been tried, all have failed.
            account = Account(failed=number)
            why = f"the destination cannot be reached: {words(opened.error)}"
            return _final(event, Outcome(ALL_FAILED, fault=why), account)
    return (yield from _perform(event, number))


def _perform(event: CGet | CMove, number: int) -> Service[Result]:
    account = Account(remaining=number)
    failures: list[SubOperation] = []
    while account.remaining:
        match (yield Pull()):
            case Raised(error):
                return _final(event, fault(event, error), account, failures)
            case Cancelled(item):
                # That the rest is missing is no fault then.
                ended = evolve(_accounted(after_cancel(item), account), fault="")
                return _final(event, ended, account, failures)
            case Done() | None:
                return _final(event, _complete(account), account, failures)
            case Value(item):
                ended = _ended(item, account)
                if ended is not None:
                    return _final(event, ended, account, failures)
        stored = yield SubStore(item[1])
        performed = stored.value if isinstance(stored, Value) else SubOperation(_NOT_PERFORMED)
        before, account = account, account.add(performed.status)
        if account.failed > before.failed:
            failures.append(performed)
        pending = Outcome(0xFF00, account.elements(with_remaining=True))
        yield Send(response(event.request, pending))
    return _final(event, _complete(account), account, failures)


def _complete(account: Account) -> Outcome:
    """The outcome once the handler has no more to give: it follows from what was sent, however much was announced."""
    given = account.completed + account.failed + account.warning
    missing = f"the handler announced {given + account.remaining} sub-operations and gave {given}"
    return Outcome(account.final_status, fault=missing if account.remaining else "")


def _ended(item: Any, account: Account) -> Outcome | None:
    """The final outcome, if an item means that."""
    outcome = status_of(item)
    return None if outcome.code in PENDING else _accounted(outcome, account)


def _accounted(outcome: Outcome, account: Account) -> Outcome:
    """A success is what the account says, whatever the handler thinks; its other final statuses stand."""
    return evolve(_complete(account), elements=outcome.elements) if outcome.code == SUCCESS else outcome


def _number(reply: Reply, event: CGet | CMove, operation: str) -> int | Outcome:
    """The number of sub-operations, or the final outcome."""
    early = _early(reply, event)
    if early is not None:
        return early
    value = reply.value if isinstance(reply, Value) else None
    if isinstance(value, bool | Status) or not isinstance(value, int) or value < 0:
        shown = "a negative number" if type(value) is int else type(value).__name__
        return Outcome(_BAD_NUMBER[operation], fault=f"the handler gave {shown} as the number of sub-operations")
    if value > _MAX_SUB_OPERATIONS:
        return Outcome(_TOO_MANY[operation], fault="the handler announced more than 65535 sub-operations")
    return value


def _destination(reply: Reply, event: CMove) -> Open | Outcome:
    """The destination, or the final outcome."""
    value = reply.value if isinstance(reply, Value) else None
    address = _address(value)
    if address is not None:
        return address
    early = _early(reply, event)
    if early is not None:
        return early
    match value:
        case (None, None) | (None, None, _):
            return Outcome(UNKNOWN_DESTINATION)
        case (_, _) | (_, _, _):
            return Outcome(_BAD_DESTINATION, fault=f"the handler gave ({_shown(value)}) as the destination")
        case _:
            why = f"the handler gave {_shown(value)} instead of the destination's address"
            return Outcome(_BAD_FIRST_ITEM, fault=why)


def _address(value: Any) -> Open | None:
    match value:
        case (str() as host, int() as port):
            options: Mapping[str, Any] = {}
        case (str() as host, int() as port, Mapping()):
            options = cast("Mapping[str, Any]", value[2])
        case _:
            return None
    return Open(host, port, options) if host and 0 < port < 65536 and not isinstance(port, bool) else None


def _early(reply: Reply, event: CGet | CMove) -> Outcome | None:
    """The final outcome that a reply before the first sub-operation means, if it means one."""
    match reply:
        case Raised(error):
            return fault(event, error)
        case Cancelled(item):
            return _instead(item) or Outcome(CANCEL)
        case Value(item):
            return _instead(item)
        case _:
            return None


def _instead(item: Any) -> Outcome | None:
    """The final outcome that an item in the place of the destination or the number means, if it means one."""
    match item:
        case (int(), int() | str()):
            # A destination gone wrong, never the success that a 0 would mean.
            return None
        case _:
            ended = _ended(item, Account())
            return None if ended is None or ended.fault else ended


def _shown(value: Any) -> str:
    """A destination for the log, where the content of a dataset has no place."""
    parts = cast("Sequence[Any]", value) if isinstance(value, tuple | list) else (value,)
    return ", ".join(repr(part) if _is_short(part) else type(part).__name__ for part in parts)


def _is_short(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < _MAX_NUMBER)


def _final(
    event: CGet | CMove, outcome: Outcome, account: Account | None = None, failures: Sequence[SubOperation] = ()
) -> Result:
    """The final response, with the list of what failed if a sub-operation did."""
    if account is None:
        return Result(response(event.request, outcome), outcome.fault)
    counters = account.elements(with_remaining=outcome.code == CANCEL)
    answer = response(
        event.request, evolve(outcome, elements={**outcome.elements, **counters}), _failed_list(event, failures)
    )
    return Result(answer, outcome.fault or _why(failures))


def _failed_list(event: CGet | CMove, failures: Sequence[SubOperation]) -> Encoded | None:
    """Failed SOP Instance UID List of those that are known, and would not spoil the list (some come from a peer)."""
    uids = [each.sop_instance_uid for each in failures]
    usable = [uid for uid in uids if uid and uid.isascii() and "\\" not in uid]
    syntax = event.context.transfer_syntax
    return Encoded(syntax, encode_failed_list(usable, syntax)) if usable else None


def _why(failures: Sequence[SubOperation]) -> str:
    """For the log: how many sub-operations failed, and why the first of them did."""
    if not failures:
        return ""
    first = failures[0]
    return f"{len(failures)} sub-operations failed, the first one: {first.cause or f'status 0x{first.status:04X}'}"
