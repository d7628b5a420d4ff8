"""A VPN whose endpoint is an IPv4 literal, through the CLAT: WireGuard, its server on the lab's Internet."""

import pytest

import guest
import ra
from lab import Lab
from namespace import wait_until
from test_life_cycle import carry

pytestmark = pytest.mark.agent
INSIDE, OUTSIDE, PORT = "10.9.0.1", Lab.SERVERS[1], 51820
NEW_PREFIX = "2001:db8:77::/64"


def key(namespace, directory, name):
    """Makes a key; where it is, and the public one."""
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(namespace.run(["wg", "genkey"], check=True).stdout)
    return path, namespace.run(["wg", "pubkey"], check=True, stdin=path.read_text()).stdout.strip()


@pytest.fixture
def tunnel(lab):
    """A tunnel that is configured at both ends and has carried nothing yet; the server knows no endpoint of the laptop."""
    client, client_public = key(lab.laptop, lab.directory, "client")
    server, server_public = key(lab.internet, lab.directory, "server")
    for namespace, address in ((lab.laptop, "10.9.0.2"), (lab.internet, INSIDE)):
        namespace.ip(f"link add wg0 type wireguard\naddress add {address}/24 dev wg0")
    lab.laptop.run(["wg", "set", "wg0", "private-key", client, "fwmark", str(PORT), "peer", server_public, "endpoint",
                    f"{OUTSIDE}:{PORT}", "allowed-ips", "0.0.0.0/0"], check=True)
    lab.internet.run(["wg", "set", "wg0", "listen-port", str(PORT), "private-key", server, "peer", client_public, "allowed-ips",
                      "10.9.0.2/32"], check=True)
    lab.laptop.ip("link set wg0 up")
    lab.internet.ip("link set wg0 up")


def reaches(lab, address, *options):
    return " 2 received" in lab.laptop.run(["ping", "-n", "-c2", "-i0.2", "-W5", *options, address]).stdout


def received(lab):
    """Octets that came out of the tunnel."""
    return int(lab.laptop.run(["wg", "show", "wg0", "transfer"], check=True).stdout.split()[1])


def seen_from(lab):
    """Whom the server takes the laptop for; None before the first packet."""
    endpoint = lab.internet.run(["wg", "show", "wg0", "endpoints"], check=True).stdout.split()[1]
    return None if endpoint == "(none)" else endpoint.rpartition(":")[0]


@pytest.mark.parametrize("datapath", ["kernel", "userspace"])
def test_wireguard_by_an_ipv4_literal(lab, tunnel, datapath):
    other = lab.add_site()
    lab.laptop.ip("link del eth1")
    agent = lab.agent(interfaces=(), datapath=datapath)
    agent.wait_for("on")
    # No keepalive: the first packet for the other side brings the tunnel up.
    assert seen_from(lab) is None
    wait_until(lambda: reaches(lab, INSIDE), timeout=30, what="the tunnel")
    assert seen_from(lab) == str(lab.site.wan[1])
    # The largest packets of the tunnel fill the CLAT's route to the octet: 1420 + 20 + 8 + 32 = 1480.
    assert reaches(lab, INSIDE, "-Mdo", "-s1392")

    # All IPv4 into the tunnel, as wg-quick does it.
    lab.laptop.ip(f"""
        route add default dev wg0 table {PORT}
        rule add not fwmark {PORT} table {PORT} priority 20
        rule add table main suppress_prefixlength 0 priority 10
    """)
    before = received(lab)
    assert reaches(lab, Lab.SERVER)
    assert received(lab) > before, "it did not go through the tunnel"
    assert agent.wait_for("on")["reason"]["code"] == "running"

    # The network changes below it.
    guest.renumber(lab, lab.site.lan, NEW_PREFIX)
    wait_until(lambda: agent.interface()["ipv6Address"].startswith("2001:db8:77:"), timeout=20, what="another address")
    wait_until(lambda: reaches(lab, Lab.SERVER), timeout=30, what="the tunnel after a renumbering")

    # And then it is another network: the NAT64 too is another one.
    carry(lab, other)
    agent.wait_until(lambda entry: entry["state"] == "on" and entry.get("pref64") == other.pref64, "the other network", timeout=40)
    wait_until(lambda: reaches(lab, Lab.SERVER), timeout=30, what="the tunnel on another network")
    assert seen_from(lab) == str(other.wan[1])

    # And out of the tunnel again.
    lab.laptop.ip("rule del priority 10\nrule del priority 20\nlink del wg0")
    assert reaches(lab, Lab.SERVER)
    assert agent.stop() == 0, agent.log


def test_wireguard_where_the_prefix_is_configured(lab, tunnel):
    """On a network that tells nobody its PREF64."""
    router = lab.site.router
    router.advertiser.advertise(router.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
    configuration = lab.directory / "config.toml"
    configuration.write_text(f'pref64 = "{lab.site.pref64}"\n')
    agent = lab.agent("--config", configuration)
    assert agent.wait_for("on")["pref64Source"] == "configuration"
    wait_until(lambda: reaches(lab, INSIDE), timeout=30, what="the tunnel")
    assert seen_from(lab) == str(lab.site.wan[1])
    assert agent.stop() == 0, agent.log
