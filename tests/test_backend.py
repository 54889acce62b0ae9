"""The backend file: the same answers whatever Keras runs on."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from genlib import backend


def linear():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.layers[0].kernel.assign([[2.0], [-3.0]])
    return model


def test_vjp_of_a_linear_model_is_its_closed_form():
    x = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    dy = np.array([[1.0], [10.0]], "float32")
    y, pullback = backend.vjp(linear(), ops.convert_to_tensor(x))
    (kernel, bias), dx = backend.to_numpy(pullback(ops.convert_to_tensor(dy)))
    np.testing.assert_allclose(backend.to_numpy(y), [[-4.0], [-6.0]])
    np.testing.assert_allclose(kernel, x.T @ dy)
    np.testing.assert_allclose(bias, [11.0])
    np.testing.assert_allclose(dx, dy @ [[2.0, -3.0]])


def test_compiled_step_updates_variables_in_place():
    counter = keras.Variable(1.0)

    def step(amount):
        counter.assign(counter.value + amount)
        return {"now": counter.value * 1.0}

    compiled = backend.compile_step(step, [counter])
    results = [float(compiled(ops.convert_to_tensor(2.0))["now"]) for _ in range(3)]
    assert results == [3.0, 5.0, 7.0]
    assert float(counter.value) == 7.0


def test_xla_gives_the_same_result_or_says_where_it_exists():
    def double(x):
        return ops.matmul(x, x) * 2.0

    x = ops.convert_to_tensor(np.eye(3, dtype="float32") * 3)
    if backend.name() == "torch":
        with pytest.raises(ValueError, match="TensorFlow and JAX"):
            backend.compile_step(double, xla=True)
    else:
        fast = backend.to_numpy(backend.compile_step(double, xla=True)(x))
        np.testing.assert_allclose(fast, np.eye(3) * 18)


def test_a_compiled_call_reads_variables_and_takes_inputs_of_any_size():
    slope = keras.Variable(2.0)
    line = backend.compile_call(lambda x, more: slope * x["x"] + more, [slope])
    for size in (1, 3, 5):
        x = np.arange(size, dtype="float32")
        np.testing.assert_allclose(backend.to_numpy(line({"x": x}, 3.0)), 2 * x + 3)
    slope.assign(-1.0)
    assert float(line({"x": np.float32([4])}, 3.0)[0]) == -1.0


def test_to_numpy_keeps_the_shape_of_a_nest():
    nest = {"a": [ops.ones((2,)), 3], "b": (ops.zeros((1, 1)),)}
    host = backend.to_numpy(nest)
    assert isinstance(host["a"][0], np.ndarray)
    assert host["a"][1] == 3
    assert host["b"][0].shape == (1, 1)


def test_is_finite_sees_nan_and_infinity():
    good = ops.ones((2,))
    assert backend.is_finite([good])
    assert not backend.is_finite([good, ops.convert_to_tensor([np.nan])])
    assert not backend.is_finite([ops.convert_to_tensor([np.inf])])


def test_device_and_threads_describe_this_machine():
    assert backend.device().split(":")[0] in ("cpu", "gpu", "cuda", "tpu")
    assert all(isinstance(v, int) for v in backend.threads().values())


def test_a_users_keras_json_does_not_change_what_genlib_computes(tmp_path):
    """Image format and precision are genlib's own; a file with others must not break loading."""
    settings = {
        "floatx": "float16",
        "epsilon": 1e-7,
        "backend": keras.backend.backend(),
        "image_data_format": "channels_first",
        "dtype_policy": "mixed_bfloat16",
    }
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "from genlib import backend, pretrained; import numpy as np\n"
        "g, _ = pretrained.load_generator('gan-mlp-fashion')\n"
        "x = backend.to_numpy(g(np.zeros((1, 100), 'float32')))\n"
        "print(x.shape, x.dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[0] == "(1, 28, 28, 1) float32", done.stderr[-500:]


def test_a_loss_is_differentiated_and_what_it_updates_is_kept():
    x, calls = keras.Variable(3.0), keras.Variable(0.0, trainable=False)

    def loss():
        calls.assign_add(1.0)
        return x * x * x

    step = backend.compile_step(lambda: backend.gradients(loss, [x], [calls]), [x, calls])
    for _ in range(2):
        value, (slope,) = step()
    assert float(backend.to_numpy(value)) == 27.0
    assert float(backend.to_numpy(slope)) == 27.0
    assert float(backend.to_numpy(calls.value)) == 2.0


def test_bfloat16_products_are_coarse_where_a_processor_has_them_and_nowhere_else():
    rng = np.random.default_rng(0)
    a, b = (ops.convert_to_tensor(rng.normal(size=(256, 256)).astype("float32")) for _ in "ab")

    def error():
        made = backend.to_numpy(backend.compile_step(lambda a, b: ops.matmul(a, b))(a, b))
        exact = np.float64(backend.to_numpy(a)) @ np.float64(backend.to_numpy(b))
        return np.abs(made - exact).max() / np.abs(exact).max()

    with backend.bfloat16_products() as on:
        assert on == (backend.has_bfloat16() and backend.name() == "tensorflow")
        if on:
            assert 1e-4 < error() < 1e-2  # 8 binary digits
        else:
            assert error() < 1e-5
    assert error() < 1e-5


def test_a_compiled_step_keeps_nothing_for_a_backward_pass():
    model = linear()
    y = backend.compile_step(model, model.variables)(ops.ones((1, 2)))
    assert not getattr(y, "requires_grad", False)
