"""What holds for the page that draws in the browser: it makes the images of genlib.

Its modules are served on loopback and imported into headless Chromium. Where Debian's `chromium`
and `chromium-driver` are missing, the tests are skipped and say so; GENLIB_SITE=required (set in
CI) turns that into a failure.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver

from genlib import pipeline, pretrained, text
from genlib.models import sampling
from genlib.text import lexicon, reader, student, writer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import draw  # noqa: E402

TOOLS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
PROMPTS = [
    "a beautiful sunset over a calm sea",
    "a house by a lake, in the rain",
    "snowy mountains at night, the moon on the left",
    "a balloon over green hills at dawn",
    "the desert at noon",
    "a foggy morning in the city",
    "a boat at dusk, no clouds",
    "a lone tree on a hill under a clear sky",
    "city lights after dark",
    "something quiet",
    "生成一张美丽的夕阳图像",
    "海边的傍晚",
    "雪山上的热气球",
    "湖边的小屋，下雨",
    "沙漠里的一棵树",
    "城市的夜晚，月亮在右边",
    "有雾的清晨，丘陵",
    "大海上的一艘帆船",
    "没有太阳的白天",
    "宁静的山间湖泊",
]
SEED, STEPS = 11, (1, 2, 4)


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    for name, path in TOOLS.items():
        if path is None:
            reason = f"{name} is not installed: apt install chromium chromium-driver"
            if os.environ.get("GENLIB_SITE") == "required":
                pytest.fail(reason)
            pytest.skip(reason)


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files as a site has them."""
    made = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book" / "_assets" / "draw", made / "draw")
    draw.provide(made / "draw" / "weights")
    (made / "empty.html").write_text("<!doctype html><meta charset=utf-8><title>x</title>")
    return made


@pytest.fixture(scope="session")
def browser(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = TOOLS["chromium"]
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-background-networking"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(TOOLS["chromedriver"])
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(600)
    driver.get(f"http://127.0.0.1:{server.server_port}/empty.html")
    yield driver
    driver.quit()
    server.shutdown()


def run(browser: webdriver.Chrome, body: str, *arguments: Any) -> Any:
    """Run the body of an async function; it may import the page's modules, and returns JSON."""
    found = browser.execute_async_script(
        "const given = [...arguments], done = given.pop();"
        f"(async (...given) => {{ {body} }})(...given)"
        ".then(value => done({value}), error => done({error: String(error.stack)}));",
        *arguments,
    )
    assert "error" not in found, found["error"]
    return found["value"]


# ---------------------------------------------------------------- noise


def test_the_noise_is_numpys_bit_for_bit(browser: webdriver.Chrome) -> None:
    keys = [(seed, i) for seed in (0, 1, 7, 2**31, 2**32 + 5, 2**64 - 1) for i in range(40)]
    made = run(
        browser,
        """
        const { normals } = await import('/draw/noise.js');
        return given[0].map(([seed, i]) =>
          [...new Uint32Array(normals(1024, BigInt(seed), i).buffer)]);
        """,
        [(str(seed), i) for seed, i in keys],
    )
    expected = np.stack(
        [sampling.stream(seed, i).standard_normal(1024, np.float32) for seed, i in keys]
    )
    made = np.array(made, np.uint32).view(np.float32)
    # One number in 4,000 lies in the tail, which takes a logarithm from the C library; of these,
    # one in some hundreds is rounded otherwise there.
    tail = np.abs(expected) > 3.6541
    assert np.array_equal(made[~tail].view(np.uint32), expected[~tail].view(np.uint32))
    assert tail.sum() > 20
    np.testing.assert_allclose(made[tail], expected[tail], rtol=1.2e-7)


def test_the_draws_of_descriptions_are_numpys(browser: webdriver.Chrome) -> None:
    made = run(
        browser,
        """
        const { Stream } = await import('/draw/noise.js');
        const stream = new Stream(5n, [2 ** 31, 3]);
        return Array.from({length: 2000}, () => stream.gumbel());
        """,
    )
    expected = sampling.stream((5, sampling.WORDS), 3).gumbel(size=2000)
    np.testing.assert_allclose(made, expected, rtol=1e-14, atol=1e-15)


# ---------------------------------------------------------------- texts


def fuzzed(n: int) -> list[str]:
    """Texts that people write, phrases of the lexicon in disorder, misspelt words, and noise."""
    rng = random.Random(0)
    natural = [
        json.loads(line)["text"]
        for name in ("natural", "natural-development")
        for line in (ROOT / "tests" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    phrases = [p.replace("{body}", "sun") for part in lexicon.sections().values() for p in part]
    assigned = [
        chr(c)
        for c in range(32, 0x20000)
        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co", "Cc")
    ]
    joins = [
        " ",
        ", ",
        " and ",
        " no ",
        "没有",
        "，",
        "的",
        " without ",
        "-free ",
        "\n",
        " but ",
        "’t ",
    ]
    emoji = "🎈🌅🏠🌊❄🌙☀️⛵🚫👨‍👩‍👧"
    made = list(natural)
    while len(made) < n:
        parts = rng.choices(phrases, k=rng.randrange(1, 7))
        kind = rng.random()
        if kind < 0.2:
            parts.append("".join(rng.choices(assigned, k=rng.randrange(1, 12))))
        if kind > 0.85:
            parts.append("".join(rng.choices(emoji, k=3)))
        found = "".join(part + rng.choice(joins) for part in parts)
        if 0.2 < kind < 0.6 and len(found) > 4:
            at = rng.randrange(len(found))
            found = found[:at] + rng.choice("aeiorst不海 ") + found[at + rng.randrange(3) :]
        if 0.6 < kind < 0.65:
            found = (found + " ") * rng.randrange(20, 120)
        made.append(found.swapcase() if kind > 0.95 else found)
    return [text for text in made if text.strip()]


@pytest.fixture(scope="session")
def texts(folder: Path) -> list[str]:
    made = fuzzed(3000)
    (folder / "texts.json").write_text(json.dumps(made), "utf-8")
    return made


ROOM = """
const { load } = await import('/draw/weights.js');
const { Student, features } = await import('/draw/student.js');
const { Reader } = await import('/draw/reader.js');
const { Writer } = await import('/draw/writer.js');
const folder = new URL('/draw/weights/', location);
const { card, buffer } = await load(folder, 'text-student');
const student = new Student({ buffer, config: card.config });
const lexicon = await (await fetch(new URL('lexicon.json', folder))).json();
const reader = new Reader(lexicon, student);
const writer = new Writer(lexicon, reader);
const texts = await (await fetch('/texts.json')).json();
"""


def test_features_of_thousands_of_texts_are_equal(
    browser: webdriver.Chrome, texts: list[str]
) -> None:
    made = run(browser, ROOM + "return texts.map((text) => features(text));")
    assert len(made) >= 3000 - 100
    wrong = [t for t, row in zip(texts, made, strict=True) if row != student.features(t)]
    assert not wrong


def test_embeddings_and_readings_are_equal_to_rounding(
    browser: webdriver.Chrome, texts: list[str]
) -> None:
    made = run(
        browser,
        ROOM
        + """
        return ['', '🤷', ...texts.slice(0, 600)].map((text) => {
          const { embedding, logits } = student.outputs(text);
          return [...embedding, ...logits];
        });
        """,
    )
    embedding, parts = student.load_student().outputs(["", "🤷", *texts[:600]])
    expected = np.concatenate([embedding, *parts], axis=1)
    assert not np.any(np.array(made)[:2, : text.WIDTH])
    np.testing.assert_allclose(np.array(made)[:, : text.WIDTH], embedding, atol=1e-5)
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_prompts_are_understood_alike(browser: webdriver.Chrome, texts: list[str]) -> None:
    made = run(browser, ROOM + "return texts.map((text) => reader.understand(text));")
    wrong = []
    for given, found in zip(texts, made, strict=True):
        known = reader.understand(given)
        expected = {
            "named": known.named,
            "excluded": {name: sorted(values) for name, values in known.excluded.items()},
            "unknown": list(known.unknown),
            "cut": known.cut,
        }
        found["excluded"] = {name: sorted(values) for name, values in found["excluded"].items()}
        if found != expected:
            wrong.append((given, found, expected))
    assert not wrong


def test_descriptions_and_notes_are_those_of_genlib(
    browser: webdriver.Chrome, texts: list[str]
) -> None:
    asked = [*PROMPTS, *texts[:100]]
    made = run(
        browser,
        ROOM + "return given[0].map((text) => writer.describe(text, 3, 5n));",
        asked,
    )
    for given, found in zip(asked, made, strict=True):
        expected = writer.describe(given, 3, 5)
        assert [row["text"] for row in found] == [d.text for d in expected], given
        assert [row["note"] for row in found] == [d.understood for d in expected], given


# ---------------------------------------------------------------- images

IMAGES = (
    ROOM
    + """
const { compile, Kernel, Flow, Decoder } = await import('/draw/kernel.js');
const { normals } = await import('/draw/noise.js');
const [prompts, seed, counts, int8, name, options] = given;
const bytes = await (await fetch(`/draw/${name}`)).arrayBuffer();
const kernel = new Kernel(await WebAssembly.compile(bytes));
const network = async (kind, what) => {
  const { card, buffer } = await load(folder, what);
  return new kind(kernel, { buffer, config: card.config }, int8);
};
const flow = await network(Flow, options.flow ?? 'flow-shortcut');
const decoder = await network(Decoder, 'tokenizer');
const made = [];
for (const steps of counts) {
  for (const prompt of prompts) {
    const [{ text }] = writer.describe(prompt, 1, BigInt(seed));
    const { embedding } = student.outputs(text);
    const latents = flow.sample(embedding, normals(1024, BigInt(seed), 0), { steps, ...options });
    made.push(btoa(String.fromCharCode(...decoder.decode(latents))));
  }
}
return made;
"""
)


def drawn(browser: webdriver.Chrome, *arguments: Any) -> np.ndarray:
    import base64  # late: beside its one use

    made = [base64.b64decode(row) for row in run(browser, IMAGES, *arguments)]
    images = np.frombuffer(b"".join(made), np.uint8).reshape(-1, 64, 64, 4)
    assert (images[..., 3] == 255).all()
    return images[..., :3].astype(int)


@pytest.fixture(scope="session")
def expected() -> np.ndarray:
    """What genlib draws for each prompt, at each number of steps."""
    model, tokenizer = pretrained.load("flow-shortcut"), pretrained.load_tokenizer()
    words = [pipeline.describe(prompt, 1, SEED)[0] for prompt in PROMPTS]
    # Each prompt is a call of its own, so each image is the first of its seed.
    noise = np.repeat(sampling.normals(1, (16, 16, 4), SEED), len(PROMPTS), axis=0)
    found = [
        tokenizer.decode(
            model.sample(text.encode(words), SEED, steps=steps, guidance=1.0, noise=noise)
        )
        for steps in STEPS
    ]
    whole = pipeline.generate(PROMPTS[0], 1, seed=SEED, steps=2).images[0].astype(int)
    assert np.abs(whole - found[1][0]).max() <= 1  # the same path as genlib.generate
    return np.concatenate(found).astype(int)


@pytest.mark.parametrize("kernel", ["kernel-simd.wasm", "kernel-relaxed.wasm"])
def test_images_are_those_of_genlib_to_one_grey_level(
    browser: webdriver.Chrome, texts: list[str], expected: np.ndarray, kernel: str
) -> None:
    made = drawn(browser, PROMPTS, str(SEED), STEPS, False, kernel, {})
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 0.001


@pytest.mark.parametrize("kernel", ["kernel-simd.wasm", "kernel-relaxed.wasm"])
def test_images_of_bytes_are_near_those_of_floats(
    browser: webdriver.Chrome, texts: list[str], expected: np.ndarray, kernel: str
) -> None:
    made = drawn(browser, PROMPTS, str(SEED), STEPS, True, kernel, {})
    error = np.sqrt(((made - expected) ** 2).mean((1, 2, 3)))
    print("RMS error of a pixel:", np.round([error.mean(), error.max()], 2))
    assert error.mean() < 2
    assert error.max() < 6


def test_the_slow_way_is_the_flow_with_guidance(
    browser: webdriver.Chrome, texts: list[str]
) -> None:
    options = {"flow": "flow", "guidance": 3}
    made = drawn(browser, PROMPTS[9:12], str(SEED), [8], False, "kernel-relaxed.wasm", options)
    words = [pipeline.describe(prompt, 1, SEED)[0] for prompt in PROMPTS[9:12]]
    noise = np.repeat(sampling.normals(1, (16, 16, 4), SEED), 3, axis=0)
    latents = pretrained.load("flow").sample(
        text.encode(words), SEED, steps=8, guidance=3.0, noise=noise
    )
    assert np.abs(made - pretrained.load_tokenizer().decode(latents)).max() <= 1
