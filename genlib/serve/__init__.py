"""The serving room: one server (`genlib serve`), and the load that tests it.

* `app`: HTTP in front of the pipeline;
* `batching`: requests that come at about the same time are worked on together;
* `cache`: images that were drawn before;
* `load`: requests that come at random times.
"""
