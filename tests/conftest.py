"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Ctrl-C works in the programs that are tested, also where the tests themselves were started to ignore it.

    A shell that starts something in the background has it, and all that it starts, ignore SIGINT.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
