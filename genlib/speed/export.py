"""Export: the fast path as one file that runs without Keras.

A file holds the graph and its weights. ONNX Runtime runs `.onnx`, LiteRT runs `.tflite`; both are
small, start in milliseconds and know integers of eight bits. A file is made from examples of its
inputs: their names, shapes and types. The first axis is the batch, and stays open.

TensorFlow writes both kinds of file, so Keras has to run on it here. Who runs them needs neither.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib import backend, ranges
from genlib.files import write_atomic
from genlib.models.flow import Flow, guided_steps, shifted
from genlib.models.tokenizer import to_space

OPSET = 18  # of ONNX: the version of the set of operations
Run = Callable[..., np.ndarray]


def to_onnx(function: Callable[..., Any], path: str | Path, **examples: np.ndarray) -> int:
    """Writes a model, or a function of tensors, as an ONNX file.

    Args:
        function: takes tensors in the order of the examples, returns one tensor. A Keras model
            with one input is such a function.
        path: where.
        **examples: an array for each input, of which name, shape and dtype count. The first axis
            is the batch: any size will do later.

    Returns:
        The size of the file in bytes.

    Raises:
        RuntimeError: if Keras runs on another backend than TensorFlow.
        ValueError: if there is no example, or one without a batch axis.

    Example:
        >>> to_onnx(load_tokenizer().decoder, "decoder.onnx", latents=np.zeros((1, 16, 16, 4), "f"))
        1278427
    """
    traced, signature = _trace(function, examples)
    import tf2onnx

    with _quiet():
        model, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    content = model.SerializeToString()
    write_atomic(Path(path), content)
    return len(content)


def to_litert(
    function: Callable[..., Any],
    path: str | Path,
    *,
    int8: bool = False,
    fixed: bool = False,
    **examples: np.ndarray,
) -> int:
    """Writes a model, or a function of tensors, as a LiteRT (TensorFlow Lite) file.

    Args:
        function: as for `to_onnx`.
        path: where.
        int8: store the weights of products and convolutions as int8, a scale for each channel,
            and round what meets them to int8 as it comes (dynamic range quantization).
        fixed: write it for the batch of the examples, and no other, as LiteRT.js asks.
        **examples: as for `to_onnx`.

    Returns:
        The size of the file in bytes.

    Raises:
        RuntimeError, ValueError: as `to_onnx`.
    """
    traced, _ = _trace(function, examples, fixed)
    import tensorflow as tf

    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [traced.get_concrete_function()]
        )
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content = bytes(converter.convert())
    write_atomic(Path(path), content)
    return len(content)


def onnx_session(path: str | Path, threads: int = 2) -> Run:
    """Opens an ONNX file for running on the CPU.

    Args:
        path: of the file.
        threads: that a call uses. They sleep between calls: by default ONNX Runtime lets them
            spin, which steals the time of whatever runs next.

    Returns:
        A function of arrays, in the order of the file's inputs, that returns its first output.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    import onnxruntime

    _check_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*arrays: np.ndarray) -> np.ndarray:
        return session.run(None, dict(zip(names, arrays, strict=True)))[0]

    return run


def litert_session(path: str | Path, threads: int = 2) -> Run:
    """Opens a LiteRT file for running on the CPU; arguments and result as of `onnx_session`.

    The first call of each batch size plans the memory anew, which takes milliseconds.
    """
    from ai_edge_litert.interpreter import Interpreter

    _check_file(path)
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    places = [place["index"] for place in interpreter.get_input_details()]
    output = interpreter.get_output_details()[0]["index"]
    planned: list[tuple[int, ...]] = []

    def run(*arrays: np.ndarray) -> np.ndarray:
        shapes = [array.shape for array in arrays]
        if shapes != planned:
            for place, shape in zip(places, shapes, strict=True):
                interpreter.resize_tensor_input(place, shape, strict=True)
            interpreter.allocate_tensors()
            planned[:] = shapes
        for place, array in zip(places, arrays, strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def int8(
    path_in: str | Path,
    path_out: str | Path,
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> int:
    """Turns an ONNX file of floats into one of int8.

    Args:
        path_in: what `to_onnx` wrote.
        path_out: where.
        calibration: None quantizes the products of matrices, and rounds what meets them as it
            comes (dynamic). Examples of the inputs, each `{name: array}`, quantize convolutions
            too: what meets them is rounded with scales fixed beforehand, from these examples
            (static). A convolution with dynamic scales is slower than with floats.

    Returns:
        The size of the file in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    from onnxruntime import quantization as q

    _check_file(path_in)
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        ready, made = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        q.shape_inference.quant_pre_process(str(path_in), str(ready), skip_symbolic_shape=True)
        if calibration is None:
            q.quantize_dynamic(ready, made, op_types_to_quantize=["MatMul", "Gemm"])
        else:
            q.quantize_static(
                str(ready), str(made), _reader(calibration), quant_format=q.QuantFormat.QDQ,
                per_channel=True, weight_type=q.QuantType.QInt8,
                activation_type=q.QuantType.QUInt8,
            )  # fmt: skip
        content = made.read_bytes()
    write_atomic(Path(path_out), content)
    return len(content)


def flow_function(
    flow: Flow,
    decoder: keras.Model,
    *,
    steps: int,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Any, Any], Any]:
    """Returns a flow's whole way from noise to pixels as one function, its steps unrolled.

    It does what `Flow.sample` and `Tokenizer.decode` do, in tensors, so that it fits in one file.
    An unrolled loop grows with the number of steps: it is meant for few.

    Args:
        flow: a flow or a shortcut.
        decoder: of the tokenizer, `load_tokenizer().decoder`.
        steps: Euler steps.
        guidance: see `Flow.sample`; 1 for a shortcut.
        interval: see `Flow.sample`.

    Returns:
        A function of `noise`, float32 `(n, 16, 16, channels)` as `sampling.normals` draws it, and
        `text`, embeddings `(n, text_width)`, to uint8 `(n, 64, 64, 3)`.

    Raises:
        ValueError: if a number is out of its range, or a shortcut is to be guided.

    Example:
        >>> draw = flow_function(flow, load_tokenizer().decoder, steps=4, guidance=3.0)
        >>> to_onnx(draw, "flow.onnx", noise=np.zeros((1, 16, 16, 4), "f"), text=embedded)
    """
    ranges.check_all(steps=steps, guidance=guidance)
    ranges.check_interval(interval)
    if flow.config.shortcut and guidance != 1:
        raise ValueError(
            f"guidance = {guidance}: give 1 to a shortcut, which has learnt its own guidance."
        )
    first, last = guided_steps(steps, guidance, interval)

    def draw(noise: Any, text: Any) -> Any:
        x = noise
        for step in range(steps):
            here = guidance if first <= step < last else 1.0
            time, after = (shifted(i / steps, flow.config.shift) for i in (step, step + 1))
            x = flow.step(x, text, time, after - time, here, "euler")
        latents = ops.clip(x * flow.config.spread, -1, 1)
        pixels = (ops.clip(decoder(latents), -1, 1) + 1) * 127.5
        return ops.cast(ops.round(pixels), "uint8")

    return draw


def streamline(generator: keras.Model) -> keras.Model:
    """Returns a generator that computes the same from operations that engines do fast.

    A transposed convolution of kernel 4 and stride 2 makes a block of 2×2 pixels at each place,
    each pixel from 2×2 neighbours: four ordinary convolutions of kernel 2, one for each pixel of
    the block, and a rearrangement. No engine here has fast integers for the transposed kind, and
    all have them for the ordinary one. Group normalisation becomes one scale and one shift for
    each channel, from sums over places. The sums are the same, in another order.

    Args:
        generator: a functional model without branches whose `Conv2DTranspose` layers have kernel
            4, stride 2 and padding "same"; the shipped one and those pruned from it.

    Raises:
        ValueError: if a transposed convolution has another shape.

    Reference: Shi et al., 2016, arXiv:1609.07009.
    """
    x = z = keras.Input(generator.input_shape[1:])
    for layer in generator.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        if isinstance(layer, layers.GroupNormalization):
            x = _ScaleAndShift(layer)(x)
            continue
        if not isinstance(layer, layers.Conv2DTranspose):
            x = layer(x)
            continue
        if (layer.kernel_size, layer.strides, layer.padding) != ((4, 4), (2, 2), "same"):
            raise ValueError(
                f"{layer.name!r} has kernel {layer.kernel_size}, stride {layer.strides} and "
                f"padding {layer.padding!r}; give kernel 4, stride 2 and padding 'same'."
            )
        x = _subpixel(layer, x)
    return keras.Model(z, x, name=f"{generator.name}_streamlined")


class _ScaleAndShift(layers.Layer):
    """A trained group normalisation of images, `(n, height, width, channels)`."""

    def __init__(self, norm: layers.GroupNormalization) -> None:
        super().__init__()
        self.gamma, self.beta = (
            backend.to_numpy(v.value).reshape(norm.groups, -1) for v in (norm.gamma, norm.beta)
        )
        self.epsilon = norm.epsilon

    def call(self, x: Any) -> Any:
        mean = self._of_groups(ops.mean(x, (1, 2)))
        variance = self._of_groups(ops.mean(x * x, (1, 2))) - mean * mean
        factor = self.gamma / ops.sqrt(ops.maximum(variance, 0) + self.epsilon)
        shift = self.beta - mean * factor
        factor, shift = (ops.reshape(a, (-1, 1, 1, self.gamma.size)) for a in (factor, shift))
        return x * factor + shift

    def _of_groups(self, means: Any) -> Any:
        """Averages the channels of each group: `(n, channels)` → `(n, groups, 1)`."""
        return ops.mean(ops.reshape(means, (-1, *self.gamma.shape)), -1, keepdims=True)


# Which of a kernel's four numbers reach the even pixel of a block, and which the odd one, from
# the neighbour before to the one after: pixel y takes number y + 1 - 2i of the place i.
_TAPS = ((3, 1), (2, 0))


def _subpixel(layer: layers.Conv2DTranspose, x: Any) -> Any:
    kernel, bias = (backend.to_numpy(v.value) for v in (layer.kernel, layer.bias))
    _, height, width, _ = x.shape
    padded = layers.ZeroPadding2D(1)(x)
    phases = [(a, b) for a in (0, 1) for b in (0, 1)]
    kernels = [kernel[np.ix_(_TAPS[a], _TAPS[b])].swapaxes(2, 3) for a, b in phases]
    conv = layers.Conv2D(4 * layer.filters, 2)
    grid = conv(padded)  # (n, height + 1, width + 1, 4 × filters)
    conv.set_weights([np.concatenate(kernels, -1), np.tile(bias, 4)])
    parts = [
        grid[:, a : a + height, b : b + width, i * layer.filters : (i + 1) * layer.filters]
        for i, (a, b) in enumerate(phases)
    ]
    return to_space(layers.Concatenate()(parts), 2)


def _trace(
    function: Callable[..., Any], examples: Mapping[str, np.ndarray], fixed: bool = False
) -> tuple[Any, Any]:
    """Returns a graph of the function, for any batch unless fixed, and its inputs' signature."""
    if backend.name() != "tensorflow":
        raise RuntimeError(
            f"Files are written by TensorFlow, and Keras runs on {backend.name()!r} here. Set "
            "KERAS_BACKEND=tensorflow; the files then run anywhere."
        )
    if not examples or any(np.ndim(array) < 1 for array in examples.values()):
        raise ValueError(
            f"Give an example of each input, with the batch as its first axis; got "
            f"{ {name: np.shape(array) for name, array in examples.items()} }."
        )
    import tensorflow as tf

    signature = [
        tf.TensorSpec(
            np.shape(array) if fixed else (None, *np.shape(array)[1:]),
            np.asarray(array).dtype,
            name=name,
        )
        for name, array in examples.items()
    ]

    # Keras's own __call__ would be traced with its checks; a plain function is not.
    def plain(*tensors: Any) -> Any:
        return function(*tensors)

    return tf.function(plain, input_signature=signature, autograph=False), signature


def _reader(calibration: Sequence[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Mapping[str, np.ndarray]] = iter(calibration)

        def get_next(self) -> Any:
            return next(self.left, None)

    return Reader()


def _check_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"No file {path}. Write it first, with to_onnx or to_litert.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converters' reports, which name no problem of ours, off the page."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), backend._without_stderr():
            yield
    finally:
        logging.disable(before)
