"""Equal values, equal fingerprints; different values, different ones."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ts_forecast.errors import TsForecastError
from ts_forecast.tracking.fingerprint import canonical_json, fingerprint, library_versions

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
payloads = st.dictionaries(st.text(), values)


def shuffled(value: object, order: random.Random) -> object:
    if isinstance(value, Mapping):
        items = [(key, shuffled(item, order)) for key, item in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


def typed(value: object) -> object:
    """A form in which 1, 1.0, True and -0.0, 0.0 differ, as they should."""
    if isinstance(value, Mapping):
        return {key: typed(item) for key, item in value.items()}
    return (
        [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))
    )


@settings(max_examples=50)
@given(payloads, st.randoms(use_true_random=False))
def test_fingerprint__key_order_is_irrelevant(
    payload: dict[str, object], order: random.Random
) -> None:
    assert fingerprint(shuffled(payload, order)) == fingerprint(payload)


@settings(max_examples=50)
@given(payloads, payloads)
def test_fingerprint__different_values_differ(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assume(typed(one) != typed(other))
    assert fingerprint(one) != fingerprint(other)


@given(st.lists(st.text(), min_size=2, unique=True))
def test_fingerprint__list_order_matters(items: list[str]) -> None:
    assert fingerprint({"a": items}) != fingerprint({"a": items[::-1]})


def test_fingerprint__numpy_scalars_and_tuples_count_as_plain() -> None:
    numpy = {"a": np.int64(3), "b": np.float64(0.5), "c": (1, np.bool_(True))}
    assert canonical_json(numpy) == canonical_json({"a": 3, "b": 0.5, "c": [1, True]})


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"a\.b\[1\]: nan is not a finite number"),
        ({"a": float("inf")}, "a: inf is not a finite number"),
        ({"a": {1: "x"}}, "a: the key 1 is no string"),
        ({"a": {1, 2}}, "a: set has no canonical form"),
        ({"a": b"x"}, "a: bytes has no canonical form"),
        ({"a": np.zeros(2)}, "a: ndarray has no canonical form"),
    ],
)
def test_fingerprint__refuses_what_has_no_canonical_form(
    payload: dict[str, object], problem: str
) -> None:
    with pytest.raises(TsForecastError, match=problem):
        fingerprint(payload)


def test_library_versions__leaves_out_what_is_absent() -> None:
    assert list(library_versions("numpy", "no-such-distribution")) == ["numpy"]
