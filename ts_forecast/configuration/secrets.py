"""Encrypting values of ``system_config`` with the keys of the environment (Fernet).

A token holds the name of its setting beside the value, so that a token that was copied to another row
does not decrypt there. Which rows are secret is ``values``' matter.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.db.engine import lock_in_transaction
from ts_forecast.errors import ConfigurationError
from ts_forecast.settings import Settings
from ts_forecast.tables.configuration import SystemConfig

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_VARIABLE = "TS_FORECAST_SECRET_KEYS"
# Held by whoever writes system_config.
WRITERS = "system_config"


class Keyring:
    """The keys of a deployment: the first encrypts, all decrypt. Never shows them.

    Raises:
        ConfigurationError: there is no key, or one is none of Fernet's.
    """

    def __init__(self, settings: Settings) -> None:
        from cryptography.fernet import Fernet, MultiFernet

        given = settings.secret_keys.get_secret_value() if settings.secret_keys else ""
        keys = [part.strip() for part in given.split(",") if part.strip()]
        if not keys:
            raise ConfigurationError(
                f"Secrets need a key, and {_VARIABLE} is not set.",
                remedy=f"Set it to the key that encrypted them, or to one from "
                f"`ts-forecast config new-key`: {_VARIABLE}=<key>.",
            )
        fernets = []
        for place, key in enumerate(keys, start=1):
            try:
                fernets.append(Fernet(key))
            except ValueError:
                raise ConfigurationError(
                    f"Key {place} of {len(keys)} in {_VARIABLE} is no Fernet key.",
                    remedy="`ts-forecast config new-key` makes one.",
                ) from None
        self._fernet: MultiFernet = MultiFernet(fernets)

    def encrypt(self, key: str, text: str) -> str:
        """The token of a setting's value; another one each time."""
        payload = json.dumps({"key": key, "value": text}).encode()
        return self._fernet.encrypt(payload).decode()

    def decrypt(self, key: str, token: str) -> str:
        """The value that a token of this setting holds.

        Raises:
            ConfigurationError: none of the keys fits, the token was changed, or it is another's.
        """
        from cryptography.fernet import InvalidToken

        try:
            payload = json.loads(self._fernet.decrypt(token))
            owner, text = str(payload["key"]), str(payload["value"])
        except (InvalidToken, ValueError, TypeError, KeyError):
            raise ConfigurationError(
                f"The secret {key} cannot be decrypted with the keys of {_VARIABLE}.",
                remedy="Add the key that it was encrypted with (older keys stand behind the newest), "
                "or set the secret again.",
            ) from None
        if owner != key:
            raise ConfigurationError(
                f"The secret in {key} was encrypted for {owner}: somebody copied it.",
                remedy=f"Set {key} again.",
            )
        return text

    def renew(self, key: str, token: str) -> str:
        """The same value under the newest key.

        Raises:
            ConfigurationError: as ``decrypt``.
        """
        return self.encrypt(key, self.decrypt(key, token))


def new_key() -> str:
    """A fresh key."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def rotate_keys(session: Session, keyring: Keyring) -> int:
    """Encrypt all secrets with the newest key; returns how many.

    All or none, with the transaction; afterwards the older keys may go from the environment.

    Raises:
        ConfigurationError: one of them cannot be decrypted; names it.
    """
    lock_in_transaction(session, WRITERS)
    rows = session.scalars(
        select(SystemConfig)
        .where(SystemConfig.is_secret.is_(True))
        .order_by(SystemConfig.config_id)
        .with_for_update()
    ).all()
    for row in rows:
        row.config_value = keyring.renew(row.config_key, row.config_value)
    session.flush()
    return len(rows)
