"""Weights on disk: a `.safetensors` file of arrays and a `.json` card that vouches for it.

The card tells how the weights were made (recipe, seed, steps, hardware, hours, metrics) and holds
the SHA-256 of the arrays' file, which `load` checks before it parses a byte. No pickle: a file of
weights can never run code. The shipped weights lie beside this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from genlib.backend import keras  # which keeps TensorFlow's start-up log away
from genlib.files import check_file, write_atomic

SHIPPED = Path(__file__).parent

# Recipes that were named otherwise when weights that are in use were trained.
FORMER = {"scenes-eye": "scenes-perceptual", "scenes-critic": "scenes-reward"}
# Settings that came later, and what they were before: a card without them is of that time.
LATER = {"shift": 1.0}

Config = TypeVar("Config")
Model = TypeVar("Model", bound=keras.Model)


class WeightsError(ValueError):
    """Weights, or their card, are not what they should be."""


def paths(path: str | Path) -> tuple[Path, Path]:
    """Returns the arrays' file and the card's file of a name with or without an ending."""
    path = Path(path)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def save(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    card: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> Path:
    """Writes arrays and their card: `path.safetensors` and `path.json`, each whole or not at all.

    The card is renamed into place first. If the machine stops between the two renames, the new card
    stands alone, which is no obstacle later, or beside old arrays, and `load` refuses the pair. A
    writer that must keep the old weights until the new ones are complete gives the new ones a new
    name.

    Args:
        path: where, with or without `.safetensors`.
        arrays: name to array; numbers or truth values, any shape.
        card: what JSON can hold; `sha256` is added to it.
        overwrite: weights that stand there are replaced; else they are an error.

    Returns:
        The arrays' file.

    Raises:
        TypeError: if a value is not an array of numbers, or the card holds what JSON cannot.
        ValueError: if the card holds NaN or infinity.
        FileExistsError: if there are weights, and they may not be overwritten.
        OSError: if the folder cannot be written or the disk is full.

    Example:
        >>> save("/tmp/genlib-example/w", {"kernel": np.ones((2, 3), np.float16)}, {"seed": 0}).name
        'w.safetensors'
        >>> load("/tmp/genlib-example/w")[0]["kernel"].shape
        (2, 3)
    """
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name!r} is {getattr(array, 'dtype', type(array).__name__)}; weights are NumPy "
                "arrays of numbers. Convert it with np.asarray."
            )
    # safetensors writes the buffer as it lies in memory, so the layout must be plain C order.
    content = safetensors.save({n: np.asarray(a, order="C") for n, a in arrays.items()})
    full_card = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(full_card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    weights_file, card_file = paths(path)
    alone = _is_alone(card_file, weights_file)
    write_atomic(card_file, text.encode(), overwrite=overwrite or alone)
    write_atomic(weights_file, content, overwrite=overwrite)
    return weights_file


def check_place(path: str | Path, *, overwrite: bool = True) -> Path:
    """Makes sure, before the work, that `save` can write there.

    Returns:
        The arrays' file.

    Raises:
        FileExistsError: if there are weights, and they may not be overwritten.
        OSError: if they cannot be written.
    """
    weights_file, card_file = paths(path)
    check_file(weights_file, overwrite=overwrite)
    check_file(card_file, overwrite=overwrite or _is_alone(card_file, weights_file))
    return weights_file


def _is_alone(card_file: Path, weights_file: Path) -> bool:
    """Returns whether a card has no arrays: their writer was killed before it wrote them."""
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        return not weights_file.exists() and "sha256" in json.loads(card_file.read_bytes())
    return False


def load(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads arrays and their card, after checking that they belong together.

    Args:
        path: with or without `.safetensors`; a bare name, such as `"judge-fashion"`, that is not
            a file here means the shipped weights.

    Returns:
        The arrays by name, and the card.

    Raises:
        FileNotFoundError: if the weights or the card are missing.
        WeightsError: if the card is unreadable, the hash differs, or the file holds no arrays.

    Example:
        >>> arrays, card = load("judge-fashion")
        >>> card["recipe"]
        'judge'
    """
    weights_file, card_file = paths(path)
    if len(Path(path).parts) == 1 and not weights_file.is_file():
        weights_file, card_file = SHIPPED / weights_file.name, SHIPPED / card_file.name
    for file in (weights_file, card_file):
        if not file.is_file():
            names = ", ".join(shipped()) or "none"
            raise FileNotFoundError(
                f"No file {file}. Weights are a .safetensors file with a .json card beside it; "
                f"shipped are: {names}."
            )
    try:
        card = json.loads(card_file.read_bytes())
        expected = card["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{card_file} is not a card of weights: {error!r}. A card is a JSON object with the "
            "key sha256. Restore it, or make the weights again."
        ) from error
    content = weights_file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise WeightsError(
            f"{weights_file} has SHA-256 {digest[:16]}…, its card expects {str(expected)[:16]}…. "
            "The file is damaged or belongs to another card. Restore both, or make them again."
        )
    try:
        return safetensors.load(content), card
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"{weights_file} is not a safetensors file of NumPy arrays ({error}). Its hash is the "
            "one on its card, so it was made wrong: make it again."
        ) from error


def shipped() -> list[str]:
    """Returns the names of the weights that come with genlib.

    Example:
        >>> "judge-fashion" in shipped()
        True
    """
    return sorted(p.stem for p in SHIPPED.glob("*.safetensors"))


def model_arrays(model: keras.Model, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Returns a model's weights as named arrays.

    Args:
        model: a built Keras model.
        dtype: cast floating-point weights to this, say `"float16"` to halve a file.

    Returns:
        Arrays under the names `"0000/path"`, `"0001/path"`, …, in the order of `model.weights`. The
        number keeps the order and makes names unique; the path is for the reader's eye.

    Raises:
        WeightsError: if a weight is finite but does not fit into `dtype`.
    """
    arrays = {}
    for index, variable in enumerate(model.weights):
        array = keras.ops.convert_to_numpy(variable)
        if dtype is not None and array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                cast = array.astype(dtype)
            if np.isfinite(cast).sum() != np.isfinite(array).sum():
                raise WeightsError(
                    f"{variable.path} reaches {np.abs(array).max():.3g}, too large for {dtype}. "
                    'Keep it as "float32".'
                )
            array = cast
        arrays[f"{index:04d}/{variable.path}"] = array
    return arrays


def fingerprint(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits that tell one model's weights, as float16, from another's."""
    parts = [keras.ops.convert_to_numpy(v).astype("<f2").tobytes() for v in model.weights]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def assign(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts named arrays into a model: all of them, or, if one does not fit, none.

    Args:
        model: a built Keras model of the architecture that the arrays were taken from. Its layers
            may be named otherwise (Keras counts `dense`, `dense_1`, … through a session).
        arrays: what `model_arrays` returned.

    Raises:
        WeightsError: if number, kind or shape of the arrays differ from those of the model.
    """
    names = sorted(arrays)
    if len(names) != len(model.weights):
        raise WeightsError(
            f"Got {len(names)} arrays for the {len(model.weights)} weights of {model.name!r}. "
            "Build the model with the settings of the weights' card."
        )
    for name, variable in zip(names, model.weights, strict=True):
        same_kind = name.rsplit("/", 1)[-1] == variable.path.rsplit("/", 1)[-1]
        if not same_kind or tuple(arrays[name].shape) != tuple(variable.shape):
            raise WeightsError(
                f"Array {name!r} of shape {tuple(arrays[name].shape)} does not fit weight "
                f"{variable.path!r} of shape {tuple(variable.shape)} in {model.name!r}. "
                "Build the model with the settings of the weights' card."
            )
    for name, variable in zip(names, model.weights, strict=True):
        variable.assign(arrays[name])


@contextlib.contextmanager
def reading(card: str | Path) -> Iterator[None]:
    """Turns what a damaged card leads to, such as a key that is missing, into one sentence.

    Raises:
        WeightsError: if anything in the block does not fit.
    """
    try:
        yield
    except WeightsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise WeightsError(
            f"The card of {card} does not describe its model ({error!r}). It is damaged, or of "
            "another version of genlib: restore it, or make the weights again."
        ) from error


def settings(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Turns what a card says of a model's settings back into its dataclass, nested ones too.

    Raises:
        WeightsError: if a setting is missing or unknown.
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"Settings are an object of names and values, not {values!r}.")
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in LATER.items() if name in fields} | dict(values)
    if fields != set(values):
        raise WeightsError(
            f"A card with the settings {sorted(values)} does not fit {kind.__name__}, which has "
            f"{sorted(fields)}. The weights were made by another version: train them again."
        )
    made: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = settings(hints[name], value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def load_model(
    path: str | Path, recipes: Collection[str], model: Callable[[Any], Model], config: type
) -> tuple[Model, dict[str, Any]]:
    """Makes a model from its card and fills it with its weights.

    Args:
        path: as for `load`.
        recipes: of which the card must name one.
        model: makes the model from its settings.
        config: the dataclass of the settings.

    Returns:
        The model and its card.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged, or those of another model.
    """
    arrays, card = load(path)
    recipe = str(card.get("recipe"))
    if FORMER.get(recipe, recipe) not in recipes:
        raise WeightsError(
            f"{path} holds weights of {card.get('recipe')!r}, not of {' or '.join(recipes)}."
        )
    with reading(path):
        made = model(settings(config, card["config"]))
    assign(made, arrays)
    return made, card
