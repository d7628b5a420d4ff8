"""The scripts for OpenRC and runit, by a real openrc-run and a real runsv, whose packages are unpacked and not installed."""

import contextlib
import json
import pathlib
import shutil
import subprocess

import pytest

import guest
from agent import REPOSITORY, binary
from lab import Lab
from namespace import wait_until
from test_trust import KEPT, capabilities, threads

pytestmark = pytest.mark.agent
UPLINK = "eth0"
PROGRAM = pathlib.Path("/usr/local/sbin/clat-agent")
SCRIPTS = pathlib.Path("/usr/local/share/doc/clat-agent/contrib")
CONFIGURATION = pathlib.Path("/etc/clat-agent/config.toml")
RUNIT = pathlib.Path("/etc/sv/clat-agent")


def sh(command, check=True):
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def lab():
    """A lab whose laptop is this machine, with program, configuration and group where an administrator puts them."""
    debs = REPOSITORY / ".build-vm/debs"
    for name in ("libeinfo1", "librc1", "openrc", "runit"):
        package, = debs.glob(f"{name}_*.deb")
        # /bin and the like are links here.
        sh(f"dpkg-deb --fsys-tarfile {package} | tar -x --keep-directory-symlink -C /")
    sh(f"ldconfig; make -s -C {REPOSITORY} install CLAT_AGENT={binary()}")
    # systemd's tool has made a user too, which comes later here.
    sh("! id clat-agent || userdel clat-agent; getent group clat-agent || groupadd --system clat-agent")
    with Lab() as made:
        made.laptop.ip(f"link set eth0 down\nlink set eth0 netns 1 name {UPLINK}")
        made.laptop.close()
        made.laptop = guest.Machine()
        made.laptop.ip(f"link set {UPLINK} up")
        yield made


def install(script, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPTS / script, target)
    target.chmod(0o755)


def serves(lab, metric):
    """IPv4 works, with that metric, and the group owns the runtime directory."""
    try:
        wait_until(lambda: f"metric {metric}" in sh(f"{PROGRAM} status {UPLINK}", check=False), timeout=40, what="IPv4")
    finally:
        print(sh(f"{PROGRAM} status {UPLINK}; tail -n 20 /var/log/clat-agent.log /run/runsv.log", check=False))
    assert "1 received" in sh(f"ping -n -c1 -W10 {Lab.SERVER}")
    assert sh("stat -c %G /run/clat-agent") == "clat-agent\n"


def make_user():
    """That by which the scripts know that the agent shall not be root."""
    # As udev does, which is not here.
    pathlib.Path("/dev/net/tun").chmod(0o666)
    sh("id clat-agent || useradd --system --gid clat-agent --no-create-home clat-agent")


def is_unprivileged():
    """The agent is a user of its own and has what it needs, its packet thread nothing."""
    user = sh("id -u clat-agent").strip()
    found = threads(sh("pidof clat-agent").strip())
    for thread in found:
        print(thread["Name"], thread["Uid"], thread["CapEff"], thread["CapBnd"], thread["NoNewPrivs"])
        assert set(thread["Uid"].split()) == {user} and thread["NoNewPrivs"] == "1"
        assert capabilities(thread) == (0 if thread["Name"] == "clat-packets" else KEPT)
    assert {"clat-agent", "clat-packets"} <= {thread["Name"] for thread in found}
    assert sh("stat -c %U:%a /var/lib/clat-agent /var/lib/clat-agent/secret") == "clat-agent:700\nclat-agent:600\n"


def address():
    """The CLAT's IPv6 address, which comes of the key in the state directory."""
    return json.loads(sh(f"{PROGRAM} status --json"))["interfaces"][0]["ipv6Address"]


def is_gone():
    wait_until(lambda: not sh("pidof clat-agent", check=False), timeout=20, what="the end")
    assert "clat-" not in sh("ip link; ip -4 route")


@pytest.fixture(scope="module")
def openrc(lab):
    """As where OpenRC booted the machine."""
    install("openrc/clat-agent", pathlib.Path("/etc/init.d/clat-agent"))
    states = "daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive"
    sh(f"for state in {states}; do mkdir -p /run/openrc/$state; done; touch /run/openrc/softlevel")


def test_openrc(lab, openrc):
    CONFIGURATION.write_text("metrik = 7\n")
    refused = sh("rc-service clat-agent start", check=False)
    assert "config.toml:1: metrik: there is no such key here; is it metric?" in refused and not sh("pidof clat-agent", check=False)
    CONFIGURATION.write_text("metric = 7\n")
    sh("rc-service clat-agent start")
    serves(lab, 7)
    assert "status: started" in sh("rc-service clat-agent status")
    CONFIGURATION.write_text("metric = 8\n")
    sh("rc-service clat-agent reload")
    serves(lab, 8)
    assert "metric: was 7, is 8" in pathlib.Path("/var/log/clat-agent.log").read_text()
    # Killed, it comes back.
    sh("kill -9 $(pidof clat-agent)")
    wait_until(lambda: not sh("ip -4 route"), what="its end")
    serves(lab, 8)
    sh("rc-service clat-agent stop")
    is_gone()


@contextlib.contextmanager
def supervised():
    """runsv at work, as where runit booted the machine."""
    with open("/run/runsv.log", "w") as log, subprocess.Popen(["runsv", RUNIT], stdout=log, stderr=log) as supervisor:
        try:
            yield
        finally:
            supervisor.terminate()


def test_runit(lab):
    install("runit/run", RUNIT / "run")
    CONFIGURATION.write_text("metric = 7\n")
    with supervised():
        serves(lab, 7)
        assert sh(f"sv status {RUNIT}").startswith("run: ")
        CONFIGURATION.write_text("metric = 8\n")
        sh(f"sv hup {RUNIT}")
        serves(lab, 8)
        # Killed, it comes back.
        sh(f"sv kill {RUNIT}")
        serves(lab, 8)
        sh(f"sv -w 20 stop {RUNIT}")
        is_gone()
    assert "metric: was 7, is 8" in pathlib.Path("/run/runsv.log").read_text()


def test_openrc_with_a_user_of_its_own(lab, openrc):
    CONFIGURATION.write_text("metric = 7\n")
    sh("rc-service clat-agent start")
    serves(lab, 7)
    before = address()
    sh("rc-service clat-agent stop")
    is_gone()
    make_user()
    sh("rc-service clat-agent start")
    serves(lab, 7)
    is_unprivileged()
    assert address() == before, "the key was taken along"
    # Once more as the same process, and as another.
    assert "has taken over" in sh(f"{PROGRAM} reexec")
    assert "all is as it was left" in pathlib.Path("/var/log/clat-agent.log").read_text()
    serves(lab, 7)
    is_unprivileged()
    sh("kill -9 $(pidof clat-agent)")
    wait_until(lambda: not sh("ip -4 route"), what="its end")
    serves(lab, 7)
    is_unprivileged()
    sh("rc-service clat-agent stop")
    is_gone()


def test_runit_with_a_user_of_its_own(lab):
    make_user()
    install("runit/run", RUNIT / "run")
    CONFIGURATION.write_text("metric = 7\n")
    with supervised():
        serves(lab, 7)
        is_unprivileged()
        sh(f"sv kill {RUNIT}")
        serves(lab, 7)
        is_unprivileged()
        sh(f"sv -w 20 stop {RUNIT}")
        is_gone()
