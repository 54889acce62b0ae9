"""The ladder: every way to the same images, timed and judged. `genlib bench` runs it.

(`genlib.bench` is the measuring room, which times any callable.)

* `run`: times the rungs of a panel in alternation, and measures their quality;
* `rungs`: the ways;
* `quality`: how good images are, for the cards of weights and for the ladder;
* `bill`: what a language model costs between a prompt and an image.
"""

from genlib import backend as backend  # first: it keeps TensorFlow's start-up log away
from genlib.ladder.run import (
    FID_MARGIN,
    RIGHT_MARGIN,
    fastest,
    points,
    ratio,
    row_as_text,
    run,
    with_quality,
)

__all__ = [
    "FID_MARGIN",
    "RIGHT_MARGIN",
    "fastest",
    "points",
    "ratio",
    "row_as_text",
    "run",
    "with_quality",
]
