"""The CLAT's address on a real ipvlan: what the link's other stations see of it, and what may become of the uplink below it."""

import json
import pathlib
import time
import types

import pytest

import guest
import probe
import servers
import snapshot
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent


@pytest.fixture(scope="module", params=["kernel", "userspace"])
def up(shared_lab, request):
    """A lab whose laptop has IPv4, by either path of packets, for tests that leave it so."""
    agent = shared_lab.agent("--datapath", request.param, "--log-level", "debug")
    entry = agent.wait_for("on")
    assert entry["datapath"]["kind"] == request.param
    with guest.ClatNamespace(agent) as clat:
        yield types.SimpleNamespace(
            lab=shared_lab, laptop=shared_lab.laptop, router=shared_lab.site.router, agent=agent, clat=clat,
            address=entry["ipv6Address"])
    print(agent.log)
    assert agent.stop() == 0


def works(lab, count=2):
    """Whether IPv4 goes through; the first packets may wait for neighbour discovery."""
    ping = lab.laptop.run(["ping", "-n", f"-c{count}", "-i0.2", "-W5", Lab.SERVER])
    return f" {count} received" in ping.stdout


def forget_neighbours(router):
    """What the router knows of the link is forgotten, so that it must solicit anew."""
    router.namespace.run(["ip", "-6", "neighbour", "flush", "dev", "lan"], check=True)


# MARK: the link


def test_it_is_an_ipvlan_in_mode_l2(up):
    assert up.agent.interface()["uplinkKind"] == "ipvlan"
    details = guest.link(up.clat, guest.UPLINK)["linkinfo"]
    assert details["info_kind"] == "ipvlan"
    assert details["info_data"]["mode"] == "l2"
    # From birth: a mode that somebody steals is set back, and would hide that it was wrong.
    assert "back to L2 mode" not in up.agent.log


def test_it_has_the_uplinks_hardware_address_and_mtu(up):
    own, parent = guest.link(up.clat, guest.UPLINK), guest.link(up.laptop, "eth0")
    assert own["address"] == parent["address"]
    assert own["mtu"] == parent["mtu"]


def test_steering_is_attached_by_clsact(up):
    # Linux 6.1 has no tcx.
    assert "clsact" in up.agent.interface()["datapath"]["detail"]
    for device in (guest.UPLINK, "clat-host"):
        filters = up.clat.run(["tc", "filter", "show", "dev", device, "ingress"], check=True).stdout
        assert "bpf" in filters and "direct-action" in filters, device


def test_its_tun_takes_super_packets_of_tcp_only(up):
    # USO for TUN came with Linux 6.2.
    detail = up.agent.interface()["datapath"]["detail"]
    assert "TUN with TCP super-packets" in detail, detail


def test_the_kernel_configures_nothing_by_itself_there(up):
    with up.clat.entered():
        settings = pathlib.Path("/proc/sys/net/ipv6/conf", guest.UPLINK)
        assert [(settings / name).read_text().strip() for name in ("accept_ra", "autoconf", "forwarding")] == ["0", "0", "0"]
    # From another router: that of the default route the kernel would pass over, as the route is there already.
    try:
        up.router.advertiser.send(up.router.advertisement(source="fe80::9", lifetime=60))
        wait_until(lambda: "fe80::9" in up.laptop.run(["ip", "-6", "route", "show", "default"]).stdout, what="the host's second route")
        time.sleep(1)
        held = [address for address in guest.addresses(up.clat, guest.UPLINK) if not address.startswith("fe80:")]
        assert held == [up.address]
        routes = up.clat.run(["ip", "-6", "-json", "route", "show", "table", "all"], check=True).stdout
        assert [route for route in json.loads(routes) if route.get("protocol") == "ra"] == []
        assert "fe80::9" not in routes
    finally:
        up.router.advertiser.send(up.router.advertisement(source="fe80::9", lifetime=0))


def test_host_and_clat_share_no_address(up):
    own, hosts = guest.addresses(up.clat, guest.UPLINK), guest.addresses(up.laptop, "eth0")
    assert up.address in own and hosts and not set(own) & set(hosts)


# MARK: neighbour discovery


@pytest.mark.parametrize("kind", ["multicast", "unicast"])
def test_a_solicitation_is_answered_from_the_very_address(up, kind):
    hardware_address = guest.link(up.laptop, "eth0")["address"]
    to = (up.address, hardware_address) if kind == "unicast" else None
    answer = probe.solicit(
        up.router.namespace, "lan", up.address, up.router.address, up.router.hardware_address, to=to)
    assert answer.source == up.address and answer.target == up.address
    assert answer.octets[6:12].hex(":") == hardware_address
    if kind == "multicast":
        assert answer.payload[24:26] == b"\x02\x01" and answer.payload[26:32].hex(":") == hardware_address


def test_the_address_is_defended(up):
    """Another station's duplicate address detection meets an answer to all nodes (RFC 4862 section 5.4.3)."""
    answer = probe.solicit(up.router.namespace, "lan", up.address, "::", up.router.hardware_address)
    assert answer.source == up.address and answer.destination == "ff02::1"


def test_the_kernels_own_detection_of_another_station_fails(up):
    name = f"copy-{up.agent.process.pid}"
    other = up.lab.add_host(name)
    other.ip(f"address add {up.address}/64 dev eth0")
    try:
        wait_until(lambda: "dadfailed" in other.run(["ip", "-6", "address", "show", "dev", "eth0"]).stdout,
                   timeout=15, what="duplicate address detection")
    finally:
        up.lab.switch.run(["ip", "link", "del", name], check=True)
    assert works(up.lab)


def test_neighbours_reach_it(up):
    forget_neighbours(up.router)
    ping = up.router.namespace.run(["ping", "-n", "-c2", "-i0.2", "-W5", up.address])
    assert f"bytes from {up.address}" in ping.stdout and " 2 received" in ping.stdout


def test_ipv4_works_however_little_the_router_remembers(up):
    for _ in range(3):
        forget_neighbours(up.router)
        assert works(up.lab)


def test_tcp_and_udp_arrive_intact(up):
    command = f"curl -sS --max-time 60 http://{Lab.SERVER}/3M | sha256sum"
    assert servers.sha256(3 * 10**6) in up.laptop.run(["sh", "-c", command], check=True).stdout
    answer = up.laptop.run(["dig", f"@{Lab.DNS_SERVER}", "+short", "+tries=1", "www.example.com", "A"], check=True)
    assert answer.stdout.strip() == Lab.SERVER


# MARK: what becomes of the uplink


def test_an_mtu_of_the_uplink_is_taken_over(up):
    try:
        up.laptop.ip("link set eth0 mtu 1400")
        wait_until(lambda: up.agent.interface().get("mtu") == 1380, what="an IPv4 MTU of 1380")
        # The kernel hands it to every ipvlan.
        assert guest.link(up.clat, guest.UPLINK)["mtu"] == 1400
        ping = up.laptop.run(["ping", "-n", "-c1", "-W5", "-Mdo", "-s1352", Lab.SERVER])
        assert " 1 received" in ping.stdout
        too_large = up.laptop.run(["ping", "-n", "-c1", "-W2", "-Mdo", "-s1353", Lab.SERVER])
        assert " 0 received" in too_large.stdout
    finally:
        up.laptop.ip("link set eth0 mtu 1500")
    wait_until(lambda: up.agent.interface().get("mtu") == 1480, what="an IPv4 MTU of 1480")
    assert works(up.lab)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_a_mode_that_another_ipvlan_steals_is_set_back(up, mode):
    """All ipvlans of an uplink share one mode. In L3 nobody would answer neighbour discovery for ours."""
    try:
        up.laptop.ip(f"link add link eth0 name thief type ipvlan mode {mode}")
        wait_until(lambda: guest.link(up.clat, guest.UPLINK)["linkinfo"]["info_data"]["mode"] == "l2", what="mode l2")
        forget_neighbours(up.router)
        assert works(up.lab)
    finally:
        up.laptop.run(["ip", "link", "del", "thief"])


def test_a_link_that_somebody_deletes_in_the_namespace_comes_back(lab):
    agent = lab.agent()
    agent.wait_for("on")
    with guest.ClatNamespace(agent) as clat:
        clat.ip(f"link del {guest.UPLINK}")
    wait_until(lambda: works(lab, 1), timeout=30, what="IPv4 over another link")
    agent.wait_for("on")
    assert agent.stop() == 0


def test_a_killed_agent_leaves_the_uplink_free(lab):
    before = snapshot.take(lab.laptop)
    agent = lab.agent()
    agent.wait_for("on")
    # While there is an ipvlan nobody gets a macvlan (EBUSY).
    assert lab.laptop.run(["ip", "link", "add", "link", "eth0", "name", "mv", "type", "macvlan"]).returncode != 0
    agent.kill()
    wait_until(lambda: lab.laptop.run(["ip", "link", "add", "link", "eth0", "name", "mv", "type", "macvlan"]).returncode == 0,
               what="an uplink without ipvlan")
    lab.laptop.ip("link del mv")
    snapshot.wait_for(lab.laptop, before)
