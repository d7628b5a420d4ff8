"""A DHCPv4 server on the lab's router, and what must hold of a client that contrib/option-108 drives."""

import contextlib
import os
import pathlib
import re
import subprocess

import guest
from agent import REPOSITORY, binary
from manager import UPLINK, works
from namespace import wait_until


class Server:
    """dnsmasq, with or without option 108; native IPv4 leads to it and no further. What is in its log is of the present process."""

    _log = pathlib.Path("/run/dnsmasq.log")

    def __init__(self, lab, offers):
        self._router = lab.site.router.namespace
        self._router.run(["ip", "address", "replace", "10.64.0.1/24", "dev", "lan"], check=True)
        pathlib.Path("/run/dnsmasq.leases").unlink(missing_ok=True)
        self._start(offers)

    def _start(self, offers):
        self._log.unlink(missing_ok=True)
        option = ["--dhcp-option=108,0:0:1:2c"] if offers else []  # 300 s, the least there is (section 3.4)
        self._process = self._router.popen(
            ["dnsmasq", "--keep-in-foreground", "--port=0", "--interface=lan", "--bind-interfaces", "--user=root",
             "--dhcp-range=10.64.0.100,10.64.0.200,2m", "--dhcp-leasefile=/run/dnsmasq.leases", "--pid-file=",
             "--log-dhcp", f"--log-facility={self._log}", *option])
        wait_until(lambda: "started" in self.log, timeout=20, what="dnsmasq")

    @property
    def log(self):
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def is_asked(self):
        """Whether a client has asked for the option."""
        return re.search(r"requested options:.*\b108\b", self.log) is not None

    @property
    def has_sent(self):
        """Whether a client was sent the option."""
        return re.search(r"sent size: +4 option:108\b", self.log) is not None

    def restart(self, offers):
        """It keeps its leases, and offers something else."""
        self.close()
        self._start(offers)

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        print(self.log[-3000:])


def native(lab):
    """Whether the laptop has a lease."""
    return "10.64.0." in lab.laptop.run(["ip", "-4", "address", "show", "dev", UPLINK], check=True).stdout


@contextlib.contextmanager
def option_108(manager, path="", **environment):
    """contrib/option-108 at work; `path` is where it finds the manager's tools, if not where all are."""
    with open("/run/option-108.log", "w+") as log:
        process = subprocess.Popen(
            [REPOSITORY / "contrib/option-108/clat-agent-option-108", manager, UPLINK], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
            env=os.environ | {"PATH": f"{path}:{guest.COMMAND.parent}:{os.environ['PATH']}"} | environment)
        try:
            yield
        finally:
            os.killpg(process.pid, 15)
            process.wait(20)
            log.seek(0)
            print(log.read())


def follows_the_agent(lab, server, agent):
    """The client does without a lease while a CLAT is possible, has one while none is, and lets go of it again. The server sends the
    option to who asks for it."""
    wait_until(lambda: server.is_asked and server.has_sent, timeout=60, what="a question for option 108, and its answer")
    wait_until(lambda: not native(lab), timeout=40, what="an end of the lease")
    agent.wait_for("on", UPLINK, timeout=60)
    assert works(lab)
    lab.laptop.run([binary(), "disable", UPLINK], check=True)
    wait_until(lambda: native(lab), timeout=60, what="a lease")
    server.restart(offers=True)
    lab.laptop.run([binary(), "enable", UPLINK], check=True)
    wait_until(lambda: server.is_asked and server.has_sent, timeout=60, what="another question for option 108")
    wait_until(lambda: not native(lab), timeout=40, what="an end of the second lease")
    agent.wait_for("on", UPLINK, timeout=60)
    assert works(lab)
