"""Does PyTorch's own compiler make a network of Keras faster? A step of the flow, compiled with it.

    python benchmarks/torch_compile.py      # five minutes, most of them compiling

One image, in as many steps as in `benchmarks/backends.py`: eager, by the library's loop, and with
each step compiled by `torch.compile`. The three alternate in one process. The compiler also counts
the places where it had to split the program. Writes genlib/records/torch-compile.json.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import typer

STEPS = 8  # unguided


def main() -> None:
    """Measures, prints and writes the record."""
    os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported
    import torch

    from genlib import bench, pipeline, records, text
    from genlib.models import sampling

    bench.fix_threads(min(2, bench.threads()["cores"]))
    flow, said = pipeline.load("flow"), text.encode(["a clear sunset over the sea"])
    noise = sampling.normals(1, (16, 16, flow.config.channels), 0)

    def walk(step: Any) -> Any:
        @torch.no_grad()
        def run() -> np.ndarray:
            x, given = torch.tensor(noise), torch.tensor(said)
            width = torch.full((1,), 1 / STEPS)
            for i in range(STEPS):
                x = step(x, given, torch.full((1,), i / STEPS), width, 1.0, "euler")
            return x.numpy()

        return run

    compiled = torch.compile(flow.step, dynamic=False)
    ways = {
        "eager": walk(flow.step),
        "the library's loop": lambda: flow.sample(said, steps=STEPS, guidance=1.0),
        "torch.compile": walk(compiled),
    }
    made = bench.compare(ways, warmup=1)
    np.testing.assert_allclose(ways["torch.compile"](), ways["eager"](), atol=1e-4)
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    print(made, f"{breaks} splits", sep="\n")
    records.save(
        "torch-compile",
        {
            "steps": STEPS,
            "versions": {"torch": torch.__version__},
            "splits": breaks,
            "ways": {
                name: {
                    "first_call": record.first_call,
                    "seconds": [record.median, *record.interval],
                    "ratio": [made[name].ratio, made[name].low, made[name].high],
                }
                for name, record in made.records.items()
                if name != "eager"
            },
            "eager": {"seconds": list(made.records["eager"].seconds)},
        },
    )


if __name__ == "__main__":
    typer.run(main)
