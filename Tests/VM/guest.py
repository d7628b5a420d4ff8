"""What tests in a virtual machine share: a look into the CLAT's nameless namespace, and what stands in for a user's machine."""

import contextlib
import ipaddress
import json
import os
import pathlib
import subprocess

from agent import binary
from namespace import Namespace, wait_until

UPLINK = "clat-uplink"


class ClatNamespace(Namespace):
    """The namespace that an agent holds by a descriptor only. It lives on as long as this object: close it."""

    def __init__(self, agent):
        self.name = "the CLAT's namespace"
        self._descriptor = None
        own = os.stat(f"/proc/{agent.process.pid}/ns/net").st_ino
        for entry in pathlib.Path(f"/proc/{agent.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry).startswith("net:[") and os.stat(entry).st_ino != own:
                    self._descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
                    return
        raise RuntimeError("the agent has no other namespace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def link(namespace, name):
    """`ip -details link show` of one link as Python values; None if there is none."""
    shown = namespace.run(["ip", "-json", "-details", "link", "show", "dev", name])
    return json.loads(shown.stdout)[0] if shown.returncode == 0 else None


def addresses(namespace, name):
    """The IPv6 addresses of a link, as text."""
    return [str(ipaddress.IPv6Address(bytes.fromhex(fields[0])))
            for fields in map(str.split, namespace.read("net/if_inet6").splitlines()) if fields[5] == name]


def run(*command, timeout=60):
    """Runs a command in the machine's own namespace and returns what it printed; RuntimeError if it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}")
    return done.stdout


class Machine(Namespace):
    """The virtual machine's own namespace, in which systemd and the like work."""

    def __init__(self):
        self.name = "the machine"
        self._descriptor = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)


# What a hook of a manager finds as `clat-agent`, and where it notes that it was called.
COMMAND = pathlib.Path("/usr/local/sbin/clat-agent")
CALLS = pathlib.Path("/run/clat-agent-calls")


def install_command():
    """Puts the program under test where hooks find it. Each call but `run` is noted: words, then exit status."""
    COMMAND.parent.mkdir(parents=True, exist_ok=True)
    COMMAND.write_text(f'#!/bin/sh\n{binary()} "$@"; s=$?; echo "$* $s" >> {CALLS}; exit $s\n')
    COMMAND.chmod(0o755)


def calls():
    """What hooks called so far."""
    return CALLS.read_text().splitlines() if CALLS.exists() else []


@contextlib.contextmanager
def no_ipvlan():
    """A kernel without ipvlan: the module is out and nothing loads it."""
    path = pathlib.Path("/proc/sys/kernel/modprobe")
    before = path.read_text()
    # The kernel takes a moment over the links of a namespace that has gone.
    wait_until(lambda: subprocess.run(["modprobe", "-r", "ipvlan"], stderr=subprocess.DEVNULL).returncode == 0, what="the end of ipvlan")
    path.write_text("/bin/false\n")
    try:
        yield
    finally:
        path.write_text(before)
        run("modprobe", "ipvlan")


def renumber(lab, old, new):
    """The site has another prefix: the router names it, and the one of before only as deprecated."""
    lab.site.renumber(old, new)
