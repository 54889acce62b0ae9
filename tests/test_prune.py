"""Pruning: the smaller network computes what the large one computes without those parts."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlib import backend
from genlib.models import gan
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.transformer import Transformer, TransformerConfig, empty_cache
from genlib.speed import prune, sparse
from genlib.text.llm import LLM

SHAPE = TransformerConfig(3, 16, heads=4, kv_heads=2, hidden=12)
TEXT = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)


def wild(model, seed=0):
    """Gives every weight a random value: zeros and ones of new layers would hide a mistake."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def generator():
    return wild(gan.build_generator("conv"))


# --- the generator


some_groups = st.sets(st.integers(0, 7), min_size=1, max_size=8).map(lambda s: tuple(sorted(s)))


@settings(max_examples=5, deadline=None)
@given(kept=st.tuples(some_groups, some_groups, some_groups))
def test_a_narrow_generator_draws_what_the_wide_one_draws_with_silent_channels(generator, kept):
    z = gan.GAN.latents(3, seed=1)
    small = backend.to_numpy(prune.narrow(generator, kept)(z))
    silent = backend.to_numpy(prune.silence_channels(generator, kept)(z))
    np.testing.assert_allclose(small, silent, atol=1e-4)


def test_a_narrow_generator_with_all_groups_is_the_generator(generator):
    z = gan.GAN.latents(2, seed=1)
    same = prune.narrow(generator, (tuple(range(8)),) * 3)
    np.testing.assert_allclose(*backend.to_numpy([same(z), generator(z)]), atol=1e-5)
    assert same.count_params() == generator.count_params()


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_silent_channels_are_the_least_important(generator, by):
    half = prune.silence_channels(generator, ((1, 2, 4, 7), (0, 1, 2, 3), (3, 5, 6, 7)))
    arrays = half.get_weights()
    arrays[4] = np.where(np.isin(np.arange(64) // 8, (1, 2, 4, 7)), arrays[4], 0)
    arrays[8] = np.where(np.isin(np.arange(64) // 8, (0, 1, 2, 3)), arrays[8], 0)
    arrays[12] = np.where(np.isin(np.arange(32) // 4, (3, 5, 6, 7))[:, None], arrays[12], 0)
    half.set_weights(arrays)
    chosen = prune.choose_channels(prune.channel_importance(half, by), (4, 4, 4))
    assert chosen == ((1, 2, 4, 7), (0, 1, 2, 3), (3, 5, 6, 7))


def test_activations_tell_groups_apart_that_have_equal_weights(generator):
    half = prune.silence_channels(generator, ((0, 1), tuple(range(8)), tuple(range(8))))
    importance = prune.channel_importance(half)[0]
    assert importance[:2].min() > 0
    np.testing.assert_array_equal(importance[2:], 0)


def test_what_is_no_convolutional_generator_is_refused(generator):
    with pytest.raises(ValueError, match="not the convolutional generator"):
        prune.narrow(gan.build_generator("mlp"), ((0,), (0,), (0,)))
    with pytest.raises(ValueError, match="groups from 0 to 7"):
        prune.narrow(generator, ((0,), (8,), (0,)))
    with pytest.raises(ValueError, match="three numbers from 1 to 8"):
        prune.build_narrow((4, 0, 4))
    with pytest.raises(ValueError, match="'weights' or 'activations'"):
        prune.channel_importance(generator, by="luck")


# --- the transformer

PARTS = [
    {"blocks": 2},
    {"blocks": (1, 2)},
    {"heads": 1},
    {"hidden": 5},
    {"blocks": 2, "heads": 1, "hidden": 7},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("modulated", [False, True])
def test_a_smaller_transformer_computes_what_the_large_one_computes_without_those_parts(
    parts, modulated
):
    model = wild(Transformer(replace(SHAPE, modulated=modulated)))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, 16)).astype(np.float32)
    options = {"condition": rng.standard_normal((2, 16)).astype(np.float32)} if modulated else {}
    kept = prune.choose_parts(model, **parts)
    small, silent = prune.smaller(model, kept), prune.silence_parts(model, kept)
    assert small.count_params() < model.count_params()
    whole = backend.to_numpy(silent(x, **options))
    np.testing.assert_allclose(*backend.to_numpy([small(x, **options), whole]), atol=1e-4)
    assert np.abs(backend.to_numpy(model(x, **options)) - whole).max() > 1e-2

    cache = empty_cache(small.config, batch=2, length=5)
    first, cache = small(x[:, :3], cache=cache, **options)
    rest, _ = small(x[:, 3:], start=3, cache=cache, **options)
    np.testing.assert_allclose(*backend.to_numpy([first, whole[:, :3]]), atol=1e-4)
    np.testing.assert_allclose(*backend.to_numpy([rest, whole[:, 3:]]), atol=1e-4)


def test_small_weights_are_pruned_first():
    model = wild(Transformer(SHAPE))
    for block in model.blocks:
        kernel = np.array(backend.to_numpy(block.down.kernel.value))
        kernel[[2, 9]] *= 1e-3
        block.down.kernel.assign(kernel)
        kernel = np.array(backend.to_numpy(block.out.kernel.value))
        kernel[:8] *= 1e-3  # the query heads of key head 0
        block.out.kernel.assign(kernel)
    kept = prune.choose_parts(model, heads=1, hidden=10)
    assert kept.heads == ((1,),) * 3
    assert kept.hidden == (tuple(i for i in range(12) if i not in (2, 9)),) * 3


def test_blocks_are_spread_over_the_depth_and_heads_keep_their_size():
    model = Transformer(replace(SHAPE, layers=6))
    assert prune.choose_parts(model, blocks=3).blocks == (0, 2, 5)
    fewer = prune.smaller(model, prune.choose_parts(model, blocks=3, hidden=6)).config
    assert fewer == replace(SHAPE, layers=3, hidden=6)
    one_head = prune.smaller(model, prune.choose_parts(model, heads=1)).config
    assert (one_head.heads, one_head.kv_heads, one_head.head_dim) == (2, 1, 4)


@pytest.mark.parametrize("bad", [{"blocks": 4}, {"blocks": (0, 3)}, {"heads": 0}, {"hidden": 13}])
def test_parts_that_do_not_exist_are_refused(bad):
    with pytest.raises(ValueError, match="give"):
        prune.choose_parts(Transformer(SHAPE), **bad)


GPT = ImageGPTConfig(SHAPE, alphabet=5, text_width=8, prefix=2)
FLOW = FlowConfig(replace(SHAPE, modulated=True), channels=2, text_width=8)


@pytest.mark.parametrize(
    "model",
    [
        lambda: ImageGPT(GPT),
        lambda: CoarseToFine(CoarseToFineConfig(SHAPE, alphabet=5, text_width=8, prefix=2)),
        lambda: Flow(FLOW),
    ],
    ids=["image-gpt", "coarse-to-fine", "flow"],
)
def test_every_model_of_images_draws_alike_with_a_smaller_and_a_silenced_transformer(model):
    model = wild(model())
    options = {"steps": 2} if isinstance(model, Flow) else {}
    kept = prune.choose_parts(model.transformer, blocks=2, heads=1, hidden=6)
    drawn = [
        prune.with_transformer(model, make(model.transformer, kept)).sample(TEXT, 3, **options)
        for make in (prune.smaller, prune.silence_parts)
    ]
    np.testing.assert_allclose(*drawn, atol=1e-3)


class Letters:
    def encode(self, text):
        return [ord(c) % 32 for c in text]

    def decode(self, ids):
        return "".join(chr(97 + i) for i in ids)


def test_a_language_model_is_pruned_by_the_same_code():
    embedding = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    llm = LLM(wild(Transformer(SHAPE)), embedding, Letters(), end=0)
    kept = prune.choose_parts(llm.transformer, blocks=2, heads=1, hidden=6)
    scores = [
        prune.with_transformer(llm, make(llm.transformer, kept)).score("ab", ["cd", "xyz"])
        for make in (prune.smaller, prune.silence_parts)
    ]
    np.testing.assert_allclose(*scores, atol=1e-3)
    assert np.abs(scores[0] - llm.score("ab", ["cd", "xyz"])).max() > 1e-2


# --- single weights


@pytest.mark.parametrize("per_layer", [False, True])
def test_masks_zero_the_smallest_weights_and_hold_them_through_training(per_layer):
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)]
    )
    wild(model)
    first, second = (layer.kernel for layer in model.layers)
    second.assign(second * 0.1)
    before = [np.abs(backend.to_numpy(v.value)) for v in (first, second)]
    masks = sparse.magnitude_masks(model, 0.5, per_layer)
    masks.apply()
    assert masks.sparsity == pytest.approx(0.5, abs=0.02)
    shares = [1 - kept.mean() for kept in masks.kept]
    if per_layer:
        np.testing.assert_allclose(shares, 0.5, atol=0.02)
    else:
        assert shares[1] > 0.9 > 0.4 > shares[0]
    for size, kept in zip(before, masks.kept, strict=True):
        assert size[kept].min() >= size[~kept].max()

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 6)), rng.standard_normal((32, 4))
    old = backend.to_numpy(first.value).copy()
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    new = backend.to_numpy(first.value)
    np.testing.assert_array_equal(new[~masks.kept[0]], 0)
    assert np.abs(new - old)[masks.kept[0]].max() > 0


def test_zeros_shrink_the_compressed_file_alone():
    model = wild(keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)]))
    plain, packed = sparse.file_bytes(model), sparse.file_bytes(model, compress=True)
    sparse.magnitude_masks(model, 0.9).apply()
    assert sparse.file_bytes(model) == plain
    assert sparse.file_bytes(model, compress=True) < 0.4 * packed


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_sparsity_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="from 0 to below 1"):
        sparse.magnitude_masks(gan.build_generator("mlp"), share)
