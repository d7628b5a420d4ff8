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
from test_trust import KEPT, capabilities, threads

pytestmark = pytest.mark.agent
UNIT = pathlib.Path("/run/systemd/system/clat-agent.service")
# Where the unit lets its program be: it has a /tmp of its own and no home directories, and the tree may be in either.
PROGRAM = pathlib.Path("/run/clat-agent-under-test")
# The laptop of the test that runs: units stay as they are, for systemd takes seconds to read all of them.
LAPTOP = pathlib.Path("/run/laptop")


def systemctl(*words, check=True):
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=check).stdout


@pytest.fixture(scope="module")
def unit():
    """The unit as it is, but for where it finds program and user, in the laptop's namespace."""
    # As udev does, which is not here.
    pathlib.Path("/dev/net/tun").chmod(0o666)
    text = (REPOSITORY / "contrib/systemd/clat-agent.service").read_text()
    assert "User=clat-agent\n" in text
    shutil.copy2(binary(), PROGRAM)
    UNIT.write_text(text.replace("@SBINDIR@/clat-agent", str(PROGRAM)).replace("User=clat-agent\n", "User=nobody\n"))
    drop = pathlib.Path(f"{UNIT}.d/lab.conf")
    drop.parent.mkdir()
    # /etc and /var cannot be written here.
    drop.write_text(f"[Service]\nNetworkNamespacePath={LAPTOP}\nConfigurationDirectory=\nStateDirectory=\n")
    systemctl("daemon-reload")


@pytest.fixture
def service(unit):
    """A lab in whose laptop the unit runs once it is started."""
    with Lab() as lab:
        LAPTOP.symlink_to(f"/run/netns/{lab.laptop.name}")
        yield lab
        print(systemctl("status", "clat-agent", check=False))
        print(journal())
        systemctl("stop", "clat-agent", check=False)
        LAPTOP.unlink()


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
    wait_until(lambda: "read the configuration anew" in journal(), what="the reload")
    assert any(entry["state"] == "on" for entry in status(lab))
    systemctl("stop", "clat-agent")
    wait_until(lambda: lab.laptop.run(["ip", "-4", "route"]).stdout == "", what="no route")
    assert systemctl("show", "-P", "Result", "clat-agent").strip() == "success"


def test_the_unit_takes_away_what_it_can(service):
    """The agent works with all that the unit takes away, and it is taken away."""
    lab = service
    systemctl("start", "clat-agent")
    entry = wait_until(lambda: next((entry for entry in status(lab) if entry["state"] == "on"), None), timeout=60, what="IPv4")
    assert entry["datapath"]["kind"] == "kernel" and "no filter" not in entry["datapath"]["detail"], entry["datapath"]
    process = systemctl("show", "-P", "MainPID", "clat-agent").strip()
    for thread in threads(process):
        print(thread["Name"], thread["CapEff"], thread["CapBnd"], thread["CapAmb"], thread["NoNewPrivs"], thread["Seccomp"])
        assert capabilities(thread) == (0 if thread["Name"] == "clat-packets" else KEPT)
        assert thread["NoNewPrivs"] == "1" and thread["Seccomp"] == "2" and int(thread["CapBnd"], 16) == KEPT
    # The sysctls of its own namespace it has set; those of the kernel it cannot.
    command = [binary(), "exec", "eth0", "--", "cat", "/proc/sys/net/ipv6/conf/default/accept_ra"]
    assert lab.laptop.run(command, check=True).stdout.strip() == "0"
    enter = ["nsenter", "-m", "-t", process]
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/sys/kernel/mm/ksm/run", "/etc/hostname"):
        refused = subprocess.run([*enter, "sh", "-c", f"echo 1 > {path}"], capture_output=True, text=True)
        assert refused.returncode and "Read-only file system" in refused.stderr, (path, refused.stderr)
    devices = set(subprocess.run([*enter, "ls", "/dev"], capture_output=True, text=True, check=True).stdout.split())
    assert "net" in devices and not {"mem", "kmsg", "vda", "ttyS0", "bpf"} & devices, devices
    judged = subprocess.run(
        ["systemd-analyze", "security", "--threshold=30", "--no-pager", "clat-agent"], capture_output=True, text=True)
    print(judged.stdout.splitlines()[-1])
    assert judged.returncode == 0, judged.stdout


def denials():
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return [line for line in said.splitlines() if 'apparmor="DENIED"' in line and 'profile="clat-agent"' in line]


def test_it_works_under_the_apparmor_profile(service):
    lab = service
    enabled = pathlib.Path("/sys/module/apparmor/parameters/enabled")
    if not (shutil.which("apparmor_parser") and enabled.exists() and enabled.read_text().strip() == "Y"):
        pytest.skip("this kernel has no AppArmor, or there is no apparmor_parser")
    securityfs = pathlib.Path("/sys/kernel/security")
    if not (securityfs / "apparmor").exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", securityfs], check=True)
    # Its program is elsewhere here, and may have its libraries where the toolchain has them.
    profile = (REPOSITORY / "contrib/apparmor/clat-agent").read_text()
    places = "/{usr/,usr/local/,}sbin/clat-agent mrix,"
    assert places in profile
    where = pathlib.Path("/run/apparmor-profile")
    where.write_text(profile.replace(places, f"{PROGRAM} mrix, /opt/** mr,"))
    subprocess.run(["apparmor_parser", "-r", "-K", where], check=True)
    try:
        systemctl("start", "clat-agent")
        wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")
        process = systemctl("show", "-P", "MainPID", "clat-agent").strip()
        assert pathlib.Path(f"/proc/{process}/attr/current").read_text().strip() == "clat-agent (enforce)"
        assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout
        systemctl("reload", "clat-agent")
        # The program may run itself anew, and nothing else.
        again = lab.laptop.run([binary(), "reexec"])
        assert again.returncode == 0 and "all is as it was left" in journal(), again.stderr + journal()
        assert systemctl("show", "-P", "MainPID", "clat-agent").strip() == process
        assert pathlib.Path(f"/proc/{process}/attr/current").read_text().strip() == "clat-agent (enforce)"
        assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout
        systemctl("stop", "clat-agent")
        assert systemctl("show", "-P", "Result", "clat-agent").strip() == "success"
        assert not denials()
    finally:
        print("\n".join(denials()))
        subprocess.run(["apparmor_parser", "-R", "-K", where], check=True)


def test_it_is_tried_for_as_long_as_it_takes(service):
    """A machine that is full lets no agent start; once there is room one does, by itself."""
    lab = service
    full = pathlib.Path(f"{UNIT}.d/full.conf")
    # Not by LimitNOFILE=: systemd itself needs more before it comes to the program.
    full.write_text(f"[Service]\nSystemCallFilter=prlimit64\nExecStart=\nExecStart=/bin/sh -c 'ulimit -n 5; exec {PROGRAM} run'\n")
    systemctl("daemon-reload")
    try:
        systemctl("start", "clat-agent", check=False)
        wait_until(lambda: int(systemctl("show", "-P", "NRestarts", "clat-agent")) > 6, timeout=60, what="many tries")
        assert "make room, or try again later" in journal()
        wait_until(lambda: systemctl("show", "-P", "ExecMainStatus", "clat-agent").strip() == "71", what="an end of a try")
    finally:
        full.unlink()
        systemctl("daemon-reload")
    wait_until(lambda: any(entry["state"] == "on" for entry in status(lab)), timeout=60, what="IPv4")


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
