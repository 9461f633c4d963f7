"""A connection cut around COMMIT: the work is done once, or its caller is told that nobody knows.

A proxy cuts it; what becomes of other faults is in ``test_retry``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.orm import Session

from tests.db.cutting_proxy import CuttingProxy, When
from tests.db.shelf import HASTY, put, rows
from ts_forecast.db import commit
from ts_forecast.db.engine import create_engine
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import CommitUnknownError


@pytest.fixture
def proxy(database_url: str, tmp_path: Path) -> Iterator[CuttingProxy]:
    folder = make_url(database_url).query["host"]
    with CuttingProxy(Path(str(folder)), tmp_path) as made:
        yield made


@pytest.fixture
def through_proxy(database_url: str, proxy: CuttingProxy) -> Iterator[Engine]:
    url = make_url(database_url).update_query_dict({"host": str(proxy.folder)})
    pool = create_engine(url.render_as_string(hide_password=False))
    yield pool
    pool.dispose()


@pytest.mark.parametrize(
    ("when", "expected_calls"),
    [(When.BEFORE_COMMIT_ARRIVES, 2), (When.BEFORE_THE_ANSWER, 1)],
)
def test_in_transaction__cut_around_commit__is_done_exactly_once(
    shelf: Engine, proxy: CuttingProxy, through_proxy: Engine, when: When, expected_calls: int
) -> None:
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        # Twice there if the work were done twice: the key is the server's.
        session.execute(text("INSERT INTO shelf (n) SELECT count(*) + 1 FROM shelf"))
        if len(calls) == 1:
            proxy.cut_next_commit(when)
        return len(calls)

    assert in_transaction(through_proxy, work, patience=HASTY) == expected_calls
    assert proxy.cuts == 1
    assert rows(shelf) == [1]


def test_in_transaction__backend_does_not_notice_the_cut__is_ended_and_repeated(
    shelf: Engine,
    proxy: CuttingProxy,
    through_proxy: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that swallows packets: the backend waits in its transaction for a COMMIT."""
    monkeypatch.setattr(commit, "_ABANDONED_SECONDS", 0.3)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        put(session, 1)
        if len(calls) == 1:
            proxy.cut_next_commit(When.SERVER_NEVER_HEARS)

    in_transaction(through_proxy, work, patience=HASTY)

    assert (len(calls), rows(shelf)) == (2, [1])


def test_in_transaction__nothing_written_and_commit_cut__is_repeated_unasked(
    shelf: Engine, proxy: CuttingProxy, through_proxy: Engine
) -> None:
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        if len(calls) == 1:
            proxy.cut_next_commit(When.BEFORE_THE_ANSWER)
        return session.scalar(text("SELECT count(*) FROM shelf")) or 0

    assert in_transaction(through_proxy, work, patience=HASTY) == 0
    assert len(calls) == 2


def test_in_transaction__server_cannot_say__raises_and_does_not_repeat(
    shelf: Engine, proxy: CuttingProxy, through_proxy: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_LONGEST_SECONDS", 0.5)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        put(session, 1)
        proxy.cut_next_commit(When.BEFORE_THE_ANSWER, refuse_afterwards=True)

    with pytest.raises(CommitUnknownError, match="Look whether its rows are there"):
        in_transaction(through_proxy, work, patience=HASTY)

    assert (calls, rows(shelf)) == ([1], [1])
