"""Fixtures of the tests that run in a virtual machine. They change the machine's own network: nowhere else may they run."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Lab"))

pytest.register_assert_rewrite("manager", "guest")

from fixtures import lab, pytest_configure, shared_lab  # noqa: E402, F401: pytest finds them here


def pytest_collection_modifyitems():
    if os.environ.get("VM") != "1":
        pytest.exit("these tests run in a virtual machine only: make check-vm", 69)
