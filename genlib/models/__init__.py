"""Models: functions and classes over arrays; they never touch a file."""

# The backend is imported first: it silences what TensorFlow's C++ code writes on import.
from genlib import backend as backend
