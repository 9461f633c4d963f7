"""The small forecasting problem of the end-to-end tests, with a model whose parameters are searched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.end_to_end.conftest import Problem, make_problem, problem
from tests.search.searches import SPACE, ingest

__all__ = ["make_problem", "problem"]

Searching = Callable[..., Problem]


@pytest.fixture
def searching(make_problem: Callable[..., Problem], engine: Engine) -> Searching:
    """The problem with an AutoMLP of three trials, ingested."""

    def make(*, space: Any = SPACE, **search: Any) -> Problem:
        model = {"model": "AutoMLP", "search_space": space, "search": {"trials": 3, **search}}
        problem = make_problem(models=[model, "SeasonalNaive"])
        ingest(problem, engine)
        return problem

    return make
