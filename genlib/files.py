"""Writing images, files and folders so that nobody, ever, finds half of one."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


class DamagedFileError(ValueError):
    """A file does not hold what its name or its header promises."""


def to_png(image: np.ndarray, *, optimize: bool = False) -> bytes:
    """Returns an image as the bytes of a PNG file.

    Args:
        image: uint8 `(height, width)` or `(height, width, 3)`.
        optimize: look longer for a smaller file.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", optimize=optimize)
    return file.getvalue()


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


def write_folder(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files whole or not at all.

    Args:
        path: of the folder; it must not exist, or be empty.
        files: name to content.

    Raises:
        FileExistsError: if there is something at `path`.
        OSError: if it cannot be written or the disk is full; nothing stays behind.
    """
    path = Path(path)
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        os.replace(temporary, path)  # over an empty folder too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(path: Path) -> None:
    """Raises FileExistsError where a new folder cannot stand."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(
            f"{path} exists and is not an empty folder. Give a new name, or one that ends in .png."
        )
