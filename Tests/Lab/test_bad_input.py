"""What clat-agent does when it cannot work: one sentence, its exit status or state, and a host that is left
untouched."""

import dataclasses
import re
import shutil
import struct
import subprocess
import sys

import pytest

import ra
import snapshot
from agent import Agent, binary
from lab import Lab
from namespace import in_user_namespace, wait_until

pytestmark = pytest.mark.agent

USAGE, NO_INTERFACE, NO_KERNEL_FEATURE, REFUSED, ALREADY_RUNNING, NO_CAPABILITY = 64, 66, 69, 71, 75, 77


@pytest.fixture(autouse=True)
def same_snapshot(request):
    """Every test of this file leaves the laptop as it was."""
    name = next(name for name in ("shared_lab", "listening", "lab") if name in request.fixturenames)
    lab = request.getfixturevalue(name)
    lab = getattr(lab, "lab", lab)
    before = snapshot.take(lab.laptop)
    yield
    snapshot.wait_for(lab.laptop, before)


def sentence(log):
    """The last line that is said: it must be a sentence, cause and remedy, for people."""
    lines = [line for line in log.splitlines() if line.strip()]
    assert lines, "it said nothing"
    assert not re.search(r"fatal error|Fatal error|Stack dump|Optional\(", log), log
    return lines[-1]


# MARK: exit statuses


def test_an_unknown_option_is_a_usage_error(shared_lab):
    agent = shared_lab.agent("--nonsense")
    assert agent.wait() == USAGE, agent.log


def test_a_missing_interface_is_named(shared_lab, tmp_path):
    """And no directory is made for an agent that cannot begin."""
    runtime, state = tmp_path / "runtime", tmp_path / "state"
    result = shared_lab.laptop.run(
        [binary(), "run", "--interface", "nosuch0", "--runtime-dir", runtime, "--state-dir", state])
    assert result.returncode == NO_INTERFACE, result.stderr
    assert "nosuch0" in sentence(result.stderr)
    assert not runtime.exists() and not state.exists()


def test_what_a_service_manager_says_may_be_anything(shared_lab):
    """LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES: with none of these is it another agent than without."""
    for process, count, names in [
            ("$$", "junk", "a"), ("$$", "-1", "a"), ("$$", "0", ""), ("$$", "257", "a"), ("$$", "99999999999999999999", "a"), ("$$", "200", ":" * 9999),
            ("$$", "3", "state-1:netns-7:tun-7"), ("$$", "1", "state-9223372036854775807"), ("1", "1", "state-1"), ("junk", "1", "state-1"), ("", "", "")]:
        words = f"export LISTEN_PID={process} LISTEN_FDS={count} LISTEN_FDNAMES={names}; exec \"$@\""
        result = shared_lab.laptop.run(["sh", "-c", words, "sh", binary(), "run", "--interface", "nosuch0"])
        assert result.returncode == NO_INTERFACE and "nosuch0" in sentence(result.stderr), (words, result)


@pytest.mark.parametrize("capability", ["net_admin", "sys_admin", "net_raw"])
def test_a_missing_capability_is_named(shared_lab, capability):
    agent = shared_lab.agent(wrapper=["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"])
    assert agent.wait() == NO_CAPABILITY, agent.log
    assert f"cap_{capability}" in sentence(agent.log).lower()


def test_a_missing_tun_device_is_named(shared_lab):
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs hidden /dev/net && exec "$0" "$@"']
    agent = shared_lab.agent(wrapper=hide)
    assert agent.wait() == NO_KERNEL_FEATURE, agent.log
    assert "tun" in sentence(agent.log).lower()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM"])
def test_a_full_machine_lacks_no_device(shared_lab, error):
    """Only with this status does a service manager try again."""
    agent = shared_lab.agent(wrapper=["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", "/dev/net/tun", "-e", f"inject=openat:error={error}"])
    assert agent.wait() == REFUSED, agent.log
    assert "open /dev/net/tun: " in sentence(agent.log) and "make room, or try again later" in sentence(agent.log)


def test_a_kernel_without_ipv6_is_named(shared_lab):
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs hidden /proc/$$/net && exec "$0" "$@"']
    agent = shared_lab.agent(wrapper=hide)
    assert agent.wait() == NO_KERNEL_FEATURE, agent.log
    assert "no IPv6" in sentence(agent.log) and "modprobe ipv6" in sentence(agent.log)


def test_a_kernel_without_network_namespaces_is_named(shared_lab):
    agent = shared_lab.agent(refused="unshare")
    entry = agent.wait_until(lambda entry: entry["reason"]["code"] == "step-failed", "a failure")
    assert "no network namespaces" in entry["reason"]["sentence"] and "CONFIG_NET_NS" in entry["reason"]["sentence"]
    assert agent.stop() == 0


@pytest.mark.parametrize("same_directory", [True, False])
def test_a_second_agent_gives_way_to_the_first(shared_lab, same_directory):
    first = shared_lab.agent()
    first.wait_for("on")
    second = shared_lab.agent(again=first if same_directory else None)
    assert second.wait() == ALREADY_RUNNING, second.log
    assert sentence(second.log)
    first.wait_for("on")
    assert "1 received" in shared_lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
    assert first.stop() == 0


def test_an_agent_of_another_namespace_needs_a_directory_of_its_own(lab):
    first, other = lab.agent(), lab.add_host("other")
    first.wait_for("on")
    second = Agent(other, first.runtime_directory, "--interface", "eth0")
    assert second.wait() == ALREADY_RUNNING, second.log
    assert "--runtime-dir" in sentence(second.log)
    third = Agent(other, lab.directory / "other", "--interface", "eth0")
    third.wait_for("on")
    # A socket that nobody listens at any more is nobody's.
    third.kill()
    fourth = Agent(other, third.runtime_directory, "--interface", "eth0")
    fourth.wait_for("on")
    first.wait_for("on")
    assert fourth.stop() == 0 and first.stop() == 0


@pytest.mark.skipif(in_user_namespace(), reason="there is no other user")
def test_a_user_who_holds_the_name_of_agents_is_named(shared_lab):
    program = ("import os, socket; os.setuid(65534); name = socket.socket(socket.AF_UNIX); name.bind('\\0clat-agent'); "
               "name.listen(); print('ready', flush=True); name.accept()")
    with shared_lab.laptop.popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == "ready\n"
            agent = shared_lab.agent()
            assert agent.wait() == ALREADY_RUNNING, agent.log
            assert f"process {holder.pid} of user 65534" in sentence(agent.log)
        finally:
            holder.kill()


def test_status_without_an_agent_says_so(shared_lab):
    directory = shared_lab.directory / "nobody"
    directory.mkdir()
    result = shared_lab.laptop.run([binary(), "status", "--runtime-dir", directory])
    assert result.returncode not in (0, USAGE) and sentence(result.stderr)


# MARK: addresses


def test_when_all_seven_addresses_are_taken_it_stays_off(lab):
    taken = [f"address add 192.0.0.{number}/32 dev lo" for number in range(1, 8)]
    lab.laptop.ip("\n".join(taken))
    agent = lab.agent()

    def refused():
        entry = agent.interface()
        return entry and entry["state"] == "off" and "192.0.0." in entry["reason"]["sentence"] and entry
    entry = wait_until(refused, timeout=15, what="off for want of an address")
    assert entry["reason"]["code"]
    assert lab.laptop.run(["ip", "-4", "route", "show", "default"]).stdout == ""
    assert agent.stop() == 0
    lab.laptop.ip("\n".join(line.replace(" add ", " del ") for line in taken))


def test_an_address_that_is_taken_is_passed_over(lab):
    lab.laptop.ip("address add 192.0.0.1/32 dev lo\naddress add 192.0.0.2/29 dev eth0")
    agent = lab.agent()
    assert agent.wait_for("on")["ipv4Address"] == "192.0.0.3"
    assert agent.stop() == 0
    lab.laptop.ip("address del 192.0.0.1/32 dev lo\naddress del 192.0.0.2/29 dev eth0")


# MARK: malformed advertisements


class Listening:
    """A lab whose router never names a prefix, and an agent that waits for one."""

    def __init__(self):
        self.lab = Lab(advertise=False)
        self.router = self.lab.site.router
        self.agent = self.lab.agent()
        self.agent.wait_for("off")

    def good(self, *extra, **fields):
        """An advertisement that would turn IPv4 on."""
        return self.router.advertisement([self.lab.site.pref64], extra, **fields)


@pytest.fixture(scope="module")
def listening():
    with (made := Listening()).lab:
        yield made
        print(made.agent.log)


def icmp_of(advertisement, octets):
    """The advertisement's packet with another ICMPv6 message in it, and the right checksum."""
    return ra.ipv6_packet(advertisement.source, advertisement.destination, advertisement.ip_hop_limit, octets)


def with_pref64(octets):
    """Makes a packet whose only PREF64 option is these octets."""
    def make(listening):
        return listening.router.advertisement(extra=[octets])
    return make


def changed(**fields):
    """Makes the good advertisement, a field of it spoilt."""
    def make(listening):
        return dataclasses.replace(listening.good(), **fields)
    return make


def with_tail(octets):
    """Makes the good advertisement with something behind its last option."""
    def make(listening):
        good = listening.good()
        return icmp_of(good, good.icmp() + octets)
    return make


def cut(size):
    """Makes the good advertisement's first octets only."""
    def make(listening):
        good = listening.good()
        return icmp_of(good, good.icmp()[:size])
    return make


def pref64_of_length(units, code=0):
    """A PREF64 option that claims `units` times 8 octets, and has them."""
    return struct.pack("!BBH", 38, units, 1800 | code) + bytes.fromhex("20010db80064").ljust(units * 8 - 4, b"\0")


MALFORMED = {
    "hop limit 254": changed(ip_hop_limit=254),
    "hop limit 0": changed(ip_hop_limit=0),
    "source is global": changed(source="2001:db8:1::1"),
    "source is unspecified": changed(source="::"),
    "code 1": changed(code=1),
    "shorter than its fixed part": cut(15),
    "empty but for type and code": cut(4),
    "an option is cut off": cut(16 + 8 + 8 + 20),
    "an option of length 0": with_tail(bytes([1, 0, 0, 0, 0, 0, 0, 0])),
    "an option runs past the end": with_tail(bytes([1, 2, 0, 0, 0, 0, 0, 0])),
    "one stray octet": with_tail(b"\1"),
    "PREF64 with length code 6": with_pref64(ra.pref64("2001:db8:64::/96", code=6)),
    "PREF64 with length code 7": with_pref64(ra.pref64("2001:db8:64::/96", code=7)),
    "PREF64 of 8 octets": with_pref64(pref64_of_length(1)),
    "PREF64 of 24 octets": with_pref64(pref64_of_length(3)),
    "PREF64 is multicast": with_pref64(ra.pref64("ff02::/96")),
    "PREF64 is link-local": with_pref64(ra.pref64("fe80::/96")),
    "PREF64 is IPv4-mapped": with_pref64(ra.pref64("::ffff:0:0/96")),
    "PREF64 is the unspecified network": with_pref64(ra.pref64("::/96")),
}
# The kernel drops these before any socket sees them, so nobody can count them.
UNSEEN = {"wrong checksum": changed(checksum=0x1234), "source is multicast": changed(source="ff02::1")}


def refusals(value, path=""):
    """All counters of the status whose path says that something was not accepted, as {path: number}."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in refusals(inner, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {k: v for number, inner in enumerate(value) for k, v in refusals(inner, f"{path}.{number}").items()}
    named = re.search("refused|malformed|ignored|invalid|dropped", path, re.IGNORECASE)
    return {path: value} if named and type(value) is int else {}


@pytest.mark.parametrize("name", [*MALFORMED, *UNSEEN])
def test_a_malformed_advertisement_is_counted_and_changes_nothing(listening, name):
    packet = (MALFORMED | UNSEEN)[name](listening)
    before = refusals(listening.agent.status())
    listening.router.advertiser.send(packet, packet, packet)

    def counted():
        after = refusals(listening.agent.status())
        return [path for path in after if after[path] - before.get(path, 0) == 3]
    if name in MALFORMED:
        wait_until(counted, timeout=5, what="a counter that grew by three")
    assert listening.agent.interface()["state"] == "off"


def test_after_all_that_a_good_advertisement_is_still_heard(listening):
    listening.router.advertiser.send(listening.good())
    listening.agent.wait_for("on")
    assert listening.agent.stop() == 0
