"""DHCPv4 beside the CLAT: option 108 (RFC 8925), by which a server tells clients that can do without IPv4 to do without.

dnsmasq is the server, on the lab's router; the network is IPv6-mostly. The clients are real and ask for the option.
"""

import contextlib
import os
import pathlib
import signal
import subprocess

import pytest

from agent import binary
from dhcp import Server, follows_the_agent, native, option_108
from manager import UPLINK, lab, start_agent, works  # noqa: F401: a fixture
from namespace import wait_until

pytestmark = pytest.mark.agent
CLIENT_LOG = pathlib.Path("/run/dhcpcd.log")


@pytest.fixture
def server(lab, request):
    made = Server(lab, request.param)
    yield made
    made.close()


@pytest.fixture
def agent(lab, server):
    """An agent that carries IPv4 already: by then no client has begun."""
    lab.laptop.ip(f"link set {UPLINK} up")
    started = start_agent(lab)
    try:
        started.wait_for("on", UPLINK, timeout=40)
        yield started
    finally:
        print(started.log)
        # A test's `disable` lasts until reboot.
        lab.laptop.run([binary(), "enable", UPLINK], check=True)
        assert started.stop() == 0


@contextlib.contextmanager
def client(lab, asks=None):
    """dhcpcd on the uplink. It asks for the option where the agent says that a CLAT works, as docs/dhcpcd.md has it, unless told."""
    if asks is None:
        capable = lab.laptop.run([binary(), "status", UPLINK, "--ipv6-only-capable"])
        assert capable.returncode in (0, 1), capable.stderr
        asks = capable.returncode == 0
    option = "option ipv6_only_preferred\n" if asks else ""
    pathlib.Path("/run/dhcpcd.conf").write_text(f"denyinterfaces clat-*\nslaac hwaddr\nnodev\nnoipv4ll\n{option}")
    pathlib.Path(f"/var/lib/dhcpcd/{UPLINK}.lease").unlink(missing_ok=True)
    with open(CLIENT_LOG, "w") as log:
        process = subprocess.Popen(
            ["dhcpcd", "-d", "-B", "-f", "/run/dhcpcd.conf", UPLINK], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                # Debian 12's often does not stop when told to, however long one waits.
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Its helpers outlive it then, with its sockets; and a process identifier that is stale is no help to the next.
            for helper in pathlib.Path("/proc").glob("[0-9]*/comm"):
                with contextlib.suppress(OSError):
                    if helper.read_text().strip() == "dhcpcd":
                        os.kill(int(helper.parent.name), signal.SIGKILL)
            for file in pathlib.Path("/run/dhcpcd").glob("*pid"):
                file.unlink()
            # One that is killed, or too slow to tidy up, leaves its address and with it the route.
            lab.laptop.run(["ip", "-4", "address", "flush", "dev", UPLINK], check=True)
            print(CLIENT_LOG.read_text(errors="replace")[-20000:])


def let_go(lab):
    """The lease ends, and with it its address."""
    lab.laptop.run(["dhcpcd", "-f", "/run/dhcpcd.conf", "-4", "-k", UPLINK])
    lab.laptop.run(["ip", "-4", "address", "flush", "dev", UPLINK])


@pytest.mark.parametrize("server", [False], indirect=True)
def test_a_lease_makes_the_clat_stand_down_and_its_end_brings_it_back(lab, agent):
    with client(lab):
        wait_until(lambda: native(lab), timeout=40, what="a lease")
        entry = agent.wait_for("off", UPLINK)
        assert entry["reason"]["code"] == "native-ipv4" and entry["ipv6OnlyCapable"]
        let_go(lab)
        agent.wait_for("on", UPLINK, timeout=60)
        assert works(lab)


def does_without(server):
    """The client has asked for the option, was sent it, and has drawn its conclusion."""
    wait_until(lambda: server.is_asked and server.has_sent, timeout=60, what="a question for option 108, and its answer")
    wait_until(lambda: "IPv6-Only Preferred" in CLIENT_LOG.read_text(errors="replace"), timeout=20, what="the client's word on it")


@pytest.mark.parametrize("server", [True], indirect=True)
def test_with_option_108_there_is_no_lease_and_the_clat_works(lab, server, agent):
    with client(lab):
        does_without(server)
        assert "DHCPREQUEST" not in server.log and not native(lab)
        assert works(lab)
        assert agent.interface(UPLINK)["state"] == "on"


@pytest.mark.parametrize("server", [False], indirect=True)
def test_a_server_that_begins_to_send_option_108_makes_the_client_let_go(lab, server, agent):
    with client(lab):
        wait_until(lambda: native(lab), timeout=40, what="a lease")
        assert server.is_asked and not server.has_sent
        assert agent.wait_for("off", UPLINK)["reason"]["code"] == "native-ipv4"
        server.restart(offers=True)
        lab.laptop.run(["dhcpcd", "-f", "/run/dhcpcd.conf", "-4", "-n", UPLINK], check=True)
        does_without(server)
        wait_until(lambda: not native(lab), timeout=20, what="an end of the lease")
        agent.wait_for("on", UPLINK, timeout=60)
        assert works(lab)


@pytest.mark.parametrize("server", [True], indirect=True)
def test_where_no_clat_works_the_client_does_not_ask_and_has_its_lease(lab, server, agent):
    lab.laptop.run([binary(), "disable", UPLINK], check=True)
    with client(lab):
        wait_until(lambda: native(lab), timeout=40, what="a lease")
        assert not server.is_asked
        let_go(lab)


@pytest.mark.parametrize("server", [True], indirect=True)
def test_it_is_told_while_it_runs(lab, server, agent):
    with client(lab, asks=False):
        wait_until(lambda: native(lab), timeout=40, what="a lease")
        assert not server.is_asked
        with option_108("dhcpcd", DHCPCD_CONF="/run/dhcpcd.conf"):
            follows_the_agent(lab, server, agent)
