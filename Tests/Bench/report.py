"""Medians, spreads, what a run can tell apart, and the tables."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Ratios of the rounds: one thing to another of the same round. `noise` is by what factor two equal things differed
    at most."""

    rounds: tuple
    noise: float

    @property
    def median(self):
        return statistics.median(self.rounds)

    @property
    def is_resolved(self):
        """Whether it is more than noise: the median lies outside of what two equal things showed, and every round on
        the same side of 1. Fewer than three rounds show nothing."""
        if len(self.rounds) < 3 or 1 / self.noise <= self.median <= self.noise:
            return False
        return min(self.rounds) > 1 or max(self.rounds) < 1

    def __str__(self):
        spread = "" if len(self.rounds) == 1 else f" [{number(min(self.rounds))}-{number(max(self.rounds))}]"
        return f"{number(self.median)}{spread}{'' if self.is_resolved else ' ~'}"


def number(value, digits=None):
    """For people: three significant figures, or so many decimals."""
    if digits is not None:
        return f"{value:.{digits}f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


class Results:
    """What was measured: by metric, contestant and round. The control was measured twice in each round."""

    def __init__(self, metrics, names, control, again):
        self.metrics, self.names, self.control, self.again = metrics, names, control, again
        self._values = {}

    def add(self, round_number, name, values):
        """Notes a contestant's values of a round, by metric."""
        for metric, value in values.items():
            self._values.setdefault((metric, name), {})[round_number] = value

    def absolute(self, metric, name):
        """The values of all rounds; of the control, of both its runs."""
        rounds = self._values.get((metric, name), {}).values()
        return [*rounds, *(self._values.get((metric, self.again), {}).values() if name == self.control else ())]

    def repeatability(self, metric):
        """By what factor the control differed from itself, at most; None where that was not measured."""
        first, second = (self._values.get((metric, name), {}) for name in (self.control, self.again))
        factors = [max(first[key] / second[key], second[key] / first[key]) for key in first.keys() & second.keys()]
        return max(factors) if factors else None

    def noise(self, metric):
        """The factor below which nothing is told apart: as `repeatability`, but where that was luckier than in the
        middle of all metrics, as there."""
        own = self.repeatability(metric)
        return own and max(own, statistics.median(filter(None, map(self.repeatability, self.metrics))))

    def ratio(self, metric, name, to=None):
        """To the mean of the control's two runs, or to another contestant, round by round; None without a common
        round."""
        noise = self.noise(metric)
        upper, lower = self._values.get((metric, name), {}), self._values.get((metric, to or self.control), {})
        if to is None:
            again = self._values.get((metric, self.again), {})
            lower = {key: (lower[key] + again[key]) / 2 for key in lower.keys() & again.keys()}
        rounds = tuple(upper[key] / lower[key] for key in sorted(upper.keys() & lower.keys()) if lower[key])
        return Ratio(rounds, noise) if rounds and noise else None

    def missing(self):
        """Contestants and the names of metrics in which no round has measured them."""
        return [(name, metric.name) for name in self.names for key, metric in self.metrics.items()
                if (key, name) not in self._values]

    def contestants(self):
        """All but the control."""
        return [name for name in self.names if name not in (self.control, self.again)]

    def _keys(self):
        return [key for key in self.metrics if self.noise(key)]

    def ratio_table(self):
        """Ratios to the control."""
        rows = [["", "better", f"{self.control}", "A/A within", *self.contestants()]]
        for key in self._keys():
            metric = self.metrics[key]
            values = self.absolute(key, self.control)
            control = f"{number(statistics.median(values), metric.digits)} {metric.unit} " \
                f"[{number(min(values), metric.digits)}-{number(max(values), metric.digits)}]"
            rows.append([
                metric.name, "more" if metric.more_is_better else "less", control, f"x {self.repeatability(key):.2f}",
                *(str(self.ratio(key, name) or "failed") for name in self.contestants())])
        return table(rows)

    def absolute_table(self):
        """Medians of what was measured."""
        rows = [["", "unit", self.control, *self.contestants()]]
        for key in self._keys():
            metric = self.metrics[key]
            cells = [self.absolute(key, name) for name in (self.control, *self.contestants())]
            rows.append([metric.name, metric.unit, *(
                number(statistics.median(values), metric.digits) if values else "failed" for values in cells)])
        return table(rows)

    def pair_table(self, pairs):
        """Contestants against each other."""
        pairs = [pair for pair in pairs if set(pair) <= set(self.names)]
        rows = [["", *(f"{one} / {other}" for one, other in pairs)]]
        for key in self._keys():
            rows.append([self.metrics[key].name, *(str(self.ratio(key, *pair) or "failed") for pair in pairs)])
        return table(rows) if pairs else ""


def table(rows):
    """Rows of cells, the first being the heading, as Markdown that can be read as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
