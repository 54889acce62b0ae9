"""What judging and choosing buys: best of n, and training on what the reward model kept.

Best of n draws more for each image; training on kept images pays once. The reward model chooses,
the judge measures, and every figure is for the same descriptions. A third model trains just as
long without any kept image: what it gains is not the reward model's doing.

All of it without guidance: one forward a step, half the work, and more to improve. Guided images of
the same descriptions are counted beside.

    python benchmarks/improve.py   # half an hour on one core; writes genlib/records/improve.json
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import numpy as np
import typer

from genlib import metrics, pipeline, pretrained, records, text, train, weights
from genlib.data import captions, scenes
from genlib.models.judges import REWARD_MODEL
from genlib.models.sampling import Seed
from genlib.train import registry, rejection
from genlib.train.tasks import GeneratorTask

METHODS = tuple(m for m in pretrained.METHODS if issubclass(registry.find(m), GeneratorTask))
BATCH = 128  # images at once
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


class Bench:
    """A method, the networks that look at its images, and descriptions to draw.

    Args:
        method: one of `METHODS`.
        prompts: descriptions of each split.
        guidance: of all but the guided images beside.
    """

    def __init__(self, method: str, prompts: int, guidance: float) -> None:
        self.method, self.options = method, pretrained.METHODS[method].options
        self.guidance = guidance
        self.judge = pretrained.load_scenes_judge()
        self.reward_model = pretrained.load_scenes_judge(REWARD_MODEL)
        self.tokenizer = pretrained.load_tokenizer()
        self.wanted = {split: scenes.scenes(prompts, 21, split).attributes for split in SPLITS}

    def sampler(self, model: Any, **changed: Any) -> pipeline.Sample:
        """Returns what draws with a model, in batches."""

        def sample(embedded: np.ndarray, seed: Seed) -> np.ndarray:
            turn = seed if isinstance(seed, tuple) else (seed, 0)
            parts = np.array_split(embedded, -(-len(embedded) // BATCH))
            how = {**self.options, "guidance": self.guidance, **changed}
            drawn = [model.sample(part, (*turn, i), **how) for i, part in enumerate(parts)]
            return np.concatenate(drawn)

        return sample

    def right(self, model: Any, split: str, **changed: Any) -> np.ndarray:
        """Returns which descriptions a model draws with all attributes right."""
        embedded = text.encode([captions.full(row) for row in self.wanted[split]])
        images = self.tokenizer.decode(self.sampler(model, **changed)(embedded, 100))
        return (self.judge.attributes(images) == self.wanted[split]).all(1)

    def choose(self, few: int) -> dict[str, Any]:
        """Measures best of n on the first few descriptions, and guidance on all."""
        model, strength = pretrained.load(self.method), self.options["guidance"]
        result: dict[str, Any] = {"guidance": strength}
        for split in SPLITS:
            before = self.right(model, split)
            led = self.right(model, split, guidance=strength)
            result[f"before, {split}"] = share(before)
            result[f"guided, {split}"] = share(led)
            result[f"gain of guidance, {split}"] = gain(before, led)
            asked, best = self.wanted[split][:few], {}
            for n in DRAWS:
                _, images, _ = pipeline.best_of(
                    n, self.sampler(model), self.tokenizer, self.reward_model, asked, seed=100
                )
                best[n] = (self.judge.attributes(images) == asked).all(1)
            result[f"best of n, {split}"] = {n: share(hits) for n, hits in best.items()}
            result[f"gain of best of {DRAWS[-1]}, {split}"] = gain(best[1], best[DRAWS[-1]])
            print(split, result[f"best of n, {split}"], flush=True)
        return result

    def train_further(self, collected: int, epochs: int) -> dict[str, Any]:
        """Trains on what the reward model kept, and as long without it, and measures both."""
        model = pretrained.load(self.method)
        kept = rejection.collect(
            collected, self.sampler(model), self.tokenizer, self.reward_model, tries=2, seed=5
        )
        result: dict[str, Any] = {"kept": [len(kept.latents), collected]}
        print("kept", result["kept"], flush=True)
        arrays, card = weights.load(pretrained.METHODS[self.method].weights)
        kind: Any = registry.find(self.method)
        # Weights are averaged over a hundred steps: these runs are short.
        training = replace(kind.recipe, epochs=epochs, learning_rate=2e-4, warmup=20, average=0.99)
        before = {split: self.right(model, split) for split in SPLITS}
        for name in ("trained on kept", "trained on Scenes alone"):
            base = kind.of(card | {"training": asdict(training)})
            weights.assign(base.model, arrays)
            own = name == "trained on kept"
            task = rejection.RejectionTask(base, kept, base.recipe) if own else base
            train.run(task, epochs, progress=False)
            for split in SPLITS:
                with task.trained() as trained:
                    after = self.right(trained, split)
                result[f"{name}, {split}"] = share(after)
                result[f"gain of {name}, {split}"] = gain(before[split], after)
                print(name, split, share(after), gain(before[split], after), flush=True)
        return result


def main(
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "flow",
    prompts: Annotated[int, typer.Option(min=2, help="Of each split.")] = 512,
    chosen: Annotated[int, typer.Option(min=2, help="Descriptions for best of n.")] = 256,
    collected: Annotated[int, typer.Option(min=1, help="Descriptions to keep images of.")] = 1024,
    epochs: Annotated[int, typer.Option(min=1, help="Of training further.")] = 2,
    guidance: Annotated[
        float, typer.Option(min=1, help="Of all but the guided images beside.")
    ] = 1.0,
) -> None:
    """Measures, and writes genlib/records/improve.json."""
    if method not in METHODS:
        raise typer.BadParameter(f"No method {method!r}. Choose one of {METHODS}.")
    bench = Bench(method, prompts, guidance)
    options = {**bench.options, "guidance": guidance}
    result = {"method": method, "options": options, "prompts": prompts}
    records.save("improve", result | bench.choose(chosen) | bench.train_further(collected, epochs))


if __name__ == "__main__":
    typer.run(main)
