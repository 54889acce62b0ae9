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
    with pytest.raises(ValueError, match=r"1\.png is not a readable image"):
        folder(tmp_path)
    (tmp_path / "1.png").write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # of 64: Pillow only warns
    with pytest.raises(ValueError, match=r"1\.png .*bomb"):
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


def png(mode, value, clear=None, bits=8):
    """One PNG pixel by hand: Pillow does not write colours of 16 bits."""
    kinds = {"L": 0, "RGB": 2}
    width = bits // 8
    row = b"\x00" + b"".join(v.to_bytes(width, "big") for v in value)

    def chunk(name, data):
        body = name + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = (1).to_bytes(4, "big") * 2 + bytes([bits, kinds[mode], 0, 0, 0])
    found = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    if clear is not None:
        found += chunk(b"tRNS", b"".join(v.to_bytes(2, "big") for v in clear))
    return found + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "value", "clear", "bits", "pixel"),
    [
        ("L", (7,), None, 8, (7, 7, 7)),
        ("L", (7,), (7,), 8, (255, 255, 255)),
        ("L", (7,), (8,), 8, (7, 7, 7)),
        ("L", (0x0700,), (0x0700,), 16, (255, 255, 255)),
        ("L", (0x0700,), (0x0701,), 16, (7, 7, 7)),
        ("L", (0xFFFF,), None, 16, (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 3), 8, (255, 255, 255)),
        ("RGB", (1, 2, 3), (3, 2, 1), 8, (1, 2, 3)),
        ("RGB", (0x0102, 0x0203, 0x0304), (0x0102, 0x0203, 0x0304), 16, (255, 255, 255)),
        ("RGB", (0x0102, 0x0203, 0x0304), (0xFF00, 0, 0), 16, (1, 2, 3)),
    ],
)
def test_transparency_of_every_depth_is_white(mode, value, clear, bits, pixel):
    image = Image.open(io.BytesIO(png(mode, value, clear, bits)))
    assert tuple(square(image, 1)[0, 0]) == pixel


def write_one(tmp_path, file, name):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (9, 8, 7)).save(file, "PNG")
    tmp_path.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"file_name": name, "text": "a grey square"})
    (tmp_path / "metadata.jsonl").write_text(line + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("on_disk", "in_line"),
    [(" 1.png", " 1.png"), ("夕阳 海.png", "夕阳 海.png"), ("e\u0301.png", "\u00e9.png")],
)
def test_names_with_spaces_and_other_unicode_forms_are_found(tmp_path, on_disk, in_line):
    write_one(tmp_path, tmp_path / on_disk, in_line)
    assert folder(tmp_path, 2).images[0, 0, 0].tolist() == [9, 8, 7]


def test_a_snapshot_in_the_cache_of_a_hub_is_read(tmp_path):
    snapshot, blobs = tmp_path / "datasets--a--b/snapshots/0f", tmp_path / "datasets--a--b/blobs"
    write_one(snapshot, blobs / "77aa", "1.png")
    (snapshot / "1.png").symlink_to("../../blobs/77aa")
    assert len(folder(snapshot)) == 1
    (snapshot / "1.png").unlink()
    (snapshot / "1.png").symlink_to(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="lies outside"):
        folder(snapshot)


def test_damaged_exif_does_not_spoil_a_good_image(tmp_path):
    file = tmp_path / "1.jpg"
    Image.new("RGB", (8, 8), (200, 100, 50)).save(file, exif=bad_exif())
    line = json.dumps({"file_name": "1.jpg", "text": "orange"})
    (tmp_path / "metadata.jsonl").write_text(line)
    assert abs(int(folder(tmp_path, 2).images[0, 0, 0, 0]) - 200) < 6
