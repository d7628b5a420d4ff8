"""Fixtures of the tests that run in a virtual machine. They change the machine's own network: nowhere else may they run."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Lab"))

pytest.register_assert_rewrite("manager", "guest")

from lab import Lab  # noqa: E402


def pytest_collection_modifyitems():
    if os.environ.get("VM") != "1":
        pytest.exit("these tests run in a virtual machine only: make check-vm", 69)


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
