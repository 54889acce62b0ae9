"""Where and when: this machine, its threads and versions, as every record states them.

Fix threads before the first computation, because thread pools are sized once. `fix_threads(2)` at
the top of a notebook does it in Python, `taskset -c 0,1 python …` from outside. Every record states
the counts that were read back.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import threadpoolctl


def fix_threads(n: int) -> dict[str, Any]:
    """Limits this process to `n` processor cores and `n` threads per library.

    Call it before the first computation: TensorFlow, JAX and PyTorch size their thread pools
    once, by the cores that the process may use. (The cores can be pinned on Linux only.)

    Args:
        n: cores and threads, from 1 to the number of cores this process may use.

    Returns:
        The counts read back, as `threads()` gives them.

    Raises:
        ValueError: if there are fewer than `n` cores.
    """
    cores = usable_cores()
    if not isinstance(n, int) or not 1 <= n <= len(cores):
        raise ValueError(
            f"n must be a whole number from 1 to {len(cores)}, the cores of this process; got {n}."
        )
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(n)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:n])
    threadpoolctl.threadpool_limits(n)
    return threads()


_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def usable_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads() -> dict[str, Any]:
    """Reads the thread counts back: cores, BLAS and OpenMP pools, the backend's, variables set."""
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    pools = {p["prefix"]: int(p["num_threads"]) for p in threadpoolctl.threadpool_info()}
    variables = {v: os.environ[v] for v in _THREAD_VARIABLES if v in os.environ}
    return {"cores": len(usable_cores()), **pools, **backend.threads(), **variables}


def cpu_model() -> str:
    """Returns the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


@functools.cache
def gpu_model() -> str | None:
    """Asks the driver, since the backends disagree on how to name a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.splitlines()[0].strip() if found.stdout.strip() else None


def environment() -> dict[str, Any]:
    """Describes what a measurement depends on: versions, hardware, threads, load, date."""
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "keras": importlib.metadata.version("keras"),
            backend.name(): getattr(sys.modules.get(backend.name()), "__version__", "unknown"),
        },
        "backend": backend.name(),
        "device": backend.device(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu_model(),
            "cores": os.cpu_count() or 1,
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": gpu_model(),
        },
        "threads": threads(),
        # Runnable processes over the last minute, before our own work: above 1, someone else ran.
        "load_1min": round(psutil.getloadavg()[0], 2),
    }


def footnote(env: Mapping[str, Any]) -> str:
    """Writes an environment as one line, for the foot of a table."""
    hardware, versions = env["hardware"], env["versions"]
    where = hardware["gpu"] if env["device"] != "cpu" and hardware["gpu"] else hardware["cpu"]
    return (
        f"{where}, {env['threads']['cores']} of {hardware['cores']} cores, "
        f"load {env['load_1min']}; Keras {versions['keras']} on {env['backend']} "
        f"{versions[env['backend']]}; {env['date'][:10]}"
    )
