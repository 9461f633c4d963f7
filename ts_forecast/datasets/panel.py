"""A pipeline's series as contiguous arrays on the frequency's grid.

What training, rolling inference and evaluation read. Causal filling of missing values, the window
of every (series, cutoff) pair and which pairs are issued live here, because each is where the future
could leak in. Reading and storing files is ``readers`` and ``store``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.cutoffs import SlicePlan
from ts_forecast.datasets.calendar import calendar_values
from ts_forecast.datasets.columns import series_codes
from ts_forecast.datasets.issued import Issued
from ts_forecast.errors import DatasetError
from ts_forecast.frequency import Grid, IntArray
from ts_forecast.pipeline import Missing, Pipeline

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Panel:
    """Series of one pipeline, each contiguous on the grid.

    Attributes:
        unique_ids: ascending.
        first: grid index of each series' first row, ``[n_series]``.
        indptr: rows of series i are ``indptr[i]:indptr[i + 1]``, ``[n_series + 1]``.
        y: the target, NaN where it was not observed, ``[n_rows]``.
        exogenous: ``[n_rows, len(columns)]``, NaN where unknown.
        columns: names of ``exogenous``: future, historic, then calendar columns of the pipeline.
        future: how many of the leading ``columns`` are read from the source and known ahead.
        static: one row a series, in the order of ``unique_ids``; None if the pipeline has none.
        datasets: the versions that it was read from, as ``(dataset_id, file_hash)``.

    Invariants:
        - every series' first row is an observation of y with all of its exogenous values known
        - rows after a series' last observation hold known-ahead exogenous values only
    """

    grid: Grid
    unique_ids: tuple[str, ...]
    first: IntArray
    indptr: IntArray
    y: FloatArray
    exogenous: FloatArray
    columns: tuple[str, ...]
    future: int = 0
    static: pd.DataFrame | None = None
    datasets: tuple[tuple[int, str], ...] = ()

    @property
    def lineage(self) -> list[dict[str, int | str]]:
        """The versions that it was read from, as JSON that ``v_forecast_lineage`` reads."""
        return [{"dataset_id": number, "file_hash": mark} for number, mark in self.datasets]

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, pipeline: Pipeline, static: pd.DataFrame | None = None
    ) -> Panel:
        """From the canonical long form; completes the grid and adds calendar columns.

        Args:
            frame: ``unique_id, ds, y`` and the pipeline's temporal exogenous columns, any order, no
                duplicate (unique_id, ds), on the grid.
            static: index ``unique_id``; must hold every series of the frame.

        Raises:
            DatasetError: no series has an observation, or a series has no static row.
        """
        grid = pipeline.grid
        names = pipeline.exogenous.temporal
        codes, ids = series_codes(frame["unique_id"])
        index = grid.index(pd.DatetimeIndex(frame["ds"]))
        # Of one key, stably: files are stored in this order, and runs that are sorted are merged fast.
        since = index - index.min(initial=np.iinfo(np.int64).max)
        order = np.argsort(codes * (since.max(initial=0) + 1) + since, kind="stable")
        codes, index = codes[order], index[order]
        values = frame[["y", *names]].to_numpy(dtype=np.float64)[order]

        # A series starts where y and every exogenous value are known: filling backwards would
        # invent a past.
        is_complete = ~np.isnan(values).any(axis=1)
        begin = np.full(len(ids), np.iinfo(np.int64).max)
        np.minimum.at(begin, codes[is_complete], index[is_complete])
        keep = index >= begin[codes]
        if not keep.all():
            codes, index, values = codes[keep], index[keep], values[keep]
        present, codes = np.unique(codes, return_inverse=True)
        if not len(present):
            raise DatasetError(
                f"Pipeline {pipeline.name}: no series has a complete observation in this window.",
                remedy="Check the target and exogenous columns of the source for missing values.",
            )
        unique_ids = tuple(str(name) for name in np.asarray(ids, dtype=object)[present])
        first = begin[present]
        last = np.full(len(present), np.iinfo(np.int64).min)
        np.maximum.at(last, codes, index)
        indptr = np.concatenate([[0], np.cumsum(last - first + 1)]).astype(np.int64)
        full = np.full((int(indptr[-1]), values.shape[1]), np.nan)
        full[indptr[codes] + index - first[codes]] = values
        panel = cls(
            grid=grid,
            unique_ids=unique_ids,
            first=first,
            indptr=indptr,
            y=np.ascontiguousarray(full[:, 0]),
            exogenous=full[:, 1:],
            columns=names,
            future=len(pipeline.exogenous.future),
            static=_static_of(static, unique_ids, pipeline),
        )
        return replace(
            panel,
            exogenous=np.ascontiguousarray(
                np.hstack([panel.exogenous, _calendar_of(panel, pipeline)])
            ),
            columns=(*names, *pipeline.exogenous.calendar_columns),
        )

    @property
    def n_series(self) -> int:
        """How many series."""
        return len(self.unique_ids)

    @property
    def n_rows(self) -> int:
        """Rows of all series together, gaps included."""
        return int(self.indptr[-1])

    @cached_property
    def series_of_row(self) -> IntArray:
        """Position in ``unique_ids`` of every row."""
        return np.repeat(np.arange(self.n_series), np.diff(self.indptr))

    @cached_property
    def index(self) -> IntArray:
        """Grid index of every row."""
        return np.arange(self.n_rows) - np.repeat(
            self.indptr[:-1] - self.first, np.diff(self.indptr)
        )

    @property
    def ds(self) -> pd.DatetimeIndex:
        """Timestamp of every row, naive UTC."""
        return self.grid.timestamps(self.index)

    @cached_property
    def observed(self) -> BoolArray:
        """Rows whose y was observed."""
        return ~np.isnan(self.y)

    @cached_property
    def _last_observed_row(self) -> IntArray:
        """For each row, the row of its series' last observation at or before it."""
        # The first row of every series is an observation, so the running maximum never crosses.
        return np.maximum.accumulate(np.where(self.observed, np.arange(self.n_rows), 0))

    @cached_property
    def last_observed(self) -> IntArray:
        """Grid index of each series' last observation, ``[n_series]``."""
        last_row = self._last_observed_row[self.indptr[1:] - 1]
        return self.first + last_row - self.indptr[:-1]

    @cached_property
    def known_ahead(self) -> IntArray:
        """Grid index up to which each series' named future exogenous columns are known.

        Without such columns, the largest integer: a calendar never ends.
        """
        if not self.future:
            return np.full(self.n_series, np.iinfo(np.int64).max)
        is_known = ~np.isnan(self.exogenous[:, : self.future]).any(axis=1)
        last = np.maximum.accumulate(np.where(is_known, np.arange(self.n_rows), 0))
        return self.first + last[self.indptr[1:] - 1] - self.indptr[:-1]

    def until(self, index: int) -> Panel:
        """What was known at a grid index: no row after it, no series that starts after it.

        Raises:
            DatasetError: nothing is left.
        """
        lengths = np.clip(index - self.first + 1, 0, np.diff(self.indptr))
        keep = np.flatnonzero(lengths)
        if not len(keep):
            at = self.grid.timestamps(np.array([index]))[0]
            raise DatasetError(
                f"No series has an observation at or before {at}.",
                remedy="Choose a later quarter, or a pipeline start that the source reaches.",
            )
        rows = np.arange(self.n_rows) - np.repeat(self.indptr[:-1], np.diff(self.indptr))
        mask = rows < np.repeat(lengths, np.diff(self.indptr))
        return replace(
            self,
            unique_ids=tuple(self.unique_ids[i] for i in keep),
            first=self.first[keep],
            indptr=np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
            y=self.y[mask],
            exogenous=self.exogenous[mask],
            static=None if self.static is None else self.static.iloc[keep],
        )

    def filled(self, policy: Missing) -> Panel:
        """For fitting: every series up to its last observation, without NaN.

        Filling uses observations of this panel only, so call ``until`` first. Future exogenous
        values are carried forward, which is causal under every policy; calendars have no gaps.

        Raises:
            DatasetError: the policy is ``error`` and a value is missing.
        """
        last_rows = self.indptr[:-1] + self.last_observed - self.first
        mask = np.arange(self.n_rows) <= np.repeat(last_rows, np.diff(self.indptr))
        trimmed = replace(
            self,
            indptr=np.concatenate([[0], np.cumsum(last_rows - self.indptr[:-1] + 1)]).astype(
                np.int64
            ),
            y=self.y[mask],
            exogenous=self.exogenous[mask],
        )
        return replace(
            trimmed,
            y=trimmed._filled_y(policy),
            exogenous=trimmed.filled_exogenous(),
        )

    def _filled_y(self, policy: Missing) -> FloatArray:
        """Y with gaps between observations filled; rows after the last observation stay NaN."""
        if policy == "error":
            last_rows = self.indptr[:-1] + self.last_observed - self.first
            inside = np.arange(self.n_rows) <= np.repeat(last_rows, np.diff(self.indptr))
            gaps = np.flatnonzero(inside & ~self.observed)
            if len(gaps):
                row = gaps[0]
                raise DatasetError(
                    f"Series {self.unique_ids[self.series_of_row[row]]} has no value at "
                    f"{self.ds[row]} ({len(gaps)} values are missing in all).",
                    remedy="Set `missing: interpolate` or `missing: ffill` in the pipeline file.",
                )
            return self.y
        carried = self.y[self._last_observed_row]
        rows = np.arange(self.n_rows)
        next_rows = self._next_observed_row
        is_inside = next_rows < self.n_rows
        filled = np.where(is_inside, carried, np.nan)
        if policy == "interpolate":
            before = self._last_observed_row
            after = np.where(is_inside, next_rows, before)
            span = np.maximum(after - before, 1)
            share = (rows - before) / span
            filled = np.where(is_inside, carried + (self.y[after] - carried) * share, np.nan)
        return np.where(self.observed, self.y, filled)

    @cached_property
    def _next_observed_row(self) -> IntArray:
        """For each row, the row of its series' next observation; n_rows after the last one."""
        candidates = np.where(self.observed, np.arange(self.n_rows), self.n_rows)
        after = np.minimum.accumulate(candidates[::-1])[::-1]
        return np.where(
            after < np.repeat(self.indptr[1:], np.diff(self.indptr)), after, self.n_rows
        )

    def filled_exogenous(self) -> FloatArray:
        """Exogenous values with gaps carried forward, ``[n_rows, len(columns)]``.

        Carried values never cross series; rows past what is known hold the last known value and
        must not be used as known-ahead ones (``issued`` sees to it).
        """
        if not self.exogenous.size or not np.isnan(self.exogenous).any():
            return self.exogenous
        rows = np.where(~np.isnan(self.exogenous), np.arange(self.n_rows)[:, None], 0)
        last = np.maximum.accumulate(rows, axis=0)
        return np.take_along_axis(self.exogenous, last, axis=0)

    def issued(self, plan: SlicePlan, pipeline: Pipeline) -> Issued:
        """The (series, cutoff) pairs of a slice.

        A series is forecast from a cutoff if it has ``pipeline.needed_history`` observations up to
        it, was still observed at or after it, and its future exogenous values are known over the
        whole horizon.
        """
        n = self.n_series
        cutoffs = np.tile(plan.cutoffs, n)
        series = np.repeat(np.arange(n), len(plan.cutoffs))
        inside = (
            (cutoffs >= self.first[series])
            & (cutoffs <= self.last_observed[series])
            & (cutoffs <= self.known_ahead[series] - plan.horizon)
        )
        series, cutoffs = series[inside], cutoffs[inside]
        seen = np.concatenate([[0], np.cumsum(self.observed)])
        rows = self.indptr[series] + cutoffs - self.first[series]
        enough = seen[rows + 1] - seen[self.indptr[series]] >= pipeline.needed_history
        return Issued(series[enough], cutoffs[enough])

    def rows_at(self, series: IntArray, index: IntArray) -> IntArray:
        """Row of each (series, grid index); -1 where the panel has none."""
        row = self.indptr[series] + index - self.first[series]
        inside = (index >= self.first[series]) & (row < self.indptr[series + 1])
        return np.where(inside, row, -1)

    def windows(
        self, issued: Issued, length: int, policy: Missing
    ) -> tuple[FloatArray, FloatArray]:
        """The last ``length`` values of y up to each cutoff.

        Where the cutoff lies in a gap, values after the last observation are carried forward:
        interpolating there would use the future.

        Returns:
            ``y [p, length]`` and ``mask [p, length]``: 0 in both before a series starts.
        """
        ends = self.rows_at(issued.series, issued.cutoff)
        rows = ends[:, None] + np.arange(1 - length, 1)[None, :]
        mask = rows >= self.indptr[issued.series][:, None]
        known = self._last_observed_row[ends][:, None]
        y = self._filled_y(policy)[np.clip(np.minimum(rows, known), 0, None)]
        return np.where(mask, y, 0.0), mask.astype(np.float64)

    def histories(self, issued: Issued, policy: Missing) -> Iterator[tuple[int, FloatArray]]:
        """For each pair, its series' position and all of its y up to the cutoff, filled causally."""
        filled = self._filled_y(policy)
        ends = self.rows_at(issued.series, issued.cutoff)
        for series, end in zip(issued.series.tolist(), ends.tolist(), strict=True):
            known = int(self._last_observed_row[end])
            history = filled[self.indptr[series] : end + 1].copy()
            if known < end:
                history[known - end :] = self.y[known]
            yield series, history

    def to_frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Long form ``unique_id, ds, y`` and exogenous columns (all of them by default)."""
        names = self.columns if columns is None else tuple(columns)
        frame = pd.DataFrame(
            {
                "unique_id": pd.Categorical.from_codes(
                    self.series_of_row, pd.Index(self.unique_ids, dtype=object)
                ),
                "ds": self.ds,
                "y": self.y,
            }
        )
        for name in names:
            frame[name] = self.exogenous[:, self.columns.index(name)]
        return frame

    def content_hash(self) -> str:
        """SHA-256 of everything that a model or forecast could read from this panel."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        digest = hashlib.sha256()
        header = [self.grid.freq, list(self.unique_ids), list(self.columns), self.future]
        digest.update(repr(header).encode())
        for array in (self.first, self.indptr, self.y, self.exogenous):
            # NaN has many bit patterns; one of them is ours.
            clean = np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array
            digest.update(np.ascontiguousarray(clean).tobytes())
        if self.static is not None:
            digest.update(repr(list(self.static.columns)).encode())
            digest.update(np.ascontiguousarray(self.static.to_numpy(np.float64)).tobytes())
        return digest.hexdigest()


def _calendar_of(panel: Panel, pipeline: Pipeline) -> FloatArray:
    """Calendar columns of every row; each time is looked at once, however many series have it."""
    features = pipeline.exogenous.calendar
    first, last = int(panel.index.min()), int(panel.index.max())
    if last - first >= panel.n_rows:
        return calendar_values(panel.ds, features)
    times = panel.grid.timestamps(np.arange(first, last + 1))
    return calendar_values(times, features)[panel.index - first]


def _static_of(
    static: pd.DataFrame | None, unique_ids: tuple[str, ...], pipeline: Pipeline
) -> pd.DataFrame | None:
    names = list(pipeline.exogenous.static)
    if static is None or not names:
        return None
    absent = sorted(set(unique_ids) - set(static.index))
    if absent:
        raise DatasetError(
            f"Pipeline {pipeline.name}: {len(absent)} series have no static row, first {absent[0]!r}.",
            remedy="Add one row for each series to the static file.",
        )
    return static.loc[list(unique_ids), names].astype(np.float64)
