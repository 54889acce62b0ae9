"""Look after the cache of executed chapters in _build/.jupyter_cache.

* `check` empties it when genlib, its weights, the pins or a benchmark's result have changed:
  the cache itself only looks at the cells.
* `feed` puts the notebooks that the tests have executed into it, so the book need not run them.
* `times` prints how long each chapter took.
* `record` writes that to benchmarks/chapter-times.json, which the book's labels read.
"""

import datetime
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from sync import pages

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE, KEY, DOCTREES = BUILD / ".jupyter_cache", BUILD / ".cache-key", BUILD / ".doctrees"
TIMES = ROOT / "benchmarks" / "chapter-times.json"
MARKS = "iopub.execute_input", "shell.execute_reply"


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


def check() -> None:
    """Empty the cache when the key differs; Sphinx's own memory of the pages goes with it."""
    today = key()
    if KEY.exists() and KEY.read_text() == today:
        return
    if CACHE.exists():
        print("genlib, its weights, the pins or the benchmarks changed: executing all chapters.")
    shutil.rmtree(CACHE, ignore_errors=True)
    shutil.rmtree(DOCTREES, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    KEY.write_text(today)


def seconds_of(notebook: nbformat.NotebookNode) -> float:
    """Time from the first cell's start to the last one's reply, as nbclient wrote it down."""
    cells = [cell.metadata.get("execution", {}) for cell in notebook.cells]
    marks = [cell[mark] for cell in cells for mark in MARKS if mark in cell]
    times = [datetime.datetime.fromisoformat(mark.replace("Z", "+00:00")) for mark in marks]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def feed() -> None:
    """Cache the notebooks that the tests executed, under the names of their chapters."""
    cache = get_cache(str(CACHE))
    for path in sorted((ROOT / "runs" / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        uri = str(ROOT / "book" / f"{path.stem}.md")
        data = {"execution_seconds": seconds_of(notebook)}
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the cache compares the cells' metadata
        bundle = CacheBundleIn(notebook, uri, data=data)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def chapter_seconds() -> dict[str, float]:
    """The latest cached run of each chapter in the table of contents, in reading order."""
    latest = {}
    for record in sorted(get_cache(str(CACHE)).list_cache_records(), key=lambda r: r.created):
        latest[Path(record.uri).stem] = record.data.get("execution_seconds", 0.0)
    order = [Path(page).name for page in pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))]
    return {name: latest[name] for name in order if name in latest}


def times() -> None:
    """Print one line a chapter and the sum."""
    seconds = chapter_seconds()
    for name, time in seconds.items():
        print(f"{time:7.1f} s  {name}")
    print(f"{sum(seconds.values()):7.1f} s  in all, when last executed")


def record() -> None:
    """Keep today's times in git, with the machine's cores and the date."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    records = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    for name, time in chapter_seconds().items():
        # What a GPU run recorded stays.
        machine = {"seconds": round(time, 1), "cores": len(os.sched_getaffinity(0)), "date": today}
        records[name] = records.get(name, {}) | machine
    TIMES.parent.mkdir(exist_ok=True)
    TIMES.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    print(f"wrote {TIMES.relative_to(ROOT)}")


if __name__ == "__main__":
    actions = {"check": check, "feed": feed, "times": times, "record": record}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    actions[sys.argv[1]]()
