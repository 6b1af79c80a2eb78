"""A batch over several associations at once: who sends what, and what is to be done when associations fail.

Here it is planned only, for every runtime. Who works by a plan sees to it that it is asked by one at a time.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from rxdicom.errors import (
    ArgumentError,
    AssociationAborted,
    AssociationRejected,
    NoAcceptedContext,
    TimedOut,
)
from rxdicom.log import LOG, words
from rxdicom.pdu_primitives import Builder
from rxdicom.runtimes.batches import Sent, Supply, concerns_one
from rxdicom.runtimes.instances import AHEAD, Context, Instance, Lookahead, Unsendable
from rxdicom.wire.items import AsyncOperationsWindow, UserItem

PAUSES = (0.0, 1.0, 2.0)
"""Seconds before each new association of a worker after it lost one; used up without anything stored, it gives up."""
MOST_WAITING = 64
"""Results that wait for their consumer, before no more is sent."""
_LARGEST_WINDOW = 0xFFFF


def items_for(
    associations: int, window: int, ext_neg: "Iterable[Builder | UserItem] | None"
) -> "list[Builder | UserItem]":
    """The negotiation items of so many associations with such a window. Raises :class:`ArgumentError`."""
    if associations < 1 or not 1 <= window <= _LARGEST_WINDOW:
        raise ArgumentError(
            f"{associations} associations with a window of {window} are not possible; give 1 or more of both"
        )
    return [*(ext_neg or ()), *([AsyncOperationsWindow(window, 1)] if window > 1 else [])]


def result_of(found: Unsendable) -> Sent | None:
    """What becomes of something that cannot be sent: nothing, where it just lies in a folder."""
    return Sent(found.given, error=found.error) if found.is_failure else None


def refusal(instance: Instance, error: NoAcceptedContext) -> Sent:
    """What becomes of an instance whose context the peer does not accept."""
    syntax = instance.transfer_syntax_uid
    wanted = f"{instance.sop_class_uid}{f' in transfer syntax {syntax}' if syntax else ''}"
    return Sent(instance.given, error=NoAcceptedContext(wanted, error.proposed))


class Plan:
    """What is still to be sent, by how many workers, and how it ends. Each of them has one association at a time.

    Whatever looks at the queue raises what ``instances`` raises.
    """

    def __init__(
        self,
        instances: Iterator[Instance],
        workers: int,
        is_stopped: Callable[[], bool],
        *,
        convert: bool,
        ahead: int = AHEAD,
    ) -> None:
        self._queue = Lookahead(instances, ahead)
        self._is_stopped = is_stopped
        self._convert = convert
        self._working = workers
        self._associated = 0
        """Workers that have an association, and perhaps instances that are not in the queue."""
        self.is_reached = False
        """Whether there ever was an association."""
        self.failure: Exception | None = None
        """Why there is no association."""

    # ---- what is to be sent

    def is_needed(self, number: int) -> bool:
        """Whether there is something for one more worker than ``number``."""
        return not self._is_stopped() and self._queue.holds(number + 1)

    def contexts(self) -> list[Context]:
        """What to propose next; nothing if there is nothing to be sent."""
        return [] if self._is_stopped() else self._queue.contexts(convert=self._convert)

    def has_next(self, contexts: Collection[Context]) -> bool:
        """Whether the next instance can be sent with these contexts."""
        return not self._is_stopped() and self._queue.next_for(contexts) is not None

    def take(self, contexts: Collection[Context], *, alone: bool) -> Instance | None:
        """The next instance, if it fits; one that was sent before only for who sends nothing beside it."""
        instance = None if self._is_stopped() else self._queue.next_for(contexts)
        if instance is None or (instance.attempts and not alone):
            return None
        return self._queue.take()

    # ---- what becomes of associations

    def joined(self) -> None:
        """A worker has an association; :meth:`left` is to follow."""
        self.is_reached = True
        self._associated += 1

    def left(self, again: Sequence[Instance]) -> None:
        """An association is over, after which these instances are to be sent again."""
        self._queue.put_back(again)
        self._associated -= 1

    def note(self, failure: Exception) -> None:
        """Why there is no association: the first time as long as there never was one, and the last time after that."""
        if self.is_reached or self.failure is None:
            self.failure = failure

    def worker_left(self) -> None:
        """One worker less."""
        self._working -= 1

    # ---- the end

    @property
    def has_association(self) -> bool:
        """Whether a worker has one."""
        return self._associated > 0

    def is_done(self) -> bool:
        """Whether nothing more is going to be sent."""
        if self._associated:
            return False
        return not self._working or self._is_stopped() or self._queue.first() is None

    def is_unreachable(self) -> bool:
        """Once it is done: whether something was to be sent, and there never was an association."""
        return not (self.failure is None or self.is_reached or self._is_stopped() or self._queue.first() is None)

    def give_up_one(self) -> Sent | None:
        """Once it is done: account for one in the queue; where it was stopped, for one that was on its way before."""
        queue, failure = self._queue, self.failure
        if failure is None:
            return None
        instance = queue.first_again() if self._is_stopped() else queue.first()
        if instance is None:
            return None
        queue.take()
        return Sent(instance.given, error=failure, attempts=instance.attempts)


@frozen
class _NextOnes:
    """The supply of one association."""

    instances: Iterator[Any]
    wants: Callable[[Any], bool]

    def __iter__(self) -> Iterator[Any]:
        return self.instances


class Course:
    """How one worker fares, with one association after the other."""

    def __init__(self) -> None:
        self._flying: list[Instance] = []
        """On their way, or lost with the association."""
        self._unsent: list[Instance] = []
        """Asked for, and then not sent."""
        self.failed: Exception | None = None
        """Why the association is lost."""
        self._losses = 0
        """One after the other, with nothing stored between."""
        self.is_admitted = False
        """Whether it ever had an association."""

    def next_ones(self, take: Callable[[bool], Instance | None], is_stopped: Callable[[], bool]) -> Supply:
        """What can be on its way side by side: what has not been sent before, or one instance that has.

        With others beside it, they would be blamed for its loss, or it for that of others. ``take`` gives the next one,
        if there is one for who is, or is not, alone.
        """
        return _NextOnes(self._next_ones(take), lambda given: self._wants(given, is_stopped()))

    def _next_ones(self, take: Callable[[bool], Instance | None]) -> Iterator[Any]:
        while self.failed is None:
            instance = take(not self._flying)
            if instance is None:
                return
            self._flying.append(instance)
            yield instance.given
            if instance.attempts:
                return

    def _wants(self, given: Any, is_stopped: bool) -> bool:
        if self.failed is None and not is_stopped:
            return True
        self._unsent.append(self._down(given))
        return False

    def _down(self, given: Any) -> Instance:
        """What was given so is not on its way any more."""
        instance = next(each for each in self._flying if each.given is given)
        self._flying.remove(instance)
        return instance

    def landed(self, sent: Sent) -> Sent | None:
        """The result of what was on its way. None if it says that the association is lost, or as good as lost: a peer
        that does not answer would have us wait for each of the others too.
        """
        error = sent.error
        if isinstance(error, TimedOut) or (error is not None and not concerns_one(error)):
            self.failed = self.failed or error
            return None
        instance = self._down(sent.instance)
        if sent.is_stored:
            self._losses = 0
        return evolve(sent, attempts=instance.attempts + 1) if instance.attempts else sent

    def lost(self) -> tuple[list[Instance], list[Sent]]:
        """What was on its way when the association ended: to be sent again, and those of which that was the end."""
        tried = [evolve(each, attempts=each.attempts + 1) for each in self._flying]
        again = [*(each for each in tried if each.attempts == 1), *self._unsent]
        self._flying.clear()
        self._unsent.clear()
        error = self.failed or AssociationAborted()
        return again, [Sent(each.given, error=error, attempts=each.attempts) for each in tried if each.attempts > 1]

    def pause(self, failure: Exception, plan: Plan, pauses: Sequence[float]) -> float | None:
        """Seconds before another association is to be opened; None if no more is."""
        is_refused = isinstance(failure, AssociationRejected) or not plan.is_reached
        if self._losses >= len(pauses) or (is_refused and not self.is_admitted):
            LOG.info("goes on without another association: %s", words(failure))
            return None
        LOG.warning("goes on with a new association: %s", words(failure))
        self._losses += 1
        return pauses[self._losses - 1]
