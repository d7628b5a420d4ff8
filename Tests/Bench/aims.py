"""What the project holds itself to, beside what a run has reached."""

import dataclasses

import report
from contestants import CONTROL

KERNEL, USER = OWN = "kernel path", "user-space path"
TCP = [f"tcp {way} {streams}" for way in ("up", "down") for streams in (1, 4)]
UDP = [f"udp {way} {flows}" for way in ("up", "down") for flows in (1, 16)]
CPU = [f"cpu {way} {streams}" for way in ("up", "down") for streams in (1, 4)]
RESIDENT = 16384  # KiB


@dataclasses.dataclass(frozen=True)
class Aim:
    """A limit for the medians of some metrics, as ratios of a contestant to another; and what is hoped for."""

    what: str
    name: str
    to: str
    metrics: list
    limit: float
    hoped: float | None = None
    at_most: bool = False

    def row(self, results):
        """A row of the table; the reached is that of the worst metric. What is missed by a ratio that is no difference, as noise goes,
        is said to be."""
        limit = f"at {'most' if self.at_most else 'least'} {self.limit:g}" + (f" ({self.hoped:g})" if self.hoped else "")
        title = [f"{self.name} / {self.to}: {self.what}", limit]
        ratios = [results.ratio(key, self.name, None if self.to == results.control else self.to) for key in self.metrics]
        if None in ratios:
            return [*title, "not measured", ""]
        worst = (max if self.at_most else min)(ratios, key=lambda ratio: ratio.median)
        is_reached = worst.median <= self.limit if self.at_most else worst.median >= self.limit
        if is_reached:
            return [*title, report.number(worst.median), "reached"]
        return [*title, report.number(worst.median), "MISSED" if worst.is_resolved else "MISSED, within the noise"]


AIMS = [
    Aim("TCP", KERNEL, CONTROL, TCP, 0.9, 1), Aim("UDP packets", KERNEL, CONTROL, UDP, 0.9),
    Aim("CPU per GB", KERNEL, CONTROL, CPU, 1.15, at_most=True),
    Aim("TCP", USER, CONTROL, TCP, 0.6, 0.75), Aim("TCP", USER, "tayga", TCP, 10), Aim("UDP packets", USER, "tayga", UDP, 1.3, 2),
]


def table(results, allocated, rests):
    """Of all aims. `allocated` is how often the translator did; `rests` are those of both paths, as far as they were taken."""
    rows = [["the worst of the medians", "limit (hope)", "reached", ""], *(aim.row(results) for aim in AIMS)]

    def most(what, limit, value):
        reached = "" if value is None else "reached" if value <= limit else "MISSED"
        rows.append([what, f"at most {limit}", "not measured" if value is None else report.number(value, 0), reached])

    most("allocations", 0, allocated)
    most("wake-ups of the packet thread at rest", 0, max((rest.wakeups.get("clat-packets", 0) for rest in rests), default=None))
    most("CPU at rest, ms in a minute", 10,
         max((rest.cpu_milliseconds * 60 / rest.seconds for rest in rests), default=None))
    most("resident at rest, KiB", RESIDENT, max((rest.resident for rest in rests), default=None))
    return report.table(rows)
