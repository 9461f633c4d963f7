"""The ``champion`` asset over a real run of several quarters: chosen, served, shown."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pandas as pd
from sqlalchemy import Engine, text

from assets.champion import build_champion
from assets.datasets import build_dataset_assets
from assets.predictions import build_predictions
from assets.summaries import build_metric_summaries
from assets.training import build_trained_models
from resources.postgres import postgres_resource
from tests.end_to_end.conftest import Problem
from ts_forecast.pipeline import Pipeline

KEYS = ["2023-01-01", "2023-04-01", "2023-07-01"]
MODELS = [{"model": "SeasonalNaive"}, {"model": "HistoricAverage"}]


def before_champion(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """All that a champion stands behind."""
    return [
        *build_dataset_assets(pipeline),
        *build_trained_models(pipeline),
        build_predictions(pipeline),
        build_metric_summaries(pipeline),
    ]


def test_champion__three_quarters_in_a_row__serves_the_best_of_the_past(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={}, champion={"quarters": 2})
    pipeline = problem.pipeline
    assets = [*before_champion(pipeline), build_champion(pipeline)]

    shown = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for key in KEYS:
            result = dg.materialize(
                assets,
                partition_key=key,
                instance=instance,
                resources={"postgres": postgres_resource(problem.settings)},
            )
            (event,) = [
                event
                for event in result.get_asset_materialization_events()
                if event.asset_key == dg.AssetKey([pipeline.name, "champion"])
            ]
            shown[key] = {
                name: value.value for name, value in event.materialization.metadata.items()
            }

    assert shown[KEYS[0]]["outcome"] == "none"
    served = shown[KEYS[1]]
    assert (served["outcome"], served["champion"]) == ("promoted", "shop/SeasonalNaive 2")
    assert served["past_error_SeasonalNaive"] < served["past_error_HistoricAverage"]
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT prediction_date, model_name, actual_value FROM v_champion_forecasts "
                "WHERE experiment_id = 1"
            )
        ).all()
        measured = connection.scalars(
            text(
                "SELECT production_metrics ->> 'mae' FROM model_registry "
                "WHERE current_stage = 'production' ORDER BY quarter_start"
            )
        ).all()
    frame = pd.DataFrame([tuple(row) for row in rows], columns=["ds", "model", "y"])
    assert set(frame["model"]) == {"SeasonalNaive"}
    assert (frame["ds"].min(), frame["ds"].max()) == (
        pd.Timestamp("2023-04-01"),
        pd.Timestamp("2023-09-30"),
    )
    assert len(measured) == 2 and all(float(one) > 0 for one in measured)


def test_champion__leaking_model__is_refused_by_its_stored_check(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={}, champion={"quarters": 2})
    pipeline = problem.pipeline
    champion = build_champion(pipeline)
    others = before_champion(pipeline)
    resources = {"postgres": postgres_resource(problem.settings)}

    with dg.DagsterInstance.ephemeral() as instance:
        for key in KEYS[:2]:
            dg.materialize(
                [*others, champion], partition_key=key, instance=instance, resources=resources
            )
        with engine.begin() as connection:
            noted = connection.scalars(
                text("SELECT metadata #> '{checks,leakage,passed}' FROM model_registry")
            ).all()
            connection.execute(
                text(
                    "UPDATE model_registry SET current_stage = 'staging', metadata = "
                    "jsonb_set(metadata, '{checks,leakage,passed}', 'false') "
                    "WHERE registered_model_name = 'shop/SeasonalNaive' AND quarter_start = :day"
                ),
                {"day": KEYS[1]},
            )
        result = dg.materialize(
            [*others, champion],
            selection=[champion],
            partition_key=KEYS[1],
            instance=instance,
            resources=resources,
        )

    assert noted == [True] * 4
    (event,) = result.get_asset_materialization_events()
    shown = {name: value.value for name, value in event.materialization.metadata.items()}
    assert shown["champion"] != "shop/SeasonalNaive 2"
    assert "a blocking one failed" in str(shown["scores"])


def test_champion__quarters_scored_in_another_order__the_later_one_is_chosen_again(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={}, champion={"quarters": 2})
    pipeline = problem.pipeline
    assets = [*before_champion(pipeline), build_champion(pipeline)]
    chosen = []
    with dg.DagsterInstance.ephemeral() as instance:
        for key in (KEYS[0], KEYS[2], KEYS[1]):
            result = dg.materialize(
                assets,
                partition_key=key,
                instance=instance,
                resources={"postgres": postgres_resource(problem.settings)},
            )
            chosen.append(
                {
                    event.partition: event.materialization.description
                    for event in result.get_asset_materialization_events()
                    if event.asset_key == dg.AssetKey([pipeline.name, "champion"])
                }
            )

    assert [sorted(one) for one in chosen] == [[KEYS[0]], [KEYS[2]], [KEYS[1], KEYS[2]]]
    assert "Chosen again" in str(chosen[2][KEYS[2]])
    with engine.connect() as connection:
        rested = connection.scalars(
            text(
                "SELECT count(*) FROM runs WHERE tags ->> 'kind' = 'choose' "
                "AND deleted_at IS NULL AND status = 'completed' GROUP BY quarter_start"
            )
        ).all()
    # Each quarter's choice stands once: the one that the superseded rested on is out.
    assert rested == [1, 1, 1]
