"""A low-rank adapter: few weights that are trained beside the frozen ones of a flow."""

from __future__ import annotations

import keras

from genlib.models.flow import Flow


def with_adapter(flow: Flow, rank: int = 4) -> tuple[Flow, list[keras.layers.Layer]]:
    """Copies a flow and freezes all of the copy but adapters, which are new.

    An adapted layer multiplies by its matrix plus `a @ b`. The first factor is drawn, the second
    is zero, so that the copy draws what the flow draws until it is trained.

    Args:
        flow: a model; it stays as it is.
        rank: columns of `a` and rows of `b`, at least 1.

    Returns:
        The copy, and its layers with an adapter, whose factors are `layer.lora_kernel_a` and
        `layer.lora_kernel_b`.

    Raises:
        ValueError: if `rank` is below 1.

    Reference: Hu et al., 2022, arXiv:2106.09685, section 4.1.
    """
    if rank < 1:
        raise ValueError(f"rank = {rank}; give a whole number of at least 1.")
    copy = Flow(flow.config)
    copy.set_weights(flow.get_weights())
    for variable in copy.variables:
        variable.trainable = False
    adapted = [copy.read, copy.head]
    for block in copy.transformer.blocks:
        adapted += [block.qkv, block.out, block.gate_up, block.down, block.modulation]
    for i, layer in enumerate(adapted):
        start = keras.initializers.RandomNormal(stddev=0.02, seed=i)
        layer.enable_lora(rank, a_initializer=start)
    return copy, adapted
