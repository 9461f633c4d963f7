"""The pipeline with published slices of the evaluation tests; its models have records here."""

from tests.evaluation.conftest import problem

__all__ = ["problem"]
