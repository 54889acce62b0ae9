"""genlib: the library of the book *Image Generation at Speed*.

Read it bottom-up, a room imports only from lower floors (`tests/test_floors.py` holds it so):

* floor 1: `backend`, `files`, `metrics` know arrays, never a model; `ranges` knows numbers;
* floor 2: `data`, `weights`, `plot`: what goes in, is kept, is shown; `origin`: where it came from;
* floor 3: `models` are networks and how to sample from them;
* floor 4: `bench` times callables, `pretrained` loads weights, `text` writes and reads;
* floor 5: `pipeline` leads from a prompt to images, `speed` makes that faster, `records` remember,
  `doctor` looks at what is installed;
* floor 6: `train` makes weights, `serve` offers images over HTTP, `bulk` makes those of a million
  prompts;
* floor 7: `ladder` times and judges every way to the same images;
* floor 8: `cli` is what you type.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["generate"]


def __getattr__(name: str) -> Any:
    if name == "generate":
        from genlib.pipeline import generate  # late: importing a framework takes seconds

        return generate
    raise AttributeError(f"module 'genlib' has no attribute {name!r}")
