"""Rejection sampling, with a reward model that wants bright images."""

import numpy as np
import pytest

from genlib import pipeline, train
from genlib.data import scenes
from genlib.models.image_gpt import ImageGPTConfig
from genlib.models.judges import ScenesJudge
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.train import rejection, tasks

TINY = TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)
SHAPE = TransformerConfig(1, 16, heads=2, kv_heads=1, hidden=16)


class Reward:
    """Finds attributes the more likely, the brighter the image is; right from 100 up."""

    def probabilities(self, images):
        bright = images.mean((1, 2, 3)) / 255
        return [np.repeat(bright[:, None], 6, axis=1)] * 5

    def attributes(self, images):
        wanted = np.zeros((len(images), 5), int)
        return wanted + np.where(images.mean((1, 2, 3)) >= 100, 0, 9)[:, None]


class Screen:
    """Decodes a grid to an image of its value."""

    config = TINY

    def decode(self, grids):
        return np.broadcast_to(grids[:, :1, :1, None], (len(grids), 64, 64, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(pipeline.text, "encode", lambda texts: np.ones((len(texts), 8), np.float32))


def sample(embedded, seed):
    rng = np.random.default_rng(seed)
    return np.broadcast_to(rng.integers(0, 256, (len(embedded), 1, 1)), (len(embedded), 16, 16))


def test_agreement_is_the_logarithm_of_what_the_judge_gives():
    judge = ScenesJudge()
    drawn = scenes.scenes(4)
    parts = judge.probabilities(drawn.images)
    product = np.prod([p[np.arange(4), drawn.attributes[:, i]] for i, p in enumerate(parts)], 0)
    found = pipeline.agreement(judge, drawn.images, drawn.attributes)
    np.testing.assert_allclose(np.exp(found), product, rtol=1e-4)


def test_the_best_of_more_is_never_worse():
    rows = np.zeros((6, 5), int)
    scores = [pipeline.best_of(n, sample, Screen(), Reward(), rows)[2] for n in (1, 2, 5)]
    assert np.all(scores[0] <= scores[1])
    assert np.all(scores[1] <= scores[2])
    assert np.any(scores[0] < scores[2])


def test_grids_images_and_scores_stay_together():
    grids, images, scores = pipeline.best_of(4, sample, Screen(), Reward(), np.zeros((6, 5), int))
    np.testing.assert_array_equal(images[:, 0, 0, 0], grids[:, 0, 0])
    np.testing.assert_allclose(scores, 5 * np.log(grids[:, 0, 0] / 255), rtol=1e-5)


def test_only_what_the_reward_model_finds_right_is_kept(monkeypatch):
    monkeypatch.setattr(scenes, "combinations", lambda split: np.zeros((3, 5), int))
    monkeypatch.setattr(rejection, "codes_to_latents", lambda codes, levels: codes[..., None])
    kept = rejection.collect(40, sample, Screen(), Reward(), tries=1, batch_size=16)
    assert 0 < kept.share < 1
    assert len(kept.latents) == len(kept.attributes) == round(40 * kept.share)
    assert kept.latents.min() >= 100


def test_training_goes_on_with_half_of_its_own_images(monkeypatch):
    monkeypatch.setattr(tasks, "EPOCH", 64)
    monkeypatch.setattr(tasks.text, "encode", lambda texts: np.zeros((len(texts), 8), np.float32))
    config = ImageGPTConfig(SHAPE, alphabet=3, text_width=8, prefix=2)
    recipe = tasks.Recipe(2, batch_size=16, learning_rate=1e-2, warmup=1)
    base = tasks.ImageGPTTask(recipe, config, tokenizer=Tokenizer(TINY))
    kept = rejection.Kept(np.zeros((5, 5), int), np.ones((5, 16, 16, 2), np.float32), 1.0)
    task = rejection.RejectionTask(base, kept, recipe)
    x, target = task.batch(task.prepare(0), np.arange(16), np.random.default_rng(0))
    assert x["tokens"].shape == (16, 64, 8)
    assert np.all(target[8:] == 2)  # the highest level of both channels: letters 2 and 2
    assert not np.all(target[:8] == 2)
    losses = train.run(task, 2, progress=False).history["loss"]
    assert losses[1] < losses[0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="n = 0"):
        pipeline.best_of(0, sample, Screen(), Reward(), np.zeros((1, 5), int))
    empty = rejection.Kept(np.zeros((0, 5), int), np.zeros((0, 16, 16, 2)), 0.0)
    with pytest.raises(ValueError, match="kept no image"):
        rejection.RejectionTask(None, empty)
