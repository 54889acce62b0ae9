"""Let Lighthouse judge some pages of the built site, as a phone sees them.

For maintainers only: readers never need Node.js. It installs Lighthouse with npm beside the site,
serves the site on loopback, and prints a score for each page and category, from 0 to 100. It ends
with status 1 if a page has less than 90 for accessibility, best practices or what search engines
ask for. The score of performance depends on this machine, so it is only printed.

    make book && python scripts/lighthouse.py [PAGE ...]     # half a minute a page
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import chromium
import typer

ROOT = Path(__file__).resolve().parent.parent
SITE, TOOLS = ROOT / "_build" / "html", ROOT / "_build" / "lighthouse"
VERSION = "12.8.2"
PAGES = ("index", "book/draw", "book/decoding", "book/images-as-tokens", "book/deciders")
NPM = ("npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund")
OPTIONS = ("--quiet", "--output=json", "--chrome-flags=--headless --no-sandbox --disable-gpu")
LEAST = {"accessibility": 90, "best-practices": 90, "seo": 90}


def install() -> Path:
    """Returns the command of Lighthouse, which npm installs once."""
    command = TOOLS / "node_modules" / ".bin" / "lighthouse"
    if not command.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [*NPM, "--prefix", str(TOOLS), f"lighthouse@{VERSION}"],
            check=True,
        )
    return command


def scores(report: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Returns the score of each category, from 0 to 100, and the audits that failed in those asked.

    Args:
        report: of Lighthouse, as its JSON has it.
    """
    found = {
        name: round(100 * (category["score"] or 0))
        for name, category in report["categories"].items()
    }
    failed = [
        f"{name}: {report['audits'][audit['id']]['title']}"
        for name in LEAST
        for audit in report["categories"][name]["auditRefs"]
        if audit["weight"] and report["audits"][audit["id"]]["score"] == 0
    ]
    return found, failed


def main(
    pages: Annotated[
        list[str] | None, typer.Argument(help="Such as book/draw; a few unless given.")
    ] = None,
) -> None:
    """Judges pages of the built site, and ends with status 1 if one falls short."""
    if reason := chromium.missing():
        sys.exit(reason)
    if shutil.which("npm") is None:
        sys.exit("npm not found: apt install npm")
    if not (SITE / "index.html").is_file():
        sys.exit("The site is not built: make book")
    lighthouse, bad = install(), 0
    with chromium.served(SITE) as address:
        for page in pages or PAGES:
            done = subprocess.run(
                [str(lighthouse), f"{address}/{page}.html", *OPTIONS],
                capture_output=True,
                text=True,
                env={"PATH": "/usr/bin:/bin", "CHROME_PATH": shutil.which("chromium") or ""},
                check=False,
            )
            if done.returncode:
                sys.exit(f"Lighthouse failed on {page}: {done.stderr.strip()[-400:]}")
            found, failed = scores(json.loads(done.stdout))
            low = [name for name, least in LEAST.items() if found[name] < least]
            bad += bool(low)
            print(f"{page}: " + ", ".join(f"{name} {score}" for name, score in found.items()))
            for line in failed:
                print(f"    {line}")
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
