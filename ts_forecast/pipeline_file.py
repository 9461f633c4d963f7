"""Reading pipeline files: YAML to ``Pipeline``, with one clear error for all that is wrong.

Also the JSON Schema that editors use (``python -m ts_forecast.pipeline_file`` prints it). The schema
itself is ``pipeline``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ts_forecast.errors import PipelineError
from ts_forecast.pipeline import Pipeline
from ts_forecast.yaml_file import read_yaml

_SUFFIXES = (".yaml", ".yml")
_WANTED = {
    "tuple_type": "a list is wanted",
    "dict_type": "keys and values are wanted",
    "model_type": "keys and values are wanted",
}


def load_pipeline(path: Path) -> Pipeline:
    """Read one pipeline file.

    The name defaults to the file's stem, and must equal it.

    Raises:
        PipelineError: names the file and, for each wrong key, what was found and what is allowed.
    """
    content = read_yaml(path, remedy="Start from pipelines/air_passengers.yaml.")
    content.setdefault("name", path.stem)
    if content["name"] != path.stem:
        raise PipelineError(
            f"{path}: name: found {content['name']!r}, allowed {path.stem!r}.",
            remedy="Rename the file, or leave the key out.",
        )
    return parse_pipeline(content, origin=str(path))


def parse_pipeline(content: dict[str, Any], *, origin: str) -> Pipeline:
    """A pipeline from its content; ``origin`` names it in errors.

    Raises:
        PipelineError: see ``load_pipeline``.
    """
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in _first_causes(error.errors()))
        raise PipelineError(
            f"{origin}: {problems}.",
            remedy="The keys are described in docs/pipeline-file.md.",
        ) from None


def _first_causes(items: list[Any]) -> list[Any]:
    """Without lists that are too short only because one of their items is wrong."""
    wheres = [item["loc"] for item in items]
    return [
        item
        for item in items
        if item["type"] != "too_short"
        or not any(w[: len(item["loc"])] == item["loc"] and w != item["loc"] for w in wheres)
    ]


def _describe(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key, allowed: {', '.join(_siblings(item['loc']))}"
    if item["type"] == "missing":
        return f"{where}: this key is required"
    if not where or isinstance(item["input"], dict):
        return f"{where}: {message}" if where else message
    message = _WANTED.get(item["type"], message)
    return f"{where}: found {item['input']!r}, {message[:1].lower()}{message[1:]}"


def _siblings(where: tuple[str | int, ...]) -> list[str]:
    """The keys that the schema allows where an unknown one stood."""
    schema = Pipeline.model_json_schema()
    node = schema
    for part in where[:-1]:
        node = node["items"] if isinstance(part, int) else node["properties"][part]
        node = next((option for option in node.get("anyOf", ()) if "$ref" in option), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return sorted(node["properties"])


def load_pipelines(directory: Path) -> dict[str, Pipeline]:
    """Every pipeline of a directory, by name; empty if there is none.

    Raises:
        PipelineError: a file is wrong, or two have the same name.
    """
    pipelines: dict[str, Pipeline] = {}
    for path in sorted(directory.glob("*")):
        # Hidden ones are drafts and locks of editors.
        if path.suffix not in _SUFFIXES or path.name.startswith("."):
            continue
        pipeline = load_pipeline(path)
        if pipeline.name in pipelines:
            raise PipelineError(
                f"{path}: another file declares the pipeline {pipeline.name!r} too.",
                remedy="Keep one of them.",
            )
        pipelines[pipeline.name] = pipeline
    return pipelines


def json_schema() -> dict[str, Any]:
    """JSON Schema of a pipeline file, for editors."""
    schema = Pipeline.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    # What an ensemble has instead of a class.
    entry = schema["$defs"]["ModelSpec"]
    entry["required"] = [key for key in entry["required"] if key != "model"]
    entry["anyOf"] = [{"required": ["model"]}, {"required": ["ensemble"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
