"""Behind a first-hop switch of the strict kind (see strict_switch.py), where other CLATs lose their IPv4 within the hour."""

import socket
import struct

import pytest

import probe
import ra
from lab import DATAPATHS, Lab
from namespace import wait_until
from strict_switch import StrictSwitch

pytestmark = pytest.mark.agent


@pytest.fixture
def strict():
    """A lab whose laptop is behind such a switch, and does DAD for its own addresses: else it would have none."""
    with Lab() as lab, StrictSwitch(lab) as switch:
        lab.switch_rules = switch
        lab.laptop.sysctl(ipv6__conf__all__accept_dad=1, ipv6__conf__eth0__accept_dad=1)
        # What it had before the switch was there it claims anew.
        lab.laptop.ip("link set eth0 down\nlink set eth0 up")
        wait_until(lambda: lab.host_address() in switch.bindings, what="the laptop's own address")
        wait_until(lambda: reaches(lab, lab.site.router.address), what="the router")
        yield lab
        print(f"bound {list(switch.bindings)}, forgotten {switch.forgotten}, excluded for {switch.excluded_for}, unbound {switch.unbound[-5:]}")


def reaches(lab, address, *options):
    return " 0% packet loss" in lab.laptop.run(["ping", "-n", "-c1", "-W2", *options, address]).stdout


# MARK: that it is strict


def test_it_forgets_who_does_not_answer(strict):
    """And only then: an address that was claimed, but is not there, lasts as long as the questions do."""
    switch, address = strict.switch_rules, "2001:db8:1::dead"
    claim = struct.pack("!BBHI", probe.NEIGHBOUR_SOLICITATION, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, address)
    with strict.laptop.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("eth0", 0))
        own = bytes.fromhex(Lab.LAPTOP_HARDWARE_ADDRESS.replace(":", ""))
        link.send(b"\x33\x33\xff\x00\xde\xad" + own + b"\x86\xdd" + ra.ipv6_packet("::", "ff02::1:ff00:dead", 255, claim))
    wait_until(lambda: address in switch.bindings, what="the claim")
    wait_until(lambda: address in switch.forgotten, 30, what="its end")
    switch.wait(hours=1)
    assert strict.host_address() in switch.bindings and reaches(strict, strict.site.router.address)


def test_an_address_without_duplicate_address_detection_goes_nowhere(strict):
    strict.laptop.ip("address add 2001:db8:1::bad/64 dev eth0 nodad")
    assert not reaches(strict, strict.site.router.address, "-I", "2001:db8:1::bad")
    assert any("2001:db8:1::bad" in frame for frame in strict.switch_rules.unbound)


def test_a_proxys_advertisement_is_not_believed(strict):
    """As it is of those who answer for an address that they do not have: with a source of their own."""
    target = "2001:db8:1::c1a7"
    message = struct.pack("!BBHI", probe.NEIGHBOUR_ADVERTISEMENT, 0, 0, 0x60000000) + socket.inet_pton(socket.AF_INET6, target)
    with strict.laptop.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("eth0", 0))
        own = bytes.fromhex(Lab.LAPTOP_HARDWARE_ADDRESS.replace(":", ""))
        link.send(b"\x33\x33\0\0\0\x01" + own + b"\x86\xdd" + ra.ipv6_packet(strict.host_address(), "ff02::1", 255, message))
    wait_until(lambda: strict.switch_rules.disbelieved, what="the advertisement")
    assert target not in strict.switch_rules.bindings


def test_a_station_that_shows_an_address_of_a_clat_is_excluded(strict):
    assert reaches(strict, strict.site.router.address)
    strict.laptop.ip("address add 192.0.0.1/32 dev eth0")
    with strict.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.sendto(b"leak", ("224.0.0.251", 5353))
    wait_until(lambda: strict.switch_rules.excluded_for == "192.0.0.1", what="the exclusion")
    assert not reaches(strict, strict.site.router.address)


# MARK: and that the agent can live with it


def force_ipv4_out(lab):
    """What makes a station without a guard show an address (test_leaks.py has every way)."""
    with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for address in ("224.0.0.251", "255.255.255.255", Lab.SERVER):
            client.sendto(b"by force", (address, 5353))


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_ipv4_lasts_for_hours(strict, datapath):
    switch, router = strict.switch_rules, strict.site.router.namespace
    agent = strict.agent(datapath=datapath)
    address = agent.wait_for("on")["ipv6Address"]
    wait_until(lambda: address in switch.bindings and reaches(strict, Lab.SERVER), what="the first answer")
    with strict.laptop.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect((Lab.SERVER, 7))
        before = switch.probes
        for hour in range(3):
            switch.wait(hours=1)
            force_ipv4_out(strict)
            word = b"after %d hours" % (hour + 1)
            connection.sendall(word)
            assert connection.recv(100) == word
            assert reaches(strict, Lab.SERVER)
    assert switch.excluded_for is None
    assert address in switch.bindings and address not in switch.forgotten
    assert switch.probes - before >= 3 * 2, "it has asked at least every half hour"
    assert not [frame for frame in switch.unbound if address in frame]
    assert not [frame for frame in switch.disbelieved if address in frame]

    # Whoever asks on the link, and however, gets an answer from the very address.
    for kind in ("multicast", "unicast"):
        router.ip("neighbour flush dev lan")
        if kind == "unicast":
            hardware = switch.bindings[address].hardware_address.hex(":")
            answer = probe.solicit(router, "lan", address, strict.site.router.address, strict.site.router.hardware_address,
                                   to=(address, hardware))
        else:
            answer = probe.solicit(router, "lan", address, strict.site.router.address, strict.site.router.hardware_address)
        assert answer.source == answer.target == address
    ping = router.run(["ping", "-n", "-c2", "-i0.2", "-W5", address])
    assert f"bytes from {address}" in ping.stdout and " 2 received" in ping.stdout
    assert agent.stop() == 0


def test_a_renumbering_is_seen_by_the_switch(strict):
    switch = strict.switch_rules
    agent = strict.agent()
    before = agent.wait_for("on")["ipv6Address"]
    strict.site.renumber(strict.site.lan, "2001:db8:77::/64")
    after = wait_until(
        lambda: (address := agent.interface()["ipv6Address"]) != before and address, what="another address")
    wait_until(lambda: reaches(strict, Lab.SERVER), what="IPv4")
    switch.wait(hours=1)
    assert reaches(strict, Lab.SERVER)
    assert after in switch.bindings and switch.excluded_for is None
    assert agent.stop() == 0
