"""Settings of the database: typed, checked against their pattern, and secret for good."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text

from ts_forecast.configuration.secrets import Keyring, new_key
from ts_forecast.configuration.values import (
    get_secret,
    get_setting,
    get_value,
    list_settings,
    set_value,
    unset_value,
)
from ts_forecast.db.engine import transaction
from ts_forecast.errors import ConfigurationError
from ts_forecast.settings import Settings

KEYS = Keyring(Settings(_env_file=None, secret_keys=new_key()))


def test_list_settings__fresh_database__has_the_designs_defaults(engine: Engine) -> None:
    with transaction(engine) as session:
        found = {setting.key: setting.value for setting in list_settings(session)}

    assert found["max_parallel_runs"] == 10
    assert found["enable_wandb"] is False
    assert found["log_level"] == "INFO"


def test_set_value__again__keeps_type_pattern_and_description(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "greeting", "hello", pattern="[a-z]+", description="For all.")
        set_value(session, "greeting", "goodbye", category="words")
        setting = get_setting(session, "greeting")

    assert (setting.value, setting.pattern) == ("goodbye", "[a-z]+")
    assert (setting.description, setting.category) == ("For all.", "words")


@pytest.mark.parametrize(
    ("key", "value", "options", "pattern"),
    [
        ("greeting", "HELLO", {}, r"does not match \[a-z\]\+"),
        ("greeting", "hello\n", {}, "does not match"),
        ("greeting", 1, {}, "not of the type string"),
        ("greeting", "hello", {"kind": "json"}, "is of the type string, not json"),
        ("greeting", "hello", {"pattern": "("}, "is no regular expression"),
        ("token", "in clear", {}, "is a secret; it cannot be written in clear"),
        ("", "x", {}, "name has letters"),
        ("a b", "x", {}, "name has letters"),
        ("x" * 256, "x", {}, "name has letters"),
    ],
)
def test_set_value__does_not_fit__is_refused_and_nothing_changes(
    engine: Engine, key: str, value: str | int, options: dict[str, str], pattern: str
) -> None:
    with transaction(engine) as session:
        set_value(session, "greeting", "hello", pattern="[a-z]+")
        set_value(session, "token", "hunter2", keyring=KEYS)

    with pytest.raises(ConfigurationError, match=pattern), transaction(engine) as session:
        set_value(session, key, value, **options)  # type: ignore[arg-type]

    with transaction(engine) as session:
        assert get_value(session, "greeting") == "hello"
        assert get_secret(session, "token", KEYS).get_secret_value() == "hunter2"


def test_set_value__secret_that_misses_its_pattern__is_not_quoted(engine: Engine) -> None:
    with pytest.raises(ConfigurationError) as caught, transaction(engine) as session:
        set_value(session, "token", "hunter2", keyring=KEYS, pattern="[0-9]+")

    assert "hunter2" not in str(caught.value)


def test_get_secret__is_typed_and_does_not_show(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "login", {"user": "u", "password": "hunter2"}, keyring=KEYS)
        found = get_secret(session, "login", KEYS)
        listed = [*list_settings(session), get_setting(session, "login")]

    assert found.get_secret_value() == {"user": "u", "password": "hunter2"}
    assert "hunter2" not in repr(found) + str(found) + repr(listed) + f"{listed}"
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM system_config")).all()
    assert "hunter2" not in str(rows)


def test_get__the_wrong_way_round_or_absent__says_so(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "token", "hunter2", keyring=KEYS)
        with pytest.raises(ConfigurationError, match="token is a secret"):
            get_value(session, "token")
        with pytest.raises(ConfigurationError, match="log_level is no secret"):
            get_secret(session, "log_level", KEYS)
        with pytest.raises(ConfigurationError, match=r"no setting 'tokn'.*There are: .*token"):
            get_value(session, "tokn")


def test_set_value__plain_setting_becomes_secret__its_text_is_gone(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "token", "hunter2")
    with transaction(engine) as session:
        set_value(session, "token", "hunter2", keyring=KEYS)
        assert get_secret(session, "token", KEYS).get_secret_value() == "hunter2"
    with engine.connect() as connection:
        value = connection.scalar(
            text("SELECT config_value FROM system_config WHERE config_key = 'token'")
        )
    assert "hunter2" not in str(value)


def test_get_secret__value_copied_to_another_row__does_not_decrypt(engine: Engine) -> None:
    with transaction(engine) as session:
        set_value(session, "theirs", "hunter2", keyring=KEYS)
        set_value(session, "mine", "x", keyring=KEYS)
        session.execute(
            text(
                "UPDATE system_config SET config_value = (SELECT config_value FROM system_config "
                "WHERE config_key = 'theirs') WHERE config_key = 'mine'"
            )
        )
    with (
        transaction(engine) as session,
        pytest.raises(ConfigurationError, match="was encrypted for theirs"),
    ):
        get_secret(session, "mine", KEYS)


def test_get_value__text_changed_by_hand__is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE system_config SET config_value = 'ten' WHERE config_type = 'integer'")
        )
    with (
        transaction(engine) as session,
        pytest.raises(ConfigurationError, match="max_parallel_runs is not of the type integer"),
    ):
        get_value(session, "max_parallel_runs")


def test_unset_value__there_and_then_not(engine: Engine) -> None:
    with transaction(engine) as session:
        unset_value(session, "log_level")
    with (
        transaction(engine) as session,
        pytest.raises(ConfigurationError, match="no setting 'log_level'"),
    ):
        unset_value(session, "log_level")


def test_set_value__two_add_the_same__one_row_and_no_error(engine: Engine) -> None:
    begin = threading.Barrier(2, timeout=20)
    problems: list[BaseException] = []

    def add(value: str) -> None:
        try:
            with transaction(engine) as session:
                begin.wait()
                set_value(session, "new", value)
        except BaseException as error:  # noqa: BLE001 — shown in the main thread
            problems.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    with transaction(engine) as session:
        assert get_value(session, "new") in ("a", "b")
