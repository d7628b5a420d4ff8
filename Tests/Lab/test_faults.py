"""Every system call of the agent's effects fails once, or each time. It ends in a named state, leaks nothing, and recovers by itself.

A few faults by default; `make faults` has them all (CLAT_FAULTS=all). What was injected is printed with -s.
"""

import os
import re
import shutil
import time

import pytest

import snapshot
from faults import Faulty, Tampering, descriptors
from lab import Lab
from namespace import in_user_namespace, wait_until

pytestmark = [
    pytest.mark.agent,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here"),
    pytest.mark.skipif(in_user_namespace(), reason="the figures are those of eBPF"),
]
# What a start may end with, when a call that it cannot do without fails: refused, no control socket; and for some errors no feature, another
# agent, no capability. Only with the first two does a service manager try again.
ENDS = {71, 73}
ENDS_OF = {"ENODEV": 69, "EADDRINUSE": 75, "EPERM": 77}
TUN = "/dev/net/tun"
ACCEPT_RA = "/proc/sys/net/ipv6/conf/default/accept_ra"
DESCRIPTORS, MEMORY = ["EMFILE", "ENFILE"], ["ENOMEM"]
# Call, path, errors. The errors are those that the kernel may give, or that a full or busy machine does.
CALLS = [
    ("socket", None, [*DESCRIPTORS, *MEMORY, "ENOBUFS", "EPERM", "EAFNOSUPPORT"]),
    ("bind", None, [*MEMORY, "EADDRINUSE"]),
    ("setsockopt", None, [*MEMORY, "EPERM", "ENOPROTOOPT"]),
    ("sendto", None, ["EINTR", "EAGAIN", "ENOBUFS", *MEMORY, "EBUSY", "EPERM", "ENODEV"]),
    ("recvmsg", None, ["EINTR", "EAGAIN", "ENOBUFS", *MEMORY]),
    ("ioctl", None, ["EINTR", "EBUSY", "EPERM", "ENODEV", *MEMORY]),
    ("unshare", None, ["EPERM", "ENOSPC", *MEMORY]),
    ("setns", None, ["EPERM", *MEMORY]),
    ("bpf", None, ["EPERM", "EINVAL", "EAGAIN", *MEMORY]),
    ("epoll_create1", None, [*DESCRIPTORS, *MEMORY]),
    ("epoll_ctl", None, ["ENOSPC", *MEMORY]),
    ("epoll_wait", None, ["EINTR"]),
    ("timerfd_create", None, [*DESCRIPTORS, *MEMORY]),
    ("timerfd_settime", None, ["ECANCELED"]),
    ("eventfd2", None, [*DESCRIPTORS, *MEMORY]),
    ("signalfd4", None, [*DESCRIPTORS, *MEMORY]),
    ("clone3", None, ["EAGAIN", *MEMORY]),
    ("fcntl", None, ["EMFILE"]),
    ("listen", None, ["EADDRINUSE"]),
    ("accept4", None, ["EINTR", "EAGAIN", "ECONNABORTED", *DESCRIPTORS, *MEMORY]),
    ("capset", None, ["EPERM"]),
    ("prctl", None, ["EPERM", "EINVAL"]),
    ("seccomp", None, ["EPERM", "EINVAL", "ENOSYS"]),
    ("openat", TUN, [*DESCRIPTORS, *MEMORY, "EPERM", "ENODEV", "EBUSY"]),
    ("openat", ACCEPT_RA, [*DESCRIPTORS, *MEMORY, "EPERM", "EROFS"]),
    ("write", ACCEPT_RA, ["EINTR", "EPERM", "EBUSY"]),
]
# Those of the packet thread, once packets go.
PACKETS = [("read", error) for error in ("EINTR", "EAGAIN", "ENOMEM", "EBADFD", "EIO")]
PACKETS += [("write", error) for error in ("EINTR", "EAGAIN", "ENOBUFS", "ENOMEM", "EIO")]
SAMPLE = [
    ("socket", "EMFILE", "4", None), ("sendto", "ENOBUFS", "6", None), ("recvmsg", "ENOBUFS", "9", None), ("recvmsg", "EINTR", "5", None),
    ("unshare", "EPERM", "1", None), ("setns", "ENOMEM", "1", None), ("bpf", "ENOMEM", "4", None), ("clone3", "EAGAIN", "2", None),
    ("openat", "EMFILE", "1", TUN), ("ioctl", "EBUSY", "1", None), ("write", "EPERM", "1", ACCEPT_RA), ("epoll_ctl", "ENOMEM", "9", None),
]
# More calls than any thread makes until IPv4 works.
MOST = 400


@pytest.fixture(scope="module")
def healthy():
    """A lab, what it was like before, and what an agent has open in it when all goes well."""
    with Lab() as lab:
        before = snapshot.take(lab.laptop)
        running = lab.agent()
        running.wait_for("on")
        # The shortest of some, as the agent may be closing what the last question was asked by.
        usual = min((time.sleep(0.02) or descriptors(running.process.pid) for _ in range(20)), key=len)
        assert running.stop() == 0
        yield lab, before, usual


def suffer(healthy, call, error, when, path):
    """One fault from start to end; whether it was reached. Prints a line of what came of it."""
    lab, before, usual = healthy
    with Faulty(lab, call, error, when, path) as faulty:
        agent = faulty.agent

        def settled():
            if agent.process.poll() is not None:
                return "ended"
            try:
                entry = agent.interface()
            except AssertionError:
                return "ended"
            if entry and (entry["state"] == "on" or entry["reason"]["code"] == "step-failed"):
                return entry["reason"]["sentence"]
            return None
        outcome = wait_until(settled, timeout=20, what="a state that has a name")
        if outcome == "ended":
            status = agent.wait()
            assert status in ENDS | {ENDS_OF.get(error)}, f"{call} {error} {when}: status {status}\n{agent.log}"
            outcome = agent.log.strip().splitlines()[-1]
            assert re.match("clat-agent: .+", outcome), agent.log
        else:
            reached = faulty.injected
            faulty.heal()
            agent.wait_for("on", timeout=90)
            assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout, agent.log
            # Namespaces that were given up go with a moment's delay, and so does what a client of the control socket had.
            wait_until(lambda: descriptors(agent.process.pid) == usual, timeout=5,
                       what=f"{call} {error} {when}: {descriptors(agent.process.pid)} instead of {usual}")
            assert "Fatal" not in agent.log and agent.stop() == 0, agent.log
            if not reached:
                return False
        snapshot.wait_for(lab.laptop, before)
        print(f"{call:15} {error:12} {when:>4}  {outcome}")
        return bool(faulty.injected)


@pytest.mark.skipif(os.environ.get("CLAT_FAULTS") == "all", reason="all of them are tried")
@pytest.mark.parametrize("call, error, when, path", SAMPLE, ids=lambda value: str(value).rpartition("/")[2])
def test_a_fault_of_many(healthy, call, error, when, path):
    assert suffer(healthy, call, error, when, path), "it was reached"


@pytest.mark.parametrize("call, error", PACKETS if os.environ.get("CLAT_FAULTS") == "all" else [PACKETS[3], PACKETS[7]])
def test_a_fault_while_packets_go(healthy, call, error):
    """One packet is lost, or the thread is started anew. It has no filter here: to make a call fail strace makes it one that the
    filter does not know."""
    lab, before, _ = healthy
    running = lab.agent(datapath="userspace", refused="seccomp")
    running.wait_for("on")
    with Tampering(running, call, error, "3", thread="clat-packets") as tampering:
        wait_until(lambda: lab.laptop.run(["ping", "-n", "-c3", "-i0.01", "-W1", Lab.SERVER]) and tampering.injected, what="the fault")
    running.wait_for("on", timeout=60)
    wait_until(lambda: "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W1", Lab.SERVER]).stdout, timeout=20, what="IPv4")
    counters = running.interface()["counters"]
    print(f"{call:15} {error:12}    3  read-faults {counters['read-faults']}, write-faults {counters['write-faults']}, {running.log.count('IPv4 works')} starts")
    assert running.stop() == 0 and "Fatal" not in running.log
    snapshot.wait_for(lab.laptop, before)


@pytest.mark.skipif(os.environ.get("CLAT_FAULTS") != "all", reason="make faults")
@pytest.mark.parametrize("call, path, error", [
    (call, path, error) for call, path, errors in CALLS for error in errors], ids=lambda value: str(value).rpartition("/")[2])
def test_every_fault(healthy, call, path, error):
    """The first, the second and so on until there is none. (Each that many calls make is one in four of the later ones.)"""
    number, reached = 1, 0
    while number < MOST and suffer(healthy, call, error, str(number), path):
        reached += 1
        number += 1 if number < 12 else number // 3
    print(f"{call} {error}: {reached} faults")
    assert reached
