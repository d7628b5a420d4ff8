"""What tests in a virtual machine share: a look into the CLAT's nameless namespace, and neighbour discovery by hand."""

import contextlib
import ipaddress
import json
import os
import pathlib
import socket
import struct
import subprocess

import ra
from agent import binary
from capture import Capture
from namespace import Namespace, wait_until
from probe import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION

UPLINK = "clat-uplink"


class ClatNamespace(Namespace):
    """The namespace that an agent holds by a descriptor only. It lives on as long as this object: close it."""

    def __init__(self, agent):
        self.name = "the CLAT's namespace"
        self._descriptor = None
        own = os.stat(f"/proc/{agent.process.pid}/ns/net").st_ino
        for entry in pathlib.Path(f"/proc/{agent.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry).startswith("net:[") and os.stat(entry).st_ino != own:
                    self._descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
                    return
        raise RuntimeError("the agent has no other namespace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def link(namespace, name):
    """`ip -details link show` of one link as Python values; None if there is none."""
    shown = namespace.run(["ip", "-json", "-details", "link", "show", "dev", name])
    return json.loads(shown.stdout)[0] if shown.returncode == 0 else None


def addresses(namespace, name):
    """The IPv6 addresses of a link, as text."""
    return [str(ipaddress.IPv6Address(bytes.fromhex(fields[0])))
            for fields in map(str.split, namespace.read("net/if_inet6").splitlines()) if fields[5] == name]


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


def run(*command, timeout=60):
    """Runs a command in the machine's own namespace and returns what it printed; RuntimeError if it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}")
    return done.stdout


class Machine(Namespace):
    """The virtual machine's own namespace, in which systemd and the like work."""

    def __init__(self):
        self.name = "the machine"
        self._descriptor = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)


# What a hook of a manager finds as `clat-agent`, and where it notes that it was called.
COMMAND = pathlib.Path("/usr/local/sbin/clat-agent")
CALLS = pathlib.Path("/run/clat-agent-calls")


def install_command():
    """Puts the program under test where hooks find it. Each call but `run` is noted: words, then exit status."""
    COMMAND.parent.mkdir(parents=True, exist_ok=True)
    COMMAND.write_text(f'#!/bin/sh\n{binary()} "$@"; s=$?; echo "$* $s" >> {CALLS}; exit $s\n')
    COMMAND.chmod(0o755)


def calls():
    """What hooks called so far."""
    return CALLS.read_text().splitlines() if CALLS.exists() else []


def renumber(lab, old, new):
    """The site has another prefix: the router names it, and the one of before only as deprecated."""
    site, router = lab.site, lab.site.router
    old, new = ipaddress.IPv6Network(old), ipaddress.IPv6Network(new)
    router.namespace.ip(f"address replace {new[1]}/64 dev lan nodad")
    site.core.ip(f"route replace {new} via {site._upper[1]}")
    site.nat64.ip(f"route replace {new} via {site._lower[1]}")
    router.advertiser.advertise(ra.RouterAdvertisement(source=router.link_local, options=[
        ra.source_link_layer_address(router.hardware_address), ra.prefix_information(old, valid=7200, preferred=0),
        ra.prefix_information(new), ra.pref64(site.pref64)]))
