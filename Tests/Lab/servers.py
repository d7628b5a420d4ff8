"""The IPv4-only host of the lab's Internet, one process: HTTP, echo, discard and DNS servers on every address it has.

* HTTP, port 80: `GET /SIZE` (`/100M`, `/1G`, `/4096`; suffixes k, M, G are powers of 1000) is that many octets of
  `content`;
  `GET /whoami` says as whom we see the client ("address port"); `PUT` or `POST` anywhere answers {"size", "sha256"} as
  JSON.
* TCP and UDP port 7 send everything back; TCP port 9 swallows everything.
* DNS, UDP and TCP port 53: the names in `ZONE`, NODATA for their other types, NXDOMAIN for the rest.
"""

import hashlib
import http.server
import ipaddress
import json
import random
import socket
import socketserver
import struct
import threading

SIZES = {"k": 10**3, "M": 10**6, "G": 10**9}
_BLOCK = 1 << 18
_SEED = random.Random(464).randbytes(_BLOCK)

A, SOA, TXT, AAAA = 1, 6, 16, 28

# The well-known name's own addresses and lifetime are those of the real zone (RFC 7050 section 8.2).
ZONE = {
    "www.example.com": (60, {A: ["198.51.100.10"]}),
    "two.example.com": (60, {A: ["198.51.100.10", "203.0.113.10"]}),
    "txt.example.com": (60, {TXT: ["the lab's Internet"]}),
    "big.example.com": (60, {TXT: [f"{number:02} " + "0123456789abcdef" * 15 for number in range(12)]}),
    "ipv4only.arpa": (86400, {A: ["192.0.0.170", "192.0.0.171"]}),
}


def content(size):
    """`size` octets in pieces, the same for all time. Each piece begins with its number and is turned by it, so that a
    piece that is lost, doubled or out of place changes the hash."""
    number = 0
    while size > 0:
        turn = number * 1009 % _BLOCK
        piece = number.to_bytes(8, "big") + _SEED[turn:] + _SEED[:turn]
        yield piece[:size]
        size -= len(piece)
        number += 1


def parse_size(text):
    """Octets meant by `100M`, `5k` or `4096`."""
    return int(text[:-1]) * SIZES[text[-1]] if text[-1] in SIZES else int(text)


def sha256(size):
    """Hexadecimal SHA-256 of `content(size)`."""
    digest = hashlib.sha256()
    for piece in content(size):
        digest.update(piece)
    return digest.hexdigest()


class Web(http.server.BaseHTTPRequestHandler):
    """See the head of the file."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/whoami":
            return self._answer(200, "{} {}\n".format(*self.client_address).encode())
        try:
            size = parse_size(self.path[1:])
        except (ValueError, IndexError):
            return self._answer(404, b"no such size\n")
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for piece in content(size):
            self.wfile.write(piece)

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers.get("Content-Length", 0))
        size = left
        while left > 0 and (piece := self.rfile.read(min(left, _BLOCK))):
            digest.update(piece)
            left -= len(piece)
        self._answer(200, json.dumps({"size": size - left, "sha256": digest.hexdigest()}).encode() + b"\n")

    do_POST = do_PUT

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, reply = self.request
        reply.sendto(data, self.client_address)


class Discard(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1 << 20):
            pass


def _name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def _record_data(kind, value):
    if kind == A:
        return ipaddress.IPv4Address(value).packed
    if kind == AAAA:
        return ipaddress.IPv6Address(value).packed
    return bytes([len(value)]) + value.encode()


def dns_answer(query, limit):
    """The answer to a DNS query (RFC 1035 section 4), truncated to its question if longer than `limit` octets; None for
    rubbish."""
    try:
        identity, flags, questions = struct.unpack_from("!HHH", query)
        labels, position = [], 12
        while length := query[position]:
            labels.append(query[position + 1:position + 1 + length].decode().lower())
            position += 1 + length
        kind, _ = struct.unpack_from("!HH", query, position + 1)
        question = query[12:position + 5]
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    if questions != 1 or flags & 0x8000:
        return None
    name = ".".join(labels)
    ttl, records = ZONE.get(name, (60, None))
    answers = [
        struct.pack("!HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data
        for data in (_record_data(kind, value) for value in (records or {}).get(kind, []))]
    authority = b""
    if not answers:
        data = _name("ns.example.com") + _name("root.example.com") + struct.pack("!5I", 1, 3600, 600, 86400, 60)
        zone = name.partition(".")[2] if records is None else name
        authority = _name(zone) + struct.pack("!HHIH", SOA, 1, 60, len(data)) + data
    # Response, authoritative, recursion available; recursion desired as it was asked; NXDOMAIN is 3.
    head = 0x8480 | flags & 0x0100 | (3 if records is None else 0)
    whole = struct.pack("!6H", identity, head, 1, len(answers), 1 if authority else 0, 0) + question
    whole += b"".join(answers) + authority
    if len(whole) > limit:
        return struct.pack("!6H", identity, head | 0x0200, 1, 0, 0, 0) + question
    return whole


class DNSDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        query, reply = self.request
        # Whoever sends an OPT record (RFC 6891) takes more than 512 octets; the lab's servers offer 1232.
        if answer := dns_answer(query, 1232 if query[10:12] != b"\0\0" else 512):
            reply.sendto(answer, self.client_address)


class DNSStream(socketserver.StreamRequestHandler):
    def handle(self):
        while len(head := self.rfile.read(2)) == 2:
            answer = dns_answer(self.rfile.read(int.from_bytes(head, "big")), 65535)
            if answer is None:
                return
            self.wfile.write(len(answer).to_bytes(2, "big") + answer)


class _Streams(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass  # A client that goes away in the middle is part of a test.


class _Datagrams(socketserver.UDPServer):
    allow_reuse_address = True
    max_packet_size = 65535

    def server_bind(self):
        # The answer's source must be the address that was asked, so one socket per address, none on 0.0.0.0.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        super().server_bind()

    def handle_error(self, *_):
        pass


def serve(connection, addresses):
    """Serves until the connection ends. Says so once everything is bound."""
    servers = [
        _Streams(("", port), handler) for port, handler in [(80, Web), (7, Echo), (9, Discard), (53, DNSStream)]]
    for address in addresses:
        servers += [_Datagrams((address, 7), EchoDatagram), _Datagrams((address, 53), DNSDatagram)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    connection.send("ready")
    connection.recv()
