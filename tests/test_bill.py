"""What holds for the language model's bill: the ways differ in work, not in what they write."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from genlib import text
from genlib.files import to_png
from genlib.ladder import bill
from genlib.ladder.bill import STAGES, Way, pay
from genlib.models.transformer import Transformer, TransformerConfig
from genlib.speed import prune
from genlib.text.llm import LLM

LETTERS = "abcdefghijklmnopqrstuvwxyzADEIKNST<|>_ \n,.?"


class Letters:
    """A tokenizer for tests: a token a letter."""

    def encode(self, text):
        return [max(0, LETTERS.find(letter)) for letter in text]

    def decode(self, ids):
        return "".join(LETTERS[i] for i in ids)


@pytest.fixture(scope="module")
def tiny() -> LLM:
    config = TransformerConfig(layers=3, width=16, heads=4, kv_heads=2, hidden=24)
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((len(LETTERS) + 1, 16)).astype(np.float32)
    return LLM(Transformer(config, seed=0), embedding, Letters(), end=len(LETTERS), context=999)


PLAIN = Way(
    describe=lambda prompt: f"{prompt}, described",
    encode=lambda said: np.full((1, 128), len(said), np.float32),
    generate=lambda embedded, seed: np.full((1, 16, 16), seed, np.int32),
    decode=lambda grid: np.full((1, 64, 64, 3), grid[0, 0, 0], np.uint8),
)


# ---------------------------------------------------------------- the language model writes


@pytest.mark.parametrize("prompt", ["a", "a cab", "the sea at night"])
def test_without_a_cache_the_same_tokens_are_written(tiny, prompt):
    (cached,) = tiny.generate([prompt], max_tokens=9, stop=["\n"])
    assert bill.write_whole(tiny, prompt, max_tokens=9, stop=["\n"]) == cached


def test_from_a_shared_beginning_the_same_tokens_are_written(tiny):
    beginning = tiny.prefill("say what you see, ", room=8)
    for prompt in ("a cab", "the sea", "a cab"):  # again: the state was not changed
        (whole,) = tiny.generate(["say what you see, " + prompt], max_tokens=9)
        assert bill.write_on(tiny, beginning, prompt, max_tokens=9, stop=()) == whole


def test_a_stop_text_ends_what_is_written_and_is_cut_off(tiny):
    whole = bill.write_whole(tiny, "a cab", max_tokens=9, stop=())
    cut = bill.write_whole(tiny, "a cab", max_tokens=9, stop=[whole[4]])
    assert cut == whole[: whole.index(whole[4])]


def test_the_task_is_a_beginning_of_every_prompt(tiny):
    for prompt in ("a cab", "  \n<|im_end|>", "夕阳"):
        beginning, rest = bill.split_task(tiny, prompt)
        assert beginning + rest == tiny.chat(bill.TASK + prompt)
        assert beginning == bill.split_task(tiny, "x")[0]


# ---------------------------------------------------------------- from a prompt to a PNG


def test_a_bill_has_a_png_of_the_image_and_the_time_of_each_stage():
    paid = pay(PLAIN, "a cab", seed=7)
    assert paid.description == "a cab, described"
    assert np.asarray(Image.open(io.BytesIO(paid.png))).tolist() == [[[7] * 3] * 64] * 64
    assert tuple(paid.milliseconds) == STAGES
    assert all(spent >= 0 for spent in paid.milliseconds.values())
    assert paid.total == sum(paid.milliseconds.values())


def test_a_png_gives_its_image_back():
    image = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(to_png(image)))) == image).all()


# ---------------------------------------------------------------- fewer blocks, fewer bytes


def test_a_token_reads_every_weight_once(tiny):
    block = 16 * (4 + 2 * 2) * 4 + 16 * 16 + 16 * 2 * 24 + 24 * 16 + 2 * 16
    assert bill.weight_bytes(tiny) == 4 * (3 * block + 16 + (len(LETTERS) + 1) * 16)


def test_the_states_between_blocks_are_those_of_the_transformer(tiny):
    ids = tiny.tokenize("a big cab")
    x = np.asarray(tiny.embedding)[None, ids]
    for depth, state in enumerate(prune._states(tiny, ids)[1:], start=1):
        expected = np.asarray(tiny.transformer(x, depth=depth))[0]
        np.testing.assert_allclose(state, expected, atol=1e-5)


def test_a_block_that_adds_nothing_has_no_influence(tiny):
    block = tiny.transformer.blocks[1]
    kept = [np.array(layer.kernel) for layer in (block.out, block.down)]
    for layer in (block.out, block.down):
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    try:
        influence = prune.influence(tiny, ["a big cab", "the sea"])
    finally:
        for layer, kernel in zip((block.out, block.down), kept, strict=True):
            layer.kernel.assign(kernel)
    assert influence.shape == (3,)
    assert abs(influence[1]) < 1e-6
    assert min(influence[0], influence[2]) > 1e-4


def test_texts_of_one_token_tell_nothing_of_influence(tiny):
    with pytest.raises(ValueError, match="second token"):
        prune.influence(tiny, ["a"])


# ---------------------------------------------------------------- llama.cpp, and SmolLM2 itself


def test_a_missing_llama_cpp_is_an_error_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install xllamacpp"):
        bill.LlamaCpp(1)


def test_all_ways_make_a_png_and_those_that_write_freely_write_the_same():
    pytest.importorskip("tokenizers")
    try:
        llm = text.writer.load_reader().llm
    except ImportError as error:
        pytest.skip(str(error))

    def file(noise, embedded):
        assert noise.shape == (1, 16, 16, 4)
        assert embedded.shape == (1, 128)
        return np.full((1, 64, 64, 3), 7, np.uint8)

    found = bill.ways(llm, tokens=3, file=file)
    paid = {name: pay(way, "a boat at night") for name, way in found.items()}
    assert list(paid) == [
        "naive",
        "KV cache",
        "shared prefix",
        "constrained",
        "looked up",
        "student",
        "student, one file",
    ]
    assert np.asarray(Image.open(io.BytesIO(paid["student, one file"].png))).min() == 7
    assert paid["naive"].description == paid["KV cache"].description
    assert paid["shared prefix"].description == paid["naive"].description
    assert paid["naive"].png == paid["KV cache"].png == paid["shared prefix"].png
    assert paid["constrained"].png == paid["looked up"].png
    for each in paid.values():
        assert np.asarray(Image.open(io.BytesIO(each.png))).shape == (64, 64, 3)
    asked = llm.chat(bill.TASK + "a boat at night")
    (cached,) = llm.generate([asked], 6)
    assert bill.write_whole(llm, asked, 6, stop=()) == cached
    beginning, rest = bill.split_task(llm, "a boat at night")
    assert bill.write_on(llm, llm.prefill(beginning), rest, 6, stop=()) == cached


def test_llama_cpp_begins_with_the_tokens_of_our_own_model():
    pytest.importorskip("xllamacpp")
    llm = text.writer.load_reader().llm
    asked = llm.chat("Is snow white?")
    llama = bill.LlamaCpp(threads=1)
    (ours,) = llm.generate([asked], 3)
    assert llama(llm.tokenize(asked), max_tokens=3, stop=()) == ours  # in four bits, so only three
