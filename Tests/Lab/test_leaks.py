"""Nothing of the CLAT leaves the uplink: each way in which the kernel would show 192.0.0.x there is forced, and the wire is watched.

The uplink of an IPv6-only network has no IPv4 address, so for what a program forces out of it the kernel takes one of another
device (inet_select_addr), and it answers ARP for all of them. That it would is shown first, on a laptop that has the
address without an agent; else these tests could not fail.
"""

import contextlib
import errno
import ipaddress
import socket
import struct
import time
import types

import pytest

import probe
import snapshot
from lab import DATAPATHS, Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

OURS, DUMMY, STRANGER = "192.0.0.1", "192.0.0.8", "192.0.2.77"
ANSWERED = [ipaddress.IPv4Network("192.0.0.0/29"), ipaddress.IPv4Network("192.0.0.8/32")]
BROADCAST_HARDWARE = b"\xff" * 6
NEIGHBOUR = bytes.fromhex("026400000077")
ETH_P_ARP, ETH_P_IP = 0x0806, 0x0800


def shown(frame):
    """The IPv4 address that a frame shows to the link as its sender's; None where it shows none."""
    if frame.is_arp and len(frame.octets) >= 42:
        return ipaddress.IPv4Address(frame.octets[28:32])
    return ipaddress.IPv4Address(frame.source) if frame.is_ipv4 else None


def is_leak(frame):
    """Whether the laptop shows an address of the CLAT; the switch's port sees what comes from it as incoming."""
    address = shown(frame)
    return not frame.outgoing and address is not None and any(address in network for network in ANSWERED)


@contextlib.contextmanager
def bound(laptop, kind, protocol=0, device="eth0"):
    """A socket that can send by one device only."""
    with laptop.socket(socket.AF_INET, kind, protocol) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.setblocking(False)
        yield made


def index_of(laptop, device="eth0"):
    with laptop.entered():
        return socket.if_nametoindex(device)


def packet(source, destination, protocol, payload, options=b""):
    """An IPv4 packet; the kernel of the sender fills in no more of it."""
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 0, 0, 1, protocol, 0)
    head += ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed + options
    return head[:10] + struct.pack("!H", probe.internet_checksum(head)) + head[12:] + payload


def say(namespace, interface, ethertype, payload, destination=BROADCAST_HARDWARE, source=NEIGHBOUR):
    """Puts a frame on the link."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((interface, 0))
        link.send(destination + source + struct.pack("!H", ethertype) + payload)


def arp(operation, sender, target, hardware_address=NEIGHBOUR):
    """An ARP packet (RFC 826)."""
    return (struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, operation) + hardware_address + ipaddress.IPv4Address(sender).packed
            + b"\0" * 6 + ipaddress.IPv4Address(target).packed)


# MARK: the ways, each to an address of its own, for ARP asks for one only once at a time


def datagram(lab, address=Lab.SERVER):
    with bound(lab.laptop, socket.SOCK_DGRAM) as client:
        client.sendto(b"by force", (address, 53))


def datagram_to_a_link_local_address(lab):
    datagram(lab, "169.254.1.1")


def connection(lab):
    with bound(lab.laptop, socket.SOCK_STREAM) as client:
        assert client.connect_ex((Lab.SERVERS[1], 80)) == errno.EINPROGRESS


def ping(lab):
    message = struct.pack("!BBHHH", 8, 0, 0xF7FE, 1, 0)
    with bound(lab.laptop, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
        client.sendto(message, (Lab.SERVERS[2], 0))


def whole_packet(lab):
    with bound(lab.laptop, socket.SOCK_RAW, socket.IPPROTO_RAW) as client:
        client.sendto(packet(OURS, "224.0.0.251", 17, b"\x14\xe9\x14\xe9\0\x08\0\0"), ("224.0.0.251", 0))


def multicast_dns(lab):
    """As a responder does that takes every device."""
    with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        chosen = struct.pack("=4s4si", b"", b"", index_of(lab.laptop))
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, chosen)
        client.sendto(b"mDNS", ("224.0.0.251", 5353))


def service_discovery(lab):
    with bound(lab.laptop, socket.SOCK_DGRAM) as client:
        client.sendto(b"M-SEARCH", ("239.255.255.250", 1900))


def broadcast(lab):
    """As DHCP's, but by a socket that lets the kernel choose the source."""
    with bound(lab.laptop, socket.SOCK_DGRAM) as client:
        client.sendto(b"DISCOVER", ("255.255.255.255", 67))


def group_of_an_old_querier(lab):
    """A report in IGMPv2, which a querier of that version gets (RFC 3376 section 7.2.1)."""
    with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        group = struct.pack("=4s4si", socket.inet_aton("239.1.2.3"), b"", index_of(lab.laptop))
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        # A general query, to be answered within 100 ms, with Router Alert.
        query = struct.pack("!BBHI", 0x11, 1, 0, 0)
        query = query[:2] + struct.pack("!H", probe.internet_checksum(query)) + query[4:]
        all_hosts = bytes.fromhex("01005e000001")
        say(lab.site.router.namespace, "lan", ETH_P_IP, packet(STRANGER, "224.0.0.1", 2, query, b"\x94\x04\0\0"), all_hosts)
        settle(lab, 0.4)


def arp_request(lab):
    """Somebody asks for the address."""
    say(lab.site.router.namespace, "lan", ETH_P_ARP, arp(1, STRANGER, OURS))


def arp_probe(lab):
    """Somebody wants to have the address (RFC 5227)."""
    say(lab.site.router.namespace, "lan", ETH_P_ARP, arp(1, "0.0.0.0", OURS))


def arp_announcement(lab):
    """A program of the laptop tells of the address."""
    own = bytes.fromhex(Lab.LAPTOP_HARDWARE_ADDRESS.replace(":", ""))
    with contextlib.suppress(OSError):  # a packet socket is told that it was dropped
        say(lab.laptop, "eth0", ETH_P_ARP, arp(1, OURS, OURS, own), source=own)


WAYS = [datagram, datagram_to_a_link_local_address, connection, ping, whole_packet, multicast_dns, service_discovery, broadcast,
        group_of_an_old_querier, arp_request, arp_probe, arp_announcement]


def settle(lab, seconds=0.0):
    """Waits until the capture has seen all that the laptop has sent so far: an IPv6 ping comes after it."""
    time.sleep(seconds)
    lab.laptop.run(["ping", "-n", "-c1", "-W5", lab.site.router.address], check=True)


@contextlib.contextmanager
def wire(lab):
    """What the laptop sends meanwhile."""
    with lab.capture(lab.switch, "laptop", lambda frame: not frame.outgoing) as capture:
        yield capture
        marks = sum(frame.icmpv6_type == 128 for frame in capture.frames)
        settle(lab)
        wait_until(lambda: sum(frame.icmpv6_type == 128 for frame in capture.frames) > marks, what="the mark")


def has_tcx(entry):
    """Whether the kernel has tcx, and lets the agent use it: then the guard is eBPF, else nftables."""
    return "on tcx" in entry["datapath"]["detail"]


@pytest.fixture(scope="module")
def bare():
    """A laptop that has the address, and nobody who guards the uplink."""
    with Lab() as lab:
        lab.laptop.ip(f"""
            link add clat0 type veth peer name clat1
            link set clat0 up
            link set clat1 up
            address add {OURS}/32 dev clat0
            route add default dev clat0
        """)
        yield lab


@pytest.fixture(scope="module", params=DATAPATHS)
def up(request):
    """A laptop with IPv4 through the agent."""
    with Lab() as lab:
        agent = lab.agent(datapath=request.param)
        entry = agent.wait_for("on")
        assert entry["ipv4Address"] == OURS
        yield types.SimpleNamespace(lab=lab, agent=agent, entry=entry)
        print(agent.log)
        assert agent.stop() == 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_without_a_guard_the_kernel_would_show_the_address(bare, way):
    with wire(bare) as seen:
        way(bare)
    assert any(is_leak(frame) for frame in seen.frames), [str(frame) for frame in seen.frames]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_shows_the_address(up, way):
    before = up.agent.interface()["counters"].get("leaks-stopped")
    with wire(up.lab) as seen:
        way(up.lab)
    leaks = [shown(frame) for frame in seen.frames if is_leak(frame)]
    assert leaks == []
    if before is not None:
        assert up.agent.interface()["counters"]["leaks-stopped"] > before, "nothing was forced out"
    assert (before is not None) == has_tcx(up.entry), "eBPF counts, nftables does not"


def test_what_is_multicast_by_the_clats_own_device_goes_nowhere(up):
    """As responders of mDNS do that see a device with an address: neither as IPv4 nor translated."""
    with wire(up.lab) as seen:
        with bound(up.lab.laptop, socket.SOCK_DGRAM, device="clat-eth0") as client:
            for address in ("224.0.0.251", "239.255.255.250", "224.0.1.1", "255.255.255.255"):
                client.sendto(b"anybody?", (address, 5353))
        with up.lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
            group = struct.pack("=4s4si", socket.inet_aton("239.1.2.3"), b"", index_of(up.lab.laptop, "clat-eth0"))
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    assert [str(frame) for frame in seen.frames if shown(frame) is not None] == []
    translated = [frame for frame in seen.frames if frame.source == up.entry["ipv6Address"]]
    assert [str(frame) for frame in translated if frame.icmpv6_type not in (135, 136, 143)] == []


def test_nobody_answers_arp_at_the_clats_own_link(up):
    """Its hardware address may be another than the uplink's (macvlan)."""
    answers = lambda frame: frame.is_arp and not frame.outgoing
    with up.lab.capture(up.lab.switch, "laptop", answers) as seen:
        for target in (OURS, DUMMY, "192.0.0.2", "127.0.0.1"):
            for sender in ("0.0.0.0", STRANGER, "192.0.0.2"):
                say(up.lab.site.router.namespace, "lan", ETH_P_ARP, arp(1, sender, target))
        settle(up.lab)
    assert [frame.octets.hex() for frame in seen.frames] == []


def test_native_ipv4_that_arrives_shows_nothing_of_a_connection_that_was(lab):
    """Its route wins at once, and what a socket of the CLAT's address sends in the meantime would go by it."""
    lab.site.router.namespace.ip("address add 10.77.0.1/24 dev lan")
    agent = lab.agent()
    agent.wait_for("on")
    with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, wire(lab) as seen:
        client.connect((Lab.SERVER, 7))
        client.setblocking(False)
        def chatter():
            with contextlib.suppress(OSError):
                client.send(b"still here")
            return "10.77" in lab.laptop.run(["ip", "-4", "route"]).stdout and agent.interface()["state"] == "off"
        lab.laptop.ip("address add 10.77.0.2/24 dev eth0\nroute add default via 10.77.0.1 metric 1")
        wait_until(chatter, interval=0.001, what="the CLAT to stand down")
        assert agent.interface()["reason"]["code"] == "native-ipv4"
        lab.laptop.run(["ping", "-n", "-c1", "-W5", "10.77.0.1"], check=True)
    assert [str(frame) for frame in seen.frames if is_leak(frame)] == []
    assert any(shown(frame) == ipaddress.IPv4Address("10.77.0.2") for frame in seen.frames), "native IPv4 is not hindered"
    assert agent.stop() == 0


@pytest.mark.parametrize("datapath", sorted({DATAPATHS[0], DATAPATHS[-1]}))
def test_what_another_programs_clat_sends_is_let_through(lab, datapath):
    """NetworkManager's has an address of the same seven on the uplink itself, and translates behind where the guard stands."""
    agent = lab.agent(datapath=datapath)
    agent.wait_for("on")
    lab.laptop.ip("address add 192.0.0.5/32 dev eth0\nroute add default dev eth0 metric 100")
    assert agent.wait_for("off")["reason"]["code"] == "other-clat"
    with wire(lab) as seen:
        datagram(lab)
    assert any(shown(frame) == ipaddress.IPv4Address("192.0.0.5") for frame in seen.frames), [str(frame) for frame in seen.frames]
    # And what is its own is guarded again.
    lab.laptop.ip("route del default dev eth0 metric 100\naddress del 192.0.0.5/32 dev eth0")
    agent.wait_for("on")
    with wire(lab) as seen:
        multicast_dns(lab)
    assert not any(is_leak(frame) for frame in seen.frames)
    assert agent.stop() == 0


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize("datapath", sorted({DATAPATHS[0], DATAPATHS[-1]}))
def test_the_guard_goes_with_the_agent(lab, datapath, ending):
    """And what was there of the firewall and of queueing disciplines is there the whole time."""
    lab.laptop.run(["nft", "add", "table", "ip", "mine"], check=True)
    before = snapshot.take(lab.laptop)
    agent = lab.agent(datapath=datapath)
    entry = agent.wait_for("on")
    tables = lab.laptop.run(["nft", "list", "tables"], check=True).stdout.split("\n")
    assert "table ip mine" in tables
    assert any("netdev clat-agent-" in table for table in tables) == (not has_tcx(entry))
    assert any(line.startswith("tcx eth0 egress") for line in snapshot.take(lab.laptop)) == has_tcx(entry)
    lab.laptop.run(["nft", "flush", "ruleset"])
    with wire(lab) as seen:
        multicast_dns(lab)
    assert not any(is_leak(frame) for frame in seen.frames), "whoever flushes the firewall takes nothing of ours"
    lab.laptop.run(["nft", "add", "table", "ip", "mine"], check=True)
    agent.stop() if ending == "stop" else agent.kill()
    snapshot.wait_for(lab.laptop, before)


# MARK: what must not be hindered


@pytest.mark.parametrize("datapath", sorted({DATAPATHS[0], DATAPATHS[-1]}))
def test_what_others_do_on_the_link_goes_on(lab, datapath):
    """Link-local IPv4 (RFC 3927) with its ARP, and mDNS by IPv6, both ways, with a neighbour."""
    neighbour = lab.add_host("neighbour")
    neighbour.ip("address add 169.254.7.8/16 dev eth0")
    agent = lab.agent(datapath=datapath)
    agent.wait_for("on")
    lab.laptop.ip("address add 169.254.7.7/16 dev eth0")
    # Flag 0x40 is IFA_F_TENTATIVE.
    claimed = lambda line: line.split()[5] == "eth0" and line.startswith("fe80") and not int(line.split()[4], 16) & 0x40
    wait_until(lambda: any(map(claimed, neighbour.read("net/if_inet6").splitlines())), what="the neighbour's own address")
    assert " 2 received" in lab.laptop.run(["ping", "-n", "-c2", "-i0.1", "-W5", "169.254.7.8"]).stdout
    assert " 2 received" in neighbour.run(["ping", "-n", "-c2", "-i0.1", "-W5", "169.254.7.7"]).stdout
    for sender, receiver in ((lab.laptop, neighbour), (neighbour, lab.laptop)):
        with receiver.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one, sender.socket(socket.AF_INET6, socket.SOCK_DGRAM) as two:
            one.settimeout(5)
            group = socket.inet_pton(socket.AF_INET6, "ff02::fb")
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=I", index_of(receiver)))
            one.bind(("::", 5353))
            two.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index_of(sender))
            two.sendto(b"_ipp._tcp.local", ("ff02::fb", 5353))
            assert one.recv(100) == b"_ipp._tcp.local"
    assert agent.wait_for("on")["reason"]["code"] == "running", "a link-local address is no native IPv4"
    assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
    assert agent.stop() == 0
