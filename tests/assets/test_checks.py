"""Asset checks in Dagster: a result for each quarter, and nothing is made of a wrong one."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest
from sqlalchemy import text

from assets.datasets import build_dataset_assets
from assets.predictions import build_predictions
from assets.summaries import build_metric_summaries
from assets.training import build_trained_models
from resources.postgres import postgres_resource
from tests.end_to_end.conftest import Problem
from ts_forecast.datasets import quarter as datasets_quarter
from ts_forecast.db.engine import create_engine

BASELINE = [{"model": "SeasonalNaive"}, {"model": "Naive"}]


def materialize(
    problem: Problem, instance: dg.DagsterInstance, first: str, last: str | None = None
) -> dg.ExecuteInProcessResult:
    pipeline = problem.pipeline
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last or first,
    }
    return dg.materialize(
        [
            *build_dataset_assets(pipeline),
            *build_trained_models(pipeline),
            build_predictions(pipeline),
            build_metric_summaries(pipeline),
        ],
        instance=instance,
        tags=tags,
        raise_on_error=False,
        resources={"postgres": postgres_resource(problem.settings)},
    )


def found(instance: dg.DagsterInstance, asset: str, check: str) -> dict[str | None, str]:
    """The status of each partition's latest evaluation."""
    key = dg.AssetCheckKey(dg.AssetKey(["shop", *asset.split("/")]), check)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    return {record.partition: record.status.value for record in reversed(records)}


def test_checks__range_of_quarters__each_has_its_result(
    make_problem: Callable[..., Problem],
) -> None:
    problem = make_problem(models=BASELINE)
    quarters = ["2023-04-01", "2023-07-01"]

    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(problem, instance, *quarters)

        assert result.success
        passed = dict.fromkeys(quarters, "SUCCEEDED")
        for asset, checks in {
            "datasets": ["schema", "duplicates", "gaps"],
            "trained_models/Naive": ["leakage"],
            "predictions": ["leakage", "complete_slice", "sane_values"],
        }.items():
            for check in checks:
                assert found(instance, asset, check) == passed, (asset, check)
        for asset, check in (
            ("datasets", "freshness"),
            ("dataset_features", "drift"),
            ("metric_summaries", "accuracy_decay"),
            ("metric_summaries", "interval_coverage"),
        ):
            assert set(found(instance, asset, check)) == set(quarters)
        # The naive forecast of a weekly wave is worse than the seasonal one: a warning stops nothing.
        assert set(found(instance, "metric_summaries", "beats_baseline").values()) == {"FAILED"}
        evaluation = next(
            evaluation
            for evaluation in result.get_asset_check_evaluations()
            if evaluation.check_name == "beats_baseline"
        )
        assert evaluation.severity == dg.AssetCheckSeverity.WARN
        assert evaluation.metadata["skill_Naive"].value < 0


def test_checks__wrong_quarter__stops_what_depends_on_it_and_materializes_the_others(
    make_problem: Callable[..., Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(models=BASELINE)
    examine = datasets_quarter.merge

    def damaged(*arguments: object) -> object:
        """A writer of rows that stand twice, as a bug of ours might make them."""
        history = examine(*arguments)  # type: ignore[arg-type]
        second = history.frame[history.frame["ds"] == "2023-07-04"]
        frame = datasets_quarter.pd.concat([history.frame, second], ignore_index=True)
        return datasets_quarter.replace(history, frame=frame)

    with dg.DagsterInstance.ephemeral() as instance:
        with monkeypatch.context() as patch:
            patch.setattr(datasets_quarter, "merge", damaged)
            result = materialize(problem, instance, "2023-04-01", "2023-10-01")

        assert not result.success
        assert found(instance, "datasets", "duplicates") == {
            "2023-04-01": "SUCCEEDED",
            "2023-07-01": "FAILED",
            "2023-10-01": "SUCCEEDED",
        }
        key = dg.AssetKey(["shop", "datasets"])
        assert instance.get_materialized_partitions(key) == {"2023-04-01", "2023-10-01"}
        failed = [event for event in result.all_node_events if event.is_step_failure]
        assert len(failed) == 1
        failure = failed[0].step_failure_data.user_failure_data
        assert failure is not None
        assert "2023-Q3, duplicates: 3 rows stand twice" in str(failure.description)
        # Nothing was tried again, and nothing was made downstream.
        assert not [event for event in result.all_node_events if event.is_step_up_for_retry]
        engine = create_engine(problem.settings.database_url.get_secret_value())  # type: ignore[union-attr]
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM models")) == 0
        engine.dispose()

        # A restated source mends it.
        problem.write(problem.frame.assign(y=problem.frame["y"] + 1))
        assert materialize(problem, instance, "2023-07-01").success
        assert found(instance, "datasets", "duplicates")["2023-07-01"] == "SUCCEEDED"


def test_checks__exploding_forecast__is_never_published(
    make_problem: Callable[..., Problem],
) -> None:
    def models(constant: float) -> list[object]:
        return ["SeasonalNaive", {"model": "ConstantModel", "parameters": {"constant": constant}}]

    quarters = ["2023-04-01", "2023-07-01"]
    sane = make_problem(models=models(10), levels=[])
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(sane, instance, quarters[0]).success
        wild = make_problem(models=models(1e6), levels=[])
        result = materialize(wild, instance, *quarters)

        assert not result.success
        key = dg.AssetKey(["shop", "predictions"])
        assert instance.get_materialized_partitions(key) == {quarters[0]}
        # Both quarters were looked at, and both say what was found.
        assert found(instance, "predictions", "sane_values") == dict.fromkeys(quarters, "FAILED")
        assert set(found(instance, "predictions", "complete_slice").values()) == {"SUCCEEDED"}
        (failed,) = [event for event in result.all_node_events if event.is_step_failure]
        failure = failed.step_failure_data.user_failure_data
        assert failure is not None
        assert "2023-Q2, sane_values: ConstantModel forecasts 1e+06" in str(failure.description)
    engine = create_engine(wild.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    with engine.connect() as connection:
        worst = connection.scalar(text("SELECT max(predicted_value) FROM predictions"))
        first = connection.scalar(text("SELECT min(prediction_date)::date FROM predictions"))
        reasons = connection.scalars(
            text(
                "SELECT error_message FROM runs WHERE tags->>'kind' = 'predict' AND status = 'failed'"
            )
        ).all()
    engine.dispose()
    # Readers see the forecasts before.
    assert worst < 100 and str(first) == quarters[0]
    assert len(reasons) == 2 and all("were not published: sane_values" in one for one in reasons)


def test_check_specs__left_out__are_no_checks_of_the_asset(
    make_problem: Callable[..., Problem],
) -> None:
    problem = make_problem(models=BASELINE, levels=[], checks={"skip": ["gaps", "beats_baseline"]})

    datasets = build_dataset_assets(problem.pipeline)[0]
    summaries = build_metric_summaries(problem.pipeline)

    kept = {"set_aside", "schema", "duplicates", "freshness"}
    assert {key.name for key in datasets.check_keys} == kept
    assert {key.name for key in summaries.check_keys} == {"accuracy_decay"}
    blocking = {spec.name for spec in datasets.check_specs if spec.blocking}
    assert blocking == {"schema", "duplicates"}
