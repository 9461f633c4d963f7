"""What a receipt is worth: in the life of the server that gave it, after a crash, and for too long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from ts_forecast.db.commit import Receipt, note, was_committed
from ts_forecast.db.embedded import start_embedded, stop_embedded
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.errors import CommitUnknownError
from ts_forecast.settings import Settings

LOST = OperationalError("COMMIT", {}, psycopg.OperationalError("server closed the connection"))
AN_EARLIER_LIFE = datetime(2020, 1, 1, tzinfo=UTC)


def receipt_of(engine: Engine, *, commit: bool) -> Receipt:
    found: Receipt | None = None
    try:
        with transaction(engine) as session:
            session.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
            found = note(session)
            if not commit:
                raise InterruptedError
    except InterruptedError:
        pass
    assert found is not None
    return found


@pytest.mark.parametrize("commit", [True, False])
def test_was_committed__same_life__is_what_happened(engine: Engine, commit: bool) -> None:
    assert was_committed(engine, receipt_of(engine, commit=commit), LOST) is commit


def test_note__nothing_written__is_none(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("SELECT count(*) FROM experiments"))
        assert note(session) is None


def test_was_committed__number_may_be_anothers_by_now__says_so(engine: Engine) -> None:
    number = receipt_of(engine, commit=True).transaction_id

    with pytest.raises(CommitUnknownError, match="the server has crashed since"):
        was_committed(engine, Receipt(number, AN_EARLIER_LIFE), LOST)


def test_was_committed__another_got_the_number_and_was_aborted__so_was_ours(engine: Engine) -> None:
    number = receipt_of(engine, commit=False).transaction_id

    assert not was_committed(engine, Receipt(number, AN_EARLIER_LIFE), LOST)


def test_was_committed__number_not_given_out_again_yet__is_aborted(engine: Engine) -> None:
    receipt = receipt_of(engine, commit=True)
    number = str(int(receipt.transaction_id) + 1_000_000)

    assert not was_committed(engine, Receipt(number, AN_EARLIER_LIFE), LOST)
    with pytest.raises(CommitUnknownError, match="in the future"):
        was_committed(engine, Receipt(number, receipt.life), LOST)


def test_was_committed__forgotten__says_so(engine: Engine) -> None:
    life = receipt_of(engine, commit=True).life

    # Frozen when the cluster was made; whose it was is known to nobody.
    with pytest.raises(CommitUnknownError, match="too long ago"):
        was_committed(engine, Receipt("3", life), LOST)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Settings]:
    """A server for this test alone."""
    settings = Settings(_env_file=None, home=tmp_path / "home")
    yield settings
    stop_embedded(settings)


def test_note__life__changes_with_a_crash_and_not_with_a_restart(lone: Settings) -> None:
    first = life_of(lone)
    stop_embedded(lone)
    assert life_of(lone) == first

    engine = create_engine(start_embedded(lone), lone)
    with pytest.raises(OperationalError), engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        os.kill(pid or 0, signal.SIGKILL)
        time.sleep(0.2)
        connection.execute(text("SELECT 1"))
    engine.dispose()

    assert life_of(lone) > first


def life_of(settings: Settings) -> datetime:
    engine = create_engine(start_embedded(settings), settings)
    with transaction(engine) as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS shelf (n int)"))
        session.execute(text("INSERT INTO shelf VALUES (1)"))
        found = note(session)
    engine.dispose()
    assert found is not None and found.life is not None
    return found.life
