"""Ours against peers: the same work in the same run, alternating, on as many threads.

.venv-peers/bin/python benchmarks/peers/run.py              # all; writes genlib/records/peers.json
.venv-peers/bin/python benchmarks/peers/run.py flow         # one group, printed only
"""

from __future__ import annotations

import importlib
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"

from common import THREADS, versions

from genlib import bench, records

GROUPS = ("decoding", "flow", "keras_io")


def main() -> None:
    """Runs the groups that are named, or all of them; all of them are recorded."""
    wanted = sys.argv[1:] or list(GROUPS)
    if not set(wanted) <= set(GROUPS):
        sys.exit(f"There is no group {sorted(set(wanted) - set(GROUPS))}; there are {GROUPS}.")
    bench.fix_threads(THREADS)
    import torch

    torch.set_num_threads(THREADS)
    started, rows = time.perf_counter(), []
    for group in wanted:
        for row in importlib.import_module(group).rows():
            rows.append({"group": group, **row})
            minutes = (time.perf_counter() - started) / 60
            print(f"  ({minutes:.1f} minutes so far)", flush=True)
    if wanted == list(GROUPS):
        threads = {"each side": THREADS, "torch": torch.get_num_threads()}
        records.save("peers", {"versions": versions(), "threads": threads, "rows": rows})


if __name__ == "__main__":
    main()
