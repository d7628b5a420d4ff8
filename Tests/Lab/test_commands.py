"""The commands where something is in the way: what ends, hangs or is killed, and what each error says to do."""

import os
import re
import select
import shutil
import signal
import subprocess

import pytest

import agent
import namespace
from test_tool import command, needs_users, served

pytestmark = pytest.mark.agent


def test_what_is_disabled_stays_so_until_the_next_boot(lab):
    running = lab.agent(interfaces=())
    running.wait_for("on")
    command(lab, running, "disable", "eth0", check=True)
    running.wait_for("off")
    for end in (agent.Agent.stop, agent.Agent.kill):
        end(running)
        running = lab.agent(again=running, interfaces=())
        assert running.wait_for("off")["reason"]["code"] == "disabled"
    command(lab, running, "reexec", check=True)
    assert running.wait_for("off")["reason"]["code"] == "disabled"
    running.kill()
    # A boot empties the runtime directory.
    fresh = lab.agent(interfaces=())
    fresh.wait_for("on")
    fresh.kill()
    running = lab.agent(again=running, interfaces=())
    running.wait_for("off")
    # The interface need not be there to be switched on.
    lab.laptop.ip("link set eth0 down\nlink set eth0 name usb0")
    running.wait_for("off", "usb0")
    command(lab, running, "enable", "eth0", "--lasting", check=True)
    assert command(lab, running, "enable", "eth0").returncode == 2
    lab.laptop.ip("link set usb0 name eth0\nlink set eth0 up")
    running.wait_for("on")


def test_what_monitor_and_renew_cannot_do(served):
    lab, running = served
    unknown = command(lab, running, "monitor", "eth9")
    assert unknown.returncode == 2 and "it knows: eth0" in unknown.stderr
    for wrong in ("nonsense", "192.0.2.53", "::1"):
        refused = command(lab, running, "renew", "eth0", "--resolver", wrong)
        assert refused.returncode == 64 and f"takes an IPv6 address that is not the host's own, not {wrong}" in refused.stderr
    command(lab, running, "renew", "eth0", "--quiet", "--resolver", "192.0.2.53", check=True)
    kinds = re.search(r"kind \(([^)]*)\)", " ".join(command(lab, running, "monitor", "--help", check=True).stdout.split()))[1]
    assert kinds == "state, pref64, path, ipv6-only, address, step, failure"


def test_each_error_says_what_to_do(served, tmp_path):
    lab, running = served
    def says(words, status, *parts):
        result = lab.laptop.run(words)
        assert result.returncode == status and all(part in result.stderr for part in parts), result.stderr
        assert len(result.stderr.splitlines()) == 1
    binary = agent.binary()
    (tmp_path / "file").write_text("")
    elsewhere = lab.add_host("elsewhere")
    for place in (tmp_path / "file/x", tmp_path / ("x" * 120)):
        result = elsewhere.run([binary, "run", "--runtime-dir", place, "--state-dir", tmp_path / "state"])
        last = result.stderr.splitlines()[-1]
        assert result.returncode == 73 and "with --runtime-dir" in last and "report" not in last, result.stderr
    says([binary, "import-clatd", tmp_path / "none"], 66, "No such file", "import-clatd FILE")
    says([binary, "config", "check", tmp_path], 78, "Is a directory", "name a file")
    says([binary, "status", "--runtime-dir", tmp_path / ("x" * 120)], 2, "shorter --runtime-dir")
    where = ["--runtime-dir", running.runtime_directory]
    says([binary, "exec", "eth0", *where, "--", "/nonexistent"], 127, "No such file", "install it")
    says([binary, "exec", "eth0", *where, "--", tmp_path / "file"], 126, "Permission denied", "that you may run")
    says([binary, "capture", "eth0", *where, "--output", "/nonexistent/x"], 73, "another file with --output")
    running.process.send_signal(signal.SIGSTOP)
    try:
        says([binary, "renew", "eth0", *where], 2, "does not answer in time", "start it anew")
    finally:
        running.process.send_signal(signal.SIGCONT)


def test_a_watch_outlives_the_agent(lab):
    running = lab.agent()
    running.wait_for("on")
    words = [agent.binary(), "status", "--short", "--watch", "--runtime-dir", running.runtime_directory]
    monitor = [agent.binary(), "monitor", "--runtime-dir", running.runtime_directory]
    with lab.laptop.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch, \
            lab.laptop.popen(monitor, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as monitor:
        assert watch.stdout.readline() == "eth0 on\n" and "IPv4 works" in monitor.stdout.readline()
        running.stop()
        assert any("no clat-agent is running here" in line for line in watch.stderr)
        assert monitor.wait(20 * namespace.PATIENCE) == 2
        assert "the clat-agent has ended, or begun anew; see: clat-agent status" in monitor.stderr.read()
        running = lab.agent(again=running)
        running.wait_for("on")
        command(lab, running, "disable", "eth0", check=True)
        assert any(line == "eth0 off (disabled)\n" for line in watch.stdout)
        watch.terminate()


@needs_users
def test_a_killed_agent_is_gone_while_somebody_looks_on(lab):
    running = lab.agent()
    running.wait_for("on")
    words = [agent.binary(), "capture", "eth0", "--runtime-dir", running.runtime_directory, "--output", lab.directory / "x.pcapng"]
    with lab.laptop.popen(words, stderr=subprocess.PIPE) as recorder:
        assert "capturing" in recorder.stderr.readline()
        running.kill()
        assert recorder.wait(20 * namespace.PATIENCE) == 74 and "the agent has ended" in recorder.stderr.read()
    namespace.wait_until(lambda: lab.laptop.run(["ip", "link", "show", "clat-eth0"]).returncode, what="the end of the CLAT")
    # A command may do what it wants, so it keeps all; the next agent takes it away.
    running = lab.agent()
    address = running.wait_for("on")["ipv6Address"]
    words = [agent.binary(), "exec", "eth0", "--runtime-dir", running.runtime_directory, "--", "sh", "-c", "echo in; exec sleep 600"]
    with lab.laptop.popen(words, stdout=subprocess.PIPE) as inside:
        assert inside.stdout.readline() == "in\n"
        running.kill()
        assert lab.laptop.run(["ip", "link", "show", "clat-eth0"]).returncode == 0
        running = lab.agent()
        running.wait_for("on")
        lab.laptop.run(["ping", "-c3", "-i0.2", "-W5", lab.SERVER], check=True)
        assert lab.laptop.run(["ip", "-4", "route"]).stdout.count("default") == 1
        running.stop()
        inside.kill()
    # What only has that name is let be.
    lab.laptop.ip("link add clat-eth0 type veth peer name other")
    running = lab.agent()
    failed = running.wait_until(lambda entry: entry["reason"]["code"] == "step-failed", "the refusal")
    assert "clat-eth0 is there already" in failed["reason"]["sentence"]
    lab.laptop.ip("link delete clat-eth0")
    running.wait_for("on", timeout=60)


@needs_users
def test_a_capture_ends_when_it_is_told_to(served):
    lab, running = served
    file = lab.directory / "few.pcapng"
    words = [agent.binary(), "capture", "eth0", "--runtime-dir", running.runtime_directory, "--output", file]
    for _ in range(3):
        with lab.laptop.popen([*words, "--packets", "3", "--seconds", "10000000000"], stderr=subprocess.PIPE) as recorder:
            assert "capturing" in recorder.stderr.readline()
            # Each goes by both taps.
            lab.laptop.run(["ping", "-f", "-c50", lab.SERVER], check=True)
            assert recorder.wait(20 * namespace.PATIENCE) == 0
        assert len(lab.laptop.run(["tcpdump", "-nr", file], check=True).stdout.splitlines()) == 3


# A machine of one network interface, lo.
ALONE = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh"]


def typed(line, shell, learn, folder):
    """The words with which an interactive shell runs `clat-agent` after a line was typed, tabs and all."""
    said = folder / "said"
    (folder / "clat-agent").write_text(f'#!/bin/sh\necho "$@" > {said}.new\nmv {said}.new {said}\n')
    (folder / "clat-agent").chmod(0o755)
    ours, theirs = os.openpty()
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "vt100", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen([*ALONE, "setsid", "--ctty", *shell], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment)
    os.close(theirs)
    shown = b""

    def until(predicate):
        nonlocal shown
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 4096)
        return predicate()
    try:
        os.write(ours, f"{learn}; echo rea''dy\n".encode())
        namespace.wait_until(lambda: until(lambda: b"ready" in shown), 60, what="the shell")
        os.write(ours, line.encode() + b"\n")
        namespace.wait_until(lambda: until(said.exists), 60, what="the command")
    except TimeoutError as error:
        raise AssertionError(f"{error}; the terminal shows {shown.decode(errors='replace')}") from None
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return said.read_text().split()


# What runs it, and how it learns of the completions in a file that is named as `make install` does.
SHELLS = {"bash": (["bash", "--norc", "-i"], ". ./clat-agent.bash", "clat-agent.bash"),
          "zsh": (["zsh", "-f", "-i"], "fpath=($PWD $fpath); autoload -Uz compinit; compinit -D -u", "_clat-agent"),
          "fish": (["fish", "--no-config", "-c", "source clat-agent.fish; complete -C $argv[1]"], None, "clat-agent.fish")}


@pytest.mark.parametrize("line, words", [
    ("clat-agent sta\t", "status"), ("clat-agent status --js\t", "status --json"), ("clat-agent config ch\t", "config check"),
    ("clat-agent renew l\t", "renew lo"), ("clat-agent renew lo --qui\t", "renew lo --quiet"),
], ids=["a command", "an option", "a command of a command", "an interface", "an option after an argument"])
@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_what_is_typed(tmp_path, shell, line, words):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    command, learn, name = SHELLS[shell]
    (tmp_path / name).write_text(subprocess.run([agent.binary(), "--generate-completion-script", shell], capture_output=True, text=True,
                                                check=True).stdout)
    if learn:
        assert typed(line, command, learn, tmp_path) == words.split()
        return
    # fish tells what it would offer, and why.
    said = subprocess.run([*ALONE, *command, line.rstrip("\t")], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert [offer.split("\t")[0] for offer in said.stdout.splitlines()] == words.split()[-1:] and said.stderr == "", said


def test_the_service_manager_keeps_what_is_disabled_until_the_next_boot():
    """It is in the runtime directory, which systemd would take away with the service."""
    unit = (agent.REPOSITORY / "contrib/systemd/clat-agent.service").read_text().splitlines()
    assert "RuntimeDirectory=clat-agent" in unit and "RuntimeDirectoryPreserve=yes" in unit
