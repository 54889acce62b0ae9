"""Draws the images of the front page and of the gallery, with the shipped weights.

    python scripts/gallery.py       # about five minutes on two cores; writes book/_assets/images

Nothing is chosen by hand: each sheet is what `genlib generate PROMPT -n 64` gives with seed 0.
"""

from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from genlib import pipeline, plot

IMAGES = Path(__file__).resolve().parent.parent / "book" / "_assets" / "images"
PROMPTS = {
    "sunset-sea": "a beautiful sunset over a calm sea",
    "sunset-zh": "生成一张美丽的夕阳图像",
    "night-city": "a city at night",
    "snow-mountains": "snowy mountains at dawn",
    "balloon-hills": "a hot-air balloon over green hills",
    "house-lake-zh": "湖边的小屋，清晨，薄雾",
    "boat-night-zh": "夜晚的海上，一艘小船，月亮在右边",
    "desert-tree": "a lone tree in the desert at noon",
    "storm-sea": "a storm at sea",
    "snow-city-zh": "下雪的城市",
    "balloon-mountains-zh": "晴朗的下午，群山前的热气球",
    "house-desert-zh": "日出时，沙漠里的小屋",
}
HERO = ("balloon-mountains-zh", "sunset-sea", "boat-night-zh", "desert-tree")  # of the front page
COLUMNS = 6
TITLE = "Image Generation at Speed"
SUBTITLE = "A book that runs: the new momentum of LLMs"


def card(images: np.ndarray) -> Image.Image:
    """Returns what other sites show of a page that they link to: title and images, 1200×630.

    Args:
        images: uint8 `(12, 64, 64, 3)`; each gets a square of 200 pixels, without smoothing.
    """
    made = Image.new("RGB", (1200, 630), "#F5F5F2")
    for i, image in enumerate(images):
        square = Image.fromarray(image).resize((200, 200), Image.Resampling.NEAREST)
        made.paste(square, (200 * (i % 6), 230 + 200 * (i // 6)))
    pen = ImageDraw.Draw(made)
    for top, size, text in ((60, 58, TITLE), (138, 32, SUBTITLE)):
        font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
        pen.text((600, top), text, font=font, fill="#24292F", anchor="mm")
    return made


def main() -> None:
    """Draws and writes."""
    rows = {}
    for name, prompt in PROMPTS.items():
        sheet = pipeline.generate(prompt, 64).images
        plot.save_png(sheet, IMAGES / f"gallery-{name}.png")
        if name in HERO:
            rows[name] = sheet[:COLUMNS]
            plot.save_png(rows[name], IMAGES / f"hero-{name}.png", columns=COLUMNS)
        print(name, flush=True)
    shown = [rows[name] for name in HERO]
    plot.save_png(np.concatenate(shown), IMAGES / "hero.png", columns=COLUMNS)
    halves = np.concatenate([row[: COLUMNS // 2] for row in shown])
    card(halves).save(IMAGES / "social-card.png", optimize=True)


if __name__ == "__main__":
    main()
