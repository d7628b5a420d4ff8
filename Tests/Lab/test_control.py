"""The control socket: who may do what, and clients that are slow, dead or hostile."""

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

import agent
import namespace
from agent import Agent
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent
CALL = b'{"method":"org.clatagent.Status"}\0'
MONITOR = b'{"method":"org.clatagent.Monitor","more":true}\0'
GROUP = 777


def connect(running):
    """A client that is nobody of whom the agent knows, where there is another user to be."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if not namespace.in_user_namespace():
        os.seteuid(65534)
    try:
        client.connect(str(running.runtime_directory / "control"))
    finally:
        os.seteuid(0)
    client.settimeout(10 * namespace.PATIENCE)
    return client


def call(running, method, member=False, **parameters):
    """The answer to a call, by root or by a member of the group."""
    message = json.dumps({"method": f"org.clatagent.{method}", "parameters": parameters}).encode() + b"\0"
    words = ["setpriv", "--reuid=65534", f"--regid={GROUP}", "--clear-groups"] if member else []
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1]); " \
             "s.sendall(sys.stdin.buffer.read()); print(s.recv(1 << 20).rstrip(b'\\0').decode())"
    said = running.namespace.run([*words, sys.executable, "-c", script, running.runtime_directory / "control"],
                                 check=True, stdin=message.decode()).stdout
    return json.loads(said)


@pytest.mark.skipif(namespace.in_user_namespace(), reason="a user namespace that knows one user has no other")
def test_the_group_of_the_runtime_directory_may_change_and_others_may_only_read():
    with Lab() as lab:
        os.chmod(lab.directory, 0o755)
        directory = lab.directory / "agent"
        directory.mkdir()
        os.chown(directory, 0, GROUP)
        running = Agent(lab.laptop, directory, "--interface", "eth0")
        running.wait_for("on")
        def run(groups, *words):
            return lab.laptop.run(["setpriv", "--reuid=65534", *groups, agent.binary(), words[0], "--runtime-dir", directory,
                                   *words[1:]])
        stranger, root_group = ["--regid=65534", "--clear-groups"], ["--regid=0", "--clear-groups"]
        for member in (["--regid=65534", f"--groups={GROUP},12"], [f"--regid={GROUP}", "--clear-groups"]):
            assert run(member, "renew", "eth0").returncode == 0
            assert run(member, "disable", "eth0").returncode == 0 and run(member, "enable", "eth0").returncode == 0
            # What outlasts the agent, or has it ask somebody of their choice, is not for them.
            for words in (["exec", "eth0", "--", "true"], ["disable", "eth0", "--lasting"], ["enable", "eth0", "--lasting"],
                          ["renew", "eth0", "--resolver", "2001:db8::53"], ["reexec"]):
                refused = run(member, *words)
                assert refused.returncode == 2 and "only root may do that" in refused.stderr, words
            assert call(running, "SetResolvers", interface="eth0", servers=["2001:db8::53"], member=True)["error"].endswith(
                "PermissionDenied")
            assert running.interface()["state"] == "on" and not (lab.directory / "state/disabled").exists()
            assert not any(entry["source"] == "told" for entry in running.interface()["resolvers"])
        # Of root all of it is taken.
        assert "error" not in call(running, "SetResolvers", interface="eth0", servers=["2001:db8::53"])
        assert lab.laptop.run([agent.binary(), "disable", "eth0", "--lasting", "--runtime-dir", directory]).returncode == 0
        assert (lab.directory / "state/disabled").read_text() == "eth0\n"
        assert lab.laptop.run([agent.binary(), "enable", "eth0", "--lasting", "--runtime-dir", directory]).returncode == 0
        running.wait_for("on")
        for other in (stranger, root_group):
            assert run(other, "status").returncode in (0, 1)
            for words in (["renew", "eth0"], ["enable", "eth0"], ["disable", "eth0"], ["exec", "eth0", "--", "true"]):
                refused = run(other, *words)
                assert refused.returncode == 2 and "only root may do that" in refused.stderr, words
        # root's group is nobody's.
        os.chown(directory, 0, 0)
        running.wait_for("on")
        running.stop()
        running = Agent(lab.laptop, directory, "--interface", "eth0")
        running.wait_for("on")
        assert run(root_group, "renew", "eth0").returncode == 2


def cost(running):
    """CPU time of the agent in seconds, and its memory in MB."""
    fields = pathlib.Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = pathlib.Path(f"/proc/{running.process.pid}/status").read_text()
    return seconds, int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def test_slow_dead_and_hostile_clients_cost_nothing():
    with Lab() as lab:
        os.chmod(lab.directory, 0o755)
        running = lab.agent()
        running.wait_for("on")
        busy, memory = cost(running)
        clients = []
        def crowd(count, *octets):
            for _ in range(count):
                client = connect(running)
                client.setblocking(False)
                for part in octets:
                    try:
                        client.send(part)
                    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                        break
                clients.append(client)
        crowd(100)                                   # says nothing
        crowd(40, CALL[:-1])                         # never ends its call
        crowd(40, b"x" * 65536)                      # no call at all
        crowd(40, b"\xff\0", b"[" * 10000 + b"\0")   # nor these
        crowd(40, CALL * 500, CALL * 500)            # does not read its answers
        crowd(40, MONITOR, MONITOR)                  # nor its events, and calls again
        crowd(40, MONITOR)
        # Whoever goes on is served at once, by one call and in turn.
        begun = time.monotonic()
        for _ in range(20):
            assert running.interface()["state"] == "on"
        assert time.monotonic() - begun < 10 * namespace.PATIENCE
        # The crowd's user has had its calls for this second.
        time.sleep(1.2)
        slow = connect(running)
        for octet in CALL:
            slow.send(bytes([octet]))
        assert json.loads(slow.recv(1 << 20).rstrip(b"\0"))["parameters"]["pid"] == running.process.pid
        # Events while most of those who asked for them are deaf.
        for _ in range(5):
            lab.laptop.ip("link set eth0 down")
            running.wait_for("off")
            lab.laptop.ip("link set eth0 up")
            running.wait_for("on")
        assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout
        used, now = cost(running)
        descriptors = len(os.listdir(f"/proc/{running.process.pid}/fd"))
        assert now - memory < 40, f"{memory:.0f} MB became {now:.0f} MB"
        assert descriptors < 90, descriptors
        # Then they rest, and so does it.
        time.sleep(1)
        resting = cost(running)[0]
        time.sleep(3)
        assert cost(running)[0] - resting < 0.5, "it works for clients that do nothing"
        for client in clients:
            client.close()
        wait_until(lambda: len(os.listdir(f"/proc/{running.process.pid}/fd")) < descriptors, what="the end of the clients")
        print(f"{len(clients)} clients: {used - busy:.2f} s of CPU, {now - memory:.1f} MB, {descriptors} descriptors")
        assert running.stop() == 0


@contextlib.contextmanager
def full(running):
    """Lets the agent have no further descriptor."""
    limits = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, limits)


def test_a_client_that_cannot_be_let_in_waits_and_costs_nothing(lab):
    os.chmod(lab.directory, 0o755)
    running = lab.agent()
    running.wait_for("on")
    with full(running):
        client = connect(running)
        client.sendall(CALL)
        time.sleep(0.5)
        begun = cost(running)[0]
        time.sleep(2)
        used = cost(running)[0] - begun
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
    client.settimeout(10 * namespace.PATIENCE)
    assert json.loads(client.recv(1 << 20).rstrip(b"\0"))["parameters"]["pid"] == running.process.pid
    client.close()
    print(f"{used:.2f} s of CPU in 2 s")
    assert used < 0.3
    assert running.stop() == 0


@pytest.mark.alone
def test_who_connects_over_and_over_is_let_in_a_thousand_times_a_second(lab, figure):
    os.chmod(lab.directory, 0o755)
    running = lab.agent()
    running.wait_for("on")
    seconds = 4
    script = ("import os, socket, sys, time\n"
              "os.setuid(65534)\n" * (not namespace.in_user_namespace()) +
              "end, count = time.monotonic() + float(sys.argv[2]), 0\n"
              "while time.monotonic() < end:\n"
              "    with socket.socket(socket.AF_UNIX) as client:\n"
              "        client.connect(sys.argv[1])\n"
              "        count += 1\n"
              "print(count)\n")
    begun = cost(running)[0]
    floods = [running.namespace.popen([sys.executable, "-c", script, running.runtime_directory / "control", str(seconds)],
                                      stdout=subprocess.PIPE) for _ in range(2)]
    # Others have their turn.
    waits = []
    while floods[0].poll() is None:
        since = time.monotonic()
        assert running.interface()["state"] == "on"
        waits.append(time.monotonic() - since)
    count = sum(int(flood.communicate()[0]) for flood in floods)
    used = cost(running)[0] - begun
    figure("clients that connect over and over", f"{count / seconds:.0f} a second let in, {used / seconds:.0%} of a processor, "
           f"a status after {max(waits) * 1000:.0f} ms at worst")
    # A second's worth at once, what has come in when the time is over, and those that wait to be let in.
    assert count < 1000 * (seconds + 1) * 1.2 + 100
    assert len(waits) > 3
    assert running.stop() == 0


def test_a_hook_waits_for_an_agent_that_hangs_no_longer_than_a_second(lab):
    running = lab.agent()
    running.wait_for("on")
    running.process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        renew = [agent.binary(), "renew", "eth0", "--quiet", "--resolver", "2001:db8::53", "--resolver", "192.0.2.53",
                 "--runtime-dir", running.runtime_directory]
        assert lab.laptop.run(renew).returncode == 0
        assert time.monotonic() - begun < 3 * namespace.PATIENCE
    finally:
        running.process.send_signal(signal.SIGCONT)
    # The call waited for it: one message, which is obeyed whole.
    running.wait_until(lambda entry: entry["state"] == "on", "on")
