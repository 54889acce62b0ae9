"""Kills `genlib generate-many` at random moments (kill -9), and prints what came out, as JSON.

    python tests/bulk_kills.py 20 0 FOLDER      # how often, seed of the moments, where

By turns it kills the command (whose workers, those of a cluster, live on), one of its workers, and
the command with workers of its own. A killed command is given again; one whose worker was killed
has to end by itself. Every second kill waits for a file that is being written.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import psutil
from kills import finished, fork

from genlib import bulk

LINES, SHARD = 46, 4  # the last shard is a smaller one
KINDS = ("command", "worker", "command and workers")


def main(times, seed, folder):
    os.chdir(folder)
    rng = random.Random(int(seed))
    asked = [{"prompt": f"a house number {i}", "seed": i} for i in range(LINES)]
    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    cluster = subprocess.Popen(
        [sys.executable, __file__, "cluster"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    address = cluster.stdout.readline().decode().strip()
    try:
        assert finished(start("unbroken", address)) == 0
        right = result("unbroken")
        assert len(right) == -(-LINES // SHARD)
        outcomes = [
            one_kill(KINDS[turn % 3], turn, rng, cluster.pid, address, right)
            for turn in range(int(times))
        ]
    finally:
        cluster.communicate(b"\n")
    print(json.dumps(outcomes))


def one_kill(kind, turn, rng, cluster, address, right):
    status, name = None, f"killed-{turn}"
    own = kind == "command and workers"
    while status is None:  # it may end before its moment: then another one is drawn
        shutil.rmtree(name, ignore_errors=True)
        process = start(name, None if own else address)
        workers = psutil.Process(process if own else cluster)
        moment = rng.randrange(len(right)), rng.uniform(0, 0.1), turn % 2 == 1
        if not reached(process, name, *moment):
            continue
        before = {path.name: path.stat().st_ino for path in Path(name).glob("*.tar")}
        if kind == "worker":
            victim = rng.choice([p for p in workers.children(True) if is_worker(p)])
            victim.kill()
            status = finished(process)
        else:
            orphans = [p for p in workers.children(True) if is_worker(p)] if own else []
            os.kill(process, signal.SIGKILL)
            status = finished(process)
            _, alive = psutil.wait_procs(orphans, timeout=60)
            assert not alive, "workers outlive their command"
    again = finished(start(name, address))
    found = {path.name: path.stat().st_ino for path in Path(name).glob("*.tar")}
    return {
        "kind": kind,
        "status": status,
        "stood": len(before),
        "again": again,
        "same": result(name) == right,
        "kept": all(found.get(file) == inode for file, inode in before.items()),
        "tidy": not list(Path(name).glob(".*.genlib")),
    }


def is_worker(process):
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:
        return False


def start(name, address):
    words = ["generate-many", "prompts.jsonl", "-o", name, "--shard", str(SHARD)]
    words += ["--describe", "off", "--option", "steps=1"]
    words += ["--scheduler", address] if address else ["--workers", "2"]
    return fork(words, f"{name}.log")


def reached(process, name, stand, seconds, writing):
    """Waits until so many shards stand, then some seconds, then perhaps for a temporary file."""
    end = None
    while True:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        if end is None and len(list(Path(name).glob("*.tar"))) >= stand:
            end = time.monotonic() + seconds
        due = end is not None and time.monotonic() >= end
        if due and (not writing or list(Path(name).glob(".shard*.genlib"))):
            return True
        time.sleep(0.0005)


def result(name):
    """Returns the hash of each shard; reading them checks that they are whole."""
    assert len(list(bulk.read(name))) == LINES
    files = sorted(Path(name).glob("*.tar"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def serve():
    """Runs a cluster of two workers until its input ends, and tells its address."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        env=bulk.THREADS, silence_logs=50,
    ) as cluster:  # fmt: skip
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["cluster"] else main(*sys.argv[1:])
