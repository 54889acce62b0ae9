"""Which words does WordNet know for the values of the five attributes?

For each value, synsets were chosen by what the value means in the captions, before anything was
measured: they stand below with the beginning of their definitions. Their words count, and those
of the synsets one or two steps below them (a dory is a boat) if a `+` or `++` says so, and what the
sun does. A word is left out if it mostly means something else, by WordNet's own counts of senses,
or if it has several senses that were never counted. An adjective of the sky of which that is true
("fair") counts before a time or a sky ("a fair evening"). Words that the hand-written lexicon holds
are left to it.

Writes `genlib/text/wordnet.txt`, and there, under `[english]`, words of WordNet that a slip parts
from a word that says something: they are no slips.

    apt-get install wordnet-base
    python scripts/wordnet.py /usr/share/wordnet
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from genlib.text import lexicon, reader

NOTICE = """\
# Words for the values of the attributes, and words that are no misspelt ones.
# Written by scripts/wordnet.py, from WordNet:
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS SOFTWARE AND
# DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES,
# EXPRESS OR IMPLIED. Permission to use, copy, modify and distribute it for any purpose and without
# fee or royalty is granted, provided that this notice appears on all copies, modifications
# included. The name of Princeton University may not be used in advertising pertaining to it.
"""
PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}

# heading of the list -> synsets as lemma.part.sense, the beginning of the definition, and + or ++
# for those below it
SYNSETS: dict[str, list[tuple[str, str]]] = {
    "dawn": [("dawn.n.1", "the first light of day")],
    "day": [
        ("daytime.n.1", "the time after sunrise and before sunset while it is light outside"),
        ("noon.n.1", "the middle of the day"),
        ("afternoon.n.1", "the part of the day between noon and evening +"),
        ("midafternoon.n.1", "the middle part of the afternoon"),
    ],
    "sunset": [
        ("sunset.n.1", "the time in the evening at which the sun begins to fall"),
        ("twilight.n.1", "the time of day immediately following sunset"),
        ("evening.n.1", "the latter part of the day"),
    ],
    "night": [
        ("night.n.1", "the time after sunset and before sunrise while it is dark outside"),
        ("midnight.n.1", "12 o'clock at night"),
        ("moonlight.n.1", "the light of the Moon"),
        ("starlight.n.1", "the light of the stars"),
    ],
    "sea": [
        ("sea.n.1", "a division of an ocean or a large body of salt water +"),
        ("ocean.n.1", "a large body of water constituting a principal part of the hydrosphere +"),
        ("seaside.n.1", "the shore of a sea or ocean regarded as a resort"),
        ("seashore.n.1", "the shore of a sea or ocean"),
        ("beach.n.1", "an area of sand sloping down to the water of a sea or lake +"),
        ("gulf.n.1", "an arm of a sea or ocean partly enclosed by land +"),
        ("bay.n.1", "an indentation of a shoreline larger than a cove +"),
        ("island.n.1", "a land mass (smaller than a continent) that is surrounded by water +"),
    ],
    "lake": [
        ("lake.n.1", "a body of (usually fresh) water surrounded by land ++"),
        ("lakeside.n.1", "the shore of a lake"),
    ],
    "mountains": [
        ("mountain.n.1", "a land mass that projects well above its surroundings ++"),
        ("mountain_peak.n.1", "the summit of a mountain +"),
        ("range.n.4", "a series of hills or mountains +"),
        ("ridge.n.1", "a long narrow natural elevation or striation"),
    ],
    "hills": [
        ("hill.n.1", "a local and well-defined elevation of the land +"),
        ("hillside.n.1", "the side or slope of a hill +"),
        ("grassland.n.1", "land where grass or grasslike vegetation grows +"),
    ],
    "desert": [
        ("desert.n.1", "arid land with little or no vegetation +"),
        ("dune.n.1", "a ridge of sand created by the wind +"),
    ],
    "city": [
        ("city.n.1", "a large and densely populated urban area +"),
        ("town.n.1", "an urban area with a fixed boundary that is smaller than a city +"),
        ("city_district.n.1", "a district of a town or city +"),
        ("urban_area.n.1", "a geographical area constituting a city or town +"),
        ("skyscraper.n.1", "a very tall building with many stories"),
        ("skyline.n.1", "the outline of objects seen against the sky"),
        ("downtown.a.1", "of or located in the lower part of a town"),
        ("downtown.r.1", "toward or in the lower or central part of town"),
        ("urban.a.2", "located in or characteristic of a city or city life"),
    ],
    "clear": [
        ("clear.a.11", "free from clouds or mist or haze"),
        ("cloudless.a.1", "free from clouds"),
        ("fair.a.9", "free of clouds or rain"),
        ("serene.a.2", "completely clear and fine"),
    ],
    "cloudy": [
        ("cloudy.a.2", "full of or covered with clouds"),
        ("overcast.a.1", "filled or abounding with clouds"),
        ("dull.a.12", "darkened with overcast"),
        ("heavy.a.7", "darkened by clouds"),
        ("cloud.n.2", "a visible mass of water or ice particles suspended +"),
        ("overcast.n.1", "the state of the sky when it is covered by clouds"),
    ],
    "foggy": [
        ("misty.a.1", "filled or abounding with fog or mist"),
        ("fogbound.a.1", "enveloped in fog"),
        ("smoggy.a.1", "clouded with a mixture of smoke and fog"),
        ("fog.n.1", "droplets of water vapor suspended in the air near the ground +"),
        ("fog.n.2", "an atmosphere in which visibility is reduced"),
        ("haze.n.1", "atmospheric moisture or dust or smoke that causes reduced visibility"),
    ],
    "rainy": [
        ("rainy.a.1", "(of weather) wet by periods of rain"),
        ("drizzly.a.1", "wet with light rain"),
        ("rain.n.1", "water falling in drops from vapor condensed in the atmosphere"),
        ("rainstorm.n.1", "a storm with rain"),
        ("downpour.n.1", "a heavy rain"),
        ("drizzle.n.1", "very light rain"),
        ("shower.n.3", "a brief period of precipitation"),
        ("thunderstorm.n.1", "a storm resulting from strong rising air currents"),
    ],
    "snowy": [
        ("snowy.a.1", "marked by the presence of snow"),
        ("snowy.a.2", "covered with snow"),
        ("wintry.a.1", "characteristic of or occurring in winter"),
        ("snow.n.1", "precipitation falling from clouds in the form of ice crystals"),
        ("snow.n.2", "a layer of snowflakes"),
        ("blizzard.n.1", "a storm with widespread snowfall"),
        ("flurry.n.2", "a light brief snowfall"),
    ],
    "boat": [
        ("boat.n.1", "a small vessel for travel on water ++"),
        ("ship.n.1", "a vessel that carries passengers or freight ++"),
        ("sailing_vessel.n.1", "a vessel that is powered by the wind ++"),
    ],
    "house": [
        ("house.n.1", "a dwelling that serves as living quarters ++"),
        ("hut.n.2", "small crude shelter used as a dwelling +"),
        ("cottage.n.1", "a small house with a single story +"),
        ("farm_building.n.1", "a building on a farm +"),
    ],
    "tree": [("tree.n.1", "a tall perennial woody plant having a main trunk +")],
    "balloon": [("balloon.n.1", "large tough nonrigid bag filled with gas or heated air +")],
    "beside left": [("left.n.1", "location near or direction toward the left side")],
    "beside middle": [
        ("center.n.1", "an area that is approximately central within some larger region"),
        ("middle.a.2", "equally distant from the extremes"),
        ("halfway.r.1", "at half the distance; at the middle"),
    ],
    "beside right": [("right.n.2", "location near or direction toward the right side")],
    "beside hidden": [
        ("hidden.a.1", "not accessible to view"),
        ("invisible.a.1", "impossible or nearly impossible to see"),
    ],
}
# what the sun does
VERBS = {
    "dawn": ("rise.v.16", "come up, of celestial bodies"),
    "sunset": ("set.v.10", "disappear beyond the horizon"),
}
NAMES_ARE = ("sea", "lake", "mountains", "hills", "desert", "city")  # of places
OF_THE_SKY = ("clear", "cloudy", "foggy", "rainy")  # not snow, which lies on the ground


class WordNet:
    """The database.

    Attributes:
        senses: word and part of speech to its synsets, the most frequent first.
        synsets: (part, offset) to words, pointers and definition.
        counts: word, part and number of the sense to how often it was counted.
    """

    def __init__(self, folder: Path) -> None:
        self.senses: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.synsets: dict[tuple[str, str], tuple[list[str], list[tuple], str]] = {}
        self.counts: dict[tuple[str, str, int], int] = defaultdict(int)
        self.odd: list[str] = []  # irregular forms
        for name, part in PARTS.items():
            for line in self._lines(folder / f"index.{name}"):
                said = line.split()
                offsets = said[6 + int(said[3]) :]
                self.senses[_word(said[0]), part] = [(part, offset) for offset in offsets]
            for line in self._lines(folder / f"data.{name}"):
                head, _, meaning = line.partition("|")
                said = head.split()
                words = 4 + 2 * int(said[3], 16)
                rest = said[words + 1 :]
                links = [
                    (rest[i], (rest[i + 2].replace("s", "a"), rest[i + 1]))
                    for i in range(0, 4 * int(said[words]), 4)
                ]
                spelt = [re.sub(r"\(.*\)", "", word) for word in said[4:words:2]]
                self.synsets[part, said[0]] = (spelt, links, meaning.strip())
            self.odd += [line.split()[0] for line in self._lines(folder / f"{name}.exc")]
        kinds = "-nvara"
        for line in (folder / "cntlist.rev").read_text("utf-8").splitlines():
            key, number, times = line.split()
            word, sense = key.split("%")
            self.counts[_word(word), kinds[int(sense[0])], int(number)] += int(times)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        lines = path.read_text("utf-8").splitlines()
        return [line for line in lines if not line.startswith("  ")]

    def find(self, name: str, meaning: str) -> tuple[str, str]:
        """Returns a synset by lemma, part and number of the sense; its definition must agree."""
        word, part, number = name.split(".")
        found = self.senses[_word(word), part][int(number) - 1]
        told = self.synsets[found][2]
        if not told.startswith(meaning.rstrip(" +")):
            raise ValueError(f"{name} means {told!r}.")
        return found

    def below(self, synset: tuple[str, str], deep: int) -> Iterator[tuple[tuple[str, str], bool]]:
        """Yields the synsets below one, each with whether it is a name."""
        for kind, other in self.synsets[synset][1]:
            if kind in ("~", "~i"):
                yield other, kind == "~i"
                if deep > 1:
                    yield from self.below(other, deep - 1)

    def mostly(self, word: str, ours: set[tuple[str, str]]) -> bool:
        """Returns whether at least half of a word's uses that were counted are ours."""
        counted, inside = self._verb(word), 0
        for part in PARTS.values():
            for number, synset in enumerate(self.senses.get((word, part), []), 1):
                counted += self.counts[word, part, number]
                inside += self.counts[word, part, number] * (synset in ours)
        return 2 * inside >= counted if counted else self.alone(word, ours)

    def _verb(self, word: str) -> int:
        """Returns how often the verb was counted of which a word is a form: "lowering"."""
        stem = re.sub("(ing|ed)$", "", word)
        verbs = {stem, stem + "e", stem[:-1]} - {word} if stem != word else set()
        return sum(n for (w, part, _), n in self.counts.items() if part == "v" and w in verbs)

    def alone(self, word: str, ours: set[tuple[str, str]]) -> bool:
        """Returns whether a word has no sense but ours."""
        return all(s in ours for part in PARTS.values() for s in self.senses.get((word, part), []))


def _word(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def forms(verb: str) -> list[str]:
    """Returns "sun comes up" and its like."""
    odd = {
        "rise": ("rises", "rose", "rising", "risen"),
        "uprise": ("uprises", "uprose", "uprising", "uprisen"),
        "ascend": ("ascends", "ascended", "ascending", "ascended"),
        "come": ("comes", "came", "coming", "come"),
        "set": ("sets", "set", "setting", "set"),
        "go": ("goes", "went", "going", "gone"),
    }
    first, _, rest = verb.partition(" ")
    now, past, going, done = odd[first]
    said = ("", first), ("", now), ("", past), ("", going), ("is ", going), ("has ", done)
    return [f"sun {be}{form} {rest}".strip() for be, form in said]


def found(net: WordNet) -> dict[str, list[str]]:
    """Returns for each value, and for each side, its words that the lexicon does not hold."""
    known = {key for key, marks in reader.table(aside=False).items() if marks}
    known |= {reader._key(phrase) for phrase in lexicon.sections()[""]}
    ours: dict[str, set[tuple[str, str]]] = {}
    words: dict[str, dict[str, bool]] = {}  # heading to word to whether it is a name
    for head, rows in SYNSETS.items():
        chosen = {net.find(*row): False for row in rows}
        for row in rows:
            if deep := row[1].count("+"):
                for synset, name in net.below(net.find(*row), deep):
                    if not name or head in NAMES_ARE:
                        chosen.setdefault(synset, name)
        ours[head] = set(chosen)
        words[head] = {}
        for synset, name in chosen.items():
            for lemma in net.synsets[synset][0]:
                words[head][_word(lemma)] = name or lemma != lemma.lower()
    made: dict[str, list[str]] = {head: [] for head in SYNSETS}
    for head, said in words.items():
        rivals = set().union(*(ours[h] for h in ours if h != head)) - ours[head]
        for word, name in said.items():
            if not re.fullmatch("[a-z][a-z' -]{3,}", word) or word.count(" ") > 2:
                continue
            if head == "tree" and " " in word and not word.endswith(" tree"):
                continue  # names in Latin
            if name and head == "city" and not re.fullmatch("[a-z]{5,}", word):
                continue
            if any(synset in rivals for synset in net.senses.get((word, "n"), [])[:1]):
                continue  # the likelier value has it
            if net.alone(word, ours[head]) if name else net.mostly(word, ours[head]):
                made[head].append(word)
            elif head in OF_THE_SKY and (word, "a") in net.senses:
                made.setdefault(f"before {head}", []).append(word)
    for head, row in VERBS.items():
        for lemma in net.synsets[net.find(*row)][0]:
            made[head] += forms(_word(lemma))
    return {
        head: sorted({word for word in part if reader._key(word) not in known})
        for head, part in made.items()
    }


def english(net: WordNet) -> list[str]:
    """Returns words of English that would be corrected to a word that says something."""
    words = {word for word, _ in net.senses} | set(net.odd)
    small = {word for spelt, _, _ in net.synsets.values() for word in spelt if word == word.lower()}
    for word in small:
        stem = re.sub("e$", "", word)
        if re.fullmatch("[^aeiou]*[aeiou][^aeiouwxy]", word):
            stem = word + word[-1]
        plural = re.sub("y$", "ie", word) + ("es" if re.search("(s|x|z|ch|sh)$", word) else "s")
        words.add(plural)
        if (word, "v") in net.senses:
            words |= {f"{stem}ed", f"{stem}ing", re.sub("y$", "ied", word)}
    own = reader.vocabulary()
    keys = {reader._key(word)[0] for word in words if re.fullmatch("[a-z]{4,}", word)}
    keys = {key for key in keys if len(key) > 3}
    return sorted(
        word
        for word in keys - own.keys()
        if (slip := reader.corrected(word)) != word and own[slip] & lexicon.OF.keys()
    )


def main(folder: Annotated[Path, typer.Argument(help="The folder of WordNet 3.0.")]) -> None:
    """Writes the list."""
    path = Path(lexicon.__file__).parent / "wordnet.txt"

    def write(parts: dict[str, list[str]]) -> None:
        lines = [f"[{head}]\n{', '.join(words)}\n" for head, words in parts.items() if words]
        path.write_text(NOTICE + "".join(lines), "utf-8")
        for cached in (lexicon.sections, reader.tables, reader.vocabulary):
            cached.cache_clear()

    write({})
    net = WordNet(folder)
    parts = found(net)
    write(parts)
    write(parts | {"english": english(net)})
    print({head: len(words) for head, words in parts.items()}, path.stat().st_size)


if __name__ == "__main__":
    typer.run(main)
