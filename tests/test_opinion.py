"""The second opinion: what a network of photographs sees in generated images."""

import numpy as np
import pytest

from genlib.data import scenes
from genlib.ladder import opinion


def test_real_images_are_as_near_as_real_ones_and_blurred_ones_are_not():
    real = scenes.scenes(96, 3, "validation").images
    fresh = scenes.scenes(48, 4, "validation").images
    small = fresh.reshape(48, 16, 4, 16, 4, 3).mean((2, 4))
    blurred = small.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    seen = opinion.features(real)
    good, bad = (opinion.compare(seen, opinion.features(made)) for made in (fresh, blurred))
    assert (good["network"], good["n"]) == (opinion.NAME, 48)
    assert good["kid"][1] < good["kid floor"][2]  # the intervals meet
    assert bad["kid"][1] > 3 * max(good["kid"][2], good["kid floor"][2])
    assert bad["recall"][0] <= good["recall"][0]  # blurred images are all alike


def test_features_do_not_depend_on_the_batch():
    images = scenes.scenes(35, 3, "validation").images  # more than a batch
    seen = opinion.features(images)
    assert (seen.shape, seen.dtype) == ((35, 1280), np.float32)
    np.testing.assert_allclose(seen[33:], opinion.features(images[33:]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 3))])
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match="give uint8"):
        opinion.features(images)


def test_the_halves_must_fit():
    three = np.zeros((3, 1280), np.float32)
    with pytest.raises(ValueError, match="twice as many"):
        opinion.compare(three, three)
