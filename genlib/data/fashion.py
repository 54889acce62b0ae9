"""Fashion-MNIST: 70,000 real grey product images of 28×28 pixels in ten classes.

Reference: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms", arXiv:1708.07747. MIT licence, Zalando SE.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from genlib.data.idx import format_idx, parse_idx, read_bytes
from genlib.files import DamagedFileError, write_atomic

CLASS_NAMES: tuple[str, ...] = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SOURCES = ("path", "cache", "debian", "keras", "subset")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
PACKAGED = Path(__file__).parent / "files"
TIMEOUT_S = 5.0  # seconds without an answer after which the download counts as not there

# The files in the order of the fields of FashionMNIST, and the SHA-256 of their *unpacked* bytes:
# mirrors pack the same bytes differently (Debian's gzip header has no file name, say).
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FULL_SHA256 = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
SUBSET_SHA256 = (
    "ded9297f1d7b567047797bb831eb9cfd84010a483a4075cb9fc0465219002cb7",
    "11a34fec6f816dbe22c806d6de7e130fa048759622a0e6f6da8feb272e09ee1d",
    "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1",
    "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c",
)


@dataclass(frozen=True)
class FashionMNIST:
    """The images, their labels, and where they come from."""

    train_images: np.ndarray  # uint8 (n, 28, 28, 1)
    train_labels: np.ndarray  # int64 (n,), 0..9
    test_images: np.ndarray  # uint8 (m, 28, 28, 1)
    test_labels: np.ndarray  # int64 (m,), 0..9
    source: str  # one of SOURCES
    is_subset: bool

    def label(self) -> str:
        """Returns the name for titles and tables; a subset says that it is one."""
        if not self.is_subset:
            return "Fashion-MNIST"
        return f"Fashion-MNIST (subset of {len(self.train_images) + len(self.test_images):,})"


def fashion_mnist(source: str | None = None, path: str | Path | None = None) -> FashionMNIST:
    """Returns Fashion-MNIST from the first place that has it.

    The places, in order: the folder `path` or else the one that the environment variable
    `GENLIB_DATA` names; the user's cache; Debian's package; `keras.datasets` (a download, 30 MB,
    kept in the cache; skipped when `GENLIB_OFFLINE=1`); the checked subset in this package. A
    place that has the files but damaged stops the search: nothing is read by halves or passed by.

    Args:
        source: take this place and no other: one of `SOURCES`.
        path: a folder with the four IDX files, plain, `.gz` or `.xz`.

    Returns:
        The data; `source` and `is_subset` say what was found.

    Raises:
        ValueError: if `source` is not one of `SOURCES`, or contradicts `path`.
        FileNotFoundError: if the place asked for has no files.
        DamagedFileError: if a file is there but is not, byte for byte, the published one.

    Example:
        >>> data = fashion_mnist(source="subset")
        >>> data.train_images.shape, data.label()
        ((12000, 28, 28, 1), 'Fashion-MNIST (subset of 14,000)')
    """
    if source is not None and source not in SOURCES:
        raise ValueError(f"No source {source!r}. Choose one of {', '.join(SOURCES)}, or None.")
    if path is not None and source not in (None, "path"):
        raise ValueError(f'source={source!r} and path={str(path)!r} differ. Give source="path".')
    folder = path if path is not None else os.environ.get("GENLIB_DATA") or None
    if source == "path" and folder is None:
        raise ValueError('source="path" needs a folder: give path= or set GENLIB_DATA.')
    if source == "path" or (source is None and folder is not None):
        return _read_folder(Path(str(folder)), "path")  # asked for by name: no falling back

    place, where = found() if source is None else (source, _places()[source])
    if where is not None:
        return _read_folder(where, place)
    try:
        return _download(_places()["cache"])
    except OSError as error:
        if source == "keras":
            raise FileNotFoundError(
                f"keras.datasets could not fetch Fashion-MNIST ({error}). Check the network, "
                'or use source="subset".'
            ) from error
    return _read_folder(PACKAGED, "subset")


def found() -> tuple[str, Path | None]:
    """Returns the place that `fashion_mnist()` takes here, and its folder; None is a download."""
    if folder := os.environ.get("GENLIB_DATA"):
        return "path", Path(folder)
    offline = os.environ.get("GENLIB_OFFLINE") == "1"
    for place, where in _places().items():
        if (where is None and not offline) or (where is not None and _has_all(where)):
            return place, where
    return "subset", PACKAGED


def _places() -> dict[str, Any]:
    """Returns the places that need no name, in order, with their folders; None is a download."""
    cache = Path(platformdirs.user_cache_dir("genlib")) / "fashion-mnist"
    return {"cache": cache, "debian": DEBIAN, "keras": None, "subset": PACKAGED}


def _has_all(folder: Path) -> bool:
    return all(_find(folder, name) for name in FILES)


def _find(folder: Path, name: str) -> Path | None:
    candidates = [folder / (name + end) for end in ("", ".gz", ".xz")]
    return next((c for c in candidates if c.is_file()), None)


def _read_folder(folder: Path, source: str) -> FashionMNIST:
    """Reads the four files of a folder, plain or packed."""
    named = []
    for name in FILES:
        found = _find(folder, name)
        if found is None:
            raise FileNotFoundError(
                f"{folder} has no {name} (plain, .gz or .xz). Put the four IDX files of "
                'Fashion-MNIST there, or use source="subset".'
            )
        named.append((read_bytes(found, limit=2**26), str(found)))
    return _check(named, source)


def _check(named: list[tuple[bytes, str]], source: str) -> FashionMNIST:
    """Turns the four unpacked files into arrays, if each is byte for byte a known one."""
    digests = [hashlib.sha256(data).hexdigest() for data, _ in named]
    # The first file decides which of the two sets this is meant to be.
    known = SUBSET_SHA256 if digests[0] == SUBSET_SHA256[0] else FULL_SHA256
    for digest, expected, (_, name) in zip(digests, known, named, strict=True):
        if digest != expected:
            raise DamagedFileError(
                f"{name} is not the published Fashion-MNIST file: SHA-256 {digest[:16]}… instead "
                f"of {expected[:16]}…. Delete it and fetch it again."
            )
    x, y, x_test, y_test = (parse_idx(data, name) for data, name in named)
    return FashionMNIST(
        train_images=x[..., None].copy(),
        train_labels=y.astype(np.int64),
        test_images=x_test[..., None].copy(),
        test_labels=y_test.astype(np.int64),
        source=source,
        is_subset=known is SUBSET_SHA256,
    )


def _download(cache: Path) -> FashionMNIST:
    """Fetches the whole set through Keras, checks it, and keeps a copy in the cache."""
    from keras.datasets import fashion_mnist as keras_fashion_mnist

    where = "keras.datasets (~/.keras/datasets/fashion-mnist)"
    try:
        with _socket_timeout(TIMEOUT_S), contextlib.redirect_stdout(io.StringIO()):
            (x, y), (x_test, y_test) = keras_fashion_mnist.load_data()
    except (EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:  # Keras does not check
        raise DamagedFileError(
            f"{where} holds a damaged file ({error}). Delete that folder and try again."
        ) from error
    except OSError:
        raise
    except Exception as error:  # Keras reports every failed download as a bare Exception
        raise OSError(str(error)) from error
    files = [format_idx(np.asarray(a, np.uint8)) for a in (x, y, x_test, y_test)]
    data = _check([(f, f"{where}: {n}") for f, n in zip(files, FILES, strict=True)], "keras")
    # A read-only home is no reason to refuse data that is already in memory.
    with contextlib.suppress(OSError):
        for content, name in zip(files, FILES, strict=True):
            write_atomic(cache / f"{name}.gz", gzip.compress(content, 1, mtime=0))
    return data


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
