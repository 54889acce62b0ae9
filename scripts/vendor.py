"""Copy the site's JavaScript into book/_assets/vendor, so that no page asks another host for it.

For maintainers only: readers never need Node.js. It calls `npm pack` for each package below,
takes the few files that the site loads, their licence, and writes what was taken to
`versions.json`. To move to a newer version, change the number and run it again:

    python scripts/vendor.py
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "book" / "_assets" / "vendor"

# name -> version, and (where the files lie in the package, where they go here).
PACKAGES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "mathjax": (
        "3.2.2",
        [
            ("es5/tex-svg.js", "tex-svg.js"),
            # Loaded on demand, when a formula uses \boldsymbol, \cancel, \color, ...
            ("es5/input/tex/extensions/*.js", "input/tex/extensions"),
        ],
    ),
}


def unpack(name: str, version: str, folder: Path) -> Path:
    """Fetch one package with npm and return the folder that it unpacks to."""
    packed = subprocess.run(
        ["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(folder / name, filter="data")
    return folder / name / "package"


def take(package: Path, files: list[tuple[str, str]], target: Path) -> dict[str, str]:
    """Copy the named files and the licence; return their SHA-256 by path."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern, place in [*files, ("LICENSE", "LICENSE")]:
        found = sorted(package.glob(pattern))
        if not found:
            raise FileNotFoundError(f"{package.parent.name} has no {pattern}: look at its layout.")
        for path in found:
            goal = target / place / path.name if "*" in pattern else target / place
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, goal)
    return {
        path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }


def main() -> None:
    """Write every package, then the list of what was taken."""
    versions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (version, files) in PACKAGES.items():
            package = unpack(name, version, Path(folder))
            licence = json.loads((package / "package.json").read_text())["license"]
            taken = take(package, files, VENDOR / name)
            versions[name] = {"version": version, "license": licence, "sha256": taken}
            size = sum((VENDOR / name / file).stat().st_size for file in taken)
            print(f"{name} {version} ({licence}): {len(taken)} files, {size / 1e6:.1f} MB")
    (VENDOR / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
