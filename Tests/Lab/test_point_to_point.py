"""Uplinks that can carry neither ipvlan nor macvlan: IP packets alone, as of a modem, and Ethernet without neighbour discovery."""

import ipaddress
import json
import os
import re
import signal
import socket
import time

import pytest

import agent as program
import network
import ra
import servers
import snapshot
from fdstore import DescriptorStore
from flows import Transfer
from lab import DATAPATHS, Lab
from modem import open_tun
from namespace import wait_until
from probe import Outage

pytestmark = pytest.mark.agent
WHOLE = "took over from the agent before this one; all is as it was left"
ETH_P_ALL, PACKET_OUTGOING = 3, 4


@pytest.fixture(params=["tun", "noarp"])
def lab(request):
    with Lab(uplink="point", kind=request.param) as made:
        yield made


@pytest.fixture
def modem():
    """A laptop whose one uplink is a modem's, of IP packets alone."""
    with Lab(uplink="point", kind="tun") as made:
        yield made


def start(lab, *arguments, **options):
    """An agent that finds the link by itself, on."""
    running = lab.agent(*arguments, interfaces=(), **options)
    return running, running.wait_for("on", "point")


def works(lab, count=2):
    return f" {count} received" in lab.laptop.run(["ping", "-n", f"-c{count}", "-i0.1", "-W5", Lab.SERVER]).stdout


class Wire:
    """What the router's end of the link gets from the laptop, as IP packets."""

    def __init__(self, lab):
        self._socket = lab.site.router.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.bind(("lan", ETH_P_ALL))
        self._socket.setblocking(False)

    def packets(self, seconds):
        """All that comes within so many seconds."""
        found, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            if kind != PACKET_OUTGOING:
                found.append(packet)
        return found

    def close(self):
        self._socket.close()


def destination(packet):
    return str(ipaddress.IPv6Address(packet[24:40])) if packet[0] >> 4 == 6 else None


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["stop", "kill"])
@pytest.mark.parametrize("datapath", DATAPATHS)
def test_ipv4_goes_by_a_relay_and_nothing_is_left(lab, datapath, ending):
    before = snapshot.take(lab.laptop)
    running, entry = start(lab, datapath=datapath)
    assert entry["uplinkKind"] == "relay" and entry["ipv6AddressState"] == "preferred"
    assert entry["datapath"]["kind"] == ("kernel" if datapath == "kernel" else "userspace")
    text = running.status_text()
    assert re.search(r"carried by +relay", text) and "point on" in running.status_text("--short")
    assert works(lab, 5)
    command = f"curl -sS --max-time 100 http://{Lab.SERVER}/20M | sha256sum"
    assert servers.sha256(20 * 10**6) in lab.laptop.run(["sh", "-c", command], timeout=110, check=True).stdout
    path = lab.directory / "upload"
    path.write_bytes(b"".join(servers.content(20 * 10**6)))
    sent = lab.laptop.run(["curl", "-sS", "--max-time", "100", "-T", path, f"http://{Lab.SERVER}/"], timeout=110, check=True)
    assert servers.sha256(20 * 10**6) in sent.stdout
    hops = lab.laptop.run(["traceroute", "-n", "-q1", "-w3", "-N4", "-I", Lab.SERVER], check=True).stdout.splitlines()[1:]
    assert [hop.split()[1] for hop in hops] == ["192.0.0.8"] * 4 + ["192.168.255.1", "192.0.2.1", Lab.SERVER]
    # Larger than the path: the error comes back from beyond the link.
    lab.site.set_mtu(1400)
    said = lab.laptop.run(["ping", "-n", "-c1", "-W3", "-Mdo", "-s1452", Lab.SERVERS[1]]).stdout
    assert re.search(r"From 192\.0\.0\.8 .*needed.*mtu = 1380", said), said
    counters = running.interface("point")["counters"]
    assert counters["relay-read-faults"] == counters["relay-write-faults"] == counters["relay-lost"] == 0
    running.process.send_signal(ending)
    assert running.wait() == (0 if ending == signal.SIGTERM else -signal.SIGKILL), running.log
    snapshot.wait_for(lab.laptop, before)


def test_the_link_hears_of_nothing_but_the_host_and_the_clat(lab):
    """No neighbour discovery and no reports of groups from the namespace: on such a link they are for nobody."""
    wire = Wire(lab)
    running, entry = start(lab)
    assert works(lab)
    assert "1 received" in lab.site.router.namespace.run(["ping", "-c1", "-W5", entry["ipv6Address"]]).stdout
    heard = [packet for packet in wire.packets(1) if packet[0] >> 4 == 6]
    wire.close()
    hosts = {line.split()[0] for line in lab.laptop.read("net/if_inet6").splitlines()} | {"0" * 32}
    own = ipaddress.IPv6Address(entry["ipv6Address"]).packed.hex()
    others = [packet for packet in heard if packet[8:24].hex() not in hosts]
    assert others and {packet[8:24].hex() for packet in others} == {own}
    # Echo requests of ours to the server, echo replies to the router.
    assert {packet[40] for packet in others if packet[6] == 58} == {128, 129}
    assert running.stop() == 0


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_a_host_that_forwards_sends_nothing_back(lab, datapath):
    """Its stack sees a copy of what comes for the CLAT, and the way there leads out of the link again."""
    lab.laptop.sysctl(ipv6__conf__all__forwarding=1, ipv6__conf__point__accept_ra=2)
    running, entry = start(lab, datapath=datapath)
    address = entry["ipv6Address"]
    wire = Wire(lab)
    def back():
        assert works(lab, 5)
        return [packet for packet in wire.packets(0.5) if destination(packet) == address]
    assert not back()
    download = f"curl -sS --max-time 60 http://{Lab.SERVER}/2M | sha256sum"
    assert servers.sha256(2 * 10**6) in lab.laptop.run(["sh", "-c", download], check=True).stdout
    # Nor does the stack tell the server that it knows nothing of the connection.
    assert not [packet for packet in wire.packets(0.5) if destination(packet) == address]
    # What keeps it from that is the one route.
    lab.laptop.ip(f"route del {address} dev clat-point")
    assert back(), "this could not fail"
    assert running.stop() == 0


@pytest.mark.parametrize("refused", [None, "bpf"], ids=["ebpf", "nftables"])
def test_nothing_with_an_address_of_the_clat_leaves_the_link(modem, refused):
    lab, wire = modem, Wire(modem)
    def leaks():
        with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"point")
            for address in (Lab.SERVER, "224.0.0.251"):
                try:
                    client.sendto(b"by force", (address, 53))
                except OSError:
                    pass
        return [packet for packet in wire.packets(0.5) if packet[0] >> 4 == 4 and packet[12:15] == b"\xc0\0\0"]
    lab.laptop.ip("address add 192.0.0.1/32 dev lo scope global\nroute add 198.51.100.0/24 dev point")
    assert leaks(), "this could not fail"
    lab.laptop.ip("address del 192.0.0.1/32 dev lo")
    running, entry = start(lab, refused=refused)
    lab.laptop.run(["ip", "route", "add", "198.51.100.0/24", "dev", "point"])
    assert entry["ipv4Address"] == "192.0.0.1" and not leaks()
    if not refused:
        assert running.interface("point")["counters"]["leaks-stopped"] > 0
    assert running.stop() == 0


def test_a_silent_one_is_not_shouted_about(modem):
    """As the tunnel of a VPN, which the laptop has beside its uplink."""
    tun = open_tun(modem.laptop.name, "vpn")
    modem.laptop.ip("link set vpn up")
    running, _ = start(modem)
    reason = running.interface("vpn")["reason"]
    assert reason["code"] == "point-to-point-silent" and "VPN" in reason["sentence"]
    assert running.status_text("--short").strip() == "point on"
    assert running.stop() == 0
    os.close(tun)


def test_prefix_and_address_may_be_configured_where_no_router_is(modem):
    """As for a VPN that leads to a NAT64: its other end routes an address here."""
    modem.site.router.advertiser.advertise()
    own = str(modem.site.lan[0xC1A7])
    file = modem.directory / "config.toml"
    file.write_text(f'[[interface]]\nname = "point"\npref64 = "{modem.site.pref64}"\nipv6-address = "{own}"\n')
    running, entry = start(modem, "--config", file)
    assert entry["ipv6Address"] == own and entry["pref64Source"] == "configuration"
    assert works(modem)
    said = running.namespace.run([program.binary(), "reexec", "--runtime-dir", running.runtime_directory])
    assert said.returncode == 0 and WHOLE in running.log, running.log
    assert works(modem) and running.stop() == 0


def test_neighbour_discovery_that_is_switched_off_and_on_is_followed(shared_lab):
    """On a wire that has neighbours a relay carries nothing; but what is built is what belongs there."""
    running = shared_lab.agent()
    kind = running.wait_for("on")["uplinkKind"]
    shared_lab.laptop.ip("link set eth0 arp off")
    running.wait_until(lambda entry: entry["state"] == "on" and entry["uplinkKind"] == "relay", "a relay")
    shared_lab.laptop.ip("link set eth0 arp on")
    running.wait_until(lambda entry: entry["state"] == "on" and entry["uplinkKind"] == kind, kind)
    assert works(shared_lab)
    assert running.stop() == 0


def test_renumbering_and_mtu_are_followed(lab):
    running, entry = start(lab)
    transfer = Transfer(lab.laptop, Lab.SERVER)
    lab.site.renumber(lab.site.lan, "2001:db8:77::/64")
    after = running.wait_until(lambda now: now["ipv6Address"].startswith("2001:db8:77:"), "another address", "point")
    assert works(lab) and transfer.is_running
    transfer.finish()
    routes = lab.laptop.run(["ip", "-6", "route", "show", "proto", "208"], check=True).stdout
    assert entry["ipv6Address"] in routes and after["ipv6Address"] in routes
    lab.laptop.ip("link set point mtu 1400")
    running.wait_until(lambda now: now.get("mtu") == 1380, "another MTU", "point")
    device = running.namespace.run([program.binary(), "exec", "--runtime-dir", running.runtime_directory, "point", "--",
                                    "ip", "-json", "link", "show", "clat-uplink"], check=True)
    assert json.loads(device.stdout)[0]["mtu"] == 1400
    assert works(lab) and running.stop() == 0


def test_the_link_may_go_down_and_come_back(lab):
    running, entry = start(lab)
    lab.laptop.ip("link set point down")
    running.wait_for("off", "point")
    lab.laptop.ip("link set point up")
    assert running.wait_for("on", "point")["ipv6Address"] == entry["ipv6Address"]
    assert works(lab) and running.stop() == 0


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_connections_live_through_reexec(lab, datapath, figure):
    running, entry = start(lab, datapath=datapath)
    with Outage(lab.laptop, Lab.SERVER, connected=True) as beat:
        transfer = Transfer(lab.laptop, Lab.SERVER)
        for number in range(1, 4):
            time.sleep(0.3)
            said = running.namespace.run([program.binary(), "reexec", "--runtime-dir", running.runtime_directory])
            assert said.returncode == 0 and running.log.count(WHOLE) == number, said.stderr + running.log
        assert transfer.is_running
        transfer.finish()
        gap, lost = beat.close()
    figure(f"three reexecs, {lab.kind}, {datapath}", f"{gap:.0f} ms out, {lost} lost")
    assert lost <= 300
    assert running.interface("point")["ipv6Address"] == entry["ipv6Address"]
    assert running.stop() == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
def test_connections_live_through_a_restart(lab, ending, figure):
    before = snapshot.take(lab.laptop)
    with DescriptorStore(lab.directory) as manager:
        # By routes, as no more descriptors than these find room in the manager's shell.
        first = manager.start(lab, interfaces=(), datapath="routes")
        first.wait_for("on", "point")
        wait_until(lambda: any(name.startswith("state-") for name in manager.kept), what="a state")
        assert {"relay-tap", "relay-in", "relay-out"} < {name.rpartition("-")[0] for name in manager.kept}
        with Outage(lab.laptop, Lab.SERVER, connected=True) as beat:
            transfer = Transfer(lab.laptop, Lab.SERVER)
            time.sleep(0.3)
            first.process.send_signal(ending)
            first.wait()
            second = manager.start(lab, again=first, interfaces=(), datapath="routes")
            wait_until(lambda: WHOLE in second.log, what="a take-over")
            transfer.finish()
            gap, lost = beat.close()
        figure(f"a {ending.name}, {lab.kind}", f"{gap:.0f} ms out, {lost} lost")
        assert lost <= 300 and second.stop() == 0
    snapshot.wait_for(lab.laptop, before)


def test_it_is_found_with_its_prefix_of_any_length():
    with Lab(uplink="point", kind="tun", pref64=network.PREF64_BY_LENGTH[64]) as lab:
        running, entry = start(lab)
        assert entry["pref64"] == lab.site.pref64 and works(lab)
        narrow = lab.site.router.advertisement([lab.site.pref64], extra=[ra.mtu(1280)])
        lab.site.router.advertiser.advertise(narrow)
        running.wait_until(lambda now: now.get("mtu") == 1260, "the router's MTU", "point")
        assert works(lab) and running.stop() == 0
