"""Two recipes of keras.io, re-created from their published settings, against our steps.

Both sides use the same networks: the recipes' own. So what is compared is how a step is organised:
the GAN's step that sees each fake twice against our one-stage step, and an eager loop of diffusion
steps against one compiled loop.

Recipes: keras-team/keras-io, `examples/generative/dcgan_overriding_train_step.py` (Chollet, 2019)
and `examples/generative/ddim.py` (Béres, 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from common import BATCHES, Candidate, compare
from keras import layers, ops

from genlib import backend
from genlib.models.gan import one_stage_gradients

LATENT, GAN_BATCH, RATE = 128, 64, 3e-4  # as published
STEPS_OF_FIT = 2  # training steps that one timed call takes
IMAGE, WIDTHS, DEPTH, DIFFUSION_STEPS = 64, (32, 64, 96, 128), 2, 20  # as published
SIGNAL = (0.02, 0.95)  # least and largest share of the signal


# ---------------------------------------------------------------- the GAN


def networks() -> tuple[keras.Model, keras.Model]:
    """Returns the generator and the discriminator of the GAN recipe."""

    def leaky() -> Any:
        return layers.LeakyReLU(0.2)

    generator = keras.Sequential(
        [keras.Input((LATENT,)), layers.Dense(7 * 7 * 128), leaky(), layers.Reshape((7, 7, 128))]
        + [
            layer
            for _ in range(2)
            for layer in (layers.Conv2DTranspose(128, 4, 2, padding="same"), leaky())
        ]
        + [layers.Conv2D(1, 7, padding="same", activation="sigmoid")]
    )
    discriminator = keras.Sequential(
        [keras.Input((28, 28, 1))]
        + [
            layer
            for width in (64, 128)
            for layer in (layers.Conv2D(width, 3, 2, padding="same"), leaky())
        ]
        + [layers.GlobalMaxPooling2D(), layers.Dense(1)]
    )
    return generator, discriminator


class Recipe(keras.Model):
    """The recipe's training: the discriminator first, then the generator on fresh fakes."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = networks()
        self.of_d, self.of_g = (keras.optimizers.Adam(RATE) for _ in range(2))
        self.of_d.build(self.discriminator.trainable_variables)
        self.of_g.build(self.generator.trainable_variables)
        self.loss_of = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real: Any) -> dict[str, Any]:
        """Takes one step on each network."""
        n = tf.shape(real)[0]
        fake = self.generator(tf.random.normal((n, LATENT)), training=True)
        labels = tf.concat([tf.ones((n, 1)), tf.zeros((n, 1))], 0)
        labels += 0.05 * tf.random.uniform(tf.shape(labels))  # the recipe's noise on the labels
        with tf.GradientTape() as tape:
            logits = self.discriminator(tf.concat([fake, real], 0), training=True)
            of_d = self.loss_of(labels, logits)
        weights = self.discriminator.trainable_variables
        self.of_d.apply(tape.gradient(of_d, weights), weights)
        latents = tf.random.normal((n, LATENT))
        with tf.GradientTape() as tape:
            logits = self.discriminator(self.generator(latents, training=True), training=True)
            of_g = self.loss_of(tf.zeros((n, 1)), logits)
        weights = self.generator.trainable_variables
        self.of_g.apply(tape.gradient(of_g, weights), weights)
        return {"d_loss": of_d, "g_loss": of_g}


def one_stage() -> Any:
    """Returns our step for the same networks: one pass, each fake seen once."""
    generator, discriminator = networks()
    of_d, of_g = (keras.optimizers.Adam(RATE) for _ in range(2))
    of_d.build(discriminator.trainable_variables)
    of_g.build(generator.trainable_variables)

    def step(latents: Any, real: Any) -> Any:
        found = one_stage_gradients(generator, discriminator, latents, real)
        of_g.apply(found.generator, generator.trainable_variables)
        of_d.apply(found.discriminator, discriminator.trainable_variables)
        return found.discriminator_loss, found.generator_loss

    changed = [v for part in (generator, discriminator, of_d, of_g) for v in part.variables]
    return backend.compile_step(step, changed)


def training() -> dict[str, Any]:
    """Compares four training steps."""
    rng = np.random.default_rng(0)
    real = rng.random((GAN_BATCH * STEPS_OF_FIT, 28, 28, 1), dtype=np.float32)
    data = tf.data.Dataset.from_tensor_slices(real).batch(GAN_BATCH).prefetch(32)
    recipe = Recipe()
    recipe.compile()
    direct = tf.function(recipe.train_step)
    ours = one_stage()
    parts = np.split(real, STEPS_OF_FIT)

    def by_fit() -> Any:
        return recipe.fit(data, verbose=0).history["g_loss"][-1]

    def by_function() -> Any:
        return [backend.to_numpy(direct(tf.constant(part))) for part in parts]

    def by_us() -> Any:
        latents = [rng.standard_normal((GAN_BATCH, LATENT), np.float32) for _ in parts]
        return [
            backend.to_numpy(ours(tf.constant(z), tf.constant(part)))
            for z, part in zip(latents, parts, strict=True)
        ]

    count = recipe.generator.count_params() + recipe.discriminator.count_params()
    return compare(
        f"{STEPS_OF_FIT} training steps of a GAN, batch {GAN_BATCH}",
        "keras.io, GAN",
        {
            "the recipe, fit()": Candidate("peer", by_fit, count),
            "the recipe, tf.function": Candidate("peer", by_function, count, "tf.function"),
            "ours, one stage": Candidate("ours", by_us, count),
        },
        "The same networks and optimisers. The recipe draws fakes twice and sees them twice; the "
        "one-stage step draws and sees them once.",
    )


def sampling(batch: int) -> dict[str, Any]:
    """Compares drawing images from the recipe's generator."""
    generator, _ = networks()
    graph = backend.compile_call(generator, generator.variables)
    z = np.random.default_rng(0).standard_normal((batch, LATENT)).astype(np.float32)
    np.testing.assert_allclose(backend.to_numpy(graph(z)), generator(z).numpy(), atol=1e-5)
    count = generator.count_params()
    return compare(
        f"28×28 images of a GAN, batch {batch}",
        "keras.io, GAN",
        {
            "the recipe, generator(z)": Candidate("peer", lambda: generator(z).numpy(), count),
            "the recipe, predict": Candidate(
                "peer", lambda: generator.predict(z, verbose=0), count, "model.predict"
            ),
            "the recipe, predict_on_batch": Candidate(
                "peer", lambda: generator.predict_on_batch(z), count, "model.predict_on_batch"
            ),
            "ours, compiled call": Candidate("ours", lambda: backend.to_numpy(graph(z)), count),
        },
        "The same generator.",
    )


# ---------------------------------------------------------------- DDIM


def residual_unet() -> keras.Model:
    """Returns the U-Net of the DDIM recipe: noisy images and noise variances to the noise."""

    def block(x: Any, width: int) -> Any:
        short = x if x.shape[-1] == width else layers.Conv2D(width, 1)(x)
        x = layers.BatchNormalization(center=False, scale=False)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="swish")(x)
        return layers.Conv2D(width, 3, padding="same")(x) + short

    images, variances = keras.Input((IMAGE, IMAGE, 3)), keras.Input((1, 1, 1))
    x = layers.Concatenate()([layers.Conv2D(WIDTHS[0], 1)(images), Waves()(variances)])
    skips = []
    for width in WIDTHS[:-1]:
        for _ in range(DEPTH):
            x = block(x, width)
            skips.append(x)
        x = layers.AveragePooling2D(2)(x)
    for _ in range(DEPTH):
        x = block(x, WIDTHS[-1])
    for width in reversed(WIDTHS[:-1]):
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        for _ in range(DEPTH):
            x = block(layers.Concatenate()([x, skips.pop()]), width)
    return keras.Model([images, variances], layers.Conv2D(3, 1)(x))


class Waves(layers.Layer):
    """The recipe's embedding of a noise variance: 32 waves, the same at each pixel."""

    def call(self, variance: Any) -> Any:
        """Returns `(batch, 64, 64, 32)` for variances `(batch, 1, 1, 1)`."""
        speed = 2 * np.pi * np.exp(np.linspace(0, np.log(1000), 16)).astype(np.float32)
        waves = ops.concatenate([ops.sin(speed * variance), ops.cos(speed * variance)], axis=3)
        return ops.tile(waves, (1, IMAGE, IMAGE, 1))


def rates(time: Any) -> tuple[Any, Any]:
    """Returns the shares of noise and signal at a diffusion time, from 1 (noise) to 0."""
    least, most = np.arccos(SIGNAL[1]), np.arccos(SIGNAL[0])
    angle = ops.cast(least + time * (most - least), "float32")
    return ops.sin(angle), ops.cos(angle)


def one_step(network: Any, x: Any, time: Any, steps: int) -> Any:
    """Takes one DDIM step from a diffusion time to the next one."""
    noise_rate, signal_rate = rates(time)
    variance = ops.ones((ops.shape(x)[0], 1, 1, 1)) * noise_rate**2
    noise = network([x, variance], training=False)
    image = (x - noise_rate * noise) / signal_rate
    next_noise, next_signal = rates(time - 1 / steps)
    return next_signal * image + next_noise * noise


def diffusion(batch: int, steps: int) -> dict[str, Any]:
    """Compares the recipe's loop with the same loop compiled as a whole."""
    network = residual_unet()
    start = np.random.default_rng(0).standard_normal((batch, IMAGE, IMAGE, 3)).astype(np.float32)
    step = functools.partial(one_step, network, steps=steps)
    compiled_step = tf.function(step)

    def loop(step: Any) -> np.ndarray:
        x = tf.constant(start)
        for i in range(steps):
            x = step(x, tf.constant(1 - i / steps))
        return x.numpy()

    def whole(x: Any) -> Any:
        def body(i: Any, x: Any) -> Any:
            return i + 1, one_step(network, x, 1 - ops.cast(i, "float32") / steps, steps)

        zero = ops.convert_to_tensor(0, "int32")
        return ops.while_loop(lambda i, x: i < steps, body, (zero, x))[1]

    graph = backend.compile_step(whole, network.variables)
    expected = loop(step)  # untrained weights let the numbers grow, so the error is relative
    size = np.abs(expected).max()
    found = backend.to_numpy(graph(tf.constant(start)))
    np.testing.assert_allclose(found, expected, atol=1e-3 * size)
    count = network.count_params()
    return compare(
        f"{steps} DDIM steps on {IMAGE}×{IMAGE} images, batch {batch}",
        "keras.io, DDIM",
        {
            "the recipe, eager loop": Candidate("peer", lambda: loop(step), count),
            "the recipe, compiled step": Candidate(
                "peer", lambda: loop(compiled_step), count, "tf.function around a step"
            ),
            "ours, compiled loop": Candidate(
                "ours", lambda: backend.to_numpy(graph(tf.constant(start))), count
            ),
        },
        "The same network on both sides.",
    )


def rows() -> Iterator[dict[str, Any]]:
    """Yields all rows; the large batch takes the recipe's five steps for quick judging."""
    yield training()
    for batch in BATCHES:
        yield sampling(batch)
    yield diffusion(1, DIFFUSION_STEPS)
    yield diffusion(BATCHES[-1], 5)
