"""That the benchmark calls no noise a difference."""

import xml.etree.ElementTree

import aims
import plot
import pytest
from report import Results

from measurements import Metric
from rest import Idleness


def results(control, again, other, noisy_row=1.0):
    """Rounds of one row, beside two rows in which the control differed from itself by `noisy_row`."""
    metrics = {key: Metric(key, "Gbit/s", True) for key in ("row", "second", "third")}
    made = Results(metrics, ["control", "again", "other"], "control", "again")
    for number, values in enumerate(zip(control, again, other)):
        for name, value in zip(made.names, values):
            made.add(number, name, {"row": value, "second": noisy_row if name == "again" else 1.0,
                                    "third": noisy_row if name == "again" else 1.0})
    return made


@pytest.mark.parametrize("control, again, other, median, is_resolved", [
    ([10, 10, 10], [10, 10, 10], [5, 5, 5], 0.5, True),
    # Each round has a level of its own; the ratios are those of the round.
    ([10, 20, 40], [10, 20, 40], [5, 10, 20], 0.5, True),
    # Twice apart in one round: a half is within that.
    ([10, 10, 10], [10, 20, 10], [5, 5, 5], 0.5, False),
    ([10, 10, 10], [10, 5, 10], [19, 19, 19], 1.9, False),
    ([10, 10, 10], [11, 10, 10], [20, 20, 20], 2, True),
    # The rounds do not agree.
    ([10, 10, 10], [10, 10, 10], [5, 5, 12], 0.5, False),
    # Too few.
    ([10, 10], [10, 10], [1, 1], 0.1, False),
])
def test_what_is_within_the_noise_is_not_resolved(control, again, other, median, is_resolved):
    ratio = results(control, again, other).ratio("row", "other")
    assert ratio.median == pytest.approx(median)
    assert ratio.is_resolved == is_resolved
    assert str(ratio).endswith("~") != is_resolved


def test_a_lucky_row_is_judged_by_the_others():
    assert not results([10] * 3, [10] * 3, [5] * 3, noisy_row=2.5).ratio("row", "other").is_resolved


def test_ratios_are_to_the_mean_of_the_controls_runs_and_between_contestants():
    made = results([10], [30], [40])
    assert made.ratio("row", "other").rounds == (2,)
    assert made.ratio("row", "other", "again").rounds == (pytest.approx(4 / 3),)
    assert made.repeatability("row") == 3


def test_a_round_that_failed_is_left_out():
    made = results([10, 10], [10, 10], [5, 5])
    made.add(2, "other", {"row": 7})
    assert made.ratio("row", "other").rounds == (0.5, 0.5)
    assert made.ratio("row", "nobody") is None
    assert "failed" not in made.ratio_table()


def test_who_could_not_be_measured_is_named():
    made = results([10], [10], [5])
    assert made.missing() == []
    made.metrics["fourth"] = Metric("the fourth", "Gbit/s", True)
    made.add(0, "control", {"fourth": 1})
    assert made.missing() == [("again", "the fourth"), ("other", "the fourth")]


@pytest.mark.parametrize("limit, at_most, verdict", [
    (0.5, False, "reached"), (0.51, False, "MISSED"), (0.5, True, "MISSED, within the noise"), (1, True, "reached"),
])
def test_an_aim_is_judged_by_its_worst_row(limit, at_most, verdict):
    made = results([10] * 3, [10] * 3, [5] * 3)
    aim = aims.Aim("speed", "other", "control", ["row", "second"], limit, at_most=at_most)
    assert aim.row(made)[3] == verdict
    assert aims.Aim("cost", "other", "control", ["row"], 0.4, at_most=True).row(made)[3] == "MISSED"
    assert aims.Aim("speed", "nobody", "control", ["row"], limit).row(made)[2:] == ["not measured", ""]


@pytest.mark.parametrize("allocated, wakeups, resident, missed", [(0, 0, 16384, 0), (1, 0, 9000, 1), (0, 3, 16385, 2)])
def test_rest_and_allocations_have_limits(allocated, wakeups, resident, missed):
    rest = Idleness(60, {"clat-packets": wakeups, "clat-agent": 2}, 1.5, resident)
    text = aims.table(results([10], [10], [5]), allocated, [rest])
    assert text.count("MISSED") == missed
    assert text.count("not measured") == len(aims.AIMS)


def test_the_picture_is_xml_with_a_dot_for_each_median():
    made = results([10] * 3, [11] * 3, [5] * 3)
    root = xml.etree.ElementTree.fromstring(plot.svg(made, "a < b"))
    dots = [element for element in root if element.tag.endswith("circle")]
    assert len(dots) == 1 + 3, "the legend's and one for each row"
    assert dots[1].get("fill") != "white", "a half is resolved"
