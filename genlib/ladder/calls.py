"""The techniques of the book, and the library call that a reader would use in production for each.

Every name is looked up in the installed version (`Call.find`), so a name that a library has dropped
is found by the tests, and the table of the book says which version it was checked with.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A technique, the chapter that teaches it, and its name in a library.

    Attributes:
        technique: as the book calls it.
        chapter: the page of the book.
        name: with dots, from the package on.
        option: a parameter of what is named, or a setting of the class that is named; or nothing.
    """

    technique: str
    chapter: str
    name: str
    option: str = ""

    @property
    def package(self) -> str:
        """The package, as it is installed."""
        return self.name.partition(".")[0]

    @property
    def version(self) -> str:
        """The installed version of the package."""
        return importlib.metadata.version(self.package)

    def find(self) -> Any:
        """Returns the object that is named.

        Raises:
            ModuleNotFoundError: if the package is not installed.
            LookupError: if this version has no such object, or the object no such option.
        """
        parts, found = self.name.split("."), None
        for end in range(len(parts), 0, -1):  # the longest part of the name that is a module
            try:
                found = importlib.import_module(".".join(parts[:end]))
            except ModuleNotFoundError:
                if end == 1:
                    raise
                continue
            break
        try:
            for part in parts[end:]:
                found = getattr(found, part)
        except AttributeError as error:
            raise LookupError(f"{self.name}: {error} ({self.version})") from error
        if self.option and not _has(found, self.option):
            raise LookupError(f"{self.name} has no option {self.option} ({self.version})")
        return found


def _has(found: Any, option: str) -> bool:
    if option in inspect.signature(found).parameters:
        return True
    return inspect.isclass(found) and hasattr(found(), option)


_GENERATE = "transformers.GenerationConfig"
_UNET = "diffusers.UNet2DConditionModel"
_PIPE = "diffusers.StableDiffusionXLPipeline"
CALLS = (
    Call("timing a function", "measuring", "torch.utils.benchmark.Timer"),
    Call("seeing where the time goes", "measuring", "torch.profiler.profile"),
    Call("counting operations", "measuring", "torch.utils.flop_counter.FlopCounterMode"),
    Call("a compiled model", "compiled-loops", "torch.compile", "mode"),
    Call("compiled block by block", "compiled-loops", f"{_UNET}.compile_repeated_blocks"),
    Call("half precision", "compiled-loops", "torch.bfloat16"),
    Call("TF32", "compiled-loops", "torch.set_float32_matmul_precision"),
    Call(
        "fused attention",
        "compiled-loops",
        "torch.nn.functional.scaled_dot_product_attention",
    ),
    Call("channels last", "compiled-loops", "torch.channels_last"),
    Call("KV cache", "decoding", "transformers.DynamicCache"),
    Call("KV cache of a fixed size", "decoding", _GENERATE, "cache_implementation"),
    Call(
        "speculative decoding",
        "decoding",
        "transformers.GenerationMixin.generate",
        "assistant_model",
    ),
    Call("prompt look-up", "decoding", _GENERATE, "prompt_lookup_num_tokens"),
    Call("a better solver", "fewer-steps", "diffusers.DPMSolverMultistepScheduler.from_config"),
    Call("few steps, distilled", "fewer-steps", "diffusers.LCMScheduler.from_config"),
    Call("distilled weights as LoRA", "fewer-steps", f"{_PIPE}.load_lora_weights"),
    Call("guidance on an interval", "fewer-steps", f"{_PIPE}.__call__", "callback_on_step_end"),
    Call("guidance", "fewer-steps", f"{_PIPE}.__call__", "guidance_scale"),
    Call("pruning", "pruning", "torch.nn.utils.prune.ln_structured"),
    Call("a small decoder", "pruning", "diffusers.AutoencoderTiny"),
    Call("weights of eight bits", "quantization", "torchao.quantization.Int8WeightOnlyConfig"),
    Call(
        "products of eight bits",
        "quantization",
        "torchao.quantization.Int8DynamicActivationInt8WeightConfig",
    ),
    Call(
        "products in FP8",
        "quantization",
        "torchao.quantization.Float8DynamicActivationFloat8WeightConfig",
    ),
    Call("quantizing a model", "quantization", "torchao.quantization.quantize_"),
    Call("quantizing while loading", "quantization", "diffusers.TorchAoConfig"),
    Call("a batch of images", "caching-and-serving", f"{_PIPE}.__call__", "num_images_per_prompt"),
    Call("embeddings that are kept", "caching-and-serving", f"{_PIPE}.encode_prompt"),
    Call("features that are kept", "caching-and-serving", "diffusers.FirstBlockCacheConfig"),
    Call(
        "attentions that are kept",
        "caching-and-serving",
        "diffusers.hooks.apply_pyramid_attention_broadcast",
    ),
    Call("weights kept on the host", "caching-and-serving", f"{_PIPE}.enable_model_cpu_offload"),
    Call(
        "weights from a GGUF file",
        "llm-bill",
        "transformers.GgufConfig",
    ),
    Call("text from a chat model", "llm-bill", "transformers.pipeline", "task"),
    Call(
        "training in half precision", "training-faster", "accelerate.Accelerator", "mixed_precision"
    ),
    Call(
        "gradient accumulation",
        "training-faster",
        "accelerate.Accelerator",
        "gradient_accumulation_steps",
    ),
    Call("loading ahead", "training-faster", "torch.utils.data.DataLoader", "num_workers"),
    Call("training few weights (LoRA)", "training-faster", "peft.LoraConfig", "r"),
    Call("early exit as draft", "decoding", _GENERATE, "assistant_early_exit"),
    Call("two zeros of four weights", "pruning", "torch.sparse.to_sparse_semi_structured"),
    Call("an exported model", "quantization", "torch.onnx.export"),
    Call("an engine for ONNX files", "quantization", "onnxruntime.InferenceSession"),
    Call("an engine for LiteRT files", "quantization", "ai_edge_litert.interpreter.Interpreter"),
    Call("a language model on a processor", "llm-bill", "xllamacpp.Server"),
    Call("a language model for many users", "llm-bill", "vllm.LLM"),
    Call("data parallelism", "scaling-out", "torch.nn.parallel.DistributedDataParallel"),
    Call("weights in parts on GPUs", "scaling-out", "torch.distributed.fsdp.fully_shard"),
    Call(
        "many prompts on many GPUs",
        "scaling-out",
        "accelerate.PartialState.split_between_processes",
    ),
    Call("distance of images (FID)", "frontier", "torchmetrics.image.fid.FrechetInceptionDistance"),
    Call("images against text", "frontier", "torchmetrics.multimodal.clip_score.CLIPScore"),
    Call("choosing the best of several", "advertising", "ImageReward.load"),
    Call("inpainting", "computer-graphics", "diffusers.AutoPipelineForInpainting.from_pretrained"),
    Call(
        "training with privacy (DP-SGD)",
        "privacy-and-security",
        "opacus.PrivacyEngine.make_private",
    ),
)
