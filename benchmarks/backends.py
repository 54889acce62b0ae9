"""The same samplers on TensorFlow, JAX and PyTorch: what compiling the loop gives on each.

    python benchmarks/backends.py           # seven minutes; writes genlib/records/backends.json

Keras chooses its backend when it is imported, so each one runs in processes of its own, which take
turns. Within a process the ways of a sampler alternate, so that their times are pairs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np

BACKENDS = ("tensorflow", "jax", "torch")
TURNS = 3
STEPS = 8  # of the flow, unguided


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
            time = np.full(1, step / STEPS, "float32")
            x = x + backend.to_numpy(flow({"x": x, "time": time, "text": said})) / STEPS
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
        made = bench.compare(candidates, warmup=1, min_seconds=0)
        found["models"][model] = {
            way: {"seconds": list(record.seconds), "first_call": record.first_call}
            for way, record in made.records.items()
        }
    return found


def turn(backend: str) -> dict[str, Any]:
    """Measures a backend in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, __file__, "measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{backend} cannot be measured. `make .venv/.backends` installs it.\n{done.stderr}"
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Lets the backends take turns, prints and writes the record."""
    turns: dict[str, list[dict[str, Any]]] = {backend: [] for backend in BACKENDS}
    for _ in range(TURNS):
        for backend in BACKENDS:
            turns[backend].append(turn(backend))
    from genlib import bench, records

    rows: dict[str, Any] = {}
    for backend, found in turns.items():
        rows[backend] = {"versions": found[0]["environment"]["versions"], "models": {}}
        for model, ways in found[0]["models"].items():
            rows[backend]["models"][model] = {}
            for way in ways:
                runs = [each["models"][model][way] for each in found]
                seconds = [s for run in runs for s in run["seconds"]]
                slow = [s for each in found for s in each["models"][model]["eager"]["seconds"]]
                pairs = [a / b for a, b in zip(slow, seconds, strict=True)]
                record = bench.Record(way, runs[0]["first_call"], tuple(seconds), 1, {})
                low, high = bench.bootstrap_interval(pairs)
                rows[backend]["models"][model][way] = {
                    "first_call": max(run["first_call"] for run in runs),
                    "seconds": [record.median, *record.interval],
                    "ratio": [float(np.median(pairs)), low, high],
                }
                print(backend, model, way, rows[backend]["models"][model][way])
    records.save("backends", {"steps": STEPS, "turns": TURNS, "backends": rows})


if __name__ == "__main__":
    print(json.dumps(measure())) if sys.argv[1:] == ["measure"] else main()
