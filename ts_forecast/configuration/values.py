"""Reading and writing settings of ``system_config``, typed both ways.

A setting keeps its type, its pattern and its secrecy until it is unset. Functions take a session and
never commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pydantic import Secret
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ts_forecast.configuration.kinds import KINDS, Kind, Value, kind_of, to_text, to_value
from ts_forecast.configuration.secrets import WRITERS, Keyring
from ts_forecast.db.engine import lock_in_transaction
from ts_forecast.errors import ConfigurationError
from ts_forecast.tables.configuration import SystemConfig

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")


@dataclass(frozen=True)
class Setting:
    """A stored setting.

    Attributes:
        value: None for a secret.
        pattern: what the text of its value matches as a whole (Python's ``re``).
    """

    key: str
    value: Value
    kind: Kind
    is_secret: bool
    description: str | None
    category: str | None
    pattern: str | None
    updated_at: datetime


def list_settings(session: Session) -> list[Setting]:
    """All settings, by name; secrets without their value.

    Raises:
        ConfigurationError: a stored text does not fit its type.
    """
    rows = session.scalars(select(SystemConfig).order_by(SystemConfig.config_key))
    return [_setting(row) for row in rows]


def get_setting(session: Session, key: str) -> Setting:
    """One setting; a secret without its value.

    Raises:
        ConfigurationError: there is none of that name, or its text does not fit its type.
    """
    return _setting(_row(session, key))


def get_value(session: Session, key: str) -> Value:
    """The value of a setting that is no secret.

    Raises:
        ConfigurationError: there is none, it is a secret, or its text does not fit its type.
    """
    setting = get_setting(session, key)
    if setting.is_secret:
        raise ConfigurationError(f"{key} is a secret.", remedy="Read it with get_secret.")
    return setting.value


def get_secret(session: Session, key: str, keyring: Keyring) -> Secret[Value]:
    """The value of a secret, wrapped so that it does not show by accident.

    Raises:
        ConfigurationError: there is none, it is no secret, or the keys do not decrypt it.
    """
    row = _row(session, key)
    if not row.is_secret:
        raise ConfigurationError(f"{key} is no secret.", remedy="Read it with get_value.")
    text = keyring.decrypt(key, row.config_value)
    return Secret(to_value(key, text, _kind(row)))


def set_value(
    session: Session,
    key: str,
    value: Value,
    *,
    kind: Kind | None = None,
    keyring: Keyring | None = None,
    description: str | None = None,
    category: str | None = None,
    pattern: str | None = None,
) -> None:
    """Write a setting; what is left out stays as it is.

    Args:
        kind: of a new setting; by default what the value is. A setting that exists keeps its own.
        keyring: encrypts the value, and makes the setting a secret for good.

    Raises:
        ConfigurationError: the name, the value or the pattern is wrong, the value does not match the
            pattern, another type is asked for, or a secret is to be written in clear.
    """
    if not _KEY.fullmatch(key):
        raise ConfigurationError(
            "A setting's name has letters, digits, '_', '.' and '-', at most 255, a letter or digit "
            "first.",
            remedy="Choose another name.",
        )
    # Writers queue here: two that add the same setting must not meet at its unique key.
    lock_in_transaction(session, WRITERS)
    row = _find(session, key)
    if row is None:
        row = SystemConfig(config_key=key, config_type=kind or kind_of(value), is_secret=False)
    elif kind not in (None, row.config_type):
        raise ConfigurationError(
            f"{key} is of the type {row.config_type}, not {kind}.", remedy="Unset it first."
        )
    elif row.is_secret and keyring is None:
        raise ConfigurationError(
            f"{key} is a secret; it cannot be written in clear.",
            remedy="Set it with --secret, or unset it first.",
        )
    text = to_text(key, value, _kind(row))
    row.validation_regex = pattern if pattern is not None else row.validation_regex
    _check_pattern(key, text, row.validation_regex)
    row.config_value = text if keyring is None else keyring.encrypt(key, text)
    row.is_secret = keyring is not None
    row.description = description if description is not None else row.description
    row.category = category if category is not None else row.category
    session.add(row)
    session.flush()


def unset_value(session: Session, key: str) -> None:
    """Delete a setting.

    Raises:
        ConfigurationError: there is none of that name.
    """
    lock_in_transaction(session, WRITERS)
    session.delete(_row(session, key))
    session.flush()


def parse(session: Session, key: str, text: str, kind: Kind | None) -> Value:
    """What somebody typed, as a value of the setting's type (of ``kind``, else text, if it is new).

    Raises:
        ConfigurationError: the text does not fit.
    """
    row = _find(session, key)
    return to_value(key, text, _kind(row) if row is not None else kind or "string")


def _check_pattern(key: str, text: str, pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        is_match = re.fullmatch(pattern, text) is not None
    except re.error as error:
        raise ConfigurationError(
            f"The pattern of {key} is no regular expression: {error}.", remedy="Correct it."
        ) from None
    if not is_match:
        raise ConfigurationError(
            f"The value of {key} does not match {pattern}.", remedy="Give one that does."
        )


def _setting(row: SystemConfig) -> Setting:
    kind = _kind(row)
    return Setting(
        key=row.config_key,
        value=None if row.is_secret else to_value(row.config_key, row.config_value, kind),
        kind=kind,
        is_secret=bool(row.is_secret),
        description=row.description,
        category=row.category,
        pattern=row.validation_regex,
        updated_at=row.updated_at,
    )


def _kind(row: SystemConfig) -> Kind:
    # A CHECK of the table keeps it to these.
    return next(kind for kind in KINDS if kind == row.config_type)


def _find(session: Session, key: str) -> SystemConfig | None:
    return session.scalar(select(SystemConfig).where(SystemConfig.config_key == key))


def _row(session: Session, key: str) -> SystemConfig:
    row = _find(session, key)
    if row is None:
        names = session.scalars(
            select(SystemConfig.config_key).order_by(func.lower(SystemConfig.config_key)).limit(20)
        )
        raise ConfigurationError(
            f"There is no setting {key!r}.", remedy=f"There are: {', '.join(names) or 'none'}."
        )
    return row
