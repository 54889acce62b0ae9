"""What judging and choosing buys: best of n, and training on what the critic kept.

Best of n draws more for each image; training on kept images pays once. The critic chooses, the
judge measures, and every figure is for the same descriptions. A third model trains just as long
without any kept image: what it gains is not the critic's doing.

    python benchmarks/improve.py        # an hour on one core; writes genlib/records/improve.json
"""

from __future__ import annotations

import argparse

import numpy as np

from genlib import metrics, pipeline, records, text, train, weights
from genlib.train import rejection, tasks
from genlib.data import captions, scenes
from genlib.models.judges import REWARD_MODEL
from genlib.pretrained import load_scenes_judge
from genlib.pretrained import load_tokenizer

DRAWS = (1, 2, 4)
SPLITS = ("validation", "held-out")


def share(right: np.ndarray) -> list[float]:
    """Returns a share with its 95 % interval."""
    low, high = metrics.wilson(int(right.sum()), len(right))
    return [round(float(x), 4) for x in (right.mean(), low, high)]


def gain(before: np.ndarray, after: np.ndarray) -> list[float]:
    """Returns how much more is right after, for the same descriptions, with its 95 % interval."""
    more = after.astype(float) - before
    half = 1.96 * more.std(ddof=1) / np.sqrt(len(more))
    return [round(float(x), 4) for x in (more.mean(), more.mean() - half, more.mean() + half)]


def main(method: str, prompts: int, chosen: int, collected: int, epochs: int) -> None:
    """Measures one method."""
    judge, critic, tokenizer = load_scenes_judge(), load_scenes_judge(REWARD_MODEL), load_tokenizer()
    options = dict(pipeline.METHODS[method].options)

    def sampler(model: object) -> improve.Sample:
        def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
            parts = np.array_split(embedded, -(-len(embedded) // 128))
            return np.concatenate(
                [model.sample(part, seed + 1000 * i, **options) for i, part in enumerate(parts)]
            )

        return sample

    def right(model: object, wanted: np.ndarray) -> np.ndarray:
        embedded = text.encode([captions.full(row) for row in wanted])
        images = tokenizer.decode(sampler(model)(embedded, 100))
        return (judge.attributes(images) == wanted).all(1)

    result: dict[str, object] = {"method": method, "options": options, "prompts": prompts}
    sample = sampler(pipeline.load(method))
    wanted = {split: scenes.scenes(prompts, 21, split).attributes for split in SPLITS}
    before = {split: right(pipeline.load(method), rows) for split, rows in wanted.items()}
    for split in SPLITS:
        best = {}
        for n in DRAWS:
            _, images, _ = improve.best_of(
                n, sample, tokenizer, critic, wanted[split][:chosen], seed=100
            )
            best[n] = (judge.attributes(images) == wanted[split][:chosen]).all(1)
        result[f"best of n, {split}"] = {n: share(hits) for n, hits in best.items()}
        result[f"gain of best of {DRAWS[-1]}, {split}"] = gain(best[1], best[DRAWS[-1]])
        print(split, result[f"best of n, {split}"], flush=True)

    kept = improve.collect(collected, sample, tokenizer, critic, tries=2, seed=5)
    result["kept"] = [len(kept.latents), collected]
    print("kept", result["kept"], flush=True)
    arrays, card = weights.load(method)
    for name in ("trained on kept", "trained on Scenes alone"):
        training = card["training"] | {"epochs": epochs, "learning_rate": 2e-4, "warmup": 20}
        task = base = recipes.TASKS[method].of(card | {"training": training})
        weights.assign(base.model, arrays)
        if name == "trained on kept":
            task = improve.RejectionTask(base, kept, base.recipe)
        train.run(task, epochs, progress=False)
        model = task.averaged()
        for split in SPLITS:
            after = right(model, wanted[split])
            result[f"before, {split}"] = share(before[split])
            result[f"{name}, {split}"] = share(after)
            result[f"gain of {name}, {split}"] = gain(before[split], after)
            print(name, split, share(before[split]), gain(before[split], after), flush=True)
    records.save("improve", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default=pipeline.DEFAULT, choices=tuple(pipeline.METHODS))
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--chosen", type=int, default=256, help="descriptions for best of n")
    parser.add_argument("--collected", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    main(**vars(arguments))
