"""The lab itself, without the agent: what the other tests build on is true."""

import dataclasses
import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

import capture
import namespace
import network
import ra
import servers
import snapshot
from lab import Lab

HERE = pathlib.Path(__file__).parent


def server(lab, address=Lab.SERVER):
    """An Internet address as the laptop's IPv6 reaches it."""
    return network.synthesise(lab.site.pref64, address)


@pytest.mark.parametrize("prefix, address", [
    # RFC 6052 section 2.4, table 2.
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
])
def test_synthesised_addresses_are_those_of_the_rfc(prefix, address):
    assert network.synthesise(prefix, "192.0.2.33") == address


def test_an_advertisement_has_the_octets_it_should():
    advertisement = ra.RouterAdvertisement(
        options=[
            ra.pref64("64:ff9b::/96", lifetime=1800), ra.mtu(1480), ra.source_link_layer_address("02:00:00:00:00:01")],
        preference="high", other=True)
    assert advertisement.packet().hex(" ") == (
        "60 00 00 00 00 30 3a ff "  # version 6, 48 octets, ICMPv6, hop limit 255
        "fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01 ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01 "
        "86 00 f9 e9 40 48 07 08 00 00 00 00 00 00 00 00 "  # type 134, checksum, hop limit 64, O and high, 1800 s
        "26 02 07 08 00 64 ff 9b 00 00 00 00 00 00 00 00 "  # PREF64: 1800 s, code 0
        "05 01 00 00 00 00 05 c8 "
        "01 01 02 00 00 00 00 01")


def test_ipv6_reaches_the_ipv4_internet_through_tayga(shared_lab):
    ping = shared_lab.laptop.run(["ping", "-c3", "-i0.2", server(shared_lab)])
    assert "3 received" in ping.stdout
    curl = shared_lab.laptop.run(["curl", "-sS", f"http://[{server(shared_lab)}]/whoami"], check=True)
    assert curl.stdout.split()[0] == str(shared_lab.site.wan[1]), "NAT44 did not do its work"


def test_http_carries_the_right_octets_both_ways(shared_lab):
    url, size = f"http://[{server(shared_lab)}]", 5_000_000
    path = shared_lab.directory / "download"
    shared_lab.laptop.run(["curl", "-sS", "-o", path, f"{url}/5M"], check=True)
    octets = path.read_bytes()
    assert len(octets) == size and hashlib.sha256(octets).hexdigest() == servers.sha256(size)
    upload = shared_lab.laptop.run(["curl", "-sS", "-T", path, f"{url}/upload"], check=True)
    assert servers.sha256(size) in upload.stdout


def test_the_internet_resolves_names(shared_lab):
    def dig(*arguments):
        return shared_lab.laptop.run(["dig", f"@{server(shared_lab, Lab.DNS_SERVER)}", *arguments], check=True).stdout
    assert dig("+short", "www.example.com", "A") == f"{Lab.SERVER}\n"
    assert dig("+short", "www.example.com", "AAAA") == ""
    assert "status: NXDOMAIN" in dig("nowhere.example.com", "A")
    assert "status: NOERROR" in dig("www.example.com", "AAAA")
    assert dig("+short", "+tcp", "ipv4only.arpa", "A").split() == ["192.0.0.170", "192.0.0.171"]
    assert len(dig("+short", "big.example.com", "TXT").splitlines()) == 12, "a truncated answer is asked again by TCP"


def test_echo_services_return_what_they_get(shared_lab):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with shared_lab.laptop.socket(socket.AF_INET6, kind) as client:
            client.settimeout(5)
            client.connect((server(shared_lab), 7))
            client.send(b"echo this")
            assert client.recv(100) == b"echo this"


@pytest.mark.parametrize("protocol", [["-I"], []], ids=["icmp", "udp"])
def test_traceroute_shows_each_router_and_the_nat64(shared_lab, protocol):
    output = shared_lab.laptop.run(["traceroute", "-n", "-q1", "-w2", *protocol, server(shared_lab)], check=True).stdout
    assert [line.split()[1] for line in output.splitlines()[1:]] == [
        shared_lab.site.router.address, "2001:db8:f1:1::2", "2001:db8:f1:2::2",
        server(shared_lab, "192.168.255.1"), server(shared_lab, "192.0.2.1"), server(shared_lab)]


def test_a_narrow_core_says_packet_too_big(lab):
    lab.site.set_mtu(1300)
    lab.laptop.run(["ping", "-c1", "-W1", "-Mdo", "-s1400", server(lab)])
    assert "mtu 1300" in lab.laptop.run(["ip", "route", "get", server(lab)], check=True).stdout


@pytest.mark.parametrize("length", network.PREF64_BY_LENGTH)
def test_the_nat64_takes_every_prefix_length(length):
    with Lab(pref64=network.PREF64_BY_LENGTH[length]) as lab:
        assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", server(lab)]).stdout


def test_the_laptop_hears_the_advertised_octets_and_the_kernel_takes_them(lab):
    advertisement = dataclasses.replace(
        lab.site.router.advertisement(["64:ff9b::/96", "2001:db8:64::/96"], hop_limit=33),
        preference="low", lifetime=1200)
    with lab.capture(lab.laptop, "eth0", lambda frame: frame.icmpv6_type == 134) as heard:
        lab.site.router.advertiser.advertise(advertisement)
        namespace.wait_until(lambda: heard.frames, what="an advertisement")
    assert heard.frames[0].octets[14:] == advertisement.packet()
    route = lab.laptop.run(["ip", "-6", "route", "show", "default"], check=True).stdout
    assert "hoplimit 33" in route and "pref low" in route


def test_a_solicitation_is_answered_at_once(lab):
    before = lab.site.router.advertiser.log()
    lab.laptop.run(["rdisc6", "-1", "eth0"], check=True)
    after = lab.site.router.advertiser.log()
    assert len(after["solicited"]) > len(before["solicited"])
    assert any(0 <= sent - after["solicited"][-1][0] < 0.5 for sent in after["sent"])


def test_advertisements_are_periodic_until_the_router_falls_silent(lab):
    advertiser = lab.site.router.advertiser
    count = len(advertiser.advertise(lab.site.router.advertisement(), interval=0.05)["sent"])
    namespace.wait_until(lambda: len(advertiser.log()["sent"]) >= count + 4, what="periodic advertisements")
    count = len(advertiser.advertise()["sent"])
    time.sleep(0.3)
    assert len(advertiser.log()["sent"]) == count


def test_a_bad_advertisement_arrives_as_it_was_made(lab):
    bad = lab.site.router.advertisement(ip_hop_limit=254, checksum=0x1234, source="2001:db8:1::1").packet()[:-3]
    with lab.capture(lab.laptop, "eth0", lambda frame: frame.is_ipv6 and frame.hop_limit == 254) as heard:
        lab.site.router.advertiser.send(bad)
        namespace.wait_until(lambda: heard.frames, what="the bad advertisement")
    assert heard.frames[0].octets[14:] == bad


def test_a_second_uplink_has_its_own_way_out(lab):
    site = lab.add_site()
    address = network.synthesise(site.pref64, Lab.SERVER)
    output = lab.laptop.run(["curl", "-sS", "--interface", "eth1", f"http://[{address}]/whoami"], check=True).stdout
    assert output.split()[0] == str(site.wan[1])


def test_a_second_router_and_a_host_join_the_link(lab):
    router = lab.add_router()
    router.advertiser.advertise(router.advertisement(["2001:db8:99::/96"]))
    namespace.wait_until(
        lambda: "via fe80::2" in lab.laptop.run(["ip", "-6", "route"]).stdout.replace("nexthop ", ""), what="its route")
    lab.laptop.ip(f"route replace {lab.site.pref64} via fe80::2 dev eth0")
    assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", server(lab)]).stdout
    host = lab.add_host("intruder")
    # The kernel of this host does its own DAD, so its link-local address takes a second.
    namespace.wait_until(
        lambda: " 0 received" not in host.run(["ping", "-c1", "-W1", lab.host_address()]).stdout, what="the neighbour")


def test_the_dns64_synthesises_what_the_internet_knows(lab):
    lab.start_dns64()

    def dig(*arguments):
        # A resolver turns the order of the records as it likes.
        return sorted(lab.laptop.run(["dig", f"@{lab.site.resolver}", "+short", *arguments], check=True).stdout.split())
    assert dig("ipv4only.arpa", "AAAA") == [server(lab, "192.0.0.170"), server(lab, "192.0.0.171")]
    assert dig("ipv4only.arpa", "A") == ["192.0.0.170", "192.0.0.171"]
    assert dig("www.example.com", "AAAA") == [server(lab)]


def test_a_snapshot_names_what_differs_and_forgets_it_when_it_is_undone(lab):
    before = snapshot.take(lab.laptop)
    changes = {  # what is done: how it is undone, what must be named
        "neighbour add fe80::99 lladdr 02:00:00:00:00:99 dev eth0": ("neighbour del fe80::99 dev eth0", "fe80::99"),
        "neighbour add proxy 2001:db8:1::7 dev eth0": ("neighbour del proxy 2001:db8:1::7 dev eth0", "2001:db8:1::7"),
        "rule add to 192.0.2.99 table 77": ("rule del to 192.0.2.99 table 77", "192.0.2.99"),
        "route add unreachable 2001:db8:77::/48 table 77": ("route del 2001:db8:77::/48 table 77", "2001:db8:77::/48"),
        "route add unreachable 192.0.2.77 table 77": ("route del unreachable 192.0.2.77 table 77", "192.0.2.77"),
        "address add 192.0.0.1/32 dev eth0": ("address del 192.0.0.1/32 dev eth0", "192.0.0.1"),
        "link set eth0 mtu 1400": ("link set eth0 mtu 1500", "link eth0 mtu 1400"),
        "link set eth0 alias spoilt": ('link set eth0 alias ""', "spoilt"),
        "link add clat-eth0 type veth peer name other": ("link del clat-eth0", "link clat-eth0"),
    }
    for change, (undo, name) in changes.items():
        lab.laptop.ip(change)
        assert any(name in line for line in snapshot.difference(before, snapshot.take(lab.laptop))), change
        lab.laptop.ip(undo)
    lab.laptop.sysctl(ipv4__ip_forward=1)
    assert "+ sysctl net.ipv4.ip_forward = 1" in snapshot.difference(before, snapshot.take(lab.laptop))
    lab.laptop.sysctl(ipv4__ip_forward=0)
    lab.laptop.run(["nft", "add", "table", "ip", "spoilt"], check=True)
    assert "+ nft table ip spoilt {" in snapshot.difference(before, snapshot.take(lab.laptop))
    lab.laptop.run(["nft", "delete", "table", "ip", "spoilt"], check=True)
    assert snapshot.difference(before, snapshot.take(lab.laptop)) == []
    with lab.laptop.entered():
        assert snapshot._programs_at(1 << 20, 47) == [], "an interface that goes while it is looked at"


def test_the_lab_has_no_link_to_the_machine(shared_lab):
    machine = os.stat("/proc/self/ns/net").st_ino
    for space in shared_lab.namespaces:
        with space.entered():
            assert os.stat("/proc/thread-self/ns/net").st_ino != machine
        nsids = space.run(["ip", "netns", "list-id"], check=True).stdout.split()
        links = space.run(["ip", "-o", "link", "show", "type", "veth"], check=True).stdout.splitlines()
        # Every peer has an id, and every id has the name of one of the lab's namespaces.
        assert all("link-netns" in line or "link-netnsid" in line for line in links)
        assert nsids.count("nsid") == sum(word.strip(")").startswith(shared_lab.prefix) for word in nsids)


def lab_in_a_process():
    """A lab that another process holds, and that process."""
    code = """if True:
        import lab, signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, if we run in a shell's background
        with lab.Lab() as made:
            print(made.prefix, flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-B", "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def remains(prefix, processes):
    """What is left of a lab: names, living processes, files."""
    names = [entry.name for entry in namespace.NETNS.iterdir() if entry.name.startswith(prefix)]
    files = list(pathlib.Path(tempfile.gettempdir()).glob(f"{prefix}*"))
    return names, [p for p in processes if namespace.is_alive(p)], files


def processes_of(prefix):
    spaces = [namespace.Namespace(entry.name) for entry in namespace.NETNS.iterdir() if entry.name.startswith(prefix)]
    try:
        return [process for space in spaces for process in space.processes()]
    finally:
        for space in spaces:
            space.close()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_lab_that_is_told_to_end_leaves_nothing(ending):
    process, prefix = lab_in_a_process()
    with process:
        processes = processes_of(prefix)
        assert len(processes) == 3, "tayga, ra.py, servers.py"
        process.send_signal(ending)
        process.wait(20)
    assert remains(prefix, processes) == ([], [], [])


def test_clean_removes_what_a_killed_lab_left():
    process, prefix = lab_in_a_process()
    with process:
        processes = processes_of(prefix)
        process.kill()
        # Until it is waited for, its id is taken, and no lab that starts elsewhere sweeps what it left.
        namespace.wait_until(lambda: not namespace.is_alive(process.pid), what="its end")
        assert remains(prefix, processes)[0], "the namespaces of a killed lab stay; else this test shows nothing"
        process.wait()
    subprocess.run([sys.executable, "-B", "-m", "lab", "clean"], cwd=HERE, check=True)
    namespace.wait_until(lambda: remains(prefix, processes) == ([], [], []), what="a clean machine")


def test_labs_do_not_disturb_each_other():
    with Lab() as one, Lab() as other:
        assert one.prefix != other.prefix
        one.close()
        assert "1 received" in other.laptop.run(["ping", "-c1", "-W5", server(other)]).stdout


@pytest.mark.skipif(
    pathlib.Path("/proc/self/setgroups").read_text() == "deny\n",
    reason="tcpdump gives up its rights, which it cannot in this user namespace")
def test_a_capture_writes_what_tcpdump_reads(shared_lab):
    with shared_lab.capture(shared_lab.laptop, "eth0") as seen:
        shared_lab.laptop.run(["ping", "-c1", server(shared_lab)], check=True)
        namespace.wait_until(lambda: any(frame.icmpv6_type == 129 for frame in seen.frames), what="the reply")
    path = shared_lab.directory / "capture.pcap"
    seen.write(path)
    text = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True).stdout
    assert "echo reply" in text and seen.dropped == 0
    request = next(frame for frame in seen.frames if frame.icmpv6_type == 128)
    assert isinstance(request, capture.Frame) and request.outgoing and request.source == shared_lab.host_address()
