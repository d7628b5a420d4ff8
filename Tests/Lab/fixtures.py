"""The lab as fixtures, for its own tests and for those in a virtual machine."""

import pytest

from lab import Lab


def pytest_configure(config):
    config.addinivalue_line("markers", "agent: starts clat-agent")
    config.addinivalue_line("markers", "alone: measures what other tests at the same time would disturb")
    config.addinivalue_line("markers", "long: takes a quarter of a minute or more")


@pytest.fixture
def figure(request):
    """Notes a measured value, to be shown at the end of the run: `figure("outage of a renumbering", "3 ms")`."""
    return lambda what, value: request.node.user_properties.append(("measured", f"{what}: {value}"))


def pytest_terminal_summary(terminalreporter):
    # By the reports, as the test may have run in another process (pytest-xdist).
    reports = [report for kind in terminalreporter.stats.values() for report in kind if getattr(report, "when", None) == "call"]
    lines = [text for report in reports for name, text in report.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
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
