"""Whatever the devices offload, what arrives is what was sent, and its checksums are right.

A plain veth hides wrong checksums: it tells the receiver that they need not be looked at. So `rx` is off throughout where
packets end, on the laptop's `clat-eth0` and on the server, whose kernels then count each wrong one; and where `tx` is
off too, every frame on the router's link is verified from its octets.
"""

import contextlib
import errno
import hashlib
import ipaddress
import itertools
import pathlib
import signal
import socket
import struct
import threading
import types

import pytest

import network
import probe
import servers
from lab import DATAPATHS, Lab
from namespace import PATIENCE, wait_until

pytestmark = pytest.mark.agent

FEATURES = ("tx", "tso", "gso", "gro")
UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
# The router's own address behind the PREF64: between it and us are no device but those whose offloads are changed.
NEAR = "198.51.100.77"
# Around what a packet holds, what a fragment holds, and many fragments. From 1453 to 1472 octets the answer is a packet
# that is too large for the NAT64's other side, and the server, told so, does not repeat it.
SIZES = [0, 1, 2, 3, 511, 1232, 1233, 1452, 1473, 1474, 2900, 8000]


# Under a /96 the agent's address is checksum-neutral; under a /64 there is none such, and every checksum changes.
CASES = [*itertools.product(DATAPATHS, [96, 64], ["veth"]), *itertools.product(DATAPATHS, [96], ["macvlan"])]


@pytest.fixture(scope="module", params=CASES, ids=lambda value: "-".join(map(str, value)))
def up(request):
    """A lab whose laptop has IPv4, and where wrong checksums show: with each of the data paths, checksums that stay as they
    are or do not, and both kinds of uplink."""
    datapath, length, kind = request.param
    with Lab(pref64=network.PREF64_BY_LENGTH[length], kind=kind) as lab:
        agent = lab.agent(datapath=datapath)
        entry = agent.wait_for("on")
        ethtool(lab.laptop, "clat-eth0", rx="off")
        ethtool(lab.internet, "wan", rx="off")
        devices = [(lab.laptop, "clat-eth0"), (lab.laptop, "eth0"), (lab.site.router.namespace, "lan")]
        if kind == "macvlan":
            devices.append((lab.switch, "wire"))
        yield types.SimpleNamespace(lab=lab, laptop=lab.laptop, agent=agent, entry=entry, devices=devices)
        print(agent.log)
        assert agent.stop() == 0


def ethtool(namespace, device, **features):
    words = [word for pair in features.items() for word in pair]
    namespace.run(["ethtool", "-K", device, *words], check=True)


def checksum_errors(namespace):
    """How many segments, datagrams and messages the kernel has refused for their checksums."""
    lines = [line.split() for line in namespace.read("net/snmp").splitlines()]
    tables = {names[0]: dict(zip(names[1:], values[1:])) for names, values in zip(lines[::2], lines[1::2])}
    return sum(int(tables[f"{protocol}:"]["InCsumErrors"]) for protocol in ("Tcp", "Udp", "Icmp"))


def content(size):
    return b"".join(servers.content(size))


# MARK: what crosses, there and back


def stream(laptop, octets=2_000_000):
    """TCP; the server sends it all back."""
    data = content(octets)
    with laptop.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(20 * PATIENCE)
        client.connect((Lab.SERVER, 7))
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        back = hashlib.sha256()
        left = octets
        while left > 0 and (part := client.recv(min(left, 1 << 18))):
            back.update(part)
            left -= len(part)
        sender.join()
    assert left == 0 and back.hexdigest() == hashlib.sha256(data).hexdigest()


def datagrams(up, sizes):
    """UDP, from what fits one packet to many fragments."""
    refused = without_checksum(up)
    with up.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5 * PATIENCE)
        client.connect((Lab.SERVER, 7))
        for size in sizes:
            client.send(content(size))
            try:
                assert client.recv(65535) == content(size), size
            except TimeoutError:
                refused += 1
                assert without_checksum(up) == refused, size


def train(up, tx):
    """A super-packet of UDP there and one back, each cut into ten datagrams by the kernel, by a device, or never."""
    router, data = up.lab.site.router.namespace, content(12000)
    near = network.synthesise(up.lab.site.pref64, NEAR)
    router.ip(f"addr replace {near}/128 dev lo nodad")
    # Its route comes a moment later.
    wait_until(lambda: router.run(["ip", "route", "get", near]).stdout.startswith("local"), what="the router's address")
    segment = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1200))]
    with up.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, router.socket(
            socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((near, 7))
        client.connect((NEAR, 7))
        for end in (client, server):
            end.settimeout(5 * PATIENCE)
            end.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        try:
            client.sendmsg([data], segment)
            peer = expect_train(server, data)
            server.sendmsg([data], segment, 0, peer)
        except OSError as error:
            # Before Linux 6.11 only devices that compute checksums may be handed such.
            if error.errno == errno.EIO and not tx:
                return
            raise
        expect_train(client, data)


def expect_train(end, data):
    """All its datagrams, together or each by itself, in whatever order; who sent them."""
    parts = []
    while sum(map(len, parts)) < len(data):
        part, peer = end.recvfrom(65535)
        parts += [part[start:start + 1200] for start in range(0, len(part), 1200)]
    assert sorted(parts) == sorted(data[start:start + 1200] for start in range(0, len(data), 1200))
    return peer


def burst(up, size):
    """The frames of one that comes out in order; the scheduler may have datagrams overtake each other once, we never."""
    for _ in range(3):
        frames, in_order = one_burst(up, size)
        if in_order:
            return frames
    raise AssertionError("three bursts came out in another order")


def one_burst(up, size, count=80):
    """Datagrams that the agent finds all at once in its queue, and what the router's link has seen of them. The smallest of
    buffers on the way, the server's socket, holds as many."""
    address = up.entry["ipv6Address"]
    # Neighbours are known then: what waits for one to answer is overtaken by what comes after.
    echo(up.laptop)
    with up.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, up.lab.capture(
            up.lab.site.router.namespace, "lan", lambda frame: frame.is_ipv6 and frame.source == address) as wire:
        client.settimeout(5 * PATIENCE)
        # SO_RCVBUFFORCE: a part of a super-packet is charged several times its size.
        client.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
        client.connect((Lab.SERVER, 7))
        sent = [content(size - number // 70) + bytes([number]) for number in range(count)]
        refused = without_checksum(up)
        up.agent.process.send_signal(signal.SIGSTOP)
        try:
            tasks = list(pathlib.Path(f"/proc/{up.agent.process.pid}/task").glob("*/stat"))
            wait_until(lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks), what="a halt")
            for datagram in sent:
                client.send(datagram)
        finally:
            up.agent.process.send_signal(signal.SIGCONT)
        received = []
        with contextlib.suppress(TimeoutError):
            while len(received) < count:
                received.append(client.recv(65535))
        assert len(set(received)) == len(received) and set(received) <= set(sent)
        assert count - len(received) == without_checksum(up) - refused

        def datagrams():
            return [frame for frame in wire.frames if frame.protocol == socket.IPPROTO_UDP]

        wait_until(lambda: sum(len(frame.octets) - 62 for frame in datagrams()) >= sum(map(len, sent)), what="their frames")
    return datagrams(), received == sent


def without_checksum(up):
    """Datagrams that the agent has dropped for having none. Where a checksum comes out as 0, of one in 65536, the lab's NAT64, TAYGA,
    lets it be that, which is none, and must not be in IPv6 (RFC 8200 section 8.1)."""
    return up.agent.interface()["counters"].get("drop-udp-checksum-zero", 0)


def echo(laptop):
    pinger = probe.Pinger(laptop, Lab.SERVER)
    assert pinger.reply(pinger.send(), timeout=5) is not None
    pinger.close()


def everything(up, tx=True):
    ends = (up.laptop, up.lab.internet)
    before = [checksum_errors(end) for end in ends]
    echo(up.laptop)
    datagrams(up, SIZES)
    train(up, tx)
    stream(up.laptop)
    assert [checksum_errors(end) for end in ends] == before, "wrong checksums"


# MARK: with which offloads


@pytest.mark.parametrize("off", [
    pytest.param(off, id="-".join(off) or "none")
    for count in range(len(FEATURES) + 1) for off in itertools.combinations(FEATURES, count)])
def test_every_kind_of_traffic_crosses_with_these_off(up, off):
    features = {feature: "off" if feature in off else "on" for feature in FEATURES}
    for namespace, device in up.devices:
        ethtool(namespace, device, **features)
    everything(up, tx="tx" not in off)
    if not off and "UDP super-packets" in up.entry["datapath"]["detail"]:
        before = up.agent.interface()["counters"]
        train(up, tx=True)
        after = up.agent.interface()["counters"]
        for way in ("out", "in"):
            assert after[f"udp-{way}"] - before[f"udp-{way}"] == 1, f"the train crosses whole, {way}"
            assert after[f"octets-{way}"] - before[f"octets-{way}"] >= 12000


@pytest.mark.parametrize("number", range(3), ids=["clat-eth0", "eth0", "router"])
def test_every_kind_of_traffic_crosses_with_all_off_at_one_device(up, number):
    for index, (namespace, device) in enumerate(up.devices):
        ethtool(namespace, device, **dict.fromkeys(FEATURES, "off" if index == number else "on"))
    everything(up, tx=number != 0)


def test_datagrams_of_all_sizes(up):
    for namespace, device in up.devices:
        ethtool(namespace, device, **dict.fromkeys(FEATURES, "on"))
    datagrams(up, (size for size in range(1, 8001, 37) if not 1452 < size < 1473))


@pytest.mark.parametrize("size", [1, 500, 1400])
def test_datagrams_that_wait_cross_together(up, size):
    """In user space they become super-packets, of at most 64; where the devices cut none they are on the link as they were."""
    for tx in ("on", "off"):
        for namespace, device in up.devices:
            ethtool(namespace, device, **dict.fromkeys(FEATURES, tx))
        frames = burst(up, size)
        if tx == "off":
            assert len(frames) == 80 and all(transport_sum(frame) == 0xFFFF for frame in frames)
        elif "UDP super-packets" in up.entry["datapath"]["detail"] and up.entry["datapath"]["kind"] == "userspace":
            assert 2 <= len(frames) <= 10, len(frames)


def test_every_frame_on_the_link_has_a_right_checksum(up):
    """With all off nothing is left to a device, so that a frame is on the link as it would be on a wire."""
    for namespace, device in up.devices:
        ethtool(namespace, device, **dict.fromkeys(FEATURES, "off"))
    address = up.entry["ipv6Address"]
    with up.lab.capture(
            up.lab.site.router.namespace, "lan",
            lambda frame: frame.is_ipv6 and address in (frame.source, frame.destination)) as wire:
        echo(up.laptop)
        datagrams(up, SIZES)
        stream(up.laptop, 100_000)
        wait_until(lambda: any(is_finish(frame, address) for frame in wire.frames), what="the stream's end")
    assert wire.dropped == 0
    seen = {}
    for frame in wire.frames:
        if frame.protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6):
            assert transport_sum(frame) == 0xFFFF, frame
            direction = "out" if frame.source == address else "in"
            seen[frame.protocol, direction] = seen.get((frame.protocol, direction), 0) + 1
    # Both ways of all three, so that the assertion above has had something to say.
    assert len(seen) == 6 and min(seen.values()) >= 1, seen
    assert any(frame.protocol == socket.IPPROTO_FRAGMENT and frame.source == address for frame in wire.frames)


@pytest.mark.parametrize("datapath", [datapath for datapath in DATAPATHS if datapath != "routes"])
@pytest.mark.parametrize("refused, words", [("uso", "TUN with TCP super-packets"), ("tso", "TUN with single packets")])
def test_a_kernel_with_fewer_offloads_for_a_tun(datapath, refused, words):
    """Linux before 6.2, and one without any; the kernel then cuts super-packets before they come to us."""
    with Lab() as lab:
        agent = lab.agent(datapath=datapath, refused=refused)
        assert words in agent.wait_for("on")["datapath"]["detail"]
        for device in ("clat-eth0", "eth0"):
            ethtool(lab.laptop, device, tx="on", tso="on", gso="on", gro="on")
        everything(types.SimpleNamespace(lab=lab, laptop=lab.laptop, agent=agent))
        assert agent.stop() == 0


def is_finish(frame, address):
    return frame.protocol == socket.IPPROTO_TCP and frame.source == address and frame.payload[13] & 1


def transport_sum(frame):
    """RFC 8200 section 8.1, over pseudo-header and payload: ffff if the checksum is right."""
    length = int.from_bytes(frame.octets[18:20], "big")
    addresses = b"".join(ipaddress.IPv6Address(text).packed for text in (frame.source, frame.destination))
    data = addresses + struct.pack("!II", length, frame.protocol) + frame.octets[54:54 + length]
    return ~probe.internet_checksum(data) & 0xFFFF
