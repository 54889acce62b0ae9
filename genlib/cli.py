"""What you type: `genlib train`, `genlib sample`, `genlib export`."""

from __future__ import annotations

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
    state = train.run(task, epochs, out)
    losses = ", ".join(f"{name} {values[-1]:.3f}" for name, values in state.history.items())
    typer.echo(
        f"{state.epoch} epochs done; mean losses of the last: {losses}. Samples: {out}/samples"
    )


@train_app.command("judge")
def train_judge(
    out: Annotated[Path, typer.Option(help="The weights' file, without its ending.")],
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seed: Seed = 0,
    source: Source = None,
) -> None:
    """Train the frozen classifier whose features judge every generator."""
    from genlib.data import fashion_mnist
    from genlib.models.judge import save_judge
    from genlib.models.judge import train_judge as train

    data = fashion_mnist(source)
    model, metrics = train(data, epochs=epochs, seed=seed, log=typer.echo)
    save_judge(model, out, metrics)
    typer.echo(f"{out}.safetensors: {metrics}")


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
    from genlib import plot, pretrained
    from genlib.models import gan

    generator, _ = pretrained.load_generator(run)
    plot.save_png(gan.sample(generator, n, seed), out)
    typer.echo(f"{n} images in {out}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a trained run.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The weights, without ending.")],
    source: Source = None,
) -> None:
    """Write a run's generator as float16 weights with a card that holds its measured quality."""
    from genlib import pretrained
    from genlib.data import fashion_mnist

    card = pretrained.export_generator(run, out, fashion_mnist(source))
    typer.echo(f"{out}.safetensors after {card['epochs']} epochs: {card['metrics']['scores']}")


def main() -> Any:
    """Runs the command line; an expected error is one line, not a traceback."""
    try:
        app()
    except (ValueError, ArithmeticError, OSError) as error:
        print(f"genlib: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
