"""How long the TUN's queue should be: small datagrams, and ping while TCP fills the path, for several lengths."""

import os
import pathlib
import random
import statistics
import subprocess
import time

import contestants
import measurements
from measurements import Metric
from report import Results

LENGTHS = (100, 500, 1000, 5000)
RATE = "50mbit"
CONTROL, AGAIN = "queue 500", "queue 500 again"

_LOADS = [(way, narrow) for narrow in (False, True) for way in ("up", "down")]


def _label(way, narrow):
    return f"TCP {way}" + (f" over {RATE}" if narrow else "")


METRICS = {
    "udp up 1": Metric("UDP up, 64 octets, less than 1 % lost", "1000/s", True, 0),
    "udp down 1": Metric("UDP down, the same", "1000/s", True, 0),
    **{f"{kind} {way} {narrow}": metric for way, narrow in _LOADS for kind, metric in (
        ("tcp", Metric(f"{_label(way, narrow)}, 4 streams", "Gbit/s", True, 3)),
        ("median", Metric(f"ping during {_label(way, narrow)}, median", "µs", False, 0)),
        ("late", Metric(f"ping during {_label(way, narrow)}, 95 %", "µs", False, 0)))},
}


def set_queue(process, length):
    """Sets the length of an agent's TUN, in the namespace that hangs on the agent's descriptors."""
    home = os.readlink(f"/proc/{process.pid}/ns/net")
    for entry in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if (target := os.readlink(entry)).startswith("net:[") and target != home:
                subprocess.run(["nsenter", f"--net={entry}", "ip", "link", "set", "tun", "txqueuelen", str(length)],
                               check=True)
                return
        except FileNotFoundError:
            continue
    raise RuntimeError(f"process {process.pid} holds no namespace")


def loaded(running, way, narrow, seconds):
    """Ping to the router's server while four TCP streams go there or, behind the bottleneck, past there: what the queue
    at the bottleneck itself adds is not in it."""
    goal = running.far if narrow else running.server
    load = running.line.laptop.popen(
        measurements.iperf(goal, 4, way == "down", seconds + 1), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        times = sorted(measurements.ping(running, running.server, seconds, 0.01))
        speed = measurements.speed(load.communicate(timeout=60)[0])
    finally:
        load.kill()
        load.wait()
    if speed is None:
        raise RuntimeError("iperf3 failed")
    return {f"tcp {way} {narrow}": speed["bits_per_second"] / 1e9, f"median {way} {narrow}": statistics.median(times),
            f"late {way} {narrow}": times[int(0.95 * (len(times) - 1))]}


def run(running, rounds, seconds, note):
    """`running`: contestants by name, of which the user-space path is the one whose queue is set; the others are
    measured beside it."""
    subject = "user-space path"
    cases = {f"queue {length}": (running[subject], length) for length in LENGTHS} | {AGAIN: (running[subject], 500)}
    cases |= {name: (other, None) for name, other in running.items() if name != subject}
    for one in running.values():
        one.line.add_bottleneck(RATE)
    results = Results(METRICS, list(cases), CONTROL, AGAIN)
    for round_number in range(rounds):
        order = random.Random(round_number).sample(list(cases), len(cases))
        for name in order:
            note(f"queue lengths, round {round_number + 1} of {rounds}: {name}")
            one, length = cases[name]
            if length is not None:
                set_queue(one.process, length)
            tasks = [measurements.udp("up"), measurements.udp("down")]
            tasks += [lambda one, seconds, load=load: loaded(one, *load, seconds) for load in _LOADS]
            for task in tasks:
                try:
                    results.add(round_number, name, task(one, seconds))
                except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
                    note(f"{name}: {error}", lasting=True)
    return results
