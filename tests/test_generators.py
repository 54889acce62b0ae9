"""Image GPT, coarse to fine, flow: the fast way draws what the slow way draws."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlib import backend
from genlib.models import coarse_to_fine, sampling
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig, finest, pyramid
from genlib.models.flow import Flow, FlowConfig, interpolate
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.letters import Letters, spell, unspell
from genlib.models.tokenizer import latents_to_codes
from genlib.models.transformer import TransformerConfig

SHAPE = TransformerConfig(2, 16, heads=2, kv_heads=1, hidden=32)
TEXT = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)


def image_gpt():
    return ImageGPT(ImageGPTConfig(SHAPE, alphabet=6, text_width=6, prefix=2))


def coarse():
    return CoarseToFine(CoarseToFineConfig(SHAPE, alphabet=6, text_width=6, prefix=2))


def flow():
    shape = TransformerConfig(2, 16, heads=2, kv_heads=2, hidden=32, modulated=True)
    model = Flow(FlowConfig(shape, channels=2, text_width=6))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:  # gates and head start at zero: open them
        if not np.any(keras.ops.convert_to_numpy(variable.value)):
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    return model


# ---------------------------------------------------------------- choosing


def test_a_choice_follows_the_probabilities():
    shares = np.array([0.1, 0.6, 0.3])
    uniform = np.linspace(0, 1, 1000, endpoint=False).astype(np.float32)
    chosen = np.asarray(
        keras.ops.convert_to_numpy(
            sampling.pick(np.tile(np.log(shares), (1000, 1)).astype(np.float32), uniform)
        )
    )
    np.testing.assert_allclose(np.bincount(chosen) / 1000, shares, atol=0.002)


@given(st.integers(0, 1000), st.integers(1, 5), st.floats(0.05, 1.0))
@settings(max_examples=30, deadline=None)
def test_top_k_and_top_p_never_choose_what_they_forbid(seed, k, p):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((50, 8)).astype(np.float32)
    uniform = rng.random(50, dtype=np.float32)
    rank = np.argsort(np.argsort(-logits, axis=1), axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    falling = -np.sort(-shares, axis=1)
    kept = ((np.cumsum(falling, 1) - falling) < p - 1e-6).sum(1)
    rows = np.arange(50)
    by_k = keras.ops.convert_to_numpy(sampling.pick(logits, uniform, top_k=k))
    by_p = keras.ops.convert_to_numpy(sampling.pick(logits, uniform, top_p=p))
    by_share = keras.ops.convert_to_numpy(sampling.pick(logits, uniform, min_p=p))
    assert (shares[rows, by_share] >= p * shares.max(1) - 1e-6).all()
    assert (rank[rows, by_k] < k).all()
    assert (rank[rows, by_p] <= kept).all()


def test_temperature_zero_takes_the_likeliest():
    logits = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    chosen = keras.ops.convert_to_numpy(sampling.pick(logits, np.zeros(20), temperature=0))
    np.testing.assert_array_equal(chosen, logits.argmax(1))


@pytest.mark.parametrize("bars", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}])
def test_at_temperature_zero_one_code_is_left_and_nothing_is_nan(bars):
    logits = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    logits[0] = 2.0  # all alike: the first
    logits[1, 3:] = sampling.FORBIDDEN
    kept = sampling.restrict(logits, temperature=0, **bars)
    shares = keras.ops.convert_to_numpy(keras.ops.softmax(kept))
    np.testing.assert_array_equal(shares, np.eye(7)[logits.argmax(1)])


def test_a_low_temperature_comes_near_to_zero():
    logits = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    cold, coldest = (
        keras.ops.convert_to_numpy(keras.ops.softmax(sampling.restrict(logits, temperature=t)))
        for t in (1e-3, 0)
    )
    np.testing.assert_allclose(cold, coldest, atol=1e-3)


# ---------------------------------------------------------------- streams


def test_no_two_streams_of_seeds_turns_and_images_are_alike():
    seeds = [0, 1, 2**32, 2**64 - 1, (0, 1), (1, 1), (0, 2), (2**32, 1)]
    first = {
        (seed, i): sampling.stream(seed, i).integers(2**63) for seed in seeds for i in range(20)
    }
    assert len(set(first.values())) == len(first)


def test_words_of_a_large_seed_are_no_other_seed_s_turn():
    def word(rng):
        return rng.integers(2**63)

    # NumPy lays the words of an entropy side by side; a spawn key does not.
    assert word(np.random.default_rng((2**32, 1))) == word(np.random.default_rng((0, 1, 1)))
    assert word(sampling.stream(2**32, 1)) != word(sampling.stream((0, 1), 1))


@pytest.mark.parametrize("seed", [-1, 2**64, (0, -1)])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="whole number"):
        sampling.stream(seed, 0)


# ---------------------------------------------------------------- the models


@pytest.mark.parametrize("make", [image_gpt, coarse], ids=["image-gpt", "coarse-to-fine"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_keys_and_values_change_no_code(make, guidance):
    model = make()
    fast = model.sample(TEXT, seed=3, guidance=guidance, top_k=9)
    slow = model.sample(TEXT, seed=3, guidance=guidance, top_k=9, cached=False)
    np.testing.assert_array_equal(fast, slow)
    assert fast.shape == (2, 16, 16)
    assert 0 <= fast.min() <= fast.max() < 36


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_compiled_loop_follows_the_same_path(solver, guidance):
    model = flow()
    options = {"seed": 3, "steps": 4, "solver": solver, "guidance": guidance}
    fast = model.sample(TEXT, **options)
    slow = model.sample(TEXT, **options, compiled=False)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert fast.shape == (2, 16, 16, 2)


def test_a_path_passes_where_the_walk_passes():
    model = flow()
    options = {"steps": 4, "guidance": 2.0}
    path = model.path(TEXT, 3, stops=4, **options)
    ends = model.config.spread * path[:, -1]
    np.testing.assert_allclose(model.sample(TEXT, 3, **options), ends, atol=1e-6)
    x = path[:, 0]
    for i in range(4):
        x = model.step(x, TEXT, np.float32(i / 4), np.float32(1 / 4), 2.0, "euler")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(x), path[:, i + 1], atol=1e-5)


def test_the_steps_of_an_interval_are_guided_and_no_others():
    model = flow()
    whole = model.sample(TEXT, 3, steps=4, guidance=2.0, interval=(0.25, 0.5))
    x = model.path(TEXT, 3, stops=1, steps=4)[:, 0]
    for i, guidance in enumerate((1.0, 2.0, 2.0, 1.0)):
        x = model.step(x, TEXT, np.float32(i / 4), np.float32(1 / 4), guidance, "euler")
    x = keras.ops.convert_to_numpy(x) * model.config.spread
    np.testing.assert_allclose(whole, x, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "kept", "option"),
    [
        (image_gpt, "_writer", "temperature"),
        (image_gpt, "_chooser", "temperature"),
        (coarse, "_drawer", "temperature"),
        (flow, "_walk", "guidance"),
    ],
)
def test_a_model_keeps_the_last_few_compiled_functions_only(make, kept, option, monkeypatch):
    compiled = []

    def pretend(run, *_, **__):
        compiled.append(run)
        shape = (2, 16, 16, 2) if make is flow else (2, coarse_to_fine.LENGTH, 8)
        places = shape if make is not image_gpt or kept == "_writer" else (2, 1, 8)
        places = (2, 64, 8) if kept == "_writer" else places
        return lambda *arguments: np.zeros(places, np.int32)

    monkeypatch.setattr(backend, "compile_step", pretend)
    model, most = make(), backend.COMPILED
    options = {"cached": False} if kept == "_chooser" else {}
    values = [2 + i / 100 for i in range(3 * most)]
    for value in values:
        model.sample(TEXT, **options, **{option: value})
    assert getattr(model, kept).cache_info().currsize == most
    assert len(compiled) == len(values)
    for value in values[-most:]:  # the last ones are there still
        model.sample(TEXT, **options, **{option: value})
    assert len(compiled) == len(values)


@pytest.mark.parametrize("make", [image_gpt, coarse, flow])
def test_an_image_does_not_depend_on_its_batch(make):
    model = make()
    np.testing.assert_allclose(model.sample(TEXT, 5)[:1], model.sample(TEXT[:1], 5), atol=1e-5)
    assert np.any(model.sample(TEXT, 5) != model.sample(TEXT, 6))
    np.testing.assert_allclose(
        model.sample(TEXT, (5, 2))[:1], model.sample(TEXT[:1], (5, 2)), atol=1e-5
    )
    assert np.any(model.sample(TEXT, 5) != model.sample(TEXT, (5, 1)))


def test_image_gpt_looks_back_only():
    model, rng = image_gpt(), np.random.default_rng(0)
    tokens = rng.integers(0, 6, (2, 64, 8))
    before = keras.ops.convert_to_numpy(model({"text": TEXT, "tokens": tokens}))
    tokens[:, 40, 1] = (tokens[:, 40, 1] + 1) % 6
    after = keras.ops.convert_to_numpy(model({"text": TEXT, "tokens": tokens}))
    np.testing.assert_allclose(before[:, :40], after[:, :40], atol=1e-5)
    assert np.all(np.abs(before[:, 41:] - after[:, 41:]).max(1) > 1e-6)


@pytest.mark.parametrize("group", range(len(coarse_to_fine.GROUPS)))
def test_a_group_sees_the_earlier_ones_only(group):
    model, rng = coarse(), np.random.default_rng(0)
    end = sum(coarse_to_fine.GROUPS[: group + 1])
    start = end - coarse_to_fine.GROUPS[group]
    tokens = rng.integers(0, 6, (2, coarse_to_fine.LENGTH, 8))
    before = keras.ops.convert_to_numpy(model({"text": TEXT, "tokens": tokens}))
    tokens[:, start, 0] = (tokens[:, start, 0] + 1) % 6
    after = keras.ops.convert_to_numpy(model({"text": TEXT, "tokens": tokens}))
    unmoved = [place for place in range(end) if place != start]
    np.testing.assert_allclose(before[:, unmoved], after[:, unmoved], atol=1e-5)
    if end < coarse_to_fine.LENGTH:  # the next group reads it
        assert np.abs(before[:, end:] - after[:, end:]).max() > 1e-6


def test_the_pyramid_holds_averaged_latents_and_gives_the_codes_back():
    latents = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 2)).astype(np.float32)
    tokens = pyramid(latents, (4, 6), alphabet=5)
    assert tokens.shape == (2, coarse_to_fine.LENGTH, 8)
    corner = latents_to_codes(latents[:, :8, :8].mean((1, 2)), (4, 6))
    np.testing.assert_array_equal(tokens[:, 0, 0] + 5 * tokens[:, 0, 1], corner)
    corner = latents_to_codes(latents[:, :2, :2].mean((1, 2)), (4, 6))
    np.testing.assert_array_equal(tokens[:, 5, 0] + 5 * tokens[:, 5, 1], corner)
    np.testing.assert_array_equal(finest(tokens, alphabet=5), latents_to_codes(latents, (4, 6)))


@given(st.integers(0, 1000), st.sampled_from([2, 4, 16]))
@settings(max_examples=20, deadline=None)
def test_what_is_spelled_is_read_again(seed, side):
    codes = np.random.default_rng(seed).integers(0, 49, (2, side, side))
    tokens = spell(codes, alphabet=7)
    assert tokens.shape == (2, side * side // 4, 8)
    assert 0 <= tokens.min() <= tokens.max() < 7
    np.testing.assert_array_equal(unspell(tokens, alphabet=7), codes)


def test_a_token_is_two_by_two_codes():
    tokens = spell(np.arange(16).reshape(1, 4, 4))
    np.testing.assert_array_equal(tokens[0, 1, ::2], [2, 3, 6, 7])
    with pytest.raises(ValueError, match="two letters spell 0 to 8"):
        spell(np.arange(16).reshape(1, 4, 4), alphabet=3)


def test_each_token_reads_the_same_part_of_the_image():
    # Where each of the 85 tokens lies: its row and column in the finest grid.
    rows, columns = np.divmod(np.arange(64), 8)
    for values in (rows, columns):
        of = np.concatenate(
            [
                values.reshape(side, 8 // side, side, 8 // side).mean((1, 3)).ravel()
                for side in (1, 2, 4)
            ]
            + [values.reshape(8, 8)[r::2, c::2].ravel() for r, c in coarse_to_fine.PASSES]
        )
        apart = np.abs(of - of[coarse_to_fine._PARENT])[1:]
        assert np.all(apart[:4] == 2)
        assert np.all(apart[4:20] == 1)
        assert np.all(apart[20:] <= 1)


# ---------------------------------------------------------------- letters

WORDS = np.array([[a, b] for a in range(3) for b in range(3)], np.int32)


def likelihoods(model, y):
    logs = model.log_probability(np.repeat(y, len(WORDS), axis=0), WORDS)
    return np.exp(keras.ops.convert_to_numpy(logs))


def test_all_words_add_up_to_one():
    model = Letters(3, letters=2, width=8, seed=0)
    y = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    assert likelihoods(model, y).sum() == pytest.approx(1, abs=1e-5)


def test_drawn_words_follow_their_probability():
    model, n = Letters(3, letters=2, width=8, seed=0), 20_000
    y = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    uniform = np.random.default_rng(1).random((n, 1, 2), dtype=np.float32)
    drawn = keras.ops.convert_to_numpy(model.pick(np.repeat(y[None], n, axis=0), uniform))
    shares = np.bincount(drawn[:, 0] @ [3, 1], minlength=9) / n
    np.testing.assert_allclose(shares, likelihoods(model, y), atol=0.015)


# ---------------------------------------------------------------- flow


def test_flow_starts_at_noise_and_ends_at_the_image():
    noise, image = np.zeros((1, 16, 16, 2)), np.ones((1, 16, 16, 2))
    for time, value in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0)):
        np.testing.assert_allclose(interpolate(noise, image, np.array([time])), value)


def test_a_constant_velocity_is_followed_exactly():
    shape = TransformerConfig(1, 8, heads=2, kv_heads=2, hidden=8, modulated=True)
    model = Flow(FlowConfig(shape, channels=2, spread=1.0, text_width=6))
    model.head.bias.assign([1.0, -2.0] * 4)  # the kernel is zero: the velocity is the bias
    noise = sampling.normals(2, (16, 16, 2), seed=0)
    np.testing.assert_allclose(
        model.sample(TEXT, 0, steps=7), noise + np.array([1.0, -2.0]), atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_gpt().sample(TEXT[:, :3]), "Text embeddings"),
        (lambda: coarse().sample(TEXT[:0]), "Text embeddings"),
        (lambda: image_gpt().sample(TEXT, seed=-1), "whole number from 0"),
        (lambda: image_gpt().sample(TEXT, top_k=0), "top_k"),
        (lambda: coarse().sample(TEXT, temperature=-1), "temperature"),
        (lambda: coarse().sample(TEXT, top_p=0), "top_p"),
        (lambda: coarse().sample(TEXT, min_p=2), "min_p"),
        (lambda: flow().sample(TEXT, steps=0), "steps = 0; give a whole number from 1"),
        (lambda: flow().sample(TEXT, solver="rk4"), "'rk4'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
