"""How good are generated images? Numbers with intervals, beside what real images would get.

Every function takes arrays. Features are rows of numbers, one row an image, such as
`genlib.models.judges.load_judge().features(images)` gives.

No number stands alone. Intervals hold with 95 % confidence, and `floor` tells what the same
measure says of two disjoint sets of *real* images: no generator should be asked for less.

How the intervals are made, and why:

* FID of n samples is larger than FID of endless samples by about c/n. The bootstrap draws some
  samples twice, so its replicates carry that excess a second time and its percentile interval can
  miss the very number that it belongs to. We leave out one group of samples at a time instead
  (the delete-a-group jackknife): it draws nothing twice, it gives the standard error, and it
  estimates the excess, which we report as `bias`. The interval is about FID *at this n*, which is
  what is compared with a floor at the same n; `value - bias` estimates FID of endless samples.
* KID has no bias. Its jackknife, one sample left out at a time, costs one pass over the kernels.
* Precision, recall and coverage are shares of samples: Wilson's interval, given the other set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special, stats

LEVEL = 0.95  # confidence of every interval here
Z = float(special.ndtri(0.5 + LEVEL / 2))  # the same in standard deviations of a Gaussian
LARGEST = 1e30  # of a feature's magnitude; its sixth power, in KID, is still a float64
CHUNK = 2**23  # numbers in a block of distances: 64 MiB of float64


@dataclass(frozen=True)
class Estimate:
    """A measured number and its 95 % interval."""

    value: float
    low: float
    high: float
    bias: float | None = None  # by how much `value` is expected to exceed that of endless samples

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def _features(x: np.ndarray, name: str, least: int = 2) -> np.ndarray:
    """Returns features as float64 `(n, d)`, or says what is wrong with them."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} has shape {x.shape} and type {x.dtype}; features are numbers of shape "
            "(images, features). Reshape images with images.reshape(len(images), -1)."
        )
    if len(x) < least:
        raise ValueError(f"{name} has {len(x)} rows; this measure needs at least {least}.")
    x = x.astype(np.float64)
    if not (np.abs(x) <= LARGEST).all():
        raise ValueError(
            f"{name} holds NaN, infinity or magnitudes above {LARGEST:g}. Look for a diverged "
            "generator."
        )
    return x


def _pair(a: np.ndarray, b: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Checks two sets of features that are to be compared."""
    a, b = _features(a, "the first set", least), _features(b, "the second set", least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"The sets have {a.shape[1]} and {b.shape[1]} features. Use one judge for both."
        )
    return a, b


# Fréchet distance ---------------------------------------------------------------------------


def _root(covariance: np.ndarray) -> np.ndarray:
    """Returns R with Rᵀ R = covariance. Rounding can make an eigenvalue slightly negative."""
    values, vectors = linalg.eigh(covariance)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def fid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (FID).

    The trace of (Σa Σb)^½ is the sum of the singular values of Ra Rbᵀ, where R is a root of Σ.
    So neither a root of a non-symmetric matrix nor a complex number appears, and a set is at
    distance 0 from itself to rounding.

    Args:
        features_a: `(n, d)`, n ≥ 2.
        features_b: `(m, d)`, m ≥ 2.

    Returns:
        |μa − μb|² + tr Σa + tr Σb − 2 tr (Σa Σb)^½, not negative, in squared units of the
        features. It falls as n and m grow: compare values at one n only.

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.

    Reference:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", arXiv:1706.08500, eq. 6.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> round(fid(x, x + 1), 6)
        4.0
    """
    a, b = _pair(features_a, features_b)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    overlap = linalg.svdvals(_root(cov_a) @ _root(cov_b).T).sum()
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return max(0.0, float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap))


def fid_interval(
    features_a: np.ndarray, features_b: np.ndarray, *, groups: int = 20, seed: int = 0
) -> Estimate:
    """FID with its interval and bias by the delete-a-group jackknife (see the module's head).

    Args:
        features_a: `(n, d)`, n ≥ 2 `groups`.
        features_b: `(m, d)`, m ≥ 2 `groups`.
        groups: how many; both sets are cut at random into so many, and group j of both is left
            out together.
        seed: of the cut.

    Returns:
        FID at these sizes, its interval (Student's t with `groups` − 1 degrees of freedom), and
        the estimated excess over FID of endless samples. Where both sets have one distribution the
        interval is wider than needed: there, `floor` shows the spread itself.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or a set is too small.

    Reference:
        Chong and Forsyth, arXiv:1911.07023, on the bias c/n; Kott, "The Delete-a-Group
        Jackknife", Journal of Official Statistics 17 (2001), on the variance.

    Example:
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 4))
        >>> e = fid_interval(x, y + 1)
        >>> e.low < 4.0 < e.high and e.bias > 0
        True
    """
    if groups < 2:
        raise ValueError(f"groups={groups}: the jackknife needs at least 2.")
    a, b = _pair(features_a, features_b, 2 * groups)
    rng = np.random.default_rng(seed)
    group_a, group_b = (rng.permutation(len(x)) % groups for x in (a, b))
    value = fid(a, b)
    left_out = np.array([fid(a[group_a != g], b[group_b != g]) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum())
    half = float(special.stdtrit(groups - 1, 0.5 + LEVEL / 2) * error)
    bias = float((groups - 1) * (left_out.mean() - value))
    return Estimate(value, max(0.0, value - half), value + half, bias)


def fid_ratio(
    real: np.ndarray,
    slow: np.ndarray,
    fast: np.ndarray,
    *,
    groups: int = 20,
    seed: int = 0,
) -> Estimate:
    """How many times the FID of one set another set has, paired.

    Row i of both sets answers the same prompt, so they share a group when groups are left out, and
    what makes a prompt hard cancels. The ratio is taken at this n: the excess c/n is in both, and
    draws it towards 1, so n should be large enough for FID to stand well above its floor.

    Args:
        real: features of real images, `(r, d)`.
        slow: features of the set to compare with, `(n, d)`, n ≥ 2 `groups`.
        fast: of the same prompts, `(n, d)`.
        groups: to leave out one by one.
        seed: of the cut into groups.

    Returns:
        FID of `fast` over FID of `slow`; above 1 the fast one is worse. The interval is the
        jackknife's on the logarithm.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or a set is too small.

    Example:
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 4))
        >>> fid_ratio(x, y + 1, y + 2).value > 3
        True
    """
    if groups < 2:
        raise ValueError(f"groups={groups}: the jackknife needs at least 2.")
    a, b = _pair(slow, fast, 2 * groups)
    if len(a) != len(b):
        raise ValueError(f"The sets have {len(a)} and {len(b)} rows; they must answer the same.")
    r, _ = _pair(real, a, 2 * groups)
    rng = np.random.default_rng(seed)
    group_r, group = (rng.permutation(len(x)) % groups for x in (r, a))

    def log_ratio(rows_r: np.ndarray, rows: np.ndarray) -> float:
        return float(np.log(fid(r[rows_r], b[rows])) - np.log(fid(r[rows_r], a[rows])))

    value = log_ratio(np.ones(len(r), bool), np.ones(len(a), bool))
    left_out = np.array([log_ratio(group_r != g, group != g) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum())
    half = float(special.stdtrit(groups - 1, 0.5 + LEVEL / 2) * error)
    return Estimate(*(float(np.exp(x)) for x in (value, value - half, value + half)))


# Kernel distance ----------------------------------------------------------------------------


def _kernel_sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums over rows and over columns of the kernel matrix (a·b/d + 1)³."""
    row_sums, column_sums = np.empty(len(a)), np.zeros(len(b))
    rows = max(1, CHUNK // len(b))
    for start in range(0, len(a), rows):
        kernel = a[start : start + rows] @ (b.T / a.shape[1])
        kernel += 1
        kernel *= kernel * kernel  # many times faster than kernel ** 3
        row_sums[start : start + rows] = kernel.sum(axis=1)
        column_sums += kernel.sum(axis=0)
    return row_sums, column_sums


def _sums_within(a: np.ndarray) -> np.ndarray:
    """Returns for each row of `a` the sum of its kernels with all *other* rows."""
    return _kernel_sums(a, a)[0] - (np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3


def kid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Kernel distance (KID): the unbiased squared MMD under the kernel (x·y/d + 1)³.

    Args:
        features_a: `(n, d)`, n ≥ 2.
        features_b: `(m, d)`, m ≥ 2.

    Returns:
        The distance over all pairs. Zero on average between sets of one distribution, at any n;
        so a single value can be negative.

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.

    Reference:
        Bińkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, eq. 4 and section 4.

    Example:
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 4))
        >>> kid(x, y + 1) > 10 * abs(kid(x, y))
        True
    """
    return kid_interval(features_a, features_b).value


def kid_interval(features_a: np.ndarray, features_b: np.ndarray) -> Estimate:
    """KID with an interval by the two-sample jackknife, one sample left out at a time.

    Each left-out value follows from the sums over the rows of the kernel matrices, so all of them
    together cost no more than KID itself. Where both sets have one distribution the interval is
    wider than needed, never narrower.

    Args:
        features_a: `(n, d)`, n ≥ 3.
        features_b: `(m, d)`, m ≥ 3.

    Returns:
        KID and its interval. `bias` is 0 by construction.

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.
    """
    a, b = _pair(features_a, features_b)
    n, m = len(a), len(b)
    aa, bb = _sums_within(a), _sums_within(b)
    ab, ba = _kernel_sums(a, b)
    within_a, within_b, across = aa.sum(), bb.sum(), ab.sum()
    value = within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)
    if min(n, m) < 3:
        return Estimate(float(value), -np.inf, np.inf, 0.0)
    without_a = (within_a - 2 * aa) / ((n - 1) * (n - 2)) - 2 * (across - ab) / ((n - 1) * m)
    without_b = (within_b - 2 * bb) / ((m - 1) * (m - 2)) - 2 * (across - ba) / (n * (m - 1))
    half = Z * np.sqrt((n - 1) * without_a.var() + (m - 1) * without_b.var())
    return Estimate(float(value), float(value - half), float(value + half), 0.0)


# Nearest neighbours -------------------------------------------------------------------------


def _squares(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields slices of the rows of `a`, and their squared distances to all rows of `b`."""
    centre = b.mean(axis=0)  # |x − y|² = |x|² + |y|² − 2 x·y cancels; small norms keep it exact
    a, b = a - centre, b - centre
    square_a, square_b = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    rows = max(1, CHUNK // len(b))
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        block = a[part] @ (-2 * b.T)
        block += square_a[part, None]
        block += square_b
        yield part, np.maximum(block, 0, out=block)


def _square_radii(x: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distance of each row to its k-th nearest *other* row."""
    radii = np.empty(len(x))
    for part, block in _squares(x, x):
        block[np.arange(len(block)), np.arange(part.start, part.stop)] = 0  # itself, exactly
        radii[part] = np.partition(block, k, axis=1)[:, k]
    return radii


def _prdc_hits(
    real: np.ndarray, fake: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts balls: around real ones per fake; around fake ones per real; covered real ones."""
    if k < 1:
        raise ValueError(f"k={k}: count at least 1 neighbour.")
    real, fake = _pair(real, fake, k + 1)
    radii_real, radii_fake = _square_radii(real, k), _square_radii(fake, k)
    real_balls = np.zeros(len(fake), np.int64)
    fake_balls, covered = np.zeros(len(real), np.int64), np.zeros(len(real), bool)
    for part, block in _squares(real, fake):
        inside = block <= radii_real[part, None]
        real_balls += inside.sum(axis=0)
        covered[part] = inside.any(axis=1)
        fake_balls[part] = (block <= radii_fake).sum(axis=1)
    return real_balls, fake_balls, covered


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage.

    A ball around an image reaches to its k-th nearest neighbour in its own set. Precision: the
    share of fakes inside some real ball (fidelity). Recall: the share of real images inside some
    fake ball (variety). Density: real balls around a fake, over k, on average. Coverage: the
    share of real balls that hold a fake. The last two stand outliers better.

    Args:
        real: features `(n, d)`, n > k.
        fake: features `(m, d)`, m > k.
        k: the neighbour that sets the radius.

    Returns:
        `precision`, `recall` and `coverage` in [0, 1], `density` ≥ 0 and about 1 for real ones.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or a set is too small.

    Reference:
        Kynkäänniemi et al., arXiv:1904.06991, eq. 1 and 2 (precision, recall); Naeem et al.,
        arXiv:2002.09797, eq. 4 and 5 (density, coverage).

    Example:
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 4))
        >>> 0.85 < prdc(x, y)["precision"] <= 1
        True
    """
    real_balls, fake_balls, covered = _prdc_hits(real, fake, k)
    return {
        "precision": float((real_balls > 0).mean()),
        "recall": float((fake_balls > 0).mean()),
        "density": float(real_balls.mean() / k),
        "coverage": float(covered.mean()),
    }


def prdc_intervals(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, Estimate]:
    """Precision, recall, density and coverage with intervals.

    Args:
        real: features `(n, d)`, n > k.
        fake: features `(m, d)`, m > k.
        k: the neighbour that sets the radius.

    Returns:
        What `prdc` returns, as estimates. The intervals cover the chance in the images that are
        counted, given the set that draws the balls: Wilson's for shares, Gaussian for density.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or a set is too small.
    """
    real_balls, fake_balls, covered = _prdc_hits(real, fake, k)
    density = real_balls / k
    half = Z * density.std(ddof=1) / np.sqrt(len(density))
    value = float(density.mean())
    return {
        "precision": _share(real_balls > 0),
        "recall": _share(fake_balls > 0),
        "density": Estimate(value, float(max(0, value - half)), float(value + half)),
        "coverage": _share(covered),
    }


@dataclass(frozen=True)
class Neighbours:
    """How near generated images lie to the training images."""

    closer: Estimate  # chance that a fake lies nearer to training than a fresh real image does
    ratio: float  # median distance of fakes over median distance of fresh real images
    nearest: np.ndarray  # int64 (m,): for each fake its nearest training image
    distances: np.ndarray  # float64 (m,): how far that is

    def __str__(self) -> str:
        return f"nearer to training than fresh real images: {self.closer}; ratio {self.ratio:.3f}"


def nearest_neighbours(train: np.ndarray, fake: np.ndarray, held_out: np.ndarray) -> Neighbours:
    """Asks whether a generator copies its training images.

    A fake and a held-out real image are drawn; how often is the fake the nearer of the two to the
    training set? About 0.5: as near as a fresh image. Towards 1: too near, as copies are. Towards
    0: the fakes lie far from everything real. A generator that draws only typical images also
    lies near, so look at the pairs (`nearest`) before you say "copied".

    Args:
        train: the images or features that the generator was trained on, `(n, …)`.
        fake: generated ones, `(m, …)`.
        held_out: real ones from the same source that training never saw, `(r, …)`.

    Returns:
        The chance with its interval, the ratio of median distances, and the pairs.

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.

    Reference:
        Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in
        Generative Models", arXiv:2004.05675 (the statistic); Newcombe, Statistics in Medicine 25
        (2006) 559-573, method 5 (the interval, which stays open when the chance is 0 or 1).

    Example:
        >>> train, fresh = np.random.default_rng(0).normal(size=(2, 300, 4))
        >>> nearest_neighbours(train, train[:100], fresh).closer.value
        1.0
    """
    flat = [np.asarray(x).reshape(len(x), -1) for x in (train, fake, held_out)]
    _pair(flat[0], flat[1], 1)
    _pair(flat[0], flat[2], 1)
    nearest, distances = _nearest(flat[1], flat[0])
    _, fresh = _nearest(flat[2], flat[0])
    fresh_sorted = np.sort(fresh)
    wins = len(fresh) - np.searchsorted(fresh_sorted, distances, "right")
    not_lost = len(fresh) - np.searchsorted(fresh_sorted, distances, "left")
    chance = float((wins + not_lost).mean() / (2 * len(fresh)))  # a tie counts one half
    middle = float(np.median(fresh))
    return Neighbours(
        closer=_auc_interval(chance, len(distances), len(fresh)),
        ratio=float(np.median(distances)) / middle if middle > 0 else float("nan"),
        nearest=nearest,
        distances=distances,
    )


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each row of `a` the index of the nearest row of `b`, and the distance."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    index = np.concatenate([block.argmin(axis=1) for _, block in _squares(a, b)])
    return index, np.linalg.norm(a - b[index], axis=1)  # exact, so that a copy is at 0


def _auc_interval(chance: float, m: int, r: int) -> Estimate:
    """Returns where |chance − p| stays within Z standard errors *at p* (as Wilson's does)."""

    def excess(p: float) -> float:
        pairs = (m + r) / 2 - 1
        spread = 1 + pairs * ((1 - p) / (2 - p) + p / (1 + p))
        return abs(chance - p) - Z * np.sqrt(p * (1 - p) * spread / (m * r))

    step = 1e-12  # the excess is exactly 0 at chance = 0 and 1, where the root sought is another
    low = optimize.brentq(excess, 0.0, chance - step) if chance > step else 0.0
    high = optimize.brentq(excess, chance + step, 1.0) if chance < 1 - step else 1.0
    return Estimate(chance, float(low), float(high))


# Shares -------------------------------------------------------------------------------------


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share.

    Args:
        successes: how many of them, 0..n.
        n: how many were tried, at least 1.
        level: confidence, in (0, 1).

    Returns:
        Low and high end, within [0, 1].

    Raises:
        ValueError: if the counts are impossible or `level` is outside (0, 1).

    Reference:
        Wilson, Journal of the American Statistical Association 22 (1927) 209-212.

    Example:
        >>> low, high = wilson(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n}: give counts with 0 <= successes <= n and n >= 1.")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: a confidence lies between 0 and 1, for example 0.95.")
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _share(hits: np.ndarray) -> Estimate:
    return Estimate(float(hits.mean()), *wilson(int(hits.sum()), len(hits)))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> Estimate:
    """Returns the share of predictions that are right, with Wilson's interval.

    Args:
        labels: the true classes, integers `(n,)`.
        predicted: the predicted classes, integers `(n,)`.

    Returns:
        The share and its interval.

    Raises:
        ValueError: if the shapes differ, are not `(n,)`, or n is 0.

    Example:
        >>> accuracy(np.array([1, 2, 3]), np.array([1, 2, 0])).value
        0.6666666666666666
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.ndim != 1 or labels.shape != predicted.shape or len(labels) == 0:
        raise ValueError(
            f"Got labels {labels.shape} and predictions {predicted.shape}; both are (n,), n >= 1. "
            "Turn probabilities into classes with .argmax(axis=1)."
        )
    return _share(labels == predicted)


# Beside the floor ---------------------------------------------------------------------------


def _disjoint(
    features: np.ndarray, n: int, splits: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of disjoint random sets of n rows."""
    if n < 1 or splits < 1:
        raise ValueError(f"n={n}, splits={splits}: both are at least 1.")
    features = _features(features, "the real set", 2 * n)
    rng = np.random.default_rng(seed)
    for _ in range(splits):
        order = rng.permutation(len(features))
        yield features[order[:n]], features[order[n : 2 * n]]


def _spread(values: list[float]) -> Estimate:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high))


def floor(
    features_real: np.ndarray,
    n: int,
    *,
    statistic: Callable[[np.ndarray, np.ndarray], float] = fid,
    splits: int = 20,
    seed: int = 0,
) -> Estimate:
    """Returns what a measure says of two disjoint sets of real images.

    Args:
        features_real: `(at least 2 n, d)`.
        n: size of each of the two sets; take the number of fakes that you compare.
        statistic: the measure, of two sets of features.
        splits: how often two such sets are drawn.
        seed: of the draws.

    Returns:
        The mean over the splits, and between which ends 95 % of them lie.

    Raises:
        ValueError: if there are fewer than 2 n rows, or a number is not finite.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 4))
        >>> 0 < floor(x, 100).value < 0.5
        True
    """
    return _spread([statistic(a, b) for a, b in _disjoint(features_real, n, splits, seed)])


@dataclass(frozen=True)
class Report:
    """All measures of one set of generated images, beside those of real ones. Print it."""

    n: int  # images of each kind that were compared
    scores: dict[str, Estimate]  # fid, kid, precision, recall, density, coverage, [accuracy]
    floor: dict[str, Estimate]  # the same of real against real, at the same n; no accuracy
    neighbours: Neighbours | None

    def __str__(self) -> str:
        lines = [f"{self.n} against {self.n} images; [95 % interval]"]
        lines.append(f"{'':<10} {'generated':<30} {'real against real':<30} bias")
        for name, score in self.scores.items():
            real = str(self.floor.get(name, "–"))
            bias = "–" if score.bias is None else f"{score.bias:.3g}"
            lines.append(f"{name:<10} {score!s:<30} {real:<30} {bias}")
        if self.neighbours is not None:
            lines.append(str(self.neighbours))
        return "\n".join(lines)


def report(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    train: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    n: int | None = None,
    k: int = 5,
    splits: int = 10,
    seed: int = 0,
) -> Report:
    """Measures generated images in every way that this module knows.

    FID depends on the number of images, and the floor needs two disjoint real sets. So every
    measure compares n real with n fake images, drawn at random, and the floor n with n real ones.

    Args:
        real: features of real images that neither generator nor judge was trained on, `(r, d)`.
        fake: features of generated images, `(m, d)`.
        train: features of the generator's training images; then nearness is measured too.
        labels: for a generator that was told a class: the class asked for, integers `(m,)`.
        predicted: and the class that the judge sees, integers `(m,)`.
        n: images of each kind to compare; as many as possible, min(m, r // 2), unless given.
        k: the neighbour of precision, recall, density and coverage.
        splits: draws of the floor.
        seed: of every draw.

    Returns:
        The report.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, there are too few images
            (at least 80 real and 40 fake), or only one of `labels` and `predicted` is given.

    Example:
        >>> real, fake = np.random.default_rng(0).normal(size=(2, 400, 4))
        >>> report(real, fake + 3).scores["fid"].value > 30
        True
    """
    if (labels is None) != (predicted is None):
        raise ValueError("labels and predicted belong together. Give both or neither.")
    real, fake = _pair(real, fake)
    most = min(len(fake), len(real) // 2)
    n = most if n is None else n
    if not 40 <= n <= most:
        raise ValueError(
            f"n={n}: choose 40 to {most}, which is all that {len(fake)} fakes and half of "
            f"{len(real)} real images allow. Give more images."
        )
    rng = np.random.default_rng(seed)
    a, b = rng.choice(real, n, replace=False), rng.choice(fake, n, replace=False)
    scores = {"fid": fid_interval(a, b, seed=seed), "kid": kid_interval(a, b)}
    scores |= prdc_intervals(a, b, k)
    split_scores = [
        {"fid": fid(x, y), "kid": kid(x, y), **prdc(x, y, k)}
        for x, y in _disjoint(real, n, splits, seed)
    ]
    real_floor = {name: _spread([s[name] for s in split_scores]) for name in scores}
    if labels is not None and predicted is not None:
        scores["accuracy"] = accuracy(labels, predicted)
    neighbours = None if train is None else nearest_neighbours(train, fake, real)
    return Report(n, scores, real_floor, neighbours)
