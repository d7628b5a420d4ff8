"""A service manager that keeps descriptors from one process to the next, as systemd does for a unit with
FileDescriptorStoreMax= (sd_notify(3), sd_listen_fds(3))."""

import fcntl
import os
import pathlib
import socket
import threading

from namespace import wait_until

# Where the descriptors are put for the shell that moves them down to 3, 4 and so on.
_PARKING = 200


class DescriptorStore:
    """Listens until it is closed. `kept` are the descriptors by name, `heard` all lines of all messages, `faults` what no agent should
    ask for: there must be none in the end."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory, "manager")
        self.kept, self.heard, self.faults = {}, [], []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.05)
        self._closing, self._pauses = False, 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._closing:
            try:
                self._take(*socket.recv_fds(self._socket, 4096, 4)[:2])
            except TimeoutError:
                self._pauses += 1

    def _take(self, message, descriptors):
        lines = dict(line.partition("=")[::2] for line in message.decode().splitlines())
        self.heard += message.decode().splitlines()
        name = lines.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in lines:
            if name in self.kept:
                os.close(self.kept.pop(name))
        elif "FDSTORE" in lines:
            if lines.get("FDPOLL") != "0":
                self.faults.append(f"{name}, which would be thrown out if it is a TUN")
            if name in self.kept:
                # systemd would keep both.
                self.faults.append(f"{name} for two")
                os.close(self.kept.pop(name))
            self.kept[name], = descriptors

    def settle(self):
        """Waits until all is taken in that was said before."""
        before = self._pauses
        wait_until(lambda: self._pauses > before + 1, what="silence")

    def replace(self, name, octets=None):
        """Puts octets where a descriptor was, or nothing."""
        os.close(self.kept.pop(name))
        if octets is not None:
            self.kept[name] = os.memfd_create("test")
            os.write(self.kept[name], octets)

    @property
    def state(self):
        """The name of the one that tells what the others are."""
        name, = (name for name in self.kept if name.startswith("state-"))
        return name

    def start(self, lab, **options):
        """An agent that is told of the manager and gets what is kept."""
        names = list(self.kept)
        assert len(names) < 8, "the shell has no more places, as beyond 9 are its own"
        parked = [fcntl.fcntl(self.kept[name], fcntl.F_DUPFD, _PARKING) for name in names]
        moves = " ".join(f"{3 + place}<&{source} {source}<&-" for place, source in enumerate(parked))
        script = f"exec {moves}; " if moves else ""
        if names:
            script += f"export LISTEN_FDS={len(names)} LISTEN_FDNAMES={':'.join(names)} LISTEN_PID=$$; "
        wrapper = ["bash", "-c", f"export NOTIFY_SOCKET={self.path} FDSTORE=64; {script} exec \"$@\"", "bash"]
        try:
            return lab.agent(wrapper=wrapper, pass_fds=parked, **options)
        finally:
            for descriptor in parked:
                os.close(descriptor)

    def release(self):
        """Closes all that is kept, as systemd does when the unit has stopped."""
        for name in list(self.kept):
            os.close(self.kept.pop(name))

    def close(self):
        self._closing = True
        self._thread.join()
        self._socket.close()
        self.path.unlink()
        self.release()
        assert not self.faults, self.faults

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
