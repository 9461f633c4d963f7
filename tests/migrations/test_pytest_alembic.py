"""pytest-alembic's built-in checks, on both servers, called without its plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_alembic import Config, runner
from pytest_alembic.runner import MigrationContext
from pytest_alembic.tests import (  # noqa: F401 (tests)
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine

from ts_forecast.db import migrate


@pytest.fixture
def alembic_runner(empty: Engine) -> Iterator[MigrationContext]:
    """What the checks drive: our migrations on an empty database."""
    with runner(Config(alembic_config=migrate._config()), engine=empty) as context:
        yield context
