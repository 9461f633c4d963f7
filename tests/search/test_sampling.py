"""Sampling: every combination lies in its space, and a seed gives the same ones again."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from ts_forecast.model_catalogue import catalogue
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.search.sampling import AGAIN, places, seeded_sampler, suggest
from ts_forecast.search_space import Choice, Range
from ts_forecast.training.search import Search, search_of


def searched(model: Any) -> tuple[Pipeline, Search]:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 14,
        "start": "2022-01-01",
        "models": [model],
        "seed": 5,
    }
    pipeline = parse_pipeline(content, origin="shop.yaml")
    search = search_of(None, pipeline, pipeline.models[0])  # type: ignore[arg-type] — no stored space
    assert search is not None
    return pipeline, search


def combinations(pipeline: Pipeline, search: Search, count: int = 20) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=seeded_sampler(search))
    return asked(study, pipeline, search, count)


def asked(
    study: optuna.Study, pipeline: Pipeline, search: Search, count: int
) -> list[dict[str, Any]]:
    found = []
    for number in range(count):
        trial = study.ask()
        found.append(suggest(trial, search, pipeline))
        study.tell(trial, float(number % 7))
    return found


@pytest.mark.parametrize("name", ["AutoNHITS", "AutoTiDE", "AutoLSTM"])
def test_suggest__of_a_default_space__lies_in_it(name: str) -> None:
    pipeline, search = searched(name)
    domains = search.space.domains

    for combination in combinations(pipeline, search):
        assert list(combination) == list(domains)
        for parameter, value in combination.items():
            domain = domains[parameter]
            if isinstance(domain, Choice):
                unit = {None: 1, "horizon": 14, "season": 7}[domain.times]
                allowed = domain.values if unit == 1 else [unit * int(v) for v in domain.values]  # type: ignore[arg-type]
                assert value in allowed
            elif isinstance(domain, Range):
                assert domain.low <= value <= domain.high
                assert type(value) is (int if domain.type == "integer" else float)
            else:
                assert value == domain
        assert set(combination) <= set(catalogue()[name].parameters)


def test_suggest__every_kind_of_domain__as_written() -> None:
    space = {
        "input_size": {"low": 2, "high": 4, "type": "integer", "times": "season"},
        "max_steps": {"low": 100, "high": 300, "step": 100, "type": "integer"},
        "n_pool_kernel_size": {"values": [[2, 2, 1], [1, 1, 1]]},
        "scaler_type": {"values": [None, "robust"]},
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "dropout_prob_theta": {"low": 0, "high": 1, "step": 0.25, "type": "float"},
        "windows_batch_size": 32,
    }
    pipeline, search = searched(
        {"model": "AutoNHITS", "search_space": space, "parameters": {"n_blocks": [1, 1, 1]}}
    )

    found = combinations(pipeline, search, 40)

    def values(name: str) -> set[str]:
        return {repr(combination[name]) for combination in found}

    assert values("input_size") == {"14", "21", "28"}
    assert values("max_steps") == {"100", "200", "300"}
    assert values("n_pool_kernel_size") == {"[2, 2, 1]", "[1, 1, 1]"}
    assert values("scaler_type") == {"None", "'robust'"}
    assert values("dropout_prob_theta") <= {"0.0", "0.25", "0.5", "0.75", "1.0"}
    assert len(values("dropout_prob_theta")) > 2
    assert values("windows_batch_size") == {"32"}
    assert values("n_blocks") == {"[1, 1, 1]"}
    rates = [combination["learning_rate"] for combination in found]
    # Two of its three orders of magnitude.
    assert sum(rate < 1e-2 for rate in rates) > 20


def test_suggest__same_seed__same_combinations_whatever_the_order_of_keys() -> None:
    space = {
        "max_steps": {"values": [100, 500]},
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    }
    turned = dict(reversed(space.items()))
    first = combinations(*searched({"model": "AutoNHITS", "search_space": space}))

    assert combinations(*searched({"model": "AutoNHITS", "search_space": turned})) == first
    other = {"model": "AutoNHITS", "search_space": space, "search": {"seed": 6}}
    assert combinations(*searched(other)) != first


def test_suggest__sampler_made_anew_before_each_trial__same_combinations() -> None:
    """As when each trial were of a process of its own; a generator that goes on would begin again."""
    pipeline, search = searched("AutoNHITS")
    study = optuna.create_study(sampler=seeded_sampler(search))
    found = []
    for number in range(14):
        study.sampler = seeded_sampler(search)
        trial = study.ask()
        found.append(suggest(trial, search, pipeline))
        study.tell(trial, float(number % 7))

    assert found == combinations(pipeline, search, 14)


def test_suggest__trial_lost_and_made_again__the_others_are_as_without() -> None:
    pipeline, search = searched("AutoNHITS")
    study = optuna.create_study(sampler=seeded_sampler(search))
    asked(study, pipeline, search, 3)
    lost = study.ask()
    suggest(lost, search, pipeline)
    study.enqueue_trial(lost.params, user_attrs={AGAIN: lost.number})
    study.tell(lost, state=optuna.trial.TrialState.FAIL)

    again = study.ask()
    study.tell(again, 3.0 if suggest(again, search, pipeline) else 0)

    assert again.params == lost.params
    assert places(study.get_trials()) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 3}
    whole = optuna.create_study(sampler=seeded_sampler(search))
    assert asked(whole, pipeline, search, 14)[4:7] == asked(study, pipeline, search, 3)


def test_search_of__parameters_held_fixed__are_not_searched() -> None:
    pipeline, search = searched({"model": "AutoNHITS", "parameters": {"max_steps": 7}})

    assert "max_steps" not in search.space.searched
    assert {combination["max_steps"] for combination in combinations(pipeline, search)} == {7}
