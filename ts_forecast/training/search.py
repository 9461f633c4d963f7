"""What a model's parameters are to be chosen from, and what decides the choice.

Resolving only: which space stands for an entry of the pipeline file. Trying combinations is the room
``search``, which lies above, for trials are forecast and scored as a quarter is; ``train_quarter`` is
handed its ``choose_parameters``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import PipelineError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.search_space import SearchMetric, SearchSettings, Space, parse_space
from ts_forecast.tracking.fingerprint import library_versions
from ts_forecast.tracking.runs import OpenRun
from ts_forecast.training.calibration import gives_quantiles
from ts_forecast.training.search_spaces import stored_space

# Raise it when the same inputs would give another choice.
SEARCH_CODE_VERSION = 2


@dataclass(frozen=True)
class Search:
    """A search, every default resolved.

    Attributes:
        space: what is searched, without what the pipeline file holds fixed.
        fixed: the pipeline file's ``parameters``: the same in every trial.
        space_name: of the stored space; None for an inline one or the library's.
        val_size: steps before the fit's limit that trials are measured on.
        seed: of the sampler.
        pruner: what ends trials early: ``median`` or ``none``.
    """

    space: Space
    fixed: dict[str, Any]
    space_name: str | None
    trials: int
    metric: SearchMetric
    val_size: int
    seed: int
    pruner: str

    def definition(self) -> dict[str, Any]:
        """What is searched and how, as JSON; without the space's name, which decides nothing."""
        return {
            "space": self.space.canonical(),
            "fixed": self.fixed,
            "trials": self.trials,
            "metric": self.metric,
            "val_size": self.val_size,
            "seed": self.seed,
            "pruner": self.pruner,
        }

    def payload(self, pipeline: Pipeline, history: Panel) -> dict[str, object]:
        """What decides the choice, beside what decides any fit: for the training's fingerprint."""
        return {
            **self.definition(),
            "sampler": library_versions("optuna"),
            "measure": self.measure(pipeline, history),
        }

    def measure(self, pipeline: Pipeline, history: Panel) -> dict[str, object]:
        """What decides the value of one combination, beside what decides its fit.

        Args:
            history: what the model may see, as observed. Filled, it does not tell an observation from
                a filled gap, and only the first is scored.
        """
        return {
            "code": SEARCH_CODE_VERSION,
            "metric": self.metric,
            "val_size": self.val_size,
            "step": pipeline.step,
            "missing": pipeline.missing,
            "needed_history": pipeline.needed_history,
            "history": history.content_hash(),
            "libraries": library_versions("utilsforecast"),
        }


@dataclass(frozen=True)
class Chosen:
    """What a search found.

    Attributes:
        spec: the plain class with the best parameters.
        value: of the metric, on the validation window.
        trial: the best trial's number, from 0.
    """

    spec: ModelSpec
    value: float
    trial: int


class ChooseParameters(Protocol):
    """Tries combinations and names the best; each trial becomes a child of the run."""

    def __call__(
        self,
        engine: Engine,
        pipeline: Pipeline,
        spec: ModelSpec,
        search: Search,
        history: Panel,
        run: OpenRun,
        *,
        force: bool,
    ) -> Chosen:
        """See ``search.trials.choose_parameters``."""


def search_of(session: Session, pipeline: Pipeline, spec: ModelSpec) -> Search | None:
    """The search that an entry of the pipeline file asks for; None if it is of a plain model.

    Raises:
        PipelineError: the stored space does not exist or is of another model, or nothing is left to
            search.
    """
    if spec.kind.searches is None:
        return None
    where = f"Pipeline {pipeline.name}, model {spec.name}"
    given = spec.search_space
    if isinstance(given, str):
        space = stored_space(session, given, spec.kind, where=where)
    else:
        space = given if given is not None else parse_space(spec.kind.default_space)
    space = space.without(spec.parameters)
    if not space.searched:
        raise PipelineError(
            f"{where}: `parameters` hold everything that the search space searches.",
            remedy=f"Take {spec.kind.searches} with these parameters, or leave some of them out.",
        )
    search = spec.search or SearchSettings()
    return Search(
        space=space,
        fixed=dict(spec.parameters),
        space_name=given if isinstance(given, str) else None,
        trials=search.trials,
        metric=search.metric or ("mqloss" if pipeline.levels and gives_quantiles(spec) else "mae"),
        val_size=search.val_size or pipeline.horizon,
        seed=pipeline.seed if search.seed is None else search.seed,
        pruner=search.pruner,
    )
