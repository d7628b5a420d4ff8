"""contrib/option-108 with managers that can ask for DHCPv4 option 108 (RFC 8925), which those of Debian 12 cannot: the systemd-networkd and
the NetworkManager of the release after it, in a chroot. (dhcpcd is in test_dhcp.py.)"""

import pathlib
import shutil

import pytest

import guest
from agent import REPOSITORY
from dhcp import Server, follows_the_agent, native, option_108
from manager import UPLINK, lab, start_agent  # noqa: F401: a fixture
from namespace import wait_until

pytestmark = pytest.mark.agent
ROOT = REPOSITORY / ".build-vm/newer/root"
TOOLS = pathlib.Path("/run/newer-bin")


@pytest.fixture(scope="module", autouse=True)
def newer():
    """A release of its own, with this machine's kernel, bus and users; its tools are in TOOLS."""
    for name in ("dev", "proc", "run", "sys"):
        guest.run("mount", "--rbind", f"/{name}", ROOT / name)
    for name in ("passwd", "group", "machine-id"):
        shutil.copy(f"/etc/{name}", ROOT / "etc" / name)
    TOOLS.mkdir()
    for name in ("networkctl", "nmcli"):
        (TOOLS / name).write_text(f'#!/bin/sh\nSYSTEMD_IGNORE_CHROOT=1 exec chroot {ROOT} {name} "$@"\n')
        (TOOLS / name).chmod(0o755)


def start(kind, *command):
    guest.run("systemd-run", "--unit=newer", f"--property=Type={kind}", "--collect", "chroot", ROOT, *command)


class Networkd:
    """systemd-networkd."""

    name = "networkd"

    def start(self):
        directory = pathlib.Path("/run/systemd/network")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "10-uplink.network").write_text(f"[Match]\nName={UPLINK}\n[Network]\nIPv6AcceptRA=yes\nDHCP=ipv4\n")
        start("notify", "/usr/lib/systemd/systemd-networkd")


class NetworkManager:
    """NetworkManager, with one connection."""

    name = "NetworkManager"

    def start(self):
        # Or the bus starts that of this release.
        guest.run("systemctl", "mask", "--runtime", "NetworkManager")
        start("exec", "/usr/sbin/NetworkManager", "--no-daemon")
        nmcli = TOOLS / "nmcli"
        wait_until(lambda: guest.run("sh", "-c", f"{nmcli} -t -f RUNNING general || :") == "running\n", timeout=30, what="NetworkManager")
        # Debian leaves a veth alone unless told; the lab's cable is one.
        guest.run(nmcli, "device", "set", UPLINK, "managed", "yes")
        guest.run(nmcli, "connection", "add", "type", "ethernet", "ifname", UPLINK, "con-name", "wired",
                  "ipv4.method", "auto", "ipv6.method", "auto")
        guest.run(nmcli, "--wait", "60", "connection", "up", "wired", timeout=90)


@pytest.mark.parametrize("made", [Networkd, NetworkManager])
def test_it_asks_where_a_clat_is_possible_and_only_there(lab, made):
    manager = made()
    server = Server(lab, offers=True)
    try:
        manager.start()
        wait_until(lambda: native(lab), timeout=60, what="a lease")
        assert not server.is_asked
        agent = start_agent(lab)
        try:
            assert agent.wait_until(lambda entry: entry["reason"]["code"] == "native-ipv4", "native IPv4", UPLINK)["ipv6OnlyCapable"]
            with option_108(manager.name, TOOLS):
                follows_the_agent(lab, server, agent)
        finally:
            print(agent.log)
            assert agent.stop() == 0
    finally:
        server.close()
        print(guest.run("journalctl", "--no-pager", "-b", "-u", "newer"))
        guest.run("sh", "-c", "systemctl stop newer || :")
