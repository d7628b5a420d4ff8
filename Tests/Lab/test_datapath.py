"""Which way packets take, and what it costs while there are none."""

import contextlib
import pathlib
import shutil
import signal
import socket
import threading
import time

import pytest

import network
import rest
import servers
from faults import Faulty
from lab import DATAPATHS, Lab
from namespace import PATIENCE, in_user_namespace, wait_until

pytestmark = pytest.mark.agent
BPF = pytest.mark.skipif(in_user_namespace(), reason="needs eBPF")


# MARK: choice


@BPF
def test_without_a_count_of_processors_there_is_no_ebpf(lab):
    """The kernel writes a counter for each, into memory that must be large enough."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/devices/system/cpu && exec "$@"', "sh"]
    agent = lab.agent(wrapper=hidden)
    entry = agent.wait_for("on")
    assert entry["datapath"]["kind"] == "userspace"
    assert "count the possible processors: No such file or directory" in entry["datapath"]["detail"]
    assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
    assert agent.stop() == 0


@BPF
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
@pytest.mark.parametrize("number", ["4", "9", "12"])
def test_a_machine_that_is_full_for_a_moment_gets_the_kernel_path_a_moment_later(lab, number):
    with Faulty(lab, "bpf", "ENOMEM", number) as faulty:
        wait_until(lambda: faulty.injected, timeout=20, what="the fault")
        faulty.heal()
        entry = faulty.agent.wait_for("on", timeout=60)
        assert entry["datapath"]["kind"] == "kernel" and "on tcx" in entry["datapath"]["detail"], faulty.agent.log


# MARK: rest


@pytest.mark.long
def test_an_agent_at_rest_costs_nothing(figure):
    """The lab's router has told all for hours. What is due is a look at the counters, for whether answers come back, ever more
    seldom; and that may wait for the kernel's lock."""
    with contextlib.ExitStack() as labs:
        agents = {datapath: labs.enter_context(Lab()).agent(datapath=datapath) for datapath in DATAPATHS}
        for agent in agents.values():
            agent.wait_for("on")
        # DAD, solicitations, what the stack says of itself.
        time.sleep(30)
        for datapath, idleness in rest.idle({datapath: agent.process for datapath, agent in agents.items()}, 10).items():
            figure(f"ten seconds at rest, {datapath}",
                   f"wake-ups {idleness.wakeups}, {idleness.cpu_milliseconds:.1f} ms, {idleness.resident} KiB")
            assert idleness.wakeups.pop("clat-packets") == 0, datapath
            assert sum(idleness.wakeups.values()) <= 4, (datapath, idleness)
            assert idleness.cpu_milliseconds < 5 * PATIENCE, datapath
            assert idleness.resident <= 16384, datapath
        for agent in agents.values():
            assert agent.stop() == 0


# MARK: what is lost


def test_datagrams_that_find_the_queue_full_are_counted(lab):
    agent = lab.agent(datapath="routes" if in_user_namespace() else "userspace")
    agent.wait_for("on")
    before = agent.interface()["counters"]
    assert before["queue-overflows"] == 0
    agent.process.send_signal(signal.SIGSTOP)
    try:
        tasks = list(pathlib.Path(f"/proc/{agent.process.pid}/task").glob("*/stat"))
        wait_until(lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks), what="a halt")
        with lab.laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((Lab.SERVER, 9))
            for _ in range(1200):
                try:
                    client.send(b"x")
                except ConnectionRefusedError:
                    pass  # nobody listens there, as those learn that came through
    finally:
        agent.process.send_signal(signal.SIGCONT)

    def accounted():
        now = agent.interface()["counters"]
        return now if now["udp-out"] - before["udp-out"] + now["queue-overflows"] >= 1200 else None

    after = wait_until(accounted, what="all datagrams, sent or lost")
    assert after["queue-overflows"] >= 100
    assert agent.stop() == 0


# MARK: tunnels


def transfer(source, sink, address, data):
    """TCP; what has come of it."""
    received = bytearray()
    with sink.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, source.socket(
            socket.AF_INET, socket.SOCK_STREAM) as client:
        for end in (listener, client):
            end.settimeout(20 * PATIENCE)
        listener.bind((address, 1000))
        listener.listen()
        client.connect((address, 1000))
        connection = listener.accept()[0]
        connection.settimeout(20 * PATIENCE)

        def receive():
            while part := connection.recv(1 << 18):
                received.extend(part)

        receiver = threading.Thread(target=receive)
        receiver.start()
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        receiver.join()
        connection.close()
    return bytes(received)


@pytest.mark.parametrize("tx", ["on", "off"])
@pytest.mark.parametrize("datapath", DATAPATHS)
def test_tcp_crosses_in_a_tunnel_of_udp(datapath, tx):
    """VXLAN with a checksum outside, to a native IPv6 server. The inner checksum is open, and `tx` says whether ever anybody
    finishes it; under a /64 the outer one changes."""
    with Lab(pref64=network.PREF64_BY_LENGTH[64]) as lab:
        agent = lab.agent(datapath=datapath)
        entry = agent.wait_for("on")
        router, far = lab.site.router.namespace, "198.51.100.77"
        far_ipv6 = network.synthesise(lab.site.pref64, far)
        router.ip(f"addr add {far_ipv6}/128 dev lo nodad")
        # Wrong checksums show where somebody looks at them.
        lab.laptop.run(["ethtool", "-K", "clat-eth0", "rx", "off"], check=True)
        lab.laptop.run(["ethtool", "-K", "eth0", "tx", tx], check=True)
        router.run(["ethtool", "-K", "lan", "rx", "off", "tx", tx], check=True)
        ends = {lab.laptop: ("10.46.4.1", entry["ipv4Address"], far), router: ("10.46.4.2", far_ipv6, entry["ipv6Address"])}
        for namespace, (inner, local, remote) in ends.items():
            checksum = "udpcsum" if namespace is lab.laptop else "noudp6zerocsumtx"
            made = namespace.run(
                ["ip", "link", "add", "tunnel", "type", "vxlan", "id", "464", "local", local, "remote", remote,
                 "dstport", "4789", checksum])
            if made.returncode != 0:
                pytest.skip(f"no VXLAN: {made.stderr.strip()}")
            namespace.ip(f"""
                link set tunnel mtu 1380 addrgenmode none up
                addr add {inner}/24 dev tunnel
            """)
        data = b"".join(servers.content(2_000_000))
        assert transfer(lab.laptop, router, "10.46.4.2", data) == data
        assert transfer(router, lab.laptop, "10.46.4.1", data) == data
        assert agent.stop() == 0
