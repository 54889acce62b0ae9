"""Compile the kernel of the page that draws: kernel.c of book/_assets/draw becomes two .wasm files.

    python scripts/kernel.py           # writes them
    python scripts/kernel.py --check   # only tells whether they are what kernel.c compiles to

For maintainers only: the compiled files are kept in the repository. One uses WebAssembly's SIMD,
the other its relaxed SIMD, which not every browser has. The same compiler gives the same bytes, so
a test rebuilds them. It is Debian's: apt install clang-16 lld-16
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(__file__).resolve().parent.parent / "book" / "_assets" / "draw"
CLANG = "clang-16"
FLAGS = (
    *("--target=wasm32", "-std=c17", "-O3", "-nostdlib", "-Wall", "-Wextra", "-Werror"),
    *("-msimd128", "-mbulk-memory", "-Wl,--no-entry", "-Wl,--strip-all"),
)
KERNELS = {"kernel-simd.wasm": (), "kernel-relaxed.wasm": ("-mrelaxed-simd",)}


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    for name in (CLANG, "wasm-ld-16"):
        if shutil.which(name) is None:
            return f"{name} is not installed: apt install clang-16 lld-16"
    return None


def compiled(name: str) -> bytes:
    """Return one of `KERNELS` as kernel.c compiles to it now."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / name
        command = [CLANG, *FLAGS, *KERNELS[name], "-o", str(made), "kernel.c"]
        subprocess.run(command, cwd=FOLDER, check=True)
        return made.read_bytes()


def main(
    check: Annotated[bool, typer.Option(help="Write nothing; status 1 if they differ.")] = False,
) -> None:
    """Compile the kernel of the page that draws, or compare it with what lies there."""
    if reason := missing():
        sys.exit(reason)
    for name in KERNELS:
        content, file = compiled(name), FOLDER / name
        if check and file.read_bytes() != content:
            sys.exit(f"{name} is not what kernel.c compiles to. Run: python scripts/kernel.py")
        if not check:
            file.write_bytes(content)
        print(f"{name}: {len(content):,} bytes")


if __name__ == "__main__":
    typer.run(main)
