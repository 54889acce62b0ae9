"""Timing: callables in alternating rounds, a ratio with its interval, a record of it all.

A bench knows callables, never models. The rules it keeps: runs alternate (A B B A …) so that a
busy minute hits every candidate; a result counts when it is on the host; the first call (which
compiles) is timed apart; a speed-up is the median of *paired* ratios with an interval that holds
its median at least 95 times in 100; and the record says where, when and with what it was measured.
"""

from __future__ import annotations

import functools
import gc
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from genlib.bench.machine import environment, footnote
from genlib.bench.notebook import format_ratio, format_seconds, glue, table

SCHEMA = "genlib.bench/1"
MIN_PAIRS = 9  # the fewest whose interval is narrower than their range: see `median_interval`

Sync = Callable[[Any], Any]


# --- statistics ---------------------------------------------------------------------------------


def median_interval(
    values: Sequence[float] | np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Returns the exact interval of a median: two of the values, counted from both ends.

    However skewed the noise is, a value lies below its median as often as above it. So the number
    of values below is that of heads among coins, and the interval from the `r`-th smallest to the
    `r`-th largest value misses the median as often as fewer than `r` of `n` coins, or more than
    `n - r`, show heads. `coverage` says how often it holds it: 96.1 % for 9 values, whose interval
    reaches from the second smallest to the second largest.

    Args:
        values: independent measurements, `(n,)`, n ≥ 2.
        level: the least coverage. Where so few values cannot give it, the interval is their range.

    Returns:
        The lower and the upper end, in the unit of the values.

    Raises:
        ValueError: for fewer than two values, a value that is not finite, or a bad level.

    Reference:
        Conover, "Practical Nonparametric Statistics" (1999), section 3.2. For 6 values and more,
        it is the interval of `scipy.stats.quantile_test`.

    Example:
        >>> median_interval([3.0, 1.0, 9.0, 2.0, 5.0, 4.0, 8.0, 7.0, 6.0])
        (2.0, 8.0)
    """
    array = np.sort(_values(values, level))
    r = _rank(len(array), level)
    return float(array[r - 1]), float(array[-r])


def median_and_interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """Returns the median and the ends of its 95 % interval, as records keep them.

    Args:
        values: as for `median_interval`.

    Example:
        >>> median_and_interval([3.0, 1.0, 2.0])
        [2.0, 1.0, 3.0]
    """
    return [float(np.median(values)), *median_interval(values)]


@functools.cache
def _rank(n: int, level: float) -> int:
    """Returns which value from either end closes the interval of a median."""
    return max(1, int(stats.binom.ppf((1 - level) / 2, n, 0.5)))


def coverage(n: int, level: float = 0.95) -> float:
    """Returns how often `median_interval` of `n` values holds the median, as a share.

    Example:
        >>> [round(coverage(n), 3) for n in (5, 7, 9)]
        [0.938, 0.984, 0.961]
    """
    return float(1 - 2 * stats.binom.cdf(_rank(n, level) - 1, n, 0.5))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a statistic of many values, such as their mean.

    For the median of a few, use `median_interval`: there the bootstrap promises too much (95 %,
    where it is 87.5 % for the median of 7).

    Args:
        values: independent measurements, `(n,)`, n ≥ 2.
        statistic: a reduction that takes `axis=`, such as `np.mean`.
        level: coverage, between 0 and 1.
        resamples: how often the values are drawn again, with replacement.
        seed: of the draws, so that the same values give the same interval.

    Returns:
        The lower and the upper end, in the unit of the values.

    Raises:
        ValueError: for fewer than two values, a value that is not finite, or a bad level.

    Reference:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).

    Example:
        >>> bootstrap_interval([5.0, 5.0, 5.0])
        (5.0, 5.0)
    """
    found = stats.bootstrap(
        (_values(values, level),),
        statistic,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _values(values: Sequence[float] | np.ndarray, level: float) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise ValueError(
            f"values must be at least two finite numbers in one dimension, got {values!r}. "
            "Measure again with more repeats."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Use 0.95.")
    return array


# --- records ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """The timings of one callable, in seconds per call."""

    name: str
    first_call: float  # s; traces and compiles, so it is never mixed with the rest
    seconds: tuple[float, ...]  # s per call, one entry per timed run, in the order of the runs
    calls: int  # calls in each timed run
    environment: dict[str, Any] = field(repr=False)

    @property
    def median(self) -> float:
        """The median time of a call, in seconds."""
        return float(np.median(self.seconds))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the median (`median_interval`), in seconds."""
        return median_interval(self.seconds)

    def rate(self, items: float) -> tuple[float, float, float]:
        """Returns items per second (median, low, high) when one call makes `items` of them."""
        low, high = self.interval
        return items / self.median, items / high, items / low

    def __str__(self) -> str:
        return format_seconds(self.median, *self.interval)

    def glue(self, name: str) -> str:
        """Stores `12.3 ms (11.9–12.8)` for the prose, and returns it."""
        return glue(name, str(self))

    def _repr_html_(self) -> str:
        return table(
            ["", "time of a call", "first call"],
            [[self.name, str(self), format_seconds(self.first_call)]],
            _caption(len(self.seconds), "runs", self.environment),
        )

    def to_json(self) -> str:
        """Writes the record as JSON, raw times and environment included."""
        return _to_json("record", self)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote; ValueError for anything else."""
        return _from_json("record", text, lambda d: cls(**{**d, "seconds": tuple(d["seconds"])}))


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline a candidate is: above 1, it is faster."""

    name: str
    baseline: str
    ratio: float  # median of the paired ratios (baseline's time / candidate's time)
    low: float  # ends of its interval: see `median_interval`
    high: float
    pairs: tuple[float, ...]

    def __str__(self) -> str:
        return format_ratio(self.ratio, self.low, self.high)

    def glue(self, name: str) -> str:
        """Stores `3.4× (3.1–3.8)` for the prose, and returns it."""
        return glue(name, str(self))


@dataclass(frozen=True)
class Comparison:
    """Candidates timed in alternation. `comparison["fast"]` is the `Ratio` of one of them."""

    baseline: str
    records: dict[str, Record]  # the i-th entries of all `seconds` belong to one round
    environment: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Ratio:
        if name not in self.records:
            raise KeyError(f"no candidate {name!r}; there are {list(self.records)}")
        base, mine = self.records[self.baseline].seconds, self.records[name].seconds
        pairs = np.asarray(base) / np.asarray(mine)
        low, high = median_interval(pairs)
        return Ratio(name, self.baseline, float(np.median(pairs)), low, high, tuple(pairs.tolist()))

    def ratios(self) -> dict[str, Ratio]:
        """Returns the ratio of every candidate; the baseline's is 1 by definition."""
        return {name: self[name] for name in self.records}

    def only(self) -> Ratio:
        """Returns the one ratio of a comparison of two."""
        others = [name for name in self.records if name != self.baseline]
        if len(others) != 1:
            raise ValueError(
                f"this comparison has {len(others)} candidates beside its baseline: {others}. "
                'Choose one: comparison["name"].'
            )
        return self[others[0]]

    ratio = property(lambda self: self.only().ratio, doc="The ratio of a comparison of two.")
    low = property(lambda self: self.only().low, doc="The lower end of its interval.")
    high = property(lambda self: self.only().high, doc="The upper end of its interval.")

    def __str__(self) -> str:
        return "\n".join(f"{n}: {self.records[n]}, {r}" for n, r in self.ratios().items())

    def glue(self, name: str) -> str:
        """Stores the one ratio of a comparison of two for the prose, and returns it."""
        return self.only().glue(name)

    def _repr_html_(self) -> str:
        rows = []
        for name, ratio in self.ratios().items():
            record = self.records[name]
            speed = "1 (baseline)" if name == self.baseline else str(ratio)
            rows.append([name, str(record), speed, format_seconds(record.first_call)])
        n = len(self.records[self.baseline].seconds)
        foot = _caption(n, "rounds", self.environment)
        return table(["", "time of a call", "speed", "first call"], rows, foot)

    def to_json(self) -> str:
        """Writes the comparison as JSON, raw times and environment included."""
        return _to_json("comparison", self)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Reads what `to_json` wrote; ValueError for anything else."""

        def build(data: dict[str, Any]) -> Comparison:
            env = data["environment"]
            records = {
                name: Record(**{**r, "seconds": tuple(r["seconds"]), "environment": env})
                for name, r in data["records"].items()
            }
            return cls(data["baseline"], records, env)

        return _from_json("comparison", text, build)


def _caption(n: int, what: str, env: Mapping[str, Any]) -> str:
    """Says what the numbers of a table are, and where they were measured."""
    return (
        f"Median of {n} {what}, and in brackets its exact interval, from order statistics, which "
        f"holds the true median {coverage(n):.1%} of the time. {footnote(env)}"
    )


def _to_json(kind: str, result: Record | Comparison) -> str:
    data = asdict(result)
    for record in data.get("records", {}).values():
        del record["environment"]  # the comparison holds it once
    return json.dumps({"schema": SCHEMA, "kind": kind, **data}, indent=1, ensure_ascii=False)


def _from_json(kind: str, text: str, build: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        data = json.loads(text)
        found = data.pop("schema"), data.pop("kind")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"this is not a bench record ({error!r}). Write one with to_json."
        ) from None
    if found != (SCHEMA, kind):
        raise ValueError(
            f"expected a {kind} of {SCHEMA}, got {found[1]} of {found[0]}. Measure again."
        )
    try:
        return build(data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the {kind} is damaged: {error}. Measure again.") from None


# --- measuring ----------------------------------------------------------------------------------


def _host_sync() -> Sync:
    from genlib import backend  # late: Keras takes seconds to import, and a clock needs none

    def sync(result: Any) -> Any:
        # What is on the host needs no waiting, and a look through a nest costs some 20 µs.
        if result is None or isinstance(result, (np.ndarray, int, float)):
            return result
        return backend.synchronize(result)

    return sync


def _seconds_per_call(fn: Callable[[], Any], sync: Sync, calls: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        sync(fn())
    return (time.perf_counter() - start) / calls


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """Keeps a collection from falling into one candidate's run by chance."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _warm_up(
    fn: Callable[[], Any], sync: Sync, warmup: int, min_seconds: float
) -> tuple[float, int]:
    """Times the first call, warms up, and finds how many calls fill `min_seconds`."""
    first = _seconds_per_call(fn, sync)
    for _ in range(warmup):
        _seconds_per_call(fn, sync)
    calls = 1
    while calls * (each := _seconds_per_call(fn, sync, calls)) < min_seconds:
        calls = max(2 * calls, math.ceil(min_seconds / max(each, 1e-9)))
    return first, calls


def measure(
    fn: Callable[[], Any],
    *,
    name: str | None = None,
    repeats: int = 9,
    warmup: int = 2,
    min_seconds: float = 0.005,
    sync: Sync | None = None,
) -> Record:
    """Times a callable by itself. To call something faster than something else, use `compare`.

    Args:
        fn: takes nothing and *returns its result* (a tensor, an array, a nest of them), so that
            the clock can wait for it.
        name: for tables; the function's own name if None.
        repeats: timed runs, at least 2.
        warmup: untimed calls after the first one.
        min_seconds: a run repeats the call until it lasts about as long (s), because a clock
            tells little about a microsecond.
        sync: waits for a result; `genlib.backend.synchronize` (copy to the host) if None.

    Returns:
        The record. Its `first_call` holds tracing and compiling, if `fn` was new.

    Raises:
        TypeError: if `fn` or `sync` cannot be called.
        ValueError: if a count or time is out of range.

    Example:
        >>> record = measure(lambda: sum(range(1000)))
        >>> record.median < record.first_call * 1000
        True
    """
    _check(fn, "fn", warmup, min_seconds, sync)
    if not isinstance(repeats, int) or repeats < 2:
        raise ValueError(f"repeats must be a whole number of at least 2, got {repeats!r}. Use 9.")
    env, sync = environment(), sync or _host_sync()
    first, calls = _warm_up(fn, sync, warmup, min_seconds)
    with _garbage_collector_off():
        seconds = tuple(_seconds_per_call(fn, sync, calls) for _ in range(repeats))
    return Record(name or str(getattr(fn, "__name__", "call")), first, seconds, calls, env)


def compare(
    candidates: Mapping[str, Callable[[], Any]] | Iterable[tuple[str, Callable[[], Any]]],
    *,
    pairs: int = MIN_PAIRS,
    baseline: str | None = None,
    warmup: int = 2,
    min_seconds: float = 0.005,
    sync: Sync | None = None,
) -> Comparison:
    """Times candidates in alternating rounds and relates each one to the baseline.

    Every round runs each candidate once. The order turns from round to round (A B C, B C A,
    C A B, then reversed), so that each one stands in each place and follows each other one.
    The ratio is taken within a round: what slows the machine for a while cancels.

    Args:
        candidates: name → callable, as in `measure`. At least two.
        pairs: rounds, at least 9: so many give an interval of 96 %.
        baseline: the name that the ratios refer to; the first one if None.
        warmup: untimed calls of each candidate after its first one.
        min_seconds: a run repeats short calls until it lasts about as long (s).
        sync: waits for a result; `genlib.backend.synchronize` if None.

    Returns:
        A comparison: `comparison["fast"].ratio`, `.low`, `.high`, and the raw times.

    Raises:
        TypeError: if a candidate cannot be called or a name is not text.
        ValueError: for fewer than two candidates, a name given twice, an unknown baseline, or
            fewer than 9 pairs.

    Example:
        >>> work = {"slow": lambda: sum(range(20_000)), "fast": lambda: sum(range(200))}
        >>> compare(work)["fast"].low > 1
        True
    """
    items = list(candidates.items() if isinstance(candidates, Mapping) else candidates)
    functions = dict(items)
    if len(items) < 2:
        raise ValueError(f"a comparison needs at least two candidates, got {list(functions)}.")
    if len(functions) != len(items):
        names = [name for name, _ in items]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"names must differ; given twice: {twice}. Rename one.")
    for name, fn in items:
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"a candidate's name must be a text that is not empty, got {name!r}.")
        _check(fn, f"candidate {name!r}", warmup, min_seconds, sync)
    if not isinstance(pairs, int) or pairs < MIN_PAIRS:
        raise ValueError(
            f"pairs must be a whole number of at least {MIN_PAIRS}, got {pairs!r}: "
            "fewer give no interval that can be trusted."
        )
    names = list(functions)
    baseline = names[0] if baseline is None else baseline
    if baseline not in functions:
        raise ValueError(f"baseline must be one of {names}, got {baseline!r}.")

    env, sync = environment(), sync or _host_sync()
    warm = {name: _warm_up(fn, sync, warmup, min_seconds) for name, fn in items}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _garbage_collector_off():
        for round_index in range(pairs):
            gc.collect(0)  # only what the last round left behind, so it is quick
            for name in _order(names, round_index):
                _, calls = warm[name]
                seconds[name].append(_seconds_per_call(functions[name], sync, calls))
    records = {
        name: Record(name, first, tuple(seconds[name]), calls, env)
        for name, (first, calls) in warm.items()
    }
    return Comparison(baseline, records, env)


def _order(names: list[str], round_index: int) -> list[str]:
    """Turns the order by one each round, and reverses it in every second cycle."""
    cycle, shift = divmod(round_index, len(names))
    turned = names[shift:] + names[:shift]
    return turned[::-1] if cycle % 2 else turned


def _check(fn: Any, what: str, warmup: int, min_seconds: float, sync: Sync | None) -> None:
    if not callable(fn):
        raise TypeError(
            f"{what} must be callable without arguments, got {type(fn).__name__}. "
            "Pass the function, not its result: lambda: f(x)."
        )
    if sync is not None and not callable(sync):
        raise TypeError(f"sync must be callable or None, got {type(sync).__name__}.")
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"warmup must be a whole number from 0 up, got {warmup!r}.")
    if not 0 <= min_seconds < math.inf:
        raise ValueError(f"min_seconds must be finite and not negative, got {min_seconds!r}.")


def assert_faster(result: Ratio | Comparison, than: float = 1.0) -> None:
    """Fails unless the whole interval of a ratio lies above `than`.

    A cell whose prose says "faster" calls this, so the build breaks when it stops being true.

    Args:
        result: a ratio, or a comparison of two.
        than: the claim, as a ratio: 1 for "faster", 2 for "at least twice as fast".

    Raises:
        AssertionError: if the interval reaches down to `than`.
    """
    ratio = result.only() if isinstance(result, Comparison) else result
    if not ratio.low > than:
        raise AssertionError(
            f"{ratio.name!r} is not shown to be more than {than:g}× as fast as "
            f"{ratio.baseline!r}: {ratio} in {len(ratio.pairs)} pairs. "
            "Measure on a quiet machine, or change the claim."
        )
