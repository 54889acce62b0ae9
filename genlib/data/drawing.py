"""Draws the Scenes: 64×64 landscapes, a whole batch at a time, from named attributes.

Everything is painted back to front with soft masks: sky, sun or moon, clouds, land, water that
mirrors what stands above it, an object, weather. A mask is the signed distance to a shape's edge,
cut off within one pixel, so edges are anti-aliased without supersampling.

Coordinates run from 0 to 1, x to the right and y downwards. Colours are RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SIZE = 64  # pixels
NOISE = 256  # uniform numbers per scene, from which all that is not an attribute follows

_X = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE)[None, None, :]  # (1, 1, 64)
_Y = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE)[None, :, None]  # (1, 64, 1)

Array = np.ndarray


def _f32(values: object) -> Array:
    """Returns numbers as a float32 array: a colour, or a table of them."""
    return np.asarray(values, np.float32)


def _table(**rows: Sequence[object]) -> dict[str, Array]:
    return {name: np.array(values, np.float32) for name, values in rows.items()}


# One row per time of day: dawn, day, sunset, night.
_TIME = _table(
    top=[(0.40, 0.50, 0.80), (0.16, 0.45, 0.87), (0.22, 0.16, 0.42), (0.02, 0.03, 0.10)],
    middle=[(0.84, 0.70, 0.84), (0.42, 0.69, 0.96), (0.84, 0.32, 0.30), (0.05, 0.08, 0.22)],
    horizon=[(1.00, 0.84, 0.76), (0.80, 0.92, 0.99), (1.00, 0.67, 0.26), (0.16, 0.23, 0.42)],
    light=[(1.00, 0.90, 0.80), (1.00, 0.98, 0.86), (1.00, 0.80, 0.45), (0.86, 0.90, 1.00)],
    tint=[(0.80, 0.72, 0.80), (1.00, 1.00, 1.00), (0.74, 0.48, 0.42), (0.25, 0.31, 0.48)],
    cloud=[(1.00, 0.86, 0.86), (1.00, 1.00, 1.00), (0.98, 0.56, 0.40), (0.24, 0.28, 0.42)],
    lamps=[0.25, 0.0, 0.75, 1.0],  # how bright windows are
    height_low=[0.34, 0.12, 0.36, 0.13],  # of sun or moon
    height_high=[0.44, 0.20, 0.47, 0.24],
    radius=[0.058, 0.055, 0.075, 0.058],
)
# One row per weather: clear, cloudy, foggy, rainy, snowy.
_WEATHER = _table(
    grey=[0.0, 0.15, 0.45, 0.65, 0.45],  # how far colours go to grey
    dim=[1.0, 0.97, 0.97, 0.78, 0.95],
    disc=[1.0, 1.0, 0.62, 0.55, 0.75],  # how clearly sun or moon shows
    clouds=[0.0, 1.0, 0.25, 0.75, 0.35],
    fog=[0.0, 0.0, 0.76, 0.18, 0.15],
    snow=[0.0, 0.0, 0.0, 0.0, 0.88],  # on the ground
    rain=[0.0, 0.0, 0.0, 1.0, 0.0],
)
_LANDS = ("sea", "lake", "mountains", "hills", "desert", "city")
_HORIZON_LOW = np.array([0.54, 0.58, 0.74, 0.66, 0.66, 0.76], np.float32)
_HORIZON_HIGH = np.array([0.62, 0.64, 0.80, 0.74, 0.72, 0.82], np.float32)
_LIFT = np.array([0.0, 0.14, 0.05, 0.0, 0.0, 0.18], np.float32)
_HAS_WATER = np.array([True, True, False, False, False, True])


@dataclass
class _Scene:
    """A batch being painted; every column is `(batch, 1, 1)`, every colour `(batch, 1, 1, 3)`."""

    pixels: Array  # float32 (batch, 64, 64, 3)
    noise: Array  # float32 (batch, NOISE)
    time: Mapping[str, Array]
    weather: Mapping[str, Array]
    night: Array
    horizon: Array  # where land or water begins
    light_x: Array
    lift: Array  # how much higher the light stands, to clear tall land
    shines: Array  # 1 where sun or moon is in view, else 0
    haze: Array  # the colour of far things
    shadow: Array  # the colour that multiplies whatever light does not reach

    def uniform(self, index: int, low: float | Array = 0.0, high: float | Array = 1.0) -> Array:
        """Returns noise number `index` of each scene, scaled; `(batch, 1, 1)`."""
        return (low + (high - low) * self.noise[:, index, None, None]).astype(np.float32)

    def part(self, chosen: Array) -> _Scene:
        """Returns the chosen scenes as a batch of their own."""
        return _Scene(
            self.pixels[chosen],
            self.noise[chosen],
            {name: values[chosen] for name, values in self.time.items()},
            {name: values[chosen] for name, values in self.weather.items()},
            *(
                getattr(self, f)[chosen]
                for f in ("night", "horizon", "light_x", "lift", "shines", "haze", "shadow")
            ),
        )

    def paint(self, mask: Array, colour: Array) -> None:
        """Covers the pixels with a colour where the mask, `(batch, 64, 64)`, is 1."""
        self.pixels += mask[..., None] * (colour - self.pixels)

    def glow(self, mask: Array, colour: Array) -> None:
        """Adds light: the pixels come nearer to the colour's brightness and never exceed 1."""
        self.pixels += mask[..., None] * colour * (1 - self.pixels)

    def lit(self, colour: Array, distance: float = 0.0) -> Array:
        """Returns a surface's colour in this light; at distance 1 it is lost in haze."""
        seen = colour * self.shadow
        return seen + distance * (self.haze - seen)


def draw(attributes: Array, noise: Array) -> Array:
    """Paints scenes.

    Args:
        attributes: int `(n, 5)`: the index of time, land, light, weather and object, in the
            order of `genlib.data.scenes.ATTRIBUTES`.
        noise: float32 `(n, 256)`, uniform in [0, 1).

    Returns:
        uint8 `(n, 64, 64, 3)`.
    """
    images = np.empty((len(noise), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(noise), 32):  # a batch that stays in the processor's cache
        here = slice(start, start + 32)
        pixels = _paint(attributes[here], noise[here])
        images[here] = np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8)
    return images


def _paint(attributes: Array, noise: Array) -> Array:
    time, land, light, weather, thing = attributes.T
    scene = _begin(time, land, light, weather, noise)
    _sky(scene)
    _stars(scene)
    _disc(scene)
    _clouds(scene)
    for index, name in enumerate(_LANDS):
        _each(scene, land == index, _PAINT_LAND[name])
    _each(scene, _HAS_WATER[land], _water)
    ground = _HAS_WATER[land]
    _each(scene, thing == 1, _boat)
    for index, paint in ((2, _house), (3, _tree)):
        _each(scene, (thing == index) & ground, _island)
        _each(scene, thing == index, paint)
    _each(scene, weather == 2, _fog)
    _each(scene, thing == 4, _balloon)
    _each(scene, (weather == 3) | (weather == 4), _fog)
    _each(scene, weather == 3, _rain)
    _each(scene, weather == 4, _snow)
    return scene.pixels


def _each(scene: _Scene, chosen: Array, paint: object) -> None:
    """Paints the chosen scenes of a batch, if there are any."""
    if chosen.any():
        part = scene.part(chosen)
        paint(part)  # type: ignore[operator]
        scene.pixels[chosen] = part.pixels


def _begin(time: Array, land: Array, light: Array, weather: Array, noise: Array) -> _Scene:
    column = (slice(None), None, None)

    def rows(table: Mapping[str, Array], index: Array) -> dict[str, Array]:
        return {name: values[index][column] for name, values in table.items()}

    of_time, of_weather = rows(_TIME, time), rows(_WEATHER, weather)
    for name, first in (("top", 0), ("middle", 3), ("horizon", 6)):  # no two skies are equal
        jitter = 0.88 + 0.24 * noise[:, None, None, first : first + 3].mean(-1, keepdims=True)
        hue = 0.95 + 0.10 * noise[:, None, None, first : first + 3]
        colour = np.clip(of_time[name] * jitter * hue, 0, 1)
        grey = colour.mean(-1, keepdims=True)
        colour = colour + of_weather["grey"][..., None] * (grey - colour)
        of_time[name] = colour * of_weather["dim"][..., None]
    spread = _HORIZON_LOW[land] + (_HORIZON_HIGH - _HORIZON_LOW)[land] * noise[:, 9]
    # Left, middle, right; a hidden light still brightens one side of the land.
    low, high = np.array([[0.13, 0.44, 0.73, 0.0], [0.27, 0.56, 0.87, 1.0]], np.float32)[:, light]
    shadow = of_time["tint"] * of_weather["dim"][..., None]
    return _Scene(
        pixels=np.empty((len(noise), SIZE, SIZE, 3), np.float32),
        noise=noise,
        time=of_time,
        weather=of_weather,
        night=(time == 3)[column],
        horizon=spread[column],
        light_x=(low + (high - low) * noise[:, 10])[column],
        lift=(_LIFT[land] * np.isin(time, (0, 2)))[column],
        shines=(light < 3).astype(np.float32)[column],
        haze=of_time["horizon"],
        shadow=shadow + of_weather["grey"][..., None] * (shadow.mean(-1, keepdims=True) - shadow),
    )


def _smooth(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _cover(distance: Array, softness: float = 1.0) -> Array:
    """Returns the mask of a shape from the signed distance to its edge, negative inside."""
    return np.clip(0.5 - distance * (SIZE / softness), 0, 1)


def _circle(x: Array, y: Array, radius: Array | float) -> Array:
    return np.sqrt((_X - x) ** 2 + (_Y - y) ** 2) - radius


def _polygon(*corners: tuple[Array, Array]) -> Array:
    """Returns the signed distance to a convex polygon, corners clockwise as seen on screen."""
    distance = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = np.sqrt((bx - ax) ** 2 + (by - ay) ** 2) + 1e-6
        edge = ((_X - ax) * ((by - ay) / length)) - ((_Y - ay) * ((bx - ax) / length))
        distance = edge if distance is None else np.maximum(distance, edge)
    assert distance is not None
    return distance


def _box(left: Array, right: Array, top: Array, bottom: Array) -> Array:
    return np.maximum(
        np.abs(_X - (left + right) / 2) - (right - left) / 2,
        np.abs(_Y - (top + bottom) / 2) - (bottom - top) / 2,
    )


def _weights(knots: int) -> Array:
    """Returns the matrix `(64, knots)` that blends knots smoothly into 64 positions."""
    position = np.linspace(0, knots - 1, SIZE)
    left = np.minimum(position.astype(int), knots - 2)
    blend = _smooth(position - left)
    matrix = np.zeros((SIZE, knots), np.float32)
    matrix[np.arange(SIZE), left] = 1 - blend
    matrix[np.arange(SIZE), left + 1] = blend
    return matrix


_KNOTS = {knots: _weights(knots) for knots in (3, 4, 6, 8, 12, 16)}


def _curve(scene: _Scene, first: int, knots: int) -> Array:
    """Returns smooth noise along x, `(batch, 1, 64)` in [0, 1]."""
    return (scene.noise[:, first : first + knots] @ _KNOTS[knots].T)[:, None, :]


def _field(scene: _Scene, first: int, down: int, across: int) -> Array:
    """Returns smooth noise over the image, `(batch, 64, 64)` in [0, 1]."""
    grid = scene.noise[:, first : first + down * across].reshape(-1, down, across)
    return _KNOTS[down] @ grid @ _KNOTS[across].T


# ---------------------------------------------------------------- sky


def _sky(scene: _Scene) -> None:
    down = _Y / scene.horizon
    bend = scene.uniform(11, 0.45, 0.65)
    upper, lower = _smooth(down / bend)[..., None], _smooth((down - bend) / (1 - bend))[..., None]
    scene.pixels[:] = scene.time["top"] + upper * (scene.time["middle"] - scene.time["top"])
    scene.pixels += lower * (scene.time["horizon"] - scene.pixels)


def _stars(scene: _Scene) -> None:
    clear = scene.night * (1 - np.clip(scene.weather["grey"] * 2.2, 0, 1))
    chosen = clear[:, 0, 0] > 0
    if not chosen.any():
        return
    part = scene.part(chosen)
    for star in range(9):
        # One place in each 4 by 4 pixels, so that a code can name it.
        x = (np.floor(16 * part.uniform(200 + star)) + 0.375) / 16
        y = (np.floor(7 * part.uniform(212 + star)) + 0.375) / 16
        size = 0.011 + 0.006 * part.uniform(224 + star)
        near = np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / size**2)
        part.glow(near * clear[chosen] * 1.1, np.ones(3, np.float32))
    np.clip(part.pixels, 0, 1, out=part.pixels)
    scene.pixels[chosen] = part.pixels


def _disc(scene: _Scene) -> None:
    y = scene.uniform(12, scene.time["height_low"], scene.time["height_high"]) - scene.lift
    radius = scene.time["radius"] * scene.uniform(13, 0.92, 1.12)
    distance = _circle(scene.light_x, y, 0.0)
    strength = scene.shines * scene.weather["disc"]
    wide = np.where(scene.night, 0.10, 0.30) * scene.uniform(14, 0.85, 1.15)
    glow = np.exp(-((distance / wide) ** 2)) * np.where(scene.night, 0.40, 0.62)
    scene.glow(glow * strength, scene.time["light"])
    soft = 1 + 2.5 * (1 - scene.weather["disc"])
    core = np.clip(0.5 - (distance - radius) * SIZE / soft, 0, 1) * strength
    # The moon wears a bite of shadow on one side.
    bite = _circle(scene.light_x + radius * 0.55, y - radius * 0.25, radius * 0.85)
    core = core * (1 - scene.night * 0.85 * _cover(bite, 1.5))
    scene.paint(core, np.minimum(scene.time["light"] * 1.05, 1))


def _clouds(scene: _Scene) -> None:
    amount = scene.weather["clouds"]
    chosen = amount[:, 0, 0] > 0
    if not chosen.any():
        return
    part, amount = scene.part(chosen), amount[chosen]
    field = 0.65 * _field(part, 16, 6, 4) + 0.35 * _field(part, 40, 12, 6)
    height = _smooth(1.25 - _Y / part.horizon * 1.3)
    # Clouds leave the light free, or left and right could not be told apart.
    x_gap = np.exp(-((_X - part.light_x) ** 2 + (_Y - 0.3) ** 2 * 0.5) / 0.02)
    thick = _smooth((field - 0.42 + 0.16 * (amount - 0.5)) * 4.5) * height * (1 - 0.6 * x_gap)
    colour = part.time["cloud"] * part.weather["dim"][..., None] ** 1.5
    grey = colour.mean(-1, keepdims=True)
    colour = colour + part.weather["grey"][..., None] * (grey * 0.9 - colour)
    shade = np.clip((np.roll(field, 3, axis=1) - field) * 2.2, -0.25, 0.2)[..., None]
    part.paint(thick * 0.9 * np.minimum(amount * 1.2, 1), np.clip(colour * (0.95 + shade), 0, 1))
    scene.pixels[chosen] = part.pixels


# ---------------------------------------------------------------- land


def _ridge(scene: _Scene, top: Array, colour: Array, distance: float, relief: float) -> None:
    """Paints everything below a height line, lit on the slopes that face the light."""
    slope = np.gradient(top, 1 / SIZE, axis=2)
    facing = np.clip(slope * np.tanh((scene.light_x - _X) * 5), -1, 1)
    shade = (1 + relief * facing * np.exp(-np.maximum(_Y - top, 0) / 0.16))[..., None]
    shade = shade * (1 - 0.18 * np.clip((_Y - top) / 0.5, 0, 1))[..., None]
    white = _f32([0.95, 0.97, 1.0])
    colour = colour + scene.weather["snow"][..., None] * (white - colour)
    scene.paint(_cover(top - _Y), np.clip(scene.lit(colour, distance) * shade, 0, 1))


def _peaks(scene: _Scene, first: int, count: int, low: float, high: float, steep: float) -> Array:
    """Returns the height line of a range of mountains, `(batch, 1, 64)`."""
    top = np.full((len(scene.noise), 1, SIZE), 2.0, np.float32)
    for peak in range(count):
        x = (peak + scene.uniform(first + 3 * peak, 0.1, 0.9)) / count
        y = scene.horizon - scene.uniform(first + 3 * peak + 1, low, high)
        slope = steep * scene.uniform(first + 3 * peak + 2, 0.8, 1.2)
        top = np.minimum(top, y + slope * np.abs(_X - x))
    return top + 0.03 * (_curve(scene, first, 16) - 0.5)


def _mountain_range(scene: _Scene, near: float) -> None:
    far = _peaks(scene, 100, 4, 0.10, 0.28, 0.9)
    _ridge(scene, far, _f32([0.50, 0.54, 0.66]), 0.55, 0.25)
    top = _peaks(scene, 112, 3, 0.16, 0.40, 1.15)
    _ridge(scene, top, _f32([0.40, 0.42, 0.50]), near, 0.5)
    cap = _cover(top - _Y) * _cover(
        _Y - (top + 0.055 + 0.05 * _curve(scene, 140, 12)) - (scene.horizon - top - 0.3) * 0.4
    )
    scene.paint(0.9 * cap * (top < scene.horizon - 0.16), scene.lit(_f32([0.98, 0.98, 1.0])))


def _sea(scene: _Scene) -> None:
    """The sea has no land; a low band of haze marks the horizon."""
    band = np.exp(-(((_Y - scene.horizon) / 0.05) ** 2))
    scene.paint(0.35 * band, scene.haze)


def _lake(scene: _Scene) -> None:
    _mountain_range(scene, near=0.25)
    shore = scene.horizon - 0.02 - 0.05 * _curve(scene, 152, 8)
    _ridge(scene, shore, _f32([0.16, 0.36, 0.24]), 0.12, 0.2)


def _mountains(scene: _Scene) -> None:
    _mountain_range(scene, near=0.12)
    meadow = scene.horizon - 0.03 + 0.05 * _curve(scene, 152, 6)
    _ridge(scene, meadow, _f32([0.38, 0.50, 0.26]), 0.0, 0.2)


def _hills(scene: _Scene) -> None:
    greens = _f32([[0.46, 0.62, 0.42], [0.38, 0.60, 0.27], [0.30, 0.52, 0.20]])
    for layer, (colour, distance) in enumerate(zip(greens, (0.35, 0.12, 0.0), strict=True)):
        top = scene.horizon - 0.12 + 0.11 * layer + 0.13 * _curve(scene, 100 + 8 * layer, 4)
        _ridge(scene, top - 0.06, colour, distance, 0.45)


def _desert(scene: _Scene) -> None:
    sands = _f32([[0.86, 0.70, 0.50], [0.90, 0.70, 0.44], [0.93, 0.72, 0.42]])
    for layer, (colour, distance) in enumerate(zip(sands, (0.3, 0.1, 0.0), strict=True)):
        crest = scene.uniform(100 + layer, 0.15, 0.85)
        away = np.sqrt((_X - crest) ** 2 + 0.0009)
        rise = away * np.where(crest > _X, 0.30, 0.62)  # the slip face is steep
        wave = 0.05 * _curve(scene, 108 + 8 * layer, 4)
        top = scene.horizon - 0.14 + 0.11 * layer + 0.13 * np.tanh(rise / 0.13) + wave - 0.03
        _ridge(scene, top, colour, distance, 0.75)


def _city(scene: _Scene) -> None:
    count = 9
    edges = np.linspace(0, 1, count + 1, dtype=np.float32)
    for row, (distance, first) in enumerate(((0.45, 100), (0.1, 130))):
        for building in range(count):
            shift = 0.05 * row - 0.02
            left = edges[building] + shift + scene.uniform(first + building, -0.02, 0.02)
            right = left + 1 / count + 0.012 - 0.03 * scene.uniform(first + building, 0, 1)
            tall = scene.uniform(first + 10 + building) ** 1.5
            top = scene.horizon - (0.12 + 0.14 * (1 - row)) - (0.34 - 0.12 * (1 - row)) * tall
            mask = _cover(_box(left, right, top, scene.horizon + 0.02))
            tone = scene.uniform(first + 20 + building, 0.38, 0.72)[..., None]
            colour = tone * _f32([0.92, 0.95, 1.05])
            scene.paint(mask, scene.lit(colour, distance))
            if row:
                _windows(scene, left + 0.02, right - 0.02, top + 0.03, building)
    quay = _cover(_box(_f32(-1), _f32(2), scene.horizon - 0.015, scene.horizon + 1))
    white = scene.weather["snow"][..., None]
    scene.paint(quay, scene.lit(_f32([0.34, 0.34, 0.36]) * (1 - white) + 0.95 * white))


def _windows(scene: _Scene, left: Array, right: Array, top: Array, building: int) -> None:
    """Lights a grid of windows, two pixels wide and four apart, so that they stay legible."""
    columns, rows = np.arange(SIZE)[None, None, :] % 4 < 2, np.arange(SIZE)[None, :, None] % 4 < 2
    inside = _box(left, right, top, scene.horizon - 0.04) < 0
    floor = np.arange(SIZE)[None, :, None] // 4 % 16
    lit = np.take_along_axis(
        scene.noise[:, None, 160:176],
        floor.transpose(0, 2, 1) * np.ones((len(scene.noise), 1, 1), int),
        axis=2,
    ).transpose(0, 2, 1)
    on = (lit + scene.uniform(180 + building)) % 1 < 0.72
    mask = (inside & columns & rows & on).astype(np.float32)
    dark = scene.lit(_f32([0.20, 0.25, 0.32]))
    lamp = _f32([1.0, 0.84, 0.46])
    scene.paint(mask * 0.85, dark + scene.time["lamps"][..., None] * (lamp - dark))


_PAINT_LAND = {
    "sea": _sea,
    "lake": _lake,
    "mountains": _mountains,
    "hills": _hills,
    "desert": _desert,
    "city": _city,
}


# ---------------------------------------------------------------- water


def _water(scene: _Scene) -> None:
    """Mirrors what is above the horizon, stretched by ripples that grow towards the viewer."""
    depth = np.maximum(_Y - scene.horizon, 0)
    waves = scene.uniform(60, 0.4, 1.0)
    phase = scene.uniform(61, 0, 6.28) + 9 * depth**0.5 * scene.uniform(62, 10, 14)
    ripple = np.sin(phase + 3 * np.sin(_X * 9 + 20 * depth + scene.uniform(63, 0, 6.28)))
    source = scene.horizon - depth * 0.9 + 0.018 * waves * ripple * np.minimum(depth * 8, 1)
    row = np.clip(source * SIZE - 0.5, 0, SIZE - 1.001)
    above = row.astype(np.int32)
    blend = (row - above)[..., None]
    batch, column = np.arange(len(row))[:, None, None], np.arange(SIZE)[None, None, :]
    mirror = scene.pixels[batch, above, column] * (1 - blend)
    mirror += scene.pixels[batch, above + 1, column] * blend
    deep = scene.lit(_f32([0.10, 0.34, 0.48]))
    facing = (0.28 + 0.42 * np.clip(depth * 2.4, 0, 1))[..., None]  # more of the deep when near
    mirror += facing * (deep - mirror)
    mirror *= (1 + 0.05 * waves * ripple * np.minimum(depth * 10, 1))[..., None]
    path = np.exp(-(((_X - scene.light_x) / (0.05 + 0.22 * depth)) ** 2)) * scene.shines
    sparkle = path * _smooth(0.55 + 0.6 * ripple) * scene.weather["disc"] ** 2
    mirror += 0.55 * sparkle[..., None] * (scene.time["light"] - mirror)
    scene.paint(_cover(scene.horizon - _Y), np.clip(mirror, 0, 1))


# ---------------------------------------------------------------- objects


def _island(scene: _Scene) -> None:
    x, y, size = _place(scene)
    soil = _f32([0.34, 0.42, 0.22])
    soil = soil + scene.weather["snow"][..., None] * (0.95 - soil)
    wide = np.sqrt(((_X - x) / (size * 1.25)) ** 2 + ((_Y - y - 0.01) / (size * 0.32)) ** 2) - 1
    scene.paint(_cover(wide * size * 0.32), scene.lit(soil))


def _place(scene: _Scene) -> tuple[Array, Array, Array]:
    """Returns where an object stands: the middle of its foot, and its size."""
    size = scene.uniform(64, 0.24, 0.32)
    return scene.uniform(65, 0.22, 0.78), scene.uniform(66, 0.84, 0.90), size


def _pick(scene: _Scene, index: int, colours: Sequence[Sequence[float]]) -> Array:
    chosen = (scene.noise[:, index] * len(colours)).astype(int)
    return np.array(colours, np.float32)[chosen][:, None, None, :]


def _boat(scene: _Scene) -> None:
    size, x = scene.uniform(64, 0.26, 0.34), scene.uniform(65, 0.2, 0.8)
    y = np.maximum(scene.uniform(66, 0.74, 0.84), scene.horizon + 0.06)
    hull = _pick(scene, 67, [(0.55, 0.24, 0.16), (0.20, 0.28, 0.46), (0.85, 0.85, 0.84)])
    sail = _pick(scene, 68, [(0.98, 0.97, 0.93), (0.88, 0.26, 0.20), (0.98, 0.72, 0.25)])
    flip = np.where(scene.uniform(69) < 0.5, -1.0, 1.0).astype(np.float32)

    def shapes(mirror: float) -> tuple[Array, Array, Array]:
        def corner(right: float, up: float) -> tuple[Array, Array]:
            return x + right * size, y - mirror * up * size

        turn = (lambda *c: c) if mirror > 0 else (lambda *c: c[::-1])
        body = _polygon(
            *turn(
                corner(-0.42, 0.13), corner(0.42, 0.13), corner(0.28, -0.08), corner(-0.30, -0.08)
            )
        )
        main, fore = corner(0.0, 0.95), corner(-0.03, 0.80)
        side, back = x + flip * 0.36 * size, x - flip * 0.28 * size
        foot_y = y - mirror * 0.2 * size
        right = np.maximum(x, side), np.minimum(x, side)
        large = _polygon(*turn(main, (right[0], foot_y), (right[1], foot_y)))
        far = np.maximum(x - 0.03 * size, back), np.minimum(x - 0.03 * size, back)
        small = _polygon(*turn(fore, (far[0], foot_y), (far[1], foot_y)))
        return body, large, small

    body, large, small = shapes(-0.7)
    fade = np.exp(-np.maximum(_Y - y, 0) / 0.09) * (y < _Y)
    scene.paint(0.4 * fade * _cover(np.minimum(large, small), 1.5), scene.lit(sail))
    scene.paint(0.55 * fade * _cover(body, 1.5), scene.lit(hull * 0.6))
    body, large, small = shapes(1.0)
    bright = 0.25 * scene.time["lamps"][..., None]
    scene.paint(_cover(np.minimum(large, small)), scene.lit(sail) * (1 - bright) + bright * sail)
    scene.paint(_cover(body), scene.lit(hull))


def _house(scene: _Scene) -> None:
    x, y, size = _place(scene)
    wall = _pick(scene, 67, [(0.96, 0.93, 0.86), (0.80, 0.42, 0.30), (0.95, 0.80, 0.50)])
    roof = _pick(scene, 68, [(0.62, 0.22, 0.16), (0.30, 0.32, 0.40), (0.45, 0.30, 0.20)])
    roof = roof + 0.9 * scene.weather["snow"][..., None] * (0.97 - roof)
    eaves, ridge = y - 0.50 * size, y - 0.92 * size
    chimney = _box(x + 0.20 * size, x + 0.32 * size, y - 0.92 * size, eaves)
    scene.paint(_cover(chimney), scene.lit(wall * 0.7))
    scene.paint(_cover(_box(x - 0.44 * size, x + 0.44 * size, eaves, y)), scene.lit(wall))
    slope = _polygon((x, ridge), (x + 0.58 * size, eaves + 0.02), (x - 0.58 * size, eaves + 0.02))
    scene.paint(_cover(slope), scene.lit(roof))
    door = _box(x - 0.07 * size, x + 0.11 * size, y - 0.32 * size, y)
    scene.paint(_cover(door), scene.lit(_f32([0.35, 0.22, 0.14])))
    lamp, glass = _f32([1.0, 0.85, 0.45]), scene.lit(_f32([0.35, 0.48, 0.60]))
    shine = glass + scene.time["lamps"][..., None] * (lamp - glass)
    for left in (-0.34, 0.19):
        pane = _box(x + left * size, x + (left + 0.17) * size, y - 0.39 * size, y - 0.18 * size)
        scene.glow(0.5 * scene.time["lamps"] * np.exp(-np.maximum(pane, 0) / 0.035), lamp)
        scene.paint(_cover(pane), shine)


def _tree(scene: _Scene) -> None:
    x, y, size = _place(scene)
    size = size * 1.25
    trunk = _box(x - 0.05 * size, x + 0.05 * size, y - 0.45 * size, y)
    scene.paint(_cover(trunk), scene.lit(_f32([0.36, 0.24, 0.16])))
    leaf = _pick(scene, 67, [(0.20, 0.46, 0.20), (0.30, 0.52, 0.18), (0.16, 0.40, 0.26)])
    pine = scene.uniform(68) < 0.4
    side = np.sign(scene.light_x - x + 1e-3)
    crown = np.minimum.reduce(
        [
            _circle(x - 0.17 * size, y - 0.50 * size, 0.20 * size),
            _circle(x + 0.17 * size, y - 0.50 * size, 0.20 * size),
            _circle(x, y - 0.72 * size, 0.24 * size),
        ]
    )
    cone = np.minimum.reduce(
        [
            _polygon(
                (x, y - top * size),
                (x + half * size, y - foot * size),
                (x - half * size, y - foot * size),
            )
            for top, foot, half in ((1.05, 0.68, 0.20), (0.85, 0.42, 0.28), (0.62, 0.16, 0.34))
        ]
    )
    shape = _cover(crown + pine * (cone - crown))
    shade = 1 + 0.28 * np.clip(side * (_X - x) / (0.3 * size) - (_Y - y + 0.6 * size) * 2, -1, 1)
    scene.paint(shape, np.clip(scene.lit(leaf) * shade[..., None], 0, 1))
    cap = shape * _smooth(0.75 + (y - 0.62 * size - _Y) * 6 / size * 0.3)
    scene.paint(0.75 * cap * scene.weather["snow"], scene.lit(_f32([0.97, 0.98, 1.0])))


def _balloon(scene: _Scene) -> None:
    size = scene.uniform(64, 0.115, 0.145)  # the envelope's radius
    x, y = scene.uniform(65, 0.18, 0.82), scene.uniform(66, 0.24, 0.40)
    first = _pick(scene, 67, [(0.90, 0.22, 0.20), (0.20, 0.46, 0.80), (0.60, 0.25, 0.62)])
    second = _pick(scene, 68, [(1.00, 0.85, 0.35), (0.97, 0.96, 0.92), (0.35, 0.75, 0.60)])
    bottom = y + 1.32 * size
    neck = _polygon(
        (x - 0.80 * size, y + 0.55 * size),
        (x + 0.80 * size, y + 0.55 * size),
        (x + 0.16 * size, bottom),
        (x - 0.16 * size, bottom),
    )
    shape = _cover(np.minimum(_circle(x, y, size), neck))
    across = (_X - x) / (size * np.sqrt(np.clip(1.05 - ((_Y - y) / (1.5 * size)) ** 2, 0.2, 1)))
    stripe = _smooth(np.cos(across * 7.5) * 1.6 + 0.5)[..., None]
    glow = 0.35 * scene.time["lamps"][..., None]
    cloth = second + stripe * (first - second)
    cloth = scene.lit(cloth) * (1 - glow) + cloth * glow
    round_ = (1.05 - 0.30 * np.clip(across * -np.sign(scene.light_x - x + 1e-3), 0, 1))[..., None]
    scene.paint(shape, np.clip(cloth * round_, 0, 1))
    for side in (-0.13, 0.13):
        rope = _box(x + side * size - 0.004, x + side * size + 0.004, bottom, bottom + 0.34 * size)
        scene.paint(0.7 * _cover(rope), scene.lit(_f32([0.30, 0.22, 0.16])))
    basket = _box(x - 0.20 * size, x + 0.20 * size, bottom + 0.26 * size, bottom + 0.55 * size)
    scene.paint(_cover(basket), scene.lit(_f32([0.50, 0.32, 0.18])))


# ---------------------------------------------------------------- weather


def _fog(scene: _Scene) -> None:
    bands = 0.80 + 0.35 * _field(scene, 16, 6, 4)
    profile = 0.45 + 0.55 * np.exp(-(((_Y - scene.horizon) / 0.30) ** 2))
    colour = scene.haze * 0.92 + 0.05
    scene.paint(np.clip(scene.weather["fog"] * profile * bands, 0, 0.9), np.clip(colour, 0, 1))


def _rain(scene: _Scene) -> None:
    """Slanted streaks on a lattice of 4 by 16 pixels, which starts at one of eight places.

    A texture that repeats with the pixels tells a tokenizer little that is new in each patch.
    """
    column, row = np.arange(SIZE)[None, None, :], np.arange(SIZE)[None, :, None]
    across = (column + row / 4 + np.floor(4 * scene.uniform(234))) / 4
    lane = np.floor(across)
    streak = np.clip(1.35 - 4 * np.abs(across - lane - 0.5), 0, 1)
    along = (row / 16 + lane % 2 / 2 + np.floor(2 * scene.uniform(235)) / 4) % 1
    mask = streak * np.sin(np.pi * np.clip(along / 0.55, 0, 1))
    light = 0.30 + 0.55 * scene.haze.mean(-1, keepdims=True) + 0.15
    scene.paint(0.45 * mask.astype(np.float32), np.clip(light * _f32([0.9, 0.96, 1.05]), 0, 1))


def _snow(scene: _Scene) -> None:
    """Round flakes of two sizes, one in each cell of 8 by 8 pixels, at one of eight places."""
    cells = SIZE // 8
    cell = np.arange(cells)[None, :, None] * 12.9898 + np.arange(cells)[None, None, :] * 78.233
    chance = np.abs(np.sin(cell + np.floor(16 * scene.uniform(234))) * 437.58)
    choice = np.floor(chance % 1 * 8).repeat(8, axis=1).repeat(8, axis=2)
    turn = np.pi / 4 * choice
    within_x, within_y = _X * cells % 1 * 8 - 4, _Y * cells % 1 * 8 - 4
    distance = np.hypot(within_x - 2.3 * np.cos(turn), within_y - 2.3 * np.sin(turn))
    radius = np.where(choice % 3 == 0, 1.25, 0.85)
    flake = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
    scene.paint(0.9 * flake, _f32([0.97, 0.98, 1.0]))
