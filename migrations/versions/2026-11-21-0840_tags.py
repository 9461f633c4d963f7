"""Tags: a row a name, whose count of uses is kept by triggers.

A tag is a key of a row's ``tags``. The triggers are deferred to the commit, so that a tag's row is
locked for no longer than that: a run that stays open in a notebook holds up nobody.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TAGGED = (
    "experiments",
    "runs",
    "models",
    "model_registry",
    "datasets",
    "dataset_features",
    "artifacts",
    "hyperparameter_search_spaces",
)
_EVENTS = {
    "INSERT": "NEW.tags <> '{}'",
    "UPDATE OF tags": "OLD.tags IS DISTINCT FROM NEW.tags",
    "DELETE": "OLD.tags <> '{}'",
}
_COUNT_TAGS = """
CREATE FUNCTION count_tags() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN OLD.tags END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN NEW.tags END;
    gone text[];
    come text[];
BEGIN
    IF jsonb_typeof(before) IS DISTINCT FROM 'object' THEN before := '{}'; END IF;
    IF jsonb_typeof(after) IS DISTINCT FROM 'object' THEN after := '{}'; END IF;
    SELECT array_agg(key ORDER BY key) FILTER (WHERE NOT after ? key) INTO gone
    FROM jsonb_object_keys(before) AS key;
    SELECT array_agg(key ORDER BY key) FILTER (WHERE NOT before ? key) INTO come
    FROM jsonb_object_keys(after) AS key WHERE length(key) BETWEEN 1 AND 255;
    UPDATE public.tags SET usage_count = usage_count - 1
    WHERE tag_name = ANY (gone) AND usage_count > 0;
    -- In one order everywhere: two that count the same tags must not wait for each other.
    INSERT INTO public.tags AS t (tag_name, usage_count)
    SELECT key, 1 FROM unnest(come) AS key ORDER BY key
    ON CONFLICT (tag_name) DO UPDATE SET usage_count = t.usage_count + 1;
    RETURN NULL;
END;
$$
"""


def upgrade() -> None:
    op.create_table(
        "tags",
        sa.Column("tag_id", sa.BigInteger(), nullable=False),
        sa.Column("tag_name", sa.String(length=255), nullable=False),
        sa.Column("tag_category", sa.String(length=100), nullable=True),
        sa.Column("tag_description", sa.Text(), nullable=True),
        sa.Column(
            "usage_count",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=True,
            comment="Rows that carry it; kept by triggers.",
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
        sa.PrimaryKeyConstraint("tag_id", name=op.f("pk_tags")),
        sa.UniqueConstraint("tag_name", name=op.f("uq_tags_tag_name")),
        comment="The tags in use, and how often each is.",
    )
    op.create_index("idx_tags_category", "tags", ["tag_category"], unique=False)
    op.create_index("idx_tags_name", "tags", ["tag_name"], unique=False)
    op.create_index("idx_tags_usage", "tags", [sa.literal_column("usage_count DESC")], unique=False)
    op.execute(
        "CREATE TRIGGER update_tags_updated_at BEFORE UPDATE ON tags "
        "FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()"
    )
    op.execute(_COUNT_TAGS)
    for table in _TAGGED:
        for event, condition in _EVENTS.items():
            op.execute(
                f"CREATE CONSTRAINT TRIGGER count_{table}_tags_{event.split()[0].lower()} "
                f"AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED "
                f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION count_tags()"
            )
        op.execute(
            f"""
            INSERT INTO tags (tag_name, usage_count)
            SELECT key, count(*) FROM {table} CROSS JOIN LATERAL jsonb_object_keys(tags) AS key
            WHERE jsonb_typeof(tags) = 'object' AND length(key) BETWEEN 1 AND 255 GROUP BY key
            ON CONFLICT (tag_name)
            DO UPDATE SET usage_count = tags.usage_count + EXCLUDED.usage_count
            """
        )


def downgrade() -> None:
    for table in _TAGGED:
        for event in _EVENTS:
            op.execute(f"DROP TRIGGER count_{table}_tags_{event.split()[0].lower()} ON {table}")
    op.execute("DROP FUNCTION count_tags()")
    op.drop_table("tags")
