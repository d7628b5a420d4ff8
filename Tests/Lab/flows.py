"""Traffic that takes its time, to see what an interruption does to it: a TCP transfer, and datagrams each millisecond."""

import hashlib
import select
import socket
import threading
import time

import servers
from namespace import PATIENCE


class Transfer:
    """A download of `size` octets that takes `seconds`, in a thread: one connection, its content compared at the end."""

    def __init__(self, namespace, address, size=20 * 10**6, seconds=3.0):
        self._size, self._seconds = size, seconds
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Small, so that the flow goes on all the time and does not wait in a buffer.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        self._socket.settimeout(30 * PATIENCE)
        self._socket.connect((address, 80))
        self._received, self._digest, self._error = 0, hashlib.sha256(), None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._socket.sendall(f"GET /{self._size} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._socket.recv(1)
            begun = time.monotonic()
            while data := self._socket.recv(1 << 16):
                self._received += len(data)
                self._digest.update(data)
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
        self._thread.join(60 * PATIENCE)
        self._socket.close()
        assert not self._error, f"after {self._received} octets: {self._error}"
        assert self._received == self._size
        assert self._digest.hexdigest() == servers.sha256(self._size)


class Beat:
    """UDP echo requests to an address, one each `interval` seconds, in a thread, while the `with` block lasts. Then
    `lost` is how many had no answer and `silence` the longest time, in seconds, without one."""

    def __init__(self, namespace, address, interval=0.001):
        self._interval = interval
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # SO_RCVBUFFORCE: what this process is too slow for is not lost.
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 21)
        self._socket.connect((address, 7))
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = self.lost = 0
        self.silence = 0.0

    def _run(self):
        answered, last, due = set(), time.monotonic(), time.monotonic()
        end = None
        while end is None or (time.monotonic() < end and len(answered) < self.sent):
            now = time.monotonic()
            if self._closing and end is None:
                end = now + 0.5 * PATIENCE
            if end is None and now >= due:
                due = max(due + self._interval, now)
                try:
                    self._socket.send(self.sent.to_bytes(8, "big"))
                    self.sent += 1
                except OSError:
                    pass  # no route: that is silence too
            if select.select([self._socket], [], [], max(0.0, min(due - time.monotonic(), 0.01)))[0]:
                try:
                    while True:
                        answered.add(self._socket.recv(64))
                        now = time.monotonic()
                        self.silence = max(self.silence, now - last)
                        last = now
                except OSError:
                    pass
        self.lost = self.sent - len(answered)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing = True
        self._thread.join()
        self._socket.close()

    def __str__(self):
        return f"longest silence {self.silence * 1000:.1f} ms, {self.lost} of {self.sent} lost"
