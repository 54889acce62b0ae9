"""The page that draws, in headless Chromium: CPU time of an image by kernel, numbers and steps.

It also measures the opening: from navigation until it can draw, and until the first image.

Beside it, two libraries do the same: onnxruntime-web and LiteRT.js, with one thread, each with the
same flow and decoder as one file for each number of steps. They come by npm, and only for this.

Writes `genlib/records/browser.json`. It counts what the page's thread computes, from noise to
pixels, so other work on the machine changes little. An opening is told by the clock, so nothing
else should run. Needs: apt install chromium chromium-driver npm
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from selenium import webdriver

from genlib import bench, pretrained, records, weights
from genlib.bench import count
from genlib.models.flow import Flow
from genlib.models.tokenizer import GRID
from genlib.speed import export

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "scripts")]
import chromium  # noqa: E402
import draw  # noqa: E402
import kernel  # noqa: E402
from vendor import unpack  # noqa: E402

PAGE = ROOT / "book" / "_assets" / "draw"
IMAGES, ROUNDS, STEPS = 12, 3, (1, 2, 4)
OPENINGS = 9  # of each program; the interval of their median holds it in 96 % of cases
# The libraries' packages: version, and the files that a page loads.
PEERS = {
    "onnxruntime-web": (
        "1.30.0",
        [
            "dist/ort.wasm.min.mjs",
            "dist/ort-wasm-simd-threaded.mjs",
            "dist/ort-wasm-simd-threaded.wasm",
        ],
    ),
    "@litertjs/core": ("2.5.3", ["dist/index.js", "wasm/litert_wasm_internal.*"]),
    "@litertjs/wasm-utils": ("2.5.3", ["dist/*.js"]),
}
LIBRARY = {name: "onnxruntime-web" if "onnx" in name else "LiteRT.js" for name in PEERS}
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


# The most that one thread can do: products and sums in registers, nothing in memory.
PEAK = """
#include <wasm_simd128.h>
__attribute__((export_name("peak"))) float peak(int n) {
  v128_t x = wasm_f32x4_splat(0.999f), sum[8];
  for (int k = 0; k < 8; k++) sum[k] = wasm_f32x4_splat(k);
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 8; k++) sum[k] = MULTIPLY_ADD(sum[k], x, x);
  float all = 0;
  for (int k = 0; k < 8; k++) all += wasm_f32x4_extract_lane(sum[k], 0);
  return all;
}
"""
MULTIPLY_ADD = {
    "kernel-relaxed.wasm": "__builtin_wasm_relaxed_madd_f32x4(a, b, c)",
    "kernel-simd.wasm": "wasm_f32x4_add(wasm_f32x4_mul(a, b), c)",
}
EACH = 8 * 4 * 2  # operations of a turn of that loop
MAKE_PEAK = """
const done = arguments[1];
(async () => {
  const bytes = await (await fetch(`/${arguments[0]}`)).arrayBuffer();
  const { peak } = (await WebAssembly.instantiate(bytes)).instance.exports;
  window.draw = (turns, n) => { for (let i = 0; i < n; i++) peak(turns); };
})().then(() => done(0), (error) => done(String(error)));
"""
EMPTY = """<!doctype html><title>x</title><script type="importmap">
{"imports": {"@litertjs/wasm-utils": "/peers/@litertjs/wasm-utils/index.js"}}</script>"""
# Each opens the files of one kind, and sets `draw` as above, but for its promise.
MAKE_PEER = {
    "onnxruntime-web": """
const [kind, steps, width, shape] = arguments, done = arguments[4];
(async () => {
  const ort = await import("/peers/onnxruntime-web/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/peers/onnxruntime-web/";
  const size = shape.reduce((a, b) => a * b);
  const noise = new ort.Tensor(
    "float32", Float32Array.from({ length: size }, (_, i) => 1.4 * Math.sin(i * i)), shape);
  const text = new ort.Tensor("float32", new Float32Array(width).fill(0.1), [1, width]);
  const sessions = {};
  for (const n of steps)
    sessions[n] = await ort.InferenceSession.create(`/files/${kind}-${n}.onnx`);
  window.draw = async (steps, n) => {
    for (let i = 0; i < n; i++) await sessions[steps].run({ noise, text });
  };
})().then(() => done(0), (error) => done(String(error)));
""",
    "LiteRT.js": """
const [kind, steps, width, shape] = arguments, done = arguments[4];
(async () => {
  const lite = await import("/peers/@litertjs/core/index.js");
  await lite.loadLiteRt("/peers/@litertjs/core/");
  const size = shape.reduce((a, b) => a * b);
  const given = [
    [Float32Array.from({ length: size }, (_, i) => 1.4 * Math.sin(i * i)), shape],
    [new Float32Array(width).fill(0.1), [1, width]],
  ];
  const models = {};
  for (const n of steps)
    models[n] = await lite.loadAndCompile(`/files/${kind}-${n}.tflite`, { accelerator: "wasm" });
  window.draw = async (steps, n) => {
    for (let i = 0; i < n; i++) {
      const put = given.map((one) => new lite.Tensor(...one));
      const made = await models[steps].run(put);
      for (const one of made) await one.data();
      for (const one of [...put, ...made]) one.delete();
    }
  };
})().then(() => done(0), (error) => done(String(error)));
""",
}

# All that the page needs: it reads the prompt too, and draws in a worker.
MAKE_PAGE = """
const [prompt] = arguments, done = arguments[1];
(async () => {
  const { open } = await import("/draw/studio.js");
  const made = await open(() => {});
  await made.prepare(false);
  window.draw = (steps, n) =>
    made.draw(made.writer.describe(prompt, n, 0n), 0n, steps, () => {});
})().then(() => done(0), (error) => done(String(error)));
"""
PROMPT = "a beautiful sunset over a calm sea"  # which the page shows
# Makes a program as soon as the page comes, lets it draw, and tells when, from the navigation on.
OPENING = """<script type="module">
window.opening = new Promise((tell) => {
  const done = async (made) => {
    if (typeof made === "string") return tell({ error: made });
    const ready = performance.now() / 1000;
    try {
      await window.draw(STEPS, 1);
    } catch (error) {
      return tell({ error: String(error) });
    }
    const first = performance.now() / 1000;
    const came = performance.getEntriesByType("resource");
    tell({ ready, first, bytes: came.reduce((sum, file) => sum + file.encodedBodySize, 0) });
  };
  (function () {MAKE})(...GIVEN, done);
});
</script>"""


def on_cpu(process: psutil.Process) -> float:
    """Seconds that the main thread of a process has computed, whatever else its core did."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text()
    return int(text.split()[0]) / 1e9


def timed(driver: webdriver.Chrome, steps: int) -> list[float]:
    """Milliseconds of an image: the median, the least and the most of the rounds."""
    children = psutil.Process(driver.service.process.pid).children(recursive=True)
    pages = [p for p in children if "--type=renderer" in p.cmdline()]
    draw = """const [steps, n, done] = arguments;
    (async () => draw(steps, n))().then(() => done(0), (error) => done(String(error)));"""
    if error := driver.execute_async_script(draw, steps, 4):  # warm
        raise RuntimeError(error)
    times = []
    for _ in range(ROUNDS):
        before = [on_cpu(p) for p in pages]
        driver.execute_async_script(draw, steps, IMAGES)
        spent = max(on_cpu(p) - b for p, b in zip(pages, before, strict=True))
        times.append(1000 * spent / IMAGES)
    return [float(np.median(times)), min(times), max(times)]


def measure(driver: webdriver.Chrome, address: str) -> dict[str, Any]:
    """The page's kernels: milliseconds of an image and bytes of memory."""
    found: dict[str, Any] = {}
    for file in kernel.KERNELS:
        for int8 in (False, True):
            driver.get(f"{address}/empty.html")
            memory = driver.execute_async_script(MAKE, file, int8)
            if not isinstance(memory, int):
                raise RuntimeError(memory)
            for steps in STEPS:
                name = f"{file.removesuffix('.wasm')}, {'int8' if int8 else 'float32'}, {steps}"
                found[name] = {"milliseconds": timed(driver, steps), "memory": memory}
                print(f"{name}: {found[name]['milliseconds'][0]:.1f} ms", flush=True)
    return found


def write_pages(folder: Path, given: list[Any]) -> dict[str, str]:
    """Write a page for each program that opens it at once; return its file by the program."""
    ways: dict[str, tuple[str, list[Any]]] = {"page": (MAKE_PAGE, [PROMPT])}
    for kind in ("float32", "int8"):
        for file in kernel.KERNELS:
            ways[f"{file.removesuffix('.wasm')}, {kind}"] = (MAKE, [file, kind == "int8"])
        for library, make in MAKE_PEER.items():
            ways[f"{library}, {kind}"] = (make, [kind, [STEPS[-1]], *given])
    pages = {}
    for i, (name, (make, arguments)) in enumerate(ways.items()):
        values = {"STEPS": str(STEPS[-1]), "GIVEN": json.dumps(arguments), "MAKE": make}
        script = OPENING
        for word, value in values.items():
            script = script.replace(word, value)
        pages[name] = f"opening-{i}.html"
        (folder / pages[name]).write_text(EMPTY + script)
    return pages


def openings(address: str, pages: dict[str, str]) -> dict[str, Any]:
    """Seconds from navigation until a program can draw, and until its first image; bytes fetched.

    Each opening has a browser of its own, so that nothing is cached and nothing compiled. The
    programs take turns: what changes on the machine reaches all of them.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
    for _ in range(OPENINGS):
        for name, page in pages.items():
            with chromium.opened() as driver:
                driver.get(f"{address}/empty.html")
                time.sleep(1)  # a browser that has just started is still busy with itself
                driver.get(f"{address}/{page}")
                one = driver.execute_async_script("window.opening.then(arguments[0])")
            if "error" in one:
                raise RuntimeError(f"{name}: {one['error']}")
            found[name].append(one)
    summary: dict[str, Any] = {}
    for name, rows in found.items():
        summary[name] = {
            what: bench.median_and_interval([row[what] for row in rows])
            for what in ("ready", "first")
        } | {"bytes": max(int(row["bytes"]) for row in rows)}
        print(f"{name}: first image after {summary[name]['first'][0]:.2f} s", flush=True)
    return summary


def limits(driver: webdriver.Chrome, address: str, folder: Path) -> dict[str, float]:
    """Operations a second of each kind of SIMD in this browser, in one thread, at best."""
    found = {}
    for name, how in MULTIPLY_ADD.items():
        (folder / "peak.c").write_text(f"#define MULTIPLY_ADD(a, b, c) {how}\n{PEAK}")
        flags = [*kernel.FLAGS, *kernel.KERNELS[name], "-o", f"peak-{name}", "peak.c"]
        subprocess.run([kernel.CLANG, *flags], cwd=folder, check=True)
        driver.get(f"{address}/empty.html")
        if error := driver.execute_async_script(MAKE_PEAK, f"peak-{name}"):
            raise RuntimeError(error)
        turns = 10**6
        found[name.removesuffix(".wasm")] = turns * EACH / timed(driver, turns)[1] * 1000
        print(f"{name}: {found[name.removesuffix('.wasm')] / 1e9:.1f} GFLOP/s at best", flush=True)
    return found


def operations() -> dict[str, int]:
    """Operations of an image, from noise to pixels, by number of steps."""
    flow, decoder = pretrained.load("flow-shortcut"), pretrained.load_tokenizer().decoder
    pixels = count.network(decoder, 1)
    return {
        str(steps): (count.flow(flow.config, 1, steps=steps, guidance=1.0) + pixels).flops
        for steps in STEPS
    }


def latents(flow: Flow) -> tuple[int, int, int]:
    """The shape of what the flow draws."""
    return GRID, GRID, flow.config.channels


def write_files(folder: Path) -> dict[str, int]:
    """Write the flow and the decoder for both libraries; return the bytes of each file."""
    flow, decoder = pretrained.load("flow-shortcut"), pretrained.load_tokenizer().decoder
    examples = {
        "noise": np.zeros((1, *latents(flow)), np.float32),
        "text": np.zeros((1, flow.config.text_width), np.float32),
    }
    folder.mkdir()
    sizes = {}
    for steps in STEPS:
        whole = export.flow_function(flow, decoder, steps=steps)
        float32, int8 = (folder / f"{kind}-{steps}.onnx" for kind in ("float32", "int8"))
        sizes[float32.name] = export.to_onnx(whole, float32, **examples)
        sizes[int8.name] = export.int8(float32, int8)
        for kind in ("float32", "int8"):
            path = folder / f"{kind}-{steps}.tflite"
            sizes[path.name] = export.to_litert(
                whole, path, int8=kind == "int8", fixed=True, **examples
            )
    return sizes


def measure_peers(
    driver: webdriver.Chrome, address: str, folder: Path, given: list[Any]
) -> dict[str, Any]:
    """The two libraries: milliseconds of an image, and bytes to fetch before the first one.

    `given` is the width of a text and the shape of a noise.
    """
    sizes = write_files(folder / "files")
    fetched = dict.fromkeys(MAKE_PEER, 0)
    for name, (version, files) in PEERS.items():
        goal = folder / "peers" / name
        goal.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as place:
            package = unpack(name, version, Path(place))
            for file in files:
                for path in package.glob(file):
                    shutil.copy(path, goal)
                    fetched[LIBRARY[name]] += path.stat().st_size
    found: dict[str, Any] = {}
    for library, make in MAKE_PEER.items():
        for kind in ("float32", "int8"):
            driver.get(f"{address}/empty.html")
            if error := driver.execute_async_script(make, kind, list(STEPS), *given):
                raise RuntimeError(f"{library}, {kind}: {error}")
            ending = "onnx" if library == "onnxruntime-web" else "tflite"
            for steps in STEPS:
                name = f"{library}, {kind}, {steps}"
                found[name] = {
                    "milliseconds": timed(driver, steps),
                    "bytes": fetched[library] + sizes[f"{kind}-{steps}.{ending}"],
                }
                print(f"{name}: {found[name]['milliseconds'][0]:.1f} ms", flush=True)
    return found


def main(
    save: Annotated[bool, typer.Option(help="Write the record.")] = True,
) -> None:
    """Measures the page that draws, and two libraries that could draw in its place."""
    if reason := chromium.missing() or kernel.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PAGE, folder / "draw")
        draw.provide(folder / "draw" / "weights")
        (folder / "empty.html").write_text(EMPTY)
        flow = pretrained.load("flow-shortcut")
        given = [flow.config.text_width, [1, *latents(flow)]]
        own = sum(
            (PAGE / file).stat().st_size
            for file in ("kernel.js", "kernel-relaxed.wasm", "weights.js")
        )
        for part in ("flow-shortcut", "tokenizer"):
            own += sum(file.stat().st_size for file in weights.paths(weights.SHIPPED / part))
        with chromium.served(folder) as address:
            with chromium.opened() as driver:
                most = limits(driver, address, folder)
                ways = measure(driver, address)
                for way in ways.values():
                    way["bytes"] = own
                ways |= measure_peers(driver, address, folder, given)
                version = driver.capabilities["browserVersion"]
            opening = openings(address, write_pages(folder, given))
    bytes_served = {
        file.name: file.stat().st_size for file in PAGE.iterdir() if file.suffix in (".js", ".wasm")
    }
    versions = {name: version for name, (version, _) in PEERS.items()}
    if save:
        record = {"chromium": version, "peers": versions, "bytes": bytes_served, "ways": ways}
        record |= {
            "openings": OPENINGS,
            "opening": opening,
            "limits": most,
            "operations": operations(),
        }
        records.save("browser", record)


if __name__ == "__main__":
    typer.run(main)
