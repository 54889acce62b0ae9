"""Images of a million prompts, on many processes, in files that are each written once.

    prompts.jsonl ──shards──> (number, prompts) ──make_shard, on a worker──> shard-000017.tar

The unit of work is a *shard*: the images of some lines, in one tar with a manifest. It is a pure
function of its number and its prompts, is written under a temporary name, synced and renamed, and
is skipped where it stands whole. So it does not matter who makes it, how often it is begun, or what
is killed meanwhile: the same command again ends in the same bytes. Dask only hands out the work.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genlib import __version__, backend, files, origin, pipeline, ranges, weights
from genlib.models import sampling
from genlib.models.tokenizer import GRID
from genlib.pretrained import DEFAULT, METHODS, load, load_tokenizer, method_options
from genlib.weights import checkpoint

SHARD, BATCH = 256, 16  # images after which a shard ends, and those that are drawn at once
LONGEST = 2**16  # bytes of a line
MANIFEST, RECIPE = "manifest.jsonl", "generate-many"
# One thread a worker: they share the cores, and sums have one order, however many there are.
THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
_one = threading.Lock()  # a worker may have several threads, and a model is for one


class ShardError(ValueError):
    """A shard cannot be made here, whatever its prompts are."""


@dataclass(frozen=True)
class Asked:
    """What a line asks for: images of a prompt, or none and what is wrong with the line."""

    line: int  # counted from 1; it is the seed unless the line gives one
    prompt: str = ""
    seed: int = 0
    n: int = 0
    error: str = ""


@dataclass
class Done:
    """What came of a shard, or of a run."""

    images: int = 0  # that are there
    shards: int = 0
    made: int = 0  # shards that did not stand there already
    failures: int = 0  # lines without images
    failed: list[dict[str, Any]] = field(default_factory=list)  # the first ten of them


# ---------------------------------------------------------------- prompts


def lines(prompts: str | Path) -> Iterator[Asked]:
    """Reads what a file asks for, line after line; an empty line asks for nothing.

    Args:
        prompts: each line, in UTF-8, a prompt, or a JSON object with `prompt` and perhaps `seed`
            and `n`.
    """
    with open(prompts, "rb") as file:
        number = 0
        while line := file.readline(LONGEST):
            number, long = number + 1, len(line) == LONGEST
            line = line.removeprefix(codecs.BOM_UTF8)  # some editors begin a file with it
            while line and not line.endswith(b"\n") and long:
                line = file.readline(LONGEST)
            if long:
                yield Asked(number, error=f"A line has less than {LONGEST:,} bytes.")
            elif line.strip():
                yield _asked(number, line)


def _asked(number: int, line: bytes) -> Asked:
    try:
        text = line.decode().strip()
        found: dict[str, Any] = json.loads(text) if text.startswith("{") else {"prompt": text}
        if unknown := sorted(found.keys() - {"prompt", "seed", "n"}):
            raise ValueError(f"A line has prompt, seed and n; this one has {unknown[:3]} too.")
        asked = Asked(number, found.get("prompt", ""), found.get("seed", number), found.get("n", 1))
        pipeline.check(asked.prompt, asked.n, asked.seed)
    except (ValueError, TypeError, RecursionError) as error:
        return Asked(number, error=str(error))
    return asked


def shards(prompts: str | Path, size: int = SHARD) -> Iterator[tuple[int, tuple[Asked, ...]]]:
    """Yields number and lines of each shard, which ends with its image, or line, number `size`."""
    number, part, images = 0, list[Asked](), 0
    for asked in lines(prompts):
        part.append(asked)
        images += asked.n
        if max(images, len(part)) >= size:
            yield number, tuple(part)
            number, part, images = number + 1, [], 0
    if part:
        yield number, tuple(part)


# ---------------------------------------------------------------- one shard


def make_shard(number: int, asked: Sequence[Asked], out: str, run: Mapping[str, Any]) -> Done:
    """Makes a shard's file, unless it stands there whole; any process may, at any time.

    Args:
        number: of the shard.
        asked: its lines.
        out: the run's folder.
        run: what `identity` returned.

    Raises:
        ShardError: if this process would make other images, or does not see the folder.
        OSError: if the file cannot be written.
    """
    _check_here(out, run)
    file = Path(out) / f"shard-{number:06d}.tar"
    of = json.dumps([number, run, [asdict(one) for one in asked]], sort_keys=True)
    head = {"shard": number, "of": hashlib.sha256(of.encode()).hexdigest()}
    made = (rows := _whole(file, head)) is None
    if rows is None:
        with _one:
            rows, images = _rows(asked, _drawn([one for one in asked if not one.error], run), run)
        try:
            files.write_atomic(file, _tar({MANIFEST: _json_lines([head, *rows]), **images}))
        except OSError as error:
            raise OSError(
                f"{file} cannot be written: {error.strerror}. Mend that, and give the same command "
                "again: it goes on from here."
            ) from None
    failed = [row for row in rows if "error" in row]
    return Done(len(rows) - len(failed), 1, int(made), len(failed), failed)


def _check_here(out: str, run: Mapping[str, Any]) -> None:
    """Makes sure that this process sees the run's folder, and has what its images are made with."""
    here = f"The worker on {socket.gethostname()}"
    try:
        found = checkpoint.read_run(Path(out))
    except FileNotFoundError:
        raise ShardError(
            f"{here} finds no {out}/run.json. All workers need the same disk under the same path."
        ) from None
    if {**found, **_made_with(run["method"])} != run:
        raise ShardError(
            f"{here} would make other images than the command. Both need the same genlib, with the "
            "same weights and the same KERAS_BACKEND."
        )


def _made_with(method: str) -> dict[str, Any]:
    names = (METHODS[method].weights, "tokenizer", "text-student")
    cards = [weights.paths(weights.SHIPPED / name)[1] for name in names]
    sums = [json.loads(card.read_bytes())["sha256"][:16] for card in cards]
    return {"version": __version__, "backend": backend.name(), "weights": sums}


def _drawn(asked: Sequence[Asked], run: Mapping[str, Any]) -> dict[int, Any]:
    """Returns, by line, the images with their descriptions, or the error that stopped them.

    If they cannot be drawn together, each line is drawn alone, so that no other one fails with it.
    """
    try:
        return _draw(asked, run)
    except (OSError, ImportError, MemoryError, weights.WeightsError):
        raise  # the fault of no line
    except Exception as error:
        if len(asked) == 1:
            return {asked[0].line: f"{type(error).__name__}: {error}"}
        return {line: made for one in asked for line, made in _drawn([one], run).items()}


def _draw(asked: Sequence[Asked], run: Mapping[str, Any]) -> dict[int, list[tuple[Any, str]]]:
    """Draws the images of several lines in batches, each from noise of its own."""
    model, said, noises = load(run["method"]), list[str](), list[np.ndarray]()
    for one in asked:
        said += [d.text for d in pipeline.complete(one.prompt, one.n, one.seed, run["describe"])]
        noises += list(sampling.normals(one.n, (GRID, GRID, model.config.channels), one.seed))
    drawn = list[tuple[Any, str]]()
    for begin in range(0, len(said), BATCH):
        texts, noise = said[begin:][:BATCH], noises[begin:][:BATCH]
        # A batch is always full: a graph compiled for another size rounds in another way, and
        # which ones there are would depend on what this worker has drawn before.
        missing = BATCH - len(texts)
        embedded = pipeline.encode(tuple(texts + texts[-1:] * missing))
        full = np.stack(noise + noise[-1:] * missing)
        latents = model.sample(embedded, noise=full, **run["options"])
        drawn += zip(load_tokenizer().decode(latents), texts, strict=False)
    ends = np.cumsum([one.n for one in asked])
    return {one.line: drawn[end - one.n : end] for one, end in zip(asked, ends, strict=True)}


def _rows(
    asked: Sequence[Asked], drawn: Mapping[int, Any], run: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Returns the manifest's rows, one for each image and each failure, and the PNG files."""
    how, rows, images = {key: run[key] for key in ("method", "describe", "options")}, [], {}
    for one in asked:
        row = {"line": one.line, "prompt": one.prompt, "seed": one.seed}
        made = one.error or drawn[one.line]
        if isinstance(made, str):
            rows.append({**row, "error": made})
            continue
        for i, (image, description) in enumerate(made):
            name = f"{one.line:09d}-{i:04d}.png"
            told = {**row, "n": one.n, **how, "best_of": 1, "file": name}
            told["description"] = description
            images[name] = files.to_png(image, text=origin.texts("generate", told))
            told |= {"i": i, "version": run["version"]}
            rows.append({**told, "sha256": hashlib.sha256(images[name]).hexdigest()})
    return rows, images


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _tar(content: Mapping[str, bytes]) -> bytes:
    """Returns a tar of files, whose headers do not say when and by whom it was made."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)  # time 0, owner 0, mode 644
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _read(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, bytes]]:
    """Returns a shard's head, the rows of its manifest, and its PNG files by name.

    Raises:
        DamagedFileError: if it is not whole.
    """
    try:
        with tarfile.open(file) as tar:
            found = {entry.name: tar.extractfile(entry) for entry in tar}
            content = {name: part.read() for name, part in found.items() if part is not None}
        head, *rows = map(json.loads, content.pop(MANIFEST).decode().splitlines())
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        if sums != {row["file"]: row["sha256"] for row in rows if "error" not in row}:
            raise ValueError("its images are not those of its manifest")
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise files.DamagedFileError(f"{file} is not a whole shard: {error}.") from error
    return head, rows, content


def _whole(file: Path, head: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the manifest's rows of a shard that is there, whole, and made of the same lines."""
    with contextlib.suppress(FileNotFoundError, files.DamagedFileError):
        found, rows, _ = _read(file)
        return rows if found == head else None
    return None


# ---------------------------------------------------------------- a run


def read(out: str | Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yields each image of a run: its row of the manifest, and its PNG; one shard is in memory.

    Raises:
        FileNotFoundError: if the folder holds no run.
        DamagedFileError: if a shard is not whole.
    """
    checkpoint.read_run(Path(out), (RECIPE,))
    for file in sorted(Path(out).glob("shard-*.tar")):
        _, rows, images = _read(file)
        yield from ((row, images[row["file"]]) for row in rows if "error" not in row)


def identity(
    prompts: str | Path,
    *,
    method: str = DEFAULT,
    describe: pipeline.Writer = "student",
    shard: int = SHARD,
    **options: Any,
) -> dict[str, Any]:
    """Returns all that decides the bytes of a run; it reads the prompts, to count and to hash them.

    The arguments are those of `generate_many`.

    Raises:
        FileNotFoundError: if there is no file of prompts.
        ValueError: if it asks for nothing, or an argument is unknown or out of range.
    """
    ranges.check("shard", shard)
    chosen = method_options(method, options)
    if describe not in ("student", "llm", "off"):
        raise ValueError(f"describe = {describe!r}; choose 'student', 'llm' or 'off'.")
    if METHODS[method].model.kind != "latents":
        raise ValueError(
            f"{method!r} draws a batch by one seed, so lines cannot share one; a flow can."
        )
    with open(prompts, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    n_lines = images = 0
    for asked in lines(prompts):
        n_lines, images = n_lines + 1, images + asked.n
    if not n_lines:
        raise ValueError(f"{prompts} asks for nothing: no line has a prompt.")
    told = f"{n_lines:,} lines, {images:,} images, sha256 {digest[:16]}"
    run = {"recipe": RECIPE, "prompts": told, "images": images, "method": method}
    run |= {"describe": describe, "options": chosen, "shard": shard, **_made_with(method)}
    return dict(json.loads(json.dumps(run)))  # as it will be read again


def generate_many(
    prompts: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Done:
    """Makes the images of all prompts in a file, or what is missing of them.

    The bytes are the same whatever the number of workers, on processors of one kind. A script that
    calls this needs `if __name__ == "__main__":`, since the workers are new processes.

    Args:
        prompts: see `lines`. The file is read as it is needed, twice.
        out: the folder of shards. It belongs to these prompts and settings, and one command at a
            time writes there.
        workers: processes on this machine; one for each core unless given.
        scheduler: the address of a Dask cluster that works instead, such as `"tcp://10.0.0.1:8786"`.
        progress: show a bar.
        **settings: `method`, `describe` and its options as in `pipeline.generate`, and `shard`, the
            images of a shard.

    Returns:
        What came of it.

    Raises:
        ImportError: if Dask is missing; the message has the command that installs it.
        FileNotFoundError: if there is no file of prompts.
        ValueError: if an argument is out of range or unknown.
        RunError: if the folder holds another run, or somebody else writes there.
        ShardError: if a shard cannot be made: its workers died, or would make other images.
        OSError: if the folder cannot be written, or no worker is found. What is there stays, and
            the same command goes on from it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = (cores or 1) if workers is None else workers
    ranges.check("workers", workers)
    files.check_name(out, of="the shards", folder=True)
    import distributed  # late: it is an extra

    out = Path(os.path.abspath(out))
    run = identity(prompts, **settings)
    files.check_file(out / "run.json")  # before the work, not after it
    more = TextColumn("left, {task.fields[rate]:.1f} images/s, {task.fields[failures]} failed")
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), more,
        console=Console(stderr=True), disable=not progress,
    )  # fmt: skip
    total = Done()
    with checkpoint.open_run(out, run), _connect(workers, scheduler) as client, bar:
        bar_id = bar.add_task("", total=run["images"], rate=0.0, failures=0)
        start, drawn = time.perf_counter(), 0
        waiting = distributed.as_completed()

        def count(future: Any) -> None:
            nonlocal drawn
            try:
                done = future.result()
            except distributed.KilledWorker as error:
                raise ShardError(
                    f"{error.allowed_failures + 1} workers died in the same shard, one after the "
                    "other. Perhaps the memory is too small: give fewer --workers."
                ) from None
            for name in ("images", "shards", "made", "failures"):
                setattr(total, name, getattr(total, name) + getattr(done, name))
            total.failed = (total.failed + done.failed)[:10]
            drawn += done.images * done.made
            rate = drawn / (time.perf_counter() - start)
            bar.update(bar_id, completed=total.images, rate=rate, failures=total.failures)

        for number, asked in shards(prompts, run["shard"]):
            waiting.add(client.submit(make_shard, number, asked, str(out), run, pure=False))
            if waiting.count() >= 2 * (1 + sum(client.nthreads().values())):  # few are in memory
                count(next(waiting))
        for future in waiting:
            count(future)
    return total


@contextlib.contextmanager
def _connect(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Starts workers on this machine, which listen at 127.0.0.1 alone, or goes to a cluster."""
    import distributed  # late: it is an extra

    if scheduler is None:
        here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
        local = {"n_workers": workers, "threads_per_worker": 1, "env": THREADS, **here}
        with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=10)
        client.wait_for_workers(1, timeout=60)
    except (TimeoutError, OSError, ValueError) as error:
        raise OSError(f"No worker answers at {scheduler}: {error}") from error
    with client:
        yield client
