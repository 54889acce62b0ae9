"""What a flow draws without having been trained for it: rings, filled holes, edited images.

All three change the points between two steps of the way from noise to an image, and leave the
network as it is. Points are in units of the latents' spread, as in `Flow.advance`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genlib import ranges
from genlib.models import sampling
from genlib.models.flow import GUIDANCE, Flow, shifted
from genlib.models.sampling import Seed
from genlib.models.tokenizer import GRID, Tokenizer

SHIFTS = 2**30  # a turn of its own for the shifts of windows, apart from the noise of images
KEPT, CONTEXT = 4, 6  # columns of latents that a window of the decoder keeps, and those beside them
PIXELS = 4  # in a row of one latent


def ring(
    flow: Flow,
    text: np.ndarray,
    seed: Seed = 0,
    *,
    steps: int = 16,
    guidance: float = GUIDANCE,
    reach: int = 3,
) -> np.ndarray:
    """Draws latents that close to a ring: the last column is a neighbour of the first.

    The network sees windows of 16 columns. Before each step the windows are shifted together by a
    random number of columns, so no border stays where it is, and what a step draws across a border
    is seen as a whole by the next. One window gives an image that tiles from left to right.

    Args:
        flow: a model.
        text: embeddings, a text for each window of each ring, float `(n, windows, text_width)`.
        seed: of noise and shifts.
        steps: of the solver. A step costs `windows` forwards, as separate images would.
        guidance: see `Flow.sample`.
        reach: windows move by at most so many columns to each side, 0 to 8. At 0 they stay, and
            are separate images. A few columns mend the borders; many let an image forget which of
            its places was left, and objects fade.

    Returns:
        Latents, float32 `(n, 16, 16 · windows, channels)`; `decode_ring` makes images of them.

    Raises:
        ValueError: if `text` has another shape, or an option is out of range.

    Reference: Frolov et al., 2024, arXiv:2407.15507, section 3.
    """
    text = np.asarray(text, np.float32)
    if text.ndim != 3 or text.shape[1] == 0:
        raise ValueError(
            f"text has shape {text.shape}; give (n, windows, {flow.config.text_width}): a text for "
            "each window of each ring."
        )
    ranges.check_all(steps=steps, guidance=guidance)
    if not 0 <= reach <= GRID // 2:
        raise ValueError(f"reach = {reach}; give a number of columns from 0 to {GRID // 2}.")
    n, windows, _ = text.shape
    said = text.reshape(n * windows, -1)
    stem = seed if isinstance(seed, tuple) else (seed,)
    shifts = sampling.stream((*stem, SHIFTS), 0).integers(-reach, reach + 1, steps)
    x = sampling.normals(n, (GRID, GRID * windows, flow.config.channels), seed)
    for step, shift in enumerate(shifts):
        x = np.roll(x, -shift, axis=2)
        apart = x.reshape(n, GRID, windows, GRID, -1).swapaxes(1, 2)  # (n, windows, 16, 16, …)
        apart = apart.reshape(n * windows, GRID, GRID, -1)
        apart = flow.advance(apart, said, step, step + 1, steps, guidance=guidance)
        x = apart.reshape(n, windows, GRID, GRID, -1).swapaxes(1, 2).reshape(x.shape)
        x = np.roll(x, shift, axis=2)
    return x * flow.config.spread


def decode_ring(tokenizer: Tokenizer, latents: np.ndarray) -> np.ndarray:
    """Returns images of latents that close to a ring.

    The decoder takes 16 columns at a time. Of each window only the middle columns are kept, which
    saw their neighbours on both sides, also around the ring.

    Args:
        tokenizer: its decoder.
        latents: float `(n, 16, columns, channels)`, the columns a multiple of 4.

    Returns:
        uint8 `(n, 64, 4 · columns, 3)`.

    Raises:
        ValueError: if the shape is another.
    """
    latents = np.asarray(latents)
    if latents.ndim != 4 or latents.shape[1] != GRID or latents.shape[2] % KEPT:
        raise ValueError(
            f"Latents of a ring have shape (n, {GRID}, a multiple of {KEPT}, channels), got "
            f"{latents.shape}."
        )
    n, _, columns, channels = latents.shape
    starts = np.arange(0, columns, KEPT)
    seen = (starts[:, None] - CONTEXT + np.arange(GRID)) % columns  # (windows, 16)
    windows = latents[:, :, seen].swapaxes(1, 2).reshape(-1, GRID, GRID, channels)
    images = tokenizer.decode(windows)[:, :, PIXELS * CONTEXT : PIXELS * (CONTEXT + KEPT)]
    apart = images.reshape(n, len(starts), *images.shape[1:])
    return apart.swapaxes(1, 2).reshape(n, images.shape[1], PIXELS * columns, images.shape[3])


def inpaint(
    flow: Flow,
    text: np.ndarray,
    latents: np.ndarray,
    mask: np.ndarray,
    seed: Seed = 0,
    *,
    steps: int = 16,
    guidance: float = GUIDANCE,
    repeats: int = 3,
) -> np.ndarray:
    """Draws a part of an image anew, and leaves the rest as it is.

    Before each step, what is known takes its place at the noise of that time. The new part was
    drawn without a look at it, so each step is taken several times, each time from a point that
    is led back to the noise before the step: the two parts come to fit.

    Args:
        flow: a model.
        text: embeddings of what the whole image shows, float32 `(n, text_width)`.
        latents: of the image, float `(n, 16, 16, channels)`, as `Flow.sample` returns them.
        mask: true where it is to be drawn anew, bool `(16, 16)` or `(n, 16, 16)`.
        seed: of the noise.
        steps: of the solver.
        guidance: see `Flow.sample`.
        repeats: how often each step is taken, at least 1, which only puts the known part back.

    Returns:
        Latents, float32 `(n, 16, 16, channels)`; those outside of the mask are the given ones.

    Raises:
        ValueError: if a shape is another, or an option out of range.

    Reference: Lugmayr et al., 2022, arXiv:2201.09865, algorithm 1.
    """
    target = _points(flow, text, latents)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape[-2:] != (GRID, GRID) or mask.ndim not in (2, 3):
        raise ValueError(
            f"mask is {mask.dtype} {mask.shape}; give bool ({GRID}, {GRID}), true where to draw."
        )
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}; give at least 1.")
    ranges.check_all(steps=steps, guidance=guidance)
    mask, draw = mask[..., None], _noise(target.shape, seed)
    x = draw()
    for step in range(steps):
        time, after = (shifted(i / steps, flow.config.shift) for i in (step, step + 1))
        for turn in range(repeats):
            known = (1 - time) * draw() + time * target if time else x
            x = np.where(mask, x, known)
            x = flow.advance(x, text, step, step + 1, steps, guidance=guidance)
            if turn + 1 < repeats:  # back to the noise before the step
                kept = time / after
                spread = np.sqrt((1 - time) ** 2 - (kept * (1 - after)) ** 2)
                x = np.float32(kept) * x + np.float32(spread) * draw()
    return np.where(mask, x, target) * flow.config.spread


def edit(
    flow: Flow,
    latents: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    seed: Seed = 0,
    *,
    begin: int = 0,
    steps: int = 16,
    guidance: float = GUIDANCE,
    old_guidance: float = 1.0,
) -> np.ndarray:
    """Changes in an image what differs between two texts.

    At each time the network says where the image would go under the old text and where the edited
    one would go under the new; the image moves by the difference. Nothing is inverted, and where
    the texts agree, the difference is small.

    Args:
        flow: a model.
        latents: of the image, float `(n, 16, 16, channels)`, as `Flow.sample` returns them.
        old: embeddings of what it shows, float32 `(n, text_width)`.
        new: embeddings of what it is to show, of the same shape.
        seed: of the noise, fresh at each step.
        begin: the step to begin with; the later, the less may change.
        steps: of the whole way.
        guidance: towards the new text, see `Flow.sample`.
        old_guidance: away from the old one.

    Returns:
        Latents, float32 `(n, 16, 16, channels)`.

    Raises:
        ValueError: if a shape is another, or an option out of range.

    Reference: Kulikov et al., 2024, arXiv:2412.08629, algorithm 1 with one noise a step.
    """
    target = _points(flow, old, latents)
    ranges.check_all(steps=steps, guidance=guidance)
    if not 0 <= begin <= steps:
        raise ValueError(f"begin = {begin}; give a step from 0 to {steps}.")
    x, draw = target.copy(), _noise(target.shape, seed)
    for step in range(begin, steps):
        time = np.float32(shifted(step / steps, flow.config.shift))
        there = (1 - time) * draw() + time * target
        here = x + there - target
        ahead = flow.advance(here, new, step, step + 1, steps, guidance=guidance)
        behind = flow.advance(there, old, step, step + 1, steps, guidance=old_guidance)
        x = x + (ahead - here) - (behind - there)
    return x * flow.config.spread


def _points(flow: Flow, text: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Returns latents in units of the spread, if there is one image for each text."""
    latents = np.asarray(latents, np.float32)
    shape = (len(text), GRID, GRID, flow.config.channels)
    if latents.shape != shape:
        raise ValueError(f"latents have shape {latents.shape}; give {shape}, one for each text.")
    return latents / np.float32(flow.config.spread)


def _noise(shape: tuple[int, ...], seed: Seed) -> Callable[[], np.ndarray]:
    """Returns a function that draws fresh noise, each image from a stream of its own."""
    streams = [sampling.stream(seed, i) for i in range(shape[0])]
    return lambda: np.stack([s.standard_normal(shape[1:], np.float32) for s in streams])
