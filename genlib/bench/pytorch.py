"""PyTorch in the measuring room: its device and how to wait for it, its ceilings, work counted.

The other files of this package work on whatever Keras runs on. A pipeline of transformers or
diffusers is PyTorch's, whatever that is, so the bench asks PyTorch here. It is imported by its
own name, because PyTorch is an extra.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from genlib.bench.count import Work
from genlib.bench.machine import cpu_model, gpu_model, usable_cores
from genlib.bench.roofline import Ceilings
from genlib.bench.timing import measure


def device() -> str:
    """Returns where PyTorch computes fastest here: `"cuda"`, `"mps"` or `"cpu"`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def synchronize(result: Any = None) -> Any:
    """Waits until the device has done all that was asked of it; returns the result as it is."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
    return result


def ceilings(dtype: torch.dtype = torch.float32, on: str | None = None) -> Ceilings:
    """Measures what PyTorch can do at most on a device, once per process.

    As `genlib.bench.ceilings`: square matrices are multiplied, a block that no cache holds is
    copied, and the best run counts.

    Args:
        dtype: of the matrices.
        on: `"cpu"`, `"cuda"` or `"mps"`; `device()` unless given.
    """
    return _ceilings(dtype, on or device())


@functools.cache
def _ceilings(dtype: torch.dtype, on: str) -> Ceilings:
    n, numbers = (1536, 2**25) if on == "cpu" else (8192, 2**28)
    a = torch.randn(n, n, device=on).to(dtype)
    source = torch.ones(numbers, device=on)
    target = torch.zeros_like(source)  # written once, so that the pages exist

    def best(fn: Callable[[], Any]) -> float:
        return min(measure(fn, repeats=7, warmup=1, sync=synchronize).seconds)

    with torch.inference_mode():
        product, copy = best(lambda: a @ a), best(lambda: target.copy_(source))
    name = f"{cpu_model()}, {len(usable_cores())} cores" if on == "cpu" else gpu_model() or on
    kind = str(dtype).removeprefix("torch.")
    moved = 2 * source.nbytes
    return Ceilings(f"{name}, {kind}", 2 * n**3 / product / 1e9, moved / copy / 1e9)


def count(fn: Callable[[], Any], *, fused: bool = True) -> Work:
    """Runs a function of PyTorch once and counts its products, as `genlib.bench.count` does.

    Bytes are those of the numbers as they are: a product in bfloat16 moves half of float32's.
    On the device `"meta"` nothing is computed and no memory needed, so that the work of a model of
    any size can be counted anywhere.

    Args:
        fn: takes nothing. What it runs must not be compiled: that hides its products.
        fused: attention is one operation, which reads queries, keys and values and writes its
            output; else the scores are written and read again, as two products.

    Returns:
        Operations and bytes of products of matrices, convolutions and attention.

    Example:
        >>> count(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
        Work(flops=60, moved_bytes=124)
    """
    return count_with_dtype(fn, fused=fused)[0]


def count_with_dtype(
    fn: Callable[[], Any], *, fused: bool = True
) -> tuple[Work, torch.dtype | None]:
    """Counts as `count` does, and says in which numbers most of it is multiplied.

    Returns:
        The work, and the type of the numbers; None if nothing is multiplied.
    """
    products = _Products()
    with torch.inference_mode(), products, _Attention(products, fused):
        fn()
    kinds = products.flops_of
    most = max(kinds, key=lambda kind: kinds[kind], default=None)
    return Work(sum(kinds.values()), products.moved_bytes), most


class _Products(TorchDispatchMode):
    """Sees every operation that PyTorch runs, and counts the products among them."""

    def __init__(self) -> None:
        super().__init__()
        self.flops_of: dict[torch.dtype, int] = {}
        self.moved_bytes, self.paused = 0, False

    def add(self, flops: int, moved_bytes: int, kind: torch.dtype) -> None:
        """Adds a product of numbers of a kind."""
        self.flops_of[kind] = self.flops_of.get(kind, 0) + flops
        self.moved_bytes += moved_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = func._overloadpacket
        if kind not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # an operation that is made of others
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        out = func(*args, **kwargs)
        if kind in flop_registry and not self.paused:
            flops = flop_registry[kind](*args, **kwargs, out_val=out)
            dtype = next(t.dtype for t in tree_leaves(args) if isinstance(t, torch.Tensor))
            self.add(flops, _bytes((args, kwargs, out)), dtype)
        return out


class _Attention(TorchFunctionMode):
    """Counts attention as a whole, before PyTorch chooses what to make of it."""

    def __init__(self, products: _Products, fused: bool) -> None:
        self.products, self.fused = products, fused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.products.paused = True
        out = func(*args, **kwargs)
        self.products.paused = False
        names = ("query", "key", "value")
        q, k, v = (kwargs[n] if n in kwargs else args[i] for i, n in enumerate(names))
        width = q.shape[-1]
        scores = q.numel() // width * k.shape[-2]
        again = 0 if self.fused else 2 * scores * q.element_size()
        moved = _bytes((q, k, v, out)) + again
        self.products.add(2 * scores * (width + v.shape[-1]), moved, q.dtype)
        return out


def _bytes(tree: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)
