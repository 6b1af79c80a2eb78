"""Plays a documented example on a thread of its own, where it finds its peer, its files and its readers' own code."""

import doctest
import inspect
import logging
import os
import queue
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from rxdicom import AssociationServer
from tests.interop.documented.pages import imported_from
from tests.support import DEADLINE

PORTS = (11112, 11113, 11120)
"""The ports that the examples name; each play has others of its own."""
DIRECTORY = "/path/to/directory"
"""Where the examples look for the instances that they know."""

_LOGGERS = ("rxdicom", "pynetdicom")
_STATUS = re.compile(r"0x([0-9a-fA-F]{4})\b")


def port_of(server: Any) -> int:
    """Where a server of either stack listens."""
    return (server.address if isinstance(server, AssociationServer) else server.server_address)[1]


def _registrations() -> Callable[[], None]:
    """Makes the function that has pynetdicom forget the SOP classes that are registered from now on."""
    names = vars(import_module("pynetdicom.sop_class"))
    known = set(names)
    groups: list[tuple[dict[str, str], dict[str, str]]] = [
        (group, dict(group)) for group in names["_SERVICE_TO_UID_GROUP"].values()
    ]

    def forget() -> None:
        for group, kept in groups:
            group.clear()
            group.update(kept)
        for name in names.keys() - known:
            del names[name]

    return forget


class Spy:
    """A handler that notes its calls; it equals the example's own one, so that this can be unbound."""

    def __init__(self, handler: Callable[..., Any], calls: list[str]) -> None:
        self._handler = handler
        self._calls = calls

    def __call__(self, *args: Any) -> Any:
        self._calls.append(self._handler.__name__)
        return self._handler(*args)

    def __eq__(self, other: object) -> bool:
        return other is self._handler or other is self

    def __hash__(self) -> int:
        return hash(self._handler)


class Messages(logging.Handler):
    """What is logged, as text."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self._messages.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str) -> bool:
        """Whether a message with this text has come, or comes in time."""
        with self._changed:
            return self._changed.wait_for(lambda: any(text in each for each in self._messages), DEADLINE)


class Outputs(doctest.OutputChecker):
    """Collects what each line of an interactive example shows."""

    def __init__(self) -> None:
        self.outputs: list[str] = []

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        self.outputs.append(got)
        return True


@frozen
class Listener:
    """A server that an example started: the host that it names, and the port that it got."""

    host: str
    port: int
    server: Any

    def shut_down(self) -> None:
        # pynetdicom's raises this when it has been shut down before.
        with suppress(ValueError):
            self.server.shutdown()


class Play:
    """One example on one stack (``rxdicom`` or ``pynetdicom``), on a thread of its own, with what came of it.

    It finds its peer at the documented port, its own servers get free ports, its long sleeps last until the test
    says so, and the folder in which it runs is a new one.
    """

    def __init__(self, package: str, folder: Path) -> None:
        self.package = package
        self.stack: Any = import_module(package)
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__", "print": self._print}
        """The example's global names; what it leaves to its reader to define can be put in before."""
        self.peers: dict[int, int] = {}
        """The port where the peer listens, for each documented one."""
        self.calls: list[str] = []
        """The names of the example's handlers, in the order in which they were called."""
        self.associations: list[Any] = []
        self.listeners: list[Listener] = []
        self.error: BaseException | None = None
        self.printed = ""
        self._patch = pytest.MonkeyPatch()
        self._listening: queue.Queue[Listener | None] = queue.Queue()
        self._sleeping: queue.Queue[bool] = queue.Queue()
        self._awake: queue.Queue[bool] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._log = Messages()
        self._loggers = [(logger, logger.level, logger.handlers[:]) for logger in map(logging.getLogger, _LOGGERS)]
        for logger, _, _ in self._loggers:
            logger.setLevel(logging.INFO)
        # At the root, because debug_logger() replaces the handlers of its own logger.
        logging.getLogger().addHandler(self._log)
        self._forget = _registrations()
        self._patch.setattr(vars(import_module("rxdicom.sop_class"))["_REGISTRY"], "entries", {})
        self._intervene()

    @property
    def statuses(self) -> list[int]:
        """The status codes that the example printed."""
        return [int(code, 16) for code in _STATUS.findall(self.printed)]

    def logs(self, text: str) -> bool:
        """Whether a message with this text has been logged, or is in time."""
        return self._log.wait_for(text)

    def provide(self, module: types.ModuleType) -> None:
        """Something of the reader's that the example imports."""
        self._patch.setitem(sys.modules, module.__name__, module)

    def run(self, *blocks: str) -> None:
        """Play the example, written in these blocks, to its end. Raises what it raises."""
        self.begin(*blocks)
        self.end()
        if self.error is not None:
            raise self.error

    def begin(self, *blocks: str) -> None:
        """Start playing. Raises what compiling raises."""
        code = compile(imported_from(self.package, "\n".join(blocks)), "<example>", "exec")

        def play() -> None:
            try:
                exec(code, self.names)
            except BaseException as error:  # noqa: BLE001 - the test says which error it expects
                self.error = error
            finally:
                self._listening.put(None)
                self._sleeping.put(False)

        self._thread = threading.Thread(target=play, name="example", daemon=True)
        self._thread.start()

    def talk(self, text: str) -> list[str]:
        """Play an interactive example here and now; returns what its lines show. Raises what one of them raises."""
        test = doctest.DocTestParser().get_doctest(imported_from(self.package, text), self.names, "example", None, None)
        checker = Outputs()
        try:
            doctest.DebugRunner(checker).run(test, clear_globs=False)
        except doctest.UnexpectedException as error:
            raise error.exc_info[1] from None
        finally:
            self.names |= test.globs
        return checker.outputs

    def listener(self) -> Listener:
        """The next server that the example starts."""
        found = self._listening.get(timeout=DEADLINE)
        assert found is not None, f"the example ended without another server: {self.error!r}"
        return found

    def sleeps(self) -> bool:
        """Wait until the example sleeps; False if it ended instead."""
        return self._sleeping.get(timeout=DEADLINE)

    def wake(self) -> None:
        self._awake.put(True)

    def end(self) -> None:
        """Wait until the example is over."""
        assert self._thread is not None
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"the example hangs; it printed:\n{self.printed}"

    def close(self) -> None:
        """Shut down what the example left open, and put everything back."""
        try:
            for listener in self.listeners:
                listener.shut_down()
            for assoc in self.associations:
                if assoc.is_established:
                    assoc.abort()
            if self._thread is not None:
                self.end()
        finally:
            self._patch.undo()
            self._forget()
            logging.getLogger().removeHandler(self._log)
            for logger, level, handlers in self._loggers:
                logger.setLevel(level)
                logger.handlers = handlers

    # ---- what is different from the machine of a reader

    def _print(self, *values: object) -> None:
        self.printed += " ".join(map(str, values)) + "\n"

    def _spied(self, handlers: Iterable[Any] | None) -> list[Any] | None:
        return None if handlers is None else [(kind, Spy(each, self.calls), *args) for kind, each, *args in handlers]

    def _intervene(self) -> None:
        kind = self.stack.AE
        associate, make_server, sleep, listdir = kind.associate, kind.make_server, time.sleep, os.listdir

        def associate_with_peer(*args: Any, **options: Any) -> Any:
            call = inspect.signature(associate).bind(*args, **options)
            documented = call.arguments["port"]
            if documented not in PORTS:
                return associate(*args, **options)
            call.arguments["port"] = self.peers[documented]
            call.arguments["evt_handlers"] = self._spied(call.arguments.get("evt_handlers"))
            assoc = associate(*call.args, **call.kwargs)
            self.associations.append(assoc)
            return assoc

        def make_server_elsewhere(*args: Any, **options: Any) -> Any:
            call = inspect.signature(make_server).bind(*args, **options)
            host, documented = call.arguments["address"]
            if documented not in PORTS:
                return make_server(*args, **options)
            call.arguments["address"] = (host, 0)
            call.arguments["evt_handlers"] = self._spied(call.arguments.get("evt_handlers"))
            server = make_server(*call.args, **call.kwargs)
            if self.package == "pynetdicom":
                # It looks twice a second whether it is to shut down.
                server.serve_forever = partial(server.serve_forever, 0.01)
            self.listeners.append(Listener(host, port_of(server), server))
            self.peers[documented] = port_of(server)
            self._listening.put(self.listeners[-1])
            return server

        def sleep_until_woken(seconds: float) -> None:
            if threading.current_thread() is not self._thread or seconds < DEADLINE:
                sleep(seconds)
                return
            self._sleeping.put(True)
            self._awake.get(timeout=DEADLINE)

        def listdir_of_folder(path: str = ".") -> list[str]:
            # Joining an absolute path to a folder gives that path.
            if path != DIRECTORY:
                return listdir(path)
            return [str(each) for each in sorted(self.folder.glob("*.dcm"))]

        self._patch.setattr(kind, "associate", associate_with_peer)
        self._patch.setattr(kind, "make_server", make_server_elsewhere)
        self._patch.setattr(time, "sleep", sleep_until_woken)
        self._patch.setattr(os, "listdir", listdir_of_folder)
        self._patch.chdir(self.folder)
