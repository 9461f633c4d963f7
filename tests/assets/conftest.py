"""The small forecasting problem of the end-to-end tests."""

from tests.end_to_end.conftest import make_problem, problem

__all__ = ["make_problem", "problem"]
