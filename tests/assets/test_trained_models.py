"""What a ``trained_models`` asset shows of a search."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from assets.training import build_trained_models
from resources.postgres import postgres_resource
from tests.end_to_end.conftest import Problem


def test_trained_model__searched__shows_its_trials_and_the_best_value(
    make_problem: Callable[..., Problem],
) -> None:
    space = {"max_steps": {"values": [2, 3]}, "learning_rate": {"low": 1e-4, "high": 1e-2}}
    search = {"trials": 2, "metric": "mae"}
    problem = make_problem(models=[{"model": "AutoMLP", "search_space": space, "search": search}])
    assets = build_trained_models(problem.pipeline)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            assets,
            partition_key="2023-04-01",
            instance=instance,
            resources={"postgres": postgres_resource(problem.settings)},
        )
        (event,) = [
            materialization
            for materialization in result.asset_materializations_for_node(assets[0].node_def.name)
            if materialization.asset_key == assets[0].key
        ]

    defined = assets[0].metadata_by_key[assets[0].key]
    assert defined["search_space"].value["max_steps"]["values"] == [2, 3]
    metadata = event.metadata
    trials = metadata["trials"]
    assert isinstance(trials, dg.TableMetadataValue)
    values = [record.data["value"] for record in trials.records]
    assert len(values) == 2
    best = metadata["validation_mae"].value
    assert isinstance(best, float)
    assert round(best, 6) == min(v for v in values if isinstance(v, float))
    assert values[metadata["best_trial"].value] == min(values)
    assert metadata["search_space"].value["max_steps"]["values"] == [2, 3]
    assert "loss" in metadata
