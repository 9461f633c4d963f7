"""Row-level security on experiments and everything under them.

Who acts is ``app_username()``: the login, unless it is a service's (a member of the role ``loader``, the
owner, a superuser); then it is whom the service names in ``app.current_user``. What they see are the
experiments that they made and those that ``user_experiments`` gives them; ``read`` lets them see,
``write`` insert and update, ``admin`` delete and share. The owner of the tables, superusers and members of
``admin_user`` see everything (``app_sees_all()``); FORCE, so that no policy is passed over by ownership.

Functions in policies stand in uncorrelated subqueries: called once a statement, not once a row.
Partitions queried by name would bypass their parent's policies: nobody is granted them (``db.roles``).
Datasets belong to no experiment: whoever may read the tables sees them.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FUNCTIONS = {
    "app_username()": """
        RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
            SELECT CASE WHEN EXISTS (
                SELECT FROM pg_class c
                WHERE c.oid = 'public.experiments'::regclass
                  AND pg_has_role(session_user, c.relowner, 'MEMBER')
                UNION ALL
                SELECT FROM pg_roles r
                WHERE r.rolname = 'loader' AND pg_has_role(session_user, r.oid, 'MEMBER')
            ) THEN coalesce(nullif(current_setting('app.current_user', true), ''), session_user)
            ELSE session_user END
        $$""",
    "app_sees_all()": """
        RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
            SELECT EXISTS (
                SELECT FROM pg_class c
                WHERE c.oid = 'public.experiments'::regclass
                  AND pg_has_role(current_user, c.relowner, 'USAGE')
                UNION ALL
                SELECT FROM pg_roles r
                WHERE r.rolname = 'admin_user' AND pg_has_role(current_user, r.oid, 'USAGE')
            )
        $$""",
    "app_experiments(level text)": """
        RETURNS SETOF bigint
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            WITH me AS (
                SELECT a.username, u.user_id, u.is_superuser
                FROM (SELECT public.app_username() AS username) a
                LEFT JOIN public.users u ON u.username = a.username
                WHERE u.is_active IS NOT FALSE
            )
            SELECT e.experiment_id FROM public.experiments e JOIN me
                ON e.created_by = me.username OR me.is_superuser
            UNION
            SELECT p.experiment_id FROM public.user_experiments p JOIN me USING (user_id)
            WHERE array_position(ARRAY['read', 'write', 'admin', 'owner'], p.permission_level::text)
               >= array_position(ARRAY['read', 'write', 'admin', 'owner'], level)
        $$""",
}
_ALL = "(SELECT app_sees_all())"


def _allowed(level: str) -> str:
    return f"experiment_id IN (SELECT app_experiments('{level}'))"


# How a row of a table leads to its experiment; the rows of the other table are seen under its policy.
_OWNERS = {
    "runs": "{allowed}",
    "predictions": "{allowed}",
    "models": "EXISTS (SELECT FROM runs r WHERE r.run_id = models.run_id AND r.{allowed})",
    "metrics": "EXISTS (SELECT FROM runs r WHERE r.run_id = metrics.run_id AND r.{allowed})",
    "metric_summaries": "EXISTS (SELECT FROM runs r WHERE r.run_id = metric_summaries.run_id "
    "AND r.{allowed})",
    "hyperparameters": "EXISTS (SELECT FROM runs r WHERE r.run_id = hyperparameters.run_id "
    "AND r.{allowed})",
    "artifacts": "EXISTS (SELECT FROM runs r WHERE r.run_id = artifacts.run_id AND r.{allowed})",
    "system_logs": "EXISTS (SELECT FROM runs r WHERE r.run_id = system_logs.run_id "
    "AND r.{allowed})",
    "model_registry": "EXISTS (SELECT FROM models m JOIN runs r ON r.run_id = m.run_id "
    "WHERE m.model_id = model_registry.model_id AND r.{allowed})",
    "staging.uploads": "{allowed}",
    "staging.rejected": "EXISTS (SELECT FROM staging.uploads u "
    "WHERE u.upload_id = rejected.upload_id AND u.{allowed})",
}
_IS_MINE = "created_by = (SELECT app_username())"
_IS_ME = "username = (SELECT app_username())"
_POLICIES = [
    # INSERT … RETURNING must see a row that the function's snapshot does not hold yet.
    ("user_experiments_policy", "experiments", "SELECT", f"{_IS_MINE} OR {_allowed('read')}"),
    ("user_experiments_update_policy", "experiments", "UPDATE", _allowed("write")),
    ("user_experiments_insert_policy", "experiments", "INSERT", _IS_MINE),
    ("user_experiments_delete_policy", "experiments", "DELETE", _allowed("admin")),
    (
        "user_experiments_select_policy",
        "user_experiments",
        "SELECT",
        f"{_allowed('admin')} OR user_id IN (SELECT user_id FROM users WHERE {_IS_ME})",
    ),
    *(
        (f"user_experiments_{verb.lower()}_policy", "user_experiments", verb, _allowed("admin"))
        for verb in ("INSERT", "UPDATE", "DELETE")
    ),
    ("users_select_policy", "users", "SELECT", _IS_ME),
    ("users_insert_policy", "users", "INSERT", "false"),
    ("users_update_policy", "users", "UPDATE", "false"),
    ("users_delete_policy", "users", "DELETE", "false"),
    *(
        (
            f"{table.rpartition('.')[2]}_{verb.lower()}_policy",
            table,
            verb,
            path.format(allowed=_allowed(level)),
        )
        for table, path in _OWNERS.items()
        for verb, level in (
            ("SELECT", "read"),
            ("INSERT", "write"),
            ("UPDATE", "write"),
            ("DELETE", "admin"),
        )
    ),
]
_TABLES = sorted({table for _, table, _, _ in _POLICIES})


def upgrade() -> None:
    for signature, body in _FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {signature} {body}")
    for name, table, verb, condition in _POLICIES:
        using = "" if verb == "INSERT" else f"USING ({_ALL} OR {condition})"
        check = "" if verb in ("SELECT", "DELETE") else f"WITH CHECK ({_ALL} OR {condition})"
        op.execute(f"CREATE POLICY {name} ON {table} FOR {verb} {using} {check}")
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for name, table, _, _ in _POLICIES:
        op.execute(f"DROP POLICY {name} ON {table}")
    for signature in ("app_experiments(text)", "app_sees_all()", "app_username()"):
        op.execute(f"DROP FUNCTION {signature}")
