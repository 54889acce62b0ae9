"""The bench: what it times, in which order, how sure it is, and what it refuses.

Sleeps have a least duration by contract, so ratios of sleeps lie in known broad bands; nothing
here asserts an absolute time.
"""

import gc
import html.parser
import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from genlib import backend, bench
from genlib.bench import notebook, roofline, timing


def sleeper(milliseconds: float):
    return lambda: time.sleep(milliseconds / 1000)


@pytest.fixture(scope="module")
def sleeps() -> bench.Comparison:
    # Long, and more than twice the least number of pairs: a busy machine stretches some sleeps.
    return bench.compare({"slow": sleeper(120), "fast": sleeper(40)}, pairs=21)


class Clock:
    """A clock that only moves when a callable works, so that ratios are known exactly."""

    def __init__(self):
        self.now = 0.0
        self.random = np.random.default_rng(0)

    def work(self, seconds: float, noise: float = 0.0):
        def step():
            self.now += seconds * self.random.uniform(1 - noise, 1 + noise)

        return step


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    return made


@pytest.fixture(scope="module")
def env() -> dict:
    return bench.environment()


def comparison(env: dict, **seconds: list[float]) -> bench.Comparison:
    """A comparison with known times."""
    records = {n: bench.Record(n, t[0], tuple(t), 1, env) for n, t in seconds.items()}
    return bench.Comparison(next(iter(seconds)), records, env)


# --- ratios -------------------------------------------------------------------------------------


def test_a_sleep_of_10_ms_is_found_about_3_times_as_fast_as_one_of_30(sleeps):
    ratio = sleeps["fast"]
    assert 1.2 < ratio.low <= ratio.ratio <= ratio.high < 4.5
    bench.assert_faster(sleeps)


def test_two_equal_candidates_are_not_called_different(clock):
    work = {"a": clock.work(1.0, noise=0.3), "b": clock.work(1.0, noise=0.3)}
    equal = bench.compare(work, pairs=15)
    assert equal.low < 1 < equal.high
    with pytest.raises(AssertionError, match="not shown"):
        bench.assert_faster(equal)


def test_a_planted_regression_makes_assert_faster_fail_and_name_ratio_and_interval(clock):
    good = bench.compare({"old": clock.work(2.0, noise=0.1), "new": clock.work(1.0, noise=0.1)})
    bench.assert_faster(good, than=1.5)
    regressed = bench.compare({"old": clock.work(2.0), "new": clock.work(2.2)})
    with pytest.raises(AssertionError) as caught:
        bench.assert_faster(regressed)
    assert all(part in str(caught.value) for part in ("'new'", "'old'", "0.91× (0.91–0.91)"))


def test_times_are_those_of_the_callable_alone(clock):
    comparison = bench.compare({"slow": clock.work(3e-5), "fast": clock.work(1e-5)})
    assert comparison.ratio == pytest.approx(3)
    assert comparison.records["fast"].median == pytest.approx(1e-5)
    assert comparison.records["fast"].calls >= 500  # enough calls for 5 ms


def test_assert_faster_fails_when_the_interval_includes_1(env):
    unsure = comparison(env, a=[1.0] * 9, b=[0.5, 0.5, 0.5, 0.5, 0.9, 2.0, 2.0, 2.0, 2.0])
    assert unsure.low < 1 < unsure.ratio
    with pytest.raises(AssertionError):
        bench.assert_faster(unsure)


def test_assert_faster_holds_a_claim_of_more_than_1(env):
    twice = comparison(env, a=[2.0] * 9, b=[1.0] * 9)
    bench.assert_faster(twice, than=1.9)
    with pytest.raises(AssertionError):
        bench.assert_faster(twice, than=2)


def test_ratios_are_paired_so_a_slowdown_of_a_whole_round_cancels(env):
    rounds = np.array([1, 1, 9, 1, 5, 2, 1, 1, 1.0])  # the machine was busy in three of them
    paired = comparison(env, a=list(3 * rounds), b=list(rounds))
    assert (paired.low, paired.ratio, paired.high) == pytest.approx((3, 3, 3))


def test_the_baseline_is_the_first_candidate_unless_named(env):
    candidates = {"a": sleeper(1), "b": sleeper(1)}
    assert bench.compare(candidates, min_seconds=0).baseline == "a"
    assert bench.compare(candidates, min_seconds=0, baseline="b").baseline == "b"
    assert comparison(env, a=[1.0] * 9, b=[2.0] * 9)["a"].ratio == 1


def test_a_comparison_of_three_asks_which_ratio_is_meant(env):
    three = comparison(env, a=[3.0] * 9, b=[2.0] * 9, c=[1.0] * 9)
    assert three["c"].ratio == pytest.approx(3)
    with pytest.raises(ValueError, match="Choose one"):
        bench.assert_faster(three)
    with pytest.raises(KeyError, match="no candidate"):
        three["d"]


# --- order, first call, repetitions -------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_runs_alternate_and_every_candidate_stands_in_every_place(names):
    calls = []
    work = {n: (lambda n=n: calls.append(n)) for n in names}
    bench.compare(work, pairs=12, warmup=0, min_seconds=0)
    k = len(names)
    rounds = [calls[i : i + k] for i in range(2 * k, len(calls), k)]  # after the first two calls
    assert len(rounds) == 12
    assert all(sorted(order) == list(names) for order in rounds)
    for place in range(k):
        assert {order[place] for order in rounds} == set(names)
        assert [order[place] for order in rounds].count("a") == 12 / k


def test_the_first_call_is_timed_apart(clock):
    durations = iter([8.0])  # compiling

    def compiles_first():
        clock.now += next(durations, 0.5)

    record = bench.measure(compiles_first, repeats=5)
    assert record.first_call == 8
    assert record.seconds == (0.5,) * 5


def test_short_callables_are_repeated_until_the_clock_can_tell():
    count = 0

    def short():
        nonlocal count
        count += 1

    record = bench.measure(short, repeats=3, warmup=0, min_seconds=0.002)
    assert record.calls > 10
    assert count >= 3 * record.calls


def test_a_long_callable_runs_once_in_each_timed_run():
    assert bench.measure(sleeper(10), repeats=2, warmup=0).calls == 1


def test_every_result_goes_through_sync_inside_the_timed_span():
    seen = []
    record = bench.measure(
        lambda: "result",
        repeats=3,
        warmup=1,
        min_seconds=0,
        sync=lambda r: seen.append(r) or time.sleep(0.002),
    )
    assert seen == ["result"] * (1 + 1 + 1 + 3)
    assert min(record.seconds) >= 0.002


def test_results_of_the_backend_are_waited_for():
    x = keras.ops.ones((64, 64))
    record = bench.measure(lambda: {"y": keras.ops.matmul(x, x)}, repeats=3)
    assert record.median > 0


def test_the_collector_is_off_while_timing_and_as_before_afterwards():
    states = []
    bench.measure(lambda: states.append(gc.isenabled()), repeats=2, warmup=0, min_seconds=0)
    assert states[-2:] == [False, False]
    assert gc.isenabled()

    def fails():
        if not gc.isenabled():
            raise RuntimeError("broken candidate")

    with pytest.raises(RuntimeError, match="broken candidate"):
        bench.measure(fails, warmup=0)
    assert gc.isenabled()


# --- intervals ----------------------------------------------------------------------------------


def test_the_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(3).normal(10, 2, 400)
    low, high = bench.bootstrap_interval(values, np.mean)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


@pytest.mark.parametrize(
    "noise",
    [
        lambda rng, shape: rng.lognormal(0, 1, shape),  # a few runs take much longer
        lambda rng, shape: rng.exponential(1, shape) ** 2,
        lambda rng, shape: rng.standard_cauchy(shape),  # without even a mean
    ],
    ids=["lognormal", "squared exponential", "Cauchy"],
)
@pytest.mark.parametrize("n", [5, 7, 9, 15])
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(n, noise):
    rng = np.random.default_rng(n)
    truth = np.median(noise(rng, 1_000_001))
    ends = np.array([bench.median_interval(values) for values in noise(rng, (4000, n))])
    held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert held == pytest.approx(bench.coverage(n), abs=0.012)  # more than three standard errors
    assert held >= 0.93


def test_the_interval_of_a_comparison_holds_the_ratio_under_skewed_noise(env):
    """Paired times with long tails: the true ratio is 2, the median of the paired ones too."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        slow, fast = rng.lognormal(0, 0.5, (2, bench.MIN_PAIRS)) * [[2.0], [1.0]]
        ratio = comparison(env, slow=list(slow), fast=list(fast))["fast"]
        held += ratio.low <= 2 <= ratio.high
    assert held / 2000 >= 0.93


def test_nine_pairs_are_the_fewest_whose_interval_is_narrower_than_their_range():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 10.0))
    assert len(values) == bench.MIN_PAIRS
    assert bench.median_interval(values) == (2, 8)
    assert bench.coverage(9) == pytest.approx(0.9609375)
    assert bench.median_interval(values[:8]) == (values[:8].min(), values[:8].max())
    assert bench.coverage(8) == pytest.approx(1 - 2 / 2**8)


@pytest.mark.parametrize("n", [6, 9, 12, 21, 50])
def test_the_interval_of_a_median_is_scipys(n):
    values = np.random.default_rng(n).exponential(size=n)
    expected = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert bench.median_interval(values) == (expected.low, expected.high)


def test_an_old_record_of_seven_rounds_shows_its_range_and_what_that_covers(env):
    old = comparison(env, a=[2.0, 2, 2, 2, 2, 2, 3.0], b=[1.0] * 7)
    again = bench.Comparison.from_json(old.to_json())
    assert (again["b"].ratio, again["b"].low, again["b"].high) == (2, 2, 3)
    assert "Median of 7 rounds" in again._repr_html_()
    assert "98.4%" in again._repr_html_()


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=20))
@settings(deadline=None)
def test_the_interval_holds_the_median_and_stays_within_the_values(values):
    low, high = bench.median_interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)


def test_the_same_values_give_the_same_interval_whatever_the_global_seed():
    np.random.seed(1)  # noqa: NPY002
    first = bench.bootstrap_interval([1.0, 2, 5, 9])
    np.random.seed(2)  # noqa: NPY002
    assert bench.bootstrap_interval([1.0, 2, 5, 9]) == first


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [[1.0, 2.0]]])
@pytest.mark.parametrize("interval", [bench.bootstrap_interval, bench.median_interval])
def test_an_interval_needs_two_finite_values(values, interval):
    with pytest.raises(ValueError, match="at least two finite"):
        interval(values)
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1.0, 2.0], level=95)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (({},), ValueError, "at least two"),
        (({"a": sleeper(1)},), ValueError, "at least two"),
        (({"a": sleeper(1), "b": 3.0},), TypeError, "candidate 'b' must be callable"),
        (({"a": sleeper(1), 2: sleeper(1)},), TypeError, "name must be a text"),
        (({"a": sleeper(1), " ": sleeper(1)},), TypeError, "name must be a text"),
        (([("a", sleeper(1)), ("a", sleeper(2))],), ValueError, "given twice: \\['a'\\]"),
    ],
)
def test_compare_refuses_bad_candidates(arguments, error, says):
    with pytest.raises(error, match=says):
        bench.compare(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"pairs": 8}, ValueError, "at least 9"),
        ({"pairs": 9.5}, ValueError, "at least 9"),
        ({"baseline": "c"}, ValueError, "baseline must be one of"),
        ({"warmup": -1}, ValueError, "warmup"),
        ({"min_seconds": float("inf")}, ValueError, "min_seconds"),
        ({"sync": "host"}, TypeError, "sync"),
    ],
)
def test_compare_refuses_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        bench.compare({"a": sleeper(1), "b": sleeper(1)}, **options)


def test_measure_refuses_a_result_in_place_of_a_function_and_a_single_repeat():
    with pytest.raises(TypeError, match="not its result"):
        bench.measure(42)
    with pytest.raises(ValueError, match="repeats"):
        bench.measure(sleeper(1), repeats=1)


# --- records ------------------------------------------------------------------------------------


def test_a_record_says_where_when_and_with_what(env):
    assert set(env["versions"]) == {"python", "numpy", "keras", backend.name()}
    assert all(env["versions"].values())
    assert env["hardware"]["cpu"]
    assert env["hardware"]["cores"] >= env["threads"]["cores"] >= 1
    assert env["load_1min"] >= 0
    assert env["date"].endswith("+00:00")


def test_json_round_trip_keeps_everything(sleeps):
    assert bench.Comparison.from_json(sleeps.to_json()) == sleeps
    record = sleeps.records["fast"]
    assert bench.Record.from_json(record.to_json()) == record


def test_json_of_another_kind_or_schema_or_a_damaged_one_is_refused(sleeps):
    text = sleeps.to_json()
    data = json.loads(text)
    wrong = [
        text[: len(text) // 2],
        "[]",
        "{}",
        json.dumps({**data, "schema": "genlib.bench/0"}),
        json.dumps({k: v for k, v in data.items() if k != "records"}),
        json.dumps({**data, "records": {"slow": {"name": "slow"}}}),
        sleeps.records["slow"].to_json(),
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match=r"bench record|expected a comparison|damaged"):
            bench.Comparison.from_json(bad)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((3.42, 3.11, 3.84), "3.4× (3.1–3.8)"),
        ((1.021, 0.987, 1.049), "1.02× (0.99–1.05)"),
        ((196.7, 190.2, 201.4), "197× (190–201)"),
        ((0.123, 0.1, 0.15), "0.12× (0.10–0.15)"),
    ],
)
def test_ratios_are_written_with_the_digits_that_mean_something(numbers, text):
    assert bench.format_ratio(*numbers) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0123, 0.0119, 0.0128), "12.3 ms (11.9–12.8)"),
        ((2.7, None, None), "2.70 s"),
        ((4.5e-6, None, None), "4.50 µs"),
        ((3e-10, None, None), "0.300 ns"),
    ],
)
def test_times_are_written_in_their_natural_unit(numbers, text):
    assert bench.format_seconds(*numbers) == text


def test_a_rate_turns_the_interval_round(env):
    record = bench.Record("batch", 1.0, (0.5,) * 9, 1, env)
    assert record.rate(16) == pytest.approx((32, 32, 32))
    low_high = bench.Record("batch", 1.0, (0.4, 0.5, 0.6), 1, env).rate(16)
    assert low_high[1] < low_high[0] < low_high[2]


def test_tables_are_well_formed_and_escape_names(env):
    table = comparison(env, **{"a<b": [1.0] * 9, "c": [0.5] * 9})._repr_html_()
    seen = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data):
            seen.append(data)

    Reader().feed(table)
    assert "a<b" in "".join(seen)
    assert "2.0× (2.0–2.0)" in seen
    assert env["versions"]["keras"] in table


# --- glue ---------------------------------------------------------------------------------------


def test_outside_a_notebook_glue_returns_the_text(sleeps):
    assert sleeps.glue("speed-up") == str(sleeps["fast"])
    assert sleeps.records["fast"].glue("time") == str(sleeps.records["fast"])


def test_in_a_notebook_glue_stores_the_text_without_quotation_marks(monkeypatch):
    pytest.importorskip("myst_nb")
    import IPython
    import myst_nb.ext.glue as myst_glue

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(
        myst_glue, "ipy_display", lambda data, **options: shown.append((data, options))
    )
    assert bench.glue("speed-up", "3.4× (3.1–3.8)") == "3.4× (3.1–3.8)"
    ((data, options),) = shown
    assert data == {"application/papermill.record/text/plain": "3.4× (3.1–3.8)"}
    assert options["metadata"]["scrapbook"]["name"] == "speed-up"


@pytest.mark.parametrize("text", ["5,000", "2,048", "0.10", "7", "3.4× (3.1–3.8)", "None"])
def test_what_is_glued_is_shown_as_it_is(text):
    variables = pytest.importorskip("myst_nb.core.variables")
    assert variables.format_plain_text(repr(notebook._Plain(text)), "") == text


# --- ceilings and the share of the limit --------------------------------------------------------


def test_on_a_cpu_the_backend_s_own_product_is_measured_beside_numpy_s(monkeypatch):
    """PyTorch compiles nothing here: given a NumPy array, `x @ x` would be NumPy's once more."""
    made = []

    def once(call, sync, **_):
        made.append(call())
        return 1.0

    monkeypatch.setattr(backend, "compile_step", lambda step, *_, **__: step)
    monkeypatch.setattr(roofline, "_best_seconds", once)
    roofline._cpu_ceilings(n=8, megabytes=1)
    by_numpy, by_backend, _ = made
    assert isinstance(by_numpy, np.ndarray)
    assert keras.ops.is_tensor(by_backend)
    np.testing.assert_allclose(backend.to_numpy(by_backend), by_numpy, rtol=1e-4, atol=1e-4)


def test_ceilings_are_positive_measured_once_and_above_any_product_we_time():
    limits = bench.ceilings()
    assert limits is bench.ceilings()
    assert limits.gflops > 0
    assert limits.gigabytes_per_second > 0
    assert limits.ridge == limits.gflops / limits.gigabytes_per_second


@pytest.mark.parametrize(
    ("flops", "moved", "predicted", "bound"),
    [(2e9, 1e6, 0.02, "compute"), (1e6, 2e9, 0.2, "memory")],
)
def test_the_roofline_predicts_the_slower_of_arithmetic_and_memory(flops, moved, predicted, bound):
    limits = bench.Ceilings("a machine", gflops=100.0, gigabytes_per_second=10.0)
    result = bench.share_of_limit(flops, moved, 0.4, limits)
    assert result.predicted_seconds == pytest.approx(predicted)
    assert result.bound == bound
    assert result.share == pytest.approx(predicted / 0.4)


@pytest.mark.parametrize(
    "numbers", [(-1, 1, 1), (1, -1, 1), (0, 0, 1), (1, 1, 0), (1, 1, float("nan"))]
)
def test_the_share_of_the_limit_refuses_impossible_numbers(numbers):
    with pytest.raises(ValueError, match="positive"):
        bench.share_of_limit(*numbers, bench.Ceilings("a machine", 1.0, 1.0))


# --- threads ------------------------------------------------------------------------------------


def test_fixed_threads_are_read_back():
    code = "from genlib import bench; import json; print(json.dumps(bench.fix_threads(1)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["OMP_NUM_THREADS"] == "1"
    if hasattr(os, "sched_getaffinity"):
        assert counts["cores"] == 1
    # PyTorch's inter-op pool serves only its own fork and wait, which Keras never calls.
    pools = {k: n for k, n in counts.items() if isinstance(n, int) and k != "inter_op"}
    assert all(n in (0, 1) for n in pools.values()), pools  # 0: the backend decides, by the cores


@pytest.mark.parametrize("n", [0, 10**6, 1.0])
def test_a_wrong_number_of_threads_is_refused(n):
    with pytest.raises(ValueError, match="whole number from 1"):
        bench.fix_threads(n)
