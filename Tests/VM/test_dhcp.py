"""DHCPv4 beside the CLAT: option 108 (RFC 8925), by which a server tells clients that can do without IPv4 to do without.

dnsmasq is the server, on the lab's router; the network is IPv6-mostly. The clients are real and ask for the option.
"""

import pathlib
import subprocess
import time

import pytest

import guest
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
def client(lab):
    """dhcpcd on the uplink, which asks for the option."""
    pathlib.Path("/run/dhcpcd.conf").write_text(
        "denyinterfaces clat-*\nslaac hwaddr\nnodev\nnoipv4ll\noption ipv6_only_preferred\n")
    pathlib.Path(f"/var/lib/dhcpcd/{UPLINK}.lease").unlink(missing_ok=True)
    with open("/run/dhcpcd.log", "w+") as log:
        process = subprocess.Popen(
            ["dhcpcd", "-d", "-B", "-f", "/run/dhcpcd.conf", UPLINK], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        yield process
        process.terminate()
        process.wait(20)
        log.seek(0)
        print(log.read()[-5000:])


def native(lab):
    return "10.64.0." in lab.laptop.run(["ip", "-4", "address", "show", "dev", UPLINK], check=True).stdout


@pytest.mark.parametrize("server", [False], indirect=True)
def test_a_lease_makes_the_clat_stand_down_and_its_end_brings_it_back(lab, server, client):
    agent = start_agent(lab)
    wait_until(lambda: native(lab), timeout=40, what="a lease")
    assert agent.wait_for("off", UPLINK)["reason"]["code"] == "native-ipv4"
    lab.laptop.run(["dhcpcd", "-f", "/run/dhcpcd.conf", "-4", "-k", UPLINK])
    lab.laptop.run(["ip", "-4", "address", "flush", "dev", UPLINK])
    agent.wait_for("on", UPLINK, timeout=60)
    assert works(lab)
    assert agent.stop() == 0, agent.log


@pytest.mark.parametrize("server", [True], indirect=True)
def test_with_option_108_there_is_no_lease_and_the_clat_works(lab, server, client):
    agent = start_agent(lab)
    agent.wait_for("on", UPLINK, timeout=40)
    time.sleep(15)
    assert "DHCPDISCOVER" in pathlib.Path("/run/dnsmasq.log").read_text()
    assert not native(lab)
    assert works(lab)
    assert agent.interface(UPLINK)["state"] == "on"
    assert agent.stop() == 0, agent.log
