"""Make a release: wheel, site, PDF, ePub and Markdown into _build/release, and a tag for them.

    python scripts/release.py --wheel    # only build the wheel, and try it alone (.ci/run does)
    python scripts/release.py            # everything; the tag is made last, and pushed by you

It stops where the tree has changes, where the version differs between the files that name it, or
where the wheel does not install and draw in an empty environment, outside of this repository.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Annotated

import typer
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from forms import FORMS, NAME  # noqa: E402

RELEASE = ROOT / "_build" / "release"


def run(*command: str, where: Path = ROOT) -> str:
    """Run a command, and stop the release where it fails.

    Raises:
        SystemExit: with the command and what it said.
    """
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def version() -> str:
    """The version that pyproject.toml, CITATION.cff and CHANGELOG.md agree on.

    Raises:
        SystemExit: if they do not.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    found = {project["version"], cited, heading[1] if heading else "none"}
    if len(found) > 1:
        sys.exit(
            f"pyproject.toml, CITATION.cff and CHANGELOG.md name {' and '.join(sorted(found))}"
        )
    return cited


def wheel(folder: Path) -> Path:
    """Build the wheel, install it alone in an empty environment, and draw with it."""
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        ".",
    )
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # what setuptools leaves behind
    (made,) = folder.glob("genlib-*.whl")
    with tempfile.TemporaryDirectory() as empty:
        where = Path(empty)
        venv.create(where / "env", with_pip=False)
        python = str(where / "env" / "bin" / "python")
        pins = str(ROOT / "constraints.txt")
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        run(uv, "pip", "install", "--quiet", "--python", python, "-c", pins, f"{made}[cpu]")
        genlib = str(where / "env" / "bin" / "genlib")
        said = run(
            genlib, "generate", "a sunset over the sea", "-n", "4", "-o", "a.png", where=where
        )
        run(genlib, "show", "a.png", where=where)
        print(f"{made.name} installs alone and draws: {said.strip().splitlines()[-1]}")
    return made


def main(
    only_wheel: Annotated[
        bool, typer.Option("--wheel", help="Only build and try the wheel.")
    ] = False,
) -> None:
    """Makes a release."""
    shutil.rmtree(RELEASE, ignore_errors=True)
    RELEASE.mkdir(parents=True)
    if only_wheel:
        wheel(RELEASE)
        return
    number = version()
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"Commit or remove what has changed first:\n{changed}")
    if f"v{number}" in run("git", "tag").split():
        sys.exit(f"v{number} is tagged already: raise the version, and say in CHANGELOG.md why.")
    wheel(RELEASE)
    # The tests run two chapters at a time, on one core each; a release shows each alone, on all.
    shutil.rmtree(ROOT / "_build" / ".jupyter_cache", ignore_errors=True)
    run("make", "pdf", "epub", "markdown")
    run("make", "book")  # after the other forms: it lays them beside the pages, and links them
    for name in FORMS:
        shutil.copy(ROOT / "_build" / "forms" / name, RELEASE)
    shutil.make_archive(str(RELEASE / f"{NAME}-site"), "zip", ROOT / "_build" / "html")
    files = sorted(path for path in RELEASE.iterdir() if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (RELEASE / "SHA256SUMS").write_text("".join(sums))
    run("git", "tag", "--annotate", f"v{number}", "--message", f"Version {number}")
    print(
        f"v{number} is tagged, and {len(files)} files are in _build/release. Now: git push --tags"
    )


if __name__ == "__main__":
    typer.run(main)
