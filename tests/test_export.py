"""Export: a file computes what Keras computes, for batches of any size."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from genlib import backend
from genlib.models import sampling
from genlib.models.flow import Flow, FlowConfig
from genlib.models.gan import build_generator
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.speed import export
from genlib.text.student import Student, StudentConfig, features, table

writes = pytest.mark.skipif(
    backend.name() != "tensorflow", reason="files are written by TensorFlow alone"
)
SHAPE = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
CONFIG = FlowConfig(SHAPE, channels=2, text_width=8)
SIZES = (1, 3)
KINDS = {
    "onnx": (export.to_onnx, export.onnx_session),
    "litert": (export.to_litert, export.litert_session),
}


def wild(model, size=0.2):
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(rng.normal(0, size, variable.shape))
    return model


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same(kind, path, function, **examples):
    """Writes a file of a function, and compares it with the function for two sizes of batch."""
    write, session = KINDS[kind]
    size = write(function, path, **examples)
    assert size == path.stat().st_size
    run = session(path, threads=1)
    for n in SIZES:
        arrays = [array[:n] for array in examples.values()]
        expected = backend.to_numpy(function(*map(keras.ops.convert_to_tensor, arrays)))
        found = run(*arrays)
        assert found.dtype == expected.dtype
        reach = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=1e-5 * reach)
    return run


@writes
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_s_file_equals_it(tmp_path, kind):
    same(kind, tmp_path / "g", build_generator("conv", seed=1), z=numbers(3, 100))


@writes
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_s_file_equals_it(tmp_path, kind):
    tokenizer = wild(Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)), 0.1)
    same(kind, tmp_path / "d", tokenizer.decoder, latents=numbers(3, 16, 16, 2))


@writes
def test_a_text_student_s_file_equals_it(tmp_path):
    student = wild(Student(StudentConfig(features=64, width=8, hidden=16)))
    ids = table([features(said, 64) for said in ("a sunset", "海边的傍晚", "")])
    run = same("onnx", tmp_path / "s", student.network, ids=ids)
    assert (run(ids)[2, :8] == 0).all()  # an empty text asks for nothing


@writes
@pytest.mark.parametrize("shortcut", [False, True])
def test_a_velocity_s_file_equals_it(tmp_path, shortcut):
    flow = wild(Flow(replace(CONFIG, shortcut=shortcut)))
    names = ["x", "time", "text"] + ["width"] * shortcut
    arrays = [numbers(3, 16, 16, 2), np.array([0, 0.3, 1], "f"), numbers(3, 8), numbers(3) ** 2]
    examples = dict(zip(names, arrays, strict=False))
    same("onnx", tmp_path / "v", lambda *a: flow(dict(zip(names, a, strict=True))), **examples)


@writes
@pytest.mark.parametrize(
    ("kind", "steps", "guidance", "shortcut", "shift"),
    [
        ("onnx", 2, 2.0, False, 1.0),
        ("litert", 2, 2.0, False, 1.0),
        ("onnx", 2, 1.0, True, 3.0),
        ("onnx", 3, 2.0, False, 3.0),  # guided in the first two of three steps
    ],
)
def test_a_whole_sampler_in_one_file_draws_the_same_images(
    tmp_path, kind, steps, guidance, shortcut, shift
):
    flow = wild(Flow(replace(CONFIG, shortcut=shortcut, shift=shift)))
    tokenizer = wild(Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)), 0.1)
    said, noise = numbers(3, 8), sampling.normals(3, (16, 16, 2), seed=5)
    draw = export.flow_function(
        flow, tokenizer.decoder, steps=steps, guidance=guidance, interval=(0, 0.4)
    )
    write, session = KINDS[kind]
    write(draw, tmp_path / "f", noise=noise, text=said)
    drawn = session(tmp_path / "f")(noise, said)
    options = {"steps": steps, "guidance": guidance, "interval": (0, 0.4)}
    expected = tokenizer.decode(flow.sample(said, 5, **options))
    assert drawn.dtype == np.uint8
    assert drawn.std() > 5
    difference = np.abs(drawn.astype(int) - expected)
    assert difference.max() <= 1  # where a pixel lies midway, the last bit decides
    assert difference.mean() < 1e-3


def test_a_streamlined_generator_draws_the_same():
    generator = build_generator("conv", seed=3)
    for layer in generator.layers:
        if layer.name.startswith("conv2d"):
            layer.bias.assign(numbers(*layer.bias.shape))
    z = numbers(4, 100)
    expected, found = (backend.to_numpy(g(z)) for g in (generator, export.streamline(generator)))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    odd = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2DTranspose(1, 3, strides=2)])
    with pytest.raises(ValueError, match="kernel 4"):
        export.streamline(odd)


@writes
def test_int8_files_are_smaller_and_near(tmp_path):
    generator, z = export.streamline(build_generator("conv", seed=1)), numbers(64, 100)
    expected = backend.to_numpy(generator(z))
    size = export.to_onnx(generator, tmp_path / "f.onnx", z=z)
    sizes = {
        "dynamic": export.int8(tmp_path / "f.onnx", tmp_path / "dynamic"),
        "static": export.int8(tmp_path / "f.onnx", tmp_path / "static", [{"z": z}]),
        "litert": export.to_litert(generator, tmp_path / "litert", int8=True, z=z),
    }
    assert sizes["dynamic"] < 0.5 * size  # the convolutions stay as they are
    assert max(sizes["static"], sizes["litert"]) < 0.35 * size
    for name in sizes:
        session = export.litert_session if name == "litert" else export.onnx_session
        error = session(tmp_path / name)(z) - expected
        assert 0 < error.std() < 0.1 * expected.std(), name


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    for session in (export.onnx_session, export.litert_session):
        with pytest.raises(FileNotFoundError, match="Write it first"):
            session(tmp_path / "none")
    flow = Flow(replace(CONFIG, shortcut=True))
    for options in ({"steps": 0}, {"steps": 2, "guidance": 3.0}):
        with pytest.raises(ValueError, match=r"shortcut|steps = 0"):
            export.flow_function(flow, None, **options)
    monkeypatch.setattr(export.backend, "name", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND"):
        export.to_onnx(lambda x: x, tmp_path / "x", x=numbers(1, 2))


@writes
def test_an_example_needs_a_batch(tmp_path):
    with pytest.raises(ValueError, match="first axis"):
        export.to_onnx(lambda x: x, tmp_path / "x", x=np.float32(1))


@writes
@pytest.mark.parametrize(("fixed", "batch"), [(False, -1), (True, 1)])
def test_a_litert_file_is_for_any_batch_unless_it_is_fixed(tmp_path, fixed, batch):
    from ai_edge_litert.interpreter import Interpreter

    generator = build_generator("mlp", seed=1)
    z = np.zeros((1, 100), np.float32)
    export.to_litert(generator, tmp_path / "x.tflite", fixed=fixed, z=z)
    (found,) = Interpreter(str(tmp_path / "x.tflite")).get_input_details()
    assert found["shape_signature"].tolist() == [batch, 100]
