"""What runs inside a step's process: take a device, bound the threads, hand over to Dagster.

Everything here happens in a child of the fork server, or (``load_job``) once in the server itself.
The step's own work is Dagster's ``execute_step``, called rather than started as a new program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dagster._cli.api import _execute_step_command_body
from dagster._cli.utils import get_instance_for_cli
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.instance import DagsterInstance, InstanceRef
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts

from resources.confinement import confine
from resources.device_locks import take_device
from resources.devices import Device, find_devices
from resources.free_slots import FreeSlots, offer
from resources.gpu_pool import free_pool_slots, steps_need
from resources.lost_runs import end_lost_runs
from resources.zygote import Zygote
from ts_forecast.errors import DeviceError
from ts_forecast.logs.context import bound
from ts_forecast.logs.setup import install, rest, uninstall
from ts_forecast.settings import load_settings

# What a shell says of a program that SIGINT ended.
_INTERRUPTED = 130


@dataclass(frozen=True)
class Placement:
    """Where a step may run.

    Attributes:
        devices: those of the host.
        locks: folder of the lock files that say which are free.
        preload: modules that processes beside it import.
        zygote: that they may be born of.
        is_on_device: whether the step takes the first free device; otherwise it needs none, and may
            only have work done on CPU slots that are free.
    """

    devices: tuple[Device, ...]
    locks: Path
    preload: tuple[str, ...] = ()
    zygote: Zygote | None = None
    is_on_device: bool = True


def load_job(serialized: str) -> None:
    """Load the run's job, so that the processes forked later find it loaded."""
    deserialize_value(serialized, ReconstructableJob).get_definition()
    # The server forks: whatever loading had to say is written, and no thread is left.
    rest()


def run_step(serialized: str, placement: Placement | Device) -> None:
    """Run one step; its outcome goes to the instance's event log.

    Args:
        serialized: Dagster's ``ExecuteStepArgs``.
        placement: where to look for a device, or the one that another scheduler has given.

    Raises:
        SystemExit: the step was interrupted.
    """
    arguments = deserialize_value(serialized, ExecuteStepArgs)
    step_key = (arguments.step_keys_to_execute or [""])[0]
    install(load_settings())
    with (
        bound(dagster_run=arguments.run_id, step=step_key),
        _ending_quietly(),
        capture_interrupts(),
        get_instance_for_cli(instance_ref=arguments.instance_ref) as instance,
    ):
        run = instance.get_run_by_id(arguments.run_id)
        if run is None:
            # Deleted while the step was being launched: nobody waits for it.
            return
        with _placed(placement, instance, run, step_key):
            for _ in _execute_step_command_body(arguments, instance, run):
                pass


def run_step_on_ray(
    environment: Mapping[str, str],
    path: Sequence[str],
    serialized: str,
    threads: int,
    with_gpu: bool,
) -> None:
    """Run one step in a worker of Ray, which may have run others.

    Args:
        environment: that of the deployment, which a cluster's nodes do not share.
        path: where the run worker finds modules, after what the node has.
        serialized: Dagster's ``ExecuteStepArgs``.
        threads: CPU threads that it may use.
        with_gpu: whether it asked for a GPU; Ray then says which in CUDA_VISIBLE_DEVICES.
    """
    os.environ.update(environment)
    sys.path += [entry for entry in path if entry not in sys.path]
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "") if with_gpu else ""
    try:
        run_step(serialized, Device(given, is_gpu=bool(given), threads=threads))
    finally:
        # Ray may end this process at any time from now on: nothing is left to be written.
        uninstall()


def report_lost_run(instance_ref: InstanceRef, run_id: str) -> None:
    """Fail a run whose worker was killed, free its pool slots, and end what its steps left running.

    The fork server's last will: the daemon would see it only minutes later, and without a daemon
    nobody would.
    """
    with DagsterInstance.from_ref(instance_ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished and not instance.run_will_resume(run_id):
            instance.report_run_failed(run, "The run's process was killed; its steps were ended.")
        free_pool_slots(instance, run_id)
    end_lost_runs(load_settings())


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """End quietly when interrupted: Dagster has already written it to the event log."""
    try:
        yield
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        raise SystemExit(_INTERRUPTED) from None


@contextmanager
def _placed(
    placement: Placement | Device, instance: DagsterInstance, run: DagsterRun, step_key: str
) -> Iterator[None]:
    if isinstance(placement, Device):
        confine(placement, load_settings())
        yield
        return
    lent = FreeSlots(
        placement.devices,
        placement.locks,
        holder=f"{run.run_id} {step_key}, beside its own",
        zygote=placement.zygote,
        are_wanted=partial(steps_need, instance, len(placement.devices)),
    )
    with ExitStack() as stack:
        if placement.is_on_device:
            device = stack.enter_context(_device_of(placement, instance, run, step_key))
            before = {name: os.environ.get(name) for name in device.environment}
            confine(device, load_settings())
            lent = replace(lent, preload=placement.preload, environment=before, own=device)
        if placement.is_on_device or not any(device.is_gpu for device in placement.devices):
            stack.enter_context(offer(lent))
        yield


@contextmanager
def _device_of(
    placement: Placement, instance: DagsterInstance, run: DagsterRun, step_key: str
) -> Iterator[Device]:
    def report() -> None:
        instance.report_engine_event(
            f"{step_key} waits: all of {len(placement.devices)} devices or slots are busy.",
            run,
            step_key=step_key,
        )

    with ExitStack() as stack:
        try:
            with raise_execution_interrupts():
                device = stack.enter_context(
                    take_device(
                        placement.locks,
                        placement.devices,
                        holder=f"{run.run_id} {step_key}",
                        on_wait=report,
                        is_there=_is_there,
                    )
                )
        except DeviceError as error:
            instance.report_engine_event(str(error), run, step_key=step_key)
            raise SystemExit(1) from None
        yield device


def _is_there(device: Device) -> bool:
    """Whether the host still has it: GPUs fall off the bus, and CUDA would leave the step the CPU."""
    if not device.is_gpu:
        return True
    return device.identifier in {found.identifier for found in find_devices(load_settings())}
