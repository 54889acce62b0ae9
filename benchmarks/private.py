"""Training with differential privacy: what an attacker can still tell, and what it costs.

Two VAEs of Fashion-MNIST train on the same images and on canaries, garments cut into tiles that are
shuffled: one on canaries A, the other on canaries B. The attacker sees both networks and says for
each canary which of them was trained on it. The same is done by DP-SGD: each image's gradient is
clipped, and noise is added to their sum.

    pip install 'genlib[privacy]'
    python benchmarks/private.py    # 10 minutes on one core; writes genlib/records/private.json
"""

from __future__ import annotations

import base64
import os

os.environ["KERAS_BACKEND"] = "torch"  # Opacus needs PyTorch; the loss is genlib's

from typing import Annotated, Any

import numpy as np
import torch
import typer
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genlib import bench, files, metrics, plot, records
from genlib.data import fashion_mnist, to_float, to_uint8
from genlib.models import vae

CANARIES = 200  # in each training
TILE = 7  # pixels; 16 tiles an image
CLIP = 1.0  # norm of an image's gradient, at most
NOISE = 1.0  # standard deviation of the noise, in units of CLIP
BATCH = 256  # images a step on average: each takes part by chance
DELTA = 1e-5
LOG_SCALE = float(np.log(0.1))
DRAWS = 16  # of the latent, to estimate a loss


class Network(nn.Module):
    """A VAE of two dense layers on each side: images to locations, means and log-variances."""

    def __init__(self, hidden: int = 96, latent: int = 8) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 784),
            nn.Unflatten(1, (28, 28, 1)),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns locations of pixels, and means and log-variances of latents."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn(mean.shape)
        return self.decoder(vae.reparametrise(mean, log_variance, noise)), mean, log_variance


def losses(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Returns minus the evidence lower bound of each image, `(n,)`, in nats."""
    location, mean, log_variance = network(x)
    fit = vae.log_discretised_logistic(x, location, torch.tensor(LOG_SCALE))
    return vae.gaussian_kl(mean, log_variance) - fit


def shuffled(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns images whose tiles are in another order, of each image a different one."""
    side = 28 // TILE
    tiles = images.reshape(-1, side, TILE, side, TILE).swapaxes(2, 3).reshape(-1, side**2, TILE**2)
    mixed = rng.permuted(np.tile(np.arange(side**2), (len(tiles), 1)), axis=1)[..., None]
    tiles = np.take_along_axis(tiles, mixed, axis=1)
    apart = tiles.reshape(-1, side, side, TILE, TILE).swapaxes(2, 3)
    return apart.reshape(-1, 28, 28, 1)


def train(images: np.ndarray, epochs: int, private: bool, seed: int) -> tuple[nn.Module, float]:
    """Returns a trained network, and the epsilon that it may claim (infinite if not private)."""
    torch.manual_seed(0)  # all trainings begin alike
    network = Network()
    torch.manual_seed(seed)  # noise that another training shares would be known to the attacker
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(torch.from_numpy(to_float(images))), BATCH, shuffle=True)
    module: nn.Module = network
    engine = PrivacyEngine(accountant="rdp")
    if private:
        module, optimizer, loader = engine.make_private(
            module=network,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
        )
    for _ in range(epochs):
        for (x,) in loader:
            optimizer.zero_grad()
            losses(module, x).mean().backward()
            optimizer.step()
    return network, engine.get_epsilon(DELTA) if private else float("inf")


def scores(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Returns the loss of each image, with the same draws of the latent for every network."""
    torch.manual_seed(2)
    x = torch.from_numpy(to_float(images))
    with torch.no_grad():
        return np.mean([losses(network, x).numpy() for _ in range(DRAWS)], axis=0)


def attack(pair: list[nn.Module], canaries: list[np.ndarray]) -> list[float]:
    """Returns how often the attacker is right, with its interval.

    A canary is said to have been in the training whose network explains it better than usual;
    what is usual, canaries tell that neither network has seen.
    """
    differences = [scores(pair[1], c) - scores(pair[0], c) for c in canaries]
    usual = np.median(differences[2])
    right = np.concatenate([differences[0] > usual, differences[1] < usual])
    return [float(right.mean()), *metrics.wilson(int(right.sum()), len(right))]


def pictures(network: nn.Module) -> str:
    """Returns eight samples in a row, as PNG in base64."""
    torch.manual_seed(3)
    with torch.no_grad():
        made = network.decoder(torch.randn(8, network.latent)).numpy()
    return base64.b64encode(files.to_png(plot.sheet(to_uint8(made), 8), optimize=True)).decode()


def main(
    images: Annotated[int, typer.Option(min=1000, help="Beside the canaries.")] = 10_000,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 30,
) -> None:
    """Trains twice without and twice with privacy, attacks, and writes the record."""
    data, rng = fashion_mnist(), np.random.default_rng(0)
    order = rng.permutation(len(data.train_images))
    base = data.train_images[order[:images]]
    outside = data.train_images[order[images : images + 3 * CANARIES]]
    canaries = np.split(shuffled(outside, rng), 3)
    result: dict[str, Any] = {
        "images": images,
        "canaries": CANARIES,
        "epochs": epochs,
        "batch": BATCH,
        "noise": NOISE,
        "clip": CLIP,
        "delta": DELTA,
    }
    for name, private in {"plain": False, "private": True}.items():
        made = [
            train(np.concatenate([base, c]), epochs, private, seed)
            for seed, c in enumerate(canaries[:2], start=10)
        ]
        pair = [network for network, _ in made]
        test = scores(pair[0], data.test_images[:1000])
        result[name] = {
            "epsilon": made[0][1] if private else None,
            "attacker right": attack(pair, canaries),
            "loss": [float(test.mean()), *bench.bootstrap_interval(test, np.mean)],
            "samples": pictures(pair[0]),
        }
        print(name, {k: v for k, v in result[name].items() if k != "samples"}, flush=True)
    result["steps"] = epochs * -(-(images + CANARIES) // BATCH)
    records.save("private", result)


if __name__ == "__main__":
    typer.run(main)
