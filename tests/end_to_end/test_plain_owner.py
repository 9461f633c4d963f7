"""The whole way on a server where our login owns the tables and is no superuser.

Row-level security is forced, so it binds this owner as far as policies say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from tests.end_to_end.conftest import Problem
from tests.end_to_end.test_promises import QUARTER, materialize
from ts_forecast.db import migrate
from ts_forecast.db.engine import create_engine

MODELS = [{"model": "SeasonalNaive"}, {"model": "HistoricAverage"}]


@pytest.fixture
def plain(debian_server: Engine) -> Iterator[Engine]:
    """A login without any attribute, on a migrated database that it owns."""
    with debian_server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS owned WITH (FORCE)"))
        connection.execute(text("DROP ROLE IF EXISTS owner_of_tables"))
        connection.execute(text("CREATE ROLE owner_of_tables LOGIN"))
        connection.execute(text("CREATE DATABASE owned OWNER owner_of_tables TEMPLATE template0"))
    url = debian_server.url.set(username="owner_of_tables", database="owned")
    engine = create_engine(url.render_as_string(hide_password=False))
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


def test_whole_way__owner_without_attributes__twice_the_same_rows(
    plain: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={})

    materialize(problem, plain)
    with plain.connect() as connection:
        first = connection.execute(text("SELECT count(*), max(run_id) FROM predictions")).one()
    again = materialize(problem, plain)

    assert all(outcome.reused for outcome in again.values())
    with plain.connect() as connection:
        assert (
            connection.execute(text("SELECT count(*), max(run_id) FROM predictions")).one() == first
        )
        assert first[0] > 1000
        lineage = (
            connection.execute(
                text(
                    "SELECT * FROM v_forecast_lineage WHERE experiment_id = 1 AND prediction_date >= :day "
                    "AND prediction_date < :end LIMIT 1"
                ),
                {"day": QUARTER.start, "end": QUARTER.end},
            )
            .mappings()
            .one()
        )
        performance = connection.execute(
            text("SELECT count(*) FROM models WHERE status = 'evaluated'")
        ).scalar_one()
    assert performance == len(MODELS)
    window = [f"shop/{part.label}" for part in problem.pipeline.window(QUARTER)]
    assert [used["dataset_name"] for used in lineage["training_datasets"]] == window
    assert len(lineage["prediction_datasets"]) == len(window) + 1
    assert all(
        len(source["sha256"]) == 64
        for used in lineage["prediction_datasets"]
        for source in used["sources"]
    )
