"""Errors: they cross process borders whole, and each kind ends with its own exit code."""

from __future__ import annotations

import pickle

import pytest

from ts_forecast import errors
from ts_forecast.errors import TsForecastError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TsForecastError)
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remedy", ["Mend it.", ""])
def test_pickle__every_kind__gives_the_error_back(kind: type[TsForecastError], remedy: str) -> None:
    error = kind("bad.csv, row 3: no.", remedy=remedy)

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is kind
    assert (back.problem, back.remedy) == ("bad.csv, row 3: no.", remedy)
    assert str(back) == str(error) == f"bad.csv, row 3: no. {remedy}".strip()


@pytest.mark.parametrize("kind", KINDS)
def test_exit_code__every_kind__is_a_failure_that_the_shell_does_not_use(
    kind: type[TsForecastError],
) -> None:
    # 126 and above belong to the shell and to signals.
    assert 1 <= kind.exit_code < 126
