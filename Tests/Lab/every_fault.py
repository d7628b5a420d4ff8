#!/usr/bin/python3
"""Every system call of the agent's effects made to fail, at each place, once or for good, whatever the agent is at (ordeals.py).

    every_fault.py [--jobs N] [--only SCENARIO/CALL/ERROR]    ends with the figures of each, and "N passed, N failed"

`make faults` runs all of them, test_faults.py a few.
"""

import argparse
import collections
import fnmatch
import multiprocessing
import queue
import sys
import time

from ordeals import Fault, scenarios

TUN = "/dev/net/tun"
ACCEPT_RA = "/proc/sys/net/ipv6/conf/default/accept_ra"
FORWARD = "/proc/sys/net/ipv4/ip_forward"
STATE = "/memfd:clat-agent"
DESCRIPTORS, MEMORY = ["EMFILE", "ENFILE"], ["ENOMEM"]
# What is a signal's or an empty queue's is over by the next call.
MOMENTARY = {"EINTR", "EAGAIN", "ECONNABORTED", "ECANCELED"}
# More calls than any thread makes in a scenario.
MOST = 400
# Call, path, errors. The errors are those that the kernel may give, or that a full or busy machine does; the first of them is tried at
# each place.
START = [
    ("socket", None, ["EMFILE", "ENFILE", *MEMORY, "ENOBUFS", "EPERM", "EAFNOSUPPORT"]),
    ("bind", None, [*MEMORY, "EADDRINUSE"]),
    ("connect", None, ["ECONNREFUSED", "EINTR", "EAGAIN", *MEMORY]),
    ("setsockopt", None, [*MEMORY, "EPERM", "ENOPROTOOPT"]),
    ("getsockopt", None, ["ENOPROTOOPT", *MEMORY]),
    ("getsockname", None, ["ENOBUFS"]),
    ("sendto", None, ["ENOBUFS", "EINTR", "EAGAIN", *MEMORY, "EBUSY", "EPERM", "ENODEV"]),
    ("recvmsg", None, ["ENOBUFS", "EINTR", "EAGAIN", *MEMORY]),
    ("recvfrom", None, ["EINTR", "EAGAIN", "ECONNRESET", *MEMORY]),
    ("ioctl", None, ["EBUSY", "EINTR", "EPERM", "ENODEV", *MEMORY]),
    ("unshare", None, ["EPERM", "ENOSPC", *MEMORY]),
    ("setns", None, ["EPERM", *MEMORY]),
    ("bpf", None, ["ENOMEM", "EPERM", "EINVAL", "EAGAIN"]),
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
    ("accept4", None, ["EMFILE", "EINTR", "EAGAIN", "ECONNABORTED", "ENFILE", *MEMORY]),
    ("capset", None, ["EPERM"]),
    ("prctl", None, ["EPERM", "EINVAL"]),
    ("seccomp", None, ["EPERM", "EINVAL", "ENOSYS"]),
    ("mkdir", None, ["EACCES", "ENOSPC", "EROFS"]),
    ("rename", None, ["EACCES", "ENOSPC", "EROFS"]),
    ("fsync", None, ["EIO", "ENOSPC", "EINTR"]),
    ("fchmod", None, ["EPERM", "EROFS"]),
    ("unlink", None, ["EACCES", "EROFS"]),
    ("getrandom", None, ["EINTR"]),
    ("openat", TUN, ["EMFILE", "ENFILE", *MEMORY, "EPERM", "ENODEV", "EBUSY"]),
    ("openat", ACCEPT_RA, ["EMFILE", "ENFILE", *MEMORY, "EPERM", "EROFS"]),
    ("write", ACCEPT_RA, ["EPERM", "EINTR", "EBUSY"]),
]
NETLINK = [("sendto", None, ["ENOBUFS", "EPERM", "ENODEV"]), ("recvmsg", None, ["ENOBUFS", "EINTR", "EAGAIN", *MEMORY])]
CALLS = {
    "start": START,
    "routes": [*NETLINK, ("socket", None, ["EMFILE", "EPERM"]), ("setsockopt", None, MEMORY), ("openat", FORWARD, ["EMFILE", "EROFS"]),
               ("write", FORWARD, ["EPERM", "EINTR"]), ("clone3", None, ["EAGAIN"]), ("ioctl", None, ["EBUSY"])],
    "resolver": [("connect", None, ["ENETUNREACH", "EINTR"]), ("recvfrom", None, ["ECONNREFUSED", "EINTR"]), ("getsockname", None, ["ENOBUFS"]),
                 ("sendto", None, ["ENETUNREACH"]), ("setsockopt", None, ["EPERM"]), ("socket", None, ["EMFILE"]), ("epoll_ctl", None, MEMORY)],
    "renumbering": [*NETLINK, ("bpf", None, ["ENOMEM", "EPERM", "EAGAIN"]), ("epoll_wait", None, ["EINTR"]), ("setsockopt", None, MEMORY), ("socket", None, DESCRIPTORS), ("epoll_ctl", None, ["ENOSPC"]), ("accept4", None, ["EMFILE", "EINTR"]),
                    ("setns", None, ["EPERM"])],
    "stop": [*NETLINK, ("epoll_ctl", None, MEMORY), ("epoll_wait", None, ["EINTR"]), ("read", None, ["EINTR", "EAGAIN"]), ("bpf", None, ["EPERM"]),
             ("unlink", None, ["EACCES", "EROFS"]), ("timerfd_settime", None, ["ECANCELED"]), ("write", None, ["EINTR", "EAGAIN"])],
    "restart": [("execve", None, ["ENOENT", "EACCES", "ENOMEM", "ETXTBSY", "EMFILE"]), ("dup2", None, ["EMFILE", "EBUSY", "EINTR"]),
                ("fcntl", None, ["EMFILE"]), ("memfd_create", None, [*DESCRIPTORS, *MEMORY]), ("sendmsg", None, ["ENOBUFS", "EAGAIN", "ECONNREFUSED"]),
                ("connect", None, ["ECONNREFUSED", "EAGAIN"]), ("pread64", STATE, ["EIO"]), ("capset", None, ["EPERM"]),
                ("prctl", None, ["EPERM"]), *NETLINK, ("ioctl", None, ["EPERM", "ENODEV"]), ("bpf", None, ["ENOMEM", "EPERM"]), ("setns", None, ["EPERM", *MEMORY]),
                ("clone3", None, ["EAGAIN"]), ("socket", None, ["EMFILE"]), ("epoll_ctl", None, MEMORY), ("bind", None, ["EADDRINUSE"]), ("listen", None, ["EADDRINUSE"]),
                ("openat", TUN, ["EMFILE"]), ("unlink", None, ["EACCES"])],
    "packets": [("read", None, ["EINTR", "EAGAIN", *MEMORY, "EBADFD", "EIO"]), ("write", None, ["EINTR", "EAGAIN", "ENOBUFS", *MEMORY, "EIO"])],
    "packets-by-routes": [("poll", None, ["EINTR", *MEMORY]), ("read", None, ["EINTR", "EIO"]), ("write", None, ["EINTR", "EIO"])],
    "packets-relayed": [("read", None, ["EINTR", "EAGAIN", *MEMORY]), ("write", None, ["EINTR", "EAGAIN", "ENOBUFS", "EIO"])],
}


def series(scenario, is_first):
    """Runs of one call and error, to be ended where it is not reached: one by one, from the twelfth on a third further; of all but the
    first error twice as far. Then for good, which is only of interest where a call may fail for long."""
    if scenario.startswith("packets"):
        return [["3"], ["3+"]]
    once, number = [], 1
    while number < MOST:
        once.append(str(number))
        number += (1 if number < 12 else number // 3) if is_first else number
    lasting = ["1+", "4+", "16+", "64+"] if is_first else ["1+"]
    return [once, lasting]


def tasks(only="*"):
    """All of them: scenario, call, path, error, and whether that is the call's first."""
    return [(scenario, call, path, error, error == errors[0])
            for scenario, calls in CALLS.items() for call, path, errors in calls for error in errors
            if fnmatch.fnmatch(f"{scenario}/{call}/{error}", only)]


class Figures:
    """Of one scenario or all."""

    def __init__(self):
        self.runs = self.calls = self.lasting = self.ends = 0
        self.failures = []

    def add(self, fault, reached, outcome):
        self.runs += 1
        self.calls += reached
        self.lasting += fault.is_lasting
        self.ends += outcome.startswith("ended with ")


def run(task, open_scenario, say):
    """A task to its end: its figures."""
    scenario, call, path, error, is_first = task
    figures = Figures()
    for places in series(scenario, is_first):
        for when in places:
            fault = Fault(call, error, when, path)
            if fault.is_lasting and error in MOMENTARY:
                break
            try:
                reached, outcome = open_scenario(scenario).suffer(fault)
            except Exception as problem:  # whatever it is, the rest goes on, and it is told at the end
                figures.failures.append(f"{scenario} {fault}: {type(problem).__name__}: {problem}")
                say(f"FAILED {figures.failures[-1]}")
                open_scenario(scenario, anew=True)
                if len(figures.failures) == 3:
                    return figures
                continue
            if not reached:
                break
            figures.add(fault, reached, outcome)
            say(f"{scenario:17} {str(fault):32} {reached:5}  {outcome.splitlines()[-1][:200]}")
    if not figures.runs and not figures.failures:
        figures.failures.append(f"{scenario} {call} {error}: there is no such call")
        say(f"FAILED {figures.failures[-1]}")
    return figures


def _work(waiting, done):
    with scenarios() as give:
        for task in iter(waiting.get, None):
            done.put((task, run(task, give, lambda line: print(line, flush=True))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--only", default="*")
    arguments = parser.parse_args()
    begun, todo = time.monotonic(), tasks(arguments.only)
    waiting, done = multiprocessing.Queue(), multiprocessing.Queue()
    for task in todo:
        waiting.put(task)
    workers = [multiprocessing.Process(target=_work, args=(waiting, done)) for _ in range(arguments.jobs)]
    for worker in workers:
        waiting.put(None)
        worker.start()
    found = collections.defaultdict(Figures)
    left = len(todo)
    while left and (any(worker.is_alive() for worker in workers) or not done.empty()):
        try:
            task, figures = done.get(timeout=1)
        except queue.Empty:
            continue
        left -= 1
        total = found[task[0]]
        for name in ("runs", "calls", "lasting", "ends"):
            setattr(total, name, getattr(total, name) + getattr(figures, name))
        total.failures += figures.failures
    for worker in workers:
        worker.join()
    print()
    for name, total in found.items():
        print(f"{name:17} {total.runs} runs with a fault, {total.lasting} of them for good; {total.calls} calls failed; the agent ended in {total.ends}")
    failures = [failure for total in found.values() for failure in total.failures] + left * ["a worker ended too soon"]
    for failure in failures:
        print(f"FAILED {failure.splitlines()[0]}")
    print(f"{time.monotonic() - begun:.0f} s in all")
    print(f"{sum(total.runs for total in found.values())} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
