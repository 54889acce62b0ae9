"""The variational autoencoder (VAE): an encoder, a decoder, and one bound that trains both.

An encoder gives for an image a Gaussian `q(z|x)` over latents; a decoder gives for a latent a
distribution `p(x|z)` over images; the prior `p(z)` is the standard normal. Training raises the
ELBO, a lower bound on `log p(x)`.

Why a discretised logistic and not the usual choices for `p(x|z)`: a pixel is one of 256 levels, so
`p(x|z)` must be a *mass* on 256 levels. Binary cross-entropy on grey values is the log-probability
of nothing (it does not sum to one), and a Gaussian *density* grows without limit where pixels are
exactly black, as half of Fashion-MNIST is. The mass is at most 1, so the ELBO is a true
log-probability in nats, and `-ELBO / (784 log 2)` a code length in bits a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib import ranges
from genlib.data.images import to_float, to_uint8

Tensor = Any
IMAGE_SHAPE = (28, 28, 1)
HALF_STEP = 1.0 / 255.0  # half the distance of two grey levels, where black is -1 and white +1


@dataclass(frozen=True)
class VAEConfig:
    """What it takes to build a VAE again."""

    latent_dim: int = 16  # numbers per image
    widths: tuple[int, ...] = (256, 128)  # units of the encoder's layers; the decoder's, reversed
    beta: float = 1.0  # weight of the KL term; 1 gives the ELBO
    scale: float = 0.1  # of the logistic around a pixel, in units of [-1, 1]; where it starts
    learn_scale: bool = True  # fit the scale with the networks
    seed: int = 0  # of the initial weights and of the noise in training

    def __post_init__(self) -> None:
        if self.latent_dim < 1 or not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"latent_dim={self.latent_dim} and widths={self.widths} must be positive, "
                "with at least one width; the defaults are 16 and (256, 128)."
            )
        if self.beta < 0 or self.scale <= 0:
            raise ValueError(
                f"beta={self.beta} must be at least 0 and scale={self.scale} above 0; "
                "the defaults are 1.0 and 0.1."
            )


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from `N(0, I)` to a diagonal Gaussian, in nats.

    Args:
        mean: `(..., latent)`, float.
        log_variance: `(..., latent)`, the natural logarithm of the variance.

    Returns:
        `KL(N(mean, variance) || N(0, I))`, `(...)`, at least 0, and 0 only for the prior itself.

    Reference:
        Kingma and Welling (2014), appendix B: https://arxiv.org/abs/1312.6114

    Example:
        >>> float(gaussian_kl(ops.array([1.0, 0.0]), ops.zeros(2)))
        0.5
    """
    return 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance, axis=-1)


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, summed over the last axis, in nats."""
    standardised = ops.square(z - mean) / ops.exp(log_variance)
    return -0.5 * ops.sum(standardised + log_variance + math.log(2.0 * math.pi), axis=-1)


def reparametrise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from `N(mean, variance)` as a smooth function of its parameters: `mean + std * noise`.

    Args:
        mean: `(batch, latent)`.
        log_variance: `(batch, latent)`.
        noise: standard normal, `(batch, latent)` or `(samples, batch, latent)`.

    Returns:
        Latents of the shape of `noise`.
    """
    return mean + ops.exp(0.5 * log_variance) * noise


def log_discretised_logistic(x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of 8-bit images whose pixels are logistic, rounded to 256 grey levels.

    A level gets the mass of the logistic within half a step of it; black and white get the tails.
    With `a` and `b` the standardised upper and lower edge, `sigmoid(a) - sigmoid(b)` equals
    `sigmoid(a) * sigmoid(-b) * (1 - exp(b - a))`: a product, so its logarithm never subtracts two
    nearly equal numbers.

    Args:
        x: images in [-1, 1], `(..., height, width, channels)`, on the 256 grey levels.
        location: of the same shape (or one that broadcasts), not limited to [-1, 1].
        log_scale: scalar, or a shape that broadcasts.

    Returns:
        `(...)`: the sum over height, width and channels, in nats, at most 0.

    Reference:
        Salimans et al. (2017), equation 2: https://arxiv.org/abs/1701.05517
    """
    inverse_scale = ops.exp(-log_scale)
    distance = ops.subtract(location, x)
    upper = ops.log_sigmoid((HALF_STEP - distance) * inverse_scale)
    lower = ops.log_sigmoid((HALF_STEP + distance) * inverse_scale)
    inside = ops.log(-ops.expm1(-2.0 * HALF_STEP * inverse_scale))
    black, white = x < -1.0 + HALF_STEP, x > 1.0 - HALF_STEP
    zero = ops.zeros_like(upper)
    mass = (
        ops.where(white, zero, upper)
        + ops.where(black, zero, lower)
        + ops.where(ops.logical_or(black, white), zero, inside)
    )
    return ops.sum(mass, axis=(-3, -2, -1))


Encode = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> mean, log variance: (batch, latent)
LogLikelihood = Callable[[Tensor, Tensor], Tensor]  # x, z -> log p(x|z): (samples, batch)


def elbo(x: Tensor, encode: Encode, log_likelihood: LogLikelihood, noise: Tensor) -> Tensor:
    """The evidence lower bound on `log p(x)` per example, with the KL term in closed form.

    Args:
        x: a batch of data.
        encode: gives mean and log-variance of `q(z|x)`, each `(batch, latent)`.
        log_likelihood: gives `log p(x|z)`, `(samples, batch)`, for `z` `(samples, batch, latent)`.
        noise: standard normal, `(samples, batch, latent)`.

    Returns:
        `(batch,)`, nats. Its expectation over `noise` is at most `log p(x)`, for any `encode`.

    Reference:
        Kingma and Welling (2014), equations 3 and 10: https://arxiv.org/abs/1312.6114
    """
    mean, log_variance = encode(x)
    z = reparametrise(mean, log_variance, noise)
    return ops.mean(log_likelihood(x, z), axis=0) - gaussian_kl(mean, log_variance)


def importance_weighted_bound(
    x: Tensor, encode: Encode, log_likelihood: LogLikelihood, noise: Tensor
) -> Tensor:
    """A tighter bound on `log p(x)`: the logarithm of an average of importance weights.

    It has the arguments and the result of `elbo`. With one sample its expectation is the ELBO; it
    rises with the number of samples towards `log p(x)`.

    Reference:
        Burda, Grosse and Salakhutdinov (2016), equation 8: https://arxiv.org/abs/1509.00519
    """
    mean, log_variance = encode(x)
    z = reparametrise(mean, log_variance, noise)
    log_prior = log_normal(z, ops.zeros_like(z), ops.zeros_like(z))
    log_weights = log_likelihood(x, z) + log_prior - log_normal(z, mean, log_variance)
    return ops.logsumexp(log_weights, axis=0) - math.log(noise.shape[0])


def _dense(units: int, seed: int, activation: str | None = "relu") -> layers.Dense:
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return layers.Dense(units, activation=activation, kernel_initializer=initializer)


def build_encoder(config: VAEConfig) -> keras.Model:
    """Image `(batch, 28, 28, 1)` in [-1, 1] -> mean and log-variance, each `(batch, latent)`."""
    image = keras.Input(IMAGE_SHAPE, name="image")
    h = layers.Flatten()(image)  # (batch, 784)
    for i, width in enumerate(config.widths):
        h = _dense(width, seed=1000 * config.seed + i)(h)
    # The logarithm may be any real number, so the variance needs no constraint to be positive.
    mean = _dense(config.latent_dim, 1000 * config.seed + 100, activation=None)(h)
    log_variance = _dense(config.latent_dim, 1000 * config.seed + 101, activation=None)(h)
    return keras.Model(image, [mean, log_variance], name="encoder")


def build_decoder(config: VAEConfig) -> keras.Model:
    """Latent `(batch, latent)` -> locations of the pixels' logistics, `(batch, 28, 28, 1)`.

    No tanh at the end: a location below -1 says "black, and surely so".
    """
    z = keras.Input((config.latent_dim,), name="latent")
    h = z
    for i, width in enumerate(reversed(config.widths)):
        h = _dense(width, seed=1000 * config.seed + 200 + i)(h)
    h = _dense(math.prod(IMAGE_SHAPE), seed=1000 * config.seed + 300, activation=None)(h)
    return keras.Model(z, layers.Reshape(IMAGE_SHAPE)(h), name="decoder")


class VAE(keras.Model):
    """Encoder, decoder and their loss: `distortion + beta * rate`, which is -ELBO for beta 1.

    *Rate* is `KL(q(z|x) || p(z))`, *distortion* is `-log p(x|z)`; both are logged in nats an image.

    Args:
        config: sizes, likelihood and seed.

    Example:
        >>> vae = VAE(VAEConfig(latent_dim=2))
        >>> vae.compile(keras.optimizers.Adam(1e-3))
        >>> vae.fit(to_float(images), batch_size=128, epochs=10)
        >>> vae.sample(16, seed=0)  # uint8 (16, 28, 28, 1)
    """

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__(name="vae")
        self.config = config or VAEConfig()
        self.encoder = build_encoder(self.config)
        self.decoder = build_decoder(self.config)
        self.log_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(math.log(self.config.scale)),
            trainable=self.config.learn_scale,
            name="log_scale",
        )
        # A variable, so that a callback can change it between epochs without a new trace.
        self.beta = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.config.beta),
            trainable=False,
            name="beta",
        )
        self.noise = keras.random.SeedGenerator(self.config.seed)
        self.rate = keras.metrics.Mean(name="rate")
        self.distortion = keras.metrics.Mean(name="distortion")
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """One pass through the bottleneck: locations, mean and log-variance."""
        mean, log_variance = self.encoder(x)
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        return self.decoder(reparametrise(mean, log_variance, noise)), mean, log_variance

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Mean over the batch of `distortion + beta * rate`; Keras differentiates it."""
        location, mean, log_variance = y_pred
        rate = ops.mean(gaussian_kl(mean, log_variance))
        distortion = -ops.mean(log_discretised_logistic(x, location, self.log_scale))
        self.rate.update_state(rate)
        self.distortion.update_state(distortion)
        return distortion + self.beta * rate

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of `q(z|x)` for float images `(batch, 28, 28, 1)`."""
        mean, log_variance = self.encoder(x)
        return mean, log_variance

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """`log p(x|z)` `(samples, batch)` for latents `(samples, batch, latent)`."""
        flat = ops.reshape(z, (-1, self.config.latent_dim))
        location = ops.reshape(self.decoder(flat), (*z.shape[:-1], *IMAGE_SHAPE))
        return log_discretised_logistic(x, location, self.log_scale)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Encodes to the mean and decodes: uint8 images to uint8 images."""
        mean, _ = self.encode(to_float(images))
        return self.decode(mean)

    def decode(self, z: Tensor) -> np.ndarray:
        """Latents `(n, latent)` to the locations of their pixels, as uint8 `(n, 28, 28, 1)`."""
        return to_uint8(ops.convert_to_numpy(self.decoder(z)))

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Decodes `n` draws from the prior: uint8 `(n, 28, 28, 1)`."""
        ranges.check("n", n, of="images")
        ranges.check("seed", seed, of="training seed")
        return self.decode(keras.random.normal((n, self.config.latent_dim), seed=seed))
