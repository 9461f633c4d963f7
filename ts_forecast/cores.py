"""How many cores this process may use, and how many threads a fit on some of them gets.

Counting only. GPUs are counted in ``resources.devices``; who gets what is decided there too.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

# What numerical libraries read to size their thread pools.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores that this process may use: affinity and the container's quota counted."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def threads_of_each(fits: int) -> int:
    """Threads of each of some fits side by side, so that they never oversubscribe the cores.

    A lone fit leaves a core to the database and to whoever started it: threads wait for one another by
    spinning, and where one of them has to share its core all the others burn theirs. Waiting passively
    instead (``OMP_WAIT_POLICY=PASSIVE``) made a fit of several threads slower than one of a single
    thread (docs/measurements.md).
    """
    cores = usable_cores()
    return max(1, cores - 1 if fits == 1 else cores // fits)


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that bound the thread pools of numerical libraries, to be set before their import."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def _quota() -> int:
    """Cores that the control group's CPU quota amounts to, rounded up (version 2 only)."""
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        # No such file, or "max": no quota.
        return sys.maxsize
