"""Every recipe, with tiny settings: it learns, it resumes, and what it exports loads."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import typer

from genlib import backend, cli, text, train, weights
from genlib.data.fashion import FashionMNIST
from genlib.models import gan
from genlib.models.coarse_to_fine import CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.gan import GANConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.judges import JudgeConfig, ScenesJudge
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.models.vae import VAEConfig
from genlib.text.student import StudentConfig
from genlib.train import distill, heal, judges, registry, tasks, text_student
from genlib.train.heal import HealConfig, HealTask
from genlib.train.judges import FashionJudgeConfig
from genlib.train.tasks import Recipe
from genlib.weights import checkpoint

SHAPE = TransformerConfig(1, 16, heads=2, kv_heads=1, hidden=16)
DEEP = replace(SHAPE, layers=2)
ALL_HEADS = {"kv_heads": 2, "modulated": True}
TOKENIZER = TokenizerConfig(levels=(3, 3), width=8, pixel_width=4)
JUDGE = JudgeConfig(width=4, features=8)
GPT = ImageGPTConfig(SHAPE, alphabet=3, text_width=8, prefix=2)
FLOW = FlowConfig(replace(DEEP, **ALL_HEADS), channels=2, text_width=8)
CONFIGS = {
    "judge": FashionJudgeConfig(),
    "vae": VAEConfig(latent_dim=4, widths=(32,)),
    "scenes-judge": JUDGE,
    "scenes-perceptual": JUDGE,
    "scenes-reward": JUDGE,
    "tokenizer": TOKENIZER,
    "text-student": StudentConfig(features=256, hidden=16),
    "image-gpt": GPT,
    "coarse-to-fine": CoarseToFineConfig(SHAPE, alphabet=3, text_width=8, prefix=2),
    "flow": FLOW,
    "flow-shortcut": replace(FLOW, shortcut=True),
    "flow-small": replace(FLOW, transformer=replace(SHAPE, **ALL_HEADS), shortcut=True),
    "image-gpt-student": GPT,
}
RATES = {"judge": 1e-3, "vae": 2e-3, "text-student": 3e-3}
BATCH = 16


def wild(model, spread=0.2):
    """Random weights everywhere: some of a new model's are zero and would hide a mistake."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(0, spread, variable.shape))
    return model


def squares(n):
    """Fashion of a simple kind: a bright square whose height is its class."""
    labels = np.arange(n) % 10
    images = np.zeros((n, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label : label + 10, 8:20] = 230
    return images, labels


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Epochs of 64 images, and everything that a task would load, small and made here."""
    for module in (tasks, judges, distill, text_student):
        monkeypatch.setattr(module, "EPOCH", 64)
    monkeypatch.setattr(tasks, "PARTS", 2)
    monkeypatch.setattr(distill, "PARTS", 2)
    monkeypatch.setattr(distill, "WALKS", 16)

    def encode(texts):
        seeds = [list(said.encode()) for said in texts]
        rows = [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
        return np.array(rows, np.float32)

    monkeypatch.setattr(text, "encode", encode)
    tokenizer = Tokenizer(TOKENIZER)
    perceptual = ScenesJudge(JUDGE, seed=1)
    teachers = {
        "flow": wild(Flow(FLOW)),
        # Sure enough of its letters that there is something to learn from it.
        "image-gpt": wild(ImageGPT(replace(GPT, transformer=DEEP)), 0.5),
    }
    for module in (tasks, distill):
        monkeypatch.setattr(module, "load_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(tasks, "load_scenes_judge", lambda name: perceptual)
    monkeypatch.setattr(distill, "load", teachers.__getitem__)
    data = FashionMNIST(*squares(64), *squares(64), "path", True)
    for module in (tasks, train.gan, heal, registry):
        monkeypatch.setattr(module, "fashion_mnist", lambda source=None: data)
    monkeypatch.setattr(
        heal.pretrained, "load_generator", lambda name: (gan.build_generator("conv", 1), {})
    )


def read(texts):
    """A stand-in for the language model: 128 numbers that follow from the text alone."""
    rows = [np.random.default_rng(list(t.encode())).normal(size=128) * bool(t) for t in texts]
    return np.array(rows, np.float32)


def task(name, epochs=4, **options):
    """Makes the task of a recipe, with tiny settings."""
    if name == "gan":
        return train.GANTask(squares(64)[0], GANConfig(batch_size=BATCH, learning_rate=1e-3))
    if name == "gan-small":
        config = HealConfig(groups=(2, 2, 2), batch_size=8, steps=100)
        return HealTask(squares(64)[0], config, latents=32)
    settings = Recipe(epochs, BATCH, RATES.get(name, 5e-3), warmup=2, average=0.5)
    if name in ("judge", "vae"):
        return registry.TASKS[name](None, replace(settings, average=None), CONFIGS[name], **options)
    if name == "text-student":
        options["read"] = read
    made = registry.TASKS[name](settings, CONFIGS[name], **options)
    if name.startswith("flow-"):
        made.options["xla"] = False  # compiling takes longer than walking
    return made


def weights_of(made):
    return {name: backend.to_numpy(v.value) for name, v in made.variables().items()}


# Every recipe on TensorFlow; on the other backends one of each kind of step, since a step has to be
# compiled three times here.
OF_EACH_KIND = ("gan", "tokenizer", "text-student", "image-gpt", "flow", "flow-shortcut")


@pytest.mark.parametrize("name", registry.TASKS if backend.name() == "tensorflow" else OF_EACH_KIND)
def test_a_recipe_learns_goes_on_where_it_stopped_and_ships_its_average(name, tmp_path):
    whole, stopped = task(name), tmp_path / "stopped"

    def stop(epoch, state):
        if epoch == 1:  # what a kill after the first epoch leaves behind
            shutil.copytree(tmp_path / "whole", stopped)

    state = train.run(whole, 4, tmp_path / "whole", progress=False, on_epoch=stop)
    if name != "gan":  # of two that play against each other, one need not win
        losses = next(iter(state.history.values()))
        assert losses[-1] < losses[0]

    resumed = task(name)
    resumed.sample = lambda: np.zeros((1, 8, 8, 3), np.uint8)  # one task has drawn its sheets
    assert train.run(resumed, 4, stopped, progress=False).epoch == 4
    expected, found = weights_of(whole), weights_of(resumed)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(value, found[key], err_msg=key)

    before = weights_of(whole)
    with whole.trained() as model:
        averaged = weights.model_arrays(model, "float16")
    for key, value in before.items():  # what was lent is given back
        np.testing.assert_array_equal(value, backend.to_numpy(whole.variables()[key].value))
    card = registry.export(stopped, tmp_path / "w", lambda model: {"layers": len(model.layers)})
    arrays, written = weights.load(tmp_path / "w")
    assert written.items() >= json.loads(json.dumps(card)).items()
    for mine, theirs in zip(sorted(averaged), sorted(arrays), strict=True):
        np.testing.assert_array_equal(averaged[mine], arrays[theirs])
    assert (card["recipe"], card["epochs"], card["seed"]) == (name, 4, whole.seed)
    assert card["metrics"]["layers"] > 0
    assert card["hardware"]
    assert card["images"] == 4 * (32 if name == "gan-small" else 64)


def test_the_exported_model_differs_from_the_last_one_where_weights_are_averaged():
    made = task("image-gpt", 1)
    train.run(made, 1, progress=False)
    last = backend.to_numpy(made.model.trainable_variables[0].value)
    with made.trained() as model:
        average = backend.to_numpy(model.trainable_variables[0].value)
    assert np.abs(last - average).max() > 0


def test_what_is_lent_is_given_back_after_an_error_too():
    made = task("flow", 1)
    train.run(made, 1, progress=False)
    before = weights_of(made)
    with pytest.raises(ZeroDivisionError), made.trained():
        1 / 0  # noqa: B018
    for key, value in weights_of(made).items():
        np.testing.assert_array_equal(before[key], value)


def test_an_exported_model_loads_by_its_card(tmp_path):
    train.run(task("flow", 1), 1, tmp_path / "run", progress=False)
    registry.export(tmp_path / "run", tmp_path / "w")
    model, card = weights.load_model(tmp_path / "w", ("flow",), Flow, FlowConfig)
    assert model.config == FLOW
    assert card["tokenizer"] == Tokenizer(TOKENIZER).fingerprint()
    with pytest.raises(weights.WeightsError, match="'flow', not of image-gpt"):
        weights.load_model(tmp_path / "w", ("image-gpt",), ImageGPT, ImageGPTConfig)


# --- what a batch holds -------------------------------------------------------------------------


def first_batch(made, epoch=0):
    return made.batch(made.prepare(epoch), np.arange(BATCH), np.random.default_rng(0))


def test_a_caption_is_sometimes_hidden():
    prepared = task("flow").prepare(0)
    assert prepared["text"].shape == (64, 8)
    hidden = (prepared["text"] == 0).all(1)
    assert 0 < hidden.sum() < 20


def test_the_flow_is_asked_for_the_way_from_noise_to_latents():
    x, velocity = first_batch(task("flow"))
    image = x["x"] + (1 - x["time"])[:, None, None, None] * velocity
    assert np.abs(image * FLOW.spread).max() <= 1 + 1e-5  # latents lie in [-1, 1]


def test_later_epochs_see_the_same_scenes_with_other_captions():
    made = task("image-gpt")
    first, again = made.prepare(0), made.prepare(2)  # two parts, so the third epoch is the first
    np.testing.assert_array_equal(first["latents"], again["latents"])
    assert np.any(first["text"] != again["text"])
    assert np.any(made.prepare(1)["latents"] != first["latents"])


def test_the_tokenizer_never_sees_a_scene_twice():
    made = task("tokenizer")
    assert np.any(made.prepare(0) != made.prepare(2))


def test_half_of_the_judges_images_are_shaken():
    made = task("scenes-judge")
    images, attributes = made.prepare(0)
    shown, asked = first_batch(made)
    plain = images[:BATCH] / 127.5 - 1
    shaken = np.abs(shown - plain).max((1, 2, 3)) > 1e-5
    assert 0 < shaken.sum() < BATCH
    np.testing.assert_array_equal(asked, attributes[:BATCH])


# --- recipes ------------------------------------------------------------------------------------


def test_the_seed_of_a_recipe_is_that_of_its_weights():
    for name in ("vae", "judge", "flow"):
        first, same, other = (task(name, seed=seed) for seed in (1, 1, 2))
        for a, b in zip(first.model.get_weights(), same.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        pairs = zip(first.model.get_weights(), other.model.get_weights(), strict=True)
        assert any(np.any(a != b) for a, b in pairs)


def test_the_command_line_lists_every_recipe():
    commands = typer.main.get_command(cli.app).commands["train"].commands
    assert set(commands) - {"text-teacher"} == set(registry.TASKS)  # fitted in a step, not trained


def test_former_names_find_their_recipe():
    assert registry.find("scenes-eye") is registry.TASKS["scenes-perceptual"]
    assert registry.find("scenes-critic") is registry.TASKS["scenes-reward"]
    with pytest.raises(ValueError, match=r"'cake'.*image-gpt"):
        registry.find("cake")


def test_every_task_knows_its_name():
    for name in registry.TASKS:
        assert task(name).card()["recipe"] == name


@pytest.mark.parametrize("name", [n for n in weights.shipped() if n != "text-teacher"])
def test_the_card_of_shipped_weights_names_a_recipe_and_its_settings_load(name):
    card = json.loads((weights.SHIPPED / f"{name}.json").read_bytes())
    kind = registry.find(card["recipe"])
    config = getattr(
        kind, "config_class", {"gan": GANConfig, "gan-small": HealConfig}.get(card["recipe"])
    )
    assert weights.settings(config, card.get("config", {})) is not None
    if "training" in card:
        assert Recipe(**card["training"]).epochs == card["training"]["epochs"]


def test_a_recipe_is_made_once_with_the_settings_asked_for():
    made, epochs = registry.make("scenes-judge", epochs=3, seed=5)
    assert (epochs, made.recipe.epochs, made.seed) == (3, 3, 5)
    assert registry.make("scenes-judge")[1] == registry.TASKS["scenes-judge"].recipe.epochs
    with pytest.raises(ValueError, match="seed = -1"):
        registry.make("scenes-judge", seed=-1)
    with pytest.raises(ValueError, match="'cake'"):
        registry.make("cake")


@pytest.mark.parametrize("name", [name for name in registry.TASKS if name != "gan"])
def test_no_recipe_takes_epochs_out_of_their_range_for_not_given(name, monkeypatch):
    """0 is a number that was given, and refused before any data are loaded."""
    monkeypatch.setattr(registry, "fashion_mnist", pytest.fail)
    for epochs in (0, -1, 2.5, True, 10**9):
        told = f"^epochs = {epochs}; give a whole number from 1 to 1,000,000"
        with pytest.raises(ValueError, match=told):
            registry.make(name, epochs=epochs)


def test_healing_has_its_own_epochs_and_seed_unless_others_are_given(monkeypatch):
    class Light(HealTask):
        def __init__(self, images, *, seed, data_label):
            self.seed = seed

    monkeypatch.setattr(registry, "fashion_mnist", lambda source: FashionMNIST(*few, "path", True))
    monkeypatch.setitem(registry.TASKS, "gan-small", Light)
    few = (*squares(5), *squares(5))
    for given, found in (({}, (8, 0)), ({"epochs": 3}, (3, 0)), ({"seed": 7}, (8, 7))):
        made, epochs = registry.make("gan-small", **given)
        assert (epochs, made.seed) == found


def test_too_few_images_are_refused():
    few = FashionMNIST(*squares(5), *squares(5), "path", True)
    with pytest.raises(ValueError, match="5 images do not fill a batch of 128"):
        registry.TASKS["judge"](few)


def test_a_card_of_other_settings_is_refused():
    with pytest.raises(weights.WeightsError, match="another version"):
        weights.settings(JudgeConfig, {"width": 4})


def test_a_run_that_is_no_recipe_is_not_exported(tmp_path):
    with checkpoint.open_run(tmp_path / "run", {"recipe": "cake"}):
        pass
    with pytest.raises(checkpoint.RunError, match="'cake'"):
        registry.export(tmp_path / "run", tmp_path / "w")
    with checkpoint.open_run(tmp_path / "new", task("scenes-judge").card()):
        pass
    with pytest.raises(FileNotFoundError, match="Train it for one epoch first"):
        registry.export(tmp_path / "new", tmp_path / "w")


def test_a_run_of_former_times_is_exported_under_its_old_name(tmp_path):
    train.run(task("scenes-reward", 1), 1, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace("scenes-reward", "scenes-critic"))
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state.pop("images") == 64  # was not counted then
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    card = registry.export(tmp_path / "run", tmp_path / "w")
    assert (card["recipe"], card["images"]) == ("scenes-critic", 64)
    loaded, _ = weights.load_model(tmp_path / "w", ("scenes-reward",), ScenesJudge, JudgeConfig)
    assert loaded.config == JUDGE
