"""Sources that are queries: ``sql`` is a format too; and what columns then hold.

Not of the rows that are there, whose formats are fewer: reading them all would hold the lock. 0015 does it.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FORMATS = ("csv", "parquet", "json", "feather")
_COMMENTS = {
    "datasets.file_path": (
        "Where the file lies.",
        "Where the file lies: a path or URL; sql:<pipeline>.",
    ),
    "staging.uploads.file_path": (
        "Where it arrived.",
        "Where it arrived: a path or URL; sql:<pipeline>.",
    ),
    **dict.fromkeys(
        ("datasets.file_format", "staging.uploads.file_format"),
        ("csv, parquet, json or feather.", "csv, parquet, json, feather, or sql: a query."),
    ),
    **dict.fromkeys(
        ("datasets.file_hash", "staging.uploads.file_hash"),
        ("SHA-256 of the file's bytes.", "SHA-256 of the file's bytes, or of a query's rows."),
    ),
}


def upgrade() -> None:
    _allow_formats(*_FORMATS, "sql")
    for column, (_, after) in _COMMENTS.items():
        _say(column, after)


def downgrade() -> None:
    _allow_formats(*_FORMATS)
    for column, (before, _) in _COMMENTS.items():
        _say(column, before)


def _allow_formats(*names: str) -> None:
    listed = ", ".join(f"'{name}'" for name in names)
    op.execute(
        "-- squawk-ignore ban-drop-constraint\n"
        "ALTER TABLE datasets DROP CONSTRAINT ck_datasets_format"
    )
    op.execute(
        "ALTER TABLE datasets ADD CONSTRAINT ck_datasets_format "
        f"CHECK (file_format IN ({listed})) NOT VALID"
    )


def _say(column: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")
