"""What tests with many threads share."""

import sys
from collections.abc import Generator

import pytest


@pytest.fixture
def restless() -> Generator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
