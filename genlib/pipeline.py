"""From a prompt to images: describe, encode, generate, decode.

    wish ──describe──> descriptions ──encode──> embeddings ──generate──> codes ──decode──> images
         (text room)                (text room)            (a model)          (tokenizer)

Each stage is timed, because the book asks what it costs and what it buys.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genlib import files, plot, text, weights
from genlib.data import captions
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.tokenizer import Tokenizer, load_tokenizer

Writer = Literal["student", "llm", "off"]
MOST = 1024  # images of one call; more would fill the memory of a small machine


@dataclass(frozen=True)
class Method:
    """One way from text embeddings to codes or latents.

    Attributes:
        model: class of the model.
        config: dataclass of its settings.
        weights: name of its shipped weights, which is also the recipe's.
        about: one line for `genlib methods`.
        options: of `model.sample`, with their defaults.
    """

    model: Any
    config: type
    weights: str
    about: str
    options: Mapping[str, Any]


METHODS: Mapping[str, Method] = {
    "image-gpt": Method(
        ImageGPT,
        ImageGPTConfig,
        "image-gpt",
        "token after token, as a language model writes; 64 forwards of one token",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 1.5},
    ),
    "coarse-to-fine": Method(
        CoarseToFine,
        CoarseToFineConfig,
        "coarse-to-fine",
        "a thumbnail first, then all the rest in seven forwards",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 1.5},
    ),
    "flow": Method(
        Flow,
        FlowConfig,
        "flow",
        "noise that flows to the image in a number of steps, all of it at once",
        {"steps": 16, "guidance": 3.0, "solver": "euler"},
    ),
    "flow-shortcut": Method(
        Flow,
        FlowConfig,
        "flow-shortcut",
        "the flow's student: its guided walk in four steps, two or one, each one forward",
        {"steps": 4, "guidance": 1.0},
    ),
    "flow-small": Method(
        Flow,
        FlowConfig,
        "flow-small",
        "a student with half of the flow's blocks",
        {"steps": 4, "guidance": 1.0},
    ),
    "image-gpt-student": Method(
        ImageGPT,
        ImageGPTConfig,
        "image-gpt-student",
        "two of image GPT's six blocks, taught by it; has learnt its guidance",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 1.0},
    ),
}
DEFAULT = "flow-shortcut"


@dataclass(frozen=True)
class Generated:
    """What a prompt became.

    Attributes:
        images: uint8 `(n, 64, 64, 3)`.
        descriptions: what each image was asked to show.
        notes: what was understood of the prompt, and what was not; for people.
        milliseconds: of each stage: describe, encode, generate, decode, and choose for best of n.
        method: name, with the options that were used.
    """

    images: np.ndarray
    descriptions: tuple[str, ...]
    notes: tuple[str, ...]
    milliseconds: Mapping[str, float]
    method: Mapping[str, Any] = field(default_factory=dict)


@cache
def load(method: str) -> Any:
    """Returns a method's model with the shipped weights, loaded once.

    Raises:
        ValueError: if there is no such method.
        FileNotFoundError: if its weights are not there.
        WeightsError: if they are damaged, or were trained for another tokenizer.
    """
    if method not in METHODS:
        raise ValueError(f"No method {method!r}. Choose one of {tuple(METHODS)}.")
    m = METHODS[method]
    model, card = weights.load_model(m.weights, (m.weights,), m.model, m.config)
    if card.get("tokenizer") != tokenizer().fingerprint():
        raise weights.WeightsError(
            f"The weights {m.weights!r} were trained for tokenizer {card.get('tokenizer')}, and "
            f"the one here is {tokenizer().fingerprint()}. Train the one or the other again."
        )
    return model


@cache
def tokenizer() -> Tokenizer:
    """Returns the shipped tokenizer, loaded once."""
    return load_tokenizer()


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
    """Generates images of what a prompt wishes for.

    The same arguments give the same images.

    Args:
        prompt: English or Chinese, such as `"a beautiful sunset over a calm sea"`.
        n: how many images, 1 to 1,024.
        seed: of descriptions and images. Image `i` depends on the prompt, the seed and `i`.
        method: one of `METHODS`.
        describe: who completes the prompt to one full description for each image: `"student"`,
            the small encoder, in milliseconds; `"llm"`, SmolLM2, in seconds; `"off"` gives the
            prompt to the generator as it is.
        best_of: how many images to draw for each one that is returned. A critic chooses: a network
            that reads from an image whether it shows its description (`genlib.improve`).
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
    if best_of < 1 or (best_of > 1 and describe == "off"):
        raise ValueError(
            f"best_of = {best_of}, describe = {describe!r}: give at least 1; above 1, somebody has "
            "to describe the image, or the critic has nothing to compare it with."
        )
    model, chosen = load(method), METHODS[method].options
    unknown = set(options) - set(chosen)
    if unknown:
        raise ValueError(f"{method} has no option {sorted(unknown)}; it has {sorted(chosen)}.")
    chosen = {**chosen, **options}
    clock = _Clock()

    written = clock("describe", complete, prompt, n, seed, describe)
    descriptions = tuple(d.text for d in written)
    embedded = clock("encode", encode, descriptions)
    images, scores = np.empty(0), np.full(n, -np.inf)
    for turn in range(best_of):
        grid = clock("generate", model.sample, embedded, seed + turn, **chosen)
        drawn = clock("decode", tokenizer().decode, grid)
        if best_of == 1:
            images = drawn
        else:
            found = clock("choose", _score, drawn, written)
            better = found > scores
            images = np.where(better[:, None, None, None], drawn, images if turn else drawn)
            scores = np.maximum(found, scores)
    notes = tuple(dict.fromkeys(d.understood for d in written if d.understood))
    used = {"method": method, **({"best_of": best_of} if best_of > 1 else {}), **chosen}
    return Generated(images, descriptions, notes, clock.spent, used)


def describe(prompt: str, n: int = 4, seed: int = 0, writer: Writer = "student") -> list[str]:
    """Returns `n` full descriptions of what a prompt wishes for, as `generate` uses them.

    Raises:
        ValueError: if the prompt is empty, or an argument is out of range or unknown.
    """
    check(prompt, n, seed)
    return [d.text for d in complete(prompt, n, seed, writer)]


def check_out(out: str | Path) -> None:
    """Makes sure, before the work, that there is room for its result.

    Raises:
        OSError: if `out` cannot be written, or is a folder that is not empty.
    """
    out = Path(out)
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder. Give a file's name.")
    else:
        files.check_free(out)
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{parent} cannot be written, so {out} has no place. Give another.")


def save(made: Generated, out: str | Path) -> None:
    """Writes images: onto one PNG sheet if `out` ends in .png, else into a folder of PNG files.

    The folder also holds `metadata.jsonl`, so that `genlib.data.folder` reads it again.

    Raises:
        OSError: if they cannot be written; nothing half-written stays behind.
    """
    out = Path(out)
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        plot.save_png(made.images, out)
        return
    content: dict[str, bytes] = {}
    lines = []
    for i, (image, description) in enumerate(zip(made.images, made.descriptions, strict=True)):
        content[f"{i:04d}.png"] = files.to_png(image, optimize=True)
        record = {"file_name": f"{i:04d}.png", "text": description}
        lines.append(json.dumps(record, ensure_ascii=False))
    content["metadata.jsonl"] = ("\n".join(lines) + "\n").encode()
    files.write_folder(out, content)


def check(prompt: str, n: int, seed: int) -> None:
    """Makes sure that a wish can be fulfilled.

    Raises:
        TypeError: if the prompt is no text.
        ValueError: if it is empty, or a number is out of range.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"A prompt is a text, got {type(prompt).__name__}.")
    if not prompt.strip():
        raise ValueError('The prompt is empty. Say what to show, such as "a sunset over the sea".')
    if not 1 <= n <= MOST:
        raise ValueError(f"n = {n}; give 1 to {MOST}.")
    if seed < 0:
        raise ValueError(f"seed = {seed}; give 0 or a positive integer.")


class _Clock:
    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, stage: str, run: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = run(*arguments, **options)  # NumPy arrays and texts: nothing is left to wait for
        self.spent[stage] = self.spent.get(stage, 0) + 1000 * (time.perf_counter() - start)
        return result


def complete(prompt: str, n: int, seed: int, writer: Writer) -> list[text.Description]:
    """Completes a prompt to `n` full descriptions, the first thing that `generate` does.

    Raises:
        ValueError: if there is no such writer.
    """
    if writer == "off":
        return [text.Description(prompt, (), frozenset(), 0.0, "")] * n
    if writer not in ("student", "llm"):
        raise ValueError(f"describe = {writer!r}; choose 'student', 'llm' or 'off'.")
    return text.describe(prompt, n, seed, method="grammar" if writer == "llm" else "student")


def _score(images: np.ndarray, written: Sequence[text.Description]) -> np.ndarray:
    from genlib import improve  # training, which most calls do not need
    from genlib.models.scenes_judge import CRITIC, load_scenes_judge

    asked = np.array([captions.indices(d.attributes) for d in written])
    return improve.agreement(load_scenes_judge(CRITIC), images, asked)


def encode(descriptions: tuple[str, ...]) -> np.ndarray:
    """Embeds descriptions, each different one once: float32 `(n, 128)`."""
    different = list(dict.fromkeys(descriptions))
    rows = dict(zip(different, text.encode(different), strict=True))
    return np.stack([rows[d] for d in descriptions])
