"""Jobs for the Ray executor's tests; importable, since steps run in Ray's workers."""

import json
import os
import signal

import dagster as dg
from executor_jobs import StepConfig, note, work

from resources.ray_executor import REQUEST_TAG, ray_executor


@dg.op(tags={REQUEST_TAG: json.dumps({"num_cpus": 2, "num_gpus": 0})})
def fill_a_node(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """A step that needs all CPUs of one of the test's nodes."""
    import ray

    note(
        config.notes,
        step=context.op.name,
        what="placed",
        node=ray.get_runtime_context().get_node_id(),
        secret=os.environ.get("TS_FORECAST_SECRET_KEYS"),
    )
    work(context, config)


@dg.op(tags={REQUEST_TAG: json.dumps({"num_cpus": 1, "num_gpus": 1})})
def want_a_gpu() -> None:
    """A step that no node of the test can run."""


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def crash_once(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """Die at the first attempt."""
    note(config.notes, step=context.op.name, what="attempt")
    if context.retry_number == 0:
        os.kill(os.getpid(), signal.SIGSEGV)


@dg.job(executor_def=ray_executor)
def four_on_two_nodes() -> None:
    """Four steps, of which two fit at once."""
    for index in range(4):
        fill_a_node.alias(f"fill_{index}")()


@dg.job(executor_def=ray_executor)
def three_on_two_nodes() -> None:
    """Two steps that run, one that waits for them, and one that waits for a node that never comes."""
    for index in range(3):
        fill_a_node.alias(f"fill_{index}")()
    want_a_gpu()


@dg.job(executor_def=ray_executor)
def crashing_once() -> None:
    """One step that dies once."""
    crash_once()
