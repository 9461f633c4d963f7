"""Every record becomes one whole line that a machine can read, whatever was logged."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.logs.context import bound
from ts_forecast.logs.formatters import JsonFormatter, TextFormatter
from ts_forecast.logs.masking import Masker

MASK = Masker(["hunter2"])


class Hostile:
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def record(message: object = "hello", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("shop").makeRecord(
        "shop", logging.WARNING, "f", 1, message, args, None, extra=extra or None
    )
    made.created = 1_700_000_000.25
    return made


def line(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter(MASK).format(made)
    assert "\n" not in text
    text.encode("utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return found


def test_json__record_with_context__has_all_of_it() -> None:
    with bound(pipeline="shop", quarter="2025-Q1", run_id=7):
        found = line(record("%d rows", 3, file="a.csv", level="mine"))

    pid = found.pop("pid")
    assert isinstance(pid, int)
    assert found == {
        "time": "2023-11-14T22:13:20.250000+00:00",
        "level": "WARNING",
        "logger": "shop",
        "message": "3 rows",
        "pipeline": "shop",
        "quarter": "2025-Q1",
        "run_id": 7,
        "file": "a.csv",
        "level_": "mine",
    }


def test_json__exception__has_type_and_stack_and_no_secret() -> None:
    try:
        raise json.JSONDecodeError("bad password=hunter2", "", 0)
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)

    found = line(made)

    assert found["exception_type"] == "json.decoder.JSONDecodeError"
    assert "Traceback" in found["stack_trace"] and "test_formatters.py" in found["stack_trace"]
    assert "hunter2" not in str(found)


def test_json__record_that_dagster_rewrote__is_what_was_said() -> None:
    made = record("warning - 1234 - fit - hello", note="mine")
    made.dagster_meta = {"orig_message": "hello", "run_id": "1234", "step_key": "fit", "other": 1}

    found = line(made)

    assert found["message"] == "hello"
    assert (found["dagster_run"], found["step"], found["note"]) == ("1234", "fit", "mine")
    assert "dagster_meta" not in found and "other" not in found


def test_text__record__is_a_line_and_its_stack() -> None:
    with bound(quarter="2025-Q1"):
        made = record("as %s", "hunter2")
    made.exc_info = (ValueError, ValueError("x"), None)
    text = TextFormatter(MASK).format(made)

    assert text.splitlines()[0] == "2023-11-14 22:13:20 WARNING  shop: as ***"
    assert text.splitlines()[1:] == ["ValueError: x"]


@pytest.mark.parametrize(
    ("message", "args", "pattern"),
    [
        ("a\x00b", (), "a\\x00b"),
        ("lone \ud800 surrogate", (), "lone \\ud800 surrogate"),
        ("%d", ("no number",), "its arguments do not fit: TypeError"),
        (Hostile(), (), "<Hostile: RuntimeError in its __str__> (its arguments do not fit"),
        ("%s", (Hostile(),), "its arguments do not fit: RuntimeError"),
        ("x" * 1_000_000, (), "(1000000 characters)"),
        ("two\nlines", (), "two\nlines"),
    ],
)
def test_json__bad_message__keeps_the_record(
    message: object, args: tuple[object, ...], pattern: str
) -> None:
    found = line(record(message, *args))

    assert pattern in found["message"]
    assert len(found["message"]) < 40_000


def test_json__bad_extras__are_told_as_text() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = line(
        record(
            nan=math.nan,
            big=2**80,
            hostile=Hostile(),
            loop=loop,
            keys={1: "a", "secret": "hunter2"},
            many=list(range(1000)),
            raw=b"\x00",
        )
    )

    assert found["nan"] == "nan"
    assert found["big"] == str(2**80)
    assert "RuntimeError in its __str__" in found["hostile"]
    assert found["keys"] == {"1": "a", "secret": "***"}
    assert len(found["many"]) == 50


@given(st.text(st.characters()), st.dictionaries(st.text(min_size=1).map("x{}".format), st.text()))
def test_json__any_text__is_read_back(message: str, extra: dict[str, str]) -> None:
    assert set(line(record(message.replace("%", ""), **extra))) >= {"message", "time", "pid"}


@pytest.mark.parametrize(
    ("number", "name"),
    [(5, "DEBUG"), (25, "INFO"), (35, "WARNING"), (45, "ERROR"), (99, "CRITICAL")],
)
def test_json__level_of_a_librarys_own__is_one_of_five(number: int, name: str) -> None:
    made = record()
    made.levelno, made.levelname = number, "NOTICE"

    assert line(made)["level"] == name
