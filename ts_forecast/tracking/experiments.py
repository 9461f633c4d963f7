"""Experiments: the row of a pipeline."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ts_forecast.errors import DatabaseError
from ts_forecast.pipeline import Pipeline
from ts_forecast.tables.experiment import Experiment


def ensure_experiment(session: Session, pipeline: Pipeline) -> int:
    """The pipeline's experiment, made if it is absent, with its present definition.

    Two callers at once get the same row.
    """
    definition = pipeline.model_dump(mode="json")
    statement = insert(Experiment).values(
        experiment_name=pipeline.name,
        experiment_description=pipeline.description or None,
        experiment_type="production",
        metadata_=definition,
    )
    changed = Experiment.metadata_.is_distinct_from(statement.excluded["metadata"])
    upsert = statement.on_conflict_do_update(
        index_elements=["experiment_name"],
        index_where=text("deleted_at IS NULL"),
        set_={
            "metadata": statement.excluded["metadata"],
            "experiment_description": statement.excluded.experiment_description,
        },
        where=changed,
    ).returning(Experiment.experiment_id)
    # Most calls find it as it is: reading first keeps them from locking the row.
    found = find_experiment(session, pipeline.name)
    if found is not None and found.metadata_ == definition:
        return found.experiment_id
    made = session.execute(upsert).scalar_one_or_none()
    return made if made is not None else experiment_id(session, pipeline.name)


def find_experiment(session: Session, name: str) -> Experiment | None:
    """The active experiment of that name."""
    return session.scalar(
        select(Experiment).where(
            Experiment.experiment_name == name, Experiment.deleted_at.is_(None)
        )
    )


def experiment_id(session: Session, name: str) -> int:
    """The active experiment's id.

    Raises:
        DatabaseError: nothing of that pipeline was ever materialized.
    """
    found = find_experiment(session, name)
    if found is None:
        raise DatabaseError(
            f"The database knows no pipeline {name!r}.",
            remedy=f"Materialize {name}/datasets first.",
        )
    return found.experiment_id
