"""A deployment as users run it: ``ts-forecast dev``, a backfill from the UI, what the UI shows.

One server for the whole module: its own embedded PostgreSQL, webserver, daemon and code location.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests
import yaml
from sqlalchemy import text

from assets.backfill import Webserver
from tests.end_to_end.problems import content, sales
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import data_folder, stop_embedded
from ts_forecast.settings import Settings

pytestmark = pytest.mark.timeout(420)
REPOSITORY = Path(__file__).parents[2]
QUARTERS = ["2023-04-01", "2023-07-01"]


@dataclass
class Deployment:
    """A running deployment and what a user has of it."""

    address: str
    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def webserver(self) -> Webserver:
        return Webserver(self.address)

    def rows(self, sql: str) -> list[Any]:
        database = open_database(self.settings)
        try:
            with database.engine.connect() as connection:
                return list(connection.execute(text(sql)))
        finally:
            database.engine.dispose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything that it started, by PID."""
    if process.poll() is not None:
        return
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(tree, timeout=20)
    for survivor in alive:
        survivor.kill()
    process.wait(timeout=10)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "shop.yaml").write_text(yaml.safe_dump(content()), encoding="utf-8")
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    sales().to_csv(raw / "shop.csv", index=False)
    places = {
        "TS_FORECAST_HOME": folder / "home",
        "TS_FORECAST_PIPELINES": folder / "pipelines",
        "DATA_DIR": folder / "data",
        "MODEL_DIR": folder / "models",
        "OUTPUT_DIR": folder / "outputs",
        "LOG_DIR": folder / "logs",
    }
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DAGSTER", "DATABASE", "TS_FORECAST"))
    }
    environment |= {name: str(place) for name, place in places.items()}
    port = free_port()
    log = folder / "server.log"
    settings = Settings(
        _env_file=None,
        home=folder / "home",
        pipelines_dir=folder / "pipelines",
        data_dir=folder / "data",
        model_dir=folder / "models",
        output_dir=folder / "outputs",
        log_dir=folder / "logs",
        database_url=None,
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "assets.serve", "--port", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Deployment(f"http://127.0.0.1:{port}", settings, process, log)
    try:
        wait_until_served(running)
        yield running
    finally:
        end_tree(process)
        stop_embedded(settings)


def wait_until_served(deployment: Deployment, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert deployment.process.poll() is None, deployment.log.read_text()[-3000:]
        try:
            if deployment.webserver.asset_keys("shop"):
                return
        except Exception:
            pass
        assert time.monotonic() < deadline, deployment.log.read_text()[-3000:]
        time.sleep(0.5)


@pytest.fixture(scope="module")
def backfilled(deployment: Deployment) -> Deployment:
    """The deployment after a backfill of all assets over two quarters, launched over GraphQL."""
    server = deployment.webserver
    backfill = server.launch(server.asset_keys("shop"), QUARTERS)
    state = server.wait(backfill, seconds=300)
    assert state.succeeded, (state, deployment.log.read_text()[-3000:])
    return deployment


def test_backfill__all_assets__has_every_row_of_the_definition(backfilled: Deployment) -> None:
    sundays = pd.date_range("2023-03-01", "2023-09-30", freq="W-SUN")
    reached = sum(
        pd.Timestamp("2023-04-01") <= day + pd.Timedelta(days=ahead) < pd.Timestamp("2023-10-01")
        for day in sundays
        for ahead in range(1, 15)
    )

    found = backfilled.rows(
        "SELECT model_name, unique_id, count(*), count(DISTINCT (prediction_date, horizon)) "
        "FROM predictions JOIN models USING (model_id) GROUP BY 1, 2"
    )

    # Every target of either quarter from every cutoff that reaches it; a pair belongs to one slice.
    assert len(found) == 9
    assert {(row[2], row[3]) for row in found} == {(reached, reached)}


def test_backfill__asset_pages__have_metadata_and_window_datasets(backfilled: Deployment) -> None:
    query = """
    query Materialized($key: AssetKeyInput!) {
      assetNodeOrError(assetKey: $key) { ... on AssetNode {
        assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }
        assetMaterializations(limit: 20) { partition metadataEntries { label __typename } }
      } }
    }"""

    answer = backfilled.webserver.query(query, key={"path": ["shop", "predictions"]})
    datasets = backfilled.webserver.query(query, key={"path": ["shop", "datasets"]})

    events = answer["assetNodeOrError"]["assetMaterializations"]
    assert {event["partition"] for event in events} == set(QUARTERS)
    labels = {entry["label"] for entry in events[0]["metadataEntries"]}
    assert {"dagster/row_count", "forecasts", "worst_series", "content_hash"} <= labels
    ranges = datasets["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]
    # The training windows before the backfilled quarters were ingested on the way.
    assert [(r["startKey"], r["status"]) for r in ranges] == [("2022-04-01", "MATERIALIZED")]


def test_backfill__again__trains_nothing(backfilled: Deployment) -> None:
    runs = backfilled.rows("SELECT run_id, run_uuid FROM runs ORDER BY 1")
    server = backfilled.webserver

    state = server.wait(server.launch(server.asset_keys("shop"), QUARTERS[:1]), seconds=240)

    assert state.succeeded
    assert backfilled.rows("SELECT run_id, run_uuid FROM runs ORDER BY 1") == runs


def test_ui__real_browser__shows_the_graph_and_a_slice(
    backfilled: Deployment, tmp_path: Path
) -> None:
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    if browser_path is None or driver_path is None:
        pytest.skip("no Chromium and chromedriver on this machine (Debian: chromium-driver)")
    from selenium import webdriver
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--disable-dev-shm-usage --window-size=1500,1000"
    ).split():
        options.add_argument(flag)
    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:

        def text_of_page(_: Any) -> str:
            return browser.find_element(By.TAG_NAME, "body").text

        wait = WebDriverWait(browser, 120)
        assets = f"{backfilled.address}/assets/shop"
        browser.get(f"{assets}/metric_summaries?view=lineage&lineageScope=upstream&lineageDepth=5")
        names = ("metric_summaries", "predictions", "NHITS", "MLP", "SeasonalNaive", "datasets")
        wait.until(lambda b: all(name in text_of_page(b) for name in names))
        with contextlib.suppress(TimeoutException):  # for the picture; a busy host takes its time
            wait.until(lambda b: "Loading" not in text_of_page(b))
        assert browser.save_screenshot(str(pictures / "asset_graph.png"))

        browser.get(f"{assets}/predictions?view=partitions&partition=2023-04-01")
        wait.until(lambda b: "content_hash" in text_of_page(b))
        assert "worst_series" in text_of_page(browser)
        assert browser.save_screenshot(str(pictures / "predictions_partition.png"))

        shown = wait.until(lambda b: b.find_elements(By.XPATH, "//*[text()='[Show Markdown]']"))
        browser.execute_script("arguments[0].click()", shown[0])
        plot = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png']"))
        wait.until(lambda b: plot[0].size["width"] > 300)
        assert browser.save_screenshot(str(pictures / "forecasts.png"))
    finally:
        browser.quit()


def test_webserver__killed_embedded_server__is_started_again(backfilled: Deployment) -> None:
    before = backfilled.rows("SELECT count(*) FROM predictions")
    pid_file = data_folder(backfilled.settings) / "postmaster.pid"
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    for process in [postmaster, *postmaster.children()]:
        with suppress(psutil.NoSuchProcess):
            process.kill()

    deadline = time.monotonic() + 60
    while True:
        try:
            assert backfilled.rows("SELECT count(*) FROM predictions") == before
            assert requests.get(f"{backfilled.address}/server_info", timeout=5).ok
            # Its pooled connections to the dead server fail once each, then are replaced.
            assert backfilled.webserver.asset_keys("shop")
            return
        except AssertionError:
            raise
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(1)
