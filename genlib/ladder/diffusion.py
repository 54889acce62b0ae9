"""Published image models, built by diffusers from their configurations, and the rungs on them.

Speed needs no trained weights: a model with random weights does the same operations on the same
bytes. So a model is built here at its published size (`SIZES`) or, for a machine that has little
time, `small`, and each rung is timed against what it replaces, beside what the count of operations
and bytes predicts. What a rung costs in quality needs trained weights: that is in the papers.

A rung changes a forward of the denoiser (`forwards`), or how often which forwards are needed for
an image (`IMAGES`). The second kind is put together from parts that were timed in alternation
(`image_rows`), because an image of fifty steps may take a processor minutes.
"""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

from genlib import bench
from genlib.bench import external, memory, pytorch
from genlib.bench.count import Work
from genlib.bench.roofline import Ceilings

diffusers.utils.logging.set_verbosity_error()

_FOUR = (320, 640, 1280, 1280)
_DOWN, _UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_DECODER = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_CLIP: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}


@dataclass(frozen=True)
class Size:
    """A published text-to-image model, as its configuration files describe it.

    Attributes:
        kind: `"sd"`, `"sdxl"` or `"pixart"`: which classes of diffusers.
        denoiser: the configuration of the UNet or transformer.
        vae: that of the decoder from latents to pixels (8×8 pixels of a latent).
        side: of the published latents; the image has 8 times as many pixels.
        words: tokens of the text.
        width: of a token's embedding.
        pooled: width of the embedding of a whole text; 0 where there is none.
        guidance: that the pipeline's authors use.
        source: where the numbers stand.
    """

    kind: str
    denoiser: Mapping[str, Any]
    vae: Mapping[str, Any]
    side: int
    words: int
    width: int
    pooled: int
    guidance: float
    source: str

    @property
    def pixels(self) -> int:
        """Side of the published image."""
        return 8 * self.side


SIZES: Mapping[str, Size] = {
    "SD 1.5": Size(
        "sd",
        {
            "sample_size": 64,
            "block_out_channels": _FOUR,
            "down_block_types": (_DOWN,) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + (_UP,) * 3,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,  # heads: the name is older than its meaning
        },
        _DECODER,
        64,
        77,
        768,
        0,
        7.5,
        "CompVis/stable-diffusion: configs/stable-diffusion/v1-inference.yaml",
    ),
    "SDXL": Size(
        "sdxl",
        {
            "sample_size": 128,
            "block_out_channels": _FOUR[:3],
            "down_block_types": ("DownBlock2D", _DOWN, _DOWN),
            "up_block_types": (_UP, _UP, "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,  # 1280 of the text, 6 sizes of 256
        },
        _DECODER,
        128,
        77,
        2048,
        1280,
        5.0,
        "Stability-AI/generative-models: configs/inference/sd_xl_base.yaml",
    ),
    "PixArt-α": Size(
        "pixart",
        {
            "sample_size": 128,
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "num_layers": 28,
            "cross_attention_dim": 1152,
            "caption_channels": 4096,
        },
        _DECODER,
        128,
        120,
        4096,
        0,
        4.5,
        "diffusers.PixArtTransformer2DModel: the defaults are those of PixArt-XL-2-1024",
    ),
}


def small(size: Size) -> Size:
    """Returns a size of the same structure that two cores run in milliseconds: 16×16 latents."""
    narrow: dict[str, Any] = {"sample_size": 16}
    if size.kind == "pixart":
        narrow |= {"num_attention_heads": 4, "attention_head_dim": 32, "num_layers": 6}
        narrow |= {"cross_attention_dim": 128, "caption_channels": 64}
    else:
        levels = len(size.denoiser["block_out_channels"])
        narrow |= {"block_out_channels": (32, 64, 128, 128)[:levels], "cross_attention_dim": 64}
        narrow |= {"attention_head_dim": 4}
    if size.kind == "sdxl":
        narrow |= {"transformer_layers_per_block": (1, 2, 4)}
        narrow |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}
    return replace(
        size,
        denoiser={**size.denoiser, **narrow},
        vae={**size.vae, "block_out_channels": (32, 64, 64, 64), "layers_per_block": 1},
        side=16,
        width=64,
        pooled=32 if size.pooled else 0,
    )


# ---------------------------------------------------------------- building

_NOISE = 2**21 - 1  # numbers that a large tensor repeats; odd, so that its rows differ


def build(kind: Any, config: Mapping[str, Any], device: str, dtype: Any) -> Any:
    """Returns a model of diffusers with random weights, made where and as they are needed.

    First it is built without numbers, so that one of several billion weights is never in float32.
    """
    with torch.device("meta"):
        model = kind.from_config(dict(config)).eval().to(dtype)
    if device == "meta":
        return model
    model = model.to_empty(device=device)
    draws = torch.Generator(device).manual_seed(0)
    noise = torch.empty(_NOISE, device=device, dtype=dtype).normal_(generator=draws)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.ndim < 2:
                tensor.fill_(1.0)
                continue
            deviation = tensor[0].numel() ** -0.5  # so that sizes stay from layer to layer
            if tensor.numel() <= _NOISE:
                tensor.normal_(0, deviation, generator=draws)
                continue
            for part in tensor.view(-1).split(_NOISE):  # to draw billions takes a processor minutes
                torch.mul(noise[: len(part)], deviation, out=part)
        for name, tensor in model.named_parameters():
            if name.endswith("bias"):
                tensor.zero_()
    return model


def build_denoiser(size: Size, device: str = "cpu", dtype: Any = torch.float32) -> Any:
    """Returns the network that is called in each step, with random weights."""
    name = "PixArtTransformer2DModel" if size.kind == "pixart" else "UNet2DConditionModel"
    return build(getattr(diffusers, name), size.denoiser, device, dtype)


def build_vae(size: Size, device: str = "cpu", dtype: Any = torch.float32) -> Any:
    """Returns the autoencoder; its decoder makes pixels of latents."""
    return build(diffusers.AutoencoderKL, size.vae, device, dtype)


def build_small_decoder(device: str = "cpu", dtype: Any = torch.float32) -> Any:
    """Returns the tiny autoencoder that decodes the same latents, at its published size."""
    return build(diffusers.AutoencoderTiny, {}, device, dtype)


def build_pipeline(size: Size, denoiser: Any, vae: Any) -> Any:
    """Returns the pipeline that a reader would load from a hub, without its text encoder.

    It takes embeddings of the prompts (`call`), as a server does that keeps them.
    """
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    if size.kind == "sd":
        pipe = diffusers.StableDiffusionPipeline(
            vae, None, None, denoiser, scheduler, None, None, requires_safety_checker=False
        )
    elif size.kind == "sdxl":
        pipe = diffusers.StableDiffusionXLPipeline(
            vae, None, None, None, None, denoiser, scheduler, add_watermarker=False
        )
    else:
        pipe = diffusers.PixArtAlphaPipeline(None, None, vae, denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, size: Size, batch: int = 1, side: int | None = None, **options: Any) -> Any:
    """Draws images with a pipeline: one of the calls that the chapter shows.

    Args:
        pipe: of `build_pipeline`, or one of the same kind with trained weights.
        size: its size.
        batch: images at once.
        side: of the latents; the published one unless given.
        options: of the pipeline's call; `num_inference_steps` and `guidance_scale` above all.

    Returns:
        Images, float32 `(batch, 8 · side, 8 · side, 3)` in [0, 1].
    """
    pixels = 8 * (side or size.side)
    shape, near = (
        (batch, size.words, size.width),
        {"device": pipe._execution_device, "dtype": pipe.dtype},
    )
    given: dict[str, Any] = {
        "prompt_embeds": torch.ones(shape, **near),
        "negative_prompt_embeds": torch.zeros(shape, **near),
        "generator": torch.Generator("cpu").manual_seed(0),
        "output_type": "np",
        "height": pixels,
        "width": pixels,
    }
    if size.pooled:
        given["pooled_prompt_embeds"] = torch.ones(batch, size.pooled, **near)
        given["negative_pooled_prompt_embeds"] = torch.zeros(batch, size.pooled, **near)
    if size.kind == "pixart":
        mask = torch.ones(batch, size.words, **near)
        given |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
        given |= {"negative_prompt": None, "use_resolution_binning": False}
    return pipe(**{**given, **options}).images


def forward(denoiser: Any, size: Size, batch: int = 1, side: int | None = None) -> Any:
    """Returns a function that runs one step's network: what a sampler calls again and again."""
    side = side or size.side
    near = {"device": denoiser.device, "dtype": next(denoiser.parameters()).dtype}
    latents = torch.randn(batch, 4, side, side, generator=torch.Generator().manual_seed(0))
    latents = latents.to(**near)
    step = torch.full((batch,), 500, device=near["device"])
    text = torch.ones(batch, size.words, size.width, **near)
    more: dict[str, Any] = {}
    if size.pooled:
        sizes = torch.tensor([[8.0 * side, 8 * side, 0, 0, 8 * side, 8 * side]] * batch)
        pooled = torch.ones(batch, size.pooled, **near)
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes.to(**near)}
    if size.kind == "pixart":
        more["added_cond_kwargs"] = {
            "resolution": torch.full((batch, 2), 8.0 * side, **near),
            "aspect_ratio": torch.ones(batch, 1, **near),
        }

    @torch.inference_mode()
    def run() -> Any:
        return denoiser(
            latents, timestep=step, encoder_hidden_states=text, return_dict=False, **more
        )[0]

    return run


def decoding(vae: Any, size: Size, batch: int = 1, side: int | None = None) -> Any:
    """Returns a function that makes pixels of latents."""
    side = side or size.side
    dtype = next(vae.parameters()).dtype
    latents = torch.ones(batch, 4, side, side, device=vae.device, dtype=dtype)

    @torch.inference_mode()
    def run() -> Any:
        return vae.decode(latents, return_dict=False)[0]

    return run


def text_encoding(batch: int = 1, device: str = "cpu", dtype: Any = torch.float32) -> Any:
    """Returns a function that encodes prompts with a text encoder of SD 1.5's size (CLIP ViT-L)."""
    config = transformers.CLIPTextConfig(num_attention_heads=12, projection_dim=768, **_CLIP)
    with torch.device(device):
        encoder = transformers.CLIPTextModel(config).eval().to(dtype)
    ids = torch.ones(batch, 77, dtype=torch.long, device=device)

    @torch.inference_mode()
    def run() -> Any:
        return encoder(ids).last_hidden_state

    return run


# ---------------------------------------------------------------- counting


@functools.cache
def work(
    name: str,
    part: str = "forward",
    batch: int = 1,
    side: int | None = None,
    dtype: Any = torch.float32,
    *,
    fused: bool = True,
    tiny: bool = False,
) -> Work:
    """Counts a part of a model at its published size, on the device that computes nothing.

    Args:
        name: of `SIZES`.
        part: `"forward"`, `"decode"`, `"small decode"` or `"text"`.
        batch: images at once.
        side: of the latents; the published one unless given.
        dtype: of all numbers.
        fused: whether attention keeps its scores to itself.
        tiny: count `small` of that size.
    """
    size = small(SIZES[name]) if tiny else SIZES[name]
    if part == "text":
        return pytorch.count(text_encoding(batch, "meta", dtype), fused=fused)
    if part == "forward":
        run = forward(build_denoiser(size, "meta", dtype), size, batch, side)
    elif part == "decode":
        run = decoding(build_vae(size, "meta", dtype), size, batch, side)
    else:
        run = decoding(build_small_decoder("meta", dtype), size, batch, side)
    return pytorch.count(run, fused=fused)


def parameters(name: str) -> int:
    """Returns how many weights the denoiser of a published size has."""
    return sum(p.numel() for p in build_denoiser(SIZES[name], "meta").parameters())


def seconds(work: Work, limits: Ceilings) -> float:
    """Returns the least time that a device's two limits allow."""
    return max(
        work.flops / (limits.gflops * 1e9), work.moved_bytes / (limits.gigabytes_per_second * 1e9)
    )


# ---------------------------------------------------------------- rungs of a forward


@dataclass(frozen=True)
class Rung:
    """One change to a forward, beside what it replaces; both can run now, in any order."""

    before: Callable[[], Any]
    after: Callable[[], Any]
    predicted: float | None  # times as fast, by the limits; None: the count says nothing of it
    images: int = 1  # of a call of `after`, where `before` makes one


@contextmanager
def float32_products(how: str) -> Iterator[None]:
    """Sets how exact products of float32 are on a GPU: `"highest"`, or `"high"` for TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(how)
    convolutions, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, how == "high"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def under(context: Callable[[], Any], run: Callable[[], Any]) -> Callable[[], Any]:
    """Returns a function that runs another one within a context."""

    def inside() -> Any:
        with context():
            return run()

    return inside


FORWARDS = (
    "TF32",
    "half precision",
    "fused attention",
    "channels last",
    "torch.compile",
    "feature caching",
    "int8 weights",
    "int8 products",
    "FP8 products",
    "batch of 2",
    "batch of 4",
    "offloading",
)


def forwards(
    name: str,
    rung: str,
    *,
    tiny: bool = False,
    side: int | None = None,
    device: str | None = None,
) -> Rung:
    """Builds a rung on a model: what is measured first (`before`), and what it becomes (`after`).

    From `"fused attention"` on, both are in half precision, as people run these models.

    Args:
        name: of `SIZES`.
        rung: of `FORWARDS`.
        tiny: build `small` of that size.
        side: of the latents; the published one unless given.
        device: `"cpu"`, `"cuda"` or `"mps"`.

    Raises:
        ValueError: if there is no such rung.
        LookupError: where the device has no such thing; the message says what is missing.
        MemoryError, RuntimeError: where it does not fit.
    """
    if rung not in FORWARDS:
        raise ValueError(f"No rung {rung!r}. Choose one of {FORWARDS}.")
    size = small(SIZES[name]) if tiny else SIZES[name]
    device = device or pytorch.device()
    counted = functools.partial(work, name, side=side, tiny=tiny)
    full, half = pytorch.ceilings(torch.float32, device), pytorch.ceilings(torch.bfloat16, device)
    of_half = seconds(counted(dtype=torch.bfloat16), half)

    def made(dtype: Any = torch.bfloat16) -> Any:
        return build_denoiser(size, device, dtype)

    def run(model: Any, batch: int = 1) -> Callable[[], Any]:
        return forward(model, size, batch, side)

    if rung == "TF32":
        if device != "cuda":
            raise LookupError("TF32 is a format of NVIDIA's GPUs")
        one = run(made(torch.float32))
        highest, high = (functools.partial(float32_products, how) for how in ("highest", "high"))
        return Rung(under(highest, one), under(high, one), None)
    if rung == "half precision":
        predicted = seconds(counted(), full) / of_half
        exact = made(torch.float32)
        return Rung(run(exact), run(copy.deepcopy(exact).to(torch.bfloat16)), predicted)
    if rung == "fused attention":
        one = run(made())
        apart = seconds(counted(dtype=torch.bfloat16, fused=False), half)
        textbook = under(lambda: sdpa_kernel(SDPBackend.MATH), one)
        return Rung(textbook, one, apart / of_half)
    if rung == "channels last":
        if size.kind == "pixart":
            raise LookupError("this transformer has no convolution but the first")
        first = made()
        last = copy.deepcopy(first).to(memory_format=torch.channels_last)
        return Rung(run(first), run(last), 1.0)  # the same operations and bytes
    if rung == "torch.compile":
        one = made()
        fast = compiled(copy.deepcopy(one), device, whole=device == "cuda")
        return Rung(run(one), run(fast), 1.0)
    if rung == "feature caching":
        one = made()
        return _caching(one, copy.deepcopy(one), run, counted, half)
    if rung in ("int8 weights", "int8 products", "FP8 products"):
        return _quantized(rung, made, run, device, counted(dtype=torch.bfloat16), half)
    if rung == "offloading":
        if device == "cpu":
            raise LookupError("there is no accelerator whose memory could be short")
        return _offloading(size, made, side, device)
    batch = int(rung.rpartition(" ")[2])
    one = made()
    predicted = batch * of_half / seconds(counted(dtype=torch.bfloat16, batch=batch), half)
    return Rung(run(one), run(one, batch), predicted, batch)


def compiled(model: Any, device: str, *, whole: bool = False) -> Any:
    """Compiles a denoiser: block by block, or all of it, on a GPU with CUDA graphs.

    Blocks of one kind share what is compiled, which takes seconds where the whole takes minutes.
    """
    if whole:
        mode = "reduce-overhead" if device == "cuda" else "default"
        return _Compiled(model, torch.compile(model, mode=mode, fullgraph=True))
    if getattr(model, "_repeated_blocks", None):
        model.compile_repeated_blocks()
    else:
        for block in model.transformer_blocks:
            block.compile()
    return model


class _Compiled:
    """A compiled model that still tells its device and weights, as `forward` asks."""

    def __init__(self, model: Any, call: Callable[..., Any]) -> None:
        self.device, self.parameters, self._call = model.device, model.parameters, call

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # or the graph would overwrite the last result
        return self._call(*inputs, **named)


EVERY = 2  # attention is computed in every second step


def _caching(
    one: Any, kept: Any, run: Callable[[Any], Any], counted: Callable[..., Work], half: Ceilings
) -> Rung:
    """Two forwards, of which the second takes its attentions from the first."""
    diffusers.hooks.apply_pyramid_attention_broadcast(
        kept,
        diffusers.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=EVERY,
            cross_attention_block_skip_range=EVERY,
            spatial_attention_timestep_skip_range=(0, 1001),
            cross_attention_timestep_skip_range=(0, 1001),
            spatial_attention_block_identifiers=("transformer_blocks",),
            cross_attention_block_identifiers=("transformer_blocks",),
            current_timestep_callback=lambda: 500,
        ),
    )

    def twice(forward: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (forward(), forward())

    plain, lazy = twice(run(one)), twice(run(kept))
    before, after = pytorch.count(plain), pytorch.count(lazy)
    return Rung(plain, lazy, seconds(before, half) / seconds(after, half))


def _quantized(
    rung: str,
    made: Callable[[], Any],
    run: Callable[[Any], Any],
    device: str,
    work: Work,
    half: Ceilings,
) -> Rung:
    """Dense layers in eight bits, by torchao; convolutions stay as they are."""
    from torchao import quantization  # late: it takes seconds, and may be missing

    kinds = {
        "int8 weights": "Int8WeightOnlyConfig",
        "int8 products": "Int8DynamicActivationInt8WeightConfig",
        "FP8 products": "Float8DynamicActivationFloat8WeightConfig",
    }
    if rung == "FP8 products" and (device != "cuda" or torch.cuda.get_device_capability() < (8, 9)):
        raise LookupError("FP8 products need an NVIDIA GPU of compute capability 8.9 or more")
    model = made()
    fewer = copy.deepcopy(model)
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    quantization.quantize_(fewer, getattr(quantization, kinds[rung])())
    predicted = None  # products in eight bits have a ceiling of their own
    if rung == "int8 weights":
        lighter = Work(work.flops, work.moved_bytes - dense)  # one byte for two
        predicted = seconds(work, half) / seconds(lighter, half)
    if device == "cuda":  # torchao's kernels are made by the compiler
        model, fewer = compiled(model, device), compiled(fewer, device)
    return Rung(run(model), run(fewer), predicted)


def _offloading(size: Size, made: Callable[[], Any], side: int | None, device: str) -> Rung:
    """A whole image of four steps, with weights that stay on the host until they are needed."""
    vae = build_vae(size, device, torch.bfloat16)
    near = build_pipeline(size, made(), vae)
    far = build_pipeline(size, made().to("cpu"), copy.deepcopy(vae).to("cpu"))
    far.enable_model_cpu_offload(device=device)

    def draw(pipe: Any) -> Callable[[], Any]:
        options = {"num_inference_steps": 4, "guidance_scale": size.guidance}
        return lambda: call(pipe, size, 1, side, **options)

    return Rung(draw(near), draw(far), None)


def climb(
    name: str,
    rungs: tuple[str, ...] = FORWARDS,
    *,
    tiny: bool = False,
    side: int | None = None,
    device: str | None = None,
    pairs: int = bench.MIN_PAIRS,
    longest: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Times rungs, each in alternation with what it replaces; one is built, timed and let go.

    Args:
        name: of `SIZES`.
        rungs: of `FORWARDS`.
        tiny: build `small` of that size.
        side: of the latents; the published one unless given.
        device: `"cpu"`, `"cuda"` or `"mps"`.
        pairs: rounds.
        longest: s; a rung whose rounds would take longer is left out, which is said.

    Returns:
        For each rung `"ratio"` (times as fast per image, with its interval), `"predicted"`,
        `"seconds"` of a call before and after, `"first_call"`, the most `"memory"` in use (MB) with
        both models there, and with the rung's own `"alone"`, and how far the `"difference"` of the
        outputs is; or `"left_out"`, why there is none; or `"error"`, where memory was too short.
    """
    rows: dict[str, dict[str, Any]] = {}
    for rung in rungs:
        try:
            made = [forwards(name, rung, tiny=tiny, side=side, device=device)]
            rows[rung] = _climb(made, pairs, longest)
        except (LookupError, ImportError) as error:
            rows[rung] = {"left_out": str(error)}
        except Exception as error:
            if not memory.is_lack(error):
                raise
            rows[rung] = {"error": "out of memory"}
        gc.collect()
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return rows


def _climb(holder: list[Rung], pairs: int, longest: float | None) -> dict[str, Any]:
    """Times a rung; it is taken out of its holder, so that its models can be let go here."""
    rung = holder.pop()
    made, most = memory.peak(functools.partial(_waited, rung.after))
    first = external.on_host(rung.before())
    if longest is not None:
        calls = [
            bench.measure(run, repeats=2, warmup=0, min_seconds=0, sync=external.wait)
            for run in (rung.before, rung.after)
        ]
        slow, fast = (min(record.seconds) for record in calls)
        if (pairs + 2) * (slow + fast) > longest:
            raise LookupError(
                f"too slow for {pairs} rounds: a call took {bench.format_seconds(fast)}, "
                f"before {bench.format_seconds(slow)}"
            )
    same = rung.images == 1
    apart = external.difference(first, external.on_host(made)) if same else None
    del made, first
    found = bench.compare(
        {"before": rung.before, "after": rung.after},
        pairs=pairs,
        warmup=1,
        min_seconds=0,
        sync=external.wait,
    )
    ratio, n, predicted, after = found["after"], rung.images, rung.predicted, rung.after
    del rung  # and with it the model of `before`
    _, alone = memory.peak(functools.partial(_waited, after), trim=True)
    return {
        "predicted": predicted,
        "ratio": [n * ratio.ratio, n * ratio.low, n * ratio.high],
        "seconds": {k: [r.median, *r.interval] for k, r in found.records.items()},
        "first_call": found.records["after"].first_call,
        "memory": most.megabytes,
        "alone": alone.megabytes,
        "difference": apart,
    }


# ---------------------------------------------------------------- rungs of an image


@dataclass(frozen=True)
class Image:
    """What an image needs: so many forwards of one latent, of two, and which decoder."""

    about: str
    plain: int  # forwards of one latent
    guided: int  # forwards of two: with the text and without
    decoder: str = "decode"  # or "small decode"
    text: int = 1  # encodings of the prompt


IMAGES: Mapping[str, Image] = {
    "50 steps of Euler, guided": Image("the slow way", 0, 50),
    "20 steps of DPM-Solver++, guided": Image("another solver", 0, 20),
    "guidance in the first half only": Image("and an interval", 10, 10),
    "4 steps, distilled": Image("LCM: no guidance in the steps", 4, 0),
    "1 step, distilled": Image("Turbo", 1, 0),
    "1 step, small decoder": Image("a distilled decoder", 1, 0, "small decode"),
    "1 step, small decoder, prompt known": Image("its embedding is kept", 1, 0, "small decode", 0),
}
PARTS = ("text", "forward", "guided forward", "decode", "small decode")


def parts(
    name: str, *, tiny: bool = False, side: int | None = None, device: str | None = None
) -> dict[str, Callable[[], Any]]:
    """Returns what images are made of, in half precision: `PARTS`, ready to be timed."""
    size = small(SIZES[name]) if tiny else SIZES[name]
    device = device or pytorch.device()
    denoiser = build_denoiser(size, device, torch.bfloat16)
    vae = build_vae(size, device, torch.bfloat16)
    few = build_small_decoder(device, torch.bfloat16)
    return {
        "text": text_encoding(1, device, torch.bfloat16),
        "forward": forward(denoiser, size, 1, side),
        "guided forward": forward(denoiser, size, 2, side),
        "decode": decoding(vae, size, 1, side),
        "small decode": decoding(few, size, 1, side),
    }


def image_seconds(image: Image, times: Mapping[str, Any]) -> Any:
    """Returns the time of an image from those of its parts, arrays or numbers."""
    return (
        image.text * times["text"]
        + image.plain * times["forward"]
        + image.guided * times["guided forward"]
        + times[image.decoder]
    )


def image_rows(
    name: str,
    *,
    tiny: bool = False,
    side: int | None = None,
    device: str | None = None,
    pairs: int = bench.MIN_PAIRS,
) -> dict[str, Any]:
    """Times the parts of an image in alternation and puts every rung of `IMAGES` together.

    A ratio is taken within a round, so that its interval is one of measured rounds.

    Returns:
        `"parts"`: seconds and limit of each; `"images"`: for each rung `"seconds"`, `"ratio"` to
        the slow way, and `"predicted"`, the ratio of the limits.
    """
    ready = parts(name, tiny=tiny, side=side, device=device)
    found = bench.compare(ready, pairs=pairs, warmup=1, min_seconds=0, sync=external.wait).records
    limits = pytorch.ceilings(torch.bfloat16, device or pytorch.device())
    counted = functools.partial(work, name, side=side, dtype=torch.bfloat16, tiny=tiny)
    works = {part: counted(part) for part in ("text", "forward", "decode", "small decode")}
    works["guided forward"] = counted("forward", batch=2)
    least = {part: seconds(w, limits) for part, w in works.items()}
    times = {part: np.array(record.seconds) for part, record in found.items()}
    slow = next(iter(IMAGES.values()))
    rows = {}
    for title, image in IMAGES.items():
        spent = image_seconds(image, times)
        pairs_of = image_seconds(slow, times) / spent
        rows[title] = {
            "seconds": bench.median_and_interval(spent),
            "ratio": bench.median_and_interval(pairs_of),
            "predicted": image_seconds(slow, least) / image_seconds(image, least),
        }
    measured = {
        part: {
            "seconds": [r.median, *r.interval],
            "limit": least[part],
            "gflop": works[part].flops / 1e9,
        }
        for part, r in found.items()
    }
    return {"parts": measured, "images": rows}


# ---------------------------------------------------------------- throughput


def _waited(run: Callable[[], Any]) -> Any:
    return external.wait(run())


def throughput(
    name: str,
    *,
    tiny: bool = False,
    side: int | None = None,
    device: str | None = None,
    most: int = 256,
    calls: int = 9,
    budget: float = 60.0,
) -> list[dict[str, Any]]:
    """Doubles the batch of a forward until memory or time ends.

    Args:
        name: of `SIZES`.
        tiny: build `small` of that size.
        side: of the latents; the published one unless given.
        device: `"cpu"`, `"cuda"` or `"mps"`.
        most: images at once.
        calls: timed calls for each batch.
        budget: s; no larger batch is begun when its calls would take longer.

    Returns:
        A row for each batch: `"batch"`, `"forwards_per_second"` (of single latents), `"latency"`
        (percentiles 50, 90 and 100 of the calls, s) and `"memory"` (MB); the last row may be an
        `"error"` instead.
    """
    size = small(SIZES[name]) if tiny else SIZES[name]
    model = build_denoiser(size, device or pytorch.device(), torch.bfloat16)
    rows: list[dict[str, Any]] = []
    batch, expected = 1, 0.0
    while batch <= most and expected <= budget:
        try:
            run = forward(model, size, batch, side)
            _, used = memory.peak(functools.partial(_waited, run))
            record = bench.measure(run, repeats=calls, warmup=1, min_seconds=0, sync=external.wait)
        except Exception as error:
            if not memory.is_lack(error):
                raise
            rows.append({"batch": batch, "error": "out of memory"})
            break
        rows.append(
            {
                "batch": batch,
                "forwards_per_second": list(record.rate(batch)),
                "latency": [float(np.percentile(record.seconds, p)) for p in (50, 90, 100)],
                "memory": used.megabytes,
            }
        )
        batch, expected = 2 * batch, 2 * record.median * (calls + 3)
    return rows
