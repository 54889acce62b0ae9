"""Records for the chapter on scaling out: an all-reduce, bulk generation, two processes.

    python benchmarks/scaling.py             # needs dask, jax and torch; some minutes
    python benchmarks/scaling.py bulk        # this part alone

On a machine with less than two free cores, the times say what two processes cost one another, and
nothing of what they gain; the record says how many cores there were.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import torch
import torch.distributed as dist
import typer

from genlib import bulk, records, weights

ROOT = Path(__file__).resolve().parent.parent
SIZES = [2**k for k in range(12, 25, 2)]  # bytes of an all-reduce
ROUNDS = 50


class Part(StrEnum):
    """What can be measured alone."""

    ALL_REDUCE = "all-reduce"
    BULK = "bulk"
    TRAINING = "training"


def main(
    wanted: Annotated[list[Part] | None, typer.Argument(help="Parts; all unless named.")] = None,
) -> None:
    """Measures all parts, or those that are wanted, and writes them into the record."""
    parts = {"all-reduce": all_reduce, "bulk": many, "training": training}
    for name in wanted or Part:
        found = parts[name]()
        print(name, json.dumps(found), flush=True)
        before = records.load("scaling") if (records.FOLDER / "scaling.json").exists() else {}
        before.pop("environment", None)
        cores = len(psutil.Process().cpu_affinity())
        records.save("scaling", {**before, "cores": cores, name: found})


# ---------------------------------------------------------------- an all-reduce


def all_reduce():
    """Returns seconds of an all-reduce by two processes, and bytes on the loopback, by its size."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_reduce, (folder,), nprocs=2)
        return json.loads((Path(folder) / "found.json").read_text())


def _reduce(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = []
    for size in SIZES:
        numbers, times = torch.ones(size // 4), []
        for _ in range(5):
            dist.all_reduce(numbers.fill_(1.0))
        dist.barrier()
        before = _loopback()
        for _ in range(ROUNDS):
            numbers.fill_(1.0)
            start = time.perf_counter()
            dist.all_reduce(numbers)
            times.append(time.perf_counter() - start)
        assert float(numbers[0]) == 2
        moved = (_loopback() - before) / ROUNDS / 2  # of each of the two processes
        dist.barrier()
        rows.append({"bytes": size, "sent": moved, "seconds": float(np.median(times))})
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def _loopback():
    """Returns the bytes that have gone over the network that is this machine alone."""
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent


# ---------------------------------------------------------------- many prompts


def many(lines=256):
    """Returns seconds of a run with one worker and with two, and of one that finds all there."""
    found = {"images": lines}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = folder / "prompts.txt"
        prompts.write_text("".join(f"a house number {i}\n" for i in range(lines)))
        sums = []
        for workers in (1, 2):
            out = folder / str(workers)
            start = time.perf_counter()
            done = bulk.generate_many(prompts, out, workers=workers, shard=32, progress=False)
            found[f"seconds, workers {workers}"] = round(time.perf_counter() - start, 2)
            assert (done.images, done.failures) == (lines, 0)
            sums.append([file.read_bytes() for file in sorted(out.glob("*.tar"))])
        start = time.perf_counter()
        assert bulk.generate_many(prompts, out, workers=1, shard=32, progress=False).made == 0
        found["seconds, all there"] = round(time.perf_counter() - start, 2)
        found["bytes"] = sum(map(len, sums[0]))
        found["same bytes"] = sums[0] == sums[1]
    return found


# ---------------------------------------------------------------- two processes


def training():
    """Returns how soon a kill ends two processes, and where they end beside one process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert _train(folder, "one", 1).wait() == 0
        begun = _train(folder, "two", 2)
        while not (folder / "two" / "state.json").exists():
            time.sleep(0.01)
        children = psutil.Process(begun.pid).children()
        start = time.perf_counter()
        children[1].send_signal(signal.SIGKILL)
        assert begun.wait() == 1
        psutil.wait_procs(children)
        ended = time.perf_counter() - start
        assert _last(folder / "two")[0] < 3
        assert _train(folder, "two", 2).wait() == 0
        one, two = (_last(folder / run)[1] for run in ("one", "two"))
    names = [name for name in one if name.startswith("model")]
    flat = [np.concatenate([a[name].ravel() for name in names]) for a in (one, two)]
    far = float(np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0]))
    return {"recipe": "vae", "epochs": 3, "distance": far, "seconds to the end of all": ended}


def _train(folder, out, n):
    code = "import sys; sys.argv[0] = 'genlib'; from genlib import cli; cli.main()"
    command = [sys.executable, "-c", code, "train", "vae", "--source", "subset", "--epochs", "3"]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "--out", out, "--processes", str(n)],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _last(run):
    state = json.loads((run / "state.json").read_text())
    return state["epoch"], weights.load(run / state["checkpoint"])[0]


if __name__ == "__main__":
    typer.run(main)
