"""Writing images, files and folders so that nobody, ever, finds half of one.

What is written gets a temporary name beside its own, and is renamed when it is whole. A link is
followed: what it points to is written, and the link stays. What a killed writer left is removed by
the next one that writes there.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# Endings of the images that are written, and what Pillow calls the formats.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LONGEST = {"WEBP": 16_383, "JPEG": 65_500}  # pixels of a side, by the encoders; PNG has room
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"[:4]
_TEMPORARY = re.compile(r"\..+?(?:\.(\d+))?\.[0-9a-f]{4}([0-9a-f]{4})\.genlib")


class DamagedFileError(ValueError):
    """A file does not hold what its name or its header promises."""


# ---------------------------------------------------------------- images


def to_png(
    image: np.ndarray, *, optimize: bool = False, text: Mapping[str, str] | None = None
) -> bytes:
    """Returns an image as the bytes of a PNG file.

    Args:
        image: uint8 `(height, width)` or `(height, width, 3)`.
        optimize: look longer for a smaller file.
        text: what the file says of itself, keyword to text (PNG's chunks `iTXt`, in UTF-8).
    """
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_itxt(keyword, value)
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", optimize=optimize, pnginfo=chunks)
    return file.getvalue()


def to_image(image: np.ndarray, ending: str, text: Mapping[str, str] | None = None) -> bytes:
    """Returns an image as the bytes of a file of the format that an ending names.

    Args:
        image: as for `to_png`.
        ending: one of `FORMATS`. WebP keeps every pixel as PNG does; JPEG does not.
        text: as for `to_png`; the other formats have no place for it.

    Raises:
        ValueError: if the format has no room for so many pixels.
    """
    height, width = image.shape[:2]
    check_size(height, width, ending)
    if FORMATS[ending] == "PNG":
        return to_png(image, optimize=True, text=text)
    file = io.BytesIO()
    how = {"quality": 95, "subsampling": 0} if FORMATS[ending] == "JPEG" else {"lossless": True}
    Image.fromarray(image).save(file, format=FORMATS[ending], **how)
    return file.getvalue()


def check_size(height: int, width: int, ending: str) -> None:
    """Makes sure that a format has room for an image.

    Args:
        height: pixels.
        width: pixels.
        ending: one of `FORMATS`.

    Raises:
        ValueError: if it has not.
    """
    most = LONGEST.get(FORMATS[ending])
    if most is not None and max(height, width) > most:
        raise ValueError(
            f"{width:,} × {height:,} pixels: {ending} has room for {most:,} × {most:,}. Write "
            ".png, or fewer images."
        )


def ending(name: str | Path) -> str:
    """Returns the ending that says what to write: one of `FORMATS`, or "" for a folder.

    A folder is asked for by a name without an ending, or by a slash behind it, which only a text
    can have: `Path` drops it.

    Raises:
        ValueError: if the ending is another, or the name is `-`.
    """
    text = os.fspath(name)
    if text == "-":
        raise ValueError(
            "-o -: nothing is written to standard output. Give a file's name that ends in "
            f"{', '.join(FORMATS)}, or ./- for a folder of that name."
        )
    found = _ending(text)
    if found.lower() not in ("", *FORMATS):
        raise ValueError(
            f"{text!r} ends in {found!r}. Images are written as {', '.join(FORMATS)}; for a folder "
            "of them, put a / behind its name."
        )
    return found.lower()


def _ending(text: str) -> str:
    last = re.split(r"[/\\]" if os.name == "nt" else "/", text)[-1]
    return "" if "." not in last or last in (".", "..") else "." + last.rpartition(".")[2]


def check_name(name: str | Path, *, of: str, folder: bool = False) -> None:
    """Makes sure that a name does not ask for an image or a stream, where none is written.

    Args:
        name: a file's or a folder's. A slash behind it can only a text have: `Path` drops it.
        of: what is written, for the message.
        folder: whether that is a folder.

    Raises:
        ValueError: if the name is `-`, ends as an image does, or, of a file, in a slash.

    Example:
        >>> check_name("-", of="the run", folder=True)
        Traceback (most recent call last):
        ValueError: -o -: nothing is written to standard output. Give a name for the run.
    """
    text = os.fspath(name)
    if text == "-":
        raise ValueError(f"-o -: nothing is written to standard output. Give a name for {of}.")
    if (found := _ending(text)).lower() in FORMATS:
        raise ValueError(
            f"{text!r} ends in {found!r}, as an image does. Give another name for {of}"
            f"{', or put a / behind it' * folder}."
        )
    if not folder and text.endswith(("/", os.sep)):
        raise ValueError(f"{text!r} is a folder's name. Give a file's name for {of}.")


# ---------------------------------------------------------------- writing


def write_atomic(path: str | Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file whole or not at all: a temporary neighbour, flushed to disk, then renamed.

    Args:
        path: the file; missing folders are made.
        data: its content.
        overwrite: what stands there is replaced; else it is an error, whoever wrote it meanwhile.

    Raises:
        FileExistsError: if there is something, and it may not be overwritten.
        OSError: if the folder cannot be written or the disk is full. The file that stood there
            before is then untouched, and no temporary file stays behind.

    Example:
        >>> write_atomic("/tmp/genlib-example/a.bin", b"whole")
    """
    path = Path(os.path.realpath(path))
    _check_no_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = _neighbour(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite or not _link(temporary, path):
            os.replace(temporary, path)
        else:
            temporary.unlink()
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _link(temporary: Path, path: Path) -> bool:
    """Gives a file a second name, if nothing has it; returns whether the file system can do so.

    A rename would replace what another process put there since anybody looked.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:
        if os.path.lexists(path):
            raise _exists(path) from None
        return False
    return True


def _check_no_folder(path: Path) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder. Give a file's name, or move it away.")


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} exists. Give a new name, or --overwrite to replace it.")


def write_folder(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files whole or not at all.

    Args:
        path: of the folder; it must not exist, or be empty.
        files: name to content.

    Raises:
        FileExistsError: if there is something at `path`.
        OSError: if it cannot be written or the disk is full; nothing stays behind.
    """
    path = Path(os.path.realpath(path))
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    if path.is_dir():
        remove_leftovers(path)
    temporary = _neighbour(path)
    temporary.mkdir()
    try:
        for name, data in files.items():
            with open(temporary / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if path.is_dir():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)  # over an empty folder too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


# ---------------------------------------------------------------- temporary names


def _neighbour(path: Path) -> Path:
    """Returns a temporary name beside a file, which tells who writes; a name has 255 bytes."""
    return path.with_name(f"{_stem(path)}.{os.getpid()}.{secrets.token_hex(2)}{_HOST}.genlib")


def _stem(path: Path) -> str:
    return f".{path.name[:48]}"


def is_temporary(path: Path) -> bool:
    """Returns whether a file or folder has a temporary name of ours."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_leftover(path: Path) -> bool:
    """Returns whether a file or folder has a temporary name of ours, and its writer is dead."""
    named = _TEMPORARY.fullmatch(path.name)
    return named is not None and not (_is_ours(named) and psutil.pid_exists(int(named[1])))


def _is_ours(named: re.Match[str]) -> bool:
    return named[1] is not None and named[2] == _HOST


def _remove_abandoned(path: Path) -> None:
    """Removes temporary neighbours of a file whose writers do not live any more.

    Only of writers on this machine: of others nobody here knows.
    """
    for found in path.parent.glob(f"{glob.escape(_stem(path))}.*.genlib"):
        named = _TEMPORARY.fullmatch(found.name)
        if named and _is_ours(named) and is_leftover(found):
            _remove(found)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in a folder, into which nobody else writes now."""
    for path in filter(is_leftover, list(folder.rglob(".*.genlib"))):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- a place, before the work


def check_file(path: str | Path, *, overwrite: bool = True) -> None:
    """Makes sure, before the work, that a file can be written, by writing one beside it.

    Args:
        path: the file.
        overwrite: as in `write_atomic`.

    Raises:
        FileExistsError: if there is something, and it may not be overwritten.
        OSError: if it cannot be written.
    """
    path = Path(os.path.realpath(path))
    _check_no_folder(path)
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    with _tried(path):
        temporary = _neighbour(path)
        try:
            temporary.write_bytes(bytes(4096))  # a full disk may take a name, but no byte
        finally:
            temporary.unlink(missing_ok=True)


def check_folder(path: str | Path) -> None:
    """Makes sure, before the work, that `write_folder` can put a folder there, by doing it.

    Raises:
        FileExistsError: if there is something at `path`.
        OSError: if it cannot be written, or is an empty folder that cannot be replaced.
    """
    path = Path(os.path.realpath(path))
    check_free(path)
    existed = os.path.isdir(path)
    if existed and os.path.samefile(path, os.curdir):
        raise FileExistsError(f"{path} is where you are. Give the name of a new folder in it.")
    with _tried(path):
        write_folder(path, {})
        if not existed:
            path.rmdir()


@contextlib.contextmanager
def _tried(path: Path) -> Iterator[None]:
    """Makes the folders above a path for a trial, and removes them; errors name the path."""
    made = [folder for folder in path.parents if not os.path.exists(folder)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # a name that is too long is told here
        yield
    except OSError as error:
        if error.errno is None:  # a sentence of ours
            raise
        raise OSError(f"{path} cannot be written: {error.strerror}. Give another place.") from error
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_free(path: Path) -> bool:
    """Returns whether a new folder can stand there: there is nothing, or nothing but leftovers."""
    if not os.path.exists(path):  # Path.exists raises for a name that is too long
        return True
    return os.path.isdir(path) and all(map(is_leftover, path.iterdir()))


def check_free(path: Path) -> None:
    """Raises FileExistsError where a new folder cannot stand."""
    if not is_free(path):
        raise FileExistsError(
            f"{path} exists and is not an empty folder. Give a new name, or, for one sheet, a name "
            f"that ends in {', '.join(FORMATS)}."
        )


def free_name(path: Path) -> Path:
    """Returns a file's name if nothing has it, else the first with a number that is free.

    Example:
        >>> free_name(Path("nothing-has-this-name.png")).name
        'nothing-has-this-name.png'
    """
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
