"""What holds for the built site, seen through a real browser.

The pages in _build/html are served on loopback and opened in headless Chromium. Where Debian's
`chromium` and `chromium-driver`, or the site, are missing, the tests are skipped and say so;
GENLIB_SITE=required (set in CI) turns that into a failure.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import quote, urldefrag, urlsplit

import pytest
import yaml
from conftest import need
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import chromium  # noqa: E402

SITE = ROOT / "_build" / "html"
SHOTS = ROOT / "_build" / "screenshots"
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if not path.relative_to(SITE).parts[0].startswith("_")
)
# A page whose only content is a jump to another page has nothing to look at.
PAGES = [page for page in PAGES if 'http-equiv="Refresh"' not in (SITE / page).read_text()]
GENERATED = {"genindex.html", "search.html", "404.html"}
# Pages of each kind. The dark theme changes colours alone, so axe-core, which takes long on a
# chapter, looks at these there: two chapters have code, figures, formulas, tables, C, JavaScript.
KINDS = {
    *("404.html", "search.html", "book/index.html", "book/log.html", "book/glossary.html"),
    *("book/draw.html", "book/deciders.html", "book/gallery.html"),
    *("book/decoding.html", "book/in-the-browser.html"),
}
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
# Where the site lies on its host: a missing page shows links that start there.
PREFIX = urlsplit(CONFIG["html"]["baseurl"]).path
TEXT = (".html", ".css", ".js", ".mjs", ".svg", ".json", ".wasm")
HEAVIEST = 1_500_000  # bytes of a page, before the weights of the part that draws
# axe-core comes as one file in the package of a driver for another browser library.
AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
DESKTOP, PHONE, PART = (1280, 900), (390, 844), 2400


def missing() -> str | None:
    """Why the pages cannot be opened, or None."""
    return chromium.missing() or (None if PAGES else "the site is not built: make book")


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    if reason := missing():
        need(reason)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    host = tmp_path_factory.mktemp("host")
    (host / PREFIX.strip("/")).symlink_to(SITE)
    with chromium.served(host) as found:
        yield found + PREFIX.rstrip("/")


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium.opened("hide-scrollbars", logs=True) as driver:
        yield driver


# Wait for fonts and MathJax: all that changes a page after it is loaded.
SETTLED = """
const done = arguments[arguments.length - 1];
(async () => {
  document.head.insertAdjacentHTML(
    'beforeend', '<style>*, ::before, ::after { transition: none !important }</style>');
  await document.fonts.ready;
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  done(true);
})();
"""

# What the page looks like now, in one round trip.
FINDINGS = r"""
const text = node => (node.outerHTML || '').slice(0, 120);
const main = document.querySelector('.bd-article') || document.body;
const wide = document.documentElement.clientWidth;
const scrolls = node => {
  for (let up = node.parentElement; up && up !== document.body; up = up.parentElement) {
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)) return true;
  }
  return false;
};
const images = [...main.querySelectorAll('img')];
return {
  overflow: document.documentElement.scrollWidth > wide + 1
    ? [...main.querySelectorAll('*')].filter(
        node => node.getBoundingClientRect().right > wide + 1 && !scrolls(node)).map(text)
        .concat([`page is ${document.documentElement.scrollWidth} px wide, window ${wide}`])
    : [],
  alt: images.filter(node => !(node.getAttribute('alt') || '').trim() || node.alt.length > 250
    || /\.(png|svg|jpe?g)$/.test(node.alt)).map(text),
  broken: images.filter(node => node.complete && !node.naturalWidth).map(text),
  formulas: [...main.querySelectorAll('.math')].filter(
    node => !node.querySelector('mjx-container svg')).map(text)
    .concat([...main.querySelectorAll('[data-mml-node="merror"], mjx-merror')].map(text)),
  titles: main.querySelectorAll('h1').length === 1 ? [] : ['a page has one title'],
};
"""


def requests(driver: webdriver.Chrome) -> list[str]:
    """The addresses that the page asked for since the last call."""
    messages = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@functools.cache
def weigh(file: str) -> int:
    """The bytes of a file of the site as hosts send it: text is compressed."""
    path = SITE / file
    if not path.is_file() or path.parent.name == "weights":
        return 0
    content = path.read_bytes()
    return len(gzip.compress(content, 6) if path.suffix in TEXT else content)


def violations(driver: webdriver.Chrome) -> list[str]:
    """What axe-core finds serious or critical on the page as it is shown now."""
    driver.execute_script(AXE)
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        # docutils' list of references says that it is a list, and holds no items.
        "axe.run({exclude: ['.citation-list']}, {resultTypes: ['violations'], preload: false})"
        ".then("
        "  found => done(found.violations.filter(one => /serious|critical/.test(one.impact))"
        "    .map(one => `${one.id}: ${one.nodes.slice(0, 3).map(node => node.target)}`)))"
    )
    return list(found)


def show(driver: webdriver.Chrome, size: tuple[int, int], theme: str) -> None:
    """Take the size of a window or a phone, and the reader's choice of theme."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )


def screenshot(driver: webdriver.Chrome, name: str) -> None:
    """Keep the whole page for a person to look at, in parts that fit a screen or two."""
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    SHOTS.mkdir(parents=True, exist_ok=True)
    for part, top in enumerate(range(0, size["height"], PART)):
        height = min(PART, size["height"] - top)
        clip = {"x": 0, "y": top, "scale": 1, "width": size["width"], "height": height}
        image = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        (SHOTS / f"{name}-{part}.png").write_bytes(base64.b64decode(image["data"]))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_page_opens_clean(browser: webdriver.Chrome, address: str, page: str, theme: str) -> None:
    browser.get_log("browser"), browser.get_log("performance")  # forget the page before
    show(browser, DESKTOP, theme)
    browser.execute_cdp_cmd(
        "Storage.clearDataForOrigin", {"origin": address, "storageTypes": "local_storage"}
    )
    browser.get(f"{address}/{page}")
    browser.execute_async_script(SETTLED)
    assert browser.execute_script("return document.documentElement.dataset.theme") == theme

    found = {}
    if theme == "light" or page in KINDS:
        found["accessibility"] = violations(browser)
    sizes = {"desktop": DESKTOP, "phone": PHONE} if theme == "light" else {"phone": PHONE}
    for width, size in sizes.items():
        show(browser, size, theme)
        browser.execute_async_script(SETTLED)
        screenshot(browser, f"{page.removesuffix('.html').replace('/', '-')}-{width}-{theme}")
        found |= {
            f"{what}, {width}": rows
            for what, rows in browser.execute_script(FINDINGS).items()
            if rows and not (what == "titles" and page in GENERATED)
        }
    log = browser.get_log("browser")
    found["console"] = [row["message"] for row in log if row["level"] == "SEVERE"]
    asked = requests(browser)
    found["foreign requests"] = [
        url
        for url in asked
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and not url.startswith(address)
    ]
    files = {url.removeprefix(address + "/").split("?")[0] for url in asked if address in url}
    weight = sum(weigh(file) for file in files)
    found["too heavy"] = [f"{weight} bytes"] if weight > HEAVIEST else []
    assert not {what: rows for what, rows in found.items() if rows}


def test_the_pages_of_each_kind_are_there() -> None:
    assert set(PAGES) >= KINDS


def test_all_that_the_page_can_draw_is_accessible_in_both_themes(
    browser: webdriver.Chrome, address: str
) -> None:
    show(browser, DESKTOP, "light")
    browser.get(f"{address}/book/draw.html")
    waiting = WebDriverWait(browser, 300)

    def part(name: str) -> WebElement:
        return browser.find_element("css selector", f"[data-part={name}]")

    browser.find_element("css selector", ".draw summary").send_keys(Keys.ENTER)
    for name, words in (("prompt", "drawn"), ("raceButton", "took"), ("walkButton", "Walking")):
        part(name).send_keys(Keys.ENTER)
        waiting.until(lambda _, words=words: words in part("status").text)
    shown = ("sheet", "descriptions", "racing", "walking", "numbers", "chart")
    waiting.until(lambda _: all(part(name).is_displayed() for name in shown))
    found = {}
    for theme in ("light", "dark"):
        show(browser, DESKTOP, theme)
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
        screenshot(browser, f"book-draw-drawn-{theme}")
        found[theme] = violations(browser)
    part("stop").click()
    assert found == {"light": [], "dark": []}


def test_a_prediction_shows_its_answer_once_a_choice_is_made(
    browser: webdriver.Chrome, address: str
) -> None:
    show(browser, DESKTOP, "light")
    browser.get(f"{address}/book/decoding.html")
    shown = "return document.querySelector('.predict-answer').checkVisibility()"
    assert not browser.execute_script(shown)
    browser.find_element("css selector", ".predict input").send_keys(" ")  # without a mouse
    assert browser.execute_script(shown)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("扩散", "glossary"),
        ("归一化", "glossary"),
        ("speculative decoding", "decoding"),
        ("图像", ""),
    ],
)
def test_the_search_finds_terms_in_both_languages(
    browser: webdriver.Chrome, address: str, query: str, page: str
) -> None:
    show(browser, DESKTOP, "light")
    browser.get(f"{address}/search.html?q={quote(query)}")
    found = WebDriverWait(browser, 300).until(
        lambda driver: [
            link.get_attribute("href")
            for link in driver.find_elements("css selector", "ul.search li a")
        ]
    )
    assert any(f"/{page}" in link for link in found)


@functools.cache
def targets(page: Path) -> tuple[set[str], list[str]]:
    """The anchors of a built page and the addresses that it links to."""
    html = page.read_text(encoding="utf-8")
    anchors = set(re.findall(r'\s(?:id|name)="([^"]+)"', html))
    return anchors, re.findall(r'<a\s[^>]*?href="([^"]*)"', html)


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_lead_somewhere(page: str) -> None:
    here = SITE / page
    broken = []
    for link in targets(here)[1]:
        where, anchor = urldefrag(link)
        if urlsplit(where).scheme or where.startswith("//"):
            continue
        inside = (
            SITE / where.removeprefix(PREFIX) if where.startswith(PREFIX) else here.parent / where
        )
        goal = Path(str(inside).split("?")[0]).resolve() if where else here
        goal = goal / "index.html" if goal.is_dir() else goal
        if not goal.exists() or (
            anchor and goal.suffix == ".html" and anchor not in targets(goal)[0]
        ):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_no_table_is_left_as_text(page: str) -> None:
    paragraphs = re.findall(r"<p>.*?</p>", (SITE / page).read_text(), flags=re.S)
    assert not [text for text in paragraphs if "| ---" in text], "markdown_format: gfm is missing"


def test_every_page_says_its_edition_and_is_described_to_other_sites() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    descriptions = set()
    for page in PAGES:
        if page in GENERATED:
            continue
        html = (SITE / page).read_text(encoding="utf-8")
        assert f"Version {project['version']}, commit " in html, page
        canonical = CONFIG["html"]["baseurl"] + page
        assert f'<link rel="canonical" href="{canonical}"' in html
        assert f'property="og:url" content="{canonical}"' in html
        [said] = re.findall(r'property="og:description" content="([^"]+)"', html)
        descriptions.add(said)
        [image] = re.findall(r'property="og:image" content="([^"]+)"', html)
        assert (SITE / image.removeprefix(CONFIG["html"]["baseurl"])).is_file()
        assert f"<loc>{canonical}</loc>" in (SITE / "sitemap.xml").read_text(encoding="utf-8")
    assert len(descriptions) == len([page for page in PAGES if page not in GENERATED])
    frontier = (SITE / "book" / "frontier.html").read_text(encoding="utf-8")
    assert re.search(r"Record ladder: .+, 20\d\d-\d\d-\d\d\.", frontier)


def test_every_chapter_has_its_notebook_to_open_and_download() -> None:
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        html = (SITE / "book" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        for host in ("colab.research.google.com/github/", "kaggle.com/kernels/welcome?src="):
            link = re.escape(host) + f'[^"]*/blob/main/notebooks/{re.escape(notebook.name)}"'
            assert re.search(link, html), f"the button for {host}"
        download = SITE / "_sources" / "book" / notebook.name
        assert download.read_bytes() == notebook.read_bytes()


def test_the_vendored_files_are_those_in_their_list() -> None:
    vendor = ROOT / "book" / "_assets" / "vendor"
    versions = json.loads((vendor / "versions.json").read_text())
    listed = {
        f"{name}/{file}": sha for name in versions for file, sha in versions[name]["sha256"].items()
    }
    present = {
        path.relative_to(vendor).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.rglob("*")
        if path.is_file() and path.name != "versions.json"
    }
    assert present == listed
    assert all(f"{name}/LICENSE" in listed for name in versions)
