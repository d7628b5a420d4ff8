"""Uplinks that an ipvlan cannot be put on: each either carries the CLAT in another way or has its sentence in status."""

import fcntl
import struct

import pytest

import guest
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

PPPIOCNEWUNIT = 0xC004743E  # _IOWR('t', 62, int)


def works(lab):
    return " 2 received" in lab.laptop.run(["ping", "-n", "-c2", "-i0.2", "-W5", Lab.SERVER]).stdout


def wait_for_reason(agent, code, interface="eth0"):
    """The uplink's part of the status, once it is off for that reason."""
    def reached():
        entry = agent.interface(interface)
        return entry if entry and entry["reason"]["code"] == code else None
    entry = wait_until(reached, timeout=20, what=f"{interface}: {code}")
    assert entry["state"] == "off"
    return entry


def test_beside_a_macvlan_it_is_one_too(lab):
    lab.laptop.ip("link add link eth0 name container type macvlan mode bridge")
    agent = lab.agent()
    entry = agent.wait_for("on")
    assert entry["uplinkKind"] == "macvlan" and "macvlan" in entry["uplinkNote"]
    assert works(lab)
    assert agent.stop() == 0


def test_an_uplink_that_somebody_holds_whole_has_its_sentence_and_is_taken_once_free(lab):
    lab.laptop.ip("link add link eth0 name whole type macvlan mode passthru")
    agent = lab.agent()
    sentence = wait_for_reason(agent, "step-failed")["reason"]["sentence"]
    assert "somebody else holds the uplink" in sentence
    lab.laptop.ip("link del whole")
    agent.wait_for("on", timeout=40)
    assert works(lab)
    assert agent.stop() == 0


def test_the_port_of_a_bridge_is_passed_over_for_the_bridge(lab):
    lab.laptop.ip(f"""
        link add br0 address {lab.LAPTOP_HARDWARE_ADDRESS} type bridge
        link set eth0 master br0
        link set br0 up
    """)
    agent = lab.agent(interfaces=())
    assert "bridge" in wait_for_reason(agent, "enslaved")["reason"]["sentence"]
    assert agent.wait_for("on", interface="br0")["uplinkKind"] == "ipvlan"
    assert works(lab)
    assert agent.stop() == 0


def make_wireguard(laptop):
    laptop.ip("link add point type wireguard")


def make_tun(laptop):
    laptop.ip("tuntap add point mode tun")


def make_tunnel(laptop):
    laptop.ip("link add point type ip6tnl remote 2001:db8:1::1 local :: mode any")


def make_ppp(laptop):
    """The unit lives as long as the descriptor."""
    with laptop.entered():
        ppp = open("/dev/ppp", "rb+", buffering=0)
        number = struct.unpack("i", fcntl.ioctl(ppp, PPPIOCNEWUNIT, struct.pack("i", -1)))[0]
    laptop.ip(f"link set ppp{number} name point")
    return ppp


@pytest.mark.parametrize("make, word", [
    (make_wireguard, "wireguard"), (make_tun, "tun"), (make_tunnel, "ip6tnl"), (make_ppp, "ppp"),
], ids=["wireguard", "tun", "ip6tnl", "ppp"])
def test_a_point_to_point_link_has_its_sentence(lab, make, word):
    held = make(lab.laptop)
    lab.laptop.ip("link set point up")
    agent = lab.agent(interfaces=("eth0", "point"))
    sentence = wait_for_reason(agent, "unsuitable-link", "point")["reason"]["sentence"]
    assert word in sentence and "Ethernet" in sentence
    # And the others are served none the less.
    agent.wait_for("on")
    assert agent.stop() == 0
    del held


@pytest.fixture
def no_ipvlan():
    with guest.no_ipvlan():
        yield


def test_without_ipvlan_in_the_kernel_it_is_a_macvlan(lab, no_ipvlan):
    agent = lab.agent()
    entry = agent.wait_for("on")
    assert entry["uplinkKind"] == "macvlan" and "no ipvlan" in entry["uplinkNote"]
    assert works(lab)
    assert agent.stop() == 0
