"""A plugin of pytest: gives each worker of xdist a core of its own, and what it starts as well.

Two chapters that compare times may then run beside each other. Both sides of a comparison run on
the same core, one after the other, and no thread of the neighbour takes it away from them. The foot
of each table says how many cores there were. `pytest -p one_core -n 2`, with this folder on
PYTHONPATH; without workers, or where no core can be chosen (macOS, Windows), it does nothing.
"""

import os


def pytest_configure() -> None:
    """Runs in each worker before its first test; a kernel inherits the choice."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
