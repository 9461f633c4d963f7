"""Secrets: encrypted with the newest key, bound to their name, and shown by nothing."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ts_forecast.configuration.secrets import Keyring, new_key, rotate_keys
from ts_forecast.configuration.values import get_secret, set_value
from ts_forecast.db.engine import transaction
from ts_forecast.errors import ConfigurationError
from ts_forecast.settings import Settings

OLD, NEW = new_key(), new_key()


def keyring(*keys: str) -> Keyring:
    return Keyring(Settings(_env_file=None, secret_keys=",".join(keys)))


def stored(engine: Engine, key: str) -> str:
    with engine.connect() as connection:
        query = text("SELECT config_value FROM system_config WHERE config_key = :key")
        return str(connection.scalar(query, {"key": key}))


def test_encrypt__twice__differs_and_comes_back() -> None:
    ring = keyring(OLD)
    first, second = (ring.encrypt("a", "hunter2 ü 😀") for _ in range(2))

    assert first != second
    assert ring.decrypt("a", first) == ring.decrypt("a", second) == "hunter2 ü 😀"
    assert "hunter2" not in first + repr(ring)


@pytest.mark.parametrize(
    ("keys", "token_of", "read_as", "pattern"),
    [
        ((NEW,), OLD, "a", "cannot be decrypted with the keys of TS_FORECAST_SECRET_KEYS"),
        ((OLD,), OLD, "b", "was encrypted for a: somebody copied it"),
    ],
    # The keys are new in every process; xdist's workers must agree on the names.
    ids=["wrong key", "wrong row"],
)
def test_decrypt__wrong_key_or_row__is_refused(
    keys: tuple[str, ...], token_of: str, read_as: str, pattern: str
) -> None:
    token = keyring(token_of).encrypt("a", "hunter2")

    with pytest.raises(ConfigurationError, match=pattern) as caught:
        keyring(*keys).decrypt(read_as, token)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("change", ["", "x", "gAAAAA", "ü", "A" * 200])
def test_decrypt__no_token__is_refused(change: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be decrypted"):
        keyring(OLD).decrypt("a", change)


def test_decrypt__token_that_somebody_else_made_with_our_key__is_refused() -> None:
    from cryptography.fernet import Fernet

    with pytest.raises(ConfigurationError, match="cannot be decrypted"):
        keyring(OLD).decrypt("a", Fernet(OLD).encrypt(b"hunter2").decode())


@pytest.mark.parametrize(
    ("keys", "pattern"),
    [
        (None, "TS_FORECAST_SECRET_KEYS is not set"),
        (" , ", "TS_FORECAST_SECRET_KEYS is not set"),
        (f"{NEW},hunter2", "Key 2 of 2 in TS_FORECAST_SECRET_KEYS is no Fernet key"),
    ],
    ids=["unset", "empty", "no key"],
)
def test_keyring__no_keys_or_bad_ones__says_how_to_make_one(keys: str | None, pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=pattern) as caught:
        Keyring(Settings(_env_file=None, secret_keys=keys and SecretStr(keys)))

    assert "hunter2" not in str(caught.value)
    assert "config new-key" in str(caught.value)


def test_rotate_keys__some_under_older_keys__all_are_under_the_newest(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "one", "first", keyring=keyring(OLD))
        set_value(session, "two", 2, keyring=keyring(NEW, OLD))
        set_value(session, "plain", "text")
    before = stored(engine, "one")

    with transaction(engine) as session:
        assert rotate_keys(session, keyring(NEW, OLD)) == 2

    assert stored(engine, "one") != before
    with transaction(engine) as session:
        assert get_secret(session, "one", keyring(NEW)).get_secret_value() == "first"
        assert get_secret(session, "two", keyring(NEW)).get_secret_value() == 2
    assert stored(engine, "plain") == "text"


def test_rotate_keys__one_cannot_be_decrypted__changes_none_and_names_it(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "one", "first", keyring=keyring(OLD))
        set_value(session, "lost", "second", keyring=keyring(new_key()))
    before = stored(engine, "one")

    with pytest.raises(ConfigurationError, match="The secret lost"), transaction(engine) as session:
        rotate_keys(session, keyring(NEW, OLD))

    assert stored(engine, "one") == before
