"""Reading GGUF, the file format of llama.cpp: a language model's settings, tokens and weights.

A file is a header, named values (the metadata), a table of the tensors, and their bytes. Weights
are stored in blocks of 32, each with a scale of its own: a few bits a weight, and a model of 135
million of them fits 98 MB.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genlib.files import DamagedFileError

# The types of single values, by their number in the file; 8 is a text, 9 an array.
_NUMBERS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True)
class GGUF:
    """What a file holds: its metadata, and its tensors, still packed."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, np.ndarray]]  # shape, type, bytes

    def __getitem__(self, name: str) -> np.ndarray:
        """Unpacks one tensor, float32."""
        shape, kind, packed = self.tensors[name]
        return _TYPES[kind].unpack(packed, shape)


def read(path: str | Path) -> GGUF:
    """Opens a GGUF file; the weights stay on disk until they are asked for by name.

    Args:
        path: a file of version 2 or 3.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not GGUF, cut short, or of a version or packing not known here.

    Example:
        >>> file = read("SmolLM2-135M-Instruct.Q4_1.gguf")
        >>> file.metadata["llama.block_count"], file["blk.0.attn_q.weight"].shape
        (30, (576, 576))
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    data = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else np.empty(0, np.uint8)
    try:
        return _parse(data)
    except _UnknownKind as error:
        raise DamagedFileError(
            f"{path} is a GGUF file, but {error}. Convert it, or take another file."
        ) from error
    except (
        struct.error,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:  # whatever nonsense a damaged header leads to
        raise DamagedFileError(
            f"{path} is not a whole GGUF file ({error}). Fetch it again."
        ) from error


class _UnknownKind(Exception):  # noqa: N818
    """A file that may well be whole is of a kind that is not read here."""


def _parse(data: np.ndarray) -> GGUF:
    view, position = data.data, 0

    def take(kind: str) -> Any:
        nonlocal position
        (value,) = struct.unpack_from("<" + kind, view, position)
        position += struct.calcsize("<" + kind)
        return value

    def text() -> str:
        size = take("Q")
        return take(f"{size}s").decode()

    def value(kind: int) -> Any:
        if kind == _TEXT:
            return text()
        if kind != _ARRAY:
            return take(_NUMBERS[kind])
        element, count = take("I"), take("Q")
        return [value(element) for _ in range(count)]

    if (magic := take("4s")) != b"GGUF":
        raise KeyError(f"it begins with {magic.hex(' ')}, not with GGUF")
    if (version := take("I")) not in (2, 3):
        raise _UnknownKind(f"of version {version}; 2 and 3 are known")
    tensor_count, value_count = take("Q"), take("Q")
    metadata = {text(): value(take("I")) for _ in range(value_count)}
    table = []
    for _ in range(tensor_count):
        name = text()
        shape = tuple(take("Q") for _ in range(take("I")))[::-1]  # the file counts inside out
        table.append((name, shape, take("I"), take("Q")))
    alignment = metadata.get("general.alignment", 32)
    start = -(-position // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in table:
        if kind not in _TYPES:
            raise _UnknownKind(f"its tensor {name} is packed as type {kind}; known are {KNOWN}")
        if not 1 <= len(shape) <= 4 or 0 in shape or shape[-1] % _TYPES[kind].weights:
            raise KeyError(f"tensor {name} has the shape {shape}")
        size = math.prod(shape) // _TYPES[kind].weights * _TYPES[kind].bytes
        packed = data[start + offset : start + offset + size]
        if len(packed) != size:
            raise KeyError(f"tensor {name} ends after the file")
        tensors[name] = shape, kind, packed
    return GGUF(metadata, tensors)


def _unpack_q4_1(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale d, a minimum m, and 32 numbers q of 4 bits: weights d·q + m in [m, m + 15 d].

    The result lies in memory column by column: a network that computes x·W wants W transposed,
    and it is quicker to turn the packed numbers than the weights.
    """
    rows = math.prod(shape[:-1])
    blocks = packed.reshape(rows, -1, 20)  # (rows, columns / 32, 2 + 2 + 16 bytes)
    d, m = blocks[..., :4].copy().view(np.float16).astype(np.float32).T[:, :, None]
    q = np.ascontiguousarray(blocks[..., 4:].transpose(1, 2, 0))  # (columns / 32, 16, rows)
    weights = np.empty((q.shape[0], 32, rows), np.float32)
    weights[:, :16] = q & 15
    weights[:, 16:] = q >> 4
    weights *= d
    weights += m
    return weights.reshape(-1, rows).T.reshape(shape)


def _unpack_q8_0(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale d and 32 signed bytes q: weights d·q."""
    blocks = packed.reshape(-1, 34)
    weights = blocks[:, 2:].view(np.int8).astype(np.float32)
    weights *= blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return weights.reshape(shape)


@dataclass(frozen=True)
class _Type:
    weights: int  # per block
    bytes: int  # per block
    unpack: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


_TYPES = {
    0: _Type(1, 4, lambda packed, shape: packed.copy().view(np.float32).reshape(shape)),
    3: _Type(32, 20, _unpack_q4_1),
    8: _Type(32, 34, _unpack_q8_0),
}
KNOWN = "0 (F32), 3 (Q4_1) and 8 (Q8_0)"
