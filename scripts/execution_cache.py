"""Look after the cache of executed chapters in _build/.jupyter_cache, from which the book is built.

It looks at the cells alone. So `check` comes first: it sees to it that what they import counts too.
"""

import datetime
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import nbformat
import typer
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sync import has_code, notebook, pages
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE, KEY, DOCTREES = BUILD / ".jupyter_cache", BUILD / ".cache-key", BUILD / ".doctrees"
TIMES = ROOT / "benchmarks" / "chapter-times.json"
CORES = os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0))
MARKS = "iopub.execute_input", "shell.execute_reply"
# A kernel talks over TCP sockets of this machine. With keys made for each kernel no other program
# can read along; without them it warns, on every page.
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


def inputs() -> Iterator[Path]:
    """Every file whose change can change what a cell gives."""
    yield ROOT / "constraints.txt"
    for folder in (ROOT / "genlib", ROOT / "benchmarks"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path != TIMES:
                yield path


def key() -> str:
    """One hash over those files, the interpreter and the chosen backend."""
    whole = hashlib.sha256(f"{sys.version} {os.environ.get('KERAS_BACKEND')}".encode())
    for path in inputs():
        whole.update(path.relative_to(ROOT).as_posix().encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


@app.command()
def check() -> None:
    """Empty the cache if genlib, its weights, the pins or a benchmark's result have changed."""
    today = key()
    if KEY.exists() and KEY.read_text() == today:
        return
    if CACHE.exists():
        print("genlib, its weights, the pins or the benchmarks changed: executing all chapters.")
    shutil.rmtree(CACHE, ignore_errors=True)
    # Sphinx's own memory of the pages goes with it.
    shutil.rmtree(DOCTREES, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    KEY.write_text(today)


def seconds_of(notebook: nbformat.NotebookNode) -> float:
    """Time from the first cell's start to the last one's reply, as nbclient wrote it down."""
    cells = [cell.metadata.get("execution", {}) for cell in notebook.cells]
    marks = [cell[mark] for cell in cells for mark in MARKS if mark in cell]
    times = [datetime.datetime.fromisoformat(mark.replace("Z", "+00:00")) for mark in marks]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def keep(
    cache: JupyterCacheAbstract, name: str, executed: nbformat.NotebookNode, cores: int
) -> None:
    """Put a notebook that was executed on `cores` cores into the cache, as its chapter."""
    data = {"execution_seconds": seconds_of(executed), "cores": cores}
    for cell in executed.cells:
        cell.metadata.pop("execution", None)  # the cache compares the cells' metadata
    bundle = CacheBundleIn(executed, str(ROOT / "book" / f"{name}.md"), data=data)
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


@app.command()
def feed(
    names: Annotated[list[str] | None, typer.Argument(help="Chapters; all unless given.")] = None,
    cores: Annotated[int, typer.Option(help="How many cores each chapter had.")] = CORES,
) -> None:
    """Cache the notebooks that the tests have executed."""
    cache = get_cache(str(CACHE))
    for path in sorted((ROOT / "runs" / "notebooks").glob("*.ipynb")):
        run = nbformat.read(path, as_version=4)
        if is_executed(run) and (not names or path.stem in names):
            keep(cache, path.stem, run, cores)


def chapters() -> dict[str, nbformat.NotebookNode]:
    """The chapters with code, in reading order, not executed."""
    listed = pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    texts = {Path(page).name: (ROOT / f"{page}.md").read_text(encoding="utf-8") for page in listed}
    return {
        name: nbformat.reads(notebook(text), as_version=4)
        for name, text in texts.items()
        if has_code(text)
    }


def is_executed(chapter: nbformat.NotebookNode) -> bool:
    """Whether every cell of code has run."""
    cells = [cell for cell in chapter.cells if cell.cell_type == "code" and cell.source.strip()]
    return all(cell.execution_count for cell in cells)


def is_cached(cache: JupyterCacheAbstract, chapter: nbformat.NotebookNode) -> bool:
    """Whether the cache has a run of these cells."""
    try:
        cache.match_cache_notebook(chapter)
    except KeyError:
        return False
    return True


def run_chapter(chapter: nbformat.NotebookNode, timeout: int) -> str:
    """Execute a chapter in place, in the folder of the book; return what went wrong, or ""."""
    client = NotebookClient(
        chapter, timeout=timeout, startup_timeout=600, record_timing=True, config=ENCRYPTED
    )
    try:
        client.execute(cwd=str(ROOT / "book"))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return str(error)
    return ""


@app.command()
def execute() -> None:
    """Run the chapters that the cache lacks; a line for each as it ends. Status 1 if one fails."""
    cache, everything = get_cache(str(CACHE)), chapters()
    missing = {name: nb for name, nb in everything.items() if not is_cached(cache, nb)}
    timeout = yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]["timeout"]
    print(f"{len(everything) - len(missing)} of {len(everything)} chapters need not be executed.")
    errors, begun = {}, time.monotonic()
    for left, (name, chapter) in zip(reversed(range(len(missing))), missing.items(), strict=True):
        print(f"  {name:24}", end="", flush=True)
        start = time.monotonic()
        error = run_chapter(chapter, timeout)
        seconds = time.monotonic() - start
        print(f"{seconds:7.1f} s{'  FAILED' if error else ''}  ({left} left)", flush=True)
        if error:
            errors[name] = error
        else:
            keep(cache, name, chapter, CORES)
    print(f"Executed {len(missing)} chapters in {time.monotonic() - begun:.0f} s.")
    for name, error in errors.items():
        print(f"\n{name} failed:\n{error}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def latest_runs() -> dict[str, dict]:
    """What was kept of the latest run of each chapter in the table of contents, in its order."""
    latest = {}
    for record in sorted(get_cache(str(CACHE)).list_cache_records(), key=lambda r: r.created):
        latest[Path(record.uri).stem] = record.data
    return {name: latest[name] for name in chapters() if name in latest}


@app.command()
def record() -> None:
    """Keep today's times in git, with the number of cores and the date."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    records = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    for name, run in latest_runs().items():
        # What a GPU run recorded stays.
        machine = {
            "seconds": round(run.get("execution_seconds", 0.0), 1),
            "cores": run.get("cores", CORES),  # unknown where the book's builder ran it
            "date": today,
        }
        records[name] = records.get(name, {}) | machine
    TIMES.parent.mkdir(exist_ok=True)
    TIMES.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    print(f"wrote {TIMES.relative_to(ROOT)}")


if __name__ == "__main__":
    app()
