"""The training on a GPU, on a processor and with tiny sizes: the same steps as `genlib train`."""

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from genlib import backend, train, weights
from genlib.models.flow import Flow, FlowConfig

pytestmark = pytest.mark.skipif(backend.name() != "jax", reason="scripts/gpu_train.py is for JAX")
SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_train.py"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY", "1")
        spec = importlib.util.spec_from_file_location("gpu_train", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(script, tmp_path_factory):
    """What `draw` writes, without its processes: a few scenes, and embeddings of noise."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    latents = rng.uniform(-1, 1, (64, 16, 16, 4)).astype(np.float16)
    np.save(folder / "latents.npy", latents)
    np.save(folder / "which.npy", rng.integers(3, size=64).astype(np.int32))
    np.save(folder / "text.npy", rng.standard_normal((3, 4, 128)).astype(np.float16))
    return folder


def test_a_loop_takes_the_steps_that_the_plain_training_takes(script, data):
    import jax

    looped, plain = (script.make("flow", data, None, 2) for _ in range(2))
    losses = [float(entry["loss"]) for entry in looped.epoch(0, None)]
    plain.begin()
    found = []
    for part in range(script.LOOPS):
        key = jax.random.fold_in(jax.random.key(plain.seed), part)
        for step in jax.random.split(key, script.STEPS):
            found.append(float(plain._step(*plain.draw(step, plain._data, plain.recipe.full))))
    np.testing.assert_allclose(losses, found, rtol=1e-4)
    for one, other in zip(looped.model.variables, plain.model.variables, strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=1e-3, atol=1e-5)


def test_a_run_of_seconds_becomes_weights_that_load(script, data, tmp_path):
    script.train_(data, tmp_path, ["flow=0.01s"])
    _, card = weights.load_model(tmp_path / "flow", ("flow",), Flow, FlowConfig)
    assert card["training"]["epochs"] == card["epochs"] >= 1
    assert card["trained on"].endswith(version("jax"))
    assert len(json.loads((tmp_path / "flow-losses.json").read_text())) == card["epochs"]
    again = train.registry.export(tmp_path / "run-flow", tmp_path / "again")
    assert again["images"] == card["images"] == card["epochs"] * 2 * script.STEPS * script.BATCH


@pytest.mark.parametrize("name", ["image-gpt-student", "flow-small"])
def test_every_kind_of_model_takes_steps(script, data, name):
    task = script.make(name, data, None, 1)
    assert all(np.isfinite(entry["loss"]) for entry in task.epoch(0, None))
