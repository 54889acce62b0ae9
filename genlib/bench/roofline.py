"""The roofline: what this machine can do at most, and how near a measurement comes to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from genlib.bench.machine import cpu_model, gpu_model, usable_cores
from genlib.bench.notebook import format_seconds, glue
from genlib.bench.timing import Sync, measure


@dataclass(frozen=True)
class Ceilings:
    """The two limits of a machine: how fast it computes, and how fast it moves data."""

    device: str
    gflops: float  # float32 matrix product, 1e9 operations per second
    gigabytes_per_second: float  # large copy, 1e9 bytes read plus written per second

    @property
    def ridge(self) -> float:
        """Operations per byte above which arithmetic, not memory, is the limit."""
        return self.gflops / self.gigabytes_per_second

    def __str__(self) -> str:
        return f"{self.gflops:.0f} GFLOP/s, {self.gigabytes_per_second:.1f} GB/s ({self.device})"

    def glue(self, name: str) -> str:
        """Stores `85 GFLOP/s, 20.1 GB/s (…)` for the prose, and returns it."""
        return glue(name, str(self))


@functools.cache
def ceilings() -> Ceilings:
    """Measures what this machine can do at most, once per process (about two seconds).

    On a CPU NumPy and the Keras backend multiply square float32 matrices, and the faster of the
    two counts; NumPy copies a block that no cache holds, with one thread per core. With an
    accelerator the backend does both there (a backend may compute float32 products in TF32). A
    ceiling is the *best* run, not the median: it is a limit, and only disturbance makes a run
    slower.
    """
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    if backend.device() == "cpu":
        return _cpu_ceilings()
    return _accelerator_ceilings(gpu_model() or backend.device())


def _best_seconds(fn: Callable[[], Any], sync: Sync, repeats: int = 7) -> float:
    return min(measure(fn, repeats=repeats, warmup=1, sync=sync).seconds)


def _cpu_ceilings(n: int = 1536, megabytes: int = 256) -> Ceilings:
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    cores = len(usable_cores())
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    out = np.empty_like(a)
    tensor = backend.keras.ops.convert_to_tensor(
        a
    )  # else PyTorch, which compiles nothing, asks NumPy again
    by_backend = backend.compile_step(backend.keras.ops.matmul)
    product = min(
        _best_seconds(lambda: np.matmul(a, a, out=out), sync=lambda _: None),
        _best_seconds(lambda: by_backend(tensor, tensor), backend.synchronize),
    )

    source = np.ones(megabytes * 2**20 // 8)
    target = np.zeros_like(source)  # written once, so that the pages exist
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    with ThreadPoolExecutor(cores) as pool:  # NumPy copies without the interpreter's lock
        copy = _best_seconds(
            lambda: list(pool.map(lambda part: np.copyto(*part), parts)), sync=lambda _: None
        )
    device = f"{cpu_model()}, {cores} cores"
    return Ceilings(device, 2 * n**3 / product / 1e9, 2 * source.nbytes / copy / 1e9)


def _accelerator_ceilings(device: str, n: int = 8192, chain: int = 20) -> Ceilings:
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    ops = backend.keras.ops
    # A chain of operations, then one number to the host: else the clock would time the cable.
    a = ops.ones((n, n), "float32") / n

    def products() -> Any:
        x = a
        for _ in range(chain):
            x = ops.matmul(x, a)
        return x[0, 0]

    def copies() -> Any:
        x = a
        for _ in range(chain):
            x = x * 0.5  # reads all, writes all; outside a graph nothing is fused
        return x[0, 0]

    product = _best_seconds(products, backend.synchronize) / chain
    copy = _best_seconds(copies, backend.synchronize) / chain
    return Ceilings(device, 2 * n**3 / product / 1e9, 2 * 4 * n * n / copy / 1e9)


@dataclass(frozen=True)
class ShareOfLimit:
    """What the machine's limit predicts, and how near a measurement comes to it."""

    predicted_seconds: float
    measured_seconds: float
    bound: str  # "compute" or "memory", whichever limit is met first

    @property
    def share(self) -> float:
        """Predicted over measured time: 1 is the limit itself."""
        return self.predicted_seconds / self.measured_seconds

    def __str__(self) -> str:
        return (
            f"predicted {format_seconds(self.predicted_seconds)} ({self.bound}-bound), "
            f"measured {format_seconds(self.measured_seconds)}: {self.share:.0%} of the limit"
        )

    def glue(self, name: str) -> str:
        """Stores the sentence for the prose, and returns it."""
        return glue(name, str(self))


def share_of_limit(
    flops: float, moved_bytes: float, seconds: float, limits: Ceilings | None = None
) -> ShareOfLimit:
    """Compares a measured time with the roofline's.

    No program is faster than `max(flops / peak rate, bytes / bandwidth)`.

    Args:
        flops: floating-point operations of the work (a multiply-add counts two).
        moved_bytes: bytes read from and written to memory (weights, inputs, outputs).
        seconds: the measured time, s.
        limits: the machine's ceilings; `ceilings()` if None.

    Raises:
        ValueError: if a number is negative, or the time or the work is nothing.

    Reference:
        Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52 (2009).

    Example:
        >>> print(share_of_limit(2e9, 1e6, 0.05, Ceilings("a machine", 100.0, 10.0)))
        predicted 20.0 ms (compute-bound), measured 50.0 ms: 40% of the limit
    """
    if not (flops >= 0 and moved_bytes >= 0 and flops + moved_bytes > 0 and seconds > 0):
        raise ValueError(
            "flops and moved_bytes must not be negative (nor both 0) and seconds must be "
            f"positive, got {flops}, {moved_bytes}, {seconds}."
        )
    limits = limits or ceilings()
    compute = flops / (limits.gflops * 1e9)
    memory = moved_bytes / (limits.gigabytes_per_second * 1e9)
    bound = "compute" if compute >= memory else "memory"
    return ShareOfLimit(max(compute, memory), seconds, bound)
