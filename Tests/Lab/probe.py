"""Instruments in the tests' own process: an IPv4 ping with a clock, a meter of outages, a neighbour that owns every address."""

import errno
import ipaddress
import os
import select
import socket
import struct
import threading
import time

import ra
from capture import Capture, Frame
from namespace import PATIENCE, wait_until

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


class Outage:
    """Measures how long IPv4 is out: a UDP request to an echo server each millisecond, in an emulated machine each 20, until it is
    closed.

    With `connected` all go by one socket that keeps the source it began with, as a call or a tunnel does; else each has what
    source the kernel gives it at the time, as new flows have.
    """

    def __init__(self, namespace, address, connected, interval=0.02 if os.environ.get("VM") == "1" else 0.001):
        self._interval = interval
        self._target = (address, 7)
        self._connected = connected
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # SO_RCVBUFFORCE: what this process is too slow for is not lost.
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 21)
        if connected:
            self._socket.connect(self._target)
        self._sent, self._answered = [], {}
        self._closing = False
        self.words = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        due = time.monotonic()
        while not self._closing:
            self._send()
            due = max(due + self._interval, time.monotonic())
            self._receive_until(due)
        self._receive_until(time.monotonic() + 0.5 * PATIENCE)  # what is under way

    def _receive_until(self, end):
        while (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self._receive()

    def _send(self):
        number = len(self._sent)
        self._sent.append(time.monotonic())
        try:
            if self._connected:
                self._socket.send(struct.pack("!Q", number))
            else:
                self._socket.sendto(struct.pack("!Q", number), self._target)
        except OSError:
            pass  # No route at the moment, or an error of before: unanswered, which is what is measured.

    def _receive(self):
        try:
            number, = struct.unpack("!Q", self._socket.recv(100))
            self._answered.setdefault(number, time.monotonic())
        except (OSError, struct.error):
            pass

    @property
    def answers(self):
        return len(self._answered)

    @property
    def silence(self):
        """The longest time, in milliseconds, in which no answer came: what waits and is answered later counts too."""
        moments = sorted(self._answered.values())
        return max(later - earlier for earlier, later in zip(moments, moments[1:])) * 1000

    def wait_for_answers(self, count=50, timeout=20):
        """Waits for that many more answers."""
        before = self.answers
        wait_until(lambda: self.answers >= before + count, timeout, what=f"{count} answers from {self._target[0]}")

    def close(self):
        """Ends it. How long, in milliseconds, requests in a row went unanswered at most, from the sending of the last that was
        answered to that of the next that was; and how many were not. `words` then holds both, and how long at most the meter
        itself, for want of a processor, sent nothing."""
        self._closing = True
        self._thread.join()
        self._socket.close()
        longest, last = 0.0, self._sent[0]
        for number, moment in enumerate(self._sent):
            if number in self._answered:
                if number - 1 not in self._answered:
                    longest = max(longest, moment - last)
                last = moment
        longest = max(longest, self._sent[-1] - last)
        pause = max(later - earlier for earlier, later in zip(self._sent, self._sent[1:]))
        lost = len(self._sent) - len(self._answered)
        self.words = (f"{longest * 1000:.1f} ms; {lost} of {len(self._sent)} requests unanswered, "
                      f"at most {pause * 1000:.1f} ms from one to the next")
        return longest * 1000, lost

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self._closing:
            self.close()


class Transfer:
    """A TCP connection to an echo server that carries data both ways for as long as a `with` block takes; in the end all that was
    sent must have come back as it was."""

    BLOCK = 4096

    def __init__(self, namespace, address, device=None):
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(20 * PATIENCE)
        if device:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        self._socket.connect((address, 7))
        self._closing, self._fault = False, None
        self.returned = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            number = 0
            while not self._closing:
                block = struct.pack("!Q", number) * (self.BLOCK // 8)
                self._socket.sendall(block)
                back = b""
                while len(back) < self.BLOCK:
                    part = self._socket.recv(self.BLOCK - len(back))
                    if not part:
                        raise ConnectionError("the server has ended it")
                    back += part
                if back != block:
                    raise ValueError(f"block {number} came back as something else")
                number += 1
                self.returned = number
                time.sleep(0.002)
        except (OSError, ValueError) as error:
            self._fault = error

    def __enter__(self):
        wait_until(lambda: self.returned > 10 or self._fault, what="the transfer's begin")
        return self

    def __exit__(self, kind, *_):
        at_last = self.returned
        if kind is None:
            # It goes on after all that has happened.
            wait_until(lambda: self.returned > at_last + 10 or self._fault, 20, what="the transfer to go on")
        self._closing = True
        self._thread.join()
        self._socket.close()
        if kind is None and self._fault:
            raise AssertionError(f"the transfer broke after {self.returned} blocks: {self._fault!r}")


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


def solicited_node(address):
    """RFC 4291 section 2.7.1."""
    return ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | int(ipaddress.IPv6Address(address)) & 0xFFFFFF)


def solicit(namespace, interface, target, source, hardware_address, to=None, timeout=5.0):
    """Sends a Neighbour Solicitation, multicast unless `to` is an (IPv6, link-layer) pair, and returns the advertisement's frame.

    From `::` it is the question of duplicate address detection, and has no link-layer address."""
    group = solicited_node(target)
    destination, frame_to = to or (group, "33:33:" + ":".join(f"{octet:02x}" for octet in group.packed[12:]))
    body = struct.pack("!BBHI", NEIGHBOUR_SOLICITATION, 0, 0, 0) + ipaddress.IPv6Address(target).packed
    if source != "::":
        body += ra.source_link_layer_address(hardware_address)
    octets = [bytes.fromhex(text.replace(":", "")) for text in (frame_to, hardware_address)]
    frame = octets[0] + octets[1] + b"\x86\xdd" + ra.ipv6_packet(source, str(destination), 255, body)

    def is_answer(seen):
        return seen.icmpv6_type == NEIGHBOUR_ADVERTISEMENT and seen.target == target
    with Capture(namespace, interface, is_answer) as wire:
        with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link_socket:
            link_socket.bind((interface, 0))
            link_socket.send(frame)
        return wait_until(lambda: wire.frames and wire.frames[0], timeout, what=f"a Neighbour Advertisement for {target}")
