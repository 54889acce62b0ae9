"""What you type: `genlib generate`, `train`, `bench`, `serve` and their kin."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from genlib import doctor as doctor_
from genlib import ranges

try:
    import typer
    from typer.core import TyperCommand
except ImportError as error:  # `main` is not there yet, which would say so
    sys.exit(f"genlib: {doctor_.missing(error)}")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image generation at speed: train, sample and measure the book's models.",
)
train_app = typer.Typer(no_args_is_help=True, help="Train a model; a stopped run goes on.")
app.add_typer(train_app, name="train")


UsageError: Any = typer.BadParameter.__base__  # wherever Typer has it from


class PromptCommand(TyperCommand):
    """A command with a prompt, which may begin like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Adds to an error what such a prompt needs."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            like = [word for word in given if word.startswith("-")]
            kind = type(error).__name__ in ("NoSuchOption", "MissingParameter")
            if like and "--" not in given and (kind or any(" " in word for word in like)):
                error.message += (
                    f". A prompt that begins with - stands behind --: {ctx.command_path} -- '-5 °C'"
                )
            raise


Seed = Annotated[
    int, typer.Option(help=f"Of weights, order and latents: {ranges.RANGES['training seed']}.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that stands there.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Of the method, see genlib methods."),
]
# Folders to write: texts, since a path would drop the slash that says so.
RunFolder = Annotated[str, typer.Option(help="The run's folder.")]
Weights = Annotated[str, typer.Option("-o", "--out", help="The weights, without ending.")]
Source = Annotated[
    str | None, typer.Option(help="Force a source of Fashion-MNIST: path, cache, debian, ….")
]


@train_app.command("gan")
def train_gan(
    out: RunFolder,
    epochs: Annotated[int, typer.Option(help="In all, earlier ones counted in.")] = 20,
    seed: Seed = 0,
    network: Annotated[str, typer.Option(help="mlp (the article's) or conv.")] = "mlp",
    step: Annotated[str, typer.Option(help="one-stage or two-stage.")] = "one-stage",
    source: Source = None,
) -> None:
    """Train a GAN on Fashion-MNIST; the same command goes on with a stopped run."""
    # Imported here, so that `genlib --help` does not wait for a deep-learning framework.
    from genlib import files, train
    from genlib.data import fashion_mnist
    from genlib.models.gan import GANConfig

    files.check_name(out, of="the run", folder=True)
    ranges.check("epochs", epochs)
    data = fashion_mnist(source)
    typer.echo(f"{data.label()}, from: {data.source}", err=True)
    config = GANConfig(network=network, step=step)  # type: ignore[arg-type]  # checked inside
    task = train.GANTask(data.train_images, config, seed=seed, data_label=data.label())
    _report(train.run(task, epochs, out), out)


def _report(state: Any, out: str) -> None:
    """Says how a training ended, and what can be done with it."""
    losses = ", ".join(f"{name} {values[-1]:.4f}" for name, values in state.history.items())
    typer.echo(
        f"{state.epoch} epochs done; mean losses of the last: {losses}. Samples: {out}/samples. "
        f"genlib export {out} -o <weights> measures and writes them."
    )


def _train_recipe(name: str, about: str) -> None:
    """Adds `genlib train <name>` for a recipe."""

    @train_app.command(name, help=f"{about}; the same command goes on with a stopped run.")
    def train_recipe(
        out: RunFolder,
        epochs: Annotated[
            int | None, typer.Option(help="In all; the recipe's unless given.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="The recipe's unless given.")] = None,
        source: Source = None,
        processes: Annotated[
            int, typer.Option(help="That share each batch; several need KERAS_BACKEND=jax.")
        ] = 1,
    ) -> None:
        from genlib import files
        from genlib.train import processes as others

        files.check_name(out, of="the run", folder=True)
        if others.begin(processes):
            return
        from genlib import backend, train
        from genlib.train import registry

        task, all_epochs = registry.make(name, epochs=epochs, seed=seed, source=source)
        with backend.bfloat16_products():  # a third of the time; the weights stay float32
            state = train.run(task, all_epochs, out)
        if backend.processes()[0] == 0:
            _report(state, out)


for _name, _about in {
    "judge": "Train the frozen classifier of Fashion-MNIST whose features judge generators",
    "gan-small": "Prune the convolutional generator and heal it on its teacher's images",
    "vae": "Train a VAE of Fashion-MNIST",
    "scenes-judge": "Train the judge that reads the attributes of Scenes",
    "scenes-perceptual": "Train the smaller judge whose first layers teach the tokenizer",
    "scenes-reward": "Train the judge that chooses among generated images",
    "tokenizer": "Train the tokenizer, 64×64 images to 16×16 codes",
    "image-gpt": "Train image GPT, which writes token after token",
    "coarse-to-fine": "Train coarse to fine, seven groups of tokens",
    "flow": "Train the rectified flow on latents",
    "flow-shortcut": "Train a student that walks the flow's way in four steps, two or one",
    "flow-small": "Train such a student with half of the blocks",
    "image-gpt-student": "Train an image GPT of two blocks on its teacher's probabilities",
    "text-student": "Train the small encoder of texts; needs the language model",
}.items():
    _train_recipe(_name, _about)


@train_app.command("text-teacher")
def train_text_teacher(
    out: Weights,
    overwrite: Overwrite = False,
) -> None:
    """Fit the projection through which the language model reads; the student learns from it."""
    from genlib import files, weights
    from genlib.train.text_student import fit_teacher

    files.check_name(out, of="the weights")
    file = weights.check_place(out, overwrite=overwrite)  # before the work, not after it
    fit_teacher(out)
    typer.echo(str(file))


@app.command()
def mend(
    run: Annotated[Path, typer.Argument(help="The folder of a run whose state or card is lost.")],
) -> None:
    """Let a run go on from its last whole checkpoint: write state.json and run.json anew."""
    from genlib.weights import checkpoint

    state = checkpoint.mend(run)
    typer.echo(
        f"{run} stands at epoch {state.epoch}. The command that began it goes on from there."
    )


def _place(out: str | None, default: str, overwrite: bool) -> str:
    """Returns where to write, after a trial: what was asked for, or a default name that is free."""
    from genlib import files, pipeline

    if out is None:
        out = default if overwrite else str(files.free_name(Path(default)))
    pipeline.check_out(out, overwrite=overwrite)
    return out


OUT = "A sheet (.png, .jpg, .webp), or a folder of images: a name without ending, or with a / at "
OUT += "its end. A link is followed."


@app.command()
def sample(
    run: Annotated[str, typer.Argument(help="A trained run's folder, or shipped weights.")],
    n: Annotated[int, typer.Option("-n", help=f"How many images: {ranges.RANGES['images']}.")] = 64,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", help="The sheet: .png, .jpg, .webp. A free samples.png."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the latents.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw images from a trained run, or from shipped weights, onto one sheet."""
    from genlib import files, origin, plot, pretrained
    from genlib.models import gan

    ranges.check("n", n, of="images")
    ranges.check("seed", seed)
    if out is not None and not files.ending(out):
        raise ValueError(
            f"{out} is a folder's name. Give one that ends in {', '.join(files.FORMATS)}."
        )
    place = _place(out, "samples.png", overwrite)  # before the work, not after it
    generator, _ = pretrained.load_generator(run)
    height, width = generator.output_shape[1:3]
    plot.check_sheet(n, height, width, place)
    told = origin.texts("sample", {"weights": run, "n": n, "seed": seed})
    plot.save_sheet(gan.sample(generator, n, seed), place, told, overwrite=overwrite)
    typer.echo(f"{n} images in {place}")


@app.command(cls=PromptCommand)
def generate(
    prompt: Annotated[str, typer.Argument(help="What to show, in English or Chinese.")],
    n: Annotated[int, typer.Option("-n", help=f"How many images: {ranges.RANGES['n']}.")] = 16,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help=f"{OUT} images.png, if that is free.")
    ] = None,
    seed: Annotated[int, typer.Option(help=f"{ranges.RANGES['seed']}.".capitalize())] = 0,
    method: Annotated[str, typer.Option(help="See genlib methods.")] = "",
    describe: Annotated[
        str, typer.Option(help="Who completes the prompt: student, llm or off.")
    ] = "student",
    steps: Annotated[
        int | None, typer.Option(help=f"Of the flow: {ranges.RANGES['steps']}.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help=f"1: none; more: stricter; {ranges.RANGES['guidance']}."),
    ] = None,
    xla: Annotated[bool, typer.Option("--xla", help="Compile with XLA (not on PyTorch).")] = False,
    option: Options = None,
    best_of: Annotated[
        int, typer.Option(help="Draw so many for each image; the reward model keeps the best.")
    ] = 1,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a record with timings.")] = False,
) -> None:
    """Generate images of what a prompt asks for; genlib show tells how an image was made."""
    import json

    from genlib import pipeline, pretrained

    if prompt == "-":
        raise ValueError('The prompt is "-": nothing is read from standard input. Write it out.')
    given: dict[str, Any] = {"steps": steps, "guidance": guidance, "xla": xla or None}
    given = {name: value for name, value in given.items() if value is not None}
    given |= _options(option)
    method = method or pretrained.DEFAULT
    pipeline.check(prompt, n, seed)
    pretrained.method_options(method, given)
    place = _place(out, "images.png", overwrite)  # before the work, not after it
    made = pipeline.generate(
        prompt,
        n,
        seed=seed,
        method=method,
        describe=describe,  # type: ignore[arg-type]  # checked inside
        best_of=best_of,
        **given,
    )
    try:
        pipeline.save(made, place, overwrite=overwrite)
    except FileExistsError:
        if out is not None:
            raise
        place = _place(None, place, False)  # somebody took the name meanwhile
        pipeline.save(made, place)
    if as_json:
        record = {
            "prompt": prompt,
            "n": n,
            "seed": seed,
            "out": place,
            "method": made.method,
            "milliseconds": {k: round(v, 2) for k, v in made.milliseconds.items()},
            "descriptions": made.descriptions,
            "notes": made.notes,
        }
        typer.echo(json.dumps(record, ensure_ascii=False, indent=2))
    else:
        for note in made.notes:
            typer.echo(note, err=True)
        spent = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in made.milliseconds.items())
        typer.echo(f"{n} images in {place} ({spent})")


@app.command("generate-many")
def generate_many(
    prompts: Annotated[
        Path, typer.Argument(help="A file: each line a prompt, or JSON with prompt, seed, n.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="The folder of shards, .tar files.")],
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine. One for each core.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask cluster instead, such as tcp://10.0.0.1:8786.")
    ] = None,
    shard: Annotated[int, typer.Option(help="Images of a shard.")] = 256,
    method: Annotated[str, typer.Option(help="See genlib methods.")] = "",
    describe: Annotated[
        str, typer.Option(help="Who completes the prompts: student, llm or off.")
    ] = "student",
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a record.")] = False,
) -> None:
    """Generate the images of all prompts in a file; the same command goes on where it stopped.

    It ends with status 0 if every line has its images, with 3 if lines failed, and with 1 if it
    could not go on.
    """
    import dataclasses
    import json

    from genlib import bulk, origin, pretrained

    settings: dict[str, Any] = {"method": method or pretrained.DEFAULT}
    settings |= {"describe": describe, "shard": shard}
    done = bulk.generate_many(
        prompts, out, workers=workers, scheduler=scheduler, **settings, **_options(option)
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), ensure_ascii=False, indent=2))
    else:
        made = f"{done.made} of them made now" if done.made else "all of them were there"
        typer.echo(f"{done.images} images in {done.shards} shards in {out} ({made})")
        for row in sorted(done.failed, key=lambda row: row["line"]):
            typer.echo(f"Line {row['line']}: {origin.printable(row['error'])}", err=True)
        if done.failures:
            typer.echo(f"{done.failures} lines failed; the manifests tell which.", err=True)
    raise typer.Exit(3 if done.failures else 0)


@app.command()
def show(
    image: Annotated[Path, typer.Argument(help="A PNG of genlib generate or genlib sample.")],
) -> None:
    """Tell how an image was made, and the command that makes it again."""
    from genlib import files, origin

    record = origin.read(image)
    for key, value in record.items():
        typer.echo(f"{key}: {origin.printable(str(value))}")
    folder = "file" in record
    name = f"{image.resolve().parent.name}-again" if folder else f"{image.stem}-again.png"
    out = str(files.free_name(Path(name))) + "/" * folder
    typer.echo(f"Again{', beside its fellows' * folder}: {origin.command(record, out)}")


@app.command()
def doctor() -> None:
    """Tell what is here and what is missing: versions, device, caches, weights, packages."""
    sound = True
    for good, line in doctor_.report():
        sound = sound and good
        typer.echo(line if good else f"Not as it should be: {line.strip()}")
    raise typer.Exit(0 if sound else 1)


@app.command(cls=PromptCommand)
def describe(
    prompt: Annotated[str, typer.Argument(help="A short prompt, in English or Chinese.")],
    n: Annotated[int, typer.Option("-n", help=f"How many descriptions: {ranges.RANGES['n']}.")] = 4,
    seed: Annotated[int, typer.Option(help=f"{ranges.RANGES['seed']}.".capitalize())] = 0,
    writer: Annotated[str, typer.Option(help="student or llm.")] = "student",
) -> None:
    """Complete a prompt to full descriptions, as `genlib generate` does first."""
    from genlib import pipeline

    pipeline.check(prompt, n, seed)
    written = pipeline.complete(prompt, n, seed, writer)  # type: ignore[arg-type]
    for note in dict.fromkeys(d.understood for d in written if d.understood):
        typer.echo(note, err=True)
    for described in written:
        typer.echo(described.text)


@app.command()
def methods() -> None:
    """List the ways from a prompt to images, with what was last recorded of them."""
    from genlib import ladder, pretrained, records, weights

    measured = records.load("ladder")
    for name, method in pretrained.METHODS.items():
        options = ", ".join(f"{key} {value}" for key, value in method.options.items())
        default = " (the default)" if name == pretrained.DEFAULT else ""
        typer.echo(f"{name}{default}: {method.about}\n    {options}")
        if method.weights not in weights.shipped():
            typer.echo(f"    no weights yet: genlib train {name}")
        elif row := measured["rungs"].get(method.rung):
            typer.echo(f"    {ladder.row_as_text(row)}")


@app.command("bench")
def bench_(
    out: Annotated[str, typer.Option("-o", "--out", help="The JSON file to write.")],
    methods: Annotated[
        str, typer.Option(help="all, or rungs, families and panels, separated by semicolons.")
    ] = "all",
    images: Annotated[
        int, typer.Option(help="Of each rung for its quality; 0 measures speed alone.")
    ] = 200,
    pairs: Annotated[int, typer.Option(help=f"Rounds of timing: {ranges.RANGES['pairs']}.")] = 9,
    processes: Annotated[
        bool, typer.Option(help="Start a process for each, for its first call and its memory.")
    ] = False,
    overwrite: Overwrite = False,
    callable_: Annotated[
        str, typer.Option("--callable", help="Time a function of yours instead: module:function.")
    ] = "",
    against: Annotated[str, typer.Option(help="Another one, as the baseline of the first.")] = "",
) -> None:
    """Time every way to the same images on this machine, and measure their quality."""
    import time

    from genlib import files

    files.check_name(out, of="the record")
    ranges.check("pairs", pairs)
    if callable_ or against:
        _bench_callable(callable_, against, pairs, out, overwrite)
        return
    from genlib import ladder, records
    from genlib.ladder import rungs

    ranges.check("images", images, of="images of a rung")
    files.check_file(out, overwrite=overwrite)  # before the work, not after it
    chosen = rungs.choose(methods)
    start = time.perf_counter()

    def log(line: str) -> None:
        typer.echo(f"{time.perf_counter() - start:6.0f} s  {line}", err=True)

    result = ladder.run(chosen, images=images, pairs=pairs, processes=processes, log=log)
    result["seconds"] = round(time.perf_counter() - start, 1)
    records.write(out, result, overwrite=overwrite)
    for name, row in result["rungs"].items():
        typer.echo(f"{name}: {ladder.row_as_text(row)}")


def _bench_callable(name: str, against: str, pairs: int, out: str, overwrite: bool) -> None:
    """Times a reader's own function, and writes the record."""
    from genlib import files, records
    from genlib.bench import external

    files.check_file(out, overwrite=overwrite)  # before the work, not after it
    if not name:
        raise ValueError(f"--against {against} needs --callable: what is to be compared with it?")
    result = external.run(name, against or None, pairs)
    records.write(out, result, overwrite=overwrite)
    for line in external.lines(result):
        typer.echo(line)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    method: Annotated[str, typer.Option(help="See genlib methods.")] = "",
    describe: Annotated[
        str, typer.Option(help="Who completes the prompts: student, llm or off.")
    ] = "student",
    max_batch: Annotated[int, typer.Option(help="Images at once.")] = 16,
    max_wait: Annotated[float, typer.Option(help="For company, s.")] = 0.005,
    max_queue: Annotated[int, typer.Option(help="Images that wait.")] = 64,
    max_connections: Annotated[int, typer.Option(help="One more gets 503.")] = 256,
    timeout: Annotated[float, typer.Option(help="Of a request, s.")] = 30.0,
    cache_bytes: Annotated[int, typer.Option(help="0 keeps no images.")] = 16 * 2**20,
    option: Options = None,
) -> None:
    """Serve images over HTTP, in batches: POST /generate, GET /health, GET /metrics."""
    from genlib import pretrained
    from genlib.serve import app as server

    limits: dict[str, Any] = {"max_batch": max_batch, "max_wait": max_wait, "max_queue": max_queue}
    limits |= {"timeout": timeout, "cache_bytes": cache_bytes}
    limits |= {"max_connections": max_connections}
    server.run(
        host,
        port,
        method=method or pretrained.DEFAULT,
        describe=describe,
        **limits,
        **_options(option),
    )


def _options(pairs: list[str] | None) -> dict[str, Any]:
    """Reads options of a method, such as `steps=4` or `xla=true`."""
    import json

    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--option {pair}: give NAME=VALUE, such as steps=4 or xla=true.")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value  # a word, such as midpoint
    return found


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a trained run.")],
    out: Weights,
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's model as float16 weights with a card that holds its measured quality."""
    from genlib import files, weights
    from genlib.ladder import quality
    from genlib.train import registry
    from genlib.weights import checkpoint

    files.check_name(out, of="the weights")
    recipe = checkpoint.read_run(run, (*registry.TASKS, *weights.FORMER))["recipe"]
    file = weights.check_place(out, overwrite=overwrite)  # before the work, not after it
    card = registry.export(run, out, quality.of(recipe, source), source, overwrite=overwrite)
    typer.echo(f"{file} after {card['epochs']} epochs: {card['metrics']}")


def main() -> Any:
    """Runs the command line; an expected error is one line, not a traceback."""
    _open_streams()
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        if (message := _message(error)) is None:
            raise
        code = _fail(message)
    try:
        sys.stdout.flush()
    except OSError as error:  # who reads has gone, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to be told
        code = 0 if isinstance(error, BrokenPipeError) else _fail(str(error))
    sys.exit(code)


def _open_streams() -> None:
    """Makes standard streams that cannot fail: a closed one is nowhere, a letter may be unknown.

    With a closed descriptor the next file that is opened would get its number, and with it all that
    is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _message(error: Exception) -> str | None:
    """Returns the sentence for an error that a user can cause; None for any other."""
    if isinstance(error, ImportError):
        return doctor_.missing(error)
    told = str(error)
    signs = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OOM when", "out of memory")
    if isinstance(error, MemoryError) or any(s in f"{type(error).__name__} {told}" for s in signs):
        return "There is not enough memory here for so much at once. Ask for fewer images."
    return told if isinstance(error, (ValueError, ArithmeticError, OSError)) else None


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):
        print(f"genlib: {message}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    main()
