"""The one file that names a backend.

Keras 3 code runs on TensorFlow, JAX and PyTorch. Four things differ between them: how to
differentiate, how to compile a step, how to switch a compiler on, and how to wait for a result.
Here they are, under one signature each; everything else in `genlib` is plain Keras.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import reprlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

BACKENDS = ("tensorflow", "jax", "torch")


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silences the C++ log that TensorFlow writes on import, before any log level is read."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed, so nobody hears anything
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _fault(file: Path) -> str:
    """Returns what Keras cannot read in its file of settings; nothing if it can, or has no file."""
    accepted = {
        "backend": BACKENDS,
        "floatx": ("float16", "float32", "float64"),
        "image_data_format": ("channels_first", "channels_last"),
        "nnx_enabled": (False,),
    }
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return ""
    except RecursionError:
        return "it is nested too deeply"
    except (OSError, ValueError) as error:
        return f"it is not JSON ({error})"
    if not isinstance(found, dict):
        return "it holds no JSON object"
    if not isinstance(found.get("epsilon", 1e-7), float):
        return f"epsilon = {reprlib.repr(found['epsilon'])} is no decimal number"
    for key, values in accepted.items():
        if key in found and found[key] not in values:
            return f"{key} = {reprlib.repr(found[key])} is not {' or '.join(map(repr, values))}"
    return ""


@contextmanager
def _without_unsound_settings() -> Iterator[None]:
    """Lets Keras be imported although its file of settings is damaged: it then sees none."""
    # As Keras has it; `Path.expanduser` would raise where there is no such home.
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    fault = "" if "keras" in sys.modules else _fault(home / "keras.json")
    if not fault:
        yield
        return
    if multiprocessing.parent_process() is None:  # once, not by each worker
        logging.getLogger("genlib").warning(
            f"genlib: The settings in {home / 'keras.json'} are not used: {fault}. "
            "Mend them, or remove the file."
        )
    before = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            os.environ |= {"KERAS_HOME": before} if before is not None else {}


if (asked := os.environ.get("KERAS_BACKEND") or BACKENDS[0]) not in BACKENDS:
    raise ImportError(
        f"KERAS_BACKEND is {asked!r}, and genlib runs on {', '.join(BACKENDS)}. Set it to one of "
        "them, or unset it."
    )
for _limit in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):  # Keras reads them as it loads
    if not re.fullmatch(r"\s*\+?[0-9]+\s*", os.environ.get(_limit, "0")):
        raise ImportError(
            f"{_limit} is {os.environ[_limit]!r}, and Keras takes a whole number there. "
            "Set it to one, or unset it."
        )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no C++ log but fatal errors
# A GPU's memory as it is needed, not all of it at once: a server or a rung is a second process.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
with _without_unsound_settings(), _without_stderr():
    import keras

# What genlib's networks are made for, whatever a user's keras.json says: channels last, float32.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)

COMPILED = 16  # compiled functions that a model keeps, one for each set of options: the last used
Tensor = Any  # tf.Tensor, jax.Array or torch.Tensor
Pullback = Callable[[Tensor], tuple[list[Tensor], Tensor]]


def name() -> str:
    """Returns the backend that Keras runs on: `"tensorflow"`, `"jax"` or `"torch"`."""
    return keras.backend.backend()


def device() -> str:
    """Returns what computes: `"cpu"`, or the name of the first accelerator, say `"gpu:0"`."""
    if name() == "torch":  # keras.distribution does not cover PyTorch
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"
    accelerators = [d for d in keras.distribution.list_devices() if not d.startswith("cpu")]
    return accelerators[0] if accelerators else "cpu"


def processes() -> tuple[int, int]:
    """Returns which process of a training this is, counted from 0, and of how many."""
    if name() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def replicated() -> AbstractContextManager[Any]:
    """Lets variables that are made inside stand on all processes of a training, equal on each."""
    if processes()[1] == 1:
        return nullcontext()
    return keras.distribution.DataParallel(auto_shard_dataset=False).scope()


def spread(batch: Any) -> Any:
    """Turns a batch that every process has into one of which each process computes its own rows.

    Args:
        batch: a nest of arrays `(n, ...)`, the same on all processes; `n` is a multiple of their
            number. Of one process it is returned as it is.
    """
    index, count = processes()
    if count == 1:
        return batch
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))

    def rows(array: Any) -> Any:
        where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        mine = len(array) // count
        own = np.asarray(array)[index * mine :][:mine]
        return jax.make_array_from_process_local_data(where, own, array.shape)

    return keras.tree.map_structure(rows, batch)


def has_bfloat16() -> bool:
    """Returns whether this processor multiplies bfloat16 (AVX-512 BF16 or AMX), as Linux says."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


@contextmanager
def bfloat16_products() -> Iterator[bool]:
    """Lets large products be computed in bfloat16 on a processor; weights and sums stay float32.

    A number keeps its range and 8 of its 24 binary digits. A processor with instructions for it
    multiplies about twice as fast. Elsewhere nothing changes, nor with JAX and PyTorch, which have
    no such switch for what is already written. It holds for what runs inside of the `with` block,
    compiled before or not.

    Yields:
        Whether products are now computed so.

    Reference: Micikevicius et al., 2018, arXiv:1710.03740 (weights stay in full precision).
    """
    if name() != "tensorflow" or device() != "cpu" or not has_bfloat16():
        yield False
        return
    import tensorflow as tf

    switch = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(switch, False)
    tf.config.optimizer.set_experimental_options({switch: True})
    try:
        yield True
    finally:
        tf.config.optimizer.set_experimental_options({switch: before})


def vjp(model: keras.Model, x: Tensor) -> tuple[Tensor, Pullback]:
    """Runs a model and keeps what its backward pass needs (a vector-Jacobian product).

    Args:
        model: a built Keras model without random layers.
        x: its input, `(batch, ...)`, float32.

    Returns:
        The output `y`, and a function from a gradient of the shape of `y` to the gradients of
        the trainable variables (a list in the order of `model.trainable_variables`) and of `x`.
        Call that function once.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> y, pullback = vjp(model, keras.ops.ones((3, 2)))
        >>> (kernel, bias), dx = pullback(keras.ops.ones_like(y))
    """
    if name() == "jax":
        return _vjp_jax(model, x)
    if name() == "torch":
        return _vjp_torch(model, x)
    return _vjp_tensorflow(model, x)


def _vjp_tensorflow(model: keras.Model, x: Tensor) -> tuple[Tensor, Pullback]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x, training=True)
    variables = [v.value for v in model.trainable_variables]

    def pullback(dy: Tensor) -> tuple[list[Tensor], Tensor]:
        *gradients, dx = tape.gradient(y, [*variables, x], output_gradients=dy)
        return gradients, dx

    return y, pullback


def _vjp_jax(model: keras.Model, x: Tensor) -> tuple[Tensor, Pullback]:
    import jax

    trainable = [v.value for v in model.trainable_variables]
    frozen = [v.value for v in model.non_trainable_variables]
    y, pullback = jax.vjp(
        lambda values, x: model.stateless_call(values, frozen, x, training=True)[0], trainable, x
    )
    return y, pullback


def _vjp_torch(model: keras.Model, x: Tensor) -> tuple[Tensor, Pullback]:
    import torch

    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y = model(x, training=True)
    variables = [v.value for v in model.trainable_variables]

    def pullback(dy: Tensor) -> tuple[list[Tensor], Tensor]:
        *gradients, dx = torch.autograd.grad(y, [*variables, x], grad_outputs=dy)
        return list(gradients), dx

    return y.detach(), pullback


def named_variables(parts: Mapping[str, Any], digits: int = 2) -> dict[str, Any]:
    """Returns the variables of models and optimisers, by names that do not depend on Keras.

    Args:
        parts: name to model or optimiser.
        digits: of the number that follows the part's name, `"generator/07"`.
    """
    return {
        f"{part}/{index:0{digits}d}": variable
        for part, owner in parts.items()
        for index, variable in enumerate(owner.variables)
    }


def gradients(
    loss: Callable[[], Tensor], trainable: Sequence[Any], others: Sequence[Any] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Returns a loss and its gradients with respect to Keras variables.

    Args:
        loss: takes nothing, runs a model on what it closes over, returns a scalar.
        trainable: the variables to differentiate by.
        others: variables that `loss` updates, such as the seeds of random layers.

    Returns:
        The scalar, and one gradient for each trainable variable.

    Example:
        >>> x = keras.Variable(3.0)
        >>> value, (slope,) = gradients(lambda: x * x, [x])
        >>> float(value), float(slope)
        (9.0, 6.0)
    """
    if name() == "jax":
        return _gradients_jax(loss, list(trainable), list(others))
    if name() == "torch":
        import torch

        with torch.enable_grad():
            value = loss()
        found = torch.autograd.grad(value, [v.value for v in trainable])
        return value.detach(), list(found)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    return value, tape.gradient(value, [v.value for v in trainable])


def _gradients_jax(
    loss: Callable[[], Tensor], trainable: list[Any], others: list[Any]
) -> tuple[Tensor, list[Tensor]]:
    import jax

    def pure(values: list[Tensor], rest: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        state = zip([*trainable, *others], [*values, *rest], strict=True)
        with keras.StatelessScope(state_mapping=state) as scope:
            value = loss()
        return value, [scope.get_current_value(v) for v in others]

    values, rest = [v.value for v in trainable], [v.value for v in others]
    (value, updated), found = jax.value_and_grad(pure, has_aux=True)(values, rest)
    for variable, new in zip(others, updated, strict=True):
        variable.assign(new)
    return value, found


def check_xla(xla: bool) -> None:
    """Makes sure that what shall be compiled with XLA can be.

    Raises:
        ValueError: if `xla` is true, on PyTorch.
    """
    if xla and name() == "torch":
        raise ValueError(
            "xla=True is for TensorFlow and JAX; Keras runs on 'torch' here. "
            "Leave xla out, or set KERAS_BACKEND=tensorflow."
        )


def compile_step(
    step: Callable[..., Any], variables: Sequence[Any] = (), *, xla: bool = False
) -> Callable[..., Any]:
    """Compiles a function that reads tensors and updates Keras variables in place.

    TensorFlow traces it into a graph (`tf.function`), JAX compiles it with XLA (`jax.jit`), and
    PyTorch runs it as it is, and keeps nothing for gradients that nobody asked for.

    Args:
        step: takes arrays, may call `variable.assign`, returns a tensor or a tuple, list or
            dictionary of tensors.
        variables: every Keras variable that `step` reads or writes. Only JAX needs them: its
            functions are pure, so the values go in as arguments and come out as results.
        xla: compile a TensorFlow graph with XLA too. JAX always does. PyTorch has no XLA here.

    Returns:
        A function of the same signature.

    Raises:
        ValueError: if `xla=True` on PyTorch.
    """
    check_xla(xla)
    if name() == "torch":
        import torch

        # Without this a sampler would keep all that a backward pass through it needs. A step that
        # wants gradients switches them on, as `gradients` and `vjp` do.
        return torch.no_grad()(step)
    if name() == "jax":
        return _compile_jax(step, list(variables))
    import tensorflow as tf

    # A model compiles one function for each set of options; TensorFlow takes that for a mistake.
    logging.getLogger("tensorflow").addFilter(_is_no_advice)
    return tf.function(step, jit_compile=xla, reduce_retracing=True, autograph=False)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def _compile_jax(step: Callable[..., Any], variables: list[Any]) -> Callable[..., Any]:
    import jax

    @jax.jit
    def pure(values: list[Tensor], *arguments: Tensor) -> tuple[Any, list[Tensor]]:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)) as scope:
            result = step(*arguments)
        return result, [scope.get_current_value(v) for v in variables]

    def compiled(*arguments: Tensor) -> Any:
        result, values = pure([v.value for v in variables], *arguments)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return result

    return compiled


def compile_call(function: Callable[..., Any], variables: Sequence[Any] = ()) -> Callable[..., Any]:
    """Compiles a function that reads Keras variables and changes none, for inputs of any size.

    Where a step of training hands every variable back, this hands back results only. TensorFlow
    traces it once for all sizes (and all of them unknown inside), JAX compiles it anew for each
    size of the inputs, and PyTorch runs it as it is, without a record for gradients.

    Args:
        function: takes nests of arrays and numbers, returns a nest of tensors.
        variables: every Keras variable that `function` reads.

    Returns:
        A function of the same signature; call it with the same kinds of arguments each time.

    Example:
        >>> double = compile_call(lambda x: 2 * x)
        >>> to_numpy(double(keras.ops.ones(2)))
        array([2., 2.], dtype=float32)
    """
    return {"torch": _call_torch, "jax": _call_jax}.get(name(), _call_tensorflow)(
        function, list(variables)
    )


def _call_torch(function: Callable[..., Any], variables: list[Any]) -> Callable[..., Any]:
    import torch

    def tensor(argument: Any) -> Any:
        is_array = isinstance(argument, np.ndarray)
        return keras.ops.convert_to_tensor(argument) if is_array else argument

    @torch.no_grad()
    def call(*arguments: Any) -> Any:
        return function(*keras.tree.map_structure(tensor, arguments))

    return call


def _call_jax(function: Callable[..., Any], variables: list[Any]) -> Callable[..., Any]:
    import jax

    @jax.jit
    def pure(values: list[Tensor], arguments: Any) -> Any:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return function(*arguments)

    return lambda *arguments: pure([v.value for v in variables], arguments)


def _call_tensorflow(function: Callable[..., Any], variables: list[Any]) -> Callable[..., Any]:
    import tensorflow as tf

    def any_size(argument: Any) -> tf.TensorSpec:
        tensor = tf.convert_to_tensor(argument)
        return tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype)

    graph = None

    def compiled(*arguments: Any) -> Any:
        nonlocal graph
        if graph is None:
            sizes = keras.tree.map_structure(any_size, arguments)
            graph = tf.function(function, input_signature=sizes, autograph=False)
        return graph(*arguments)

    return compiled


def to_numpy(tree: Any) -> Any:
    """Copies every tensor of a nest (tuple, list, dict) to the host as a NumPy array."""
    return keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf, tree
    )


def synchronize(result: Any) -> Any:
    """Waits until a result is computed, and returns it as NumPy arrays on the host.

    Devices work asynchronously: without this, a clock stops when the work is queued, not done.
    """
    return to_numpy(result)


def threads() -> dict[str, int]:
    """Returns the thread counts that the backend works with (0 means: the backend decides)."""
    if name() == "tensorflow":
        import tensorflow as tf

        return {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        }
    if name() == "torch":
        import torch

        return {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
    return {}


def is_finite(values: Sequence[Any]) -> bool:
    """Returns whether every number of the given arrays is finite."""
    return all(bool(np.isfinite(keras.ops.convert_to_numpy(v)).all()) for v in values)
