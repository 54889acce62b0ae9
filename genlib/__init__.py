"""genlib: the library of the book *Image Generation at Speed*.

Read it bottom-up, a room imports only from lower floors:

* floor 0: `data`, `metrics`, `bench`, `plot`, `weights`, `backend` know arrays and files;
* floor 1: `models` know arrays, never files;
* floor 3: `train` turns recipes into weights;
* floor 4: `cli` is what you type.
"""

__version__ = "0.1.0"
