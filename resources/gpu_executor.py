"""The executor: every step in a process of its own, forked warm; training steps on a device each.

How steps are launched, watched and ended, and how many run at once. What is inside a step's process
is ``step_process``; the devices are ``devices`` and ``device_locks``.

The pool ``gpu`` bounds how many training steps run on this host over all runs, by priority. The
device's lock says which device each has, and holds to its process's last breath, while a pool slot
is free as soon as the step has reported. A step waits for the lock; it never falls back to CPU.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

from resources.devices import find_devices
from resources.forkserver import ForkServer, Task
from resources.gpu_pool import GPU_POOL, ensure_pool_limits, free_pool_slots, pool_limit
from resources.lost_runs import end_lost_runs
from resources.preloads import (
    LIBRARIES,
    PRELOAD_LATER,
    TRAINING_PRELOAD,
    process_environment,
    zygote_of,
)
from resources.run_launcher import hold_run
from resources.step_events import outcomes_of, step_key_of
from resources.step_process import Placement, load_job, report_lost_run, run_step
from ts_forecast.errors import SettingsError
from ts_forecast.settings import Settings, load_settings

# What every step's process has of ours.
_OWN = ("resources.step_process", "resources.event_log")
_TAIL_SECONDS = 0.1
_HEALTH_SECONDS = 1
# Steps that need no device run beside those that fill all devices.
_STEPS_BESIDE_DEVICES = 2


@dg.executor(
    name="gpu_executor",
    config_schema={
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "max_concurrent": dg.Field(
            dg.Noneable(int),
            default_value=None,
            description="Steps of one run at once; null: two more than there are devices.",
        ),
        "preload": dg.Field(
            [str],
            default_value=list(TRAINING_PRELOAD),
            description="Modules that the process behind training steps imports once.",
        ),
        "termination_grace_seconds": dg.Field(
            float, default_value=3.0, description="From SIGINT to SIGKILL when a run is ended."
        ),
    },
    requirements=multiple_process_executor_requirements(),
)
def gpu_executor(context: InitExecutorContext) -> Executor:
    """Each step in a forked process; steps with ``pool="gpu"`` on one device each."""
    config = cast("Mapping[str, Any]", context.executor_config)
    preload = tuple(config["preload"])
    _check_importable(preload)
    settings = load_settings()
    placement = Placement(
        find_devices(settings), settings.home / "locks", preload, zygote_of(settings)
    )
    handler = ForkedStepHandler(placement, config["termination_grace_seconds"])
    return GpuExecutor(
        handler,
        settings=settings,
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_concurrent=config["max_concurrent"] or len(placement.devices) + _STEPS_BESIDE_DEVICES,
    )


class GpuExecutor(StepDelegatingExecutor):
    """Dagster's loop over the event log, between the start and the end of the fork servers."""

    def __init__(
        self,
        handler: ForkedStepHandler,
        *,
        settings: Settings,
        retries: RetryMode,
        max_concurrent: int,
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
        """Run the plan; when this returns or raises, no process and no pool slot of it is left."""
        instance = plan_context.instance
        hold_run(self._settings, plan_context.run_id)
        self._handler.open(plan_context, _uses_gpu_pool(execution_plan))
        try:
            if pool_limit(instance) is None:
                ensure_pool_limits(instance, self._settings)
            yield from super().execute(plan_context, execution_plan)
        finally:
            self._handler.close()
            free_pool_slots(instance, plan_context.run_id)
            if self._handler.has_lost_steps:
                end_lost_runs(self._settings)


@dataclass
class _Launch:
    server: ForkServer
    started: float


@dataclass
class ForkedStepHandler(StepHandler):
    """Forks a step from a server that has its imports behind it.

    There are two servers. The plain one is ready first; the training one, which also imports the
    training libraries, gets ready meanwhile and is not started for a plan without training steps. Of
    a zygote both are born ready in about a second.
    """

    placement: Placement
    grace_seconds: float
    has_lost_steps: bool = field(default=False, init=False)
    _plain: ForkServer = field(init=False)
    _training: ForkServer = field(init=False)
    _launches: dict[str, _Launch] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Shown in the event log."""
        return type(self).__name__

    def open(self, plan_context: PlanOrchestrationContext, with_training: bool) -> None:
        """Start the servers; does not wait for them."""
        warm_up = Task(load_job, (serialize_value(plan_context.reconstructable_job),))
        self._plain = ForkServer(
            preload=(*LIBRARIES, *_OWN),
            preload_later=PRELOAD_LATER,
            environment=process_environment(threads=1),
            warm_up=warm_up,
            last_will=Task(report_lost_run, (plan_context.instance.get_ref(), plan_context.run_id)),
            grace_seconds=self.grace_seconds,
            zygote=self.placement.zygote,
        )
        self._training = ForkServer(
            preload=(*LIBRARIES, *_OWN, *self.placement.preload),
            preload_later=PRELOAD_LATER,
            environment=process_environment(self.placement.devices[0].threads),
            warm_up=warm_up,
            grace_seconds=self.grace_seconds,
            zygote=self.placement.zygote,
        )
        self._plain.start()
        if with_training:
            self._training.start()

    def close(self) -> None:
        """End all processes of this run."""
        self._training.close()
        self._plain.close()

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Fork the step's process as soon as its server is ready; returns at once."""
        step_key = step_key_of(step_handler_context)
        step_context = step_handler_context.get_step_context(step_key)
        on_device = step_context.step.pool == GPU_POOL
        server = self._training if on_device else self._plain
        server.start()
        yield DagsterEvent.step_worker_starting(
            step_context,
            message=f'Forking a process for "{step_key}".',
            metadata={"fork_server": server.origin},
        )
        arguments = serialize_value(step_handler_context.execute_step_args)
        self._launches[step_key] = _Launch(server, time.time())
        placement = replace(self.placement, is_on_device=on_device)
        server.submit(step_key, Task(run_step, (arguments, placement)))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """A step is lost when its process has ended without an outcome in the event log."""
        step_key = step_key_of(step_handler_context)
        launch = self._launches.get(step_key)
        if launch is None:
            return CheckStepHealthResult.unhealthy("it is no process of this run worker")
        ended = launch.server.ended(step_key)
        if ended is None or _has_reported(step_handler_context, step_key, launch.started):
            return CheckStepHealthResult.healthy()
        self.has_lost_steps = True
        return CheckStepHealthResult.unhealthy(f"{ended.reason} before it reported an outcome")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Interrupt the step; ``close`` kills it if it outstays the grace."""
        step_key = step_key_of(step_handler_context)
        step_context = step_handler_context.get_step_context(step_key)
        yield DagsterEvent.engine_event(
            step_context, f'Interrupting "{step_key}".', EngineEventData()
        )
        # It may outstay the grace and be killed.
        self.has_lost_steps = True
        if launch := self._launches.get(step_key):
            launch.server.interrupt(step_key)


def _has_reported(context: StepHandlerContext, step_key: str, since: float) -> bool:
    return any(entry.timestamp >= since for entry in outcomes_of(context, step_key))


def _uses_gpu_pool(plan: ExecutionPlan) -> bool:
    return any(plan.get_step_by_key(key).pool == GPU_POOL for key in plan.step_keys_to_execute)


def _check_importable(modules: Sequence[str]) -> None:
    for name in modules:
        # The package only: looking further would import it.
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise SettingsError(
                f"The executor is to preload {name}, which is not installed.",
                remedy="Correct execution.config.preload in the run configuration.",
            )
