"""Which text PostgreSQL can store, and what becomes of text that it cannot.

PostgreSQL's text and jsonb hold every Unicode character but NUL; Python's strings may also hold half a
surrogate pair, which no encoding takes. What is refused, and in which words, is decided by callers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sqlalchemy.exc import DBAPIError

_REPLACEMENT = "\ufffd"
_MAX_ERROR_LENGTH = 1000


def unstorable(text: str, longest: int | None = None) -> str | None:
    r"""Why a text cannot be stored; None if it can.

    Args:
        longest: most characters; None for no limit.

    >>> unstorable("series 1"), unstorable("a\0b"), unstorable("\ud800")
    (None, 'holds NUL at character 2', 'holds half a surrogate pair at character 1')
    >>> unstorable("abc", 2)
    'has 3 characters, 2 are allowed'
    """
    if (place := text.find("\0")) >= 0:
        return f"holds NUL at character {place + 1}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half a surrogate pair at character {error.start + 1}"
    if longest is not None and len(text) > longest:
        return f"has {len(text):,} characters, {longest:,} are allowed"
    return None


def unstorable_json(value: object, where: str = "value") -> str | None:
    r"""Why a value cannot be stored as jsonb, and where in it; None if it can.

    >>> unstorable_json({"a": ["x", 1.5, None]}), unstorable_json({"a": ["x\0"]})
    (None, 'value.a[0] holds NUL at character 2')
    >>> unstorable_json({"loss": float("nan")}, "metadata")
    'metadata.loss is nan, which JSON does not know'
    """
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, str):
        reason = unstorable(value)
        return f"{where} {reason}" if reason else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}, which JSON does not know"
    if isinstance(value, Mapping):
        parts = [(f"{where}.{key}", part) for key, part in value.items()]
        for key in value:
            if not isinstance(key, str):
                return f"{where} has the key {key!r}, which is no string"
            if reason := unstorable(key):
                return f"a key of {where} {reason}"
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        parts = [(f"{where}[{place}]", part) for place, part in enumerate(value)]
    else:
        return f"{where} is of type {type(value).__name__}, which JSON does not know"
    return next((reason for name, part in parts if (reason := unstorable_json(part, name))), None)


def storable(text: str) -> str:
    r"""The text with a replacement character for each that cannot be stored.

    >>> storable("a\0b\ud800") == "a\ufffdb\ufffd"
    True
    """
    whole = text.replace("\0", _REPLACEMENT)
    return "".join(_REPLACEMENT if "\ud800" <= letter <= "\udfff" else letter for letter in whole)


def one_line(error: BaseException) -> str:
    """An error's kind and words in one line that can be stored, of 1,000 characters at most."""
    # A DBAPIError's own text repeats the statement and its parameters.
    words = storable(str(error.orig) if isinstance(error, DBAPIError) else str(error))
    return f"{type(error).__name__}: {' '.join(words.split())}"[:_MAX_ERROR_LENGTH].rstrip(": ")
