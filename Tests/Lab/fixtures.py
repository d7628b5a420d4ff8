"""The lab as fixtures, for its own tests and for those in a virtual machine."""

import pytest

from lab import Lab


def pytest_configure(config):
    config.addinivalue_line("markers", "agent: starts clat-agent")


@pytest.fixture
def lab():
    """A lab of the test's own."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab():
    """One lab for the tests of a file, for those that leave it as they found it."""
    with Lab() as made:
        yield made
