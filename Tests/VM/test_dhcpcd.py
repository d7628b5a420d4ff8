"""dhcpcd, without systemd: it takes every interface it meets, ours too unless it is told."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

import guest
from agent import REPOSITORY
from manager import *  # noqa: F403: the tests
from manager import DEVICE, UPLINK
from namespace import wait_until

pytestmark = pytest.mark.agent
HOOK = REPOSITORY / "contrib/dhcpcd/50-clat-agent"


class Dhcpcd:
    """Master mode: all interfaces, both families. Without a DHCP server it takes a link-local IPv4 address with a default route."""

    name = "dhcpcd"

    def __init__(self, log):
        shutil.copy(HOOK, "/usr/lib/dhcpcd/dhcpcd-hooks/50-clat-agent")
        self._log, self._process = log, None
        # As contrib/dhcpcd says.
        self.configure("denyinterfaces clat-*")

    def configure(self, *lines):
        """For its next start; there is no udev to wait for."""
        pathlib.Path("/run/dhcpcd.conf").write_text("\n".join([*lines, "slaac hwaddr", "nodev", ""]))

    def start(self):
        if not self._process:
            self._process = subprocess.Popen(
                ["dhcpcd", "-B", "-f", "/run/dhcpcd.conf"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                start_new_session=True)
            wait_until(lambda: guest.addresses(guest.Machine(), UPLINK), timeout=30, what="dhcpcd")

    def stop(self):
        if not self._process:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            # Some releases do not always stop when told to (NetworkConfiguration/dhcpcd #587); what it does then is not judged here.
            print("dhcpcd does not end: killed")
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
        self._process = None

    def restart(self):
        self.stop()
        self.start()

    def manages(self, interface):
        self._log.seek(0)
        return f"{interface}:" in self._log.read()

    def poke(self, lab):
        lab.switch.ip("link set laptop down")
        time.sleep(1)
        lab.switch.ip("link set laptop up")

    def hook(self):
        guest.run("env", f"interface={UPLINK}", "reason=CARRIER", "sh", "-c", f". {HOOK}")


@pytest.fixture(scope="module")
def manager():
    with open("/run/dhcpcd.log", "w+") as log:
        made = Dhcpcd(log)
        yield made
        made.stop()
        log.seek(0)
        print(log.read())


def test_a_link_local_ipv4_address_is_not_native_ipv4(lab, up):
    wait_until(lambda: " 169.254." in lab.laptop.run(["ip", "-4", "address", "show", "dev", UPLINK], check=True).stdout,
               timeout=60, what="a link-local IPv4 address")
    up.wait_for("on", UPLINK)
    assert works(lab)


def test_where_it_takes_our_device_too_ipv4_works_all_the_same(lab, up, manager):
    """As where nobody has told it not to. What it does there is its own affair; the last test, as it spoils the others."""
    manager.stop()
    manager.configure()
    manager.start()
    wait_until(lambda: manager.manages(DEVICE), timeout=30, what="dhcpcd on our device")
    wait_until(lambda: " 169.254." in lab.laptop.run(["ip", "-4", "address", "show", "dev", DEVICE], check=True).stdout,
               timeout=60, what="a link-local IPv4 address there")
    up.wait_for("on", UPLINK, timeout=60)
    print(lab.laptop.run(["ip", "-4", "route"]).stdout, lab.laptop.run(["ip", "address"]).stdout)
    assert works(lab)
