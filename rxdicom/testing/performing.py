"""Performs the requests of the peer on the current thread, one step at a time: what is sent is seen in between."""

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import coroutine
from typing import TYPE_CHECKING, Any

from rxdicom.events.dispatcher import Dispatcher
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.performance import END, Performance
from rxdicom.runtimes.provider import Provider, source_of
from rxdicom.runtimes.sub_operations import Blocking, MoveDestination, Route, SameAssociation, Storing
from rxdicom.services.effects import Open
from rxdicom.services.outcome import Result
from rxdicom.services.provider import ROWS, Row
from rxdicom.wire.dimse import Command, Message

if TYPE_CHECKING:
    from rxdicom.testing.association import MemoryAssociation

Dial = Callable[..., "MemoryAssociation"]


@coroutine
def _pause() -> Generator[None]:
    """Let others have their turn."""
    yield


class SteppedPerformance(Performance):
    """Calls handlers at once; whoever drives it goes on between their items."""

    def __init__(self, handlers: Dispatcher, **options: Any) -> None:
        super().__init__(**options)
        self._handlers = handlers
        self._items: Iterator[Any] | None = None

    async def call(self, event: Any) -> Any:
        return self._handlers.call(event)

    def take_items(self, value: Any) -> None:
        self._items = iter(value)

    async def next_item(self) -> Any:
        await _pause()
        return END if self._items is None else next(self._items, END)

    async def close_items(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()


class Task:
    """A request that is being performed, or whatever else takes steps."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self.is_running = False
        self.is_over = False

    def step(self) -> None:
        """Go on to the next pause."""
        self.is_running = True
        try:
            self._work.send(None)
        except StopIteration:
            self.is_over = True
        finally:
            self.is_running = False

    def close(self) -> None:
        """There is nobody to perform it for: have the handler's ``finally`` run."""
        self.is_over = True
        self._work.close()


class Performer:
    """The provider side of an association: requests in order, as many side by side as the window allows."""

    def __init__(self, assoc: "MemoryAssociation") -> None:
        self._assoc = assoc
        self._provider: Provider[SteppedPerformance] = Provider(assoc)
        self._waiting: deque[Message] = deque()
        self._tasks: list[Task] = []
        self._last: Callable[[], None] | None = None
        self._is_stopped = False

    @property
    def is_current(self) -> bool:
        """Whether a handler of this association is running."""
        return any(each.is_running for each in self._tasks)

    def put(self, request: Message) -> None:
        """Have a request performed when it is its turn."""
        self._provider.expect(request)
        self._waiting.append(request)

    def put_last(self, work: Callable[[], None]) -> None:
        """Have this done once everything else is: at once, if there is nothing else."""
        if self._waiting or self._tasks:
            self._last = work
        else:
            work()

    def cancel(self, request: Message) -> None:
        """C-CANCEL has come."""
        self._provider.cancel(request)

    def step(self) -> bool:
        """Take one step of the work that there is. Whether there was any that could go on.

        While the peer does not read what was sent to it, nothing goes on: else it would pile up.
        """
        if self._assoc.is_sending:
            return False
        window = self._assoc.operations_window[1]
        if self._waiting and (not window or len(self._tasks) < window):
            self._tasks.append(Task(self._perform(self._waiting.popleft())))
        task = next((each for each in self._tasks if not each.is_running), None)
        if task is None:
            return False
        # The others have their turn before it has another.
        self._tasks.remove(task)
        self._tasks.append(task)
        task.step()
        if self._is_stopped and not task.is_over:
            task.close()
        if task.is_over:
            self._tasks.remove(task)
            if self._last is not None and not (self._waiting or self._tasks):
                last, self._last = self._last, None
                last()
        return True

    async def _perform(self, request: Message) -> None:
        answer = self._provider.refusal(request)
        if answer is None:
            answer = await self._performed(ROWS[request.kind], request)
        self._assoc.respond(answer, source_of(answer))

    async def _performed(self, row: Row, request: Message) -> Message:
        performance = SteppedPerformance(
            self._assoc.handlers,
            send=self._send_pending,
            route=self._route(request),
            open_route=self._open_route(request),
        )
        event = self._provider.event(row, request, performance)
        self._provider.begin(request, performance)
        try:
            result: Result = await performance.perform(row, event)
        except Exception as error:  # noqa: BLE001 - exactly one final response, whatever happens
            result = self._provider.failed(event, error)
        finally:
            self._provider.end(request)
        return self._provider.ended(result)

    async def _send_pending(self, answer: Message) -> None:
        self._provider.look_at(answer)
        self._assoc.send_response(answer, source_of(answer))
        await _pause()

    def _route(self, request: Message) -> Route | None:
        if request.kind is not Command.C_GET_RQ:
            return None
        return SameAssociation(Blocking(self._assoc), request.Priority or 0)

    def _open_route(self, request: Message) -> Callable[[Open], Route] | None:
        dial = self._assoc.setup.dial
        if request.kind is not Command.C_MOVE_RQ or dial is None:
            return None
        elements = {
            "priority": request.Priority or 0,
            "originator_aet": self._assoc.requestor.ae_title,
            "originator_id": request.MessageID,
        }

        async def dialled(*args: Any, **options: Any) -> Storing:
            return Blocking(dial(*args, **options))

        def open_route(destination: Open) -> Route:
            called = request.MoveDestination or ""
            return MoveDestination(dialled, destination, called, self._assoc.setup.requested, elements)

        return open_route

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded."""
        instead = self._provider.instead_of(answer, error)
        if instead is None:
            self._assoc.abandon(f"not even a failure can be sent: {error}")
        else:
            self._assoc.respond(instead, None)

    def stop(self) -> None:
        """The association is over: handlers see it in ``is_cancelled``, and end; what was not begun is dropped."""
        self._is_stopped = True
        self._provider.stop()
        while self._waiting:
            forget(self._waiting.popleft().data)
        self._last = None
        for task in tuple(self._tasks):
            if not task.is_running:
                task.close()
                self._tasks.remove(task)
