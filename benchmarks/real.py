"""The ladder on real models: SmolLM2 by transformers, SD 1.5, SDXL and PixArt-α by diffusers.

Weights of the image models are random, at the published sizes; the time is the same. On a
processor the latents are smaller than published (`--side`), so that a forward takes seconds.

    python benchmarks/real.py                    # writes genlib/records/real-<machine>.json
    python benchmarks/real.py --tiny -o x.json   # small models, every line, about two minutes

The file is written after each part, so a run that is cut off leaves what it has measured. Parts of
an earlier run that are not asked for now stay in it.
"""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

# On a processor: side of the latents, and rungs; of SD 1.5 all but one.
SIDE = 16
ON_PROCESSOR = {
    "PixArt-α": ("half precision", "fused attention", "torch.compile", "int8 weights"),
    "SDXL": (),
}
# On a GPU, what has to be compiled comes last; to compile SDXL as a whole takes minutes.
ON_GPU = {
    "SD 1.5": (
        "TF32",
        "half precision",
        "fused attention",
        "channels last",
        "feature caching",
        "batch of 2",
        "batch of 4",
        "offloading",
        "torch.compile",
        "FP8 products",
        "int8 products",
        "int8 weights",
    ),
    "SDXL": (
        "half precision",
        "fused attention",
        "channels last",
        "feature caching",
        "batch of 2",
        "offloading",
    ),
    "PixArt-α": ("half precision", "fused attention", "torch.compile", "FP8 products"),
}
SCHEMA = "genlib.real/1"
TINY = ("half precision", "fused attention", "feature caching", "int8 weights", "batch of 2")


def machine() -> str:
    """Returns the name of what computes here, as it may stand in a file's name."""
    from genlib.bench import machine, pytorch

    name = machine.cpu_model() if pytorch.device() == "cpu" else machine.gpu_model() or "gpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The record; genlib's own unless given.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small models, to try every line.")] = False,
    models: Annotated[str, typer.Option(help="Of diffusion.SIZES, by commas; all.")] = "",
    parts: Annotated[
        str, typer.Option(help="By commas: llm, forwards, images, throughput.")
    ] = "llm,forwards,images,throughput",
    rungs: Annotated[str, typer.Option(help="Of a forward, by semicolons; else see above.")] = "",
    side: Annotated[int, typer.Option(help="Of the latents; 0: see above.", min=0)] = 0,
    tokens: Annotated[int, typer.Option(help="That the language model writes.", min=1)] = 16,
    pairs: Annotated[int, typer.Option(help="Rounds of timing.", min=9)] = 9,
    seconds: Annotated[float, typer.Option(help="Begin no part after so long.")] = 3600.0,
) -> None:
    """Measures and writes the record."""
    from genlib import bench, files, records
    from genlib.bench import pytorch
    from genlib.ladder import diffusion, transformers_llm

    out = out or records.FOLDER / f"real-{machine()}.json"
    files.check_file(out)  # before the work, not after it
    import torch

    on = pytorch.device()
    if on == "cpu":
        torch.set_num_threads(bench.threads()["cores"])
    kept = json.loads(out.read_text()) if out.is_file() else {}
    if kept.get("schema") != SCHEMA or kept.get("tiny") != tiny:
        kept = {}
    result: dict[str, Any] = {"schema": SCHEMA, "environment": bench.environment()}
    result["environment"]["versions"] |= {
        module.__name__: module.__version__
        for module in (torch, diffusion.diffusers, diffusion.transformers)
    }
    result |= {"device": on, "threads": torch.get_num_threads(), "tiny": tiny}
    result |= {"models": kept.get("models", {}), "llm": kept.get("llm", {})}
    result["ceilings"] = {
        str(dtype).removeprefix("torch."): vars(pytorch.ceilings(dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    start, chosen = time.perf_counter(), [p.strip() for p in parts.split(",")]
    names = [n.strip() for n in models.split(",") if n.strip()] or list(diffusion.SIZES)
    if not set(names) <= set(diffusion.SIZES):
        raise typer.BadParameter(f"--models {models}: choose among {', '.join(diffusion.SIZES)}.")

    def late() -> bool:
        return time.perf_counter() - start > seconds

    def log(line: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True)

    def keep() -> None:
        result["seconds"] = round(time.perf_counter() - start, 1)
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        files.write_atomic(out, text.encode())

    if "llm" in chosen:
        batches = (4,) if on == "cpu" else (4, 32)
        result["llm"] = {"tokens": tokens}
        result["llm"] |= transformers_llm.climb(tokens, pairs=pairs, batches=batches, log=log)
        keep()
    small = tiny or on == "cpu"
    used = side or (SIDE if on == "cpu" and not tiny else None)
    options: dict[str, Any] = {"tiny": tiny, "side": used}

    def attempt(what: str, measure: Callable[[], Any]) -> Any:
        """Measures one thing; what fails is told, and the rest goes on."""
        try:
            found = measure()
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
        log(f"{what}: {found}")
        return found

    for name in names:
        row = result["models"].setdefault(name, {})
        row["side"] = used or (SIDE if tiny else diffusion.SIZES[name].side)
        if "images" in chosen and not late():
            made = attempt(name, lambda n=name: diffusion.image_rows(n, pairs=pairs, **options))
            row |= {"images_error": made["error"]} if "error" in made else made
            keep()
    for name in names if "forwards" in chosen else ():
        every = tuple(r for r in diffusion.FORWARDS if on != "cpu" or r != "batch of 2")
        some = TINY if tiny else (ON_PROCESSOR if on == "cpu" else ON_GPU).get(name, every)
        some = tuple(r.strip() for r in rungs.split(";")) if rungs else some
        found = result["models"][name].setdefault("forwards", {})
        for rung in some:
            if late():
                break
            climb = partial(diffusion.climb, name, (rung,), pairs=pairs, **options)
            made = attempt(f"{name}, {rung}", climb)
            found[rung] = made.get(rung, made)
            keep()
    for name in names if "throughput" in chosen else ():
        if not late() and (not small or name == "SD 1.5"):
            most, budget = (8 if on == "cpu" else 256), (20.0 if small else 10.0)
            loads = partial(diffusion.throughput, name, budget=budget, most=most, **options)
            made = attempt(f"{name}, throughput", loads)
            result["models"][name]["throughput"] = made if isinstance(made, list) else []
            keep()
    keep()
    print(out)


if __name__ == "__main__":
    typer.run(main)
