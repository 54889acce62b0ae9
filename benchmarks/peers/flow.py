"""Flow and diffusion: 16×16×4 latents in 16 steps, from random weights, without guidance.

The peers are diffusers' DiT in a loop with its flow-matching scheduler, and its DDIM pipeline with
a small U-Net.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import torch
from common import BATCHES, HEADS, HIDDEN, LAYERS, WIDTH, Candidate, compare

from genlib.models.flow import Flow, FlowConfig
from genlib.models.transformer import TransformerConfig

STEPS, SIDE, CHANNELS = 16, 16, 4


def dit() -> Any:
    """Returns diffusers' DiT of the same layers, width, heads and patches."""
    torch.manual_seed(0)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=LAYERS,
        sample_size=SIDE,
        patch_size=2,
        num_embeds_ada_norm=1000,
    ).eval()


def unet() -> Any:
    """Returns a small U-Net with about as many parameters as our flow."""
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=1,
        block_out_channels=(80, 160),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


@torch.inference_mode()
def walk(model: Any, batch: int) -> np.ndarray:
    """Follows the flow as diffusers' own pipelines do: model, scheduler, model, scheduler."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    x = torch.randn(batch, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(batch, dtype=torch.long)
    for time in scheduler.timesteps:
        velocity = model(x, timestep=time.expand(batch), class_labels=labels).sample
        x = scheduler.step(velocity, time, x).prev_sample
    return x.numpy()


def denoise(pipeline: Any, batch: int) -> np.ndarray:
    """Runs the DDIM pipeline; it returns arrays."""
    made = pipeline(
        batch_size=batch,
        num_inference_steps=STEPS,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    )
    return made.images


def ddim(model: Any) -> Any:
    """Returns the pipeline of a U-Net, without a progress bar."""
    found = diffusers.DDIMPipeline(model, diffusers.DDIMScheduler())
    found.set_progress_bar_config(disable=True)
    return found


def size(module: Any) -> int:
    """Returns how many parameters a torch module has."""
    return sum(p.numel() for p in module.parameters())


def rows() -> Iterator[dict[str, Any]]:
    """Yields two rows for each batch."""
    config = TransformerConfig(LAYERS, WIDTH, HEADS, HEADS, HIDDEN, modulated=True)
    ours = Flow(FlowConfig(config))
    for batch in BATCHES:
        text = np.random.default_rng(0).standard_normal((batch, 128)).astype(np.float32)
        sample = functools.partial(ours.sample, text, steps=STEPS, guidance=1.0)
        mine = {
            "ours, graph": Candidate("ours", sample, ours.count_params()),
            "ours, XLA": Candidate(
                "ours", functools.partial(sample, xla=True), ours.count_params(), "jit_compile"
            ),
        }
        work = f"{STEPS} steps on {SIDE}×{SIDE}×{CHANNELS} latents, batch {batch}"
        plain = dit()
        compiled = torch.compile(dit(), dynamic=False)
        np.testing.assert_allclose(walk(compiled, batch), walk(plain, batch), atol=1e-3)
        yield compare(
            work,
            "diffusers, DiT and flow-matching scheduler",
            {
                "DiT": Candidate("peer", functools.partial(walk, plain, batch), size(plain)),
                "DiT, torch.compile": Candidate(
                    "peer", functools.partial(walk, compiled, batch), size(plain), "torch.compile"
                ),
                **mine,
            },
            f"{LAYERS} layers of width {WIDTH}, {HEADS} heads, 8×8 tokens. Of diffusers' "
            "parameters, 1.15 million are tables of class labels, of which a row is read; each "
            "of its blocks embeds the time anew.",
        )

        plain = unet()
        fast = unet()
        fast.compile(dynamic=False)
        yield compare(
            work,
            "diffusers, DDIM pipeline and U-Net",
            {
                "DDIM pipeline": Candidate(
                    "peer", functools.partial(denoise, ddim(plain), batch), size(plain)
                ),
                "DDIM pipeline, torch.compile": Candidate(
                    "peer",
                    functools.partial(denoise, ddim(fast), batch),
                    size(plain),
                    "torch.compile",
                ),
                **mine,
            },
            "As many steps and about as many parameters, but another network: a U-Net with "
            "attention at 8×8 against a transformer.",
        )
