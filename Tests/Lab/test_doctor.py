"""clat-agent doctor: each link of the chain is broken in turn, and it must say which."""

import json
import os
import re
import sys

import pytest

import agent
import namespace
import probe
import ra
import test_clatd
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent


def nft(namespace, *chains):
    """Adds chains, each `FAMILY HOOK RULE`, in a table of its own; the return value takes them away."""
    for number, chain in enumerate(chains):
        family, hook, rule = chain.split(" ", 2)
        if rule.startswith("device "):
            device, name, rule = rule.split(" ", 2)
            hook += f" device {name}"
        namespace.run(["nft", "-f", "-"], check=True, stdin=f"""
            table {family} broken{number} {{
                chain only {{
                    type filter hook {hook} priority 0
                    {rule}
                }}
            }}
        """)
    return lambda: [namespace.run(["nft", "delete", "table", chain.split()[0], f"broken{number}"], check=True)
                    for number, chain in enumerate(chains)]


def doctor(lab, running, *words, target=Lab.SERVER, wrapper=()):
    """What is broken or worth a note, by link, all findings, and the exit status."""
    command = [*wrapper, agent.binary(), "doctor", "--json", "--runtime-dir", running.runtime_directory, *words]
    result = lab.laptop.run(command + (["--target", target] if target else []))
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(f.get("remedy") for f in findings if f["verdict"] == "broken"), "every fault has a remedy"
    return {f["link"]: f for f in findings if f["verdict"] != "good"}, {f["link"]: f for f in findings}, result.returncode


@pytest.fixture(scope="module")
def served():
    with Lab() as lab:
        lab.start_dns64()
        running = lab.agent()
        running.wait_for("on")
        yield lab, running


def test_all_is_well(served):
    lab, running = served
    faults, findings, status = doctor(lab, running)
    assert status == 0 and not faults, faults
    assert "fe80::1 answers after" in findings["routers"]["evidence"]
    assert f"announces PREF64 {lab.site.pref64}" in findings["routers"]["evidence"]
    assert f"ms: {lab.site.pref64}, for" in findings["DNS"]["evidence"]
    assert "fe80::1 finds the CLAT at 2001:db8:1:" in findings["neighbour"]["evidence"]
    assert re.search(" is (preferred|optimistic), carried by (ipvlan|macvlan)", findings["address"]["evidence"])
    assert "answers through the NAT64 after" in findings["reachability"]["evidence"]
    assert "packets of 1480 octets pass" in findings["MTU"]["evidence"]
    assert findings["route"]["evidence"].startswith("IPv4 goes out of clat-eth0")
    text = lab.laptop.run([agent.binary(), "doctor", "--target", lab.SERVER, "--runtime-dir", running.runtime_directory])
    assert "ok    reachability:" in text.stdout and all(len(line) <= 80 for line in text.stdout.splitlines())


def test_without_a_target_nobody_on_the_internet_is_asked(served):
    lab, running = served
    before = running.interface()["counters"]["packets-out"]
    faults, findings, status = doctor(lab, running, target=None)
    assert status == 0 and "--target ADDRESS" in faults["reachability"]["remedy"] and "MTU" not in findings
    assert findings["route"]["verdict"] == "good"
    assert running.interface()["counters"]["packets-out"] == before


def test_the_configured_address_is_asked(lab):
    lab.start_dns64()
    file = lab.directory / "config.toml"
    file.write_text(f'check-address = "{lab.SERVERS[1]}"\n')
    running = lab.agent("--config", file)
    running.wait_for("on")
    _, findings, _ = doctor(lab, running, "--config", file, target=None)
    assert f"{lab.SERVERS[1]} answers through the NAT64" in findings["reachability"]["evidence"]
    assert findings["configuration"]["verdict"] == "good"
    file.write_text("mtu = 12\n")
    faults, _, status = doctor(lab, running, "--config", file, target=None)
    assert status == 1 and faults["configuration"]["evidence"].startswith(f"{file}:1: mtu: ")
    assert "clat-agent config check" in faults["configuration"]["remedy"]


def test_no_agent(served, tmp_path):
    lab, running = served
    result = lab.laptop.run([agent.binary(), "doctor", "--runtime-dir", tmp_path])
    assert result.returncode == 1 and "BROKEN  agent: no clat-agent is running here" in result.stdout
    assert "systemctl start clat-agent" in result.stdout and "capabilities" not in result.stdout
    # As in a container.
    result = lab.laptop.run(["setpriv", "--bounding-set=-sys_admin", agent.binary(), "doctor", "--runtime-dir", tmp_path])
    assert "BROKEN  capabilities: the process lacks CAP_SYS_ADMIN" in result.stdout


# The TUN device as a container has it that was not given it, and as one whose user may not use it.
NO_TUN = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"]
FORBIDDEN_TUN = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/net && mknod -m 0 /dev/net/tun c 10 200 && "
                 'exec setpriv --bounding-set=-dac_override "$@"', "sh"]


def test_no_tun_device(served, tmp_path):
    lab, running = served
    faults, _, status = doctor(lab, running, wrapper=NO_TUN)
    assert status == 1 and "modprobe tun" in faults["kernel"]["evidence"]
    alone = lab.laptop.run([*NO_TUN, agent.binary(), "run", "--runtime-dir", tmp_path])
    assert alone.returncode == 69 and "modprobe tun" in alone.stderr


@pytest.mark.skipif(namespace.in_user_namespace(), reason="a user namespace makes no device files")
def test_a_tun_device_that_may_not_be_used(served, tmp_path):
    lab, running = served
    faults, _, status = doctor(lab, running, wrapper=FORBIDDEN_TUN)
    evidence = faults["kernel"]["evidence"]
    assert status == 1 and "Permission denied" in evidence and "modprobe" not in evidence and "chmod" in evidence
    alone = lab.laptop.run([*FORBIDDEN_TUN, agent.binary(), "run", "--runtime-dir", tmp_path])
    assert alone.returncode == 77 and "the process may not use the TUN device" in alone.stderr


@pytest.mark.skipif(namespace.in_user_namespace(), reason="a user namespace that knows one user has no other")
def test_what_an_ordinary_user_is_told(served):
    lab, running = served
    os.chmod(lab.directory, 0o755)
    faults, findings, status = doctor(
        lab, running, wrapper=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    assert status == 0 and "root" in faults["routers"]["remedy"] and "root" in faults["reachability"]["remedy"]
    assert findings["route"]["verdict"] == "good"


def test_an_interface_that_is_not_there(served):
    lab, running = served
    faults, _, status = doctor(lab, running, "eth9")
    assert status == 1 and faults["interface"]["remedy"] == "the agent knows: eth0"


TALKER = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker:
    while True:
        talker.sendto(b"x", (sys.argv[1], 9))
        time.sleep(0.05)
"""


def test_a_packet_filter_of_the_host(served):
    lab, running = served
    mend = nft(lab.laptop, 'inet output oifname "clat-eth0" ip protocol icmp drop')
    faults, _, status = doctor(lab, running)
    assert status == 1 and "nft list ruleset" in faults["reachability"]["remedy"]
    mend()
    # One that the sender does not see, while other packets go through.
    mend = nft(lab.laptop, "netdev egress device clat-eth0 ip protocol icmp drop")
    with lab.laptop.popen([sys.executable, "-B", "-c", TALKER, lab.SERVER]) as talker:
        faults, _, status = doctor(lab, running)
        talker.kill()
    assert status == 1 and faults["translator"]["evidence"] == "of 3 echo requests 0 came to the translator and left it"
    assert "nft list ruleset" in faults["translator"]["remedy"] and "NAT64" not in faults
    mend()


def test_a_vpn_in_the_way(served):
    lab, running = served
    lab.laptop.ip("link add vpn0 type veth peer name vpn1\nlink set vpn0 up\nlink set vpn1 up\naddr add 10.8.0.2/24 dev vpn0\nroute add 0.0.0.0/1 dev vpn0\n"
                  "route add 128.0.0.0/1 dev vpn0")
    faults, findings, status = doctor(lab, running)
    assert "goes out of vpn0 (veth), which wins over clat-eth0" in faults["route"]["evidence"] and status == 0
    assert findings["reachability"]["verdict"] == "good", "the CLAT itself works"
    lab.laptop.ip("link del vpn0")
    # What VPNs are made of; WireGuard where this kernel has it.
    for kind, word in (("tuntap add vpn0 mode tun", "tun"), ("link add vpn0 type wireguard", "wireguard")):
        if lab.laptop.run(["ip", *kind.split()]).returncode:
            assert word != "tun"
            continue
        lab.laptop.ip("link set vpn0 up\nroute add 198.51.100.0/24 dev vpn0")
        faults, _, _ = doctor(lab, running)
        assert f"goes out of vpn0 ({word}, a VPN), which wins" in faults["route"]["evidence"]
        lab.laptop.ip("link del vpn0")


def test_a_bridge_in_the_way_and_routes_that_refuse(served):
    lab, running = served
    lab.laptop.ip("link add docker0 up type bridge\naddr add 172.17.0.1/16 dev docker0\nroute add 198.51.100.0/24 dev docker0")
    faults, _, _ = doctor(lab, running)
    assert "goes out of docker0 (a bridge, as of Docker or of virtual machines)" in faults["route"]["evidence"]
    lab.laptop.ip("link del docker0\nroute add prohibit 198.51.100.0/24")
    faults, _, status = doctor(lab, running)
    assert status == 1 and "the host refuses IPv4" in faults["route"]["evidence"]
    lab.laptop.ip("route del prohibit 198.51.100.0/24\nrule add from all unreachable priority 9")
    faults, _, status = doctor(lab, running)
    assert status == 1 and "no IPv4 route" in faults["route"]["evidence"] and "clat-agent renew" in faults["route"]["remedy"]
    lab.laptop.ip("rule del priority 9")


def test_a_host_that_forwards(served):
    lab, running = served
    lab.laptop.sysctl(ipv6__conf__eth0__forwarding=1)
    faults, _, status = doctor(lab, running)
    assert status == 1 and faults["forwarding"]["remedy"] == "sysctl -w net.ipv6.conf.eth0.accept_ra=2"
    lab.laptop.sysctl(ipv6__conf__eth0__accept_ra=2)
    faults, _, status = doctor(lab, running)
    assert status == 0 and "forwarding" not in faults
    lab.laptop.sysctl(ipv6__conf__eth0__forwarding=0, ipv6__conf__eth0__accept_ra=1)


@pytest.mark.long
def test_links_of_containers_and_what_works_beside_them(lab):
    lab.start_dns64()
    lab.add_site(advertise=False)
    lab.laptop.ip("link add docker0 up type bridge\nlink add ve-x type veth peer name ve-y\nlink set ve-x up\nlink set ve-y up\n"
                  "addr add 172.17.0.1/16 dev docker0")
    file = lab.directory / "config.toml"
    file.write_text("dns = false\n")
    running = lab.agent("--config", file, interfaces=())
    running.wait_for("on")
    running.wait_until(lambda entry: entry["reason"]["code"] == "no-pref64", "no PREF64", "eth1")
    running.wait_until(lambda entry: entry["reason"]["code"] == "no-router-advertisement", "no advertisement", "ve-x")
    # IPv4 works by eth0: what is wrong with eth1 is a note, and what is no uplink is not spoken of.
    assert running.status_text("--short").startswith("eth0 on, eth1 off (no-pref64")
    assert "docker0" not in running.status_text("--short") and "ve-" not in running.status_text("--short")
    faults, findings, status = doctor(lab, running)
    assert status == 0 and faults["eth1"]["verdict"] == "notice" and findings["eth0"]["verdict"] == "good", faults
    assert not {"docker0", "ve-x", "ve-y"} & set(findings)
    # Who asks after one is told.
    faults, _, status = doctor(lab, running, "eth1")
    assert status == 1 and faults["eth1"]["verdict"] == "broken"
    faults, _, status = doctor(lab, running, "ve-x")
    assert status == 1 and "no router has answered" in faults["ve-x"]["evidence"]
    # Native IPv4 is IPv4 too.
    lab.laptop.ip("addr add 198.18.0.2/24 dev eth0\nroute add default via 198.18.0.1 dev eth0")
    running.wait_until(lambda entry: entry["reason"]["code"] == "native-ipv4", "native IPv4")
    faults, findings, status = doctor(lab, running)
    assert status == 0 and findings["eth0"]["verdict"] == "good" and faults["eth1"]["verdict"] == "notice"
    # Where it works nowhere, uplinks are broken.
    lab.laptop.ip("route del default via 198.18.0.1 dev eth0\naddr del 198.18.0.2/24 dev eth0")
    lab.site.router.advertiser.advertise(lab.site.router.advertisement(extra=[ra.pref64(lab.site.pref64, lifetime=0)]))
    running.wait_for("off")
    faults, findings, status = doctor(lab, running)
    assert status == 1 and faults["eth0"]["verdict"] == faults["eth1"]["verdict"] == "broken"
    assert not {"docker0", "ve-x", "ve-y"} & set(findings)


def test_a_clat_of_another_program_is_ipv4(lab):
    lab.laptop.ip("tuntap add other mode tun\nlink set other up\n"
                  "addr add 192.0.0.5/32 dev other\nroute add default dev other metric 50")
    running = lab.agent()
    running.wait_until(lambda entry: entry["reason"]["code"] == "other-clat", "the other CLAT")
    _, findings, status = doctor(lab, running)
    assert status == 0 and findings["eth0"]["verdict"] == "good" and "on other" in findings["eth0"]["evidence"]


def test_no_interface_is_to_be_served(lab):
    file = lab.directory / "config.toml"
    file.write_text('exclude = ["*"]\n')
    running = lab.agent("--config", file, interfaces=())
    wait_until(lambda: running.interface(), what="status")
    faults, _, status = doctor(lab, running)
    assert status == 1 and faults["interface"]["evidence"] == "no interface is to be served"
    assert "the agent knows: eth0" in faults["interface"]["remedy"]


def test_what_cannot_be_seen(lab):
    running = lab.agent()
    running.wait_for("on")
    # A machine without resolvers, on a link without.
    lab.site.router.advertiser.advertise(lab.site.router.advertisement([lab.site.pref64], [ra.rdnss([lab.site.resolver], lifetime=0)]))
    bare = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null "$(realpath /etc/resolv.conf)" && exec "$@"', "sh"]
    faults, _, status = doctor(lab, running, wrapper=bare)
    assert status == 0 and "no resolver of this link is known" in faults["DNS"]["evidence"]
    # From another container.
    faults, _, status = doctor(lab, running, wrapper=["unshare", "--pid", "--fork", "--mount-proc"])
    assert status == 0 and "cannot be seen here" in faults["privileges"]["evidence"]
    # A kernel without IPv6 has no such file.
    blind = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "/proc/$$/net" && exec "$@"', "sh"]
    faults, _, status = doctor(lab, running, wrapper=blind)
    assert status == 1 and "has no IPv6" in faults["kernel"]["evidence"] and "ipv6.disable=1" in faults["kernel"]["evidence"]


def test_another_clat(served):
    lab, running = served
    lab.laptop.ip("link add clat type veth peer name clat9\naddr add 192.0.0.2/29 dev clat")
    faults, _, _ = doctor(lab, running)
    assert "192.0.0.2" in faults["competitors"]["evidence"] and "is on clat" in faults["competitors"]["evidence"]
    lab.laptop.ip("link del clat")
    # Another program, and what one has left.
    script = lab.directory / "clatd"
    script.write_text(f"#!{sys.executable}\nimport time\nprint(1, flush=True)\ntime.sleep(100)\n")
    script.chmod(0o755)
    with lab.laptop.popen([script], stdout=-1) as other:
        other.stdout.readline()
        faults, _, _ = doctor(lab, running)
        assert faults["competitors"]["evidence"] == "running besides: clatd"
        other.kill()


def test_what_a_clatd_has_left(lab):
    lab.start_dns64()
    test_clatd.clatd(lab)
    running = lab.agent()
    wait_until(lambda: running.interface(), what="status")
    command = [agent.binary(), "doctor", "--runtime-dir", running.runtime_directory]
    said = " ".join(lab.laptop.run(command).stdout.split())
    assert "a clatd that was killed has left the TUN device clat with 192.0.0.1" in said
    assert "-> clat-agent cleanup --clatd shows all of it" in said


def test_a_black_hole_for_large_packets(served):
    lab, running = served
    # The core is narrow, and its errors do not come back.
    lab.site.set_mtu(1400)
    too_big = ["ip6 output icmpv6 type packet-too-big drop", "ip output icmp type destination-unreachable drop"]
    mend = [nft(lab.site.core, *too_big), nft(lab.site.nat64, *too_big)]
    faults, _, status = doctor(lab, running)
    passes = int(faults["MTU"]["evidence"].split("more than ")[1].split()[0])
    assert status == 1 and 1340 <= passes <= 1380
    assert f"set mtu = {passes + 20} in config.toml" in faults["MTU"]["remedy"]
    for each in mend:
        each()
    faults, findings, status = doctor(lab, running)
    assert status == 0 and "and says so" in findings["MTU"]["evidence"]
    lab.site.set_mtu(1500)


def test_a_path_that_narrows_at_every_hop(served):
    lab, running = served
    links = ((lab.site.router.namespace, "core", 1480), (lab.site.core, "nat64", 1460), (lab.site.nat64, "nat64", 1440),
             (lab.site.nat64, "wan", 1400))
    for place, link, mtu in links:
        place.ip(f"link set {link} mtu {mtu}")
    faults, _, status = doctor(lab, running)
    assert status == 0 and "a smaller size four times, and 1400 octets is the last" in faults["MTU"]["evidence"]
    assert "set mtu = 1420 in config.toml" in faults["MTU"]["remedy"]
    for place, link, _ in links:
        place.ip(f"link set {link} mtu 1500")


def test_resolvers_that_do_not_answer_and_prefixes_that_differ(lab):
    """Of an agent that has sent nothing yet: where nothing has come back it takes the other prefix."""
    lab.start_dns64()
    running = lab.agent()
    running.wait_for("on")
    router = lab.site.router
    router.advertiser.advertise(router.advertisement(
        [lab.site.pref64, "2001:db8:99::/96"], extra=[ra.rdnss(["2001:db8:1::dead"])]))
    faults, findings, status = doctor(lab, running)
    assert status == 0 and re.fullmatch("2001:db8:1::dead (does not answer|cannot be reached)", faults["DNS"]["evidence"])
    assert f"2001:db8:64::/96, 2001:db8:99::/96" in faults["prefixes"]["evidence"]
    router.advertiser.advertise(router.advertisement([lab.site.pref64]))
    mend = nft(router.namespace, "inet input udp dport 53 reject")
    faults, _, status = doctor(lab, running)
    assert status == 1 and faults["DNS"]["verdict"] == "broken" and "no resolver of this link is of use: 2001:db8:1::53 cannot be reached" in faults["DNS"]["evidence"]
    mend()


def test_routers_that_are_silent(served):
    lab, running = served
    mend = nft(lab.site.router.namespace, "netdev ingress device lan icmpv6 type nd-router-solicit drop")
    faults, findings, status = doctor(lab, running)
    assert status == 0 and "lives on what was announced before" in faults["routers"]["evidence"]
    assert findings["reachability"]["verdict"] == "good"
    mend()


def test_an_address_that_refuses(served):
    lab, running = served
    mend = nft(lab.internet, f"inet input ip daddr {lab.SERVERS[1]} reject with icmp type host-prohibited")
    faults, _, status = doctor(lab, running, target=lab.SERVERS[1])
    assert status == 1 and "cannot be reached (ICMP type 3, code 10)" in faults["reachability"]["evidence"]
    mend()


def test_a_silent_nat64(served):
    lab, running = served
    lab.site.nat64.ip("link set nat64 down")
    # A NAT64 that is gone without a word.
    lab.site.nat64.ip(f"route add blackhole {lab.site.pref64}")
    faults, _, status = doctor(lab, running)
    assert status == 1 and "the router itself answers" in faults["NAT64"]["evidence"]
    assert "tell the network's operator" in faults["NAT64"]["remedy"]


@pytest.mark.parametrize("breaking, code", [
    (lambda lab: lab.laptop.ip("link set eth0 down"), "bring it up"),
    (lambda lab: lab.switch.ip("link set laptop down"), "no carrier"),
    (lambda lab: lab.site.router.advertiser.advertise(), "no router has answered"),
    (lambda lab: lab.site.router.advertiser.advertise(lab.site.router.advertisement([])), "no router on this link announces"),
], ids=["down", "no carrier", "no router", "no PREF64"])
def test_links_before_the_first_packet(breaking, code):
    with Lab() as lab:
        breaking(lab)
        running = lab.agent()
        wait_until(lambda: running.interface() and running.interface()["state"] == "off", what="status")
        wait_until(lambda: code in running.interface()["reason"]["sentence"], what=code)
        faults, _, status = doctor(lab, running, "eth0")
        assert status == 1 and code in faults["eth0"]["evidence"]


def test_a_router_that_refuses_a_second_address(lab):
    lab.start_dns64()
    running = lab.agent()
    address = running.wait_for("on")["ipv6Address"]
    nft(lab.site.router.namespace, f"netdev ingress device lan ip6 saddr {address} drop")
    faults, _, status = doctor(lab, running)
    # The router answers the CLAT's link-local address, and nothing else.
    assert status == 1 and f"and not {address}" in faults["neighbour"]["evidence"] and "NAT64" not in faults
    assert "limits of addresses per host" in faults["neighbour"]["remedy"]


def test_a_router_that_refuses_all_of_the_clat(lab):
    lab.start_dns64()
    running = lab.agent()
    running.wait_for("on")
    nft(lab.site.router.namespace, "netdev ingress device lan icmpv6 type echo-request drop")
    faults, _, status = doctor(lab, running)
    assert status == 1 and "the router answers no echo request" in faults["router"]["evidence"]


def test_without_ebpf_it_says_so(lab):
    lab.start_dns64()
    running = lab.agent(datapath="routes")
    running.wait_for("on")
    faults, findings, _ = doctor(lab, running)
    assert "steered by routes and rules, as" in faults["data path"]["evidence"] and findings["reachability"]["verdict"] == "good"


def test_an_address_that_others_have(lab):
    lab.start_dns64()
    neighbour = lab.add_host("owner")
    with probe.Defender(neighbour, "eth0", lab.site.lan):
        running = lab.agent("--no-optimistic-dad")
        wait_until(lambda: (running.interface() or {"reason": {"code": ""}})["reason"]["code"] == "address-duplicate",
                   timeout=30, what="a duplicate")
        faults, _, status = doctor(lab, running)
    assert status == 1 and "already use" in faults["eth0"]["evidence"] and "clat-agent renew eth0" in faults["eth0"]["remedy"]
