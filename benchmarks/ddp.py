"""PyTorch's DistributedDataParallel: killed, started again by torchrun, and bit for bit the same.

    python benchmarks/ddp.py                     # both runs, and whether they end alike

It trains a small flow of three layers on noise: what is shown is the bookkeeping. Each process has
its rows of a batch that follows from (seed, step); process 0 writes a checkpoint every few steps,
whole or not at all; and every process begins from what it finds. So torchrun may start them again
as often as it likes. One kill can use up two of its restarts: the survivor fails too, and is
counted.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from genlib import files

STEPS, EVERY, KILLED, BATCH, RESTARTS = 20, 4, 9, 16, 3
PIXELS, WIDTH = 64, 256


def train(folder, kill):
    """Is one of the processes that torchrun starts."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=15))
    rank, world = dist.get_rank(), dist.get_world_size()
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    torch.manual_seed(0)  # the same weights on every process
    layers = [nn.Linear(PIXELS + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()]
    flow = nn.Sequential(*layers, nn.Linear(WIDTH, PIXELS))
    model = nn.parallel.DistributedDataParallel(flow)
    optimizer = torch.optim.AdamW(flow.parameters(), 1e-3)
    file, step = folder / "checkpoint.pt", 0
    if file.exists():
        found = torch.load(file, weights_only=True)
        flow.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        step = found["step"]
    while step < STEPS:
        points, velocities = batch(step)
        mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        loss = ((model(points[mine]) - velocities[mine]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()  # DDP averages the gradients over the processes meanwhile
        optimizer.step()
        step += 1
        if rank == 0 and step % EVERY == 0:
            whole = {"model": flow.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            content = io.BytesIO()
            torch.save(whole, content)
            files.write_atomic(file, content.getvalue())
        if kill and first and (rank, step) == (1, KILLED):
            os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def batch(step):
    """Draws points with their times, and velocities, of a step: the same on every process."""
    rng = np.random.default_rng((0, step))
    drawn = rng.standard_normal((2, BATCH, PIXELS)), rng.random((BATCH, 1))
    (noise, images), times = (torch.from_numpy(array.astype(np.float32)) for array in drawn)
    points = (1 - times) * noise + times * images
    return torch.cat([points, times], 1), images - noise


def run(folder, kill=False, processes=2):
    """Trains under torchrun; returns seconds, the hash of weights and optimiser, and weights."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command += ["--local-addr", "127.0.0.1", "--max-restarts", str(RESTARTS)]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, __file__],
        env={**os.environ, "DDP_FOLDER": str(folder), "DDP_KILL": str(int(kill))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert found["step"] == STEPS
    digest = hashlib.sha256()
    moments = [v for one in found["optimizer"]["state"].values() for v in one.values()]
    for tensor in [*found["model"].values(), *moments]:
        digest.update(tensor.numpy().tobytes())
    weights = torch.cat([tensor.flatten() for tensor in found["model"].values()])
    return time.perf_counter() - start, digest.hexdigest(), weights


def main():
    """Trains once undisturbed and once killed, and records whether they end alike."""
    from genlib import records  # Keras comes with it, which no other process needs

    with tempfile.TemporaryDirectory() as folder:
        alone = run(Path(folder) / "alone", processes=1)
        whole = run(Path(folder) / "whole")
        killed = run(Path(folder) / "killed", kill=True)
    result = {
        "steps": STEPS,
        "checkpoint every": EVERY,
        "killed after": KILLED,
        "seconds": {"whole": round(whole[0], 1), "killed": round(killed[0], 1)},
        "bit for bit": whole[1] == killed[1],
        "difference from one process": float((alone[2] - whole[2]).abs().max()),
    }
    print(json.dumps(result, indent=1))
    records.save("ddp", result)
    return 0 if result["bit for bit"] else 1


if __name__ == "__main__":
    if "RANK" in os.environ:
        status = 1
        try:
            train(Path(os.environ["DDP_FOLDER"]), os.environ["DDP_KILL"] == "1")
            status = 0
        except RuntimeError:  # another process is gone
            traceback.print_exc()
        # At once: destroy_process_group, and Python's own end, have waited here for ever, for a
        # thread of gloo's that waited for Python's lock.
        os._exit(status)
    else:
        sys.exit(main())
