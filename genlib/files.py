"""Writing images, files and folders so that nobody, ever, finds half of one."""

from __future__ import annotations

import contextlib
import io
import os
import re
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
    temporary = _neighbour(path)
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
    if path.is_dir():
        remove_leftovers(path)
    temporary = _neighbour(path)
    temporary.mkdir()
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        os.replace(temporary, path)  # over an empty folder too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _neighbour(path: Path) -> Path:
    """Returns a temporary name beside a file; a long name is cut, for a name has 255 bytes."""
    return path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.genlib")


def is_leftover(path: Path) -> bool:
    """Returns whether a file or folder has a temporary name of ours: a writer was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.genlib", path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in a folder, into which nobody else writes now."""
    for path in filter(is_leftover, list(folder.rglob(".*.genlib"))):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_free(path: Path) -> bool:
    """Returns whether a new folder can stand there: there is nothing, or nothing but leftovers."""
    return not path.exists() or (path.is_dir() and all(map(is_leftover, path.iterdir())))


def check_file(path: str | Path) -> None:
    """Makes sure, before the work, that a file can be written.

    Raises:
        OSError: if it cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Give a file's name.")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Raises PermissionError where nothing can be written beside a path."""
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{parent} cannot be written, so {path} has no place. Give another.")


def check_free(path: Path) -> None:
    """Raises FileExistsError where a new folder cannot stand."""
    if not is_free(path):
        raise FileExistsError(
            f"{path} exists and is not an empty folder. Give a new name, or one that ends in .png."
        )
