"""Router Advertisements (RFC 4861 section 4.2): their bytes, and the small process that sends them.

The classes and functions build packets from the IPv6 header on, so that a test decides about every byte: source, hop
limit, checksum, option lengths. `Advertiser` has a process in a router's namespace, which knows nothing of the packets: it
sends what it was given, periodically and in answer to each Router Solicitation.
"""

import dataclasses
import ipaddress
import select
import socket
import struct
import time

from worker import Worker

PREFERENCES = {"high": 0b01, "medium": 0b00, "low": 0b11}  # RFC 4191 section 2.1
PREF64_LENGTH_CODES = {96: 0, 64: 1, 56: 2, 48: 3, 40: 4, 32: 5}  # RFC 8781 section 4

ETH_P_IPV6 = 0x86DD
ICMPV6 = 58
ICMP6_FILTER = 1
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
ALL_NODES = bytes.fromhex("333300000001")


def option(kind, body):
    """Any option: type, length in units of 8 octets, body filled up with zeros."""
    length = (len(body) + 2 + 7) // 8
    return bytes([kind, length]) + body.ljust(length * 8 - 2, b"\0")


def source_link_layer_address(address):
    """RFC 4861 section 4.6.1."""
    return option(1, bytes.fromhex(address.replace(":", "")))


def prefix_information(prefix, valid=86400, preferred=14400, on_link=True, autonomous=True, flags=0):
    """RFC 4861 section 4.6.2; lifetimes in seconds; `flags` adds bits to the octet that holds L and A."""
    network = ipaddress.IPv6Network(prefix)
    bits = (0x80 if on_link else 0) | (0x40 if autonomous else 0) | flags
    fields = struct.pack("!BBIII", network.prefixlen, bits, valid, preferred, 0)
    return option(3, fields + network.network_address.packed)


def mtu(value):
    """RFC 4861 section 4.6.4."""
    return option(5, struct.pack("!HI", 0, value))


def route_information(prefix, lifetime=1800, preference="medium"):
    """RFC 4191 section 2.3, of length 3."""
    network = ipaddress.IPv6Network(prefix)
    return option(24, struct.pack("!BBI", network.prefixlen, PREFERENCES[preference] << 3, lifetime) + network.network_address.packed)


def rdnss(addresses, lifetime=1800):
    """RFC 8106 section 5.1."""
    return option(25, struct.pack("!HI", 0, lifetime) + b"".join(ipaddress.IPv6Address(a).packed for a in addresses))


def pref64(prefix, lifetime=1800, code=None):
    """RFC 8781 section 4. The lifetime (seconds) loses its low three bits; `code` overrides the prefix length code."""
    network = ipaddress.IPv6Network(prefix)
    code = PREF64_LENGTH_CODES[network.prefixlen] if code is None else code
    return option(38, struct.pack("!H", lifetime & 0xFFF8 | code) + network.network_address.packed[:12])


def ipv6_packet(source, destination, hop_limit, icmp, checksum=None):
    """An ICMPv6 message behind its IPv6 header, with the right checksum unless one is given."""
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    if checksum is None:
        icmp = icmp[:2] + b"\0\0" + icmp[4:]
        data = addresses + struct.pack("!II", len(icmp), ICMPV6) + icmp + b"\0" * (len(icmp) % 2)
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        checksum = ~((total % 0xFFFF) or 0xFFFF) & 0xFFFF
    icmp = icmp[:2] + struct.pack("!H", checksum) + icmp[4:]
    return struct.pack("!IHBB", 6 << 28, len(icmp), ICMPV6, hop_limit) + addresses + icmp


@dataclasses.dataclass
class RouterAdvertisement:
    """One advertisement. `dataclasses.replace` makes the variants; the last group is what only a bad router changes."""

    options: list = dataclasses.field(default_factory=list)
    hop_limit: int = 64
    managed: bool = False
    other: bool = False
    preference: str = "medium"
    lifetime: int = 1800
    reachable_time: int = 0
    retransmit_timer: int = 0
    source: str = "fe80::1"

    destination: str = "ff02::1"
    ip_hop_limit: int = 255
    code: int = 0
    checksum: int | None = None

    def icmp(self):
        """The ICMPv6 message, its checksum still zero."""
        flags = (0x80 if self.managed else 0) | (0x40 if self.other else 0) | PREFERENCES[self.preference] << 3
        head = struct.pack(
            "!BBHBBHII", ROUTER_ADVERTISEMENT, self.code, 0, self.hop_limit, flags, self.lifetime,
            self.reachable_time, self.retransmit_timer)
        return head + b"".join(self.options)

    def packet(self):
        """The whole packet, from the IPv6 header on."""
        return ipv6_packet(self.source, self.destination, self.ip_hop_limit, self.icmp(), self.checksum)


class Advertiser:
    """The process that advertises on one link of a router's namespace."""

    def __init__(self, namespace, interface):
        self._worker = Worker(namespace, _serve, interface)

    def _ask(self, **request):
        self._worker.connection.send(request)
        return self._worker.connection.recv()

    def advertise(self, *advertisements, interval=60.0):
        """From now on sends these (RouterAdvertisement or bytes): at once, every `interval` seconds, and when
        solicited.

        None at all makes the router silent.
        """
        return self._ask(advertise=[_bytes(a) for a in advertisements], interval=interval)

    def send(self, *packets):
        """Sends these packets once, whatever they are; what is advertised stays as it was."""
        return self._ask(send=[_bytes(packet) for packet in packets])

    def log(self):
        """`sent`: seconds (time.monotonic) of each advertisement; `solicited`: pairs of seconds and source address."""
        return self._ask(log=True)

    def close(self):
        """Ends the process."""
        self._worker.close()


def _bytes(packet):
    return packet if isinstance(packet, bytes) else packet.packet()


def _serve(connection, interface):
    """The process."""
    solicitations = socket.socket(socket.AF_INET6, socket.SOCK_RAW, ICMPV6)
    words = [0xFFFFFFFF] * 8  # one bit per type, set means blocked
    words[ROUTER_SOLICITATION // 32] &= ~(1 << ROUTER_SOLICITATION % 32)
    solicitations.setsockopt(ICMPV6, ICMP6_FILTER, struct.pack("=8I", *words))
    solicitations.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)

    advertised, interval, due = [], 60.0, None
    sent, solicited = [], []

    def send(packets):
        for packet in packets:
            link.sendto(packet, (interface, ETH_P_IPV6, 0, 0, ALL_NODES))

    def advertise():
        nonlocal due
        send(advertised)
        if advertised:
            sent.append(time.monotonic())
        due = time.monotonic() + interval if advertised else None

    while True:
        wait = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([connection, solicitations], [], [], wait)
        if solicitations in ready:
            _, (source, *_) = solicitations.recvfrom(2048)
            solicited.append((time.monotonic(), source.partition("%")[0]))
            # At once, without the random delay of RFC 4861 section 6.2.6: nobody else is on the link to collide with.
            advertise()
        elif not ready:
            advertise()
        if connection in ready:
            request = connection.recv()
            if "advertise" in request:
                advertised = request["advertise"]
                interval = request["interval"]
                advertise()
            send(request.get("send", []))
            connection.send({"sent": sent, "solicited": solicited})
