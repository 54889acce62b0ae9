"""Models: functions and classes over arrays; they never touch a file."""

from genlib import backend as backend  # first: it keeps TensorFlow's start-up log away
