"""Quantization: what rounding loses is bounded, the integers are exact, and files are small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlib import weights
from genlib.models.gan import build_generator
from genlib.speed import quantize as q

seeds = st.integers(0, 2**32 - 1)


def draw(seed, *shape, spread=1.0):
    """Normal numbers whose columns differ in size by up to `spread` powers of ten."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-spread, spread, shape[-1])
    return (rng.standard_normal(shape) * size).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([2, 4, 8]), st.sampled_from([None, 0, 1, -1]))
def test_a_round_trip_loses_at_most_half_a_scale(seed, bits, axis):
    w = draw(seed, 7, 5)
    s = q.scale(w, axis, bits)
    integers = q.quantize(w, s, bits)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 2 ** (bits - 1) - 1  # the largest weight uses the range
    assert (np.abs(w - q.dequantize(integers, s)) <= s / 2 * (1 + 1e-5)).all()


def test_zeros_stay_zeros_and_known_weights_give_known_integers():
    w = np.array([[0.0, 1.0], [0.0, -0.5]], np.float32)
    s = q.scale(w, axis=1)
    np.testing.assert_array_equal(q.quantize(w, s), [[0, 127], [0, -64]])
    np.testing.assert_allclose(s, [[1, 1 / 127]])


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([None, 1]))
def test_a_layers_output_moves_no_further_than_its_bound(seed, axis):
    w, x = draw(seed, 12, 6), draw(seed + 1, 4, 12)
    s = q.scale(w, axis)
    moved = np.abs(x.astype(float) @ w - x.astype(float) @ q.dequantize(q.quantize(w, s), s))
    assert (moved <= q.output_bound(x, s) * (1 + 1e-4)).all()


@given(seeds)
def test_the_bound_of_an_output_is_nearly_attained(seed):
    x = draw(seed, 1, 20)
    s = np.float32(1 / 64)
    # Every weight lies just short of midway to the level that hurts, and one fixes the scale.
    w = s * (5 + 0.499 * np.sign(x.T)).astype(np.float32)
    w = np.concatenate([w, [[127 * s]]])
    x = np.concatenate([x, [[0]]], axis=1)
    found = q.scale(w, axis=1)
    assert np.allclose(found, s)
    moved = np.abs(x @ w - x @ q.dequantize(q.quantize(w, found), found))
    assert moved > 0.98 * q.output_bound(x, found)


def test_scales_per_channel_keep_small_channels():
    w = draw(0, 64, 8, spread=2)
    error = [np.abs(w - q.dequantize(q.quantize(w, s), s)) for s in (q.scale(w), q.scale(w, 1))]
    small = np.abs(w).max(0).argmin()
    assert error[1][:, small].mean() < error[0][:, small].mean() / 20


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_product_of_integers_is_that_of_the_rounded_floats(seed):
    x, w = draw(seed, 3, 40, spread=0), draw(seed + 1, 40, 5)
    s, s_x = q.scale(w, axis=1), q.scale(x, axis=0)
    exact = q.dequantize(q.quantize(x, s_x), s_x).astype(float) @ q.dequantize(
        integers := q.quantize(w, s), s
    )
    np.testing.assert_allclose(q.integer_dense(x, integers, s), exact, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(1, out\)"):
        q.integer_dense(x, integers, q.scale(w, axis=0))


@settings(deadline=None)
@given(st.lists(st.integers(-7, 7), min_size=1, max_size=9))
def test_packing_two_integers_into_a_byte_is_undone(values):
    integers = np.array(values, np.int8)
    packed = q.pack(integers)
    assert packed.nbytes == -(-len(values) // 2)
    np.testing.assert_array_equal(q.unpack(packed, len(values)), integers)


@pytest.mark.parametrize(("bits", "least"), [(8, 3.7), (4, 6.5)])
def test_a_saved_model_is_small_and_comes_back_within_half_a_scale(tmp_path, bits, least):
    model, again = build_generator("conv", seed=1), build_generator("conv", seed=2)
    before = weights.model_arrays(model)
    size = q.save(model, tmp_path / "small", {"seed": 1}, bits)
    assert q.load(again, tmp_path / "small")["seed"] == 1
    after = weights.model_arrays(again)
    for (name, w), back in zip(before.items(), after.values(), strict=True):
        if w.size >= q.LEAST:  # as rows that share a scale
            rows = [
                a.reshape(-1, 32) if bits == 4 else a.reshape(-1, a.shape[-1]).T for a in (w, back)
            ]
            s = q.scale(rows[0], axis=0, bits=bits)
            # A scale is rounded to float16, by at most 1 part in 2000 of up to 127 levels.
            assert (np.abs(rows[0] - rows[1]) <= 0.6 * s).all(), name
        else:
            np.testing.assert_allclose(back, w, rtol=1e-3)
    assert sum(w.nbytes for w in before.values()) / size > least


@pytest.mark.parametrize("name", ["gan.v2", "0.5", "gan.v2.safetensors", "gan"])
def test_a_name_with_dots_is_kept_as_it_is(tmp_path, name):
    model, again = build_generator("mlp", seed=1), build_generator("mlp", seed=2)
    size = q.save(model, tmp_path / name)
    stem = name.removesuffix(".safetensors")
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert files.keys() == {f"{stem}.safetensors", f"{stem}.json"}
    assert size == files[f"{stem}.safetensors"]
    assert q.load(again, tmp_path / name)["bits"] == 8


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="2 to 8"):
        q.scale(np.ones(3), bits=9)
    with pytest.raises(ValueError, match="not finite"):
        q.scale(np.array([1, np.nan]))
    with pytest.raises(ValueError, match="8 or 4"):
        q.compress({"w": np.ones((64, 64), np.float32)}, bits=3)
    broken = q.compress({"w": np.ones((64, 64), np.float32)})
    del broken["w.scale"]
    with pytest.raises(weights.WeightsError, match=r"w\.scale"):
        q.expand(broken)
