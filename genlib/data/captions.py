"""Captions of the Scenes: the same landscape in many wordings, English and Chinese.

A caption is a template with slots, and each slot has several phrases for each attribute value.
From terse ("sunset, sea") to florid, a caption names some of the five attributes and leaves the
others open; which ones is kept beside it. The last phrase of every list, and the last templates,
are set aside: no training caption uses them, so wordings that were never seen can be tested.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Language = Literal["en", "zh"]
Wording = Literal["seen", "unseen"]

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "time": ("dawn", "day", "sunset", "night"),
    "land": ("sea", "lake", "mountains", "hills", "desert", "city"),
    "light": ("left", "middle", "right", "hidden"),  # where the sun stands, at night the moon
    "weather": ("clear", "cloudy", "foggy", "rainy", "snowy"),
    "object": ("nothing", "boat", "house", "tree", "balloon"),
}


@dataclass(frozen=True)
class Caption:
    """What is said about a scene.

    Attributes:
        text: the caption.
        language: `"en"` or `"zh"`.
        named: the attributes that the text tells; the others are left open.
    """

    text: str
    language: Language
    named: frozenset[str]

    def __str__(self) -> str:
        return self.text


# slot -> one row per attribute value -> phrases, the last one set aside.
# `|` parts the phrases. {body} is the sun, at night the moon.
_PHRASES: Mapping[Language, Mapping[str, Sequence[str]]] = {
    "en": {
        "time_noun": (
            "dawn|sunrise|daybreak|first light",
            "day|midday|noon|daytime",
            "sunset|sundown|evening glow|nightfall glow",
            "night|midnight|late night|starlit hour",
        ),
        "time_at": (
            "at dawn|at sunrise|early in the morning|at break of day|when the sun comes up",
            "by day|at noon|at midday|in broad daylight|in the middle of the day",
            "at sunset|at sundown|as the sun goes down|at dusk|in the last light of the evening",
            "at night|after dark|at midnight|by night|when it is dark outside",
        ),
        "land_in": (
            "over the sea|by the sea|on the ocean|over a calm sea|at the seaside|on the open water",
            "by a lake|on a mountain lake|over the lake|at a still lake|at the lakeside",
            "in the mountains|over the mountains|below high peaks|before a mountain range"
            "|in the alps",
            "over the hills|in rolling hills|on green hills|among grassy hills|in hilly country",
            "in the desert|over the desert|over sand dunes|among the dunes|in the sandy wastes",
            "over the city|in the city|before the skyline|above the town|downtown",
        ),
        "land_noun": (
            "the sea|the ocean|a calm sea|the wide sea|the seaside",
            "a lake|a mountain lake|a still lake|the lake|a lakeside",
            "mountains|the mountains|a mountain range|high peaks|the alps",
            "hills|rolling hills|green hills|grassy hills|hilly country",
            "the desert|sand dunes|a sandy desert|dunes|the sandy wastes",
            "the city|a city skyline|a city by the river|tall buildings|downtown",
        ),
        "light": (
            "the {body} on the left|the {body} at the left|the {body} in the left of the sky"
            "|the {body} to the left hand side",
            "the {body} in the middle|the {body} in the centre|the {body} in the middle of the sky"
            "|the {body} halfway across",
            "the {body} on the right|the {body} at the right|the {body} in the right of the sky"
            "|the {body} to the right hand side",
            "no {body} in sight|the {body} hidden|the {body} out of view"
            "|the {body} nowhere to be seen",
        ),
        "weather_adj": (
            "clear|cloudless|bright clear|fair",
            "cloudy|partly cloudy|clouded|overcast",
            "foggy|misty|hazy|murky",
            "rainy|wet|rain-soaked|drizzly",
            "snowy|wintry|snow-covered|icy white",
        ),
        "weather_in": (
            "under a clear sky|in clear weather|under a cloudless sky|in fair weather",
            "under drifting clouds|with clouds in the sky|under a cloudy sky|under an overcast sky",
            "in fog|in the mist|in thick fog|in murky haze",
            "in the rain|as rain falls|in a shower|in a drizzle",
            "in the snow|as snow falls|in falling snow|in a blizzard",
        ),
        "object": (
            "nothing else|nothing else in view|no object|nothing but the land",
            "a sailing boat|a sailboat|a small boat|a boat|a yacht",
            "a house|a cottage|a little house|a small home|a cabin",
            "a tree|a lone tree|a big tree|a single tree|an old oak",
            "a hot-air balloon|a balloon|a balloon in the sky|a striped balloon|an airship balloon",
        ),
    },
    "zh": {
        "time": (
            "黎明|清晨|日出|拂晓|破晓",
            "白天|正午|中午|白昼|大白天",
            "日落|夕阳|黄昏|傍晚|落日",
            "夜晚|深夜|夜里|夜色|午夜",
        ),
        "land": (
            "大海|海面|海上|海边|海洋",
            "湖面|湖边|山间湖泊|湖上|湖畔",
            "群山|山脉|高山|大山|山岭",
            "丘陵|绿色丘陵|青草山丘|山丘|缓坡",
            "沙漠|沙丘|荒漠|大漠|戈壁沙地",
            "城市|都市|城市天际线|高楼|城区",
        ),
        "light": (
            "{body}在左边|{body}在左侧|左边有{body}|{body}偏左",
            "{body}在中间|{body}在中央|{body}在正中|{body}居中",
            "{body}在右边|{body}在右侧|右边有{body}|{body}偏右",
            "看不见{body}|没有{body}|{body}躲了起来|不见{body}",
        ),
        "weather": (
            "晴朗|天空晴朗|晴空|万里无云",
            "多云|有云|云朵飘浮|阴云",
            "有雾|大雾弥漫|薄雾|雾蒙蒙",
            "下雨|雨中|细雨|雨天",
            "下雪|雪花飘落|雪中|大雪纷飞",
        ),
        "object": (
            "没有别的东西|空无一物|什么都没有|别无他物",
            "一艘帆船|一只小船|一艘船|小帆船|一叶扁舟",
            "一座房子|一间小屋|一座小房子|房屋|木屋",
            "一棵树|一棵大树|一棵孤树|树木|老树",
            "一个热气球|热气球|彩色热气球|一只气球|空中的气球",
        ),
    },
}

_BODY: Mapping[Language, tuple[str, str]] = {"en": ("sun", "moon"), "zh": ("太阳", "月亮")}
_MOODS: Mapping[Language, str] = {
    "en": "beautiful|quiet|peaceful|lovely|serene|wonderful|magnificent",
    "zh": "美丽的|宁静的|安静的|迷人的|漂亮的|壮丽的|绝美的",
}

# The last three templates of each language are set aside.
_TEMPLATES: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "{time_noun}",
        "{land_noun}",
        "a {mood} {time_noun}",
        "{weather_adj} {time_noun}",
        "a {time_noun} {land_in}",
        "a {mood} {time_noun} {land_in}",
        "a {weather_adj} {time_noun} {land_in}",
        "{time_noun}, {land_noun}, {weather_adj}",
        "{land_noun} {time_at}",
        "{land_noun} {weather_in}",
        "{land_noun} {time_at} with {light}",
        "an image of a {mood} {time_noun} {land_in}",
        "a painting of {land_noun} {time_at}, {weather_in}",
        "make a picture of {object} {land_in}",
        "{object} {land_in}",
        "{object} {land_in} {time_at}",
        "{object} {land_in} {weather_in}",
        "{time_at}, {object} {land_in}, {light}",
        "a {mood} {time_noun} {land_in}, with {object}",
        "a {weather_adj} {time_noun} {land_in}, {light}, with {object}",
        "{object} {land_in} {time_at}, {weather_in}, {light}",
        "{land_noun} {time_at} {weather_in}, {light}, and {object}",
        "{time_noun}, {land_noun}, {weather_adj}, {light}, {object}",
        "a breathtaking view of {land_noun} {time_at} {weather_in}, with {light} and {object}",
        "the scene shows {object} {land_in}; it is a {weather_adj} {time_noun}, {light}",
        "{weather_in}, {time_at}, we look at {land_noun}, {light}, and {object}",
        # set aside
        "please paint me {object} {land_in} {time_at}",
        "I dream of a {weather_adj} {time_noun} {land_in}, {light}",
        "imagine {land_noun}, {weather_in}, {time_at}, {light}, {object} too",
    ),
    "zh": (
        "{time}",
        "{land}",
        "{mood}{time}",
        "生成一张{mood}{time}图像",
        "{land}的{time}",
        "{mood}{land}{time}",
        "{time}的{land}，{weather}",
        "{weather}的{time}，{land}",
        "{land}，{light}",
        "画{object}，{land}，{time}",
        "{time}，{land}，有{object}",
        "{weather}，{land}，{object}",
        "{time}的{land}，{weather}，{light}，{object}",
        "{land}，{time}，{weather}，{object}，{light}",
        "一幅{mood}{time}风景：{land}，{weather}，{light}，还有{object}",
        # set aside
        "我想看{time}的{land}，{weather}",
        "请画出{land}上的{object}，{time}时分",
        "想象{weather}的{land}，{time}，{light}，加上{object}",
    ),
}
_SET_ASIDE = 3
_ASIDE = re.compile(r"(with |and |, |，)\{object\}($|，)")


def _slots(template: str) -> list[str]:
    return [slot for _, slot, _, _ in string.Formatter().parse(template) if slot]


def _attribute(slot: str) -> str:
    return slot.split("_")[0]


def caption(
    attributes: Sequence[int],
    rng: np.random.Generator,
    *,
    language: Language | None = None,
    wording: Wording = "seen",
) -> Caption:
    """Says what a scene shows, in a wording drawn at random.

    Args:
        attributes: five indices into `ATTRIBUTES`.
        rng: draws language, template and phrases.
        language: `"en"`, `"zh"`, or either.
        wording: `"seen"` in training, or `"unseen"`: only phrases and templates set aside.

    Raises:
        ValueError: if the language or the wording is unknown.

    Example:
        >>> caption((2, 0, 1, 0, 1), np.random.default_rng(0), language="en").text
        'a wet sundown on the open water'
    """
    if language not in (None, *get_args(Language)):
        raise ValueError(f"Unknown language {language!r}. Choose one of {get_args(Language)}.")
    if wording not in get_args(Wording):
        raise ValueError(f"Unknown wording {wording!r}. Choose one of {get_args(Wording)}.")
    if language is None:
        language = "zh" if rng.random() < 0.5 else "en"
    templates = _TEMPLATES[language]
    templates = templates[:-_SET_ASIDE] if wording == "seen" else templates[-_SET_ASIDE:]
    nothing = attributes[list(ATTRIBUTES).index("object")] == 0
    if nothing:  # "with nothing else" can be said, "nothing else over the sea" cannot
        templates = tuple(t for t in templates if "{object}" not in t or _ASIDE.search(t))
    template = templates[rng.integers(len(templates))]
    value = dict(zip(ATTRIBUTES, attributes, strict=True))
    words = {}
    for slot in _slots(template):
        if slot == "mood":
            choices = _MOODS[language].split("|")
        else:
            choices = _PHRASES[language][slot][value[_attribute(slot)]].split("|")
        choices = choices[:-1] if wording == "seen" else choices[-1:]
        words[slot] = choices[rng.integers(len(choices))]
    text = body(template.format(**words), attributes, language)
    named = frozenset(_attribute(slot) for slot in words) - {"mood"}
    return Caption(text, language, named)


def full(attributes: Sequence[int]) -> str:
    """Returns the one plain English caption that names all five attributes.

    Example:
        >>> full((2, 0, 1, 0, 1))
        'a clear sunset over the sea, the sun in the middle, with a sailing boat'
    """
    return plain(attributes, ATTRIBUTES)


def plain(attributes: Sequence[int], named: Collection[str]) -> str:
    """Returns the one plain English caption that names some attributes and no others.

    Args:
        attributes: five indices into `ATTRIBUTES`.
        named: names among `ATTRIBUTES`. If none, the caption is empty.

    Raises:
        ValueError: if a name is unknown.

    Example:
        >>> plain((2, 0, 1, 0, 1), {"land", "weather"})
        'a clear scene over the sea'
    """
    if set(named) - set(ATTRIBUTES):
        raise ValueError(f"Unknown among {sorted(named)}. Choose from {tuple(ATTRIBUTES)}.")
    if not named:
        return ""
    value = dict(zip(ATTRIBUTES, attributes, strict=True))

    def say(slot: str, form: str, other: str = "") -> str:
        if _attribute(slot) not in named:
            return other
        return form.format(_PHRASES["en"][slot][value[_attribute(slot)]].split("|")[0])

    said = [
        "a ",
        say("weather_adj", "{} "),
        say("time_noun", "{}", "scene"),
        say("land_in", " {}"),
        say("light", ", {}"),
        say("object", ", with {}"),
    ]
    return body("".join(said), attributes, "en")


def phrases(
    name: str, attributes: Sequence[int], language: Language, wording: Wording = "seen"
) -> list[str]:
    """Returns all that captions say of one attribute of a scene.

    Args:
        name: of the attribute.
        attributes: five indices into `ATTRIBUTES`.
        language: `"en"` or `"zh"`.
        wording: `"seen"` in training, or `"unseen"`.

    Example:
        >>> phrases("time", (2, 0, 1, 0, 1), "zh")
        ['日落', '夕阳', '黄昏', '傍晚']
    """
    value = attributes[list(ATTRIBUTES).index(name)]
    slots = [slot for slot in _PHRASES[language] if _attribute(slot) == name]
    found = []
    for slot in slots:
        choices = _PHRASES[language][slot][value].split("|")
        found += choices[:-1] if wording == "seen" else choices[-1:]
    return [body(phrase, attributes, language) for phrase in found]


def body(phrase: str, attributes: Sequence[int], language: Language) -> str:
    """Returns a phrase with the sun, or at night the moon, in the place of `{body}`."""
    night = attributes[list(ATTRIBUTES).index("time")] == ATTRIBUTES["time"].index("night")
    return phrase.replace("{body}", _BODY[language][int(night)])


def indices(values: Sequence[str]) -> tuple[int, ...]:
    """Turns attribute values into indices, in the order of `ATTRIBUTES`.

    Raises:
        ValueError: if there are not five, or one is unknown.

    Example:
        >>> indices(("sunset", "sea", "middle", "clear", "boat"))
        (2, 0, 1, 0, 1)
    """
    if len(values) != len(ATTRIBUTES):
        raise ValueError(f"{len(values)} values; give one for each of {tuple(ATTRIBUTES)}.")
    for value, (name, known) in zip(values, ATTRIBUTES.items(), strict=True):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r}. Choose one of {known}.")
    return tuple(ATTRIBUTES[n].index(v) for n, v in zip(ATTRIBUTES, values, strict=True))
