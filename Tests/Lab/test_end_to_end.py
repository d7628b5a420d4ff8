"""IPv4 through clat-agent on an IPv6-only network, end to end: real advertisements, a real NAT64, real sockets."""

import ipaddress
import os
import re
import socket
import time
import types

import pytest

import network
import probe
import servers
import snapshot
from lab import DATAPATHS, Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

# What a router without IPv4 looks like from IPv4: the dummy address (RFC 7600), as standards has it for such errors.
DUMMY = "192.0.0.8"
SIZE = os.environ.get("CLAT_LAB_TRANSFER", "100M")  # less where everything is emulated


@pytest.fixture(scope="module", params=DATAPATHS)
def up(shared_lab, request):
    """A lab whose laptop has IPv4, for tests that leave it so; once with each of the data paths."""
    agent = shared_lab.agent(datapath=request.param)
    entry = agent.wait_for("on")
    assert entry["datapath"]["kind"] == ("kernel" if request.param == "kernel" else "userspace")
    assert ("by routes and rules" in entry["datapath"]["detail"]) == (request.param == "routes")
    yield types.SimpleNamespace(lab=shared_lab, laptop=shared_lab.laptop, agent=agent, entry=entry)
    print(agent.log)
    assert agent.stop() == 0


def default_routes(laptop):
    return laptop.run(["ip", "-4", "route", "show", "default"], check=True).stdout


def echoed(laptop, address, payload):
    """Whether the echo service returns a datagram as it was. (A UDP socket sets DF, and so does the server's.)"""
    with laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((address, 7))
        client.send(payload)
        return client.recv(65535) == payload


# MARK: what comes up


def test_ipv4_comes_up_from_the_advertisement(up):
    assert up.entry["pref64"] == up.lab.site.pref64
    assert up.entry["device"] == "clat-eth0"
    assert up.entry["uplinkKind"] in ("ipvlan", "macvlan")
    assert up.entry["reason"]["code"] and up.entry["reason"]["sentence"]
    assert up.entry["ipv4Address"] == "192.0.0.1", "the first of the seven, for all are free"
    addresses = up.laptop.run(["ip", "-4", "-o", "address", "show", "dev", "clat-eth0"], check=True).stdout
    assert "inet 192.0.0.1/32" in addresses
    assert "dev clat-eth0" in default_routes(up.laptop)


def test_the_clat_has_an_ipv6_address_of_its_own(up):
    address = ipaddress.IPv6Address(up.entry["ipv6Address"])
    assert address in up.lab.site.lan
    assert str(address) != up.lab.host_address()
    # Its neighbours reach it, and the answer comes from that very address.
    ping = up.lab.site.router.namespace.run(["ping", "-c1", "-W5", address])
    assert f"bytes from {address}" in ping.stdout


def test_the_host_itself_holds_nothing_but_the_device(up):
    links = up.laptop.run(["ip", "-o", "link"], check=True).stdout
    assert re.findall(r"^\d+: ([^:@]+)", links, re.MULTILINE) == ["lo", "eth0", "clat-eth0"]
    peers = up.laptop.run(["ip", "netns", "list-id"], check=True).stdout.count("nsid")
    assert peers == 2, "the switch and the CLAT's own"


def test_status_tells_people_what_it_tells_programs(up):
    text = up.agent.status_text()
    for word in ("eth0", "on", up.lab.site.pref64, up.entry["ipv4Address"], up.entry["ipv6Address"]):
        assert word in text


# MARK: what it carries


def test_ping(up):
    for address in Lab.SERVERS:
        assert " 5 received" in up.laptop.run(["ping", "-n", "-c5", "-i0.05", "-W5", address]).stdout


# Up to where the NAT64 makes fragments of the answer: 1280 octets of IPv6, for the answer's DF is not set.
@pytest.mark.parametrize("size", [0, 1, 7, 8, 1000, 1232])
def test_ping_of_many_sizes(up, size):
    assert "1 received" in up.laptop.run(["ping", "-n", "-c1", "-W5", "-Mdo", f"-s{size}", Lab.SERVER]).stdout


def test_dns_over_udp(up):
    answer = up.laptop.run(["dig", f"@{Lab.DNS_SERVER}", "+short", "+tries=1", "www.example.com", "A"], check=True)
    assert answer.stdout.strip() == Lab.SERVER


def test_dns_over_tcp(up):
    answer = up.laptop.run(["dig", f"@{Lab.DNS_SERVER}", "+short", "+tcp", "big.example.com", "TXT"], check=True)
    assert len(answer.stdout.splitlines()) == 12


def test_udp_payloads_return_as_they_were(up):
    for size in [0, 1, 2, 3, 511, 1000, 1452]:
        assert echoed(up.laptop, Lab.SERVER, b"".join(servers.content(size))), size


def test_a_large_download_is_intact(up):
    command = f"curl -sS --max-time 300 http://{Lab.SERVER}/{SIZE} | sha256sum"
    output = up.laptop.run(["sh", "-c", command], timeout=310, check=True).stdout
    assert output.split()[0] == servers.sha256(servers.parse_size(SIZE))


def test_a_large_upload_is_intact(up):
    path = up.lab.directory / "upload"
    with open(path, "wb") as file:
        for piece in servers.content(servers.parse_size(SIZE)):
            file.write(piece)
    output = up.laptop.run(
        ["curl", "-sS", "--max-time", "300", "-T", path, f"http://{Lab.SERVER}/"], timeout=310, check=True).stdout
    path.unlink()
    assert servers.sha256(servers.parse_size(SIZE)) in output


def test_the_server_sees_the_nat64(up):
    output = up.laptop.run(["curl", "-sS", "--max-time", "10", f"http://{Lab.SERVER}/whoami"], check=True).stdout
    assert output.split()[0] == str(up.lab.site.wan[1])


# MARK: errors on the way


@pytest.mark.parametrize("protocol", [["-I"], []], ids=["icmp", "udp"])
def test_traceroute_shows_every_hop(up, protocol):
    output = up.laptop.run(["traceroute", "-n", "-q1", "-w3", "-N4", *protocol, Lab.SERVER], check=True).stdout
    hops = [line.split()[1] for line in output.splitlines()[1:]]
    # The translator, router, core, the NAT64's IPv6 side; tayga; the NAT64's IPv4 side; the server.
    assert hops == [DUMMY] * 4 + ["192.168.255.1", "192.0.2.1", Lab.SERVER]


def test_a_port_without_a_listener_refuses(up):
    with up.laptop.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            client.connect((Lab.SERVER, 81))
    with up.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((Lab.SERVER, 81))
        client.send(b"nobody there")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_a_packet_larger_than_the_uplink_is_refused_at_home(up):
    output = up.laptop.run(["ping", "-n", "-c1", "-W2", "-Mdo", "-s1453", Lab.SERVER])
    assert "mtu=1480" in output.stdout + output.stderr or "mtu = 1480" in output.stdout + output.stderr


def test_a_packet_larger_than_the_path_gets_its_error(up):
    address = Lab.SERVERS[1]  # one that no other test sends large packets to, for the kernel remembers
    up.lab.site.set_mtu(1400)
    try:
        output = up.laptop.run(["ping", "-n", "-c1", "-W3", "-Mdo", "-s1452", address])
        assert re.search(r"From 192\.0\.0\.8 .*[Ff]rag(mentation)? needed.*mtu = 1380", output.stdout), output.stdout
        assert "mtu 1380" in up.laptop.run(["ip", "route", "get", address], check=True).stdout
        assert echoed(up.laptop, address, b"".join(servers.content(1380 - 28)))
        # And TCP, which learns of it in the same way, gets through in both directions.
        command = f"curl -sS --max-time 60 http://{address}/1M | sha256sum"
        assert servers.sha256(10**6) in up.laptop.run(["sh", "-c", command], check=True).stdout
    finally:
        up.lab.site.set_mtu(1500)


# MARK: a good neighbour on the link


@pytest.mark.parametrize("ttl", [10, 255])
def test_it_counts_as_one_hop(up, ttl):
    """What leaves the laptop with a TTL has one less on the link, and what came by the link one less in the laptop."""
    with up.lab.capture(up.lab.site.router.namespace, "lan", lambda frame: frame.icmpv6_type in (128, 129)) as wire:
        output = up.laptop.run(["ping", "-n", "-c1", "-W5", f"-t{ttl}", Lab.SERVER], check=True).stdout
        # The answer may be here before the capture has got round to it.
        wait_until(lambda: any(frame.icmpv6_type == 129 for frame in wire.frames), what="the answer on the link")
    assert [frame.hop_limit for frame in wire.frames if frame.icmpv6_type == 128] == [ttl - 1]
    replies = [frame.hop_limit for frame in wire.frames if frame.icmpv6_type == 129]
    assert [f" ttl={limit - 1} " in output for limit in replies] == [True], output


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_native_packets_to_its_address_are_refused(up, kind):
    with up.lab.site.router.namespace.socket(socket.AF_INET6, kind) as client:
        client.settimeout(5)
        with pytest.raises(PermissionError):  # ICMPv6 type 1, code 1 (RFC 7915 section 5.4)
            client.connect((up.entry["ipv6Address"], 9))
            client.send(b"native")
            client.recv(100)


def test_its_neighbours_do_not_take_it_for_a_router(up):
    router, address = up.lab.site.router.namespace, up.entry["ipv6Address"]
    with up.lab.capture(router, "lan", lambda frame: frame.icmpv6_type == 136) as wire:
        router.ip("neighbour flush dev lan")
        router.run(["ping", "-c1", "-W5", address], check=True)
        wait_until(lambda: any(frame.target == address for frame in wire.frames), what="its advertisement")
    advertised = [frame for frame in wire.frames if frame.target == address]
    assert all(frame.source == address and not frame.payload[4] & 0x80 for frame in advertised)


def test_it_answers_multicast_listener_queries(up):
    """For a switch that snoops, its solicited-node group lives by these answers."""
    router, address = up.lab.site.router.namespace, ipaddress.IPv6Address(up.entry["ipv6Address"])
    group = ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:]
    with up.lab.capture(router, "lan", lambda frame: frame.is_ipv6 and group in frame.payload) as wire:
        probe.query_listeners(router, "lan")
        wait_until(lambda: wire.frames, what="a report of its group")


# MARK: beginning and end


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_the_laptop_is_afterwards_what_it_was_before(lab, ending):
    before = snapshot.take(lab.laptop)
    agent = lab.agent()
    agent.wait_for("on")
    assert snapshot.difference(before, snapshot.take(lab.laptop)), "it did nothing"
    lab.laptop.run(["ping", "-n", "-c2", "-i0.1", Lab.SERVER], check=True)
    if ending == "stop":
        assert agent.stop() == 0, agent.log
    else:
        agent.kill()
    snapshot.wait_for(lab.laptop, before)


def test_it_starts_again_after_it_was_killed(lab):
    first = lab.agent()
    first.wait_for("on")
    first.kill()
    second = lab.agent(again=first)
    second.wait_for("on")
    assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
    assert second.stop() == 0


def test_it_waits_for_the_advertisement(lab):
    router = lab.site.router
    router.advertiser.advertise(router.advertisement())
    # The first one of the lab's set-up named the prefix, but nobody listened then.
    agent = lab.agent()
    entry = agent.wait_for("off")
    assert entry["reason"]["code"] and default_routes(lab.laptop) == ""
    router.advertiser.advertise(router.advertisement([lab.site.pref64]))
    agent.wait_for("on")
    assert agent.stop() == 0


def test_it_solicits_and_does_not_wait_for_the_next_periodic_advertisement(lab):
    before = len(lab.site.router.advertiser.log()["solicited"])
    agent = lab.agent()
    agent.wait_for("on", timeout=15)  # the next periodic one is a minute away
    assert len(lab.site.router.advertiser.log()["solicited"]) > before
    assert agent.stop() == 0


def test_the_route_appears_only_when_packets_are_answered(lab):
    pinger = probe.Pinger(lab.laptop, Lab.SERVER)
    assert pinger.send() is None, "there is a route already"
    agent = lab.agent()
    sequence, sent = pinger.first_sent(timeout=20)
    replied = pinger.reply(sequence, timeout=3)
    assert replied is not None, f"the very first packet got no answer\n{agent.log}"
    print(f"first packet answered after {(replied - sent) * 1000:.1f} ms")
    pinger.close()
    assert agent.stop() == 0


def test_duplicate_address_detection_precedes_the_first_packet(lab):
    with lab.capture(lab.site.router.namespace, "lan", lambda frame: frame.is_ipv6) as wire:
        agent = lab.agent()
        address = agent.wait_for("on")["ipv6Address"]
        lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER], check=True)
        wait_until(lambda: any(frame.source == address for frame in wire.frames), what="a packet from the address")
    agent.stop()
    solicited = [frame.time for frame in wire.frames if frame.source == "::" and frame.target == address]
    used = [frame.time for frame in wire.frames if frame.source == address]
    assert solicited, "no neighbour solicitation for the address from ::"
    assert solicited[0] < used[0]


def test_an_address_that_another_station_owns_is_not_used(lab):
    """Whatever address it tries is taken. When addresses can be foretold, a host that simply has one joins this
    test."""
    before = snapshot.take(lab.laptop)
    neighbour = lab.add_host("owner")
    wire = lab.capture(lab.site.router.namespace, "lan")
    with probe.Defender(neighbour, "eth0", lab.site.lan) as owner, wire:
        agent = lab.agent()
        wait_until(lambda: owner.claimed, timeout=20, what="duplicate address detection")
        time.sleep(4)
        entry = agent.interface()
        assert entry["state"] != "on" and entry["reason"]["sentence"]
        assert default_routes(lab.laptop) == ""
    # What the owner's advertisements carry is not from the laptop; all else with such a source would be.
    stolen = [frame for frame in wire.frames if frame.source in owner.claimed and frame.icmpv6_type != 136]
    assert not stolen, [str(frame) for frame in stolen]
    assert agent.stop() == 0
    snapshot.wait_for(lab.laptop, before)


@pytest.mark.parametrize("length", network.PREF64_BY_LENGTH)
def test_every_prefix_length_works(length):
    with Lab(pref64=network.PREF64_BY_LENGTH[length]) as lab:
        agent = lab.agent()
        assert agent.wait_for("on")["pref64"] == lab.site.pref64
        assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
        command = f"curl -sS --max-time 60 http://{Lab.SERVER}/2M | sha256sum"
        assert servers.sha256(2 * 10**6) in lab.laptop.run(["sh", "-c", command], check=True).stdout
        assert agent.stop() == 0


def test_an_uplink_may_have_any_name():
    with Lab(uplink="wlx02640000aa10") as lab:  # as long as a name may be
        agent = lab.agent()
        agent.wait_for("on", interface="wlx02640000aa10")
        assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
        assert agent.stop() == 0


def test_without_an_interface_it_serves_every_suitable_uplink(lab):
    agent = lab.agent(interfaces=())
    agent.wait_for("on")
    served = [entry["interface"] for entry in agent.status()["interfaces"]]
    assert served == ["eth0"], "and neither the loopback nor its own"
    assert agent.stop() == 0
