"""One training on several processes: each computes its rows of a batch, and gradients are added.

    KERAS_BACKEND=jax genlib train flow --processes 2 --out runs/flow

Every process holds all weights and draws the whole batch from (seed, epoch, step), as one process
would, but computes only its own rows; `keras.distribution` on JAX lets them add up the gradients.
So all of them take the same step, which is that of one process up to the order of sums. Process 0
alone writes. If one dies, all end, and the same command goes on from the last checkpoint: nobody
trains on with fewer.

`launch` starts the processes on this machine. On several machines give the same command on each of
them, with two variables that Keras has names for: KERAS_DISTRIBUTION_JOB_ADDRESSES (of process 0,
host:port) and KERAS_DISTRIBUTION_PROCESS_ID.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

from genlib import backend, ranges

ADDRESS, WHICH = "KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_PROCESS_ID"
PARENT = "GENLIB_LAUNCHED"  # tells a process to end with the one that started it
SILENT = 10  # seconds without a sign of life, after which a process of another machine is dead


class ProcessError(ChildProcessError):
    """A process of a training died, so the others were ended."""


def begin(n: int) -> bool:
    """Makes this process one of `n`, or starts `n` others and waits for them.

    It comes before anything is computed.

    Returns:
        Whether the work is done: by the others.

    Raises:
        ValueError: if there cannot be so many here.
        ProcessError: if one of those that were started died.
    """
    ranges.check("processes", n)
    if n == 1:
        return False
    if backend.name() != "jax":
        raise ValueError(
            f"--processes {n} needs JAX, and Keras runs on {backend.name()!r} here. Set "
            "KERAS_BACKEND=jax (pip install jax)."
        )
    if WHICH in os.environ:
        join(n)
        return False
    launch(n)
    return True


def launch(n: int) -> None:
    """Gives this command to `n` processes on this machine, and waits for them.

    Raises:
        ProcessError: if one of them died; the others are then ended, at once.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {**os.environ, ADDRESS: address, PARENT: "1"}
    settings.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = [sys.executable, "-m", "genlib.cli", *sys.argv[1:]]
    started = [
        subprocess.Popen(command, env={**settings, WHICH: str(i)}, stdin=subprocess.PIPE)
        for i in range(n)
    ]
    try:
        statuses: list[int | None] = [None]
        while None in statuses:
            time.sleep(0.05)
            statuses = [process.poll() for process in started]
            for i, status in enumerate(statuses):
                if status:
                    raise ProcessError(_died(i, n, status))
    finally:
        for process in started:
            process.kill()
            process.wait()


def _died(i: int, n: int, status: int) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return (
        f"Process {i} of {n} {how}, so all were ended. The last checkpoint stands, and the same "
        "command goes on from it."
    )


def join(n: int) -> None:
    """Makes this process one of `n`, which find one another at the address of process 0.

    JAX is asked directly, since `keras.distribution.initialize` cannot tell it how long a silent
    process counts as alive: its own answer is 100 seconds.

    Raises:
        ValueError: if the variables do not tell which process this is.
    """
    import jax  # late: it may be missing

    which, address = os.environ[WHICH], os.environ.get(ADDRESS, "")
    if not which.isdigit() or int(which) >= n or ":" not in address:
        raise ValueError(
            f"{WHICH} = {which!r}, {ADDRESS} = {address!r}; give a number from 0 to {n - 1}, and "
            "host:port of process 0."
        )
    if PARENT in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    local = address.split(":")[0] in ("127.0.0.1", "localhost")
    jax.distributed.initialize(
        address,
        n,
        int(which),
        heartbeat_timeout_seconds=SILENT,
        coordinator_bind_address=address if local else None,  # else it listens everywhere
    )


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)  # who started this process is gone, and holds the other end no more
