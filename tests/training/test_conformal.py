"""Conformal intervals: they hold what they promise, do not cross, and scale with their series."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.training.conformal import (
    conformal_widths,
    finite_sample_quantile,
    interval_radii,
    interval_scores,
    step_pools,
    widened,
)

LEVELS = (80, 50, 95)
QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


def calibrated(
    past: np.ndarray, actual: np.ndarray, future: np.ndarray, *, around_point: bool
) -> np.ndarray:
    """Outputs of the future, with intervals of the past; all series of scale one."""
    widths = conformal_widths(
        past, actual, np.ones(len(past)), QUANTILES, LEVELS, around_point=around_point
    )
    return widened(future, widths.radii, np.ones(len(future)), QUANTILES, around_point=around_point)


def outputs_around(points: np.ndarray, spread: float) -> np.ndarray:
    scores = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])
    return points[:, :, None] + spread * scores


@pytest.mark.parametrize("around_point", [True, False])
@pytest.mark.parametrize("heavy", [True, False])
def test_widened__exchangeable_errors__covers_within_binomial_bounds(
    around_point: bool, heavy: bool
) -> None:
    """A thousand calibrations of 60 errors, each judged by one that it has not seen."""
    rng = np.random.default_rng(11)
    n, trials = 60, 1000
    hits = dict.fromkeys(LEVELS, 0)
    for _ in range(trials):
        errors = rng.standard_t(2, n + 1) if heavy else rng.exponential(size=n + 1)
        points = rng.normal(size=(n + 1, 1)) * 5
        # Own quantiles that are far too narrow.
        outputs = outputs_around(points, 0.0 if around_point else 0.3)
        actual = points + errors[:, None]
        result = calibrated(outputs[:n], actual[:n], outputs[n:], around_point=around_point)
        for level in LEVELS:
            low = QUANTILES.index(round(0.5 - level / 200, 6))
            hits[level] += bool(result[0, 0, low] <= actual[n, 0] <= result[0, 0, -1 - low])

    for level in LEVELS:
        rank = -(-(n + 1) * level // 100)
        share = rank / (n + 1)  # what split conformal prediction promises, exactly
        bound = 4 * np.sqrt(share * (1 - share) / trials)
        assert abs(hits[level] / trials - share) <= bound, level


@given(
    seed=st.integers(0, 2**32 - 1),
    pairs=st.integers(1, 40),
    horizon=st.integers(1, 8),
    around_point=st.booleans(),
    missing=st.floats(0, 1),
)
def test_widened__whatever_the_errors__quantiles_ascend_and_the_median_stays(
    seed: int, pairs: int, horizon: int, around_point: bool, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    past = np.sort(rng.normal(size=(pairs, horizon, len(QUANTILES))) * 10, axis=2)
    actual = rng.standard_cauchy((pairs, horizon))
    actual[rng.random(actual.shape) < missing] = np.nan
    future = np.sort(rng.normal(size=(5, horizon, len(QUANTILES))) * 10, axis=2)

    result = calibrated(past, actual, future, around_point=around_point)

    np.testing.assert_array_equal(result[:, :, 3], future[:, :, 3])
    steps = np.diff(result, axis=2)
    assert (steps[np.isfinite(steps)] >= 0).all()
    # A level has bounds for every step ahead or for none, and never where a narrower one has not; a
    # model's own are there anyhow.
    known = np.isfinite(result).all(axis=(0, 1))
    assert (known | np.isnan(result).all(axis=(0, 1))).all()
    assert known.tolist() == known.tolist()[::-1]
    assert (np.diff(known[:4].astype(int)) >= 0).all()
    assert around_point or known.all()
    again = calibrated(past, actual, future, around_point=around_point)
    np.testing.assert_array_equal(result, again)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 99))
def test_finite_sample_quantile__holds_enough_of_the_scores(
    scores: list[float], level: int
) -> None:
    found = finite_sample_quantile(np.array(scores), level)

    n = len(scores)
    if found is None:
        assert (n + 1) * level > 100 * n
    else:
        assert sum(score <= found for score in scores) * 100 >= (n + 1) * level
        assert sum(score < found for score in scores) * 100 < (n + 1) * level


def test_interval_radii__errors_that_grow_with_the_step__so_do_the_widths() -> None:
    rng = np.random.default_rng(2)
    scores = np.abs(rng.normal(size=(500, 4))) * np.array([1, 2, 4, 8])

    radii = interval_radii({80: scores}, step_pools(np.full(4, 500), [80]))

    np.testing.assert_allclose(np.array(radii[80]) / [1, 2, 4, 8], 1.28, rtol=0.15)


def test_interval_scores__series_of_other_sizes__have_the_same_scores() -> None:
    rng = np.random.default_rng(3)
    small = rng.normal(size=(10, 2, 1))
    actual = rng.normal(size=(10, 2))
    quantiles = (0.1, 0.5, 0.9)
    outputs = np.repeat(small, 3, axis=2)

    one = interval_scores(outputs, actual, np.ones(10), quantiles, 80, around_point=True)
    large = interval_scores(
        1000 * outputs, 1000 * actual, np.full(10, 1000.0), quantiles, 80, around_point=True
    )

    np.testing.assert_allclose(one, large)
