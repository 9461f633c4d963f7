"""``champion``: which model of a quarter is in production, and a person's word on it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.metadata import numbers, table
from assets.partitions import quarterly_partitions, quarters_of
from assets.step import QuarterDone, asset_attributes, for_each_quarter, reason_in_one_line
from resources.postgres import Postgres
from ts_forecast.checks.record import passed_models
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.champion import ChampionChoice
from ts_forecast.evaluation.champion_run import choose_of_quarter, outdated_choices
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.stages import Action, Decision, decide, described


class ChampionConfig(dg.Config):
    """Run configuration of the champion.

    Attributes:
        overrule: choose although a person promoted another.
    """

    overrule: bool = False


def build_champion(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The champion asset of a pipeline.

    It stands behind the quarter's own scores so that those before it are there in a run over several
    quarters; the choice does not read them. Where quarters are scored in another order, later champions
    that were chosen without these scores are chosen again: a backfill gives the same ones whichever of
    its runs ends first. (A mapping to the quarters before would make Dagster ask for champions of later
    quarters too: decision 8.)
    """
    rule = pipeline.champion
    waits = "; a person approves it" if rule.approval else ""

    @dg.asset(
        key=[pipeline.name, "champion"],
        deps=[
            dg.AssetKey([pipeline.name, "metric_summaries"]),
            *(dg.AssetKey([pipeline.name, "trained_models", m.name]) for m in pipeline.models),
        ],
        partitions_def=quarterly_partitions(pipeline),
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"postgres"},
        description=(
            f"The model in production of the quarter: the smallest {pipeline.champion_metric} over "
            f"the {rule.quarters} quarters before it, nothing of the quarter itself{waits}."
        ),
        metadata={
            "rule": dg.MetadataValue.json(rule.model_dump(mode="json")),
            "dagster/table_name": "public.model_registry",
        },
        **asset_attributes(pipeline),
    )
    def champion(
        context: dg.AssetExecutionContext,
        config: ChampionConfig,
        postgres: dg.ResourceParam[Postgres],
    ) -> Iterator[Any]:
        quarters = quarters_of(context)
        where = (postgres.engine, pipeline)

        def choose(quarter: Quarter) -> QuarterDone:
            choice = choose_of_quarter(
                *where, quarter, passed=passed_models, overrule=config.overrule
            )
            if quarter == quarters[-1]:
                choose_again()
            return QuarterDone(_metadata(choice) | {"quarter": quarter.label})

        def choose_again() -> None:
            outdated = in_transaction(
                postgres.engine, lambda session: outdated_choices(session, pipeline, quarters)
            )
            for later in outdated:
                choice = choose_of_quarter(*where, later, passed=passed_models)
                context.log_event(
                    dg.AssetMaterialization(
                        context.asset_key,
                        description="Chosen again: scores that it rests on have changed.",
                        partition=later.key,
                        metadata=_metadata(choice) | {"quarter": later.label},
                    )
                )

        yield from for_each_quarter(context, quarters, choose)

    return champion


def _metadata(choice: ChampionChoice) -> dict[str, Any]:
    scored = choice.scores.set_index("model")["score"].to_dict()
    return {
        "champion": choice.champion or "none",
        "outcome": choice.outcome,
        "reason": choice.reason,
        "scores": table(choice.scores),
        **numbers({f"past_error_{name}": score for name, score in scored.items()}),
    }


class DecisionConfig(dg.Config):
    """A person's decision about a registered version.

    Attributes:
        action: approve a candidate, reject a version of staging, or promote any.
        name: e.g. ``shop/NHITS``.
        version: its number.
        by: who decides.
        why: the reason.
    """

    action: Action
    name: str
    version: int
    by: str
    why: str


@dg.op(out=dg.Out(dg.Nothing), description="Approve, reject or promote a registered version.")
def decide_version(
    context: dg.OpExecutionContext, config: DecisionConfig, postgres: dg.ResourceParam[Postgres]
) -> None:
    """One transaction, in the name of who decides."""
    with reason_in_one_line():
        decision = Decision(config.by, config.why)
        decided = in_transaction(
            postgres.engine,
            lambda session: decide(session, config.action, config.name, config.version, decision),
            user=config.by,
        )
    stage = decided.current_stage
    context.log.info(f"{described(decided)}: {stage}, by {config.by}: {config.why}")
    context.add_output_metadata({"stage": stage, "by": config.by, "why": config.why})


@dg.job(
    name="registry_decision",
    description="What `ts-forecast registry approve|reject|promote` does, from the UI.",
    executor_def=dg.in_process_executor,
    tags={"kind": "registry"},
)
def registry_decision() -> None:
    """One op; its configuration is the decision."""
    decide_version()
