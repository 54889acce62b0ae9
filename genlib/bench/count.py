"""Count the work of a model: floating-point operations, and bytes that must move.

Two rules, so that a count can be done by hand:

- Only products count: of matrices, and convolutions. A multiply-add is two operations. Norms,
  activations and sums are left out; a compiler folds them into the products beside them.
- A product reads both of its factors and writes its result once, float32. So a weight is read
  again at every forward, and nothing is kept between two products.

The operations are those that the code executes, which may be more than the result needs: causal
attention multiplies with every slot of the cache, and a transposed convolution computes the border
that it crops. The bytes are what a machine without caches moves. A program may therefore beat
the time that the bytes predict, if its weights stay in a cache; it cannot beat the operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genlib.backend import keras  # which keeps TensorFlow's start-up log away
from genlib.models import coarse_to_fine as ctf
from genlib.models import flow as flows
from genlib.models import image_gpt as gpt
from genlib.models.coarse_to_fine import CoarseToFineConfig
from genlib.models.flow import FlowConfig
from genlib.models.image_gpt import ImageGPTConfig
from genlib.models.letters import LETTERS
from genlib.models.transformer import TransformerConfig

NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class Work:
    """What a computation has to do.

    Example:
        >>> 2 * Work(10, 4) + Work(1, 1)
        Work(flops=21, moved_bytes=9)
    """

    flops: int = 0  # floating-point operations
    moved_bytes: int = 0  # bytes read and written

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved_bytes + other.moved_bytes)

    def __mul__(self, times: int) -> Work:
        return Work(self.flops * times, self.moved_bytes * times)

    __rmul__ = __mul__

    @property
    def intensity(self) -> float:
        """Operations per byte; beside a machine's ridge it tells which limit is met first."""
        return self.flops / self.moved_bytes


NOTHING = Work()


def product(rows: int, inner: int, columns: int, times: int = 1) -> Work:
    """Counts the product of a `(rows, inner)` and an `(inner, columns)` matrix.

    2 · rows · inner · columns operations; 4 bytes for each number of the three matrices.

    Args:
        rows: of the left factor.
        inner: what both factors share.
        columns: of the right factor.
        times: so many products of the same shape.

    Example:
        >>> product(1, 100, 10)
        Work(flops=2000, moved_bytes=4440)
    """
    numbers = rows * inner + inner * columns + rows * columns
    return times * Work(2 * rows * inner * columns, NUMBER * numbers)


def network(model: Any, batch: int = 1) -> Work:
    """Counts one forward of a Keras model.

    With `pixels` for the places that a kernel visits, and `k` for height times width of it:

    | layer | operations |
    | --- | --- |
    | Dense | 2 · rows · inputs · units |
    | Conv2D | 2 · output pixels · k · channels in / groups · channels out |
    | Conv2DTranspose | 2 · input pixels · k · channels in · channels out |
    | Embedding | none; it reads and writes one row for each index |

    Models in models are followed. A layer that is made of layers is taken for a chain of them, in
    the order in which they were set. All other layers count as nothing.

    Args:
        model: a built Functional or Sequential model, or a layer made of such.
        batch: images at once.

    Raises:
        ValueError: if the model is not built, or `batch` is below 1.

    Example:
        >>> network(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), batch=5).flops
        60
    """
    if batch < 1 or not model.built or not hasattr(model, "input_shape"):
        raise ValueError(
            f"batch = {batch} and {model.name!r} (built: {model.built}): give at least 1 and a "
            "Functional or Sequential model; other models have functions of their own here."
        )
    return _follow(model, (batch, *model.input_shape[1:]))


def _follow(layer: Any, shape: Sequence[int]) -> Work:
    """Counts a layer, which gets an input of a known shape, batch first."""
    if isinstance(layer, keras.layers.Dense):
        return product(math.prod(shape[:-1]), shape[-1], layer.units)
    if isinstance(layer, keras.layers.Embedding):
        return Work(0, 2 * NUMBER * math.prod(shape) * layer.output_dim)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
        out = layer.compute_output_shape(shape)
        transposed = isinstance(layer, keras.layers.Conv2DTranspose)
        visited = math.prod(shape[:3] if transposed else out[:3])
        weights = math.prod(layer.kernel.shape)  # a group of channels reads its own part only
        numbers = math.prod(shape) + weights + math.prod(out)
        return Work(2 * visited * weights, NUMBER * numbers)
    total = NOTHING
    nodes: dict[int, Any] = getattr(layer, "_nodes_by_depth", {})
    if nodes:  # a Functional model knows the shape at each of its operations
        for node in (node for depth in nodes.values() for node in depth):
            if node.input_tensors:
                total += _follow(node.operation, (shape[0], *node.input_tensors[0].shape[1:]))
        return total
    parts: Any = getattr(layer, "layers", None) or getattr(layer, "_layers", ())
    for part in parts:
        total += _follow(part, shape)
        shape = part.compute_output_shape(shape)
    return total


def transformer(config: TransformerConfig, n: int, keys: int | None = None, batch: int = 1) -> Work:
    """Counts one forward of `genlib.models.transformer.Transformer`.

    With `w` for the width and `r = batch · n` rows, a block multiplies

    - the rows by its four weight matrices: `w × (heads + 2 kv_heads) · head_dim` (queries, keys,
      values), `w × w` (out), `w × 2 hidden` and `hidden × w` (SwiGLU);
    - the pairs of queries and keys by a quarter turn, `head_dim × head_dim` (rotary positions);
    - queries by keys, and shares by values: 2 · batch · heads · n · keys · head_dim
      multiply-adds. The scores are not counted as moved;
    - if modulated, the condition by `w × 6w`, once for each sequence.

    Args:
        config: the shape.
        n: tokens of each sequence that go in.
        keys: that each of them is compared with: the length of the cache. `n` if None.
        batch: sequences.

    Raises:
        ValueError: if a size is below 1.
    """
    keys = n if keys is None else keys
    if min(n, keys, batch) < 1:
        raise ValueError(f"n = {n}, keys = {keys}, batch = {batch}: give at least 1 of each.")
    c, rows = config, batch * n
    block = product(rows, c.width, (c.heads + 2 * c.kv_heads) * c.head_dim)
    block += product(rows, c.width, c.width)
    block += product(rows, c.width, 2 * c.hidden)
    block += product(rows, c.hidden, c.width)
    block += product(rows * (c.heads + c.kv_heads), c.head_dim, c.head_dim)
    queries, kept = 2 * rows * c.width, 2 * batch * keys * c.kv_heads * c.head_dim
    block += Work(4 * rows * keys * c.width, NUMBER * (queries + kept))
    if c.modulated:
        block += product(batch, c.width, 6 * c.width)
    return c.layers * block


def spelling(width: int, tokens: int, alphabet: int, copies: int = 1) -> Work:
    """Counts what a `Letters` does to read and to draw tokens, letter after letter.

    It adds eight embeddings to read a token. To draw one it multiplies by `w × w` once, and for
    each of eight letters by `w × w` and `w × alphabet`.

    Args:
        width: of the transformer.
        tokens: of all sequences together.
        alphabet: values of a letter.
        copies: 2 with guidance, where each token is considered with the text and without.
    """
    rows = tokens * copies
    drawn = product(rows, width, width, 1 + LETTERS) + product(rows, width, alphabet, LETTERS)
    return drawn + Work(0, 2 * NUMBER * LETTERS * rows * width)


def image_gpt(
    config: ImageGPTConfig | None = None,
    batch: int = 1,
    *,
    cached: bool = True,
    guidance: float = 1.0,
) -> Work:
    """Counts whole images of an image GPT: the work of `ImageGPT.sample`.

    Args:
        config: the shape; that of the shipped weights if None.
        batch: images at once.
        cached: one forward of the text and 63 of one token each, against a cache of all 67
            positions; else 64 forwards of all 67.
        guidance: other than 1 doubles the sequences.
    """
    c, copies = config or ImageGPTConfig(), 1 if guidance == 1.0 else 2
    width, length = c.transformer.width, c.prefix + gpt.LENGTH - 1
    text = product(copies * batch, c.text_width, c.prefix * width)
    spelt = gpt.LENGTH * spelling(width, batch, c.alphabet, copies)
    if not cached:
        whole = text + transformer(c.transformer, length, batch=copies * batch)
        return gpt.LENGTH * whole + spelt
    first = transformer(c.transformer, c.prefix, length, copies * batch)
    one = transformer(c.transformer, 1, length, copies * batch)
    return text + first + (gpt.LENGTH - 1) * one + spelt


def coarse_to_fine(
    config: CoarseToFineConfig | None = None,
    batch: int = 1,
    *,
    cached: bool = True,
    guidance: float = 1.0,
) -> Work:
    """Counts whole images of a coarse-to-fine model: the work of `CoarseToFine.sample`.

    Args:
        config: the shape; that of the shipped weights if None.
        batch: images at once.
        cached: each of the 7 groups goes in once, against a cache of all 89 positions; else
            everything before it goes in again.
        guidance: other than 1 doubles the sequences.
    """
    c, copies = config or CoarseToFineConfig(), 1 if guidance == 1.0 else 2
    width, length, sequences = c.transformer.width, c.prefix + ctf.LENGTH, copies * batch
    total = product(sequences, c.text_width, c.prefix * width)
    if cached:
        total += transformer(c.transformer, c.prefix, length, sequences)
    end = c.prefix
    for group in ctf.GROUPS:
        end += group
        n, keys = (group, length) if cached else (end, end)
        total += transformer(c.transformer, n, keys, sequences)
        total += spelling(width, group * batch, c.alphabet, copies)
    return total


def velocity(config: FlowConfig | None = None, batch: int = 1) -> Work:
    """Counts one forward of a flow's network on `batch` images."""
    c = config or FlowConfig()
    width, tokens, numbers = c.transformer.width, flows.SIDE**2, 4 * c.channels
    waves = 2 * len(flows.FREQUENCIES)
    condition = product(batch, c.text_width, width) + product(batch, width, width)
    condition += product(batch, waves, width, 2 if c.shortcut else 1)
    ends = product(batch * tokens, numbers, width) + product(batch * tokens, width, numbers)
    return condition + ends + transformer(c.transformer, tokens, batch=batch)


def flow(
    config: FlowConfig | None = None,
    batch: int = 1,
    *,
    steps: int = 16,
    guidance: float = flows.GUIDANCE,
    interval: tuple[float, float] = (0.0, 1.0),
    solver: str = "euler",
) -> Work:
    """Counts whole images of a flow: the work of `Flow.sample`, whose options these are.

    A guided call of the network is one forward of `2 · batch`, so its weights are read once.

    Args:
        config: the shape; that of the shipped weights if None.
        batch: images at once.
        steps: of the solver.
        guidance: other than 1 doubles a step's work.
        interval: the times between which steps are guided.
        solver: `"euler"` or `"midpoint"`.
    """
    calls = flows.forwards(steps, 1.0, solver=solver)
    guided = flows.forwards(steps, guidance, interval, solver) - calls
    return (calls - guided) * velocity(config, batch) + guided * velocity(config, 2 * batch)
