"""A liar on the same link: what does not get in, and the one thing that a CLAT cannot tell (SECURITY.md)."""

import ipaddress
import socket
import struct
import types

import pytest

import forge
import network
import probe
import ra
from capture import Capture
from lab import DATAPATHS, Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

NEIGHBOUR_ADVERTISEMENT = 136
UNREACHABLE, TOO_BIG, TIME_EXCEEDED, ECHO_REQUEST, ECHO_REPLY = 1, 2, 3, 128, 129


@pytest.fixture(scope="module", params=DATAPATHS)
def attacked(request):
    """IPv4 that works, and a host on the link that sends what it likes to the CLAT's hardware address."""
    with Lab() as lab:
        running = lab.agent(datapath=request.param)
        entry = running.wait_for("on")
        mallory = lab.add_host("mallory")
        # With an ipvlan it is the laptop's, with a macvlan its own.
        wait_until(lambda: "1 received" in mallory.run(["ping", "-c1", "-W1", entry["ipv6Address"]]).stdout, what="a neighbour")
        neighbour = mallory.run(["ip", "-6", "neighbour", "show", "to", entry["ipv6Address"]], check=True).stdout
        with forge.Forger(mallory, "eth0", neighbour.split()[neighbour.split().index("lladdr") + 1]) as forger:
            yield types.SimpleNamespace(
                lab=lab, agent=running, ours=entry["ipv6Address"], ipv4=entry["ipv4Address"], mallory=mallory,
                send=forger.send, server=network.synthesise(lab.site.pref64, Lab.SERVER),
                embed=lambda address: network.synthesise(lab.site.pref64, address), datapath=request.param)
        print(running.log)
        assert running.interface()["state"] == "on" and running.stop() == 0


def got_in(attacked, *packets):
    """The IPv4 packets that the host was given because of these, other than the answer to a ping that goes after them."""
    def incoming(frame):
        return not frame.outgoing and frame.is_ipv4
    pinger = probe.Pinger(attacked.lab.laptop, Lab.SERVER)
    with Capture(attacked.lab.laptop, "clat-eth0", incoming) as seen:
        attacked.send(*packets)
        sequence = pinger.send()
        assert pinger.reply(sequence, 5), "IPv4 still works"
        pinger.close()
        wait_until(lambda: any(frame.source == Lab.SERVER for frame in seen.frames), what="the answer in the capture")
    answer = struct.pack("!H", pinger._identifier)
    return [frame for frame in seen.frames if frame.payload[4:6] != answer or frame.source != Lab.SERVER]


def drops(attacked):
    return {name[5:]: count for name, count in attacked.agent.interface()["counters"].items() if name.startswith("drop-")}


def refused(attacked, reason, *packets):
    """None of these gets in, and each is counted as that."""
    before = drops(attacked).get(reason, 0)
    assert got_in(attacked, *packets) == []
    wait_until(lambda: drops(attacked).get(reason, 0) - before >= len(packets), what=reason)


# Those that the stack of a machine would take for its own, or for everybody.
IMPOSSIBLE = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]


@pytest.mark.parametrize("address", IMPOSSIBLE)
def test_impossible_sources_in_the_prefix(attacked, address):
    source = attacked.embed(address)
    refused(attacked, "source-ipv4-illegal", forge.datagram(source, attacked.ours), forge.segment(source, attacked.ours),
            forge.message(source, attacked.ours, ECHO_REQUEST))


def test_our_own_address_as_source(attacked):
    source = attacked.embed(attacked.ipv4)
    refused(attacked, "source-own", forge.datagram(source, attacked.ours), forge.segment(source, attacked.ours),
            forge.message(source, attacked.ours, ECHO_REPLY))


def test_sources_outside_of_the_prefix(attacked):
    outside = "2001:db8:bad::1"
    assert got_in(attacked, forge.datagram(outside, attacked.ours), forge.segment(outside, attacked.ours),
                  forge.message(outside, attacked.ours, ECHO_REPLY)) == []


def test_other_destinations_than_ours(attacked):
    near = attacked.ours[:-1] + ("1" if attacked.ours[-1] != "1" else "2")
    assert got_in(attacked, *(
        forge.datagram(attacked.server, destination) for destination in
        (near, attacked.lab.host_address(), "ff02::1", "::1", "::ffff:192.0.0.1"))) == []
    attacked.send(forge.datagram(attacked.server, "ff02::1"), everybody=True)
    assert got_in(attacked) == []


def test_a_source_route(attacked):
    assert got_in(attacked, forge.routed(
        attacked.server, attacked.ours, forge.datagram(attacked.server, attacked.ours))) == []


def test_overlapping_fragments_of_an_echo(attacked):
    whole = forge.icmp(attacked.server, attacked.ours, ECHO_REQUEST, data=bytes(range(56)))
    first, *others = forge.fragments(
        attacked.server, attacked.ours, forge.ICMPV6, [(0, whole[:32]), (16, b"\xff" * 32), (48, whole[48:])])
    attacked.send(first)
    # The second overlaps, and with it the whole packet is lost.
    refused(attacked, "reassembly-overlap", *others)


def test_overlapping_fragments_of_a_datagram(attacked):
    """The translator passes fragments on one by one; the host, which puts them together, drops them all (RFC 5722)."""
    whole = forge.udp(attacked.server, attacked.ours, data=b"A" * 56)
    with attacked.lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind((attacked.ipv4, 4464))
        victim.settimeout(0.3)
        got_in(attacked, *forge.fragments(
            attacked.server, attacked.ours, forge.UDP, [(0, whole[:32]), (16, b"\xff" * 32), (48, whole[48:])], 465))
        with pytest.raises(TimeoutError):
            victim.recv(2048)
        # Without the overlap they arrive: it was that which they were dropped for.
        got_in(attacked, *forge.fragments(
            attacked.server, attacked.ours, forge.UDP, [(0, whole[:32]), (32, whole[32:])], 466))
        assert victim.recv(2048) == b"A" * 56


def test_icmp_errors_about_packets_of_others(attacked):
    for source in (attacked.server, attacked.lab.site.router.address, attacked.lab.host_address()):
        foreign = [
            forge.datagram("2001:db8:1::bad", attacked.server),  # not from us
            forge.datagram(attacked.ours, "2001:db8:bad::1"),  # not to the NAT64
            b"\x60" + bytes(20),  # not a packet
        ]
        assert got_in(attacked, *(
            forge.message(source, attacked.ours, kind, data=packet)
            for packet in foreign for kind in (UNREACHABLE, TOO_BIG, TIME_EXCEEDED))) == []


def test_a_packet_too_big_that_no_link_can_mean(attacked):
    about = forge.segment(attacked.ours, attacked.server, ports=(4464, 80))
    assert got_in(attacked, *(
        forge.message(attacked.server, attacked.ours, TOO_BIG, word=mtu, data=about) for mtu in (0, 68, 1279))) == []


def test_icmp_errors_about_flows_we_have_not_or_at_another_place(attacked):
    """They are translated, for a translator knows no flows; the host's TCP does, and its sequence numbers."""
    laptop = attacked.lab.laptop
    with laptop.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((Lab.SERVER, 7))
        port = client.getsockname()[1]
        for ports in ((port, 7), (port ^ 1, 7)):
            about = forge.segment(attacked.ours, attacked.server, ports=ports, sequence=0x12345678, flags=0x10)
            got_in(attacked, forge.message(attacked.server, attacked.ours, UNREACHABLE, code=4, data=about),
                   forge.message(attacked.server, attacked.ours, TOO_BIG, word=1280, data=about))
        client.sendall(b"still here")
        assert client.recv(100) == b"still here"
    # And nobody has learnt a path MTU from them.
    assert "mtu 1260" not in laptop.run(["ip", "-4", "route", "get", Lab.SERVER]).stdout


def test_neighbour_advertisements_for_our_address(attacked):
    """After DAD the address is ours, whoever else says so. (Routers may believe it: those packets are not sent here.)"""
    claim = bytes.fromhex("0201") + b"\x02\x64\0\0\0\xba"
    for destination in (attacked.ours, "ff02::1"):
        for flags in (0x20000000, 0x60000000):
            target = ipaddress.IPv6Address(attacked.ours).packed
            attacked.send(forge.message(attacked.ours, destination, NEIGHBOUR_ADVERTISEMENT, word=flags,
                                        data=target + claim, hop_limit=255))
    assert got_in(attacked) == []
    entry = attacked.agent.interface()
    assert entry["state"] == "on" and entry["ipv6AddressState"] in ("preferred", "optimistic")
    assert entry["ipv6Address"] == attacked.ours


@pytest.mark.parametrize("fields", [{"ip_hop_limit": 64}, {"ip_hop_limit": 254}, {"source": "2001:db8:1::1"}],
                         ids=["hop limit 64", "hop limit 254", "global source"])
def test_advertisements_from_afar_that_take_the_prefix_away(attacked, fields):
    router = attacked.lab.site.router
    lie = router.advertisement(extra=[ra.pref64(attacked.lab.site.pref64, lifetime=0)], lifetime=0, **fields)
    before = sum(attacked.agent.interface()["refusedAdvertisements"].values())
    attacked.send(lie.packet(), everybody=True)
    wait_until(lambda: sum(attacked.agent.interface()["refusedAdvertisements"].values()) > before, what="a refusal")
    assert attacked.agent.interface()["state"] == "on" and got_in(attacked) == []


def test_what_no_translator_can_tell_the_hosts_packet_filter_can(attacked):
    """A forged packet of the NAT64's own is like a true one; the NAT64 lets nobody begin, so the host may refuse those."""
    laptop = attacked.lab.laptop
    with laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind((attacked.ipv4, 4464))
        victim.settimeout(2)
        attacked.send(forge.datagram(attacked.server, attacked.ours))
        assert victim.recv(100) == b"forged"
        laptop.run(["nft", "-f", "-"], check=True, stdin="""
            table ip clat {
                chain input {
                    type filter hook input priority 0
                    iifname "clat-*" ct state established,related accept
                    iifname "clat-*" drop
                }
            }
        """)
        victim.settimeout(0.3)
        assert got_in(attacked, forge.datagram(attacked.server, attacked.ours)), "it comes as far as the device"
        with pytest.raises(TimeoutError):
            victim.recv(100)
        laptop.run(["nft", "delete", "table", "ip", "clat"], check=True)
