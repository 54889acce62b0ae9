"""The same samplers on TensorFlow, JAX and PyTorch: what compiling the loop gives on each.

    python benchmarks/backends.py           # half an hour; writes genlib/records/backends.json

Keras chooses its backend when it is imported, so each one runs in processes of its own, which take
turns. Within a process the ways of a sampler alternate, so that their times are pairs. But what a
process finds (memory, compiled code, a busy minute) is in all of its pairs, so they are no
independent ones: a process counts once, with the median of its pairs, and the interval is that of
the median of processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import typer

BACKENDS = ("tensorflow", "jax", "torch")
STEPS = 8  # of the flow, unguided
PAIRS = 3  # of each way with the eager one in a process: their median is what counts


def measure() -> dict[str, Any]:
    """Returns, for this process's backend, the times of each sampler's ways, in seconds."""
    from genlib import backend, bench

    bench.fix_threads(min(2, bench.threads()["cores"]))
    from genlib import pipeline, text
    from genlib.models import sampling

    flow, gpt = pipeline.load("flow"), pipeline.load("image-gpt")
    said = text.encode(["a clear sunset over the sea"])

    def eager() -> Any:
        x = sampling.normals(1, (16, 16, flow.config.channels), 0)
        for step in range(STEPS):
            at = np.full(1, step / STEPS, "float32")
            x = x + backend.to_numpy(flow({"x": x, "time": at, "text": said})) / STEPS
        return x

    def walk(**how: Any) -> Any:
        return lambda: flow.sample(said, steps=STEPS, guidance=1.0, **how)

    def write(**how: Any) -> Any:
        return lambda: gpt.sample(said, min_p=0.05, **how)

    ways = {
        "flow": {
            "eager": eager,
            "compiled step": walk(compiled=False),
            "compiled loop": walk(),
        },
        "image GPT": {
            "eager": write(cached=False, compiled=False),
            "compiled step": write(cached=False),
            "compiled loop": write(),
        },
    }
    if backend.name() == "tensorflow":  # JAX always compiles with XLA; PyTorch has none here
        ways["flow"]["compiled loop, XLA"] = walk(xla=True)
        ways["image GPT"]["compiled loop, XLA"] = write(xla=True)
    found: dict[str, Any] = {"environment": bench.environment(), "models": {}}
    for model, candidates in ways.items():
        first = {way: clock(run) for way, run in candidates.items()}
        rounds = [{way: clock(run) for way, run in candidates.items()} for _ in range(PAIRS)]
        found["models"][model] = {
            way: {"seconds": [each[way] for each in rounds], "first_call": first[way]}
            for way in candidates
        }
    return found


def clock(run: Callable[[], Any]) -> float:
    """Returns the seconds of one call, its result on the host."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def turn(backend: str) -> dict[str, Any]:
    """Measures a backend in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, __file__, "--here"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{backend} cannot be measured. `make .venv/.backends` installs it.\n{done.stderr}"
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(runs: Sequence[Mapping[str, Any]], slow: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the times of a way, and its ratio to the eager way, from all processes.

    Args:
        runs: of the way, one for each process.
        slow: of the eager way, in the same processes.
    """
    from genlib import bench

    seconds = [float(np.median(run["seconds"])) for run in runs]
    ratios = [
        float(np.median(np.divide(eager["seconds"], run["seconds"])))
        for run, eager in zip(runs, slow, strict=True)
    ]
    return {
        "first_call": max(run["first_call"] for run in runs),
        "seconds": bench.median_and_interval(seconds),
        "ratio": bench.median_and_interval(ratios),
        "processes": [run["seconds"] for run in runs],
    }


def main(
    turns: Annotated[
        int, typer.Option(min=2, help="Processes of each backend; 6 give an interval of 97 %.")
    ] = 6,
    here: Annotated[
        bool, typer.Option("--here", hidden=True, help="Measure this process's backend alone.")
    ] = False,
) -> None:
    """Lets the backends take turns, prints and writes the record."""
    if here:
        print(json.dumps(measure()))
        return
    made: dict[str, list[dict[str, Any]]] = {backend: [] for backend in BACKENDS}
    for _ in range(turns):
        for backend in BACKENDS:
            made[backend].append(turn(backend))
            print(backend, "measured", len(made[backend]), "of", turns, flush=True)
    from genlib import records

    rows: dict[str, Any] = {}
    for backend, found in made.items():
        rows[backend] = {"versions": found[0]["environment"]["versions"], "models": {}}
        for model, ways in found[0]["models"].items():
            slow = [each["models"][model]["eager"] for each in found]
            rows[backend]["models"][model] = {
                way: summary([each["models"][model][way] for each in found], slow) for way in ways
            }
            for way, row in rows[backend]["models"][model].items():
                print(backend, model, way, row["seconds"], row["ratio"])
    records.save("backends", {"steps": STEPS, "turns": turns, "backends": rows})


if __name__ == "__main__":
    typer.run(main)
