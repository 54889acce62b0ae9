"""The ladder: every way to the same images, in one run, with its speed and its quality.

All rungs of a panel run in alternating rounds, so that any two of them can be compared; the quality
of the lossy ones is measured on the same prompts and seeds as that of the slow path that they must
match. `genlib bench` writes what `run` returns.

Margins, fixed beforehand: FID at most 1.10 times that of the slow path, and all five attributes
right at most 2 points less often.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genlib import bench, metrics, plot, ranges
from genlib.data import fashion_mnist, scenes
from genlib.ladder.rungs import BATCHES, SEED, TAGS, Built, Rung, alone, available, prompts
from genlib.pretrained import load_judge, load_scenes_judge

SCHEMA = "genlib.ladder/1"
FID_MARGIN, RIGHT_MARGIN = 1.10, -0.02


def run(
    some: Sequence[Rung] | None = None,
    *,
    images: int = 1000,
    pairs: int = bench.MIN_PAIRS,
    processes: bool = True,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Climbs the ladder: times all rungs, then measures the quality of those that need it.

    Args:
        some: rungs, slow paths among them; all unless given.
        images: of each rung for its quality, 2,048 at most; 0 measures none.
        pairs: rounds of timing.
        processes: start one for each rung, for its first call and the memory that it takes.
        log: takes a line of progress.

    Returns:
        What JSON can hold: the environment, the machine's ceilings, the raw times of each panel
        and batch, and for each rung a row of the table.

    Raises:
        ValueError: if `images` is negative, 1 to 79, or too large, or `pairs` is out of range.
    """
    if images and not 80 <= images <= len(prompts()):
        raise ValueError(f"images = {images}; give 80 to {len(prompts())}, or 0 for no quality.")
    ranges.check("pairs", pairs)
    some = available() if some is None else list(some)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "environment": bench.environment(),
        "images": images,
        "margins": {"fid": FID_MARGIN, "right": RIGHT_MARGIN},
        "times": {},
        "floor": {},
        "rungs": {},
    }
    limits = bench.ceilings()
    result["ceilings"] = {
        "device": limits.device,
        "gflops": limits.gflops,
        "gigabytes_per_second": limits.gigabytes_per_second,
    }
    for panel in dict.fromkeys(r.panel for r in some):
        mine = [r for r in some if r.panel == panel]
        built: dict[str, Built] = {}
        for rung in mine:
            built[rung.name] = rung.build()
            log(f"built {rung.name}")
        times = {}
        for batch in BATCHES:
            rows = range(batch)
            calls = {
                r.name: functools.partial(built[r.name].draw, rows, 0)
                for r in mine
                if batch in r.batches
            }
            if calls:
                times[batch] = _times(calls, pairs)
                log(f"timed {panel}, batches of {batch}{_lonely(calls)}")
        result["times"][panel] = {str(b): json.loads(c.to_json()) for b, c in times.items()}
        for rung in mine:
            result["rungs"][rung.name] = _row(rung, built[rung.name], times, limits)
        if images:
            result["floor"][panel] = _judge(panel, mine, built, images, result["rungs"], log)
    if processes:
        for rung in some:
            result["rungs"][rung.name] |= alone(rung.name)
            log(f"alone: {rung.name}")
    return result


def _times(calls: Mapping[str, Callable[[], Any]], pairs: int) -> bench.Comparison:
    """Times rungs in alternation, or, if there is but one, that one by itself."""
    if len(calls) > 1:
        return bench.compare(calls, pairs=pairs, warmup=0)
    ((name, call),) = calls.items()
    record = bench.measure(call, name=name, repeats=pairs, warmup=0)
    return bench.Comparison(name, {name: record}, record.environment)


def _lonely(calls: Mapping[str, Any]) -> str:
    """Says of a rung that was timed by itself that there is nothing to compare it with."""
    return "" if len(calls) > 1 else f": only {next(iter(calls))}, nothing to compare it with"


def _row(
    rung: Rung, built: Built, times: Mapping[int, bench.Comparison], limits: bench.Ceilings
) -> dict[str, Any]:
    least, most = rung.batches[0], rung.batches[-1]
    one = times[least].records[rung.name]
    many = times[most].records[rung.name]
    row: dict[str, Any] = {
        "panel": rung.panel,
        "family": rung.family,
        "tag": rung.tag,
        "like": rung.like,
        "parameters": built.parameters,
        "bytes": built.bytes,
        "forwards": round(built.forwards, 1),
        "latency": [one.median, *one.interval],
        "batch": most,
        "throughput": list(many.rate(most)),
    }
    both = [b for b in rung.batches if rung.like in times[b].records]
    if both:
        row["ratio"] = {str(b): _ratio(times[b], rung.like, rung.name) for b in both}
    if built.work is not None:
        work = built.work(most)
        share = bench.share_of_limit(work.flops, work.moved_bytes, many.median, limits)
        # Weights may stay in a cache; operations must be done.
        row["gflop_per_image"] = work.flops / most / 1e9
        row["share_of_peak"] = work.flops / 1e9 / limits.gflops / many.median
        row["share_of_limit"] = share.share
    return row


def _ratio(times: bench.Comparison, slow: str, fast: str) -> list[float]:
    """Returns the median paired ratio of two rungs of one run, and its interval."""
    ratio = bench.Comparison(slow, times.records, times.environment)[fast]
    return [ratio.ratio, ratio.low, ratio.high]


def ratio(result: Mapping[str, Any], slow: str, fast: str, batch: int = 16) -> bench.Ratio:
    """Returns how many times as fast as another rung a rung is, from what `run` returned.

    Raises:
        KeyError: if there is no such rung, the two are of different panels, or one of them was
            not timed with this batch.
    """
    panel = result["rungs"][fast]["panel"]
    times = json.dumps(result["times"][panel][str(batch)])
    comparison = bench.Comparison.from_json(times)
    return bench.Comparison(slow, comparison.records, comparison.environment)[fast]


def _images(built: Built, n: int, batch: int = 40) -> np.ndarray:
    parts = range(0, n, batch)
    return np.concatenate([built.draw(range(i, min(i + batch, n)), SEED + i) for i in parts])


def _judge(
    panel: str,
    mine: Sequence[Rung],
    built: Mapping[str, Built],
    n: int,
    rows: dict[str, Any],
    log: Callable[[str], None],
) -> list[float]:
    """Fills in the quality of the rungs of a panel, and returns the floor of FID.

    Rungs that draw the same samples share the quality of one of them, the fastest.
    """
    asked = None
    if panel == "scenes":
        judge: Any = load_scenes_judge()
        asked = scenes.scenes(n, SEED, "validation").attributes
        real = judge.features(scenes.scenes(2 * n, SEED + 1, "validation").images)
    else:
        judge = load_judge()
        real = judge.features(fashion_mnist().test_images[: 2 * n])
    half = len(real) // 2
    floor = metrics.fid_interval(real[:half], real[half:])
    seen: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for rung in mine:
        same = [r for r in mine if r.like == rung.like and r.tag == TAGS[0]]
        if rung.tag == TAGS[0]:
            fastest = max(same, key=lambda r: rows[r.name]["throughput"][0])
            source = fastest.name
        else:
            source = rung.name
        if source not in seen:
            images = _images(built[source], n)
            right = None if asked is None else (judge.attributes(images) == asked).all(1)
            seen[source] = judge.features(images), right
            log(f"judged {source}")
        if rung.tag == TAGS[0]:
            seen[rung.name] = seen[source]
    for rung in mine:
        features, right = seen[rung.name]
        row = rows[rung.name]
        fid = metrics.fid_interval(real[:half], features)
        row["fid"] = [fid.value, fid.low, fid.high]
        if right is not None:
            row["right"] = [float(right.mean()), *metrics.wilson(int(right.sum()), n)]
    slow_paths = [s for s in dict.fromkeys(r.like for r in mine) if s in seen]
    for rung in mine:
        row = rows[rung.name]
        row["against"] = {
            slow: _against(real[:half], seen[slow], seen[rung.name], rung, slow)
            for slow in slow_paths
        }
    return [floor.value, floor.low, floor.high]


def _against(
    real: np.ndarray,
    slow: tuple[np.ndarray, np.ndarray | None],
    fast: tuple[np.ndarray, np.ndarray | None],
    rung: Rung,
    name: str,
) -> dict[str, Any]:
    """Compares two sets of images of the same prompts: within the margins, and shown to be?"""
    if rung.like == name and rung.tag == TAGS[0]:
        return {"fid": [1.0] * 3, "right": [0.0] * 3, "within": True, "shown": True}
    fid = metrics.fid_ratio(real, slow[0], fast[0])
    found: dict[str, Any] = {"fid": [fid.value, fid.low, fid.high]}
    within, shown = fid.value <= FID_MARGIN, fid.high <= FID_MARGIN
    if slow[1] is not None and fast[1] is not None:
        gain = fast[1].astype(float) - slow[1]
        half = metrics.Z * float(gain.std(ddof=1)) / np.sqrt(len(gain))
        mean = float(gain.mean())
        found["right"] = [mean, mean - half, mean + half]
        within, shown = within and mean >= RIGHT_MARGIN, shown and mean - half >= RIGHT_MARGIN
    return {**found, "within": bool(within), "shown": bool(shown)}


def with_quality(speeds: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with the speeds of one run and the quality that another one measured.

    Weights that were trained anew draw other images, just as fast. So where a network keeps its
    shape, a run on a quiet machine keeps its speeds.

    Args:
        speeds: of `run`.
        judged: of `run`, with quality, of the same rungs.

    Returns:
        The result; `"judged"` holds the environment in which the quality was measured. A rung whose
        number of forwards depends on the weights (speculation) is left out: its speed is no more
        what it was.

    Raises:
        ValueError: if the runs differ in their rungs, or a rung in its parameters or work.
    """
    work = ("parameters", "gflop_per_image")
    mine, other = (
        {name: [row.get(key) for key in work] for name, row in result["rungs"].items()}
        for result in (speeds, judged)
    )
    if mine != other:
        name = next(n for n in (*mine, *other) if mine.get(n) != other.get(n))
        raise ValueError(
            f"{name}: {', '.join(work)} are {mine.get(name)} in one run and {other.get(name)} in "
            "the other; give runs of the same rungs and networks."
        )
    quality = ("fid", "right", "against")
    rungs = {
        name: row | {key: judged["rungs"][name][key] for key in quality if key in row}
        for name, row in speeds["rungs"].items()
        if row["forwards"] == judged["rungs"][name]["forwards"]
    }
    kept = {key: judged[key] for key in ("images", "margins", "floor")}
    return {**speeds, **kept, "rungs": rungs, "judged": judged["environment"]}


def fastest(
    result: Mapping[str, Any],
    slow: str,
    batch: int = 16,
    *,
    same: bool = False,
    exported: bool = True,
) -> str:
    """Returns the fastest rung that is shown to be as good as a slow path, from a result of `run`.

    It belongs to the slow path's family, what stands before the colon: another family is another
    model, and no speed-up of this one.

    Args:
        result: with quality.
        slow: the rung to match.
        batch: 1 or 16.
        same: only rungs that draw the same samples as the slow path.
        exported: rungs that run in another engine than Keras, from an exported file, count too.
    """
    family, like = slow.partition(":")[0], result["rungs"][slow]["like"]
    good = {}
    for name, row in result["rungs"].items():
        if name.partition(":")[0] != family or not row["against"][like]["shown"]:
            continue
        if same and not (row["like"] == like and row["tag"] == TAGS[0]):
            continue
        if not exported and any(engine in name for engine in ("ONNX", "LiteRT")):
            continue
        if str(batch) in row["ratio"]:
            good[name] = ratio(result, slow, name, batch).ratio
    return max(good, key=lambda name: good[name])


def points(
    result: Mapping[str, Any], panel: str, quality: str = "fid", leave_out: Sequence[str] = ()
) -> list[plot.Point]:
    """Returns the rungs of a panel for `plot.frontier`.

    Args:
        result: of `run`, with quality.
        panel: `"scenes"` or `"fashion"`.
        quality: `"fid"` or `"right"`.
        leave_out: ends of names; rungs whose names end so are not drawn.
    """
    return [
        plot.Point(
            name.removeprefix("GAN: "),
            tuple(row["throughput"]),
            tuple(row[quality]),
            row["family"],
        )
        for name, row in result["rungs"].items()
        if row["panel"] == panel and not name.endswith(tuple(leave_out))
    ]


def row_as_text(row: Mapping[str, Any]) -> str:
    """Writes a row of the table as one line for people."""
    parts = [
        f"{row['parameters'] / 1e6:.2f} M parameters, {row['bytes'] / 1e6:.1f} MB",
        f"{row['forwards']:g} forwards an image",
        f"one image in {bench.format_seconds(row['latency'][0])}",
        f"{row['throughput'][0]:.3g} images/s in batches of {row.get('batch', BATCHES[1])}",
    ]
    if "fid" in row:
        parts.append("FID {:.1f} [{:.1f}, {:.1f}]".format(*row["fid"]))
    if "right" in row:
        parts.append(f"all attributes right {row['right'][0]:.0%}")
    return ", ".join(parts)
