"""One table of ranges: what it takes and refuses, and that everybody asks it."""

import ast
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlib import ranges
from genlib.ranges import RANGES, check

NO_NUMBERS = [math.nan, math.inf, -math.inf, None, "3", True, [3], 3 + 0j, np.array([3]), {}]


@pytest.mark.parametrize("name", RANGES)
def test_a_range_takes_its_ends_and_nothing_beyond(name):
    row = RANGES[name]
    for value in (row.least, row.most, *([0] if row.or_zero else [])):
        check(name, value)
    step = 1 if row.whole else 1e-3
    wrong = [row.most + max(step, abs(row.most) * 1e-3), -1e-9, -step, 10**400, -(10**5000)]
    wrong += [1e38, *NO_NUMBERS, *([1.5] if row.whole else [])]
    for value in wrong:
        with pytest.raises(ValueError, match=r"^size = .*; give "):
            check("size", value, of=name)


@given(st.floats() | st.integers() | st.fractions())
def test_whatever_is_taken_is_finite_and_in_the_range(value):
    for row in RANGES.values():
        if value in row:
            assert math.isfinite(value)
            assert row.least <= value <= row.most or (row.or_zero and value == 0)
            assert not row.whole or value == int(value)


def test_numbers_of_numpy_are_numbers():
    check("n", np.int64(3))
    check("guidance", np.float32(1.5))
    check("guidance", Fraction(3, 2))
    with pytest.raises(ValueError, match=r"guidance = .*nan"):
        check("guidance", np.float32("nan"))


def test_the_message_has_what_was_given_and_what_is_taken():
    with pytest.raises(ValueError, match=r"^n = 0; give a whole number from 1 to 1,024\.$"):
        check("n", 0)
    with pytest.raises(
        ValueError, match=r"^seed = -1; give a whole number from 0 to 2\*\*64 - 1\.$"
    ):
        check("seed", -1)
    with pytest.raises(ValueError, match=r"^temperature = nan; give 0, or a number from 1e-06 to "):
        check("temperature", math.nan)
    with pytest.raises(ValueError, match=r"^n = about 2\*\*"):
        check("n", 10**5000)
    with pytest.raises(ValueError) as error:  # noqa: PT011  its length is what counts
        check("n", "x" * 10_000)
    assert len(str(error.value)) < 120


def test_what_bars_codes_may_be_left_out_and_nothing_else_may():
    ranges.check_all(top_k=None, top_p=None, min_p=None)
    for name in ("guidance", "temperature", "steps", "n", "seed"):
        with pytest.raises(ValueError, match=name):
            ranges.check_all(**{name: None})


@pytest.mark.parametrize(
    "interval", [(0.5, 0.2), (-0.1, 1), (0, 1.1), (0, math.nan), (math.nan, 1), (0,), 3, None, "01"]
)
def test_an_interval_is_two_times_in_order(interval):
    with pytest.raises(ValueError, match=r"interval = .*0 ≤ first ≤ last ≤ 1"):
        ranges.check_interval(interval)
    ranges.check_interval((0.0, 1.0))
    ranges.check_interval([0.25, 0.25])


def test_the_command_line_has_no_ranges_of_its_own():
    source = (Path(ranges.__file__).parent / "cli.py").read_text("utf-8")
    words = {
        k.arg for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) for k in n.keywords
    }
    assert not {"min", "max", "clamp"} & words
