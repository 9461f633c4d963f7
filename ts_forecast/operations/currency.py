"""Whether quarters of a pipeline are done: data, models, forecasts and scores as they would be made now."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.datasets.quarter import datasets_are_current
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import TsForecastError
from ts_forecast.evaluation.quarter import scores_are_current
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.quarter import slice_is_current
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.training.device import Precision


def is_current(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarters: Sequence[Quarter],
    *,
    precision: Precision,
) -> bool:
    """Whether materializing the quarters again would change and compute nothing.

    Compares fingerprints; trains and forecasts nothing, and imports no torch. What stands in the way of
    an answer (a file that is gone, a quarter that was never ingested) makes it no.

    Args:
        precision: what ``precision: auto`` means to the steps of this host.
    """
    needed = {part for quarter in quarters for part in (*pipeline.window(quarter), quarter)}

    def compare(session: Session) -> bool:
        return datasets_are_current(session, settings, pipeline, sorted(needed)) and all(
            slice_is_current(session, pipeline, quarter, precision=precision)
            and scores_are_current(session, pipeline, quarter)
            for quarter in quarters
        )

    try:
        return in_transaction(engine, compare)
    except TsForecastError:
        return False
