"""The executor of TS_FORECAST_EXECUTOR=ray: every step a task on a Ray cluster.

How steps are launched, watched and ended there; the connection is ``ray_cluster``, what is inside a
step's process ``step_process``. Why it is not dagster-ray's is told in decision 20; what a step asks
for stands in the tag that dagster-ray reads.

Ray decides which step runs where and when, by the CPUs and GPUs that it asks for; there are no device
locks. Ray ends the steps of a run whose worker is killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._serdes import serialize_value

from resources.gpu_executor import gpu_executor
from resources.gpu_pool import ensure_pool_limits, free_pool_slots, pool_limit
from resources.lost_runs import end_lost_runs
from resources.ray_cluster import RayCluster, Request, require_ray
from resources.run_launcher import hold_run
from resources.step_events import outcomes_of, step_key_of
from resources.step_process import run_step_on_ray
from ts_forecast.pipeline import Pipeline
from ts_forecast.settings import Settings, load_settings

REQUEST_TAG = "dagster-ray/config"

_TAIL_SECONDS = 0.1
_HEALTH_SECONDS = 1


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """The executor that the settings ask for.

    Raises:
        SettingsError: it is Ray's, and Ray is not installed.
    """
    if settings.executor == "local":
        return gpu_executor
    require_ray()
    return ray_executor


def request_tags(pipeline: Pipeline, *, is_neural: bool) -> dict[str, str]:
    """Tags of a step that fits or forecasts: what it asks of Ray.

    Args:
        pipeline: its ``resources`` say how much.
        is_neural: whether the step has a use for a GPU.
    """
    asked = pipeline.resources
    gpus = asked.num_gpus if is_neural else 0
    return {REQUEST_TAG: json.dumps({"num_cpus": asked.num_cpus, "num_gpus": gpus})}


@dg.executor(
    name="ray_executor",
    config_schema={
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "max_concurrent": dg.Field(
            dg.Noneable(int),
            default_value=None,
            description="Steps of one run at Ray at once, those that wait there included; null: all.",
        ),
        "termination_grace_seconds": dg.Field(
            float,
            default_value=3.0,
            description="From the interrupt to the kill when a run is ended.",
        ),
    },
    requirements=multiple_process_executor_requirements(),
)
def ray_executor(context: InitExecutorContext) -> Executor:
    """Each step as a task on Ray, which asks for what its tag says."""
    config = cast("Mapping[str, Any]", context.executor_config)
    settings = load_settings()
    require_ray()
    handler = RayStepHandler(RayCluster(settings), config["termination_grace_seconds"])
    return RayExecutor(
        handler,
        settings=settings,
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_concurrent=config["max_concurrent"],
    )


class RayExecutor(StepDelegatingExecutor):
    """Dagster's loop over the event log, while this process is connected to Ray."""

    def __init__(
        self,
        handler: RayStepHandler,
        *,
        settings: Settings,
        retries: RetryMode,
        max_concurrent: int | None,
    ) -> None:
        super().__init__(
            handler,
            retries,
            sleep_seconds=_TAIL_SECONDS,
            check_step_health_interval_seconds=_HEALTH_SECONDS,
            max_concurrent=max_concurrent,
        )
        self._handler = handler
        self._settings = settings

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Run the plan; when this returns or raises, no task and no pool slot of it is left."""
        instance = plan_context.instance
        hold_run(self._settings, plan_context.run_id)
        self._handler.cluster.connect()
        try:
            if pool_limit(instance) is None:
                ensure_pool_limits(instance, self._settings)
            yield from super().execute(plan_context, execution_plan)
        finally:
            self._handler.cluster.close(self._handler.grace_seconds)
            free_pool_slots(instance, plan_context.run_id)
            if self._handler.has_lost_steps:
                end_lost_runs(self._settings)


@dataclass
class _Launch:
    task: Any
    attempts: int


@dataclass
class RayStepHandler(StepHandler):
    """Hands steps to Ray as tasks."""

    cluster: RayCluster
    grace_seconds: float
    has_lost_steps: bool = field(default=False, init=False)
    _launches: dict[str, _Launch] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Shown in the event log."""
        return type(self).__name__

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Queue the step at Ray; returns at once."""
        step_key = step_key_of(step_handler_context)
        step_context = step_handler_context.get_step_context(step_key)
        request = _request(step_handler_context.step_tags[step_key])
        yield DagsterEvent.step_worker_starting(
            step_context, message=f'Asking Ray for {request} for "{step_key}".', metadata={}
        )
        if not self.cluster.can_ever_run(request):
            yield DagsterEvent.engine_event(
                step_context,
                f'"{step_key}" waits until a node with {request} joins: Ray has none.',
                EngineEventData(),
            )
        # Counted, not timed: the nodes' clocks differ.
        attempts = len(outcomes_of(step_handler_context, step_key))
        arguments = serialize_value(step_handler_context.execute_step_args)
        task = self.cluster.submit(
            run_step_on_ray,
            (arguments, int(request.num_cpus), request.num_gpus > 0),
            request,
            name=f"{step_handler_context.dagster_run.job_name} {step_key}",
        )
        self._launches[step_key] = _Launch(task, attempts)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """A step is lost when its task has ended without an outcome in the event log."""
        step_key = step_key_of(step_handler_context)
        launch = self._launches.get(step_key)
        if launch is None:
            return CheckStepHealthResult.unhealthy("it is no task of this run worker")
        reason = self.cluster.ended(launch.task)
        if reason is None or len(outcomes_of(step_handler_context, step_key)) > launch.attempts:
            return CheckStepHealthResult.healthy()
        self.has_lost_steps = True
        return CheckStepHealthResult.unhealthy(f"{reason} before it reported an outcome")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Interrupt the step; leaving the cluster kills it if it outstays the grace."""
        step_key = step_key_of(step_handler_context)
        step_context = step_handler_context.get_step_context(step_key)
        yield DagsterEvent.engine_event(
            step_context, f'Interrupting "{step_key}".', EngineEventData()
        )
        # It may outstay the grace and be killed.
        self.has_lost_steps = True
        if launch := self._launches.get(step_key):
            self.cluster.interrupt(launch.task)


def _request(tags: Mapping[str, str]) -> Request:
    asked = json.loads(tags.get(REQUEST_TAG, "{}"))
    return Request(asked.get("num_cpus", 1), asked.get("num_gpus", 0))
