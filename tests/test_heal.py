"""Healing: a narrow generator comes nearer to its teacher, goes on where it stopped, and ships."""

from dataclasses import replace

import numpy as np
import pytest

from genlib import backend, metrics, pretrained, train, weights
from genlib.data import fashion_mnist
from genlib.ladder import quality
from genlib.models import gan
from genlib.models.vae import VAEConfig
from genlib.pretrained import load_judge
from genlib.train import heal, registry
from genlib.train.vae import VAETask

CONFIG = heal.HealConfig(groups=(2, 2, 2), batch_size=8, steps=100)


@pytest.fixture(scope="module")
def teacher():
    return pretrained.load_generator(heal.TEACHER)[0]


@pytest.fixture(scope="module")
def images():
    return fashion_mnist("subset").train_images[:64]


def far(task, model):
    """Mean difference of pixels from the teacher, for latents that no training saw."""
    z = gan.GAN.latents(32, seed=99)
    return np.abs(backend.to_numpy(model(z)) - backend.to_numpy(task.teacher(z))).mean()


def test_healing_brings_a_pruned_generator_nearer_to_its_teacher(teacher, images):
    task = heal.HealTask(images, CONFIG, teacher=teacher, latents=160)
    before = far(task, task.student)
    state = train.run(task, 3, progress=False)
    assert far(task, task.student) < 0.8 * before
    assert state.history["pixels"][-1] < state.history["pixels"][0]
    assert state.history.keys() == {"pixels", "generator", "discriminator"}
    assert task.sample().shape == (64, 28, 28, 1)


def test_without_an_adversary_pixels_alone_are_learnt(teacher, images):
    config = heal.HealConfig(groups=(2, 2, 2), batch_size=8, adversary=0.0)
    task = heal.HealTask(images, config, teacher=teacher, latents=16)
    before = [backend.to_numpy(v.value) for v in task.discriminator.variables]
    assert train.run(task, 1, progress=False).history.keys() == {"pixels"}
    for old, variable in zip(before, task.discriminator.variables, strict=True):
        np.testing.assert_array_equal(old, backend.to_numpy(variable.value))


@pytest.mark.skipif(
    backend.name() != "tensorflow", reason="resuming is tested there, on the tasks of test_tasks"
)
def test_a_run_goes_on_as_if_it_had_not_stopped_and_is_exported(teacher, images, tmp_path):
    def task():
        return heal.HealTask(images, CONFIG, teacher=teacher, latents=16)

    unbroken = task()
    train.run(unbroken, 2, progress=False)
    train.run(task(), 1, tmp_path / "run", progress=False)
    resumed = task()
    train.run(resumed, 2, tmp_path / "run", progress=False)
    for name, variable in unbroken.variables().items():
        again = backend.to_numpy(resumed.variables()[name].value)
        np.testing.assert_allclose(backend.to_numpy(variable.value), again, atol=1e-6)

    data = fashion_mnist("subset")
    data = replace(data, test_images=data.test_images[:120])

    def measure(student):
        return quality.beside_teacher(student, teacher, data, load_judge(), n=60, groups=5)

    card = registry.export(tmp_path / "run", tmp_path / "small", measure, "subset")
    assert (card["recipe"], card["epochs"]) == (heal.RECIPE, 2)
    assert card["metrics"]["n"] == 60
    low, high = card["metrics"]["ratio"][1:]
    assert low < card["metrics"]["student fid"][0] / card["metrics"]["teacher fid"][0] < high
    loaded, _ = pretrained.load_generator(tmp_path / "small")
    drawn = [gan.sample(m, 4, seed=2).astype(int) for m in (loaded, resumed.average)]
    assert np.abs(drawn[0] - drawn[1]).max() <= 3  # of 255: what rounding to float16 does


def test_too_few_images_are_refused(teacher, images):
    with pytest.raises(ValueError, match="do not fill a batch of 8"):
        heal.HealTask(images[:4], CONFIG, teacher=teacher)


def test_the_shipped_small_generator_is_a_quarter_of_its_teacher_and_within_the_margin(teacher):
    small, card = pretrained.load_generator("gan-small-fashion")
    file = weights.SHIPPED / "gan-small-fashion.safetensors"
    assert 4 * file.stat().st_size <= 4 * teacher.count_params()  # float32: four bytes a weight
    found = card["metrics"]["beside the teacher"]
    assert found["student fid"][0] <= 1.10 * found["teacher fid"][0]
    data, judge = fashion_mnist("subset"), load_judge()
    real = judge.features(data.test_images)
    fids = [metrics.fid(real, judge.features(gan.sample(m, 1000, 1))) for m in (small, teacher)]
    assert fids[0] < 1.25 * fids[1]  # fewer images than on the card, so a wider margin


def test_the_shipped_vae_draws_as_its_card_promises():
    vae, card = pretrained.load_vae()
    images = vae.sample(1000, seed=1)
    assert images.shape == (1000, 28, 28, 1)
    assert images.dtype == np.uint8
    data, judge = fashion_mnist("subset"), load_judge()
    score = metrics.fid(judge.features(data.test_images), judge.features(images))
    assert score < 1.5 * card["metrics"]["scores"]["fid"][0]


def test_a_vae_is_trained_written_and_loaded_again(tmp_path):
    data = fashion_mnist("subset")
    few = replace(data, train_images=data.train_images[:640])
    recipe = replace(VAETask.recipe, epochs=4)
    task = VAETask(few, recipe, VAEConfig(latent_dim=4, widths=(32,)))
    losses = train.run(task, 4, tmp_path / "run", progress=False).history["loss"]
    assert losses[-1] < losses[0]
    measure = quality.of("vae", "subset")
    card = registry.export(tmp_path / "run", tmp_path / "vae", measure, "subset")
    assert card["metrics"]["scores"].keys() >= {"fid", "kid", "recall"}
    vae, _ = pretrained.load_vae(tmp_path / "vae")
    assert vae.config == VAEConfig(latent_dim=4, widths=(32,))
    assert vae.sample(3, seed=0).shape == (3, 28, 28, 1)
