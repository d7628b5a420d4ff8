"""A resolver whose answers for ipv4only.arpa a test decides: good, lying, cutting, slow, dead. One process on a router.

    with resolver.Resolver(lab.site.router.namespace, "2001:db8:1::53", prefixes=["2001:db8:64::/96"], ttl=60) as server: ...
    server.asked()      # [(seconds of time.monotonic, "udp" or "tcp"), ...]
"""

import argparse
import ipaddress
import json
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

from network import synthesise

AAAA, SOA = 28, 6


class Resolver:
    """The process. `mode` is `good`, `nxdomain`, `hijack` (one address for whatever name), `servfail`, `truncate` (by UDP only
    "ask by TCP"), `silent`, or `garbage`; `delay` seconds go by before each answer."""

    def __init__(self, namespace, address, mode="good", prefixes=(), ttl=60, delay=0.0, interface="lan"):
        if not ipaddress.IPv6Address(address).is_link_local:
            namespace.ip(f"addr replace {address}/64 dev {interface} nodad")
        command = [sys.executable, "-B", pathlib.Path(__file__), "--ttl", ttl, "--delay", delay,
                   "--interface", interface, address, mode, *prefixes]
        self._process = namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("resolver.py did not start")

    def asked(self):
        """When it was asked and how, so far."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [tuple(entry) for entry in json.loads(self._process.stdout.readline())]

    def close(self):
        """Ends it; nobody listens then."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def answer(query, arguments):
    """The answer to a query as the mode has it."""
    identity, flags = struct.unpack_from("!HH", query)
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = struct.unpack_from("!H", query, end - 4)[0]
    # Checking disabled: no DNS64 would synthesise then (RFC 6147 section 5.5).
    good = question[:-4].lower() == b"\x08ipv4only\x04arpa\0" and kind == AAAA and not flags & 0x0010
    code, addresses = 0, []
    if arguments.mode == "garbage":
        return struct.pack("!6H", identity, 0x8180, 1, 2, 0, 0) + question + b"\xc0\x0c\x00"
    if arguments.mode == "hijack":
        addresses = ["2001:db8:bad::1"]
    elif arguments.mode == "nxdomain":
        code = 3
    elif arguments.mode == "servfail":
        code = 2
    elif good:
        addresses = [synthesise(prefix, f"192.0.0.{last}") for prefix in arguments.prefixes for last in (170, 171)]
    records = b"".join(
        struct.pack("!HHHIH", 0xC00C, AAAA, 1, arguments.ttl, 16) + ipaddress.IPv6Address(address).packed
        for address in addresses)
    authority = b""
    if not addresses and code in (0, 3):
        data = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, arguments.ttl)
        authority = b"\0" + struct.pack("!HHIH", SOA, 1, 3600, len(data)) + data
    head = struct.pack("!6H", identity, 0x8180 | code, 1, len(addresses), 1 if authority else 0, 0)
    return head + question + records + authority


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("mode")
    parser.add_argument("prefixes", nargs="*")
    parser.add_argument("--ttl", type=int)
    parser.add_argument("--delay", type=float)
    parser.add_argument("--interface")
    arguments = parser.parse_args()
    where = (arguments.address, 53, 0, socket.if_nametoindex(arguments.interface))
    asked = []

    def serve_datagrams(server):
        while True:
            query, client = server.recvfrom(4096)
            asked.append((time.monotonic(), "udp"))
            if arguments.mode == "silent":
                continue
            time.sleep(arguments.delay)
            reply = answer(query, arguments)
            if arguments.mode == "truncate":
                end = query.index(b"\0", 12) + 5
                reply = query[:2] + struct.pack("!5H", 0x8380, 1, 0, 0, 0) + query[12:end]
            server.sendto(reply, client)

    def serve_streams(server):
        while True:
            stream, _ = server.accept()
            with stream:
                size = int.from_bytes(stream.recv(2, socket.MSG_WAITALL), "big")
                query = stream.recv(size, socket.MSG_WAITALL)
                asked.append((time.monotonic(), "tcp"))
                reply = answer(query, arguments)
                stream.sendall(len(reply).to_bytes(2, "big") + reply)
                stream.recv(1)

    for kind, serve in ((socket.SOCK_DGRAM, serve_datagrams), (socket.SOCK_STREAM, serve_streams)):
        server = socket.socket(socket.AF_INET6, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
        if kind == socket.SOCK_STREAM:
            server.listen(8)
        threading.Thread(target=serve, args=(server,), daemon=True).start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(asked), flush=True)


if __name__ == "__main__":
    main()
