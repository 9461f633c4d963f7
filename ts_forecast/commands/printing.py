"""How commands show rows: a table for people, JSON for programs; and how they read ages and sizes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, TypeVar

import typer

Row = TypeVar("Row")
Column = tuple[str, Callable[[Row], object]]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd]?)$")
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kMGTP]?)(i?)B?$")
_RIGHT = (int, float)


def print_json(content: object) -> None:
    """Print rows, or anything of them, as JSON; bytes and seconds stay numbers."""
    typer.echo(json.dumps(content, indent=2, default=_plain))


def print_table(
    rows: Sequence[Row], columns: Sequence[Column[Row]], *, empty: str = "", title: str = ""
) -> None:
    """Print a table; numbers to the right; ``empty`` where there are no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not rows:
        console.print(empty or "nothing", highlight=False)
        return
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for header, value in columns:
        is_number = all(isinstance(value(row), (*_RIGHT, type(None))) for row in rows)
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        # A Text, for what stands in brackets is no markup.
        table.add_row(*(Text(_shown(value(row))) for _, value in columns))
    console.print(table, highlight=False)


def say(line: str, style: str = "") -> None:
    """Print a line for people, whatever brackets it holds."""
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(line, style=style), soft_wrap=True)


def size(count: float | None) -> str:
    """Bytes for people.

    >>> size(123_456_789)
    '123.5 MB'
    """
    from rich.filesize import decimal

    if count is None:
        return "—"
    return f"{'-' if count < 0 else ''}{decimal(abs(int(count)))}"


def age(seconds: float | None) -> str:
    """Seconds for people.

    >>> age(0.25), age(75), age(7260), age(200_000)
    ('0.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, smaller, name, below in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name} {seconds % unit // smaller:.0f} {below}"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def read_age(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``5m``, ``2h`` or ``3d``.

    >>> read_age("1.5h")
    5400.0
    """
    if (match := _AGE.match(text.strip())) is None:
        raise typer.BadParameter(f"{text!r} is no age: write 90s, 5m, 2h or 3d.")
    return float(match[1]) * _UNITS[match[2] or "s"]


def read_size(text: str) -> int:
    """Bytes of ``500GB``, ``1.5T`` or ``200GiB``.

    >>> read_size("2GiB")
    2147483648
    """
    if (match := _SIZE.match(text.strip())) is None:
        raise typer.BadParameter(f"{text!r} is no size: write 500GB, 1.5TB or 200GiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kMGTP".index(match[2] or " "))


def progress_is_wanted() -> bool:
    """Whether somebody looks at the standard error."""
    return sys.stderr.isatty()


def _shown(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _plain(value: Any) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
