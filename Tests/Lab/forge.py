"""IPv6 packets to the octet, for those who lie: a station on the link that sends whatever it is given."""

import ipaddress
import socket
import struct

from probe import internet_checksum
from ra import ALL_NODES, ETH_P_IPV6, ICMPV6

TCP, UDP, ROUTING, FRAGMENT = 6, 17, 43, 44


def _packed(address):
    return ipaddress.IPv6Address(address).packed


def ipv6(source, destination, next_header, payload, hop_limit=64):
    """A header (RFC 8200 section 3) and what follows it."""
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, hop_limit) + _packed(source) + _packed(destination) + payload


def checksummed(source, destination, protocol, payload, position):
    """The payload with the checksum of RFC 8200 section 8.1 at its place."""
    pseudo = _packed(source) + _packed(destination) + struct.pack("!II", len(payload), protocol)
    payload = payload[:position] + b"\0\0" + payload[position + 2:]
    checksum = internet_checksum(pseudo + payload) or 0xFFFF
    return payload[:position] + struct.pack("!H", checksum) + payload[position + 2:]


def udp(source, destination, data=b"forged", ports=(4464, 4464)):
    """A UDP header and data."""
    return checksummed(source, destination, UDP, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data, 6)


def tcp(source, destination, ports=(80, 4464), sequence=1, flags=0x02):
    """A TCP segment without data, SYN by default."""
    head = struct.pack("!HHIIBBHHH", *ports, sequence, 0, 0x50, flags, 65535, 0, 0)
    return checksummed(source, destination, TCP, head, 16)


def icmp(source, destination, kind, code=0, word=0, data=b""):
    """An ICMPv6 message: type, code, the 32 bits that follow the checksum, data."""
    return checksummed(source, destination, ICMPV6, struct.pack("!BBHI", kind, code, 0, word) + data, 2)


def datagram(source, destination, **what):
    """A whole UDP packet."""
    return ipv6(source, destination, UDP, udp(source, destination, **what))


def segment(source, destination, **what):
    """A whole TCP packet."""
    return ipv6(source, destination, TCP, tcp(source, destination, **what))


def message(source, destination, kind, code=0, word=0, data=b"", hop_limit=64):
    """A whole ICMPv6 packet."""
    return ipv6(source, destination, ICMPV6, icmp(source, destination, kind, code, word, data), hop_limit)


def fragments(source, destination, next_header, pieces, identification=464):
    """Fragments (RFC 8200 section 4.5): `pieces` are pairs of offset, in octets, and data; the last one is the end."""
    packets = []
    for number, (offset, data) in enumerate(pieces):
        more = number < len(pieces) - 1
        head = struct.pack("!BBHI", next_header, 0, offset | more, identification)
        packets.append(ipv6(source, destination, FRAGMENT, head + data))
    return packets


def routed(source, destination, payload_packet):
    """The same packet with a Routing header of type 0 that has a segment left."""
    header = struct.pack("!BBBBI", payload_packet[6], 2, 0, 1, 0) + _packed("2001:db8::bad")
    return ipv6(source, destination, ROUTING, header + payload_packet[40:])


class Forger:
    """A packet socket on an interface of a namespace."""

    def __init__(self, namespace, interface, hardware_address):
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._to = (interface, ETH_P_IPV6, 0, 0, bytes.fromhex(hardware_address.replace(":", "")))

    def send(self, *packets, everybody=False):
        """Sends packets, from the IPv6 header on, to the station with that hardware address, or to all nodes."""
        for packet in packets:
            self._socket.sendto(packet, (*self._to[:4], ALL_NODES) if everybody else self._to)

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
