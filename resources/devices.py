"""The devices of this host that training steps share: GPUs, MIG slices, or CPU slots.

Counting and naming only, through NVML and never through CUDA: a process that has touched CUDA
cannot fork. Which step gets which device is decided in ``device_locks``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ts_forecast.cores import thread_environment, threads_of_each
from ts_forecast.errors import DeviceError
from ts_forecast.settings import Settings
from ts_forecast.training.device import Precision, mixed_precision


@dataclass(frozen=True)
class Device:
    """One GPU, one MIG slice, or one CPU slot.

    Attributes:
        identifier: unique on the host; for a GPU what CUDA_VISIBLE_DEVICES takes.
        is_gpu: whether it is a GPU (or named as one by TS_FORECAST_DEVICES).
        threads: CPU threads that a step on it may use.
        mixed: what ``precision: auto`` means on it, the same on all devices of a host: bf16 if all
            have it. A device that NVML does not know counts as none that CUDA could use.
    """

    identifier: str
    is_gpu: bool
    threads: int
    mixed: Precision = "32-true"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that confine a process to this device."""
        visible = self.identifier if self.is_gpu else ""
        return {"CUDA_VISIBLE_DEVICES": visible, **thread_environment(self.threads)}


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML has it.

    Attributes:
        identifiers: its UUID, or those of its MIG slices.
        capability: compute capability, major and minor.
    """

    identifiers: tuple[str, ...]
    capability: tuple[int, int]


def find_devices(
    settings: Settings, environment: Mapping[str, str] | None = None
) -> tuple[Device, ...]:
    """The devices of this host, at least one.

    TS_FORECAST_DEVICES names them; otherwise NVML finds GPUs and MIG slices, of which the user's
    CUDA_VISIBLE_DEVICES leaves some; otherwise (or with ENABLE_GPU=false) there are CPU slots. The
    cores are shared out evenly, so that all devices together never oversubscribe them.

    Raises:
        DeviceError: a driver is installed but does not answer, or CUDA_VISIBLE_DEVICES names a
            device that does not exist.
    """
    environment = os.environ if environment is None else environment
    names: tuple[str, ...] = ()
    gpus: list[Gpu] = []
    if settings.enable_gpu:
        gpus = _gpus_of(settings)
        names = settings.devices or _visible(
            [gpu.identifiers for gpu in gpus], environment.get("CUDA_VISIBLE_DEVICES")
        )
    count = len(names) or settings.cpu_slots
    threads = threads_of_each(count)
    if names:
        mixed = _common_precision(names, gpus)
        return tuple(Device(name, is_gpu=True, threads=threads, mixed=mixed) for name in names)
    return tuple(Device(f"cpu-{slot}", is_gpu=False, threads=threads) for slot in range(count))


def _gpus_of(settings: Settings) -> list[Gpu]:
    try:
        return _nvml_gpus()
    except DeviceError:
        if settings.devices is None:
            raise
        # Devices that are named are taken at their word.
        return []


def _common_precision(names: Sequence[str], gpus: Sequence[Gpu]) -> Precision:
    """The mixed precision that all of some devices have; full where NVML knows one not."""
    known = []
    for name in names:
        found = [gpu for gpu in gpus if any(other.startswith(name) for other in gpu.identifiers)]
        if name.isdigit():
            found = list(gpus[int(name) : int(name) + 1])
        if not found:
            return "32-true"
        known.append(found[0].capability)
    return mixed_precision(min(known))


def _nvml_gpus() -> list[Gpu]:
    """The GPUs in NVML's order; asking starts no CUDA."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except (
        pynvml.NVMLError_LibraryNotFound,
        pynvml.NVMLError_DriverNotLoaded,
    ):
        return []
    except pynvml.NVMLError as error:
        raise _broken_driver(error) from error
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise _broken_driver(error) from error
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    """One that fell off the bus has no identifier and keeps its place; the others work."""
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError_GpuIsLost:
        return Gpu((), (0, 0))
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(_slices(handle), (int(major), int(minor)))


def _slices(handle: object) -> tuple[str, ...]:
    import pynvml

    try:
        is_sliced = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except pynvml.NVMLError_NotSupported:
        is_sliced = False
    if not is_sliced:
        return (str(pynvml.nvmlDeviceGetUUID(handle)),)
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except pynvml.NVMLError_NotFound:
            continue
        found.append(str(pynvml.nvmlDeviceGetUUID(part)))
    return tuple(found)


def _visible(gpus: list[tuple[str, ...]], chosen: str | None) -> tuple[str, ...]:
    """The devices that CUDA_VISIBLE_DEVICES leaves: indices, UUIDs or beginnings of UUIDs."""
    everything = tuple(name for gpu in gpus for name in gpu)
    if chosen is None or not gpus:
        return everything
    left: list[str] = []
    for part in (part.strip() for part in chosen.split(",")):
        # CUDA's own rule: an empty or negative entry ends the list.
        if not part or part.startswith("-"):
            break
        if part.isdigit():
            matches = list(gpus[int(part)]) if int(part) < len(gpus) else []
        else:
            matches = [name for name in everything if name.startswith(part)]
        if not matches:
            raise DeviceError(
                f"CUDA_VISIBLE_DEVICES={chosen} names {part}, which this host does not have.",
                remedy=f"It has {', '.join(everything)}.",
            )
        left += [name for name in matches if name not in left]
    return tuple(left)


def _broken_driver(error: Exception) -> DeviceError:
    return DeviceError(
        f"The NVIDIA driver does not answer: {error}.",
        remedy="Run nvidia-smi; set ENABLE_GPU=false to train on CPU meanwhile.",
    )
