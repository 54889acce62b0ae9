"""Latency against load, until and past saturation: which part is the batches', which the refusals'?

    python benchmarks/serving.py            # half an hour; leave the machine alone meanwhile

Three servers: one that draws one image at a time and refuses nobody, one that also draws one at a
time but keeps a short queue, and one that draws in batches behind the same short queue. Each run
starts all three in processes of their own, and they take turns at each load, so that a busy minute
hits all. The loads are fractions and multiples of what the first server can do, which is measured
once, one request after another.

A run counts once: the 50th and the 95th percentile are medians over the runs with their exact
interval. Too few requests of one run lie beyond the 99th percentile, so that one is of the requests
of all runs together. Writes genlib/records/serving.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from genlib import bench, pretrained, records
from genlib.serve.load import Load, alone, offer, serving

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 3.0)
WITHIN = 1.0  # s; an image that comes later is worth nothing
ONE = ("--max-batch", "1", "--max-wait", "0")
SERVERS = {
    # All who wait hold a connection, so it must take as many as are sent.
    "naive": (*ONE, "--max-queue", "100000", "--max-connections", "100000", "--timeout", "600"),
    "refusing": (*ONE, "--max-queue", "8"),
    "batching": ("--max-batch", "4", "--max-queue", "8"),
}


def row(part: float, runs: Sequence[Load]) -> dict[str, Any]:
    """Returns what is kept of a load's runs; times in seconds, rates per second."""
    served = np.concatenate([run.latency[run.status == 200] for run in runs])
    counts = sum((Counter(run.counts) for run in runs), Counter())
    return {
        "load": part,
        "rate": runs[0].rate,
        "sent": sum(len(run.due) for run in runs),
        "counts": {str(status): count for status, count in sorted(counts.items())},
        "lost": sum(run.lost for run in runs),
        "latency": {
            f"p{q}": bench.median_and_interval([run.percentile(q) for run in runs])
            for q in (50, 95)
        },
        "p99 of all runs": float(np.percentile(served, 99)),
        "goodput": bench.median_and_interval([run.goodput(WITHIN) for run in runs]),
    }


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each load in a run.")] = 8.0,
    runs: Annotated[int, typer.Option(min=2, help="6 give an interval of 97 %.")] = 6,
) -> None:
    """Measures, prints and writes the record."""
    made: dict[str, dict[float, list[Load]]] = {
        name: {part: [] for part in LOADS} for name in SERVERS
    }
    batches: Counter[str] = Counter()
    service = np.array([])
    for run in range(runs):
        with ExitStack() as stack:
            fresh = ("--cache-bytes", "0")  # each request is drawn
            urls = {
                name: stack.enter_context(serving(*arguments, *fresh))
                for name, arguments in SERVERS.items()
            }
            if not len(service):
                service = alone(urls["naive"])
            for turn, part in enumerate(LOADS):
                for name, url in urls.items():
                    load = offer(
                        url, part / service.mean(), seconds, seed=100 * run + turn, timeout=300
                    )
                    made[name][part].append(load)
                    print(run, name, part, load.counts, f"{load.percentile(95):.3f} s", flush=True)
            batches.update(httpx.get(f"{urls['batching']}/metrics").json()["batches"])
    method = pretrained.DEFAULT
    records.save(
        "serving",
        {
            "method": {"name": method, **pretrained.METHODS[method].options},
            "seconds": seconds,
            "runs": runs,
            "within": WITHIN,
            "alone": {
                "mean": float(service.mean()),
                "variation": float(service.std() / service.mean()),
                "n": len(service),
            },
            "arguments": {name: list(given) for name, given in SERVERS.items()},
            "servers": {
                name: [row(part, found) for part, found in loads.items()]
                for name, loads in made.items()
            },
            "batches": dict(batches),
        },
    )


if __name__ == "__main__":
    typer.run(main)
