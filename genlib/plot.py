"""Draw arrays: image grids, curves, bars, the frontier.

Every function takes arrays or numbers and returns a Matplotlib figure that a notebook shows at
twice the screen's resolution. Figures stand on an opaque light card: no single ink reaches the
contrast of 4.5:1 that text needs on both a white and a near-black page (the best is 4.3:1), so
the figure brings its own ground and reads the same in either theme.

Colours are Okabe and Ito's, chosen to be told apart with any kind of colour vision; three are
darkened until they reach 3:1 on the card. Line style or marker repeats what a colour says.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import Bbox

from genlib import files
from genlib.files import to_png, write_atomic

GAP = 2  # pixels around each image of a sheet that is written
CARD = "#F5F5F2"  # ground
INK = "#24292F"  # text, 13:1 on the card
QUIET = "#666B70"  # second voice, 4.9:1
LINES = "#D8D8D4"  # grid lines
# Okabe and Ito, "Color universal design" (2008): blue, vermillion, green, and darkened: reddish
# purple, orange, sky blue. Each reaches 3:1 on the card and on #121212.
PALETTE = ("#0072B2", "#D55E00", "#00875F", "#B65E8E", "#A87400", "#2C88BF")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^", "v", "P")

STYLE: Any = {  # Matplotlib types each key by name; a plain dictionary is enough here
    "figure.facecolor": CARD,
    "figure.dpi": 100,
    "figure.figsize": (7.0, 3.8),
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "savefig.facecolor": CARD,
    "savefig.dpi": 200,
    "axes.facecolor": CARD,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "grid.color": LINES,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "font.size": 10,
    "legend.frameon": False,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}

Estimate = float | tuple[float, float, float]  # a value, or (value, low, high)


def style() -> AbstractContextManager[None]:
    """Returns a context in which Matplotlib draws as this book does."""
    return matplotlib.rc_context(STYLE)


def use_style() -> None:
    """Makes every figure of this process look like the book's, also those of your own.

    A notebook calls it once. In IPython it also asks for rasters of twice the resolution.
    """
    matplotlib.rcParams.update(STYLE)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if (shell := get_ipython()) is not None:
        set_matplotlib_formats("retina")
        # Pyplot registers a formatter for figures, which would crop ours and lose their size.
        shell.display_formatter.formatters["image/png"].for_type(Chart, Chart._repr_png_)


class Chart(Figure):
    """A figure that notebooks show at 2× and that no global list keeps alive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def png(self, scale: float = 2) -> bytes:
        """Returns the figure as PNG, `scale` pixels for each pixel of the screen."""
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=self.dpi * scale)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = (round(side * self.dpi) for side in self.get_size_inches())
        return self.png(), {"width": width, "height": height}


# --- images -------------------------------------------------------------------------------------


def _check_images(images: Any, dims: int = 4) -> np.ndarray:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(
            f"images must be uint8 in 0..255, got {array.dtype}. "
            "Convert them with genlib.data.images.to_uint8."
        )
    if array.ndim != dims or array.shape[-1] not in (1, 3) or 0 in array.shape:
        shape = "(n, height, width, 1 or 3)" if dims == 4 else "(rows, n, height, width, 1 or 3)"
        raise ValueError(f"images must have the shape {shape}, none of it 0; got {array.shape}.")
    return array


def _columns(n: int, columns: int | None) -> int:
    if columns is None:
        return n if n <= 8 else math.ceil(math.sqrt(n))
    if not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns must be a whole number from 1 up, got {columns!r}.")
    return min(columns, n)


def sheet(images: np.ndarray, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Lays images out in rows, as one image.

    Args:
        images: uint8 `(n, height, width, 1 or 3)`.
        columns: images in a row; a near-square sheet if None.
        gap: pixels around each image, in the colour of the card.

    Returns:
        uint8 `(rows · (height + gap) + gap, columns · (width + gap) + gap, 3)`.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if their shape or `columns` is wrong.

    Example:
        >>> sheet(np.zeros((5, 28, 28, 1), "uint8"), columns=3).shape
        (59, 88, 3)
    """
    images = _check_images(images)
    columns = _columns(len(images), columns)
    return _lay_out(images, columns, gap, [0] * math.ceil(len(images) / columns))[0]


def _lay_out(
    images: np.ndarray, columns: int, gap: int, heads: Sequence[int]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Returns the sheet with `heads[row]` free pixels above each row, and each (top, left)."""
    n, height, width, _ = images.shape
    tops = np.cumsum([gap + head for head in heads]) + height * np.arange(len(heads))
    ground = np.array([int(CARD[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    out = np.empty((int(tops[-1]) + height + gap, columns * (width + gap) + gap, 3), np.uint8)
    out[:] = ground
    corners = [(int(tops[i // columns]), gap + (i % columns) * (width + gap)) for i in range(n)]
    for image, (top, left) in zip(images, corners, strict=True):
        out[top : top + height, left : left + width] = image  # one channel spreads over three
    return out, corners


def grid(
    images: np.ndarray,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    *,
    scale: float | None = None,
    title: str | None = None,
) -> Chart:
    """Shows images in rows and columns, each pixel sharp.

    Args:
        images: uint8 `(n, height, width, 1 or 3)`.
        columns: images in a row; a near-square grid if None.
        titles: one short text above each image.
        scale: screen pixels for each image pixel; if None, up to 4 while the grid stays at
            most 720 pixels wide.
        title: the message of the figure.

    Returns:
        The figure.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if a shape, `columns`, `scale` or the number of titles is wrong.

    Example:
        >>> figure = grid(np.zeros((16, 28, 28, 1), "uint8"), columns=8)
    """
    images = _check_images(images)
    n, _, width, _ = images.shape
    columns = _columns(n, columns)
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles must have one text for each of {n} images, got {len(titles)}.")
    gap = max(1, width // 28)
    if scale is None:
        scale = max(1, min(4, 720 // (columns * (width + gap) + gap)))
    elif not (0 < scale < math.inf):
        raise ValueError(f"scale must be positive, got {scale!r}. Leave it out to fit the page.")
    titles = [""] * n if titles is None else list(titles)
    room = math.ceil(18 / scale)  # image pixels for a line of text, only above rows that have one
    heads = [room if any(titles[i : i + columns]) else 0 for i in range(0, n, columns)]
    tiles, corners = _lay_out(images, columns, gap, heads)

    dpi = STYLE["figure.dpi"]
    top = 28 if title else 0  # screen pixels
    across, down = tiles.shape[1] * scale, tiles.shape[0] * scale
    with style():
        figure = Chart(dpi=dpi)
        message = figure.text(0, 0, title or "", weight="bold", va="center")
        size = np.array([max(across, message.get_window_extent().width + 16), down + top])
        figure.set_size_inches(size / dpi)
        message.set_position((8 / size[0], 1 - 14 / size[1]))
        axes = figure.add_axes((0, 0, across / size[0], down / size[1]))
        axes.imshow(tiles, interpolation="nearest", aspect="auto")
        axes.axis("off")
        labels = [
            axes.text(left + width / 2, above - room / 2, text, ha="center", va="center", size=9)
            for (above, left), text in zip(corners, titles, strict=True)
            if text
        ]
        _shrink_to(labels, width * scale)
    return figure


def _shrink_to(labels: list[Any], pixels: float) -> None:
    """Gives all labels the one size at which the widest fits; below 6 points they stay at 6."""
    widest = max((label.get_window_extent().width for label in labels), default=pixels)
    for label in labels:
        label.set_fontsize(max(6.0, 9 * min(1.0, pixels / widest)))


def latent_walk(
    images: np.ndarray, *, scale: float | None = None, title: str | None = None
) -> Chart:
    """Shows walks from one latent to another, each in a row, the fraction of the way above.

    Args:
        images: uint8 `(steps, height, width, 1 or 3)` for one walk, or
            `(rows, steps, height, width, 1 or 3)`. Steps are evenly spaced.
        scale: screen pixels for each image pixel; fits the page if None.
        title: the message of the figure.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if the shape is wrong or a walk has fewer than two steps.

    Example:
        >>> figure = latent_walk(np.zeros((3, 9, 28, 28, 1), "uint8"))
    """
    array = np.asarray(images)
    array = _check_images(array[None] if array.ndim == 4 else array, dims=5)
    rows, steps = array.shape[:2]
    if steps < 2:
        raise ValueError(f"a walk needs at least two steps, got {steps}.")
    heads = [f"{t:.2f}".rstrip("0").rstrip(".") for t in np.linspace(0, 1, steps)]
    titles = heads + [""] * ((rows - 1) * steps)
    return grid(array.reshape(-1, *array.shape[2:]), steps, titles, scale=scale, title=title)


def save_png(
    images: np.ndarray, path: str | os.PathLike[str], columns: int | None = None, scale: int = 1
) -> Path:
    """Writes a sheet of images as PNG. The file appears whole or not at all.

    Args:
        images: uint8 `(n, height, width, 1 or 3)`.
        path: ends in `.png`; its folder exists.
        columns: images in a row; a near-square sheet if None.
        scale: whole number by which every pixel is repeated.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if the folder does not exist.
        TypeError: if the images are not uint8.
        ValueError: if a shape, `columns`, `scale` or the name is wrong.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"the file name must end in .png, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist. Make it first.")
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a whole number from 1 up, got {scale!r}.")
    tiles = sheet(images, columns, gap=GAP).repeat(scale, axis=0).repeat(scale, axis=1)
    write_atomic(path, to_png(tiles, optimize=True))
    return path


def save_sheet(
    images: np.ndarray,
    path: str | os.PathLike[str],
    text: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a sheet of images in the format that its name ends in, whole or not at all.

    Args:
        images: uint8 `(n, height, width, 1 or 3)`.
        path: ends in one of `files.FORMATS`; missing folders are made.
        text: what a PNG says of itself, see `files.to_png`.
        overwrite: replace what stands there.

    Raises:
        FileExistsError: if something stands there, and it may not be overwritten.
        OSError: if it cannot be written; nothing half-written stays behind.
        ValueError: if the name ends otherwise, or the format has no room for so many images.
    """
    tiles = sheet(images, gap=GAP)
    content = files.to_image(tiles, files.ending(Path(path)), text)
    files.write_atomic(Path(path), content, overwrite=overwrite)


def check_sheet(n: int, height: int, width: int, path: str | os.PathLike[str]) -> None:
    """Makes sure, before images are drawn, that `save_sheet` can write them in one file.

    Args:
        n: how many.
        height: of each, pixels.
        width: of each, pixels.
        path: as in `save_sheet`.

    Raises:
        ValueError: as `save_sheet`.
    """
    columns = _columns(n, None)
    rows = math.ceil(n / columns)
    size = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    files.check_size(*size, files.ending(Path(path)))


# --- curves and bars ----------------------------------------------------------------------------


def curves(
    x: Sequence[float] | np.ndarray,
    lines: Mapping[str, Sequence[float] | np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    references: Mapping[str, float] | None = None,
    logx: bool = False,
    logy: bool = False,
    title: str | None = None,
) -> Chart:
    """Draws named lines over one axis, labelled at their right end.

    Args:
        x: `(n,)`, increasing.
        lines: name → `(n,)`. A value that is not finite leaves a gap.
        xlabel: quantity and unit, as in "batch size (images)".
        ylabel: quantity and unit.
        bands: name → (low, high), the interval around a line.
        references: name → a height at which a dotted line is drawn.
        logx: logarithmic horizontal axis.
        logy: logarithmic vertical axis.
        title: the message of the figure.

    Raises:
        ValueError: if there is no line, too many, or lengths differ.

    Example:
        >>> figure = curves([1, 2, 4], {"cost": [3, 2, 1]}, xlabel="workers", ylabel="time (s)")
    """
    x, data = np.asarray(x, float), {k: np.asarray(v, float) for k, v in lines.items()}
    bands, references = dict(bands or {}), dict(references or {})
    limit = len(PALETTE) * len(_DASHES)
    if not 1 <= len(data) <= limit:
        raise ValueError(f"lines must name 1 to {limit} lines, got {len(data)}.")
    for name, y in data.items():
        if x.ndim != 1 or len(x) == 0 or y.shape != x.shape:
            raise ValueError(f"line {name!r} has shape {y.shape}, but x has shape {x.shape}.")
    if unknown := set(bands) - set(data):
        raise ValueError(f"bands name lines that do not exist: {sorted(unknown)}.")
    with style():
        figure = Chart(layout="constrained")
        axes = figure.add_subplot()
        ends: list[tuple[str, float, str]] = []
        for i, (name, y) in enumerate(data.items()):
            colour = PALETTE[i % len(PALETTE)]
            dashes = _DASHES[(i // len(PALETTE) + i) % len(_DASHES)]
            marker = "o" if len(x) <= 12 else None
            axes.plot(
                x, y, color=colour, linestyle=dashes, marker=marker, markersize=4, clip_on=False
            )
            if name in bands:
                low, high = bands[name]
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            finite = y[np.isfinite(y)]
            if finite.size:
                ends.append((name, float(finite[-1]), colour))
        for name, height in references.items():
            axes.axhline(height, color=QUIET, linestyle=(0, (1, 2)), linewidth=1.4)
            ends.append((name, float(height), QUIET))
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
        for axis, log in ((axes.xaxis, logx), (axes.yaxis, logy)):
            if log:
                axes.set(**{f"{axis.axis_name}scale": "log"})
                axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
                axis.set_minor_formatter(NullFormatter())
        if logx and len(x) <= 12:
            axes.set_xticks(x)
        if len(x) > 1:
            axes.set_xlim(x[0], x[-1])
        _label_ends(figure, axes, ends)
    return figure


def _label_ends(figure: Chart, axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Writes names right of the axes at the given heights, moved apart where they would touch."""
    texts = [
        axes.annotate(
            name,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(16, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "shrinkA": 2,
                "shrinkB": 2,
                "linewidth": 1.8,
                "relpos": (0, 0.5),
            },
        )
        for name, y, colour in sorted(ends, key=lambda end: end[1])
    ]
    figure.draw_without_rendering()  # settles the layout, so that pixels are known
    boxes = [Text.get_window_extent(text) for text in texts]  # the text without its leader
    bottoms = [box.y0 for box in boxes]
    for i in range(1, len(boxes)):  # up from below
        bottoms[i] = max(bottoms[i], bottoms[i - 1] + boxes[i - 1].height + 2)
    ceiling = figure.bbox.height
    for i in reversed(range(len(boxes))):  # and down again where they left the figure
        bottoms[i] = min(bottoms[i], ceiling - boxes[i].height - 2)
        ceiling = bottoms[i]
    for text, box, bottom in zip(texts, boxes, bottoms, strict=True):
        text.set_position((16, (bottom - box.y0) * 72 / figure.dpi))


def losses(
    history: Mapping[str, Sequence[float]],
    *,
    references: Mapping[str, float] | None = None,
    x: str = "step",
    smooth: int = 1,
    ylabel: str = "loss (nats)",
    title: str | None = None,
) -> Chart:
    """Draws the losses of networks that train together.

    Args:
        history: name → losses, one per step or epoch, all of one length.
        references: name → the loss that theory expects, as `{"log 2": math.log(2)}`.
        x: what is counted, "step" or "epoch".
        smooth: draw the mean over so many values; 1 draws what was measured.
        ylabel: quantity and unit.
        title: the message of the figure.

    Raises:
        ValueError: if there is nothing to draw, lengths differ, or `smooth` does not fit.

    Example:
        >>> history = {"generator": [0.8, 0.9], "discriminator": [1.3, 1.2]}
        >>> figure = losses(history, references={"2 log 2": 2 * math.log(2)}, x="epoch")
    """
    lengths = {name: len(values) for name, values in history.items()}
    if not lengths or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"history must hold losses of one length, not empty; got {lengths}.")
    n = next(iter(lengths.values()))
    if not isinstance(smooth, int) or not 1 <= smooth <= n:
        raise ValueError(f"smooth must be a whole number from 1 to {n}, got {smooth!r}.")
    kernel = np.full(smooth, 1 / smooth)
    lines = {k: np.convolve(np.asarray(v, float), kernel, "valid") for k, v in history.items()}
    xlabel = x if smooth == 1 else f"{x} (mean of {smooth})"
    steps = np.arange(smooth, n + 1)
    return curves(steps, lines, xlabel=xlabel, ylabel=ylabel, references=references, title=title)


class _Comparison(Protocol):
    baseline: str

    def ratios(self) -> Mapping[str, Any]: ...


def bars(comparison: _Comparison, *, title: str | None = None) -> Chart:
    """Draws how many times as fast as the baseline each candidate is, with its interval.

    Args:
        comparison: a `genlib.bench.Comparison`.
        title: the message of the figure.

    Returns:
        The figure. From a range of 20× on its axis is logarithmic and bars start at 1×.
    """
    ratios = comparison.ratios()
    values = np.array([r.ratio for r in ratios.values()])
    errors = np.abs([[r.ratio - r.low, r.high - r.ratio] for r in ratios.values()]).T
    log = bool(values.max() / values.min() > 20)
    start = 1.0 if log else 0.0
    colours = [QUIET if name == comparison.baseline else PALETTE[5] for name in ratios]
    with style():
        figure = Chart(figsize=(7, 0.9 + 0.42 * len(ratios)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(len(ratios))
        axes.barh(rows, values - start, left=start, height=0.62, color=colours)
        axes.errorbar(values, rows, xerr=errors, fmt="none", ecolor=INK, capsize=3, linewidth=1.2)
        axes.axvline(1, color=QUIET, linewidth=1)
        for row, (name, ratio) in enumerate(ratios.items()):
            text = "baseline" if name == comparison.baseline else str(ratio)
            axes.annotate(
                text,
                (max(ratio.high, start), row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                annotation_clip=False,
            )
        if log:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}×"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(rows, list(ratios))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"speed relative to “{comparison.baseline}” (times)", title=title or "")
    return figure


# --- the frontier -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One method on the frontier."""

    name: str
    throughput: Estimate  # images per second
    quality: Estimate  # e.g. FID
    group: str = ""  # "same samples", "within margin", "system": one marker each


def pareto(
    throughput: Sequence[float] | np.ndarray,
    quality: Sequence[float] | np.ndarray,
    *,
    lower: bool = True,
) -> np.ndarray:
    """Marks the points that no other point beats.

    A point is beaten if another is at least as fast and at least as good, and better in one.

    Args:
        throughput: `(n,)`, higher is better.
        quality: `(n,)`.
        lower: whether lower quality numbers are better, as with FID.

    Returns:
        bool `(n,)`.

    Raises:
        ValueError: if lengths differ or a number is NaN.

    Example:
        >>> pareto([1, 2, 3], [5, 9, 6]).tolist()
        [True, False, True]
    """
    fast = np.asarray(throughput, float)
    good = -np.asarray(quality, float) if lower else np.asarray(quality, float)
    if fast.ndim != 1 or fast.shape != good.shape or np.isnan(fast).any() or np.isnan(good).any():
        raise ValueError(
            f"throughput and quality must be equally long and without NaN, "
            f"got {throughput!r} and {quality!r}."
        )
    no_worse = (fast[:, None] >= fast) & (good[:, None] >= good)  # [i, j]: i against j
    better = (fast[:, None] > fast) | (good[:, None] > good)
    return np.logical_not((no_worse & better).any(axis=0))


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    if isinstance(estimate, tuple):
        value, low, high = estimate
        return float(value), float(low), float(high)
    return float(estimate), float(estimate), float(estimate)


def frontier(
    points: Iterable[Point],
    *,
    quality: str = "FID",
    lower: bool = True,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Chart:
    """Draws quality against throughput, and the set of methods that no other one beats.

    Args:
        points: one for each method, names all different.
        quality: name of the quality measure, for the axis.
        lower: whether lower quality numbers are better.
        references: name → a height to mark, as the real-against-real floor.
        title: the message of the figure.

    Returns:
        The figure: methods on the frontier filled and joined, others hollow.

    Raises:
        ValueError: if there is no point, a name comes twice, a throughput is not positive, a
            number is not finite, or an interval does not hold its value.

    Example:
        >>> figure = frontier([Point("slow", (2, 1.8, 2.2), 4.1), Point("fast", 90.0, 4.4)])
    """
    points = list(points)
    names = [p.name for p in points]
    if not points or len(set(names)) != len(names):
        raise ValueError(f"points must have names, all different, and not be empty; got {names}.")
    speed = np.array([_triple(p.throughput) for p in points])  # (n, 3)
    value = np.array([_triple(p.quality) for p in points])
    for name, s, v in zip(names, speed, value, strict=True):
        ordered = s[1] <= s[0] <= s[2] and v[1] <= v[0] <= v[2]
        if not (np.isfinite([s, v]).all() and s.min() > 0 and ordered):
            raise ValueError(
                f"point {name!r} needs finite numbers, a positive throughput, and low ≤ value ≤ "
                f"high; got throughput {tuple(s)} and {quality} {tuple(v)}."
            )
    best = pareto(speed[:, 0], value[:, 0], lower=lower)
    groups = list(dict.fromkeys(p.group for p in points))
    with style():
        figure = Chart(figsize=(7.2, 5.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        # Room for names; a single throughput still spans a factor of four.
        low, high = speed[:, 1].min(), speed[:, 2].max()
        room = max(1.25 * (high / low) ** 0.14, 2 * (low / high) ** 0.5)
        axes.set_xlim(low / room, high * room)
        axes.margins(y=0.12)
        for g, group in enumerate(groups):
            colour, marker = PALETTE[g % len(PALETTE)], _MARKERS[g % len(_MARKERS)]
            for i in (i for i, p in enumerate(points) if p.group == group):
                xerr, yerr = (np.abs(a[i, 1:] - a[i, 0])[:, None] for a in (speed, value))
                axes.errorbar(
                    speed[i, 0],
                    value[i, 0],
                    xerr=xerr,
                    yerr=yerr,
                    fmt=marker,
                    color=colour,
                    markersize=8,
                    markerfacecolor=colour if best[i] else CARD,
                    markeredgewidth=1.6,
                    elinewidth=1.2,
                    zorder=3,
                )
            axes.plot([], [], marker, color=colour, label=group or "method")
        order = np.flatnonzero(best)[np.argsort(speed[best, 0])]
        # Stairs: what can be had at a given throughput is the best of all that are as fast.
        stairs: dict[str, Any] = {"drawstyle": "steps-pre", "color": QUIET, "linewidth": 1.2}
        axes.plot(speed[order, 0], value[order, 0], zorder=2, **stairs)
        for height in (references or {}).values():
            axes.axhline(height, color=QUIET, linestyle=(0, (1, 2)), linewidth=1.4)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        sense = "lower" if lower else "higher"
        axes.set(
            xlabel="throughput (images per second, logarithmic; higher is better)",
            ylabel=f"{quality} ({sense} is better)",
            title=title or "",
        )
        axes.plot([], [], **stairs, label="frontier (filled)")
        figure.legend(loc="outside lower center", ncols=4 if len(groups) < 4 else 3, fontsize=9)
        _label_ends(figure, axes, [(n, y, QUIET) for n, y in (references or {}).items()])
        _label_points(figure, axes, names, speed, value, best)
    return figure


def _label_points(
    figure: Chart,
    axes: Axes,
    names: list[str],
    speed: np.ndarray,
    value: np.ndarray,
    best: np.ndarray,
) -> None:
    """Puts each name near its point where it covers no point, no interval and no other name."""
    figure.draw_without_rendering()  # settles the layout, so that pixels are known
    to_pixels: Callable[[np.ndarray], np.ndarray] = axes.transData.transform
    centres = to_pixels(np.column_stack([speed[:, 0], value[:, 0]]))
    ends = [to_pixels(np.column_stack([speed[:, k], value[:, k]])) for k in (1, 2)]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres]
    for (x, y), (x0, y0), (x1, y1) in zip(centres, *ends, strict=True):
        taken += [Bbox([[x0, y - 2], [x1, y + 2]]), Bbox([[x - 2, y0], [x + 2, y1]])]
    for drawn in axes.lines:
        if drawn.get_transform() == axes.get_yaxis_transform():  # a reference, all across
            y = drawn.get_window_extent().y0
            taken.append(Bbox([[axes.bbox.x0, y - 2], [axes.bbox.x1, y + 2]]))
    stairs = centres[best][np.argsort(centres[best, 0])]
    for (x0, y0), (x1, y1) in pairwise(stairs):
        taken += [Bbox([[x0 - 2, y0], [x0 + 2, y1]]), Bbox([[x0, y1 - 2], [x1, y1 + 2]])]
    per_pixel = 72 / figure.dpi
    leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "shrinkB": 5}
    placed: list[Bbox] = []
    for i in np.argsort(~best, kind="stable"):  # the frontier chooses first
        label = axes.annotate(
            names[i],
            (speed[i, 0], value[i, 0]),
            size=9,
            color=INK if best[i] else QUIET,
            annotation_clip=False,
        )
        label.set_in_layout(False)
        size = label.get_window_extent()
        box = _free_place(centres[i], size.width, size.height, taken, placed, axes.bbox)
        line = _leader(centres[i], box)
        placed.append(box)
        taken += [box, *line]
        label.remove()
        label = axes.annotate(
            names[i],
            (speed[i, 0], value[i, 0]),
            xytext=((box.x0 - centres[i][0]) * per_pixel, (box.y0 - centres[i][1]) * per_pixel),
            textcoords="offset points",
            va="bottom",
            size=9,
            color=INK if best[i] else QUIET,
            arrowprops=leader if line else None,
        )
        label.set_in_layout(False)


_TURNS = (0, 8, 4, 12, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11)  # of 16: right, left, above, …


_RINGS = (9, 13, 20, 30, 42, 56, 72, 90, 110, 135, 160, 190)  # pixels


def _free_place(
    centre: np.ndarray,
    width: float,
    height: float,
    taken: list[Bbox],
    placed: list[Bbox],
    frame: Bbox,
) -> Bbox:
    """Searches outwards for a box that overlaps nothing and whose leader crosses no name."""
    found: list[tuple[float, Bbox]] = []
    for distance in _RINGS:
        for turn in _TURNS:
            angle = 2 * math.pi * turn / 16
            x = centre[0] + math.cos(angle) * (distance + width / 2) - width / 2
            y = centre[1] + math.sin(angle) * (distance + height / 2) - height / 2
            box = Bbox.from_bounds(x, y, width, height)
            cost = sum(_overlap(box, other) for other in taken)
            cost += 4 * (width * height - _overlap(box, frame))
            cost += sum(_overlap(dot, name) for dot in _leader(centre, box) for name in placed)
            if cost < 1e-6:
                return box
            found.append((cost, box))
    return min(found, key=lambda place: place[0])[1]


def _leader(centre: np.ndarray, box: Bbox) -> list[Bbox]:
    """The line from a point to its name, as dots of 3 pixels; none where they are neighbours."""
    target = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    steps = max(2, int(np.hypot(*(target - centre)) / 2))
    line = [centre + t * (target - centre) for t in np.linspace(0, 1, steps)]
    dots = [Bbox.from_bounds(x - 1.5, y - 1.5, 3, 3) for x, y in line]
    off = [math.hypot(d.x0 + 1.5 - centre[0], d.y0 + 1.5 - centre[1]) for d in dots]
    dots = [d for d, far in zip(dots, off, strict=True) if far > 9 and _overlap(d, box) == 0]
    return dots if len(dots) > 2 else []


def _overlap(a: Bbox, b: Bbox) -> float:
    wide = min(a.xmax, b.xmax) - max(a.xmin, b.xmin)
    high = min(a.ymax, b.ymax) - max(a.ymin, b.ymin)
    return max(0.0, wide) * max(0.0, high)
