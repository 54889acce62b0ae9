"""Pages that weigh less and look the same.

Images are shown as WebP: figures pixel for pixel as they are, large sheets of images within a few
grey levels, as a photograph would be. The PNG stays beside them. Icons come from the theme's fonts,
of which its style sheet knows every one: the script that would draw them again weighs half of what
the rest of a page does. The fonts are cut to the icons that some page shows.
"""

import io
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx

ICONS = re.compile(r'\s*<script src="[^"]*scripts/fontawesome\.js[^"]*"[^>]*></script>')
# The theme (with sphinx-thebe 0.3.1) declares these twice, which is an error in JavaScript.
DECLARED = re.compile(r"\s*<script>const THEBE_JS_URL = [^<]*</script>")
LARGE = 50_000  # bytes; a lossless image above that is a sheet of images, not a figure
NAME = re.compile(r"\bfa-[a-z0-9-]+")  # of an icon, as pages and style sheets write it
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
GLYPH = re.compile(r"\\([0-9a-f]{2,5})\b")
FONTS = "vendor/fontawesome/webfonts"
SHOWN = re.compile(r'(<img\b[^>]*\bsrc="[^"]*_images/[^"/]+)\.png"')


def as_webp(png: Path) -> Path:
    """Writes an image again as WebP, lossless if that is not large; what is newer is kept."""
    webp = png.with_suffix(".webp")
    if not webp.exists() or webp.stat().st_mtime < png.stat().st_mtime:
        with Image.open(png) as image:
            mode = "RGBA" if image.has_transparency_data else "RGB"
            pixels = image.convert(mode)
        pixels.save(webp, lossless=True, exact=True)
        if webp.stat().st_size > LARGE:
            lossy = io.BytesIO()
            # Sharp: colours of a pixel do not run into its neighbours'.
            pixels.save(lossy, "WEBP", quality=75, method=6, use_sharp_yuv=True)
            if lossy.tell() < webp.stat().st_size:
                webp.write_bytes(lossy.getvalue())
    return webp


def lighten(text: str, is_smaller: Callable[[str], bool]) -> str:
    """Takes superfluous scripts out of a page, and shows the WebP of each image that is smaller."""

    def smaller(match: re.Match[str]) -> str:
        name = match[1].rpartition("/")[2]
        return f'{match[1]}.webp"' if is_smaller(name) else match[0]

    for again in list(DECLARED.finditer(text))[:0:-1]:
        text = text[: again.start()] + text[again.end() :]
    return SHOWN.sub(smaller, ICONS.sub("", text))


def glyphs(sheet: str, names: Iterable[str]) -> set[int]:
    """Returns the characters that a style sheet needs of its fonts of icons.

    Args:
        sheet: the style sheet, CSS.
        names: of the icons that some page shows, such as "fa-list".
    """
    shown, found = set(names), set()
    for selector, body in RULE.findall(sheet):
        of = set(NAME.findall(selector))
        if not of or of & shown:  # a rule for no icon in particular is the theme's own
            found |= {int(code, 16) for code in GLYPH.findall(body)}
    return found


def cut_fonts(static: Path, pages: Iterable[str]) -> None:
    """Cuts the fonts of icons to those that the pages show, from the theme's whole ones.

    Args:
        static: the folder of the site that holds style sheets, scripts and fonts.
        pages: their HTML.
    """
    scripts = (path.read_text(encoding="utf-8") for path in static.rglob("*.js"))
    names = {name for text in (*pages, *scripts) for name in NAME.findall(text)}
    sheets = [path.read_text(encoding="utf-8") for path in static.rglob("*.css")]
    wanted = set().union(*(glyphs(sheet, names) for sheet in sheets))
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
    options = subset.Options(flavor="woff2")
    for whole in (theme / FONTS).glob("*.woff2"):
        font = subset.load_font(whole, options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=wanted)
        cutter.subset(font)
        subset.save_font(font, static / FONTS / whole.name, options)


def lighten_site(app: Sphinx, error: Exception | None) -> None:
    """Lighten each page of the finished site."""
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    pngs = sorted((site / "_images").glob("*.png"))
    with ThreadPoolExecutor() as pool:
        webps = list(pool.map(as_webp, pngs))
    names = {
        png.stem
        for png, webp in zip(pngs, webps, strict=True)
        if webp.stat().st_size < png.stat().st_size
    }
    pages = []
    for page in site.rglob("*.html"):
        before = page.read_text(encoding="utf-8")
        after = lighten(before, names.__contains__)
        if after != before:
            page.write_text(after, encoding="utf-8")
        pages.append(after)
    cut_fonts(site / "_static", pages)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", lighten_site)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
