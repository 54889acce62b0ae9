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
}
TITLE = "Image Generation at Speed"
SUBTITLE = "A book that runs: the new momentum of LLMs"
HERO = ("sunset-sea", "snow-mountains", "night-city", "balloon-hills")


def card(hero: Path) -> Image.Image:
    """Returns what other sites show of a page that they link to: title and images, 1200×630.

    It shows the front page's images, enlarged without smoothing, under the title.
    """
    with Image.open(hero) as image:
        rows = image.convert("RGB").resize(
            (1200, 1200 * image.height // image.width), Image.NEAREST
        )
    made = Image.new("RGB", (1200, 630), "#F5F5F2")
    made.paste(rows, (0, 630 - rows.height))
    pen = ImageDraw.Draw(made)
    for top, size, text in ((60, 58, TITLE), (138, 32, SUBTITLE)):
        font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
        pen.text((600, top), text, font=font, fill="#24292F", anchor="mm")
    return made


def main() -> None:
    """Draws and writes."""
    rows = []
    for name, prompt in PROMPTS.items():
        sheet = pipeline.generate(prompt, 64).images
        plot.save_png(sheet, IMAGES / f"gallery-{name}.png")
        if name in HERO:
            rows.append(pipeline.generate(prompt, 12, best_of=4).images)
        print(name, flush=True)
    plot.save_png(np.concatenate(rows), IMAGES / "hero.png", columns=12)
    card(IMAGES / "hero.png").save(IMAGES / "social-card.png", optimize=True)


if __name__ == "__main__":
    main()
