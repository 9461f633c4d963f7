"""The fingerprint of a computation: equal fingerprints, equal results.

Hashing only; what goes into a fingerprint is decided by the room that computes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version

from ts_forecast.errors import TsForecastError


def fingerprint(payload: Mapping[str, object]) -> str:
    """SHA-256 of canonical JSON: sorted keys, no blanks, no NaN.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    True

    Raises:
        TsForecastError: a value is not JSON.
    """
    try:
        text = json.dumps(
            payload, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )
    except (TypeError, ValueError) as error:
        raise TsForecastError(f"A fingerprint needs JSON values: {error}.") from error
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions, read without importing the libraries."""
    return {name: version(name) for name in sorted(names)}
