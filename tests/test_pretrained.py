"""Shipped generators load, draw what their card promises, and refuse what is not theirs."""

import json

import numpy as np
import pytest

from genlib import backend, pretrained, train, weights
from genlib.data import fashion_mnist
from genlib.ladder import quality
from genlib.models import gan
from genlib.pretrained import load_judge
from genlib.train import registry
from genlib.weights import checkpoint

SHIPPED = ["gan-conv-fashion", "gan-mlp-fashion"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_generator_is_as_good_as_its_card_says(name):
    generator, card = pretrained.load_generator(name)
    report = quality.evaluate(generator, fashion_mnist("subset"), load_judge())
    # The card compares with the whole test set, we with the subset's: more images, smaller FID.
    promised = card["metrics"]["scores"]["fid"][0]
    assert report.scores["fid"].value < 1.5 * promised + 5
    assert report.scores["fid"].value > report.floor["fid"].value
    assert report.neighbours is not None


def test_the_convolutional_generator_is_better_than_the_article_s():
    conv, mlp = (pretrained.load_generator(name)[1]["metrics"]["scores"]["fid"] for name in SHIPPED)
    assert conv[2] < mlp[1]  # the intervals do not touch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "gan"
    images = fashion_mnist("subset").train_images[:256]
    task = train.GANTask(images)
    train.run(task, 1, folder, progress=False)
    return folder, task


def test_a_run_loads_as_a_generator_that_draws_the_same_images(run):
    folder, task = run
    generator, card = pretrained.load_generator(folder)
    assert card["recipe"] == "gan"
    np.testing.assert_array_equal(gan.sample(generator, 9, seed=4), task.gan.sample(9, seed=4))


def test_exported_weights_draw_nearly_the_same_images(run, tmp_path):
    folder, task = run
    measure = quality.of("gan", "subset")
    card = registry.export(folder, tmp_path / "weights", measure, "subset")
    assert card["epochs"] == 1
    assert card["metrics"]["scores"].keys() >= {"fid", "kid", "recall"}
    generator, _ = pretrained.load_generator(tmp_path / "weights")
    difference = np.abs(
        gan.sample(generator, 9, seed=4).astype(int) - task.gan.sample(9, seed=4).astype(int)
    )
    assert difference.max() <= 3  # of 255: what rounding weights to float16 does


@pytest.mark.parametrize("method", pretrained.METHODS)
def test_what_a_method_cannot_do_is_refused_before_its_model_is_loaded(method, monkeypatch):
    card = json.loads(weights.paths(weights.SHIPPED / method)[1].read_bytes())
    shortcut = pretrained.METHODS[method].shortcut
    assert shortcut == card["config"].get("shortcut", False)
    if not shortcut:
        assert pretrained.method_options(method, {"guidance": 2})["guidance"] == 2
    else:
        for right in (1, 1.0):
            assert pretrained.method_options(method, {"guidance": right})["guidance"] == 1
        for wrong in (2, 0, 1.5):
            with pytest.raises(ValueError, match=f"guidance = {wrong}: {method} is .* Give 1"):
                pretrained.method_options(method, {"guidance": wrong})
    monkeypatch.setattr(backend, "name", lambda: "torch")
    assert not pretrained.method_options(method, {"xla": False})["xla"]
    with pytest.raises(ValueError, match="xla=True is for TensorFlow and JAX"):
        pretrained.method_options(method, {"xla": True})


def test_weights_of_something_else_are_refused(tmp_path):
    with pytest.raises(weights.WeightsError, match="'judge', not of a GAN"):
        pretrained.load_generator("judge-fashion")
    (tmp_path / "run.json").write_text('{"recipe": "soup"}')
    with pytest.raises(checkpoint.RunError, match="'soup', not gan"):
        pretrained.load_generator(tmp_path)
    with pytest.raises(FileNotFoundError, match="gan-moon"):
        pretrained.load_generator("gan-moon")
