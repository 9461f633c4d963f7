"""Search spaces and settings of a search: what is understood, and how a wrong one is answered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_forecast.errors import PipelineError
from ts_forecast.model_catalogue import catalogue
from ts_forecast.pipeline import ModelSpec
from ts_forecast.pipeline_file import load_pipeline, parse_pipeline
from ts_forecast.search_space import Space, parse_space
from ts_forecast.training.search_spaces import parse_spaces
from ts_forecast.yaml_file import read_yaml

REPOSITORY = Path(__file__).parents[1]
SPACE: dict[str, Any] = {
    "max_steps": {"values": [100, 500]},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "n_pool_kernel_size": {"values": [[2, 2, 1], [1, 1, 1]]},
    "input_size": {"low": 24, "high": 168, "step": 24, "type": "integer"},
    "scaler_type": "standard",
}


def auto(**changes: Any) -> dict[str, Any]:
    return {"model": "AutoNHITS", **changes}


def parse(model: Any, **changes: Any) -> ModelSpec:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 14,
        "start": "2022-01-01",
        "models": [model],
    }
    return parse_pipeline(content | changes, origin="shop.yaml").models[0]


def test_parse_space__other_order_and_spelled_out_defaults__is_the_same_space() -> None:
    spelled = dict(reversed(SPACE.items())) | {
        "learning_rate": {"type": "float", "low": "1e-4", "high": 0.1, "log": True, "step": None},
        "input_size": {"type": "integer", "low": 24.0, "high": 168, "step": 24},
    }

    assert parse_space(spelled).canonical() == parse_space(SPACE).canonical()
    assert list(parse_space(spelled).canonical()) == sorted(SPACE)


def test_canonical__parsed_again__is_the_same() -> None:
    canonical = parse_space(SPACE).canonical()

    assert parse_space(canonical).canonical() == canonical


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a": {"low": 1, "high": 4}}, "a: low and high are whole numbers: say type"),
        (
            {"a": {"lo": 0.1, "high": 0.2}},
            "a.lo: unknown key, allowed: high, log, low, step, times",
        ),
        ({"a": {"values": [1, 2], "log": True}}, "a.log: unknown key, allowed: times, values"),
        ({"a": {"low": 0.5, "high": 0.1}}, "a: low 0.5 must be less than high 0.1"),
        ({"a": {"low": 0.0, "high": 0.1, "log": True}}, "a: with log, low must be above 0, not 0"),
        ({"a": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}, "log and step exclude"),
        ({"a": {"low": 1, "high": 8, "step": 4, "type": "integer"}}, "a: high must lie a whole"),
        ({"a": {"low": 0.5, "high": 8, "type": "integer"}}, "a: with type: integer, low, high"),
        ({"a": {"low": 0.1, "high": 0.2, "step": -1}}, "a: step must be above 0, not -1"),
        ({"a": {"low": "x", "high": 0.2}}, "a.low: found 'x', a number is wanted"),
        ({"a": {"low": False, "high": 0.2}}, "a.low: found False, a number is wanted"),
        ({"a": {"low": 0.1, "high": float("inf")}}, "a.high: found inf, a finite number"),
        ({"a": {"low": 0.1, "high": 1.0, "type": "int"}}, "a.type: found 'int', input should be"),
        ({"a": {"low": 0.1, "high": 1.0, "times": "horizon"}}, "a: times: horizon needs type"),
        ({"a": {"values": [0.5, 1], "times": "season"}}, "a: with times: season, values must be"),
        ({"a": {"values": [1]}}, "a.values: found [1], at least two are wanted"),
        ({"a": {"values": 3}}, "a.values: found 3, a list is wanted"),
        ({"a": {"values": [1, True]}}, "a: values names one twice"),
        ({"a": {}}, "a: it needs values, or low and high"),
        ({"a": {"values": [1.0, float("nan")]}}, "a number that is not finite"),
        ({"a": 1, "b": "x"}, "nothing is searched"),
        ({}, "nothing is searched"),
        ({1: {"values": [1, 2]}}, "a name of a stored space, or parameters"),
        ("", "a name of a stored space, or parameters"),
        ([], "a name of a stored space, or parameters"),
    ],
)
def test_parse_space__wrong__names_the_parameter_and_what_is_allowed(
    space: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_space(space)


def test_parse_space__several_wrong__all_in_one_error() -> None:
    with pytest.raises(ValueError, match=r"^a: .*; b: [^;]*$"):
        parse_space({"a": {}, "b": {"low": 2.5, "high": 1}, "c": 1})


@pytest.mark.parametrize("name", [k.name for k in catalogue().values() if k.searches])
def test_default_space__of_every_auto_model__is_one_of_ours(name: str) -> None:
    kind = catalogue()[name]
    space = parse_space(kind.default_space)

    assert not space.refusals(kind)
    assert {"learning_rate", "max_steps", "input_size"} <= set(space.searched)
    assert kind.parameters == catalogue()[str(kind.searches)].parameters


def test_pipeline__search_of_an_auto_model__is_understood() -> None:
    spec = parse(auto(search_space=SPACE, search={"trials": 8, "metric": "mae"}))

    assert isinstance(spec.search_space, Space)
    assert spec.search is not None
    assert (spec.search.trials, spec.search.metric) == (8, "mae")
    assert spec.name == "AutoNHITS"
    chosen = spec.chosen({"max_steps": 100})
    assert (chosen.model, chosen.name, chosen.search_space) == ("NHITS", "AutoNHITS", None)
    assert parse("AutoNHITS").search_space is None
    assert parse(auto(search_space="small")).search_space == "small"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            auto(search_space={"max_step": {"values": [1, 2]}}),
            "search_space: max_step: NHITS has no",
        ),
        (auto(search_space={"max_steps": {}}), "models.0.search_space: max_steps: it needs values"),
        (auto(search_space=3), "models.0.search_space: found 3, a name of a stored space"),
        (
            auto(search={"trial": 8}),
            "models.0.search.trial: unknown key, allowed: metric, pruner, seed,",
        ),
        (auto(search={"trials": 0}), "models.0.search.trials: found 0"),
        (auto(search={"metric": "bias"}), "models.0.search.metric: found 'bias', input should be"),
        (auto(search={"metric": "mqloss"}), "AutoNHITS.search.metric: mqloss needs `levels`"),
        (auto(search={"val_size": 13}), "search.val_size: found 13, at least the horizon, 14,"),
        (auto(parameters={"max_step": 1}), "AutoNHITS has no parameter max_step"),
        ({"model": "NHITS", "search": {}}, "NHITS is not searched; .*; take AutoNHITS"),
        ({"model": "AutoETS", "search_space": "x"}, "AutoETS is not searched"),
        ("AutoNHITZ", "unknown model 'AutoNHITZ'"),
        ("AutoHINT", "unknown model 'AutoHINT'"),
    ],
)
def test_pipeline__wrong_search__names_key_and_what_is_allowed(model: Any, message: str) -> None:
    pattern = message if ".*" in message else re.escape(message)

    with pytest.raises(PipelineError, match=pattern):
        parse(model)


def test_pipeline__exogenous_columns_of_an_auto_model__are_those_of_its_class() -> None:
    with pytest.raises(PipelineError, match="AutoDLinear cannot take future exogenous columns"):
        parse("AutoDLinear", exogenous={"future": ["promotion"]})


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "1.0e-3", "0.001"])
def test_read_yaml__number_with_an_exponent__is_a_number(text: str, tmp_path: Path) -> None:
    """PyYAML reads 1e-3 as a text, which no learning rate can be."""
    file = tmp_path / "numbers.yaml"
    file.write_text(f"rate: {text}\nname: '{text}'\nother: 1e\n", encoding="utf-8")

    assert read_yaml(file) == {"rate": 0.001, "name": text, "other": "1e"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"model": "NHITS"}}, "spaces.yaml: a.space: this key is required"),
        ({"a": {"model": "NHITS", "space": SPACE, "x": 1}}, "a.x: unknown key, allowed: descr"),
        ({"a": {"model": "AutoETS", "space": SPACE}}, "a.model: found 'AutoETS', it cannot be"),
        ({"a": {"model": "DLinear", "space": SPACE}}, "a: space: n_pool_kernel_size: DLinear has"),
        ({"a": {"model": "NHITS", "space": {"max_steps": 1}}}, "a.space: nothing is searched"),
        ({"": {}}, "found the name ''"),
        ({"a": 3}, "a: found 3, Input should be"),
        ({}, "it holds no space"),
    ],
)
def test_parse_spaces__wrong__names_file_space_and_parameter(
    content: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)):
        parse_spaces(content, origin="spaces.yaml")


def test_documentation__its_examples__are_right(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "pipeline-file.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    (spaces,) = (yaml.safe_load(block) for block in blocks if "space:\n" in block[:120])
    pipelines = []
    for block in blocks:
        content = {"source": {"files": "x"}, "frequency": "h", "horizon": 24, "start": "2024-01-01"}
        example = yaml.safe_load(block)
        if set(example) == set(spaces):
            continue
        content = {"models": ["NHITS"], **content}
        content = {key: value for key, value in content.items() if key not in example}
        file = tmp_path / "shop.yaml"
        file.write_text(yaml.safe_dump(content) + block, encoding="utf-8")
        pipelines.append(load_pipeline(file))

    models = [model for pipeline in pipelines for model in pipeline.models]
    names = {m.search_space for m in models if isinstance(m.search_space, str)}
    assert names == set(parse_spaces(spaces, origin="pipeline-file.md"))
