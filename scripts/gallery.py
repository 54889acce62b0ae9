"""Draws the images of the front page and of the gallery, with the shipped weights.

    python scripts/gallery.py       # about five minutes on two cores; writes book/_assets/images

Nothing is chosen by hand: each sheet is what `genlib generate PROMPT -n 64` gives with seed 0.
"""

from pathlib import Path

import numpy as np

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
HERO = ("sunset-sea", "snow-mountains", "night-city", "balloon-hills")


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


if __name__ == "__main__":
    main()
