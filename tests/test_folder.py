"""Captioned images: a reader's own folder, and emoji from a font."""

import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genlib.data import emoji, folder
from genlib.data.emoji import FONT, _split, bitmaps
from genlib.data.folder import square

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write(path, lines, files=("1.png",)):
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), RED).save(path / name)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (path / "metadata.jsonl").write_text(text, encoding="utf-8")
    return path


def entry(name="1.png", text="a red square"):
    return {"file_name": name, "text": text}


def test_images_captions_and_names_keep_the_order_of_the_lines(tmp_path):
    lines = [entry("b/2.png", "二"), "", entry("1.png", " one ")]
    got = folder(write(tmp_path, lines, ("1.png", "b/2.png")), size=16)
    assert (got.captions, got.names) == (("二", "one"), ("b/2.png", "1.png"))
    assert got.images.shape == (2, 16, 16, 3)
    assert got.images.dtype == np.uint8
    assert (got.images == RED).all()


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    write(tmp_path, [])
    line = json.dumps(entry()).encode()
    (tmp_path / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n")
    assert folder(tmp_path).captions == ("a red square",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ({"file_name": "1.png"}, "'text' must be"),
        ({"text": "a"}, "'file_name' must be"),
        (entry(text="  "), "'text' must be"),
        (entry(text=3), "got 3"),
        (entry("no.png"), "no file 'no.png'"),
        (entry("../out.png"), "outside of the folder"),
        (entry("/etc/passwd"), "outside of the folder"),
        (entry("a\0b"), "is no file name"),
        (entry("a" * 5000), "is no file name"),
        (entry("metadata.jsonl"), "not a readable image"),
        (entry(), "stands in line 1 already"),
        (entry("./1.png"), "stands in line 1 already"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path, line, message):
    inner = tmp_path / "inner"
    Image.new("RGB", (8, 8)).save(tmp_path / "out.png")
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: ") as error:
        folder(write(inner, [entry(), line]))
    assert message in str(error.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write(tmp_path / "inner", [entry("link.png")])
    Image.new("RGB", (8, 8)).save(tmp_path / "out.png")
    (tmp_path / "inner" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(ValueError, match="outside of the folder"):
        folder(tmp_path / "inner")


def test_text_that_is_not_utf8_is_named(tmp_path):
    write(tmp_path, [])
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "1.png", "text": "\xff"}')
    with pytest.raises(ValueError, match="line 1: not JSON in UTF-8"):
        folder(tmp_path)


def test_one_error_lists_five_problems_and_counts_the_rest(tmp_path):
    with pytest.raises(ValueError, match="and 2 more") as error:
        folder(write(tmp_path, [entry(), *["{"] * 7]))
    assert [f"line {k}:" in str(error.value) for k in range(1, 9)] == [False] + [True] * 5 + [
        False
    ] * 2


def test_a_folder_without_metadata_or_images_says_what_to_write(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metadata\.jsonl.*one line for each"):
        folder(tmp_path)
    with pytest.raises(ValueError, match="lists no image"):
        folder(write(tmp_path, ["", "  "]))
    with pytest.raises(ValueError, match="size = 0"):
        folder(tmp_path, size=0)


def test_a_decompression_bomb_and_a_truncated_file_are_refused(tmp_path, monkeypatch):
    write(tmp_path, [entry()])
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:-25])
    with pytest.raises(ValueError, match=r"'1\.png' is not a readable image"):
        folder(tmp_path)
    (tmp_path / "1.png").write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # of 64: Pillow only warns
    with pytest.raises(ValueError, match=r"'1\.png' .*bomb"):
        folder(tmp_path)


def test_the_exif_orientation_is_obeyed():
    image = Image.new("RGB", (8, 8), RED)
    image.paste(BLUE, (0, 0, 8, 4))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    turned = square(Image.open(file), 8)
    assert (turned[0] == RED).all()
    assert (turned[-1] == BLUE).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_over_white(mode):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    assert (square(clear, 4) == 255).all()


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (8, 8))
    image.info["transparency"] = 0
    assert (square(image, 4) == 255).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    write(tmp_path, [entry("1.gif")], ())
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "1.gif", save_all=True, append_images=frames[1:])
    assert (folder(tmp_path, 8).images == RED).all()


def test_print_colours_and_black_and_white_become_rgb():
    assert (square(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), 4) == RED).all()
    assert (square(Image.new("1", (8, 8), 1), 4) == 255).all()


@given(st.integers(0, 65535))
def test_sixteen_bits_are_scaled_not_clipped(value):
    image = Image.fromarray(np.full((4, 4), value, np.uint16))
    assert abs(int(square(image, 2)[0, 0, 0]) - value / 257) <= 0.5


def test_floats_are_refused():
    with pytest.raises(ValueError, match="floats of unknown range"):
        square(Image.new("F", (4, 4)), 4)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 255))
def test_any_size_becomes_a_square_of_the_same_colour(width, height, size, level):
    made = square(Image.new("RGB", (width, height), (level, 0, 255)), size)
    assert made.shape == (size, size, 3)
    assert (made == (level, 0, 255)).all()


def test_the_centre_is_kept_and_edges_are_antialiased():
    wide = Image.new("RGB", (24, 8), RED)
    wide.paste(BLUE, (8, 0, 16, 8))
    assert (square(wide, 8) == BLUE).all()
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (64, 32)))
    assert np.ptp(square(stripes, 8).astype(int)) < 60  # thinned out, they would be black or white


@pytest.fixture(scope="module")
def tiny_font(tmp_path_factory):
    """A font with two colour bitmaps: the letter A, and a ligature for A and B."""
    builder = pytest.importorskip("fontTools.fontBuilder")
    from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.ttLib import newTable
    from fontTools.ttLib.tables import C_B_D_T_, E_B_L_C_, BitmapGlyphMetrics

    names = [".notdef", "A", "B", "A_B"]
    made = builder.FontBuilder(128)
    made.setupGlyphOrder(names)
    made.setupCharacterMap({ord("A"): "A", ord("B"): "B"})
    made.setupGlyf({name: TTGlyphPen(None).glyph() for name in names})
    made.setupHorizontalMetrics(dict.fromkeys(names, (128, 0)))
    made.setupHorizontalHeader()
    made.setupPost()
    addOpenTypeFeaturesFromString(made.font, "feature ccmp { sub A B by A_B; } ccmp;")

    strike = E_B_L_C_.Strike()
    size = strike.bitmapSizeTable
    for key, value in {
        "colorRef": 0, "startGlyphIndex": 1, "endGlyphIndex": 3, "ppemX": 8, "ppemY": 8,
        "bitDepth": 32, "flags": 1,
    }.items():  # fmt: skip
        setattr(size, key, value)
    for line in ("hori", "vert"):
        metrics = E_B_L_C_.SbitLineMetrics()
        for key in (
            "ascender", "descender", "widthMax", "caretSlopeNumerator", "caretSlopeDenominator",
            "caretOffset", "minOriginSB", "minAdvanceSB", "maxBeforeBL", "minAfterBL", "pad1",
            "pad2",
        ):  # fmt: skip
            setattr(metrics, key, 0)
        setattr(size, line, metrics)
    bitmaps_of = {}
    for name, colour in {"A": RED, "A_B": BLUE}.items():
        file = io.BytesIO()
        Image.new("RGB", (8, 6), colour).save(file, "PNG")
        glyph = C_B_D_T_.cbdt_bitmap_format_17(b"", made.font)
        glyph.imageData = file.getvalue()
        glyph.metrics = BitmapGlyphMetrics.SmallGlyphMetrics()
        for key, value in {
            "height": 6, "width": 8, "BearingX": 0, "BearingY": 6, "Advance": 8
        }.items():  # fmt: skip
            setattr(glyph.metrics, key, value)
        bitmaps_of[name] = glyph
    for name, glyph_id in {"A": 1, "A_B": 3}.items():
        part = E_B_L_C_.eblc_index_sub_table_1(b"", made.font)
        part.indexFormat, part.imageFormat, part.names = 1, 17, [name]
        part.firstGlyphIndex = part.lastGlyphIndex = glyph_id
        strike.indexSubTables.append(part)
    made.font["CBLC"], made.font["CBDT"] = newTable("CBLC"), newTable("CBDT")
    made.font["CBLC"].version = made.font["CBDT"].version = 3.0
    made.font["CBLC"].strikes, made.font["CBDT"].strikeData = [strike], [bitmaps_of]
    path = tmp_path_factory.mktemp("font") / "tiny.ttf"
    made.save(path)
    return path


def test_a_character_and_a_sequence_have_their_own_bitmaps(tiny_font):
    found = bitmaps(["AB", "A", "A\ufe0f", "B", "BA", "C", ""], tiny_font)
    assert list(found) == ["AB", "A", "A\ufe0f"]
    colours = [Image.open(io.BytesIO(png)).getpixel((0, 0)) for png in found.values()]
    assert colours == [BLUE, RED, RED]


def test_a_font_without_emoji_a_file_that_is_none_and_no_file_are_told_apart(tiny_font, tmp_path):
    pytest.importorskip("emoji", reason="the extra 'emoji' is not installed")
    with pytest.raises(ValueError, match="draws none of the emoji"):
        emoji(font=tiny_font)
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match="no colour bitmaps"):
        bitmaps(["A"], tmp_path / "bad.ttf")
    with pytest.raises(FileNotFoundError, match="apt-get install fonts-noto-color-emoji"):
        bitmaps(["A"], tmp_path / "none.ttf")


def test_a_missing_package_is_named_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "emoji", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'genlib\[emoji\]'"):
        emoji()


@pytest.mark.parametrize("bad", [{"size": 0}, {"language": "fr"}, {"split": "test"}])
def test_unknown_options_of_emoji_are_refused(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        emoji(**bad)


def test_variants_of_one_emoji_share_a_split():
    for variants in ("👍👍🏿", "👋👋🏻"):
        assert _split(variants[0]) == _split(variants[1:])
    runners = ("🏃", "🏃‍♀️", "🏃🏽‍♂️")
    teachers = ("🧑‍🏫", "👩‍🏫", "👨🏿‍🏫")
    for variants in (runners, teachers):
        assert len({_split(variant) for variant in variants}) == 1


@pytest.mark.skipif(not FONT.is_file(), reason=f"no {FONT}: apt package fonts-noto-color-emoji")
def test_noto_emoji_are_drawn_named_and_split():
    pytest.importorskip("emoji", reason="the extra 'emoji' is not installed")
    train, validation = emoji(16), emoji(16, split="validation", language="zh")
    assert len(train) > 1500
    assert 0.06 < len(validation) / (len(train) + len(validation)) < 0.14
    assert not set(train.names) & set(validation.names)
    assert train.captions[train.names.index("🐱")] == "cat face"
    assert all(any("\u4e00" <= char <= "\u9fff" for char in c) for c in validation.captions[:20])
    assert (train.images.reshape(len(train), -1).std(1) > 0).all()  # no blank image
    np.testing.assert_array_equal(train.images, emoji(16).images)


def bad_exif():
    return b"Exif\x00\x00II*\x00" + b"\xff" * 40


def chunk(name, data, checksum=None):
    found = zlib.crc32(name + data) if checksum is None else checksum
    return len(data).to_bytes(4, "big") + name + data + found.to_bytes(4, "big")


def words(*values):
    return b"".join(value.to_bytes(2, "big") for value in values)


GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # the kinds of PNG


def png(kind, bits, row, clear=None, more=b""):
    """One PNG pixel by hand: Pillow does not write all kinds and depths."""
    head = (1).to_bytes(4, "big") * 2 + bytes([bits, kind, 0, 0, 0])
    found = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more
    if clear is not None:
        found += chunk(b"tRNS", clear)
    return found + chunk(b"IDAT", zlib.compress(b"\x00" + row)) + chunk(b"IEND", b"")


def grey(bits, value):
    """A row of one grey pixel: below 8 bits, it stands in the upper bits of its byte."""
    return bytes([value << 8 - bits]) if bits <= 8 else words(value)


WHITE = (255, 255, 255)
GREYS = [(1, 0), (1, 1), (2, 1), (2, 2), (4, 1), (4, 7), (4, 14), (8, 7), (16, 0x0700)]
THREE = chunk(b"PLTE", bytes([9, 9, 9, 1, 2, 3]))  # two colours


@pytest.mark.parametrize(("bits", "value"), GREYS)
def test_a_clear_grey_of_every_depth_is_white_and_no_other(bits, value):
    shade = round(value * 255 / (2**bits - 1))
    for clear, level in ((None, shade), (value, 255), (value ^ 1, shade)):
        file = png(GREY, bits, grey(bits, value), clear if clear is None else words(clear))
        assert square(Image.open(io.BytesIO(file)), 1).tolist() == [[[level] * 3]], clear


@pytest.mark.parametrize(
    ("file", "pixel"),
    [
        (png(RGB, 8, bytes([1, 2, 3])), (1, 2, 3)),
        (png(RGB, 8, bytes([1, 2, 3]), words(1, 2, 3)), WHITE),
        (png(RGB, 8, bytes([1, 2, 3]), words(3, 2, 1)), (1, 2, 3)),
        (png(RGB, 16, words(0x100, 0x200, 0x300)), (1, 2, 3)),
        (png(RGB, 16, words(0x100, 0x200, 0x300), words(0x100, 0x200, 0x300)), WHITE),
        (png(RGB, 16, words(0x100, 0x200, 0x300), words(1, 2, 3)), (1, 2, 3)),
        (png(RGB, 16, words(1, 2, 3), words(1, 2, 3)), WHITE),
        *[(png(PALETTE, b, grey(b, 1), None, THREE), (1, 2, 3)) for b in (1, 2, 4, 8)],
        *[(png(PALETTE, b, grey(b, 1), bytes([255, 0]), THREE), WHITE) for b in (1, 2, 4, 8)],
        (png(PALETTE, 8, b"\x00", bytes([255, 0]), THREE), (9, 9, 9)),
        (png(PALETTE, 8, b"\x01", bytes([0, 128]), THREE), (128, 128, 129)),
        (png(GREY_ALPHA, 8, bytes([7, 0])), WHITE),
        (png(GREY_ALPHA, 8, bytes([0, 128])), (127, 127, 127)),
        (png(GREY_ALPHA, 16, words(0x0700, 0)), WHITE),
        (png(GREY_ALPHA, 16, words(0, 0x8000)), (127, 127, 127)),
        (png(RGB_ALPHA, 8, bytes([1, 2, 3, 0])), WHITE),
        (png(RGB_ALPHA, 16, words(0x100, 0x200, 0x300, 0xFFFF)), (1, 2, 3)),
        (png(RGB_ALPHA, 16, words(0, 0, 0, 0x8000)), (127, 127, 127)),
    ],
)
def test_transparency_of_every_kind_and_depth_of_png_is_white(file, pixel):
    assert tuple(square(Image.open(io.BytesIO(file)), 1)[0, 0]) == pixel


@pytest.mark.parametrize(
    ("mode", "value", "pixel"),
    [
        ("1", 1, WHITE),
        ("1", 0, (0, 0, 0)),
        ("L", 7, (7, 7, 7)),
        ("P", 0, (0, 0, 0)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), WHITE),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("RGBa", (0, 0, 0, 0), WHITE),
        ("RGBa", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (7, 0), WHITE),
        ("LA", (0, 128), (127, 127, 127)),
        ("La", (0, 0), WHITE),
        ("La", (0, 128), (127, 127, 127)),
        ("PA", (0, 0), WHITE),
        ("CMYK", (0, 255, 255, 0), RED),
        ("YCbCr", (7, 128, 128), (7, 7, 7)),
        ("HSV", (0, 255, 255), RED),
        ("I", 0x0700, (7, 7, 7)),
        ("I", 65535, WHITE),
        ("I;16", 0x0700, (7, 7, 7)),
        ("I;16B", 0x0700, (7, 7, 7)),
        ("I;16L", 0x0700, (7, 7, 7)),
    ],
)
def test_every_mode_has_its_pixel(mode, value, pixel):
    assert tuple(square(Image.new(mode, (2, 2), value), 1)[0, 0]) == pixel


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_whole_numbers_of_unknown_range_are_refused(value):
    with pytest.raises(ValueError, match=f"{value} to {value}, of unknown range"):
        square(Image.new("I", (2, 2), value), 1)


def write_one(tmp_path, file, name):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (9, 8, 7)).save(file, "PNG")
    tmp_path.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"file_name": name, "text": "a grey square"})
    (tmp_path / "metadata.jsonl").write_text(line + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("on_disk", "in_line"),
    [
        (" 1.png", " 1.png"),
        ("1.png ", "1.png "),
        ("夕阳 海.png", "夕阳 海.png"),
        ("e\u0301.png", "\u00e9.png"),
        ("\u00e9.png", "e\u0301.png"),
        ("e\u0301 \u00e9/u\u0308.png", "\u00e9 e\u0301/\u00fc.png"),
    ],
)
def test_names_with_spaces_and_other_unicode_forms_are_found(tmp_path, on_disk, in_line):
    write_one(tmp_path, tmp_path / on_disk, in_line)
    assert folder(tmp_path, 2).images[0, 0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("on_disk", "in_line", "message"),
    [
        (" 1.png", "1.png", "no file '1.png' in the folder; it has ' 1.png': write the name"),
        ("1.png", "1.png ", "no file '1.png ' in the folder; it has '1.png': write the name"),
        ("a.PNG", "a.png", "it has 'a.PNG'"),
        ("\uff11.png", "1.png", "no file '1.png' in the folder; it has '\uff11.png'"),
    ],
)
def test_a_name_that_is_missed_by_little_is_told(tmp_path, on_disk, in_line, message):
    write_one(tmp_path, tmp_path / on_disk, in_line)
    with pytest.raises(ValueError, match="line 1") as error:
        folder(tmp_path, 2)
    assert message in str(error.value)


def test_names_that_look_alike_are_told_apart_by_their_form_and_escapes(tmp_path):
    composed, decomposed, mixed = "\u00e9\u00e9.png", "e\u0301e\u0301.png", "\u00e9e\u0301.png"
    for name in (composed, decomposed):
        write_one(tmp_path, tmp_path / name, mixed)
    with pytest.raises(ValueError, match="no file") as error:
        folder(tmp_path, 2)
    for told in (
        r"(neither NFC nor NFD: '\xe9e\u0301.png')",
        r"(NFC: '\xe9\xe9.png')",
        r"(NFD: 'e\u0301e\u0301.png')",
    ):
        assert told in str(error.value)


@pytest.mark.parametrize("here", [".", "./", "../inner"])
def test_the_folder_that_one_is_in_is_read(tmp_path, monkeypatch, here):
    write(tmp_path / "inner", [entry()])
    monkeypatch.chdir(tmp_path / "inner")
    assert len(folder(here, 2)) == 1


def snapshot_of(tmp_path, files=("1.png",)):
    """A folder as a hub's cache has it: a snapshot of links into blobs, equal ones kept once."""
    snapshot, blobs = tmp_path / "datasets--a--b/snapshots/0f", tmp_path / "datasets--a--b/blobs"
    for name in files:
        write_one(snapshot, blobs / "77aa", name)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / "77aa")
    lines = [json.dumps(entry(name)) for name in files]
    (blobs / "88bb").write_text("\n".join(lines))
    (snapshot / "metadata.jsonl").unlink()
    (snapshot / "metadata.jsonl").symlink_to(blobs / "88bb")
    return snapshot


def test_a_snapshot_in_the_cache_of_a_hub_is_read_by_any_way_to_it(tmp_path, monkeypatch):
    snapshot = snapshot_of(tmp_path, ("1.png", "train/2.png"))  # two names of one blob
    assert folder(snapshot, 2).names == ("1.png", "train/2.png")
    (tmp_path / "mine").symlink_to(snapshot)
    assert len(folder(tmp_path / "mine", 2)) == 2
    monkeypatch.chdir(snapshot)
    assert len(folder(".", 2)) == 2


def test_a_link_out_of_a_snapshot_and_its_blobs_is_refused(tmp_path):
    snapshot = snapshot_of(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (snapshot / "1.png").unlink()
    (snapshot / "1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="lies outside"):
        folder(snapshot)


def moved(path, place):
    """Moves a file or a folder, and leaves a link to it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    path.symlink_to(place)


LINKED = {
    "blobs": lambda hub, away: moved(hub / "datasets--a--b/blobs", away / "blobs"),
    "a blob": lambda hub, away: moved(hub / "datasets--a--b/blobs/77aa", away / "secret.png"),
    "a blob of a blob": lambda hub, away: (
        moved(hub / "datasets--a--b/blobs/77aa", hub / "datasets--a--b/blobs/77bb"),
        moved(hub / "datasets--a--b/blobs/77bb", away / "secret.png"),
    ),
}


@pytest.mark.parametrize("how", LINKED)
@pytest.mark.parametrize("own", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG", None])
def test_in_the_reader_s_own_cache_alone_may_blobs_be_links(tmp_path, monkeypatch, how, own):
    """A folder from elsewhere that only looks like a cache could lead to any file of the reader."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    hub = tmp_path / "huggingface" / "hub"
    if own == "XDG":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elif own is not None:
        monkeypatch.setenv(own, str(hub.parent if own == "HF_HOME" else hub))
    snapshot = snapshot_of(hub)
    LINKED[how](hub, tmp_path / "away")
    (tmp_path / "mine").symlink_to(snapshot)
    for way in (snapshot, tmp_path / "mine"):
        if own is None:
            with pytest.raises(ValueError, match="lies outside"):
                folder(way, 2)
        else:
            assert folder(way, 2).names == ("1.png",)
    (snapshot / "1.png").unlink()
    moved(tmp_path / "away" / "secret.png", tmp_path / "secret.png") if how != "blobs" else None
    (snapshot / "1.png").symlink_to(tmp_path / "away")  # past the blobs, in any cache
    with pytest.raises(ValueError, match="lies outside"):
        folder(snapshot, 2)


def test_a_local_folder_of_links_into_a_hub_s_blobs_is_read(tmp_path):
    """As `snapshot_download(local_dir=…)` filled one, whole, until 2024."""
    snapshot = snapshot_of(tmp_path / "hub", ("1.png", "train/2.png"))
    local = tmp_path / "local"
    for name in ("1.png", "train/2.png", "metadata.jsonl"):
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).symlink_to((snapshot / name).resolve())
    assert folder(local, 2).names == ("1.png", "train/2.png")


@pytest.mark.parametrize(
    "place", ["away/1.png", "blobs/77aa", "a--b/blobs/77aa", "datasets--a--b/blobs/my photo.png"]
)
def test_a_link_to_what_is_no_hub_s_blob_is_refused(tmp_path, place):
    local = tmp_path / "local"
    write_one(local, tmp_path / place, "1.png")
    (local / "1.png").symlink_to(tmp_path / place)
    with pytest.raises(ValueError, match="lies outside"):
        folder(local, 2)


def read_bytes(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "metadata.jsonl").write_text(json.dumps(entry(name)))
    return folder(tmp_path, 2).images[0, 0, 0].astype(int)


ORANGE = (200, 100, 50)
UPSIDE_DOWN = (
    b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x03\x00\x00\x00" + bytes(4)
)
PACKED = zlib.compress(bytes(3 * 10**6))  # unpacks to more than Pillow allows a text


def test_damaged_exif_does_not_spoil_a_good_image(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), ORANGE).save(file, "JPEG", exif=bad_exif())
    assert np.abs(read_bytes(tmp_path, file.getvalue(), "1.jpg") - ORANGE).max() < 6


@pytest.mark.parametrize(
    "damaged",
    [
        *[chunk(name, b"abc\x00\x00xyz", 0) for name in (b"iCCP", b"eXIf", b"tEXt", b"tIME")],
        *[chunk(name, b"a") for name in (b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"acTL")],
        *[chunk(name, b"") for name in (b"iCCP", b"eXIf", b"sRGB", b"fcTL")],
        *[chunk(name, b"a\x00\x00" + PACKED) for name in (b"iCCP", b"zTXt")],
        chunk(b"iCCP", b"a\x00\x07"),
    ],
)
def test_damage_beside_the_pixels_of_a_png_does_not_matter(tmp_path, damaged):
    data = png(RGB, 8, bytes(ORANGE), None, damaged)
    assert (read_bytes(tmp_path, data, "1.png") == ORANGE).all()
    clear = png(RGB, 8, bytes(ORANGE), words(*ORANGE), damaged)
    assert (read_bytes(tmp_path, clear, "1.png") == 255).all()  # transparency stays


@pytest.mark.parametrize(
    ("marker", "damaged"),
    [
        (0xE2, b"ICC_PROFILE\x00"),
        (0xE2, b"ICC_PROFILE\x00\x01"),
        (0xE2, b"ICC_PROFILE\x00\x01\x01abc"),
        (0xE2, b"MPF\x00II*\x00\x08\x00\x00\x00" + b"\xff" * 30),
        (0xE1, bad_exif()),
        (0xE0, b"JFIF\x00"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff\xff"),
        (0xEE, b"Adobe"),
    ],
)
def test_damage_beside_the_pixels_of_a_jpeg_does_not_matter(tmp_path, marker, damaged):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), ORANGE).save(file, "JPEG")
    segment = bytes([0xFF, marker]) + words(len(damaged) + 2) + damaged
    data = file.getvalue()[:2] + segment + file.getvalue()[2:]
    assert np.abs(read_bytes(tmp_path, data, "1.jpg") - ORANGE).max() < 6


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_damaged_profile_does_not_lose_the_orientation(tmp_path, format):
    image = Image.new("RGB", (16, 16), RED)
    image.paste(BLUE, (0, 0, 16, 8))
    file = io.BytesIO()
    image.save(file, format, exif=b"Exif\x00\x00" + UPSIDE_DOWN)
    data = file.getvalue()
    if format == "PNG":
        data = data[:33] + chunk(b"iCCP", b"a") + data[33:]
    else:
        data = data[:2] + b"\xff\xe2" + words(14) + b"ICC_PROFILE\x00" + data[2:]
    assert read_bytes(tmp_path, data, "1.png")[0] > 200  # red is above


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_damaged_pixels_are_refused_whatever_stands_beside_them(tmp_path, format, cut):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format)
    with pytest.raises(ValueError, match="not a readable image"):
        read_bytes(tmp_path, file.getvalue()[: int(cut * len(file.getvalue()))], "1.png")
