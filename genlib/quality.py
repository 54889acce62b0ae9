"""How good the text-to-image models are: what the cards of their weights and the book report.

The judge of Scenes reads the attributes of an image; the prompt says which ones were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from genlib import metrics, text
from genlib.data import captions, scenes
from genlib.models.scenes_judge import ScenesJudge, load_scenes_judge
from genlib.models.tokenizer import Tokenizer, load_tokenizer
from genlib.pipeline import METHODS

SEED = 9  # of the images and prompts that measure; no model was trained on them
Score = list[float]  # value, low, high


def judge_quality(judge: ScenesJudge, n: int = 2000) -> dict[str, Any]:
    """Returns the judge's accuracy on clean images, for each attribute and split."""
    measured: dict[str, Any] = {"n": n}
    for split in ("validation", "held-out"):
        drawn = scenes.scenes(n, SEED, split)
        right = judge.attributes(drawn.images) == drawn.attributes
        measured[split] = _by_attribute(right)
    return measured


def tokenizer_quality(tokenizer: Tokenizer, n: int = 1000) -> dict[str, Any]:
    """Returns PSNR in decibels, and what the judge still reads in the reconstructions."""
    judge, drawn = load_scenes_judge(), scenes.scenes(n, SEED, "validation")
    again = tokenizer.decode(tokenizer.encode(drawn.images))
    error = ((drawn.images.astype(np.float32) - again) ** 2).mean((1, 2, 3))
    before = judge.attributes(drawn.images) == drawn.attributes
    after = judge.attributes(again) == drawn.attributes
    return {
        "n": n,
        "psnr": round(float((10 * np.log10(255**2 / np.maximum(error, 1e-6))).mean()), 2),
        "originals": _by_attribute(before),
        "reconstructions": _by_attribute(after),
        "kept": round(float(after.mean() / before.mean()), 4),
    }


def generator_quality(
    generate: Callable[[np.ndarray], np.ndarray], n: int = 2000, memory: int = 8192
) -> dict[str, Any]:
    """Measures a text-to-image model.

    Args:
        generate: text embeddings `(n, 128)` to images, uint8 `(n, 64, 64, 3)`.
        n: prompts of each split.
        memory: training images among which copies are sought.

    Returns:
        For prompts of known and of held-out combinations, with 95 % intervals: how often all five
        attributes are right (`"all"`), each attribute, and their mean; then FID and its floor,
        and how near the images lie to training images.
    """
    judge = load_scenes_judge()
    measured: dict[str, Any] = {"n": n}
    for split in ("validation", "held-out"):
        drawn = scenes.scenes(n, SEED, split)
        images = generate(text.encode([captions.full(row) for row in drawn.attributes]))
        right = judge.attributes(images) == drawn.attributes
        measured[split] = _by_attribute(right)
        if split == "validation":
            seen = scenes.scenes(min(memory, 8192), 0)
            real = scenes.scenes(2 * n, SEED + 1, "validation")
            report = metrics.report(
                judge.features(real.images),
                judge.features(images),
                train=judge.features(seen.images),
            )
            measured["fid"] = _score(report.scores["fid"])
            measured["fid floor"] = _score(report.floor["fid"])
            assert report.neighbours is not None
            measured["closer to training than fresh images"] = _score(report.neighbours.closer)
    return measured


def of(recipe: str) -> Callable[[Any], Mapping[str, Any]]:
    """Returns what measures the model of a recipe."""
    if recipe.startswith("scenes-"):
        return judge_quality
    if recipe == "tokenizer":
        return tokenizer_quality
    if recipe == "text-student":
        from genlib.text.training import quality

        return quality

    def measure(model: Any) -> dict[str, Any]:
        tokenizer = load_tokenizer()
        options = METHODS[recipe].options

        def generate(embedded: np.ndarray) -> np.ndarray:
            parts = np.array_split(embedded, -(-len(embedded) // 200))
            grids = [model.sample(part, SEED + i, **options) for i, part in enumerate(parts)]
            return tokenizer.decode(np.concatenate(grids))

        return {"options": dict(options), **generator_quality(generate)}

    return measure


def _by_attribute(right: np.ndarray) -> dict[str, Score]:
    """Returns shares with Wilson's intervals of right answers, bool `(n, 5)`."""
    shares = {"all": right.all(1)} | {name: right[:, i] for i, name in enumerate(scenes.NAMES)}
    scores = {name: _share(hits) for name, hits in shares.items()}
    scores["mean"] = _share(right.ravel())
    return scores


def _share(hits: np.ndarray) -> Score:
    low, high = metrics.wilson(int(hits.sum()), hits.size)
    return [round(float(x), 4) for x in (hits.mean(), low, high)]


def _score(estimate: metrics.Estimate) -> Score:
    return [round(float(x), 3) for x in (estimate.value, estimate.low, estimate.high)]
