"""The types of stored settings: from a value to its text and back, refusing what does not fit.

Texts are what PostgreSQL holds; which setting has which type is ``values``' matter. No message quotes a
value: it may be a secret.
"""

from __future__ import annotations

import json
import math
import re
from typing import Literal, get_args

from ts_forecast.errors import ConfigurationError

Kind = Literal["string", "integer", "float", "boolean", "json"]
Value = str | int | float | bool | dict[str, object] | list[object] | None

KINDS: tuple[Kind, ...] = get_args(Kind)
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_EXPECTED: dict[Kind, str] = {
    "string": "text without NUL and lone surrogates",
    "integer": "a whole number",
    "float": "a finite number",
    "boolean": "true or false",
    "json": "JSON without NaN and Infinity",
}


def kind_of(value: Value) -> Kind:
    """The type that stores a value without loss.

    >>> kind_of(True), kind_of(1), kind_of(0.5), kind_of("x"), kind_of(None)
    ('boolean', 'integer', 'float', 'string', 'json')
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else "json"


def to_text(key: str, value: Value, kind: Kind) -> str:
    """The text that stores a value; ``to_value`` gives the value back.

    A whole number may be stored as a float; nothing else is converted.

    Raises:
        ConfigurationError: the value is not of the type.
    """
    given = kind_of(value)
    fits = kind in (given, "json") or (kind == "float" and given == "integer")
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise _misfit(key, kind)
    if isinstance(value, str) and kind == "string":
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            raise _misfit(key, kind) from None
    return _storable(key, text, kind)


def to_value(key: str, text: str, kind: Kind) -> Value:
    """The value of a text: one that is stored, or that somebody typed.

    Raises:
        ConfigurationError: the text does not stand for a value of the type.
    """
    _storable(key, text, kind)
    stripped = text.strip()
    value: Value
    if kind == "string":
        return text
    if kind == "boolean":
        value = {"true": True, "false": False}.get(stripped.lower())
        if value is None:
            raise _misfit(key, kind)
        return value
    try:
        if kind == "json":
            value = json.loads(stripped, parse_constant=_refuse_constant)
            return value
        if kind == "integer" and _INTEGER.fullmatch(stripped):
            return int(stripped)
        # Not float() alone: it takes 1_000 and full-width digits.
        if kind == "float" and "_" not in stripped and stripped.isascii():
            number = float(stripped)
            if math.isfinite(number):
                return number
    except (ValueError, RecursionError):
        # Its text would quote the value.
        pass
    raise _misfit(key, kind)


def _refuse_constant(_name: str) -> None:
    raise ValueError


def _storable(key: str, text: str, kind: Kind) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _misfit(key, kind) from None
    if "\x00" in text:
        raise _misfit(key, kind)
    return text


def _misfit(key: str, kind: Kind) -> ConfigurationError:
    return ConfigurationError(
        f"The value of {key} is not of the type {kind}.", remedy=f"Give {_EXPECTED[kind]}."
    )
