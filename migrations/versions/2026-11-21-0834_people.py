"""People, and what each may do with which experiment.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "user_uuid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column(
            "username",
            sa.String(length=255),
            nullable=False,
            comment="As a database role of that name, or as app.current_user says.",
        ),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("full_name", sa.String(length=255), nullable=True),
        sa.Column("auth_provider", sa.String(length=50), server_default="local", nullable=True),
        sa.Column(
            "external_id",
            sa.String(length=255),
            nullable=True,
            comment="The provider's key of the person.",
        ),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=True,
            comment="false: sees nothing.",
        ),
        sa.Column(
            "is_superuser",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=True,
            comment="true: sees every experiment.",
        ),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("login_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column(
            "preferences",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
            comment="Of a user interface.",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "auth_provider IN ('local', 'oauth2', 'ldap', 'saml')",
            name=op.f("ck_users_auth_provider"),
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint("user_uuid", name=op.f("uq_users_user_uuid")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
        comment="People who use the system.",
    )
    op.create_index(
        "idx_users_active",
        "users",
        ["is_active"],
        unique=False,
        postgresql_where=sa.text("is_active = true"),
    )
    op.create_index("idx_users_email", "users", ["email"], unique=False)
    op.create_index("idx_users_provider", "users", ["auth_provider"], unique=False)
    op.create_index("idx_users_username", "users", ["username"], unique=False)
    op.create_table(
        "user_experiments",
        sa.Column("user_experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "permission_level",
            sa.String(length=50),
            server_default="read",
            nullable=False,
            comment="read; write: insert and update; admin: delete and share; owner: all of these.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "permission_level IN ('read', 'write', 'admin', 'owner')",
            name=op.f("ck_user_exp_permission"),
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.experiment_id"],
            name=op.f("fk_user_experiments_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_user_experiments_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_experiment_id", name=op.f("pk_user_experiments")),
        sa.UniqueConstraint("user_id", "experiment_id", name="uq_user_experiment"),
        comment="Who may do what with which experiment.",
    )
    op.create_index(
        "idx_user_exp_experiment_id", "user_experiments", ["experiment_id"], unique=False
    )
    op.create_index(
        "idx_user_exp_permission", "user_experiments", ["permission_level"], unique=False
    )
    op.create_index("idx_user_exp_user_id", "user_experiments", ["user_id"], unique=False)
    op.execute(
        "CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON users "
        "FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()"
    )


def downgrade() -> None:
    op.drop_table("user_experiments")
    op.drop_table("users")
