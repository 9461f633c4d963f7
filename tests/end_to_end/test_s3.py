"""The main job on S3: source, quarters, models and reports in a bucket of a server of this host."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text
from upath import UPath

from assets.definitions import build_definitions, job_name
from tests.end_to_end.problems import TINY, content, sales
from ts_forecast.datasets.quarter import ingest_quarters, load_panel
from ts_forecast.db.engine import transaction
from ts_forecast.errors import ArtifactError, DatasetError, StorageError
from ts_forecast.evaluation.leaderboard import worst_series
from ts_forecast.operations.host_checks import check_folders
from ts_forecast.operations.pipeline_check import check_pipeline_file
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.places import mark_of, matching, place
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

QUARTER = Quarter(2023, 2)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UPath]:
    """An empty bucket; credentials and address come from the environment, as they do for users."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    folder = place("s3://forecasts")
    assert isinstance(folder, UPath)
    folder.fs.mkdir(folder.path)
    yield folder / "all"
    folder.fs.rm(folder.path, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def on_s3(settings: Settings, bucket: UPath) -> Settings:
    return Settings(
        _env_file=None,
        home=settings.home,
        database_url=settings.database_url,
        data_dir=f"{bucket}/data",
        model_dir=f"{bucket}/models",
        output_dir=f"{bucket}/outputs",
        log_dir=settings.log_dir,
    )


def shop(**source: Any) -> Pipeline:
    models = [{"model": "MLP", "parameters": {**TINY, "hidden_size": 8}}, "SeasonalNaive"]
    changes = {"name": "shop", "models": models, "source": {"files": "history/*.csv"} | source}
    return parse_pipeline(content(**changes), origin="shop.yaml")


def materialize(settings: Settings, pipeline: Pipeline, quarter: Quarter) -> None:
    job = build_definitions(settings, {pipeline.name: pipeline}).resolve_job_def(
        job_name(pipeline.name)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, partition_key=quarter.key).success


def test_main_job__everything_in_a_bucket__is_whole_verified_and_found_again(
    on_s3: Settings, bucket: UPath, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline = shop()
    (on_s3.data_dir / "history" / "shop.csv").write_text(sales().to_csv(index=False))

    materialize(on_s3, pipeline, QUARTER)

    with engine.connect() as connection:
        kinds = connection.execute(
            text(
                "SELECT DISTINCT storage_type, storage_path LIKE 's3://forecasts/all/%' FROM artifacts"
            )
        ).all()
        paths = connection.scalars(text("SELECT file_path FROM datasets")).all()
        model, sha256 = connection.execute(
            text(
                "SELECT model_file_path, metadata->>'sha256' FROM models WHERE model_name = 'MLP' "
                "AND quarter_start = '2023-04-01'"
            )
        ).one()
        experiment = connection.scalar(text("SELECT experiment_id FROM experiments"))
    assert [tuple(kind) for kind in kinds] == [("s3", True)]
    assert paths and all(path.startswith("s3://forecasts/all/data/") for path in paths)
    assert model.endswith(f"-{sha256[:12]}")
    assert not (tmp_path / "data").exists() and not (tmp_path / "models").exists()

    # Another host has no copies: it fetches what it needs, and gets the same.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other host"))
    (tmp_path / "other host").mkdir()
    again = forecast_quarter(engine, on_s3, pipeline, QUARTER, force=True)
    assert not again.changed and again.rows > 0
    with transaction(engine) as session:
        scores = worst_series(session, experiment, QUARTER, metric="mae")
    assert set(scores["model"]) == {"MLP", "SeasonalNaive"}

    weights = next(f.place for f in matching(place(model), "*") if "safetensors" in f.place.name)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not forecast_quarter(engine, on_s3, pipeline, QUARTER, force=True).changed
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "third host"))
    (tmp_path / "third host").mkdir()
    with pytest.raises(ArtifactError, match=rf"{model}.* is not what was stored.*{sha256}"):
        forecast_quarter(engine, on_s3, pipeline, QUARTER, force=True)


def test_datasets__object_that_was_damaged_or_lost__is_refused_by_its_url(
    on_s3: Settings, bucket: UPath, engine: Engine
) -> None:
    pipeline = shop()
    (on_s3.data_dir / "history" / "shop.csv").write_text(sales().to_csv(index=False))
    version = ingest_quarters(engine, on_s3, pipeline, [QUARTER])[QUARTER]
    again = ingest_quarters(engine, on_s3, pipeline, [QUARTER], force=True)[QUARTER]

    assert (again.changed, again.path) == (False, version.path)
    assert isinstance(version.path, UPath)
    version.path.write_bytes(b"PAR1")
    with (
        transaction(engine) as session,
        pytest.raises(DatasetError, match=rf"{version.path} is not"),
    ):
        load_panel(session, pipeline, QUARTER, QUARTER)
    version.path.unlink()
    with (
        transaction(engine) as session,
        pytest.raises(DatasetError, match=rf"{version.path} is miss"),
    ):
        load_panel(session, pipeline, QUARTER, QUARTER)
    # Ingesting finds it gone, and writes it again.
    healed = ingest_quarters(engine, on_s3, pipeline, [QUARTER])[QUARTER]
    assert (healed.changed, healed.file_hash) == (False, version.file_hash)


def test_marks__of_a_listing_and_of_a_look__are_the_same(bucket: UPath) -> None:
    target = bucket / "x.csv"
    target.write_bytes(b"one")
    first = matching(bucket, "*.csv")[0].mark
    assert first == mark_of(target)
    target.write_bytes(b"two")

    assert matching(bucket, "*.csv")[0].mark != first


def test_checks__stores_that_can_and_cannot_be_used__say_so(
    on_s3: Settings, bucket: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = {finding.subject: finding for finding in check_folders(on_s3)}
    assert findings["DATA_DIR"].status == "ok"
    assert matching(bucket, "**") == []
    elsewhere = on_s3.model_copy(update={"data_dir": place("s3://nobodys/data")})
    assert {f.subject: f for f in check_folders(elsewhere)}["DATA_DIR"].status == "error"
    file = tmp_path / "shop.yaml"
    file.write_text("source: {files: 's3://forecasts/none/*.csv'}\nfrequency: D\nhorizon: 1\n")
    file.write_text(file.read_text() + "start: 2023-01-01\nmodels: [SeasonalNaive]\n")
    assert "no file matches 's3://forecasts/none/*.csv'" in (check_pipeline_file(file, on_s3) or "")

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.fs.clear_instance_cache()
    with pytest.raises(StorageError, match=r"s3://forecasts/x\.csv cannot be reached"):
        mark_of(place("s3://forecasts/x.csv"))
