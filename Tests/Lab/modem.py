"""A modem, as far as the host sees it: whatever goes into a device in one namespace comes out of one in another.

    modem.py KIND NAMESPACE NAME NAMESPACE NAME     runs until it is ended

`tun`: packets cross as they are, super-packets with their `virtio_net_hdr`. `ppp`: octets cross between two pseudo-terminals with
PPP's line discipline; both ends are set as pppd sets them once all is agreed upon. `pppd`: two of that program agree.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import tty

from namespace import Namespace, wait_until

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
# Checksums, TCP of both versions.
OFFLOADS = 0x01 | 0x02 | 0x04
# asm-generic/ioctls.h, linux/tty.h, linux/ppp-ioctl.h, linux/ppp_defs.h
TIOCSETD, N_PPP = 0x5423, 3
PPPIOCGCHAN, PPPIOCATTCHAN, PPPIOCCONNECT = 0x80047437, 0x40047438, 0x4004743A
PPPIOCNEWUNIT, PPPIOCSNPMODE = 0xC004743E, 0x4008744B
PPP_IPV6, NPMODE_PASS = 0x57, 0


def open_tun(namespace, name):
    with Namespace(namespace).entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tun, TUNSETOFFLOAD, OFFLOADS)
    return tun


def open_ppp(namespace, name):
    """The other side of the terminal."""
    space = Namespace(namespace)
    with space.entered():
        master, slave = os.openpty()
        tty.setraw(slave)
        fcntl.ioctl(slave, TIOCSETD, struct.pack("i", N_PPP))
        channel, unit = os.open("/dev/ppp", os.O_RDWR), os.open("/dev/ppp", os.O_RDWR)
        fcntl.ioctl(channel, PPPIOCATTCHAN, fcntl.ioctl(slave, PPPIOCGCHAN, struct.pack("i", 0)))
        number = fcntl.ioctl(unit, PPPIOCNEWUNIT, struct.pack("i", -1))
        fcntl.ioctl(channel, PPPIOCCONNECT, number)
        fcntl.ioctl(unit, PPPIOCSNPMODE, struct.pack("ii", PPP_IPV6, NPMODE_PASS))
    space.ip(f"link set ppp{struct.unpack('i', number)[0]} name {name}")
    os.set_blocking(master, False)
    return master


def run_pppd(*ends):
    """The second runs on the first one's terminal. They agree on interface identifiers (RFC 5072) and nothing of IPv4."""
    def command(namespace, name, own, other):
        return ["ip", "netns", "exec", namespace, "pppd", "nodetach", "noauth", "nolock", "local", "noip", "ipv6", f"::{own},::{other}",
                "ifname", name]
    far = " ".join([*command(*ends[2:], "99", "10"), "notty"])
    pppd = subprocess.Popen([*command(*ends[:2], "10", "99"), "pty", far], stdout=subprocess.DEVNULL)
    for namespace, name in (ends[:2], ends[2:]):
        wait_until(lambda: name in Namespace(namespace).read("net/if_inet6"), timeout=60, what=f"{name} with an address")
    print("ready", flush=True)
    sys.exit(pppd.wait())


def main(kind, *ends):
    if kind == "pppd":
        run_pppd(*ends)
    make = {"tun": open_tun, "ppp": open_ppp}[kind]
    one, other = make(*ends[:2]), make(*ends[2:])
    print("ready", flush=True)
    across, waiting = {one: other, other: one}, {one: b"", other: b""}
    while True:
        readable = [end for end in across if not waiting[across[end]]]
        ready, writable, _ = select.select(readable, [end for end in across if waiting[end]], [])
        for end in ready:
            try:
                waiting[across[end]] = os.read(end, 70000)
            except OSError:
                pass  # It is down.
        for end in {*writable, *(across[end] for end in ready)}:
            try:
                # Of a terminal as much as it takes; of a TUN all.
                waiting[end] = waiting[end][os.write(end, waiting[end]):]
            except BlockingIOError:
                pass
            except OSError:
                waiting[end] = b""


if __name__ == "__main__":
    main(*sys.argv[1:])
