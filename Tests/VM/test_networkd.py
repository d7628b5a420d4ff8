"""systemd-networkd with networkd-dispatcher, under systemd."""

import pathlib
import shutil

import pytest

import guest
from agent import REPOSITORY
from manager import *  # noqa: F403: the tests
from manager import UPLINK

pytestmark = pytest.mark.agent
HOOK = REPOSITORY / "contrib/networkd-dispatcher/50-clat-agent"


class Networkd:
    """Configured for the uplink, and for no other link."""

    name = "systemd-networkd"

    def __init__(self):
        directory = pathlib.Path("/run/systemd/network")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "10-uplink.network").write_text(f"[Match]\nName={UPLINK}\n[Network]\nIPv6AcceptRA=yes\nDHCP=yes\n")
        for state in ("routable", "configured"):
            target = pathlib.Path(f"/etc/networkd-dispatcher/{state}.d/50-clat-agent")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HOOK, target)
            target.chmod(0o755)

    def start(self):
        guest.run("systemctl", "start", "systemd-networkd", "networkd-dispatcher")

    def restart(self):
        guest.run("systemctl", "restart", "systemd-networkd")

    def stop(self):
        guest.run("systemctl", "stop", "systemd-networkd", "networkd-dispatcher")

    def manages(self, interface):
        return "unmanaged" not in guest.run("networkctl", "--no-pager", "--no-legend", "list", interface)

    def poke(self, lab):
        guest.run("networkctl", "reconfigure", UPLINK)

    def hook(self):
        guest.run("env", f"IFACE={UPLINK}", "STATE=routable", HOOK)


@pytest.fixture(scope="module")
def manager():
    made = Networkd()
    yield made
    print(guest.run("journalctl", "--no-pager", "-b", "-u", "systemd-networkd", "-u", "networkd-dispatcher"))
    made.stop()
