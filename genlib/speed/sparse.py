"""Unstructured pruning: set single weights to zero, wherever they are small.

A matrix with zeros in it is still a matrix: a dense product multiplies the zeros too. What shrinks
is the file, once it is compressed. `Masks` hold the zeros in place while training goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save as to_safetensors

from genlib import backend, weights


class Masks:
    """Which weights of a model are kept.

    Attributes:
        variables: those that are pruned.
        kept: for each of them, bool of its shape.
    """

    def __init__(self, variables: Sequence[Any], kept: Sequence[np.ndarray]) -> None:
        self.variables, self.kept = list(variables), list(kept)

    def apply(self) -> None:
        """Sets the weights that are not kept to zero, and constrains them to stay there.

        Keras applies the constraint of a variable after each step of its optimizer.
        """
        for variable, kept in zip(self.variables, self.kept, strict=True):
            factor = kept.astype(variable.dtype)
            variable.assign(variable * factor)
            variable.constraint = lambda weights, factor=factor: weights * factor

    @property
    def sparsity(self) -> float:
        """Share of zeros among the pruned variables' weights."""
        return 1 - sum(k.sum() for k in self.kept) / sum(k.size for k in self.kept)


def magnitude_masks(model: keras.Model, sparsity: float, per_layer: bool = False) -> Masks:
    """Chooses the smallest weights of a model's matrices and kernels; biases and scales stay.

    Args:
        model: a built model; it is not changed before `Masks.apply`.
        sparsity: share of the weights to zero, in [0, 1).
        per_layer: zero this share of each matrix; else of all together, so that a layer of small
            weights loses more.

    Returns:
        The masks.

    Raises:
        ValueError: if the share is out of range, or the model has no matrices.

    Reference: Han et al., 2015, arXiv:1506.02626.
    """
    variables = [v for v in model.trainable_variables if len(v.shape) > 1]
    if not 0 <= sparsity < 1 or not variables:
        raise ValueError(
            f"sparsity = {sparsity} of {len(variables)} matrices; give a share from 0 to below 1, "
            "and a built model with trainable matrices."
        )
    sizes = [np.abs(backend.to_numpy(v.value)) for v in variables]
    everything = np.concatenate([s.ravel() for s in sizes])
    bounds = [np.quantile(s if per_layer else everything, sparsity, method="higher") for s in sizes]
    return Masks(variables, [s >= b for s, b in zip(sizes, bounds, strict=True)])


def file_bytes(model: keras.Model, dtype: str = "float16", compress: bool = False) -> int:
    """Returns the size of a model's weights as a safetensors file, in bytes.

    Args:
        model: a built model.
        dtype: of the weights in the file.
        compress: pack it with zlib, which finds the zeros.
    """
    content = to_safetensors(weights.model_arrays(model, dtype))
    return len(zlib.compress(content, 9)) if compress else len(content)
