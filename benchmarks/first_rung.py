"""The first rung of the ladder: the same two generators, called in four ways.

Writes `first-rung.json` (the record), and for the first page `first-rung.png`.
Run it on a quiet machine: `make bench`.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import typer

from genlib import backend, bench, plot, pretrained
from genlib.data import fashion_mnist
from genlib.ladder.quality import evaluate
from genlib.models import gan
from genlib.pretrained import load_judge

HERE = Path(__file__).parent
IMAGES = HERE.parent / "book" / "_assets" / "images"
N = 16  # images in each way of calling
NAMES = {"gan-mlp-fashion": "article's GAN", "gan-conv-fashion": "convolutional GAN"}


def ways(generator):
    """The same N images from the same latents, from the slowest way to the fastest."""
    latents = gan.GAN.latents(N, seed=0)
    compiled = backend.compile_step(lambda z: generator(z, training=False), generator.variables)
    rows = [latents[i : i + 1] for i in range(N)]
    return {
        "predict, one by one": lambda: [generator.predict(z, verbose=0) for z in rows],
        "eager, one by one": lambda: [generator(z, training=False) for z in rows],
        "compiled, one by one": lambda: [compiled(z) for z in rows],
        f"compiled, batch of {N}": lambda: compiled(latents),
    }


def main() -> None:
    """Measures, then draws."""
    data, judge = fashion_mnist("subset"), load_judge()
    record, points, floor = {}, [], None
    for name, label in NAMES.items():
        generator, _ = pretrained.load_generator(name)
        candidates = ways(generator)
        results = [
            np.concatenate(r) if isinstance(r, list) else r
            for r in backend.to_numpy([call() for call in candidates.values()])
        ]
        for result in results[1:]:  # the same images, or the comparison would mean nothing
            np.testing.assert_allclose(result, results[0], atol=1e-4)
        comparison = bench.compare(candidates)
        report = evaluate(generator, data, judge)
        fid, floor = report.scores["fid"], report.floor["fid"]
        record[name] = {
            "comparison": json.loads(comparison.to_json()),
            "fid": asdict(fid),
            "floor": asdict(floor),
        }
        points += [
            plot.Point(f"{label}: {way}", timing.rate(N), (fid.value, fid.low, fid.high), label)
            for way, timing in comparison.records.items()
        ]
    (HERE / "first-rung.json").write_text(json.dumps(record, indent=1) + "\n")
    figure = plot.frontier(
        points,
        references={"real against real": floor.value},
        title="The same images, faster: four ways to call two generators",
    )
    (IMAGES / "first-rung.png").write_bytes(figure.png())


if __name__ == "__main__":
    typer.run(main)
