"""Rectified flow: noise moves along straight lines to the latents of an image.

The network looks at a point between noise and image and says which way the image lies, its
velocity. Sampling starts from noise and follows the velocity in small steps. All latents of an
image move at once, so the number of forwards is the number of steps, whatever the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import backend, ranges
from genlib.models import sampling
from genlib.models.sampling import check_text
from genlib.models.tokenizer import GRID, to_depth, to_space
from genlib.models.transformer import Transformer, TransformerConfig, embedding, linear

SIDE = GRID // 2  # a token holds 2×2 latents
GUIDANCE = 1.5  # of the shipped flow: more makes images alike before it makes them better
SOLVERS = {"euler": 1, "midpoint": 2}  # forwards per step
FREQUENCIES = np.exp(np.linspace(0, np.log(200), 32)).astype(np.float32)  # of times


@dataclass(frozen=True)
class FlowConfig:
    """The shape of a flow."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            6, 192, heads=6, kv_heads=6, hidden=384, modulated=True
        )
    )
    channels: int = 4  # of a latent
    spread: float = 0.5  # standard deviation of the latents, which the network sees divided by it
    text_width: int = 128
    shortcut: bool = False  # knows how wide a step it is asked for (Frans et al., arXiv:2410.12557)
    shift: float = 1.0  # of the times of its steps towards the noise; see `shifted`


def interpolate(noise: np.ndarray, latents: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Returns the points `(1 - t) noise + t latents`: noise at time 0, the image at time 1.

    Args:
        noise: float `(n, 16, 16, channels)`.
        latents: of the same shape.
        time: float `(n,)` in [0, 1].

    Reference: Liu et al., 2022, arXiv:2209.03003, equation 1.
    """
    t = time[:, None, None, None]
    return (1 - t) * noise + t * latents


def shifted(part: Any, shift: float) -> Any:
    """Returns the time at which a part of the steps is done.

    With shift 1, times are spread evenly. Above it, the steps near the noise are shorter, where an
    error grows on the rest of the way, and those near the image longer: with shift 3, four steps
    begin at times 0, 0.1, 0.25 and 0.5.

    Args:
        part: of the steps, in [0, 1]; a number, an array or a tensor.
        shift: at least 1.

    Reference: Esser et al., 2024, arXiv:2403.03206 (shifted timesteps; their time is the share of
    noise, `1 - t` here).
    """
    if shift == 1.0:
        return part
    noise = 1 - part
    return 1 - shift * noise / (1 + (shift - 1) * noise)


class Flow(keras.Model):
    """Text embeddings to latents.

    Args:
        config: shape.
        seed: of the initial weights.

    Reference: Liu et al., 2022, arXiv:2209.03003; the network is that of Peebles and Xie, 2023,
    arXiv:2212.09748, with a text in place of a class.
    """

    kind = "latents"

    def __init__(self, config: FlowConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="flow")
        self.config = c = config or FlowConfig()
        self.transformer = Transformer(c.transformer, seed)
        width = c.transformer.width
        self.read_text = linear(c.text_width, width, seed + 1)
        self.read_time = linear(2 * len(FREQUENCIES), width, seed + 2)
        self.mix = linear(width, width, seed + 3)
        self.read = linear(4 * c.channels, width, seed + 4)
        self.place = embedding(SIDE * SIDE, width, seed + 5)
        self.head = linear(width, 4 * c.channels, seed + 6, zero=True)
        if c.shortcut:  # zeros: at first the width of a step changes nothing
            self.read_width = linear(2 * len(FREQUENCIES), width, seed + 7, zero=True)
        self.built = True
        self._walk = lru_cache(backend.COMPILED)(self._compile_walk)

    def call(self, inputs: dict[str, Any]) -> Any:
        """Predicts velocities.

        Args:
            inputs: `"x"`, points `(b, 16, 16, channels)`; `"time"`, `(b,)` in [0, 1]; `"text"`,
                `(b, text_width)`, zeros for none; for a shortcut also `"width"`, `(b,)`, of the
                step. All float32.

        Returns:
            `(b, 16, 16, channels)`, in units of the latents' spread: the velocity at that time,
            or a shortcut's mean velocity over the step.
        """
        x, time, text = inputs["x"], inputs["time"], inputs["text"]
        known = self.read_time(_waves(time)) + self.read_text(text)
        if self.config.shortcut:
            known = known + self.read_width(_waves(inputs["width"]))
        condition = self.mix(ops.silu(known))
        blocks = to_depth(x, 2)
        tokens = self.read(ops.reshape(blocks, (-1, SIDE * SIDE, 4 * self.config.channels)))
        tokens = tokens + self.place(np.arange(SIDE * SIDE, dtype="int32"))[None]
        y = self.head(self.transformer(tokens, mask="full", condition=condition))
        return to_space(ops.reshape(y, (-1, SIDE, SIDE, 4 * self.config.channels)), 2)

    def sample(
        self,
        text: np.ndarray,
        seed: sampling.Seed = 0,
        *,
        steps: int = 16,
        guidance: float = GUIDANCE,
        interval: tuple[float, float] = (0.0, 1.0),
        solver: str = "euler",
        compiled: bool = True,
        xla: bool = False,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draws one image for each text.

        Args:
            text: embeddings, float32 `(n, text_width)`.
            seed: of the noise; image `i` depends on `(seed, i)` and its text alone.
            steps: of the solver, at least 1.
            guidance: above 1, follows the text more strictly than the data did (Ho and Salimans,
                2022, arXiv:2207.12598); doubles the work. A shortcut has learnt its guidance: 1.
            interval: guide only steps before which a part of all steps between these two is done;
                where times are not shifted, the part is the time (Kynkäänniemi et al., 2024,
                arXiv:2404.07724). A step outside costs half.
            solver: `"euler"`, one forward per step, or `"midpoint"`, two.
            compiled: run all steps that are guided alike in one compiled loop; else one compiled
                call per step.
            xla: compile with XLA.
            noise: to start from in place of the seed's, float `(n, 16, 16, channels)`, so that
                images of several seeds can be drawn at once.

        Returns:
            Latents, float32 `(n, 16, 16, channels)`.

        Raises:
            ValueError: if `text` or `noise` has another shape, or an option is out of range.
        """
        text = check_text(text, self.config.text_width)
        _check(steps, guidance, solver)
        ranges.check_interval(interval)
        if self.config.shortcut and guidance != 1:
            raise ValueError(
                f"guidance = {guidance}: this flow is a shortcut, which has learnt its guidance. "
                "Give 1."
            )
        first, last = guided_steps(steps, guidance, interval)
        shape = (GRID, GRID, self.config.channels)
        x = sampling.normals(len(text), shape, seed) if noise is None else np.float32(noise)
        if x.shape != (len(text), *shape) or not np.isfinite(x).all():
            raise ValueError(
                f"noise has shape {x.shape}; give one of {shape}, finite, for each text."
            )
        stride = steps if compiled else 1
        for begin, end, here in ((0, first, 1.0), (first, last, guidance), (last, steps, 1.0)):
            for step in range(begin, end, stride):
                walk = self._walk(here, solver, xla, self.config.shift)
                x = walk(x, text, _bounds(step, min(step + stride, end), steps))
        return backend.to_numpy(x) * self.config.spread

    def path(
        self,
        text: np.ndarray,
        seed: sampling.Seed = 0,
        *,
        stops: int = 4,
        steps: int = 16,
        guidance: float = GUIDANCE,
        solver: str = "euler",
        xla: bool = False,
        shift: float | None = None,
    ) -> np.ndarray:
        """Returns where the way from noise to latents comes by, as `sample` goes it.

        Args:
            text: embeddings, float32 `(n, text_width)`.
            seed: of the noise.
            stops: into so many parts of equally many steps the way is cut; a divisor of `steps`.
            steps: of the solver.
            guidance: see `sample`.
            solver: see `sample`.
            xla: compile with XLA.
            shift: of the times of its steps, at least 1; the flow's own unless given.

        Returns:
            float32 `(n, stops + 1, 16, 16, channels)`, in units of the latents' spread: the first
            are noise, the last latents.

        Raises:
            ValueError: if `text` has another shape, `stops` does not divide `steps`, `shift` is
                no finite number of at least 1, or there is no such solver.
        """
        text = check_text(text, self.config.text_width)
        _check(steps, guidance, solver)
        if stops < 1 or steps % stops:
            raise ValueError(f"stops = {stops} must divide steps = {steps}.")
        shift = self.config.shift if shift is None else shift
        if not 1 <= shift < np.inf:
            raise ValueError(f"shift = {shift}; give a finite number of at least 1.")
        x = sampling.normals(len(text), (GRID, GRID, self.config.channels), seed)
        walk, stride = self._walk(guidance, solver, xla, float(shift)), steps // stops
        found = [x]
        for begin in range(0, steps, stride):
            x = walk(x, text, _bounds(begin, begin + stride, steps))
            found.append(backend.to_numpy(x))
        return np.stack(found, 1)

    def advance(
        self,
        x: np.ndarray,
        text: np.ndarray,
        begin: int,
        end: int,
        steps: int,
        *,
        guidance: float = GUIDANCE,
        xla: bool = False,
    ) -> np.ndarray:
        """Takes some of the steps of `sample`, for whoever changes the points in between.

        Args:
            x: the points where step `begin` begins, float `(n, 16, 16, channels)`, in units of the
                latents' spread.
            text: embeddings, float32 `(n, text_width)`.
            begin: the first step to take, from 0.
            end: the step to stop before.
            steps: of the whole way.
            guidance: see `sample`.
            xla: compile with XLA.

        Returns:
            The points where step `end` begins, of the same shape and in the same units.

        Raises:
            ValueError: if a shape is another, or a step is not on the way.
        """
        text = check_text(text, self.config.text_width)
        _check(steps, guidance)
        if not 0 <= begin <= end <= steps:
            raise ValueError(f"begin = {begin}, end = {end}; give steps on a way of {steps}.")
        x = np.asarray(x, np.float32)
        shape = (len(text), GRID, GRID, self.config.channels)
        if x.shape != shape:
            raise ValueError(f"The points have shape {x.shape}; give {shape}, one for each text.")
        walk = self._walk(guidance, "euler", xla, self.config.shift)
        moved = walk(x, text, _bounds(begin, end, steps))
        return backend.to_numpy(moved)

    def _compile_walk(self, guidance: float, solver: str, xla: bool, shift: float) -> Any:
        """Compiles the walk from one step to another: one loop, whatever their number.

        Returns:
            A function of points, texts and `_bounds` to the points at the end of the walk.
        """

        def walk(x: Any, text: Any, bounds: Any) -> Any:
            begin, end, steps = ops.unstack(ops.convert_to_tensor(bounds), num=3)
            share = 1 / ops.cast(steps, "float32")

            def one(step: Any, x: Any) -> Any:
                time = shifted(ops.cast(step, "float32") * share, shift)
                after = shifted(ops.cast(step + 1, "float32") * share, shift)
                width = share if shift == 1.0 else after - time
                return step + 1, self.step(x, text, time, width, guidance, solver)

            start = (begin, ops.convert_to_tensor(x))
            return ops.while_loop(lambda step, x: step < end, one, start)[1]

        return backend.compile_step(walk, self.variables, xla=xla)

    def step(self, x: Any, text: Any, time: Any, width: Any, guidance: float, solver: str) -> Any:
        """Takes one step of a solver on tensors; `sample` compiles it, an export unrolls it.

        Args:
            x: where the images are, float `(n, 16, 16, channels)`.
            text: embeddings, float `(n, text_width)`.
            time: where the step begins, in [0, 1].
            width: of the step.
            guidance: see `sample`.
            solver: see `sample`.
        """
        x, text = ops.convert_to_tensor(x), ops.convert_to_tensor(text)
        time, width = ops.convert_to_tensor(time), ops.convert_to_tensor(width)
        v = ops.cast(self._velocity(x, text, time, width, guidance), x.dtype)
        if solver == "midpoint":  # the walk stays float32, whatever the network computes with
            v = self._velocity(x + width / 2 * v, text, time + width / 2, width, guidance)
        return x + width * ops.cast(v, x.dtype)

    def _velocity(self, x: Any, text: Any, time: Any, width: Any, guidance: float) -> Any:
        n = (ops.shape(x)[0],)
        where = {"time": ops.broadcast_to(time, n), "width": ops.broadcast_to(width, n)}
        if guidance == 1.0:
            return self({"x": x, "text": text, **where})
        both = self(
            {
                "x": ops.concatenate([x, x]),
                "text": ops.concatenate([text, ops.zeros_like(text)]),
                **{name: ops.concatenate([value, value]) for name, value in where.items()},
            }
        )
        return sampling.guided(both, guidance)


def _bounds(begin: int, end: int, steps: int) -> np.ndarray:
    """Tells a compiled walk to go from step `begin` to before `end`, of `steps` in all."""
    return np.array((begin, end, steps), np.int32)


def _check(steps: int, guidance: float, solver: str = "euler") -> None:
    ranges.check_all(steps=steps, guidance=guidance)
    if solver not in SOLVERS:
        raise ValueError(f"solver = {solver!r}; give one of {tuple(SOLVERS)}.")


def _waves(numbers: Any) -> Any:
    """Embeds numbers in [0, 1] as waves of many frequencies, `(b,)` → `(b, 64)`."""
    angles = numbers[:, None] * FREQUENCIES
    return ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=1)


def guided_steps(steps: int, guidance: float, interval: tuple[float, float]) -> tuple[int, int]:
    """Returns the first guided step and the one after the last; `interval` is a part of them."""
    if guidance == 1.0:
        return 0, steps
    inside = [i for i in range(steps) if interval[0] <= i / steps <= interval[1]]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def forwards(
    steps: int = 16,
    guidance: float = GUIDANCE,
    interval: tuple[float, float] = (0.0, 1.0),
    solver: str = "euler",
    **_: Any,
) -> int:
    """Returns how many forwards an image costs; the arguments are those of `Flow.sample`.

    Example:
        >>> forwards(steps=16, guidance=3.0), forwards(16, 3.0, (0.25, 0.75)), forwards(4, 1.0)
        (32, 25, 4)
    """
    first, last = guided_steps(steps, guidance, interval)
    twice = 0 if guidance == 1.0 else last - first
    return (steps + twice) * SOLVERS[solver]


def resume(
    flow: Flow,
    states: np.ndarray,
    text: np.ndarray,
    *,
    begin: int,
    steps: int = 16,
    guidance: float = GUIDANCE,
    xla: bool = False,
) -> np.ndarray:
    """Takes the last steps to the images of `text`, from states of other images.

    `Flow.path` gives the states. Early ones hold the layout only, which a new prompt can still
    change; late ones hold an image that it can hardly change any more.

    Args:
        flow: a model.
        states: where step `begin` begins, float `(n, 16, 16, channels)`, in units of the spread.
        text: embeddings of what is asked for now, float32 `(n, text_width)`.
        begin: the step to begin with, from 0 (`states` are noise) to `steps`.
        steps: of the whole way.
        guidance: see `Flow.sample`.
        xla: compile with XLA.

    Returns:
        Latents, float32 `(n, 16, 16, channels)`, as `Flow.sample` returns them.

    Raises:
        ValueError: if a shape is another, or `begin` out of range.

    Reference: Agarwal et al., 2024, arXiv:2312.04429, section 3.
    """
    text = check_text(text, flow.config.text_width)
    states = np.asarray(states, np.float32)
    if states.ndim != 4 or len(states) != len(text):
        raise ValueError(
            f"states have shape {states.shape}; give one state of a path for each of {len(text)} "
            "texts."
        )
    _check(steps, guidance)
    if not 0 <= begin <= steps:
        raise ValueError(f"begin = {begin}; give a step from 0 to {steps}.")
    walk = flow._walk(guidance, "euler", xla, flow.config.shift)
    ended = walk(states, text, _bounds(begin, steps, steps))
    return backend.to_numpy(ended) * flow.config.spread
