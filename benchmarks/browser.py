"""The page that draws, in headless Chromium: CPU time of an image by kernel, numbers and steps.

Writes `genlib/records/browser.json`. It counts what one thread of the browser computes, from noise
to pixels, so other work on the machine changes little. Needs: apt install chromium chromium-driver
"""

import functools
import shutil
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from selenium import webdriver

from genlib import records, weights

PAGE = Path(__file__).resolve().parent.parent / "book" / "_assets" / "draw"
IMAGES, ROUNDS = 12, 3
# Makes both networks of a kernel; `draw` draws n times the same image from a fixed noise.
MAKE = """
const [kernel, int8] = arguments, done = arguments[2];
(async () => {
  const { load } = await import("/draw/weights.js");
  const { Kernel, Flow, Decoder } = await import("/draw/kernel.js");
  const file = async (name) => {
    const { card, buffer } = await load(new URL("/draw/weights/", location), name);
    return { buffer, config: card.config };
  };
  const files = [await file("flow-shortcut"), await file("tokenizer")];
  const bytes = await (await fetch(`/draw/${kernel}`)).arrayBuffer();
  const room = new Kernel(await WebAssembly.compile(bytes));
  const [flow, decoder] = [new Flow(room, files[0], int8), new Decoder(room, files[1], int8)];
  const noise = Float32Array.from({ length: flow.size }, (_, i) => 1.4 * Math.sin(i * i));
  const text = new Float32Array(flow.textWidth).fill(0.1);
  window.draw = (steps, n) => {
    for (let i = 0; i < n; i++) decoder.decode(flow.sample(text, noise, { steps }));
  };
  return room.bytes;
})().then(done, (error) => done(String(error)));
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def on_cpu(process: psutil.Process) -> float:
    """Seconds that the main thread of a process has computed, whatever else its core did."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text()
    return int(text.split()[0]) / 1e9


def measure(driver: webdriver.Chrome, address: str) -> dict[str, Any]:
    """Milliseconds of an image, each with the least and the most of the rounds."""
    found: dict[str, Any] = {}
    for kernel in ("kernel-relaxed.wasm", "kernel-simd.wasm"):
        for int8 in (False, True):
            driver.get(f"{address}/empty.html")
            memory = driver.execute_async_script(MAKE, kernel, int8)
            if not isinstance(memory, int):
                raise RuntimeError(memory)
            children = psutil.Process(driver.service.process.pid).children(recursive=True)
            pages = [p for p in children if "--type=renderer" in p.cmdline()]
            for steps in (1, 2, 4):
                driver.execute_script("draw(arguments[0], 4)", steps)  # warm
                times = []
                for _ in range(ROUNDS):
                    before = [on_cpu(p) for p in pages]
                    driver.execute_script("draw(...arguments)", steps, IMAGES)
                    spent = max(on_cpu(p) - b for p, b in zip(pages, before, strict=True))
                    times.append(1000 * spent / IMAGES)
                name = f"{kernel.removesuffix('.wasm')}, {'int8' if int8 else 'float32'}, {steps}"
                found[name] = {
                    "milliseconds": [float(np.median(times)), min(times), max(times)],
                    "memory": memory,
                }
                print(f"{name}: {np.median(times):.1f} ms", flush=True)
    return found


def main(
    save: Annotated[bool, typer.Option(help="Write the record.")] = True,
) -> None:
    """Measures the page that draws."""
    for tool in ("chromium", "chromedriver"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed: apt install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PAGE, folder / "draw")
        (folder / "draw" / "weights").mkdir()
        (folder / "empty.html").write_text("<!doctype html><title>x</title>")
        for part in ("flow-shortcut", "tokenizer"):
            for file in weights.paths(weights.SHIPPED / part):
                shutil.copy(file, folder / "draw" / "weights")
        handler = functools.partial(Quiet, directory=name)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            f"user-data-dir={folder / 'profile'}",
        ):
            options.add_argument(f"--{flag}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        driver.set_script_timeout(600)
        try:
            ways = measure(driver, f"http://127.0.0.1:{server.server_port}")
            version = driver.capabilities["browserVersion"]
        finally:
            driver.quit()
            server.shutdown()
    bytes_served = {
        file.name: file.stat().st_size for file in PAGE.iterdir() if file.suffix in (".js", ".wasm")
    }
    if save:
        records.save("browser", {"chromium": version, "bytes": bytes_served, "ways": ways})


if __name__ == "__main__":
    typer.run(main)
