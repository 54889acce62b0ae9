"""Generative adversarial networks on 28×28 grey images, and one step of their training.

Two pairs of networks: `mlp` is the article's, of dense layers; `conv` is ours, with convolutions.
Images are float32 in [-1, 1], `(batch, 28, 28, 1)`; latents are standard normal, `(batch, 100)`;
the discriminator returns logits `a`, so that `D(x) = sigmoid(a)` is the probability that `x` is
real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from genlib import backend, ranges
from genlib.data.images import to_uint8

LATENT_DIM = 100
IMAGE_SHAPE = (28, 28, 1)
CHANNELS = (64, 64, 32)  # of the three grids of features: 7×7, 14×14, 28×28
GROUPS = 8  # of each; GroupNormalization takes its mean and variance in one of them

Network = Literal["mlp", "conv"]
StepName = Literal["one-stage", "two-stage"]


@dataclass(frozen=True)
class GANConfig:
    """What defines a GAN's training, apart from data and seed."""

    network: Network = "mlp"
    step: StepName = "one-stage"
    learning_rate: float = 2e-4  # of Adam, both networks
    beta_1: float = 0.5  # of Adam; 0.9 would carry on with gradients of an opponent long gone
    batch_size: int = 128  # images per step
    xla: bool = False  # compile the step with XLA (TensorFlow)


ARTICLE = GANConfig()  # the settings of the article's project


def build_generator(network: Network = "mlp", seed: int = 0) -> keras.Model:
    """Builds a generator: latents `(batch, 100)` → images `(batch, 28, 28, 1)` in [-1, 1].

    Args:
        network: `"mlp"`, the article's 100 → 128 → 256 → 784, or `"conv"`, which grows a 7×7
            grid of features to 28×28 pixels (Radford et al., 2015, arXiv:1511.06434).
        seed: of the initial weights.

    Raises:
        ValueError: if `network` is unknown.

    Example:
        >>> build_generator("mlp")(keras.ops.zeros((2, LATENT_DIM))).shape
        (2, 28, 28, 1)
    """
    dense, conv, transposed_conv = _seeded_layers(seed)
    z = keras.Input((LATENT_DIM,))
    if _check(network) == "mlp":
        h = dense(128, activation="relu")(z)
        h = dense(256, activation="relu")(h)
        x = layers.Reshape(IMAGE_SHAPE)(dense(784, activation="tanh")(h))
    else:
        h = layers.Reshape((7, 7, 64))(dense(7 * 7 * 64)(z))
        for width in (64, 32):  # 7×7 → 14×14 → 28×28
            h = layers.ReLU()(layers.GroupNormalization(8)(h))
            # A kernel of twice the stride covers each pixel equally often: no checkerboard.
            h = transposed_conv(width, 4, strides=2)(h)
        h = layers.ReLU()(layers.GroupNormalization(8)(h))
        x = conv(1, 5, activation="tanh")(h)
    return keras.Model(z, x, name=f"{network}_generator")


def build_narrow(groups: Sequence[int] = (8, 8, 8)) -> keras.Model:
    """Builds the convolutional generator with some of its groups of channels; weights are zero.

    Args:
        groups: how many groups each of the three grids keeps, 1 to 8; a group is 8, 8 and 4
            channels.

    Returns:
        Latents `(batch, 100)` → images `(batch, 28, 28, 1)` in [-1, 1]. Eight groups everywhere
        are the network `models.gan.build_generator("conv")`.

    Raises:
        ValueError: if there are not three counts from 1 to 8.
    """
    if len(groups) != 3 or not all(1 <= g <= GROUPS for g in groups):
        raise ValueError(f"groups = {tuple(groups)}; give three numbers from 1 to {GROUPS}.")
    widths = [g * c // GROUPS for g, c in zip(groups, CHANNELS, strict=True)]
    options: dict[str, Any] = {"padding": "same", "kernel_initializer": "zeros"}
    z = keras.Input((LATENT_DIM,))
    h = layers.Dense(7 * 7 * widths[0], kernel_initializer="zeros")(z)
    h = layers.Reshape((7, 7, widths[0]))(h)
    for count, width in zip(groups[:2], widths[1:], strict=True):
        h = layers.ReLU()(layers.GroupNormalization(count)(h))
        h = layers.Conv2DTranspose(width, 4, strides=2, **options)(h)
    h = layers.ReLU()(layers.GroupNormalization(groups[2])(h))
    x = layers.Conv2D(1, 5, activation="tanh", **options)(h)
    return keras.Model(z, x, name="narrow_generator")


def build_discriminator(network: Network = "mlp", seed: int = 0) -> keras.Model:
    """Builds a discriminator: images `(batch, 28, 28, 1)` → logits `(batch, 1)`.

    It has no batch normalisation: an image's logit must not depend on its neighbours in the
    batch, or the one-stage step would be wrong.

    Args:
        network: `"mlp"`, the article's 784 → 256 → 128 → 1, or `"conv"`, two strided
            convolutions.
        seed: of the initial weights.

    Raises:
        ValueError: if `network` is unknown.
    """
    dense, conv, _ = _seeded_layers(seed + 1)
    x = keras.Input(IMAGE_SHAPE)
    if _check(network) == "mlp":
        h = dense(256, activation="relu")(layers.Flatten()(x))
        h = dense(128, activation="relu")(h)
    else:
        h = x
        for width in (32, 64):  # 28×28 → 14×14 → 7×7
            h = layers.LeakyReLU(0.2)(conv(width, 4, strides=2)(h))
        h = layers.LeakyReLU(0.2)(dense(128)(layers.Flatten()(h)))
    return keras.Model(x, dense(1)(h), name=f"{network}_discriminator")


def _check(network: str) -> str:
    if network not in ("mlp", "conv"):
        raise ValueError(f"Unknown network {network!r}. Choose 'mlp' or 'conv'.")
    return network


def _seeded_layers(seed: int) -> tuple[Callable[..., Any], ...]:
    """Returns Dense, Conv2D and Conv2DTranspose whose weights follow from the seed alone."""
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=64).tolist())

    def seeded(layer: Callable[..., Any], **always: Any) -> Callable[..., Any]:
        def build(*arguments: Any, **options: Any) -> Any:
            start = keras.initializers.GlorotUniform(seed=next(seeds))
            return layer(*arguments, kernel_initializer=start, **always, **options)

        return build

    return (
        seeded(layers.Dense),
        seeded(layers.Conv2D, padding="same"),
        seeded(layers.Conv2DTranspose, padding="same"),
    )


def discriminator_loss(real_logits: Any, fake_logits: Any) -> Any:
    """Returns L_D = mean[-log D(x)] + mean[-log(1 - D(G(z)))]; 2·log 2 when D only guesses.

    Reference: Goodfellow et al., 2014, arXiv:1406.2661, equation 1, with the sign turned.
    """
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def generator_loss(fake_logits: Any) -> Any:
    """Returns the non-saturating L_G = mean[-log D(G(z))]; log 2 when D only guesses.

    Reference: Goodfellow et al., 2014, arXiv:1406.2661, section 3.
    """
    return ops.mean(ops.softplus(-fake_logits))


class Gradients(NamedTuple):
    """One step's gradients, in the order of each network's `trainable_variables`."""

    generator: list[Any]
    discriminator: list[Any]
    generator_loss: Any  # scalar
    discriminator_loss: Any  # scalar


def two_stage_gradients(generator: Any, discriminator: Any, z: Any, real: Any) -> Gradients:
    """Differentiates both losses in turn, as GAN code does by custom.

    The discriminator sees each fake twice: once to learn itself, once to teach the generator.

    Args:
        generator: latents `(batch, 100)` → images.
        discriminator: images → logits `(batch, 1)`.
        z: latents `(batch, 100)`, float32.
        real: images `(batch, 28, 28, 1)`, float32 in [-1, 1].
    """
    n = z.shape[0]
    fake, pull_generator = backend.vjp(generator, z)

    real_logits, pull_real = backend.vjp(discriminator, real)
    fake_logits, pull_fake = backend.vjp(discriminator, fake)
    from_real, _ = pull_real(-ops.sigmoid(-real_logits) / n)  # the derivative of softplus(-a)
    from_fake, _ = pull_fake(ops.sigmoid(fake_logits) / n)  # the derivative of softplus(a)

    fake_logits, pull_again = backend.vjp(discriminator, fake)
    _, d_fake = pull_again(-ops.sigmoid(-fake_logits) / n)
    for_generator, _ = pull_generator(d_fake)

    return Gradients(
        for_generator,
        [a + b for a, b in zip(from_real, from_fake, strict=True)],
        generator_loss(fake_logits),
        discriminator_loss(real_logits, fake_logits),
    )


def one_stage_gradients(generator: Any, discriminator: Any, z: Any, real: Any) -> Gradients:
    """Differentiates both losses in one pass: the discriminator sees each fake once.

    Both losses reach fake `i` through the same logit `a_i`, so their gradients differ by one
    number per image: dL_G/da ÷ dL_D/da = -sigmoid(-a) ÷ sigmoid(a) = -exp(-a).

    Arguments and results are those of `two_stage_gradients`, equal up to rounding while
    `|a| < 80`, where float32 can hold the factor.

    Reference: Shen et al., 2021, arXiv:2103.00430, section 3.2 (asymmetric losses).
    """
    n = z.shape[0]
    fake, pull_generator = backend.vjp(generator, z)
    logits, pull_discriminator = backend.vjp(discriminator, ops.concatenate([real, fake]))
    real_logits, fake_logits = logits[:n], logits[n:]

    upstream = ops.concatenate([-ops.sigmoid(-real_logits), ops.sigmoid(fake_logits)]) / n
    for_discriminator, d_images = pull_discriminator(upstream)
    factor = ops.reshape(-ops.exp(-fake_logits), (n, 1, 1, 1))
    for_generator, _ = pull_generator(factor * d_images[n:])

    return Gradients(
        for_generator,
        for_discriminator,
        generator_loss(fake_logits),
        discriminator_loss(real_logits, fake_logits),
    )


class GAN:
    """A generator and a discriminator with their optimisers: all that training changes.

    Args:
        config: networks, step and optimiser.
        seed: of the initial weights.

    Example:
        >>> gan = GAN(GANConfig(network="mlp"), seed=0)
        >>> losses = gan.train_step(gan.latents(128, seed=0), real_images)
        >>> images = gan.sample(16, seed=0)
    """

    def __init__(self, config: GANConfig = ARTICLE, seed: int = 0) -> None:
        if config.step not in ("one-stage", "two-stage"):
            raise ValueError(f"Unknown step {config.step!r}. Choose 'one-stage' or 'two-stage'.")
        self.config = config
        self.generator = build_generator(config.network, seed)
        self.discriminator = build_discriminator(config.network, seed)
        self.generator_optimizer, self.discriminator_optimizer = (
            keras.optimizers.Adam(config.learning_rate, beta_1=config.beta_1) for _ in range(2)
        )
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.train_step = backend.compile_step(
            self.eager_train_step, list(self.variables().values()), xla=config.xla
        )

    def variables(self) -> dict[str, Any]:
        """Returns everything that training changes, by a name that does not depend on Keras."""
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return backend.named_variables(parts)

    def eager_train_step(self, z: Any, real: Any) -> dict[str, Any]:
        """Takes one step on both networks; `train_step` is the same, compiled.

        Args:
            z: latents `(batch, 100)`, float32.
            real: images `(batch, 28, 28, 1)`, float32 in [-1, 1].

        Returns:
            Both losses before the step: `{"generator": scalar, "discriminator": scalar}`.
        """
        z, real = ops.convert_to_tensor(z), ops.convert_to_tensor(real)
        gradients_of = (
            one_stage_gradients if self.config.step == "one-stage" else two_stage_gradients
        )
        found = gradients_of(self.generator, self.discriminator, z, real)
        self.generator_optimizer.apply(found.generator, self.generator.trainable_variables)
        self.discriminator_optimizer.apply(
            found.discriminator, self.discriminator.trainable_variables
        )
        return {"generator": found.generator_loss, "discriminator": found.discriminator_loss}

    @staticmethod
    def latents(n: int, seed: int | tuple[int, ...]) -> np.ndarray:
        """Draws latents `(n, 100)`, float32, the same on every backend."""
        return np.random.default_rng(seed).standard_normal((n, LATENT_DIM), dtype=np.float32)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Returns `n` generated images, uint8 `(n, 28, 28, 1)`."""
        return sample(self.generator, n, seed)


def sample(generator: Any, n: int, seed: int = 0, batch_size: int = 500) -> np.ndarray:
    """Draws images from a trained generator.

    Args:
        generator: latents `(batch, 100)` → images in [-1, 1].
        n: how many images, at least 1.
        seed: of the latents.
        batch_size: images per call of the generator.

    Returns:
        uint8 `(n, 28, 28, 1)`.

    Raises:
        ValueError: if a number is out of its range in `genlib.ranges`.
    """
    ranges.check("n", n, of="images")
    ranges.check("seed", seed)
    latents = GAN.latents(n, seed)
    parts = [
        backend.to_numpy(generator(latents[i : i + batch_size])) for i in range(0, n, batch_size)
    ]
    return to_uint8(np.concatenate(parts))
