"""`make bench`: clat-agent's two paths beside plain IPv6 forwarding and other translators, on namespaces of its own.

Interleaved rounds: each measures every contestant, one moments after the other and in an order of its own, and the
control twice. The tables hold ratios to the control of the same round. Needs root and the release builds of clat-agent
and translator-bench (make bench makes them); touches no interface but those it makes.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import aims
import contestants
import measurements
import plot
import rest
import sweep
from contestants import AGAIN, CONTROL, CONTESTANTS, REPOSITORY
from report import Results, table

PAIRS = [("kernel path", "user-space path"), ("kernel path", "Jool"), ("user-space path", "Jool"),
         ("user-space path", "tayga"), ("user-space path", "tundra")]
LEGEND = ("A cell is the median of the rounds' ratios to {control} and [least-greatest]. `A/A within` is the factor by "
          "which {control}, measured twice in every round, differed from itself at most; `~` marks a difference that is "
          "within that (or within its middle over all rows), or that not every round agrees on, or that fewer than three "
          "rounds tell of: it is not resolved.")


def note(text, lasting=False):
    """Progress, on a terminal only, unless it is to stay."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if lasting else "", file=sys.stderr, flush=True)
    elif lasting:
        print(text, file=sys.stderr, flush=True)


class Bench:
    """One run."""

    def __init__(self, options):
        self.options = options
        self.wanted = {name: start for name, start in CONTESTANTS.items()
                       if name in (CONTROL, AGAIN) or not options.only or name in options.only}
        self.running = {}
        self.resident, self.idleness, self.queues = {}, {}, None

    def run(self):
        """Everything, in order."""
        contestants.namespace.prepare()
        contestants.clean()
        start = time.monotonic()
        _, stolen = measurements.cpu_seconds()
        note("the translator alone")
        self.times, self.allocations = measurements.micro()
        with contextlib.ExitStack() as stack:
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{contestants.PREFIX}{os.getpid()}-")))
            self._start(stack, directory)
            self.busy = self._busy(2)
            self._rounds()
            self.resident = {name: rest.resident(one.process) for name, one in self._processes().items()}
            self._idle()
            if self.options.sweep:
                beside = {name: self.running[name] for name in (CONTROL, "kernel path", "user-space path")
                          if name in self.running}
                self.queues = sweep.run(beside, self.options.rounds, self.options.seconds, note)
        self.lasted = time.monotonic() - start
        self.stolen = (measurements.cpu_seconds()[1] - stolen) / self.lasted / os.cpu_count()
        note("")

    def _start(self, stack, directory):
        for name, start in self.wanted.items():
            note(f"starting {name}")
            line = contestants.Line(name.replace(" ", "-").lower(), directory)
            stack.callback(line.close)
            try:
                one = start(line)
                contestants.namespace.wait_until(
                    lambda: line.laptop.run(["ping", "-n", "-c1", "-W1", one.server]).returncode == 0,
                    what=f"{name} carries a ping")
            except (AssertionError, OSError, RuntimeError) as error:
                if name in (CONTROL, AGAIN):
                    raise
                note(f"{name} does not take part: {error}", lasting=True)
                continue
            self.running[name] = one

    def _processes(self):
        return {name: one for name, one in self.running.items() if one.process}

    @staticmethod
    def _busy(seconds):
        """The share of the machine that others use."""
        before, _ = measurements.cpu_seconds()
        time.sleep(seconds)
        return (measurements.cpu_seconds()[0] - before) / seconds / os.cpu_count()

    def _rounds(self):
        rounds = self.options.rounds
        self.results = Results(measurements.METRICS, list(self.running), CONTROL, AGAIN)
        dice = random.Random(464)
        for round_number in range(rounds):
            for index, measure in enumerate(measurements.MEASUREMENTS):
                for name in dice.sample(list(self.running), len(self.running)):
                    note(f"round {round_number + 1} of {rounds}, {index + 1} of {len(measurements.MEASUREMENTS)}: {name}")
                    try:
                        self.results.add(round_number, name, measure(self.running[name], self.options.seconds))
                    except (RuntimeError, OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
                        note(f"{name}, round {round_number + 1}: {error}", lasting=True)

    def _idle(self):
        if self.options.idle > 0:
            note(f"{self.options.idle:g} s of rest")
            processes = {name: one.process for name, one in self._processes().items()}
            before, _ = measurements.cpu_seconds()
            self.idleness = rest.idle(processes, self.options.idle)
            used = measurements.cpu_seconds()[0] - before
            self.busy = max(self.busy, used / self.options.idle / os.cpu_count())

    def noise(self):
        """How far the run can be trusted, in a sentence or two."""
        factors = [factor for key in measurements.METRICS if (factor := self.results.repeatability(key))]
        if not factors:
            return "The control could not be measured twice: nothing is resolved."
        text = (f"Two runs of {CONTROL} in the same round differed by a factor of {statistics.median(factors):.2f} in the "
                f"middle of the measurements, {max(factors):.2f} in the worst. Others used {self.busy:.0%} of the machine "
                f"while this rested; the hypervisor kept back {self.stolen:.1%}.")
        return text + "".join(f" {why}" for why in self.doubts())

    def doubts(self):
        """Why the figures are not to be quoted; empty where they are."""
        doubts = []
        if self.busy > 0.05 or self.stolen > 0.02:
            doubts.append("THE MACHINE WAS NOT QUIET: do not quote these figures.")
        if self.options.rounds < 5:
            doubts.append("To be quoted it needs 5 rounds at least.")
        return doubts

    def machine(self):
        """What this ran on."""
        model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        commit = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty", "--exclude=*"],
                                capture_output=True, text=True).stdout.strip()
        return (f"{os.cpu_count()} cores ({model[1] if model else os.uname().machine}), Linux {os.uname().release}, "
                f"{datetime.date.today()}{f', commit {commit}' if commit else ''}; rounds: {self.options.rounds}, "
                f"{self.options.seconds} s for each TCP run, {self.lasted / 60:.1f} minutes in all.")

    def sections(self):
        """Headings and what stands below them."""
        yield "Aims", aims.table(self.results, self.allocated, self._own_rest())
        yield "Beside plain IPv6 forwarding", f"{LEGEND.format(control=CONTROL)}\n\n{self.results.ratio_table()}"
        yield "In figures", f"Medians.\n\n{self.results.absolute_table()}"
        pairs = self.results.pair_table([pair for pair in PAIRS if set(pair) <= set(self.running)])
        if pairs:
            yield "Beside each other", pairs
        yield "Memory and rest", self._memory()
        yield "The translator alone", self._micro()
        if self.queues:
            yield "Length of the TUN's queue", (
                f"Ratios to a queue of 500, which was measured twice. Ping goes to the router's server; a bottleneck of "
                f"{sweep.RATE} is behind the router. The agent makes it 1000 (`TUNDevice.swift`): a burst as long finds room, which it "
                f"does not in the 500 that a TUN is born with, and no more than as many packets stand before a ping.\n\n{self.queues.ratio_table()}\n\nMedians:\n\n"
                f"{self.queues.absolute_table()}")

    def _memory(self):
        rows = [["", "resident after load, KiB", "wake-ups in rest, by thread", "CPU in rest, ms"]]
        for name, size in self.resident.items():
            rest = self.idleness.get(name)
            wakeups = ", ".join(f"{thread} {count}" for thread, count in rest.wakeups.items()) if rest else "not measured"
            rows.append([name, str(size), wakeups, f"{rest.cpu_milliseconds:.1f}" if rest else "not measured"])
        return (f"At rest for {self.options.idle:g} s: no packet, no Router Advertisement. A wake-up is a voluntary context "
                f"switch.\n\n{table(rows)}")

    @property
    def allocated(self):
        """How many allocations there were where there are to be none."""
        return sum(count for _, count in self.allocations)

    def _own_rest(self):
        """Of the two paths, where they were left alone."""
        return [self.idleness[name] for name in aims.OWN if name in self.idleness]

    def _micro(self):
        times = [value for _, value in self.times]
        rows = [["packet", "ns"], *([case, f"{value:g}"] for case, value in self.times)]
        return (f"{min(times):g} to {max(times):g} ns a packet, median {statistics.median(times):g}, without system calls, each "
                f"the best of 300 rounds; {self.allocated} allocations in 1000 rounds of each of {len(self.allocations)} cases, the batches "
                f"of datagrams among them.\n\n{table(rows)}")

    def document(self):
        """docs/performance.md."""
        text = "\n\n".join(f"## {title}\n\n{body}" for title, body in self.sections())
        sweeping = " SWEEP=1" if self.options.sweep else ""
        return f"""# Performance

Written by `make bench WRITE=1{sweeping}`, which anybody can repeat as root on a quiet machine. {self.machine()}

{self.noise()}

A laptop's namespace and a router's are joined by a veth. Between the laptop's programs and that link stands a namespace
with an ipvlan or macvlan and a veth, in which the packets are forwarded ({CONTROL}) or translated (all others). The router
is a native IPv6 server; no NAT64 and no hardware is measured. TCP is cubic, Linux's own choice. Sender, translator and receiver
share the cores, so a ratio tells what a translator costs beside all the rest, not how fast it would be alone. CPU is that of the
whole machine.

![Ratios to plain IPv6 forwarding](performance.svg)

{text}
"""

    def write(self):
        """docs/performance.md and its picture."""
        docs = REPOSITORY / "docs"
        (docs / "performance.md").write_text(self.document())
        (docs / "performance.svg").write_text(plot.svg(self.results, "clat-agent beside plain IPv6 forwarding"))


def main():
    """Exit status 0 if every contestant could be measured in all respects, none was left out, and nothing was allocated."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each TCP run; the others are shorter")
    parser.add_argument("--idle", type=float, default=60, help="seconds of rest; 0 for none")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and docs/performance.svg")
    parser.add_argument("--only", action="append", choices=[name for name in CONTESTANTS if name not in (CONTROL, AGAIN)],
                        help="measure this one beside the control, and others that are named so")
    parser.add_argument("--force", action="store_true", help="write them even where they are not to be quoted")
    parser.add_argument("--sweep", action="store_true", help="compare lengths of the TUN's queue too")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("at least one round, and one second")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bench = Bench(options)
    bench.run()
    for title, body in bench.sections():
        print(f"\n{title}\n\n{body}")
    print(f"\n{bench.machine()}\n{bench.noise()}")
    faults = [f"{name} does not take part" for name in bench.wanted if name not in bench.running]
    faults += [f"{name} could not be measured: {metric}" for name, metric in bench.results.missing()]
    if bench.allocated:
        faults.append(f"the translator allocates: {bench.allocated} times")
    if options.write:
        if bench.doubts() and not options.force:
            faults.append("docs/performance.md is not written, for these figures are not to be quoted (--force writes them)")
        else:
            bench.write()
            print("Written: docs/performance.md, docs/performance.svg")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PermissionError as error:
        sys.exit(str(error))
