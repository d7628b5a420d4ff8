"""The machine's clock, which only a machine of one's own may set."""

import time

import pytest

import guest

pytestmark = pytest.mark.agent


def test_a_clock_that_is_set_is_no_sleep(lab):
    """The kernel tells of both in the same way; after sleep all routers would be asked."""
    agent = lab.agent()
    agent.wait_for("on")
    time.sleep(5)
    before = lab.site.router.advertiser.log()["solicited"]
    for change in ("+1 hour", "-2 hours", "+1 hour"):
        guest.run("date", "--set", change)
        time.sleep(1)
    assert lab.site.router.advertiser.log()["solicited"] == before
    assert agent.interface()["state"] == "on"
    assert agent.stop() == 0
