"""What hosts do with IPv4 beyond sockets of their own: containers behind NAT44, and VPNs whose endpoint is an IPv4 literal."""

import contextlib
import ipaddress
import pathlib
import sys
import types

import pytest

import servers
from lab import DATAPATHS, Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

ENDPOINT, PORT, INSIDE = Lab.SERVERS[1], 51820, "10.9.0.1"


def reaches(space, address, *options):
    return " 2 received" in space.run(["ping", "-n", "-c2", "-i0.1", "-W5", *options, address]).stdout


# MARK: NAT44 behind the host


@pytest.fixture(scope="module", params=DATAPATHS)
def docker(request):
    """A lab whose laptop has IPv4, forwards, and masquerades for a container, as Docker has it."""
    with Lab() as lab:
        agent = lab.agent(datapath=request.param)
        agent.wait_for("on")
        lab.laptop.sysctl(ipv4__ip_forward=1)
        container, = lab._create("container")
        lab.laptop.ip(f"""
            link add docker0 type bridge
            address add 172.17.0.1/16 dev docker0
            link set docker0 up
            link add vethc master docker0 up type veth peer name eth0 netns {container.name}
        """)
        container.ip("address add 172.17.0.2/16 dev eth0\nlink set eth0 up\nroute add default via 172.17.0.1")
        lab.laptop.run(["nft", "-f", "-"], check=True, stdin="""
            table ip docker {
                chain postrouting {
                    type nat hook postrouting priority srcnat
                    oifname != "docker0" ip saddr 172.17.0.0/16 masquerade
                }
                chain forward {
                    type filter hook forward priority filter; policy drop
                    ct state established,related accept
                    iifname "docker0" accept
                }
            }
        """)
        yield types.SimpleNamespace(lab=lab, agent=agent, container=container)
        print(agent.log)
        assert agent.stop() == 0


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_a_container_has_ipv4_through_the_clat(docker, offloads):
    container = docker.container
    for space, device in ((container, "eth0"), (docker.lab.laptop, "vethc"), (docker.lab.laptop, "clat-eth0")):
        space.run(["ethtool", "-K", device, "tx", offloads, "tso", offloads, "gso", offloads, "gro", offloads], check=True)
    assert reaches(container, Lab.SERVER)
    seen = container.run(["curl", "-sS", "--max-time", "10", f"http://{Lab.SERVER}/whoami"], check=True).stdout
    assert seen.split()[0] == str(docker.lab.site.wan[1])
    command = f"curl -sS --max-time 60 http://{Lab.SERVER}/20M | sha256sum"
    assert servers.sha256(20 * 10**6) in container.run(["sh", "-c", command], check=True).stdout
    path = docker.lab.directory / "upload"
    path.write_bytes(b"".join(servers.content(5 * 10**6)))
    sent = container.run(["curl", "-sS", "--max-time", "60", "-T", path, f"http://{Lab.SERVER}/"], check=True).stdout
    assert servers.sha256(5 * 10**6) in sent
    answer = container.run(["dig", f"@{Lab.DNS_SERVER}", "+short", "+tries=1", "www.example.com", "A"], check=True)
    assert answer.stdout.strip() == Lab.SERVER


def test_a_container_is_told_of_the_path_mtu(docker):
    """Its own device knows nothing of the CLAT's twenty octets."""
    ping = docker.container.run(["ping", "-n", "-c1", "-W3", "-Mdo", "-s1453", Lab.SERVERS[2]])
    assert "mtu = 1480" in ping.stdout + ping.stderr or "mtu=1480" in ping.stdout + ping.stderr
    ping = docker.container.run(["ping", "-n", "-c1", "-W3", "-Mdo", "-s1452", Lab.SERVERS[2]])
    assert " 1 received" in ping.stdout


def test_a_container_shows_nothing_on_the_uplink(docker):
    """Neither its own address nor the host's, also where it asks for what is nowhere."""
    lab = docker.lab
    with lab.capture(lab.switch, "laptop", lambda frame: (frame.is_ipv4 or frame.is_arp) and not frame.outgoing) as wire:
        docker.container.run(["ping", "-n", "-c2", "-i0.1", "-W1", "224.0.0.251"])
        docker.container.run(["ping", "-n", "-c2", "-i0.1", "-W1", "192.0.0.5"])
        assert reaches(docker.container, Lab.SERVER)
    assert [str(frame) for frame in wire.frames] == []


# MARK: a VPN


@contextlib.contextmanager
def tunnel(lab):
    """The client's side comes; when the block ends it goes, and its routes with it."""
    program = pathlib.Path(__file__).with_name("tunnel.py")
    client = lab.laptop.popen([sys.executable, "-B", program, "tun0", "connect", ENDPOINT, str(PORT), str(PORT)], stdout=-1)
    try:
        assert client.stdout.readline() == "ready\n"
        lab.laptop.ip("address add 10.9.0.2/24 dev tun0\nlink set tun0 mtu 1400 up")
        yield
    finally:
        client.kill()
        client.communicate()


@pytest.fixture
def vpn(lab):
    """A lab with the VPN's server on its Internet."""
    program = pathlib.Path(__file__).with_name("tunnel.py")
    server = lab.internet.popen([sys.executable, "-B", program, "tun0", "listen", ENDPOINT, str(PORT)], stdout=-1)
    try:
        assert server.stdout.readline() == "ready\n"
        lab.internet.ip(f"address add {INSIDE}/24 dev tun0\nlink set tun0 up")
        yield lab
    finally:
        server.kill()
        server.communicate()


def into_the_tunnel_by_rules(lab):
    """As wg-quick does it; what undoes it."""
    lab.laptop.ip(f"""
        route add default dev tun0 table {PORT}
        rule add not fwmark {PORT} table {PORT} priority 20
        rule add table main suppress_prefixlength 0 priority 10
    """)
    return "rule del priority 10\nrule del priority 20"


def into_the_tunnel_by_halves(lab):
    """As OpenVPN does it: a route to the endpoint the way it goes now, and two that beat the default."""
    way = lab.laptop.run(["ip", "route", "get", ENDPOINT], check=True).stdout.split()
    assert "via" in way, "the way to the endpoint is told as that of any router's"
    hop = " ".join(way[way.index("via"):way.index("src")])
    lab.laptop.ip(f"route add {ENDPOINT} {hop}\nroute add 0.0.0.0/1 dev tun0\nroute add 128.0.0.0/1 dev tun0")
    return f"route del {ENDPOINT}"


def into_the_tunnel_by_metric(lab):
    """As NetworkManager does it: a better default route, and one to the endpoint. IPv6 goes there too, and ends there."""
    way = lab.laptop.run(["ip", "route", "get", ENDPOINT], check=True).stdout.split()
    hop = " ".join(way[way.index("via"):way.index("src")])
    lab.laptop.ip(f"route add {ENDPOINT} {hop}\nroute add default dev tun0 metric 50\nroute add ::/0 dev tun0 metric 50")
    return f"route del {ENDPOINT}"


WAYS = [into_the_tunnel_by_rules, into_the_tunnel_by_halves, into_the_tunnel_by_metric]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_vpn_comes_and_goes_and_never_loops(vpn, way):
    lab = vpn
    agent = lab.agent(interfaces=())
    own = agent.wait_for("on")
    for _ in range(2):
        with tunnel(lab):
            wait_until(lambda: reaches(lab.laptop, INSIDE), what="the tunnel")
            undo = way(lab)
            with lab.capture(lab.laptop, "tun0") as inside, lab.capture(
                    lab.switch, "laptop", lambda frame: frame.source == own["ipv6Address"]) as outside:
                assert reaches(lab.laptop, INSIDE)
                lab.laptop.run(["ping", "-n", "-c2", "-i0.1", "-W1", Lab.SERVERS[2]])
                wait_until(lambda: outside.frames, what="packets of the tunnel")
            # What a TUN carries has no link-layer header.
            packets = [frame.octets for frame in inside.frames if frame.octets[0] >> 4 == 4]
            to = [str(ipaddress.IPv4Address(octets[16:20])) for octets in packets]
            assert Lab.SERVERS[2] in to, "it is no full tunnel"
            assert not [octets for octets in packets if octets[9] == 17], "the tunnel in itself"
            # Nothing but the tunnel goes by the CLAT.
            assert {frame.protocol for frame in outside.frames if frame.icmpv6_type not in (135, 136)} == {17}
            assert agent.interface()["reason"]["code"] == "running"
            lab.laptop.ip(undo)
        wait_until(lambda: reaches(lab.laptop, Lab.SERVER), what="IPv4 without the tunnel")
        assert [agent.interface()[key] for key in ("ipv4Address", "ipv6Address")] == [own["ipv4Address"], own["ipv6Address"]]
    assert agent.stop() == 0
