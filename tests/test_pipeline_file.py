"""Pipeline files: a wrong one gets one error that names file, key, what was found, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_forecast.errors import PipelineError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import json_schema, load_pipeline, load_pipelines

RIGHT: dict[str, Any] = {
    "source": {"files": "raw/shop.csv"},
    "frequency": "D",
    "horizon": 14,
    "start": "2022-01-01",
    "models": ["NHITS", "SeasonalNaive"],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "shop.yaml"
    content = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_load_pipeline__minimal__has_the_documented_defaults(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path))

    assert pipeline.name == "shop"
    assert (pipeline.step, pipeline.season, pipeline.needed_history) == (14, 7, 7)
    assert pipeline.baseline_model is not None
    assert pipeline.baseline_model.name == "SeasonalNaive"
    assert pipeline.quantiles == ()


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"models": ["NHITZ"]}, r"models\.0: found 'NHITZ', unknown model.*allowed:.*NHITS"),
        ({"frequency": "YS"}, r"frequency: found 'YS'.*W-MON"),
        ({"horizon": 0}, r"horizon: found 0, .*greater than or equal to 1"),
        ({"horizon": "soon"}, r"horizon: found 'soon'"),
        ({"horizn": 3}, r"horizn: unknown key, allowed: .*horizon"),
        ({"checks": {"psi": 1}}, r"checks\.psi: unknown key, allowed: .*max_psi"),
        ({"checks": {"skip": ["drft"]}}, r"checks\.skip\.0: found 'drft'.*'drift'"),
        ({"source": {"files": "x", "colour": 1}}, r"source\.colour: unknown key, allowed: .*wide"),
        (
            {"source": {"files": "x", "wide": {"ids": "a"}}},
            r"source\.wide\.ids: unknown key, allowed: exogenous, ignore, target\.",
        ),
        (
            {"models": [{"model": "NHITS", "steps": 3}]},
            r"models\.0\.steps: unknown key, allowed: ensemble, exogenous, intervals, model, name, of, "
            r"parameters, search, search_space, transform\.",
        ),
        ({"models": "NHITS"}, r"models: found 'NHITS', a list is wanted"),
        ({"models": []}, r"models: found \[\]"),
        ({"source": "x.csv"}, r"source: found 'x\.csv', keys and values are wanted"),
        ({"source": {"files": []}}, r"source\.files: found \[\], a path or glob is wanted"),
        ({"source": {"files": ""}}, r"source\.files: found '', a path or glob is wanted"),
        ({"source": {"files": ["a", 3]}}, r"source\.files: found .*a path or glob is wanted"),
        ({"source": {"files": "x", "encoding": "utf-9"}}, r"encoding: found 'utf-9'.*utf-8"),
        ({"source": {"files": "x", "encoding": "base64"}}, r"encoding: found 'base64'.*utf-8"),
        ({"source": {"files": "x", "format": "xls"}}, r"format: found 'xls'.*feather"),
        ({"metrics": []}, r"metrics: found \[\]"),
        ({"metrics": ["mad"]}, r"metrics\.0: found 'mad'.*'mae'"),
        ({"start": "0202-01-01"}, r"start: found '0202-01-01'.*1700 to 2200"),
        ({"end": "3000-01-01"}, r"end: found '3000-01-01'.*1700 to 2200"),
        ({"horizon": -1}, r"horizon: found -1, .*greater than or equal to 1"),
        ({"horizon": 1.5}, r"horizon: found 1\.5"),
        ({"horizon": True}, r"horizon: found True, true and false are no value here"),
        ({"seed": False}, r"seed: found False, true and false are no value here"),
        ({"live": "often"}, r"live: found 'often'"),
        ({"retrain": True}, r"retrain: found True, true and false are no value here"),
        ({"retrain": "always"}, r"retrain: found 'always'.*'on_restated_data'"),
        ({"levels": [80, True]}, r"levels: found \[80, True\], true and false are no value here"),
        (
            {"source": {"files": "x", "wide": {"exogenous": {"promo": "P_{unique_id}"}}}},
            r"source\.wide\.exogenous: promo is no column of exogenous\.future or .*allowed: \[\]",
        ),
        (
            {
                "source": {"files": "x", "wide": {"exogenous": {"promo": "P_{unique_id}"}}},
                "exogenous": {"future": ["promotion"], "calendar": ["weekday"]},
            },
            r"source\.wide\.exogenous: promo is no .*allowed: \['promotion'\]",
        ),
        ({"step": -1}, r"step: found -1"),
        ({"window_quarters": 0}, r"window_quarters: found 0"),
        (
            {"models": ["Autoformer"], "exogenous": {"historic": ["price"]}},
            r"Autoformer cannot take historic exogenous columns \(price\)",
        ),
        ({"start": None}, r"start: this key is required"),
        ({"end": "2021-01-01"}, r"end 2021-01-01 lies before start 2022-01-01"),
        ({"missing": "guess"}, r"missing: found 'guess'.*interpolate"),
        ({"levels": [80, 80]}, r"levels: found.*names one twice"),
        ({"levels": [100]}, r"levels\.0: found 100"),
        ({"baseline": "Naive"}, r"baseline: no model is called 'Naive'.*NHITS"),
        ({"models": ["NHITS", "NHITS"]}, r"NHITS stands twice"),
        (
            {"models": [{"model": "NHITS", "parameters": {"max_step": 3}}]},
            r"NHITS has no parameter max_step; allowed:.*max_steps",
        ),
        (
            {"models": ["DLinear"], "exogenous": {"future": ["promotion"]}},
            r"DLinear cannot take future exogenous columns \(promotion\)",
        ),
        (
            {"models": [{"model": "NHITS", "exogenous": ["price"]}]},
            r"price is not an exogenous column",
        ),
        ({"exogenous": {"static": ["size"]}}, r"needs source\.static"),
        ({"exogenous": {"future": ["y"]}}, r"y stands twice or is a reserved name"),
        ({"source": {"files": "x", "wide": {"target": "QTY"}}}, r"must hold \{unique_id\}"),
        ({"source": {"files": "x", "as_of": "no group"}}, r"exactly one group"),
        ({"name": "other"}, r"name: found 'other', allowed 'shop'"),
    ],
)
def test_load_pipeline__wrong__one_error_names_file_and_key(
    changes: dict[str, Any], pattern: str, tmp_path: Path
) -> None:
    path = write(tmp_path, **changes)

    with pytest.raises(PipelineError, match=pattern) as caught:
        load_pipeline(path)

    assert str(caught.value).count("shop.yaml") == 1
    assert caught.value.exit_code == 2


def test_load_pipeline__several_wrong_keys__all_in_one_error(tmp_path: Path) -> None:
    path = write(tmp_path, horizon=0, frequency="YS", models=[None], colour=1)

    with pytest.raises(PipelineError) as caught:
        load_pipeline(path)

    problems = caught.value.problem.split("; ")
    assert len(problems) == 4
    for key in ("horizon: ", "frequency: ", "models.0: ", "colour: "):
        assert sum(key in problem for problem in problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        "horizon: [",
        "- 1\n- 2",
        "",
        "horizon: 1\nhorizon: 2",
        "horizon: {{ horizon }}",
        "? [1, 2]\n: 3",
        "source: {files: a, files: b}",
        "\x00",
    ],
)
def test_load_pipeline__no_mapping__says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(PipelineError, match=r"shop\.yaml"):
        load_pipeline(path)


def test_load_pipeline__not_utf8__says_so(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes("description: Käse".encode("latin-1"))

    with pytest.raises(PipelineError, match=r"shop\.yaml cannot be read"):
        load_pipeline(path)


def test_load_pipeline__merged_keys__are_yaml_and_may_be_overridden(tmp_path: Path) -> None:
    path = write(tmp_path, models=None)
    path.write_text(
        path.read_text()
        + "models:\n- &base {model: NHITS, parameters: {max_steps: 5}}\n- {<<: *base, name: Second}\n"
    )

    pipeline = load_pipeline(path)

    assert [model.name for model in pipeline.models] == ["NHITS", "Second"]
    assert pipeline.models[0].parameters == pipeline.models[1].parameters == {"max_steps": 5}


def test_load_pipelines__editors_drafts__are_left_alone(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ".#shop.yaml").write_text("horizon: [")

    assert list(load_pipelines(tmp_path)) == ["shop"]


def test_load_pipelines__two_files_of_one_name__refuses(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "shop.yml").write_text(yaml.safe_dump(RIGHT), encoding="utf-8")

    with pytest.raises(PipelineError, match="another file declares"):
        load_pipelines(tmp_path)


def test_json_schema__every_shipped_pipeline__has_only_its_keys() -> None:
    known = json_schema()["properties"]
    for path in (Path(__file__).parents[1] / "pipelines").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= set(known)
        assert isinstance(load_pipeline(path), Pipeline)
