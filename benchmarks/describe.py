"""How often does a description keep all that the prompt names?

    python benchmarks/describe.py           # half an hour on one core; most of it is free writing

Prompts are captions, of which it is known what they name: in wordings that the student has trained
on, in wordings set aside (each phrase and template is new), English and Chinese. A description
keeps a prompt if it has the value of every attribute that the prompt names. Writes
genlib/records/describe.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from genlib import records
from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.metrics import wilson
from genlib.text import describe, lexicon, understand, writer

NAMES = tuple(ATTRIBUTES)


def prompts(n: int, language: str, wording: str) -> list[tuple[captions.Caption, np.ndarray]]:
    """Returns captions with the scenes that they tell of."""
    rng = np.random.default_rng(11)
    rows = scenes.combinations()[rng.integers(len(scenes.combinations()), size=n)]
    return [(captions.caption(r, rng, language=language, wording=wording), r) for r in rows]


def kept_by(method: str, said: captions.Caption, row: np.ndarray) -> list[bool]:
    """Returns for each attribute that a prompt names whether the description keeps it."""
    values = captions.indices(describe(said.text, method=method)[0].attributes)
    return [values[i] == row[i] for i, name in enumerate(NAMES) if name in said.named]


def kept_freely(said: captions.Caption, row: np.ndarray) -> list[bool]:
    """Returns the same of what SmolLM2 writes greedily: is a phrase of the value in it?"""
    text = writer._smollm(writer.request(said.text)).lower()
    return [
        any(
            phrase in text
            for phrase in lexicon.phrases(name, row, "en")
            + captions.phrases(name, row, "en", "unseen")
        )
        for name in NAMES
        if name in said.named
    ]


def measure(keep: object, tried: list) -> dict[str, object]:
    """Returns shares with 95 % intervals, and milliseconds for a prompt."""
    keep(*tried[0])  # models load, caches fill
    start = time.perf_counter()
    kept = [keep(*one) for one in tried]
    spent = 1000 * (time.perf_counter() - start) / len(tried)

    def share(right: int, n: int) -> list[float]:
        return [round(float(x), 4) for x in (right / n, *wilson(right, n))]

    flat = [k for one in kept for k in one]
    return {
        "prompts": len(tried),
        "every attribute": share(sum(map(all, kept)), len(kept)),
        "each attribute": share(sum(flat), len(flat)),
        "milliseconds": round(spent, 2),
    }


def natural() -> dict[str, object]:
    """Returns how prompts are read that people might type, `tests/natural-development.jsonl`.

    A prompt is read whole if all is understood that it names and that it rules out; something is
    invented if an attribute is read that it leaves open. What is doubtful may be read or not.
    """
    path = Path(__file__).parents[1] / "tests" / "natural-development.jsonl"
    asked = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    whole, invented = [], []
    for one in asked:
        found = understand(one["text"])
        may = {(name, v) for part in one["either"] for name, vs in part.items() for v in vs}
        read, named = set(found.named.items()), set(one["named"].items())
        doubtful = {name for name, _ in may}
        out = all(set(vs) <= found.excluded.get(name, set()) for name, vs in one["not"].items())
        whole.append(out and {n for n in named - read if n[0] not in doubtful} == set())
        invented.append(bool({n for n, _ in read - may} - set(one["named"])))
    n = len(asked)
    return {
        "prompts": n,
        "whole": [round(float(x), 4) for x in (np.mean(whole), *wilson(sum(whole), n))],
        "invented": [round(float(x), 4) for x in (np.mean(invented), *wilson(sum(invented), n))],
    }


def main(
    n: Annotated[int, typer.Option(min=1, help="Prompts of each kind.")] = 200,
) -> None:
    """Measures each way, and writes the record."""
    rows: dict[str, object] = {}
    print("natural prompts", natural(), flush=True)
    for language, wording in (("en", "unseen"), ("en", "seen"), ("zh", "unseen"), ("zh", "seen")):
        tried = prompts(n, language, wording)
        ways = {"student": lambda *a: kept_by("student", *a)}
        if language == "en":
            ways["grammar"] = lambda *a: kept_by("grammar", *a)
            ways["free, greedy"] = kept_freely
        for way, keep in ways.items():
            key = f"{way}, {language} {wording}"
            rows[key] = measure(keep, tried)
            print(key, rows[key], flush=True)
    record = {"rows": rows, "natural prompts": natural()}
    records.save("describe", record)


if __name__ == "__main__":
    typer.run(main)
