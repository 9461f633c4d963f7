"""Champions: one version in production a pipeline and quarter, and a view of its forecasts.

A registered version is of one quarter; its row says which, so that an index (0013) can keep two from
being in production. A trigger takes it from the model, whoever writes: the code before this names neither column,
and who may write one pipeline must not take the place of another's champion. Where somebody put several
into production by hand, the last deployed stays. Ensembles are models of our own: ``framework`` may say so.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FRAMEWORKS = (
    "neuralforecast",
    "statsforecast",
    "pytorch",
    "tensorflow",
    "sklearn",
    "darts",
    "gluonts",
    "prophet",
)
_FUNCTION = """
    CREATE FUNCTION place_registered_model() RETURNS trigger
    LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
        SELECT r.experiment_id, m.quarter_start INTO NEW.experiment_id, NEW.quarter_start
        FROM models m JOIN runs r ON r.run_id = m.run_id WHERE m.model_id = NEW.model_id;
        RETURN NEW;
    END;
    $$
"""
_TRIGGER = """
    CREATE TRIGGER place_registered_model
    BEFORE INSERT OR UPDATE OF model_id, experiment_id, quarter_start ON model_registry
    FOR EACH ROW EXECUTE FUNCTION place_registered_model()
"""
_FILL = """
    UPDATE model_registry g SET experiment_id = r.experiment_id, quarter_start = m.quarter_start
    FROM models m JOIN runs r ON r.run_id = m.run_id
    WHERE m.model_id = g.model_id
"""
_PART = """
    UPDATE model_registry g
    SET previous_stage = 'production', current_stage = 'archived', stage_transition_at = now()
    FROM (
        SELECT registry_id, row_number() OVER (
            PARTITION BY experiment_id, quarter_start
            ORDER BY deployed_at DESC NULLS LAST, registry_id DESC) AS place
        FROM model_registry
        WHERE current_stage = 'production' AND quarter_start IS NOT NULL
    ) AS ranked
    WHERE ranked.registry_id = g.registry_id AND ranked.place > 1
"""
_VIEW = """
    SELECT p.prediction_id, p.experiment_id, e.experiment_name, g.quarter_start,
        p.unique_id, p.prediction_date, p.horizon, p.predicted_value, p.lower_bound,
        p.upper_bound, p.confidence_level, p.quantiles, p.actual_value,
        p.model_id, m.model_name, m.model_type, g.registered_model_name, g.model_version,
        g.approved_by, g.deployed_at, p.run_id
    FROM predictions p
    JOIN model_registry g ON g.model_id = p.model_id AND g.experiment_id = p.experiment_id
        AND g.current_stage = 'production'
    JOIN models m ON m.model_id = p.model_id
    JOIN experiments e ON e.experiment_id = p.experiment_id
"""


def upgrade() -> None:
    op.add_column(
        "model_registry",
        sa.Column(
            "experiment_id",
            sa.BigInteger(),
            comment="The model's pipeline, which a trigger looks up.",
        ),
    )
    op.add_column(
        "model_registry",
        sa.Column(
            "quarter_start",
            sa.Date(),
            comment="First day of the model's quarter, likewise; one version a quarter is in "
            "production.",
        ),
    )
    op.execute(_FUNCTION)
    op.execute(_FILL)
    op.execute(_TRIGGER)
    op.execute(_PART)
    op.execute(f"CREATE VIEW v_champion_forecasts WITH (security_invoker = true) AS {_VIEW}")
    op.execute(
        "COMMENT ON VIEW v_champion_forecasts IS 'Forecasts of the version in production of each "
        "pipeline and quarter; name experiment_id and prediction_date, or all partitions are read.'"
    )
    _allow_frameworks(*_FRAMEWORKS, "ts_forecast")


def _allow_frameworks(*names: str) -> None:
    listed = ", ".join(f"'{name}'" for name in names)
    # Not of the rows that are there: reading them all would hold the lock. Its successor allows more.
    op.execute(
        "-- squawk-ignore ban-drop-constraint\n"
        "ALTER TABLE models DROP CONSTRAINT ck_models_framework"
    )
    op.execute(
        "ALTER TABLE models ADD CONSTRAINT ck_models_framework "
        f"CHECK (framework IN ({listed})) NOT VALID"
    )


def downgrade() -> None:
    _allow_frameworks(*_FRAMEWORKS)
    op.execute("DROP VIEW v_champion_forecasts")
    op.execute("DROP TRIGGER place_registered_model ON model_registry")
    op.execute("DROP FUNCTION place_registered_model")
    op.drop_column("model_registry", "quarter_start")
    op.drop_column("model_registry", "experiment_id")
