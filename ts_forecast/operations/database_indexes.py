"""Use, size, redundancy and bloat of the indexes; those of partitions are rolled up.

An index that nobody has scanned since the statistics were reset is a candidate, no verdict: a yearly
report may need it, and a primary key or a unique index has its work in every write. Rebuilding one is
``database_maintenance``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, text

from ts_forecast.operations.database_scope import SCOPE

_LEAST_BLOAT_BYTES = 10 * 2**20
_BLOATED = 0.5


@dataclass(frozen=True)
class IndexState:
    """An index with those of all partitions.

    Attributes:
        scans: since the statistics were reset.
        guards: it keeps rows unique, whether anybody scans it or not.
        bloat_bytes: what a rebuild would free, estimated from the statistics of its columns, of a
            B-tree only; None where it cannot be. Equal keys are stored once, so an index with many of
            them hides its bloat.
        covered_by: an index that answers all that this one does.
    """

    table: str
    index: str
    size_bytes: int
    scans: int
    tuples_read: int
    guards: bool
    bloat_bytes: int | None
    definition: str
    covered_by: str | None = None

    @property
    def is_unused(self) -> bool:
        """Nobody has scanned it, and nothing would miss it on writing."""
        return self.scans == 0 and not self.guards

    @property
    def is_bloated(self) -> bool:
        """Half of it, and over 10 MiB, would go in a rebuild."""
        bloat = self.bloat_bytes or 0
        return bloat >= _LEAST_BLOAT_BYTES and bloat >= _BLOATED * self.size_bytes


@dataclass(frozen=True)
class IndexReport:
    """All indexes, the largest first; ``since`` is None if the statistics were never reset."""

    since: datetime | None
    indexes: list[IndexState]


def index_report(connection: Connection) -> IndexReport:
    """Every index of ours."""
    since = connection.scalar(
        text("SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()")
    )
    covers = _coverage(connection)
    rows = connection.execute(text(_STATES), SCOPE)
    found = [IndexState(**row._mapping) for row in rows]
    return IndexReport(since, [replace(one, covered_by=covers.get(one.index)) for one in found])


def _coverage(connection: Connection) -> dict[str, str]:
    """Index → another of the same table that does all of its work.

    Equal ones (the later by name goes, or the one that guards nothing), and B-trees whose columns begin
    another's.
    """
    return {row.redundant: row.cover for row in connection.execute(text(_COVERAGE), SCOPE)}


_COVERAGE = """
WITH keys AS (
    SELECT i.indexrelid, i.indrelid, a.amname, i.indnkeyatts AS width, i.indisunique AS guards,
           format('%s.%s', n.nspname, c.relname) AS name,
           (i.indkey::int2[])[0:i.indnkeyatts - 1] AS columns,
           (i.indclass::oid[])[0:i.indnkeyatts - 1] AS classes,
           (i.indcollation::oid[])[0:i.indnkeyatts - 1] AS collations,
           (i.indoption::int2[])[0:i.indnkeyatts - 1] AS options,
           coalesce(pg_get_expr(i.indexprs, i.indrelid), '') AS expressions,
           coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
           (i.indkey::int2[])[i.indnkeyatts:] AS included
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
    WHERE n.nspname = ANY(:schemas) AND NOT c.relispartition AND i.indisvalid
)
SELECT DISTINCT ON (less.name) less.name AS redundant, more.name AS cover
FROM keys less JOIN keys more
  ON more.indrelid = less.indrelid AND more.indexrelid <> less.indexrelid
 AND more.amname = less.amname AND more.predicate = less.predicate
 AND more.columns[1:less.width] = less.columns AND more.classes[1:less.width] = less.classes
 AND more.collations[1:less.width] = less.collations
 AND more.options[1:less.width] = less.options
 AND more.included @> less.included
WHERE NOT less.guards AND (
    (more.width = less.width AND more.expressions = less.expressions
     AND (more.guards OR more.name < less.name))
    OR (more.width > less.width AND less.amname = 'btree'
        AND less.expressions = '' AND more.expressions = '')
)
ORDER BY less.name, more.width, more.name
"""

# Pages that the entries would fill at the fill factor: 4 bytes of pointer, a header of 8 (16 with NULLs
# among the keys) and the columns' average width, aligned to 8, on pages of 8192 with 40 of overhead.
_STATES = """
WITH widths AS (
    SELECT i.indexrelid,
           sum((1 - coalesce(s.null_frac, 0)) * coalesce(s.avg_width, 1024)) AS width,
           bool_or(coalesce(s.null_frac, 0) > 0) AS has_nulls, bool_and(s.attname IS NOT NULL) AS known
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum > 0
    LEFT JOIN pg_attribute ta ON ta.attrelid = t.oid AND ta.attnum = i.indkey[a.attnum - 1]
    LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND NOT s.inherited
      AND s.tablename = CASE WHEN ta.attnum IS NULL OR ta.attnum = 0 THEN c.relname ELSE t.relname END
      AND s.attname = coalesce(ta.attname, a.attname)
    GROUP BY i.indexrelid
), leaves AS (
    SELECT coalesce(pg_partition_root(c.oid), c.oid) AS root, pg_relation_size(c.oid) AS size_bytes,
           coalesce(s.idx_scan, 0) AS scans, coalesce(s.idx_tup_read, 0) AS tuples_read,
           CASE WHEN m.amname = 'btree' AND w.known AND c.reltuples >= 0 THEN greatest(0,
               pg_relation_size(c.oid) - 8192 * (1 + ceil(
                   c.reltuples * (4 + CASE WHEN w.has_nulls THEN 16 ELSE 8 END
                                  + 8 * ceil(w.width / 8))
                   / ((8192 - 40) * coalesce(
                       (SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                        WHERE option_name = 'fillfactor'), 90) / 100)
               )))::bigint END AS bloat_bytes
    FROM pg_class c JOIN pg_am m ON m.oid = c.relam LEFT JOIN widths w ON w.indexrelid = c.oid
    LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = c.oid WHERE c.relkind = 'i'
), roots AS (
    SELECT root, sum(size_bytes)::bigint AS size_bytes, sum(scans)::bigint AS scans,
           sum(tuples_read)::bigint AS tuples_read, sum(bloat_bytes)::bigint AS bloat_bytes
    FROM leaves GROUP BY root
)
SELECT format('%s.%s', tn.nspname, t.relname) AS table, format('%s.%s', n.nspname, c.relname) AS index,
       r.size_bytes, r.scans, r.tuples_read, (i.indisunique OR i.indisexclusion) AS guards,
       r.bloat_bytes, pg_get_indexdef(c.oid) AS definition
FROM roots r JOIN pg_class c ON c.oid = r.root JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE n.nspname = ANY(:schemas) ORDER BY r.size_bytes DESC, 2
"""
