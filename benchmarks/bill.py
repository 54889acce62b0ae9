"""The language model's own bill: all ways from a prompt to a PNG, in alternating runs.

    python benchmarks/bill.py                 # five minutes; writes genlib/records/bill.json

In the last ways a flow of `genlib methods` generates, in the very last one from one LiteRT file of
integers, where that is installed.
"""

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

PROMPTS = ("a boat on a calm lake at night", "a rainy dawn over the hills", "a schooner at dusk")


def one_file(method: str, threads: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a flow and its decoder as one function, opened from a file of integers."""
    from genlib import pretrained
    from genlib.models.tokenizer import GRID
    from genlib.speed import export

    options = pretrained.METHODS[method].options
    if options.get("solver", "euler") != "euler":
        raise ValueError(
            f"{method} takes {options['solver']} steps; a file is made of Euler steps."
        )
    model, steps = pretrained.load(method), options["steps"]
    noise = np.zeros((1, GRID, GRID, model.config.channels), np.float32)
    embedded = np.zeros((1, model.config.text_width), np.float32)
    whole = export.flow_function(model, pretrained.load_tokenizer().decoder, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        export.to_litert(whole, path, int8=True, noise=noise, text=embedded)
        return export.litert_session(path, threads)


def main(
    method: Annotated[str, typer.Option(help="A flow; the pipeline's own unless given.")] = "",
    pairs: Annotated[int, typer.Option(min=9, help="Rounds of timing.")] = 9,
    tokens: Annotated[int, typer.Option(min=1, help="Written freely, at most.")] = 48,
) -> None:
    """Measures and writes the record."""
    from genlib import bench

    bench.fix_threads(min(2, bench.threads()["cores"]))
    from genlib import backend, pretrained, records, text
    from genlib.ladder import bill

    method = method or pretrained.DEFAULT
    threads = bench.threads()["cores"]
    llama = bill.LlamaCpp(threads) if importlib.util.find_spec("xllamacpp") else None
    options = {} if backend.name() == "torch" else {"xla": True}
    llm = text.writer.load_reader().llm
    file = one_file(method, threads) if importlib.util.find_spec("ai_edge_litert") else None
    ways = bill.ways(llm, tokens=tokens, method=method, options=options, llama=llama, file=file)

    spent = {name: [] for name in ways}  # each paid run's stages, in the order of the runs

    def paying(name):
        def pay():
            paid = bill.pay(ways[name], PROMPTS[0])
            spent[name].append(paid.milliseconds)
            return paid.png

        return pay

    comparison = bench.compare(
        {name: paying(name) for name in ways},
        pairs=pairs,
        warmup=0,
        min_seconds=0,
        sync=lambda png: png,
    )
    print(comparison)
    rounds = len(comparison.records["naive"].seconds)
    rows = {}
    for name, ratio in comparison.ratios().items():
        timed = spent[name][-rounds:]  # the first calls compile
        rows[name] = {
            "ratio": [ratio.ratio, ratio.low, ratio.high],
            "milliseconds": {s: float(np.median([t[s] for t in timed])) for s in bill.STAGES},
            "descriptions": {prompt: ways[name].describe(prompt) for prompt in PROMPTS},
        }
    records.save(
        "bill",
        {
            "tokens": tokens,
            "method": {"name": method, **pretrained.METHODS[method].options, **options},
            "rows": rows,
            "comparison": json.loads(comparison.to_json()),
        },
    )


if __name__ == "__main__":
    typer.run(main)
