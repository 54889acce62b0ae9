"""From a prompt to images: describe, encode, generate, decode.

    prompt ──describe──> descriptions ──encode──> embeddings ──generate──> codes ──decode──> images
           (text room)                (text room)            (a model)          (tokenizer)

Each stage is timed, because the book asks what it costs and what it buys.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genlib import files, origin, plot, ranges, text
from genlib.data import captions
from genlib.models.judges import REWARD_MODEL, ScenesJudge
from genlib.models.sampling import Seed
from genlib.models.tokenizer import Tokenizer
from genlib.pretrained import (
    DEFAULT,
    METHODS,  # noqa: F401  # for whoever reads `pipeline.METHODS`
    load,
    load_scenes_judge,
    load_tokenizer,
    method_options,
)

Sample = Callable[[np.ndarray, Seed], np.ndarray]  # embeddings (n, 128) and a seed to a grid
Writer = Literal["student", "llm", "off"]


@dataclass(frozen=True)
class Generated:
    """What a prompt became.

    Attributes:
        images: uint8 `(n, 64, 64, 3)`.
        descriptions: what each image was asked to show.
        notes: what was understood of the prompt, and what was not; for people.
        milliseconds: of each stage: describe, encode, generate, decode, and choose for best of n.
        method: name, with the options that were used.
        record: all that decides the images, for `genlib.origin`; the same again makes them again.
    """

    images: np.ndarray
    descriptions: tuple[str, ...]
    notes: tuple[str, ...]
    milliseconds: Mapping[str, float]
    method: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


def generate(
    prompt: str,
    n: int = 16,
    *,
    seed: int = 0,
    method: str = DEFAULT,
    describe: Writer = "student",
    best_of: int = 1,
    **options: Any,
) -> Generated:
    """Generates images of what a prompt asks for.

    The same arguments give the same images.

    Args:
        prompt: English or Chinese, such as `"a beautiful sunset over a calm sea"`.
        n: how many images. The ranges of all numbers are those of `genlib.ranges`.
        seed: of descriptions and images. Image `i` depends on the prompt, the seed and `i`.
        method: one of `METHODS`.
        describe: who completes the prompt to one full description for each image: `"student"`,
            the small encoder, in milliseconds; `"llm"`, SmolLM2, in seconds; `"off"` gives the
            prompt to the generator as it is.
        best_of: how many images to draw for each one that is returned. The reward model chooses: a
            network that reads from an image whether it shows its description (`best_of`).
        **options: of the method, see `METHODS[method].options`.

    Returns:
        Images, descriptions, notes and the time of each stage.

    Raises:
        TypeError: if the prompt is no text.
        ValueError: if an argument is out of range or unknown, or the prompt is empty.

    Example:
        >>> generate("a beautiful sunset over a calm sea", 4).images.shape
        (4, 64, 64, 3)
    """
    check(prompt, n, seed)
    ranges.check("best_of", best_of)
    if best_of > 1 and describe == "off":
        raise ValueError(
            f"best_of = {best_of}, describe = 'off': somebody has to describe the image, or the "
            "reward model has nothing to compare it with."
        )
    chosen = method_options(method, options)
    model, tokenizer = load(method), load_tokenizer()
    clock = _Clock()

    written = clock("describe", complete, prompt, n, seed, describe)
    descriptions = tuple(d.text for d in written)
    embedded = clock("encode", encode, descriptions)

    def sample(embedded: np.ndarray, seed: Seed) -> np.ndarray:
        return model.sample(embedded, seed, **chosen)

    if best_of == 1:
        images = clock("decode", tokenizer.decode, clock("generate", sample, embedded, seed))
    else:
        images = _choose(best_of, sample, tokenizer, written, embedded, seed, clock)
    notes = tuple(dict.fromkeys(d.understood for d in written if d.understood))
    used = {"method": method, **({"best_of": best_of} if best_of > 1 else {}), **chosen}
    record = {"prompt": prompt, "n": int(n), "seed": int(seed), "method": method}
    record |= {"describe": describe, "best_of": int(best_of), "options": chosen}
    return Generated(images, descriptions, notes, clock.spent, used, record)


def describe(prompt: str, n: int = 4, seed: int = 0, writer: Writer = "student") -> list[str]:
    """Returns `n` full descriptions of what a prompt asks for, as `generate` uses them.

    Args:
        prompt: English or Chinese.
        n: how many.
        seed: of what the prompt leaves open.
        writer: as `describe` of `generate`.

    Raises:
        TypeError: if the prompt is no text.
        ValueError: if the prompt is empty, or an argument is out of range or unknown.
    """
    check(prompt, n, seed)
    return [d.text for d in complete(prompt, n, seed, writer)]


def check_out(out: str | Path, *, overwrite: bool = False) -> None:
    """Makes sure, before any work, that `save` will find a place for its result, by writing there.

    Args:
        out: as in `save`.
        overwrite: as in `save`.

    Raises:
        ValueError: if the ending of `out` is none of `files.FORMATS`.
        OSError: if `out` cannot be written or exists.
    """
    if files.ending(out):
        files.check_file(out, overwrite=overwrite)
    else:
        files.check_folder(out)


def save(made: Generated, out: str | Path, *, overwrite: bool = False) -> None:
    """Writes images onto one sheet, or into a folder of PNG files.

    The folder also holds `metadata.jsonl`, so that `genlib.data.folder` reads it again. Each PNG
    tells how it was made (`genlib.origin`).

    Args:
        made: what `generate` returned.
        out: a file's name that ends in one of `files.FORMATS`; or a folder's, new or empty: a name
            without an ending, or a text that ends in a slash. A link is followed.
        overwrite: replace a file that stands there. A folder that holds anything never is.

    Raises:
        ValueError: if the name has another ending.
        OSError: if they cannot be written or `out` exists; nothing half-written stays behind.
    """
    record = made.record
    if files.ending(out):
        told = origin.texts("generate", record) if record else {}
        plot.save_sheet(made.images, out, told, overwrite=overwrite)
        return
    content: dict[str, bytes] = {}
    lines = []
    for i, (image, description) in enumerate(zip(made.images, made.descriptions, strict=True)):
        name = f"{i:04d}.png"
        mine = {**record, "file": name, "description": description}
        told = origin.texts("generate", mine) if record else {}
        content[name] = files.to_png(image, optimize=True, text=told)
        lines.append(json.dumps({"file_name": name, "text": description}, ensure_ascii=False))
    content["metadata.jsonl"] = ("\n".join(lines) + "\n").encode()
    files.write_folder(out, content)


def check(prompt: str, n: int, seed: int) -> None:
    """Makes sure, before any work, that a prompt can be drawn.

    Raises:
        TypeError: if the prompt is no text.
        ValueError: if it is empty, or a number is out of range.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"A prompt is a text, got {type(prompt).__name__}.")
    if not prompt.strip():
        raise ValueError('The prompt is empty. Say what to show, such as "a sunset over the sea".')
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The prompt is not Unicode ({error}). Type it again.") from None
    ranges.check_all(n=n, seed=seed)


class _Clock:
    """Calls functions, and adds up the milliseconds of each stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, stage: str, run: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = run(*arguments, **options)  # NumPy arrays and texts: nothing is left to wait for
        self.spent[stage] = self.spent.get(stage, 0) + 1000 * (time.perf_counter() - start)
        return result


def complete(prompt: str, n: int, seed: int, writer: Writer) -> list[text.Description]:
    """Completes a prompt to `n` full descriptions: the first stage.

    Args:
        prompt: English or Chinese.
        n: how many.
        seed: of what the prompt leaves open.
        writer: as `describe` of `generate`; with `"off"`, `n` times the prompt itself.

    Raises:
        ValueError: if there is no such writer.
    """
    if writer == "off":
        return [text.Description(prompt, (), frozenset(), 0.0, text.unread(prompt))] * n
    if writer not in ("student", "llm"):
        raise ValueError(f"describe = {writer!r}; choose 'student', 'llm' or 'off'.")
    return text.describe(prompt, n, seed, method="grammar" if writer == "llm" else "student")


def encode(descriptions: tuple[str, ...]) -> np.ndarray:
    """Embeds descriptions, float32 `(n, 128)`: the second stage. It reads equal ones once."""
    different = list(dict.fromkeys(descriptions))
    rows = dict(zip(different, text.encode(different), strict=True))
    return np.stack([rows[d] for d in descriptions])


def _choose(
    n: int,
    sample: Sample,
    tokenizer: Tokenizer,
    written: Sequence[text.Description],
    embedded: np.ndarray,
    seed: int,
    clock: _Clock,
) -> np.ndarray:
    """Calls `best_of` for `generate`, in which that name is an argument."""
    asked = np.array([captions.indices(d.attributes) for d in written])
    reward_model = load_scenes_judge(REWARD_MODEL)
    found = best_of(n, sample, tokenizer, reward_model, asked, seed, embedded=embedded, timed=clock)
    return found[1]


def _untimed(_: str, run: Callable[..., Any], *arguments: Any) -> Any:
    """Stands in for a `_Clock` where nobody asks for times."""
    return run(*arguments)


def best_of(
    n: int,
    sample: Sample,
    tokenizer: Tokenizer,
    reward_model: ScenesJudge,
    attributes: np.ndarray,
    seed: Seed = 0,
    *,
    embedded: np.ndarray | None = None,
    timed: Callable[..., Any] = _untimed,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws `n` images for each description, and keeps the one that the reward model likes best.

    The reward model is not the judge that measures the result: whoever selects images by a measure
    improves that measure, whether the images get better or not.

    Args:
        n: how many to draw, at least 1.
        sample: embeddings and a seed to codes or latents.
        tokenizer: decodes them.
        reward_model: chooses.
        attributes: of the descriptions, int `(m, 5)`.
        seed: of the first draw; draw `t` after it has the streams `(seed, t)` of its own.
        embedded: of the descriptions, float32 `(m, 128)`; those of the full captions unless given.
        timed: calls a stage's function by its name, as `generate` does to time it.

    Returns:
        The kept grids `(m, 16, 16[, channels])`, their images, uint8 `(m, 64, 64, 3)`, and their
        agreement `(m,)`.

    Raises:
        ValueError: if `n` is out of its range.
    """
    ranges.check("n", n, of="best_of")
    if embedded is None:
        embedded = text.encode([captions.full(row) for row in attributes])
    stem = seed if isinstance(seed, tuple) else (seed,)
    kept: list[np.ndarray] = []
    for turn in range(n):
        here = (*stem, turn) if turn else seed
        grids = timed("generate", sample, embedded, here)
        images = timed("decode", tokenizer.decode, grids)
        scores = timed("choose", agreement, reward_model, images, attributes)
        drawn = [np.array(grids), np.array(images), scores]  # copies, which may be written into
        if kept:
            better = scores > kept[2]
            for old, new in zip(kept, drawn, strict=True):
                old[better] = new[better]
        else:
            kept = drawn
    return kept[0], kept[1], kept[2]


def agreement(reward_model: ScenesJudge, images: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Returns how well images show what was asked for.

    Args:
        reward_model: reads attributes.
        images: uint8 `(n, 64, 64, 3)`.
        attributes: what was asked for, int `(n, 5)`, as `genlib.data.scenes` numbers it.

    Returns:
        float64 `(n,)`: the logarithm of the probability that all five are there, by that model.
    """
    rows = np.arange(len(images))
    parts = reward_model.probabilities(images)
    shares = [part[rows, attributes[:, i]] for i, part in enumerate(parts)]
    return np.log(np.maximum(np.stack(shares, 1).astype(np.float64), 1e-12)).sum(1)
