"""Fixtures of the tests that need the lab."""

import os

import pytest

import agent
from lab import Lab


def pytest_collection_modifyitems(items):
    """Tests that start the agent wait for it to be built, and say so; CLAT_REQUIRE_AGENT=1 makes its absence a failure."""
    if agent.binary().exists() or os.environ.get("CLAT_REQUIRE_AGENT") == "1":
        return
    skip = pytest.mark.skip(reason=f"no agent: {agent.binary()} is not built")
    for item in items:
        if item.get_closest_marker("agent"):
            item.add_marker(skip)


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
