"""DHCPv4 beside the CLAT: option 108 (RFC 8925), by which a server tells clients that can do without IPv4 to do without.

dnsmasq is the server, on the lab's router; the network is IPv6-mostly. The clients are real and ask for the option.
"""

import contextlib
import pathlib
import subprocess
import time

import pytest

from agent import binary
from manager import UPLINK, lab, start_agent, works  # noqa: F401: a fixture
from namespace import wait_until

pytestmark = pytest.mark.agent


class Server:
    """dnsmasq on the router, with or without the option; native IPv4 leads to it and no further."""

    def __init__(self, lab, offers):
        self._lab = lab
        router = lab.site.router.namespace
        router.run(["ip", "address", "replace", "10.64.0.1/24", "dev", "lan"], check=True)
        option = ["--dhcp-option=108,0:0:1:2c"] if offers else []  # 300 s, the least there is (section 3.4)
        self._process = router.popen(
            ["dnsmasq", "--keep-in-foreground", "--port=0", "--interface=lan", "--bind-interfaces", "--user=root",
             "--dhcp-range=10.64.0.100,10.64.0.200,2m", "--dhcp-leasefile=/run/dnsmasq.leases", "--pid-file=",
             "--log-dhcp", "--log-facility=/run/dnsmasq.log", *option])
        pathlib.Path("/run/dnsmasq.leases").unlink(missing_ok=True)

    def close(self):
        self._process.terminate()
        self._process.wait(10)
        print(pathlib.Path("/run/dnsmasq.log").read_text(errors="replace")[-3000:])


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
        assert started.stop() == 0


@contextlib.contextmanager
def client(lab):
    """dhcpcd on the uplink. It asks for the option where the agent says that a CLAT works, as docs/dhcpcd.md has it."""
    capable = lab.laptop.run([binary(), "status", UPLINK, "--ipv6-only-capable"])
    assert capable.returncode in (0, 1), capable.stderr
    options = ["-o", "ipv6_only_preferred"] if capable.returncode == 0 else []
    pathlib.Path("/run/dhcpcd.conf").write_text("denyinterfaces clat-*\nslaac hwaddr\nnodev\nnoipv4ll\n")
    pathlib.Path(f"/var/lib/dhcpcd/{UPLINK}.lease").unlink(missing_ok=True)
    with open("/run/dhcpcd.log", "w+") as log:
        process = subprocess.Popen(
            ["dhcpcd", "-d", "-B", "-f", "/run/dhcpcd.conf", *options, UPLINK], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # One that is killed, or too slow to tidy up, leaves its address and with it the route.
            lab.laptop.run(["ip", "-4", "address", "flush", "dev", UPLINK], check=True)
            log.seek(0)
            print(log.read()[-5000:])


def native(lab):
    return "10.64.0." in lab.laptop.run(["ip", "-4", "address", "show", "dev", UPLINK], check=True).stdout


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


@pytest.mark.parametrize("server", [True], indirect=True)
def test_with_option_108_there_is_no_lease_and_the_clat_works(lab, agent):
    with client(lab):
        time.sleep(15)
        assert "DHCPDISCOVER" in pathlib.Path("/run/dnsmasq.log").read_text()
        assert not native(lab)
        assert works(lab)
        assert agent.interface(UPLINK)["state"] == "on"


@pytest.mark.parametrize("server", [True], indirect=True)
def test_where_no_clat_works_the_client_does_not_ask_and_has_its_lease(lab, agent):
    lab.laptop.run([binary(), "disable", UPLINK], check=True)
    with client(lab):
        wait_until(lambda: native(lab), timeout=40, what="a lease")
        let_go(lab)
