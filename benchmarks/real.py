"""The ladder on real models: SmolLM2 by transformers, SD 1.5, SDXL and PixArt-α by diffusers.

Weights of the image models are random, at the published sizes; the time is the same. On a
processor the latents are smaller than published (`SIDES`), so that a forward takes about a second.

    python benchmarks/real.py                    # writes genlib/records/real-<machine>.json
    python benchmarks/real.py --plan             # only the parts, and how long each may take
    python benchmarks/real.py --tiny -o x.json   # small models, every line, a minute

The file is written after each part, so a run that is cut off leaves what it has measured. Parts of
an earlier run that are not asked for now stay in it, if they are of the same device with as many
threads. On a processor each part runs in a process of its own: its peak of memory is then that of
the part, and a part that needs too much or too long becomes a row that says so.
"""

import gc
import json
import multiprocessing
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

# On a processor: side of the latents, and rungs. A forward has 46 to 105 GFLOP then.
SIDES = {"SD 1.5": 16, "SDXL": 12, "PixArt-α": 16}
ON_PROCESSOR = {
    "SD 1.5": (
        "half precision",
        "fused attention",
        "channels last",
        "feature caching",
        "int8 weights",
        "int8 products",
        "batch of 2",
        "batch of 4",
        "torch.compile",
    ),
    "SDXL": ("channels last", "feature caching", "batch of 2"),
    "PixArt-α": (
        "half precision",
        "fused attention",
        "feature caching",
        "int8 weights",
        "batch of 2",
        "torch.compile",
    ),
}
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
    "SDXL": (  # to compile it as a whole takes minutes
        "half precision",
        "fused attention",
        "channels last",
        "feature caching",
        "batch of 2",
        "offloading",
    ),
    "PixArt-α": ("half precision", "fused attention", "torch.compile", "FP8 products"),
}
# What has to be compiled (on a GPU that is eight bits too) comes last: it may take minutes.
COMPILED = ("torch.compile", "FP8 products", "int8 products", "int8 weights")
SCHEMA = "genlib.real/1"
TINY = ("half precision", "fused attention", "feature caching", "int8 weights", "batch of 2")
PARTS = ("llm", "images", "forwards", "throughput")
SLACK = 2.0  # a forward takes so many times its limit, as far as is known before
COMPILING = 60.0  # s
LIMIT = 600.0  # s, of a part in a process of its own


def machine() -> str:
    """Returns the name of what computes here, as it may stand in a file's name."""
    from genlib.bench import machine, pytorch

    name = machine.cpu_model() if pytorch.device() == "cpu" else machine.gpu_model() or "gpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


# ---------------------------------------------------------------- a process for each part


# Each is imported once, by the process that the others are copies of.
IMPORTED = (
    "genlib.ladder.transformers_llm",
    "genlib.ladder.diffusion",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.transformers.pixart_transformer_2d",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.autoencoders.autoencoder_tiny",
    "diffusers.hooks",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
    "torchao.quantization",
)


def _work(pipe: Any, threads: int, limits: dict[str, Any], measure: Callable[[], Any]) -> None:
    """Measures in a new process, with the ceilings that its parent has measured."""
    import torch
    import transformers

    from genlib.bench import pytorch
    from genlib.bench.roofline import Ceilings

    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")  # what the next versions of the libraries will change
    torch.set_num_threads(threads)
    known = {getattr(torch, kind): Ceilings(**found) for kind, found in limits.items()}
    ceilings = pytorch.ceilings
    pytorch.ceilings = lambda dtype=torch.float32, on=None: known.get(dtype) or ceilings(dtype, on)
    try:
        pipe.send(measure())
    except Exception as error:
        pipe.send({"error": _said(error)})


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def apart(threads: int, limits: dict[str, Any], measure: Callable[[], Any]) -> Any:
    """Measures in a process of its own; one that dies or takes too long becomes an error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, threads, limits, measure), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is seen
    try:
        if not ours.poll(LIMIT):
            return {"error": f"stopped after {LIMIT:.0f} s"}
        return ours.recv()
    except EOFError:
        process.join()
        return {"error": f"the process ended with {process.exitcode}; -9: out of memory"}
    finally:
        process.kill()
        process.join()


# ---------------------------------------------------------------- the run


def main(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The record; genlib's own unless given.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small models, to try every line.")] = False,
    models: Annotated[str, typer.Option(help="Of diffusion.SIZES, by commas; all.")] = "",
    parts: Annotated[str, typer.Option(help="By commas: llm, images, forwards, throughput.")] = (
        ",".join(PARTS)
    ),
    rungs: Annotated[str, typer.Option(help="Of a forward, by semicolons; else see above.")] = "",
    side: Annotated[int, typer.Option(help="Of the latents; 0: see above.", min=0)] = 0,
    tokens: Annotated[int, typer.Option(help="That the language model writes.", min=1)] = 12,
    pairs: Annotated[int, typer.Option(help="Rounds of timing.", min=9)] = 9,
    seconds: Annotated[float, typer.Option(help="Begin no part after so long.")] = 3600.0,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would be done.")] = False,
) -> None:
    """Measures and writes the record."""
    from genlib import bench, files, records
    from genlib.bench import pytorch
    from genlib.ladder import diffusion, transformers_llm

    out = out or records.FOLDER / f"real-{machine()}.json"
    files.check_file(out)  # before the work, not after it
    import torch

    on = pytorch.device()
    threads = bench.threads()["cores"] if on == "cpu" else torch.get_num_threads()
    torch.set_num_threads(threads)
    chosen = [p.strip() for p in parts.split(",") if p.strip()]
    if not set(chosen) <= set(PARTS):
        raise typer.BadParameter(f"--parts {parts}: choose among {', '.join(PARTS)}.")
    names = [n.strip() for n in models.split(",") if n.strip()] or list(diffusion.SIZES)
    if not set(names) <= set(diffusion.SIZES):
        raise typer.BadParameter(f"--models {models}: choose among {', '.join(diffusion.SIZES)}.")

    environment = bench.environment()
    environment["versions"] |= {
        module.__name__: module.__version__
        for module in (torch, diffusion.diffusers, diffusion.transformers)
    }
    kept = json.loads(out.read_text()) if out.is_file() else {}
    same = {"schema": SCHEMA, "tiny": tiny, "device": on, "threads": threads}
    if any(kept.get(key) != value for key, value in same.items()):
        kept = {}
    run: dict[str, Any] = {"date": environment["date"], "load_1min": environment["load_1min"]}
    run["minutes"] = {}  # of each part: expected, and taken
    runs = [*kept.get("runs", []), run]
    environment["load_1min"] = max(each["load_1min"] for each in runs)  # the worst of all
    result: dict[str, Any] = {**same, "environment": environment, "runs": runs}
    result |= {"models": kept.get("models", {}), "llm": kept.get("llm", {})}
    result["ceilings"] = {
        str(dtype).removeprefix("torch."): vars(pytorch.ceilings(dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    start = time.perf_counter()

    def log(line: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True)

    def keep() -> None:
        result["seconds"] = round(time.perf_counter() - start, 1)
        records.write(out, result)

    def attempt(measure: Callable[[], Any]) -> Any:
        """Measures one thing; what fails is told, and the rest goes on."""
        if on == "cpu":
            return apart(threads, result["ceilings"], measure)
        try:
            return measure()
        except Exception as error:
            return {"error": _said(error)}
        finally:
            gc.collect()

    # Each part: its name, the seconds that it may take, how to measure it, where to keep it.
    planned: list[tuple[str, float, Callable[[], Any], Callable[[Any], None]]] = []
    sides = {n: side or (SIDES[n] if on == "cpu" and not tiny else None) for n in names}
    calls, batches = (11, (4,)) if on == "cpu" else (30, (4, 32))
    half = pytorch.ceilings(torch.bfloat16)

    def expect(name: str, rung: str) -> float:
        """Guesses the seconds of a part: its calls by their limits, and what is made before."""
        counted = partial(diffusion.work, name, side=sides[name], tiny=tiny)
        one = diffusion.seconds(counted(dtype=torch.bfloat16), half)
        first = 1.0 if tiny else diffusion.parameters(name) / 4e8
        if rung == "images":
            decode = diffusion.seconds(counted("decode", dtype=torch.bfloat16), half)
            return first + SLACK * (pairs + 2) * (3 * one + 1.2 * decode)
        if rung == "throughput":
            return first + SLACK * (calls + 3) * 15 * one
        ways = {"half precision": 3.5, "feature caching": 4.0, "batch of 2": 3.0, "batch of 4": 5.0}
        more = COMPILING if rung in COMPILED and (rung == "torch.compile" or on == "cuda") else 0.0
        return (
            2 * first + (0.2 if tiny else 1) * more + SLACK * (pairs + 4) * ways.get(rung, 2) * one
        )

    def model(name: str) -> dict[str, Any]:
        """Returns what is kept of a model, anew where its latents had another size."""
        size = sides[name] or (SIDES["SD 1.5"] if tiny else diffusion.SIZES[name].side)
        if result["models"].get(name, {}).get("side", size) != size:
            result["models"].pop(name)
        return result["models"].setdefault(name, {"side": size})

    def keep_images(name: str, made: Any) -> None:
        model(name).pop("images_error", None)
        model(name).update({"images_error": made["error"]} if "error" in made else made)

    def keep_forward(name: str, rung: str, made: Any) -> None:
        model(name).setdefault("forwards", {})[rung] = made.get(rung, made)

    def keep_throughput(name: str, made: Any) -> None:
        model(name)["throughput"] = made if isinstance(made, list) else [{"batch": 1, **made}]

    def keep_llm(made: Any) -> None:
        if "error" not in made:
            result["llm"] = {"tokens": tokens, **made}

    if "images" in chosen:
        for n in names:
            options: dict[str, Any] = {"tiny": tiny, "side": sides[n]}
            measure = partial(diffusion.image_rows, n, pairs=pairs, **options)
            planned.append((f"{n}, images", expect(n, "images"), measure, partial(keep_images, n)))
    late: list[Any] = []
    for n in names if "forwards" in chosen else ():
        options = {"tiny": tiny, "side": sides[n], "longest": LIMIT / 3 if on == "cpu" else None}
        some: tuple[str, ...] = (ON_PROCESSOR if on == "cpu" else ON_GPU).get(n, ())
        if tiny:
            some = diffusion.FORWARDS if n == "PixArt-α" else TINY
        some = tuple(r.strip() for r in rungs.split(";")) if rungs else some
        for rung in some:
            measure = partial(diffusion.climb, n, (rung,), pairs=pairs, **options)
            where = late if rung in COMPILED else planned
            where.append((f"{n}, {rung}", expect(n, rung), measure, partial(keep_forward, n, rung)))
    for n in names if "throughput" in chosen else ():
        if on == "cpu" and not tiny and n == "SDXL":
            continue  # as SD 1.5, at three times its weights
        most, budget = (4, 10.0) if tiny else ((64, 20.0) if on == "cpu" else (256, 10.0))
        options = {"tiny": tiny, "side": sides[n], "most": most, "budget": budget, "calls": calls}
        measure = partial(diffusion.throughput, n, **options)
        guess = min(expect(n, "throughput"), 2 * budget + 5)
        planned.append((f"{n}, throughput", guess, measure, partial(keep_throughput, n)))

    def keep_alone(name: str, made: Any) -> None:
        row = result["llm"].get("writes", {}).get(name, {})
        if "ratio" in row and isinstance(made, float):
            row["alone"] = made

    if "llm" in chosen:
        climb = partial(transformers_llm.climb, tokens, pairs=pairs, batches=batches, tiny=tiny)
        each = 2 * 25 * tokens * 135e6 * 4 / (half.gigabytes_per_second * 1e9) * pairs
        each = 30.0 if tiny else each + COMPILING
        planned.append(("llm", each, climb, keep_llm))
        ways = [n for n in transformers_llm.RUNGS if "compiled" not in n]
        ways += [f"{transformers_llm.SLOW}, batch of {b}" for b in batches]
        for way in (*ways, "llama.cpp") if on == "cpu" else ():
            if not tiny or way == ways[0]:
                measure = partial(transformers_llm.alone, way, tokens, tiny=tiny)
                planned.append((f"llm, memory of {way}", 8.0, measure, partial(keep_alone, way)))
    planned += late
    total = sum(each for _, each, *_ in planned) / 60
    log(f"{len(planned)} parts, about {total:.0f} minutes with {threads} threads; {half}")
    for title, each, measure, keep_it in planned:
        if plan:
            log(f"{title}: about {each / 60:.1f} minutes")
            continue
        if time.perf_counter() - start > seconds:
            log(f"{title}: left out, the time is over")
            continue
        began = time.perf_counter()
        made = attempt(measure)
        taken = (time.perf_counter() - began) / 60
        run["minutes"][title] = [round(each / 60, 2), round(taken, 2)]
        keep_it(made)
        keep()
        log(f"{title}: {made}")
        log(f"{title}: {each / 60:.1f} minutes expected, {taken:.1f} taken")
    print(out)


if __name__ == "__main__":
    typer.run(main)
