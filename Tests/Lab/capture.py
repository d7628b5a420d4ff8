"""What crosses an interface: a packet socket and a thread, ready when `Capture` returns, so that no first packet is
missed.

Made for tests that look at some hundred packets; a thread in Python does not keep up with a bulk transfer (see
`dropped`).
"""

import dataclasses
import errno
import ipaddress
import select
import socket
import struct
import threading
import time

_ETH_P_ALL = 3
_PACKET_STATISTICS = 6
_SOL_PACKET = 263


@dataclasses.dataclass(frozen=True)
class Frame:
    """One Ethernet frame: when it was seen (seconds, time.monotonic), whether the interface sent it, and its octets."""

    time: float
    outgoing: bool
    octets: bytes

    @property
    def ethertype(self):
        return int.from_bytes(self.octets[12:14], "big")

    @property
    def is_ipv6(self):
        return self.ethertype == 0x86DD and len(self.octets) >= 54

    @property
    def is_ipv4(self):
        return self.ethertype == 0x0800 and len(self.octets) >= 34

    @property
    def is_arp(self):
        return self.ethertype == 0x0806

    @property
    def source(self):
        """The IP source as text, or None."""
        return self._address(22, 38, 26, 30)

    @property
    def destination(self):
        """The IP destination as text, or None."""
        return self._address(38, 54, 30, 34)

    def _address(self, from6, to6, from4, to4):
        if self.is_ipv6:
            return str(ipaddress.IPv6Address(self.octets[from6:to6]))
        return str(ipaddress.IPv4Address(self.octets[from4:to4])) if self.is_ipv4 else None

    @property
    def hop_limit(self):
        return self.octets[21] if self.is_ipv6 else self.octets[22]

    @property
    def protocol(self):
        """Next Header or Protocol: the first only, extension headers are not walked."""
        return self.octets[20] if self.is_ipv6 else self.octets[23]

    @property
    def payload(self):
        """What follows the IP header."""
        return self.octets[54:] if self.is_ipv6 else self.octets[14 + (self.octets[14] & 15) * 4:]

    @property
    def icmpv6_type(self):
        return self.payload[0] if self.is_ipv6 and self.protocol == 58 and self.payload else None

    @property
    def target(self):
        """The target of a Neighbour Solicitation or Advertisement as text, or None."""
        if self.icmpv6_type in (135, 136) and len(self.payload) >= 24:
            return str(ipaddress.IPv6Address(self.payload[8:24]))
        return None

    def __str__(self):
        if self.is_ipv6 or self.is_ipv4:
            kind = "" if self.icmpv6_type is None else f" type {self.icmpv6_type}"
            target = "" if self.target is None else f" target {self.target}"
            path = f"{self.source} > {self.destination}"
            return f"{path} protocol {self.protocol}{kind}{target} length {len(self.octets)}"
        return f"ethertype {self.ethertype:04x} length {len(self.octets)}"


class Capture:
    """Collects the frames of one interface of a namespace, until it is stopped or its `with` block ends."""

    def __init__(self, namespace, interface, matching=lambda frame: True):
        self.frames = []
        self.dropped = 0
        self._matching = matching
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        self._socket.bind((interface, _ETH_P_ALL))
        self._stopping = False
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self):
        while not self._stopping:
            if select.select([self._socket], [], [], 0.05)[0]:
                try:
                    octets, (_, _, kind, *_) = self._socket.recvfrom(65600)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:  # said once, when the interface goes down; it may come back
                        raise
                    continue
                frame = Frame(time.monotonic(), kind == socket.PACKET_OUTGOING, octets)
                if self._matching(frame):
                    self.frames.append(frame)

    def stop(self):
        """Ends the capture and returns its frames; `dropped` then tells how many more there were than could be
        taken."""
        if not self._stopping:
            self._stopping = True
            self._thread.join()
            # struct tpacket_stats: packets, drops.
            _, self.dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self._socket.close()
        return self.frames

    def write(self, path):
        """The frames as a pcap file, for tcpdump and its like."""
        with open(path, "wb") as file:
            file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            for frame in self.frames:
                seconds, size = frame.time, len(frame.octets)
                file.write(struct.pack("=IIII", int(seconds), int(seconds % 1 * 1e6), size, size) + frame.octets)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
