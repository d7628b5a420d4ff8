"""clat-agent doctor: each link of the chain is broken in turn, and it must say which."""

import json

import pytest

import agent
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


def doctor(lab, running, *words):
    """What is broken or worth a note, by link, and the exit status."""
    command = [agent.binary(), "doctor", "--json", "--target", lab.SERVER, "--runtime-dir", running.runtime_directory, *words]
    result = lab.laptop.run(command)
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(f.get("remedy") for f in findings if f["verdict"] == "broken"), "every fault has a remedy"
    return {f["link"]: f for f in findings if f["verdict"] != "good"}, {f["link"]: f for f in findings}, result.returncode


@pytest.fixture(scope="module")
def served():
    with Lab() as lab:
        running = lab.agent()
        running.wait_for("on")
        yield lab, running


def test_all_is_well(served):
    lab, running = served
    faults, findings, status = doctor(lab, running)
    assert status == 0 and not {link for link, f in faults.items() if f["verdict"] == "broken"}
    assert "answers through the NAT64 after" in findings["reachability"]["evidence"]
    assert "packets of 1480 octets pass" in findings["MTU"]["evidence"]
    assert findings["route"]["evidence"].startswith("IPv4 goes out of clat-eth0")
    text = lab.laptop.run([agent.binary(), "doctor", "--target", lab.SERVER, "--runtime-dir", running.runtime_directory])
    assert "ok    reachability:" in text.stdout and all(len(line) <= 80 for line in text.stdout.splitlines())


def test_no_agent(served, tmp_path):
    lab, running = served
    result = lab.laptop.run([agent.binary(), "doctor", "--runtime-dir", tmp_path])
    assert result.returncode == 1 and "BROKEN  agent: no clat-agent is running here" in result.stdout
    assert "systemctl start clat-agent" in result.stdout


def test_an_interface_that_is_not_there(served):
    lab, running = served
    faults, _, status = doctor(lab, running, "eth9")
    assert status == 1 and faults["interface"]["remedy"] == "the agent knows: eth0"


def test_a_packet_filter_of_the_host(served):
    lab, running = served
    mend = nft(lab.laptop, 'inet output oifname "clat-eth0" ip protocol icmp drop')
    faults, _, status = doctor(lab, running)
    assert status == 1 and "nft list ruleset" in (faults.get("reachability") or faults["translator"])["remedy"]
    mend()


def test_a_vpn_in_the_way(served):
    lab, running = served
    lab.laptop.ip("link add vpn0 type veth peer name vpn1\nlink set vpn0 up\nlink set vpn1 up\naddr add 10.8.0.2/24 dev vpn0\nroute add 0.0.0.0/1 dev vpn0\n"
                  "route add 128.0.0.0/1 dev vpn0")
    faults, findings, status = doctor(lab, running)
    assert "goes out of vpn0, which wins over clat-eth0" in faults["route"]["evidence"] and status == 0
    assert findings["reachability"]["verdict"] == "good", "the CLAT itself works"
    lab.laptop.ip("link del vpn0")


def test_another_clat(served):
    lab, running = served
    lab.laptop.ip("link add clat type veth peer name clat9\naddr add 192.0.0.2/29 dev clat")
    faults, _, _ = doctor(lab, running)
    assert "192.0.0.2" in faults["competitors"]["evidence"] and "is on clat" in faults["competitors"]["evidence"]
    lab.laptop.ip("link del clat")


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
    running = lab.agent()
    address = running.wait_for("on")["ipv6Address"]
    nft(lab.site.router.namespace, f"netdev ingress device lan ip6 saddr {address} drop")
    faults, _, status = doctor(lab, running)
    # The router answers the CLAT's link-local address, and nothing else: what is told names the address.
    assert status == 1 and address in faults["NAT64"]["remedy"]


def test_a_router_that_refuses_all_of_the_clat(lab):
    running = lab.agent()
    running.wait_for("on")
    nft(lab.site.router.namespace, "netdev ingress device lan icmpv6 type echo-request drop")
    faults, _, status = doctor(lab, running)
    assert status == 1 and "fe80::1 does not answer" in faults["router"]["evidence"]
