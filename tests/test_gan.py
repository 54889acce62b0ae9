"""The GAN: its networks are the article's, and one stage gives what two stages give."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from genlib import backend
from genlib.models import gan as room
from genlib.models.gan import GAN, GANConfig


def dense_sizes(model):
    return [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]


def some_images(n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 28, 28, 1)).astype("float32")


def test_mlp_networks_are_those_of_the_article():
    generator, discriminator = room.build_generator("mlp"), room.build_discriminator("mlp")
    assert dense_sizes(generator) == [128, 256, 784]
    assert dense_sizes(discriminator) == [256, 128, 1]
    config = GANConfig()
    assert (config.learning_rate, config.beta_1, config.batch_size) == (2e-4, 0.5, 128)
    assert room.LATENT_DIM == 100


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_shapes_dtypes_and_ranges(network):
    model = GAN(GANConfig(network=network), seed=1)
    images = model.sample(5, seed=2)
    assert images.shape == (5, 28, 28, 1)
    assert images.dtype == np.uint8
    assert backend.to_numpy(model.discriminator(some_images(3))).shape == (3, 1)


def test_the_seed_decides_the_initial_weights():
    first, again, other = (
        backend.to_numpy(room.build_generator("conv", seed).trainable_variables[0].value)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


# Other backends start each operation anew, or compile it.
@settings(max_examples=8 if backend.name() == "tensorflow" else 3, deadline=None)
@given(
    network=st.sampled_from(["mlp", "conv"]),
    batch=st.sampled_from([1, 6]),  # JAX compiles anew for each size
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_one_stage_gradients_equal_two_stage_gradients(network, batch, seed, scale):
    generator, discriminator = (
        room.build_generator(network, seed),
        room.build_discriminator(network, seed),
    )
    for variable in discriminator.trainable_variables:  # so that logits are not all near zero
        variable.assign(variable.value * scale)
    z, real = (
        ops.convert_to_tensor(GAN.latents(batch, seed)),
        ops.convert_to_tensor(some_images(batch, seed)),
    )
    one = backend.to_numpy(tuple(room.one_stage_gradients(generator, discriminator, z, real)))
    two = backend.to_numpy(tuple(room.two_stage_gradients(generator, discriminator, z, real)))
    for ours, reference in zip(one, two, strict=True):
        # Bias gradients are differences of nearly equal numbers, so the largest entry of the
        # network, not of the variable, says what rounding may do.
        size = max(np.abs(g).max() for g in keras.tree.flatten(reference))
        for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(reference), strict=True):
            np.testing.assert_allclose(a / size, b / size, atol=1e-4)


def test_gradients_are_those_of_the_losses():
    """A central difference of each loss along a random direction."""
    generator, discriminator = room.build_generator("mlp", 5), room.build_discriminator("mlp", 5)
    z, real = ops.convert_to_tensor(GAN.latents(16, 5)), ops.convert_to_tensor(some_images(16, 5))
    found = room.one_stage_gradients(generator, discriminator, z, real)

    def losses():
        fake_logits = discriminator(generator(z))
        return np.array(
            [
                float(backend.to_numpy(room.generator_loss(fake_logits))),
                float(backend.to_numpy(room.discriminator_loss(discriminator(real), fake_logits))),
            ]
        )

    for index, (model, gradients) in enumerate(
        [(generator, found.generator), (discriminator, found.discriminator)]
    ):
        gradients = backend.to_numpy(gradients)
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        start = [backend.to_numpy(v.value) for v in model.trainable_variables]
        values = {}
        for sign in (1, -1):
            for variable, value, g in zip(model.trainable_variables, start, gradients, strict=True):
                variable.assign(value + sign * 0.02 * g / norm)
            values[sign] = losses()[index]
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        slope = (values[1] - values[-1]) / 0.04
        assert slope == pytest.approx(norm, rel=0.02)


def test_losses_of_a_guessing_discriminator_are_multiples_of_log_2():
    guess = ops.zeros((7, 1))
    assert float(room.generator_loss(guess)) == pytest.approx(np.log(2))
    assert float(room.discriminator_loss(guess, guess)) == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("step", ["one-stage", "two-stage"])
def test_compiled_step_equals_the_eager_step(step):
    compiled, eager = (GAN(GANConfig(step=step), seed=3) for _ in range(2))
    for index in range(3):
        z, real = GAN.latents(8, index), some_images(8, index)
        a = compiled.train_step(z, real)
        b = eager.eager_train_step(ops.convert_to_tensor(z), ops.convert_to_tensor(real))
        for name in ("generator", "discriminator"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4)
    for name, variable in compiled.variables().items():
        np.testing.assert_allclose(
            backend.to_numpy(variable.value), backend.to_numpy(eager.variables()[name].value),
            atol=2e-4, err_msg=name,
        )  # fmt: skip


def test_bad_settings_are_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'vgg'.*'mlp' or 'conv'"):
        room.build_generator("vgg")
    with pytest.raises(ValueError, match=r"'half'.*'one-stage' or 'two-stage'"):
        GAN(GANConfig(step="half"))
    with pytest.raises(ValueError, match="n = 0; give a whole number from 1"):
        GAN().sample(0)
