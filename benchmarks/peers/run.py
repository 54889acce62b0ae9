"""Ours against peers: the same work in the same run, alternating, on as many threads.

.venv-peers/bin/python benchmarks/peers/run.py          # all; writes genlib/records/peers.json
.venv-peers/bin/python benchmarks/peers/run.py flow     # one group, printed only
"""

from __future__ import annotations

import enum
import importlib
import os
import time
from typing import Annotated

import typer
from common import THREADS, versions

from genlib import bench, records

Group = enum.StrEnum("Group", ["decoding", "flow", "keras_io"])


def main(
    groups: Annotated[list[Group] | None, typer.Argument(help="All unless given.")] = None,
) -> None:
    """Runs the groups that are named, or all of them; all of them are recorded."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported, by a group
    wanted = list(groups or Group)
    bench.fix_threads(THREADS)
    import torch

    torch.set_num_threads(THREADS)
    started, rows = time.perf_counter(), []
    for group in wanted:
        for row in importlib.import_module(group.value).rows():
            rows.append({"group": group.value, **row})
            minutes = (time.perf_counter() - started) / 60
            print(f"  ({minutes:.1f} minutes so far)", flush=True)
    if wanted == list(Group):
        threads = {"each side": THREADS, "torch": torch.get_num_threads()}
        records.save("peers", {"versions": versions(), "threads": threads, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
