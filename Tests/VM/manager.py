"""What must hold beside any network manager, as tests; test_networkd.py and its siblings bring the manager.

A manager has `name`, `start`, `restart`, `stop`, `manages(interface)`, `hook`, which runs its hook by hand, and `poke(lab)`,
after which it must have run it itself.
"""

import pathlib
import re
import time

import pytest

import guest
from agent import Agent
from lab import Lab
from namespace import wait_until

UPLINK, DEVICE = "up0", "clat-up0"
RUNTIME_DIRECTORY = pathlib.Path("/run/clat-agent")
NEW_PREFIX = "2001:db8:77::/64"


@pytest.fixture(scope="module")
def lab():
    """A lab whose laptop is the machine itself."""
    with Lab() as made:
        made.laptop.ip(f"link set eth0 down\nlink set eth0 netns 1 name {UPLINK}")
        made.laptop.close()
        made.laptop = guest.Machine()
        guest.install_command()
        yield made


def start_agent(lab):
    """An agent where hooks look for it."""
    return Agent(lab.laptop, RUNTIME_DIRECTORY, "--interface", UPLINK, "--log-level", "debug")


@pytest.fixture(scope="module")
def up(lab, manager):
    """The manager works, and the agent, started after it."""
    manager.start()
    agent = start_agent(lab)
    agent.wait_for("on", UPLINK, timeout=60)
    yield agent
    print(agent.log)
    assert agent.stop() == 0


def works(lab, count=2):
    ping = lab.laptop.run(["ping", "-n", f"-c{count}", "-i0.2", "-W5", Lab.SERVER])
    return f" {count} received" in ping.stdout


def hosts_own(lab):
    """Whether the host has an address of its own that came from an advertisement."""
    return any(address.startswith("2001:db8:") for address in guest.addresses(lab.laptop, UPLINK))


def test_an_agent_that_is_there_before_the_manager(lab, manager):
    agent = start_agent(lab)
    try:
        agent.wait_for("off", UPLINK)
        manager.start()
        agent.wait_for("on", UPLINK, timeout=60)
        wait_until(lambda: works(lab), timeout=20, what="IPv4")
    finally:
        assert agent.stop() == 0, agent.log


def test_an_agent_that_comes_after_the_manager(lab, up):
    assert works(lab)


def test_the_manager_and_not_the_kernel_configures_the_uplink(lab, up):
    """As what is tested is to live with that."""
    wait_until(lambda: hosts_own(lab), timeout=30, what="the host's own address")
    with lab.laptop.entered():
        assert pathlib.Path(f"/proc/sys/net/ipv6/conf/{UPLINK}/accept_ra").read_text().strip() == "0"


def test_the_cable_out_and_in_gives_the_same_address(lab, up):
    before = up.wait_for("on", UPLINK)
    lab.switch.ip("link set laptop down")
    assert up.wait_for("off", UPLINK)["reason"]["code"] == "no-carrier"
    time.sleep(2)  # the manager is to notice as well
    lab.switch.ip("link set laptop up")
    after = up.wait_for("on", UPLINK, timeout=40)
    assert after["ipv6Address"] == before["ipv6Address"]
    wait_until(lambda: works(lab), timeout=20, what="IPv4")


def test_down_and_up_by_hand(lab, up):
    said = len(up.log)
    lab.laptop.ip(f"link set {UPLINK} down")
    # Not by its state: some managers have it up again at once.
    wait_until(lambda: f"{UPLINK}: IPv4 is off" in up.log[said:], timeout=20, what="the end of IPv4")
    lab.laptop.ip(f"link set {UPLINK} up")  # some managers were faster
    up.wait_for("on", UPLINK, timeout=60)
    wait_until(lambda: works(lab), timeout=20, what="IPv4")


def test_a_renumbering_is_followed(lab, up):
    up.wait_for("on", UPLINK)
    guest.renumber(lab, lab.site.lan, NEW_PREFIX)

    def followed():
        entry = up.interface(UPLINK)
        return entry and entry["state"] == "on" and entry["ipv6Address"].startswith("2001:db8:77:")
    try:
        wait_until(followed, timeout=20, what="a CLAT address of the new prefix")
        wait_until(lambda: works(lab), timeout=20, what="IPv4")
        wait_until(lambda: any(address.startswith("2001:db8:77:") for address in guest.addresses(lab.laptop, UPLINK)),
                   timeout=20, what="the host's own address of the new prefix")
    finally:
        guest.renumber(lab, NEW_PREFIX, lab.site.lan)
    wait_until(lambda: up.interface(UPLINK)["ipv6Address"].startswith("2001:db8:1:"), timeout=20, what="the old prefix")


def test_a_restart_of_the_manager_is_survived(lab, up, manager):
    before = up.wait_for("on", UPLINK)["ipv6Address"]
    manager.restart()
    time.sleep(3)
    assert up.wait_for("on", UPLINK, timeout=60)["ipv6Address"] == before
    wait_until(lambda: works(lab), timeout=20, what="IPv4")


def test_nobody_touches_what_is_ours(lab, up, manager):
    entry = up.wait_for("on", UPLINK)
    assert not manager.manages(DEVICE)
    addresses = lab.laptop.run(["ip", "-o", "address", "show", "dev", DEVICE], check=True).stdout.splitlines()
    # More than one while flows of a prefix of before still have theirs.
    held = [line.split()[3] for line in addresses]
    assert f"{entry['ipv4Address']}/32" in held and all(re.fullmatch(r"192\.0\.0\.[1-7]/32", one) for one in held), addresses
    routes = lab.laptop.run(["ip", "-4", "route"], check=True).stdout.splitlines()
    assert [line for line in routes if f"dev {DEVICE} " in line] == [line for line in routes if "proto 208" in line], routes
    assert guest.link(lab.laptop, DEVICE)["mtu"] == 1500
    # And the CLAT's own address is nobody else's.
    assert entry["ipv6Address"] not in guest.addresses(lab.laptop, UPLINK)


def test_the_managers_hook_reaches_the_agent(lab, up, manager):
    before = len(guest.calls())
    manager.poke(lab)
    wait_until(lambda: f"renew --quiet {UPLINK} 0" in guest.calls()[before:], timeout=40, what="a call of the hook")
    up.wait_for("on", UPLINK, timeout=60)


def test_the_hook_makes_the_agent_ask_the_routers(lab, up, manager):
    up.wait_for("on", UPLINK)
    before, said = len(lab.site.router.advertiser.log()["solicited"]), len(up.log)
    manager.hook()
    # Others ask as well: that it was the agent, and because of the hook, only it can say.
    wait_until(lambda: re.search("was told to ask its routers anew\n.*the routers are asked", up.log[said:], re.DOTALL),
               what="the agent's word on it")
    wait_until(lambda: len(lab.site.router.advertiser.log()["solicited"]) > before, what="a Router Solicitation")
    assert up.interface(UPLINK)["state"] == "on"


def test_without_an_agent_the_hook_is_harmless(lab, manager):
    """In a runtime directory without an agent: that of the others goes on."""
    aside = RUNTIME_DIRECTORY.with_name("clat-agent.aside")
    RUNTIME_DIRECTORY.rename(aside)
    try:
        begun = time.monotonic()
        manager.hook()
        assert time.monotonic() - begun < 5
    finally:
        aside.rename(RUNTIME_DIRECTORY)
