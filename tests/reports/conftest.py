"""The pipeline with published slices of the evaluation tests."""

from tests.evaluation.conftest import problem

__all__ = ["problem"]
