"""clat-agent as a process of a test: start it in a namespace, ask its status, stop it, kill it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from namespace import PATIENCE, wait_until

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def binary():
    """The program under test: CLAT_AGENT from the environment, else the release build of this tree."""
    return pathlib.Path(os.environ.get("CLAT_AGENT") or REPOSITORY / ".build/release/clat-agent").absolute()


# A device node that anybody may open, as udev makes it, in place of the machine's own; then the words that follow. $0 is a directory.
_OPEN_TUN = ('mount -t tmpfs none "$0" && mknod -m 666 "$0/tun" c 10 200 && mount --bind "$0/tun" /dev/net/tun && exec "$@"')
_GRANTED = "-all,+net_admin,+net_raw,+sys_admin"


def without_root(directory):
    """Words before an agent that make it `nobody` with three capabilities, and its state directory, which is nobody's too. For an
    agent whose directory is `directory / "agent-1"`."""
    os.chmod(directory, 0o755)
    for name in ("agent-1", "state", "dev"):
        (directory / name).mkdir()
        os.chown(directory / name, 65534, 65534)
    return ["unshare", "--mount", "sh", "-c", _OPEN_TUN, str(directory / "dev"), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
            f"--inh-caps={_GRANTED}", f"--ambient-caps={_GRANTED}", f"--bounding-set={_GRANTED}", "--no-new-privs"]


class Agent:
    """A running `clat-agent run`. `wrapper` are words before the command, as `setpriv ...`; `options` are those of
    `subprocess.Popen`, and `program` is another file than the one under test."""

    def __init__(self, namespace, directory, *arguments, wrapper=(), program=None, **options):
        self.namespace = namespace
        self.runtime_directory = directory
        directory.mkdir(exist_ok=True)
        self._log = directory / f"log-{len(list(directory.glob('log-*')))}"
        if "--state-dir" not in arguments:
            # Never the machine's own.
            arguments = ("--state-dir", str(directory.parent / "state"), *arguments)
        if "--config" not in arguments:
            (directory / "no-config.toml").touch()
            arguments = ("--config", str(directory / "no-config.toml"), *arguments)
        self.command = [*wrapper, str(program or binary()), "run", "--runtime-dir", str(directory), *arguments]
        with open(self._log, "w") as log:
            self.process = namespace.popen(self.command, stdout=log, stderr=subprocess.STDOUT, **options)

    @property
    def log(self):
        """All that it has said so far."""
        return self._log.read_text(errors="replace")

    def status_text(self, *arguments):
        """What `clat-agent status` prints. Its exit status is 0 where IPv4 is on, 1 where it is not, 2 without an agent."""
        command = [binary(), "status", "--runtime-dir", self.runtime_directory, *arguments]
        result = self.namespace.run(command)
        if result.returncode not in (0, 1):
            raise RuntimeError(f"{command} ended with {result.returncode}: {result.stderr}")
        return result.stdout

    def _connect(self, client):
        """Connects to the control socket; where as many wait as can, waits with them, which a socket with a timeout does not."""
        end = time.monotonic() + client.gettimeout()
        while True:
            try:
                return client.connect(str(self.runtime_directory / "control"))
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def status(self):
        """What `clat-agent status --json` prints, as Python values, by the control socket: a process for each look would take
        an emulated machine's only processor from the agent. RuntimeError without an agent."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5 * PATIENCE)
            try:
                self._connect(client)
                client.sendall(b'{"method":"org.clatagent.Status"}\0')
                while not answer.endswith(b"\0"):
                    part = client.recv(1 << 16)
                    if not part:
                        raise ConnectionError("it has ended")
                    answer += part
            except OSError as error:
                raise RuntimeError(f"{self.runtime_directory}: no status: {error}") from None
        return json.loads(answer[:-1])["parameters"]

    def interface(self, name="eth0"):
        """The part of the status that is about one uplink; None while the agent does not know it or does not answer
        yet."""
        if self.process.poll() is not None:
            raise AssertionError(f"the agent ended with {self.process.returncode}:\n{self.log}")
        try:
            interfaces = self.status()["interfaces"]
        except RuntimeError:
            return None
        return next((entry for entry in interfaces if entry["interface"] == name), None)

    def wait_for(self, state, interface="eth0", timeout=20.0):
        """Waits until an uplink is in `state` and returns its part of the status."""
        return self.wait_until(lambda entry: entry["state"] == state, f"{interface} {state}", interface, timeout)

    def wait_until(self, predicate, what, interface="eth0", timeout=20.0):
        """Waits until an uplink's part of the status is as the predicate wants, and returns it."""
        def reached():
            entry = self.interface(interface)
            return entry if entry and predicate(entry) else None
        try:
            return wait_until(reached, timeout, interval=0.05, what=what)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it says {self.interface(interface)}\n{self.log}") from None

    def wait(self, timeout=20.0):
        """Waits until it ends by itself; its exit status."""
        return self.process.wait(timeout * PATIENCE)

    def stop(self, timeout=20.0):
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout * PATIENCE)

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
