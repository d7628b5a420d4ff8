"""Uplinks that an ipvlan cannot be put on: each either carries the CLAT in another way or has its sentence in status."""

import pytest

import guest
import servers
import snapshot
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent


def works(lab):
    return " 2 received" in lab.laptop.run(["ping", "-n", "-c2", "-i0.2", "-W5", Lab.SERVER]).stdout


def wait_for_reason(agent, code, interface="eth0"):
    """The uplink's part of the status, once it is off for that reason."""
    def reached():
        entry = agent.interface(interface)
        return entry if entry and entry["reason"]["code"] == code else None
    entry = wait_until(reached, timeout=20, what=f"{interface}: {code}")
    assert entry["state"] == "off"
    return entry


def test_beside_a_macvlan_it_is_one_too(lab):
    lab.laptop.ip("link add link eth0 name container type macvlan mode bridge")
    agent = lab.agent()
    entry = agent.wait_for("on")
    assert entry["uplinkKind"] == "macvlan" and "macvlan" in entry["uplinkNote"]
    assert works(lab)
    assert agent.stop() == 0


def test_an_uplink_that_somebody_holds_whole_has_its_sentence_and_is_taken_once_free(lab):
    lab.laptop.ip("link add link eth0 name whole type macvlan mode passthru")
    agent = lab.agent()
    sentence = wait_for_reason(agent, "step-failed")["reason"]["sentence"]
    assert "somebody else holds the uplink" in sentence
    lab.laptop.ip("link del whole")
    agent.wait_for("on", timeout=40)
    assert works(lab)
    assert agent.stop() == 0


def test_the_port_of_a_bridge_is_passed_over_for_the_bridge(lab):
    lab.laptop.ip(f"""
        link add br0 address {lab.LAPTOP_HARDWARE_ADDRESS} type bridge
        link set eth0 master br0
        link set br0 up
    """)
    agent = lab.agent(interfaces=())
    assert "bridge" in wait_for_reason(agent, "enslaved")["reason"]["sentence"]
    assert agent.wait_for("on", interface="br0")["uplinkKind"] == "ipvlan"
    assert works(lab)
    assert agent.stop() == 0


TUNNELS = {
    "wg0": ("wireguard", "point-to-point-silent", "VPN"),
    "ip6": ("ip6tnl remote 2001:db8:1::1 local :: mode any", "unsuitable-link", "(ip6tnl)"),
    "six": ("sit remote 192.0.2.1 local any", "unsuitable-link", "(sit)"),
}


def test_each_tunnel_has_its_sentence(lab):
    for name, (kind, *_) in TUNNELS.items():
        lab.laptop.ip(f"link add {name} type {kind}\nlink set {name} up")
    agent = lab.agent(interfaces=())
    for name, (_, code, word) in TUNNELS.items():
        assert word in wait_for_reason(agent, code, name)["reason"]["sentence"]
    # And the others are served none the less.
    agent.wait_for("on")
    assert agent.status_text("--short").strip() == "eth0 on"
    assert agent.stop() == 0


@pytest.mark.parametrize("kind", ["ppp", "pppd", "tun", "noarp"])
def test_a_link_without_neighbours_has_a_relay(kind):
    with Lab(uplink="point", kind=kind) as lab:
        before = snapshot.take(lab.laptop)
        agent = lab.agent(interfaces=())
        assert agent.wait_for("on", "point")["uplinkKind"] == "relay"
        assert works(lab)
        download = f"curl -sS --max-time 100 http://{Lab.SERVER}/1M | sha256sum"
        assert servers.sha256(10**6) in lab.laptop.run(["sh", "-c", download], timeout=110, check=True).stdout
        upload = lab.directory / "upload"
        upload.write_bytes(b"".join(servers.content(10**6)))
        sent = lab.laptop.run(
            ["curl", "-sS", "--max-time", "100", "-T", upload, f"http://{Lab.SERVER}/"], timeout=110, check=True)
        assert servers.sha256(10**6) in sent.stdout
        counters = agent.interface("point")["counters"]
        assert counters["relay-read-faults"] == counters["relay-write-faults"] == 0
        agent.kill()
        snapshot.wait_for(lab.laptop, before)


@pytest.fixture
def no_ipvlan():
    with guest.no_ipvlan():
        yield


def test_without_ipvlan_in_the_kernel_it_is_a_macvlan(lab, no_ipvlan):
    agent = lab.agent()
    entry = agent.wait_for("on")
    assert entry["uplinkKind"] == "macvlan" and "no ipvlan" in entry["uplinkNote"]
    assert works(lab)
    assert agent.stop() == 0
