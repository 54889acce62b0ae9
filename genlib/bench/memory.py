"""The most memory that a call takes, on the host or an accelerator, and errors when it ends."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

EVERY = 0.002  # s between two looks
# What the libraries say, in errors that are no MemoryError, when memory ends.
_LACK = ("out of memory", "not enough memory", "can't allocate memory", "resource_exhausted")


@dataclass(frozen=True)
class Peak:
    """The most memory in use during a call, weights and all, in MB (2^20 bytes).

    Attributes:
        where: `"process"` (resident memory of this process), or the accelerator, say `"cuda:0"`.
        megabytes: in use at most.
        added: so much more than before the call.
    """

    where: str
    megabytes: float
    added: float

    def __str__(self) -> str:
        return f"{self.megabytes:,.0f} MB at most ({self.where}), {self.added:,.0f} of them new"


def peak(fn: Callable[[], Any], *, trim: bool = False) -> tuple[Any, Peak]:
    """Calls a function and looks every two milliseconds how much memory is in use.

    PyTorch counts on CUDA itself, so nothing is missed there. A library that keeps freed memory
    for later (they do on accelerators) may show less new memory at a second call.

    Args:
        fn: takes nothing.
        trim: give back first what is not used any more, to the system too.

    Returns:
        Its result, and the peak.
    """
    where, read = _gauge()
    if trim:
        gc.collect()
        if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):  # glibc
            ctypes.CDLL(None).malloc_trim(0)
    torch = sys.modules.get("torch")
    exact = torch is not None and where.startswith("cuda")
    if exact:
        torch.cuda.reset_peak_memory_stats()  # type: ignore[union-attr]
    before = most = read()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(EVERY):
            most = max(most, read())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = fn()
    finally:
        done.set()
        watcher.join()
    most = max(most, read())
    if exact:
        most = max(most, torch.cuda.max_memory_allocated())  # type: ignore[union-attr]
    return result, Peak(where, most / 2**20, (most - before) / 2**20)


def _gauge() -> tuple[str, Callable[[], int]]:
    """Returns which memory to look at, and what reads it, in bytes: an accelerator's, if in use."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"cuda:{torch.cuda.current_device()}", torch.cuda.memory_allocated
    if torch is not None and torch.backends.mps.is_available():
        return "mps", torch.mps.driver_allocated_memory
    if jax is not None and jax.default_backend() != "cpu":
        device = jax.devices()[0]
        return str(device), lambda: int((device.memory_stats() or {}).get("bytes_in_use", 0))
    process = psutil.Process()
    return "process", lambda: int(process.memory_info().rss)


def is_lack(error: BaseException) -> bool:
    """Returns whether an error says that memory is short, whichever library raised it.

    Example:
        >>> is_lack(MemoryError()), is_lack(RuntimeError("CUDA out of memory."))
        (True, True)
    """
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _LACK)
