"""Scenes: deterministic, order-independent, split by combination, captioned truthfully."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlib.data import captions, drawing, scenes
from genlib.data.captions import ATTRIBUTES


def test_a_scene_depends_on_seed_split_and_index_alone():
    whole = scenes.scenes(6, seed=3)
    part = scenes.scenes(2, seed=3, start=4)
    np.testing.assert_array_equal(whole.images[4:], part.images)
    assert whole.captions[4:] == part.captions
    assert (whole.images != scenes.scenes(6, seed=4).images).any()
    assert (whole.images != scenes.scenes(6, seed=3, split="validation").images).any()


def test_images_are_uint8_and_no_two_are_alike():
    drawn = scenes.draw(("sunset", "sea", "middle", "clear", "boat"), n=4)
    assert drawn.shape == (4, 64, 64, 3)
    assert drawn.dtype == np.uint8
    assert len(np.unique(drawn.reshape(4, -1), axis=0)) == 4


def test_at_least_a_tenth_of_the_combinations_is_held_out_and_no_value_is_lost():
    train, held_out = scenes.combinations("train"), scenes.combinations("held-out")
    everything = scenes.combinations()
    assert len(train) + len(held_out) == len(everything)
    assert len(held_out) >= 0.1 * len(everything)
    assert not {tuple(row) for row in train} & {tuple(row) for row in held_out}
    for first in range(5):
        for second in range(first):  # every pair of values that exists is seen in training
            pairs = {tuple(row) for row in everything[:, [first, second]]}
            assert {tuple(row) for row in train[:, [first, second]]} == pairs


def test_held_out_scenes_show_held_out_combinations():
    held_out = {tuple(row) for row in scenes.combinations("held-out")}
    assert all(tuple(row) in held_out for row in scenes.scenes(20, split="held-out").attributes)


def test_the_sun_stands_where_the_attribute_says():
    for column, place in ((0, "left"), (1, "middle"), (2, "right")):
        images = scenes.draw(("day", "sea", place, "clear", "nothing"), n=8).astype(float)
        sky = images[:, :20].sum(axis=(1, 3))  # brightness of each column of the upper part
        assert (np.argmax(sky, axis=1) * 3 // 64 == column).all()


def test_night_is_darker_than_day_and_snow_whitens_the_ground():
    def mean(*values):
        return scenes.draw(values, n=8)[:, 48:].mean()

    hidden = ("hills", "hidden")
    assert mean("night", *hidden, "clear", "nothing") < mean("day", *hidden, "clear", "nothing")
    assert mean("day", *hidden, "snowy", "nothing") > mean("day", *hidden, "clear", "nothing")


def drawn_with_places(values, n=16):
    rows = np.tile(captions.indices(values), (n, 1))
    noise = np.random.default_rng(5).random((n, drawing.NOISE), dtype=np.float32)
    return drawing.draw(rows, noise).astype(int), drawing.places(rows, noise)


@pytest.mark.parametrize(
    ("land", "thing"),
    [("sea", "boat"), ("hills", "house"), ("desert", "tree"), ("mountains", "balloon")],
)
@pytest.mark.parametrize(
    ("time", "weather"), [("day", "clear"), ("night", "snowy"), ("sunset", "foggy")]
)
def test_an_object_is_where_places_says(time, weather, land, thing):
    images, found = drawn_with_places((time, land, "left", weather, thing))
    without, nothing = drawn_with_places((time, land, "left", weather, "nothing"))
    assert found.dtype == np.float32
    assert np.isnan(nothing[:, :3]).all()
    for image, bare, (x, y, height, _) in zip(images, without, found, strict=True):
        changed = np.abs(image - bare).max(-1) > 16
        rows, columns = np.nonzero(changed)
        assert abs(rows.min() / 64 - (y - height / 2)) < 3 / 64
        assert abs((columns.min() + columns.max() + 1) / 128 - x) < 3 / 64
        if thing != "boat":  # its mirror image hangs below it
            assert abs((rows.max() + 1) / 64 - (y + height / 2)) < 3 / 64


def test_the_light_is_where_places_says_and_nowhere_when_hidden():
    for time in ("day", "night"):
        images, found = drawn_with_places((time, "hills", "right", "clear", "nothing"))
        bare, hidden = drawn_with_places((time, "hills", "hidden", "clear", "nothing"))
        assert np.isnan(hidden).all()
        lit = (images - bare)[:, :30].clip(0).sum(axis=(1, 3)).astype(float)
        middle = (lit * (np.arange(64) + 0.5)).sum(1) / lit.sum(1) / 64
        # The glow is cut off at the right edge, hence the wide margin.
        assert np.abs(middle - found[:, 3]).max() < 0.12


def test_a_balloon_never_hides_sun_or_moon():
    for light in ("left", "middle", "right"):
        _, found = drawn_with_places(("night", "sea", light, "clear", "balloon"), n=64)
        assert (np.abs(found[:, 0] - found[:, 3]) > 0.28).all()
        assert (np.abs(found[:, 0] - 0.5) < 0.33).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scenes.scenes(0), "at least 1"),
        (lambda: scenes.scenes(1, split="test"), "Unknown split 'test'"),
        (lambda: scenes.scenes(1, language="fr"), "Unknown language 'fr'"),
        (lambda: scenes.draw(("sunset", "moon", "left", "clear", "boat")), "Unknown land 'moon'"),
        (lambda: scenes.draw(("day", "desert", "left", "clear", "boat")), "needs water"),
        (lambda: scenes.draw(("day", "sea")), "give one for each"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


rows = st.sampled_from([tuple(int(v) for v in row) for row in scenes.combinations()])


@given(rows, st.integers(0, 10_000), st.sampled_from(["en", "zh"]))
def test_a_caption_is_filled_in_and_says_what_it_names(attributes, seed, language):
    said = captions.caption(attributes, np.random.default_rng(seed), language=language)
    assert "{" not in said.text
    assert said.named
    assert said.named <= set(ATTRIBUTES)
    if "light" in said.named:
        moon = {"en": "moon", "zh": "月亮"}[language]
        assert (moon in said.text) == (attributes[0] == 3)


@given(rows, st.integers(0, 10_000), st.sampled_from(["en", "zh"]))
def test_unseen_wordings_share_no_template_with_seen_ones(attributes, seed, language):
    rng = np.random.default_rng(seed)
    unseen = captions.caption(attributes, rng, language=language, wording="unseen").text
    first = {"en": ("please paint", "I dream", "imagine"), "zh": ("我想看", "请画出", "想象")}
    assert unseen.startswith(first[language])
    assert not captions.caption(attributes, rng, language=language).text.startswith(first[language])


def test_the_full_caption_names_all_five():
    assert captions.full((3, 0, 3, 4, 4)) == (
        "a snowy night over the sea, no moon in sight, with a hot-air balloon"
    )


def test_wordings_are_many():
    some = scenes.combinations()[::40]
    for language, least in (("en", 20), ("zh", 10)):
        assert len(captions._TEMPLATES[language]) >= least
        texts = {
            captions.caption(row, np.random.default_rng(i), language=language).text
            for i, row in enumerate(np.repeat(some, 10, axis=0))
        }
        assert len(texts) > 300
