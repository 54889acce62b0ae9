"""Distillation: a student learns from what a teacher does, not from the data.

A flow's teacher walks from noise to an image in many guided steps, two forwards each. Its student
learns to make the same walk in four steps, two or one, of one forward each. What it has to learn is
where the walk leads, so its target is another network's output: there is no noise in it, and no
guidance is needed afterwards.

The student may also have fewer blocks. It then begins with some of its teacher's, which is how a
network that was cut is healed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from genlib import backend, text, weights
from genlib.data import captions, scenes
from genlib.models.flow import GUIDANCE, Flow, FlowConfig, shifted
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.sampling import guided
from genlib.models.tokenizer import Tokenizer
from genlib.pretrained import load, load_tokenizer
from genlib.train.tasks import EPOCH, Arrays, FitTask, ImageGPTTask, Recipe

STOPS = 4  # parts of the way; the student's shortest step takes one, its longest all four
SHIFT = 3.0  # of the student's times: an error of its first steps grows on the rest of the way
WALKS = EPOCH // 4  # new ones in an epoch, each used four times
PARTS = 8  # epochs of new walks; later epochs see these again
WIDTHS = (1, 2, 4)  # of a student's step, in parts of the way
CHANCES = (0.5, 0.25, 0.25)  # how often each of the widths is trained

Student = Flow | ImageGPT
_SHARED: dict[type, tuple[str, ...]] = {  # what `inherit` copies, beside blocks and norm
    Flow: ("read_text", "read_time", "mix", "read", "place", "head"),
    ImageGPT: ("read_text", "place", "letters"),
}


@dataclass(frozen=True)
class Walks:
    """Where a teacher came by on its way from noise to images.

    Attributes:
        text: embeddings, float32 `(n, text_width)`.
        points: float16 `(n, 5, 16, 16, channels)`, in units of the spread: at times that follow
            from the shift, 0, 0.1, 0.25, 0.5 and 1 for `SHIFT`.
    """

    text: np.ndarray
    points: np.ndarray


def walk(
    teacher: Flow,
    embedded: np.ndarray,
    seed: int,
    *,
    steps: int = 8,
    guidance: float = GUIDANCE,
    solver: str = "midpoint",
    shift: float = SHIFT,
    batch_size: int = 32,
    xla: bool = True,
) -> Walks:
    """Lets a teacher draw, and keeps where it came by.

    Args:
        teacher: a flow.
        embedded: texts, float32 `(n, text_width)`.
        seed: of the noise.
        steps: of the teacher, a multiple of 4.
        guidance: of the teacher.
        solver: of the teacher.
        shift: of the times of its steps, as `models.flow.shifted` takes it.
        batch_size: images at once.
        xla: compile with XLA (not on PyTorch).

    Returns:
        One walk for each text.

    Raises:
        ValueError: if `steps` is no multiple of 4.
    """
    if steps < STOPS or steps % STOPS:
        raise ValueError(f"steps = {steps}; give a multiple of {STOPS}.")
    parts = []
    for first in range(0, len(embedded), batch_size):
        part = embedded[first : first + batch_size]
        options: dict[str, Any] = {"steps": steps, "guidance": guidance, "solver": solver}
        points = teacher.path(part, (seed, first), stops=STOPS, xla=xla, shift=shift, **options)
        parts.append(points.astype(np.float16))
    return Walks(np.asarray(embedded, np.float32), np.concatenate(parts))


def inherit(student: Student, teacher: Student) -> None:
    """Gives a student its teacher's weights; a shallower one gets blocks spread over the depth.

    Args:
        student: of the teacher's class and settings, but for the number of blocks and a flow's
            shortcut.
        teacher: a flow or an image GPT.

    Raises:
        ValueError: if they differ in more.
    """
    few, many = student.config.transformer.layers, teacher.config.transformer.layers
    alike = replace(student.config, transformer=replace(student.config.transformer, layers=many))
    if isinstance(alike, FlowConfig) and isinstance(teacher.config, FlowConfig):
        alike = replace(alike, shortcut=teacher.config.shortcut, shift=teacher.config.shift)
    if alike != teacher.config or few > many:
        raise ValueError(
            f"{student.config} cannot inherit from {teacher.config}: only the number of blocks, "
            "at most the teacher's, and a flow's shortcut and shift may differ."
        )
    for name in _SHARED[type(teacher)]:
        getattr(student, name).set_weights(getattr(teacher, name).get_weights())
    student.transformer.norm.set_weights(teacher.transformer.norm.get_weights())
    kept = np.rint(np.linspace(0, many - 1, few)).astype(int)
    for block, i in zip(student.transformer.blocks, kept, strict=True):
        block.set_weights(teacher.transformer.blocks[i].get_weights())


class ShortcutTask(FitTask):
    """Trains a student to walk a flow's way in four steps, two or one.

    Args:
        recipe: settings.
        config: of the student; a shallower transformer makes a cheaper one.
        seed: of captions, noise and order.
        teacher: a flow; the shipped one unless given.
        tokenizer: that the teacher was trained for; the shipped one unless given.
        steps: of the teacher.
        guidance: of the teacher; the student learns its result.
        solver: of the teacher. At 16 forwards, eight midpoint steps draw better than 16 of Euler.

    References: Salimans and Ho, 2022, arXiv:2202.00512 (a student takes its teacher's steps two at
    a time); Frans et al., 2024, arXiv:2410.12557 (one network for steps of all widths); Meng et
    al., 2023, arXiv:2210.03142 (guidance is distilled too).
    """

    name, model_class, config_class = "flow-shortcut", Flow, FlowConfig
    recipe = Recipe(epochs=32, batch_size=32, learning_rate=5e-4)

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: FlowConfig | None = None,
        seed: int | None = None,
        teacher: Flow | None = None,
        tokenizer: Tokenizer | None = None,
        steps: int = 8,
        guidance: float = GUIDANCE,
        solver: str = "midpoint",
    ) -> None:
        self.teacher, self.tokenizer = teacher or load("flow"), tokenizer or load_tokenizer()
        self.options: dict[str, Any] = {"steps": steps, "guidance": guidance, "solver": solver}
        self._walks: dict[int, Walks] = {}  # at most PARTS of them
        super().__init__(recipe, config or self.student_config(), seed)
        inherit(self.model, self.teacher)

    def student_config(self) -> FlowConfig:
        """Returns the shape of the student: its teacher's."""
        return replace(self.teacher.config, shortcut=True, shift=SHIFT)

    def card(self) -> dict[str, Any]:
        """Returns also for which tokenizer, and how the teacher walked."""
        more = {"tokenizer": self.tokenizer.fingerprint(), "teacher": self.options}
        more["teacher fingerprint"] = weights.fingerprint(self.teacher)
        return {**super().card(), **more}

    def walks(self, part: int) -> Walks:
        """Returns the walks of one part of the training, 0 to `PARTS - 1`, which are made once."""
        if part not in self._walks:
            rng = np.random.default_rng((self.seed, part, 7))  # 7: apart from an epoch's step
            possible = scenes.combinations("train")
            rows = possible[rng.integers(len(possible), size=WALKS)]
            # Half of them as the pipeline describes images, half in all kinds of words.
            said = [
                captions.full(row) if i % 2 else captions.caption(row, rng).text
                for i, row in enumerate(rows)
            ]
            seed = 1_000_000 + part * WALKS  # far from the small seeds that samples have
            shift = self.model.config.shift
            self._walks[part] = walk(
                self.teacher, text.encode(said), seed, shift=shift, **self.options
            )
        return self._walks[part]

    def images_per_epoch(self) -> int:
        """Returns how many points of walks are used in an epoch: four of each walk."""
        return EPOCH

    def prepare(self, epoch: int) -> Walks:
        """Returns walks of the teacher."""
        return self.walks(epoch % PARTS)

    def batch(self, prepared: Walks, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns points of walks, widths of steps from there, and their mean velocities."""
        chosen, rows = chosen % len(prepared.text), np.arange(len(chosen))
        wide = rng.choice(WIDTHS, p=CHANCES, size=len(chosen))
        begin = rng.integers(STOPS // wide) * wide
        points = prepared.points[chosen].astype(np.float32)
        shift = self.model.config.shift
        time, after = (shifted(np.float32(i / STOPS), shift) for i in (begin, begin + wide))
        x, y = points[rows, begin], points[rows, begin + wide]
        inputs = {
            "x": x,
            "text": prepared.text[chosen],
            "time": time,
            "width": after - time,
        }
        return inputs, (y - x) / (after - time)[:, None, None, None]

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the mean squared error of the mean velocity."""
        return ops.mean((made - targets) ** 2)

    def sample(self) -> np.ndarray:
        """Returns 64 images of eight descriptions: the teacher's, then four steps, two, one."""
        rows = scenes.scenes(16, seed=1, split="validation").attributes
        said = text.encode([captions.full(row) for row in rows])
        drawn = [self.teacher.sample(said, self.seed, **self.options)]
        with self.trained() as model:
            drawn += [model.sample(said, self.seed, steps=n, guidance=1.0) for n in (4, 2, 1)]
        return self.tokenizer.decode(np.concatenate(drawn))


class SmallShortcutTask(ShortcutTask):
    """Trains a shortcut of half the teacher's blocks; it begins as blocks from all its depth."""

    name = "flow-small"

    def student_config(self) -> FlowConfig:
        """Returns the shape of the student: its teacher's, with half of the blocks."""
        shape = self.teacher.config.transformer
        half = replace(shape, layers=shape.layers // 2)
        return replace(super().student_config(), transformer=half)


class ImageStudentTask(ImageGPTTask):
    """Trains a shallower image GPT to be as unsure as its guided teacher.

    Where data say which letter came next, a teacher says how likely each letter is: more to learn
    from, per image. The shares are those of the guided teacher, who asks its network twice; its
    student learns the answer and asks once.

    Args:
        recipe: settings.
        config: of the student; only the number of blocks may differ from the teacher's.
        seed: of captions and order.
        teacher: an image GPT; the shipped one unless given.
        tokenizer: that the teacher was trained for; the shipped one unless given.
        guidance: of the teacher.

    Reference: Hinton et al., 2015, arXiv:1503.02531; Meng et al., 2023, arXiv:2210.03142.
    """

    name = "image-gpt-student"
    recipe = Recipe(epochs=12, batch_size=32, learning_rate=1e-3, full=0.9)

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: ImageGPTConfig | None = None,
        seed: int | None = None,
        teacher: ImageGPT | None = None,
        tokenizer: Tokenizer | None = None,
        guidance: float = 2.0,
    ) -> None:
        self.teacher, self.guidance = teacher or load("image-gpt"), guidance
        shape = replace(self.teacher.config.transformer, layers=2)
        config = config or replace(self.teacher.config, transformer=shape)
        super().__init__(recipe, config, seed, tokenizer)
        inherit(self.model, self.teacher)
        self._ask = backend.compile_step(self._shares, self.teacher.variables)

    def _shares(self, text: Any, tokens: Any) -> Any:
        if self.guidance != 1.0:
            text = ops.concatenate([text, ops.zeros_like(text)])
            tokens = ops.concatenate([tokens, tokens])
        logits = self.teacher.letters.logits(self.teacher.states(text, tokens), tokens)
        return ops.softmax(guided(logits, self.guidance))

    def card(self) -> dict[str, Any]:
        """Returns also how the teacher was asked."""
        more = {"teacher": {"guidance": self.guidance}}
        return {**super().card(), **more, "teacher fingerprint": weights.fingerprint(self.teacher)}

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns texts, tokens and the teacher's shares."""
        x, y = super().batch(prepared, chosen, rng)
        x["shares"] = self._ask(ops.convert_to_tensor(x["text"]), ops.convert_to_tensor(y))
        return x, y
