"""Trains the models of Scenes on a GPU, hundreds of steps in one compiled loop (JAX).

The loop of `genlib train` hands the device one batch after another, and a GPU is done with each
before the next one is ready. Here scenes, captions and noise lie or are made on the device, so it
never waits. Networks, losses, optimiser and files are those of `genlib.train`.

    KERAS_BACKEND=jax python scripts/gpu_train.py draw DATA            # once: scenes, captions
    KERAS_BACKEND=jax python scripts/gpu_train.py train DATA RUNS flow=40 flow-shortcut=90s

A number after a name is of epochs, or of seconds: then as many epochs are taken as fit into them,
at the rate of a trial before (a training beside it makes it longer). A run that was cut off goes on
when the same number of epochs is given again. RUNS gets a folder for each, of which `genlib export`
makes weights, and weights without measured quality beside it. A student learns from the weights in
RUNS, if there are any, else from the shipped ones.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import keras
import numpy as np
import typer

from genlib import pretrained, text, train, weights
from genlib.bench import machine
from genlib.data import captions, scenes
from genlib.models import flow
from genlib.train import distill, registry, tasks

TINY = bool(os.environ.get("TINY"))
SCENES = 512 if TINY else 262_144  # that are drawn; each is seen many times, in new words and noise
CHUNK = 128 if TINY else 1024  # scenes that a process draws at once
WORDINGS = 2 if TINY else 32  # captions of each combination of attributes, beside the full one
WALKS = 64 if TINY else 65_536  # of the teacher, for students
STEPS = 2 if TINY else 512  # of one compiled loop; those of an epoch are twice as many
LOOPS = 2
BATCH = 8 if TINY else 256
RATE = 1.5  # times the rate of the recipe, whose batches are an eighth of these
AVERAGE = 0.9995  # momentum of the weights' average, over about 2,000 steps

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def on_jax() -> None:
    """Ends the program where Keras runs on another library."""
    if keras.backend.backend() != "jax":
        raise SystemExit(f"Keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax.")


# ---------------------------------------------------------------- data


def _draw(start: int) -> tuple[np.ndarray, np.ndarray]:
    made = scenes.scenes(CHUNK, 0, start=start)
    return made.images, made.attributes


def _say(first: int) -> np.ndarray:
    """Embeds the full caption and others of 64 combinations: float16 `(64, 1 + WORDINGS, 128)`."""
    rng, said = np.random.default_rng((0, first, 11)), []
    rows = scenes.combinations("train")[first : first + 64]
    for row in rows:
        said += [captions.full(row), *(captions.caption(row, rng).text for _ in range(WORDINGS))]
    return text.encode(said).astype(np.float16).reshape(len(rows), 1 + WORDINGS, -1)


@app.command()
def draw(data: Path) -> None:
    """Draws scenes on all cores, and keeps their latents, and the embeddings of their captions."""
    data.mkdir(parents=True, exist_ok=True)
    tokenizer, begin = pretrained.load_tokenizer(), time.perf_counter()
    possible = scenes.combinations("train")
    number = {tuple(row): index for index, row in enumerate(possible.tolist())}
    latents = np.empty((SCENES, 16, 16, len(tokenizer.config.levels)), np.float16)
    which = np.empty(SCENES, np.int32)
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the processes, which inherit it
    with ProcessPoolExecutor(len(machine.usable_cores()), mp_context=get_context("spawn")) as pool:
        said = pool.map(_say, range(0, len(possible), 64))
        starts = range(0, SCENES, CHUNK)
        for start, (images, rows) in zip(starts, pool.map(_draw, starts), strict=True):
            latents[start : start + CHUNK] = tokenizer.latents(images)
            which[start : start + CHUNK] = [number[tuple(row)] for row in rows.tolist()]
        np.save(data / "text.npy", np.concatenate(list(said)))
    np.save(data / "latents.npy", latents)
    np.save(data / "which.npy", which)
    print(f"{SCENES} scenes drawn in {time.perf_counter() - begin:.0f} s", flush=True)


# ---------------------------------------------------------------- tasks


class OnDevice:
    """What makes a task's epochs compiled loops over data that lie on the device.

    Attributes:
        data: the folder that `draw` wrote.
    """

    data: ClassVar[Path]

    def images_per_epoch(self) -> int:
        """Returns how many images lie between two checkpoints."""
        return STEPS * LOOPS * BATCH

    def card(self) -> dict[str, Any]:
        """Returns also which device trains, and on how many scenes."""
        kind = jax.devices()[0].device_kind
        count = len(np.load(self.data / "which.npy", mmap_mode="r"))
        more = {"data": f"Scenes, {count} of them", "trained on": f"{kind}, JAX {jax.__version__}"}
        return {**super().card(), **more}

    def stored(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what each scene is on the device, besides its text."""
        raise NotImplementedError

    def made(self, key: Any, rows: dict[str, Any]) -> tuple[Any, Any]:
        """Returns inputs besides the text, and targets, of rows of what is stored."""
        raise NotImplementedError

    def load(self) -> dict[str, Any]:
        """Puts the data on the device."""
        latents = np.load(self.data / "latents.npy")
        parts = [self.stored(part.astype(np.float32)) for part in np.array_split(latents, 16)]
        rows = keras.tree.map_structure(lambda *p: np.concatenate(p), *parts)
        found = {"rows": rows, "which": np.load(self.data / "which.npy")}
        found["text"] = np.load(self.data / "text.npy")
        return jax.device_put(found)

    def draw(self, key: Any, data: dict[str, Any], full: Any) -> tuple[Any, Any]:
        """Draws a batch: scenes, a caption for each, and what the model's own `made` draws."""
        pick, whole, wording, hide, rest = jax.random.split(key, 5)
        chosen = jax.random.randint(pick, (BATCH,), 0, len(data["which"]))
        words = jax.random.randint(wording, (BATCH,), 1, data["text"].shape[1])
        words = jnp.where(jax.random.uniform(whole, (BATCH,)) < full, 0, words)
        said = data["text"][data["which"][chosen], words].astype(jnp.float32)
        said *= jax.random.uniform(hide, (BATCH, 1)) >= tasks.NO_TEXT
        rows = {name: array[chosen] for name, array in data["rows"].items()}
        x, y = self.made(rest, rows)
        return {"text": said, **x}, y

    def prepare(self, epoch: int) -> Any:
        """Prepares nothing: all is on the device."""

    def epoch(self, epoch: int, prepared: Any) -> Iterator[dict[str, Any]]:
        """Takes the steps of one epoch; what is drawn follows from seed and epoch."""
        self.begin()
        variables = list(self.variables().values())
        values = [v.value for v in variables]
        for part in range(LOOPS):
            key = jax.random.fold_in(jax.random.key(self.seed), epoch * LOOPS + part)
            steps = self.recipe.epochs * self.steps_per_epoch
            full = tasks.full_share(self.recipe, epoch)
            values, losses = self._loop(values, key, self._data, full, steps)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            losses = np.asarray(losses)
            yield from ({"loss": loss} for loss in losses)

    def begin(self) -> None:
        """Loads the data and compiles the loop, once."""
        if not hasattr(self, "_loop"):
            self._data, self._loop = self.load(), self._compile()

    def fit(self, seconds: float) -> None:
        """Takes as many epochs as fit into so many seconds; nothing is learnt from the trial."""
        self.begin()
        values = [v.value for v in self.variables().values()]
        for _ in range(2):  # the first one compiles
            start = time.perf_counter()
            np.asarray(self._loop(values, jax.random.key(0), self._data, 0.9, 1)[1])
        epochs = max(1, int(seconds / LOOPS / (time.perf_counter() - start)))
        self.recipe = replace(self.recipe, epochs=epochs)

    def _compile(self) -> Any:
        variables = list(self.variables().values())

        def loop(values: Any, key: Any, data: Any, full: Any, steps: Any) -> Any:
            schedule = self.optimizer._learning_rate
            before, schedule.steps = schedule.steps, steps  # known when the loop runs

            def one(values: Any, key: Any) -> Any:
                x, y = self.draw(key, data, full)
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)) as s:
                    loss = self.step(x, y)
                return [s.get_current_value(v) for v in variables], loss

            done = jax.lax.scan(one, values, jax.random.split(key, STEPS))
            schedule.steps = before
            return done

        return jax.jit(loop)


class FlowOnDevice(OnDevice, tasks.FlowTask):
    """The flow, whose noise and times are drawn on the device."""

    def stored(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Returns latents in units of their spread."""
        return {"latents": (latents / self.model.config.spread).astype(np.float16)}

    def made(self, key: Any, rows: dict[str, Any]) -> tuple[Any, Any]:
        """Returns points and times, and velocities, as `FlowTask.inputs` draws them."""
        latents, (noise, time) = rows["latents"].astype(jnp.float32), jax.random.split(key)
        noise = jax.random.normal(noise, latents.shape)
        time = jax.nn.sigmoid(jax.random.normal(time, (len(latents),)))
        return {"x": flow.interpolate(noise, latents, time), "time": time}, latents - noise


class TokensOnDevice(OnDevice):
    """Models of tokens, which draw nothing anew."""

    def stored(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the tokens of each scene."""
        return {"tokens": self.inputs(latents, np.random.default_rng(0))[1].astype(np.uint8)}

    def made(self, key: Any, rows: dict[str, Any]) -> tuple[Any, Any]:
        """Returns tokens, twice."""
        tokens = rows["tokens"].astype(jnp.int32)
        return {"tokens": tokens}, tokens


class ImageGPTOnDevice(TokensOnDevice, tasks.ImageGPTTask):
    """Image GPT."""


class CoarseToFineOnDevice(TokensOnDevice, tasks.CoarseToFineTask):
    """Coarse to fine."""


class ImageStudentOnDevice(TokensOnDevice, distill.ImageStudentTask):
    """The student of image GPT, whose teacher is asked in the same loop."""

    def draw(self, key: Any, data: dict[str, Any], full: Any) -> tuple[Any, Any]:
        """Draws a batch with the teacher's shares."""
        x, y = super().draw(key, data, full)
        return {**x, "shares": self._shares(x["text"], y)}, y


class ShortcutOnDevice(OnDevice, distill.ShortcutTask):
    """The student of the flow; its teacher walks before the first epoch."""

    def card(self) -> dict[str, Any]:
        """Returns also how many walks there are."""
        return {**super().card(), "data": f"Scenes, {WALKS} walks"}

    def load(self) -> dict[str, Any]:
        """Lets the teacher walk; half of the captions are full, as in `ShortcutTask.walks`."""
        rng, said = np.random.default_rng((self.seed, 13)), np.load(self.data / "text.npy")
        which = rng.integers(len(said), size=WALKS)
        words = np.where(np.arange(WALKS) % 2, 0, rng.integers(1, said.shape[1], WALKS))
        embedded = said[which, words].astype(np.float32)
        found = distill.walk(
            self.teacher,
            embedded,
            1_000_000,
            shift=self.model.config.shift,
            batch_size=min(WALKS, 4096),
            **self.options,
        )
        return jax.device_put({"text": embedded, "points": found.points})

    def draw(self, key: Any, data: dict[str, Any], full: Any) -> tuple[Any, Any]:
        """Draws points of walks, as `ShortcutTask.batch` does."""
        pick, width, start = jax.random.split(key, 3)
        chosen = jax.random.randint(pick, (BATCH,), 0, len(data["text"]))
        widths, chances = jnp.array(distill.WIDTHS), jnp.array(distill.CHANCES)
        wide = jax.random.choice(width, widths, (BATCH,), p=chances)
        begin = jax.random.randint(start, (BATCH,), 0, distill.STOPS // wide) * wide
        shift, points = self.model.config.shift, data["points"][chosen].astype(jnp.float32)
        time, after = (flow.shifted(i / distill.STOPS, shift) for i in (begin, begin + wide))
        rows = jnp.arange(BATCH)
        x, y = points[rows, begin], points[rows, begin + wide]
        inputs = {"x": x, "text": data["text"][chosen], "time": time, "width": after - time}
        return inputs, (y - x) / (after - time)[:, None, None, None]


class SmallShortcutOnDevice(ShortcutOnDevice, distill.SmallShortcutTask):
    """Such a student with half of the blocks."""


TASKS: dict[str, Any] = {
    "flow": FlowOnDevice,
    "image-gpt": ImageGPTOnDevice,
    "coarse-to-fine": CoarseToFineOnDevice,
    "flow-shortcut": ShortcutOnDevice,
    "flow-small": SmallShortcutOnDevice,
    "image-gpt-student": ImageStudentOnDevice,
}
TEACHERS = {"flow-shortcut": "flow", "flow-small": "flow", "image-gpt-student": "image-gpt"}


def make(name: str, data: Path, runs: Path | None, epochs: int) -> OnDevice:
    """Makes the task of a model; a student's teacher is the one in `runs`, or the shipped one."""
    kind = TASKS[name]
    kind.data = data
    r = kind.recipe
    recipe = replace(
        r,
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=RATE * r.learning_rate,
        warmup=2 if TINY else 1000,
        average=AVERAGE,
    )
    options = {}
    if name in TEACHERS:
        path = None if runs is None else runs / TEACHERS[name]
        found = path is not None and weights.paths(path)[0].is_file()
        m = pretrained.METHODS[TEACHERS[name]]
        options["teacher"] = weights.load_model(
            path if found else m.weights, (m.weights,), m.model, m.config
        )[0]
    return kind(recipe, **options)


@app.command(name="train")
def train_(
    data: Path, runs: Path, names: Annotated[list[str], typer.Argument(help="NAME=EPOCHS, or =90s")]
) -> None:
    """Trains one after another; each is kept at its end."""
    for entry in names:
        name, _, length = entry.partition("=")
        seconds = float(length[:-1]) if length.endswith("s") else None
        task = make(name, data, runs, 1 if seconds else int(length))
        if seconds:
            task.fit(seconds)
        folder = runs / f"run-{name}"
        print(f"{name}: {task.recipe}", flush=True)
        state = train.run(task, task.recipe.epochs, folder, progress=False)
        registry.export(folder, runs / name)
        shutil.copy(max((folder / "samples").iterdir()), runs / f"{name}.png")
        losses = [round(loss, 4) for loss in state.history["loss"]]
        (runs / f"{name}-losses.json").write_text(json.dumps(losses))
        rate = f"{state.images / state.seconds:,.0f} images/s"
        print(f"{name}: {state.images:,} images, {rate}, losses {losses}", flush=True)


if __name__ == "__main__":
    app()
