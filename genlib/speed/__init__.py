"""Ways to draw the same images, or images as good, in less time.

* `decode`: speculative and parallel decoding;
* `sparse`, `prune`: single weights, and whole channels, heads and blocks, left out;
* `quantize`, `export`: eight bits by hand; files that other engines run.

Other rooms help: `genlib.bench.count` predicts, `genlib.train` has students (`distill`) and what
heals a cut (`heal`), `genlib.serve` draws nothing twice and many at once.
"""

from genlib import backend as backend  # first: it keeps TensorFlow's start-up log away
