"""The judge of Fashion-MNIST: accurate, frozen, the same on every backend."""

from dataclasses import replace

import numpy as np
import pytest

from genlib import train
from genlib.data import fashion_mnist
from genlib.data.fashion import FashionMNIST
from genlib.ladder import quality
from genlib.models.judges import build_judge
from genlib.pretrained import load_judge
from genlib.train import registry
from genlib.train.judges import JudgeTask
from genlib.weights import SHIPPED, WeightsError, save


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.fixture(scope="module")
def data():
    return fashion_mnist()


def test_the_judge_is_right_on_91_percent_of_the_test_images(judge, data):
    right = (judge.predict(data.test_images) == data.test_labels).mean()
    # 2,000 images: the standard error is 0.6 points, so the bound is three of them lower.
    assert right >= (0.89 if data.is_subset else 0.91)
    if not data.is_subset:
        assert right == pytest.approx(judge.card["metrics"]["accuracy"], abs=5e-4)


def test_shapes_and_types(judge, data):
    images = data.test_images[:7]
    features, probabilities = judge.features(images), judge.probabilities(images)
    assert (features.shape, features.dtype) == ((7, 64), np.float32)
    assert (probabilities.shape, probabilities.dtype) == ((7, 10), np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert judge.predict(images).dtype == np.int64
    np.testing.assert_array_equal(judge.predict(images), probabilities.argmax(axis=1))


def test_an_image_is_judged_alike_alone_and_in_a_batch(judge, data):
    images = data.test_images[:5]
    alone = np.concatenate([judge.features(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(judge.features(images), alone, rtol=1e-4, atol=1e-4)


def test_the_features_are_those_of_every_backend(judge, data):
    """Values from TensorFlow; JAX and PyTorch run this test too."""
    features = judge.features(data.test_images[:1])[0]
    assert data.test_labels[0] == judge.predict(data.test_images[:1])[0] == 9
    expected = [-0.033725, 1.221371, -0.227492, 11.515155, 0.041965, 0.028818]
    np.testing.assert_allclose(features[:6], expected, rtol=1e-3, atol=1e-3)


def test_no_feature_is_dead(judge, data):
    assert (judge.features(data.test_images[:1000]).std(axis=0) > 0.01).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 28, 28), np.uint8),
        np.zeros((2, 28, 28, 1), np.float32),
        np.zeros((2, 32, 32, 1), np.uint8),
        np.zeros((0, 28, 28, 1), np.uint8),
    ],
)
def test_other_images_are_refused(judge, images):
    with pytest.raises(ValueError, match="judge"):
        judge.features(images)


def test_the_same_seed_builds_the_same_judge():
    first, same, other = (build_judge(seed).get_weights() for seed in (3, 3, 4))
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_training_improves_and_survives_saving(data, tmp_path):
    few = FashionMNIST(
        data.train_images[:2000], data.train_labels[:2000],
        data.test_images[:500], data.test_labels[:500], "path", True,
    )  # fmt: skip
    task = JudgeTask(few, replace(JudgeTask.recipe, epochs=1))
    train.run(task, 1, tmp_path / "run", progress=False)
    measure = quality.of("judge", "subset")
    card = registry.export(tmp_path / "run", tmp_path / "judge", measure, "subset")
    measured = card["metrics"]
    assert measured["accuracy_low"] > 0.5  # chance is 0.1
    assert measured["accuracy_low"] < measured["accuracy"] < measured["accuracy_high"]
    again = load_judge(tmp_path / "judge")
    right = (again.predict(few.test_images) == few.test_labels).mean()
    assert right == pytest.approx(measured["accuracy"], abs=0.03)  # of 500 among 2,000 images
    assert again.card["images"] == 15 * 128


def test_the_judge_ships_small():
    assert (SHIPPED / "judge-fashion.safetensors").stat().st_size < 1_000_000


def test_weights_of_another_model_are_refused(tmp_path):
    save(tmp_path / "w", {"0000/kernel": np.zeros((3, 3), np.float32)}, {})
    with pytest.raises(WeightsError, match="judge"):
        load_judge(tmp_path / "w")
