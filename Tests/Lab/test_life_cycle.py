"""IPv4 through what networks do: other prefixes, other networks, two at once, and an end at any moment. Outages are measured
by requests a millisecond apart; `pytest` shows them at its end."""

import contextlib
import ipaddress
import json
import random
import select
import socket
import struct
import threading
import time

import pytest

import ra
import snapshot
from lab import DATAPATHS, Lab
from namespace import PATIENCE, wait_until
from network import synthesise
from probe import Outage, Transfer, internet_checksum

pytestmark = pytest.mark.agent

NEW_PREFIX = "2001:db8:77::/64"
OTHER_PREF64 = "2001:db8:6464::/96"
# Far above what is measured, for a busy machine; far below what tearing down and building anew would take.
BREATH = 250 * PATIENCE


def whoami(lab, *options):
    """As whom the Internet sees the laptop: the NAT64's address tells which network it was."""
    output = lab.laptop.run(["curl", "-sS", "--max-time", "10", *options, f"http://{Lab.SERVER}/whoami"]).stdout
    return output.split()[0] if output else None


def index_of(lab, device):
    return json.loads(lab.laptop.run(["ip", "-json", "link", "show", "dev", device], check=True).stdout)[0]["ifindex"]


@contextlib.contextmanager
def outages(lab, figure, what):
    """Measures both kinds of flow over what the block does; neither may be out for longer than a breath."""
    with Outage(lab.laptop, Lab.SERVER, connected=True) as old, Outage(lab.laptop, Lab.SERVER, connected=False) as new:
        for flow in (old, new):
            flow.wait_for_answers()
        yield
        for flow in (old, new):
            flow.wait_for_answers(200)
        for flow, name in ((old, "a flow from before"), (new, "new flows")):
            gap, _ = flow.close()
            figure(f"outage of {what}, {name}", flow.words)
            assert gap < BREATH, f"{name} out for {gap:.0f} ms"


# MARK: one network that changes


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_renumbering_breaks_nothing_while_the_old_prefix_is_valid(lab, figure, datapath):
    router, old, to_the_end = lab.site.router, lab.site.lan, datapath == DATAPATHS[0]
    # As long as the meters take; a lifetime that was once long cannot be cut to less than two hours (RFC 4862 section 5.5.3).
    valid = int(8 * PATIENCE)
    if to_the_end:
        short = ra.prefix_information(old, valid=valid + 6, preferred=valid + 6)
        told = [ra.source_link_layer_address(router.hardware_address), ra.mtu(1500), short, ra.pref64(lab.site.pref64)]
        router.advertiser.advertise(ra.RouterAdvertisement(source=router.link_local, options=told))
    agent = lab.agent(datapath=datapath)
    before, device = agent.wait_for("on"), index_of(lab, "clat-eth0")
    agent.wait_until(lambda entry: entry["ipv6AddressState"] == "preferred", "the end of DAD")
    with Transfer(lab.laptop, Lab.SERVER), outages(lab, figure, f"a renumbering ({datapath})"):
        lab.site.renumber(old, NEW_PREFIX, valid=valid)
        after = agent.wait_until(
            lambda entry: entry["state"] == "on" and entry["ipv6Address"] != before["ipv6Address"], "another address")
        assert ipaddress.IPv6Address(after["ipv6Address"]) in ipaddress.IPv6Network(NEW_PREFIX)
        assert after["ipv4Address"] != before["ipv4Address"], "or the flows from before had lost theirs"
    assert index_of(lab, "clat-eth0") == device
    addresses = lambda: lab.laptop.run(["ip", "-4", "-o", "address", "show", "dev", "clat-eth0"], check=True).stdout
    assert f"{before['ipv4Address']}/32" in addresses() and f"{after['ipv4Address']}/32" in addresses()
    if to_the_end:  # Once it is valid no more, nothing is left of it.
        wait_until(lambda: f"{before['ipv4Address']}/32" not in addresses(), 20, what="an end of the old address")
        assert f"{after['ipv4Address']}/32" in addresses() and agent.interface()["state"] == "on"
    assert agent.stop() == 0


def test_a_prefix_that_is_deprecated_before_its_successor_comes_carries_ipv4_until_then(lab, figure):
    """As RFC 6724 rule 3 has it: a deprecated address is better than none."""
    router, old = lab.site.router, lab.site.lan
    agent = lab.agent()
    before = agent.wait_until(lambda entry: entry["state"] == "on" and entry["ipv6AddressState"] == "preferred", "IPv4")
    with Transfer(lab.laptop, Lab.SERVER), outages(lab, figure, "a prefix deprecated 5 s before its successor came"):
        router.advertiser.advertise(ra.RouterAdvertisement(source=router.link_local, options=[
            ra.source_link_layer_address(router.hardware_address), ra.mtu(1500),
            ra.prefix_information(old, preferred=0), ra.pref64(lab.site.pref64)]))
        time.sleep(5)
        entry = agent.interface()
        assert entry["state"] == "on" and entry["ipv6Address"] == before["ipv6Address"], entry
        lab.site.renumber(old, NEW_PREFIX)
        agent.wait_until(
            lambda entry: entry["state"] == "on" and entry["ipv6Address"] != before["ipv6Address"], "another address")
    assert agent.stop() == 0


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_another_pref64_changes_no_link_and_no_address(lab, figure, datapath):
    site, router = lab.site, lab.site.router
    site.add_prefix(OTHER_PREF64, lab.directory)
    agent = lab.agent(datapath=datapath)
    before = agent.wait_for("on")
    # The kernel is in no hurry to say that the device has a carrier.
    wait_until(lambda: "LOWER_UP" in lab.laptop.run(["ip", "link", "show", "dev", "clat-eth0"]).stdout, what="its carrier")
    with outages(lab, figure, f"a change of the PREF64 ({datapath})"):
        unchanged = snapshot.take(lab.laptop)
        options = [ra.pref64(site.pref64, lifetime=0), ra.pref64(OTHER_PREF64)]
        router.advertiser.advertise(router.advertisement(extra=options))
        agent.wait_until(lambda entry: entry.get("pref64") == OTHER_PREF64, "the other prefix")
    after = agent.interface()
    assert [after[key] for key in ("state", "ipv4Address", "ipv6Address")] == ["on", before["ipv4Address"], before["ipv6Address"]]
    assert snapshot.difference(unchanged, snapshot.take(lab.laptop)) == []
    assert agent.stop() == 0


def test_another_router_takes_over(lab, figure):
    """The first one says that it is none any more; connections go on by the second."""
    second = lab.add_router()
    first = lab.site.router
    second.advertiser.advertise(second.advertisement([lab.site.pref64]))
    agent = lab.agent()
    agent.wait_for("on")
    seen = lambda router: lab.capture(router.namespace, "lan", lambda frame: frame.protocol == 17 and not frame.outgoing)
    with Transfer(lab.laptop, Lab.SERVER), outages(lab, figure, "a change of the router"):
        first.advertiser.advertise(first.advertisement(
            lifetime=0, extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
        agent.wait_until(lambda entry: entry.get("pref64Router") == second.link_local, "the other router")
        with seen(first) as at_first, seen(second) as at_second:
            wait_until(lambda: len(at_second.frames) > 50, what="packets by the second router")
        own = agent.interface()["ipv6Address"]
        assert not [frame for frame in at_first.frames[50:] if frame.source == own]
    assert agent.stop() == 0


# MARK: another network


def carry(lab, site):
    """Takes the laptop from where it is to a site's network: the carrier goes, and comes there."""
    lab.switch.ip(f"link set laptop down\nlink set laptop master lan{site.suffix}\nlink set laptop up")


@pytest.fixture
def two_networks(lab):
    """A lab with a second network, whose link nobody is on."""
    other = lab.add_site()
    lab.laptop.ip("link del eth1")
    return lab, other


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_on_another_network_nothing_of_the_old_one_is_left(two_networks, figure, datapath):
    lab, other = two_networks
    agent = lab.agent(datapath=datapath)
    before = agent.wait_for("on")
    old_pref64 = ipaddress.IPv6Network(before["pref64"])
    with Outage(lab.laptop, Lab.SERVER, connected=False) as flow:
        flow.wait_for_answers()
        with lab.capture(lab.switch, "laptop", lambda frame: frame.is_ipv6 and not frame.outgoing) as wire:
            carry(lab, other)
            after = agent.wait_until(
                lambda entry: entry["state"] == "on" and entry.get("pref64") == other.pref64, "IPv4 on the other network")
            flow.wait_for_answers(200)
        flow.close()
        figure(f"outage of roaming to another network ({datapath}), carrier lost and regained at once", flow.words)
    assert ipaddress.IPv6Address(after["ipv6Address"]) in other.lan
    assert whoami(lab) == str(other.wan[1])
    # From the first sign of the new address on.
    arrived = next(index for index, frame in enumerate(wire.frames) if frame.target == after["ipv6Address"])
    stale = [str(frame) for frame in wire.frames[arrived:]
             if frame.source == before["ipv6Address"] or ipaddress.IPv6Address(frame.destination) in old_pref64]
    assert stale == []
    assert agent.stop() == 0


def test_back_on_the_same_network_addresses_are_the_same_and_flows_go_on(lab, figure):
    agent = lab.agent()
    before = agent.wait_for("on")
    with Outage(lab.laptop, Lab.SERVER, connected=True) as flow:
        flow.wait_for_answers()
        lab.switch.ip("link set laptop down")
        agent.wait_for("off")
        lab.switch.ip("link set laptop up")
        after = agent.wait_for("on")
        flow.wait_for_answers(200)
        flow.close()
        figure("outage of a carrier lost and regained, a flow from before", flow.words)
    assert [after[key] for key in ("ipv4Address", "ipv6Address")] == [before[key] for key in ("ipv4Address", "ipv6Address")]
    assert agent.stop() == 0


@contextlib.contextmanager
def datagrams_from_a_server(lab, address, port):
    """As many as a sender of video sends, whether anybody listens or not: they come to the CLAT's address at every moment."""
    router = lab.site.router
    router.namespace.run(["ping", "-c1", "-W5", address], check=True)
    neighbour = router.namespace.run(["ip", "-6", "neighbour", "show", address, "dev", "lan"], check=True).stdout.split()
    hardware = bytes.fromhex(neighbour[neighbour.index("lladdr") + 1].replace(":", ""))
    source, body = synthesise(lab.site.pref64, Lab.SERVER), struct.pack("!HHHH", 7, port, 16, 0) + b"datagram"
    pseudo = b"".join(ipaddress.IPv6Address(text).packed for text in (source, address)) + struct.pack("!II", len(body), 17)
    body = body[:6] + struct.pack("!H", internet_checksum(pseudo + body)) + body[8:]
    packet = struct.pack("!IHBB", 6 << 28, len(body), 17, 60) + pseudo[:32] + body
    closing = threading.Event()
    with router.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("lan", 0))
        def send():
            while not closing.wait(0.0003):
                link.send(hardware + bytes.fromhex(router.hardware_address.replace(":", "")) + b"\x86\xdd" + packet)
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        yield
        closing.set()
        sender.join()


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_a_clat_that_comes_back_refuses_nobodys_flow(lab, datapath):
    """The namespace's own stack knows of no flow, and would end each with a reset or an error: it must never get to see one."""
    agent = lab.agent(datapath=datapath)
    own = agent.wait_for("on")["ipv6Address"]
    refusal = lambda frame: frame.source == own and frame.icmpv6_type == 1
    with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as host, lab.capture(lab.switch, "laptop", refusal) as wire:
        host.bind(("0.0.0.0", 5555))
        host.settimeout(5)
        with datagrams_from_a_server(lab, own, 5555):
            for _ in range(3):
                lab.switch.ip("link set laptop down")
                agent.wait_for("off")
                lab.switch.ip("link set laptop up")
                assert agent.wait_for("on")["ipv6Address"] == own
                while select.select([host], [], [], 0)[0]:
                    host.recv(100)
                assert host.recv(100) == b"datagram", "what is sent does not arrive"
            assert agent.stop() == 0
    assert [str(frame) for frame in wire.frames] == []


# MARK: two networks at once


@pytest.mark.parametrize("conflict", ["equal", "different"])
def test_two_uplinks_rank_as_they_do_natively_and_each_keeps_to_its_own(lab, conflict):
    """The second has the better IPv6 default route, and so the better one of IPv4. It goes, and comes back."""
    lab.laptop.sysctl(ipv6__conf__default__ra_defrtr_metric=100)
    other = lab.add_site(pref64=lab.site.pref64 if conflict == "equal" else None)
    agent = lab.agent(interfaces=("eth0", "eth1"))
    entries = [agent.wait_for("on", name) for name in ("eth0", "eth1")]
    assert [entry["pref64"] for entry in entries] == [lab.site.pref64, other.pref64]
    assert (lab.site.pref64 == other.pref64) == (conflict == "equal")
    assert len({entry["ipv4Address"] for entry in entries}) == 2
    assert [entry["metric"] for entry in entries] == [1025, 101]
    own = [ipaddress.IPv6Address(entry["ipv6Address"]) for entry in entries]
    assert own[0] in lab.site.lan and own[1] in other.lan
    seen_as = [str(lab.site.wan[1]), str(other.wan[1])]

    wires = [lab.capture(site.router.namespace, "lan", lambda frame: frame.protocol == 6 and not frame.outgoing)
             for site in lab.sites]
    assert [whoami(lab, "--interface", f"clat-{name}") for name in ("eth0", "eth1")] == seen_as
    assert whoami(lab) == seen_as[1], "the better one"
    # What was begun on the one that stays is not touched by what becomes of the other.
    with Transfer(lab.laptop, Lab.SERVER, "clat-eth0"):
        lab.switch.ip("link set laptop-1 down")
        assert agent.wait_for("off", "eth1")["reason"]["code"] == "no-carrier"
        assert whoami(lab) == seen_as[0], "the other one"
        lab.switch.ip("link set laptop-1 up")
        agent.wait_for("on", "eth1")
        assert whoami(lab) == seen_as[1]
    for wire, address in zip(wires, own):
        sources = {frame.source for frame in wire.stop()}
        assert sources == {str(address)}, "packets by the wrong router"
    assert agent.stop() == 0


# MARK: the end, at any moment


@pytest.mark.long
def test_killed_at_fifty_moments_it_leaves_nothing(lab):
    before = snapshot.take(lab.laptop)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    agent, killed_on, spans = None, 0, []

    def is_on():
        return "clat-eth0" in lab.laptop.run(["ip", "-4", "route"]).stdout
    for number in range(50):
        begun = time.monotonic()
        agent = lab.agent(again=agent, datapath=DATAPATHS[number % len(DATAPATHS)])
        if len(spans) < 3:
            wait_until(is_on, timeout=20, interval=0.002, what="IPv4")
            spans.append(time.monotonic() - begun)
        else:
            # Most moments while it is being set up, in which the danger lies.
            time.sleep(chance.uniform(0, 1.5 * max(spans)))
        killed_on += is_on()
        agent.kill()
        snapshot.wait_for(lab.laptop, before, timeout=10)
    print(f"{killed_on} of 50 times IPv4 was on")
    assert 5 <= killed_on <= 45, "the moments are not spread over beginning and work"
