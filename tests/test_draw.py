"""What holds for the page that draws in the browser: it makes the images of genlib.

Its modules are served on loopback and imported into headless Chromium. Where Debian's `chromium`
and `chromium-driver` are missing, the tests are skipped and say so; GENLIB_SITE=required (set in
CI) turns that into a failure.
"""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import need
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from genlib import pipeline, pretrained, text
from genlib.models import sampling
from genlib.text import lexicon, reader, student, writer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "scripts")]
import chromium  # noqa: E402
import draw  # noqa: E402
import kernel  # noqa: E402

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


class Asked(chromium.Quiet):
    """Remembers what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *args: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files as a site has them."""
    made = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book" / "_assets" / "draw", made / "draw")
    draw.provide(made / "draw" / "weights")
    for name in ("draw", "index"):
        raw = (ROOT / "book" / f"{name}.md").read_text("utf-8")
        [block] = re.findall(r"^```\{raw\} html\n(.*?)^```$", raw, re.M | re.S)
        head = "<!doctype html><html lang=en><meta charset=utf-8><title>Draw</title>"
        (made / f"{name}.html").write_text(head + block.replace("../_static/", ""), "utf-8")
    (made / "empty.html").write_text("<!doctype html><meta charset=utf-8><title>x</title>")
    return made


@pytest.fixture(scope="session")
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    if reason := chromium.missing():
        need(reason)
    alone = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # no other host has an address
    with (
        chromium.served(folder, Asked) as address,
        chromium.opened(alone, logs=True) as driver,
    ):
        driver.address = address
        driver.get(f"{address}/empty.html")
        yield driver


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


# ---------------------------------------------------------------- the kernel


@pytest.mark.parametrize("name", kernel.KERNELS)
def test_the_compiled_kernel_is_what_its_source_compiles_to(name: str) -> None:
    if reason := kernel.missing():
        need(reason)
    assert (kernel.FOLDER / name).read_bytes() == kernel.compiled(name), "python scripts/kernel.py"


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
            "places": list(known.places),
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


@pytest.mark.parametrize("name", kernel.KERNELS)
def test_images_are_those_of_genlib_to_one_grey_level(
    browser: webdriver.Chrome, texts: list[str], expected: np.ndarray, name: str
) -> None:
    made = drawn(browser, PROMPTS, str(SEED), STEPS, False, name, {})
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 0.001


@pytest.mark.parametrize("name", kernel.KERNELS)
def test_images_of_bytes_are_near_those_of_floats(
    browser: webdriver.Chrome, texts: list[str], expected: np.ndarray, name: str
) -> None:
    made = drawn(browser, PROMPTS, str(SEED), STEPS, True, name, {})
    error = np.sqrt(((made - expected) ** 2).mean((1, 2, 3)))
    print("RMS error of a pixel:", np.round([error.mean(), error.max()], 2))
    assert error.mean() < 2
    assert error.max() < 6


def test_the_slow_way_is_the_flow_with_guidance(
    browser: webdriver.Chrome, texts: list[str]
) -> None:
    options = {"flow": "flow", "guidance": 1.5}
    made = drawn(browser, PROMPTS[9:12], str(SEED), [8], False, "kernel-relaxed.wasm", options)
    words = [pipeline.describe(prompt, 1, SEED)[0] for prompt in PROMPTS[9:12]]
    noise = np.repeat(sampling.normals(1, (16, 16, 4), SEED), 3, axis=0)
    latents = pretrained.load("flow").sample(
        text.encode(words), SEED, steps=8, guidance=1.5, noise=noise
    )
    assert np.abs(made - pretrained.load_tokenizer().decode(latents)).max() <= 1


# ---------------------------------------------------------------- the page


def part(browser: webdriver.Chrome, name: str) -> Any:
    return browser.find_element("css selector", f"[data-part={name}]")


def said(browser: webdriver.Chrome, *words: str) -> str:
    """Wait until the page says one of some words, and return all that it says."""
    waiting = WebDriverWait(browser, 300)
    waiting.until(lambda _: any(word in part(browser, "status").text for word in words))
    return part(browser, "status").text


def pixels(browser: webdriver.Chrome, name: str = "sheet") -> np.ndarray:
    """What a canvas shows."""
    address = browser.execute_script("return arguments[0].toDataURL()", part(browser, name))
    content = base64.b64decode(address.split(",")[1])
    return np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def empty_cache(browser: webdriver.Chrome) -> None:
    options = {"origin": browser.address, "storageTypes": "cache_storage"}
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", options)


@pytest.fixture
def page(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The page, opened; at the end its console must be clean, and no other host asked."""
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(f"{browser.address}/draw.html")
    yield browser
    messages = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    inside = (browser.address, "blob:", "data:")
    assert not [url for url in asked if not url.startswith(inside)]
    # Chromium itself tells of files that did not come, as in the test of a failed download.
    rows = [row for row in browser.get_log("browser") if "favicon" not in row["message"]]
    assert not [row for row in rows if "Failed to load" not in row["message"]]


def test_enter_draws_the_images_of_generate_and_weights_come_once(
    page: webdriver.Chrome,
) -> None:
    empty_cache(page)
    Asked.asked.clear()
    part(page, "prompt").clear()
    part(page, "prompt").send_keys(PROMPTS[0], Keys.ENTER)
    assert "ms an image" in said(page, "drawn", "try again")
    expected = pipeline.generate(PROMPTS[0], 16)
    sheet = expected.images.reshape(4, 4, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(256, 256, 3)
    assert np.abs(pixels(page) - sheet).max() <= 1
    assert part(page, "notes").text == expected.notes[0]
    items = page.execute_script(
        "return [...document.querySelectorAll('ol[data-part] li')].map(row => row.textContent)"
    )
    assert tuple(items) == expected.descriptions
    assert PROMPTS[0] in part(page, "sheet").get_attribute("aria-label")
    fetched = [path for path in Asked.asked if path.endswith(".safetensors")]
    assert len(fetched) == len(set(fetched)) == 3

    Asked.asked.clear()
    page.refresh()
    page.find_element("css selector", "button[type=submit]").click()
    said(page, "drawn", "try again")
    assert not [path for path in Asked.asked if path.endswith(".safetensors")]


def test_what_is_shown_can_be_saved(page: webdriver.Chrome, tmp_path: Path) -> None:
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    page.find_element("css selector", "button[type=submit]").click()
    said(page, "drawn", "try again")
    part(page, "save").click()
    saved = tmp_path / "images.png"  # it has another name until it is whole
    WebDriverWait(page, 300).until(lambda _: saved.exists())
    with Image.open(saved) as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), pixels(page))


def test_a_damaged_download_is_told_and_can_be_tried_again(
    page: webdriver.Chrome, folder: Path
) -> None:
    empty_cache(page)
    file = folder / "draw" / "weights" / "tokenizer.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    button = page.find_element("css selector", "button[type=submit]")
    button.click()
    assert "tokenizer.safetensors came damaged. Press" in said(page, "drawn", "try again")
    file.unlink()
    button.click()
    assert "404" in said(page, "drawn", "404")
    file.write_bytes(whole)
    button.click()
    assert "16 images drawn" in said(page, "drawn")


@pytest.mark.parametrize(
    ("prompt", "seed", "words"),
    [("  ", "0", "The prompt is empty"), ("sea", "-1", "whole number"), ("sea", "9" * 20, "whole")],
)
def test_bad_input_gets_one_sentence(
    page: webdriver.Chrome, prompt: str, seed: str, words: str
) -> None:
    for name, value in (("draw-prompt", prompt), ("draw-seed", seed)):
        page.find_element("id", name).clear()
        page.find_element("id", name).send_keys(value)
    page.find_element("css selector", "button[type=submit]").click()
    assert words in said(page, words)


def test_a_walk_runs_until_escape_and_stands_still_where_little_motion_is_asked_for(
    page: webdriver.Chrome,
) -> None:
    part(page, "walkButton").send_keys(Keys.ENTER)
    said(page, "Walking")
    first = pixels(page, "walk")
    waiting = WebDriverWait(page, 300)
    waiting.until(lambda _: "frames a second" in part(page, "rate").text)
    waiting.until(lambda _: not np.array_equal(pixels(page, "walk"), first))
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert said(page, "Stopped") == "Stopped."
    assert page.switch_to.active_element == part(page, "walkButton")

    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    part(page, "walkButton").click()
    assert "16 stills" in said(page, "stills")
    assert not part(page, "walk").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_race_ends_with_the_images_of_both_ways(page: webdriver.Chrome) -> None:
    part(page, "prompt").clear()
    part(page, "prompt").send_keys("雪山")
    part(page, "raceButton").click()
    assert re.search(r"100 forwards took .* 4 took", said(page, "forwards took", "try again"))
    slow = {"method": "flow", "steps": 50, "solver": "euler"}
    for lane, method in (("slow", slow), ("fast", {})):
        image = pipeline.generate("雪山", 1, **method).images[0]
        assert np.abs(pixels(page, lane) - image).max() <= 1


def test_every_control_has_a_name_and_the_first_page_draws_too(page: webdriver.Chrome) -> None:
    for name in ("draw", "index"):
        page.get(f"{page.address}/{name}.html")
        nameless = page.execute_script(
            "return [...document.querySelectorAll('button, input, canvas, progress')].filter(x =>"
            " !(x.labels?.length || x.ariaLabel || x.textContent.trim())).map(x => x.outerHTML)"
        )
        assert not nameless
    page.find_element("css selector", "button[type=submit]").click()
    assert "16 images drawn" in said(page, "drawn", "try again")
    assert pixels(page).shape == (128, 512, 3)


def test_without_javascript_there_is_a_sentence_and_an_image(page: webdriver.Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(f"{page.address}/draw.html")
        assert part(page, "without").is_displayed()
        assert "make serve" in part(page, "without").text
        assert not part(page, "controls").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_without_the_vectors_of_webassembly_the_sentence_stays(page: webdriver.Chrome) -> None:
    # The whole module is refused, as by a browser of before 2021: not the kernel alone.
    source = "WebAssembly.validate = () => false;"
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        page.get(f"{page.address}/draw.html")
        assert page.execute_script("return !WebAssembly.validate(new Uint8Array(8))")
        assert part(page, "without").is_displayed()
        assert not part(page, "controls").is_displayed()
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
