"""The machine's clock, which only a machine of one's own may set, and what the agent makes of it: sleep, or none.

The machine itself cannot sleep: its root is a 9p share, whose driver does not outlive the suspension of its device. What the agent goes
by is there all the same: the kernel cancels timers of the wall clock when that is set, as resuming does, and CLOCK_BOOTTIME is ahead of
CLOCK_MONOTONIC by the time asleep, which a library below the agent makes longer.
"""

import struct
import subprocess
import time

import pytest

import guest
from namespace import PATIENCE, wait_until

pytestmark = pytest.mark.agent
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static const volatile int64_t *asleep;

__attribute__((constructor)) static void begin(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    asleep = mmap(0, sizeof *asleep, PROT_READ, MAP_SHARED, open(ASLEEP, O_RDONLY | O_CLOEXEC), 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = real(clock, now);
    if (clock == CLOCK_BOOTTIME) now->tv_sec += *asleep;
    return result;
}
"""
ASKED, TOLD = 133, 136


@pytest.fixture
def sleeper(lab):
    """An agent, on for a while, that can be told it was asleep; and what it says on the link."""
    asleep, library = lab.directory / "asleep", lab.directory / "clock.so"
    asleep.write_bytes(bytes(8))
    subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", f"-DASLEEP=\"{asleep}\"", "-o", library, "-ldl"], input=CLOCK, text=True,
                   check=True)
    agent = lab.agent(wrapper=["env", f"LD_PRELOAD={library}"])
    own = agent.wait_until(lambda entry: entry["ipv6AddressState"] == "preferred", "the end of DAD")["ipv6Address"]
    said = lambda frame: not frame.outgoing and frame.icmpv6_type in (ASKED, TOLD) and frame.destination == "ff02::2"
    with lab.capture(lab.switch, "laptop", said) as wire:
        # The announcement of the beginning.
        wait_until(lambda: any(frame.source == own for frame in wire.frames) or agent.interface()["sinceSeconds"] > 5, 20, what="rest")
        time.sleep(PATIENCE)
        wire.frames.clear()

        def resume(seconds):
            asleep.write_bytes(struct.pack("=q", seconds))
            subprocess.run(["date", "-s", "now"], check=True, stdout=subprocess.DEVNULL)
        yield agent, own, wire, resume
    assert agent.stop() == 0, agent.log


def test_the_routers_are_asked_and_the_address_is_announced(lab, sleeper):
    agent, own, wire, resume = sleeper
    resume(2)
    wait_until(lambda: [frame for frame in wire.frames if frame.icmpv6_type == ASKED], what="a Router Solicitation")
    wait_until(lambda: [frame for frame in wire.frames if frame.icmpv6_type == TOLD], what="a Neighbour Advertisement")
    told, = (frame for frame in wire.frames if frame.icmpv6_type == TOLD)
    assert told.source == told.target == own and told.payload[4] & 0xE0 == 0
    assert agent.interface()["state"] == "on"
    assert " 1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W10", lab.SERVER]).stdout


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
