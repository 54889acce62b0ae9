"""Figures: what they hold, what they refuse, and that they can be read on any page."""

import io
import math
import os
from itertools import combinations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from genlib import plot

# A figure takes a quarter of a second, so a failing example is shown as found, not shrunk.
DRAWING = {"deadline": None, "phases": (Phase.explicit, Phase.reuse, Phase.generate)}


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a: str, b: str) -> float:
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def pixels(figure: plot.Chart, scale: float = 1) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png(scale))))


def images(n: int = 6, channels: int = 1, side: int = 28) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), np.uint8)


# --- legible ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", ["#FFFFFF", "#121212", plot.CARD])
@pytest.mark.parametrize("colour", plot.PALETTE)
def test_every_palette_colour_has_3_to_1_on_light_dark_and_card(colour, ground):
    assert contrast(colour, ground) >= 3


@pytest.mark.parametrize("ink", [plot.INK, plot.QUIET])
def test_text_has_4_5_to_1_on_the_card(ink):
    assert contrast(ink, plot.CARD) >= 4.5


# Linear-RGB matrices of Viénot, Brettel and Mollon (1999) for the two red-green deficiencies.
DICHROMACY = {
    "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("kind", DICHROMACY)
def test_no_two_of_the_first_three_colours_look_alike_to_the_colour_blind(kind):
    def seen(colour):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2
        return np.clip(np.array(DICHROMACY[kind]) @ rgb, 0, 1) ** (1 / 2.2)

    for a, b in combinations(plot.PALETTE[:3], 2):
        assert np.linalg.norm(seen(a) - seen(b)) > 0.15, (a, b)


def every_figure() -> dict[str, plot.Chart]:
    ratios = {"slow": Ratio(1, 1, 1), "fast": Ratio(3.4, 3.1, 3.8)}
    return {
        "grid": plot.grid(images(), titles=list("abcdef"), title="Six images"),
        "losses": plot.losses({"generator": [1, 2], "discriminator": [2, 1]}, title="Losses"),
        "latent walk": plot.latent_walk(images().reshape(2, 3, 28, 28, 1)),
        "frontier": plot.frontier([plot.Point("a", 1.0, 2.0), plot.Point("b", 2.0, 3.0)]),
        "bars": plot.bars(Comparison(ratios)),
        "curves": plot.curves([1, 2], {"a": [1, 2]}, xlabel="x (s)", ylabel="y (s)"),
    }


class Ratio:
    def __init__(self, ratio, low, high):
        self.ratio, self.low, self.high = ratio, low, high

    def __str__(self):
        return f"{self.ratio}×"


class Comparison:
    baseline = "slow"

    def __init__(self, ratios):
        self.ratios = lambda: ratios


def test_every_figure_brings_its_own_opaque_ground_so_the_page_theme_cannot_hide_it():
    card = tuple(int(plot.CARD[i : i + 2], 16) for i in (1, 3, 5))
    for name, figure in every_figure().items():
        shown = pixels(figure)
        assert (shown[..., 3] == 255).all(), name
        assert tuple(shown[0, 0, :3]) == card, name


def test_every_axis_of_a_chart_has_a_label_and_nothing_is_cut_off():
    for name, figure in every_figure().items():
        for axes in figure.axes:
            if not axes.axison:
                continue
            assert axes.get_xlabel(), name
            assert axes.get_ylabel() or name == "bars", name  # whose rows carry names
        shown = pixels(figure)[..., :3]
        if name not in ("grid", "latent walk"):
            border = np.concatenate(
                [shown[[0, -1]].reshape(-1, 3), shown[:, [0, -1]].reshape(-1, 3)]
            )
            assert (border == shown[0, 0]).all(), name


def test_a_notebook_gets_two_pixels_for_each_of_the_screen():
    figure = plot.grid(images(4, side=8), scale=3)
    data, size = figure._repr_png_()
    shown = Image.open(io.BytesIO(data))
    assert shown.size == (2 * size["width"], 2 * size["height"])


def test_ipython_shows_the_figure_once_as_png():
    formatters = pytest.importorskip("IPython.core.formatters")
    data, metadata = formatters.DisplayFormatter().format(plot.grid(images(1, side=8), scale=2))
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"] == {"width": 20, "height": 20}  # 8 pixels and 2 gaps, twice


def test_figures_leave_matplotlib_and_the_random_state_as_they_were():
    import matplotlib as mpl

    before = dict(mpl.rcParams), np.random.get_state()[1].copy()  # noqa: NPY002
    every_figure()
    assert dict(mpl.rcParams) == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_the_same_input_gives_the_same_figure():
    first, second = every_figure(), every_figure()
    assert all(first[name].png(1) == second[name].png(1) for name in first)


def test_use_style_reaches_figures_that_readers_draw_themselves():
    import matplotlib as mpl

    with mpl.rc_context():
        plot.use_style()
        assert mpl.rcParams["figure.facecolor"] == plot.CARD


# --- images -------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 12),
    columns=st.integers(1, 14) | st.none(),
    gap=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
)
@settings(max_examples=40, deadline=None)
def test_a_sheet_holds_every_image_unchanged_in_reading_order(n, columns, gap, channels):
    given_images = images(n, channels, side=5)
    made = plot.sheet(given_images, columns, gap)
    across = (made.shape[1] - gap) // (5 + gap)
    assert across == min(columns or across, n)
    for i, image in enumerate(given_images):
        top, left = gap + (i // across) * (5 + gap), gap + (i % across) * (5 + gap)
        tile = made[top : top + 5, left : left + 5]
        assert (tile == image).all()


def test_a_grid_draws_each_pixel_as_one_square_of_its_own_value():
    given_images = images(1, 3)
    shown = pixels(plot.grid(given_images, scale=2))[..., :3]
    assert (shown[2:-2, 2:-2] == given_images[0].repeat(2, axis=0).repeat(2, axis=1)).all()


def test_a_title_wider_than_the_grid_widens_the_figure():
    narrow = plot.grid(images(1), title="A")
    wide = plot.grid(images(1), title="A message that is far longer than the image is wide")
    assert wide.get_figwidth() > narrow.get_figwidth()


def test_titles_fit_above_their_images():
    figure = plot.grid(
        images(4), 4, ["T-shirt/top", "a", "Ankle boot", "an evening sky"], scale=2.5
    )
    labels = [t for t in figure.axes[0].texts if t.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_latent_walk_has_one_row_for_each_walk_and_heads_only_on_the_first():
    one = plot.latent_walk(images(5))
    three = plot.latent_walk(images(15).reshape(3, 5, 28, 28, 1))
    for figure in (one, three):
        assert [t.get_text() for t in figure.axes[0].texts] == ["0", "0.25", "0.5", "0.75", "1"]
    assert three.get_figheight() > 2 * one.get_figheight()


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (np.zeros((2, 8, 8, 1)), TypeError, "uint8"),
        (np.zeros((8, 8), np.uint8), ValueError, "shape"),
        (np.zeros((2, 8, 8, 2), np.uint8), ValueError, "shape"),
        (np.zeros((0, 8, 8, 1), np.uint8), ValueError, "shape"),
    ],
)
def test_images_of_a_wrong_kind_are_refused_with_the_reason(bad, error, says, tmp_path):
    for call in (plot.grid, plot.sheet, lambda x: plot.save_png(x, tmp_path / "x.png")):
        with pytest.raises(error, match=says):
            call(bad)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="columns"):
        plot.grid(images(), columns=0)
    with pytest.raises(ValueError, match="titles"):
        plot.grid(images(), titles=["one"])
    with pytest.raises(ValueError, match="scale"):
        plot.grid(images(), scale=-1)
    with pytest.raises(ValueError, match="two steps"):
        plot.latent_walk(images(1))


# --- files --------------------------------------------------------------------------------------


def test_a_saved_sheet_reads_back_as_the_same_pixels(tmp_path):
    path = plot.save_png(images(4, 3), tmp_path / "sheet.png", columns=2, scale=3)
    want = plot.sheet(images(4, 3), 2, gap=2).repeat(3, axis=0).repeat(3, axis=1)
    assert (np.asarray(Image.open(path)) == want).all()
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = plot.save_png(images(), tmp_path / "sheet.png")
    old = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        plot.save_png(images(9), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_a_wrong_place_or_name_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="Make it first"):
        plot.save_png(images(), tmp_path / "missing" / "sheet.png")
    with pytest.raises(ValueError, match=r"\.png"):
        plot.save_png(images(), tmp_path / "sheet.jpg")
    with pytest.raises(ValueError, match="scale"):
        plot.save_png(images(), tmp_path / "sheet.png", scale=0)
    assert os.listdir(tmp_path) == []


# --- curves and bars ----------------------------------------------------------------------------


def test_losses_draws_every_net_and_reference_with_its_name():
    history = {"generator": [0.9, 0.8, 0.7], "discriminator": [1.2, 1.3, 1.4]}
    axes = plot.losses(history, references={"log 2": math.log(2)}).axes[0]
    assert {t.get_text() for t in axes.texts} == {"generator", "discriminator", "log 2"}
    drawn = [list(line.get_ydata()) for line in axes.lines]
    assert all(
        any(np.allclose(values, d) for d in drawn if len(d) == 3) for values in history.values()
    )
    assert any(np.allclose(d, math.log(2)) for d in drawn)


def test_smoothing_is_the_mean_over_the_last_values():
    axes = plot.losses({"net": [1.0, 3.0, 5.0, 7.0]}, smooth=2).axes[0]
    assert np.allclose(axes.lines[0].get_xydata(), [[2, 2], [3, 4], [4, 6]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=7, **DRAWING)
def test_names_at_the_ends_of_curves_never_cover_each_other_or_leave_the_figure(ends):
    lines = {f"line {i}": [0.5, end] for i, end in enumerate(ends)}
    figure = plot.curves([0, 1], lines, xlabel="x", ylabel="y")
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text).padded(-0.5) for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(
        b.y0 >= 0 and b.y1 <= figure.bbox.height and b.x1 <= figure.bbox.width for b in boxes
    )


def test_more_lines_than_colours_differ_in_colour_or_dashes():
    lines = {str(i): [0, i] for i in range(24)}
    drawn = plot.curves([0, 1], lines, xlabel="x", ylabel="y").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 24


def test_curves_refuses_what_it_cannot_draw():
    axes = {"xlabel": "x", "ylabel": "y"}
    with pytest.raises(ValueError, match="1 to 24"):
        plot.curves([1], {}, **axes)
    with pytest.raises(ValueError, match="shape"):
        plot.curves([1, 2], {"a": [1]}, **axes)
    with pytest.raises(ValueError, match="do not exist"):
        plot.curves([1], {"a": [1]}, bands={"b": ([0], [2])}, **axes)
    with pytest.raises(ValueError, match="one length"):
        plot.losses({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="smooth"):
        plot.losses({"a": [1]}, smooth=2)


def test_bars_have_the_length_of_the_ratio_and_turn_logarithmic_for_large_ones():
    near = plot.bars(Comparison({"slow": Ratio(1, 1, 1), "fast": Ratio(3.4, 3.1, 3.8)})).axes[0]
    assert [bar.get_width() for bar in near.patches] == [1, 3.4]
    assert near.get_xscale() == "linear"
    far = plot.bars(Comparison({"slow": Ratio(1, 1, 1), "fast": Ratio(150, 140, 170)})).axes[0]
    assert far.get_xscale() == "log"
    assert far.patches[1].get_x() + far.patches[1].get_width() == 150


# --- the frontier -------------------------------------------------------------------------------

numbers = st.integers(1, 6).map(float)  # few values, so that ties are common


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), st.booleans())
def test_pareto_is_the_set_that_a_brute_force_search_finds(points, lower):
    def beats(a, b):
        quality = (a[1] <= b[1], a[1] < b[1]) if lower else (a[1] >= b[1], a[1] > b[1])
        return a[0] >= b[0] and quality[0] and (a[0] > b[0] or quality[1])

    want = [not any(beats(other, p) for other in points) for p in points]
    throughput, quality = zip(*points, strict=True)
    assert plot.pareto(throughput, quality, lower=lower).tolist() == want


positive = st.floats(0.1, 1e4)


@given(st.lists(st.tuples(positive, st.floats(1, 50)), min_size=1, max_size=14))
@settings(max_examples=7, **DRAWING)
def test_names_on_the_frontier_do_not_cover_each_other(values):
    points = [plot.Point(f"method {i}", x, y) for i, (x, y) in enumerate(values)]
    figure = plot.frontier(points, references={"real against real": 1.5})
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    assert {t.get_text() for t in texts} == {p.name for p in points} | {"real against real"}
    # An annotation's own extent includes its leader; the words are what must not be covered.
    boxes = [Text.get_window_extent(t).padded(-0.5) for t in texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_methods_on_the_frontier_are_filled_and_others_hollow():
    points = [plot.Point("best", 9.0, 1.0), plot.Point("beaten", (1, 0.9, 1.1), (2.0, 1.5, 2.5))]
    axes = plot.frontier(points).axes[0]
    faces = [c.lines[0].get_markerfacecolor() for c in axes.containers]
    assert faces == [plot.PALETTE[0], plot.CARD]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(
    "points",
    [
        [],
        [plot.Point("a", 1.0, 1.0), plot.Point("a", 2.0, 2.0)],
        [plot.Point("a", 0.0, 1.0)],
        [plot.Point("a", 1.0, math.nan)],
        [plot.Point("a", (1.0, 2.0, 3.0), 1.0)],
    ],
)
def test_the_frontier_refuses_points_that_cannot_be_drawn(points):
    with pytest.raises(ValueError, match="point"):
        plot.frontier(points)


def test_pareto_refuses_nan_and_unequal_lengths():
    with pytest.raises(ValueError, match="NaN"):
        plot.pareto([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="equally long"):
        plot.pareto([1.0], [1.0, 2.0])
