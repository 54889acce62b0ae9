"""What holds for the ring of Gaussians."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlib.data import toy


def test_the_ring_covers_itself_and_meets_the_closed_form():
    n = 40_000
    modes, quality = toy.modes_covered(toy.ring_of_gaussians(n, seed=0))
    expected = 1 - np.exp(-9 / 2)  # the radius in units of std has the Rayleigh distribution
    assert modes == toy.MODES
    assert abs(quality - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_the_ring_has_the_mean_and_covariance_of_its_formula():
    samples = toy.ring_of_gaussians(100_000, seed=1).astype(np.float64)
    assert np.abs(samples.mean(axis=0)).max() < 0.03
    variance = toy.RADIUS**2 / 2 + toy.STD**2
    np.testing.assert_allclose(np.cov(samples.T), variance * np.eye(2), atol=0.03)


@given(st.sets(st.integers(0, toy.MODES - 1), min_size=1), st.integers(0, 2**32 - 1))
def test_exactly_the_modes_that_were_kept_are_counted(kept, seed):
    rng = np.random.default_rng(seed)
    modes = np.resize(sorted(kept), 400)
    samples = toy.CENTRES[modes] + rng.uniform(-toy.STD, toy.STD, (400, 2))
    assert toy.modes_covered(samples) == (len(kept), 1.0)


@pytest.mark.parametrize(("stray", "covered"), [(31, 1), (32, 2)])
def test_a_mode_counts_from_a_quarter_of_its_fair_share(stray, covered):
    samples = np.repeat(toy.CENTRES[:2], [1024 - stray, stray], axis=0)
    assert toy.modes_covered(samples).modes == covered


def test_samples_far_from_every_mode_are_not_counted():
    samples = np.concatenate([np.repeat(toy.CENTRES, 10, axis=0), np.zeros((80, 2))])
    assert toy.modes_covered(samples) == (8, 0.5)


def test_the_seed_decides_the_samples():
    same, again, other = (toy.ring_of_gaussians(50, seed=s) for s in (3, 3, 4))
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


@pytest.mark.parametrize(
    "samples", [np.zeros((31, 2)), np.zeros((64, 3)), np.zeros(64), np.full((64, 2), np.nan)]
)
def test_bad_samples_are_refused(samples):
    with pytest.raises(ValueError, match="samples"):
        toy.modes_covered(samples)


def test_an_empty_draw_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        toy.ring_of_gaussians(0, seed=0)
