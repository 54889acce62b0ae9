"""The training room: recipes become weights, by one loop for all of them.

* `loop`: `run` trains any `Task`, stops cleanly, and goes on where it stopped;
* `tasks`: what fits a Keras model to prepared arrays: tokenizer, image GPT, coarse to fine, flow;
* `judges`, `gan`, `vae`, `text_student`: tasks of the other networks;
* `distill`, `heal`: students of larger networks;
* `rejection`: a model learns from the best of its own images;
* `processes`: one training on several processes;
* `registry`: the recipes by name, and `export`.
"""

from genlib import backend as backend  # first: it keeps TensorFlow's start-up log away
from genlib.train.gan import GANTask
from genlib.train.loop import State, Task, TrainingDiverged, run

__all__ = ["GANTask", "State", "Task", "TrainingDiverged", "run"]
