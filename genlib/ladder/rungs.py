"""The rungs of the ladder: every way to draw images that `genlib bench` times.

A rung is one way to draw the images of a panel, `"scenes"` or `"fashion"`.
`python -m genlib.ladder.rungs NAME` climbs a single one in a process of its own, and prints what
its first image took.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from genlib import backend, bench, text
from genlib.bench import count
from genlib.bench.count import Work
from genlib.data import captions, scenes
from genlib.data.images import to_uint8
from genlib.models import flow as flows
from genlib.models import gan, sampling
from genlib.models.flow import Flow
from genlib.models.image_gpt import LENGTH, ImageGPT
from genlib.models.tokenizer import GRID
from genlib.pretrained import METHODS, load, load_generator, load_tokenizer, load_vae
from genlib.speed import export
from genlib.speed.decode import Speculator

BATCHES = (1, 16)
SEED = 9  # of the images and prompts that measure; no model was trained on them
TAGS = ("same samples", "same distribution", "within margin")
STEPS = 50  # of the flow's slow start

Draw = Callable[[range, int], np.ndarray]  # rows of the panel's prompts, seed → uint8 images


@dataclass(frozen=True)
class Built:
    """A rung that is ready to draw.

    Attributes:
        draw: rows of the prompts and a seed → images, uint8.
        parameters: numbers that were trained, of all networks in use.
        bytes: that they take where they run.
        forwards: of the generator for one image.
        work: batch → operations and bytes of drawing it; None where nobody counted.
    """

    draw: Draw
    parameters: int
    bytes: int
    forwards: float
    work: Callable[[int], Work] | None = None


@dataclass(frozen=True)
class Rung:
    """One way to draw images.

    Attributes:
        name: unique.
        panel: `"scenes"` or `"fashion"`: what the images show.
        family: generator, for the legend.
        tag: how its images relate to those of `like`.
        like: the rung whose images it draws too, or whose quality it must match.
        build: makes it ready; takes seconds.
        batches: in which it is timed; what is slow and no start of a comparison, alone.
    """

    name: str
    panel: str
    family: str
    tag: str
    like: str
    build: Callable[[], Built] = field(repr=False)
    batches: tuple[int, ...] = BATCHES


@functools.cache
def prompts(n: int = 2048) -> np.ndarray:
    """Returns the embeddings of the prompts that measure, float32 `(n, 128)`."""
    drawn = scenes.scenes(n, SEED, "validation")
    return text.encode([captions.full(row) for row in drawn.attributes])


def _options(method: str) -> dict[str, Any]:
    """Returns a method's options but for the compiler, which each rung chooses."""
    return {name: value for name, value in METHODS[method].options.items() if name != "xla"}


def _size(*models: keras.Model) -> tuple[int, int]:
    parameters = sum(int(np.prod(v.shape)) for model in models for v in model.weights)
    return parameters, 4 * parameters


def _scene(
    model: keras.Model,
    sample: Callable[[np.ndarray, int], np.ndarray],
    forwards: float,
    work: Callable[[int], Work] | None,
) -> Built:
    """A generator of codes or latents, and the decoder behind it."""
    tokenizer = load_tokenizer()

    def draw(rows: range, seed: int) -> np.ndarray:
        return tokenizer.decode(sample(prompts()[rows.start : rows.stop], seed))

    def whole(batch: int) -> Work:
        assert work is not None
        return work(batch) + count.network(tokenizer.decoder, batch)

    return Built(draw, *_size(model, tokenizer.decoder), forwards, whole if work else None)


def _image_gpt(method: str = "image-gpt", **how: Any) -> Built:
    model: ImageGPT = load(method)
    options = _options(method)
    guidance = options["guidance"]

    def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
        return model.sample(embedded, seed, **options, **how)

    def work(batch: int) -> Work:
        return count.image_gpt(
            model.config, batch, cached=how.get("cached", True), guidance=guidance
        )

    return _scene(model, sample, LENGTH * (1 if guidance == 1 else 2), work)


def _speculative(ahead: int = 2) -> Built:
    target, draft = load("image-gpt"), load("image-gpt-student")
    how = _options("image-gpt")
    speculator = Speculator(target, draft, ahead, xla=_xla(), **how)
    # How many forwards it takes; another one counts them, so that this one's first call is one.
    found = Speculator(target, draft, ahead, xla=False, **how).sample(prompts()[:8])

    def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
        return speculator.sample(embedded, seed).codes

    forwards = 2 * (1 + float(found.rounds.mean()))
    built = _scene(target, sample, forwards, None)
    parameters, size = _size(draft)
    return replace(built, parameters=built.parameters + parameters, bytes=built.bytes + size)


def _coarse_to_fine(**how: Any) -> Built:
    model, options = load("coarse-to-fine"), _options("coarse-to-fine")

    def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
        return model.sample(embedded, seed, **options, **how)

    def work(batch: int) -> Work:
        return count.coarse_to_fine(model.config, batch, guidance=options["guidance"])

    return _scene(model, sample, 14, work)


def predicted(model: Flow, embedded: np.ndarray, seed: int, steps: int, guidance: float) -> Any:
    """Draws as a reader of the Keras manual would: one `model.predict` for each guided step."""
    x = sampling.normals(len(embedded), (GRID, GRID, model.config.channels), seed)
    both = np.concatenate([embedded, np.zeros_like(embedded)])
    for step in range(steps):
        inputs = {
            "x": np.concatenate([x, x]),
            "time": np.full(len(both), step / steps, np.float32),
            "text": both,
        }
        with_text, without = np.split(model.predict(inputs, verbose=0), 2)
        x = x + (without + guidance * (with_text - without)) / np.float32(steps)
    return x * model.config.spread


def _predicted() -> Built:
    model: Flow = load("flow")
    guidance = METHODS["flow"].options["guidance"]

    def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
        return predicted(model, embedded, seed, STEPS, guidance)

    options: dict[str, Any] = {"steps": STEPS, "guidance": guidance}
    return _scene(model, sample, 2 * STEPS, lambda n: count.flow(model.config, n, **options))


def _flow(method: str = "flow", *, how: Mapping[str, Any] | None = None, **options: Any) -> Built:
    model: Flow = load(method)

    def sample(embedded: np.ndarray, seed: int) -> np.ndarray:
        return model.sample(embedded, seed, **options, **(how or {}))

    def work(batch: int) -> Work:
        return count.flow(model.config, batch, **options)

    return _scene(model, sample, flows.forwards(**options), work)


def _exported_flow(method: str, steps: int, engine: str) -> Built:
    """A few-step flow and its decoder as one file, in another engine."""
    model: Flow = load(method)
    tokenizer = load_tokenizer()
    whole = export.flow_function(model, tokenizer.decoder, steps=steps)
    shape = (GRID, GRID, model.config.channels)
    examples = {"noise": np.zeros((1, *shape), np.float32), "text": prompts()[:1]}
    run, size = _file(whole, engine, examples)

    def draw(rows: range, seed: int) -> np.ndarray:
        return run(sampling.normals(len(rows), shape, seed), prompts()[rows.start : rows.stop])

    def work(batch: int) -> Work:
        return count.flow(model.config, batch, steps=steps, guidance=1.0) + count.network(
            tokenizer.decoder, batch
        )

    return Built(draw, _size(model, tokenizer.decoder)[0], size, steps, work)


def _file(
    function: Any,
    engine: str,
    examples: Mapping[str, np.ndarray],
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> tuple[Any, int]:
    """Writes a file, opens it, and returns a function of arrays and the size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        if engine.startswith("LiteRT"):
            size = export.to_litert(function, path, int8="int8" in engine, fixed=False, **examples)
            return export.litert_session(path, _threads()), size
        size = export.to_onnx(function, path, **examples)
        if "int8" in engine:
            size = export.int8(path, path, calibration)
        return export.onnx_session(path, _threads()), size


def _generator(name: str, call: Callable[[keras.Model], Any]) -> Built:
    """A GAN's generator of Fashion-MNIST, called in some way."""
    generator, _ = load_generator(name)
    run = call(generator)

    def draw(rows: range, seed: int) -> np.ndarray:
        latents = gan.GAN.latents(rows.stop, seed)[rows.start :]
        return to_uint8(np.asarray(backend.to_numpy(run(latents))))

    return Built(draw, *_size(generator), 1, lambda n: count.network(generator, n))


def _one_by_one(generator: keras.Model) -> Any:
    return lambda z: np.concatenate(
        [generator.predict(z[i : i + 1], verbose=0) for i in range(len(z))]
    )


def _compiled(xla: bool) -> Callable[[keras.Model], Any]:
    return lambda generator: backend.compile_step(generator, generator.variables, xla=xla)


def _exported_generator(name: str, engine: str) -> Built:
    generator, _ = load_generator(name)
    plain = export.streamline(generator) if "int8" in engine else generator
    calibration = [{"latents": gan.GAN.latents(64, (SEED, i))} for i in range(8)]
    run, size = _file(plain, engine, {"latents": gan.GAN.latents(1, 0)}, calibration)
    return replace(_generator(name, lambda _: run), bytes=size)


def _vae() -> Built:
    model, _ = load_vae()
    run = backend.compile_step(model.decoder, model.decoder.variables)

    def draw(rows: range, seed: int) -> np.ndarray:
        shape = (model.config.latent_dim,)
        z = sampling.normals(rows.stop, shape, seed)[rows.start :]
        return to_uint8(np.asarray(backend.to_numpy(run(z))))

    return Built(draw, *_size(model.decoder), 1, lambda n: count.network(model.decoder, n))


def _threads() -> int:
    return len(bench.usable_cores())


def _xla() -> bool:
    return backend.name() != "torch"


def available() -> list[Rung]:
    """Returns all rungs that this backend can climb, the slow path of each family first.

    ONNX files are written by TensorFlow; PyTorch has no XLA here.
    """
    xla, found = _xla(), []

    def add(panel: str, family: str, tag: str, like: str, name: str, build: Any) -> None:
        # Between the slow start and the fast end, what takes seconds for a batch is timed alone.
        between = name in ("textbook, compiled", "50 steps, compiled step", "50 steps, one loop")
        batches = BATCHES[:1] if between else BATCHES
        title, slow = f"{family}: {name}", f"{family}: {like}"
        found.append(Rung(title, panel, family, tag, slow, build, batches))

    def tokens(tag: str, name: str, **how: Any) -> None:
        make = functools.partial(_image_gpt, **how)
        add("scenes", "image GPT", tag, "textbook, eager", name, make)

    tokens(TAGS[0], "textbook, eager", cached=False, compiled=False)
    tokens(TAGS[0], "textbook, compiled", cached=False)
    tokens(TAGS[0], "KV cache, one loop")
    if xla:
        tokens(TAGS[0], "KV cache, XLA", xla=True)
    slow = "textbook, eager"
    add("scenes", "image GPT", TAGS[1], slow, "speculative", _speculative)
    student = functools.partial(_image_gpt, "image-gpt-student", xla=xla)
    add("scenes", "image GPT", TAGS[2], slow, "distilled, 2 blocks", student)
    c2f = functools.partial(_coarse_to_fine, xla=xla)
    found.append(
        Rung("coarse to fine", "scenes", "coarse to fine", TAGS[2], f"image GPT: {slow}", c2f)
    )

    def flow(tag: str, name: str, method: str = "flow", **options: Any) -> None:
        how = options.pop("how", {"xla": xla})
        make = functools.partial(_flow, method, how=how, **options)
        add("scenes", "flow", tag, "50 steps, predict", name, make)

    guidance = METHODS["flow"].options["guidance"]
    fifty: dict[str, Any] = {"steps": STEPS, "guidance": guidance}
    add("scenes", "flow", TAGS[0], "50 steps, predict", "50 steps, predict", _predicted)
    flow(TAGS[0], "50 steps, compiled step", **fifty, how={"compiled": False})
    flow(TAGS[0], "50 steps, one loop", **fifty, how={})
    if xla:
        flow(TAGS[0], "50 steps, XLA", **fifty)
    flow(TAGS[2], "16 steps", steps=16, guidance=guidance)
    flow(TAGS[2], "8 midpoint steps", steps=8, guidance=guidance, solver="midpoint")
    flow(TAGS[2], "16 steps, interval", steps=16, guidance=guidance, interval=(0.1, 0.9))
    students = (("flow-shortcut", "shortcut"), ("flow-small", "small shortcut"))
    for method, name in students:
        for steps in (4, 2, 1):
            title = f"{name}, {steps} step{'s' * (steps > 1)}"
            flow(TAGS[2], title, method, steps=steps, guidance=1.0)
    if backend.name() == "tensorflow":
        for method, name in students:
            for steps, engine in ((4, "ONNX"), (4, "LiteRT int8"), (2, "LiteRT int8")):
                make = functools.partial(_exported_flow, method, steps, engine)
                title = f"{name}, {steps} steps, {engine}"
                add("scenes", "flow", TAGS[2], "50 steps, predict", title, make)

    def fashion(tag: str, name: str, build: Any) -> None:
        add("fashion", "GAN", tag, "predict, one by one", name, build)

    big, small = "gan-conv-fashion", "gan-small-fashion"
    call = functools.partial
    fashion(TAGS[0], "predict, one by one", call(_generator, big, _one_by_one))
    fashion(TAGS[0], "eager", call(_generator, big, lambda g: g))
    fashion(TAGS[0], "compiled", call(_generator, big, _compiled(False)))
    fashion(TAGS[2], "small, compiled", call(_generator, small, _compiled(False)))
    if backend.name() == "tensorflow":
        engines = ((TAGS[0], "ONNX"), (TAGS[2], "ONNX int8"), (TAGS[2], "LiteRT int8"))
        for tag, engine in engines:
            fashion(tag, engine, call(_exported_generator, big, engine))
            fashion(TAGS[2], f"small, {engine}", call(_exported_generator, small, engine))
    like = "GAN: predict, one by one"
    article = call(_generator, "gan-mlp-fashion", _compiled(False))
    found.append(Rung("article's GAN, compiled", "fashion", "GAN", TAGS[2], like, article))
    found.append(Rung("VAE, compiled", "fashion", "VAE", TAGS[2], like, _vae))
    return found


def choose(names: str | Iterable[str] = "all") -> list[Rung]:
    """Returns the rungs of some names, families or panels, with the slow paths that they need.

    Args:
        names: `"all"`, or names, families or panels, in one text separated by semicolons.

    Raises:
        ValueError: if nothing has such a name.
    """
    every = available()
    given = names.split(";") if isinstance(names, str) else names
    wanted = [name.strip() for name in given if name.strip()]
    if wanted == ["all"]:
        return every
    for name in wanted or [""]:
        if not any(name in (r.name, r.family, r.panel) for r in every):
            known = sorted({r.panel for r in every} | {r.family for r in every})
            raise ValueError(
                f"No rung {name!r}. Choose from {known}, or of {[r.name for r in every]}."
            )
    chosen = [r for r in every if {r.name, r.family, r.panel} & set(wanted)]
    needed = {r.like for r in chosen} | {r.name for r in chosen}
    return [r for r in every if r.name in needed]


def alone(name: str) -> dict[str, float]:
    """Climbs a rung in a process of its own, where nothing is traced or compiled yet.

    Returns:
        `"first_call"`, the seconds that its first image took, and `"peak_megabytes"`, the most
        memory that the process took up to a batch of 16 images.

    Raises:
        subprocess.CalledProcessError: if the process failed.
    """
    command = [sys.executable, "-m", "genlib.ladder.rungs", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(name: str) -> None:
    (rung,) = [r for r in available() if r.name == name]
    built = rung.build()
    start = time.perf_counter()
    built.draw(range(1), 0)
    first_call = time.perf_counter() - start
    built.draw(range(BATCHES[1]), 0)
    print(json.dumps({"first_call": first_call, "peak_megabytes": most_memory()}))


def most_memory() -> float:
    """Returns the most memory that this process took so far, in MB (2^20 bytes)."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux hands the count of `getrusage` down from parent to child
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    import resource  # late: Windows has none

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    _main(sys.argv[1])
