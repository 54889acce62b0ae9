"""What an image tells of where it comes from, and the command that makes it again.

record ──texts──> chunks of a PNG ──read──> record ──command──> a line for the shell
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from genlib import __version__, files

# What a record may hold, for each command: keyword of the chunk to kind.
KINDS: Mapping[str, Mapping[str, type]] = {
    "generate": {
        "prompt": str,
        "n": int,
        "seed": int,
        "method": str,
        "describe": str,
        "best_of": int,
        "options": dict,
    },
    "sample": {"weights": str, "n": int, "seed": int},
}
MORE = ("file", "description")  # of one image among the command's


def texts(command: str, record: Mapping[str, Any]) -> dict[str, str]:
    """Returns what `files.to_png` shall write of a record, keyword to text.

    Args:
        command: one of `KINDS`.
        record: with what that command needs, and `MORE` where there is more than one image.
    """
    kinds = KINDS[command]
    found = {"genlib": __version__, "command": command}
    for key in (*kinds, *(key for key in MORE if key in record)):
        found[key] = record[key] if kinds.get(key, str) is str else json.dumps(record[key])
    return found


def read(path: str | Path) -> dict[str, Any]:
    """Returns the record in a PNG file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is no image, or no image of genlib's.
    """
    try:
        with Image.open(path) as image:
            image.load()  # chunks may stand behind the pixels
            found = {k: str(v) for k, v in image.info.items() if isinstance(v, str)}
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise files.DamagedFileError(f"{path} is not a whole image: {error}.") from error
    kinds = KINDS.get(found.get("command", ""))
    if kinds is None:
        raise files.DamagedFileError(
            f"{path} does not tell how it was made. The PNG files of genlib generate and genlib "
            "sample do."
        )
    record: dict[str, Any] = {k: found[k] for k in ("genlib", "command", *MORE) if k in found}
    for key, kind in kinds.items():
        try:
            value = found[key] if kind is str else json.loads(found[key])
        except (KeyError, ValueError, RecursionError):
            value = None
        if type(value) is not kind:
            raise files.DamagedFileError(
                f"{path} tells only in part how it was made: {key} is not."
            )
        record[key] = value
    return record


def command(record: Mapping[str, Any], out: str) -> str:
    """Returns the line for the shell that makes images again.

    Args:
        record: what `read` returned.
        out: where to.
    """
    words = ["genlib", record["command"], "-n", str(record["n"]), "--seed", str(record["seed"])]
    if record["command"] == "sample":
        return " ".join(map(_quote, [*words, "-o", out, "--", record["weights"]]))
    words += ["--method", record["method"], "--describe", record["describe"]]
    words += ["--best-of", str(record["best_of"])] if record["best_of"] > 1 else []
    for name, value in record["options"].items():
        words += ["--option", f"{name}={json.dumps(value)}"]
    return " ".join(map(_quote, [*words, "-o", out, "--", record["prompt"]]))


def printable(text: str) -> str:
    """Returns a text whose control characters, which can steer a terminal, are escaped."""
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    for digits, most in (("x02", 0x7F), ("u04", 0xFFFF)):
        if code <= most:
            return f"\\{digits[0]}{code:{digits[1:]}x}"
    return f"\\U{code:08x}"


def _quote(word: str) -> str:
    """Quotes a word for the shell; one with control characters in the way of bash and zsh."""
    if all(c.isprintable() for c in word):
        return shlex.quote(word)
    return "$'" + printable(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"
