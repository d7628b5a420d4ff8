"""What is not tested, and why, and what is tested together; the fixtures are in fixtures.py."""

import os

import pytest

import agent
from fixtures import figure, lab, pytest_configure, pytest_terminal_summary, shared_lab  # noqa: F401: pytest finds them here


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With pytest-xdist (`-n 4 --dist loadgroup`) tests that share a laboratory go to one process, and what takes long begins first. Says what is
    not tested for want of root or of the built agent; CLAT_REQUIRE_AGENT=1 makes both a failure."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs
        shared = [name for name in item.fixturenames if name in fixtures and fixtures[name][-1].scope == "module"]
        if shared:
            indices = item.callspec.indices if hasattr(item, "callspec") else {}
            group = [item.path.stem, *(f"{name}{indices.get(name, '')}" for name in sorted(shared))]
            item.add_marker(pytest.mark.xdist_group("-".join(group)))
    if os.environ.get("CLAT_REQUIRE_AGENT") == "1":
        return
    no_root = pytest.mark.skip(reason="needs root, or unshare --user --map-root-user --net --mount")
    no_agent = pytest.mark.skip(reason=f"no agent: {agent.binary()} is not built")
    for item in items:
        if os.geteuid() != 0:
            item.add_marker(no_root)
        elif item.get_closest_marker("agent") and not agent.binary().exists():
            item.add_marker(no_agent)
