"""The service as it is installed: under systemd, as a user of its own, with everything that the unit takes away from it."""

import json
import pathlib
import shutil
import subprocess

import pytest

import snapshot
from agent import REPOSITORY, binary
from flows import Transfer
from lab import Lab
from namespace import wait_until
from probe import Outage

pytestmark = pytest.mark.agent
UNIT = pathlib.Path("/run/systemd/system/clat-agent.service")
# Where the unit lets its program be: it has a /tmp of its own and no home directories, and the tree may be in either.
PROGRAM = pathlib.Path("/run/clat-agent-under-test")


def systemctl(*words, check=True):
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=check).stdout


@pytest.fixture
def service():
    """The unit as it is, but for where it finds program and user, in the laptop's namespace."""
    # As udev does, which is not here.
    pathlib.Path("/dev/net/tun").chmod(0o666)
    with Lab() as lab:
        text = (REPOSITORY / "contrib/systemd/clat-agent.service").read_text()
        assert "User=clat-agent\n" in text
        shutil.copy2(binary(), PROGRAM)
        UNIT.write_text(text.replace("@SBINDIR@/clat-agent", str(PROGRAM)).replace("User=clat-agent\n", "User=nobody\n"))
        drop = pathlib.Path(f"{UNIT}.d/lab.conf")
        drop.parent.mkdir(exist_ok=True)
        # /etc and /var cannot be written here.
        drop.write_text(f"[Service]\nNetworkNamespacePath=/run/netns/{lab.laptop.name}\nConfigurationDirectory=\nStateDirectory=\n")
        systemctl("daemon-reload")
        yield lab
        print(systemctl("status", "clat-agent", check=False))
        print(subprocess.run(["journalctl", "-u", "clat-agent", "--no-pager"], capture_output=True, text=True).stdout)
        systemctl("stop", "clat-agent", check=False)


def journal():
    return subprocess.run(["journalctl", "-u", "clat-agent", "--no-pager"], capture_output=True, text=True).stdout


def status(lab):
    said = lab.laptop.run([binary(), "status", "--json"])
    return json.loads(said.stdout)["interfaces"] if said.stdout else []


def test_it_serves_tells_systemd_reloads_and_stops(service):
    lab = service
    systemctl("start", "clat-agent")
    wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")
    assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout
    assert "eth0 on" in systemctl("show", "-P", "StatusText", "clat-agent")
    process = systemctl("show", "-P", "MainPID", "clat-agent").strip()
    assert pathlib.Path(f"/proc/{process}").stat().st_uid == 65534
    systemctl("reload", "clat-agent")
    wait_until(lambda: "read the configuration anew" in subprocess.run(
        ["journalctl", "-u", "clat-agent"], capture_output=True, text=True).stdout, what="the reload")
    assert any(entry["state"] == "on" for entry in status(lab))
    systemctl("stop", "clat-agent")
    wait_until(lambda: lab.laptop.run(["ip", "-4", "route"]).stdout == "", what="no route")
    assert systemctl("show", "-P", "Result", "clat-agent").strip() == "success"


def test_it_comes_back_after_a_crash(service):
    lab = service
    systemctl("start", "clat-agent")
    first = systemctl("show", "-P", "MainPID", "clat-agent").strip()
    systemctl("kill", "--signal=SIGKILL", "clat-agent")
    wait_until(lambda: systemctl("show", "-P", "MainPID", "clat-agent").strip() not in ("0", first), timeout=30, what="another")
    wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")


def test_connections_live_through_a_restart_and_a_crash_and_a_stop_takes_all(service):
    lab = service
    before = snapshot.take(lab.laptop)
    systemctl("start", "clat-agent")
    wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")
    wait_until(lambda: int(systemctl("show", "-P", "NFileDescriptorStore", "clat-agent")) >= 3, what="descriptors")
    first = status(lab)[0]
    for how in ("restart", "SIGKILL"):
        process = systemctl("show", "-P", "MainPID", "clat-agent").strip()
        taken = journal().count("all is as it was left")
        with Outage(lab.laptop, lab.SERVER, connected=True, interval=0.02) as outage:
            transfer = Transfer(lab.laptop, lab.SERVER, size=10**6, seconds=15)
            if how == "restart":
                systemctl("restart", "clat-agent")
            else:
                systemctl("kill", f"--signal={how}", "clat-agent")
            wait_until(lambda: systemctl("show", "-P", "MainPID", "clat-agent").strip() not in ("0", process),
                       timeout=30, what="another process")
            wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")
            assert transfer.is_running, "over too soon to show anything"
            transfer.finish()
            print(f"{how}: {outage.close()} ms out and lost, longest silence {outage.silence:.0f} ms")
        assert journal().count("all is as it was left") == taken + 1
        assert status(lab)[0]["ipv6Address"] == first["ipv6Address"]
    systemctl("stop", "clat-agent")
    assert systemctl("show", "-P", "NFileDescriptorStore", "clat-agent").strip() == "0"
    snapshot.wait_for(lab.laptop, before)
