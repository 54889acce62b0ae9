"""Everything that is loaded, not trained: `METHODS`, and one loader for each kind of weight.

What is loaded here is shared and frozen: each loader keeps what it loaded, so nobody waits twice.
Whoever wants to change a network (train, prune or quantize it) makes a copy first; the loaders of
the Fashion-MNIST generators, which chapters take apart, give a new one each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genlib import backend, ranges, weights
from genlib.backend import keras  # which keeps TensorFlow's start-up log away
from genlib.models import gan
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import GUIDANCE, SOLVERS, Flow, FlowConfig
from genlib.models.gan import GAN, GANConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.judges import (
    FASHION_JUDGE,
    SCENES_JUDGE,
    Judge,
    JudgeConfig,
    ScenesJudge,
    build_judge,
)
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.vae import VAE, VAEConfig
from genlib.weights import checkpoint

# --- from a prompt to images --------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One way from text embeddings to codes or latents.

    Attributes:
        model: class of the model.
        config: dataclass of its settings.
        weights: name of its shipped weights, which is also the recipe's.
        about: one line for `genlib methods`.
        options: of `model.sample`, with their defaults.
        rung: name of the rung of `genlib.ladder` that runs it with these options; the record of
            the ladder tells by it how fast and how good the method is.
        shortcut: it has learnt its guidance, and takes no other than 1.
    """

    model: Any
    config: type
    weights: str
    about: str
    options: Mapping[str, Any]
    rung: str
    shortcut: bool = False


METHODS: Mapping[str, Method] = {
    "image-gpt": Method(
        ImageGPT,
        ImageGPTConfig,
        "image-gpt",
        "token after token, as a language model writes; 64 forwards of one token",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 2.0, "xla": False},
        "image GPT: KV cache, XLA",
    ),
    "coarse-to-fine": Method(
        CoarseToFine,
        CoarseToFineConfig,
        "coarse-to-fine",
        "a thumbnail first, then all the rest in seven forwards",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 3.0, "xla": False},
        "coarse to fine",
    ),
    "flow": Method(
        Flow,
        FlowConfig,
        "flow",
        "noise that flows to the image in a number of steps, all of it at once",
        {"steps": 8, "guidance": GUIDANCE, "solver": "midpoint", "xla": False},
        "flow: 8 midpoint steps",
    ),
    "flow-shortcut": Method(
        Flow,
        FlowConfig,
        "flow-shortcut",
        "the flow's student: its guided walk in four steps, two or one, each one forward",
        {"steps": 4, "guidance": 1.0, "xla": False},
        "flow: shortcut, 4 steps",
        shortcut=True,
    ),
    "flow-small": Method(
        Flow,
        FlowConfig,
        "flow-small",
        "a student with half of the flow's blocks",
        {"steps": 4, "guidance": 1.0, "xla": False},
        "flow: small shortcut, 4 steps",
        shortcut=True,
    ),
    "image-gpt-student": Method(
        ImageGPT,
        ImageGPTConfig,
        "image-gpt-student",
        "two of image GPT's six blocks, taught by it; has learnt its guidance",
        {"temperature": 1.0, "min_p": 0.05, "guidance": 1.0, "xla": False},
        "image GPT: distilled, 2 blocks",
    ),
}


DEFAULT = "flow-shortcut"


def method_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a method's options, with the given ones in place of their defaults.

    What the method's model would refuse is refused here, before it is loaded.

    Args:
        method: one of `METHODS`.
        given: options by name.

    Raises:
        ValueError: if there is no such method, it has no such option, an option is out of range,
            or the method or the backend cannot do it.
    """
    if method not in METHODS:
        raise ValueError(f"No method {method!r}. Choose one of {tuple(METHODS)}.")
    known = METHODS[method].options
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{method} has no option {unknown}; it has {sorted(known)}.")
    ranges.check_all(**{name: value for name, value in given.items() if name in ranges.RANGES})
    if not isinstance(given.get("xla", False), bool):
        raise ValueError(f"xla = {given['xla']!r}; give true or false.")
    backend.check_xla(given.get("xla", False))
    if METHODS[method].shortcut and given.get("guidance", 1) != 1:
        raise ValueError(
            f"guidance = {given['guidance']}: {method} is a shortcut, which has learnt its "
            "guidance. Give 1."
        )
    if given.get("solver", "euler") not in tuple(SOLVERS):
        raise ValueError(f"solver = {given['solver']!r}; give one of {tuple(SOLVERS)}.")
    return {**known, **given}


@cache
def load(method: str) -> Any:
    """Returns a method's model with the shipped weights, loaded once.

    Args:
        method: one of `METHODS`.

    Raises:
        ValueError: if there is no such method.
        FileNotFoundError: if its weights are not there.
        WeightsError: if they are damaged, or were trained for another tokenizer.
    """
    if method not in METHODS:
        raise ValueError(f"No method {method!r}. Choose one of {tuple(METHODS)}.")
    m = METHODS[method]
    model, card = weights.load_model(m.weights, (m.weights,), m.model, m.config)
    if card.get("tokenizer") != load_tokenizer().fingerprint():
        raise weights.WeightsError(
            f"The weights {m.weights!r} were trained for tokenizer {card.get('tokenizer')}, and "
            f"the one here is {load_tokenizer().fingerprint()}. Train the one or the other again."
        )
    return model


@cache
def load_tokenizer(path: str | Path = "tokenizer") -> Tokenizer:
    """Returns the tokenizer, loaded once.

    Args:
        path: its weights; the shipped ones unless told otherwise.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.
    """
    return weights.load_model(path, ("tokenizer",), Tokenizer, TokenizerConfig)[0]


# --- judges -------------------------------------------------------------------------------------


@cache
def load_judge(path: str | Path = FASHION_JUDGE) -> Judge:
    """Returns the frozen judge of Fashion-MNIST, loaded once.

    Args:
        path: its weights; the shipped ones unless told otherwise.

    Returns:
        The judge, with the card of its weights as `card`.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.

    Example:
        >>> images = np.zeros((3, 28, 28, 1), np.uint8)
        >>> load_judge().probabilities(images).shape
        (3, 10)
    """
    arrays, card = weights.load(path)
    model = build_judge()
    weights.assign(model, arrays)
    return Judge(model, card)


@cache
def load_scenes_judge(path: str | Path = SCENES_JUDGE) -> ScenesJudge:
    """Returns the frozen judge of Scenes, loaded once.

    Args:
        path: of its weights; `PERCEPTUAL_NETWORK` and `REWARD_MODEL` (`genlib.models.judges`) name
            the two other networks of its kind.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.
    """
    recipes = ("scenes-judge", "scenes-perceptual", "scenes-reward")
    return weights.load_model(path, recipes, ScenesJudge, JudgeConfig)[0]


# --- Fashion-MNIST ------------------------------------------------------------------------------


def load_generator(name: str | Path) -> tuple[keras.Model, dict[str, Any]]:
    """Loads a generator and the card that tells how it was made.

    Args:
        name: a run's folder, a weights file, or the bare name of shipped weights, such as
            `"gan-conv-fashion"`, `"gan-mlp-fashion"`, and `"gan-small-fashion"`, which is pruned.

    Returns:
        The generator, latents `(batch, 100)` → images in [-1, 1], and its card.

    Raises:
        FileNotFoundError: if there is neither a run nor a weights file of that name.
        RunError: if the run trains something else, or is damaged.
        WeightsError: if the weights are damaged or do not belong to a GAN.

    Example:
        >>> generator, card = load_generator("gan-mlp-fashion")
        >>> gan.sample(generator, 4).shape
        (4, 28, 28, 1)
    """
    if Path(name).is_dir():
        return load_gan(name).generator, checkpoint.read_run(Path(name))
    arrays, card = weights.load(name)
    if card.get("recipe") not in ("gan", "gan-small"):
        raise weights.WeightsError(
            f"{name} holds weights of {card.get('recipe')!r}, not of a GAN's generator."
        )
    with weights.reading(name):
        if card["recipe"] == "gan":
            generator = gan.build_generator(card["config"]["network"])
        else:  # made by genlib.train.heal
            generator = gan.build_narrow(card["config"]["groups"])
    weights.assign(generator, arrays)
    return generator, card


def load_vae(name: str | Path = "vae-fashion") -> tuple[VAE, dict[str, Any]]:
    """Loads a VAE of Fashion-MNIST and its card.

    Args:
        name: a weights file; the shipped one unless told otherwise.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged, or those of another model.

    Example:
        >>> load_vae()[0].sample(4, seed=0).shape
        (4, 28, 28, 1)
    """
    return weights.load_model(name, ("vae",), VAE, VAEConfig)


def load_gan(folder: str | Path) -> GAN:
    """Loads the GAN of a run as its last checkpoint has it.

    Args:
        folder: of the run.

    Raises:
        FileNotFoundError: if the folder holds no run, or the run has no checkpoint yet.
        RunError: if the run trains something else, or is damaged.
        WeightsError: if its description is.
    """
    folder = Path(folder)
    description = checkpoint.read_run(folder, ("gan",))
    with weights.reading(folder / "run.json"):
        config = weights.settings(GANConfig, description["config"])
        model = GAN(config, description["seed"])
    checkpoint.restore_trained(folder, model.variables())
    return model
