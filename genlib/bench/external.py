"""Your own pipeline under the bench's rules: a callable that is named `module:function`.

The callable takes nothing and returns its result. Before it is timed, it is looked at: it must be
found, must run, must return something, and must return the same twice, because a callable whose
output changes may also change how much it does. Memory that ends is a row of the result, not a
crash: the most that fits is what one wants to know.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genlib import ranges
from genlib.bench.machine import environment
from genlib.bench.memory import Peak, is_lack, peak
from genlib.bench.notebook import format_ratio, format_seconds
from genlib.bench.roofline import Ceilings, share_of_limit
from genlib.bench.roofline import ceilings as keras_ceilings
from genlib.bench.timing import MIN_PAIRS, Comparison, Record, compare, measure

SCHEMA = "genlib.callable/1"
SAME = 0.01  # two results are one if they differ by less than this share: a GPU rounds as it likes
_LIBRARIES = ("accelerate", "diffusers", "jax", "tensorflow", "torch", "transformers")


class CallableError(ValueError):
    """A callable that cannot be measured; the message says why and what to do."""


def load(name: str) -> Callable[[], Any]:
    """Finds a callable by its name.

    Args:
        name: `module:function`; the module may be a file in the current folder, and the function
            an attribute with dots.

    Raises:
        CallableError: if it is not found, cannot be called, or needs arguments.

    Example:
        >>> load("os:getpid")() > 0
        True
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise CallableError(
            f"{name!r} names no callable. Give module:function, such as mine:draw for draw in "
            "mine.py."
        )
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        missing = f"There is no module {error.name!r}, which {name!r} needs"
        raise CallableError(f"{missing}. Install it, or start in its folder.") from error
    except AttributeError as error:
        raise CallableError(f"{name!r} is not there: {error}. Check the spelling.") from error
    except Exception as error:
        raise CallableError(
            f"Importing {module_name!r} raised {_said(error)}. Mend that first."
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        raise CallableError(f"{name!r} is a {type(found).__name__}. Name a function.")
    needed = _needed(found)
    if needed:
        raise CallableError(
            f"{name!r} needs arguments: {', '.join(needed)}. Name a function that takes none; let "
            "it call this one."
        )
    return found


def _needed(fn: Callable[..., Any]) -> list[str]:
    """Returns the parameters that must be given."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def leaves(result: Any) -> Iterator[Any]:
    """Yields the arrays, texts and numbers of a result, in order; arrays still on their device.

    Args:
        result: tensors of any library, arrays, images, texts, numbers, or lists, tuples, mappings
            and data classes of them, as pipelines return.

    Raises:
        CallableError: if there is something else in it.
    """
    if result is None or isinstance(result, (str, bytes, bool, int, float, complex)):
        yield result
    elif isinstance(result, Mapping):
        for key in result:
            yield from leaves(result[key])
    elif isinstance(result, (list, tuple)):
        for part in result:
            yield from leaves(part)
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        for field in dataclasses.fields(result):
            yield from leaves(getattr(result, field.name))
    elif hasattr(result, "shape") or hasattr(result, "__array_interface__"):  # PIL has the latter
        yield result
    else:
        raise CallableError(
            f"The callable returned a {type(result).__name__}, which cannot be compared. Return "
            "tensors, arrays, images, texts or numbers, or lists of them."
        )


def wait(result: Any) -> Any:
    """Waits until a result of PyTorch, JAX or TensorFlow is computed, and returns it as it is."""
    if "torch" in sys.modules:
        from genlib.bench import pytorch  # late: PyTorch is an extra, and slow to import

        pytorch.synchronize()
    for leaf in leaves(result):
        if hasattr(leaf, "block_until_ready"):  # JAX
            leaf.block_until_ready()
        elif type(leaf).__module__.startswith("tensorflow"):
            leaf.numpy()
    return result


def on_host(result: Any) -> list[Any]:
    """Returns the leaves of a result, every array as NumPy's: float64 unless whole numbers."""
    found: list[Any] = []
    for leaf in leaves(result):
        if leaf is None or isinstance(leaf, (str, bytes, bool, int, float, complex)):
            found.append(leaf)
            continue
        if hasattr(leaf, "detach"):  # PyTorch; NumPy does not know bfloat16
            leaf = leaf.detach().cpu()
            leaf = leaf.double() if leaf.is_floating_point() else leaf
        array = np.asarray(leaf)
        found.append(array if array.dtype.kind in "iub" else array.astype(np.float64))
    return found


def difference(first: list[Any], second: list[Any]) -> float:
    """Returns how far two results are apart: 0 for the same, infinite where they cannot be alike.

    Args:
        first: as `on_host` returns it.
        second: likewise.

    Returns:
        The largest share, over the leaves, of the root mean square difference in the root mean
        square value.
    """
    if len(first) != len(second):
        return np.inf
    most = 0.0
    for a, b in zip(first, second, strict=True):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape:
            if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                continue
            if a.dtype.kind in "iub" and a.dtype != np.uint8:  # tokens are the same or others
                return np.inf
            x, y = a.astype(np.float64), b.astype(np.float64)
            size = float(np.sqrt(np.mean(x**2))) or 1.0
            apart = float(np.sqrt(np.mean((x - y) ** 2))) / size
            most = max(most, apart if np.isfinite(apart) else np.inf)
        elif isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or a != b:
            return np.inf
    return most


@dataclass(frozen=True)
class Look:
    """What was seen of a callable before it was timed.

    Attributes:
        first_call: s; imports, compiles, and loads what later calls have.
        peak: memory of the first call.
        output: of the first call, on the host.
    """

    first_call: float
    peak: Peak
    output: list[Any]


def look(fn: Callable[[], Any], name: str) -> Look:
    """Calls a callable twice, and says what is wrong with it, if anything is.

    Raises:
        CallableError: if it raises, returns nothing, or returns something else the second time.
        MemoryError: if memory is too short for it.
    """
    seconds = []

    def call() -> Any:
        record = measure_once(fn)
        seconds.append(record[1])
        return record[0]

    try:
        made, memory = peak(call)
        if made is None:
            raise CallableError(
                f"{name!r} returned nothing. Let it return its result, so that the clock can wait "
                "for it."
            )
        first = on_host(made)
        del made
        second = on_host(call())
    except CallableError:
        raise
    except Exception as error:
        if is_lack(error):
            raise MemoryError(_said(error)) from error
        raise CallableError(f"{name!r} raised {_said(error)}. Mend that first.") from error
    apart = difference(first, second)
    if apart > SAME:
        how = "in kind or in whole numbers" if np.isinf(apart) else f"by {apart:.0%}"
        raise CallableError(
            f"{name!r} returned something else at its second call (other {how}). Fix its seed and "
            "its inputs, so that every call does the same work."
        )
    return Look(seconds[0], memory, first)


def measure_once(fn: Callable[[], Any]) -> tuple[Any, float]:
    """Calls a function and waits for its result; returns the result and the seconds."""
    start = time.perf_counter()
    result = wait(fn())
    return result, time.perf_counter() - start


def run(name: str, against: str | None = None, pairs: int = MIN_PAIRS) -> dict[str, Any]:
    """Measures a callable, alone or in alternation with another one.

    Args:
        name: `module:function`.
        against: of the other one, which becomes the baseline.
        pairs: timed calls, or rounds of both.

    Returns:
        What JSON can hold: the environment and the device's ceilings, a row for each callable, and
        with two of them `"ratio"` (how many times as fast the first one is, with its interval) and
        `"difference"` of their outputs (None where they cannot be alike). A row has the seconds
        of the first call and of later ones, memory, and the share of the limit where PyTorch's
        work can be counted, with the device and the numbers whose limit it is (`"limit_of"`; the
        `"ceilings"` of the whole are those of float32); or `"error"`, where memory was too short.

    Raises:
        CallableError: if a callable cannot be measured.
        ValueError: if `pairs` is out of its range in `genlib.ranges`, or both are the same.
    """
    ranges.check("pairs", pairs)
    if name == against:
        raise CallableError(f"{name!r} is given twice. Name two callables, or leave out one.")
    names = [name] if against is None else [against, name]
    functions = {n: load(n) for n in names}
    rows: dict[str, dict[str, Any]] = {}
    outputs = {}
    for n, fn in functions.items():
        try:
            seen = look(fn, n)
        except MemoryError as error:
            rows[n] = {"error": "out of memory", "said": str(error)}
            continue
        outputs[n] = seen.output
        rows[n] = {"first_call": seen.first_call, "memory": dataclasses.asdict(seen.peak)}
    result: dict[str, Any] = {"schema": SCHEMA, "environment": _environment(), "rows": rows}
    fit = {n: functions[n] for n in outputs}
    try:
        records = _time(fit, pairs, result)
    except Exception as error:
        if not is_lack(error):
            raise
        for n in fit:  # each by itself had its memory
            rows[n] |= {"error": "out of memory while timed", "said": _said(error)}
        return result
    if records:
        result["ceilings"] = dataclasses.asdict(_limits())
    for n, record in records.items():
        rows[n] |= {"seconds": [record.median, *record.interval], "calls": record.calls}
        rows[n]["work"] = _work(functions[n], record.median)
    if len(outputs) == 2:
        apart = difference(outputs[names[0]], outputs[names[1]])
        result["difference"] = apart if np.isfinite(apart) else None
    return result


def _time(
    functions: Mapping[str, Callable[[], Any]], pairs: int, result: dict[str, Any]
) -> Mapping[str, Record]:
    if len(functions) == 2:
        found = compare(functions, pairs=pairs, warmup=0, sync=wait)
        ratio = found.only()
        result["ratio"] = [ratio.ratio, ratio.low, ratio.high]
        result["times"] = json.loads(found.to_json())
        return found.records
    for name, fn in functions.items():
        record = measure(fn, name=name, repeats=pairs, warmup=0, sync=wait)
        result["times"] = json.loads(Comparison(name, {name: record}, record.environment).to_json())
        return {name: record}
    return {}


def _environment() -> dict[str, Any]:
    """Returns the bench's environment, and the versions of what the callables have loaded."""
    env = environment()
    loaded = {
        n: getattr(sys.modules[n], "__version__", "?") for n in _LIBRARIES if n in sys.modules
    }
    env["versions"] |= loaded
    return env


def _limits() -> Ceilings:
    if "torch" in sys.modules:
        from genlib.bench import pytorch  # late: PyTorch is an extra, and slow to import

        return pytorch.ceilings()
    return keras_ceilings()


def _work(fn: Callable[[], Any], seconds: float) -> dict[str, Any] | None:
    """Counts what PyTorch multiplies in a call; None where nothing is seen of it.

    Its limit is that of the numbers that it multiplies most: products of half precision have
    another ceiling than those of float32.
    """
    if "torch" not in sys.modules:
        return None
    from genlib.bench import pytorch  # late: PyTorch is an extra, and slow to import

    try:  # last of all: a function that is compiled would from now on run uncompiled
        work, kind = pytorch.count_with_dtype(fn)
        if kind is None or not work.flops:
            return None
        limits = pytorch.ceilings(kind) if kind.is_floating_point else pytorch.ceilings()
    except Exception as error:  # the count is an extra, and some functions allow no witness
        return {"not_counted": _said(error)}
    share = share_of_limit(work.flops, work.moved_bytes, seconds, limits)
    return {
        "limit_of": limits.device,
        "flops": work.flops,
        "moved_bytes": work.moved_bytes,
        "bound": share.bound,
        "share_of_limit": share.share,
    }


def _said(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def lines(result: Mapping[str, Any]) -> list[str]:
    """Writes what `run` returned as lines for people."""
    written = []
    for name, row in result["rows"].items():
        if "error" in row:
            written.append(f"{name}: {row['error']} ({row['said']})")
            continue
        memory = Peak(**row["memory"])
        parts = [
            f"{format_seconds(*row['seconds'])} a call",
            f"first call {format_seconds(row['first_call'])}",
            str(memory),
        ]
        work = row["work"]
        if work and "flops" in work:
            parts.append(
                f"{work['flops'] / 1e9:.3g} GFLOP, {work['moved_bytes'] / 1e9:.3g} GB in products: "
                f"{work['share_of_limit']:.0%} of the limit of {work['limit_of']} "
                f"({work['bound']}-bound)"
            )
        written.append(f"{name}: {', '.join(parts)}")
    if "ratio" in result:
        baseline, name = result["rows"]
        apart = result["difference"]
        alike = "outputs of different kinds" if apart is None else f"outputs differ by {apart:.2%}"
        written.append(f"{name} is {format_ratio(*result['ratio'])} as fast as {baseline}; {alike}")
    if "ceilings" in result:
        written.append(f"ceilings: {Ceilings(**result['ceilings'])}")
    return written
