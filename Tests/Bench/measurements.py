"""What is measured of a contestant. Each function returns numbers by the name of a metric, or raises."""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

import contestants

TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    unit: str
    more_is_better: bool
    digits: int = 1


METRICS = {
    **{f"tcp {way} {streams}": Metric(f"TCP {way}, {streams} stream{'s' if streams > 1 else ''}", "Gbit/s", True)
       for way in ("up", "down") for streams in (1, 4)},
    **{f"udp {way} {flows}": Metric(
        f"UDP {way}, {flows} flow{'s' if flows > 1 else ''}, 64 octets, less than 1 % lost", "1000/s", True, 0)
       for way in ("up", "down") for flows in (1, 16)},
    "udp rr": Metric("UDP round trip", "µs", False),
    "tcp rr": Metric("TCP round trip", "µs", False),
    "ping": Metric("ping, median", "µs", False, 0),
    **{f"cpu {way} {streams}": Metric(
        f"CPU, TCP {way}, {streams} stream{'s' if streams > 1 else ''}", "s/GB", False, 2)
       for way in ("up", "down") for streams in (1, 4)},
}


def cpu_seconds():
    """What all cores have worked since the boot, and what the hypervisor took from them: user, nice, system, irq and
    softirq of /proc/stat; steal."""
    fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICKS, fields[7] / TICKS


def iperf(server, streams, down, seconds):
    """The command for that many streams of TCP to or from a server, with cubic: it is what Linux does of itself, whatever this machine was
    told to."""
    command = ["iperf3", "-c", server, "-p", contestants.IPERF_PORT, "-t", seconds, "-P", streams, "-C", "cubic", "-J"]
    return command + ["-R"] * down


def _iperf(running, streams, down, seconds):
    for attempt in range(3):
        before, _ = cpu_seconds()
        result = running.line.laptop.run(iperf(running.server, streams, down, seconds), timeout=seconds + 30)
        used = cpu_seconds()[0] - before
        if received := speed(result.stdout):
            return received, used
        # The server takes a moment to be ready for the next.
        time.sleep(0.2 * (attempt + 1))
    raise RuntimeError(f"iperf3: {result.stdout[-200:]}{result.stderr}")


def speed(output):
    """What the receiver says at the end of an iperf3 run, from its JSON; None if it has not come to that."""
    try:
        return json.loads(output)["end"]["sum_received"]
    except (ValueError, KeyError):
        return None


def tcp(way, streams):
    """A measurement of TCP: how fast, and what it cost the whole machine."""
    def measure(running, seconds):
        received, used = _iperf(running, streams, way == "down", seconds)
        return {f"tcp {way} {streams}": received["bits_per_second"] / 1e9,
                f"cpu {way} {streams}": used / (received["bytes"] / 1e9)}
    return measure


def _traffic(running, what, seconds, flows=1):
    command = [contestants.traffic_tool(), what, running.server, contestants.TRAFFIC_PORT, seconds, flows]
    return [float(word) for word in running.line.laptop.run(command, check=True).stdout.split()]


def udp(way, flows=1):
    """A measurement of small datagrams; its trials take about three times `seconds` in all. Several flows take turns."""
    return lambda running, seconds: {
        f"udp {way} {flows}": _traffic(running, f"udp-{way}", min(0.15 * seconds, 0.4), flows)[0] / 1000}


def round_trips(running, seconds):
    """UDP and TCP one after the other without a pause, ping with one of 2 ms."""
    return {"udp rr": _traffic(running, "udp-rr", seconds / 4)[0], "tcp rr": _traffic(running, "tcp-rr", seconds / 4)[0],
            "ping": statistics.median(ping(running, running.server, seconds / 4, 0.002))}


def ping(running, address, seconds, interval):
    """Round trips in microseconds, in the order of the replies."""
    command = ["ping", "-n", "-i", interval, "-c", max(5, round(seconds / interval)), "-W", 1, address]
    found = re.findall(r"time=([0-9.]+) ms", running.line.laptop.run(command, timeout=seconds + 30).stdout)
    if not found:
        raise RuntimeError(f"no reply from {address}")
    return [float(text) * 1000 for text in found]


MEASUREMENTS = [tcp(way, streams) for streams in (1, 4) for way in ("up", "down")]
MEASUREMENTS += [udp(way, flows) for flows in (1, 16) for way in ("up", "down")] + [round_trips]


def micro():
    """The translator alone: (case, nanoseconds a header), and (case, allocations in 1000 rounds)."""
    output = subprocess.run(
        [contestants.traffic_tool()], capture_output=True, text=True, check=True, timeout=300).stdout
    times = re.findall(r"^(.*): ([0-9.]+) ns$", output, re.M)
    allocations = re.findall(r"^(.*): (\d+) allocations in 1000 rounds", output, re.M)
    control = re.search(r"^control, which allocates: (\d+)", output, re.M)
    if not times or not allocations or not control or int(control[1]) == 0:
        raise RuntimeError(f"the micro benchmark did not count: {output}")
    return [(case, float(value)) for case, value in times], [(case, int(value)) for case, value in allocations]
