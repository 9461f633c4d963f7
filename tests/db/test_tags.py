"""The catalogue of tags counts the rows that carry each."""

from __future__ import annotations

import threading

from sqlalchemy import Engine, text


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT tag_name, usage_count FROM tags ORDER BY tag_name"))
        return {name: count for name, count in rows}


def test_count_tags__rows_come_change_and_go__counts_follow(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO experiments (experiment_name, tags) "
                """VALUES ('a', '{"team": "x", "site": 1}'), ('b', '{"team": "y"}'), ('c', NULL)"""
            )
        )
    assert counts(engine) == {"site": 1, "team": 2}

    with engine.begin() as connection:
        connection.execute(
            text(
                """UPDATE experiments SET tags = '{"team": "z", "new": null}' WHERE experiment_id=1"""
            )
        )
    assert counts(engine) == {"new": 1, "site": 0, "team": 2}

    with engine.begin() as connection:
        connection.execute(text("DELETE FROM experiments"))
    assert counts(engine) == {"new": 0, "site": 0, "team": 0}


def test_count_tags__tags_that_are_no_object_or_too_long__are_no_tags(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO experiments (experiment_name, tags) VALUES ('a', '[1]'), ('b', '7')")
        )
        connection.execute(
            text(
                "INSERT INTO experiments (experiment_name, tags) "
                "VALUES ('c', jsonb_build_object(repeat('x', 300), 1))"
            )
        )

    assert counts(engine) == {}


def test_count_tags__rolled_back__counts_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(
            text("""INSERT INTO experiments (experiment_name, tags) VALUES ('a', '{"team": 1}')""")
        )
        connection.rollback()

    assert counts(engine) == {}


def test_count_tags__transaction_stays_open__holds_up_nobody(engine: Engine) -> None:
    statement = text(
        "INSERT INTO experiments (experiment_name, tags) VALUES (:name, '{\"team\": 1}')"
    )
    done = threading.Event()

    def other() -> None:
        with engine.begin() as connection:
            connection.execute(statement, {"name": "b"})
        done.set()

    with engine.begin() as connection:
        connection.execute(statement, {"name": "a"})
        thread = threading.Thread(target=other)
        thread.start()
        assert done.wait(timeout=10), "a tag's row was locked before the commit"
    thread.join()

    assert counts(engine) == {"team": 2}
