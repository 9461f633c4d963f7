"""Dagster's pool ``gpu``: how many steps that need a device run at once, over all runs of the host.

Its limit, and who has or awaits a place in it. Which device a step has is ``device_locks``.
"""

from __future__ import annotations

import dagster as dg

from resources.devices import find_devices
from ts_forecast.settings import Settings

GPU_POOL = "gpu"
# The most that Dagster takes for a pool.
_UNBOUNDED = 1000


def ensure_pool_limits(instance: dg.DagsterInstance, settings: Settings) -> int:
    """Make the pool ``gpu`` as large as this host has devices or CPU slots.

    Called when a deployment starts; a run only fills in a limit that is missing, so that one set in
    the UI meanwhile stays. On a Ray cluster steps wait for Ray, not for this pool.

    Returns:
        The limit.

    Raises:
        DeviceError: the devices cannot be counted.
    """
    limit = _UNBOUNDED if _is_on_cluster(settings) else len(find_devices(settings))
    if pool_limit(instance) != limit:
        instance.event_log_storage.set_concurrency_slots(GPU_POOL, limit)
    return limit


def _is_on_cluster(settings: Settings) -> bool:
    return settings.executor == "ray" and settings.ray_address is not None


def pool_limit(instance: dg.DagsterInstance) -> int | None:
    """The limit of the pool, or None where nobody has set one."""
    pools = {pool.name: pool for pool in instance.event_log_storage.get_pool_limits()}
    pool = pools.get(GPU_POOL)
    return None if pool is None or pool.from_default else pool.limit


def free_pool_slots(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back what a run holds of any pool; its steps must have ended."""
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        storage.free_concurrency_slots_for_run(run_id)


def steps_need(instance: dg.DagsterInstance, devices: int) -> bool:
    """Whether the steps that have or await a place in the pool are as many as so many devices."""
    pool = instance.event_log_storage.get_concurrency_info(GPU_POOL)
    having = {(slot.run_id, slot.step_key) for slot in pool.claimed_slots}
    return len(having | {(step.run_id, step.step_key) for step in pool.pending_steps}) >= devices
