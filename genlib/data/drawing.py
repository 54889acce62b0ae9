"""Draws the Scenes: 64×64 landscapes, a whole batch at a time, from named attributes.

Everything is painted back to front with soft masks: sky, sun or moon, clouds, land, water that
mirrors what stands above it, an object, weather. A mask is the signed distance to a shape's edge,
cut off within one pixel, so edges are anti-aliased without supersampling.

Coordinates run from 0 to 1, x to the right and y downwards. Colours are RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    top=[(0.40, 0.50, 0.80), (0.16, 0.45, 0.87), (0.22, 0.16, 0.42), (0.02, 0.04, 0.14)],
    middle=[(0.84, 0.70, 0.84), (0.42, 0.69, 0.96), (0.84, 0.32, 0.30), (0.05, 0.09, 0.26)],
    horizon=[(1.00, 0.84, 0.76), (0.80, 0.92, 0.99), (1.00, 0.67, 0.26), (0.16, 0.23, 0.43)],
    light=[(1.00, 0.90, 0.80), (1.00, 0.98, 0.86), (1.00, 0.80, 0.45), (0.86, 0.90, 1.00)],
    disc=[(1.00, 0.93, 0.66), (1.00, 0.96, 0.62), (1.00, 0.84, 0.42), (0.95, 0.96, 1.00)],
    tint=[(0.80, 0.72, 0.80), (1.00, 1.00, 1.00), (0.74, 0.48, 0.42), (0.50, 0.56, 0.73)],
    snow=[(0.93, 0.89, 0.97), (0.96, 0.98, 1.00), (0.93, 0.84, 0.87), (0.54, 0.61, 0.79)],
    cloud=[(1.00, 0.86, 0.86), (1.00, 1.00, 1.00), (0.98, 0.56, 0.40), (0.24, 0.28, 0.42)],
    own=[0.15, 0.0, 0.35, 0.28],  # how much of the shadow an object is spared
    lamps=[0.25, 0.0, 0.75, 1.0],  # how bright windows are
    height_low=[0.34, 0.12, 0.36, 0.13],  # of sun or moon
    height_high=[0.44, 0.20, 0.47, 0.24],
    radius=[0.060, 0.060, 0.075, 0.076],
)
# One row per weather: clear, cloudy, foggy, rainy, snowy.
_WEATHER = _table(
    grey=[0.0, 0.15, 0.38, 0.50, 0.38],  # how far colours go to grey
    dim=[1.0, 0.97, 0.97, 0.76, 0.86],
    disc=[1.0, 1.0, 0.70, 0.65, 0.80],  # how clearly sun or moon shows
    clouds=[0.0, 1.0, 0.25, 1.1, 0.45],
    fog=[0.0, 0.0, 0.64, 0.14, 0.10],
    snow=[0.0, 0.0, 0.0, 0.0, 0.90],  # on the ground
    rain=[0.0, 0.0, 0.0, 1.0, 0.0],
)
_LANDS = ("sea", "lake", "mountains", "hills", "desert", "city")
_HORIZON_LOW = np.array([0.54, 0.58, 0.74, 0.66, 0.66, 0.76], np.float32)
_HORIZON_HIGH = np.array([0.62, 0.64, 0.80, 0.74, 0.72, 0.82], np.float32)
_LIFT = np.array([0.0, 0.17, 0.08, 0.0, 0.0, 0.20], np.float32)
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

    def own(self, colour: Array) -> Array:
        """Returns an object's colour: a little out of shadow and fog, so that it can be named."""
        shadow = self.shadow + self.time["own"][..., None] * (1 - self.shadow)
        seen = colour * shadow
        return seen + 0.45 * self.weather["fog"][..., None] * (self.haze - seen)

    def snowed(self, seen: Array, share: Array | float = 1.0, distance: float = 0.0) -> Array:
        """Covers a seen colour with snow, which is bright at any time, as far as it has fallen."""
        snow = self.time["snow"] + distance * (self.haze - self.time["snow"])
        return seen + (self.weather["snow"] * share)[..., None] * (snow - seen)


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


def places(attributes: Array, noise: Array) -> Array:
    """Returns where things are, from the expressions that paint them.

    Args:
        attributes: as for `draw`.
        noise: as for `draw`.

    Returns:
        float32 `(n, 4)`: x and y of the middle of the object, its height as a share of the
        image, and x of sun or moon; NaN for an object or a light that is not there.
    """
    time, land, light, weather, thing = attributes.T
    scene = _begin(time, land, light, weather, noise)
    found = np.full((len(noise), 4), np.nan, np.float32)
    for index, where in enumerate(_WHERE, start=1):
        there = thing == index
        for column, values in enumerate(where(scene).bounds()):
            found[there, column] = values[there, 0, 0]
    shines = light < 3
    found[shines, 3] = scene.light_x[shines, 0, 0]
    return found


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
    # Fog, rain and snow fall behind the object: a thing to be named is not to be hidden.
    _each(scene, weather >= 2, _fog)
    _each(scene, weather == 3, _rain)
    _each(scene, weather == 4, _snow)
    _each(scene, thing == 1, _boat)
    for index, paint in ((2, _house), (3, _tree)):
        _each(scene, (thing == index) & _HAS_WATER[land], _island)
        _each(scene, thing == index, paint)
    _each(scene, thing == 4, _balloon)
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
    clear = scene.night * (1 - np.clip(scene.weather["grey"] * 2.7, 0, 1))
    chosen = clear[:, 0, 0] > 0
    if not chosen.any():
        return
    part = scene.part(chosen)
    moon_y, _ = _light(part)
    for star in range(9):
        # One place in each 4 by 4 pixels, so that a code can name it.
        x = (np.floor(16 * part.uniform(200 + star)) + 0.375) / 16
        y = (np.floor(7 * part.uniform(212 + star)) + 0.375) / 16
        size = 0.015 + 0.004 * part.uniform(224 + star)
        near = np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / size**2)
        # None so near the moon that the two would melt into one.
        free = ((x - part.light_x) ** 2 + (y - moon_y) ** 2 > 0.15**2) | (part.shines == 0)
        part.glow(near * clear[chosen] * free * 1.1, np.ones(3, np.float32))
    np.clip(part.pixels, 0, 1, out=part.pixels)
    scene.pixels[chosen] = part.pixels


def _light(scene: _Scene) -> tuple[Array, Array]:
    """Returns the height and the radius of sun or moon."""
    y = scene.uniform(12, scene.time["height_low"], scene.time["height_high"]) - scene.lift
    return y, scene.time["radius"] * scene.uniform(13, 0.92, 1.12)


def _disc(scene: _Scene) -> None:
    y, radius = _light(scene)
    distance = _circle(scene.light_x, y, 0.0)
    strength = scene.shines * scene.weather["disc"]
    wide = np.where(scene.night, 0.13, 0.30) * scene.uniform(14, 0.85, 1.15)
    glow = np.exp(-((distance / wide) ** 2)) * np.where(scene.night, 0.34, 0.62)
    scene.glow(glow * strength, scene.time["light"])
    soft = 1 + 2.5 * (1 - scene.weather["disc"])
    core = np.clip(0.5 - (distance - radius) * SIZE / soft, 0, 1) * strength
    # The moon wears a bite of shadow on one side.
    bite = _circle(scene.light_x + radius * 0.60, y - radius * 0.30, radius * 0.80)
    core = core * (1 - scene.night * 0.9 * _cover(bite, 1.5))
    scene.paint(core, scene.time["disc"])


def _clouds(scene: _Scene) -> None:
    amount = scene.weather["clouds"]
    chosen = amount[:, 0, 0] > 0
    if not chosen.any():
        return
    part, amount = scene.part(chosen), amount[chosen]
    field = 0.65 * _field(part, 16, 6, 4) + 0.35 * _field(part, 40, 12, 6)
    height = _smooth(1.25 - _Y / part.horizon * 1.3)
    # Clouds leave the light free, or left and right could not be told apart.
    light_y, _ = _light(part)
    gap = np.exp(-((_X - part.light_x) ** 2 + (_Y - light_y) ** 2) / 0.014) * part.shines
    thick = _smooth((field - 0.42 + 0.16 * (amount - 0.5)) * 4.5) * height * (1 - 0.85 * gap)
    colour = part.time["cloud"] * part.weather["dim"][..., None] ** 1.5
    grey = colour.mean(-1, keepdims=True)
    colour = colour + part.weather["grey"][..., None] * (grey * 0.9 - colour)
    colour = colour * (1 - 0.25 * part.weather["rain"])[..., None]
    shade = np.clip((np.roll(field, 3, axis=1) - field) * 2.2, -0.25, 0.2)[..., None]
    part.paint(thick * 0.9 * np.minimum(amount * 1.2, 1), np.clip(colour * (0.95 + shade), 0, 1))
    scene.pixels[chosen] = part.pixels


# ---------------------------------------------------------------- land


def _ridge(
    scene: _Scene,
    top: Array,
    colour: Array,
    distance: float,
    relief: float,
    snow: Array | float = 1.0,
) -> None:
    """Paints everything below a height line, lit on the slopes that face the light.

    A share of the snow that fell lies on it.
    """
    slope = np.gradient(top, 1 / SIZE, axis=2)
    facing = np.clip(slope * np.tanh((scene.light_x - _X) * 5), -1, 1)
    shade = (1 + relief * facing * np.exp(-np.maximum(_Y - top, 0) / 0.16))[..., None]
    shade = shade * (1 - 0.18 * np.clip((_Y - top) / 0.5, 0, 1))[..., None]
    seen = scene.snowed(scene.lit(colour, distance), snow, distance)
    scene.paint(_cover(top - _Y), np.clip(seen * shade, 0, 1))


def _peaks(scene: _Scene, first: int, count: int, low: float, high: float, steep: float) -> Array:
    """Returns the height line of a range of mountains, `(batch, 1, 64)`."""
    top = np.full((len(scene.noise), 1, SIZE), 2.0, np.float32)
    for peak in range(count):
        x = (peak + scene.uniform(first + 3 * peak, 0.1, 0.9)) / count
        # A peak before the light is low, or the light would hide behind it.
        low_here = np.exp(-(((x - scene.light_x) / 0.17) ** 2)) * scene.shines
        y = scene.horizon - scene.uniform(first + 3 * peak + 1, low, high) * (1 - 0.4 * low_here)
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
    bright = 0.5 * (scene.lit(_f32([0.98, 0.98, 1.0])) + scene.time["snow"])
    scene.paint(0.9 * cap * (top < scene.horizon - 0.16), bright)


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
        # Sand looks out where the wind has blown the snow away, or who would say desert?
        slope = np.abs(np.gradient(top, 1 / SIZE, axis=2))
        snow = (1 - 0.75 * _smooth((_Y - top) / 0.14)) * (1 - 0.5 * _smooth(slope - 0.3))
        _ridge(scene, top, colour, distance, 0.75, snow)


def _city(scene: _Scene) -> None:
    count, snowy = 9, scene.weather["snow"].any()
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
            if snowy:
                roof = mask * scene.weather["snow"] * (top + 0.03 > _Y)
                scene.paint(roof, scene.time["snow"])
            if row:
                _windows(scene, left + 0.02, right - 0.02, top + 0.03, building)
    quay = _cover(_box(_f32(-1), _f32(2), scene.horizon - 0.015, scene.horizon + 1))
    scene.paint(quay, scene.snowed(scene.lit(_f32([0.34, 0.34, 0.36]))))


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


@dataclass
class _Spot:
    """Where an object is: all its parts are told from here, in shares of its size."""

    x: Array  # of its middle; every object is as wide to the left as to the right
    y: Array  # of its foot, or what else its parts are measured from
    size: Array
    high: Array | float  # how far it reaches above y, in sizes
    low: float  # how far below

    def bounds(self) -> tuple[Array, Array, Array]:
        """Returns x and y of the middle of the whole object, and its height."""
        middle = self.y + self.size * (self.low - self.high) / 2
        return self.x, middle, self.size * (self.high + self.low)

    def box(self, left: float, right: float, high: float | Array, low: float) -> Array:
        """Returns the signed distance to a rectangle, given in sizes from the middle, upwards."""
        x, y, size = self.x, self.y, self.size
        return _box(x + left * size, x + right * size, y - high * size, y - low * size)

    def corner(self, right: float | Array, up: float | Array) -> tuple[Array, Array]:
        """Returns a point, given in sizes to the right and upwards."""
        return self.x + right * self.size, self.y - up * self.size


def _where_ground(scene: _Scene, size: Array, high: Array | float) -> _Spot:
    """Returns the foot of what stands on land."""
    return _Spot(scene.uniform(65, 0.22, 0.78), scene.uniform(66, 0.85, 0.91), size, high, 0.0)


def _where_house(scene: _Scene) -> _Spot:
    return _where_ground(scene, scene.uniform(64, 0.28, 0.36), 0.92)


def _is_pine(scene: _Scene) -> Array:
    return scene.uniform(68) < 0.4


def _where_tree(scene: _Scene) -> _Spot:
    high = np.where(_is_pine(scene), 1.05, 0.96).astype(np.float32)  # tips of the crowns
    return _where_ground(scene, scene.uniform(64, 0.33, 0.42), high)


def _where_boat(scene: _Scene) -> _Spot:
    y = np.maximum(scene.uniform(66, 0.76, 0.86), scene.horizon + 0.07)
    return _Spot(scene.uniform(65, 0.2, 0.8), y, scene.uniform(64, 0.30, 0.38), 1.0, 0.10)


def _where_balloon(scene: _Scene) -> _Spot:
    """Returns the middle and the radius of the envelope, which never hides sun or moon."""
    x = scene.uniform(65, 0.18, 0.82)
    side = np.where(x < scene.light_x, -1, 1)
    aside = scene.light_x + 0.29 * side
    aside = np.where(np.abs(aside - 0.5) > 0.32, scene.light_x - 0.29 * side, aside)
    free = np.where(np.abs(x - scene.light_x) > 0.29, x, aside)
    x = np.where(scene.shines > 0, free, x).astype(np.float32)
    return _Spot(x, scene.uniform(66, 0.24, 0.38), scene.uniform(64, 0.130, 0.160), 1.0, 2.20)


_WHERE = (_where_boat, _where_house, _where_tree, _where_balloon)  # in the order of the attribute


def _rim(scene: _Scene, spot: _Spot, distance: Array) -> None:
    """Parts an object from what is behind it: one pixel, dark before bright, bright before dark."""
    bright = _smooth((scene.pixels.mean(-1, keepdims=True) - 0.28) * 5)
    dark = scene.pixels * 0.55
    light = scene.pixels + 0.34 * (scene.time["light"] - scene.pixels)
    above = spot.y - spot.high * spot.size - _Y  # the rim of a sharp tip would be a long spike
    scene.paint(_cover(np.maximum(distance, above) - 1 / SIZE), light + bright * (dark - light))


def _island(scene: _Scene) -> None:
    # House and tree share noise, so either gives the place.
    spot = _where_house(scene)
    right, down = (_X - spot.x) / (spot.size * 1.15), (_Y - spot.y - 0.01) / (spot.size * 0.28)
    edge = (np.sqrt(right**2 + down**2) - 1) * spot.size * 0.28
    for inward, soil in ((0.0, (0.78, 0.68, 0.46)), (0.017, (0.36, 0.50, 0.22))):
        scene.paint(_cover(edge + inward), scene.snowed(scene.own(_f32(soil))))


def _pick(scene: _Scene, index: int, colours: Sequence[Sequence[float]]) -> Array:
    chosen = (scene.noise[:, index] * len(colours)).astype(int)
    return np.array(colours, np.float32)[chosen][:, None, None, :]


def _boat_parts(spot: _Spot, flip: Array, mirror: float) -> tuple[Array, Array, Array]:
    """Returns hull, main sail and fore sail; mirrored in the water where `mirror` is negative."""

    def corner(right: float | Array, up: float) -> tuple[Array, Array]:
        return spot.corner(right, mirror * up)

    turn = (lambda *c: c) if mirror > 0 else (lambda *c: c[::-1])
    hull = _polygon(
        *turn(
            corner(-0.46, 0.15),
            corner(0.46, 0.15),
            corner(0.30, -spot.low),
            corner(-0.30, -spot.low),
        )
    )
    sails = []
    for near, far, high in ((0.03, 0.40, 0.94), (-0.05, -0.32, 0.80)):
        ends = near * flip, far * flip
        right, left = np.maximum(*ends), np.minimum(*ends)
        sails.append(
            _polygon(*turn(corner(near * flip, high), corner(right, 0.24), corner(left, 0.24)))
        )
    return hull, sails[0], sails[1]


def _boat(scene: _Scene) -> None:
    spot = _where_boat(scene)
    hull = _pick(scene, 67, [(0.58, 0.22, 0.14), (0.16, 0.24, 0.46), (0.88, 0.88, 0.86)])
    sail = _pick(scene, 68, [(0.98, 0.97, 0.93), (0.92, 0.26, 0.20), (0.98, 0.72, 0.25)])
    flip = np.where(scene.uniform(69) < 0.5, -1.0, 1.0).astype(np.float32)
    body, main, fore = _boat_parts(spot, flip, -0.7)
    fade = np.exp(-np.maximum(_Y - spot.y, 0) / 0.09) * (spot.y < _Y)
    scene.paint(0.35 * fade * _cover(np.minimum(main, fore), 1.5), scene.own(sail))
    scene.paint(0.5 * fade * _cover(body, 1.5), scene.own(hull * 0.6))
    body, main, fore = _boat_parts(spot, flip, 1.0)
    mast = spot.box(-0.035, 0.035, spot.high, 0.1)
    _rim(scene, spot, np.minimum.reduce([body, main, fore, mast]))
    scene.paint(_cover(mast), scene.own(_f32([0.30, 0.20, 0.14])))
    bright = 0.25 * scene.time["lamps"][..., None]
    cloth = scene.own(sail) * (1 - bright) + bright * sail
    scene.paint(_cover(main), cloth)
    scene.paint(_cover(fore), 0.82 * cloth)
    scene.paint(_cover(body), scene.own(hull))


def _house(scene: _Scene) -> None:
    spot = _where_house(scene)
    wall = _pick(scene, 67, [(0.97, 0.94, 0.87), (0.93, 0.66, 0.52), (0.97, 0.84, 0.52)])
    roof = _pick(scene, 68, [(0.66, 0.18, 0.13), (0.26, 0.29, 0.40), (0.42, 0.25, 0.16)])
    roof = scene.snowed(scene.own(roof), 0.9)
    chimney, walls = spot.box(0.20, 0.34, spot.high, 0.5), spot.box(-0.44, 0.44, 0.50, 0)
    slope = _polygon(spot.corner(0, spot.high), spot.corner(0.58, 0.45), spot.corner(-0.58, 0.45))
    _rim(scene, spot, np.minimum.reduce([chimney, walls, slope]))
    scene.paint(_cover(chimney), scene.own(wall * 0.65))
    scene.paint(_cover(walls), scene.own(wall))
    scene.paint(_cover(slope), roof)
    scene.paint(_cover(spot.box(-0.09, 0.09, 0.32, 0)), scene.own(_f32([0.36, 0.20, 0.12])))
    lamp, glass = _f32([1.0, 0.85, 0.45]), scene.own(_f32([0.28, 0.42, 0.58]))
    shine = glass + scene.time["lamps"][..., None] * (lamp - glass)
    for left in (-0.36, 0.18):
        pane = spot.box(left, left + 0.18, 0.38, 0.17)
        scene.glow(0.35 * scene.time["lamps"] * np.exp(-np.maximum(pane, 0) / 0.03), lamp)
        scene.paint(_cover(pane), shine)


def _round_crown(spot: _Spot) -> Array:
    x, y, size = spot.x, spot.y, spot.size
    return np.minimum.reduce(
        [
            _circle(x - 0.17 * size, y - 0.50 * size, 0.20 * size),
            _circle(x + 0.17 * size, y - 0.50 * size, 0.20 * size),
            _circle(x, y - 0.72 * size, 0.24 * size),
        ]
    )


def _pine_crown(spot: _Spot) -> Array:
    layers = ((spot.high, 0.68, 0.20), (0.85, 0.42, 0.28), (0.62, 0.18, 0.34))
    return np.minimum.reduce(
        [
            _polygon(spot.corner(0, top), spot.corner(half, foot), spot.corner(-half, foot))
            for top, foot, half in layers
        ]
    )


def _crown(scene: _Scene, spot: _Spot) -> Array:
    return np.where(_is_pine(scene), _pine_crown(spot), _round_crown(spot))


def _tree(scene: _Scene) -> None:
    spot = _where_tree(scene)
    leaf = _pick(scene, 67, [(0.20, 0.50, 0.20), (0.32, 0.56, 0.18), (0.14, 0.42, 0.26)])
    trunk = spot.box(-0.06, 0.06, 0.45, 0)
    crown = _crown(scene, spot)
    _rim(scene, spot, np.minimum(trunk, crown))
    scene.paint(_cover(trunk), scene.own(_f32([0.40, 0.25, 0.15])))
    side = np.sign(scene.light_x - spot.x + 1e-3)
    across, up = (_X - spot.x) / spot.size, (spot.y - _Y) / spot.size
    shade = 1 + 0.28 * np.clip(side * across / 0.3 + (up - 0.6) * 2 * spot.size, -1, 1)
    shape = _cover(crown)
    scene.paint(shape, np.clip(scene.own(leaf) * shade[..., None], 0, 1))
    _each(scene, scene.weather["snow"][:, 0, 0] > 0, _snow_on_tree)


def _snow_on_tree(scene: _Scene) -> None:
    """Covers what of the crown looks out above a lower copy of it: a tree remains green."""
    spot = _where_tree(scene)
    crown, lower = _crown(scene, spot), _crown(scene, replace(spot, y=spot.y + 0.14 * spot.size))
    cap = _cover(crown) * (1 - _cover(lower, 2.0))
    scene.paint(0.95 * cap, np.minimum(scene.time["snow"] * 1.1, 1))


def _balloon(scene: _Scene) -> None:
    spot = _where_balloon(scene)
    x, y, size = spot.x, spot.y, spot.size
    first = _pick(scene, 67, [(0.90, 0.20, 0.18), (0.16, 0.40, 0.82), (0.60, 0.22, 0.62)])
    second = _pick(scene, 68, [(1.00, 0.85, 0.35), (0.97, 0.96, 0.92), (0.40, 0.80, 0.62)])
    neck = _polygon(
        spot.corner(-0.80, -0.55),
        spot.corner(0.80, -0.55),
        spot.corner(0.24, -1.22),
        spot.corner(-0.24, -1.22),
    )
    envelope = np.minimum(_circle(x, y, size), neck)
    basket = spot.box(-0.28, 0.28, -1.76, -spot.low)
    _rim(scene, spot, np.minimum(envelope, basket))
    across = (_X - x) / (size * np.sqrt(np.clip(1.05 - ((_Y - y) / (1.5 * size)) ** 2, 0.2, 1)))
    stripe = _smooth(np.cos(across * 7.5) * 1.6 + 0.5)[..., None]
    glow = 0.35 * scene.time["lamps"][..., None]
    cloth = second + stripe * (first - second)
    cloth = scene.own(cloth) * (1 - glow) + cloth * glow
    round_ = (1.05 - 0.30 * np.clip(across * -np.sign(scene.light_x - x + 1e-3), 0, 1))[..., None]
    scene.paint(_cover(envelope), np.clip(cloth * round_, 0, 1))
    # Ropes and basket are pale before a dark sky.
    wood = np.where(scene.night[..., None], _f32([0.86, 0.62, 0.38]), _f32([0.46, 0.27, 0.14]))
    for middle in (-0.19, 0.19):
        rope = spot.box(middle - 0.085, middle + 0.085, -1.15, -1.8)
        scene.paint(0.9 * _cover(rope), scene.own(0.8 * wood))
    scene.paint(_cover(basket), scene.own(wood))


# ---------------------------------------------------------------- weather


def _fog(scene: _Scene) -> None:
    bands = 0.80 + 0.35 * _field(scene, 16, 6, 4)
    profile = 0.45 + 0.55 * np.exp(-(((_Y - scene.horizon) / 0.30) ** 2))
    colour = scene.haze * 0.92 + 0.05
    scene.paint(np.clip(scene.weather["fog"] * profile * bands, 0, 0.9), np.clip(colour, 0, 1))


def _scattered(scene: _Scene, first: int) -> tuple[Array, Array]:
    """Returns rows and columns `(batch, 24)` of codes, 16 by 16, strewn evenly but irregularly.

    One number gives both: its leading digits choose the column, the digits after them the row.
    """
    number = scene.noise[:, first : first + 24]
    column, row = np.arange(24) % 6, np.arange(24) // 6
    across, down = (column + number) / 6, (row + number * 61 % 1) / 4
    # Every other row of strata is shifted by half of one, lest columns show.
    across = (across + row % 2 / 12) % 1
    return (down * 16).astype(int), (across * 16).astype(int)


def _stamp(rows: Array, columns: Array, stamps: Array, which: Array) -> Array:
    """Returns the mask `(batch, 64, 64)` with one of the stamps at each code.

    Stamps begin where codes begin: few things can be in a code, and a tokenizer can learn them.
    """
    batch, height = len(rows), stamps.shape[1] // 4
    mask = np.zeros((batch, 16 + height, 16, 4, 4), np.float32)
    for part in range(height):
        piece = stamps[which, 4 * part : 4 * part + 4]
        mask[np.arange(batch)[:, None], rows + part, columns] = piece
    return mask[:, :16].transpose(0, 1, 3, 2, 4).reshape(batch, SIZE, SIZE)


_STREAK = (
    np.clip(1.15 - np.abs(np.arange(4) + 0.5 - (3.2 - 0.3 * np.arange(8)[:, None])), 0, 1)
    * np.sin(np.pi * (np.arange(8)[:, None] + 1) / 9) ** 0.5
)
_FLAKES = np.stack(
    [np.clip(radius + 0.5 - np.hypot(*(np.mgrid[:4, :4] - 1.5)), 0, 1) for radius in (0.85, 1.6)]
)  # a small one and a large one


def _rain(scene: _Scene) -> None:
    """Few thin streaks, slanted, two codes long."""
    light = 0.45 + 0.55 * scene.haze.mean(-1, keepdims=True)
    for first in (200, 232):
        rows, columns = _scattered(scene, first)
        mask = _stamp(rows, columns, _STREAK[None], np.zeros_like(rows))
        scene.paint(0.5 * mask, np.clip(light * _f32([0.92, 0.97, 1.05]), 0, 1))


def _snow(scene: _Scene) -> None:
    """White flakes of two sizes."""
    rows, columns = _scattered(scene, 232)
    large = (np.arange(24) % 5 % 2)[None] * np.ones_like(rows)
    mask = _stamp(rows, columns, _FLAKES, large)
    scene.paint(mask, np.where(scene.night[..., None], _f32([0.90, 0.94, 1.0]), _f32(1.0)))
