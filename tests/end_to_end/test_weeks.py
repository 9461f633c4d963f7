"""Weeks of files arrive at a deployment that runs by itself; parts of it are killed meanwhile.

Whatever the order, whatever was late, restated, malformed or half written, and whoever died: the tables
end as a clean rebuild from the final files, no work was done twice, and no quarter was missed.

``python -m pytest -m long tests/end_to_end/test_weeks.py`` kills each part once, and then plays a random
year with kills at random moments; WEEKS_SEED and WEEKS_ROUNDS change it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.end_to_end.serving import Deployment, Part, serving
from tests.end_to_end.weeks import (
    Source,
    assert_none_missed,
    assert_nothing_twice,
    contents,
    definition,
    rebuilt,
    runs_of,
    settle,
    wait_for_run,
)
from ts_forecast.db.database import open_database
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.settings import Settings

pytestmark = pytest.mark.timeout(1200)
VARIABLES = {"TS_FORECAST_LOOK_SECONDS": "1", "TS_FORECAST_SLOTS": "2", "ENABLE_GPU": "false"}
PARTS: tuple[Part, ...] = ("daemon", "webserver", "database")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One server with a pipeline for each test; its sources are empty when it starts."""
    pipelines = {name: definition(name) for name in ("calm", "stormy")}
    with serving(tmp_path_factory.mktemp("weeks"), pipelines, VARIABLES) as running:
        yield running


@pytest.fixture
def check_end(settings: Settings, engine: Engine) -> Callable[[Deployment, str, Source], None]:
    """Compare what a pipeline came to with a rebuild in the database of this test."""

    def check(deployment: Deployment, name: str, source: Source) -> None:
        assert_nothing_twice(deployment, name)
        assert_none_missed(deployment, name, source.good)
        database = open_database(deployment.settings)
        try:
            found = contents(database.engine, name)
        finally:
            database.engine.dispose()
        pipeline = parse_pipeline({"name": name, **definition(name)}, origin="weeks")
        wanted = rebuilt(engine, settings, pipeline, source.good)
        for table, rows in wanted.items():
            assert rows, table
            assert found[table] == rows, table

    return check


@pytest.mark.long
def test_weeks__in_disorder__end_as_a_clean_rebuild(
    deployment: Deployment, check_end: Callable[[Deployment, str, Source], None]
) -> None:
    source = Source(deployment.raw / "calm")
    source.weeks([week for week in range(20) if week not in (3, 9)])
    source.malformed(20)
    wait_for_run(deployment, "calm", after=0, seconds=240)
    # While the first quarters are made: two late ones, the bad one mended, one written slowly.
    writer = source.slowly(28, seconds=12)
    source.weeks([9, 3, 20, *range(21, 28)])
    writer.join()
    settle(deployment, "calm", seconds=400)
    source.restate(14, edition=1, shift=2.0)
    source.week(27, shift=1.0)
    source.malformed(29)
    settle(deployment, "calm", seconds=400)

    check_end(deployment, "calm", source)
    assert {run["status"] for run in runs_of(deployment, "calm")} == {"SUCCESS"}


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_weeks__each_part_killed__end_as_a_clean_rebuild(
    deployment: Deployment, check_end: Callable[[Deployment, str, Source], None], seed: int
) -> None:
    chance = random.Random(seed)
    source = Source(deployment.raw / "stormy")
    source.weeks(range(16))
    for number, part in enumerate(chance.sample(PARTS, k=3)):
        wait_for_run(deployment, "stormy", after=number, seconds=240)
        moment = chance.uniform(0, 6)
        time.sleep(moment)
        assert deployment.kill(part)
        print(f"{part} killed {moment:.1f} s after run {number + 1} was asked for")
        source.week(16 + number)
        source.restate(13, edition=number, shift=number + 1.0)
    settle(deployment, "stormy", seconds=600)

    check_end(deployment, "stormy", source)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_weeks__a_random_year_and_random_kills__end_as_a_clean_rebuild(
    tmp_path: Path, check_end: Callable[[Deployment, str, Source], None]
) -> None:
    seed = int(os.environ.get("WEEKS_SEED", time.time()))
    rounds = int(os.environ.get("WEEKS_ROUNDS", 8))
    print(f"WEEKS_SEED={seed} WEEKS_ROUNDS={rounds}")
    chance = random.Random(seed)
    # Beside what is rebuilt.
    folder = tmp_path / "served"
    with serving(folder, {"year": definition("year")}, VARIABLES) as deployment:
        source = Source(deployment.raw / "year")
        with killing(deployment, random.Random(chance.random())):
            arrive(source, chance, rounds)
        settle(deployment, "year", seconds=600)
        check_end(deployment, "year", source)


def arrive(source: Source, chance: random.Random, rounds: int) -> None:
    """Some weeks a round, in any order, with all that can be wrong with them."""
    week, late, broken = 0, [], []
    for number in range(rounds):
        fresh = list(range(week, week + chance.randint(4, 8)))
        week = fresh[-1] + 1
        if number and chance.random() < 0.6:
            late.append(fresh.pop(chance.randrange(len(fresh))))
        if chance.random() < 0.5:
            broken.append(fresh.pop(chance.randrange(len(fresh))))
            source.malformed(broken[-1])
        slow = source.slowly(fresh.pop(), seconds=chance.uniform(3, 15))
        source.weeks(chance.sample(fresh, k=len(fresh)))
        if late and chance.random() < 0.5:
            source.week(late.pop(0))
        if broken and chance.random() < 0.5:
            source.week(broken.pop(0))
        if chance.random() < 0.5:
            source.restate(chance.choice(fresh), edition=number, shift=chance.uniform(-3, 3))
        if chance.random() < 0.3:
            source.week(chance.choice(fresh), shift=chance.uniform(-3, 3))
        slow.join()
        time.sleep(chance.uniform(0, 40))
    source.weeks(late)


@contextmanager
def killing(deployment: Deployment, chance: random.Random) -> Iterator[None]:
    """Kill a part now and then, as often as one that watches over them lets pass (five in ten minutes)."""
    done = threading.Event()

    def kill() -> None:
        moments: dict[Part, list[float]] = {part: [] for part in PARTS}
        while not done.wait(chance.uniform(10, 45)):
            part = chance.choice(PARTS)
            now = time.monotonic()
            moments[part] = [moment for moment in moments[part] if now - moment < 600]
            if len(moments[part]) < 4 and deployment.kill(part):
                moments[part].append(now)
                print(f"{time.strftime('%X')} killed the {part}")

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
