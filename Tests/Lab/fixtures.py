"""The lab as fixtures, for its own tests and for those in a virtual machine."""

import pytest

from lab import Lab


def pytest_configure(config):
    config.addinivalue_line("markers", "agent: starts clat-agent")


_figures = []


@pytest.fixture(scope="session")
def figure():
    """Notes a measured value, to be shown at the end of the run: `figure("outage of a renumbering", "3 ms")`."""
    return lambda what, value: _figures.append(f"{what}: {value}")


def pytest_terminal_summary(terminalreporter):
    if _figures:
        terminalreporter.section("measured")
        for line in _figures:
            terminalreporter.write_line(line)


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
