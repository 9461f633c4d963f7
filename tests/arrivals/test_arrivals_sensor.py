"""The real sensor over real files: whatever arrives in whatever order ends as a clean rebuild would."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime

import dagster as dg
import pytest
from sqlalchemy import text

from assets.arrival_runs import WORK, busy_quarters, run_key
from assets.step import ARRIVALS
from tests.arrivals.conftest import Live, days
from ts_forecast.arrivals.plan import Request
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.errors import SourceError
from ts_forecast.quarters import Quarter

DATA = ("datasets", "dataset_features")
CHAMPION = ("champion",)
SCORED = ("predictions", "metric_summaries")
FORECASTS = SCORED + CHAMPION
TRAINED = ("trained_models/SeasonalNaive",)
ALL_MODELS = TRAINED + FORECASTS


def test_arrivals__files_in_order__each_asks_for_its_quarter_alone(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.settle()
    first = live.news()
    live.put("2023-2.csv", days("2023-04-01", "2023-05-10"))
    live.settle()
    second = live.news()
    live.put("2023-3.csv", days("2023-05-11", "2023-06-30"))
    live.settle()
    third = live.news()

    assert first == [("2023-Q1", DATA)]
    assert second == [("2023-Q2", DATA), ("2023-Q2", ALL_MODELS)]
    # The model of the quarter stays: it has seen nothing of it.
    assert third == [("2023-Q2", DATA), ("2023-Q2", FORECASTS)]
    assert live.tables("shop") == live.rebuilt("2023-Q1", "2023-Q2")


def test_arrivals__late_restated_and_vanishing_rows__end_as_a_clean_rebuild(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.put("2023-3.csv", days("2023-07-01", "2023-08-15"))
    waiting = live.settle()
    assert "2023-Q3 wait for observations in 2023-Q2" in waiting
    assert live.news() == [("2023-Q1", DATA), ("2023-Q3", DATA)]
    live.put("2023-2.csv", days("2023-04-01", "2023-06-30"))
    live.settle()
    # The third quarter's champion is chosen by the second's scores.
    behind = [("2023-Q3", TRAINED + SCORED), ("2023-Q3", CHAMPION)]
    assert live.news() == [("2023-Q2", DATA), ("2023-Q2", ALL_MODELS), *behind]

    # A later file restates some days of the first quarter; then it is withdrawn.
    path = live.put("2023-4.csv", days("2023-03-01", "2023-03-20", level=50))
    live.settle()
    restated = live.news()
    middle = live.tables("shop")
    path.unlink()
    live.settle()

    # The second and third quarter's models were fitted on the first.
    assert restated == [("2023-Q1", DATA), ("2023-Q2", ALL_MODELS), *behind]
    assert live.tables("shop") == live.rebuilt("2023-Q1", "2023-Q3") != middle
    with live.engine.connect() as connection:
        served = "SELECT min(prediction_date), count(*) FROM v_champion_forecasts"
        assert tuple(connection.execute(text(served)).one()) == (datetime(2023, 7, 1), 102)


def test_arrivals__touched_file_and_lost_cursor__ask_for_nothing(live: Live) -> None:
    path = live.put("2023-1.csv", days("2023-01-01", "2023-06-30"))
    live.settle()
    live.news()

    os.utime(path)
    is_fresh = live.settle()
    os.utime(path, (time.time() - 60,) * 2)
    live.settle()
    live.cursor = None
    live.settle()

    assert live.news() == []
    assert "may still be being written" in is_fresh
    assert live.uploads() == [("2023-1.csv", "accepted")]


def test_arrivals__half_written_file__is_left_until_it_is_stable(live: Live) -> None:
    whole = days("2023-01-01", "2023-03-31").to_csv(index=False)
    live.put("2023-1.csv", whole[: len(whole) // 2])
    first = live.tick()
    live.put("2023-1.csv", whole, age=1)
    second, third = live.tick(), live.tick()
    assert live.uploads() == []
    live.put("2023-1.csv", whole)
    live.settle()

    for result in (first, second, third):
        assert not result.run_requests
        assert result.skip_reason is not None
        assert "may still be being written" in (result.skip_reason.skip_message or "")
    assert live.uploads() == [("2023-1.csv", "accepted")]
    assert live.tables("shop")["datasets"][0][1] == 180


def test_arrivals__bad_file__is_set_aside_and_the_good_go_on(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    broken = days("2023-04-01", "2023-04-30").to_csv(index=False).replace("2023-04-09", "09/04")
    live.put("2023-2.csv", broken)
    message = live.settle()
    assert live.news() == [("2023-Q1", DATA)]
    live.put("2023-3.csv", days("2023-05-01", "2023-06-30"))
    live.settle()
    before = live.news()
    live.put("2023-2.csv", days("2023-04-01", "2023-04-30"))
    live.settle()

    assert "2023-2.csv is set aside" in message and "row 10, column 'ds'" in message
    assert [name for name, status in live.uploads() if status == "rejected"] == ["2023-2.csv"]
    with live.engine.connect() as connection:
        refused = connection.execute(
            text("SELECT row_number, column_name, reason FROM staging.rejected")
        ).one()
    assert tuple(refused[:2]) == (10, "ds") and "09/04" in refused[2]
    assert before == [("2023-Q2", DATA), ("2023-Q2", ALL_MODELS)]
    assert live.news() == [("2023-Q2", DATA), ("2023-Q2", FORECASTS)]
    assert live.tables("shop") == live.rebuilt("2023-Q1", "2023-Q2")


def test_arrivals__bad_file_in_place_of_a_good_one__holds_its_quarters(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.put("2023-2.csv", days("2023-04-01", "2023-06-30"))
    live.settle(only="datasets")
    before = live.tables("shop")
    live.put("2023-1.csv", "unique_id,ds\na,2023-01-01\n")
    live.put("2023-3.csv", days("2023-07-01", "2023-07-31"))
    live.settle(only="datasets")
    while_held = live.tables("shop")
    with pytest.raises(SourceError, match="set aside.* 2023-Q1 rests on.*no column 'y'"):
        ingest_quarters(live.engine, live.settings, live.pipeline, [Quarter(2023, 1)])
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31", level=20))
    live.settle(only="datasets")

    assert [name for name, status in live.uploads() if status == "rejected"] == ["2023-1.csv"]
    assert while_held["datasets"][:2] == before["datasets"]
    assert len(while_held["datasets"]) == 3
    rebuilt = live.rebuilt("2023-Q1", "2023-Q3", only="datasets")
    assert live.tables("shop")["datasets"] == rebuilt["datasets"]


def test_arrivals__run_that_failed__is_not_asked_for_twice_but_by_new_data(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.tick()
    (request,) = live.tick().run_requests or ()
    # Between the tick and the run, the file is written anew.
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31", level=30), age=1)

    was_done = live.run(request)
    work = Request(request.tags[WORK], (Quarter(2023, 1),), ())
    in_a_year = run_key(live.instance, live.pipeline, work, now=time.time() + 3e7)
    (again,) = live.tick().run_requests or (None,)
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31", level=30))
    live.settle()

    assert not was_done
    assert again is None and in_a_year is None
    assert live.tables("shop")["datasets"] == live.rebuilt("2023-Q1", "2023-Q1")["datasets"]


def test_run_key__killed_runs__are_asked_for_again_after_growing_pauses(live: Live) -> None:
    work = Request("datasets-x", (Quarter(2023, 1),), ("datasets",))

    def die(key: str) -> float:
        tags = {ARRIVALS: "shop", WORK: work.key, "dagster/run_key": key}
        run = live.instance.create_run_for_job(
            live.definitions.resolve_job_def("materialize_shop"),
            tags=tags,
            status=dg.DagsterRunStatus.STARTED,
        )
        live.instance.report_run_failed(run)
        return time.time()

    def ask(now: float) -> str | None:
        return run_key(live.instance, live.pipeline, work, now=now)

    first = ask(time.time())
    died = die("datasets-x")
    assert first == "datasets-x"
    assert (ask(died + 30), ask(died + 65)) == (None, "datasets-x-2")
    # A retry of the daemon's bears the key of the run that it repeats.
    die("datasets-x")
    died = die("datasets-x-2")
    assert (ask(died + 65), ask(died + 245)) == (None, "datasets-x-3")
    for number in range(3, 12):
        died = die(f"datasets-x-{number}")
    assert (ask(died + 80_000), ask(died + 86_500)) == (None, "datasets-x-12")


def test_busy_quarters__failed_run_that_will_be_retried__is_busy_for_a_while(live: Live) -> None:
    tags = {ARRIVALS: "shop", "dagster/partition": "2023-01-01", "dagster/max_retries": "2"}
    run = live.instance.create_run_for_job(
        live.definitions.resolve_job_def("materialize_shop"),
        tags=tags,
        status=dg.DagsterRunStatus.STARTED,
    )
    live.instance.report_run_failed(run)
    live.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})

    def busy(later: float) -> set[Quarter]:
        return busy_quarters(live.instance, live.pipeline, now=time.time() + later)

    assert (busy(1), busy(300)) == ({Quarter(2023, 1)}, set())
    live.instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "another"})
    assert busy(1) == set()


def test_arrivals__run_lost_between_its_steps__what_is_missing_is_asked_for(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-06-30"))
    live.settle()
    whole = live.tables("shop")
    live.news()

    with live.engine.begin() as connection:
        connection.execute(
            text(
                "DELETE FROM dataset_features USING datasets d "
                "WHERE d.dataset_id = dataset_features.dataset_id AND quarter_start = '2023-04-01'"
            )
        )
        connection.execute(
            text("UPDATE runs SET deleted_at = now() WHERE tags->>'kind' = 'evaluate'")
        )
    live.settle()

    assert live.news() == [
        ("2023-Q2", ("dataset_features",)),
        ("2023-Q2", ("metric_summaries",)),
    ]
    assert live.tables("shop") == whole


def test_arrivals__quarter_under_way__is_not_asked_for_again(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.tick()
    (request,) = live.tick().run_requests or ()
    run = live.instance.create_run_for_job(
        live.definitions.resolve_job_def("materialize_shop"),
        tags={**request.tags, "dagster/partition": "2023-01-01"},
        status=dg.DagsterRunStatus.STARTED,
    )
    live.put("2023-2.csv", days("2023-02-01", "2023-02-10", level=3))
    live.tick()

    during = live.tick()
    live.instance.report_run_canceled(run)
    after = live.tick()

    assert not during.run_requests
    assert during.skip_reason is not None
    assert "under way" in (during.skip_reason.skip_message or "")
    assert [r.partition_key for r in after.run_requests or ()] == ["2023-01-01"]


def test_arrivals_sensor__live_or_not__runs_by_default_or_not(
    make_live: Callable[..., Live],
) -> None:
    states = [
        make_live(live=is_live).definitions.resolve_sensor_def("shop_arrivals").default_status
        for is_live in (True, False)
    ]

    assert states == [dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED]


def test_arrivals__bad_file__fails_the_check_of_the_source_until_it_is_mended(live: Live) -> None:
    live.put("2023-1.csv", days("2023-01-01", "2023-03-31"))

    def told() -> list[tuple[bool | None, str | None]]:
        """What ticks say of the source; the runs between them are made."""
        events = []
        for _ in range(3):
            result = live.tick()
            events += list(result.asset_events)
            for request in result.run_requests or ():
                if (request.run_key or "").startswith("datasets"):
                    live.run(request)
        assert all(isinstance(event, dg.AssetCheckEvaluation) for event in events)
        assert all((e.check_name, e.partition) == ("set_aside", None) for e in events)
        return [(event.passed, event.description) for event in events]

    good = told()
    live.put("2023-2.csv", "unique_id,ds\na,2023-04-01\n")
    bad = told()
    quiet = told()
    live.put("2023-3.csv", days("2023-04-01", "2023-04-30"))
    goes_on = told()
    key = dg.AssetCheckKey(dg.AssetKey(["shop", "datasets"]), "set_aside")
    records = live.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    (live.settings.data_dir / "raw" / "2023-2.csv").unlink()
    mended = told()

    assert good == [(True, "no file of the source is set aside")]
    assert [passed for passed, _ in bad] == [False] and quiet == []
    assert "2023-2.csv: " in (bad[0][1] or "") and "no column 'y'" in (bad[0][1] or "")
    # The run that took the good file found it too, and went on: it is a warning.
    assert goes_on == [] and records[0].status.value == "FAILED"
    assert live.news() == [("2023-Q1", DATA), ("2023-Q2", DATA)]
    assert mended == [(True, "no file of the source is set aside")]
