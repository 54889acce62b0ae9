"""Metrics: known values, independent implementations, properties, intervals that hold."""

import numpy as np
import prdc as reference_prdc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import linalg, stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import polynomial_kernel

from genlib import metrics

features = hnp.arrays(
    np.float64, st.tuples(st.integers(3, 8), st.just(3)), elements=st.floats(-100, 100, width=32)
)
patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure


def gaussian(n, d=8, seed=0, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


# Fréchet distance


@patient
@given(hnp.arrays(np.float64, 3, elements=st.floats(-3, 3)), st.floats(0.5, 3), st.floats(0.5, 3))
def test_fid_of_exact_gaussians_is_the_closed_form(shift, scale_a, scale_b):
    # Six points whose mean is 0 and whose covariance is the identity, exactly.
    points = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(2.5)
    expected = (shift**2).sum() + 3 * (scale_a - scale_b) ** 2
    value = metrics.fid(points * scale_a, points * scale_b + shift)
    assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("d", [1, 5, 40])
def test_fid_agrees_with_scipys_matrix_root(d):
    mix = np.random.default_rng(9).normal(size=(d, d))
    a, b = gaussian(300, d, 1) @ mix, gaussian(200, d, 2, shift=0.5, scale=2)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.fid(a, b) == pytest.approx(expected, rel=1e-9)


@patient
@given(features)
def test_a_set_is_at_distance_zero_from_itself_and_its_own_order(x):
    size = 1 + np.square(x).max()
    assert metrics.fid(x, x[::-1]) <= 1e-9 * size


@patient
@given(features, features)
def test_fid_is_symmetric_and_not_negative(a, b):
    size = 1 + max(np.square(a).max(), np.square(b).max())
    forward, back = metrics.fid(a, b), metrics.fid(b, a)
    assert forward >= 0
    assert forward == pytest.approx(back, abs=1e-7 * size)


def test_fid_survives_features_that_never_vary():
    a = gaussian(50)
    a[:, :6] = 0
    assert metrics.fid(a, a) == pytest.approx(0, abs=1e-12)
    assert metrics.fid(a, a + 2) == pytest.approx(8 * 4)


@pytest.mark.parametrize("measure", [metrics.fid, metrics.kid])
def test_a_larger_shift_is_a_larger_distance(measure):
    a, b = gaussian(200, seed=1), gaussian(200, seed=2)
    values = [measure(a, b + shift) for shift in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values)


def test_the_jackknife_finds_the_bias_and_covers_the_mean_of_fid():
    """Forty draws of n = 200: the bias in theory is found, and intervals hold their promise."""
    d, n, shift = 4, 200, 1.0
    estimates = [
        metrics.fid_interval(gaussian(n, d, 2 * i), gaussian(n, d, 2 * i + 1, shift))
        for i in range(40)
    ]
    values = np.array([e.value for e in estimates])
    truth = d * shift**2
    corrected = np.array([e.value - e.bias for e in estimates])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(corrected.mean() - truth) < 3 * error
    assert values.mean() - truth > error  # the bias is there, so the correction does something
    covered = sum(e.low <= values.mean() <= e.high for e in estimates)
    assert covered >= 33  # 38 expected; fewer than 33 has a chance below 1 %


# Kernel distance


def reference_kid(a, b):
    aa, bb, ab = (polynomial_kernel(x, y, 3) for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within_a, within_b = aa.sum() - np.trace(aa), bb.sum() - np.trace(bb)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * ab.mean()


def test_kid_agrees_with_scikit_learns_kernel_whatever_the_chunks(monkeypatch):
    a, b = gaussian(70, seed=1), gaussian(50, seed=2, shift=0.3)
    expected = reference_kid(a, b)
    assert metrics.kid(a, b) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(metrics, "CHUNK", 100)
    assert metrics.kid(a, b) == pytest.approx(expected, rel=1e-9)


def test_kid_of_two_points_each_is_the_sum_by_hand():
    # d = 1, kernel (xy + 1)³: within {0, 1}: 1; within {0, 2}: 1; across: 1, 1, 1, 27.
    value = metrics.kid(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    assert value == pytest.approx(1 + 1 - 2 * (1 + 1 + 1 + 27) / 4)


def test_kid_has_no_bias_where_fid_has():
    pairs = [(gaussian(60, seed=2 * i), gaussian(60, seed=2 * i + 1)) for i in range(60)]
    kids = np.array([metrics.kid(a, b) for a, b in pairs])
    assert abs(kids.mean()) < 3 * kids.std(ddof=1) / np.sqrt(len(kids))
    assert min(metrics.fid(a, b) for a, b in pairs) > 0.3


def test_the_interval_of_kid_is_the_jackknife_done_by_hand():
    a, b = gaussian(12, seed=1), gaussian(9, seed=2, shift=1)
    without_a = np.array([metrics.kid(np.delete(a, i, 0), b) for i in range(12)])
    without_b = np.array([metrics.kid(a, np.delete(b, i, 0)) for i in range(9)])
    error = np.sqrt(11 * without_a.var() + 8 * without_b.var())
    estimate = metrics.kid_interval(a, b)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * error, rel=1e-6)


# Precision, recall, density, coverage


@pytest.mark.parametrize(("k", "shift", "scale"), [(1, 0, 1), (3, 0.5, 1), (5, 0, 0.4), (5, 9, 1)])
def test_prdc_agrees_with_the_package_of_its_authors(k, shift, scale, monkeypatch):
    real, fake = gaussian(150, seed=1), gaussian(90, seed=2, shift=shift, scale=scale)
    expected = reference_prdc.compute_prdc(real, fake, nearest_k=k)
    monkeypatch.setattr(metrics, "CHUNK", 1000)
    assert metrics.prdc(real, fake, k) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_a_line_by_hand():
    # Balls reach to the next real point: [0 ± 1], [1 ± 1], [3 ± 2]. Of the fakes only 0.5 and 1.5
    # are inside; fake balls: [0.5 ± 1], [1.5 ± 1], [9 ± 7.5].
    real, fake = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [1.5], [9.0]])
    assert metrics.prdc(real, fake, 1) == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(3 / 3),
        "density": pytest.approx((2 + 2 + 0) / 3),
        "coverage": pytest.approx(3 / 3),
    }


def test_collapse_shows_in_recall_and_blur_in_precision():
    real = gaussian(300, seed=1)
    collapsed = metrics.prdc(real, gaussian(300, seed=2, scale=0.2))
    noisy = metrics.prdc(real, gaussian(300, seed=2, scale=3))
    assert collapsed["precision"] > 0.95 > 0.3 > collapsed["recall"]
    assert noisy["precision"] < 0.3


def test_intervals_of_prdc_contain_the_values():
    real, fake = gaussian(150, seed=1), gaussian(90, seed=2, shift=0.5)
    values = metrics.prdc(real, fake)
    for name, estimate in metrics.prdc_intervals(real, fake).items():
        assert estimate.value == pytest.approx(values[name])
        assert estimate.low < estimate.value < estimate.high or estimate.value in (0, 1)


# Memorising


def test_copies_of_training_images_are_found():
    train, fresh = gaussian(300, seed=1), gaussian(200, seed=2)
    result = metrics.nearest_neighbours(train, train[50:90], fresh)
    assert (result.closer.value, result.ratio) == (1, 0)
    assert result.closer.low > 0.9
    np.testing.assert_array_equal(result.nearest, np.arange(50, 90))
    np.testing.assert_array_equal(result.distances, 0)


def test_fresh_images_are_as_near_as_fresh_images():
    held = 0
    for i in range(0, 180, 3):
        train, fake, fresh = gaussian(100, 4, i), gaussian(60, 4, i + 1), gaussian(80, 4, i + 2)
        closer = metrics.nearest_neighbours(train, fake, fresh).closer
        held += closer.low <= 0.5 <= closer.high
    assert held >= 51  # of 60; 57 expected, fewer than 51 has a chance below 1 %


def test_noise_is_farther_than_fresh_images():
    train, fresh, noise = gaussian(300, seed=1), gaussian(200, seed=2), gaussian(99, scale=4)
    far = metrics.nearest_neighbours(train, noise, fresh)
    assert far.closer.high < 0.1
    assert far.ratio > 2


def test_nearness_is_the_area_under_the_curve_with_ties_as_halves(monkeypatch):
    rng = np.random.default_rng(0)
    train, fake, fresh = (rng.integers(0, 4, (n, 3)) for n in (15, 60, 50))
    monkeypatch.setattr(metrics, "CHUNK", 100)
    result = metrics.nearest_neighbours(train, fake, fresh)
    fresh_distances = np.linalg.norm(fresh[:, None] - train, axis=2).min(axis=1)
    np.testing.assert_allclose(
        result.distances, np.linalg.norm(fake[:, None] - train, axis=2).min(axis=1)
    )
    expected = roc_auc_score(
        np.r_[np.ones(60), np.zeros(50)], -np.r_[result.distances, fresh_distances]
    )
    assert result.closer.value == pytest.approx(expected)


def test_images_are_taken_as_well_as_features():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    result = metrics.nearest_neighbours(images[:10], images[:5], images[10:])
    np.testing.assert_array_equal(result.distances, 0)


def test_the_interval_of_nearness_holds_its_promise():
    truth = stats.norm.cdf(1 / np.sqrt(2))  # chance that N(1, 1) exceeds N(0, 1)
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        fake, fresh = rng.normal(0, 1, 40), rng.normal(1, 1, 60)
        chance = (fake[:, None] < fresh).mean()
        interval = metrics._auc_interval(chance, 40, 60)
        held += interval.low <= truth <= interval.high
    assert 0.92 <= held / 400 <= 0.98


# Shares


@patient
@given(st.integers(1, 500), st.data())
def test_the_ends_of_wilsons_interval_solve_its_equation(n, data):
    k = data.draw(st.integers(0, n))
    low, high = metrics.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for p in (low, high):
        if 0 < p < 1:  # |k/n − p| = z √(p (1 − p) / n), the definition
            assert abs(k / n - p) == pytest.approx(1.9599639845 * np.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize(
    ("k", "n", "level", "low", "high"),
    [(9, 10, 0.95, 0.5958, 0.9821), (0, 10, 0.95, 0.0, 0.2775), (10, 10, 0.99, 0.6011, 1.0)],
)
def test_wilson_of_known_counts(k, n, level, low, high):
    assert metrics.wilson(k, n, level) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0), (1, 5, 1)])
def test_impossible_counts_and_levels_are_refused(arguments):
    with pytest.raises(ValueError, match=r"give counts|confidence"):
        metrics.wilson(*arguments)


def test_accuracy_counts_what_is_right():
    estimate = metrics.accuracy(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0]))
    assert (estimate.value, (estimate.low, estimate.high)) == (0.75, metrics.wilson(3, 4))
    for bad in (np.array([1, 2]), np.zeros((4, 10)), np.array([])):
        with pytest.raises(ValueError, match="predictions"):
            metrics.accuracy(np.array([1, 2, 3, 4]), bad)


# The floor and the report


def test_the_floor_falls_as_n_grows_and_is_repeatable():
    real = gaussian(800)
    small, large = metrics.floor(real, 50), metrics.floor(real, 400)
    assert small.low > large.high > large.low > 0
    assert metrics.floor(real, 50) == small
    assert abs(metrics.floor(real, 200, statistic=metrics.kid).value) < 0.05


def test_the_floor_compares_disjoint_sets():
    real = np.arange(100.0)[:, None]

    def disjoint(a, b):
        return float(len(np.intersect1d(a, b)) == 0 and len(a) == len(b) == 50)

    assert metrics.floor(real, 50, statistic=disjoint).low == 1


def test_a_report_on_real_images_lies_at_its_floor_and_one_on_shifted_images_above():
    real, fresh = gaussian(400, seed=1), gaussian(200, seed=2)
    honest = metrics.report(real, fresh, train=gaussian(100, seed=3))
    wrong = metrics.report(real, fresh + 1)
    assert honest.n == 200
    assert honest.floor["fid"].low * 0.5 < honest.scores["fid"].value
    assert honest.scores["fid"].value < 2 * honest.floor["fid"].high
    assert wrong.scores["fid"].low > 3 * wrong.floor["fid"].high
    assert wrong.scores["kid"].low > wrong.floor["kid"].high
    assert 0.35 < honest.neighbours.closer.value < 0.65
    assert wrong.neighbours is None


def test_a_report_prints_each_score_beside_its_floor():
    real, fake = gaussian(100, seed=1), gaussian(50, seed=2)
    classes = np.arange(50) % 10
    text = str(metrics.report(real, fake, train=real, labels=classes, predicted=classes))
    for word in ("fid", "kid", "precision", "recall", "density", "coverage", "accuracy", "nearer"):
        assert word in text
    assert "1 [0.9287, 1]" in text


# Bad input

TWO_SETS = [
    metrics.fid, metrics.fid_interval, metrics.kid, metrics.prdc,
    metrics.prdc_intervals, metrics.report,
]  # fmt: skip


@pytest.mark.parametrize("measure", TWO_SETS)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((5, 0)), "shape"),
        (np.zeros((200, 28, 28, 1)), "reshape"),
        (np.array([["a"] * 8] * 200), "type"),
        (np.full((2000, 8), np.nan), "NaN"),
        (np.full((2000, 8), np.inf), "infinity"),
        (np.full((2000, 8), 1e200), "magnitudes"),
        (np.zeros((2000, 3)), "one judge"),
        (np.zeros((1, 8)), "at least"),
    ],
)
def test_bad_features_are_refused_on_either_side(measure, bad, words):
    good = gaussian(2000)
    with pytest.raises(ValueError, match=words):
        measure(bad, good)
    with pytest.raises(ValueError, match=words):
        measure(good, bad)


def test_settings_out_of_range_are_refused():
    x = gaussian(100)
    with pytest.raises(ValueError, match="groups=1"):
        metrics.fid_interval(x, x, groups=1)
    with pytest.raises(ValueError, match="k=0"):
        metrics.prdc(x, x, 0)
    with pytest.raises(ValueError, match="n=0"):
        metrics.floor(x, 0)
    with pytest.raises(ValueError, match="at least 120"):
        metrics.floor(x, 60)
    with pytest.raises(ValueError, match="n=60: choose 40 to 50"):
        metrics.report(x, x, n=60)
    with pytest.raises(ValueError, match="belong together"):
        metrics.report(x, x, labels=np.zeros(100))
    with pytest.raises(ValueError, match="one judge"):
        metrics.nearest_neighbours(x, x, np.zeros((5, 3)))


def test_fid_ratio_of_a_set_to_itself_is_one():
    real, fake = np.random.default_rng(0).normal(size=(2, 400, 4))
    ratio = metrics.fid_ratio(real, fake + 1, fake + 1)
    assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


def test_fid_ratio_is_paired_and_so_tighter_than_fids_apart():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(800, 4))
    slow = rng.normal(size=(800, 4)) + 1
    fast = slow + 0.05 + 0.01 * rng.normal(size=(800, 4))
    ratio = metrics.fid_ratio(real, slow, fast)
    assert 1 < ratio.low < ratio.value < ratio.high
    apart = metrics.fid_interval(real, slow)
    assert ratio.high / ratio.low < apart.high / apart.low


def test_fid_ratio_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(30):
        real, a, b = rng.normal(size=(3, 600, 3))
        ratio = metrics.fid_ratio(real, a + 1, b + 1.2)  # true distances 3 and 4.32
        hits += ratio.low < 1.44 < ratio.high
    assert hits >= 25


def test_fid_ratio_wants_answers_to_the_same_prompts():
    x = np.zeros((100, 2)) + np.arange(100)[:, None]
    with pytest.raises(ValueError, match="same"):
        metrics.fid_ratio(x, x, x[:60])
