"""Turn Colab's published `pip freeze` into constraints for what genlib stands on.

Called as `python scripts/colab_versions.py pip-freeze.txt > colab.txt`. Of its many hundred
packages only those that genlib asks for are kept, and TensorFlow. A package that Colab has in a
version older than genlib accepts is left out, as `pip` upgrades it there too. It runs before
anything is installed, so it needs the standard library only.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparing: 2.19.0 becomes (2, 19, 0)."""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))


def main(path: str) -> None:
    """Print one pin a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = dict(requirement.split(">=") for requirement in project["dependencies"])
    least["tensorflow"] = "2.18"
    for line in Path(path).read_text().splitlines():
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][^+;\s]*)", line.strip())
        name = found[1].lower().replace("_", "-") if found else None
        if name in least and numbers(found[2]) >= numbers(least[name]):
            print(f"{name}=={found[2]}")


if __name__ == "__main__":
    main(sys.argv[1])
