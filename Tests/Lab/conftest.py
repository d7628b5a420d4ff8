"""What is not tested, and why; the fixtures are in fixtures.py."""

import os

import pytest

import agent
from fixtures import figure, lab, pytest_configure, pytest_terminal_summary, shared_lab  # noqa: F401: pytest finds them here


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
