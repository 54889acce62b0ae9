"""What holds for the transformer, on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from genlib import backend
from genlib.models import transformer
from genlib.models.transformer import Transformer, TransformerConfig, empty_cache

SMALL = TransformerConfig(layers=2, width=16, heads=4, kv_heads=2, hidden=24)


def tokens(batch: int, n: int, seed: int = 0, width: int = SMALL.width) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, n, width)).astype(np.float32)


def numpy(x):
    return ops.convert_to_numpy(x)


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(numpy(a), numpy(b), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(SMALL, seed=0)


@pytest.fixture(scope="module")
def modulated() -> Transformer:
    config = TransformerConfig(layers=2, width=16, heads=4, kv_heads=4, hidden=24, modulated=True)
    return Transformer(config, seed=0)


# ---------------------------------------------------------------- the cache


def test_token_by_token_with_a_cache_equals_the_whole_at_once(model):
    x = tokens(3, 7)
    whole = numpy(model(x))
    cache = empty_cache(SMALL, batch=3, length=9)  # two slots stay empty and must not be seen
    for i in range(7):
        y, cache = model(x[:, i : i + 1], start=i, cache=cache)
        close(y[:, 0], whole[:, i])


@pytest.mark.parametrize(("first", "spare"), [(1, 0), (4, 3), (6, 1)])
def test_a_prompt_then_the_rest_equals_the_whole_at_once(model, first, spare):
    x = tokens(2, 7)
    y, cache = model(x[:, :first], cache=empty_cache(SMALL, 2, 7 + spare))
    rest, _ = model(x[:, first:], start=first, cache=cache)
    close(ops.concatenate([y, rest], axis=1), model(x))


def test_a_compiled_loop_over_the_cache_equals_the_whole_at_once(model):
    x = ops.convert_to_tensor(tokens(2, 6))

    def unroll(x):
        def step(i, y, cache):
            new, cache = model(ops.slice(x, (0, i, 0), (2, 1, 16)), start=i, cache=cache)
            return i + 1, ops.slice_update(y, (0, i, 0), new), cache

        state = (ops.convert_to_tensor(0), ops.zeros_like(x), empty_cache(SMALL, 2, 6))
        return ops.while_loop(lambda i, y, cache: i < 6, step, state)[1]

    xla = backend.name() != "torch"
    close(backend.compile_step(unroll, model.variables, xla=xla)(x), model(x))


def test_what_lies_in_unwritten_slots_does_not_matter(model):
    x = tokens(1, 3)
    dirty = [(k + 7.0, v - 7.0) for k, v in empty_cache(SMALL, 1, 8)]
    for mask in ("causal", "full", np.ones((3, 8), bool)):
        clean, _ = model(x, mask=mask, cache=empty_cache(SMALL, 1, 8))
        other, _ = model(x, mask=mask, cache=dirty)
        close(clean, other)


# ---------------------------------------------------------------- masks


def test_causal_means_that_later_tokens_change_nothing_before_them(model):
    x = tokens(2, 6)
    changed = x.copy()
    changed[:, 4:] += 1
    before, after = numpy(model(x)), numpy(model(changed))
    close(before[:, :4], after[:, :4])
    assert (np.abs(before - after)[:, 4:].max(-1) > 1e-3).all()


def test_full_means_that_every_token_sees_every_other(model):
    x = tokens(1, 4)
    changed = x.copy()
    changed[:, 3] += 1
    difference = np.abs(numpy(model(x, mask="full")) - numpy(model(changed, mask="full")))
    assert (difference.max(-1) > 1e-4).all()


def test_block_causal_tokens_see_their_own_block_and_those_before(model):
    block = np.array([0, 1, 1, 1, 2, 2])
    mask = block[:, None] >= block[None]
    x = tokens(1, 6)
    base = numpy(model(x, mask=mask))
    for changed_token in range(6):
        changed = x.copy()
        changed[:, changed_token] += 1
        moved = np.abs(numpy(model(changed, mask=mask)) - base).max((0, -1)) > 1e-5
        np.testing.assert_array_equal(moved, block >= block[changed_token])


def test_block_by_block_with_a_cache_equals_the_block_causal_mask(model):
    block = np.array([0, 1, 1, 1, 2, 2])
    x = tokens(2, 6)
    whole = numpy(model(x, mask=block[:, None] >= block[None]))
    cache, start = empty_cache(SMALL, 2, 6), 0
    for size in (1, 3, 2):
        y, cache = model(x[:, start : start + size], mask="full", start=start, cache=cache)
        close(y, whole[:, start : start + size])
        start += size


def test_left_padding_behind_a_mask_changes_nothing(model):
    x = tokens(1, 4)
    padded = np.concatenate([tokens(1, 3, seed=1), x], axis=1)
    real = np.arange(7) >= 3
    mask = real[None] & (np.arange(7)[None] <= np.arange(7)[:, None])
    positions = np.maximum(np.arange(7) - 3, 0)[None]
    y = numpy(model(padded, mask=mask, positions=positions))
    assert np.isfinite(y).all()  # a padded token sees nothing at all, and is still a number
    close(y[:, 3:], model(x))


# ---------------------------------------------------------------- the parts


def attention_by_hand(x: np.ndarray, block, heads: int) -> np.ndarray:
    """Causal attention of one sequence `(n, width)`, without rotation, head by head."""
    n, width = x.shape
    size = width // heads
    q, k, v = np.split(x @ numpy(block.qkv.kernel), 3, axis=-1)
    out = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / np.sqrt(size)
        scores[np.triu_indices(n, 1)] = -np.inf
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, part] = weight / weight.sum(-1, keepdims=True) @ v[:, part]
    return out @ numpy(block.out.kernel)


def test_with_as_many_key_heads_as_heads_attention_is_the_plain_one():
    config = TransformerConfig(layers=1, width=16, heads=4, kv_heads=4, hidden=24)
    block = Transformer(config, seed=1).blocks[0]
    x = tokens(1, 5)
    no_turn = transformer.rotation(ops.zeros(5), config)
    seen = ops.convert_to_tensor(np.tril(np.ones((1, 1, 5, 5), bool)))
    got, _ = block._attend(ops.convert_to_tensor(x), 5, 0, no_turn, seen, None)
    close(got[0], attention_by_hand(x[0], block, heads=4))


def test_grouped_heads_equal_plain_heads_with_repeated_keys():
    plain_config = TransformerConfig(layers=2, width=16, heads=4, kv_heads=4, hidden=24)
    grouped, plain = Transformer(SMALL, seed=0), Transformer(plain_config, seed=0)
    for a, b in zip(grouped.blocks, plain.blocks, strict=True):
        q, k, v = np.split(numpy(a.qkv.kernel), (16, 24), axis=1)
        k, v = (np.repeat(m.reshape(16, 2, 4), 2, axis=1).reshape(16, 16) for m in (k, v))
        b.qkv.kernel.assign(np.concatenate([q, k, v], axis=1))
        for name in ("out", "gate_up", "down"):
            getattr(b, name).kernel.assign(getattr(a, name).kernel)
    close(grouped(tokens(2, 5)), plain(tokens(2, 5)))


@settings(deadline=None, max_examples=10)
@given(a=st.integers(0, 100), b=st.integers(0, 100), shift=st.integers(0, 100))
def test_rotary_scores_depend_on_the_distance_only(a, b, shift):
    config = TransformerConfig(layers=1, width=8, heads=1, kv_heads=1, hidden=8)
    q, k = tokens(2, 1, width=8)[:, None, :, :]

    def score(position_q, position_k):
        turned_q = transformer.rotate(q[None], transformer.rotation([position_q], config))
        turned_k = transformer.rotate(k[None], transformer.rotation([position_k], config))
        return float(ops.sum(turned_q * turned_k))

    assert score(a, b) == pytest.approx(score(a + shift, b + shift), abs=1e-3)


def test_rotary_turns_interleaved_pairs_by_known_angles():
    config = TransformerConfig(layers=1, width=4, heads=1, kv_heads=1, hidden=4, rotary_base=100.0)
    x = np.array([1.0, 0.0, 0.0, 2.0], np.float32).reshape(1, 1, 1, 4)
    got = numpy(transformer.rotate(x, transformer.rotation([3], config))).ravel()
    # The first pair turns by 3, the second by 3 / 100^(2/4) = 0.3.
    close(got, [np.cos(3), np.sin(3), -2 * np.sin(0.3), 2 * np.cos(0.3)])


def test_start_shifts_the_positions(model):
    x = tokens(1, 3)
    close(model(x, start=5), model(x, positions=np.arange(5, 8)))
    close(model(x, start=5), model(x))  # a shift of all positions leaves all distances


# ---------------------------------------------------------------- modulation


def test_a_modulated_transformer_starts_as_the_identity(modulated):
    x, condition = tokens(2, 5), tokens(2, 1, seed=3)[:, 0]
    close(modulated(x, mask="full", condition=condition), modulated.norm(x))


def test_once_its_gates_open_a_modulated_transformer_obeys_its_condition():
    config = TransformerConfig(layers=1, width=16, heads=4, kv_heads=4, hidden=24, modulated=True)
    model = Transformer(config, seed=0)
    kernel = model.blocks[0].modulation.kernel
    kernel.assign(np.random.default_rng(0).standard_normal(kernel.shape) * 0.1)
    x, condition = np.repeat(tokens(1, 5), 2, axis=0), tokens(2, 1, seed=3)[:, 0]
    both = numpy(model(x, condition=condition))
    assert np.abs(both[0] - both[1]).max() > 1e-2
    close(both[1:], model(x[1:], condition=condition[1:]))


# ---------------------------------------------------------------- weights and training


def test_the_seed_decides_the_weights():
    first, again, other = (Transformer(SMALL, seed=s).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim == 2)


def test_it_learns_to_copy_the_token_before():
    codes = np.random.default_rng(0).integers(0, 5, (64, 8))
    table = np.eye(16, dtype=np.float32)
    x = keras.Input((8, 16))
    head = keras.layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    model = keras.Model(x, head(Transformer(SMALL, seed=0)(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    target = np.roll(codes, 1, axis=1)
    target[:, 0] = 0
    before = model.evaluate(table[codes], target, verbose=0)
    model.fit(table[codes], target, epochs=12, batch_size=16, verbose=0, shuffle=False)
    assert model.evaluate(table[codes], target, verbose=0) < before / 4


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change",
    [{"layers": 0}, {"width": 18}, {"heads": 16}, {"kv_heads": 3}, {"hidden": -1}],
)
def test_sizes_that_fit_no_transformer_are_refused(change):
    sizes = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "hidden": 24} | change
    with pytest.raises(ValueError, match="fits no transformer"):
        TransformerConfig(**sizes)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (tokens(1, 3, width=8), {}, "must be"),
        (tokens(1, 3)[0], {}, "must be"),
        (tokens(1, 3), {"mask": "diagonal"}, "No mask 'diagonal'"),
        (tokens(1, 3), {"mask": np.zeros((3, 3), np.float32)}, "bool"),
        (tokens(1, 3), {"condition": tokens(1, 1)[:, 0]}, "takes none"),
        (tokens(1, 3), {"cache": empty_cache(SMALL, 1, 2)}, "do not fit a cache of 2"),
        (tokens(1, 3), {"cache": empty_cache(SMALL, 1, 4), "start": 2}, "do not fit"),
    ],
)
def test_a_bad_argument_is_named(model, x, options, message):
    with pytest.raises(ValueError, match=message):
        model(x, **options)


def test_a_missing_condition_is_named(modulated):
    with pytest.raises(ValueError, match="condition is missing"):
        modulated(tokens(1, 3))
