"""The daily upkeep: partitions ahead, archiving after retention, materialized views, leftover checkpoints.

A job of plain ops, in no pipeline's group: nobody looks for it among the assets. Its schedule runs by
default, for a deployment that is left alone must not run out of partitions; it can be stopped in the UI.
It drops no rows: what is archived waits for ``ts-forecast db partitions drop``.
"""

import dagster as dg

from assets.step import reason_in_one_line
from resources.postgres import Postgres
from ts_forecast.db.calendar_partitions import TABLES
from ts_forecast.errors import LockedError
from ts_forecast.operations.leftover_fits import remove_leftover_fits
from ts_forecast.operations.materialized_views import materialized_views, refresh
from ts_forecast.operations.partition_archive import archive
from ts_forecast.operations.partitions_ahead import ensure_ahead
from ts_forecast.operations.retention import expired, retention_days

# After the quarter's and the month's first hours; once a day leaves two quarters for a table in use.
_CRON = "20 3 * * *"


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Partitions of the running and the next periods.",
)
def partitions_ahead(context: dg.OpExecutionContext, postgres: dg.ResourceParam[Postgres]) -> None:
    """One table that is in use does not keep the others from theirs."""
    made, problems = [], []
    for table in TABLES:
        try:
            with reason_in_one_line():
                made += list(ensure_ahead(postgres.engine, tables=[table]))
        except dg.Failure as failure:
            problems.append(f"{table.qualified}: {failure.description}")
    for one in made:
        context.log.info(f"{one.name}: made, {one.moved_rows} rows from the default partition")
    if problems:
        raise dg.Failure(description=" ".join(problems))
    moved = sum(one.moved_rows for one in made)
    context.add_output_metadata({"made": len(made), "rows_moved": moved})


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Partitions past their retention, into the archive.",
)
def archive_expired(context: dg.OpExecutionContext, postgres: dg.ResourceParam[Postgres]) -> None:
    """What is in use now is tried again tomorrow."""
    with reason_in_one_line(), postgres.engine.connect() as connection:
        past = [
            part
            for table in TABLES
            for part in expired(connection, table, days=retention_days(connection, table))
        ]
    rows = done = 0
    for part in past:
        try:
            with reason_in_one_line():
                archived = archive(postgres.engine, part, reason="retention")
        except dg.Failure as failure:
            if not isinstance(failure.__cause__, LockedError):
                raise
            context.log.warning(f"{part.name}: {failure.description}")
            continue
        context.log.info(f"{part.name}: archived, {archived.rows} rows")
        rows += archived.rows or 0
        done += 1
    context.add_output_metadata({"archived": done, "rows": rows, "in_use": len(past) - done})


@dg.op(out=dg.Out(dg.Nothing), description="Refresh the materialized views beside their readers.")
def refresh_views(context: dg.OpExecutionContext, postgres: dg.ResourceParam[Postgres]) -> None:
    """Those that the role may refresh; another's are named in the log."""
    with postgres.engine.connect() as connection:
        views = materialized_views(connection)
    done = []
    for view in views:
        if not view.may_refresh:
            context.log.warning(f"{view.name}: only its owner may refresh it")
            continue
        done.append(refresh(postgres.engine, view))
        context.log.info(f"{view.name}: {done[-1].rows} rows in {done[-1].seconds:.2f} s")
    context.add_output_metadata({view.name: view.rows for view in done})


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Checkpoints of interrupted fits whose quarter has been trained since, removed.",
)
def leftover_fits(context: dg.OpExecutionContext, postgres: dg.ResourceParam[Postgres]) -> None:
    """On this host; each deployment keeps its checkpoints under its own TS_FORECAST_HOME."""
    with reason_in_one_line():
        removed = remove_leftover_fits(postgres.engine, postgres.settings)
    for one in removed:
        context.log.info(f"{one.name}: removed, {one.reason}")
    context.add_output_metadata(
        {"removed": len(removed), "bytes": sum(one.size_bytes for one in removed)}
    )


@dg.job(
    description="Partitions ahead, archiving after retention, refresh of the materialized views, "
    "leftover checkpoints.",
    executor_def=dg.in_process_executor,
    tags={"kind": "maintenance"},
)
def database_maintenance() -> None:
    """Four ops that need nothing of each other: one that fails leaves the others to theirs."""
    partitions_ahead()
    archive_expired()
    refresh_views()
    leftover_fits()


maintenance_schedule = dg.ScheduleDefinition(
    job=database_maintenance,
    name="database_maintenance",
    cron_schedule=_CRON,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 03:20 UTC; running unless it is stopped.",
)
