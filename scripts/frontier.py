"""Draw the frontier of the first page, from the recorded ladder."""

from pathlib import Path

from genlib import ladder, plot, records

IMAGES = Path(__file__).resolve().parent.parent / "book" / "_assets" / "images"
BESIDE = (
    *("compiled step", "one loop", "compiled", "ONNX", "2 blocks"),
    *("50 steps, XLA", "16 steps", "16 steps, interval", "shortcut, 4 steps", "shortcut, 2 steps"),
    "shortcut, 1 step",
    *("shortcut, 2 steps, LiteRT int8", "small shortcut, 4 steps, LiteRT int8", "coarse to fine"),
)


def main() -> None:
    """Writes frontier.png."""
    record = records.load("ladder")
    figure = plot.frontier(
        ladder.points(record, "scenes", "fid", BESIDE),
        references={"real against real": record["floor"]["scenes"][0]},
        title="Images from text: from the naive start to the fast end",
    )
    (IMAGES / "frontier.png").write_bytes(figure.png())


if __name__ == "__main__":
    main()
