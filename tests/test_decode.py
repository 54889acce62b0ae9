"""Decoding: speculation draws from the target's distribution, parallel decoding comes near it."""

import itertools

import numpy as np
import pytest
from scipy import stats

from genlib import backend
from genlib.models import image_gpt, letters
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.transformer import TransformerConfig
from genlib.speed import decode
from genlib.speed.decode import Speculator, unmask

TEXT = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)


def wild(layers=1, seed=0, alphabet=4):
    """A tiny model with decided opinions."""
    shape = TransformerConfig(layers, 16, heads=2, kv_heads=1, hidden=16)
    model = ImageGPT(ImageGPTConfig(shape, alphabet=alphabet, text_width=8, prefix=2), seed)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    return model


@pytest.fixture
def short(monkeypatch):
    """Images of four tokens: long enough for two rounds and for a bonus token."""
    for module in (image_gpt, decode):
        monkeypatch.setattr(module, "LENGTH", 4)


def test_a_draft_that_is_its_target_is_always_believed(short):
    model = wild()
    made = Speculator(model, model, ahead=2).sample(TEXT, seed=1)
    assert made.codes.shape == (2, 4, 4)
    assert made.rounds.tolist() == [1, 1]  # 1 token, then 2 proposals and a bonus
    assert made.tokens_per_round == 3


def test_greedy_speculation_writes_what_greedy_decoding_writes(short):
    target, draft = wild(2, seed=1), wild(1, seed=2)
    options = {"top_k": 1}
    made = Speculator(target, draft, ahead=3, **options).sample(TEXT, seed=1)
    np.testing.assert_array_equal(made.codes, target.sample(TEXT, seed=9, **options))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_speculation_at_temperature_zero_writes_what_plain_decoding_writes(short, guidance):
    target, draft = wild(2, seed=1), wild(1, seed=2)
    options = {"temperature": 0, "min_p": 0.05, "guidance": guidance}
    made = Speculator(target, draft, ahead=3, **options).sample(TEXT, seed=1)
    expected = target.sample(TEXT, seed=9, **options)
    np.testing.assert_array_equal(made.codes, expected)
    np.testing.assert_array_equal(expected, target.sample(TEXT, top_k=1, guidance=guidance))


def test_greedy_speculation_obeys_guidance(short):
    target, draft = wild(2, seed=1), wild(1, seed=2)
    made = Speculator(target, draft, ahead=2, guidance=2.0, top_k=1).sample(TEXT, seed=1)
    np.testing.assert_array_equal(made.codes, target.sample(TEXT, top_k=1, guidance=2.0))


# PyTorch draws without a graph: a minute or more for each.
GRAPH_ONLY = pytest.mark.skipif(backend.name() == "torch", reason="takes minutes without a graph")


@pytest.mark.parametrize("ahead", [1, pytest.param(3, marks=GRAPH_ONLY)])
def test_speculation_draws_each_letter_as_often_as_the_target_does(short, ahead):
    target, draft = wild(2, seed=3, alphabet=2), wild(1, seed=4, alphabet=2)
    n = 300
    text = np.repeat(TEXT[:1], n, axis=0)
    fast = Speculator(target, draft, ahead=ahead).sample(text, seed=5)
    slow = target.sample(text, seed=6)
    assert 1 < fast.tokens_per_round < ahead + 1  # the draft is believed at times, not always
    one, other = (letters.spell(codes, 2) for codes in (fast.codes, slow))
    # Pairs of letters across the border of tokens and inside them.
    worst = 1.0
    for a, b in itertools.pairwise(range(32)):
        x, y = one.reshape(n, -1), other.reshape(n, -1)
        counts = np.array([np.bincount(2 * z[:, a] + z[:, b], minlength=4) for z in (x, y)])
        counts = counts[:, counts.sum(0) > 0]
        worst = min(worst, stats.chi2_contingency(counts)[1])
    assert worst > 1e-4 / 31  # Bonferroni's share of 1 in 10,000


@GRAPH_ONLY
def test_a_wrong_rule_would_be_caught_by_that_test(short, monkeypatch):
    # Draw again from p instead of the excess: the test above must be able to fail.
    target, draft = wild(2, seed=3, alphabet=2), wild(1, seed=4, alphabet=2)
    monkeypatch.setattr(decode.ops, "maximum", lambda a, b: a * 0 + 1)
    n = 300
    text = np.repeat(TEXT[:1], n, axis=0)
    made = Speculator(target, draft, ahead=3).sample(text, seed=5)
    one, other = (letters.spell(c, 2).reshape(n, -1) for c in (made.codes, target.sample(text, 6)))
    p = [
        stats.chi2_contingency(
            np.array([np.bincount(z[:, i], minlength=2) + 1 for z in (one, other)])
        )[1]
        for i in range(8, 32)
    ]
    assert min(p) < 1e-6


def test_bad_speculators_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Speculator(wild(), wild(), ahead=0)
    with pytest.raises(ValueError, match="alphabet"):
        Speculator(wild(alphabet=4), wild(alphabet=2))


def chain(sentence, stay=0.9):
    """Exact marginals of a two-letter Markov chain given the known letters."""
    n, length = sentence.shape
    step = np.array([[stay, 1 - stay], [1 - stay, stay]])
    known = np.where(sentence[..., None] < 0, 1.0, np.eye(2)[np.maximum(sentence, 0)])
    ahead, back = np.ones((n, length, 2)), np.ones((n, length, 2))
    ahead[:, 0] = 0.5
    for i in range(1, length):
        ahead[:, i] = (ahead[:, i - 1] * known[:, i - 1]) @ step
    for i in range(length - 2, -1, -1):
        back[:, i] = (back[:, i + 1] * known[:, i + 1]) @ step.T
    p = ahead * back * known
    return p / p.sum(-1, keepdims=True)


def changes(sentences):
    return (np.diff(sentences, axis=1) != 0).mean()


def test_parallel_decoding_in_one_pass_forgets_what_tokens_share():
    assert abs(changes(unmask(chain, 2000, 8, passes=1)) - 0.5) < 0.03


def test_parallel_decoding_of_one_token_a_pass_is_exact():
    assert abs(changes(unmask(chain, 2000, 8, passes=8, randomness=1e6)) - 0.1) < 0.02


def test_more_passes_come_nearer():
    wrong = [abs(changes(unmask(chain, 1000, 8, passes=k)) - 0.1) for k in (1, 2, 4)]
    assert wrong[0] > wrong[1] > wrong[2]


@pytest.mark.parametrize("passes", range(1, 9))
def test_every_number_of_passes_fills_the_sentence_with_as_many_forwards(passes):
    calls = []

    def count(sentence):
        calls.append((sentence < 0).sum(1))
        return chain(sentence)

    assert (unmask(count, 3, 8, passes) >= 0).all()
    assert len(calls) == passes
    assert (np.diff([c[0] for c in calls]) < 0).all()


def test_bad_passes_are_refused():
    with pytest.raises(ValueError, match="passes"):
        unmask(chain, 2, 8, passes=9)


def test_eager_decoding_writes_the_same_codes(short):
    model = wild(2)
    expected = model.sample(TEXT, 3)
    for cached in (True, False):
        got = model.sample(TEXT, 3, cached=cached, compiled=False)
        np.testing.assert_array_equal(got, expected)
