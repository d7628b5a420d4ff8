"""Network namespaces as objects: enter one, run a command in it, end what runs in it.

Needs root, or `unshare --user --map-root-user --net --mount`. A command is started by a thread that has entered the
namespace, so it costs one fork and exec, and no `ip netns exec`: in an emulated machine every exec takes a tenth of a
second. The namespaces have names (`ip netns list` shows them), so that a person can look into them with `ip -n NAME`.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

NETNS = pathlib.Path("/run/netns")
# Every timeout is multiplied by this: an emulated machine needs 5.
PATIENCE = float(os.environ.get("CLAT_LAB_PATIENCE", "1"))

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000  # os.CLONE_NEWNET came with Python 3.12


def _setns(descriptor):
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def wait_until(predicate, timeout=10.0, interval=0.02, what="the condition"):
    """Calls `predicate` until it returns something true, and returns that; TimeoutError names `what`."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout * PATIENCE:g} s")
        time.sleep(interval)


class Namespace:
    """A named network namespace that exists already (see `create`)."""

    def __init__(self, name):
        self.name = name
        self._descriptor = os.open(NETNS / name, os.O_RDONLY | os.O_CLOEXEC)

    def close(self):
        """Lets go of the namespace; its name and its life are not touched."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def entered(self):
        """The calling thread, and it alone, is in the namespace within the `with` block.

        /proc/sys/net shows this namespace then; /proc/net does not (that is the process's): read /proc/thread-self/net.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._descriptor)
            try:
                yield self
            finally:
                _setns(home)
        finally:
            os.close(home)

    def popen(self, command, **options):
        """Starts `command` in the namespace; text streams, standard input empty unless told otherwise."""
        with self.entered():
            return subprocess.Popen(
                [str(word) for word in command], **({"stdin": subprocess.DEVNULL, "text": True} | options))

    def run(self, command, timeout=60, check=False, stdin=None, **options):
        """Runs `command` to its end; the result has returncode, stdout and stderr (text).

        With `check`, a status other than 0 raises RuntimeError with what the command said.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        options["stdin"] = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.popen(command, **options) as process:
            try:
                output, errors = process.communicate(stdin, timeout=timeout * PATIENCE)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode != 0:
            raise RuntimeError(f"{self.name}: {command} ended with {process.returncode}: {output or ''}{errors or ''}")
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def ip(self, commands):
        """Runs lines of `ip` commands (without the word `ip`) as one batch; IPv4 and IPv6 addresses are told by their
        looks."""
        lines = "\n".join(line.strip() for line in commands.strip().splitlines())
        return self.run(["ip", "-batch", "-"], check=True, stdin=lines + "\n")

    def socket(self, *arguments):
        """A socket (arguments as of `socket.socket`) that lives in the namespace."""
        with self.entered():
            return socket.socket(*arguments)

    def read(self, path):
        """The text of a file under /proc as this namespace sees it (`net/if_inet6` stands for
        /proc/thread-self/net/if_inet6)."""
        with self.entered():
            return pathlib.Path("/proc/thread-self", path).read_text()

    def sysctl(self, **values):
        """Sets sysctls of the namespace: `ipv6__conf__all__forwarding=1` means net.ipv6.conf.all.forwarding."""
        with self.entered():
            for name, value in values.items():
                pathlib.Path("/proc/sys/net", name.replace("__", "/")).write_text(str(value))

    def processes(self):
        """The ids of all processes whose main thread is in this namespace."""
        status = os.fstat(self._descriptor)
        return _processes({(status.st_dev, status.st_ino)})


def _processes(namespaces):
    """The ids of processes whose main thread is in one of `namespaces` (pairs of device and inode)."""
    found = []
    for entry in os.listdir("/proc"):
        # The main thread's namespace: this process's own threads may be guests in one of them.
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{entry}/ns/net")
                if (status.st_dev, status.st_ino) in namespaces:
                    found.append(int(entry))
    return [process for process in found if process != os.getpid()]


def create(names):
    """Makes empty namespaces, loopback up, and returns them in order."""
    lines = "".join(f"netns add {name}\n" for name in names)
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
    return [Namespace(name) for name in names]


def remove(names):
    """Ends by SIGKILL every process that runs in the namespaces, then removes them. Names that do not exist are no
    error."""
    identities = set()
    for name in names:
        with contextlib.suppress(OSError):
            status = os.stat(NETNS / name)
            identities.add((status.st_dev, status.st_ino))
    deadline = time.monotonic() + 10
    while (processes := [p for p in _processes(identities) if is_alive(p)]) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    lines = "".join(f"netns del {name}\n" for name in names if (NETNS / name).exists())
    if lines:
        # -force: another lab's start may be sweeping the same leftovers at this moment.
        subprocess.run(["ip", "-force", "-batch", "-"], input=lines, text=True, check=False, stderr=subprocess.DEVNULL)


def is_alive(process):
    """Whether there is such a process, other than one that only its parent's wait keeps in the table."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def in_user_namespace():
    """Whether this is another user namespace than the machine's own."""
    return pathlib.Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def prepare():
    """Makes /run/netns usable. In a user namespace it gets a tmpfs of its own, so that no trace is left on the
    machine."""
    if os.geteuid() != 0:
        raise PermissionError("the lab needs root, or unshare --user --map-root-user --net --mount")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise PermissionError("the lab's NAT64 needs to read and write /dev/net/tun, which this user may not")
    if not in_user_namespace():
        return
    try:
        NETNS.mkdir(exist_ok=True)
    except OSError:
        # An unprivileged user cannot write in /run either. Only this mount namespace sees the cover.
        subprocess.run(["mount", "-t", "tmpfs", "lab", "/run"], check=True)
        NETNS.mkdir()
    # Fields of mountinfo: 3 is the mounted file system's own directory, 4 where it is mounted. The machine's own
    # /run/netns, if seen here, is a directory bound over itself, so its field 3 is not "/".
    mounts = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    if not any(fields[3] == "/" and fields[4] == str(NETNS) for fields in mounts):
        subprocess.run(["mount", "-t", "tmpfs", "lab", str(NETNS)], check=True)
