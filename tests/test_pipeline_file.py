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


def test_quantiles__levels__are_ascending_with_the_median(tmp_path: Path) -> None:
    assert load_pipeline(write(tmp_path, levels=[80, 95])).quantiles == (
        0.025,
        0.1,
        0.5,
        0.9,
        0.975,
    )


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"models": ["NHITZ"]}, r"models\.0: found 'NHITZ', unknown model.*allowed:.*NHITS"),
        ({"frequency": "YS"}, r"frequency: found 'YS'.*W-MON"),
        ({"horizon": 0}, r"horizon: found 0, .*greater than or equal to 1"),
        ({"horizon": "soon"}, r"horizon: found 'soon'"),
        ({"horizn": 3}, r"horizn: unknown key"),
        ({"source": {"files": "x", "colour": 1}}, r"source\.colour: unknown key"),
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

    assert "shop.yaml" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["horizon: [", "- 1\n- 2", "", "horizon: 1\nhorizon: 2"])
def test_load_pipeline__no_mapping__says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(PipelineError, match=r"shop\.yaml"):
        load_pipeline(path)


def test_load_pipelines__two_files_of_one_name__refuses(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "shop.yml").write_text(yaml.safe_dump(RIGHT), encoding="utf-8")

    with pytest.raises(PipelineError, match="another file declares"):
        load_pipelines(tmp_path)


def test_window__near_the_start__is_cut_off(tmp_path: Path) -> None:
    from ts_forecast.quarters import Quarter

    pipeline = load_pipeline(write(tmp_path, window_quarters=8))

    assert pipeline.window(Quarter(2022, 1)) == ()
    assert [q.label for q in pipeline.window(Quarter(2022, 3))] == ["2022-Q1", "2022-Q2"]
    assert len(pipeline.window(Quarter(2030, 1))) == 8


def test_exogenous_of__chosen_calendar_wave__brings_its_feature(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        exogenous={"future": ["promotion"], "calendar": ["weekday", "month"]},
        models=[{"model": "NHITS", "exogenous": ["weekday_sin"]}, "SeasonalNaive"],
    )
    pipeline = load_pipeline(path)

    assert pipeline.exogenous_of(pipeline.models[0]).all_future == ("weekday_sin", "weekday_cos")
    assert pipeline.exogenous_of(pipeline.models[1]).all_future == ()


def test_json_schema__every_shipped_pipeline__has_only_its_keys() -> None:
    known = json_schema()["properties"]
    for path in (Path(__file__).parents[1] / "pipelines").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= set(known)
        assert isinstance(load_pipeline(path), Pipeline)
