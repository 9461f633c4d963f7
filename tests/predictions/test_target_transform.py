"""Transforms of the target: undone they are the target, and they know nothing of what comes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.predictions.shop import QUARTER, fitted_model, history, pipeline
from ts_forecast.datasets.panel import Panel
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.target_transform import fit_transform


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["robust", "asinh"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
    is_flat=st.booleans(),
)
def test_transform__undone__is_the_target(
    kind: Any, scale: float, seed: int, is_flat: bool
) -> None:
    pipe, frame = pipeline({"model": "LEAR", "transform": kind}), history()
    noise = np.random.default_rng(seed).standard_t(2, size=len(frame)) * scale
    panel = Panel.from_frame(frame.assign(y=scale if is_flat else noise), pipe)
    transform = fit_transform(pipe.models[0], panel.until(int(panel.first[0]) + 200))
    assert transform is not None and "late" not in transform.scales

    there = transform.apply(panel, pipe).y[:, None, None]
    back = transform.undo(there, panel, pipe, panel.series_of_row)

    np.testing.assert_allclose(back[:, 0, 0], panel.y, rtol=1e-9, atol=1e-9 * scale)


def test_transform__what_comes_after_the_fit__does_not_move_it() -> None:
    pipe, frame = pipeline({"model": "LEAR", "transform": "asinh"}), history()
    fitted = fitted_model(pipe, frame)
    plan = pipe.slice_plan(QUARTER)
    at = pipe.grid.timestamps(np.array([plan.fit_until]))[0]

    other = fitted_model(pipe, frame.assign(y=frame["y"].where(frame["ds"] <= at, 1e6)))

    assert fitted.transform == other.transform


def test_training_fingerprint__another_transform__another_model() -> None:
    frame = history()
    marks = set()
    for transform in (None, "robust", "asinh"):
        pipe = pipeline({"model": "LEAR", "transform": transform})
        panel = Panel.from_frame(frame, pipe).until(pipe.slice_plan(QUARTER).fit_until)
        marks.add(training_fingerprint(pipe, pipe.models[0], QUARTER, panel))

    assert len(marks) == 3
