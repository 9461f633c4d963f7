"""YAML that people write, read strictly: pipeline files and files of search spaces.

What the keys may be is judged by whoever asks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ts_forecast.errors import PipelineError

_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice: YAML would keep the last one silently.

    And 1e-3 is a number, as in YAML 1.2 and JSON; PyYAML alone would read a text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue  # YAML's own rules: the first is refused below, the second may be overridden.
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_UniqueKeyLoader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path, *, remedy: str = "") -> dict[str, Any]:
    """The keys and values of a file.

    Raises:
        PipelineError: it cannot be read, is not YAML, names a key twice, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 — derives from SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path} is not YAML: {error}.") from None
    if not isinstance(content, dict):
        raise PipelineError(
            f"{path} holds {type(content).__name__}, not keys and values.", remedy=remedy
        )
    return content
