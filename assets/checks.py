"""Asset checks: what the domain found, as Dagster shows it, a result for each quarter.

The checks are made in the step that makes the asset, right after it, so that they cost no process of
their own and stop what depends on the quarter. A run over a range of quarters reports each of them with
its partition, which ``AssetCheckResult`` cannot (it knows one partition, or none): evaluations are
yielded. What is checked is decided in ``ts_forecast.checks``.
"""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from assets.metadata import numbers
from ts_forecast.check_limits import CheckName
from ts_forecast.checks.quarter import names_of
from ts_forecast.checks.result import KINDS, CheckResult
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter


def check_specs(
    pipeline: Pipeline,
    asset_key: Sequence[str],
    names: Iterable[CheckName],
    partitions: dg.PartitionsDefinition[str] | None,
) -> list[dg.AssetCheckSpec]:
    """Of the checks that the pipeline file does not leave out."""
    return [
        dg.AssetCheckSpec(
            name,
            asset=dg.AssetKey(asset_key),
            blocking=KINDS[name].is_blocking,
            description=KINDS[name].description,
            partitions_def=partitions,
        )
        for name in names_of(pipeline, names)
    ]


def evaluations(
    asset_key: dg.AssetKey, quarter: Quarter | None, results: Iterable[CheckResult]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What was found of a quarter, or of the asset as a whole, for the event log."""
    where = {} if quarter is None else {"quarter": quarter.label}
    for result in results:
        texts = {name: v for name, v in result.figures.items() if isinstance(v, str)}
        is_blocking = KINDS[result.name].is_blocking
        yield dg.AssetCheckEvaluation(
            asset_key=asset_key,
            check_name=result.name,
            passed=result.passed,
            description=result.reason if quarter is None else f"{quarter.label}: {result.reason}",
            metadata={**where, **texts, **numbers(result.figures)},
            severity=(dg.AssetCheckSeverity.ERROR if is_blocking else dg.AssetCheckSeverity.WARN),
            blocking=is_blocking,
            partition=None if quarter is None else quarter.key,
        )


def check_outputs(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """What the steps downstream of blocking checks wait for."""
    for key in sorted(context.selected_asset_check_keys):
        name = context.assets_def.get_output_name_for_asset_check_key(key)
        yield dg.Output(None, output_name=name)
