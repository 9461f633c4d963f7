"""The declarative base: naming convention and the column types that all tables share.

Moments are TIMESTAMPTZ; TIMESTAMP without a zone is kept for ``ds``-like columns, whose clock is the
data's own. ``updated_at`` is kept by a trigger, which the migrations make.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, MetaData, String, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

BigId = Annotated[int, mapped_column(BigInteger, primary_key=True)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[
    datetime, mapped_column(DateTime(timezone=True), server_default=func.current_timestamp())
]
Tags = Annotated[dict[str, Any] | None, mapped_column(JSONB, server_default=text("'{}'::jsonb"))]
Name = Annotated[str, mapped_column(String(255))]
LongText = Annotated[str, mapped_column(Text)]


class Base(DeclarativeBase):
    """Root of the typed tables; its metadata is what the migrations must produce."""

    metadata = MetaData(naming_convention=NAMING)


def one_of(column: str, *values: str) -> str:
    """SQL of a CHECK that a column holds one of a few values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
