"""Measure speed so that the claim can be trusted.

A bench knows callables, never models. The rules it keeps: runs alternate (A B B A …) so that a
busy minute hits every candidate; a result counts when it is on the host; the first call (which
compiles) is timed apart; a speed-up is the median of *paired* ratios with a 95 % bootstrap
interval; and the record says where, when and with what it was measured.

Threads: fix them before the first computation, because thread pools are sized once.
`fix_threads(2)` at the top of a notebook does it in Python, `taskset -c 0,1 python …` from
outside. Every record states the counts that were read back.
"""

from __future__ import annotations

import ast
import datetime
import functools
import gc
import html
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil
import threadpoolctl

SCHEMA = "genlib.bench/1"
MIN_PAIRS = 7

Sync = Callable[[Any], Any]


# --- statistics ---------------------------------------------------------------------------------


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.median,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a statistic.

    Args:
        values: independent measurements, `(n,)`, n ≥ 2.
        statistic: a reduction that takes `axis=`, such as `np.median` or `np.mean`.
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
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise ValueError(
            f"values must be at least two finite numbers in one dimension, got {values!r}. "
            "Measure again with more repeats."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Use 0.95.")
    rows = np.random.default_rng(seed).integers(0, array.size, (resamples, array.size))
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(array[rows], axis=1), [tail, 1 - tail])
    return float(low), float(high)


# --- numbers for people -------------------------------------------------------------------------

_TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `value` with about `digits` significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def format_ratio(ratio: float, low: float, high: float) -> str:
    """Writes a ratio and its interval: `3.4× (3.1–3.8)`; two decimals near 1."""
    d = 2 if 0.8 <= ratio < 2 else _decimals(ratio, 2)
    return f"{ratio:.{d}f}× ({low:.{d}f}–{high:.{d}f})"


def format_seconds(seconds: float, low: float | None = None, high: float | None = None) -> str:
    """Writes a duration in its natural unit: `12.3 ms`, or `12.3 ms (11.9–12.8)`."""
    unit, size = next((u for u in _TIME_UNITS if abs(seconds) >= u[1]), _TIME_UNITS[-1])
    d = _decimals(seconds / size, 3)
    text = f"{seconds / size:.{d}f} {unit}"
    if low is None or high is None:
        return text
    return f"{text} ({low / size:.{d}f}–{high / size:.{d}f})"


class _Plain(str):
    """Text that a notebook shows without quotation marks, as glue needs it.

    MyST-NB reads a text that is a Python literal as one, so that 5,000 would become (5, 0). Such a
    text keeps its quotation marks, which MyST-NB then takes away.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            read = str(ast.literal_eval(str(self)))
        except (SyntaxError, ValueError):
            return str(self)
        return str(self) if read == self else super().__repr__()


def glue(name: str, text: str) -> str:
    """Stores a text in the notebook under a name, for ``{glue:text}`name` `` in the prose.

    Outside IPython, or where MyST-NB is not installed (Colab), it only returns the text.
    """
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        try:
            from myst_nb import glue as myst_glue
        except ImportError:
            return text
        myst_glue(name, _Plain(text), display=False)
    return text


# --- where and when -----------------------------------------------------------------------------


def fix_threads(n: int) -> dict[str, Any]:
    """Limits this process to `n` processor cores and `n` threads per library.

    Call it before the first computation: TensorFlow, JAX and PyTorch size their thread pools
    once, by the cores that the process may use. (The cores can be pinned on Linux only.)

    Args:
        n: cores and threads, from 1 to the number of cores this process may use.

    Returns:
        The counts read back, as `threads()` gives them.

    Raises:
        ValueError: if there are fewer than `n` cores.
    """
    cores = usable_cores()
    if not isinstance(n, int) or not 1 <= n <= len(cores):
        raise ValueError(
            f"n must be a whole number from 1 to {len(cores)}, the cores of this process; got {n}."
        )
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(n)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:n])
    threadpoolctl.threadpool_limits(n)
    return threads()


_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def usable_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads() -> dict[str, Any]:
    """Reads the thread counts back: cores, BLAS and OpenMP pools, the backend's, variables set."""
    from genlib import backend

    pools = {p["prefix"]: int(p["num_threads"]) for p in threadpoolctl.threadpool_info()}
    variables = {v: os.environ[v] for v in _THREAD_VARIABLES if v in os.environ}
    return {"cores": len(usable_cores()), **pools, **backend.threads(), **variables}


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _gpu_model() -> str | None:
    """Asks the driver, since the backends disagree on how to name a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.splitlines()[0].strip() if found.stdout.strip() else None


def environment() -> dict[str, Any]:
    """Describes what a measurement depends on: versions, hardware, threads, load, date."""
    from genlib import backend

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "keras": importlib.metadata.version("keras"),
            backend.name(): getattr(sys.modules.get(backend.name()), "__version__", "unknown"),
        },
        "backend": backend.name(),
        "device": backend.device(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_model(),
            "cores": os.cpu_count() or 1,
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": _gpu_model(),
        },
        "threads": threads(),
        # Runnable processes over the last minute, before our own work: above 1, someone else ran.
        "load_1min": round(psutil.getloadavg()[0], 2),
    }


def describe(env: Mapping[str, Any]) -> str:
    """One line for the foot of a table."""
    hardware, versions = env["hardware"], env["versions"]
    where = hardware["gpu"] if env["device"] != "cpu" and hardware["gpu"] else hardware["cpu"]
    return (
        f"{where}, {env['threads']['cores']} of {hardware['cores']} cores, "
        f"load {env['load_1min']}; Keras {versions['keras']} on {env['backend']} "
        f"{versions[env['backend']]}; {env['date'][:10]}"
    )


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
        """The 95 % bootstrap interval of the median, in seconds."""
        return bootstrap_interval(self.seconds)

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
        return _table(
            ["", "time of a call", "first call"],
            [[self.name, str(self), format_seconds(self.first_call)]],
            describe(self.environment),
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
    low: float  # ends of its 95 % bootstrap interval
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
        low, high = bootstrap_interval(pairs)
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
        foot = f"Median and 95 % bootstrap interval of {n} rounds. {describe(self.environment)}"
        return _table(["", "time of a call", "speed", "first call"], rows, foot)

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


def _table(head: list[str], rows: list[list[str]], foot: str) -> str:
    """An HTML table; the class `dataframe` is the one that notebook themes style in dark mode."""

    def line(cells: list[str], tag: str) -> str:
        style = ["", *[' style="text-align: right"'] * (len(cells) - 1)]
        pairs = zip(cells, style, strict=True)
        return "<tr>" + "".join(f"<{tag}{s}>{html.escape(c)}</{tag}>" for c, s in pairs) + "</tr>"

    return (
        '<table class="dataframe">'
        f'<caption style="caption-side: bottom">{html.escape(foot)}</caption>'
        f"<thead>{line(head, 'th')}</thead>"
        f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
    )


# --- measuring ----------------------------------------------------------------------------------


def _host_sync() -> Sync:
    from genlib import backend

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
        pairs: rounds, at least 7.
        baseline: the name that the ratios refer to; the first one if None.
        warmup: untimed calls of each candidate after its first one.
        min_seconds: a run repeats short calls until it lasts about as long (s).
        sync: waits for a result; `genlib.backend.synchronize` if None.

    Returns:
        A comparison: `comparison["fast"].ratio`, `.low`, `.high`, and the raw times.

    Raises:
        TypeError: if a candidate cannot be called or a name is not text.
        ValueError: for fewer than two candidates, a name given twice, an unknown baseline, or
            fewer than 7 pairs.

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


# --- ceilings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceilings:
    """The two limits of a machine: how fast it computes, and how fast it moves data."""

    device: str
    gflops: float  # float32 matrix product, 1e9 operations per second
    gigabytes_per_second: float  # large copy, 1e9 bytes read plus written per second

    @property
    def ridge(self) -> float:
        """Operations per byte above which arithmetic, not memory, is the limit."""
        return self.gflops / self.gigabytes_per_second

    def __str__(self) -> str:
        return f"{self.gflops:.0f} GFLOP/s, {self.gigabytes_per_second:.1f} GB/s ({self.device})"

    def glue(self, name: str) -> str:
        """Stores `85 GFLOP/s, 20.1 GB/s (…)` for the prose, and returns it."""
        return glue(name, str(self))


@functools.cache
def ceilings() -> Ceilings:
    """Measures what this machine can do at most, once per process (about two seconds).

    On a CPU NumPy and the Keras backend multiply square float32 matrices, and the faster of the
    two counts; NumPy copies a block that no cache holds, with one thread per core. With an
    accelerator the backend does both there (a backend may compute float32 products in TF32). A
    ceiling is the *best* run, not the median: it is a limit, and only disturbance makes a run
    slower.
    """
    from genlib import backend

    if backend.device() == "cpu":
        return _cpu_ceilings()
    return _accelerator_ceilings(_gpu_model() or backend.device())


def _best_seconds(fn: Callable[[], Any], sync: Sync, repeats: int = 7) -> float:
    return min(measure(fn, repeats=repeats, warmup=1, sync=sync).seconds)


def _cpu_ceilings(n: int = 1536, megabytes: int = 256) -> Ceilings:
    from genlib import backend

    cores = len(usable_cores())
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    out = np.empty_like(a)
    by_backend = backend.compile_step(lambda x: x @ x)
    product = min(
        _best_seconds(lambda: np.matmul(a, a, out=out), sync=lambda _: None),
        _best_seconds(lambda: by_backend(a), backend.synchronize),
    )

    source = np.ones(megabytes * 2**20 // 8)
    target = np.zeros_like(source)  # written once, so that the pages exist
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    with ThreadPoolExecutor(cores) as pool:  # NumPy copies without the interpreter's lock
        copy = _best_seconds(
            lambda: list(pool.map(lambda part: np.copyto(*part), parts)), sync=lambda _: None
        )
    device = f"{_cpu_model()}, {cores} cores"
    return Ceilings(device, 2 * n**3 / product / 1e9, 2 * source.nbytes / copy / 1e9)


def _accelerator_ceilings(device: str, n: int = 8192, chain: int = 20) -> Ceilings:
    from keras import ops

    from genlib import backend

    # A chain of operations, then one number to the host: else the clock would time the cable.
    a = ops.ones((n, n), "float32") / n

    def products() -> Any:
        x = a
        for _ in range(chain):
            x = ops.matmul(x, a)
        return x[0, 0]

    def copies() -> Any:
        x = a
        for _ in range(chain):
            x = x * 0.5  # reads all, writes all; outside a graph nothing is fused
        return x[0, 0]

    product = _best_seconds(products, backend.synchronize) / chain
    copy = _best_seconds(copies, backend.synchronize) / chain
    return Ceilings(device, 2 * n**3 / product / 1e9, 2 * 4 * n * n / copy / 1e9)


@dataclass(frozen=True)
class ShareOfLimit:
    """What the machine's limit predicts, and how near a measurement comes to it."""

    predicted_seconds: float
    measured_seconds: float
    bound: str  # "compute" or "memory", whichever limit is met first

    @property
    def share(self) -> float:
        """Predicted over measured time: 1 is the limit itself."""
        return self.predicted_seconds / self.measured_seconds

    def __str__(self) -> str:
        return (
            f"predicted {format_seconds(self.predicted_seconds)} ({self.bound}-bound), "
            f"measured {format_seconds(self.measured_seconds)}: {self.share:.0%} of the limit"
        )

    def glue(self, name: str) -> str:
        """Stores the sentence for the prose, and returns it."""
        return glue(name, str(self))


def share_of_limit(
    flops: float, moved_bytes: float, seconds: float, limits: Ceilings | None = None
) -> ShareOfLimit:
    """Compares a measured time with the roofline's.

    No program is faster than `max(flops / peak rate, bytes / bandwidth)`.

    Args:
        flops: floating-point operations of the work (a multiply-add counts two).
        moved_bytes: bytes read from and written to memory (weights, inputs, outputs).
        seconds: the measured time, s.
        limits: the machine's ceilings; `ceilings()` if None.

    Raises:
        ValueError: if a number is negative, or the time or the work is nothing.

    Reference:
        Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52 (2009).

    Example:
        >>> print(share_of_limit(2e9, 1e6, 0.05, Ceilings("a machine", 100.0, 10.0)))
        predicted 20.0 ms (compute-bound), measured 50.0 ms: 40% of the limit
    """
    if not (flops >= 0 and moved_bytes >= 0 and flops + moved_bytes > 0 and seconds > 0):
        raise ValueError(
            "flops and moved_bytes must not be negative (nor both 0) and seconds must be "
            f"positive, got {flops}, {moved_bytes}, {seconds}."
        )
    limits = limits or ceilings()
    compute = flops / (limits.gflops * 1e9)
    memory = moved_bytes / (limits.gigabytes_per_second * 1e9)
    bound = "compute" if compute >= memory else "memory"
    return ShareOfLimit(max(compute, memory), seconds, bound)
