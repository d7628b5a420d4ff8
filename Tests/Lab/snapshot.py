"""The whole network configuration of a namespace as text, so that two moments can be compared.

One line per fact: links (every attribute but counters), addresses and multicast memberships, routes of all tables,
rules, permanent and proxy neighbours, next hops, ids of peer namespaces, queueing disciplines, eBPF programs that hang on
links by tcx, all net.* sysctls, the nftables rules. Left out is only what changes by itself: lifetimes that count down, the dynamic neighbour cache,
counters.
"""

import collections
import ctypes
import errno
import json
import os
import pathlib
import platform
import socket
import struct
import time

from namespace import PATIENCE

_COMMANDS = """link show
address show
maddress show
route show table all
rule show
neighbour show nud permanent
neighbour show proxy
netns list-id
nexthop show
"""
# Without a family `ip` shows both, but not of rules.
_COMMANDS_IPV6 = """rule show
"""
# Lifetimes and ages, and what one fact repeats of another (an address line would repeat its link).
_MOVING = {"valid_life_time", "preferred_life_time", "expires", "used", "age"}
_SYSCTLS_THAT_COUNT = {"net.netfilter.nf_conntrack_count"}
# linux/bpf.h; `tc` does not show these.
_BPF_PROG_QUERY, _TCX = 16, {46: "ingress", 47: "egress"}
_BPF = {"x86_64": 321}.get(platform.machine(), 280)
_libc = ctypes.CDLL(None, use_errno=True)


def take(space):
    """The snapshot of a namespace: a sorted list of lines."""
    lines = []
    for family, commands in [("", _COMMANDS), ("6", _COMMANDS_IPV6)]:
        batch = space.run(["ip", *(["-6"] if family else []), "-json", "-details", "-batch", "-"],
                              stdin=commands, check=True)
        for command, objects in zip(commands.splitlines(), _documents(batch.stdout), strict=True):
            lines += _describe(command.split()[0] + family, objects)
    lines += _describe("qdisc", json.loads(space.run(["tc", "-json", "qdisc", "show"], check=True).stdout or "[]"))
    lines += [f"nft {line.strip()}" for line in space.run(["nft", "list", "ruleset"], check=True).stdout.splitlines()]
    lines += _programs(space)
    lines += _sysctls(space)
    return sorted(lines)


def difference(before, after):
    """What two snapshots differ in, one line per fact that went (-) or came (+); empty if they are the same."""
    old, new = collections.Counter(before), collections.Counter(after)
    changes = [(line, "-") for line in (old - new).elements()] + [(line, "+") for line in (new - old).elements()]
    return [f"{sign} {line}" for line, sign in sorted(changes)]


def wait_for(space, wanted, timeout=5.0):
    """Waits until the namespace is as the snapshot says; AssertionError names what differs. The kernel removes a
    namespace and the devices in it a moment after its last process has gone, so this is no instant."""
    deadline = time.monotonic() + timeout * PATIENCE
    while changes := difference(wanted, take(space)):
        if time.monotonic() > deadline:
            raise AssertionError(f"{space.name} is not what it was:\n" + "\n".join(changes))
        time.sleep(0.05)


def _documents(text):
    """JSON arrays, one after the other."""
    decoder, position = json.JSONDecoder(), 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        document, position = decoder.raw_decode(text, position)
        yield document


def _describe(kind, objects):
    lines = []
    for fact in objects:
        fact = _still(fact)
        if kind == "link":
            name = fact.pop("ifname")
            lines += [f"link {name} {key} {json.dumps(value, sort_keys=True)}" for key, value in fact.items()]
        elif kind == "address":
            lines += _items(kind, fact["ifname"], fact.get("addr_info", []))
        elif kind == "maddress":
            lines += _items(kind, fact["ifname"], fact["maddr"])
        else:
            lines.append(f"{kind} {json.dumps(fact, sort_keys=True)}")
    return lines


def _items(kind, interface, items):
    return [f"{kind} {interface} {json.dumps(item, sort_keys=True)}" for item in items]


def _still(value):
    """The value without what moves by itself; that a lifetime is infinite stays told."""
    if isinstance(value, dict):
        forever = {"forever": True} if value.get("valid_life_time") == 0xFFFFFFFF else {}
        return {key: _still(item) for key, item in value.items() if key not in _MOVING} | forever
    if isinstance(value, list):
        return [_still(item) for item in value]
    return value


def _programs(space):
    lines = []
    with space.entered():
        for index, name in socket.if_nameindex():
            for place, way in _TCX.items():
                lines += [f"tcx {name} {way} program {number}" for number in _programs_at(index, place)]
    return lines


def _programs_at(interface, place):
    """The ids of the programs at one place of an interface; none where the kernel has no tcx, or tells this user nothing, or the interface has
    gone."""
    ids = (ctypes.c_uint32 * 64)()
    query = struct.pack("=IIIIQIIQ", interface, place, 0, 0, ctypes.addressof(ids), len(ids), 0, 0)
    query = ctypes.create_string_buffer(query, len(query) + 24)
    if _libc.syscall(_BPF, _BPF_PROG_QUERY, query, len(query)) != 0:
        if ctypes.get_errno() in (errno.EINVAL, errno.EPERM, errno.ENOENT, errno.ENODEV):
            return []
        raise OSError(ctypes.get_errno(), "BPF_PROG_QUERY")
    return ids[:struct.unpack_from("=I", query, 24)[0]]


def _sysctls(space):
    lines = []
    with space.entered():
        for directory, _, files in os.walk("/proc/sys/net"):
            for file in files:
                path = pathlib.Path(directory, file)
                name = ".".join(path.parts[3:])
                try:
                    value = path.read_text().strip()
                except OSError:
                    continue  # write-only, or not set yet (stable_secret)
                if name not in _SYSCTLS_THAT_COUNT:
                    lines.append(f"sysctl {name} = {value}")
    return lines
