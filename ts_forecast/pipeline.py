"""The pipeline file: one forecasting problem, declared in ``pipelines/<name>.yaml``.

Its schema and what can be judged from the file alone. The part about sources is ``pipeline_source``,
about one model ``pipeline_model``, about searching ``search_space``. Reading the file and turning
problems into one message is ``pipeline_file``; what needs the source's columns is judged by
``datasets``, what needs stored search spaces by ``training``.
"""

from __future__ import annotations

from datetime import date
from functools import cached_property
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, ValidationInfo, field_validator, model_validator

from ts_forecast.champion_rule import ChampionRule, Metric
from ts_forecast.check_limits import CheckLimits
from ts_forecast.cutoffs import SlicePlan, plan_slice
from ts_forecast.errors import TsForecastError
from ts_forecast.frequency import Grid
from ts_forecast.pipeline_columns import Exogenous as Exogenous
from ts_forecast.pipeline_model import Intervals
from ts_forecast.pipeline_model import ModelSpec as ModelSpec
from ts_forecast.pipeline_resources import Resources
from ts_forecast.pipeline_source import Source, Strict
from ts_forecast.quarters import YEARS, Quarter, quarter_range
from ts_forecast.search_space import OF_QUANTILES

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_RESERVED_COLUMNS = {"unique_id", "ds", "y"}
Missing = Literal["error", "interpolate", "ffill"]
Retrain = Literal["never", "on_restated_data"]


class Pipeline(Strict):
    """A forecasting problem. One ``experiments`` row.

    Invariants:
        - model names are unique; the first seasonal naive (or ``baseline``) is the skill baseline
        - every model can take the exogenous columns that it is given
    """

    name: Annotated[str, Field(pattern=_NAME)]
    description: str = ""
    source: Source
    frequency: str
    horizon: int = Field(ge=1, le=100_000)
    step: int = Field(
        0, ge=0, validate_default=True, description="Steps between cutoffs; default: the horizon."
    )
    start: date
    end: date | None = Field(None, description="Last day of the history, where it has one.")
    window_quarters: int = Field(8, ge=1, le=400, description="Quarters that a model is fitted on.")
    missing: Missing = Field("error", description="What to do about gaps and missing values.")
    min_history: int = Field(
        0, ge=0, description="Observations that a series needs to be forecast; default: a season."
    )
    season_length: int = Field(0, ge=0, description="Steps of a season; default: the frequency's.")
    exogenous: Exogenous = Exogenous()
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    baseline: str | None = Field(
        None, description="Name of the model that skill is measured against."
    )
    levels: tuple[Annotated[int, Field(ge=1, le=99)], ...] = Field(
        (), description="Prediction intervals in percent; the first fills lower_bound, upper_bound."
    )
    intervals: Intervals = Field(
        "auto",
        description="Of models: conformal calibrates on forecasts of a window held out; model takes "
        "what the model gives, if it gives any; auto calibrates those that give none.",
    )
    metrics: tuple[Metric, ...] = Field(("mae", "rmse", "smape", "mase"), min_length=1)
    champion: ChampionRule = Field(
        default_factory=ChampionRule, description="How the champion of a quarter is chosen."
    )
    seed: int = Field(1, ge=0, le=2**31 - 1)
    precision: Literal["full", "auto"] = Field(
        "full",
        description="Of neural fits: auto takes mixed precision on GPUs that have it (bf16, else "
        "fp16); on CPU it is full.",
    )
    resources: Resources = Resources()
    quarters_per_run: int = Field(4, ge=1, le=100, description="Quarters of one run of a backfill.")
    live: bool = Field(
        False,
        description="Whether its sensor runs unless stopped; else it can be started in the UI.",
    )
    retrain: Retrain = Field(
        "never",
        description="on_restated_data: its sensor has models of changed data trained again.",
    )
    settle_seconds: int = Field(
        10,
        ge=0,
        le=86_400,
        description="Age from which its sensor takes a file that has not changed for written.",
    )
    checks: CheckLimits = CheckLimits()

    @field_validator("frequency")
    @classmethod
    def _fits_quarters(cls, value: str) -> str:
        try:
            Grid(value)
        except TsForecastError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("levels", "metrics")
    @classmethod
    def _has_no_twins(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"it names one twice: {list(value)}")
        return value

    @field_validator("step")
    @classmethod
    def _defaults_to_the_horizon(cls, value: int, info: ValidationInfo) -> int:
        return value or int(info.data.get("horizon", 0))

    @field_validator("start", "end")
    @classmethod
    def _is_a_year_of_timestamps(cls, value: date | None) -> date | None:
        if value is not None and value.year not in YEARS:
            raise ValueError(f"it must lie in the years {YEARS[0]} to {YEARS[-1]}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Pipeline:
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end {self.end} lies before start {self.start}")
        names = [model.name for model in self.models]
        if twins := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"models: the name {', '.join(twins)} stands twice; set `name`")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: no model is called {self.baseline!r}; allowed: {names}")
        columns = [*self.exogenous.all_future, *self.exogenous.historic, *self.exogenous.static]
        source = self.source
        # The target among its own inputs, known ahead, would be the worst of leaks.
        own = {source.time_column, source.id_column, source.target_column}
        if taken := sorted((set(columns) - _RESERVED_COLUMNS) & own):
            raise ValueError(
                f"exogenous: {', '.join(taken)} is the source's id, time or target column already"
            )
        wrong = sorted({c for c in columns if columns.count(c) > 1 or c in _RESERVED_COLUMNS})
        if wrong:
            raise ValueError(f"exogenous: {', '.join(wrong)} stands twice or is a reserved name")
        patterns = () if source.wide is None else source.wide.exogenous
        if unknown := sorted(set(patterns) - set(self.exogenous.temporal)):
            raise ValueError(
                f"source.wide.exogenous: {', '.join(unknown)} is no column of exogenous.future or "
                f"exogenous.historic; allowed: {list(self.exogenous.temporal)}"
            )
        if self.exogenous.static and source.static is None:
            raise ValueError("exogenous.static needs source.static, the file with one row a series")
        plain = [model.name for model in self.models if model.ensemble is None]
        for model in self.models:
            if strange := [name for name in model.of if name not in plain]:
                raise ValueError(
                    f"models.{model.name}.of: {', '.join(strange)} is no model of this pipeline that "
                    f"is fitted; allowed: {', '.join(plain)}"
                )
            self._check_exogenous(model)
            self._check_search(model)
            self._check_validation(model)
        if problem := self.champion.problem(self.metrics, bool(self.levels)):
            raise ValueError(problem)
        return self

    def _check_validation(self, model: ModelSpec) -> None:
        given = model.parameters.get("val_size", self.horizon)
        if not isinstance(given, int) or isinstance(given, bool) or given < self.horizon:
            raise ValueError(
                f"models.{model.name}.parameters.val_size: found {given!r}, at least {self.horizon} wanted"
            )

    def _check_search(self, model: ModelSpec) -> None:
        search = model.search
        if search is None:
            return
        if search.metric in OF_QUANTILES and not self.levels:
            raise ValueError(f"models.{model.name}.search.metric: {search.metric} needs `levels`")
        if search.val_size and search.val_size < self.horizon:
            raise ValueError(
                f"models.{model.name}.search.val_size: found {search.val_size}, at least the "
                f"horizon, {self.horizon}, is wanted"
            )

    def _check_exogenous(self, model: ModelSpec) -> None:
        if model.exogenous is None and not model.kind.reads_columns:
            return  # Baselines use the target alone.
        given = self.exogenous_of(model)
        named = {*given.all_future, *given.historic, *given.static, *given.calendar}
        if unknown := sorted(set(model.exogenous or ()) - named):
            own = self.exogenous
            known = [*own.future, *own.calendar, *own.historic, *own.static]
            raise ValueError(
                f"models.{model.name}.exogenous: {', '.join(unknown)} is not an exogenous column of "
                f"this pipeline; allowed: {known}"
            )
        able = {
            "future": model.kind.future,
            "historic": model.kind.historic,
            "static": model.kind.static,
        }
        held = {"future": given.all_future, "historic": given.historic, "static": given.static}
        for role, can in able.items():
            if held[role] and not can:
                raise ValueError(
                    f"models.{model.name}: {model.model} cannot take {role} exogenous columns "
                    f"({', '.join(held[role])}); name those that it takes in its `exogenous`, "
                    "[] for none"
                )

    def exogenous_of(self, model: ModelSpec) -> Exogenous:
        """The exogenous columns that a model takes, by role."""
        if model.exogenous is None:
            return self.exogenous if model.kind.reads_columns else Exogenous()
        return self.exogenous.only(model.exogenous)

    @cached_property
    def grid(self) -> Grid:
        """The frequency's grid."""
        return Grid(self.frequency)

    @property
    def season(self) -> int:
        """Steps of a season, for MASE and for the seasonal baselines' default."""
        return self.season_length or self.grid.season_length

    @property
    def needed_history(self) -> int:
        """Observations at or before a cutoff that a series needs to be forecast from it."""
        return self.min_history or self.season

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Ascending probabilities, the median among them; empty where no level is asked for."""
        if not self.levels:
            return ()
        tails = {round(0.5 - level / 200, 6) for level in self.levels}
        return tuple(sorted(tails | {0.5} | {round(1 - tail, 6) for tail in tails}))

    @property
    def first_quarter(self) -> Quarter:
        """The quarter of ``start``."""
        return Quarter.of(self.start)

    @property
    def champion_metric(self) -> str:
        """The metric that the champion is chosen by."""
        return self.champion.metric or self.metrics[0]

    @property
    def baseline_model(self) -> ModelSpec | None:
        """The model that skill is measured against; None if there is none."""
        for model in self.models:
            if model.name == self.baseline or (
                self.baseline is None and model.model == "SeasonalNaive"
            ):
                return model
        return None

    def model(self, name: str) -> ModelSpec:
        """The model of that name.

        Raises:
            TsForecastError: there is none.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise TsForecastError(
            f"Pipeline {self.name} has no model {name!r}.",
            remedy=f"Its models: {', '.join(m.name for m in self.models)}.",
        )

    def window(self, quarter: Quarter) -> tuple[Quarter, ...]:
        """The quarters whose observations the model of ``quarter`` may be fitted on, oldest first."""
        first = max(self.first_quarter, quarter.shift(-self.window_quarters))
        return tuple(quarter_range(first, quarter.shift(-1)))

    def slice_plan(self, quarter: Quarter) -> SlicePlan:
        """Which forecasts the slice of ``quarter`` consists of."""
        end = (
            None
            if self.end is None
            else pd.Timestamp(self.end) + pd.Timedelta("1D") - pd.Timedelta("1ns")
        )
        return plan_slice(self.grid, quarter, horizon=self.horizon, step=self.step, end=end)
