"""Results that took longer than a chapter may: JSON files that the scripts in `benchmarks/` write.

Each holds the environment in which it was measured, and when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genlib import bench, files

FOLDER = Path(__file__).parent


def load(name: str) -> dict[str, Any]:
    """Returns a record.

    Raises:
        FileNotFoundError: if there is no such record; the message lists those that there are.

    Example:
        >>> load("describe")["environment"]["hardware"]["cores"]
        2
    """
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
        raise FileNotFoundError(f"No record {name!r}. There are: {known}.")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def save(name: str, result: dict[str, Any]) -> None:
    """Writes a record, with the environment in which it was made.

    Raises:
        OSError: if it cannot be written; an older record then stays.
    """
    write(FOLDER / f"{name}.json", {"environment": bench.environment(), **result})


def write(path: str | Path, result: Mapping[str, Any], *, overwrite: bool = True) -> None:
    """Writes a result as JSON in UTF-8, whole or not at all.

    Raises:
        OSError: as `genlib.files.write_atomic`.
    """
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    files.write_atomic(path, text.encode(), overwrite=overwrite)
