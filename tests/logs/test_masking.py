"""Secrets are in nothing that is logged."""

from __future__ import annotations

import pytest

from ts_forecast.logs.masking import Masker
from ts_forecast.settings import Settings


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://me:hunter2@db/x failed",
        "https://a:hunter2@h and redis://:hunter2@h",
        "host=db password=hunter2 user=me",
        "password='hunter2 \\' more' user=me",
        "PASSWORD = hunter2",
        "the bare hunter2, hunter2.",
        "hunter2",
    ],
)
def test_masker__secret_in_a_text__is_masked(text: str) -> None:
    shown = Masker(["hunter2"])(text)

    assert "hunter2" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    ["nothing to hide", "hunter22 and xhunter2", "http://host:80/path user@host", "a: b@c", ""],
)
def test_masker__no_secret__changes_nothing(text: str) -> None:
    assert Masker(["hunter2", "a"])(text) == text


def test_masker__of_settings__knows_each_of_them() -> None:
    settings = Settings(
        _env_file=None,
        database_url="postgresql://me:first%2Fone@db/x",
        database_read_url="postgresql://me:second-one@db/x",
        secret_keys="third-key=,fourth-key=",
    )

    shown = Masker.of(settings)("first/one first%2Fone second-one third-key= fourth-key= fifth")

    assert shown == "*** *** *** *** *** fifth"
