"""How often is all understood that a prompt names?

    python benchmarks/describe.py                   # half an hour on one core, mostly for SmolLM2
    python benchmarks/describe.py --ways student    # seconds; the other rows of the record stay

Prompts are captions, of which it is known what they name: in wordings that the student has trained
on, in wordings set aside (each phrase and template is new), English and Chinese. In every row, a
prompt counts as kept if each value that it names is understood by what feeds the generator:

* student: by `understand`, without the phrases of the lexicon that hold one that is set aside;
* grammar: by the same, SmolLM2 explaining the words that are unknown;
* free, greedy: by the same reading what SmolLM2 wrote for the prompt, without the prompt.

There are few phrases, and many prompts of them. What is measured is how many *phrases* are known,
so the intervals come from drawing phrases anew: each has a weight at random (exponential), a prompt
the product of the weights of its phrases.

Natural prompts, which people might type, are read as the product reads them: those of
`tests/natural.jsonl` measure, those of `tests/natural-development.jsonl` are for choosing, and
`tests/natural-fresh.jsonl` was read once. Writes genlib/records/describe.json.

Reference: Owen and Eckles, 2012, arXiv:1106.2125 (product weights).
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from genlib import records
from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.metrics import wilson
from genlib.text import understand, writer

NAMES = tuple(ATTRIBUTES)
WAYS = {"student": ("en", "zh"), "grammar": ("en",), "free, greedy": ("en",)}
DRAWS = 2000  # of weights, for an interval
FILES = {
    "natural prompts": "natural",
    "natural prompts, development": "natural-development",
    "natural prompts, fresh": "natural-fresh",
}
Keep = Callable[[captions.Caption, np.ndarray], list[bool]]


def prompts(n: int, language: str, wording: str) -> list[tuple[captions.Caption, np.ndarray]]:
    """Returns captions with the scenes that they tell of."""
    rng = np.random.default_rng(11)
    rows = scenes.combinations()[rng.integers(len(scenes.combinations()), size=n)]
    return [(captions.caption(r, rng, language=language, wording=wording), r) for r in rows]


def kept(reading: Sequence[np.ndarray], said: captions.Caption, row: np.ndarray) -> list[bool]:
    """Returns for each attribute that a prompt names whether its value is understood."""
    read = [int(part.argmax()) - 1 for part in reading]
    return [read[i] == row[i] for i, name in enumerate(NAMES) if name in said.named]


def keeper(way: str) -> Keep:
    """Returns the function that reads in one of the `WAYS`."""
    if way == "student":
        return lambda said, row: kept(writer.read(said.text, aside=False), said, row)
    if way == "grammar":
        explained = writer.load_reader()
        return lambda s, row: kept(writer.explain(s.text, explained, aside=False), s, row)
    return lambda said, row: kept(
        writer.read(writer._smollm(writer.request(said.text)), aside=False), said, row
    )


def phrases(said: captions.Caption, row: np.ndarray, language: str, wording: str) -> list[str]:
    """Returns the phrases of which a caption is made."""
    found = []
    for name in sorted(said.named):
        known = captions.phrases(name, row, language, wording)
        found += sorted((p for p in known if p in said.text), key=len)[-1:]
    return found


def interval(right: Sequence[float], made_of: Sequence[Sequence[str]]) -> list[float]:
    """Returns a mean with its 95 % interval, when phrases are drawn anew.

    Args:
        right: of each prompt, from 0 to 1.
        made_of: the phrases of each prompt.
    """
    shares = np.asarray(right, float)
    index = {phrase: i for i, phrase in enumerate(sorted({p for ps in made_of for p in ps}))}
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(DRAWS, len(index)))
    products = np.stack([weights[:, [index[p] for p in ps]].prod(1) for ps in made_of], axis=1)
    low, high = np.quantile(products @ shares / products.sum(1), (0.025, 0.975))
    return [round(float(x), 4) for x in (shares.mean(), low, high)]


def measure(keep: Keep, tried: list, language: str, wording: str) -> dict[str, Any]:
    """Returns shares with 95 % intervals, and milliseconds for a prompt."""
    keep(*tried[0])  # models load, caches fill
    start = time.perf_counter()
    found = [keep(*one) for one in tried]
    spent = 1000 * (time.perf_counter() - start) / len(tried)
    made_of = [phrases(*one, language, wording) for one in tried]
    return {
        "prompts": len(tried),
        "phrases": len({phrase for row in made_of for phrase in row}),
        "every attribute": interval([all(row) for row in found], made_of),
        "each attribute": interval([np.mean(row) for row in found], made_of),
        "milliseconds": round(spent, 2),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }


def natural(name: str) -> dict[str, Any]:
    """Returns how prompts are read that people might type, a file of `tests`.

    A prompt is read whole if all is understood that it names, and nothing named that it rules out;
    something is invented if an attribute is read that it leaves open. What is doubtful may be read
    or not: the file names the attributes, or the values that they may have.
    """
    path = Path(__file__).parents[1] / "tests" / f"{name}.jsonl"
    asked = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    whole, invented = [], []
    each: dict[str, list[bool]] = {attribute: [] for attribute in NAMES}
    understand("sea")  # the student loads
    start = time.perf_counter()
    answers = [understand(one["text"]) for one in asked]
    spent = 1000 * (time.perf_counter() - start) / len(asked)
    for one, found in zip(asked, answers, strict=True):
        may: dict[str, tuple[str, ...]] = {}
        for part in one.get("either", []):
            for attribute, values in part.items() if isinstance(part, dict) else [(part, ())]:
                may[attribute] = (*values, *may.get(attribute, ())) or ATTRIBUTES[attribute]
        wanted, read = one["named"], found.named
        right = {n: read.get(n) == value for n, value in wanted.items() if n not in may}
        for attribute, is_right in right.items():
            each[attribute].append(is_right)
        ruled_out = one.get("not", {})
        whole.append(
            all(right.values()) and not any(read.get(n) in out for n, out in ruled_out.items())
        )
        invented.append(
            any(
                value not in may[n] if n in may else value != wanted.get(n)
                for n, value in read.items()
                if n not in may or n not in wanted
            )
        )

    def share(found: Sequence[bool]) -> list[float]:
        low, high = wilson(sum(found), len(found))
        return [round(float(x), 4) for x in (np.mean(found), low, high)]

    return {
        "prompts": len(asked),
        "whole": share(whole),
        "invented": share(invented),
        "each attribute": {attribute: share(found) for attribute, found in each.items()},
        "milliseconds": round(spent, 2),
    }


def main(
    n: Annotated[int, typer.Option(min=1, help="Prompts of each kind.")] = 200,
    ways: Annotated[list[str], typer.Option(help=f"Of {', '.join(WAYS)}.")] = list(WAYS),  # noqa: B006
    fresh: Annotated[bool, typer.Option(help="Start a new record.")] = False,
) -> None:
    """Measures some ways, and writes them into the record; its other rows stay."""
    if unknown := set(ways) - set(WAYS):
        raise typer.BadParameter(f"No way {sorted(unknown)}; there are {list(WAYS)}.")
    found = {key: natural(name) for key, name in FILES.items()}
    print(json.dumps(found, indent=1), flush=True)
    try:
        old: dict[str, Any] = {} if fresh else records.load("describe")
    except FileNotFoundError:
        old = {}
    rows = old.get("rows", {})
    for language, wording in (("en", "unseen"), ("en", "seen"), ("zh", "unseen"), ("zh", "seen")):
        tried = prompts(n, language, wording)
        for way in ways:
            if language in WAYS[way]:
                key = f"{way}, {language} {wording}"
                rows[key] = measure(keeper(way), tried, language, wording)
                print(key, rows[key], flush=True)
    records.save("describe", {"rows": rows, **found})


if __name__ == "__main__":
    typer.run(main)
