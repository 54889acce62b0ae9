"""Pages that weigh less and look the same.

Images are shown as WebP: figures pixel for pixel as they are, large sheets of images within a grey
level or two, as a photograph would be. The PNG stays beside them. Icons come from the theme's font,
of which its style sheet knows every one: the script that would draw them again weighs half of what
the rest of a page does.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx

ICONS = re.compile(r'\s*<script src="[^"]*scripts/fontawesome\.js[^"]*"[^>]*></script>')
LARGE = 100_000  # bytes; a lossless image above that is a sheet of images, not a figure
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
            pixels.save(webp, quality=92, method=6)
    return webp


def lighten(text: str, is_smaller: Callable[[str], bool]) -> str:
    """Takes the script of icons out of a page, and shows the WebP of each image that is smaller."""

    def smaller(match: re.Match[str]) -> str:
        name = match[1].rpartition("/")[2]
        return f'{match[1]}.webp"' if is_smaller(name) else match[0]

    return SHOWN.sub(smaller, ICONS.sub("", text))


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
    for page in site.rglob("*.html"):
        before = page.read_text(encoding="utf-8")
        after = lighten(before, names.__contains__)
        if after != before:
            page.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", lighten_site)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
