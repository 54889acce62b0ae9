"""Draw the book's diagrams: each ```{mermaid} block of book/*.md becomes an SVG in book/_assets.

For maintainers only: readers never need Node.js or a browser to build the book. The blocks are the
source; the drawings are kept in the repository, so that a page shows them from a disk, on paper and
without JavaScript. A drawing is named after its page and its source, and the build fails where one
is missing: then run

    python scripts/diagrams.py

It calls `npm pack` for mermaid and draws in a headless Chromium (apt: chromium chromium-driver).
"""

import re
import sys
import tempfile
from pathlib import Path

import chromium
from vendor import take, unpack

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from house import DIAGRAMS, diagram_name  # noqa: E402

MERMAID = "11.12.1"
FILES = [
    ("dist/mermaid.esm.min.mjs", "mermaid.esm.min.mjs"),
    ("dist/chunks/mermaid.esm.min/*.mjs", "chunks/mermaid.esm.min"),
]
BLOCK = re.compile(r"^```\{mermaid\}\n((?::[a-z-]+:[^\n]*\n)*)(.*?)^```$", re.M | re.S)
# A light card in both themes, as the figures of genlib.plot. Text as text, not as HTML: other
# readers of SVG than browsers know no HTML.
SETTINGS = """{
  startOnLoad: false, securityLevel: 'strict', theme: 'base', htmlLabels: false,
  flowchart: {useMaxWidth: false, htmlLabels: false, wrappingWidth: 400},
  themeCSS: '.edgeLabel rect { opacity: 1; fill: #F5F5F2; }',
  themeVariables: {
    fontFamily: "'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", fontSize: '15px',
    background: '#F5F5F2', primaryColor: '#E3EEF4', primaryBorderColor: '#0072B2',
    primaryTextColor: '#24292F', secondaryColor: '#FBE9DD', secondaryBorderColor: '#D55E00',
    secondaryTextColor: '#24292F', tertiaryColor: '#E4F2EC', tertiaryBorderColor: '#00875F',
    tertiaryTextColor: '#24292F', clusterBkg: '#ECECE7', clusterBorder: '#D8D8D4',
    edgeLabelBackground: '#F5F5F2', lineColor: '#666B70', textColor: '#24292F',
    titleColor: '#24292F',
  },
}"""
PAGE = f"""<!doctype html><meta charset="utf-8"><body><script type="module">
import mermaid from './mermaid.esm.min.mjs';
mermaid.initialize({SETTINGS});
window.draw = async (name, source) => (await mermaid.render(name, source)).svg;
</script>"""


def blocks() -> dict[str, str]:
    """The sources of all diagrams by the name of their drawing."""
    found = {}
    for page in sorted((ROOT / "book").glob("*.md")):
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            found[diagram_name(page.stem, match[2])] = match[2]
    return found


def draw(sources: dict[str, str]) -> dict[str, str]:
    """The drawings by name."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        take(unpack("mermaid", MERMAID, Path(folder)), FILES, site)
        (site / "index.html").write_text(PAGE, encoding="utf-8")
        with chromium.served(site) as address, chromium.opened() as driver:
            driver.get(f"{address}/")
            ask = (
                "const [name, source, done] = arguments;"
                "const wait = () => window.draw ? window.draw(name, source).then(done)"
                " : setTimeout(wait, 50); wait();"
            )
            return {
                name: driver.execute_async_script(ask, name.removesuffix(".svg"), source)
                for name, source in sources.items()
            }


def main() -> None:
    """Draws what is new, and removes what no page shows any more."""
    wanted = blocks()
    DIAGRAMS.mkdir(parents=True, exist_ok=True)
    new = {name: source for name, source in wanted.items() if not (DIAGRAMS / name).exists()}
    for name, svg in (draw(new) if new else {}).items():
        (DIAGRAMS / name).write_text(svg + "\n", encoding="utf-8")
        print(f"drew {name}")
    for path in DIAGRAMS.glob("*.svg"):
        if path.name not in wanted:
            path.unlink()
            print(f"removed {path.name}")


if __name__ == "__main__":
    main()
