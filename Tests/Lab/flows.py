"""A TCP transfer that takes its time, to see what an interruption does to it."""

import hashlib
import socket
import threading
import time

import servers
from namespace import PATIENCE


class Transfer:
    """A download of `size` octets in a thread: one connection, its content compared at the end. It takes `seconds`, and the last
    fifth longer, until `finish`: what is to happen meanwhile may take its time."""

    def __init__(self, namespace, address, size=20 * 10**6, seconds=3.0):
        self._size, self._seconds = size, seconds
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Small, so that the flow goes on all the time and does not wait in a buffer.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        self._socket.settimeout(30 * PATIENCE)
        self._socket.connect((address, 80))
        self._received, self._digest, self._error = 0, hashlib.sha256(), None
        self._may_end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._socket.sendall(f"GET /{self._size} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._socket.recv(1)
            begun = time.monotonic()
            while data := self._socket.recv(1 << 14):
                self._received += len(data)
                self._digest.update(data)
                if self._received > 0.8 * self._size:
                    self._may_end.wait(0.05)
                    continue
                ahead = begun + self._seconds * self._received / self._size - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
        except OSError as error:
            self._error = error

    @property
    def is_running(self):
        return self._thread.is_alive()

    def finish(self):
        """Waits for the end; AssertionError where something was lost, or the connection."""
        self._may_end.set()
        self._thread.join(60 * PATIENCE)
        self._socket.close()
        assert not self._error, f"after {self._received} octets: {self._error}"
        assert self._received == self._size
        assert self._digest.hexdigest() == servers.sha256(self._size)
