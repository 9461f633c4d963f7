"""Stored search spaces: brought in, taken out, refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, text

from ts_forecast.db.engine import transaction
from ts_forecast.errors import PipelineError
from ts_forecast.model_catalogue import catalogue
from ts_forecast.training.search_spaces import (
    deactivate_space,
    export_spaces,
    import_spaces,
    list_spaces,
    parse_spaces,
    stored_space,
)

SPACES: dict[str, Any] = {
    "nhits_small": {
        "model": "AutoNHITS",
        "description": "Für kleine Reihen.",
        "tags": {"team": "forecasting"},
        "space": {
            "max_steps": {"values": [100, 500]},
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "n_pool_kernel_size": {"values": [[2, 2, 1], [1, 1, 1]]},
            "input_size": {"low": 1, "high": 4, "type": "integer", "times": "horizon"},
            "dropout_prob_theta": {"low": 0.0, "high": 0.5},
            "scaler_type": "standard",
        },
    },
    "mlp": {"model": "MLP", "space": {"hidden_size": {"values": [8, 16]}, "scaler_type": None}},
}


def bring_in(engine: Engine, spaces: dict[str, Any] = SPACES) -> dict[str, str]:
    entries = parse_spaces(spaces, origin="spaces.yaml")
    with transaction(engine) as session:
        done = import_spaces(session, entries, created_by="ann")
    return {imported.name: imported.change for imported in done}


def stored_rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(
            connection.execute(
                text("SELECT * FROM hyperparameter_search_spaces ORDER BY space_name")
            )
        )


def changed(name: str, **changes: Any) -> dict[str, Any]:
    return {name: SPACES[name] | changes}


def test_import_spaces__new__has_all_columns(engine: Engine) -> None:
    assert bring_in(engine) == {"mlp": "added", "nhits_small": "added"}

    row = stored_rows(engine)[1]
    assert (row.model_type, row.framework, row.created_by) == ("NHITS", "neuralforecast", "ann")
    assert (row.space_description, row.tags) == ("Für kleine Reihen.", {"team": "forecasting"})
    assert row.is_active
    assert row.search_space_definition["learning_rate"] == {
        "low": 1e-4,
        "high": 0.1,
        "type": "float",
        "log": True,
        "step": None,
        "times": None,
    }


def test_import_spaces__identical__changes_nothing(engine: Engine) -> None:
    bring_in(engine)
    before = stored_rows(engine)

    assert set(bring_in(engine).values()) == {"unchanged"}
    assert stored_rows(engine) == before


def test_import_spaces__changed_or_deactivated__is_as_the_file_has_it(engine: Engine) -> None:
    bring_in(engine)
    before = {row.space_name: row for row in stored_rows(engine)}
    wider = {"hidden_size": {"values": [8, 16, 32]}}

    assert bring_in(engine, changed("mlp", space=wider)) == {"mlp": "changed"}
    with transaction(engine) as session:
        deactivate_space(session, "nhits_small")
        assert [space.space_name for space in list_spaces(session)] == ["mlp"]
        assert len(list_spaces(session, inactive=True)) == 2
    assert bring_in(engine) == {"mlp": "changed", "nhits_small": "changed"}

    after = {row.space_name: row for row in stored_rows(engine)}
    for name, row in after.items():
        assert row.search_space_id == before[name].search_space_id
        assert row.search_space_definition == before[name].search_space_definition
        assert row.updated_at > before[name].updated_at
        assert row.is_active


def test_import_spaces__true_becomes_1__is_a_change(engine: Engine) -> None:
    def store(values: list[Any]) -> list[str]:
        space = {"exclude_insample_y": {"values": values}}
        return list(bring_in(engine, {"x": {"model": "NHITS", "space": space}}).values())

    assert store([True, False]) == ["added"]
    assert store([True, False]) == ["unchanged"]
    assert store([1, 0]) == ["changed"]


def test_export_spaces__as_yaml__is_read_back_as_it_was(engine: Engine) -> None:
    bring_in(engine)

    with transaction(engine) as session:
        content = yaml.safe_load(yaml.safe_dump(export_spaces(session)))
        only = export_spaces(session, ["mlp"])

    assert parse_spaces(content, origin="x") == parse_spaces(SPACES, origin="x")
    # Short, as people write it; a null is a value here.
    assert only == {
        "mlp": {
            "model": "MLP",
            "space": {"hidden_size": {"values": [8, 16]}, "scaler_type": None},
        }
    }


def test_stored_space__of_another_model__names_both(engine: Engine) -> None:
    bring_in(engine)

    with (
        transaction(engine) as session,
        pytest.raises(PipelineError, match=r"shop: The search space 'mlp' is of MLP, AutoTFT"),
    ):
        stored_space(session, "mlp", catalogue()["AutoTFT"], where="Pipeline shop")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ('{"hidden_sise": {"values": [1, 2]}}', "hidden_sise: MLP has no such parameter, allowed:"),
        ('{"hidden_size": {"lo": 1}}', "hidden_size.lo: unknown key, allowed: high, log"),
        ("[1]", "parameters with values or ranges are wanted"),
    ],
)
def test_stored_space__row_written_by_hand__names_space_and_parameter(
    engine: Engine, definition: str, message: str
) -> None:
    bring_in(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE hyperparameter_search_spaces SET search_space_definition = "
                "CAST(:definition AS jsonb) WHERE space_name = 'mlp'"
            ),
            {"definition": definition},
        )

    with (
        transaction(engine) as session,
        pytest.raises(PipelineError, match=f"The search space 'mlp' is wrong: .*{message}"),
    ):
        stored_space(session, "mlp", catalogue()["AutoMLP"])


@pytest.mark.parametrize("act", ["show", "deactivate", "use"])
def test_unknown_space__of_any_command__names_those_that_there_are(
    engine: Engine, act: str
) -> None:
    bring_in(engine)

    with (
        transaction(engine) as session,
        pytest.raises(
            PipelineError, match=r"No active search space is called 'big'; there are: mlp, nhits"
        ),
    ):
        if act == "show":
            export_spaces(session, ["big"])
        elif act == "deactivate":
            deactivate_space(session, "big")
        else:
            stored_space(session, "big", catalogue()["AutoMLP"])
