"""Words that people use for the attributes of Scenes, beside those of the captions.

The student learns them, so that "a ship at twilight" is a boat at sunset. None of them is among
the phrases that `genlib.data.captions` sets aside to measure wordings that were never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from genlib.data import captions
from genlib.data.captions import ATTRIBUTES, Language

# A row for each value of the attribute, in the order of ATTRIBUTES; {body} is the sun or the moon.
_MORE: Mapping[Language, Mapping[str, Sequence[str]]] = {
    "en": {
        "time": (
            "morning|early morning|in the morning|morning light|the rising sun|sun rising",
            "afternoon|in the afternoon|during the day|day time|in bright sunlight",
            "evening|in the evening|twilight|the setting sun|golden hour|dusk|sun setting",
            "late at night|at nighttime|moonlight|moonlit|starry night|under the stars|starry sky",
        ),
        "land": (
            "sea|ocean|beach|on the beach|coast|shore|seashore|waves|a harbour|bay|island|water",
            "lake|pond|lagoon|a calm lake|by the lake|a lake shore|still water",
            "mountain|a mountain|peaks|a summit|cliffs|a valley|highlands|rocky mountains",
            "hill|a hill|meadow|grassland|countryside|fields|farmland|a pasture|prairie|grass",
            "desert|a desert|sand dune|dune|sahara|sand|an oasis|arid land|over the sand",
            "city|town|street|skyscrapers|buildings|a metropolis|urban skyline|towers|skyline",
        ),
        "light": (
            "{body} on the left side|left {body}|{body} left|{body} far left"
            "|on the left, the {body}",
            "central {body}|{body} at the center|{body} in the center|{body} middle"
            "|centered {body}",
            "{body} on the right side|right {body}|{body} right|{body} far right"
            "|on the right, the {body}",
            "no {body}|without {body}|hidden {body}|{body} not visible|invisible {body}"
            "|without the {body}",
        ),
        "weather": (
            "sunny|blue sky|clear skies|clear sky|good weather|bright sky|nice weather",
            "clouds|many clouds|grey sky|gray sky|cloud|clouds in the sky|with clouds",
            "fog|mist|haze|in a fog|misty air|dense fog|lost in fog",
            "rain|raining|storm|stormy|thunderstorm|downpour|it rains|heavy rain|in a storm",
            "snow|snowing|snowfall|winter|in winter|frozen|snowstorm|covered in snow|it snows",
        ),
        "object": (
            "empty|an empty landscape|nothing|no objects|deserted|nobody",
            "boat|ship|a ship|vessel|canoe|ferry|fishing boat|boats|sail|sailing ship|sailing boat",
            "house|hut|a hut|home|houses|farmhouse|villa|barn|a lodge|farm|village",
            "tree|trees|pine|palm tree|a pine tree|forest|woods|a tree standing alone|lonely tree",
            "balloon|balloons|hot air balloon|a hot air balloon|floating balloon|air balloon",
        ),
    },
    "zh": {
        "time": (
            "早晨|早上|朝阳|晨光|曙光|旭日|天亮|日出时",
            "白日|午后|下午|日间|大中午|阳光下",
            "晚霞|夕照|日暮|残阳|夕阳西下|日落时",
            "夜|夜空|晚上|月夜|星空|星夜|黑夜|夜景|夜间",
        ),
        "land": (
            "海|海滩|沙滩|海岸|海浪|海湾|海岛|平静的海|海景",
            "湖|湖泊|湖水|池塘|平静的湖|湖泊边",
            "山|山峰|山谷|山间|高峰|山里|山景",
            "草原|田野|草地|乡村|原野|小山|山坡|乡间",
            "沙海|黄沙|沙漠里|沙漠中|大沙漠",
            "城镇|街道|大楼|摩天大楼|城里|小镇|都城|城市里",
        ),
        "light": (
            "左边的{body}|{body}在左|左侧有{body}|{body}位于左侧",
            "中央的{body}|正中有{body}|{body}在正中间|{body}位于中间",
            "右边的{body}|{body}在右|右侧有{body}|{body}位于右侧",
            "看不到{body}|无{body}|隐藏的{body}|{body}被遮住",
        ),
        "weather": (
            "晴|晴天|蓝天|好天气|天气晴好",
            "云|白云|云层|阴天|乌云|云彩",
            "雾|雾气|雾霭|朦胧|大雾|迷雾",
            "雨|大雨|暴雨|雷雨|小雨|下着雨|暴风雨",
            "雪|下着雪|雪景|冬天|雪地|飘雪|积雪",
        ),
        "object": (
            "空旷|没有物体|空荡荡",
            "船|小船|轮船|渔船|帆船|船只|小舟|扁舟",
            "屋子|房子|小屋|农舍|别墅|村庄|茅屋",
            "树|大树|松树|树林|森林|孤树",
            "气球|热气球|飞艇|大气球",
        ),
    },
}
_ASKS: Mapping[Language, Sequence[str]] = {
    "en": (
        *("a picture of", "an image of", "please draw", "show me", "make", "create", "paint"),
        *("generate an image of", "I want", "I would like to see", "a photo of", "we see"),
        *("a scene with", "a landscape with", "there is", "could you draw", "imagine"),
    ),
    "zh": ("画", "画一张", "生成一张", "请画", "我想要", "一幅", "一张图", "给我看", "来一张"),
}
_MOODS: Mapping[Language, Sequence[str]] = {
    "en": ("beautiful", "calm", "quiet", "peaceful", "dreamy", "romantic", "nice", "vast", "old"),
    "zh": ("美丽的", "宁静的", "平静的", "迷人的", "梦幻的", "浪漫的", "古老的", "很美"),
}


def phrases(name: str, attributes: Sequence[int], language: Language) -> list[str]:
    """Returns what people say of one attribute of a scene, the captions' phrases among it.

    Example:
        >>> phrases("object", (2, 0, 1, 0, 1), "en")[-3:]
        ['sail', 'sailing ship', 'sailing boat']
    """
    value = attributes[list(ATTRIBUTES).index(name)]
    more = [captions.body(p, attributes, language) for p in _MORE[language][name][value].split("|")]
    return captions.phrases(name, attributes, language) + more


def loose(attributes: Sequence[int], rng: np.random.Generator) -> captions.Caption:
    """Says some attributes of a scene in any order, as one who is in a hurry to have an image.

    Args:
        attributes: five indices into `ATTRIBUTES`.
        rng: draws the language, the attributes that are named, and the words.

    Example:
        >>> loose((2, 0, 1, 0, 1), np.random.default_rng(3)).language
        'en'
    """
    language: Language = "zh" if rng.random() < 0.5 else "en"
    named = rng.permutation(list(ATTRIBUTES))[: rng.integers(1, len(ATTRIBUTES) + 1)]

    def one(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    said = [one(phrases(name, attributes, language)) for name in named]
    for at, words in ((0, _MOODS), (0, _ASKS), (len(said), _MOODS)):
        if rng.random() < 0.3:
            said.insert(at, one(words[language]))
    joins = (" ", ", ", " and ", " with ") if language == "en" else ("", "，", "的", "、", "和")
    text = said[0]
    for word in said[1:]:
        text += one(joins) + word
    return captions.Caption(text, language, frozenset(map(str, named)))
