"""``v_champion_forecasts``: the production version's rows, of one leaf, under the reader's own rights."""

from __future__ import annotations

import re

from sqlalchemy import Engine, text

QUERY = (
    "SELECT model_name, predicted_value FROM v_champion_forecasts WHERE experiment_id = 1 "
    "AND prediction_date >= '2025-01-01' AND prediction_date < '2025-04-01'"
)


def quarter_of(teams: Engine, stage: str) -> None:
    with teams.begin() as connection:
        connection.execute(text("UPDATE models SET quarter_start = '2025-01-01'"))
        connection.execute(text("UPDATE model_registry SET experiment_id = 0"))
        connection.execute(text("UPDATE model_registry SET current_stage = :s"), {"s": stage})


def test_v_champion_forecasts__version_in_production__its_rows_and_no_others(teams: Engine) -> None:
    quarter_of(teams, "staging")
    with teams.connect() as connection:
        assert connection.execute(text(QUERY)).all() == []
    quarter_of(teams, "production")
    with teams.connect() as connection:
        assert connection.execute(text(QUERY)).all() == [("m", 2.5)]


def test_v_champion_forecasts__experiment_and_dates_named__reads_one_leaf(teams: Engine) -> None:
    quarter_of(teams, "production")

    with teams.connect() as connection:
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {QUERY}")))
        everything = "\n".join(
            connection.scalars(text("EXPLAIN SELECT * FROM v_champion_forecasts"))
        )

    leaf = r"predictions_\d{4}_q\d\w*"
    assert set(re.findall(leaf, plan)) == {"predictions_2025_q1_e1"}
    assert len(set(re.findall(leaf, everything))) > 1


def test_v_champion_forecasts__reader__sees_their_own_experiments(teams: Engine) -> None:
    quarter_of(teams, "production")
    seen = {}
    with teams.connect() as connection:
        connection.execute(text("SET ROLE readonly_user"))
        for user in ("carol", "bob"):
            connection.execute(
                text("SELECT set_config('app.current_user', :user, true)"), {"user": user}
            )
            seen[user] = connection.scalars(
                text("SELECT experiment_id FROM v_champion_forecasts")
            ).all()
        connection.rollback()

    assert seen == {"carol": [1], "bob": [2]}
