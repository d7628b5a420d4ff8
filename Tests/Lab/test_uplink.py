"""What becomes of the uplink itself: another name, size or hardware address, down, away, gone; IPv4 of its own that comes and goes."""

import json
import socket

import pytest

import ra
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent


def works(lab, count=2):
    return f" {count} received" in lab.laptop.run(["ping", "-n", f"-c{count}", "-i0.1", "-W5", Lab.SERVER]).stdout


def link(lab, name):
    shown = lab.laptop.run(["ip", "-json", "-details", "link", "show", "dev", name])
    return json.loads(shown.stdout)[0] if shown.returncode == 0 else None


def routes(lab):
    return lab.laptop.run(["ip", "-4", "route"], check=True).stdout


@pytest.fixture
def on(lab):
    """An agent that serves whatever is suitable, on."""
    agent = lab.agent(interfaces=())
    agent.wait_for("on")
    yield agent
    assert agent.stop() == 0, agent.log


def test_a_rename_is_followed(lab, on):
    lab.laptop.ip("link set eth0 down\nlink set eth0 name lan0 up")
    assert on.wait_for("on", interface="lan0")["device"] == "clat-lan0"
    assert on.interface("eth0") is None and link(lab, "clat-eth0") is None
    assert works(lab)


def test_a_rename_while_it_is_up_breaks_nothing(lab, on):
    """Linux 6.2 and later let a link be renamed that is up."""
    before = on.interface()
    if lab.laptop.run(["ip", "link", "set", "eth0", "name", "lan0"]).returncode:
        pytest.skip("this kernel renames only what is down")
    after = on.wait_for("on", interface="lan0")
    assert after["ipv6Address"] == before["ipv6Address"] and works(lab)


def test_down_and_up_give_the_same_addresses(lab, on):
    before = on.interface()
    lab.laptop.ip("link set eth0 down")
    assert on.wait_for("off")["reason"]["code"] == "down"
    assert "clat-eth0" not in routes(lab)
    lab.laptop.ip("link set eth0 up")
    after = on.wait_for("on")
    assert [after[key] for key in ("ipv4Address", "ipv6Address")] == [before[key] for key in ("ipv4Address", "ipv6Address")]
    assert works(lab)


def test_an_uplink_that_moves_to_another_namespace_takes_nothing_along(lab):
    """As when somebody gives it to a container: neither the CLAT nor what guards the uplink."""
    elsewhere, = lab._create("elsewhere")
    agent = lab.agent(interfaces=())
    own = agent.wait_for("on")["ipv6Address"]
    lab.laptop.ip(f"link set eth0 netns {elsewhere.name} name moved")
    wait_until(lambda: agent.interface() is None and link(lab, "clat-eth0") is None, what="an end of the CLAT")
    assert "clat" not in routes(lab)
    with lab.capture(lab.switch, "laptop", lambda frame: not frame.outgoing) as wire:
        elsewhere.ip("link set moved up\naddress add 192.0.0.1/32 dev moved")
        with elsewhere.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"moved")
            client.sendto(b"mDNS", ("224.0.0.251", 5353))
        wait_until(lambda: any(frame.source == "192.0.0.1" for frame in wire.frames), what="what is free to leave there")
        assert not [frame for frame in wire.frames if frame.source == own]
    elsewhere.ip(f"link set moved netns {lab.laptop.name} name eth0")
    lab.laptop.ip("link set eth0 up")
    agent.wait_for("on")
    assert works(lab)
    assert agent.stop() == 0


def test_an_uplink_that_is_deleted_and_comes_back(lab, on):
    lab.laptop.ip("link del eth0")
    wait_until(lambda: link(lab, "clat-eth0") is None, what="an end of the host's device")
    assert "clat" not in routes(lab)
    wait_until(lambda: "eth0: IPv4 is off because the interface has gone" in on.log, what="a word of it, by its name")
    lab.switch.ip(f"link add laptop master lan up type veth peer name eth0 netns {lab.laptop.name}")
    lab.laptop.ip(f"link set eth0 address {lab.LAPTOP_HARDWARE_ADDRESS} up")
    on.wait_for("on")
    assert works(lab)


def test_another_hardware_address_is_followed_at_once(lab, on):
    # What an optimistic address tells its neighbours replaces nothing that they know (RFC 4429 section 3.3).
    on.wait_until(lambda entry: entry["ipv6AddressState"] == "preferred", "the end of DAD")
    for address in ("02:64:00:00:00:77", "02:64:00:00:00:78"):
        lab.laptop.ip(f"link set eth0 address {address}")
        assert works(lab)
    assert on.interface()["state"] == "on"


def test_the_mtu_of_the_uplink_and_of_the_router_are_kept_to(lab, on):
    def ipv4_mtu(value):
        wait_until(lambda: on.interface().get("mtu") == value, what=f"an IPv4 MTU of {value}")
        assert f"mtu {value}" in routes(lab)
        for size, expected in ((value - 28, True), (value - 27, False)):
            ping = lab.laptop.run(["ping", "-n", "-c1", "-W2", "-Mdo", f"-s{size}", Lab.SERVERS[1]])
            assert (" 1 received" in ping.stdout) == expected, (value, size)
    lab.laptop.ip("link set eth0 mtu 1400")
    ipv4_mtu(1380)
    lab.laptop.ip("link set eth0 mtu 1500")
    ipv4_mtu(1480)
    router = lab.site.router
    narrow = router.advertisement([lab.site.pref64])
    narrow.options[1] = ra.mtu(1280)
    router.advertiser.advertise(narrow)
    ipv4_mtu(1260)
    router.advertiser.advertise(router.advertisement([lab.site.pref64]))
    ipv4_mtu(1480)
    assert link(lab, "clat-eth0")["mtu"] == 1500, "what comes in may be larger"


def test_native_ipv4_comes_and_goes(lab, on):
    lab.site.router.namespace.ip("address add 10.77.0.1/24 dev lan")
    for _ in range(2):
        lab.laptop.ip("address add 10.77.0.2/24 dev eth0\nroute add default via 10.77.0.1 metric 50")
        assert on.wait_for("off")["reason"]["code"] == "native-ipv4"
        assert "clat" not in routes(lab) and link(lab, "clat-eth0") is None
        lab.laptop.ip("address del 10.77.0.2/24 dev eth0")  # and with it the route
        on.wait_for("on")
        assert works(lab)


@pytest.fixture
def beside(lab):
    """A second link of the laptop, with IPv4 of its own."""
    lab.laptop.ip("link add beside type veth peer name far\naddress add 10.88.0.2/24 dev beside\nlink set far up\nlink set beside up")


def test_native_ipv4_that_is_replaced_by_another_links_has_gone(lab, beside, on):
    """`ip route replace` takes the first route of that metric away, and no notice tells of that."""
    lab.laptop.ip("address add 10.77.0.2/24 dev eth0\nroute add default via 10.77.0.1 metric 50")
    reason = on.wait_for("off")["reason"]
    assert reason["code"] == "native-ipv4" and "via 10.77.0.1, metric 50" in reason["sentence"]
    lab.laptop.ip("route replace default via 10.88.0.1 dev beside metric 50")
    on.wait_for("on")
    lab.laptop.ip("route replace default via 10.77.0.1 dev eth0 metric 50")
    assert on.wait_for("off")["reason"]["code"] == "native-ipv4"


def test_of_two_routes_of_one_metric_one_may_go(lab, on):
    lab.laptop.ip("""
        address add 10.77.0.2/24 dev eth0
        route add default via 10.77.0.1 metric 50
        route append default via 10.77.0.9 metric 50
    """)
    on.wait_for("off")
    lab.laptop.ip("route del default via 10.77.0.1 metric 50")
    on.wait_until(lambda entry: "10.77.0.9" in entry["reason"]["sentence"], "the other route")
    lab.laptop.ip("route del default via 10.77.0.9 metric 50")
    on.wait_for("on")


def test_no_route_of_anybody_elses_is_replaced(lab, beside, on):
    """Others take the metric of ours, before and after it, by a route to somewhere and by one that leads nowhere."""
    def theirs():
        return [line for line in routes(lab).splitlines() if "default" in line and "clat-eth0" not in line]
    metric = on.interface()["metric"]
    for kind in ("prepend default via 10.88.0.1 dev beside", "append default via 10.88.0.9 dev beside", "append unreachable default"):
        kept = theirs()
        lab.laptop.ip(f"route {kind} metric {metric}")
        metric = on.wait_until(lambda entry: entry.get("metric", metric) > metric, "another metric")["metric"]
        assert len(theirs()) == len(kept) + 1, routes(lab)
        router = lab.site.router
        advertisement = router.advertisement([lab.site.pref64])
        for mtu in (1400, 1500):
            # The route changes where it is.
            advertisement.options[1] = ra.mtu(mtu)
            router.advertiser.advertise(advertisement)
            on.wait_until(lambda entry: entry.get("mtu") == mtu - 20, "another MTU")
        assert len(theirs()) == len(kept) + 1 and routes(lab).count("clat-eth0") == 1, routes(lab)
    assert on.interface()["state"] == "on"


def test_a_router_that_goes_takes_ipv4_with_it_and_brings_it_back(lab, on):
    """All but the host's route stays: what is missing is a way to the NAT64."""
    router = lab.site.router
    device = link(lab, "clat-eth0")["ifindex"]
    router.advertiser.advertise(router.advertisement([lab.site.pref64], lifetime=0))
    assert on.wait_for("suspended")["reason"]["code"] == "suspended-no-router"
    assert "default" not in routes(lab)
    router.advertiser.advertise(router.advertisement([lab.site.pref64]))
    on.wait_for("on")
    assert link(lab, "clat-eth0")["ifindex"] == device and works(lab)


@pytest.mark.parametrize("lost", ["device", "address", "route"])
def test_what_somebody_takes_away_in_the_host_comes_back(lab, on, lost):
    own = on.interface()["ipv4Address"]
    lab.laptop.ip({"device": "link del clat-eth0", "address": f"address del {own}/32 dev clat-eth0",
                   "route": "route del default dev clat-eth0"}[lost])
    wait_until(lambda: "default" in routes(lab) and works(lab), 20, what="IPv4")
    on.wait_for("on")
