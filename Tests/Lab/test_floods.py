"""Floods: whoever fills the link, or the control socket, costs bounded memory and time, and does not delay packets.

The figures stand at the end of the run. Times are those of a machine that makes the flood itself, so they are compared with a flood of
the same rate that is for nobody.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import types

import pytest

import forge
import network
import probe
import ra
from agent import binary
from lab import DATAPATHS, Lab
from namespace import PATIENCE, in_user_namespace, wait_until

pytestmark = [pytest.mark.agent, pytest.mark.alone]
SECONDS = 0.7 * PATIENCE
RATE = 10000  # packets a second, if the machine can
# Of a processor, and KiB: half as much again as the dearest flood takes.
LARGEST_SHARE, LARGEST_GROWTH = 0.6, 2048
LARGEST_LINES = 4  # of the log, that one advertisement can cause


@pytest.fixture(scope="module", params=DATAPATHS)
def one_flooded(request):
    """IPv4 that works, and a host on the link that says what it likes as often as it can."""
    with Lab() as lab:
        running = lab.agent(datapath=request.param)
        entry = running.wait_for("on")
        mallory = lab.add_host("mallory")
        wait_until(lambda: "1 received" in mallory.run(["ping", "-c1", "-W1", entry["ipv6Address"]]).stdout, what="a neighbour")
        neighbour = mallory.run(["ip", "-6", "neighbour", "show", "to", entry["ipv6Address"]], check=True).stdout
        with forge.Forger(mallory, "eth0", neighbour.split()[neighbour.split().index("lladdr") + 1]) as forger:
            yield types.SimpleNamespace(
                lab=lab, agent=running, ours=entry["ipv6Address"], forger=forger, path=request.param,
                server=network.synthesise(lab.site.pref64, Lab.SERVER))
        print(running.log)
        assert running.interface()["state"] == "on" and running.stop() == 0


@pytest.fixture
def flooded(one_flooded, figure):
    """The same, with where to note what was measured."""
    one_flooded.figure = figure
    return one_flooded


def memory(process):
    """Octets of private memory."""
    text = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty")) * 1024


def processor(process):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latencies(lab):
    """Milliseconds of pings through the CLAT for SECONDS; None for those that got no answer."""
    pinger = probe.Pinger(lab.laptop, Lab.SERVER)
    found, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        begun = time.monotonic()
        answered = pinger.reply(pinger.send(), 2)
        found.append(answered and (answered - begun) * 1000)
        time.sleep(0.005)
    pinger.close()
    return found


@contextlib.contextmanager
def flood(send, packets):
    """Packets over and over, at RATE or as fast as it goes; the number sent is in the list it gives."""
    stopping, sent = threading.Event(), [0]

    def run():
        begun = time.monotonic()
        while not stopping.is_set():
            for packet in packets:
                with contextlib.suppress(OSError):  # ENOBUFS: the queue is full, as it should be
                    send(packet)
                sent[0] += 1
                ahead = sent[0] / RATE - (time.monotonic() - begun)
                if ahead > 0.002:
                    time.sleep(ahead)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        stopping.set()
        thread.join()


class Cost:
    """What it costs the agent and its packets, by the end of a `with` block of SECONDS."""

    def __init__(self, flooded):
        self._agent, self._process, self._lab = flooded.agent, flooded.agent.process.pid, flooded.lab

    def __enter__(self):
        self._processor, self._memory = processor(self._process), memory(self._process)
        self._lines = self._agent.log.count("\n")
        self._begun = time.monotonic()
        return self

    def watch(self):
        """Milliseconds of pings meanwhile."""
        found = latencies(self._lab)
        answered = sorted(value for value in found if value is not None)
        assert answered, f"no ping was answered: {self._agent.interface()}\n{self._agent.log[-2000:]}"
        self.lost, self.median, self.worst = found.count(None), statistics.median(answered), answered[int(len(answered) * 0.99)]

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._begun
        self.share = (processor(self._process) - self._processor) / self.seconds
        self.grown = (memory(self._process) - self._memory) // 1024
        self.lines = self._agent.log.count("\n") - self._lines

    def __str__(self):
        return (f"ping {self.median:.2f} ms (99 %: {self.worst:.2f}), {self.lost} lost; "
                f"{self.share:.0%} of a processor, {self.grown:+d} KiB, {self.lines} lines of its log")


def measure(flooded, name, packets, everybody=False):
    """The figures of a flood beside those of the same flood to nobody."""
    def cost(send):
        with Cost(flooded) as cost, flood(send, packets) as sent:
            cost.watch()
        cost.sent = sent[0] / cost.seconds
        return cost

    # To a hardware address that nobody has, which the switch sends everywhere and all throw away.
    nobody = forge.Forger(flooded.lab.namespaces[-1], "eth0", "02:64:de:ad:00:00")
    idle = cost(nobody.send)
    nobody.close()
    busy = cost(lambda packet: flooded.forger.send(packet, everybody=everybody))
    flooded.figure(f"{name} ({flooded.path})", f"{busy.sent:.0f} a second: {busy}; of as many to nobody: {idle}")
    assert flooded.agent.interface()["state"] == "on"
    # A flood that fills queues may lose a ping; it must not hold them up.
    assert busy.median < idle.median * 2 + 2 and busy.lost <= 2
    assert busy.share < LARGEST_SHARE
    assert busy.grown < LARGEST_GROWTH
    # A PREF64 lost and one found; no packet is a line.
    assert busy.lines <= LARGEST_LINES
    return busy


def counted(flooded, name):
    entry = flooded.agent.interface()
    return entry["counters"].get(name, 0) + entry["refusedAdvertisements"].get(name, 0)


def advertisement(number):
    """Of a router of its own, with a prefix, a PREF64 and a resolver of its own."""
    return ra.RouterAdvertisement(
        source=f"fe80::bad:{number:x}", lifetime=0, preference="low", options=[
            ra.prefix_information(f"2001:db8:{number:x}::/64"), ra.pref64(f"2001:db8:f{number:x}::/96"),
            ra.rdnss([f"2001:db8::{number:x}"])]).packet()


def test_advertisements(flooded):
    measure(flooded, "Router Advertisements", [advertisement(number) for number in range(1, 65)], everybody=True)
    assert counted(flooded, "too-many") > 0 and counted(flooded, "no-room") > 0


def test_refused_advertisements(flooded):
    """Those that came through a router take nothing of what the routers of the link may send."""
    before = {name: counted(flooded, name) for name in ("hop-limit-not-255", "too-many")}
    busy = measure(flooded, "Router Advertisements with hop limit 64", [
        ra.RouterAdvertisement(ip_hop_limit=64).packet()], everybody=True)
    assert counted(flooded, "hop-limit-not-255") > before["hop-limit-not-255"] and counted(flooded, "too-many") == before["too-many"]
    assert busy.share < 0.8


def test_advertisements_of_a_router_amid_refused_ones(flooded):
    router = flooded.lab.site.router
    heard = flooded.agent.interface()["advertisements"]
    packet = ra.RouterAdvertisement(ip_hop_limit=64).packet()
    with flood(lambda packet: flooded.forger.send(packet, everybody=True), [packet]) as sent:
        wait_until(lambda: sent[0] > 1000, what="the flood")
        for _ in range(10):
            router.advertiser.send(router.advertisement([flooded.lab.site.pref64]))
            time.sleep(0.1)
    # A queue that is full may lose one.
    wait_until(lambda: flooded.agent.interface()["advertisements"] - heard >= 9, what="what the router said")


def test_advertisements_of_a_router_amid_those_of_strangers(flooded):
    """What strangers send takes nothing of what a router may that was there before."""
    router, pref64 = flooded.lab.site.router, flooded.lab.site.pref64
    packets = [ra.RouterAdvertisement(source=f"fe80::bad:{number:x}", lifetime=0, preference="low", options=[
        ra.prefix_information(f"2001:db8:{number:x}::/64", valid=30, preferred=0)]).packet() for number in range(1, 65)]

    def say(**advertisement):
        # A queue that is full may lose one.
        for _ in range(3):
            router.advertiser.send(router.advertisement(**advertisement))
            time.sleep(0.1)
    with flood(lambda packet: flooded.forger.send(packet, everybody=True), packets) as sent:
        wait_until(lambda: sent[0] > 1000, what="the flood")
        # Another one is taken then where a stranger has told of any.
        say(extra=[ra.pref64(pref64, lifetime=0)])
        wait_until(lambda: flooded.agent.interface().get("pref64") != pref64, what="what the router says no longer")
        say(pref64=[pref64])
        wait_until(lambda: flooded.agent.interface().get("pref64") == pref64, what="what it says again")
    flooded.agent.wait_for("on")


def test_somebody_who_takes_the_routers_address_makes_few_lines(flooded):
    """He is believed, and his every other advertisement changes what is to be said; but no more are looked at than a router may send."""
    packets = [ra.RouterAdvertisement(options=[ra.pref64(flooded.lab.site.pref64, lifetime=lifetime)]).packet()
               for lifetime in (0, 600)]
    with Cost(flooded) as cost, flood(lambda packet: flooded.forger.send(packet, everybody=True), packets):
        time.sleep(SECONDS)
    flooded.figure(f"an advertisement and its contrary ({flooded.path})",
                   f"{cost.lines / cost.seconds:.0f} lines a second, {cost.share:.0%} of a processor")
    assert 0 < cost.lines < LARGEST_LINES * 100 * (cost.seconds + 1)
    def is_over():
        before = counted(flooded, "too-many")
        time.sleep(0.3)
        return counted(flooded, "too-many") == before
    # What is left of it in the socket has its say first, and the router's own word must not be one too many.
    wait_until(is_over, what="the end of the flood")
    time.sleep(1)
    site = flooded.lab.site
    site.router.advertiser.send(site.router.advertisement(pref64=[site.pref64]))
    flooded.agent.wait_until(lambda entry: (entry["state"], entry.get("pref64")) == ("on", site.pref64), "the router's own PREF64")


@contextlib.contextmanager
def stopped(process):
    """The agent does nothing meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_advertisements_for_which_there_is_no_room_are_counted(flooded):
    before = flooded.agent.status()["lostAdvertisements"]
    packet = ra.RouterAdvertisement(ip_hop_limit=64).packet()
    with stopped(flooded.agent.process):
        for _ in range(3000):
            flooded.forger.send(packet, everybody=True)

    def counted():
        # With the next one that is read the kernel tells how many were lost.
        flooded.forger.send(packet, everybody=True)
        return flooded.agent.status()["lostAdvertisements"] > before + 100
    wait_until(counted, what="a count of those that were lost")


def test_notices_for_which_there_is_no_room_are_counted_and_said_once(flooded):
    laptop = flooded.lab.laptop
    before, said = flooded.agent.status()["netlinkOverruns"], flooded.agent.log.count("more to tell than could wait")
    with stopped(flooded.agent.process):
        laptop.ip("\n".join(f"address {verb} 203.0.113.{number}/32 dev lo" for _ in range(20) for verb in ("add", "del")
                            for number in range(1, 255)))
    wait_until(lambda: flooded.agent.status()["netlinkOverruns"] > before, what="a count of overruns")
    time.sleep(0.5)
    count = flooded.agent.status()["netlinkOverruns"] - before
    assert flooded.agent.log.count("more to tell than could wait") - said == count < 5
    assert flooded.agent.interface()["state"] == "on"


def test_fragments(flooded):
    packets = [forge.fragments(flooded.server, flooded.ours, forge.ICMPV6, [(0, bytes([128]) + bytes(1199)), (1208, b"")], number)[0]
               for number in range(1000)]
    measure(flooded, "first fragments of echoes", packets)
    assert counted(flooded, "drop-reassembly-no-room") > 0


def test_icmp_errors(flooded):
    about = forge.segment("2001:db8::bad", flooded.server)
    ours = forge.segment(flooded.ours, flooded.server, ports=(4464, 80))
    measure(flooded, "ICMPv6 errors", [
        forge.message(flooded.server, flooded.ours, kind, data=packet) for packet in (about, ours) for kind in (1, 3)])


def test_what_must_be_answered(flooded):
    """Packets from outside of the PREF64, each of which wants an ICMPv6 error."""
    before = counted(flooded, "errors-suppressed")
    measure(flooded, "packets from outside", [forge.datagram("2001:db8:1::bad", flooded.ours)])
    assert counted(flooded, "errors-suppressed") > before


def test_control_clients(flooded):
    """Clients of root, who may all they like, ask for the status over and over."""
    path = str(flooded.agent.runtime_directory / "control")
    call = json.dumps({"method": "org.clatagent.Status"}).encode() + b"\0"
    stopping, asked = threading.Event(), [0]

    def ask():
        while not stopping.is_set():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(path)
                client.sendall(call * 4)
                client.recv(65536)
                asked[0] += 4
                time.sleep(0.01)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    with Cost(flooded) as cost:
        for thread in threads:
            thread.start()
        try:
            cost.watch()
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
    flooded.figure(f"calls of root ({flooded.path})", f"{asked[0] / cost.seconds:.0f} a second: {cost}")
    assert cost.lost <= 1 and cost.grown < LARGEST_GROWTH


# Connects, asks and goes on to the next, with as many connections as it can have; says how many there were.
STRANGER = """
import contextlib, socket, sys, time
path, end, clients, made = sys.argv[1], time.monotonic() + float(sys.argv[2]), [], 0
while time.monotonic() < end:
    with contextlib.suppress(OSError):
        client = socket.socket(socket.AF_UNIX)
        clients.append(client)
        client.setblocking(False)
        client.connect(path)
        client.send(b'{"method":"org.clatagent.Status"}\\0' * 4)
        made += 1
    if len(clients) > 200:
        clients.pop(0).close()
    time.sleep(0.0002)
print(made)
"""


@pytest.mark.skipif(in_user_namespace(), reason="there are no other users")
def test_strangers(flooded):
    """Two users who may change nothing connect over and over, and keep what they have; root is answered nonetheless."""
    directory = flooded.agent.runtime_directory
    for path in (directory.parent, directory):
        path.chmod(0o755)
    before = flooded.agent.status()["droppedClients"]
    waits = []
    with Cost(flooded) as cost:
        strangers = [subprocess.Popen(
            [sys.executable, "-c", STRANGER, str(directory / "control"), str(SECONDS + 1)], user=user, group=user, extra_groups=[],
            stdout=subprocess.PIPE, text=True) for user in (65533, 65534)]
        cost.watch()
        while any(stranger.poll() is None for stranger in strangers):
            begun = time.monotonic()
            flooded.lab.laptop.run([binary(), "status", "--runtime-dir", directory], check=True)
            waits.append(time.monotonic() - begun)
    made = sum(int(stranger.communicate()[0]) for stranger in strangers)
    dropped = flooded.agent.status()["droppedClients"] - before
    flooded.figure(
        f"connections of strangers ({flooded.path})", f"{made / cost.seconds:.0f} a second, {dropped} cut off: {cost}; "
        f"root is answered in {max(waits) * 1000:.0f} ms at most")
    assert made > 100 and dropped > 0 and len(waits) > 2
    assert max(waits) < 2 * PATIENCE and cost.lost <= 1 and cost.share < LARGEST_SHARE and cost.grown < LARGEST_GROWTH
