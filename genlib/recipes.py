"""Recipes of the text-to-image models: what each trains on, with which settings."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import bench, checkpoint, text, weights
from genlib.data import captions, scenes, to_float
from genlib.models import coarse_to_fine, flow
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.scenes_judge import (
    EYE,
    JudgeConfig,
    ScenesJudge,
    attribute_loss,
    load_scenes_judge,
)
from genlib.models.speller import spell
from genlib.models.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    latents_to_codes,
    load_tokenizer,
    reconstruction_loss,
)

EPOCH = 8192  # images of an epoch; Scenes is endless, so an epoch is what lies between checkpoints
POOL = 8  # epochs of different images; later epochs see these again, in another order
NO_TEXT = 0.1  # share of captions that are hidden, so that a model also knows images as such


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

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> FitTask:
        """Makes the task that a run's record or a card describes."""
        parameters = typing.get_type_hints(cls.__init__)
        config = typing.get_args(parameters["config"])[0]
        make: Callable[..., FitTask] = cls
        return make(
            recipe=Recipe(**card["training"]),
            config=weights.settings(config, card["config"]),
            seed=card["seed"],
        )

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

    def sample(self) -> np.ndarray:
        """Returns images to look at, uint8 `(n, height, width, channels)`: always the same."""
        raise NotImplementedError

    def epoch(self, epoch: int) -> Iterator[dict[str, Any]]:
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
    """Trains the tokenizer to give images back, as they are and as the eye sees them."""

    name = "tokenizer"

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: TokenizerConfig | None = None,
        seed: int = 0,
        eye: ScenesJudge | None = None,
    ) -> None:
        recipe = recipe or Recipe(epochs=10, batch_size=16)
        super().__init__(Tokenizer(config, seed), tokenizer_loss(eye), recipe, seed)

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


def tokenizer_loss(eye: ScenesJudge | None = None) -> Any:
    """Returns the loss of reconstructions: of pixels, and of what the eye sees in them."""
    eye = eye or load_scenes_judge(EYE)
    eye.trainable = False

    def loss(images: Any, again: Any) -> Any:
        return reconstruction_loss(images, again) + 0.025 * eye.perceptual_loss(images, again)

    return loss


class ScenesJudgeTask(FitTask):
    """Trains the judge of Scenes on every combination, held-out ones too: it must know them all.

    Half of the images are shaken: shifted brightness and noise, so that a slightly wrong colour
    is no other time of day.
    """

    name = "scenes-judge"

    def __init__(
        self, recipe: Recipe | None = None, config: JudgeConfig | None = None, seed: int = 0
    ) -> None:
        recipe = recipe or Recipe(epochs=12, batch_size=64)
        super().__init__(ScenesJudge(config, seed), attribute_loss, recipe, seed)

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


class ScenesEyeTask(ScenesJudgeTask):
    """Trains the eye, a smaller judge of another seed, whose first layers teach the tokenizer."""

    name = "scenes-eye"

    def __init__(
        self, recipe: Recipe | None = None, config: JudgeConfig | None = None, seed: int = 1
    ) -> None:
        recipe = recipe or Recipe(epochs=4, batch_size=64)
        super().__init__(recipe, config or JudgeConfig(width=24, features=64), seed)


class ScenesCriticTask(ScenesJudgeTask):
    """Trains the critic, which chooses among generated images: a judge of another seed."""

    name = "scenes-critic"

    def __init__(
        self, recipe: Recipe | None = None, config: JudgeConfig | None = None, seed: int = 2
    ) -> None:
        super().__init__(recipe, config, seed)


class GeneratorTask(FitTask):
    """Trains a text-to-image model on the latents that the tokenizer makes of Scenes.

    A scene keeps its latents, but gets a new caption in every epoch.

    Args:
        model: takes `"text"` and what `inputs` returns.
        loss: of its result.
        recipe: settings.
        seed: of weights, order, captions and draws.
        tokenizer: that makes the latents; the shipped one unless given.
    """

    def __init__(
        self, model: Any, loss: Any, recipe: Recipe, seed: int, tokenizer: Tokenizer | None
    ) -> None:
        super().__init__(model, loss, recipe, seed)
        self.tokenizer = tokenizer or load_tokenizer()
        self._latents: dict[int, np.ndarray] = {}

    def describe(self) -> dict[str, Any]:
        """Returns also which tokenizer the model learns to talk to."""
        return {**super().describe(), "tokenizer": self.tokenizer.fingerprint()}

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns the model's inputs besides the text, and its targets."""
        raise NotImplementedError

    def batch(self, epoch: int, step: int) -> tuple[Any, Any]:
        """Returns latents in the model's form, with the embeddings of fresh captions."""
        drawn, chosen = _drawn(epoch, step, self.recipe.batch_size, self.seed)
        part = epoch % POOL
        if part not in self._latents:
            self._latents[part] = self.tokenizer.latents(drawn.images)
        rng = np.random.default_rng((self.seed, epoch, step))
        said = [captions.caption(row, rng).text for row in drawn.attributes[chosen]]
        embedded = text.encode(said)
        embedded[rng.random(len(said)) < NO_TEXT] = 0
        x, y = self.inputs(self._latents[part][chosen], rng)
        return {"text": embedded, **x}, y

    def sample(self) -> np.ndarray:
        """Returns 64 images, eight for each of eight full captions."""
        rows = scenes.scenes(8, seed=1, split="validation").attributes
        said = text.encode([captions.full(row) for row in rows])
        return self.tokenizer.decode(self.model.sample(np.repeat(said, 8, axis=0), self.seed))


def token_loss(_: Any, log_probability: Any) -> Any:
    """Returns the mean of minus the logarithms that a model of tokens gives: nats per token."""
    return -ops.mean(log_probability)


class ImageGPTTask(GeneratorTask):
    """Trains image GPT to foretell each token."""

    name = "image-gpt"

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: ImageGPTConfig | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        recipe = recipe or Recipe(epochs=36, batch_size=32, learning_rate=1.5e-3)
        super().__init__(ImageGPT(config, seed), token_loss, recipe, seed, tokenizer)

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns tokens, row by row."""
        codes = latents_to_codes(latents, self.tokenizer.config.levels)
        tokens = spell(codes, self.model.config.alphabet)
        return {"tokens": tokens}, tokens


class CoarseToFineTask(GeneratorTask):
    """Trains coarse to fine to foretell each group of tokens."""

    name = "coarse-to-fine"

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: CoarseToFineConfig | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        recipe = recipe or Recipe(epochs=36, batch_size=32, learning_rate=1.5e-3)
        super().__init__(CoarseToFine(config, seed), token_loss, recipe, seed, tokenizer)

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns the tokens of all groups."""
        levels = self.tokenizer.config.levels
        tokens = coarse_to_fine.pyramid(latents, levels, self.model.config.alphabet)
        return {"tokens": tokens}, tokens


class FlowTask(GeneratorTask):
    """Trains the flow to point from noise to latents."""

    name = "flow"

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: FlowConfig | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        recipe = recipe or Recipe(epochs=36, batch_size=32, learning_rate=1e-3)
        super().__init__(Flow(config, seed), "mse", recipe, seed, tokenizer)

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns points between noise and latents, most of them about half way, and velocities.

        Reference: Esser et al., 2024, arXiv:2403.03206, section 3.1 (logit-normal times).
        """
        latents = latents / self.model.config.spread
        noise = rng.standard_normal(latents.shape, np.float32)
        time = (1 / (1 + np.exp(-rng.standard_normal(len(latents))))).astype(np.float32)
        return {"x": flow.interpolate(noise, latents, time), "time": time}, latents - noise


TASKS: dict[str, type[FitTask]] = {
    task.name: task
    for task in (
        ScenesJudgeTask,
        ScenesEyeTask,
        ScenesCriticTask,
        TokenizerTask,
        ImageGPTTask,
        CoarseToFineTask,
        FlowTask,
    )
}
NAMES = (*TASKS, "text-student", "flow-shortcut", "flow-small", "image-gpt-student")


def find(name: str) -> type[FitTask]:
    """Returns the task of a recipe.

    Raises:
        ValueError: if there is no such recipe.
    """
    if name == "text-student":  # its module builds on this one
        from genlib.text.training import TextStudentTask

        return TextStudentTask
    if name in NAMES and name not in TASKS:  # so does this one
        from genlib.speed import distill

        return distill.TASKS[name]
    if name not in TASKS:
        raise ValueError(f"No recipe {name!r}. Choose one of {NAMES}.")
    return TASKS[name]


def export(
    run: str | Path, path: str | Path, metrics: Callable[[Any], Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Writes a run's averaged weights as float16, with their card.

    Args:
        run: the folder of a run of one of `NAMES`.
        path: of the weights, without ending.
        metrics: measures the model; what it returns becomes part of the card.

    Returns:
        The card.

    Raises:
        FileNotFoundError: if the folder holds no run, or no checkpoint yet.
        RunError: if the run trains something else, or is damaged.
        OSError: if the weights cannot be written.
    """
    folder = Path(run)
    card = checkpoint.read_run(folder, NAMES)
    task = find(card["recipe"]).of(card)
    state = checkpoint.restore_trained(folder, task.variables())
    model = task.averaged()
    weights.assign(model, weights.model_arrays(model, "float16"))  # measure what is written
    card |= {
        "epochs": state.epoch,
        "images": state.epoch * EPOCH,
        "hours": round(state.seconds / 3600, 3),
        "hardware": bench.environment(),
        "metrics": dict(metrics(model)) if metrics else {},
    }
    weights.save(path, weights.model_arrays(model, "float16"), card)
    return card
