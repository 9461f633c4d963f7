"""Drift: silent on noise, loud on a shift, whatever the size of the series."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.evaluation.conftest import make_pipeline
from ts_forecast.checks.drift import check_drift, stability_index
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import Pipeline

SIZES = {"large": 1000.0, "small": 1.0}


def frame(first: str, days: int, seed: int, **shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for name, size in SIZES.items():
        y = size * (10 + shift.get(name, 0.0) + rng.normal(size=days))
        promotion = (rng.random(days) < 0.1 + shift.get("promotion", 0.0)).astype(float)
        ds = pd.date_range(first, periods=days)
        parts.append(pd.DataFrame({"unique_id": name, "ds": ds, "y": y, "promotion": promotion}))
    return pd.concat(parts, ignore_index=True)


def pipeline(**changes: object) -> Pipeline:
    return make_pipeline(exogenous={"future": ["promotion"]}, **changes)


def window() -> Panel:
    return Panel.from_frame(frame("2022-07-01", 184, 1), pipeline())


def test_check_drift__same_distribution__passes() -> None:
    results = [check_drift(window(), frame("2023-01-01", 90, s), pipeline()) for s in range(2, 22)]

    assert sum(not result.passed for result in results) <= 1
    assert {"psi_y", "wasserstein_y", "psi_promotion"} <= set(results[0].figures)


def test_check_drift__small_series_shifted__warns() -> None:
    result = check_drift(window(), frame("2023-01-01", 90, 2, small=2.0), pipeline())

    assert (result.passed, result.is_blocking) == (False, False)
    assert result.reason.startswith("y has a stability index of")
    assert float(result.figures["wasserstein_y"]) > 0.5


def test_check_drift__promotions_every_other_day__names_the_column() -> None:
    new = frame("2023-01-01", 90, 2, promotion=0.5)

    result = check_drift(window(), new, pipeline())
    lenient = check_drift(window(), new, pipeline(checks={"max_psi": 5}))

    assert (result.passed, lenient.passed) == (False, True)
    assert result.reason.startswith("promotion has")


def test_check_drift__constant_that_changed__warns() -> None:
    old, new = frame("2022-07-01", 184, 1), frame("2023-01-01", 90, 2)

    panel = Panel.from_frame(old.assign(promotion=1.0), pipeline())

    assert check_drift(panel, new.assign(promotion=1.0), pipeline()).passed
    assert not check_drift(panel, new.assign(promotion=0.0), pipeline()).passed


def test_check_drift__only_new_series__says_so() -> None:
    new = frame("2023-01-01", 90, 2).replace({"unique_id": {"large": "x", "small": "z"}})

    result = check_drift(window(), new, pipeline())

    assert result.passed
    assert "nothing to compare" in result.reason


def test_stability_index__few_observations__noise_allows_for_them() -> None:
    rng = np.random.default_rng(3)

    few = stability_index(rng.normal(size=30), rng.normal(size=30))
    many = stability_index(rng.normal(size=30_000), rng.normal(size=30_000))

    assert few[1] > 1 > 0.01 > many[1]
    assert many[0] < many[1]
