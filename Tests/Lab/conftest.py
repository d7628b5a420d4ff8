"""Fixtures of the tests that need the lab."""

import os

import pytest

import agent
from lab import Lab


def pytest_collection_modifyitems(items):
    """Says what is not tested for want of root or of the built agent; CLAT_REQUIRE_AGENT=1 makes both a failure."""
    if os.environ.get("CLAT_REQUIRE_AGENT") == "1":
        return
    no_root = pytest.mark.skip(reason="needs root, or unshare --user --map-root-user --net --mount")
    no_agent = pytest.mark.skip(reason=f"no agent: {agent.binary()} is not built")
    for item in items:
        if os.geteuid() != 0:
            item.add_marker(no_root)
        elif item.get_closest_marker("agent") and not agent.binary().exists():
            item.add_marker(no_agent)


def pytest_configure(config):
    config.addinivalue_line("markers", "agent: starts clat-agent")


_figures = []


@pytest.fixture
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
