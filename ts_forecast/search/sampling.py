"""From a search space to the combination of one trial, by Optuna.

Lists and mappings are no categories to Optuna, and 1 and true one and the same; so a choice is made
among the values' JSON texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ts_forecast.pipeline import Pipeline
from ts_forecast.search_space import Choice, Range
from ts_forecast.training.search import Search

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial


def new_study(search: Search) -> Study:
    """An empty study in memory, seeded: told the same values, it asks for the same combinations."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=search.seed)
    return optuna.create_study(sampler=sampler, direction="minimize")


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
