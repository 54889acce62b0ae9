"""Counted operations are those that the frameworks count themselves."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from genlib import backend
from genlib.bench import count
from genlib.bench.count import Work
from genlib.models import coarse_to_fine as ctf
from genlib.models import gan
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import LENGTH, ImageGPT, ImageGPTConfig
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import Transformer, TransformerConfig, empty_cache

SHAPE = TransformerConfig(2, 48, heads=6, kv_heads=2, hidden=80)
TEXT = 16


def counted(function, *arrays):
    """Returns the operations of a computation, as the backend's own tool counts them."""
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend.name()](
        function, arrays
    )


def _tensorflow(function, arrays):
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    concrete = tf.function(function).get_concrete_function(*map(tf.constant, arrays))
    # Constants have shapes that the profiler can read; a captured variable has none.
    frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    options = options(options.float_operation()).with_empty_output()
    options = options.with_accounted_types([".*MatMul.*", ".*Conv2D.*"]).build()
    profile = tf.compat.v1.profiler.profile(frozen.graph, cmd="op", options=options)
    return profile.total_float_ops


def _jax(function, arrays):
    import jax

    return jax.jit(function).lower(*arrays).compile().cost_analysis()["flops"]


def _torch(function, arrays):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*map(torch.from_numpy, arrays))
    return counter.get_total_flops()


def assert_counts(work, function, *arrays, border=0.0, unused=0.0):
    """Compares; XLA also counts norms and sums, and leaves out what a kernel reads past a border.

    `unused` is the share that only an eager backend computes, since nothing reads the result.
    """
    found = counted(function, *arrays)
    if backend.name() == "jax":
        assert (0.99 - border - unused) * work.flops <= found <= 1.5 * work.flops
    else:
        assert (1 - unused) * work.flops <= found <= work.flops


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_work_adds_and_multiplies():
    assert 2 * Work(3, 4) + Work(1, 1) == Work(7, 9) == Work(3, 4) * 2 + Work(1, 1)
    assert Work(10, 4).intensity == 2.5


def test_a_product_by_hand():
    # [1 2 3] times a column: three multiply-adds; 3 + 3 numbers are read, 1 is written.
    assert count.product(1, 3, 1) == Work(6, 28)
    assert count.product(1, 3, 1, times=2) == Work(12, 56)


@pytest.mark.parametrize(
    ("layer", "work"),
    [
        # 2×2 outputs of 3×3 kernels over 1 channel, to 2 channels.
        (layers.Conv2D(2, 3), Work(2 * 4 * 9 * 2, 4 * (16 + 18 + 8))),
        (layers.Conv2D(2, 3, strides=2, padding="same"), Work(2 * 4 * 9 * 2, 4 * (16 + 18 + 8))),
        # 16 input pixels, each spread by a 2×2 kernel.
        (layers.Conv2DTranspose(1, 2, strides=2), Work(2 * 16 * 4, 4 * (16 + 4 + 64))),
        (layers.Dense(3), Work(2 * 16 * 3, 4 * (16 + 3 + 48))),
        (layers.ReLU(), Work()),
    ],
)
def test_a_layer_by_hand(layer, work):
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    assert count.network(model) == work


def test_an_embedding_moves_its_rows_only():
    model = keras.Sequential([keras.Input((5,), dtype="int32"), layers.Embedding(1000, 8)])
    assert count.network(model, batch=3) == Work(0, 2 * 4 * 3 * 5 * 8)


def test_a_layer_that_is_used_twice_counts_twice():
    x = keras.Input((4,))
    dense = layers.Dense(4)
    assert count.network(keras.Model(x, dense(dense(x)))) == 2 * count.product(1, 4, 4)


def test_a_model_within_a_model_is_followed():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(2)])
    x = keras.Input((4,))
    work = count.product(5, 4, 8) + count.product(5, 8, 2)
    assert count.network(keras.Model(x, inner(x)), 5) == count.network(inner, 5) == work


def test_grouped_convolutions_read_their_channels_only():
    model = keras.Sequential([keras.Input((6, 6, 8)), layers.Conv2D(4, 3, groups=2)])
    assert count.network(model).flops == 2 * 16 * 4 * 9 * 4


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_gan_networks(network):
    generator, discriminator = gan.build_generator(network), gan.build_discriminator(network)
    work = count.network(generator, 3)
    assert_counts(work, generator, normal(3, 100), border=0.3)
    assert_counts(count.network(discriminator, 3), discriminator, normal(3, 28, 28, 1), border=0.3)


def test_the_tokenizer():
    tokenizer = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4))
    decoder, encoder = tokenizer.decoder, tokenizer.encoder
    assert_counts(count.network(decoder, 2), decoder, normal(2, 16, 16, 2), border=0.3)
    assert_counts(count.network(encoder, 2), encoder, normal(2, 64, 64, 3), border=0.3)


@pytest.mark.parametrize("modulated", [False, True])
def test_a_forward_of_the_transformer(modulated):
    config = TransformerConfig(2, 48, heads=6, kv_heads=2, hidden=80, modulated=modulated)
    model = Transformer(config)
    condition = [normal(3, 48)] if modulated else []

    def forward(x, *condition):
        return model(x, condition=condition[0] if condition else None)

    work = count.transformer(config, 20, batch=3)
    assert_counts(work, forward, normal(3, 20, 48), *condition)


def test_a_forward_of_one_token_against_a_cache():
    model = Transformer(SHAPE)

    def forward(x):
        return model(x, start=9, cache=empty_cache(SHAPE, 3, 40))[0]

    assert_counts(count.transformer(SHAPE, 1, keys=40, batch=3), forward, normal(3, 1, 48))


def test_the_letters():
    model = ImageGPT(ImageGPTConfig(SHAPE, text_width=TEXT))

    def draw(y, uniform):
        return model.letters.pick(y, uniform, guidance=2.0)

    work = count.spelling(48, tokens=10, alphabet=64, copies=2)
    assert_counts(work, draw, normal(4, 5, 48), np.full((2, 5, 8), 0.5, np.float32))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_textbook_images_of_image_gpt(guidance):
    config = ImageGPTConfig(SHAPE, text_width=TEXT)
    model, sequences = ImageGPT(config), 3 if guidance == 1.0 else 6
    tokens = ops.zeros((sequences, LENGTH, 8), "int32")

    def one_token(text, uniform):
        return model.letters.pick(model.states(text, tokens)[:, :1], uniform, guidance)

    work = count.image_gpt(config, 3, cached=False, guidance=guidance)
    one = Work(work.flops // LENGTH, 1)
    uniform = np.full((3, 1, 8), 0.5, np.float32)
    assert work.flops == LENGTH * one.flops
    assert_counts(one, one_token, normal(sequences, TEXT), uniform)


def test_a_cache_saves_image_gpt_most_of_its_work():
    c = ImageGPTConfig(SHAPE, text_width=TEXT)
    spelt = count.spelling(48, 1, 64)
    by_hand = count.product(1, TEXT, 4 * 48) + count.transformer(SHAPE, 4, 67)
    by_hand += 63 * count.transformer(SHAPE, 1, 67) + 64 * spelt
    assert count.image_gpt(c) == by_hand
    assert count.image_gpt(cached=False).flops > 30 * count.image_gpt(cached=True).flops
    assert count.image_gpt(guidance=1.5).flops == 2 * count.image_gpt().flops


def test_whole_images_from_coarse_to_fine():
    shape = TransformerConfig(1, 24, heads=2, kv_heads=1, hidden=32)
    config = CoarseToFineConfig(shape, alphabet=8, text_width=TEXT)
    model = CoarseToFine(config)

    def draw(text, uniform):
        return model._draw(text, uniform, cached=True, guidance=2.0)

    uniform = np.full((2, ctf.LENGTH, 8), 0.5, np.float32)
    work = count.coarse_to_fine(config, 2, guidance=2.0)
    # The last block need not say anything about the text: its keys and values are enough.
    assert_counts(work, draw, normal(4, TEXT), uniform, unused=0.05)


def test_without_a_cache_coarse_to_fine_reads_everything_again():
    config = CoarseToFineConfig(SHAPE, text_width=TEXT)
    ends = [4 + end for end in (1, 5, 21, 37, 53, 69, 85)]
    by_hand = count.product(1, TEXT, 4 * 48) + sum(
        (count.transformer(SHAPE, end) for end in ends), Work()
    )
    spelt = sum((count.spelling(48, group, 64) for group in ctf.GROUPS), Work())
    assert count.coarse_to_fine(config, cached=False) == by_hand + spelt


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_forward_of_the_flow(shortcut):
    shape = TransformerConfig(2, 48, heads=6, kv_heads=6, hidden=80, modulated=True)
    config = FlowConfig(shape, text_width=TEXT, shortcut=shortcut)
    model, times = Flow(config), np.full(3, 0.5, np.float32)

    def forward(x, text):
        return model({"x": x, "text": text, "time": times, "width": times})

    assert_counts(count.velocity(config, 3), forward, normal(3, 16, 16, 4), normal(3, TEXT))


def test_whole_images_of_the_flow():
    assert count.flow(batch=2, steps=4, guidance=1.0) == 4 * count.velocity(batch=2)
    assert count.flow(batch=2, steps=4) == 4 * count.velocity(batch=4)
    assert count.flow(batch=2, steps=4, solver="midpoint") == 8 * count.velocity(batch=4)
    half = count.flow(batch=2, steps=8, interval=(0.0, 0.45))
    assert half == 4 * count.velocity(batch=2) + 4 * count.velocity(batch=4)


def test_more_images_at_once_do_more_work_per_byte():
    sizes = [count.image_gpt(batch=b).intensity for b in (1, 4, 16)]
    assert sizes == sorted(sizes)


def test_what_cannot_be_counted_says_so():
    with pytest.raises(ValueError, match="at least 1"):
        count.network(gan.build_generator("mlp"), 0)
    with pytest.raises(ValueError, match="functions of their own"):
        count.network(Flow())
    with pytest.raises(ValueError, match="at least 1 of each"):
        count.transformer(SHAPE, 0)
