"""Writing a file so that nobody, ever, finds half of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes a file whole or not at all: a temporary neighbour, flushed to disk, then renamed.

    Args:
        path: the file; missing folders are made.
        data: its content.

    Raises:
        OSError: if the folder cannot be written or the disk is full. The file that stood there
            before is then untouched, and no temporary file stays behind.

    Example:
        >>> write_atomic("/tmp/genlib-example/a.bin", b"whole")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
