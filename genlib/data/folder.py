"""Your own captioned images: a folder with `metadata.jsonl`, one line for each image.

This is the *imagefolder* convention of Hugging Face Datasets, so that a folder made for one reads
in the other: `{"file_name": "cats/1.png", "text": "a cat asleep on a sill"}`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genlib.data.metadata import without_metadata

METADATA = "metadata.jsonl"
# Only a hub's client makes a file with such a path, whose last part is the hash of its content.
_BLOB = re.compile(r"/(datasets|models|spaces)--[^/]+/blobs/[0-9a-f]+$")
_SHOWN = 5  # problems that one error lists


@dataclass(frozen=True)
class Captioned:
    """Images, what each shows, and what each is called.

    Attributes:
        images: uint8 `(n, size, size, 3)`.
        captions: one for each image.
        names: one for each image: its file, or the emoji itself.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def folder(path: str | Path, size: int = 64) -> Captioned:
    """Reads a folder of captioned images, in the order of its `metadata.jsonl`.

    Each image is turned upright (EXIF, where it can be read), laid over white where it is
    transparent, cut to its central square and resized with antialiasing. An animation gives its
    first frame. All lines are checked before anything is refused, so that one error tells of
    several mistakes.

    A file may be a link within the folder, or to a file in the `blobs` of a hub's cache, as the
    links of a snapshot are, and those of a folder that a hub's client has filled. In your own cache
    (`HF_HUB_CACHE`, or `hub` in `HF_HOME`) a blob may be a link itself, and `blobs` too, since the
    client has put there what stands there. Any other link out of the folder is refused: it could
    lead to your other files. A name that is spelt in another Unicode form than its file is found.
    Damage beside the pixels, such as a broken colour profile, does not matter.

    Args:
        path: the folder. Files in its subfolders are named with their path, `cats/1.png`.
        size: height and width of the result, pixels.

    Returns:
        Images, captions and file names. All of the folder or nothing: never a part.

    Raises:
        FileNotFoundError: if there is no such folder, or no `metadata.jsonl` in it.
        ValueError: if `size` is below 1, no image is listed, or lines are wrong: not JSON, no
            `file_name` or `text`, an empty text, a file listed twice, outside of the folder,
            missing, unreadable or of more than `PIL.Image.MAX_IMAGE_PIXELS`. It names the first
            five lines.

    Reference:
        https://huggingface.co/docs/datasets/image_dataset, "ImageFolder".

    Example:
        >>> mine = folder("my-images")  # doctest: +SKIP
        >>> mine.images.shape, mine.captions[0]  # doctest: +SKIP
        ((120, 64, 64, 3), 'a cat asleep on a sill')
    """
    if size < 1:
        raise ValueError(f"size = {size}: give a size of at least 1 pixel.")
    metadata = Path(path) / METADATA
    if not metadata.is_file():
        raise FileNotFoundError(
            f"No file {metadata}. Give a folder with images and a {METADATA}, one line for each "
            'image: {"file_name": "1.png", "text": "what it shows"}.'
        )
    images, captions, names, problems = [], [], [], []
    first_lines: dict[Path, int] = {}
    for number, line in enumerate(metadata.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            name, text = _parse(line)
            file = _inside(metadata.parent, name)
            if (first := first_lines.setdefault(file, number)) != number:
                raise ValueError(f"{_shown(name)} stands in line {first} already")
            images.append(_read(file, size))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        else:
            captions.append(text)
            names.append(name)
    if problems:
        shown = [f"{metadata}, {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            shown.append(f"and {len(problems) - _SHOWN} more")
        raise ValueError("Mend these lines, or take them out:\n" + "\n".join(shown))
    if not images:
        raise ValueError(f"{metadata} lists no image. Write one line for each image.")
    return Captioned(np.stack(images), tuple(captions), tuple(names))


def square(image: Image.Image, size: int) -> np.ndarray:
    """Turns any Pillow image into a square of RGB pixels.

    Args:
        image: of any mode: 16-bit grey is scaled to 8 bits, transparency laid over white. Which
            colours of 16 bits are transparent is told by their upper 8.
        size: height and width of the result, pixels.

    Returns:
        uint8 `(size, size, 3)`: the central square, resized with antialiasing.

    Raises:
        ValueError: if the pixels are floats, or whole numbers outside of 0..65535, whose range no
            file states.

    Example:
        >>> square(Image.new("L", (30, 20), 7), 2).tolist()[0]
        [[7, 7, 7], [7, 7, 7]]
    """
    tiles = getattr(image, "tile", None)
    packing = tiles[0].args if tiles else None  # load() forgets it
    image.load()  # so that what is wrong with the pixels is not taken for wrong metadata
    clear = image.info.get("transparency")  # of PNG: one grey level or colour, in the file's depth
    if isinstance(clear, int) and packing in ("L;2", "L;4"):  # Pillow has scaled the pixels alone
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[packing]
    elif isinstance(clear, tuple) and packing == "RGB;16B":  # Pillow has cut the pixels to 8 bits
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF in a good image: it stays as it lies
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255, not scale them
        wide = np.asarray(image, np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            found = f"{wide.min()} to {wide.max()}"
            raise ValueError(f"its pixels are {found}, of unknown range; save it with 16 bits")
        grey = np.rint(wide / 257).astype(np.uint8)
        opaque = np.where(wide == clear, 0, 255) if isinstance(clear, int) else 255 + 0 * wide
        image = Image.fromarray(np.stack([grey, opaque.astype(np.uint8)], -1), "LA")
    elif image.mode == "La":  # the one mode that Pillow does not turn into RGBA
        image = image.convert("LA")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _parse(line: bytes) -> tuple[str, str]:
    """Returns the file name and the text of one line."""
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or brackets without end
        raise ValueError(f"not JSON in UTF-8 ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError('not a JSON object; write {"file_name": …, "text": …}')
    values = []
    for key in ("file_name", "text"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key!r} must be a text that is not empty, got {value!r:.40}")
        values.append(value)
    return values[0], values[1].strip()  # a file's name may begin with a space


def _inside(parent: Path, name: str) -> Path:
    """Returns the path of that name, if it lies in the folder or leads into its hub's cache."""
    parent = parent.absolute()
    try:
        file = _spelt(parent, name)
        target = file.resolve()
        found = target.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, too long, a ring of links
        raise ValueError(f"{_shown(name, 80)} is no file name ({error})") from error
    within = [parent.resolve(), *_blobs(parent), *_blobs(parent.resolve())]
    from_hub = _BLOB.search(target.as_posix()) or any(map(_is_own_blob, _steps(file)))
    named = Path(os.path.normpath(file))
    named_inside = named != parent and named.is_relative_to(os.path.normpath(parent))
    if not named_inside or not (from_hub or any(map(target.is_relative_to, within))):
        raise ValueError(f"{_shown(name)} lies outside of the folder")
    if not found:
        raise ValueError(f"no file {_shown(name)} in the folder{_alike(file)}")
    return named


def _spelt(parent: Path, name: str) -> Path:
    """Returns the path of a name, each part of it as the one file spelt so in any Unicode form."""
    path = parent
    for part in Path(name).parts:
        file = path / part
        if not part.isascii() and not file.exists() and path.is_dir():
            form = unicodedata.normalize("NFC", part)
            same = [f for f in path.iterdir() if unicodedata.normalize("NFC", f.name) == form]
            file = same[0] if len(same) == 1 else file
        path = file
    return path


def _alike(file: Path) -> str:
    """Tells of files that are missed easily: they differ in spaces, case or Unicode form only."""

    def key(name: str) -> str:
        return "".join(unicodedata.normalize("NFKC", name).casefold().split())

    found: list[str] = []
    with contextlib.suppress(OSError):  # no such folder, or one that may not be read
        there = [f.name for f in file.parent.iterdir()]
        found = sorted(_shown(name) for name in there if key(name) == key(file.name))
    return f"; it has {' and '.join(found[:2])}: write the name as it is there" if found else ""


def _shown(name: str, most: int = 1000) -> str:
    """Returns a name in quotation marks; if it may look like another one, also as escapes."""
    text = repr(name)
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)]
    if not name.isascii() and len(forms) < 2:
        text += f" ({' '.join(forms) or 'neither NFC nor NFD'}: {name!a})"
    return text[:most]


def _blobs(folder: Path) -> list[Path]:
    """Returns where a hub keeps the files that the links of a snapshot lead to.

    The layout is `<repository>/snapshots/<revision>/…`, with links into `<repository>/blobs`.
    """
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots":
            repository = place.parent.parent.resolve()
            blobs = (repository / "blobs").resolve()
            return [blobs] if blobs.is_relative_to(repository) else []
    return []


def _steps(file: Path) -> Iterator[Path]:
    """Yields where a link leads, and where that leads, and so on, to what is no link."""
    for _ in range(40):  # as many as Linux follows: links may lead in a ring
        if not file.is_symlink():
            return
        file = Path(os.path.normpath(file.parent.resolve() / os.readlink(file)))
        yield file


def _is_own_blob(path: Path) -> bool:
    """Returns whether a path is that of a blob in the cache of the reader's own hub client."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    caches = [os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    cache = next(filter(None, caches), f"{home}/hub")
    own = Path(os.path.realpath(os.path.expandvars(os.path.expanduser(cache))))
    repository = path.parent.parent
    return path.parent.name == "blobs" and repository.parent == own and "--" in repository.name


def _read(file: Path, size: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata: what it can, Pillow reads all the same
            # A small file can unpack to gigabytes: Pillow's warning is the limit here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                with Image.open(file) as image:
                    return square(image, size)
            except Exception:
                bare = without_metadata(file.read_bytes())
                with contextlib.suppress(Exception), Image.open(io.BytesIO(bare)) as image:
                    return square(image, size)
                raise
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise ValueError(f"{_shown(file.name)} is not a readable image ({error})") from error
