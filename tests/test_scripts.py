"""What holds for the programs beside the library: idle when imported, each with its own help."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PEERS = [ROOT / "benchmarks" / "peers" / f"{name}.py" for name in ("common", "run")]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
PLAIN = {"floors", "colab_versions"}  # run before anything is installed


def module(path: Path):
    """Imports a program; one whose extra is not installed is left out."""
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    try:
        spec.loader.exec_module(made)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in ("genlib", "benchmarks", "scripts"):
            raise
        pytest.skip(f"{error.name} is not installed")
    return made


def keep_backend(monkeypatch) -> None:
    """Undoes at the end what a program says of Keras's backend, for the tests that follow."""
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*BENCHMARKS, *PEERS, *SCRIPTS], ids=named)
def test_a_program_does_no_work_when_it_is_imported(path, monkeypatch, capsys):
    keep_backend(monkeypatch)
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.setattr(Path, "write_text", lambda *_: pytest.fail("it writes"))
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("it writes"))
    assert module(path).__doc__
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("path", [*BENCHMARKS, *SCRIPTS], ids=named)
def test_a_command_line_is_typers(path, monkeypatch):
    keep_backend(monkeypatch)
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    source = path.read_text(encoding="utf-8")
    if "typer.run(main)" not in source:
        has_options = "sys.argv" in source or "argparse" in source
        assert not has_options or path.stem in PLAIN
        return
    app = typer.Typer()
    app.command()(module(path).main)
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0, shown.output


def test_a_process_counts_once_however_many_pairs_it_has():
    """Nine processes with an effect of their own: the interval is that of nine medians."""
    backends = module(ROOT / "benchmarks" / "backends.py")
    rng = np.random.default_rng(0)
    of_process = rng.lognormal(0, 0.3, 9)
    slow = [{"seconds": list(rng.normal(2, 0.001, 9)), "first_call": 1.0} for _ in of_process]
    fast = [
        {"seconds": list(1 / e + rng.normal(0, 1e-4, 9)), "first_call": 1.0} for e in of_process
    ]
    value, low, high = backends.summary(fast, slow)["ratio"]
    middle = np.sort(2 * of_process)
    assert (value, low, high) == pytest.approx((middle[4], middle[1], middle[7]), rel=0.01)
