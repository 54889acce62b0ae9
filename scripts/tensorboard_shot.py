"""Take the book's picture of TensorBoard: one epoch of the article's GAN, seen in a browser.

    python scripts/tensorboard_shot.py      # --help tells more

Needs TensorFlow, TensorBoard, Selenium and Chromium with its driver (Debian: chromium,
chromium-driver). Everything stays on this machine: TensorBoard listens on the loopback only.
"""

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.request import urlopen

import chromium
import typer
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
OUTPUT = Path(__file__).resolve().parent.parent / "book" / "_assets" / "images" / "tensorboard.png"
WIDTH, HEIGHT = 1280, 1250  # pixels of the window
LIMIT = 300_000  # bytes
CLOSE_SETTINGS = """
    [...document.querySelectorAll('button')]
        .filter(button => button.innerText.includes('Settings'))
        .forEach(button => button.click())
"""


def write_run(folder: Path) -> None:
    """Train the article's GAN for one epoch; write both losses and samples as the book does."""
    import tensorflow as tf

    from genlib import plot
    from genlib.data import fashion_mnist
    from genlib.models.gan import GANConfig
    from genlib.train.gan import GANTask

    task = GANTask(fashion_mnist().train_images, GANConfig(step="two-stage"), seed=0)
    writer = tf.summary.create_file_writer(str(folder / "two-stage"))
    with writer.as_default():
        for step, losses in enumerate(task.epoch(0)):
            if step % 10 == 0:
                for name, value in losses.items():
                    tf.summary.scalar(f"loss/{name}", value, step=step)
                tf.summary.image("samples", plot.sheet(task.sample()[:24])[None], step=step)
    writer.close()


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Serve the folder on a free port of the loopback; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), urlopen(address, timeout=2):
                break
            time.sleep(0.5)
        else:
            raise TimeoutError(f"TensorBoard did not answer at {address} within a minute.")
        yield address
    finally:
        server.terminate()
        server.wait()


def photograph(address: str) -> Image.Image:
    """Open the page in headless Chromium and wait until its charts and images are drawn."""
    with chromium.opened("hide-scrollbars", f"window-size={WIDTH},{HEIGHT}") as driver:
        driver.set_window_size(WIDTH, HEIGHT)
        driver.get(f"{address}?darkMode=false#timeseries")
        drawn = "return document.querySelectorAll('line-chart, image-card img, image-card').length"
        deadline = time.monotonic() + 90
        while driver.execute_script(drawn) < 3 and time.monotonic() < deadline:
            time.sleep(1)
        driver.execute_script(CLOSE_SETTINGS)
        time.sleep(6)  # the charts are canvases: nothing in the page tells when they are painted
        return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def main(
    output: Annotated[Path, typer.Argument(help="The PNG to write.")] = OUTPUT,
) -> None:
    """Write the run, take the picture, store it with at most 256 colours."""
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder))
        with tensorboard(Path(folder)) as address:
            image = photograph(address)
    image.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)
    size = os.path.getsize(output)
    print(f"{output.name}: {image.width}×{image.height} pixels, {size / 1000:.0f} kB")
    if size > LIMIT:
        raise SystemExit(f"The picture is larger than {LIMIT / 1000:.0f} kB.")


if __name__ == "__main__":
    typer.run(main)
