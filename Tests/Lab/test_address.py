"""The CLAT's two addresses: how it comes by them, what it says of them on the link, and what becomes of it where others have them."""

import ipaddress
import pathlib
import time

import pytest

import probe
from lab import Lab
from namespace import PATIENCE, wait_until

pytestmark = pytest.mark.agent
SEVEN = [f"192.0.0.{last}" for last in range(1, 8)]


def works(lab):
    return " 1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout


# MARK: duplicate address detection


def test_an_address_that_another_station_has_is_given_up_for_another(lab):
    with probe.Defender(lab.add_host("owner"), "eth0", lab.site.lan, count=1) as owner:
        agent = lab.agent()
        entry = agent.wait_until(
            lambda entry: entry["state"] == "on" and entry["ipv6AddressState"] == "preferred", "an address of its own")
        assert len(owner.claimed) == 1 and entry["ipv6Address"] not in owner.claimed
        assert works(lab)
    assert agent.stop() == 0


def test_after_three_that_others_have_it_says_so(lab):
    """Three distinct ones, each tried once."""
    with probe.Defender(lab.add_host("owner"), "eth0", lab.site.lan) as owner:
        agent = lab.agent()
        entry = agent.wait_until(
            lambda entry: entry["reason"]["code"] == "address-duplicate", "the end of its tries", timeout=40)
        assert entry["state"] == "off" and "3 addresses" in entry["reason"]["sentence"]
        time.sleep(2)
        assert len(set(owner.claimed)) == len(owner.claimed) == 3
    assert agent.stop() == 0


@pytest.mark.skipif(not pathlib.Path("/proc/sys/net/ipv6/conf/all/optimistic_dad").exists(), reason="no optimistic DAD in this kernel")
def test_ipv4_does_not_wait_for_the_end_of_dad(figure):
    """Optimistic DAD (RFC 4429): from a router's first word on."""
    with Lab(advertise=False) as lab:
        agent = lab.agent()
        wait_until(agent.interface, what="the agent")
        router = lab.site.router
        is_on = lambda: "clat-eth0" in lab.laptop.run(["ip", "-4", "route"]).stdout
        assert not is_on()
        begun = time.monotonic()
        router.advertiser.advertise(router.advertisement([lab.site.pref64]))
        wait_until(is_on, interval=0.005, what="IPv4")
        taken = time.monotonic() - begun
        figure("IPv4 after a router's first word", f"{taken * 1000:.0f} ms")
        assert taken < 0.9 * PATIENCE, "DAD takes a second"
        assert works(lab)
        assert agent.stop() == 0


def test_the_routers_are_told_once_of_the_address(lab):
    """RFC 9131 section 6.1.2: to all routers, from the address, for itself; neither a router's, nor an answer, nor to override."""
    with lab.capture(lab.switch, "laptop", lambda frame: not frame.outgoing and frame.icmpv6_type == 136) as wire:
        agent = lab.agent()
        own = agent.wait_until(lambda entry: entry["ipv6AddressState"] == "preferred", "the end of DAD")["ipv6Address"]
        told = lambda: [frame for frame in wire.frames if frame.destination == "ff02::2"]
        wait_until(told, what="a Neighbour Advertisement")
        time.sleep(1)
    frame, = told()
    assert frame.source == frame.target == own and frame.hop_limit == 255
    assert frame.payload[4] & 0xE0 == 0, "R, S or O"
    assert frame.payload[24:] == b"\x02\x01" + frame.octets[6:12], "where it is"
    assert agent.stop() == 0


# MARK: 192.0.0.x


def test_where_all_seven_are_taken_it_says_so_and_takes_the_first_that_is_given_up(lab):
    lab.laptop.ip("link add seven type veth peer name eight\n" + "\n".join(f"address add {address}/32 dev seven" for address in SEVEN))
    agent = lab.agent()
    assert agent.wait_for("off")["reason"]["code"] == "ipv4-addresses-taken"
    lab.laptop.ip("address del 192.0.0.4/32 dev seven")
    assert agent.wait_for("on")["ipv4Address"] == "192.0.0.4"
    assert works(lab)
    lab.laptop.ip("address add 192.0.0.4/32 dev seven\naddress del 192.0.0.6/32 dev seven")
    agent.wait_until(lambda entry: entry.get("ipv4Address") == "192.0.0.6", "the one that is free")
    assert works(lab)
    assert agent.stop() == 0


@pytest.mark.parametrize("device", ["eth0", "tun"], ids=["on the interface", "on a TUN"])
def test_another_programs_clat_is_given_way_to(lab, device):
    """As NetworkManager's and networkd's, and as clatd's."""
    agent = lab.agent()
    agent.wait_for("on")
    if device == "tun":
        lab.laptop.ip("tuntap add tun mode tun\nlink set tun up")
    lab.laptop.ip(f"address add 192.0.0.5/32 dev {device}\nroute add default dev {device} metric 2048")
    entry = agent.wait_for("off")
    assert entry["reason"]["code"] == "other-clat" and device in entry["reason"]["sentence"]
    assert "clat-eth0" not in lab.laptop.run(["ip", "-4", "route"]).stdout
    lab.laptop.ip(f"route del default dev {device} metric 2048\naddress del 192.0.0.5/32 dev {device}")
    entry = agent.wait_for("on")
    assert ipaddress.IPv6Address(entry["ipv6Address"]) in lab.site.lan and works(lab)
    assert agent.stop() == 0
