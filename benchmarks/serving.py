"""Latency against load, until and past saturation: a naive server and one that batches and refuses.

    python benchmarks/serving.py            # five minutes; leave the machine alone meanwhile

Both servers stand ready in processes of their own, and take turns at each load, so that a busy
minute hits both. The loads are fractions and multiples of what the naive server can do, which is
measured first, one request after another. Writes genlib/records/serving.json.
"""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from genlib import pretrained, records
from genlib.serve.load import Load, alone, offer, serving

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0)
WITHIN = 1.0  # s; an image that comes later is worth nothing
QUANTILES = (50, 95, 99)
SERVERS = {
    "naive": ("--max-batch", "1", "--max-wait", "0", "--max-queue", "100000", "--timeout", "600"),
    "batching": ("--max-batch", "4", "--max-queue", "8"),
}


def row(load: Load) -> dict[str, Any]:
    """Returns what is kept of a load; times in seconds, rates per second."""
    return {
        "rate": load.rate,
        "sent": len(load.due),
        "counts": {str(status): count for status, count in load.counts.items()},
        "lost": load.lost,
        "mean": float(load.latency[load.status == 200].mean()),
        "latency": {f"p{q}": load.percentile(q) for q in QUANTILES},
        "throughput": load.throughput,
        "goodput": load.goodput(WITHIN),
    }


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each load.")] = 12.0,
) -> None:
    """Measures, prints and writes the record."""
    fresh = ("--cache-bytes", "0")  # each request is drawn
    with (
        serving(*SERVERS["naive"], *fresh) as naive,
        serving(*SERVERS["batching"], *fresh) as other,
    ):
        one = alone(naive)
        service, spread = float(one.mean()), float(one.std() / one.mean())
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SERVERS}
        for seed, part in enumerate(LOADS):
            for name, url in zip(SERVERS, (naive, other), strict=True):
                made = row(offer(url, part / service, seconds, seed=seed, timeout=300))
                rows[name].append({"load": part, **made})
                print(name, part, made["counts"], made["latency"])
        batches = httpx.get(f"{other}/metrics").json()["batches"]
    method = pretrained.DEFAULT
    records.save(
        "serving",
        {
            "method": {"name": method, **pretrained.METHODS[method].options},
            "seconds": seconds,
            "within": WITHIN,
            "alone": {"mean": service, "variation": spread, "n": len(one)},
            "arguments": {name: list(given) for name, given in SERVERS.items()},
            "servers": rows,
            "batches": batches,
        },
    )


if __name__ == "__main__":
    typer.run(main)
