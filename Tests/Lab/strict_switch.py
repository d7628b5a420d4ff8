"""A first-hop switch of the strict kind, as wireless controllers are, between the lab's laptop and its link.

It knows a station's IPv6 addresses by what it has seen of neighbour discovery (as SAVI, RFC 7513 and RFC 6620, but stricter), and
lets nothing pass for an address it does not know:

* An address is bound to a station by its duplicate address detection (a Neighbour Solicitation from `::`), or by a Neighbour
  Advertisement whose source is its target. An advertisement from another source, as proxies send, is not believed.
* After `LIFETIME` the station is asked whether it still has the address, by unicast solicitations only, `TRIES` times; where no
  such advertisement answers, the address is forgotten.
* A multicast solicitation goes to the one station that has the target, as unicast; nobody else hears it. (Not in a virtual machine: see
  `CONVERTS`.)
* A station that shows an IPv4 address which is seen elsewhere too, in ARP or IPv4, is excluded: nothing of it passes any more. All
  of 192.0.0.0/29 is seen elsewhere, for every CLAT has one of these.

Its clock runs `SPEED` times as fast as ours.
"""

import dataclasses
import ipaddress
import os
import select
import socket
import struct
import threading
import time

import ra
from capture import Frame
from namespace import PATIENCE, wait_until
from probe import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION

# An emulated machine answers later.
SPEED = (240 if os.environ.get("VM") == "1" else 1200) / PATIENCE
LIFETIME, INTERVAL, TRIES = 300.0, 240.0, 5  # seconds of its clock
HOUR = 3600 / SPEED  # of its clock, in seconds of ours
# Duplicate address detection takes a second of everybody's clock, in which a station answers nobody.
DETECTION = 2 * PATIENCE * SPEED

# To an ipvlan the kernel brings no solicitation that was multicast and comes in a unicast frame: it looks for the ipvlan that has the
# IPv6 destination, which is a group (ipvlan_get_L3_hdr makes an exception of duplicate address detection only).
CONVERTS = os.environ.get("VM") != "1"

_SOL_PACKET, _PACKET_VNET_HDR, _VNET_HDR_SIZE = 263, 15, 10
_OWN = bytes.fromhex("0264000000ee")
_OWN_ADDRESS = "fe80::ee"


@dataclasses.dataclass
class Binding:
    """An address and the station that has it."""

    hardware_address: bytes
    confirmed: float
    asked: float = 0.0
    tries: int = 0


class StrictSwitch:
    """Stands in the way from construction to `close`. `bindings` is by address; the lists say what was dropped, and why."""

    def __init__(self, lab):
        self._lab = lab
        lab.switch.ip("""
            link set laptop nomaster
            link add strict up type veth peer name strict-lan
            link set strict-lan master lan up
        """)
        self._station = self._open("laptop")
        self._link = self._open("strict")
        self._begun = time.monotonic()
        self.bindings = {}
        self.forgotten, self.unbound, self.disbelieved = [], [], []
        self.excluded_for = None
        self.probes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _open(self, interface):
        link = self._lab.switch.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        # With the header of virtio, by which checksums and segments that are still to be made stay so.
        link.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        link.bind((interface, 3))
        return link

    @property
    def now(self):
        """Its clock, in seconds."""
        return (time.monotonic() - self._begun) * SPEED

    def _run(self):
        while not self._closing:
            ready, _, _ = select.select([self._station, self._link], [], [], 0.01)
            for link in ready:
                data, (_, _, kind, *_) = link.recvfrom(1 << 17)
                if kind == socket.PACKET_OUTGOING:
                    continue
                frame = Frame(time.monotonic(), False, data[_VNET_HDR_SIZE:])
                if link is self._station:
                    self._from_station(frame, data)
                else:
                    self._to_station(frame, data)
            self._probe()

    def _pass(self, link, data):
        try:
            link.send(data)
        except OSError:
            pass  # The other end is down.

    def _from_station(self, frame, data):
        if self.excluded_for:
            return
        shown = self._ipv4_shown(frame)
        if shown is not None and shown in ipaddress.IPv4Network("192.0.0.0/28"):
            self.excluded_for = str(shown)
            return
        if not frame.is_ipv6:
            return self._pass(self._link, data)
        self._learn(frame)
        if frame.octets[:6] == _OWN:
            return  # an answer to a probe
        if frame.source != "::" and frame.source not in self.bindings:
            self.unbound.append(str(frame))
            return
        self._pass(self._link, data)

    @staticmethod
    def _ipv4_shown(frame):
        if frame.is_arp and len(frame.octets) >= 42:
            return ipaddress.IPv4Address(frame.octets[28:32])
        return ipaddress.IPv4Address(frame.source) if frame.is_ipv4 else None

    def _learn(self, frame):
        station, target = frame.octets[6:12], frame.target
        if frame.icmpv6_type == NEIGHBOUR_SOLICITATION and frame.source == "::":
            self.bindings.setdefault(target, Binding(station, self.now + DETECTION))
        elif frame.icmpv6_type == NEIGHBOUR_ADVERTISEMENT:
            if frame.source == target:
                self.bindings[target] = Binding(station, self.now)
            else:
                self.disbelieved.append(str(frame))

    def _to_station(self, frame, data):
        if self.excluded_for or not frame.is_ipv6:
            return
        if frame.icmpv6_type == NEIGHBOUR_SOLICITATION and frame.octets[0] & 1:
            binding = self.bindings.get(frame.target)
            if binding and frame.source != "::":
                head, destination = data[:_VNET_HDR_SIZE], binding.hardware_address if CONVERTS else frame.octets[:6]
                self._pass(self._station, head + destination + data[_VNET_HDR_SIZE + 6:])
            return
        if frame.octets[0] & 1 or frame.destination in self.bindings:
            self._pass(self._station, data)

    def _probe(self):
        for address, binding in list(self.bindings.items()):
            if self.now < max(binding.confirmed + LIFETIME, binding.asked + INTERVAL):
                continue
            if binding.tries >= TRIES:
                del self.bindings[address]
                self.forgotten.append(address)
                continue
            binding.asked, binding.tries = self.now, binding.tries + 1
            self.probes += 1
            body = struct.pack("!BBHI", NEIGHBOUR_SOLICITATION, 0, 0, 0) + ipaddress.IPv6Address(address).packed
            body += ra.source_link_layer_address(_OWN.hex(":"))
            packet = ra.ipv6_packet(_OWN_ADDRESS, address, 255, body)
            frame = binding.hardware_address + _OWN + b"\x86\xdd" + packet
            self._pass(self._station, b"\0" * _VNET_HDR_SIZE + frame)

    def wait(self, hours):
        """Lets hours of its clock pass."""
        end = self.now + hours * 3600
        wait_until(lambda: self.now >= end, hours * HOUR + 10, what="its clock")

    def close(self):
        self._closing = True
        self._thread.join()
        self._station.close()
        self._link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
