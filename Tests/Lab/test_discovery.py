"""Discovery of the PREF64 by Router Advertisement and by DNS: real packets, and resolvers good and bad."""

import json
import re
import threading
import time

import pytest

import network
import ra
import resolver
import snapshot
from agent import binary
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent


@pytest.fixture
def silent():
    """A lab whose router announces prefix and resolver, but no PREF64."""
    with Lab(advertise=False) as made:
        yield made


def serve(lab, mode="good", **options):
    """A resolver where the RDNSS option says."""
    options = {"prefixes": [lab.site.pref64]} | options
    return resolver.Resolver(lab.site.router.namespace, lab.site.resolver, mode, **options)


def says(entry, address=None):
    """What the status says of a resolver (of the first one)."""
    found = [one for one in entry["resolvers"] if address in (None, one["address"])]
    return found[0].get("says", "") if found else ""


def told(agent, address=None):
    """Waits until a resolver has been heard, or given up, and returns what the status says of it."""
    return wait_until(lambda: says(agent.interface() or {"resolvers": []}, address), 20, what="an answer")


def configuration(lab, text):
    """The path of a configuration file with that text."""
    path = lab.directory / "clat-agent.toml"
    path.write_text(text)
    return path


def ping(lab):
    return lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).returncode == 0


# MARK: by DNS


def test_ipv4_comes_by_dns_alone_from_a_dns64_that_nobody_here_wrote(silent):
    silent.start_dns64()
    agent = silent.agent()
    entry = agent.wait_for("on")
    assert entry["pref64"] == silent.site.pref64
    assert entry["pref64Source"] == "resolver"
    assert entry["pref64Resolver"] == silent.site.resolver
    assert ping(silent)
    assert f"{silent.site.pref64} from resolver {silent.site.resolver}" in agent.status_text()


def test_questions_leave_by_the_uplink_to_the_links_own_resolver(silent):
    def is_dns(frame):
        return frame.is_ipv6 and frame.protocol == 17 and frame.payload[2:4] == b"\0\x35"
    with silent.capture(silent.laptop, "eth0", is_dns) as capture, serve(silent) as server:
        silent.agent().wait_for("on")
        assert [how for _, how in server.asked()] == ["udp"], "one question suffices"
    question, = capture.frames
    assert question.destination == silent.site.resolver
    flags = int.from_bytes(question.payload[10:12], "big")
    assert flags & 0x0100 and not flags & 0x0010, "recursion desired, checking not disabled"


def test_a_hook_tells_a_resolver_that_no_router_does(silent):
    agent = silent.agent()
    told(agent)
    good = str(silent.site.lan[0x54])
    def renew(server):
        command = [binary(), "renew", "--runtime-dir", agent.runtime_directory, "--resolver", server, "eth0"]
        silent.laptop.run(command, check=True)
    with resolver.Resolver(silent.site.router.namespace, good, prefixes=[silent.site.pref64]):
        renew(good)
        assert agent.wait_for("on")["pref64Resolver"] == good
        renew("none")
        assert [one["address"] for one in agent.interface()["resolvers"]] == [silent.site.resolver]


@pytest.mark.parametrize("length", sorted(network.PREF64_BY_LENGTH))
def test_prefixes_of_every_length_are_found_by_dns_and_work(length):
    with Lab(pref64=network.PREF64_BY_LENGTH[length], advertise=False) as made:
        made.start_dns64()
        entry = made.agent().wait_for("on")
        assert (entry["pref64"], entry["pref64Source"]) == (made.site.pref64, "resolver")
        assert ping(made)


def test_a_resolver_that_cuts_its_answers_is_asked_by_tcp(silent):
    with serve(silent, "truncate") as server:
        assert silent.agent().wait_for("on")["pref64"] == silent.site.pref64
        assert [how for _, how in server.asked()] == ["udp", "tcp"]


def test_a_slow_resolver_is_waited_for(silent):
    with serve(silent, delay=2.5):
        assert silent.agent().wait_for("on")["pref64Resolver"] == silent.site.resolver


@pytest.mark.parametrize("mode, sentence, code", [
    ("hijack", "addresses that hold no NAT64 prefix", "no-pref64-in-dns"),
    ("nxdomain", "does not exist", "no-pref64-in-dns"),
    ("servfail", "error 2 (SERVFAIL)", "resolvers-silent"),
    ("silent", "does not answer", "resolvers-silent"),
    ("garbage", "cannot be read (truncated)", "resolvers-silent"),
])
def test_a_bad_resolver_is_named_and_does_not_keep_a_good_one_from_telling(silent, mode, sentence, code):
    with serve(silent, mode, ttl=600):
        agent = silent.agent()
        assert sentence in told(agent)
        assert agent.interface()["reason"]["code"] == code
        good = str(silent.site.lan[0x54])
        with resolver.Resolver(silent.site.router.namespace, good, prefixes=[silent.site.pref64]):
            router = silent.site.router
            router.advertiser.advertise(router.advertisement(extra=[ra.rdnss([good])]))
            assert agent.wait_for("on")["pref64Resolver"] == good


def test_a_resolver_that_is_not_there_yet_is_found_later(silent):
    agent = silent.agent()
    assert "does not answer" in told(agent) or "cannot be reached" in told(agent)
    with serve(silent):
        assert agent.wait_for("on")["pref64Source"] == "resolver"


def test_a_link_local_resolver_needs_no_zone(silent):
    router = silent.site.router
    with resolver.Resolver(router.namespace, router.link_local, prefixes=[silent.site.pref64]):
        router.advertiser.advertise(router.advertisement(extra=[ra.rdnss([router.link_local])]))
        assert silent.agent().wait_for("on")["pref64Resolver"] == router.link_local


def test_a_prefix_that_changes_in_dns_is_followed(silent):
    agent = None
    with serve(silent):
        agent = silent.agent()
        agent.wait_for("on")
    other = network.PREF64_BY_LENGTH[64]
    with serve(silent, prefixes=[other]):
        silent.laptop.run([binary(), "renew", "--runtime-dir", agent.runtime_directory, "eth0"], check=True)
        wait_until(lambda: agent.interface().get("pref64") == other, what="the other prefix")
    assert re.search(f"PREF64 {other} from resolver .*, as resolver .* tells {silent.site.pref64} no longer", agent.log)


def test_dns_can_be_switched_off(silent):
    with serve(silent) as server:
        agent = silent.agent("--interface", "eth0", "--config", configuration(silent, "dns = false\n"))
        wait_until(lambda: agent.interface() and agent.interface()["advertisements"], what="an advertisement")
        time.sleep(1)
        assert agent.interface()["reason"]["code"] == "no-pref64"
        assert server.asked() == []


# MARK: routers before DNS


def test_a_router_takes_over_from_dns_and_dns_from_a_router_that_lets_go(silent):
    """By DNS, then taken over by a router while a connection lives, then back to DNS when the router's word runs out."""
    router, prefix = silent.site.router, silent.site.pref64
    with serve(silent) as server:
        agent = silent.agent()
        agent.wait_for("on")
        with silent.laptop.socket(2, 1) as connection:
            connection.settimeout(10)
            connection.connect((silent.SERVER, 7))
            def alive(word):
                connection.sendall(word)
                return connection.recv(64) == word
            assert alive(b"by DNS")
            router.advertiser.advertise(router.advertisement(extra=[ra.pref64(prefix, lifetime=8)]))
            wait_until(lambda: agent.interface()["pref64Source"] == "router", what="the takeover")
            assert alive(b"by RA")
            questions = len(server.asked())
            router.advertiser.advertise(router.advertisement())
            wait_until(lambda: agent.interface()["pref64Source"] == "resolver", 20, what="DNS again")
            assert len(server.asked()) <= questions + 1
            assert agent.interface()["state"] == "on"
            assert alive(b"by DNS again")
    assert f"PREF64 {prefix} from router {router.link_local}, which goes before resolver" in agent.log
    assert f"PREF64 {prefix} from resolver {silent.site.resolver}, as router" in agent.log


def test_a_router_that_withdraws_its_prefix_leaves_dns_to_tell(silent):
    router = silent.site.router
    with serve(silent):
        router.advertiser.advertise(router.advertisement([silent.site.pref64]))
        agent = silent.agent()
        assert agent.wait_for("on")["pref64Source"] == "router"
        router.advertiser.advertise(router.advertisement(extra=[ra.pref64(silent.site.pref64, lifetime=0)]))
        wait_until(lambda: (agent.interface() or {}).get("pref64Source") == "resolver", what="DNS")
        agent.wait_for("on")


def test_a_configured_prefix_is_used_whatever_others_tell(lab):
    prefix = network.PREF64_BY_LENGTH[64]
    entry = lab.agent("--interface", "eth0", "--config", configuration(lab, f'pref64 = "{prefix}"\n')).wait_for("on")
    assert (entry["pref64"], entry["pref64Source"]) == (prefix, "configuration")


def test_each_of_two_uplinks_asks_its_own_resolver(silent):
    site = silent.add_site(advertise=False)
    with serve(silent) as first, resolver.Resolver(
            site.router.namespace, site.resolver, prefixes=[site.pref64]) as second:
        agent = silent.agent("--interface", "eth0", "--interface", "eth1")
        assert agent.wait_for("on")["pref64"] == silent.site.pref64
        assert agent.wait_for("on", "eth1")["pref64"] == site.pref64
        assert len(first.asked()) == len(second.asked()) == 1


def test_resolvers_of_one_address_on_two_uplinks_are_told_apart(silent):
    """Each is asked through its own uplink, wherever the routing table would send the question."""
    site = silent.add_site(advertise=False)
    silent.site.resolver = site.resolver = "2001:db8:53::53"
    for one in (silent.site, site):
        one.router.advertiser.advertise(one.router.advertisement())
    with serve(silent), resolver.Resolver(site.router.namespace, site.resolver, prefixes=[site.pref64]):
        agent = silent.agent("--interface", "eth0", "--interface", "eth1")
        assert agent.wait_for("on")["pref64"] == silent.site.pref64
        assert agent.wait_for("on", "eth1")["pref64"] == site.pref64 != silent.site.pref64


def test_native_ipv4_beside_a_clat_by_dns(silent):
    silent.laptop.ip("addr add 10.77.0.2/24 dev eth0")
    silent.laptop.ip("route add default via 10.77.0.1 dev eth0")
    with serve(silent):
        coexist = configuration(silent, 'native-ipv4 = "coexist"\n')
        agent = silent.agent("--interface", "eth0", "--config", coexist)
        assert agent.wait_for("on")["pref64Source"] == "resolver"


# MARK: soliciting


@pytest.mark.long
def test_a_prefix_that_is_about_to_run_out_makes_the_agent_ask(lab):
    router = lab.site.router
    router.advertiser.advertise(
        router.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=16)], lifetime=1800), interval=3600)
    agent = lab.agent()
    agent.wait_for("on")
    before = len(router.advertiser.log()["solicited"])
    wait_until(lambda: len(router.advertiser.log()["solicited"]) > before, 20, what="a solicitation")
    time.sleep(4)
    assert agent.interface()["state"] == "on"


def test_another_hardware_address_makes_the_agent_ask(lab):
    router = lab.site.router
    agent = lab.agent()
    agent.wait_for("on")
    before = len(router.advertiser.log()["solicited"])
    lab.laptop.ip("link set eth0 address 02:64:00:00:00:99")
    wait_until(lambda: len(router.advertiser.log()["solicited"]) > before, what="a solicitation")


# MARK: probe


def probe(lab, *arguments):
    """`clat-agent probe`: its exit status, and its text or, with --json, the values."""
    run = lab.laptop.run([binary(), "probe", *arguments])
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout) if "--json" in arguments else run.stdout


def test_a_probe_tells_what_routers_and_resolvers_say_and_changes_nothing(silent):
    second = silent.add_router()
    prefix, other = silent.site.pref64, network.PREF64_BY_LENGTH[64]
    second.advertiser.advertise(second.advertisement(
        extra=[ra.pref64(other), ra.route_information(other, 600, "low"), ra.option(38, bytes(4))], preference="high", lifetime=600))
    with serve(silent, ttl=600):
        before = snapshot.take(silent.laptop)
        status, report = probe(silent, "eth0", "--json")
        assert snapshot.difference(before, snapshot.take(silent.laptop)) == []
        assert status == 0
        heard = {one["router"]: one for one in report["advertisements"]}
        assert heard[silent.site.router.link_local]["pref64s"] == []
        assert heard[second.link_local]["pref64s"] == [{"prefix": other, "lifetimeSeconds": 1800}]
        assert heard[second.link_local]["preference"] == "high"
        assert heard[second.link_local]["routes"] == [{"prefix": other, "preference": "low", "lifetimeSeconds": 600}]
        assert heard[second.link_local]["leftOut"] == ["pref64-length"]
        answer, = report["resolvers"]
        assert (answer["address"], answer["prefixes"]) == (silent.site.resolver, [prefix])
        assert (report["choice"]["pref64"], report["choice"]["source"]) == (other, "router")
        assert report["choice"]["addressPrefix"] == str(silent.site.lan)
        text = probe(silent, "eth0")[1]
        assert f"The agent would take PREF64 {other} from router {second.link_local}, " in text
        assert f"Resolver {silent.site.resolver} (router-advertisement) after" in text


def test_a_probe_by_dns_alone_and_beside_a_running_agent(silent):
    with serve(silent):
        silent.agent().wait_for("on")
        status, report = probe(silent, "eth0", "--json")
        assert status == 0
        assert report["choice"]["source"] == "resolver"
        assert report["choice"]["why"] == f"resolver {silent.site.resolver}, as nothing else is told"
        assert "obstacle" not in report


def test_a_probe_where_there_is_nothing_says_so(silent):
    with serve(silent, "nxdomain"):
        status, text = probe(silent, "eth0")
        assert status == 1
        assert "says that ipv4only.arpa does not exist" in text
        assert "this network has no NAT64" in text
    silent.laptop.ip("link set eth0 down")
    status, report = probe(silent, "eth0", "--json")
    assert status == 1 and report["obstacle"]["code"] == "down" and report["advertisements"] == []
    run = silent.laptop.run([binary(), "probe", "eth7"])
    assert run.returncode == 66 and "eth0" in run.stderr


def test_a_probe_tells_of_a_nat64_that_native_ipv4_makes_needless(silent):
    silent.laptop.ip("addr add 10.77.0.2/24 dev eth0")
    silent.laptop.ip("route add default via 10.77.0.1 dev eth0")
    with serve(silent):
        status, report = probe(silent, "eth0", "--json")
        assert status == 0 and report["obstacle"]["code"] == "native-ipv4"
        assert (report["choice"]["pref64"], report["choice"]["source"]) == (silent.site.pref64, "resolver")


def test_a_probe_asks_nobody_where_the_operator_wants_no_dns(silent):
    with serve(silent) as server:
        status, text = probe(silent, "eth0", "--config", str(configuration(silent, "dns = false\n")))
        assert status == 1 and server.asked() == []
        assert f"Resolver {silent.site.resolver} (router-advertisement): is not asked, as dns = false" in text


def test_a_probe_ends_in_a_flood_of_advertisements(lab):
    router = lab.site.router
    octets = router.advertisement([lab.site.pref64]).packet()
    done = threading.Event()

    def flood():
        while not done.is_set():
            router.advertiser.send(*[octets] * 200)
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        begun = time.monotonic()
        status, report = probe(lab, "eth0", "--json")
        taken = time.monotonic() - begun
    finally:
        done.set()
        thread.join()
    assert status == 0 and report["choice"]["pref64"] == lab.site.pref64
    assert report["refused"]["too-many"] > 100
    assert taken < 30 and len(report["advertisements"]) <= 100 * (taken + 1)


# MARK: the path


def test_the_check_address_tells_whether_the_path_works(lab):
    check = configuration(lab, f'check-address = "{lab.SERVER}"\n')
    agent = lab.agent("--interface", "eth0", "--config", check)
    agent.wait_for("on")
    path = lambda words: wait_until(lambda: words in agent.interface().get("path", ""), 20, what=words)
    path("the check address answers after")
    lab.site.nat64.ip("link set nat64 down")
    lab.laptop.run([binary(), "renew", "--runtime-dir", agent.runtime_directory, "eth0"], check=True)
    path("the check address cannot be reached")
    assert agent.interface()["state"] == "on", "the only prefix there is stays in use"
    says = lambda words: wait_until(lambda: words in agent.interface()["reason"]["sentence"], 20, what=words)
    says("is set up through the NAT64 at " + lab.site.pref64 + ", but does not work")
    lab.site.nat64.ip(f"link set nat64 up\nroute add {lab.site.pref64} dev nat64\nroute add 192.168.255.0/24 dev nat64")
    lab.laptop.run([binary(), "renew", "--runtime-dir", agent.runtime_directory, "eth0"], check=True)
    says("IPv4 works through the NAT64")


@pytest.mark.parametrize("address", ["192.0.0.170", "192.0.0.171", "255.255.255.255"])
def test_no_echo_request_goes_where_none_may(lab, address):
    run = lab.laptop.run([binary(), "doctor", "--target", address])
    assert run.returncode == 64 and f"No echo request may go to {address}" in run.stderr
    run = lab.laptop.run([binary(), "config", "check", configuration(lab, f'check-address = "{address}"\n')])
    assert run.returncode == 78 and "check-address" in run.stdout + run.stderr


def test_of_two_prefixes_the_one_that_works_is_taken(silent):
    router, dead = silent.site.router, "2001:db8:dead::/96"
    router.advertiser.advertise(router.advertisement([dead, silent.site.pref64]))
    check = configuration(silent, f'check-address = "{silent.SERVER}"\n')
    agent = silent.agent("--interface", "eth0", "--config", check)
    assert agent.wait_for("on")["pref64"] == dead, "the first that was heard"
    wait_until(lambda: agent.interface()["pref64"] == silent.site.pref64, 20, what="the prefix that works")
    assert ping(silent)


@pytest.mark.long
def test_traffic_that_nothing_comes_back_for_is_told(lab):
    agent = lab.agent()
    agent.wait_for("on")
    lab.site.nat64.ip("link set nat64 down")
    with lab.laptop.socket(2, 2) as client:
        def told():
            client.sendto(b"anybody?", (lab.SERVER, 9))
            return "nothing has come back" in agent.interface().get("path", "")
        wait_until(told, 60, interval=0.5, what="the word")
