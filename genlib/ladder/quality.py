"""How good the text-to-image models are: what the cards of their weights and the book report.

The judge of Scenes reads the attributes of an image; the prompt says which ones were asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from genlib import bench, metrics, text
from genlib.data import FashionMNIST, captions, fashion_mnist, scenes
from genlib.ladder import opinion
from genlib.models import gan
from genlib.models.judges import Judge, ScenesJudge
from genlib.models.tokenizer import Tokenizer
from genlib.pretrained import (
    METHODS,
    load_generator,
    load_judge,
    load_scenes_judge,
    load_tokenizer,
)
from genlib.text.student import Student
from genlib.train.heal import TEACHER
from genlib.train.text_student import Plain

SEED = 9  # of the images and prompts that measure; no model was trained on them
OPINIONS = 1000  # images of which the second opinion is asked
TRAIN_IMAGES = 12_000  # among which the nearest neighbour is sought: seconds, not minutes
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
    """Returns PSNR in decibels, and what two networks find in the reconstructions.

    The judge reads their attributes. The network of photographs says how far they are from real
    images: no generator that draws through this tokenizer can be expected to come nearer.
    """
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
        "second opinion": _second_opinion(again),
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
        how near the images lie to training images, and the second opinion of a network of
        photographs.
    """
    judge = load_scenes_judge()
    measured: dict[str, Any] = {"n": n}
    for split in ("validation", "held-out"):
        drawn = scenes.scenes(n, SEED, split)
        images = generate(text.encode([captions.full(row) for row in drawn.attributes]))
        right = judge.attributes(images) == drawn.attributes
        measured[split] = _by_attribute(right)
        if split == "validation":
            real, train = _real(n, memory)
            report = metrics.report(real, judge.features(images), train=train)
            measured["fid"] = _score(report.scores["fid"])
            measured["fid floor"] = _score(report.floor["fid"])
            assert report.neighbours is not None
            measured["closer to training than fresh images"] = _score(report.neighbours.closer)
            measured["second opinion"] = _second_opinion(images)
    return measured


@functools.lru_cache(maxsize=1)  # with guidance and without, the real side is the same
def _real(n: int, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the judge's features of real images, and of training images."""
    judge = load_scenes_judge()
    real = scenes.scenes(2 * n, SEED + 1, "validation").images
    train = scenes.scenes(min(memory, 8192), 0).images
    return judge.features(real), judge.features(train)


def _second_opinion(images: np.ndarray) -> dict[str, Any]:
    """Returns what the network of photographs says of some of these images."""
    n = min(len(images), OPINIONS)
    return opinion.compare(_photographs(n), opinion.features(images[:n]))


@functools.lru_cache(maxsize=1)
def _photographs(n: int) -> np.ndarray:
    """Returns that network's features of twice as many real images."""
    return opinion.features(scenes.scenes(2 * n, SEED + 1, "validation").images)


def of(recipe: str, source: str | None = None) -> Callable[[Any], Mapping[str, Any]]:
    """Returns what measures the model of a recipe.

    Args:
        recipe: its name.
        source: of Fashion-MNIST, for the recipes that need it.
    """
    if recipe in ("gan", "gan-small", "vae", "judge"):
        return functools.partial(_fashion_quality, recipe, source)
    if recipe.startswith("scenes-"):
        return judge_quality
    if recipe == "tokenizer":
        return tokenizer_quality
    if recipe == "text-student":
        return student_quality

    def measure(model: Any) -> dict[str, Any]:
        tokenizer = load_tokenizer()
        options = {k: v for k, v in METHODS[recipe].options.items() if k != "xla"}

        def quality(options: Mapping[str, Any]) -> dict[str, Any]:
            def generate(embedded: np.ndarray) -> np.ndarray:
                parts = np.array_split(embedded, -(-len(embedded) // 200))
                grids = [model.sample(part, SEED + i, **options) for i, part in enumerate(parts)]
                return tokenizer.decode(np.concatenate(grids))

            return generator_quality(generate)

        measured = {"options": options, **quality(options)}
        if options["guidance"] != 1:  # what training must move: guidance hides it
            measured["unguided"] = quality({**options, "guidance": 1.0})
        return measured

    return measure


def _fashion_quality(recipe: str, source: str | None, model: Any) -> dict[str, Any]:
    """Measures what was trained on Fashion-MNIST against its test images."""
    data = fashion_mnist(source)
    if recipe == "judge":
        rate = metrics.accuracy(data.test_labels, Judge(model).predict(data.test_images))
        return {
            "test_images": len(data.test_images),
            "accuracy": rate.value,
            "accuracy_low": round(rate.low, 5),
            "accuracy_high": round(rate.high, 5),
        }
    judge = load_judge()
    if recipe == "vae":
        return plain(_report(model.sample(1000, seed=1), data, judge))
    measured = plain(evaluate(model, data, judge))
    if recipe == "gan-small":
        teacher, _ = load_generator(TEACHER)
        measured["beside the teacher"] = beside_teacher(model, teacher, data, judge)
    return measured


def _by_attribute(right: np.ndarray) -> dict[str, Score]:
    """Returns shares of right answers, bool `(n, 5)`: Wilson's intervals, and that of the mean."""
    shares = {"all": right.all(1)} | {name: right[:, i] for i, name in enumerate(scenes.NAMES)}
    scores = {name: _share(hits) for name, hits in shares.items()}
    scores["mean"] = _mean(right)
    return scores


def _mean(right: np.ndarray) -> Score:
    """Returns the share of all single answers; the images, not the answers, are independent."""
    each = right.mean(1)
    return [round(float(x), 4) for x in (each.mean(), *bench.bootstrap_interval(each))]


def _share(hits: np.ndarray) -> Score:
    low, high = metrics.wilson(int(hits.sum()), hits.size)
    return [round(float(x), 4) for x in (hits.mean(), low, high)]


def _score(estimate: metrics.Estimate) -> Score:
    return [round(float(x), 3) for x in (estimate.value, estimate.low, estimate.high)]


def evaluate(
    generator: Any, data: FashionMNIST, judge: Judge, n: int = 1000, seed: int = 1
) -> metrics.Report:
    """Measures a generator against test images, which neither it nor the judge was trained on.

    Args:
        generator: latents `(batch, 100)` → images in [-1, 1].
        data: real images. Nearness is measured to `TRAIN_IMAGES` of its training images.
        judge: whose features compare images.
        n: generated images; twice as many test images are used, for the floor.
        seed: of the latents.
    """
    return _report(gan.sample(generator, n, seed), data, judge)


def _report(images: np.ndarray, data: FashionMNIST, judge: Judge) -> metrics.Report:
    return metrics.report(
        judge.features(data.test_images[: 2 * len(images)]),
        judge.features(images),
        train=judge.features(data.train_images[:TRAIN_IMAGES]),
    )


def plain(report: metrics.Report) -> dict[str, Any]:
    """Returns a report as JSON can hold it: `[value, low, high]` for each score and its floor."""
    parts = {"scores": report.scores, "floor": report.floor}
    return {"n": report.n} | {
        part: {name: [e.value, e.low, e.high] for name, e in estimates.items()}
        for part, estimates in parts.items()
    }


def beside_teacher(
    student: Any, teacher: Any, data: FashionMNIST, judge: Judge, n: int = 5000, groups: int = 20
) -> dict[str, Any]:
    """Measures how much worse a student's images are than its teacher's of the same latents.

    Args:
        student: latents `(batch, 100)` → images in [-1, 1].
        teacher: the same.
        data: its test images are the measure.
        judge: whose features compare images.
        n: images of each.
        groups: of the jackknife; each leaves out its share of the latents for both.

    Returns:
        `n`, and `[value, low, high]` of `"student fid"`, `"teacher fid"` and their `"ratio"`, whose
        interval is narrower than those of the two, since what both share cancels.
    """
    real = judge.features(data.test_images)
    drawn = [judge.features(gan.sample(model, n, seed=1)) for model in (student, teacher)]
    student_fid, teacher_fid = (metrics.fid_interval(real, d, groups=groups) for d in drawn)
    ratio = metrics.fid_ratio(real, drawn[1], drawn[0], groups=groups)
    found = {"student fid": student_fid, "teacher fid": teacher_fid, "ratio": ratio}
    return {"n": n} | {name: [e.value, e.low, e.high] for name, e in found.items()}


def student_quality(model: Student, n: int = 1000) -> Mapping[str, Any]:
    """Returns how well the student reads captions in wordings seen and unseen, in each language.

    For each: how often each attribute is read right ("not named" counts), their mean and how often
    all five are, with 95 % intervals, and the cosine to the teacher's reading of the plain caption.
    """
    vectors = Plain().vectors
    measured: dict[str, Any] = {"n": n}
    for language, wording in product(("en", "zh"), ("seen", "unseen")):
        rng = np.random.default_rng(9)
        rows = scenes.combinations()[rng.integers(len(scenes.combinations()), size=n)]
        said = [captions.caption(r, rng, language=language, wording=wording) for r in rows]  # type: ignore[arg-type]
        told = np.array([[name in c.named for name in scenes.NAMES] for c in said])
        truth = np.where(told, rows + 1, 0)
        made, logits = model.outputs([c.text for c in said])
        right = np.stack([part.argmax(1) for part in logits], 1) == truth
        target = np.stack(
            [vectors[captions.plain(r, c.named)] for r, c in zip(rows, said, strict=True)]
        )
        lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(target, axis=1)
        whole = int(right.all(1).sum())
        measured[f"{language} {wording}"] = {
            **{name: round(float(right[:, i].mean()), 4) for i, name in enumerate(scenes.NAMES)},
            "mean": _mean(right),
            "all": [round(whole / n, 4), *(round(x, 4) for x in metrics.wilson(whole, n))],
            "cosine": round(float(((made * target).sum(1) / lengths).mean()), 4),
        }
    return measured
