import dataclasses

import numpy as np
import pytest
from scipy import stats

from holdfast.report import table
from holdfast.report.correlation import PAIRS, correlation, correlation_sheet, localization_of

SCORES = ("loc", "energy_game", "positive_percentage", "concentration")
CHECKS = ("localization/gradient", "localization/integrated_gradients")


def joined(run, distance, check, score):
    """Join two measures image by image, with plain dictionaries."""
    rows = run.records.to_pylist()
    first = {
        r["index"]: r["value"]
        for r in rows
        if (r["check"], r["measure"]) == ("alignment/boundary", distance)
    }
    second = {r["index"]: r["value"] for r in rows if (r["check"], r["measure"]) == (check, score)}
    shared = sorted(first.keys() & second.keys())
    return [first[i] for i in shared], [second[i] for i in shared]


def test_every_number_by_scipy(three_whole_runs):
    sheet = correlation_sheet(three_whole_runs, table(three_whole_runs))
    runs = {run.name: run for run in three_whole_runs}
    measures = {"−‖SM − BSM‖": "sm_bsm", "−‖IG − AGI‖": "ig_agi", "−‖IG − BIG‖": "ig_big"}
    assert len(sheet.lines) == 9
    for line in sheet.lines:
        measure = measures[line.labels[0]]
        check = CHECKS[0] if measure == "sm_bsm" else CHECKS[1]
        for score, cell in zip(SCORES, line.cells, strict=False):
            distances, scores = joined(runs[line.labels[1]], measure, check, score)
            # The sign of the paper: alignment is minus the distance.
            expected = -stats.linregress(distances, scores).rvalue
            assert cell["r"] == pytest.approx(expected)
            z, half = np.arctanh(expected), stats.norm.ppf(0.975) / np.sqrt(len(scores) - 3)
            ends = np.tanh([z - half, z + half])
            assert (cell["low"], cell["high"]) == pytest.approx(tuple(ends))
            assert cell["images"] == len(scores)
    # Where the records tie the score to closeness, r is positive.
    assert all(line.cells[0]["r"] > 0 for line in sheet.lines)


@pytest.mark.parametrize(
    ("distances", "scores"),
    [([], []), ([1.0, 2.0], [0.1, 0.2]), ([1.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]),
     ([1.0, 2.0, 3.0], [0.5] * 3)],
)  # fmt: skip
def test_where_it_is_undefined(distances, scores):
    assert correlation(np.array(distances), np.array(scores)) is None


def test_three_images_have_no_interval():
    r, low, high = correlation(np.array([1.0, 2.0, 3.0]), np.array([0.9, 0.5, 0.1]))
    assert (r, low, high) == (pytest.approx(1.0), None, None)


def test_a_nearly_constant_score_is_no_warning(recwarn):
    found = correlation(np.arange(9.0), 0.5 + 1e-17 * np.arange(9) + 1e-16 * (np.arange(9) > 3))
    assert found is None or np.isfinite(found[0])
    assert not recwarn.list


def test_the_attribution_is_known_by_its_class(make_whole_run):
    run = make_whole_run()
    saliency, agi, big = PAIRS
    assert localization_of(run, saliency, CHECKS) == CHECKS[0]
    assert localization_of(run, agi, CHECKS) == localization_of(run, big, CHECKS) == CHECKS[1]
    swapped = {
        "checks": {
            CHECKS[0]: run.settings["checks"][CHECKS[1]],
            CHECKS[1]: run.settings["checks"][CHECKS[0]],
        }
    }
    other = dataclasses.replace(run, settings=swapped)
    assert localization_of(other, saliency, CHECKS) == CHECKS[1]
    bare = dataclasses.replace(run, settings={})
    assert localization_of(bare, saliency, CHECKS) == CHECKS[0]
    assert localization_of(bare, saliency, ("localization/none",)) is None


def test_nothing_to_correlate(make_run):
    run = make_run()
    assert correlation_sheet([run], table([run])) is None
