"""What the tests against pynetdicom's documentation share."""

from pathlib import Path

import pytest


def pytest_configure() -> None:
    """What goes wrong in the tables is explained as it is in the tests."""
    pytest.register_assert_rewrite("tests.interop.documented")


@pytest.fixture(scope="session")
def pynetdicom_source(pytestconfig: pytest.Config) -> Path:
    """The folder of pynetdicom's source distribution, which has its documentation."""
    from tests.interop.documented.pages import fetch

    assert pytestconfig.cache is not None
    return fetch(pytestconfig.cache.mkdir("pynetdicom"))
