"""Emoji: some thousand real drawings, each with its English and its Chinese name.

The proof that nothing in this library depends on our own drawing code. The drawings are those of
the font Noto Color Emoji (Google, SIL Open Font License), the names those of the Unicode CLDR as
the package `emoji` lists them. Neither is shipped with this library.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from genlib.data.folder import Captioned, square

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # where Debian puts it
Split = Literal["train", "validation"]
Language = Literal["en", "zh"]

_SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_EMOJI_STYLE = 0xFE0F  # asks for colour; the font leaves it out of its sequences
_GENDERS = {0x1F468: 0x1F9D1, 0x1F469: 0x1F9D1}  # man and woman to person
_SIGNS = frozenset({0x2640, 0x2642, 0x200D, _EMOJI_STYLE})  # female, male, joiner, style


def emoji(
    size: int = 64,
    skin_tones: bool = False,
    *,
    language: Language = "en",
    split: Split | None = "train",
    font: str | Path = FONT,
) -> Captioned:
    """Returns emoji as captioned images, in the order of their code points.

    Args:
        size: height and width, pixels. The font holds 136×128.
        skin_tones: also the variants in five skin tones, about as many images again.
        language: of the captions, English or Chinese.
        split: `"train"`, or `"validation"`, about one in ten; `None` gives all. Variants in skin
            tone or gender are always in the same split: they share most of their pixels.
        font: a copy of Noto Color Emoji with bitmaps (tables CBDT and CBLC).

    Returns:
        Images over white, captions, and the emoji themselves as names. What the font does not
        draw is left out.

    Raises:
        ModuleNotFoundError: if the packages of the extra `emoji` are missing.
        FileNotFoundError: if there is no such font.
        ValueError: if `size` is below 1, the split or language is unknown, or the font has no
            colour bitmaps of emoji.

    Example:
        >>> cats = emoji(language="zh")  # doctest: +SKIP
        >>> cats.captions[cats.names.index("🐱")]  # doctest: +SKIP
        '猫脸'
    """
    if size < 1:
        raise ValueError(f"size = {size}: give a size of at least 1 pixel.")
    if language not in get_args(Language):
        raise ValueError(f"Unknown language {language!r}. Choose one of {get_args(Language)}.")
    if split not in (None, *get_args(Split)):
        raise ValueError(f"Unknown split {split!r}. Choose one of {get_args(Split)}, or None.")
    names = _names(language)
    if not skin_tones:
        names = {char: name for char, name in names.items() if _SKIN_TONES.isdisjoint(_codes(char))}
    if split is not None:
        names = {char: name for char, name in names.items() if _split(char) == split}
    drawn = bitmaps(sorted(names), font)
    if not drawn:
        raise ValueError(f"{font} draws none of the emoji. Give Noto Color Emoji with bitmaps.")
    images = [_image(png, size) for png in drawn.values()]
    return Captioned(np.stack(images), tuple(names[char] for char in drawn), tuple(drawn))


def bitmaps(texts: Iterable[str], font: str | Path = FONT) -> dict[str, bytes]:
    """Reads the colour bitmaps that a font has for whole texts.

    A character has a glyph. A sequence, say a flag of two letters, has one if a ligature of the
    font puts it in the place of the glyphs of its characters.

    Args:
        texts: emoji, each one character or a sequence.
        font: a TrueType file with the tables CBDT and CBLC.

    Returns:
        Text to PNG file, in the order of `texts`, without those that the font does not draw.

    Raises:
        ModuleNotFoundError: if fontTools is missing.
        FileNotFoundError: if there is no such font.
        ValueError: if it is no font, or has no bitmaps.

    Reference:
        OpenType specification 1.9, tables "CBDT", "CBLC" and "GSUB" (lookup type 4).
    """
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ModuleNotFoundError as error:
        raise _missing("fontTools") from error
    if not Path(font).is_file():
        raise FileNotFoundError(
            f"No font {font}. Run: sudo apt-get install fonts-noto-color-emoji (or give font=)."
        )
    try:
        with TTFont(font, lazy=True) as opened:
            cmap = opened.getBestCmap() or {}
            ligatures = _ligatures(opened["GSUB"].table) if "GSUB" in opened else {}
            strike = opened["CBDT"].strikeData[0]  # Noto has one size
            found = {}
            for text in texts:
                glyphs = tuple(cmap.get(code, "") for code in _codes(text) if code != _EMOJI_STYLE)
                glyph = glyphs[0] if len(glyphs) == 1 else ligatures.get(glyphs)
                if glyph in strike:
                    found[text] = bytes(strike[glyph].imageData)
            return found
    except (TTLibError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{font} holds no colour bitmaps ({error}). Give Noto Color Emoji with bitmaps."
        ) from error


def _ligatures(gsub: object) -> Mapping[tuple[str, ...], str]:
    """Returns the glyphs that a font puts in the place of sequences of glyphs."""
    joined = {}
    for lookup in gsub.LookupList.Lookup:  # type: ignore[attr-defined]
        for table in lookup.SubTable:
            table = getattr(table, "ExtSubTable", table)
            for first, sets in getattr(table, "ligatures", {}).items():
                for ligature in sets:
                    joined[first, *ligature.Component] = ligature.LigGlyph
    return joined


def _names(language: str) -> dict[str, str]:
    """Returns emoji to name: `":grinning_face:"` becomes `"grinning face"`."""
    try:
        import emoji as package
    except ModuleNotFoundError as error:
        raise _missing("emoji") from error
    package.config.load_language(language)
    whole = package.STATUS["fully_qualified"]  # the others are parts and second spellings
    return {
        char: entry[language].strip(":").replace("_", " ")
        for char, entry in package.EMOJI_DATA.items()
        if entry["status"] == whole and language in entry
    }


def _missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"The package {package} is missing. Run: pip install 'genlib[emoji]'"
    )


def _codes(text: str) -> list[int]:
    return [ord(char) for char in text]


def _split(char: str) -> Split:
    """Returns the split of an emoji and of all its variants, by their hash."""
    codes = [_GENDERS.get(c, c) for c in _codes(char) if c not in _SKIN_TONES | _SIGNS]
    digest = hashlib.sha256("".join(map(chr, codes)).encode()).digest()
    return "validation" if digest[0] < 26 else "train"  # 26 of 256: one in ten


def _image(png: bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        side = max(image.size)  # padded first, so that the square cuts nothing off
        return square(ImageOps.pad(image.convert("RGBA"), (side, side), color=(0, 0, 0, 0)), size)
