"""The fingerprint of a computation: SHA-256 of canonical JSON.

Two payloads have the same fingerprint exactly if they hold the same values; the order of keys does
not matter. What belongs into a payload is decided by whoever computes (training, prediction,
evaluation).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ts_forecast.errors import TsForecastError


def fingerprint(payload: Mapping[str, object]) -> str:
    """64 hexadecimal digits that stand for the payload.

    Args:
        payload: strings, booleans, finite numbers (NumPy scalars too), None, and lists, tuples and
            mappings of them; a tuple counts as a list. Integers and floats differ (1 is not 1.0).

    Raises:
        TsForecastError: a value has no canonical form; names where it stands.

    >>> fingerprint({"model": "NHITS", "seed": 1}) == fingerprint({"seed": 1, "model": "NHITS"})
    True
    >>> len(fingerprint({"seed": 1}))
    64
    """
    return hashlib.sha256(canonical_json(payload).encode("ascii")).hexdigest()


def canonical_json(payload: Mapping[str, object]) -> str:
    """The text that ``fingerprint`` hashes: sorted keys, no spaces, ASCII.

    >>> canonical_json({"b": (1, 2.0), "a": None})
    '{"a":null,"b":[1,2.0]}'
    """
    return json.dumps(
        _plain(payload, ""),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions, read without importing; what is not installed is left out."""
    found: dict[str, str] = {}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: object, where: str) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(where, f"{value} is not a finite number")
        return value
    if isinstance(value, Mapping):
        # json.dumps would turn the key 1 into "1" and let the two collide.
        for key in value:
            if not isinstance(key, str):
                raise _refusal(where, f"the key {key!r} is no string")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item, f"{where}[{position}]") for position, item in enumerate(value)]
    raise _refusal(where, f"{type(value).__name__} has no canonical form")


def _refusal(where: str, problem: str) -> TsForecastError:
    return TsForecastError(
        f"A fingerprint cannot be made: {where.removeprefix('.') or 'payload'}: {problem}.",
        remedy="Use strings, finite numbers, booleans, null, lists and mappings with string keys.",
    )
