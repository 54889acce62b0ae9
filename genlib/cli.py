"""What you type: `genlib generate`, `train`, `bench`, `serve` and their kin."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image generation at speed: train, sample and measure the book's models.",
)
train_app = typer.Typer(no_args_is_help=True, help="Train a model; a stopped run goes on.")
app.add_typer(train_app, name="train")

Seed = Annotated[int, typer.Option(help="Of weights, order and latents.", min=0)]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Of the method, see genlib methods."),
]
Source = Annotated[
    str | None, typer.Option(help="Force a source of Fashion-MNIST: path, cache, debian, ….")
]


@train_app.command("gan")
def train_gan(
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    epochs: Annotated[int, typer.Option(help="In all, earlier ones counted in.", min=1)] = 20,
    seed: Seed = 0,
    network: Annotated[str, typer.Option(help="mlp (the article's) or conv.")] = "mlp",
    step: Annotated[str, typer.Option(help="one-stage or two-stage.")] = "one-stage",
    source: Source = None,
) -> None:
    """Train a GAN on Fashion-MNIST; the same command goes on with a stopped run."""
    # Imported here, so that `genlib --help` does not wait for a deep-learning framework.
    from genlib import train
    from genlib.data import fashion_mnist
    from genlib.models.gan import GANConfig

    data = fashion_mnist(source)
    typer.echo(f"{data.label()}, from: {data.source}", err=True)
    config = GANConfig(network=network, step=step)  # type: ignore[arg-type]  # checked inside
    task = train.GANTask(data.train_images, config, seed=seed, data_label=data.label())
    _report(train.run(task, epochs, out), out)


def _report(state: Any, out: Path) -> None:
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
        out: Annotated[Path, typer.Option(help="The run's folder.")],
        epochs: Annotated[
            int | None, typer.Option(help="In all; the recipe's unless given.", min=1)
        ] = None,
        seed: Annotated[int | None, typer.Option(help="The recipe's unless given.", min=0)] = None,
        source: Source = None,
    ) -> None:
        from genlib import backend, train
        from genlib.train import registry

        task, all_epochs = registry.make(name, epochs=epochs, seed=seed, source=source)
        with backend.bfloat16_products():  # a third of the time; the weights stay float32
            state = train.run(task, all_epochs, out)
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
    out: Annotated[Path, typer.Option(help="The weights, without ending.")],
) -> None:
    """Fit the projection through which the language model reads; the student learns from it."""
    from genlib import files, weights
    from genlib.train.text_student import fit_teacher

    file, _ = weights.paths(out)
    files.check_file(file)  # before the work, not after it
    fit_teacher(out)
    typer.echo(str(file))


@app.command()
def sample(
    run: Annotated[str, typer.Argument(help="A trained run's folder, or shipped weights.")],
    n: Annotated[int, typer.Option("-n", help="How many images.", min=1)] = 64,
    out: Annotated[Path, typer.Option("-o", "--out", help="The PNG sheet to write.")] = Path(
        "samples.png"
    ),
    seed: Annotated[int, typer.Option(help="Of the latents.", min=0)] = 0,
) -> None:
    """Draw images from a trained run, or from shipped weights, onto one PNG sheet."""
    from genlib import files, plot, pretrained
    from genlib.models import gan

    files.check_file(out)  # before the work, not after it
    generator, _ = pretrained.load_generator(run)
    plot.save_png(gan.sample(generator, n, seed), out)
    typer.echo(f"{n} images in {out}")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to show, in English or Chinese.")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 16,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A PNG sheet; without .png, a folder of images.")
    ] = Path("images.png"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    method: Annotated[str, typer.Option(help="See genlib methods.")] = "",
    describe: Annotated[
        str, typer.Option(help="Who completes the prompt: student, llm or off.")
    ] = "student",
    steps: Annotated[int | None, typer.Option(help="Of the flow.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1: none; more: stricter.")] = None,
    xla: Annotated[bool, typer.Option("--xla", help="Compile with XLA (not on PyTorch).")] = False,
    option: Options = None,
    best_of: Annotated[
        int,
        typer.Option(min=1, help="Draw so many for each image; the reward model keeps the best."),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print a record with timings.")] = False,
) -> None:
    """Generate images of what a prompt asks for."""
    import json

    from genlib import pipeline, pretrained

    pipeline.check_out(out)  # before the work, not after it
    given = {"steps": steps, "guidance": guidance, "xla": xla or None, **_options(option)}
    made = pipeline.generate(
        prompt,
        n,
        seed=seed,
        method=method or pretrained.DEFAULT,
        describe=describe,  # type: ignore[arg-type]  # checked inside
        best_of=best_of,
        **{name: value for name, value in given.items() if value is not None},
    )
    pipeline.save(made, out)
    if as_json:
        record = {
            "prompt": prompt,
            "n": n,
            "seed": seed,
            "out": str(out),
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
        typer.echo(f"{n} images in {out} ({spent})")


@app.command()
def describe(
    prompt: Annotated[str, typer.Argument(help="A short prompt, in English or Chinese.")],
    n: Annotated[int, typer.Option("-n", help="How many descriptions.", min=1)] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    writer: Annotated[str, typer.Option(help="student or llm.")] = "student",
) -> None:
    """Complete a prompt to full descriptions, as `genlib generate` does first."""
    from genlib import pipeline

    for line in pipeline.describe(prompt, n, seed, writer):  # type: ignore[arg-type]
        typer.echo(line)


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
    out: Annotated[Path, typer.Option("-o", "--out", help="The JSON file to write.")],
    methods: Annotated[
        str, typer.Option(help="all, or rungs, families and panels, separated by semicolons.")
    ] = "all",
    images: Annotated[
        int, typer.Option(help="Of each rung for its quality; 0 measures speed alone.", min=0)
    ] = 200,
    pairs: Annotated[int, typer.Option(help="Rounds of timing.", min=9)] = 9,
    processes: Annotated[
        bool, typer.Option(help="Start a process for each, for its first call and its memory.")
    ] = False,
) -> None:
    """Time every way to the same images on this machine, and measure their quality."""
    import json
    import time

    from genlib import files, ladder
    from genlib.ladder import rungs

    files.check_file(out)  # before the work, not after it
    chosen = rungs.choose(methods)
    start = time.perf_counter()

    def log(line: str) -> None:
        typer.echo(f"{time.perf_counter() - start:6.0f} s  {line}", err=True)

    result = ladder.run(chosen, images=images, pairs=pairs, processes=processes, log=log)
    result["seconds"] = round(time.perf_counter() - start, 1)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    files.write_atomic(out, text.encode())
    for name, row in result["rungs"].items():
        typer.echo(f"{name}: {ladder.row_as_text(row)}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    method: Annotated[str, typer.Option(help="See genlib methods.")] = "",
    describe: Annotated[
        str, typer.Option(help="Who completes the prompts: student, llm or off.")
    ] = "student",
    max_batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    max_wait: Annotated[float, typer.Option(min=0, help="For company, s.")] = 0.005,
    max_queue: Annotated[int, typer.Option(min=1, help="Images that wait.")] = 64,
    max_connections: Annotated[int, typer.Option(min=1, help="One more gets 503.")] = 256,
    timeout: Annotated[float, typer.Option(min=0, help="Of a request, s.")] = 30.0,
    cache_bytes: Annotated[int, typer.Option(min=0, help="0 keeps no images.")] = 16 * 2**20,
    option: Options = None,
) -> None:
    """Serve images over HTTP, in batches: POST /generate, GET /health, GET /metrics."""
    from genlib import pretrained
    from genlib.serve import app as server

    server.run(
        host,
        port,
        method=method or pretrained.DEFAULT,
        describe=describe,
        max_batch=max_batch,
        max_wait=max_wait,
        max_queue=max_queue,
        max_connections=max_connections,
        timeout=timeout,
        cache_bytes=cache_bytes,
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
        except ValueError:
            found[name] = value  # a word, such as midpoint
    return found


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a trained run.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The weights, without ending.")],
    source: Source = None,
) -> None:
    """Write a run's model as float16 weights with a card that holds its measured quality."""
    from genlib import files, weights
    from genlib.ladder import quality
    from genlib.train import registry
    from genlib.weights import checkpoint

    file, _ = weights.paths(out)
    files.check_file(file)  # before the work, not after it
    recipe = checkpoint.read_run(run)["recipe"]
    card = registry.export(run, out, quality.of(recipe, source), source)
    typer.echo(f"{file} after {card['epochs']} epochs: {card['metrics']}")


# Which packages a room or a backend needs beside genlib's own, and what installs them.
EXTRAS = {
    ("httpx", "starlette", "uvicorn"): "pip install httpx starlette uvicorn",
    ("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"): (
        "pip install ai-edge-litert onnx onnxruntime tf2onnx"
    ),
    ("tensorflow",): "pip install tensorflow-cpu",
    ("jax", "jaxlib"): "pip install jax",
    ("torch",): "pip install torch",
}


def _missing(error: ImportError) -> str | None:
    """Says which package is missing, with the command that installs it; None for other errors."""
    package = (error.name or "").partition(".")[0]
    for packages, command in EXTRAS.items():
        if package in packages:
            return f"The package {package} is missing here. Install it: {command}"
    return None if error.name else str(error)  # genlib's own, which has its command


def main() -> Any:
    """Runs the command line; an expected error is one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know all letters
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except ImportError as error:
        if (message := _missing(error)) is None:
            raise
        print(f"genlib: {message}", file=sys.stderr)
        sys.exit(1)
    except (ValueError, ArithmeticError, OSError, MemoryError) as error:
        print(f"genlib: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
