"""The command line, ``rxdicom <program> …``: loads the module of the chosen program only, and ends it in one line."""

import gc
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from rxdicom.apps.console import complain, logging_to_stderr, reason
from rxdicom.apps.options import Parser, add_general_options
from rxdicom.errors import ArgumentError, InvalidFile, RxDicomError

PROGRAMS = {
    "echoscu": ("rxdicom.apps.echoscu", "ask a peer whether it is there (C-ECHO)"),
    "echoscp": ("rxdicom.apps.echoscp", "answer those who ask (C-ECHO)"),
    "storescu": ("rxdicom.apps.storescu", "send files and folders to a peer (C-STORE)"),
    "storescp": ("rxdicom.apps.storescp", "receive into a folder what peers send (C-STORE)"),
    "findscu": ("rxdicom.apps.findscu", "ask a peer what it has (C-FIND)"),
    "getscu": ("rxdicom.apps.getscu", "retrieve from a peer over the same association (C-GET)"),
    "movescu": ("rxdicom.apps.movescu", "have a peer send to another, or to us (C-MOVE)"),
    "watch": ("rxdicom.apps.watch", "show events as they occur: of a server, or of a recording or capture"),
    "trace": ("rxdicom.apps.trace", "draw an association of a recording or capture as a sequence diagram"),
    "demo": ("rxdicom.apps.demo", "see it work: real files sent, watched by an Rx pipeline, verified"),
}
"""The programs by name: the module, and what it does in one line."""

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130


class _Program(Protocol):
    """What the module of a program has."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options and arguments of its own."""
        ...

    def run(self, args: Namespace) -> int:
        """Do the work. Returns the exit code; what it raises of the expected errors is shown in one line."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a program with ``arguments``, by default those of the process.

    Returns the exit code: 0 for success, 1 where something failed, 2 for a wrong use, 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given or given[0] not in PROGRAMS:
            return _overview(given)
        name = given[0]
        module, summary = PROGRAMS[name]
        program = cast(_Program, import_module(module))
        parser = Parser(prog=f"rxdicom {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False)
        program.add_arguments(parser)
        add_general_options(parser)
        return _run(program, name, parser.parse_args(given[1:]))
    except SystemExit as stop:  # how argparse ends --help, --version and a wrong use
        return stop.code if isinstance(stop.code, int) else _USAGE


def script() -> int:
    """:func:`main` as all that its process does.

    What was loaded stays to the end, so that the garbage collector need not look through it: not in the meantime, and
    not when the interpreter ends, which is soon done then.
    """
    gc.disable()
    for name in sys.argv[1:2]:
        if name in PROGRAMS:
            import_module(PROGRAMS[name][0])
    gc.freeze()
    gc.enable()
    try:
        return main()
    finally:
        gc.freeze()


def _overview(given: list[str]) -> int:
    """What there is, for those who named no program."""
    rows = "\n".join(f"  {name:10}{summary}" for name, (_, summary) in PROGRAMS.items())
    parser = Parser(
        prog="rxdicom",
        usage="rxdicom PROGRAM [option …]",
        description=f"The programs of rxdicom:\n\n{rows}",
        epilog="rxdicom PROGRAM --help shows the options of one.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_general_options(parser, verbosity=False)
    if not given:
        parser.print_help(sys.stderr)
        return _USAGE
    parser.parse_known_args(given)
    complain("", f"there is no program {given[0]!r}; there are {', '.join(PROGRAMS)}")
    return _USAGE


def _run(program: _Program, name: str, args: Namespace) -> int:
    with logging_to_stderr(name, args) as log:
        try:
            code = program.run(args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader of our output has gone (head, say); nothing more is to be written, by Python's exit neither.
            sys.stdout = None
            return _FAILED
        except (RxDicomError, OSError) as error:
            log.debug("where it failed:", exc_info=True)
            complain(name, reason(error))
            wrong_use = isinstance(error, ArgumentError) and not isinstance(error, InvalidFile)
            return _USAGE if wrong_use else _FAILED
        except KeyboardInterrupt:
            complain(name, "interrupted")
            return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(script())
