"""What the comparisons share: settings, threads, and rows of the record."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from genlib import bench

LAYERS, WIDTH, HEADS = 6, 192, 6
HIDDEN = 512  # of SwiGLU: with it, one of our blocks has as many parameters as one of GPT-2's
BATCHES = (1, 16)
THREADS = 2


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes:
        side: whose it is.
        run: does the work and returns its result as NumPy arrays or torch tensors on the host.
        parameters: of the network that it runs.
        setting: "default", or what was changed, as its authors document it.
    """

    side: Literal["peer", "ours"]
    run: Callable[[], Any]
    parameters: int
    setting: str = "default"


def compare(work: str, peer: str, candidates: Mapping[str, Candidate], note: str) -> dict[str, Any]:
    """Times all candidates in alternation; returns a row of the record.

    Args:
        work: what is done, with sizes.
        peer: name of the other library.
        candidates: name → candidate; the peer's default setting first.
        note: in what the sides are alike, and in what they are not.
    """
    print(f"{work}, against {peer}", flush=True)
    found = bench.compare(
        {name: c.run for name, c in candidates.items()},
        warmup=1,
        min_seconds=0.05,
        sync=lambda x: x,
    )

    def best(side: str) -> str:
        names = [name for name, c in candidates.items() if c.side == side]
        return min(names, key=lambda name: found.records[name].median)

    def against(theirs: str, ours: str) -> dict[str, Any]:
        r = replace(found, baseline=theirs)[ours]
        verdict = "ahead" if r.low > 1 else "behind" if r.high < 1 else "level"
        print(f"  {ours} against {theirs}: {r}, {verdict}", flush=True)
        return {
            "peer": theirs,
            "ours": ours,
            "ratio": r.ratio,
            "low": r.low,
            "high": r.high,
            "verdict": verdict,
        }

    measured = {}
    for name, c in candidates.items():
        record = found.records[name]
        low, high = record.interval
        print(f"  {name}: {record}, first call {bench.format_seconds(record.first_call)}")
        measured[name] = {
            "side": c.side,
            "setting": c.setting,
            "parameters": c.parameters,
            "median_ms": 1000 * record.median,
            "low_ms": 1000 * low,
            "high_ms": 1000 * high,
            "first_call_s": record.first_call,
            "rounds": len(record.seconds),
        }
    ours, default = best("ours"), next(iter(candidates))
    return {
        "work": work,
        "peer": peer,
        "note": note,
        "candidates": measured,
        "against default": against(default, ours),
        "against best": against(best("peer"), ours),
        "load": found.environment["load_1min"],
    }


def versions() -> dict[str, str]:
    """Returns the versions of both sides."""
    names = (
        *("genlib", "keras", "tensorflow_cpu", "numpy"),
        *("torch", "transformers", "diffusers", "x-transformers"),
    )
    return {name: importlib.metadata.version(name) for name in names}
