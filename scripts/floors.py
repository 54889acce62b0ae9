"""Draw the house: which room of genlib imports which, on how many floors.

    python scripts/floors.py             # rooms, floors, arrows, circles, lines of code

A room is a module of `genlib`, or a package with all its files. A room stands one floor above the
highest room that it imports, so no import leads upwards unless rooms import each other in a circle,
which is listed. Lazy imports, inside a function, count like the others.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "genlib"


def modules(library: Path = LIBRARY) -> dict[str, Path]:
    """Returns the files of the library by the names that they are imported by."""
    found = {}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Returns the modules of the library that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != "genlib":
                found.add(name)
    return found


def room(module: str) -> str:
    """Returns the room of a module: `genlib.data.idx` is in `data`."""
    return module.split(".")[1] if "." in module else module


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Returns one circle of imports, if there is any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def rooms(library: Path = LIBRARY) -> dict[str, set[str]]:
    """Returns for each room the rooms that it imports."""
    files = modules(library)
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        if module == "genlib":
            continue
        here = found.setdefault(room(module), set())
        here |= {room(other) for other in imports(path, set(files))} - {room(module)}
    return found


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Returns the floor of each room, from 1; the rooms must not import each other in circles."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        found[name] = 1 + max((found[below] for below in arrows[name]), default=0)
    return found


def code_lines(path: Path) -> int:
    """Returns the lines of a file that are neither empty, comments nor docstrings."""
    text = path.read_text(encoding="utf-8")
    lines = {
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines -= set(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    return len(lines)


def main() -> None:
    """Prints the house from the top floor down."""
    files, arrows = modules(), rooms()
    between = {m: imports(p, set(files)) - {m} for m, p in files.items()}
    print(
        f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows between them, "
        f"{sum(len(p.read_text().splitlines()) for p in files.values()):,} lines, "
        f"{sum(map(code_lines, files.values())):,} of them code"
    )
    circle = circles(arrows)
    inner = circles(between)
    print("circle of rooms:", " -> ".join(circle) or "none")
    print("circle of files:", " -> ".join(inner) or "none")
    if circle:
        return
    standing = floors(arrows)
    for floor in range(max(standing.values()), 0, -1):
        print(f"floor {floor}: {', '.join(sorted(r for r, f in standing.items() if f == floor))}")


if __name__ == "__main__":
    main()
