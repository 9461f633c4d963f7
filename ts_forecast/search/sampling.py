"""From a search space to the combination of one trial, by Optuna.

Lists and mappings are no categories to Optuna, and 1 and true one and the same; so a choice is made
among the values' JSON texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ts_forecast.pipeline import Pipeline
from ts_forecast.search_space import Choice, Range
from ts_forecast.training.search import Search

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

# Set on a trial that is made again: the number of the one that its process left behind.
AGAIN = "again"
# Before so many trials ran to their end, there is no median worth its name.
_FIRST_TRIALS = 5


def seeded_sampler(search: Search) -> BaseSampler:
    """TPE that draws each trial from a seed of its own.

    A sampler that lives as long as a search would begin with its first draws again when the search is
    taken up by another process, and try the first combinations twice. Here a trial's draws follow from
    the search's seed, the trial's place and what the trials before it came to.
    """
    import optuna

    class Seeded(optuna.samplers.BaseSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            place = places(study.get_trials(deepcopy=False))[trial.number]
            seed = np.random.SeedSequence([search.seed, place]).generate_state(1)[0]
            self._tpe = optuna.samplers.TPESampler(seed=int(seed))
            self._tpe.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, name: Any, distribution: Any) -> Any:
            return self._tpe.sample_independent(study, trial, name, distribution)

    return Seeded()


def pruner_of(search: Search) -> BasePruner:
    """What ends a trial early; it knows only trials that ran to their end."""
    import optuna

    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS)


def places(trials: list[FrozenTrial]) -> dict[int, int]:
    """Each trial's place in the search, by its number: one made again has that of the first attempt."""
    found: dict[int, int] = {}
    count = 0
    for trial in sorted(trials, key=lambda trial: trial.number):
        earlier = trial.user_attrs.get(AGAIN)
        if earlier is None:
            found[trial.number] = count
            count += 1
        else:
            found[trial.number] = found[earlier]
    return found


def suggest(trial: Trial, search: Search, pipeline: Pipeline) -> dict[str, Any]:
    """The parameters of a trial, as the model's constructor takes them, names ascending."""
    units = {None: 1, "horizon": pipeline.horizon, "season": pipeline.season}
    parameters: dict[str, Any] = dict(search.fixed)
    for name, domain in search.space.domains.items():
        if isinstance(domain, Choice):
            texts = [json.dumps(value) for value in domain.values]
            value = json.loads(trial.suggest_categorical(name, texts))
            parameters[name] = value * units[domain.times] if domain.times else value
        elif isinstance(domain, Range) and domain.type == "integer":
            low, high, step = (int(n) for n in (domain.low, domain.high, domain.step or 1))
            number = trial.suggest_int(name, low, high, step=step, log=domain.log)
            parameters[name] = number * units[domain.times]
        elif isinstance(domain, Range):
            parameters[name] = trial.suggest_float(
                name, domain.low, domain.high, step=domain.step, log=domain.log
            )
        else:
            parameters[name] = domain
    return dict(sorted(parameters.items()))
