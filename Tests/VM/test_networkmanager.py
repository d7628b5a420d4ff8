"""NetworkManager, under systemd."""

import pathlib
import shutil

import pytest

import guest
from agent import REPOSITORY
from manager import *  # noqa: F403: the tests
from manager import DEVICE, UPLINK

pytestmark = pytest.mark.agent
HOOK = REPOSITORY / "contrib/NetworkManager/50-clat-agent"


class NetworkManager:
    """With one connection, for the uplink."""

    name = "NetworkManager"
    connection = "wired"

    def __init__(self):
        target = pathlib.Path("/etc/NetworkManager/dispatcher.d/50-clat-agent")
        shutil.copy(HOOK, target)
        target.chmod(0o755)

    def start(self):
        if "inactive" not in guest.run("sh", "-c", "systemctl is-active NetworkManager || :"):
            return
        guest.run("systemctl", "start", "NetworkManager")
        # Debian leaves a veth alone unless told; the lab's cable is one.
        guest.run("nmcli", "device", "set", UPLINK, "managed", "yes")
        guest.run("nmcli", "connection", "add", "type", "ethernet", "ifname", UPLINK, "con-name", self.connection,
                  "ipv4.method", "auto", "ipv6.method", "auto", "ipv6.addr-gen-mode", "eui64")
        guest.run("nmcli", "--wait", "60", "connection", "up", self.connection)

    def restart(self):
        guest.run("systemctl", "restart", "NetworkManager")
        guest.run("nmcli", "device", "set", UPLINK, "managed", "yes")

    def stop(self):
        guest.run("systemctl", "stop", "NetworkManager")

    def manages(self, interface):
        devices = dict(line.split(":") for line in guest.run("nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines())
        return devices.get(interface) not in (None, "unmanaged", "connected (externally)")

    def poke(self, lab):
        guest.run("nmcli", "--wait", "60", "connection", "up", self.connection)

    def hook(self):
        guest.run(HOOK, UPLINK, "up")


@pytest.fixture(scope="module")
def manager():
    made = NetworkManager()
    yield made
    print(guest.run("journalctl", "--no-pager", "-b", "-u", "NetworkManager", "-u", "NetworkManager-dispatcher"))
    made.stop()


def test_the_device_appears_as_unmanaged(lab, up):
    states = guest.run("nmcli", "-t", "-f", "DEVICE,STATE", "device")
    assert f"{DEVICE}:" in states and not any(
        line.startswith(DEVICE) and line.endswith(":connected") for line in states.splitlines()), states
