"""A deployment as users run it: ``ts-forecast dev``, a backfill from the UI, what the UI shows.

One server for the whole module: its own embedded PostgreSQL, webserver, daemon and code location.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests
from dagster._core.storage.tags import GRPC_INFO_TAG

from tests.end_to_end.problems import content, sales
from tests.end_to_end.serving import REPOSITORY, Deployment, serving
from ts_forecast.db.embedded import data_folder

pytestmark = pytest.mark.timeout(900)
QUARTERS = ["2023-04-01", "2023-07-01"]
# Not `plain`'s.
PREDICTIONS = (
    "(SELECT predictions.* FROM predictions JOIN experiments USING (experiment_id) "
    "WHERE experiment_name = 'shop') AS shop"
)
PLAIN = {
    "source": {"files": "raw/plain/*.csv"},
    "frequency": "D",
    "horizon": 14,
    "start": "2022-01-01",
    "window_quarters": 2,
    "models": ["SeasonalNaive"],
    "metrics": ["mae"],
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    sales().to_csv(raw / "shop.csv", index=False)
    (raw / "plain").mkdir()
    early = sales().query("unique_id == 'west' and ds < '2023-10-01'")
    early.to_csv(raw / "plain" / "until_september.csv", index=False)
    with serving(folder, {"shop": content(), "plain": PLAIN}) as running:
        yield running


@pytest.fixture(scope="module")
def trained(deployment: Deployment) -> Deployment:
    """The deployment after a backfill of data and models over two quarters, launched over GraphQL."""
    # Later runs need not import all that training needs.
    sockets = deployment.settings.home / "zygotes"
    deadline = time.monotonic() + 90
    while not (sockets.is_dir() and any(not path.suffix for path in sockets.iterdir())):
        assert time.monotonic() < deadline, deployment.tail()
        time.sleep(0.5)
    assets = deployment.webserver.asset_keys("shop")
    backfill(deployment, [path for path in assets if path[1] in ("datasets", "trained_models")])
    return deployment


@pytest.fixture(scope="module")
def backfilled(trained: Deployment) -> Deployment:
    """The deployment after a backfill of all the rest, or all of it."""
    assets = trained.webserver.asset_keys("shop")
    backfill(trained, [path for path in assets if path[1] not in ("datasets", "trained_models")])
    return trained


def backfill(deployment: Deployment, assets: list[list[str]]) -> None:
    server = deployment.webserver
    state = server.wait(server.launch(assets, QUARTERS), seconds=300)
    assert state.succeeded, (state, deployment.tail())


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A real browser without a window; skips where there is none."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    if browser_path is None or driver_path is None:
        pytest.skip("no Chromium and chromedriver on this machine (Debian: chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--disable-dev-shm-usage --window-size=1500,1000"
    ).split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def page_text(browser: Any) -> str:
    return str(browser.find_element("tag name", "body").text)


def test_ui__backfill_of_predictions_launched_by_clicking__succeeds_with_plots(
    trained: Deployment, browser: Any, pictures: Path
) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 120)

    def button(text: str) -> Any:
        """The button of that text, once it can be clicked."""
        path = f"//button[contains(normalize-space(.), '{text}') and not(@disabled)]"
        return wait.until(lambda b: next(iter(b.find_elements("xpath", path)), None))

    before = trained.rows(f"SELECT count(*) FROM {PREDICTIONS}")[0][0]
    page = f"{trained.address}/assets/shop/predictions"
    browser.get(page)
    button("Materialize…").click()
    # The dialog begins with those of the last 90 days.
    button("Show all partitions").click()
    dialog = "//*[contains(@class, 'dagster-portal')]//input[@type='text']"
    field = wait.until(lambda b: next(iter(b.find_elements("xpath", dialog)), None))
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(f"[{QUARTERS[0]}...{QUARTERS[-1]}]", Keys.TAB)
    launch = button("Launch backfill")
    assert browser.save_screenshot(str(pictures / "launch_backfill.png"))
    launch.click()

    (newest,) = wait.until(lambda _: newest_backfill(trained))
    state = trained.webserver.wait(newest["id"], seconds=240)
    assert state.succeeded, trained.tail()
    assert (newest["assetSelection"], newest["partitionNames"]) == (
        [{"path": ["shop", "predictions"]}],
        QUARTERS,
    )
    browser.get(f"{trained.address}/runs/b/{newest['id']}")
    wait.until(lambda b: "Status\nSucceeded" in page_text(b))
    assert browser.save_screenshot(str(pictures / "backfill.png"))
    assert before == 0 and trained.rows(f"SELECT count(*) FROM {PREDICTIONS}")[0][0] > 0
    for quarter in QUARTERS:
        browser.get(f"{page}?view=partitions&partition={quarter}")
        wait.until(lambda b: "content_hash" in page_text(b))
        wait.until(lambda b: b.find_elements("xpath", "//*[text()='[Show Markdown]']"))[0].click()
        wait.until(lambda b: b.find_elements("css selector", "img[src^='data:image/png']"))


def newest_backfill(deployment: Deployment) -> list[dict[str, Any]]:
    """The newest backfill of predictions alone, in a list; empty until there is one."""
    query = """query { partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills {
      results { id partitionNames assetSelection { path } } } } }"""
    found = deployment.webserver.query(query)["partitionBackfillsOrError"]["results"]
    return [one for one in found if one["assetSelection"] == [{"path": ["shop", "predictions"]}]]


@pytest.mark.long
def test_backfill_command__failed_quarter__stops_no_other_and_is_retried_alone(
    deployment: Deployment,
) -> None:
    def command(first: str, last: str) -> subprocess.CompletedProcess[str]:
        arguments = ["plain", "--from", first, "--to", last, "--server", deployment.address]
        return subprocess.run(
            [sys.executable, "-m", "assets.backfill_command", *arguments],
            capture_output=True,
            text=True,
            timeout=400,
            cwd=REPOSITORY,
        )

    def made() -> list[str]:
        query = (
            "SELECT DISTINCT s.quarter_start::text FROM metric_summaries s JOIN runs USING (run_id) "
            "JOIN experiments USING (experiment_id) WHERE experiment_name = 'plain' ORDER BY 1"
        )
        return [row[0] for row in deployment.rows(query)]

    # Nothing has been observed in the last of them.
    failed = command("2023-Q3", "2023-Q4")
    others = made()
    sales().query("unique_id == 'west' and ds >= '2023-10-01'").to_csv(
        deployment.raw / "plain" / "until_december.csv", index=False
    )
    alone = command("2023-Q4", "2023-Q4")

    assert failed.returncode == 1, failed.stderr
    assert "not complete: 2023-Q4" in failed.stderr
    assert "plain__datasets: " in failed.stderr and "Traceback" not in failed.stderr
    assert others == ["2023-07-01"]
    assert alone.returncode == 0, alone.stderr
    assert made() == ["2023-07-01", "2023-10-01"]


def test_backfill__its_workers_and_their_servers__are_born_of_the_zygote(
    trained: Deployment,
) -> None:
    query = """
    query Launches { runsOrError { ... on Runs { results { eventConnection { events {
      ... on StepWorkerStartingEvent { stepKey metadataEntries { ... on TextMetadataEntry { text } } }
    } } } } } }"""

    runs = trained.webserver.query(query)["runsOrError"]["results"]

    events = [event for run in runs for event in run["eventConnection"]["events"]]
    origins = {event["metadataEntries"][0]["text"] for event in events if event.get("stepKey")}
    assert origins
    assert all(origin.startswith("born of the zygote") for origin in origins), origins
    # A code server that has started a run's worker is noted at the run.
    tags = "SELECT value FROM dagster.run_tags WHERE key = :key"
    assert trained.rows(tags, key=GRPC_INFO_TAG) == []


def test_backfill__all_assets__has_every_row_of_the_definition(backfilled: Deployment) -> None:
    sundays = pd.date_range("2023-03-01", "2023-09-30", freq="W-SUN")
    reached = sum(
        pd.Timestamp("2023-04-01") <= day + pd.Timedelta(days=ahead) < pd.Timestamp("2023-10-01")
        for day in sundays
        for ahead in range(1, 15)
    )

    found = backfilled.rows(
        "SELECT model_name, unique_id, count(*), count(DISTINCT (prediction_date, horizon)) "
        f"FROM {PREDICTIONS} JOIN models USING (model_id) GROUP BY 1, 2"
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


@pytest.mark.long
def test_backfill__again__trains_nothing(backfilled: Deployment) -> None:
    runs = backfilled.rows("SELECT run_id, run_uuid FROM runs ORDER BY 1")
    server = backfilled.webserver

    state = server.wait(server.launch(server.asset_keys("shop"), QUARTERS[:1]), seconds=240)

    assert state.succeeded
    assert backfilled.rows("SELECT run_id, run_uuid FROM runs ORDER BY 1") == runs


def test_ui__real_browser__shows_the_graph_and_a_slice(
    backfilled: Deployment, browser: Any, pictures: Path
) -> None:
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 120)
    assets = f"{backfilled.address}/assets/shop"
    browser.get(f"{assets}/metric_summaries?view=lineage&lineageScope=upstream&lineageDepth=5")
    names = ("metric_summaries", "predictions", "NHITS", "MLP", "SeasonalNaive", "datasets")
    wait.until(lambda b: all(name in page_text(b) for name in names))
    with contextlib.suppress(TimeoutException):  # for the picture; a busy host takes its time
        wait.until(lambda b: "Loading" not in page_text(b))
    assert browser.save_screenshot(str(pictures / "asset_graph.png"))

    browser.get(f"{assets}/predictions?view=partitions&partition=2023-04-01")
    wait.until(lambda b: "content_hash" in page_text(b))
    assert "worst_series" in page_text(browser)
    assert browser.save_screenshot(str(pictures / "predictions_partition.png"))

    shown = wait.until(lambda b: b.find_elements(By.XPATH, "//*[text()='[Show Markdown]']"))
    browser.execute_script("arguments[0].click()", shown[0])
    plot = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png']"))
    wait.until(lambda b: plot[0].size["width"] > 300)
    assert browser.save_screenshot(str(pictures / "forecasts.png"))


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
