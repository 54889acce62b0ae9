"""SmolLM2 by transformers, from the file that this library reads itself, and the rungs on it.

Each rung is one set of options of `generate`, greedy, so that all write the same tokens and only
the work differs. llama.cpp, which computes with the four bits of the file, may choose another word.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers

from genlib import bench
from genlib.bench import external, memory, pytorch
from genlib.ladder import bill
from genlib.text import llm as language

COPY = "Repeat this sentence: A small red boat lies on a calm lake at night, under a full moon."
PROMPTS: Mapping[str, str] = {
    "writes": "Describe an image in one sentence: a boat on a calm lake at night.",
    "copies": COPY,  # most of its answer stands in the prompt
}
SLOW = "dynamic cache"  # what the others are compared with
EXIT = 10  # blocks, of 30, after which the draft of `"early exit"` chooses
RUNGS: Mapping[str, Mapping[str, Any]] = {
    "no cache": {"use_cache": False},
    "dynamic cache": {},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "static cache, compiled": {"cache_implementation": "static"},
    "prompt look-up": {"prompt_lookup_num_tokens": 4},
    "early exit as draft": {"assistant_early_exit": EXIT},
}


def load(device: str = "cpu", *, tiny: bool = False) -> tuple[Any, Any]:
    """Returns the tokenizer and the model of SmolLM2, of transformers, in float32.

    Args:
        device: `"cpu"`, `"cuda"` or `"mps"`.
        tiny: a narrow model with random weights in its place, to try every line.

    Raises:
        ImportError: if the package with the file is missing; the message has the command.
    """
    transformers.utils.logging.disable_progress_bar()
    path = language.shipped()
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where, padding_side="left")
    if tiny:
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=EXIT + 1,
            hidden_size=32,
            intermediate_size=64,
            num_attention_heads=2,
            eos_token_id=tokenizer.eos_token_id,
        )
        model: Any = transformers.LlamaForCausalLM(config)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    return tokenizer, model.eval().to(device)


def ask(tokenizer: Any, prompts: Sequence[str], device: str = "cpu") -> Any:
    """Returns prompts as the model's chat has them, as tokens, padded on the left."""
    said = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": language.SYSTEM}, {"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt in prompts
    ]
    return tokenizer(said, return_tensors="pt", padding=True).to(device)


def write(model: Any, asked: Any, tokens: int, **options: Any) -> Any:
    """Writes so many tokens, greedily; returns them without the prompt, int64 `(batch, tokens)`."""
    new = model.generate(
        **asked,
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=-1,  # no end: every way writes as many
        pad_token_id=model.config.eos_token_id,
        **options,
    )
    return new[:, asked["input_ids"].shape[1] :]


def compile_layers(model: Any) -> None:
    """Compiles the blocks of a model; they are alike, so it is done once for all of them."""
    for layer in model.model.layers:
        layer.compile()


def writer(tokenizer: Any, model: Any, tokens: int = 48) -> Callable[[str], str]:
    """Returns a function from a prompt to a text, as `genlib.text.describe` takes it.

    Args:
        tokenizer: of transformers, with a chat template.
        model: a causal language model of transformers.
        tokens: the most tokens to write.
    """
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)

    def ask(prompt: str) -> str:
        chat = [{"role": "user", "content": prompt}]
        answer = pipe(chat, max_new_tokens=tokens, do_sample=False)[0]["generated_text"]
        return str(answer[-1]["content"])

    return ask


def climb(
    tokens: int = 16,
    *,
    device: str | None = None,
    pairs: int = bench.MIN_PAIRS,
    rungs: Sequence[str] = tuple(RUNGS),
    batches: Sequence[int] = (4,),
    tiny: bool = False,
) -> dict[str, Any]:
    """Times every rung on both prompts, all of them in alternation.

    Args:
        tokens: written for each prompt.
        device: `"cpu"`, `"cuda"` or `"mps"`.
        pairs: rounds.
        rungs: of `RUNGS`; the dynamic cache, with which the others are compared, among them.
        batches: so many copies of a prompt at once, with the dynamic cache.
        tiny: a small model, and one prompt, to try every line.

    Returns:
        For each prompt, for each rung: `"tokens_per_second"`, `"ratio"` to the dynamic cache,
        `"same"` (whether the tokens are its), `"first_call"` (s) and `"memory"` (MB); or
        `"error"`. llama.cpp is a rung where `xllamacpp` is installed and the device is a processor.
    """
    device = device or pytorch.device()
    tokenizer, model = load(device, tiny=tiny)
    llama = None
    if device == "cpu" and importlib.util.find_spec("xllamacpp"):
        llama = bill.LlamaCpp(threads=torch.get_num_threads())
    compiled = copy.deepcopy(model)
    compile_layers(compiled)
    result: dict[str, Any] = {}
    for title, prompt in list(PROMPTS.items())[: 1 if tiny else None]:
        asked = ask(tokenizer, [prompt], device)
        ways: dict[str, Callable[[], Any]] = {}
        for name in rungs:
            who = compiled if name == "static cache, compiled" else model
            ways[name] = functools.partial(write, who, asked, tokens, **RUNGS[name])
        for batch in batches:
            many = ask(tokenizer, [prompt] * batch, device)
            ways[f"{SLOW}, batch of {batch}"] = functools.partial(write, model, many, tokens)
        if llama is not None:
            ways["llama.cpp"] = functools.partial(_by_llama, llama, asked, tokens)
        result[title] = _rows(ways, tokenizer, tokens, pairs)
    return result


def alone(name: str, tokens: int = 16, *, device: str | None = None, tiny: bool = False) -> float:
    """Writes once in one way, with nothing else loaded; returns the most memory in use, MB.

    Args:
        name: of `RUNGS`, or the dynamic cache with `", batch of 4"`, or `"llama.cpp"`. What is not
            compiled; a compiler takes memory of its own.
        tokens: to write.
        device: `"cpu"`, `"cuda"` or `"mps"`.
        tiny: a small model in place of SmolLM2.
    """
    device = device or pytorch.device()
    tokenizer, model = load(device, tiny=tiny)
    rung, _, copies = name.partition(", batch of ")
    asked = ask(tokenizer, [PROMPTS["writes"]] * int(copies or 1), device)
    if name == "llama.cpp":
        del model
        llama = bill.LlamaCpp(threads=torch.get_num_threads())
        way = functools.partial(_by_llama, llama, asked, tokens)
    else:
        way = functools.partial(write, model, asked, tokens, **RUNGS[rung])
    return memory.peak(functools.partial(_waited, way), trim=True)[1].megabytes


def _rows(
    ways: Mapping[str, Callable[[], Any]], tokenizer: Any, tokens: int, pairs: int
) -> dict[str, dict[str, Any]]:
    """Looks at every way once, then times those that memory allows."""
    rows: dict[str, dict[str, Any]] = {}
    said = {}
    for name, way in ways.items():
        start = time.perf_counter()
        try:
            made, most = memory.peak(functools.partial(_waited, way))
        except Exception as error:
            if not memory.is_lack(error):
                raise
            rows[name] = {"error": "out of memory"}
            continue
        rows[name] = {"first_call": time.perf_counter() - start, "memory": most.megabytes}
        said[name] = made if isinstance(made, str) else tokenizer.decode(made[0])
    found = bench.compare(
        {name: ways[name] for name in said},
        pairs=pairs,
        baseline=SLOW,
        warmup=0,
        min_seconds=0,
        sync=external.wait,
    )
    for name, text in said.items():
        ratio, copies = found[name], int(name.rpartition("batch of ")[2]) if "batch" in name else 1
        rows[name] |= {
            "tokens_per_second": list(found.records[name].rate(copies * tokens)),
            "ratio": [copies * ratio.ratio, copies * ratio.low, copies * ratio.high],
            "same": text.strip() == said[SLOW].strip(),
            "text": text,
        }
    return rows


def _waited(way: Callable[[], Any]) -> Any:
    return external.wait(way())


def _by_llama(llama: bill.LlamaCpp, asked: Any, tokens: int) -> str:
    answer = llama.complete(asked["input_ids"][0].tolist(), tokens, stop=())
    return str(answer["choices"][0]["text"])
