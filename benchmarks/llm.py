"""The language model against its peer: the same tokens, from the same file, on as many threads.

Needs the extra `text`. Each number of threads runs in a fresh process: pools are sized once.

    python benchmarks/llm.py        # ten minutes; writes genlib/records/llm.json
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

TOKENS = 32  # written for each prompt
SUBJECTS = ("sunset", "dawn", "storm at sea", "forest", "desert", "river", "city", "mountain")


def measure(threads: int) -> dict[str, object]:
    """Compares greedy decoding, one prompt at a time and eight, in a process of its own."""
    from genlib import bench

    bench.fix_threads(threads)
    import torch
    import transformers

    from genlib.text import llm as module

    torch.set_num_threads(threads)
    path = module.shipped()
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    started = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=transformers.GgufConfig(dequantize=True)
    )
    loaded = time.perf_counter()
    llm = module.load_llm()
    again = time.perf_counter()
    module.load_llm()
    load = {
        "transformers": loaded - started,
        "genlib": again - loaded,
        "genlib, again": time.perf_counter() - again,
    }

    prompts = [llm.chat(f"Describe a {subject} in three long sentences.") for subject in SUBJECTS]
    record = {"load_seconds": load, "tokens": TOKENS}
    for batch in (1, len(prompts)):
        asked = tokenizer(prompts[:batch], return_tensors="pt", padding=True)

        def peer(asked=asked):
            new = model.generate(
                **asked, max_new_tokens=TOKENS, do_sample=False, pad_token_id=llm.end
            )
            return tokenizer.batch_decode(
                new[:, asked["input_ids"].shape[1] :], skip_special_tokens=True
            )

        def ours(batch=batch):
            return llm.generate(prompts[:batch], max_tokens=TOKENS)

        assert peer() == ours()  # the same texts, or the comparison would mean nothing
        comparison = bench.compare({"transformers": peer, "genlib": ours}, warmup=1)
        record[f"batch of {batch}"] = json.loads(comparison.to_json())
        rates = {n: r.rate(batch * TOKENS)[0] for n, r in comparison.records.items()}
        print(threads, "threads, batch", batch, {n: f"{v:.1f} tokens/s" for n, v in rates.items()})
        fast = comparison["genlib"]
        print("  ", bench.format_ratio(fast.ratio, fast.low, fast.high), flush=True)
    return record


def main(
    threads: Annotated[int, typer.Option(hidden=True, help="Measure here, with so many.")] = 0,
    out: Annotated[Path | None, typer.Option(hidden=True, help="Where the result goes.")] = None,
) -> None:
    """Measures with one thread and with two, and writes the record."""
    if out is not None:
        out.write_text(json.dumps(measure(threads)))
        return
    if importlib.util.find_spec("transformers") is None:
        print("benchmarks/llm.py is left out: pip install 'genlib[text]' brings its peer.")
        return
    from genlib import records

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (1, 2):
            part = Path(folder) / f"{n}.json"
            command = [sys.executable, __file__, "--threads", str(n), "--out", str(part)]
            subprocess.run(command, check=True)
            rows[f"{n} threads"] = json.loads(part.read_text())
    records.save("llm", {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
