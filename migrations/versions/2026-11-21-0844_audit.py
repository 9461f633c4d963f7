"""Audit: who changed what, on the tables that people change.

Statement triggers with transition tables, since row triggers made writing ten times slower. Such a trigger
serves one event, so that the design's ``experiments_audit_trigger`` becomes four. Nobody but the owner
may change what was written: no right to is granted, and the function writes with its owner's rights.
Of runs, which the machine updates all the time, only deletions are audited; of predictions, slices.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_EVENTS = {
    "INSERT": ("_audit_trigger", "NEW TABLE AS new_rows"),
    "UPDATE": ("_audit_trigger_update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    "DELETE": ("_audit_trigger_delete", "OLD TABLE AS old_rows"),
    "TRUNCATE": ("_audit_trigger_truncate", None),
}
# Each with its key; of the settings, the column whose value is hidden where is_secret.
_AUDITED = {
    "experiments": "experiment_id",
    "models": "model_id",
    "model_registry": "registry_id",
    "datasets": "dataset_id",
    "hyperparameter_search_spaces": "search_space_id",
    "users": "user_id",
    "user_experiments": "user_experiment_id",
    "system_config": "config_id', 'config_value",
}
_DELETIONS = {"runs": "run_id", "artifacts": "artifact_id", "metric_summaries": "summary_id"}
_AUTHOR = """
CREATE FUNCTION audit.author(
    OUT user_id text, OUT database_user text, OUT user_ip text, OUT session_id text,
    OUT transaction_id bigint
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(current_setting('app.current_user', true), ''), session_user),
        session_user, host(inet_client_addr()),
        to_hex(extract(epoch FROM backend_start)::bigint) || '.' || to_hex(pid),
        pg_current_xact_id()::text::bigint
    FROM pg_stat_get_activity(pg_backend_pid())
$$
"""
_LOG_CHANGES = """
CREATE FUNCTION audit.log_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    who record;
BEGIN
    SELECT * INTO who FROM audit.author();
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO audit.audit_logs (table_name, operation_type, user_id, database_user, user_ip,
            session_id, transaction_id)
        VALUES (TG_TABLE_NAME, TG_OP, who.user_id, who.database_user, who.user_ip,
            who.session_id, who.transaction_id);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit.audit_logs (table_name, operation_type, record_id, new_values, user_id,
            database_user, user_ip, session_id, transaction_id)
        SELECT TG_TABLE_NAME, TG_OP, (now_is ->> TG_ARGV[0])::bigint, audit.hidden(now_is, TG_ARGV[1]),
            who.user_id, who.database_user, who.user_ip, who.session_id, who.transaction_id
        FROM (SELECT to_jsonb(r) AS now_is FROM new_rows r) AS rows;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit.audit_logs (table_name, operation_type, record_id, old_values, user_id,
            database_user, user_ip, session_id, transaction_id)
        SELECT TG_TABLE_NAME, TG_OP, (was ->> TG_ARGV[0])::bigint, audit.hidden(was, TG_ARGV[1]),
            who.user_id, who.database_user, who.user_ip, who.session_id, who.transaction_id
        FROM (SELECT to_jsonb(r) AS was FROM old_rows r) AS rows;
    ELSE
        INSERT INTO audit.audit_logs (table_name, operation_type, record_id, old_values,
            new_values, changed_fields, user_id, database_user, user_ip, session_id,
            transaction_id)
        SELECT TG_TABLE_NAME, TG_OP, (coalesce(now_is, was) ->> TG_ARGV[0])::bigint,
            audit.hidden(was, TG_ARGV[1]), audit.hidden(now_is, TG_ARGV[1]), changed.fields,
            who.user_id, who.database_user, who.user_ip, who.session_id, who.transaction_id
        FROM (SELECT to_jsonb(r) AS was FROM old_rows r) AS before
        -- Full: a key that changed is two rows, neither of them lost.
        FULL JOIN (SELECT to_jsonb(r) AS now_is FROM new_rows r) AS after
            ON before.was -> TG_ARGV[0] = after.now_is -> TG_ARGV[0]
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(key, audit.hidden(now_is, TG_ARGV[1]) -> key) AS fields
            FROM jsonb_each(now_is)
            WHERE value IS DISTINCT FROM was -> key AND key <> 'updated_at'
        ) AS changed
        WHERE changed.fields IS NOT NULL OR now_is IS NULL;
    END IF;
    RETURN NULL;
END;
$$
"""
_HIDDEN = """
CREATE FUNCTION audit.hidden(row_values jsonb, column_name text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN column_name IS NOT NULL AND (row_values ->> 'is_secret')::boolean
        THEN row_values || jsonb_build_object(column_name, '***')
        ELSE row_values
    END
$$
"""
_LOG_SLICE = """
CREATE FUNCTION audit.log_slice(leaf text, run_id bigint, old_slice text, new_slice text)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO audit.audit_logs (table_name, operation_type, record_id, old_values, new_values,
        user_id, database_user, user_ip, session_id, transaction_id)
    SELECT 'predictions', CASE WHEN old_slice IS NULL THEN 'INSERT' ELSE 'UPDATE' END, run_id,
        CASE WHEN old_slice IS NOT NULL THEN
            jsonb_build_object('partition', leaf, 'slice', old_slice) END,
        jsonb_build_object('partition', leaf, 'slice', new_slice),
        who.user_id, who.database_user, who.user_ip, who.session_id, who.transaction_id
    FROM audit.author() AS who
$$
"""


def upgrade() -> None:
    for function in (_AUTHOR, _HIDDEN, _LOG_CHANGES, _LOG_SLICE):
        op.execute(function)
    for function in ("author()", "hidden(jsonb, text)", "log_slice(text, bigint, text, text)"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION audit.{function} FROM PUBLIC")
    for table, arguments in _AUDITED.items():
        for event in _EVENTS:
            _create_trigger(table, event, arguments)
    for table, arguments in _DELETIONS.items():
        for event in ("DELETE", "TRUNCATE"):
            _create_trigger(table, event, arguments)


def _create_trigger(table: str, event: str, arguments: str) -> None:
    suffix, transition = _EVENTS[event]
    referencing = f"REFERENCING {transition} " if transition else ""
    op.execute(
        f"CREATE TRIGGER {table}{suffix} AFTER {event} ON {table} {referencing}"
        f"FOR EACH STATEMENT EXECUTE FUNCTION audit.log_changes('{arguments}')"
    )


def downgrade() -> None:
    for table in _AUDITED:
        for suffix, _ in _EVENTS.values():
            op.execute(f"DROP TRIGGER {table}{suffix} ON {table}")
    for table in _DELETIONS:
        for event in ("DELETE", "TRUNCATE"):
            op.execute(f"DROP TRIGGER {table}{_EVENTS[event][0]} ON {table}")
    for function in ("log_slice", "log_changes", "hidden", "author"):
        op.execute(f"DROP FUNCTION audit.{function}")
