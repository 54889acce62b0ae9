"""Makes the packaged subset of Fashion-MNIST from the whole set.

    python scripts/make_subset.py           # --help tells more

The choice is fixed, without chance: the first 1,200 training and the first 200 test images of each
class, in the order of the published files. Each file is IDX packed with xz, which for these images
is smaller than PNG, lossless WebP or gzip and needs nothing but the standard library. The printed
SHA-256 sums (of the unpacked bytes) are the ones in genlib/data/fashion.py.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from genlib.data.fashion import FILES, PACKAGED, fashion_mnist
from genlib.data.idx import format_idx
from genlib.files import write_atomic

TRAIN_PER_CLASS, TEST_PER_CLASS = 1200, 200
# Pixels have no alignment (pb=0) and depend on their neighbour's high bits (lc=4).
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the first `count` items of each class, in ascending order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))


def main(
    folder: Annotated[Path, typer.Argument(help="Where the four files go.")] = PACKAGED,
) -> None:
    """Writes the four files and prints size and SHA-256 of each."""
    data = fashion_mnist()
    if data.is_subset:
        raise SystemExit("The whole of Fashion-MNIST is needed: install dataset-fashion-mnist.")
    train = first_of_each_class(data.train_labels, TRAIN_PER_CLASS)
    test = first_of_each_class(data.test_labels, TEST_PER_CLASS)
    arrays = (
        data.train_images[train, :, :, 0],
        data.train_labels[train].astype(np.uint8),
        data.test_images[test, :, :, 0],
        data.test_labels[test].astype(np.uint8),
    )
    for name, array in zip(FILES, arrays, strict=True):
        content = format_idx(array)
        packed = lzma.compress(content, filters=FILTERS)
        write_atomic(folder / f"{name}.xz", packed)
        print(f"{name}.xz  {len(packed):>9,} bytes  {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    typer.run(main)
