"""Which hidden states of SmolLM2 tell what a caption says? A linear probe for each candidate.

    python benchmarks/text_layers.py        # about four minutes on one core

For each layer and pooling, a linear probe (ridge) learns from captions which value of each
attribute is named ("not named" is a value too), and is asked about other captions, in wordings that
it knows and in wordings that were set aside. Writes benchmarks/text-layers.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeClassifier

from genlib import bench
from genlib.data import captions, scenes
from genlib.models.llm import load_llm

LAYERS = (0, 3, 6, 9, 12, 18, 24, 30)
SIZES = {"train": (600, "seen"), "seen": (400, "seen"), "unseen": (400, "unseen")}


def examples(n: int, wording: str, seed: int) -> tuple[list[str], np.ndarray]:
    """Returns captions, and for each attribute the value that is named, or -1."""
    rng = np.random.default_rng(seed)
    rows = scenes.combinations()[rng.integers(len(scenes.combinations()), size=n)]
    said = [captions.caption(row, rng, language="en", wording=wording) for row in rows]
    named = np.array([[name in c.named for name in captions.ATTRIBUTES] for c in said])
    return [c.text for c in said], np.where(named, rows, -1)


def accuracy(train: tuple, test: tuple) -> list[float]:
    """Returns for each attribute how often the probe is right."""
    mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
    right = []
    for i in range(len(captions.ATTRIBUTES)):
        probe = RidgeClassifier(alpha=30).fit((train[0] - mean) / spread, train[1][:, i])
        right.append(float(probe.score((test[0] - mean) / spread, test[1][:, i])))
    return right


def main() -> None:
    """Reads, probes, writes."""
    llm = load_llm()
    data = {part: examples(*size, seed) for seed, (part, size) in enumerate(SIZES.items())}
    rows = []
    for layer in LAYERS:
        start = time.perf_counter()
        pooled: dict[str, dict[str, np.ndarray]] = {}
        for part, (texts, _) in data.items():
            states = llm.hidden_states(["<|im_start|>" + t for t in texts], layer)
            pooled[part] = {
                "mean": np.stack([s[1:].mean(0) for s in states]),
                "mean with the first token": np.stack([s.mean(0) for s in states]),
                "last token": np.stack([s[-1] for s in states]),
            }
        seconds = time.perf_counter() - start
        for pooling in pooled["train"]:
            row = {"layer": layer, "pooling": pooling, "seconds": round(seconds, 1)}
            for part in ("seen", "unseen"):
                values = accuracy(
                    (pooled["train"][pooling], data["train"][1]),
                    (pooled[part][pooling], data[part][1]),
                )
                row[part] = dict(zip(captions.ATTRIBUTES, values, strict=True))
                row[part]["mean"] = round(float(np.mean(values)), 4)
            rows.append(row)
            print(layer, pooling, row["seen"]["mean"], row["unseen"]["mean"], flush=True)
    record = {
        "captions": {part: size[0] for part, size in SIZES.items()},
        "environment": bench.environment(),
        "rows": rows,
    }
    path = Path(__file__).with_name("text-layers.json")
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
