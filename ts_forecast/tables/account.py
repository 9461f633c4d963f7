"""People, and what each may do with which pipeline.

Row-level security reads these tables: a person sees the experiments that they made and those that they
are given here (``migrations``, the revision on row-level security).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, Name, one_of

PERMISSION_LEVELS = ("read", "write", "admin", "owner")
"""Each includes the ones before it."""


class User(Base):
    """A person; authentication is somebody else's."""

    __tablename__ = "users"

    user_id: Mapped[BigId] = mapped_column(comment="Key.")
    user_uuid: Mapped[UUID] = mapped_column(
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="The same row under a name that is unique everywhere.",
    )
    username: Mapped[Name] = mapped_column(
        unique=True, comment="As a database role of that name, or as app.current_user says."
    )
    email: Mapped[Name] = mapped_column(unique=True, comment="Where to write to.")
    full_name: Mapped[Name | None] = mapped_column(comment="For people.")
    auth_provider: Mapped[str | None] = mapped_column(
        String(50), server_default="local", comment="Who vouches for the person."
    )
    external_id: Mapped[Name | None] = mapped_column(comment="The provider's key of the person.")
    is_active: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("true"), comment="false: sees nothing."
    )
    is_superuser: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("false"), comment="true: sees every experiment."
    )
    last_login_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Of the application."
    )
    login_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Of the application."
    )
    preferences: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, server_default=text("'{}'::jsonb"), comment="Of a user interface."
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        CheckConstraint(
            one_of("auth_provider", "local", "oauth2", "ldap", "saml"), "ck_users_auth_provider"
        ),
        Index("idx_users_username", "username"),
        Index("idx_users_email", "email"),
        Index("idx_users_active", "is_active", postgresql_where=text("is_active = true")),
        Index("idx_users_provider", "auth_provider"),
        {"comment": "People who use the system."},
    )


class UserExperiment(Base):
    """What a person may do with an experiment and all that hangs on it."""

    __tablename__ = "user_experiments"

    user_experiment_id: Mapped[BigId] = mapped_column(comment="Key.")
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), comment="The person."
    )
    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"), comment="The experiment."
    )
    permission_level: Mapped[str] = mapped_column(
        String(50),
        server_default="read",
        comment="read; write: insert and update; admin: delete and share; owner: all of these.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When it was given.")

    __table_args__ = (
        CheckConstraint(one_of("permission_level", *PERMISSION_LEVELS), "ck_user_exp_permission"),
        UniqueConstraint("user_id", "experiment_id", name="uq_user_experiment"),
        Index("idx_user_exp_user_id", "user_id"),
        Index("idx_user_exp_experiment_id", "experiment_id"),
        Index("idx_user_exp_permission", "permission_level"),
        {"comment": "Who may do what with which experiment."},
    )
