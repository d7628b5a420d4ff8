"""clat-agent cleanup --clatd: the host is again as it was before a clatd that was killed, and nothing of anybody else's is touched.

There is no clatd in Debian; what it does to a host is done here by the commands it runs, in their order (clatd 2.1.0).
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import agent
import namespace
import snapshot
from namespace import wait_until

pytestmark = pytest.mark.agent
TABLE = 0xC1A7


def ip6(space, *commands):
    space.run(["ip", "-6", "-batch", "-"], check=True, stdin="\n".join(commands) + "\n")


def clatd(lab, device="clat", table=TABLE):
    """What clatd does: with an address of its own (proxy neighbour discovery) and with nftables, which it uses where it shares
    the host's. Returns TAYGA's configuration file."""
    laptop, prefix = lab.laptop, lab.site.pref64
    own = "2001:db8:1::c1a7"
    configuration = lab.directory / "tayga.conf"
    configuration.write_text(
        f"tun-device {device}\nprefix {prefix}\nipv4-addr 192.0.0.2\nipv6-addr 2001:db8:1::c1a8\nmap 192.0.0.1 {own}\n")
    with laptop.entered():
        settings = pathlib.Path("/proc/sys/net/ipv6/conf")
        for file in settings.glob("*/accept_ra"):
            if file.parent.name != "all" and file.read_text().strip() == "1":
                file.write_text("2")
        (settings / "all/forwarding").write_text("1")
        (settings / "eth0/proxy_ndp").write_text("1")
    ip6(laptop, f"neighbour add proxy {own} dev eth0", "rule add prio 1 table local", "rule del prio 0 table local")
    laptop.run(["tayga", "--config", configuration, "--mktun"], check=True)
    laptop.ip(f"link set up dev {device}\naddress add 192.0.0.1 dev {device}")
    ip6(laptop, f"route add {own} dev {device} table {table}",
        f"rule add prio 0 from {prefix} to {own} fwmark {TABLE} table {table}")
    laptop.run(["nft", "-f-"], check=True, stdin=f"""
        add table ip6 clatd
        add chain ip6 clatd prerouting {{ type filter hook prerouting priority 0; }}
        add rule ip6 clatd prerouting iif {device} ip6 saddr {own} ip6 daddr {prefix} ct mark set {TABLE} counter
    """)
    laptop.ip(f"route add default dev {device} metric 2048 mtu 1260 advmss 1220")
    return configuration


def cleanup(lab, *words, **options):
    return lab.laptop.run([agent.binary(), "cleanup", "--clatd", "--config", lab.directory / "clatd.conf", *words], **options)


def test_all_that_a_killed_clatd_left_goes_and_nothing_else(lab):
    # Somebody else's, of the same kinds.
    lab.laptop.ip("tuntap add dev vpn mode tun\naddress add 192.0.0.6/32 dev vpn")
    ip6(lab.laptop, "rule add prio 5 from 2001:db8:9::/64 table 77", "neighbour add proxy 2001:db8:1::beef dev eth0")
    lab.laptop.run(["nft", "add table ip6 other"], check=True)
    before = snapshot.take(lab.laptop)
    clatd(lab)
    left = snapshot.take(lab.laptop)

    shown = cleanup(lab)
    assert shown.returncode == 1 and "nothing was changed" in shown.stderr
    assert shown.stdout.splitlines() == [
        "A clatd that was killed has left:",
        "  the sysctl net/ipv6/conf/all/forwarding is 1, and was 0",
        *(f"  the sysctl net/ipv6/conf/{name}/accept_ra is 2, and was 1" for name in ("default", "lo", "eth0", "vpn", "clat")),
        "  the host answers for 2001:db8:1::c1a7 on eth0 (proxy neighbour)",
        "  the IPv6 policy rule for local addresses has priority 1, and had 0",
        f"  the IPv6 policy rule 0: from {lab.site.pref64} to 2001:db8:1::c1a7/128 table 49575",
        "  the nftables table ip6 clatd",
        "  the TUN device clat with 192.0.0.1, and the routes out of it",
        "Where this host forwards IPv6 for others, as for containers: --keep-forwarding leaves those sysctls.",
    ]
    assert snapshot.difference(left, snapshot.take(lab.laptop)) == [], "showing changes nothing"

    done = cleanup(lab, "--yes")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.endswith("All of it is undone.\n")
    # A proxy of somebody else's is left on eth0, so its switch may be needed.
    with lab.laptop.entered():
        pathlib.Path("/proc/sys/net/ipv6/conf/eth0/proxy_ndp").write_text("0")
    snapshot.wait_for(lab.laptop, before)
    assert cleanup(lab).stdout == "clatd has left nothing here.\n"


def test_a_killed_clatd_that_used_other_names_and_its_tayga_which_still_runs(lab):
    before = snapshot.take(lab.laptop)
    (lab.directory / "clatd.conf").write_text("clat-dev=v4\nroute-table=99\n")
    with lab.laptop.popen(["tayga", "--config", clatd(lab, "v4", 99), "--nodetach"], stderr=subprocess.DEVNULL) as tayga:
        wait_until(lambda: f"process {tayga.pid}, a TAYGA that serves the device v4" in cleanup(lab).stdout, what="tayga")
        done = cleanup(lab, "--yes")
        assert done.returncode == 0, done.stderr
        tayga.wait(10 * namespace.PATIENCE)
    snapshot.wait_for(lab.laptop, before)


def test_what_the_user_is_asked(lab):
    clatd(lab)
    def answer(text):
        ours, theirs = os.openpty()
        os.write(ours, text)
        result = lab.laptop.popen([agent.binary(), "cleanup", "--clatd", "--config", "/nonexistent", "--keep-forwarding"],
                                  stdin=theirs, stdout=subprocess.PIPE)
        output = result.communicate()[0]
        os.close(ours), os.close(theirs)
        return result.returncode, output
    for text in (b"n\n", b"\n", b"\x04"):
        status, output = answer(text)
        assert status == 1 and output.endswith("Undo all of this? [y/N] ") and "forwarding" not in output
    status, output = answer(b"y\n")
    assert status == 0 and "All of it is undone." in output
    with lab.laptop.entered():
        assert pathlib.Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n", "kept"


def test_nothing_is_touched_while_a_clatd_runs_or_a_tayga_of_somebody_elses(lab):
    # A script's name is that of its process.
    script = lab.directory / "clatd"
    script.write_text(f"#!{sys.executable}\nimport time\nprint('ready', flush=True)\ntime.sleep(100)\n")
    script.chmod(0o755)
    configuration = clatd(lab)
    left = snapshot.take(lab.laptop)
    with lab.laptop.popen([script], stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        refused = cleanup(lab, "--yes")
        running.kill()
    assert refused.returncode == 75 and "systemctl disable --now clatd" in refused.stderr
    assert snapshot.difference(left, snapshot.take(lab.laptop)) == []

    assert cleanup(lab, "--yes").returncode == 0
    # A CLAT made by hand of TAYGA and a device of the same name.
    lab.laptop.run(["tayga", "--config", configuration, "--mktun"], check=True)
    lab.laptop.ip("link set up dev clat\naddress add 192.0.0.1 dev clat\nroute add default dev clat")
    with lab.laptop.popen(["tayga", "--config", configuration, "--nodetach"], stderr=subprocess.DEVNULL) as tayga:
        wait_until(lambda: "lower_up" in lab.laptop.run(["ip", "link", "show", "clat"]).stdout.lower(), what="tayga")
        left = snapshot.take(lab.laptop)
        assert cleanup(lab, "--yes").stdout == "clatd has left nothing here.\n"
        assert snapshot.difference(left, snapshot.take(lab.laptop)) == []
        tayga.kill()


def test_what_is_left_in_ufw_and_among_temporary_files(lab):
    # A machine of its own in what it holds of ufw and in /tmp.
    etc, tmp, tools = (lab.directory / name for name in ("etc-ufw", "tmp", "tools"))
    for directory in (etc, tmp, tools):
        directory.mkdir()
    (etc / "user.rules").write_text("### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_clat!out_eth0\n"
                                    "### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_wg0!out_eth0\n")
    mine = "# Ephemeral TAYGA config file written by /usr/sbin/clatd\n"
    for name, text in (("aB3dE_fG1h", mine), ("other12345", "x"), ("too-long-a-name", mine)):
        (tmp / name).write_text(text)
    (tmp / "linked1234").symlink_to(tmp / "aB3dE_fG1h")
    (tools / "ufw").write_text(f'#!/bin/sh\necho "$@" >> /etc/ufw/log\n: > /etc/ufw/user.rules\n')
    (tools / "ufw").chmod(0o755)
    # The lab's own directory is in /tmp, and what is run is too, perhaps.
    program = pathlib.Path("/run") / f"clat-agent-test-{os.getpid()}"
    shutil.copy(agent.binary(), program)
    script = f"""
        mount --bind {tools} /mnt && mount -t tmpfs none /etc && mkdir /etc/ufw && mount --bind {etc} /etc/ufw &&
        mount --bind {tmp} /tmp && PATH=/mnt:$PATH exec "$@"
    """
    def cleanup(*words):
        return lab.laptop.run(["unshare", "-m", "sh", "-c", script, "sh", program, "cleanup", "--clatd", *words])
    try:
        shown = cleanup()
        assert shown.returncode == 1, shown.stderr
        assert shown.stdout.splitlines() == [
            "A clatd that was killed has left:",
            "  ufw's rule for packets from clat to eth0, which outlasts even a reboot",
            "  the temporary file /tmp/aB3dE_fG1h",
        ]
        done = cleanup("--yes")
        assert done.returncode == 0 and done.stdout.endswith("All of it is undone.\n"), done.stderr
        assert (etc / "log").read_text() == "route delete allow in on clat out on eth0\n"
        assert {path.name for path in tmp.iterdir()} == {"other12345", "too-long-a-name", "linked1234"}
        assert cleanup().stdout == "clatd has left nothing here.\n"
    finally:
        program.unlink()


def test_a_device_of_the_module_nat46_is_removed_by_the_module(lab):
    """The module is not here: it is stood for by the file that it is told by, and its device by the one kind of device besides that has
    neither a kind nor Ethernet, a loopback."""
    old, = lab._create("old")
    old.ip("link set lo down\nlink set lo name clat\naddress add 192.0.0.1/32 dev clat")
    told = lab.directory / "net/nat46/control"
    told.parent.mkdir(parents=True)
    faked = ["unshare", "-m", "sh", "-c", f'mount --bind {lab.directory}/net "/proc/$$/net" && exec "$@"', "sh"]

    def cleanup(*words):
        return old.run([*faked, agent.binary(), "cleanup", "--clatd", "--config", "/nonexistent", *words])
    assert cleanup("--yes").returncode == 71
    told.touch()
    assert "  the nat46 device clat with 192.0.0.1, and the routes out of it" in cleanup().stdout.splitlines()
    assert told.read_text() == "", "showing changes nothing"
    done = cleanup("--yes")
    assert (done.returncode, done.stderr, told.read_text()) == (0, "", "del clat\n")


def test_a_clatd_by_its_interpreter_is_seen(lab):
    script = lab.directory / "clatd"
    script.write_text("$| = 1; print qq(ready\\n); sleep 100;\n")
    clatd(lab)
    with lab.laptop.popen(["perl", "-w", script], stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        refused = cleanup(lab, "--yes")
        running.kill()
    assert refused.returncode == 75 and f"process {running.pid}" in refused.stderr


@pytest.mark.skipif(namespace.in_user_namespace(), reason="a user namespace that knows one user has no other")
def test_it_needs_root_and_to_be_told_after_whom(lab):
    os.chmod(lab.directory, 0o755)
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", agent.binary(), "cleanup", "--clatd"]
    refused = lab.laptop.run(stranger)
    assert refused.returncode == 77 and "try again with sudo" in refused.stderr
    assert lab.laptop.run([agent.binary(), "cleanup"]).returncode == 64


def test_its_configuration_becomes_ours_and_is_obeyed(lab):
    old, new = lab.directory / "clatd.conf", lab.directory / "config.toml"
    old.write_text(f"""
        # as clatd takes it
        plat-dev=eth0
        ; the NAT64
        plat-prefix = {lab.site.pref64}
        not a key at all
        clat-v4-addr=192.0.0.3
        v4-defaultroute-metric=77
        v4-defaultroute-mtu=1400
        cmd-tayga=/usr/sbin/tayga
        nonsense=1
    """)
    said = lab.laptop.run([agent.binary(), "import-clatd", old], check=True).stdout
    assert "# not a key at all: clatd 2.1.0 ignores such a line" in said
    assert "# cmd-tayga=/usr/sbin/tayga: no TAYGA" in said and "# nonsense=1: clatd 2.1.0 has no such key" in said
    new.write_text(said)
    lab.laptop.run([agent.binary(), "config", "check", new], check=True)
    running = lab.agent("--config", new, interfaces=())
    status = running.wait_for("on")
    assert (status["pref64Source"], status["ipv4Address"], status["metric"], status["mtu"]) == (
        "configuration", "192.0.0.3", 77, 1400)
    assert lab.laptop.run([agent.binary(), "import-clatd", "/nonexistent"]).returncode == 66
