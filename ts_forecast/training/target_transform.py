"""Transforms of the target that a model is fitted in, undone on its forecasts.

Each series is centred by its median and divided by its spread (the median absolute deviation, as a
standard deviation), both of the observations that the model may be fitted on; ``asinh`` then draws
spikes in, of either sign. Both are monotone, so that a quantile of what is transformed is the
transform of the quantile. What is known of a quarter never moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.pipeline_model import Transform

FloatArray = npt.NDArray[np.float64]

# The median absolute deviation of a normal distribution, in standard deviations.
_NORMAL = 0.6744897501960817


@dataclass(frozen=True)
class TargetTransform:
    """A transform and what it was fitted to.

    Attributes:
        kind: ``asinh`` or ``robust``.
        scales: centre and spread of each series, by ``unique_id``.
    """

    kind: Transform
    scales: Mapping[str, tuple[float, float]]

    def apply(self, panel: Panel, pipeline: Pipeline) -> Panel:
        """The panel with its target transformed.

        A series that was not there when the transform was fitted is scaled by its first observations,
        as many as it needs to be forecast at all: they are known at every cutoff that is issued.
        """
        centre, spread = self._of_rows(panel, pipeline)
        rows = panel.series_of_row
        scaled = (panel.y - centre[rows]) / spread[rows]
        return replace(panel, y=np.arcsinh(scaled) if self.kind == "asinh" else scaled)

    def undo(
        self, outputs: FloatArray, panel: Panel, pipeline: Pipeline, series: npt.NDArray[np.int64]
    ) -> FloatArray:
        """Forecasts ``[pairs, horizon, outputs]`` of the transformed target, as the target.

        Args:
            panel: not transformed.
            series: positions in ``panel.unique_ids`` of the pairs.
        """
        centre, spread = (part[series][:, None, None] for part in self._of_rows(panel, pipeline))
        with np.errstate(over="ignore"):
            # What overflows is not finite, and is refused as such.
            scaled = np.sinh(outputs) if self.kind == "asinh" else outputs
        return scaled * spread + centre

    def _of_rows(self, panel: Panel, pipeline: Pipeline) -> tuple[FloatArray, FloatArray]:
        pairs = [
            self.scales[unique_id]
            if unique_id in self.scales
            else _scale(_observed(panel, place)[: pipeline.needed_history])
            for place, unique_id in enumerate(panel.unique_ids)
        ]
        scales = np.array(pairs)
        return scales[:, 0], scales[:, 1]


def fit_transform(spec: ModelSpec, panel: Panel) -> TargetTransform | None:
    """The transform that a model asks for, fitted to a panel; None if it asks for none."""
    if spec.transform is None:
        return None
    scales = {
        unique_id: _scale(_observed(panel, place))
        for place, unique_id in enumerate(panel.unique_ids)
    }
    return TargetTransform(spec.transform, scales)


def _observed(panel: Panel, place: int) -> FloatArray:
    y = panel.y[panel.indptr[place] : panel.indptr[place + 1]]
    return y[~np.isnan(y)]


def _scale(y: FloatArray) -> tuple[float, float]:
    """Median and spread; where half of the values are equal, the standard deviation, or else one."""
    centre = float(np.median(y))
    spread = float(np.median(np.abs(y - centre))) / _NORMAL
    return centre, spread or float(np.std(y)) or 1.0
