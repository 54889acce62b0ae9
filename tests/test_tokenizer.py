"""The tokenizer: rounding, numbering, and the way back."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlib.data import scenes
from genlib.models.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    codes_to_latents,
    latents_to_codes,
    quantize,
    reconstruction_loss,
)

SMALL = TokenizerConfig(levels=(8, 5), width=8, pixel_width=4)


@given(st.lists(st.integers(0, 8 * 5 * 3 - 1), min_size=1, max_size=20))
def test_codes_come_back_from_their_latents(codes):
    levels = (8, 5, 3)
    assert latents_to_codes(codes_to_latents(np.array(codes), levels), levels).tolist() == codes


def test_every_latent_goes_to_its_nearest_level():
    latents = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
    levels = np.linspace(-1, 1, 5)
    found = keras.ops.convert_to_numpy(quantize(latents, (5,)))
    nearest = np.abs(latents - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(found - latents)[:, 0], nearest, atol=1e-6)
    np.testing.assert_allclose(codes_to_latents(latents_to_codes(latents, (5,)), (5,)), found)


def test_the_number_of_codes_is_the_product_of_the_levels():
    assert TokenizerConfig().codes == 4096
    corner = np.ones((1, 4))
    assert latents_to_codes(corner, TokenizerConfig().levels) == 4095


def test_shapes_and_types_of_the_way_there_and_back():
    tokenizer = Tokenizer(SMALL)
    images = scenes.scenes(3).images
    codes = tokenizer.encode(images)
    assert codes.shape == (3, 16, 16)
    assert codes.dtype == np.int32
    assert tokenizer.decode(codes).shape == images.shape
    assert tokenizer.decode(codes).dtype == np.uint8


def test_latents_at_the_levels_are_decoded_like_their_codes():
    tokenizer = Tokenizer(SMALL)
    codes = tokenizer.encode(scenes.scenes(2).images)
    latents = codes_to_latents(codes, SMALL.levels)
    np.testing.assert_array_equal(tokenizer.decode(latents), tokenizer.decode(codes))
    beyond = np.where(latents == 1, np.float32(3), latents)
    np.testing.assert_array_equal(tokenizer.decode(beyond), tokenizer.decode(codes))


def test_the_loss_is_zero_for_a_perfect_copy_and_sees_a_shifted_edge():
    images = np.zeros((1, 64, 64, 3), np.float32)
    images[:, :, 32:] = 1
    assert float(reconstruction_loss(images, images)) == 0
    shifted = np.roll(images, 1, axis=2)
    assert float(reconstruction_loss(images, shifted)) > float(np.abs(images - shifted).mean())


def test_training_improves_reconstructions_through_the_rounding():
    tokenizer = Tokenizer(SMALL)
    images = scenes.scenes(16).images / np.float32(127.5) - 1
    tokenizer.compile(optimizer=keras.optimizers.Adam(5e-3), loss=reconstruction_loss)
    losses = [float(tokenizer.train_on_batch(images, images)) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode(np.zeros((1, 64, 64, 3), np.float32)), "uint8 images"),
        (lambda t: t.encode(np.zeros((1, 32, 32, 3), np.uint8)), "uint8 images"),
        (lambda t: t.decode(np.zeros((1, 8, 8, 3), np.float32)), "decodes int codes"),
        (lambda t: t.decode(np.full((1, 16, 16), 40)), "this tokenizer has 0 to 39"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Tokenizer(SMALL))
