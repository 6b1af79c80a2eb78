"""What holds for all tests, and what they share."""

import gc
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.certificates import Certificates

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Ctrl-C works in the programs that are tested, also where the tests themselves were started to ignore it.

    A shell that starts something in the background has it, and all that it starts, ignore SIGINT.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector, which many tests call, need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """The certificate of localhost, which is its own authority."""
    from tests.certificates import Certificates

    return Certificates(tmp_path_factory.mktemp("tls"))
