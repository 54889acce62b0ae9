"""Healing: a pruned generator learns to draw what its teacher draws.

Teacher and student get the same latents, so the student knows for each latent the image that it
should draw. The distance of pixels alone would teach it to leave out the details that it cannot
place exactly; a discriminator, which is new and learns beside it, sees to it that its images look
like its teacher's and like real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from genlib import backend, pretrained, ranges, weights
from genlib.data import fashion_mnist
from genlib.data.images import fingerprint, to_float, to_uint8
from genlib.models import gan
from genlib.speed import prune

RECIPE = "gan-small"
TEACHER = "gan-conv-fashion"
LATENTS = 32_768  # with their teacher's images; a longer training sees them again


@dataclass(frozen=True)
class HealConfig:
    """How a narrow generator is healed."""

    groups: tuple[int, ...] = (4, 4, 2)  # that each grid keeps, of eight
    pixels: float = 40.0  # weight of the mean absolute difference of pixels in [-1, 1]
    adversary: float = 1.0  # weight of the discriminator's loss; 0 trains no discriminator
    batch_size: int = 64
    learning_rate: float = 5e-4  # of the student's Adam; falls along a half cosine to a tenth
    rival_rate: float = 2e-4  # of the discriminator's Adam, falls alike; a faster one wins
    beta_1: float = 0.5
    average: float = 0.998  # of the weights, exponential; what is exported
    steps: int = 4096  # over which the learning rate falls


class HealTask:
    """Trains a narrow generator on its teacher's images, for `genlib.train.run`.

    Args:
        images: real ones for the discriminator, uint8 `(n, 28, 28, 1)`; half of what it should
            take for real are the teacher's.
        config: settings.
        seed: of latents, order and discriminator.
        teacher: the unpruned convolutional generator; the shipped one unless given.
        data_label: what the images are, for the run's record.
        latents: in an epoch, all different.

    Raises:
        ValueError: if images or latents do not fill a batch.

    Reference: Hinton et al., 2015, arXiv:1503.02531 (a student learns its teacher's answers);
    Aguinaldo et al., 2019, arXiv:1902.00159 (that for generators, by pixels and by an adversary).
    """

    epochs = 8  # of the shipped weights

    def __init__(
        self,
        images: np.ndarray,
        config: HealConfig | None = None,
        *,
        seed: int = 0,
        teacher: keras.Model | None = None,
        data_label: str = "custom",
        latents: int = LATENTS,
    ) -> None:
        self.config = c = config or HealConfig()
        if min(len(images), latents) < c.batch_size:
            raise ValueError(
                f"{len(images)} images and {latents} latents do not fill a batch of "
                f"{c.batch_size}. Give more, or a smaller batch_size."
            )
        ranges.check("seed", seed, of="training seed")
        self.images, self.seed, self.data_label, self.latents = images, seed, data_label, latents
        self.teacher = pretrained.load_generator(TEACHER)[0] if teacher is None else teacher
        kept = prune.choose_channels(prune.channel_importance(self.teacher), c.groups)
        self.student = prune.narrow(self.teacher, kept)
        self.average = keras.models.clone_model(self.student)
        self.average.set_weights(self.student.get_weights())
        self.discriminator = gan.build_discriminator("conv", seed)
        self.optimizers = {}
        for name, start in (("student", c.learning_rate), ("discriminator", c.rival_rate)):
            rate = keras.optimizers.schedules.CosineDecay(start, c.steps, alpha=0.1)
            self.optimizers[name] = keras.optimizers.Adam(rate, beta_1=c.beta_1)
            self.optimizers[name].build(getattr(self, name).trainable_variables)
        self.images_per_step, self.steps_per_epoch = c.batch_size, latents // c.batch_size
        self._step = backend.compile_step(self._train_step, list(self.variables().values()))
        self._taught: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, card: Mapping[str, Any], source: str | None = None) -> Self:
        """Makes the task that a run's description or a card tells of."""
        data, config = fashion_mnist(source), weights.settings(HealConfig, card["config"])
        return cls(data.train_images, config, seed=card["seed"], data_label=data.label())

    def card(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data."""
        return {
            "recipe": RECIPE,
            "config": {**asdict(self.config), "groups": list(self.config.groups)},
            "seed": self.seed,
            "teacher": TEACHER,
            "teacher fingerprint": weights.fingerprint(self.teacher),
            "data": f"{self.data_label}, {len(self.images)} images; {self.latents} latents",
            "data fingerprint": fingerprint(self.images),
        }

    def variables(self) -> dict[str, Any]:
        """Returns everything that training changes, by a name that does not depend on Keras."""
        parts = {
            "student": self.student,
            "average": self.average,
            "discriminator": self.discriminator,
            **{f"{name}_optimizer": found for name, found in self.optimizers.items()},
        }
        return backend.named_variables(parts)

    def prepare(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns all latents and their teacher's images, uint8, which are drawn once."""
        if self._taught is None:
            latents, size = gan.GAN.latents(self.latents, seed=(self.seed, 0)), self.images_per_step
            draw = backend.compile_call(self.teacher, self.teacher.variables)
            parts = [draw(latents[i : i + size]) for i in range(0, self.latents, size)]
            self._taught = latents, to_uint8(np.concatenate(backend.to_numpy(parts)))
        return self._taught

    def epoch(
        self, epoch: int, prepared: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        """Takes one step for each batch of latents, in a new order."""
        latents, taught = prepared
        size, rng = self.images_per_step, np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.latents)
        for step in range(self.steps_per_epoch):
            chosen = order[step * size :][:size]
            real = rng.integers(len(self.images), size=size // 2)
            yield self._step(latents[chosen], to_float(taught[chosen]), to_float(self.images[real]))

    def _train_step(self, z: Any, taught: Any, real: Any) -> dict[str, Any]:
        """Takes one step on the student and one on the discriminator; returns their losses."""
        c, n = self.config, self.images_per_step
        drawn, pull_student = backend.vjp(self.student, ops.convert_to_tensor(z))
        difference = drawn - taught
        losses = {"pixels": ops.mean(ops.abs(difference))}
        towards = c.pixels * ops.sign(difference) / float(n * np.prod(gan.IMAGE_SHAPE))
        if c.adversary:
            wanted = ops.concatenate([real, taught[n // 2 :]])  # both kinds pass for real
            logits, pull = backend.vjp(self.discriminator, ops.concatenate([wanted, drawn]))
            losses["generator"] = gan.generator_loss(logits[n:])
            losses["discriminator"] = gan.discriminator_loss(logits[:n], logits[n:])
            # One pass for both networks, as in `gan.one_stage_gradients`.
            up = ops.concatenate([-ops.sigmoid(-logits[:n]), ops.sigmoid(logits[n:])]) / n
            gradients, d_images = pull(up)
            factor = ops.reshape(-ops.exp(-logits[n:]), (n, 1, 1, 1))
            towards = towards + c.adversary * factor * d_images[n:]
            self.optimizers["discriminator"].apply(
                gradients, self.discriminator.trainable_variables
            )
        gradients, _ = pull_student(towards)
        self.optimizers["student"].apply(gradients, self.student.trainable_variables)
        pairs = zip(self.average.variables, self.student.variables, strict=True)
        for mean, value in pairs:
            mean.assign(c.average * mean + (1 - c.average) * value)
        return losses

    def sample(self) -> np.ndarray:
        """Returns 64 images of 32 latents: four rows of the teacher's, four of the student's."""
        drawn = [gan.sample(model, 32, self.seed + 1) for model in (self.teacher, self.average)]
        return np.concatenate(drawn)

    @contextmanager
    def trained(self) -> Iterator[keras.Model]:
        """Lends the averaged student."""
        yield self.average
