"""Caches return what was put in, let go of the oldest, and say how often they helped."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlib.data import captions
from genlib.models import sampling
from genlib.models.flow import Flow, FlowConfig, resume
from genlib.models.transformer import TransformerConfig
from genlib.serve.cache import ExactCache, SemanticCache
from genlib.serve.load import Asked, is_wrong, paraphrases, replay, zipf_stream


def test_what_was_not_used_for_longest_goes_first():
    cache = ExactCache(entries=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.find("a") == 1
    cache.put("c", 3)
    assert (cache.find("b"), cache.find("a"), cache.find("c")) == (None, 1, 3)
    assert (cache.hits, cache.misses, cache.hit_rate) == (3, 1, 0.75)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40))
def test_a_cache_never_holds_more_bytes_than_its_limit_and_never_a_wrong_value(puts):
    cache, latest = ExactCache(limit_bytes=20), {}
    for key, size in puts:
        cache.put(key, bytes([key]) * size)
        latest[key] = bytes([key]) * size
        assert cache.bytes <= 20
        assert cache.find(key) == latest[key]
    held = [cache.find(key) for key in latest]
    assert sum(len(value) for value in held if value is not None) == cache.bytes
    assert all(value in (None, latest[key]) for key, value in zip(latest, held, strict=True))


def test_what_is_larger_than_the_whole_cache_is_not_kept_and_its_old_value_goes():
    cache = ExactCache(limit_bytes=10, size=lambda image: image.nbytes)
    cache.put("a", np.zeros(10, np.uint8))
    cache.put("a", np.zeros(11, np.uint8))
    assert cache.find("a") is None
    assert cache.bytes == len(cache) == 0


def test_the_nearest_direction_answers_if_it_is_near_enough():
    cache = SemanticCache(threshold=0.8)
    assert cache.find(np.ones(2)) is None
    assert cache.nearest(np.ones(2)) is None
    cache.put(np.array([1.0, 0.0]), "east")
    cache.put(np.array([0.0, 5.0]), "north")
    assert cache.find(np.array([3.0, 1.0])) == "east"  # length does not matter
    assert cache.find(np.array([1.0, 1.0])) is None  # 45°
    assert cache.nearest(np.array([1.0, 2.0])) == (pytest.approx(2 / 5**0.5), "north")
    assert (cache.hits, cache.misses) == (1, 2)


def test_a_semantic_cache_agrees_with_looking_at_everything():
    rng = np.random.default_rng(0)
    stored, asked = rng.standard_normal((50, 8)), rng.standard_normal((40, 8))
    cache = SemanticCache(threshold=0.6, entries=50)
    for i, row in enumerate(stored):
        cache.put(row, i)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asked, stored)]
    cosines = unit[0] @ unit[1].T
    expected = [int(row.argmax()) if row.max() >= 0.6 else None for row in cosines]
    assert [cache.find(row) for row in asked] == expected
    assert None in expected


def test_a_full_semantic_cache_lets_go_of_what_was_not_used_for_longest():
    cache = SemanticCache(threshold=0.9, entries=2)
    axes = np.eye(3)
    cache.put(axes[0], 0)
    cache.put(axes[1], 1)
    assert cache.find(axes[0]) == 0
    cache.put(axes[2], 2)
    assert [cache.find(axis) for axis in axes] == [0, None, 2]
    assert len(cache) == 2


def test_an_embedding_of_nothing_is_near_to_nothing():
    cache = SemanticCache(threshold=0.5)
    cache.put(np.zeros(4), "silence")
    assert cache.find(np.ones(4)) is None
    assert cache.find(np.zeros(4)) is None


@pytest.mark.parametrize(
    "bad", [{}, {"entries": 0}, {"limit_bytes": 0}, {"entries": 3, "limit_bytes": -1}]
)
def test_a_cache_without_a_sensible_limit_is_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        ExactCache(**bad)


@pytest.mark.parametrize("bad", [{"threshold": 1.1}, {"threshold": 0.5, "entries": 0}])
def test_a_semantic_cache_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="a cosine"):
        SemanticCache(**bad)


def small_flow():
    shape = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
    model = Flow(FlowConfig(shape, channels=2, text_width=8))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    return model, rng.standard_normal((3, 8)).astype(np.float32)


@pytest.mark.parametrize("begin", [0, 2, 6, 8])
def test_resuming_an_image_s_own_state_gives_the_same_image(begin):
    flow, said = small_flow()
    whole = flow.sample(said, 5, steps=8, guidance=2.0)
    path = flow.path(said, 5, stops=4, steps=8, guidance=2.0)
    ended = resume(flow, path[:, begin // 2], said, begin=begin, steps=8, guidance=2.0)
    np.testing.assert_allclose(ended, whole, atol=1e-5)


def test_a_late_start_stays_nearer_to_the_image_that_was_cached():
    flow, said = small_flow()
    path = flow.path(said, 5, stops=4, steps=8, guidance=2.0)
    last = path[:, -1] * flow.config.spread
    moved = [
        np.abs(resume(flow, path[:, k], -said, begin=2 * k, steps=8, guidance=2.0) - last).mean()
        for k in range(5)
    ]
    assert all(a > b for a, b in pairwise(moved))


def test_states_that_do_not_fit_are_refused():
    flow, said = small_flow()
    states = np.zeros((3, 16, 16, 2), np.float32)
    with pytest.raises(ValueError, match="from 0 to 8"):
        resume(flow, states, said, begin=9, steps=8)
    with pytest.raises(ValueError, match="for each of 3"):
        resume(flow, states[:2], said, begin=0)


def test_noise_that_is_given_is_used_and_another_shape_is_refused():
    flow, said = small_flow()
    noise = sampling.normals(3, (16, 16, 2), seed=5)
    given, drawn = flow.sample(said, 9, steps=2, noise=noise), flow.sample(said, 5, steps=2)
    np.testing.assert_array_equal(given, drawn)
    with pytest.raises(ValueError, match="noise has shape"):
        flow.sample(said, steps=2, noise=noise[:2])


def test_the_stream_follows_zipf_s_law_and_its_seed():
    prompts = [[f"{k}a", f"{k}b"] for k in range(20)]
    stream = zipf_stream(20_000, prompts, exponent=1.0, seed=3)
    assert stream == zipf_stream(20_000, prompts, exponent=1.0, seed=3)
    counts = np.array([sum(s in p for s in stream) for p in prompts])
    expected = 20_000 / np.arange(1, 21) / (1 / np.arange(1, 21)).sum()
    assert np.abs(counts - expected).max() < 5 * expected.max() ** 0.5
    assert abs(stream.count("0a") - stream.count("0b")) < 5 * counts[0] ** 0.5
    with pytest.raises(ValueError, match="at least one wording"):
        zipf_stream(3, [["a"], []])


def test_paraphrases_of_one_intent_ask_for_the_same_and_of_two_do_not():
    intents = paraphrases(30, 4, seed=1)
    keys = set()
    for wordings in intents:
        assert len({a.text for a in wordings}) == len(wordings) <= 4
        assert len({(a.attributes, a.named) for a in wordings}) == 1
        asked = wordings[0]
        names = enumerate(captions.ATTRIBUTES)
        keys.add(tuple(asked.attributes[i] if name in asked.named else None for i, name in names))
    assert len(keys) == 30
    assert max(len(wordings) for wordings in intents) == 4
    assert intents == paraphrases(30, 4, seed=1)
    with pytest.raises(ValueError, match="at least 1"):
        paraphrases(0, 1)


def test_a_replayed_stream_says_whose_image_answered():
    assert replay(ExactCache(entries=1), list("aabab")).tolist() == [0, 0, 2, 3, 4]
    directions = np.array([[1, 0], [0, 1], [0.99, 0.1], [0.1, 0.99]])
    cache = SemanticCache(0.9)
    assert replay(cache, directions).tolist() == [0, 1, 0, 1]
    assert cache.hit_rate == 0.5


def test_what_a_prompt_leaves_open_cannot_be_wrong():
    asked = [Asked("a sunset", (2, 0, 1, 0, 1), frozenset({"time"}))] * 3
    read = np.array([[2, 5, 3, 4, 4], [1, 0, 1, 0, 1], [2, 0, 1, 0, 1]])
    assert is_wrong(read, asked).tolist() == [False, True, False]
