"""What routers and networks change while flows live: prefixes, routers, the network itself. Real packets, with counts."""

import ipaddress
import random
import socket
import threading
import time

import pytest

import ra
import resolver
from agent import binary
from lab import DATAPATHS, Lab
from namespace import wait_until

pytestmark = pytest.mark.agent
OTHER = "2001:db8:99::/96"


class Stream:
    """Datagrams to the echo service, every few milliseconds by one socket: which were answered, and when."""

    def __init__(self, namespace, interval=0.005):
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.2)
        self._interval = interval
        self.sent, self.refused, self.answered = {}, 0, {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self):
        number = 0
        while not self._over.wait(self._interval):
            number += 1
            try:
                self._socket.sendto(number.to_bytes(4, "big"), (Lab.SERVER, 7))
                self.sent[number] = time.monotonic()
            except OSError:
                self.refused += 1

    def _receive(self):
        while not self._over.is_set():
            try:
                self.answered[int.from_bytes(self._socket.recv(16), "big")] = time.monotonic()
            except OSError:
                pass

    @property
    def lost(self):
        """Datagrams that got no answer."""
        return len(self.sent) - len(self.answered)

    @property
    def gap(self):
        """The longest time between two answers, in milliseconds."""
        times = sorted(self.answered.values())
        return max(((later - earlier) * 1000 for earlier, later in zip(times, times[1:])), default=0)

    def __enter__(self):
        wait_until(lambda: len(self.answered) > 20, what="the first answers")
        return self

    def __exit__(self, *_):
        time.sleep(0.3)
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        print(f"{len(self.sent)} datagrams, {self.lost} lost, {self.refused} refused at home; "
              f"longest silence {self.gap:.0f} ms")


def connection(lab):
    """A TCP connection to the echo service, in use."""
    client = lab.laptop.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect((lab.SERVER, 7))
    assert echo(client, b"hello") == b"hello"
    return client


def echo(client, word):
    client.sendall(word)
    return client.recv(64)


def uses(agent, **fields):
    """Waits until the status says so."""
    def said():
        entry = agent.interface()
        return entry if all(entry.get(key) == value for key, value in fields.items()) else None
    return wait_until(said, 20, what=str(fields))


# MARK: another PREF64


def change(lab, agent, prefix=OTHER):
    """The router takes its PREF64 back and announces another one, in one advertisement."""
    router = lab.site.router
    router.advertiser.advertise(
        router.advertisement([prefix], extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
    return uses(agent, pref64=prefix, state="on")


def test_a_pref64_that_changes_in_mid_flow_to_another_nat64(lab):
    """What cannot go on is told: the new NAT64 knows nothing of the connection, so the server resets it."""
    agent = lab.agent()
    before = agent.wait_for("on")
    lab.site.add_nat64(lab.directory, "nat64b", OTHER, 254)
    client = connection(lab)
    with Stream(lab.laptop) as stream:
        begun = time.monotonic()
        after = change(lab, agent)
        print(f"the agent says so after {(time.monotonic() - begun) * 1000:.0f} ms")
    assert (before["ipv4Address"], before["ipv6Address"]) == (after["ipv4Address"], after["ipv6Address"])
    assert stream.lost < len(stream.sent) / 10 and stream.refused == 0
    with pytest.raises(ConnectionResetError):
        echo(client, b"anybody?")
        echo(client, b"anybody?")
    within = ipaddress.IPv6Network(OTHER)
    with lab.capture(lab.site.router.namespace, "lan", lambda frame: frame.is_ipv6 and frame.protocol == 6) as wire:
        new = connection(lab)
        assert echo(new, b"new") == b"new"
        wait_until(lambda: len(wire.frames) >= 6, what="the new connection on the link")
    assert all(ipaddress.IPv6Address(frame.destination) in within or ipaddress.IPv6Address(frame.source) in within
               for frame in wire.frames)
    assert f"PREF64 {OTHER} from router fe80::1, as router fe80::1 tells {lab.site.pref64} no longer" in agent.log


def test_a_pref64_that_changes_in_mid_flow_at_the_same_nat64(lab):
    """A NAT64 that keeps its state under another prefix keeps the connections."""
    agent = lab.agent()
    address, fixed = agent.wait_for("on")["ipv6Address"], "192.168.253.77"
    lab.site.add_nat64(lab.directory, "nat64a", "2001:db8:98::/96", 252, [(fixed, address)])
    lab.site.add_nat64(lab.directory, "nat64b", OTHER, 254, [(fixed, address)])
    lab.site.answer_by("nat64a", fixed)
    change(lab, agent, "2001:db8:98::/96")
    client = connection(lab)
    lab.site.answer_by("nat64b", fixed)
    router = lab.site.router
    router.advertiser.advertise(
        router.advertisement([OTHER], extra=[ra.pref64("2001:db8:98::/96", lifetime=0)]))
    uses(agent, pref64=OTHER)
    assert echo(client, b"still here") == b"still here"
    assert agent.interface()["ipv6Address"] == address


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_what_comes_from_a_pref64_that_is_told_besides_arrives(lab, datapath):
    """Packets go out through one, and answers come through the other."""
    first, second = lab.site.router, lab.add_router()
    agent = lab.agent(datapath=datapath)
    address, fixed, other = agent.wait_for("on")["ipv6Address"], "192.168.253.77", "2001:db8:98::/96"
    lab.site.add_nat64(lab.directory, "nat64a", other, 252, [(fixed, address)])
    lab.site.add_nat64(lab.directory, "nat64b", OTHER, 254, [(fixed, address)])
    second.advertiser.advertise(second.advertisement([OTHER]))
    withdrawn = ra.pref64(lab.site.pref64, lifetime=0)
    first.advertiser.advertise(first.advertisement([other], extra=[withdrawn], lifetime=0))
    assert uses(agent, pref64=OTHER)["ipv6Address"] == address
    lab.site.answer_by("nat64a", fixed)
    with lab.capture(lab.site.router.namespace, "lan", lambda frame: frame.is_ipv6 and frame.protocol == 6) as wire:
        client = connection(lab)
        assert echo(client, b"by another way") == b"by another way"
        wait_until(lambda: len(wire.frames) >= 2, what="the connection on the link")
    answers = [ipaddress.IPv6Address(frame.source) for frame in wire.frames if frame.destination == address]
    assert answers and all(source in ipaddress.IPv6Network(other) for source in answers)
    heard = agent.interface()["advertisements"]
    first.advertiser.advertise(first.advertisement(extra=[ra.pref64(other, lifetime=0)], lifetime=0))
    agent.wait_until(lambda entry: entry["advertisements"] > heard, "its end")
    client.settimeout(1)
    with pytest.raises(TimeoutError):
        echo(client, b"and now?")


def test_a_router_that_says_that_it_leads_to_the_nat64_is_taken(lab):
    """It is nobody's default router (RFC 4191)."""
    second = lab.add_router()
    agent = lab.agent()
    agent.wait_for("on")
    heard = agent.interface()["advertisements"]

    def announce(lifetime):
        second.advertiser.advertise(
            second.advertisement(extra=[ra.route_information(lab.site.pref64, lifetime=lifetime)], lifetime=0))

    def passes(router):
        with lab.capture(router.namespace, "lan", lambda frame: frame.is_ipv6 and frame.protocol == 6) as wire:
            client = connection(lab)
            wait_until(lambda: len(wire.frames) >= 3, 5, what=f"the connection by {router.link_local}")
            client.close()

    passes(lab.site.router)
    announce(1800)
    agent.wait_until(lambda entry: entry["advertisements"] > heard, "the second router's word")
    passes(second)
    announce(0)
    agent.wait_until(lambda entry: entry["advertisements"] > heard + 1, "the second router's other word")
    passes(lab.site.router)
    assert agent.interface()["state"] == "on"


def test_one_of_two_routers_takes_its_pref64_back(lab):
    first, second = lab.site.router, lab.add_router()
    agent = lab.agent()
    agent.wait_for("on")
    second.advertiser.advertise(second.advertisement([lab.site.pref64]))
    wait_until(lambda: agent.interface()["advertisements"] >= 2, what="the second router's word")
    client = connection(lab)
    with Stream(lab.laptop) as stream:
        first.advertiser.advertise(first.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
        uses(agent, pref64Router=second.link_local, state="on")
    assert stream.lost <= 2 and stream.refused == 0
    assert echo(client, b"as before") == b"as before"
    second.advertiser.advertise(second.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
    assert agent.wait_for("off")["reason"]["code"] in ("no-pref64", "resolvers-silent")


@pytest.mark.long
def test_a_router_that_dies_without_a_word_is_left_for_the_other(lab, figure):
    """No advertisement tells; the kernel finds that it does not answer, and solicitations that the other one does. The agent has
    been on for a while, so that it looks at what comes back only every half minute: that is not what shows it here."""
    first, second = lab.site.router, lab.add_router()
    agent = lab.agent()
    agent.wait_for("on")
    # As long as it may take, 45 s, is too long for a test.
    hurry = "cd /proc/sys/net/ipv6/neigh/clat-uplink && echo 1000 > base_reachable_time_ms && echo 1 > delay_first_probe_time"
    lab.laptop.run([binary(), "exec", "--runtime-dir", agent.runtime_directory, "eth0", "--", "sh", "-c", hurry], check=True)
    second.advertiser.advertise(second.advertisement([lab.site.pref64]))
    wait_until(lambda: agent.interface()["advertisements"] >= 2, what="the second router's word")
    assert agent.interface()["pref64Router"] == first.link_local
    with Stream(lab.laptop, interval=0.05) as stream:
        agent.wait_until(lambda entry: entry["sinceSeconds"] > 37, "half a minute", timeout=60)
        first.advertiser.advertise()
        first.namespace.ip("link set lan down")
        # Beyond it they know at once.
        lab.site.core.ip(f"route replace {lab.site.lan} via 2001:db8:f1:3::1")
        begun = time.monotonic()
        wait_until(lambda: agent.interface().get("pref64Router") == second.link_local, 30, what="the other router")
        figure("time until a router that died without a word is left", f"{time.monotonic() - begun:.1f} s")
        assert agent.interface()["state"] == "on"
        answered = len(stream.answered)
        wait_until(lambda: len(stream.answered) > answered + 20, 20, what="answers by the other router")
    assert agent.stop() == 0


def test_a_pref64_that_is_taken_back_where_dns_knows_one_is_missed_for_a_moment_only():
    """For the time of a question to a resolver; nothing but the route goes and comes."""
    with Lab() as lab, resolver.Resolver(lab.site.router.namespace, lab.site.resolver, prefixes=[lab.site.pref64]):
        agent = lab.agent()
        agent.wait_for("on")
        index = lab.laptop.run(["ip", "-o", "link", "show", "clat-eth0"], check=True).stdout.partition(":")[0]
        client = connection(lab)
        with Stream(lab.laptop) as stream:
            router = lab.site.router
            router.advertiser.advertise(router.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
            uses(agent, pref64Source="resolver", state="on")
        assert stream.gap < 1000
        assert echo(client, b"as before") == b"as before"
        now = lab.laptop.run(["ip", "-o", "link", "show", "clat-eth0"], check=True).stdout.partition(":")[0]
        assert now == index, "the device was made anew"


# MARK: another network


def move(lab, site, blink):
    """The laptop's cable goes to another site's switch: with the carrier gone for a moment, or so that nobody sees it."""
    down, up = ("link set laptop down\n", "\nlink set laptop up") if blink else ("", "")
    lab.switch.ip(f"{down}link set laptop master lan{site.suffix}{up}")


def arrived(lab, agent, site):
    entry = wait_until(
        lambda: (one := agent.interface()) and one["state"] == "on" and one["pref64"] == site.pref64 and one, 60,
        interval=0.1, what="IPv4 by the other network")
    assert ipaddress.IPv6Address(entry["ipv6Address"]) in site.lan
    wait_until(lambda: " 1 received" in lab.laptop.run(["ping", "-c1", "-W1", lab.SERVER]).stdout, 10, what="a reply")


@pytest.mark.parametrize("blink", [True, False], ids=["blink", "unseen"])
def test_another_network_on_the_same_link_is_noticed(lab, blink):
    """Its router has the same link-local address. Unseen, it is the traffic that shows it."""
    other = lab.add_site("eth1")
    lab.laptop.ip("link set eth1 down")
    agent = lab.agent()
    agent.wait_for("on")
    with Stream(lab.laptop, interval=0.1):
        begun = time.monotonic()
        move(lab, other, blink)
        arrived(lab, agent, other)
        print(f"IPv4 by the other network after {time.monotonic() - begun:.1f} s")


# MARK: how soon


@pytest.mark.parametrize("host_dad", [False, True], ids=["no-dad", "dad"])
@pytest.mark.parametrize("source", ["router", "resolver"])
def test_the_prefix_is_known_soon_after_the_link_is_up(source, host_dad):
    """With DAD the host has no address for a second or two: a solicitation goes out without one, a question cannot."""
    with Lab(advertise=source == "router", host_dad=host_dad) as lab:
        server = resolver.Resolver(lab.site.router.namespace, lab.site.resolver, prefixes=[lab.site.pref64])
        agent = lab.agent()
        agent.wait_for("on")
        lab.laptop.ip("link set eth0 down")
        agent.wait_for("off")
        log, solicited = len(agent.log), len(lab.site.router.advertiser.log()["solicited"])
        begun = time.monotonic()
        lab.laptop.ip("link set eth0 up")
        wait_until(lambda: f"PREF64 {lab.site.pref64} from {source}" in agent.log[log:], 20, interval=0.002, what="PREF64")
        taken = time.monotonic() - begun
        print(f"{source}, {'with' if host_dad else 'without'} DAD: PREF64 known {taken * 1000:.0f} ms after link up")
        if host_dad:
            assert lab.site.router.advertiser.log()["solicited"][solicited][1] == "::"
        assert taken < (1 if source == "router" else 5 if host_dad else 2)
        server.close()


# MARK: nonsense


@pytest.mark.long
def test_two_thousand_mutated_advertisements_end_in_counts(lab):
    """Each is used or refused, and counted; then a good one is heard as ever."""
    lab.laptop.sysctl(ipv6__conf__eth0__accept_ra=0)  # the kernel's own reading of them is not at stake
    agent = lab.agent()
    agent.wait_for("on")
    router, dice = lab.site.router, random.Random(464)
    good = router.advertisement([lab.site.pref64], extra=[ra.rdnss([lab.site.resolver])])
    whole = {"hop-limit-not-255", "source-not-link-local", "not-an-advertisement", "truncated", "option-length-zero", "too-large",
             "own-advertisement", "too-many"}

    def mutated():
        octets = bytearray(good.icmp())
        for _ in range(dice.randint(1, 8)):
            octets[dice.randrange(1, len(octets))] = dice.randrange(256)
        if dice.random() < 0.3:
            del octets[dice.randrange(4, len(octets)):]
        return ra.ipv6_packet(good.source, good.destination, 255, bytes(octets))

    def counted():
        entry = agent.interface()
        return entry["advertisements"], sum(
            count for reason, count in entry["refusedAdvertisements"].items() if reason in whole)
    before = sum(counted())
    for batch in range(40):
        # No more than a hundred in a second are looked at; the others are counted, no more.
        time.sleep(0.5)
        router.advertiser.send(*(mutated() for _ in range(50)))
        wait_until(lambda: sum(counted()) - before >= 50 * (batch + 1), what=f"{50 * (batch + 1)} advertisements counted")
    used, refused = counted()
    assert used + refused - before == 2000 and refused > 200 and used > 200
    assert agent.interface()["refusedAdvertisements"].get("too-many", 0) < 500
    print(f"{used} used, {refused} refused whole: {agent.interface()['refusedAdvertisements']}")
    lab.laptop.ip("link set eth0 down")
    agent.wait_for("off")
    lab.laptop.ip("link set eth0 up")
    router.advertiser.send(good)
    assert agent.wait_for("on")["pref64"] == lab.site.pref64
    assert agent.stop() == 0
