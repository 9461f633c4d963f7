"""Keeping secrets out of what is logged: those of the settings, and passwords that look like ones.

The last line of defence: code that holds a secret wraps it (``SecretStr``), and does not log it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

from pydantic import SecretStr

from ts_forecast.settings import Settings

MASK = "***"
# Shorter ones would be found in innocent words; in a URL they are masked whatever their length.
_SHORTEST = 4
_URL = re.compile(r"(?P<head>[a-z][a-z0-9+.\-]*://[^\s:/@'\"]*:)(?P<password>[^\s@'\"]+)@", re.I)
_KEYWORD = re.compile(r"(?P<head>password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s,;'\"]+)", re.I)


class Masker:
    """Replaces secrets in a text by ``***``."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        literals = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        alternatives = "|".join(re.escape(literal) for literal in literals)
        self._literals = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if literals else None

    @classmethod
    def of(cls, settings: Settings) -> Masker:
        """One that knows every secret of the settings."""
        return cls(part for secret in _secrets(settings) for part in _parts(secret))

    def __call__(self, text: str) -> str:
        """The text without secrets.

        >>> Masker(["hunter2"])("postgresql://me:geheim@db/x with hunter2 and password='a b'")
        'postgresql://me:***@db/x with *** and password=***'
        """
        if "://" in text:
            text = _URL.sub(rf"\g<head>{MASK}@", text)
        if "assword" in text or "ASSWORD" in text:
            text = _KEYWORD.sub(rf"\g<head>{MASK}", text)
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        return text


def _secrets(settings: Settings) -> list[str]:
    values = [getattr(settings, name) for name in type(settings).model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


def _parts(secret: str) -> list[str]:
    """A URL's password as it stands and as it is meant; else each of a list of keys."""
    found = _URL.match(secret)
    if found is not None:
        password = found["password"]
        return [password, unquote(password), unquote_plus(password)]
    return [part.strip() for part in secret.split(",")]
