"""The (series, cutoff) pairs that something is forecast from, or learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ts_forecast.frequency import IntArray


@dataclass(frozen=True)
class Issued:
    """Pairs; those of a slice are ordered by series, then cutoff.

    Attributes:
        series: positions in ``Panel.unique_ids``.
        cutoff: grid indices.
    """

    series: IntArray
    cutoff: IntArray

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, which: slice | IntArray | npt.NDArray[np.bool_]) -> Issued:
        """Some of the pairs: a slice, positions, or which of them."""
        return Issued(self.series[which], self.cutoff[which])
