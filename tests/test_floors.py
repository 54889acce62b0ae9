"""The house of the library: its rooms, their floors, and no way upwards."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import floors  # noqa: E402

HOUSE = {
    1: {"backend", "files", "metrics", "ranges"},
    2: {"data", "origin", "plot", "weights"},
    3: {"models"},
    4: {"bench", "pretrained", "text"},
    5: {"doctor", "pipeline", "records", "speed"},
    6: {"bulk", "serve", "train"},
    7: {"ladder"},
    8: {"cli"},
}


def test_every_room_stands_on_its_floor():
    arrows = floors.rooms()
    assert set(arrows) == set().union(*HOUSE.values())
    floor = {room: number for number, rooms in HOUSE.items() for room in rooms}
    upwards = [
        (room, other)
        for room, others in arrows.items()
        for other in others
        if floor[other] >= floor[room]
    ]
    assert not upwards


def test_no_file_imports_another_in_a_circle():
    files = floors.modules()
    arrows = {module: floors.imports(path, set(files)) - {module} for module, path in files.items()}
    assert floors.circles(arrows) == []


def test_a_circle_and_a_way_upwards_would_be_found():
    assert floors.circles({"a": {"b"}, "b": {"a"}, "c": set()})
    assert floors.floors({"low": set(), "high": {"low"}, "top": {"high", "low"}})["top"] == 3


def test_imports_inside_functions_say_why():
    """A late import is for the time of the start, or for a package that may be missing."""
    silent = []
    for path in floors.modules().values():
        if path.name == "cli.py":  # all of it: `genlib --help` waits for no framework
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            inside = line.startswith("    ") and line.strip().startswith(
                ("from genlib", "import genlib")
            )
            if inside and "# late" not in line and ">>>" not in line:
                silent.append(f"{path.name}: {line.strip()}")
    assert not silent


def test_code_lines_leave_out_comments_and_docstrings(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        '"""One.\n\nTwo."""\n\n# three\nx = 1\n\n\ndef f():\n    """Four."""\n    return x\n'
    )
    assert floors.code_lines(file) == 3
