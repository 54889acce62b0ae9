"""genlib: the library of the book *Image Generation at Speed*.

Read it bottom-up, a room imports only from lower floors:

* floor 0: `data`, `metrics`, `bench`, `plot`, `weights`, `backend` know arrays and files;
* floor 1: `models` are networks and how to sample from them;
* floor 2: `text` writes descriptions and reads them;
* floor 3: `recipes` and `train` make weights, `quality` measures them, `improve` goes on;
* floor 4: `pipeline` leads from a prompt to images;
* floor 5: `speed` makes that faster, `ladder` measures all ways, `serve` offers one over HTTP;
* floor 6: `cli` is what you type.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["generate"]


def __getattr__(name: str) -> Any:
    if name == "generate":  # imported late: `import genlib` shall not wait for a framework
        from genlib.pipeline import generate

        return generate
    raise AttributeError(f"module 'genlib' has no attribute {name!r}")
