"""The IDX format of the MNIST family: a typed array after a short big-endian header.

Reference: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import gzip
import lzma
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genlib.files import DamagedFileError

UNSIGNED_BYTE = 0x08  # the one element type that the MNIST family uses
MAX_BYTES = 2**30  # a file that unpacks to more than 1 GiB is not one of ours


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Reads a file, unpacked if it is gzip or xz (its first bytes decide, not its name).

    Args:
        path: the file.
        limit: the largest unpacked size to accept, bytes.

    Returns:
        The unpacked bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is truncated, damaged, or unpacks to more than `limit`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Give the path of an existing file.")
    with path.open("rb") as file:
        start = file.read(6)
    opener: Callable[..., Any] = open
    if start[:2] == b"\x1f\x8b":
        opener = gzip.open
    elif start == b"\xfd7zXZ\x00":
        opener = lzma.open
    chunks, size = [], 0
    try:
        with opener(path, "rb") as stream:
            while chunk := stream.read(2**20):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise DamagedFileError(
                        f"{path} unpacks to more than {limit:,} bytes. Give the right file."
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise DamagedFileError(
            f"{path} is truncated or damaged ({error}). Delete it and fetch it again."
        ) from error
    return b"".join(chunks)


def parse_idx(data: bytes, name: str = "IDX data") -> np.ndarray:
    """Turns the bytes of an IDX file into an array.

    Args:
        data: header and elements: two zero bytes, the type, the number of axes, their lengths as
            big-endian 32-bit integers, then the elements in row-major order.
        name: what to call the data in messages.

    Returns:
        uint8 of the shape that the header gives, read-only.

    Raises:
        DamagedFileError: if the magic number is wrong, the type is not unsigned byte, or the
            number of bytes is not exactly the one that the header promises.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        array([7, 9], dtype=uint8)
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UNSIGNED_BYTE or data[3] == 0:
        raise DamagedFileError(
            f"{name} starts with {data[:4].hex(' ') or 'nothing'}; an IDX file of bytes starts "
            "with 00 00 08 and its number of axes (at least 1). Give an IDX file."
        )
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise DamagedFileError(
            f"{name} ends inside its header: {len(data)} of {start} bytes. Fetch it again."
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", count=axes, offset=4))
    if len(data) - start != math.prod(shape):
        raise DamagedFileError(
            f"{name} promises shape {shape}, that is {math.prod(shape)} bytes, and holds "
            f"{len(data) - start}. Fetch it again."
        )
    try:
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # more axes than NumPy has, or an empty array of huge axes
        raise DamagedFileError(f"{name} has an impossible shape ({error}).") from error


def read_idx(path: str | Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes: plain, gzip or xz.

    Args:
        path: the file.

    Returns:
        uint8 of the shape that the header gives. All of the file or nothing: never a part.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not exactly one whole IDX array.
    """
    return parse_idx(read_bytes(path), str(path))


def format_idx(array: np.ndarray) -> bytes:
    """Writes an array as IDX bytes, the inverse of `parse_idx`.

    Args:
        array: uint8 with at least one axis.

    Returns:
        Header and elements.

    Raises:
        TypeError: if the array is not uint8.
        ValueError: if it has no axis, or more than 255.

    Example:
        >>> format_idx(np.array([7, 9], np.uint8)).hex(" ")
        '00 00 08 01 00 00 00 02 07 09'
    """
    if array.dtype != np.uint8:
        raise TypeError(f"format_idx takes uint8, got {array.dtype}. Convert it first.")
    if not 1 <= array.ndim <= 255:
        raise ValueError(f"format_idx takes 1 to 255 axes, got {array.ndim}. Reshape it.")
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
