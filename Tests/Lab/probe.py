"""Two instruments in the tests' own process: an IPv4 ping with a clock, and a neighbour that owns every address."""

import errno
import ipaddress
import os
import select
import socket
import struct
import threading
import time

import ra
from capture import Frame
from namespace import PATIENCE

ECHO_REPLY, ECHO_REQUEST = 0, 8
NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION = 136, 135


def internet_checksum(data):
    """RFC 1071, of an even or odd number of octets."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total % 0xFFFF) or (0xFFFF if total else 0)) & 0xFFFF


class Pinger:
    """ICMP echo from a namespace to one IPv4 address, without a fork, so that milliseconds can be told."""

    def __init__(self, namespace, address):
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._address = address
        self._identifier = os.getpid() & 0xFFFF
        self._sequence = 0

    def send(self):
        """Sends one request; its sequence number, or None where there is no route to send it on."""
        self._sequence += 1
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, self._identifier, self._sequence)
        data = b"clat-agent's lab"
        head = head[:2] + struct.pack("!H", internet_checksum(head + data)) + head[4:]
        try:
            self._socket.sendto(head + data, (self._address, 0))
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
                return None
            raise
        return self._sequence

    def reply(self, sequence, timeout):
        """When the reply to that request came (time.monotonic), or None if it did not within `timeout` seconds."""
        deadline = time.monotonic() + timeout * PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                packet = self._socket.recv(65535)
                message = packet[(packet[0] & 15) * 4:]
                ours = struct.pack("!HH", self._identifier, sequence)
                if message[:1] == bytes([ECHO_REPLY]) and message[4:8] == ours:
                    return time.monotonic()
        return None

    def first_sent(self, timeout):
        """Waits for a route. The sequence number of the very first request that could be sent, and when it was."""
        deadline = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < deadline:
            if (sequence := self.send()) is not None:
                return sequence, time.monotonic()
            time.sleep(0.001)
        raise TimeoutError(f"no route to {self._address} within {timeout} s")

    def close(self):
        self._socket.close()


class Defender:
    """A station that claims each address of a network for which another does DAD (RFC 4862 section 5.4), the first
    `count`.

    `claimed` holds the addresses, in order. Runs until it is closed.
    """

    def __init__(self, namespace, interface, network, hardware_address="02:64:00:00:00:66", count=1 << 30):
        self.claimed = []
        self._network, self._count = ipaddress.IPv6Network(network), count
        self._hardware_address = bytes.fromhex(hardware_address.replace(":", ""))
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ra.ETH_P_IPV6))
        self._socket.bind((interface, ra.ETH_P_IPV6))
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._closing:
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            octets, (_, _, kind, *_) = self._socket.recvfrom(2048)
            frame = Frame(time.monotonic(), kind == socket.PACKET_OUTGOING, octets)
            if frame.outgoing or frame.icmpv6_type != NEIGHBOUR_SOLICITATION or frame.source != "::":
                continue
            if ipaddress.IPv6Address(frame.target) not in self._network:
                continue
            if frame.target not in self.claimed:
                if len(self.claimed) >= self._count:
                    continue
                self.claimed.append(frame.target)
            # Override, not solicited, to all nodes; with our link-layer address.
            message = struct.pack("!BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, 0x20000000)
            message += ipaddress.IPv6Address(frame.target).packed + b"\x02\x01" + self._hardware_address
            head = ra.ALL_NODES + self._hardware_address + b"\x86\xdd"
            self._socket.send(head + ra.ipv6_packet(frame.target, "ff02::1", 255, message))

    def close(self):
        self._closing = True
        self._thread.join()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def query_listeners(namespace, interface):
    """Asks all nodes on a link which groups they listen to, as a switch or router does (MLDv2, RFC 3810 section 5.1)."""
    with namespace.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as asker, namespace.entered():
        index = socket.if_nametoindex(interface)
        # Hop-by-Hop Options with Router Alert (RFC 2711), without which no one answers.
        asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes([0, 0, 5, 2, 0, 0, 1, 0]))
        # Type 130, answers within 100 ms, about all groups, robustness 2, interval 125 s, no sources.
        query = struct.pack("!BBHHH16xBBH", 130, 0, 0, 100, 0, 2, 125, 0)
        asker.sendto(query, ("ff02::1", 0, 0, index))
