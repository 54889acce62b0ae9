"""Rings close, filled holes leave the rest alone, and an edit to the same text changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from test_cache import small_flow

from genlib.models import sampling
from genlib.models.edit import decode_ring, edit, inpaint, ring
from genlib.models.flow import Flow, shifted
from genlib.models.tokenizer import Tokenizer, TokenizerConfig

OPTIONS = {"steps": 4, "guidance": 2.0}


@pytest.fixture(scope="module")
def flow():
    return small_flow()[0]


@pytest.fixture(scope="module")
def late(flow):
    """The same flow, with the times of its steps shifted towards the noise."""
    model = Flow(replace(flow.config, shift=3.0))
    for new, old in zip(model.variables, flow.variables, strict=True):
        new.assign(old)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    model = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4, decoder_blocks=1))
    rng = np.random.default_rng(2)
    for variable in model.decoder.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def said():
    return np.random.default_rng(3).standard_normal((3, 8)).astype(np.float32)


def test_steps_taken_one_by_one_lead_where_the_whole_way_leads(flow, said):
    x = sampling.normals(3, (16, 16, 2), 5)
    for step in range(4):
        x = flow.advance(x, said, step, step + 1, 4, guidance=2.0)
    whole = flow.sample(said, 5, **OPTIONS)
    np.testing.assert_allclose(x * flow.config.spread, whole, atol=1e-5)


def test_points_that_are_not_on_the_way_are_refused(flow, said):
    x = np.zeros((3, 16, 16, 2), np.float32)
    with pytest.raises(ValueError, match="begin = 3, end = 2"):
        flow.advance(x, said, 3, 2, 4)
    with pytest.raises(ValueError, match="one for each text"):
        flow.advance(x[:2], said, 0, 1, 4)


def test_one_window_that_stays_is_an_image(flow, said):
    made = ring(flow, said[:, None], 5, reach=0, **OPTIONS)
    np.testing.assert_allclose(made, flow.sample(said, 5, **OPTIONS), atol=1e-5)


def test_windows_that_stay_do_not_know_of_each_other_and_windows_that_move_do(flow, said):
    two = np.stack([said[:2], said[[0, 2]]])  # rings that differ in the text of their second window
    same = {}
    for reach in (0, 8):
        made = [ring(flow, row[None], 5, reach=reach, **OPTIONS)[0] for row in two]
        same[reach] = np.abs(made[0][:, :16] - made[1][:, :16]).max()
    assert same[0] < 1e-5 < 1e-3 < same[8]


def test_a_ring_does_not_depend_on_those_beside_it(flow, said):
    texts = np.stack([said, said[::-1]])
    both = ring(flow, texts, 7, **OPTIONS)
    np.testing.assert_allclose(both[:1], ring(flow, texts[:1], 7, **OPTIONS), atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_a_turned_ring_is_the_same_image_turned(tokenizer):
    latents = np.random.default_rng(0).uniform(-1, 1, (2, 16, 32, 2)).astype(np.float32)
    image = decode_ring(tokenizer, latents)
    assert image.shape == (2, 64, 128, 3)
    turned = decode_ring(tokenizer, np.roll(latents, 8, axis=2))
    np.testing.assert_array_equal(turned, np.roll(image, 32, axis=2))


def test_inside_a_ring_the_decoder_sees_what_it_sees_in_an_image(tokenizer):
    latents = np.random.default_rng(0).uniform(-1, 1, (1, 16, 32, 2)).astype(np.float32)
    inside = tokenizer.decode(latents[:, :, 2:18])[:, :, 24:40].astype(int)  # latents 8 to 12
    assert np.abs(decode_ring(tokenizer, latents)[:, :, 32:48] - inside).max() <= 1


def test_outside_of_the_mask_nothing_changes_and_inside_it_the_text_decides(flow, said):
    latents = np.random.default_rng(4).uniform(-1, 1, (3, 16, 16, 2)).astype(np.float32)
    mask = np.zeros((16, 16), bool)
    mask[4:9, 3:12] = True
    made = inpaint(flow, said, latents, mask, 5, repeats=2, **OPTIONS)
    np.testing.assert_allclose(made[:, ~mask], latents[:, ~mask], atol=1e-6)
    other = inpaint(flow, -said, latents, mask, 5, repeats=2, **OPTIONS)
    assert np.abs(made[:, mask] - latents[:, mask]).mean() > 0.1
    assert np.abs(made[:, mask] - other[:, mask]).mean() > 0.01


def test_a_mask_of_everything_is_a_new_image(flow, said):
    latents = np.zeros((3, 16, 16, 2), np.float32)
    made = inpaint(flow, said, latents, np.ones((16, 16), bool), 5, repeats=1, **OPTIONS)
    np.testing.assert_allclose(made, flow.sample(said, 5, **OPTIONS), atol=1e-5)


def test_shifted_times_are_those_of_sampling_in_rings_and_holes(late, said):
    drawn = late.sample(said, 5, **OPTIONS)
    made = ring(late, said[:, None], 5, reach=0, **OPTIONS)
    np.testing.assert_allclose(made, drawn, atol=1e-5)
    everything, nothing = np.ones((16, 16), bool), np.zeros((3, 16, 16, 2), np.float32)
    made = inpaint(late, said, nothing, everything, 5, repeats=1, **OPTIONS)
    np.testing.assert_allclose(made, drawn, atol=1e-5)


def test_what_is_known_comes_in_with_the_noise_of_the_shifted_time(late, said, monkeypatch):
    monkeypatch.setattr(late, "advance", lambda x, *_, **__: seen.append(x) or x)
    seen: list[np.ndarray] = []
    text, latents = np.repeat(said, 20, axis=0), np.zeros((60, 16, 16, 2), np.float32)
    mask = np.arange(16)[None, :] < np.full((16, 1), 8)
    inpaint(late, text, latents, mask, 5, repeats=1, **OPTIONS)
    spread = [x[:, ~mask].std() for x in seen]
    np.testing.assert_allclose(spread, 1 - shifted(np.arange(4) / 4, 3.0), rtol=0.03)


def test_going_back_restores_the_noise_of_the_time_before_the_step(flow, said, monkeypatch):
    """With a network that says nothing, a point led back is noise of the right size."""
    monkeypatch.setattr(flow, "advance", lambda x, *_, **__: seen.append(x) or x)
    seen: list[np.ndarray] = []
    text, latents = np.repeat(said, 20, axis=0), np.zeros((60, 16, 16, 2), np.float32)
    inpaint(flow, text, latents, np.ones((16, 16), bool), 5, repeats=2, **OPTIONS)
    for step, x in enumerate(seen[1::2]):  # the second turn of each step
        time, after = step / 4, (step + 1) / 4
        kept = time / after * seen[0].std()  # nothing moved: before, it was the first noise
        fresh = (1 - time) ** 2 - (time / after * (1 - after)) ** 2
        assert x.std() > 0.9 * np.sqrt(fresh), (step, kept)


def test_the_same_text_edits_nothing_and_another_does(flow, said):
    latents = np.random.default_rng(4).uniform(-1, 1, (3, 16, 16, 2)).astype(np.float32)
    options = {"steps": 4, "guidance": 2.0, "old_guidance": 2.0}
    same = edit(flow, latents, said, said, 5, **options)
    np.testing.assert_allclose(same, latents, atol=1e-5)
    changed = [
        np.abs(edit(flow, latents, said, -said, 5, begin=begin, **options) - latents).mean()
        for begin in (0, 2, 4)
    ]
    assert changed[0] > changed[1] > 1e-3
    assert changed[2] < 1e-6  # no step is left


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, t, s, x: ring(f, s), "a text for each window"),
        (lambda f, t, s, x: ring(f, s[:, None], reach=9), "reach = 9"),
        (lambda f, t, s, x: decode_ring(t, x[:, :, :15]), "a multiple of 4"),
        (lambda f, t, s, x: inpaint(f, s, x, np.ones((8, 8), bool)), "give bool"),
        (lambda f, t, s, x: inpaint(f, s, x, np.ones((16, 16))), "give bool"),
        (lambda f, t, s, x: inpaint(f, s, x, np.ones((16, 16), bool), repeats=0), "repeats = 0"),
        (lambda f, t, s, x: inpaint(f, s, x[:2], np.ones((16, 16), bool)), "for each text"),
        (lambda f, t, s, x: edit(f, x, s, s[:2]), "float|text|points"),
        (lambda f, t, s, x: edit(f, x, s, s, begin=17), "begin = 17"),
    ],
)
def test_what_does_not_fit_is_refused(flow, tokenizer, said, call, message):
    with pytest.raises(ValueError, match=message):
        call(flow, tokenizer, said, np.zeros((3, 16, 16, 2), np.float32))
