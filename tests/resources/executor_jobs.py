"""Jobs for the executor's tests and its benchmark; importable, since steps run in other processes.

Steps write what they saw as JSON lines to a file named in the run configuration.
"""

import fcntl
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import dagster as dg

from resources.free_slots import offered
from resources.gpu_executor import gpu_executor
from resources.gpu_pool import GPU_POOL
from ts_forecast.slots import Turn


class StepConfig(dg.Config):
    """What a step is to do."""

    notes: str = ""
    seconds: float = 0.0


def note(path: str, **content: object) -> None:
    """Append one JSON line, whole, whoever else is writing."""
    if not path:
        return
    with Path(path).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"pid": os.getpid(), "at": time.time(), **content}) + "\n")


def work(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """Note what the process looks like, and stay a while."""
    note(
        config.notes,
        step=context.op.name,
        run=context.run_id,
        what="start",
        device=os.environ.get("CUDA_VISIBLE_DEVICES"),
        omp=os.environ.get("OMP_NUM_THREADS"),
        hash_seed=os.environ.get("PYTHONHASHSEED"),
        has_torch="torch" in sys.modules,
    )
    try:
        end = time.monotonic() + config.seconds
        while time.monotonic() < end:
            time.sleep(0.02)
    except BaseException as error:
        note(config.notes, step=context.op.name, what=type(error).__name__)
        raise
    note(config.notes, step=context.op.name, run=context.run_id, what="end")


@dg.op(pool=GPU_POOL)
def train(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """A step that needs a device."""
    work(context, config)


@dg.op
def prepare(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """A step that needs none."""
    work(context, config)


@dg.op(pool=GPU_POOL)
def train_with_torch(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """Note how many threads torch may use."""
    import torch

    note(config.notes, step=context.op.name, what="torch", threads=torch.get_num_threads())


def note_slot(turn: Turn, path: str, seconds: float) -> None:
    """What a process on a lent slot sees; it stays a while."""
    note(path, what="beside", slot=turn.name, device=os.environ.get("CUDA_VISIBLE_DEVICES"))
    time.sleep(seconds)


@dg.op(pool=GPU_POOL)
def train_beside(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """Use a free slot beside its own, and none that is not free."""
    slots = offered()
    assert slots is not None
    helper = slots.start(note_slot, config.notes, config.seconds)
    assert helper is not None
    assert slots.start(note_slot, config.notes, config.seconds) is None
    note(config.notes, what="own", device=os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert helper.wait() == 0


@dg.op(pool=GPU_POOL)
def refuse() -> None:
    """Fail with a reason."""
    raise dg.Failure("Series A has 3 values; 24 are needed. Add history.", allow_retries=False)


@dg.op
def vanish() -> None:
    """End without a word."""
    os._exit(0)


@dg.op
def crash() -> None:
    """Die as a segmentation fault does."""
    os.kill(os.getpid(), signal.SIGSEGV)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def crash_once(context: dg.OpExecutionContext, config: StepConfig) -> None:
    """Die at the first attempt."""
    note(config.notes, step=context.op.name, what="attempt")
    if context.retry_number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def speak() -> None:
    """Write to both streams, from Python and from below it."""
    print("said by Python")
    os.system("echo said by a program")
    print("complained", file=sys.stderr)


@dg.op
def warn() -> None:
    """Log a warning as our code does, and one as a library does."""
    logging.getLogger("ts_forecast.a").warning("from our code")
    logging.getLogger("library").warning("from a library")


@dg.job(executor_def=gpu_executor)
def four_trainings() -> None:
    """Four steps that need a device, and one that needs none."""
    for index in range(4):
        train.alias(f"train_{index}")()
    prepare()


@dg.job(executor_def=gpu_executor)
def one_training() -> None:
    """One step that needs a device."""
    train()


@dg.job(executor_def=gpu_executor)
def one_preparation() -> None:
    """One step that needs none."""
    prepare()


@dg.job(executor_def=gpu_executor)
def torch_training() -> None:
    """One step that uses torch."""
    train_with_torch()


@dg.job(executor_def=gpu_executor)
def training_beside() -> None:
    """One step that uses two devices."""
    train_beside()


@dg.job(executor_def=gpu_executor)
def refused() -> None:
    """One step that fails with a reason."""
    refuse()


@dg.job(executor_def=gpu_executor)
def vanishing() -> None:
    """One step that ends without a word."""
    vanish()


@dg.job(executor_def=gpu_executor)
def crashing() -> None:
    """One step that dies."""
    crash()


@dg.job(executor_def=gpu_executor)
def crashing_once() -> None:
    """One step that dies once."""
    crash_once()


@dg.job(executor_def=gpu_executor)
def speaking() -> None:
    """One step that writes to its streams."""
    speak()


@dg.job(executor_def=gpu_executor)
def warning() -> None:
    """One step that logs warnings."""
    warn()
