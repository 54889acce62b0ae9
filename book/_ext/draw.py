"""What the page that draws in the browser is served with, beside its own files in `_assets/draw`.

The weights are copied from genlib, and what its reader of prompts knows is written as one JSON
file. Both come into the built site only, so that the repository has them once.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

WEIGHTS = ("flow-shortcut", "flow", "tokenizer", "text-student")


def lexicon() -> dict[str, Any]:
    """Return what reader.js and writer.js need of genlib's words.

    Phrases are grouped by what they mean, as one string of tokens each: most of the words say
    nothing, so their marks stand once.
    """
    from genlib.data import captions, scenes  # late: only a build needs them
    from genlib.text import reader, writer  # late: they take Keras with them

    def grouped(table: reader.Table) -> list[tuple[tuple[str, ...], list[str]]]:
        groups: dict[tuple[str, ...], list[str]] = {}
        for key, marks in table.items():
            groups.setdefault(tuple(sorted(marks)), []).append(" ".join(key))
        return list(groups.items())

    own, more = reader.tables()
    slots = ("weather_adj", "time_noun", "land_in", "light", "object")
    first = {slot: captions._PHRASES["en"][slot] for slot in slots}
    return {
        "attributes": list(captions.ATTRIBUTES.items()),
        "letters": {chr(code): word for code, word in reader._letters().items()},
        "phrases": grouped(own),
        "wordnet": grouped(more),
        "english": sorted(reader._english()),
        "combinations": scenes.combinations().tolist(),
        "caption": {
            "said": {slot: [row.split("|")[0] for row in rows] for slot, rows in first.items()},
            "bodies": captions._BODY["en"],
        },
        "usual": writer._USUAL,
        "shown": writer._SHOWN,
        "ruledOut": writer._RULED_OUT,
        "nothing": writer._NOTHING,
    }


def frontier() -> dict[str, Any]:
    """Return the recorded points beside which the page draws its own, and their quality."""
    from genlib import records  # late: only a build needs it

    record = records.load("ladder")
    rungs = {n: r for n, r in record["rungs"].items() if r["panel"] == "scenes" and r.get("fid")}
    hardware, date = record["environment"]["hardware"], record["environment"]["date"][:10]
    return {
        "points": [
            {"name": name, "x": rung["throughput"][0], "y": rung["fid"][0]}
            for name, rung in rungs.items()
        ],
        # The page draws the same images in float32, so their quality is the recorded one.
        "fid": {
            f"{steps} float32": rungs[f"flow: shortcut, {steps} step{'s' * (steps > 1)}"]["fid"][0]
            for steps in (1, 2, 4)
        },
        "machine": f"{hardware['cores']} cores of an {hardware['cpu']}, {date}",
    }


def provide(folder: Path) -> None:
    """Put weights, their cards and what is told of them into a folder."""
    from genlib import weights  # late: only a build needs it

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for name in WEIGHTS:
        for file in weights.paths(weights.SHIPPED / name):
            shutil.copyfile(file, folder / file.name)
        sizes[name] = weights.paths(folder / name)[0].stat().st_size
    made = {"lexicon": lexicon(), "frontier": frontier(), "sizes": sizes}
    for name, content in made.items():
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def on_build_finished(app: Sphinx, exception: Exception | None) -> None:
    """Complete a site that was built."""
    if exception is None and app.builder.name == "html":
        provide(Path(app.outdir) / "_static" / "draw" / "weights")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", on_build_finished)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
