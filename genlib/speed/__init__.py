"""Ways to draw the same images, or images as good, in less time.

* `count`: operations and bytes of a model, to predict with;
* `decode`: speculative and parallel decoding;
* `distill`: students of the flow and of image GPT;
* `sparse`, `prune`, `heal`: single weights, whole channels and heads, and what heals a cut;
* `quantize`, `export`: eight bits by hand; files that other engines run;
* `cache`, `batching`, `load`: nothing twice, many at once, and how it holds;
* `bill`: what a language model costs on the way from a prompt to a PNG.
"""
