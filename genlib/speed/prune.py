"""Structured pruning: leave out whole channels, heads, hidden units or blocks.

What is left is an ordinary smaller network: it needs no masks and no special kernels, so it is
smaller on the disk and quicker on every machine. Three steps, each a function: rate the parts,
choose which to keep, build the network of those. `silence` keeps all parts and sets those that
were not chosen to zero: it computes the same as the smaller network, which is how that one is
tested.

Here are the two kinds of network of this library: the convolutional generator of `models.gan`, and
the transformer of `models.transformer`, whatever model it sits in, of words or of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib import backend
from genlib.models.gan import CHANNELS, GAN, GROUPS, build_generator, build_narrow
from genlib.models.transformer import Transformer, TransformerConfig, rotation
from genlib.text.llm import LLM

# --- the generator ------------------------------------------------------------------------------

Groups = tuple[tuple[int, ...], ...]  # the groups that are kept, of each grid


def channel_importance(
    generator: keras.Model, by: str = "activations", n: int = 256, seed: int = 0
) -> list[np.ndarray]:
    """Rates the groups of channels of the convolutional generator.

    Args:
        generator: the unpruned network.
        by: `"weights"`, the length of the weights through which the next layer reads a group; or
            `"activations"`, that times the root mean square of what a group says: how much the
            next layer hears of it.
        n: latents to look at, for activations.
        seed: of the latents.

    Returns:
        Three arrays `(8,)`, float: higher is more important.

    Raises:
        ValueError: if `by` is unknown, or the network is another one.
    """
    if by not in ("weights", "activations"):
        raise ValueError(f"by = {by!r}; choose 'weights' or 'activations'.")
    arrays = _generator_arrays(generator)
    readers = [np.square(arrays[4]).sum((0, 1, 2)), np.square(arrays[8]).sum((0, 1, 2))]
    readers.append(np.square(arrays[12]).sum((0, 1, 3)))
    if by == "activations":
        grids = [layer.output for layer in generator.layers if isinstance(layer, layers.ReLU)]
        said = backend.to_numpy(keras.Model(generator.input, grids)(GAN.latents(n, seed)))
        readers = [r * np.square(s).mean((0, 1, 2)) for r, s in zip(readers, said, strict=True)]
    return [np.sqrt(r.reshape(GROUPS, -1).sum(1)) for r in readers]


def choose_channels(importance: Sequence[np.ndarray], keep: Sequence[int]) -> Groups:
    """Returns the `keep` most important groups of each grid, in their own order."""
    return tuple(
        tuple(sorted(np.argsort(-rated, kind="stable")[:count].tolist()))
        for rated, count in zip(importance, keep, strict=True)
    )


def narrow(generator: keras.Model, kept: Groups) -> keras.Model:
    """Builds the generator that has the kept groups of channels alone, with their weights.

    Groups stay whole, because the normalisation of a group depends on all of its channels: if one
    were missing, the others would say something else.

    Args:
        generator: the unpruned convolutional generator.
        kept: of each grid, the groups to keep, as `choose_channels` returns them.

    Returns:
        A generator that draws what `silence_channels` draws, with less work.

    Raises:
        ValueError: if the network is another one, or a group does not exist.
    """
    arrays, channels = _generator_arrays(generator), _channels(kept)
    places = (np.arange(49)[:, None] * CHANNELS[0] + channels[0]).ravel()  # of the 7×7 grid
    a, b, c = channels
    small = build_narrow([len(k) for k in kept])
    small.set_weights(
        [
            *(arrays[0][:, places], arrays[1][places]),
            *(arrays[2][a], arrays[3][a]),  # scale and offset of a normalisation
            *(arrays[4][:, :, b][..., a], arrays[5][b]),  # (4, 4, out, in)
            *(arrays[6][b], arrays[7][b]),
            *(arrays[8][:, :, c][..., b], arrays[9][c]),
            *(arrays[10][c], arrays[11][c]),
            *(arrays[12][:, :, c], arrays[13]),
        ]
    )
    return small


def silence_channels(generator: keras.Model, kept: Groups) -> keras.Model:
    """Returns a copy of the generator in which all groups but the kept ones say zero."""
    arrays, channels = _generator_arrays(generator), _channels(kept)
    for scale, chosen in zip((2, 6, 10), channels, strict=True):
        silent = np.setdiff1d(np.arange(len(arrays[scale])), chosen)
        arrays[scale][silent] = arrays[scale + 1][silent] = 0  # ReLU gives 0 then
    copy = build_generator("conv")
    copy.set_weights(arrays)
    return copy


def _generator_arrays(generator: keras.Model) -> list[np.ndarray]:
    arrays = [np.array(w) for w in generator.get_weights()]
    wanted = [tuple(v.shape) for v in build_narrow().variables]
    if [a.shape for a in arrays] != wanted:
        raise ValueError(
            f"{generator.name!r} is not the convolutional generator of models.gan: its weights "
            f"have the shapes {[a.shape for a in arrays]}, not {wanted}."
        )
    return arrays


def _channels(kept: Groups) -> list[np.ndarray]:
    """Returns the channels of the kept groups."""
    if len(kept) != 3 or not all(k and set(k) <= set(range(GROUPS)) for k in kept):
        raise ValueError(f"kept = {kept}; give groups from 0 to {GROUPS - 1} for three grids.")
    return [
        (np.asarray(k)[:, None] * (c // GROUPS) + np.arange(c // GROUPS)).ravel()
        for k, c in zip(kept, CHANNELS, strict=True)
    ]


# --- the transformer ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PrunedConfig(TransformerConfig):
    """The shape of a transformer that lost heads: those that are left keep their size."""

    head_size: int = 32  # numbers per head; elsewhere that is width / heads

    def __post_init__(self) -> None:
        sizes = (self.layers, self.width, self.heads, self.kv_heads, self.hidden, self.head_size)
        if min(sizes) < 1 or self.head_size % 2 or self.heads % self.kv_heads:
            raise ValueError(
                f"{self} fits no transformer. All sizes must be at least 1, head_size even, and "
                "heads a multiple of kv_heads."
            )

    @property
    def head_dim(self) -> int:
        """Numbers per head."""
        return self.head_size


@dataclass(frozen=True)
class Kept:
    """Which parts of a transformer stay. All blocks keep equally many heads and hidden units."""

    blocks: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]  # for each kept block: key heads, each with its query heads
    hidden: tuple[tuple[int, ...], ...]  # for each kept block: units of SwiGLU


def choose_parts(
    transformer: Transformer,
    *,
    blocks: int | Sequence[int] | None = None,
    heads: int | None = None,
    hidden: int | None = None,
) -> Kept:
    """Chooses parts of a transformer by the size of their weights.

    A head or hidden unit is rated by the product of the lengths of the weights that write it and of
    those that read it: how large a correction it can make. Key heads are chosen together with the
    query heads that they serve.

    Args:
        transformer: to be pruned.
        blocks: which to keep, or how many: these are spread over the depth, first and last among
            them. None keeps all.
        heads: how many key heads each block keeps; None keeps all.
        hidden: how many units of SwiGLU each block keeps; None keeps all.

    Raises:
        ValueError: if a number is below 1, or more than there are.

    Example:
        >>> config = TransformerConfig(layers=4, width=32, heads=4, kv_heads=2, hidden=64)
        >>> choose_parts(Transformer(config), blocks=2, heads=1).blocks
        (0, 3)
    """
    c = transformer.config
    if blocks is None or isinstance(blocks, int):
        count = _in_range("blocks", blocks, c.layers)
        wanted = np.rint(np.linspace(0, c.layers - 1, count)).astype(int).tolist()
    else:
        wanted = list(blocks)
    chosen = tuple(sorted(set(wanted)))
    if not chosen or not set(chosen) <= set(range(c.layers)):
        raise ValueError(f"blocks = {blocks}; give some of 0 to {c.layers - 1}.")
    n_heads, n_hidden = (
        _in_range("heads", heads, c.kv_heads),
        _in_range("hidden", hidden, c.hidden),
    )
    rated = [_ratings(transformer.blocks[i]) for i in chosen]
    return Kept(
        chosen,
        tuple(_best(h, n_heads) for h, _ in rated),
        tuple(_best(u, n_hidden) for _, u in rated),
    )


def smaller(transformer: Transformer, kept: Kept) -> Transformer:
    """Returns the transformer that has the kept parts alone, with their weights.

    Its result is that of `silence_parts`, with less work. With all heads kept, its configuration is
    a plain `TransformerConfig`.
    """
    c = transformer.config
    config: TransformerConfig = replace(c, layers=len(kept.blocks), hidden=len(kept.hidden[0]))
    if len(kept.heads[0]) < c.kv_heads:
        sizes = {name: getattr(config, name) for name in TransformerConfig.__dataclass_fields__}
        sizes |= {"kv_heads": len(kept.heads[0]), "heads": len(kept.heads[0]) * c.group}
        config = PrunedConfig(**sizes, head_size=c.head_dim)
    small = Transformer(config, seed=None)
    small.norm.set_weights(transformer.norm.get_weights())
    for block, i, heads, hidden in zip(
        small.blocks, kept.blocks, kept.heads, kept.hidden, strict=True
    ):
        whole = transformer.blocks[i]
        for name in ("attention_norm", "swiglu_norm", *(("modulation",) if c.modulated else ())):
            getattr(block, name).set_weights(getattr(whole, name).get_weights())
        queries, written = _columns(c, heads)
        kernel = backend.to_numpy(whole.qkv.kernel.value)
        block.qkv.kernel.assign(kernel[:, written])
        block.out.kernel.assign(backend.to_numpy(whole.out.kernel.value)[queries])
        units = np.asarray(hidden)
        kernel = backend.to_numpy(whole.gate_up.kernel.value)
        block.gate_up.kernel.assign(kernel[:, np.concatenate([units, c.hidden + units])])
        block.down.kernel.assign(backend.to_numpy(whole.down.kernel.value)[units])
    return small


def silence_parts(transformer: Transformer, kept: Kept) -> Transformer:
    """Returns a copy of the transformer in which all parts but the kept ones add zero."""
    c = transformer.config
    copy = Transformer(c, seed=None)
    copy.set_weights(transformer.get_weights())
    for i, block in enumerate(copy.blocks):
        queries, units = np.zeros(0, int), np.zeros(0, int)
        if i in kept.blocks:
            place = kept.blocks.index(i)
            queries, units = _columns(c, kept.heads[place])[0], np.asarray(kept.hidden[place])
        for layer, rows in ((block.out, queries), (block.down, units)):
            kernel = np.zeros(layer.kernel.shape, np.float32)
            kernel[rows] = backend.to_numpy(layer.kernel.value)[rows]
            layer.kernel.assign(kernel)
    return copy


def with_transformer(model: Any, transformer: Transformer) -> Any:
    """Returns a copy of a model that has another transformer inside.

    Args:
        model: an image GPT, a coarse-to-fine model or a flow, or a language model.
        transformer: of the same width, such as `smaller` returns.

    Example:
        >>> gpt = pipeline.load("image-gpt")
        >>> kept = choose_parts(gpt.transformer, blocks=4, hidden=256)
        >>> small = with_transformer(gpt, smaller(gpt.transformer, kept))
    """
    if isinstance(model, LLM):
        embedding = backend.to_numpy(model.embedding.value)
        return LLM(transformer, embedding, model.tokenizer, model.end, model.context)
    copy = type(model)(replace(model.config, transformer=transformer.config))
    for old, new in zip(model.layers, copy.layers, strict=True):
        source = transformer if isinstance(old, Transformer) else old
        new.set_weights(source.get_weights())
    return copy


def _in_range(name: str, number: int | None, most: int) -> int:
    number = most if number is None else number
    if not 1 <= number <= most:
        raise ValueError(f"{name} = {number}; give 1 to {most}.")
    return number


def _best(rated: np.ndarray, count: int) -> tuple[int, ...]:
    return tuple(sorted(np.argsort(-rated, kind="stable")[:count].tolist()))


def _columns(config: TransformerConfig, heads: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns where key heads' queries lie, and all that `qkv` writes for them."""
    size, k = np.arange(config.head_dim), np.asarray(heads)
    query_heads = (k[:, None] * config.group + np.arange(config.group)).ravel()
    queries = (query_heads[:, None] * config.head_dim + size).ravel()
    keys = ((config.heads + k)[:, None] * config.head_dim + size).ravel()
    return queries, np.concatenate([queries, keys, keys + config.kv_heads * config.head_dim])


def _ratings(block: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rates a block's key heads and its hidden units."""
    c = block.config
    qkv, out, gate_up, down = (
        np.square(backend.to_numpy(layer.kernel.value))
        for layer in (block.qkv, block.out, block.gate_up, block.down)
    )
    values = qkv[:, -c.kv_heads * c.head_dim :].sum(0).reshape(c.kv_heads, -1).sum(1)
    read = out.sum(1).reshape(c.kv_heads, -1).sum(1)
    gate, up = gate_up.sum(0).reshape(2, -1)
    return values * read, gate * up * down.sum(1)


def influence(llm: LLM, texts: Sequence[str]) -> np.ndarray:
    """Returns how much each block turns its tokens: 1 - cosine of what enters and what leaves.

    Args:
        llm: the language model.
        texts: of two tokens or more; a text's first token is left out, for it gathers attention,
            whatever it is.

    Returns:
        float64 `(blocks,)`, from 0: a block that changes nothing.

    Raises:
        ValueError: if no text has a second token.

    Reference: Men et al., 2024, arXiv:2403.03853, equation 1 (ShortGPT's block influence).
    """
    found = []
    for ids in map(llm.tokenize, texts):
        states = [s[1:].astype(np.float64) for s in _states(llm, ids)]  # blocks + 1, (n - 1, width)
        cosines = [
            (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            for a, b in pairwise(states)
        ]
        found.append(1 - np.array(cosines))  # (blocks, n - 1)
    if not sum(part.shape[1] for part in found):
        raise ValueError("No text has a second token. Give longer ones.")
    return np.concatenate(found, 1).mean(1)


def _states(llm: LLM, ids: Sequence[int]) -> list[np.ndarray]:
    """Returns the tokens of a text before the first block and after each one, `(n, width)`."""
    config, n = llm.transformer.config, len(ids)
    turn = rotation(np.arange(n), config)
    seen = np.tile(np.tri(n, dtype=bool)[None], (1, config.group, 1))[:, None]
    x = ops.take(llm.embedding, np.asarray([ids], np.int32), axis=0)
    states = [x]
    for block in llm.transformer.blocks:
        x, _ = block(x, n=n, start=0, turn=turn, seen=seen)
        states.append(x)
    return [state[0] for state in backend.to_numpy(states)]
