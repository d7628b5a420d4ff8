"""A toy of a VPN, for kernels without one: IPv4 in UDP between two TUNs, no cipher. Runs until it is ended.

    tunnel.py NAME connect HOST PORT MARK     the client; its packets bear a mark, as wg-quick's do
    tunnel.py NAME listen ADDRESS PORT        the server, which answers whom it heard last
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SO_MARK = 36


def main(name, what, host, port, mark="0"):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer = None
    if what == "connect":
        outer.setsockopt(socket.SOL_SOCKET, SO_MARK, int(mark))
        peer = (host, int(port))
    else:
        outer.bind((host, int(port)))
    print("ready", flush=True)
    while True:
        for ready in select.select([tun, outer], [], [])[0]:
            try:
                if ready == tun:
                    packet = os.read(tun, 65535)
                    if peer and packet[0] >> 4 == 4:
                        outer.sendto(packet, peer)
                else:
                    packet, sender = outer.recvfrom(65535)
                    if what == "listen":
                        peer = sender
                    os.write(tun, packet)
            except OSError:
                pass  # No way there at the moment, or the TUN is down.


if __name__ == "__main__":
    main(*sys.argv[1:])
