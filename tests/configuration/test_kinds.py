"""Stored settings: a value comes back as it went in, and what does not fit is refused unquoted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.configuration.kinds import Kind, Value, kind_of, to_text, to_value
from ts_forecast.errors import ConfigurationError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON)
def test_to_text__any_value__comes_back_as_its_kind(value: Value) -> None:
    for kind in {kind_of(value), "json"}:
        back = to_value("a", to_text("a", value, kind), kind)

        assert back == value
        assert type(back) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (" 42\n", "integer", 42),
        ("-7", "integer", -7),
        ("1e-3", "float", 0.001),
        ("3", "float", 3.0),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        (" kept as it is ", "string", " kept as it is "),
        ('{"a": [1, null]}', "json", {"a": [1, None]}),
    ],
)
def test_to_value__what_people_type__is_read(text: str, kind: Kind, value: Value) -> None:
    found = to_value("a", text, kind)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hunter2", "integer"),
        ("1.5", "integer"),
        ("1_000", "integer"),
        ("٣", "integer"),
        ("1" * 5000, "integer"),
        ("hunter2", "float"),
        ("nan", "float"),
        ("1e999", "float"),
        ("1_0.5", "float"),
        ("", "float"),
        ("yes", "boolean"),
        ("1", "boolean"),
        ("{hunter2}", "json"),
        ("NaN", "json"),
        ("[" * 100_000, "json"),
        ("hunter2\x00", "string"),
        ("hunter2\ud800", "string"),
    ],
)
def test_to_value__does_not_fit__is_refused_without_quoting_it(text: str, kind: Kind) -> None:
    with pytest.raises(
        ConfigurationError, match=f"The value of a.b is not of the type {kind}"
    ) as no:
        to_value("a.b", text, kind)

    assert "hunter2" not in str(no.value)
    assert no.value.__cause__ is None and no.value.__suppress_context__ is (
        no.value.__context__ is not None
    )
    assert no.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, "integer"),
        (True, "integer"),
        (1, "boolean"),
        ("1", "integer"),
        (math.inf, "float"),
        (math.nan, "json"),
        ([1], "string"),
        ({"a": object()}, "json"),
        ("\x00", "string"),
    ],
)
def test_to_text__value_of_another_type__is_refused(value: Value, kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match="is not of the type"):
        to_text("a", value, kind)
