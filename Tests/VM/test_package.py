"""The Debian package as a new user has it: installed, started, used, looked into when it does not work, and removed.

Leaves a transcript in /run/out, which Tests/VM/run prints.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest

import guest
import ra
from agent import REPOSITORY, binary
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent
UPLINK = "eth0"
PACKAGE = pathlib.Path(os.environ.get("CLAT_PACKAGE") or "/nonexistent")
TRANSCRIPT = pathlib.Path("/run/out/transcript")
# Where a package, systemd and the agent put things.
PLACES = ["/etc", "/var", "/run", "/lib/systemd", "/usr/sbin", "/usr/lib/sysusers.d", "/usr/share/bash-completion",
          "/usr/share/doc", "/usr/share/fish", "/usr/share/man", "/usr/share/zsh"]


BREAK = "table inet broken {{ chain only {{ type filter hook {} priority -300; {}; }}; }}"
MEND = ["nft", "delete", "table", "inet", "broken"]


def say(text):
    with open(TRANSCRIPT, "a") as transcript:
        transcript.write(text + "\n")


def run(command, status=0, show=lambda output: output):
    """Runs a line of shell as the user at the terminal does, notes it, and returns what it said."""
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120)
    say(f"# {command}\n{show(done.stdout)}".rstrip("\n"))
    assert status is None or done.returncode == status, f"{command} ended with {done.returncode}: {done.stdout}"
    return done.stdout


def named_clat(*places):
    """All files of these places, or of PLACES, that are named after us."""
    found = subprocess.run(["find", *filter(os.path.exists, places or PLACES), "-xdev", "-name", "*clat-agent*"], stdout=subprocess.PIPE, text=True).stdout
    return set(found.splitlines())


@pytest.fixture(scope="module")
def lab():
    """A lab whose laptop is this machine. Its cable is not plugged in."""
    # As on a machine that people use, and not in a container of which it is made.
    pathlib.Path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
    # What agents of other tests left, which used the standard directory.
    shutil.rmtree("/var/lib/clat-agent", ignore_errors=True)
    # An index of all manuals takes half a minute here.
    pathlib.Path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
    # As udev does, which is not here.
    pathlib.Path("/dev/net/tun").chmod(0o666)
    with Lab() as made:
        made.start_dns64()
        made.switch.ip("link set laptop down")
        made.laptop.ip(f"link set eth0 netns 1 name {UPLINK}")
        made.laptop.close()
        made.laptop = guest.Machine()
        made.laptop.ip(f"link set {UPLINK} up")
        yield made


def test_as_a_new_user_does(lab):
    if not PACKAGE.exists():
        pytest.skip("no package: make deb could not make one")
    files = named_clat()
    TRANSCRIPT.write_text(f"A machine with {os.uname().release}, Debian {pathlib.Path('/etc/debian_version').read_text()}\n")

    say("== It is installed, and starts by itself")
    run(f"dpkg -i {PACKAGE}")
    run("systemctl is-enabled clat-agent; systemctl is-active clat-agent")
    wait_until(lambda: "no-carrier" in run_quietly("clat-agent status --short"), timeout=30, what="status")
    run("systemctl show -P User -P StatusText clat-agent")
    run("clat-agent status", status=1)

    say("\n== The cable is plugged in: an IPv6-only network")
    begun = time.monotonic()
    lab.switch.ip("link set laptop up")
    wait_until(lambda: f"{UPLINK} on" in run_quietly("clat-agent status --short"), timeout=60, what="IPv4")
    say(f"(on after {time.monotonic() - begun:.1f} s, in software emulation)")
    run("ip -6 route show default", show=lambda text: re.sub(r" expires \d+sec", "", text))
    run("clat-agent status")
    run("ip -4 route")
    assert "0% packet loss" in run(f"ping -n -c2 -i0.2 -W5 {Lab.SERVER}", show=lambda text: text.splitlines()[-2])
    run(f"clat-agent doctor --target {Lab.SERVER}")
    entry = run_quietly("journalctl -u clat-agent -o export CLAT_EVENT=state CLAT_INTERFACE=eth0 CLAT_CODE=running")
    assert "MESSAGE=eth0: IPv4 works" in entry and "PRIORITY=5" in entry and "_SYSTEMD_UNIT=clat-agent.service" in entry
    run("journalctl -q --no-hostname -o cat CLAT_INTERFACE=eth0 CLAT_EVENT=state")

    say("\n== A VPN's connection: UDP to an IPv4 literal, from a socket bound to the host's IPv4 address")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as vpn:
        vpn.settimeout(10)
        vpn.connect((Lab.SERVERS[1], 7))
        for size in (148, 1452):
            vpn.send(bytes(size))
            assert len(vpn.recv(2000)) == size
        say(f"{vpn.getsockname()[0]} -> {Lab.SERVERS[1]}: datagrams of 148 and 1452 octets came back")
    run(f"curl -sS -m 30 -o /dev/null -w '%{{http_code}} %{{size_download}} octets from %{{remote_ip}}\\n' http://{Lab.SERVER}/100k")

    faults(lab)

    say("\n== It is removed")
    run("dpkg -r clat-agent")
    assert subprocess.run(["sh", "-c", "command -v clat-agent"], stdout=subprocess.DEVNULL).returncode
    left = named_clat() - files
    # The key of the addresses, for the day it comes back; and that the administrator had the service enabled.
    say("left until it is purged: " + ", ".join(sorted(left)))
    run("dpkg -P clat-agent")
    assert named_clat() - files == set(), "files are left"
    kernel = run_quietly("ip link; ip address; ip -4 route; ip rule; ip -6 rule; nft list ruleset")
    assert not re.search(r"\bclat-|192\.0\.0\.", kernel), kernel
    assert not pathlib.Path("/etc/clat-agent").exists() and not pathlib.Path("/var/lib/clat-agent").exists()
    assert not run_quietly("pidof clat-agent")
    run("getent passwd clat-agent")  # Debian never removes a system user: its number could come to own what it owned
    say("\n(no file, link, address, route, rule or process is left; by Debian's custom the system user is)")


def test_as_the_readme_says(lab):
    """From source, under /usr/local. Last, for it adds to the transcript."""
    files = named_clat("/usr/local", "/etc")
    lab.switch.ip("link set laptop up")
    say("\n== From source")
    run(f"make -s -C {REPOSITORY} install CLAT_AGENT={binary()}", show=lambda text: text)
    run("systemctl enable --now clat-agent")
    wait_until(lambda: f"{UPLINK} on" in run_quietly("clat-agent status --short"), timeout=60, what="IPv4")
    assert "0% packet loss" in run(f"ping -n -c2 -i0.2 -W5 {Lab.SERVER}", show=lambda text: text.splitlines()[-2])
    # The guide for those who come from clatd.
    run("echo 'plat-prefix=2001:db8:64::/96' > /tmp/clatd.conf; clat-agent import-clatd /tmp/clatd.conf > /etc/clat-agent/config.toml; "
        "clat-agent config check && systemctl reload clat-agent; rm /etc/clat-agent/config.toml")
    run("systemctl disable --now clat-agent")
    run(f"make -s -C {REPOSITORY} uninstall")
    assert named_clat("/usr/local", "/etc") == files and not pathlib.Path("/etc/clat-agent").exists()
    assert not run_quietly("pidof clat-agent")


def run_quietly(command):
    return subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def broken(text):
    """The findings that are not good, as the doctor prints them."""
    found, keep = [], False
    for line in text.splitlines():
        keep = not line.startswith("  ok") if not line.startswith("    ") else keep
        found += [line] if keep else []
    return "\n".join(found)


def doctor(title, says, target=Lab.SERVER):
    say(f"\n-- {title}")
    said = run(f"clat-agent doctor {UPLINK} --target {target}", status=1, show=broken)
    assert says in " ".join(said.split()), said


def faults(lab):
    say("\n== Things break, one after the other, and the doctor is asked (only what is not good is shown)")
    router = lab.site.router

    def on_again():
        wait_until(lambda: f"{UPLINK} on" in run_quietly("clat-agent status --short"), timeout=60, what="IPv4 again")

    router.namespace.run(["nft", "-f-"], check=True, stdin=BREAK.format("input", "udp dport 53 reject"))
    router.advertiser.advertise(router.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
    wait_until(lambda: f"{UPLINK} off" in run_quietly("clat-agent status --short"), timeout=60, what="no PREF64")
    doctor("the router withdraws the NAT64's prefix, and the resolver is down", "no resolver of this link is of use")
    router.namespace.run(MEND, check=True)
    router.advertiser.advertise(router.advertisement([lab.site.pref64]))
    on_again()

    lab.switch.ip("link set laptop down")
    wait_until(lambda: "no-carrier" in run_quietly("clat-agent status --short"), timeout=30, what="no carrier")
    doctor("the cable is out", "plug in the cable")
    lab.switch.ip("link set laptop up")
    on_again()

    lab.laptop.run(["nft", "-f-"], check=True, stdin=BREAK.format("output", f"oifname clat-{UPLINK} drop"))
    doctor("a packet filter of the host", "nft list ruleset")
    lab.laptop.run(MEND, check=True)

    lab.site.nat64.run(["nft", "-f-"], check=True, stdin=BREAK.format("prerouting", f"ip6 daddr {lab.site.pref64} drop"))
    doctor("the NAT64 is silent", "the NAT64 is silent")
    lab.site.nat64.run(MEND, check=True)

    run_quietly("systemctl stop clat-agent")
    doctor("the agent is stopped", "systemctl start clat-agent")
    run_quietly("systemctl start clat-agent")
    on_again()
