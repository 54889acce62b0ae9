"""Recipes of the text-to-image models: they learn, they resume, and what they export loads."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from genlib import train, weights
from genlib.train import tasks
from genlib.weights import checkpoint
from genlib.models.coarse_to_fine import CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.judges import JudgeConfig, ScenesJudge
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig

SHAPE = TransformerConfig(1, 16, heads=2, kv_heads=1, hidden=16)
TINY = TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)
CONFIGS = {
    "scenes-judge": JudgeConfig(width=4, features=8),
    "scenes-eye": JudgeConfig(width=4, features=8),
    "scenes-critic": JudgeConfig(width=4, features=8),
    "tokenizer": TINY,
    "image-gpt": ImageGPTConfig(SHAPE, alphabet=3, text_width=8, prefix=2),
    "coarse-to-fine": CoarseToFineConfig(SHAPE, alphabet=3, text_width=8, prefix=2),
    "flow": FlowConfig(replace(SHAPE, kv_heads=2, modulated=True), channels=2, text_width=8),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Epochs of 64 images, a pool of two, and an encoder of texts that needs no weights."""
    monkeypatch.setattr(recipes, "EPOCH", 64)
    monkeypatch.setattr(recipes, "POOL", 2)
    recipes._pool.cache_clear()

    def encode(texts):
        seeds = [list(said.encode()) for said in texts]
        rows = [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
        return np.array(rows, np.float32)

    monkeypatch.setattr(recipes.text, "encode", encode)
    yield
    recipes._pool.cache_clear()


def task(name, epochs=3, **options):
    recipe = recipes.Recipe(epochs, batch_size=16, learning_rate=5e-3, warmup=2, average=0.5)
    if name == "tokenizer":
        options["eye"] = ScenesJudge(JudgeConfig(width=4, features=8), seed=1)
    elif name in ("image-gpt", "coarse-to-fine", "flow"):
        options["tokenizer"] = Tokenizer(TINY)
    return recipes.TASKS[name](recipe, CONFIGS[name], **options)


@pytest.mark.parametrize("name", recipes.TASKS)
def test_a_recipe_learns(name):
    trained = train.run(task(name, 6), 6, progress=False)
    losses = trained.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["tokenizer", "coarse-to-fine", "flow"])
def test_a_stopped_run_ends_in_the_same_weights(name, tmp_path):
    whole, halves = task(name), [task(name), task(name)]
    train.run(whole, 3, tmp_path / "whole", progress=False)
    train.run(halves[0], 1, tmp_path / "halves", progress=False)
    train.run(halves[1], 3, tmp_path / "halves", progress=False)
    for key, value in whole.variables().items():
        other = keras.ops.convert_to_numpy(halves[1].variables()[key])
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), other, err_msg=key)


def test_what_is_exported_is_the_averaged_model(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "load_tokenizer", lambda: Tokenizer(TINY))
    trained = task("image-gpt")
    train.run(trained, 2, tmp_path / "run", progress=False)
    card = recipes.export(tmp_path / "run", tmp_path / "w", lambda model: {"layers": 1.0})
    assert (card["epochs"], card["images"], card["metrics"]) == (2, 128, {"layers": 1.0})
    model, _ = weights.load_model(tmp_path / "w", ("image-gpt",), ImageGPT, ImageGPTConfig)
    assert model.config == CONFIGS["image-gpt"]
    inputs = {"text": np.ones((1, 8), np.float32), "tokens": np.zeros((1, 64, 8), np.int32)}
    averaged = keras.ops.convert_to_numpy(trained.averaged()(inputs))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(inputs)), averaged, atol=0.02)


def test_a_caption_is_sometimes_hidden():
    x, _ = task("flow").batch(0, 0)
    hidden = [not row.any() for step in range(4) for row in task("flow").batch(0, step)[0]["text"]]
    assert 0 < sum(hidden) < 24
    assert x["text"].shape == (16, 8)


def test_the_flow_is_asked_for_the_way_from_noise_to_latents():
    x, velocity = task("flow").batch(0, 0)
    image = x["x"] + (1 - x["time"])[:, None, None, None] * velocity
    assert np.abs(image * CONFIGS["flow"].spread).max() <= 1 + 1e-5  # latents lie in [-1, 1]


def test_weights_of_another_recipe_are_refused(tmp_path, monkeypatch):
    train.run(task("scenes-judge"), 1, tmp_path / "run", progress=False)
    recipes.export(tmp_path / "run", tmp_path / "w")
    with pytest.raises(weights.WeightsError, match="'scenes-judge', not of flow"):
        weights.load_model(tmp_path / "w", ("flow",), Flow, FlowConfig)


def test_a_card_of_other_settings_is_refused():
    with pytest.raises(weights.WeightsError, match="another version"):
        weights.settings(JudgeConfig, {"width": 4})


def test_a_run_that_is_no_recipe_is_not_exported(tmp_path):
    checkpoint.open_run(tmp_path / "run", {"recipe": "cake"})
    with pytest.raises(checkpoint.RunError, match="'cake'"):
        recipes.export(tmp_path / "run", tmp_path / "w")
    checkpoint.open_run(tmp_path / "new", task("scenes-judge").describe())
    with pytest.raises(FileNotFoundError, match="Train it for one epoch first"):
        recipes.export(tmp_path / "new", tmp_path / "w")
