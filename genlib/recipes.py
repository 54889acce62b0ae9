"""Recipes of the text-to-image models: what each trains on, with which settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import keras
import numpy as np

from genlib.data import scenes, to_float
from genlib.models.scenes_judge import ScenesJudge, attribute_loss
from genlib.models.tokenizer import Tokenizer, TokenizerConfig, reconstruction_loss

EPOCH = 8192  # images of an epoch; Scenes is endless, so an epoch is what lies between checkpoints
POOL = 8  # epochs of different images; later epochs see these again, in another order


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3  # of AdamW, after warm-up; falls along a half cosine to 2 %
    warmup: int = 200  # steps
    weight_decay: float = 1e-4
    average: float = 0.998  # of the weights, exponential; what is exported


class FitTask:
    """Trains a Keras model on arrays that are drawn batch by batch.

    The draws follow from seed, epoch and step alone, so a run that was stopped goes on exactly.

    Args:
        model: to train; called on `x`, its result compared with `y`.
        loss: what `model.compile` takes.
        recipe: settings.
        seed: of the order and of whatever a subclass draws.
    """

    name = "model"

    def __init__(self, model: keras.Model, loss: Any, recipe: Recipe, seed: int) -> None:
        self.model, self.recipe, self.seed = model, recipe, seed
        self.images_per_step = recipe.batch_size
        self.steps_per_epoch = EPOCH // recipe.batch_size
        steps = recipe.epochs * self.steps_per_epoch
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            max(steps - recipe.warmup, 1),
            alpha=0.02,
            warmup_target=recipe.learning_rate,
            warmup_steps=recipe.warmup,
        )
        optimizer = keras.optimizers.AdamW(
            rate,
            weight_decay=recipe.weight_decay,
            clipnorm=1.0,
            use_ema=True,
            ema_momentum=recipe.average,
        )
        model.compile(optimizer=optimizer, loss=loss)
        optimizer.build(model.trainable_variables)

    def variables(self) -> dict[str, Any]:
        """Returns everything that training changes, by a name that does not depend on Keras."""
        parts = {"model": self.model, "optimizer": self.model.optimizer}
        return {
            f"{part}/{index:03d}": variable
            for part, owner in parts.items()
            for index, variable in enumerate(owner.variables)
        }

    def describe(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data."""
        return {
            "recipe": self.name,
            "config": self.config(),
            "training": asdict(self.recipe),
            "seed": self.seed,
            "data": "Scenes",
        }

    def config(self) -> dict[str, Any]:
        """Returns the settings of the model."""
        return asdict(self.model.config)

    def batch(self, epoch: int, step: int) -> tuple[Any, Any]:
        """Returns inputs and targets of one step."""
        raise NotImplementedError

    def epoch(self, epoch: int) -> Iterator[Mapping[str, Any]]:
        """Takes the steps of one epoch."""
        for step in range(self.steps_per_epoch):
            x, y = self.batch(epoch, step)
            logs = self.model.train_on_batch(x, y, return_dict=True)
            yield {"loss": logs["loss"]}

    def averaged(self) -> keras.Model:
        """Returns the model with the averaged weights in place."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        return self.model


@cache
def _pool(part: int, seed: int, split: scenes.Split = "train") -> scenes.Scenes:
    size = EPOCH if split == "train" else EPOCH // 8
    return scenes.scenes(size, seed, split, start=part * size)


def _drawn(epoch: int, step: int, size: int, seed: int) -> tuple[scenes.Scenes, np.ndarray]:
    """Returns one epoch's part of the pool, and which of its scenes make up a batch."""
    order = np.random.default_rng((seed, epoch)).permutation(EPOCH)
    return _pool(epoch % POOL, seed), order[step * size :][:size]


class TokenizerTask(FitTask):
    """Trains the tokenizer to give images back."""

    name = "tokenizer"

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: TokenizerConfig | None = None,
        seed: int = 0,
    ) -> None:
        recipe = recipe or Recipe(epochs=24, batch_size=32)
        super().__init__(Tokenizer(config, seed), reconstruction_loss, recipe, seed)

    def batch(self, epoch: int, step: int) -> tuple[Any, Any]:
        """Returns a batch of images, twice."""
        drawn, chosen = _drawn(epoch, step, self.recipe.batch_size, self.seed)
        images = to_float(drawn.images[chosen])
        return images, images

    def sample(self) -> np.ndarray:
        """Returns 32 validation images, each beside its reconstruction."""
        images = scenes.scenes(32, split="validation").images
        again = self.model.decode(self.model.encode(images))
        return np.stack([images, again], 1).reshape(-1, *images.shape[1:])


class ScenesJudgeTask(FitTask):
    """Trains the judge of Scenes on every combination, held-out ones too: it must know them all.

    Half of the images are shaken: shifted brightness and noise, so that a slightly wrong colour
    is no other time of day.
    """

    name = "scenes-judge"

    def __init__(self, recipe: Recipe | None = None, seed: int = 0) -> None:
        recipe = recipe or Recipe(epochs=16, batch_size=64)
        super().__init__(ScenesJudge(seed=seed), attribute_loss, recipe, seed)

    def batch(self, epoch: int, step: int) -> tuple[Any, Any]:
        """Returns images and attributes; one scene in eight is of a held-out combination."""
        size, split = self.recipe.batch_size, "held-out" if step % 8 == 7 else "train"
        order = np.random.default_rng((self.seed, epoch)).permutation(EPOCH)
        rng = np.random.default_rng((self.seed, epoch, step))
        drawn = _pool(epoch % POOL, self.seed, split)
        chosen = order[step * size :][:size] % len(drawn)
        images = to_float(drawn.images[chosen])
        shaken = rng.random((size, 1, 1, 1)) < 0.5
        noise = rng.normal(0, 0.04, images.shape) + rng.normal(0, 0.06, (size, 1, 1, 3))
        return (images + shaken * noise).astype(np.float32), drawn.attributes[chosen]

    def sample(self) -> np.ndarray:
        """Returns the first 64 images that it judges."""
        return scenes.scenes(64, split="validation").images
