"""The measuring room: times any callable. The command `genlib bench` is another room, `ladder`.

* `timing`: `measure` one callable, `compare` several in alternation, `assert_faster`;
* `machine`: threads, hardware and versions, as every record states them;
* `roofline`: the machine's two ceilings, and the share of them that was reached;
* `count`: operations and bytes of networks, for the roofline;
* `notebook`: numbers as text for the prose.

A bench knows callables and arrays; only `count` knows networks, and is imported by its own name.
"""

from genlib.bench.machine import environment, fix_threads, footnote, threads, usable_cores
from genlib.bench.notebook import format_ratio, format_seconds, glue
from genlib.bench.roofline import Ceilings, ShareOfLimit, ceilings, share_of_limit
from genlib.bench.timing import (
    MIN_PAIRS,
    Comparison,
    Ratio,
    Record,
    assert_faster,
    bootstrap_interval,
    compare,
    coverage,
    measure,
    median_and_interval,
    median_interval,
)

__all__ = [
    "MIN_PAIRS",
    "Ceilings",
    "Comparison",
    "Ratio",
    "Record",
    "ShareOfLimit",
    "assert_faster",
    "bootstrap_interval",
    "ceilings",
    "compare",
    "coverage",
    "environment",
    "fix_threads",
    "footnote",
    "format_ratio",
    "format_seconds",
    "glue",
    "measure",
    "median_and_interval",
    "median_interval",
    "share_of_limit",
    "threads",
    "usable_cores",
]
