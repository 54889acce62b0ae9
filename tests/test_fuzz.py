"""What is read from outside is read whole, or refused by an error that the docstring names."""

import asyncio
import gzip
import hashlib
import io
import json
import lzma

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_gguf import tiny_file

from genlib import pipeline, text, weights
from genlib.data import folder
from genlib.data.idx import format_idx, read_idx
from genlib.files import DamagedFileError
from genlib.models.gan import GANConfig
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.text import gguf
from genlib.weights import checkpoint

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**64, 10**30, 1e308])
junk = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def damaged(draw, whole):
    """A file with a few cuts, gaps, insertions and changed bytes; whole at times."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["cut", "drop", "insert", "set"]))
        if how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + draw(st.integers(1, 20))]
        else:
            new = draw(st.binary(min_size=1, max_size=8))
            data[at : at + (len(new) if how == "set" else 0)] = new
    return bytes(data)


@st.composite
def altered(draw, whole):
    """A JSON object with a value or two replaced, missing or too many, at any depth."""
    made = dict(whole)
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(sorted(whole) or [""]) | st.text(max_size=8))
        if isinstance(made.get(key), dict) and draw(st.booleans()):
            made[key] = draw(altered(made[key]))
        elif draw(st.booleans()):
            made[key] = draw(junk)
        else:
            made.pop(key, None)
    return made


def texts_of_json(objects):
    """JSON of objects, or damaged JSON."""
    return objects.map(lambda value: json.dumps(value).encode()).flatmap(
        lambda content: st.just(content) | damaged(content)
    )


def tried(call, *documented):
    """Returns what a call gives; None if it is refused by a documented error that says why."""
    try:
        return call()
    except documented as error:
        message = str(error)
    assert message
    return None


# ---------------------------------------------------------------- prompts

WORDS = [
    "a",
    "no",
    "without",
    "lake",
    "sunset",
    "over",
    "the",
    "sea",
    "boat",
    "船",
    "没有",
    "的",
    "湖",
]
prompts = st.text(max_size=100) | st.lists(
    st.sampled_from(WORDS)
    | st.text(max_size=6)
    | st.sampled_from(["-", "'", "\u200d", "🌅", "\0"]),
    max_size=30,
).map(" ".join)


@given(prompts)
def test_any_prompt_is_understood_or_refused(prompt):
    try:
        pipeline.check(prompt, 1, 0)
    except ValueError:
        return
    found = text.understand(prompt)
    assert isinstance(found, text.Understood)
    vectors = text.encode([prompt])
    assert vectors.shape == (1, text.WIDTH)
    assert np.isfinite(vectors).all()
    assert text.describe(prompt, 1)[0].text.strip()


@given(st.integers(1, 4), st.text(alphabet="a船 e\u0301-,.'\n", min_size=1, max_size=20))
def test_a_prompt_of_any_length_is_understood_or_refused(times, part):
    test_any_prompt_is_understood_or_refused.hypothesis.inner_test(part * (900 * times))


# ---------------------------------------------------------------- folders


def image_file(format, mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, (5, 4), 1).save(file, format, **options)
    return file.getvalue()


IMAGES = [
    image_file("PNG"),
    image_file("PNG", "P", transparency=1),
    image_file("PNG", "I;16"),
    image_file("PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    image_file("JPEG", icc_profile=b"profile", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    image_file("GIF", "P"),
    image_file("BMP"),
    image_file("TIFF", "RGBA"),
    image_file("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    image_file("ICO"),
]


@same_folder
@given(st.sampled_from(IMAGES).flatmap(damaged))
def test_any_file_is_an_image_or_refused(tmp_path, content):
    (tmp_path / "1").write_bytes(content)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1", "text": "one"}')
    found = tried(lambda: folder(tmp_path, 3), ValueError)
    assert found is None or found.images.shape == (1, 3, 3, 3)


names = st.sampled_from(["1.png", "./1.png", "a/2.png", "a", "..", "/", "e\u0301.png", " 1.png"])
entries = altered({"file_name": "1.png", "text": "one"}) | st.fixed_dictionaries(
    {"file_name": names | st.text(max_size=8), "text": st.text(max_size=8)}
)


@same_folder
@given(st.lists(texts_of_json(entries), max_size=3).map(b"\n".join))
def test_any_metadata_is_read_or_refused(tmp_path, lines):
    for name in ("1.png", "a/2.png", "\u00e9.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGES[0])
    (tmp_path / "metadata.jsonl").write_bytes(lines)
    found = tried(lambda: folder(tmp_path, 2), ValueError)
    assert found is None or len(found) == len(found.captions) == len(found.names) > 0


# ---------------------------------------------------------------- IDX, GGUF, safetensors

IDX = format_idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@same_folder
@given(st.sampled_from([IDX, gzip.compress(IDX), lzma.compress(IDX)]).flatmap(damaged))
def test_any_file_is_an_idx_array_or_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    array = tried(lambda: read_idx(tmp_path / "x"), DamagedFileError)
    assert array is None or array.dtype == np.uint8


@same_folder
@given(damaged(tiny_file()))
def test_any_file_is_gguf_whose_tensors_unpack_or_refused(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    file = tried(lambda: gguf.read(tmp_path / "x.gguf"), DamagedFileError)
    for name, (shape, _, _) in file.tensors.items() if file else ():
        with np.errstate(all="ignore"):  # a damaged scale may be infinite
            assert file[name].shape == shape


ARRAYS = {"a/kernel": np.ones((2, 3), np.float16), "b": np.zeros((), np.int64)}


@same_folder
@given(st.data())
def test_any_file_is_arrays_or_refused_though_its_hash_fits(tmp_path, data):
    weights.save(tmp_path / "whole", ARRAYS, {})
    content = data.draw(damaged((tmp_path / "whole.safetensors").read_bytes()))
    (tmp_path / "w.safetensors").write_bytes(content)
    (tmp_path / "w.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    loaded = tried(lambda: weights.load(tmp_path / "w"), weights.WeightsError)
    assert loaded is None or all(isinstance(array, np.ndarray) for array in loaded[0].values())


# ---------------------------------------------------------------- cards and runs

SMALL = TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Weights of a small model, and its card."""
    path = tmp_path_factory.mktemp("weights") / "w"
    card = {"recipe": "tokenizer", "config": json.loads(json.dumps(vars(SMALL)))}
    weights.save(path, weights.model_arrays(Tokenizer(SMALL)), card)
    return path, json.loads(path.with_suffix(".json").read_text())


@given(st.data())
def test_any_card_is_that_of_the_weights_or_refused(tokenizer, data):
    path, card = tokenizer
    path.with_suffix(".json").write_bytes(data.draw(texts_of_json(altered(card))))
    loaded = tried(
        lambda: weights.load_model(path, ("tokenizer",), Tokenizer, TokenizerConfig),
        weights.WeightsError,
    )
    assert loaded is None or isinstance(loaded[0], Tokenizer)


@given(texts_of_json(altered({"network": "mlp", "step": "one-stage"})))
def test_any_settings_are_those_of_a_model_or_refused(content):
    try:
        values = json.loads(content)
    except ValueError:
        return
    made = tried(lambda: weights.settings(GANConfig, values), weights.WeightsError)
    assert made is None or isinstance(made, GANConfig)


class Variable:
    """As much of a Keras variable as a checkpoint needs."""

    def __init__(self):
        self.value = np.zeros(2, np.float32)

    def assign(self, value):
        assert value.shape == self.value.shape
        self.value = value


RUN_ERRORS = (checkpoint.RunError, weights.WeightsError, FileNotFoundError)


@same_folder
@given(st.data())
def test_any_state_of_a_run_is_gone_on_from_or_refused(tmp_path, data):
    (tmp_path / "run.json").write_text('{"recipe": "gan"}')
    state = checkpoint.State(2, {"loss": [1.0, 0.5]}, 3.0, 40)
    checkpoint.save(tmp_path, state, {"a": Variable()})
    file = tmp_path / "state.json"
    file.write_bytes(data.draw(texts_of_json(altered(json.loads(file.read_bytes())))))
    found = tried(lambda: checkpoint.restore(tmp_path, {"a": Variable()}), *RUN_ERRORS)
    assert found is None or isinstance(found, checkpoint.State)


@same_folder
@given(texts_of_json(altered({"recipe": "gan", "seed": 0, "config": {"network": "mlp"}})))
def test_any_description_of_a_run_is_read_or_refused(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    found = tried(lambda: checkpoint.read_run(tmp_path, ("gan",)), *RUN_ERRORS)
    assert found is None or isinstance(found, dict)


# ---------------------------------------------------------------- requests

requests = texts_of_json(altered({"prompt": "a lake", "n": 1, "seed": 0})) | texts_of_json(
    st.fixed_dictionaries({"prompt": prompts, "n": st.integers(-1, 9), "seed": numbers})
)


def test_any_request_is_drawn_or_refused_with_a_sentence(monkeypatch):
    pytest.importorskip("starlette", reason="the server's packages: starlette, uvicorn, httpx")
    import httpx

    from genlib.serve import app as server

    class Renderer:
        def __init__(self, *_, **__):
            pass

        def __call__(self, items):
            return [server.Rendered(b"png", job.prompt) for job, _ in items]

    monkeypatch.setattr(server, "Renderer", Renderer)
    application = server.app(max_batch=2, max_queue=8, max_wait=0, cache_bytes=0)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)

    async def start():
        lifespan = application.router.lifespan_context(application)
        await lifespan.__aenter__()
        http = httpx.AsyncClient(transport=transport, base_url="http://test")
        while (await http.get("/health")).status_code != 200:
            await asyncio.sleep(0.001)
        return lifespan, http

    with asyncio.Runner() as runner:
        lifespan, http = runner.run(start())

        @given(requests, st.text(max_size=20, alphabet=st.characters(codec="ascii")))
        def send(body, accept):
            accept = "".join(c for c in accept if c.isprintable())
            answer = runner.run(http.post("/generate", content=body, headers={"Accept": accept}))
            if answer.status_code == 200:
                assert answer.content == b"png" or answer.json()["images"]
            else:
                assert answer.status_code == 400
                assert " " in answer.json()["error"]

        send()
        runner.run(lifespan.__aexit__(None, None, None))
