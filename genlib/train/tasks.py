"""Tasks: what the tokenizer and the text-to-image models train on, with which settings.

`FitTask` trains any Keras model on arrays: a subclass names the model, its recipe and its loss, and
prepares the arrays of an epoch. `GeneratorTask` does so for models that draw from a text, and a
class of two methods for each such model. `FashionTask` is for models of Fashion-MNIST, whose tasks
are in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from genlib import backend, ranges, text, weights
from genlib.data import FashionMNIST, captions, fashion_mnist, scenes, to_float
from genlib.data.images import fingerprint
from genlib.models import coarse_to_fine, flow
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.judges import PERCEPTUAL_NETWORK, ScenesJudge
from genlib.models.letters import spell
from genlib.models.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    latents_to_codes,
    reconstruction_loss,
)
from genlib.pretrained import load_scenes_judge, load_tokenizer

EPOCH = 8192  # images of an epoch; Scenes is endless, so an epoch is what lies between checkpoints
PARTS = 16  # epochs of different latents; later epochs see these again, in another order
NO_TEXT = 0.1  # share of captions that are hidden: guidance needs a model that draws without a text
MIXED = 0.15  # share of a run, at its end, in which only half as many captions are full
PERCEPTUAL = 0.025  # weight of the perceptual loss, beside that of pixels

Arrays = Any  # a nest of arrays whose first axis counts the images of an epoch


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3  # of AdamW, after warm-up
    warmup: int = 200  # steps
    weight_decay: float = 1e-4
    average: float | None = 0.998  # of the weights, exponential, for export; None: the last ones
    final: float = 0.02  # share of the learning rate that is left at the end
    fall: float = 1.0  # share of the run, at its end, in which the rate falls (a half cosine)
    full: float = 0.0  # share of captions that are full, naming all five attributes; see `MIXED`


@keras.saving.register_keras_serializable("genlib")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises in a line, stays, and falls along a half cosine.

    Args:
        recipe: with `learning_rate`, `warmup`, `fall` and `final`.
        steps: of the run.

    Reference: Hägele et al., 2024, arXiv:2405.18392 (a constant rate, then a cooldown).
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self.recipe, self.steps = recipe, steps

    def __call__(self, step: Any) -> Any:
        """Returns the rate of a step, counted from 0."""
        r, step = self.recipe, ops.cast(step, "float32")
        steps = ops.cast(self.steps, "float32")
        length = ops.maximum(r.fall * (steps - r.warmup), 1.0)
        done = ops.clip((step - (steps - length)) / length, 0.0, 1.0)
        falling = r.final + (1 - r.final) * 0.5 * (1 + ops.cos(np.pi * done))
        return r.learning_rate * ops.minimum((step + 1) / max(1, r.warmup), 1.0) * falling


class FitTask:
    """Trains a Keras model on arrays that are prepared epoch by epoch.

    A subclass says what is trained by its class attributes, and writes `prepare`, `loss` and
    `sample`. Everything drawn follows from seed, epoch and step alone, so a run that was stopped
    goes on exactly.

    Attributes:
        name: of the recipe.
        model_class: makes the model of a configuration and a seed.
        config_class: a dataclass, whose defaults are the shipped model's.
        recipe: settings of the training, unless others are given.
        seed: unless another is given.

    Args:
        recipe: settings of the training; the subclass's own unless given.
        config: settings of the model; its defaults unless given.
        seed: of weights, order and whatever is drawn; the subclass's own unless given.
    """

    name: ClassVar[str]
    model_class: ClassVar[Callable[..., Any]]
    config_class: ClassVar[Any]
    recipe: Recipe
    seed: int = 0

    def __init__(
        self, recipe: Recipe | None = None, config: Any = None, seed: int | None = None
    ) -> None:
        self.recipe = recipe or self.recipe
        self.seed = self.seed if seed is None else seed
        ranges.check("seed", self.seed, of="training seed")
        count = backend.processes()[1]
        if self.recipe.batch_size % count:
            raise ValueError(
                f"A batch of {self.recipe.batch_size} images cannot be shared by {count} processes "
                "in equal parts. Give a number of --processes that divides it."
            )
        with backend.replicated():
            self._begin(self.model_class(config or self.config_class(), self.seed))

    def _begin(self, model: keras.Model) -> None:
        """Sets up the optimiser and the compiled step of a model."""
        self.model = model
        self.images_per_step = self.recipe.batch_size
        self.steps_per_epoch = self.images_per_epoch() // self.recipe.batch_size
        average = self.recipe.average
        self.optimizer = keras.optimizers.AdamW(
            LearningRate(self.recipe, self.recipe.epochs * self.steps_per_epoch),
            weight_decay=self.recipe.weight_decay,
            clipnorm=1.0,
            use_ema=average is not None,
            ema_momentum=average or 0.0,
        )
        self.optimizer.build(model.trainable_variables)
        self._step = backend.compile_step(self.step, list(self.variables().values()))

    @classmethod
    def of(cls, card: Mapping[str, Any], source: str | None = None) -> Self:
        """Makes the task that a run's description or a card tells of."""
        config: Any = weights.settings(cls.config_class, card["config"])
        return cls(Recipe(**card["training"]), config, card["seed"])

    def images_per_epoch(self) -> int:
        """Returns how many images lie between two checkpoints."""
        return EPOCH

    def variables(self) -> dict[str, Any]:
        """Returns everything that training changes, by a name that does not depend on Keras."""
        parts = {"model": self.model, "optimizer": self.optimizer}
        return backend.named_variables(parts, digits=3)

    def card(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data."""
        return {
            "recipe": self.name,
            "config": asdict(self.model.config),
            "training": asdict(self.recipe),
            "seed": self.seed,
            "data": "Scenes",
        }

    def prepare(self, epoch: int) -> Arrays:
        """Returns what one epoch is made of, arrays in any order: `epoch` shuffles them."""
        raise NotImplementedError

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the loss, a scalar, of what the model made of a batch's inputs."""
        raise NotImplementedError

    def sample(self) -> np.ndarray:
        """Returns images to look at, uint8 `(n, height, width, channels)`: always the same."""
        raise NotImplementedError

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns inputs and targets of one step; the chosen arrays themselves unless overridden.

        Args:
            prepared: what `prepare` returned.
            chosen: which of its images, int `(batch_size,)`.
            rng: for what is drawn anew in each step.
        """
        return keras.tree.map_structure(lambda array: array[chosen], prepared)

    def epoch(self, epoch: int, prepared: Arrays) -> Iterator[dict[str, Any]]:
        """Takes the steps of one epoch; the order follows from seed and epoch."""
        size = self.recipe.batch_size
        rng = np.random.default_rng((self.seed, epoch, 0, 3))
        order = rng.permutation(self.images_per_epoch())
        for step in range(self.steps_per_epoch):
            rng = np.random.default_rng((self.seed, epoch, step))
            batch = self.batch(prepared, order[step * size :][:size], rng)
            yield {"loss": self._step(*backend.spread(batch))}

    def step(self, x: Any, y: Any) -> Any:
        """Takes one step of the optimiser on a batch; returns the loss before it."""
        x, y = keras.tree.map_structure(ops.convert_to_tensor, (x, y))
        model = self.model
        loss, gradients = backend.gradients(
            lambda: self.loss(y, model(x, training=True)),
            model.trainable_variables,
            model.non_trainable_variables,
        )
        self.optimizer.apply(gradients, model.trainable_variables)
        return loss

    @contextmanager
    def trained(self) -> Iterator[keras.Model]:
        """Lends the model with the averaged weights in place; afterwards it trains on."""
        kept = [backend.to_numpy(v.value) for v in self.model.trainable_variables]
        if self.recipe.average is not None:
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
        try:
            yield self.model
        finally:
            for variable, value in zip(self.model.trainable_variables, kept, strict=True):
                variable.assign(value)


class TokenizerTask(FitTask):
    """Trains the tokenizer to give images back, plain and as the perceptual network sees them.

    Args:
        recipe: settings of the training.
        config: levels and widths.
        seed: of weights and order.
        perceptual: whose first layers compare images; the shipped network unless given.

    Reference: Johnson et al., 2016, arXiv:1603.08155 (perceptual losses).
    """

    name, model_class, config_class = "tokenizer", Tokenizer, TokenizerConfig
    recipe = Recipe(epochs=32, batch_size=16, average=0.999)

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: TokenizerConfig | None = None,
        seed: int | None = None,
        perceptual: ScenesJudge | None = None,
    ) -> None:
        self.perceptual = perceptual or load_scenes_judge(PERCEPTUAL_NETWORK)
        super().__init__(recipe, config, seed)

    def card(self) -> dict[str, Any]:
        """Returns also which network compares the images."""
        return {**super().card(), "perceptual fingerprint": weights.fingerprint(self.perceptual)}

    def prepare(self, epoch: int) -> Arrays:
        """Returns an epoch's images, uint8, which no other epoch has."""
        return scenes.scenes(EPOCH, self.seed, start=epoch * EPOCH).images

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns a batch of images, twice."""
        images = to_float(prepared[chosen])
        return images, images

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the difference of pixels, and of what the perceptual network sees in them."""
        return reconstruction_loss(targets, made) + PERCEPTUAL * self.perceptual.perceptual_loss(
            targets, made
        )

    def sample(self) -> np.ndarray:
        """Returns 32 validation images, each beside its reconstruction."""
        images = scenes.scenes(32, split="validation").images
        with self.trained() as model:
            again = model.decode(model.encode(images))
        return np.stack([images, again], 1).reshape(-1, *images.shape[1:])


def full_share(recipe: Recipe, epoch: int) -> float:
    """Returns the share of full captions in an epoch of a recipe: at its end, only half as many."""
    return recipe.full * (0.5 if epoch >= (1 - MIXED) * recipe.epochs else 1.0)


class GeneratorTask(FitTask):
    """Trains a text-to-image model on the latents that the tokenizer makes of Scenes.

    A scene keeps its latents, but gets a new caption in every epoch.

    Args:
        recipe: settings of the training.
        config: settings of the model.
        seed: of weights, order, captions and draws.
        tokenizer: that makes the latents; the shipped one unless given.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: Any = None,
        seed: int | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.tokenizer = tokenizer or load_tokenizer()
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # at most PARTS of them
        super().__init__(recipe, config, seed)

    def card(self) -> dict[str, Any]:
        """Returns also which tokenizer the model learns to talk to."""
        return {**super().card(), "tokenizer": self.tokenizer.fingerprint()}

    def drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns latents, float32, and attributes of an epoch's scenes; images are not kept."""
        part = epoch % PARTS
        if part not in self._drawn:
            made = scenes.scenes(EPOCH, self.seed, start=part * EPOCH)
            self._drawn[part] = self.tokenizer.latents(made.images), made.attributes
        return self._drawn[part]

    def say(self, epoch: int, attributes: np.ndarray) -> list[str]:
        """Returns a new caption for each scene; the share `full_share` of them are full ones."""
        rng = np.random.default_rng((self.seed, epoch, 0, 1))  # apart from those of the steps
        full = rng.random(len(attributes)) < full_share(self.recipe, epoch)
        return [
            captions.full(row) if whole else captions.caption(row, rng).text
            for row, whole in zip(attributes, full, strict=True)
        ]

    def prepare(self, epoch: int) -> Arrays:
        """Returns latents, and the embeddings of fresh captions, some of them hidden."""
        latents, attributes = self.drawn(epoch)
        said = self.say(epoch, attributes)
        different = sorted(set(said))  # a full caption comes many times, and is read once
        vectors = dict(zip(different, text.encode(different), strict=True))
        embedded = np.stack([vectors[caption] for caption in said])
        rng = np.random.default_rng((self.seed, epoch, 0, 2))
        embedded[rng.random(len(said)) < NO_TEXT] = 0
        return {"text": embedded, "latents": latents}

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns the model's inputs besides the text, by name, and its targets.

        Args:
            latents: float32 `(batch_size, 16, 16, channels)`.
            rng: for what is drawn anew in each step.
        """
        raise NotImplementedError

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns latents in the model's form, with the embeddings of their captions."""
        x, y = self.inputs(prepared["latents"][chosen], rng)
        return {"text": prepared["text"][chosen], **x}, y

    def sample(self) -> np.ndarray:
        """Returns 64 images, eight for each of eight full captions."""
        rows = scenes.scenes(8, seed=1, split="validation").attributes
        said = text.encode([captions.full(row) for row in rows])
        with self.trained() as model:
            return self.tokenizer.decode(model.sample(np.repeat(said, 8, axis=0), self.seed))


class ImageGPTTask(GeneratorTask):
    """Trains image GPT to say how likely each token is after those before it."""

    name = "image-gpt"
    model_class: ClassVar[Callable[..., Any]] = ImageGPT
    config_class: ClassVar[Any] = ImageGPTConfig
    recipe = Recipe(
        epochs=24, batch_size=32, learning_rate=1.5e-3, average=0.9995, fall=0.2, full=0.9
    )

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns tokens, int32 `(batch_size, 64, 8)`, twice."""
        codes = latents_to_codes(latents, self.tokenizer.config.levels)
        tokens = spell(codes, self.model.config.alphabet)
        return {"tokens": tokens}, tokens

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the mean of minus the log-probabilities of the tokens, in nats."""
        return -ops.mean(made)


class CoarseToFineTask(ImageGPTTask):
    """Trains coarse to fine to say how likely each token is after the groups before its own."""

    name, model_class, config_class = "coarse-to-fine", CoarseToFine, CoarseToFineConfig

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns the tokens of all groups, int32 `(batch_size, 85, 8)`, twice."""
        levels = self.tokenizer.config.levels
        tokens = coarse_to_fine.pyramid(latents, levels, self.model.config.alphabet)
        return {"tokens": tokens}, tokens


class FlowTask(GeneratorTask):
    """Trains the flow to say in which direction the latents lie, from any point on the way."""

    name, model_class, config_class = "flow", Flow, FlowConfig
    recipe = Recipe(
        epochs=80, batch_size=32, learning_rate=1e-3, average=0.9995, fall=0.2, full=0.9
    )

    def inputs(self, latents: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Returns points between noise and latents, most of them near the middle, and velocities.

        Reference: Esser et al., 2024, arXiv:2403.03206, section 3.1 (logit-normal times).
        """
        latents = latents / self.model.config.spread
        noise = rng.standard_normal(latents.shape, np.float32)
        time = (1 / (1 + np.exp(-rng.standard_normal(len(latents))))).astype(np.float32)
        return {"x": flow.interpolate(noise, latents, time), "time": time}, latents - noise

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the mean squared error of the velocity."""
        return ops.mean((made - targets) ** 2)


class FashionTask(FitTask):
    """Trains a model on Fashion-MNIST.

    Args:
        data: the images; found, or the packaged subset taken, unless given.
        recipe: settings of the training.
        config: settings of the model.
        seed: of weights and order.

    Raises:
        ValueError: if there are fewer images than one batch.
    """

    def __init__(
        self,
        data: FashionMNIST | None = None,
        recipe: Recipe | None = None,
        config: Any = None,
        seed: int | None = None,
    ) -> None:
        self.data = data or fashion_mnist()
        n, size = len(self.data.train_images), (recipe or self.recipe).batch_size
        if n < size:
            raise ValueError(
                f"{n} images do not fill a batch of {size}. Give more images, or a smaller "
                "batch_size."
            )
        super().__init__(recipe, config, seed)

    @classmethod
    def of(cls, card: Mapping[str, Any], source: str | None = None) -> Self:
        """Makes the task that a run's description or a card tells of."""
        config: Any = weights.settings(cls.config_class, card["config"])
        return cls(fashion_mnist(source), Recipe(**card["training"]), config, card["seed"])

    def images_per_epoch(self) -> int:
        """Returns the number of training images; each epoch leaves out others, if any are over."""
        return len(self.data.train_images)

    def card(self) -> dict[str, Any]:
        """Returns also which images there are."""
        more = {
            "data": f"{self.data.label()}, {self.images_per_epoch()} images",
            "data fingerprint": fingerprint(self.data.train_images),
        }
        return {**super().card(), **more}
