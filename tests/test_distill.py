"""Distillation: what a student is asked for is what its teacher does, and it learns it."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from genlib import backend, train, weights
from genlib.models.edit import edit
from genlib.models.flow import GUIDANCE, Flow, FlowConfig, forwards, resume, shifted
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.train import distill, registry, tasks

SHAPE = TransformerConfig(2, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
CONFIG = FlowConfig(SHAPE, channels=2, text_width=8)
TEXT = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def wild(config=CONFIG, seed=0, size=0.2):
    """A flow with random weights everywhere: new ones begin at zero and would hide a mistake."""
    model = Flow(config, seed)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.normal(0, size, variable.shape))
    return model


@pytest.fixture
def small(monkeypatch):
    for module in (distill, tasks):
        monkeypatch.setattr(module, "EPOCH", 64)
    monkeypatch.setattr(distill, "WALKS", 16)
    monkeypatch.setattr(
        distill.text, "encode", lambda said: np.resize(TEXT, (len(said), 8)).astype(np.float32)
    )

    def make(teacher, **options):
        recipe = tasks.Recipe(8, batch_size=8, learning_rate=5e-3, warmup=2, average=0.5)
        tokenizer = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4))
        made = distill.ShortcutTask(
            recipe,
            replace(CONFIG, shortcut=True, shift=distill.SHIFT),
            teacher=teacher,
            tokenizer=tokenizer,
            **options,
        )
        made.options["xla"] = False
        return made

    return make


def test_a_path_begins_at_noise_and_ends_where_sampling_ends():
    model = wild()
    path = model.path(TEXT, 4, stops=4, steps=8)
    assert path.shape == (3, 5, 16, 16, 2)
    latents = model.sample(TEXT, 4, steps=8)
    np.testing.assert_allclose(path[:, -1] * CONFIG.spread, latents, atol=1e-4)
    with pytest.raises(ValueError, match="divide"):
        model.path(TEXT, stops=4, steps=6)


def test_a_shift_shortens_the_steps_near_the_noise():
    parts = np.linspace(0, 1, 5)
    assert shifted(parts, 1.0) is parts
    np.testing.assert_allclose(shifted(parts, 3.0), [0, 0.1, 0.25, 0.5, 1])
    even, model = wild(), wild(replace(CONFIG, shift=3.0))
    latents = model.sample(TEXT, 4, steps=4)
    np.testing.assert_allclose(latents, model.sample(TEXT, 4, steps=4, compiled=False), atol=1e-5)
    path = even.path(TEXT, 4, stops=4, steps=4, shift=3.0)
    np.testing.assert_allclose(path[:, -1] * CONFIG.spread, latents, atol=1e-5)
    x = path[:, 0]
    for time, after in ((0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 1)):
        x = backend.to_numpy(even.step(x, TEXT, time, after - time, GUIDANCE, "euler"))
    np.testing.assert_allclose(path[:, -1], x, atol=1e-4)
    assert np.abs(even.sample(TEXT, 4, steps=4) - latents).max() > 1e-2
    for shift in (0.5, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"shift = {shift}"):
            even.path(TEXT, shift=shift)


def test_all_that_walks_takes_the_flow_s_own_times():
    model = wild(replace(CONFIG, shift=3.0))
    path = model.path(TEXT, 4, stops=4, steps=4)
    latents = path[:, -1] * CONFIG.spread
    for begin in range(5):
        resumed = resume(model, path[:, begin], TEXT, begin=begin, steps=4)
        np.testing.assert_allclose(resumed, latents, atol=1e-5)
    ended = model.advance(path[:, 0], TEXT, 0, 4, 4)
    np.testing.assert_allclose(ended, path[:, -1], atol=1e-5)
    same = edit(model, latents, TEXT, TEXT, 1, steps=4, guidance=1.5, old_guidance=1.5)
    np.testing.assert_allclose(same, latents, atol=1e-5)


def test_a_student_s_times_are_shifted_whatever_its_teacher_s_are(small):
    for teacher in (wild(), wild(replace(CONFIG, shift=2.0))):
        task = small(teacher)
        assert task.student_config() == replace(CONFIG, shortcut=True, shift=distill.SHIFT)


def test_a_card_of_the_time_before_the_shift_is_of_even_steps():
    card = asdict(CONFIG)
    del card["shift"]
    assert weights.settings(FlowConfig, card) == CONFIG


def test_guidance_on_an_interval_guides_there_alone():
    model = wild()

    def drawn(**options):
        return model.sample(TEXT, 4, steps=4, **options)

    everywhere, nowhere = drawn(guidance=3.0), drawn(guidance=1.0)
    middle = drawn(guidance=3.0, interval=(0.25, 0.5))
    np.testing.assert_allclose(
        middle, drawn(guidance=3.0, interval=(0.25, 0.5), compiled=False), atol=1e-4
    )
    assert np.abs(middle - everywhere).max() > 1e-3 < np.abs(middle - nowhere).max()
    np.testing.assert_allclose(nowhere, drawn(guidance=3.0, interval=(0.3, 0.4)), atol=1e-4)
    np.testing.assert_allclose(everywhere, drawn(guidance=3.0, interval=(0.0, 1.0)), atol=1e-6)
    with pytest.raises(ValueError, match="first ≤ last"):
        drawn(interval=(0.5, 0.2))


SLOW_ELSEWHERE = pytest.mark.skipif(
    backend.name() != "tensorflow", reason="a minute where no graph is compiled"
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"steps": 50, "guidance": 3.0}, 100, marks=SLOW_ELSEWHERE),
        ({"steps": 4, "guidance": 3.0, "interval": (0.25, 0.5)}, 6),
        ({"steps": 4, "guidance": 3.0, "interval": (0.3, 0.4)}, 4),
        ({"steps": 3, "guidance": 1.0, "solver": "midpoint"}, 6),
    ],
)
def test_forwards_are_counted(options, expected, monkeypatch):
    model, calls = wild(), 0
    velocity = model.call

    def counted(inputs):
        nonlocal calls
        calls += len(inputs["x"])
        return velocity(inputs)

    model.call = counted
    monkeypatch.setattr(backend, "compile_step", lambda run, *_, **__: run)  # no graph hides them
    model.sample(TEXT[:1], compiled=False, **options)
    assert forwards(**options) == calls == expected


def test_a_student_begins_as_its_teacher_and_a_shallower_one_with_its_blocks():
    teacher, student = wild(), Flow(replace(CONFIG, shortcut=True))
    distill.inherit(student, teacher)
    options = {"steps": 4, "guidance": 1.0}
    np.testing.assert_allclose(
        student.sample(TEXT, **options), teacher.sample(TEXT, **options), atol=1e-5
    )
    teacher = wild(replace(CONFIG, transformer=replace(SHAPE, layers=5)))
    student = Flow(replace(CONFIG, transformer=replace(SHAPE, layers=3)))
    distill.inherit(student, teacher)
    for mine, theirs in zip((0, 1, 2), (0, 2, 4), strict=True):
        np.testing.assert_array_equal(
            student.transformer.blocks[mine].qkv.get_weights()[0],
            teacher.transformer.blocks[theirs].qkv.get_weights()[0],
        )
    with pytest.raises(ValueError, match="inherit"):
        distill.inherit(teacher, student)


def test_a_shortcut_needs_no_guidance_and_says_so():
    model = wild(replace(CONFIG, shortcut=True))
    assert (
        np.abs(
            model.sample(TEXT, steps=1, guidance=1) - model.sample(TEXT, steps=2, guidance=1)
        ).max()
        > 1e-3
    )
    with pytest.raises(ValueError, match="has learnt its guidance"):
        model.sample(TEXT, guidance=2.0)


def test_targets_lead_along_the_walks(small):
    task = small(wild())
    walks = task.prepare(0)
    x, y = task.batch(walks, np.arange(8) + 12, np.random.default_rng(1))  # 16 walks: 4 come twice
    ends = walks.points.astype(np.float32)
    times = np.array([0, 0.1, 0.25, 0.5, 1])
    for row in range(len(y)):
        reached = x["x"][row] + x["width"][row] * y[row]
        first, stop = (
            int(np.abs(times - time).argmin())
            for time in (x["time"][row], x["time"][row] + x["width"][row])
        )
        assert stop - first in distill.WIDTHS
        assert abs(x["time"][row] + x["width"][row] - times[stop]) < 1e-6
        off = np.abs(ends[:, stop] - reached).reshape(len(ends), -1).max(1)
        walked = int(off.argmin())
        assert off[walked] < 1e-5
        begin = ends[walked, first]
        np.testing.assert_allclose(begin, x["x"][row], atol=1e-6)
        np.testing.assert_array_equal(walks.text[walked], x["text"][row])


def test_a_student_learns_to_take_wide_steps(small):
    """One step of the student comes nearer to the teacher's end than one of the teacher."""
    teacher = wild(size=0.8)  # bent ways: a single step of the teacher leads astray
    task = small(teacher)
    state = train.run(task, 8, progress=False)
    assert state.history["loss"][-1] < state.history["loss"][0]
    end = teacher.sample(TEXT, 1_000_000, steps=16)
    one = teacher.sample(TEXT, 1_000_000, steps=1)
    with task.trained() as student:
        short = student.sample(TEXT, 1_000_000, steps=1, guidance=1)
    assert np.square(short - end).mean() < 0.5 * np.square(one - end).mean()
    assert task.card()["config"]["shortcut"] is True


WORDS = TransformerConfig(3, 16, heads=2, kv_heads=1, hidden=16)
GPT = ImageGPTConfig(WORDS, alphabet=3, text_width=8, prefix=2)


def wild_gpt(config=GPT, seed=0):
    model = ImageGPT(config, seed)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def image_student(teacher, layers=2, **options):
    recipe = tasks.Recipe(6, batch_size=16, learning_rate=5e-3, warmup=2, average=0.5)
    config = replace(GPT, transformer=replace(WORDS, layers=layers))
    tokenizer = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4))
    return distill.ImageStudentTask(recipe, config, teacher=teacher, tokenizer=tokenizer, **options)


def first_batch(task):
    return task.batch(task.prepare(0), np.arange(16), np.random.default_rng(0))


def test_the_teacher_of_tokens_gives_shares_that_add_up(small):
    teacher = wild_gpt()
    x, tokens = first_batch(image_student(teacher, guidance=1.0))
    shares = backend.to_numpy(x["shares"])
    assert shares.shape == (16, 64, 8, 3)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    # Unguided, the share of the letter that came is the teacher's own probability of it.
    chosen = np.take_along_axis(shares, tokens[..., None], -1)[..., 0]
    likely = teacher({"text": x["text"], "tokens": tokens})
    np.testing.assert_allclose(np.log(chosen).sum(-1), backend.to_numpy(likely), atol=1e-3)


def test_no_model_does_better_on_the_teachers_shares_than_the_teacher(small):
    teacher = wild_gpt()
    x, _ = first_batch(image_student(teacher, guidance=1.0))
    best = -backend.to_numpy(teacher(x)).mean()
    others = [-backend.to_numpy(wild_gpt(seed=seed)(x)).mean() for seed in (1, 2, 3)]
    assert min(others) > best
    shares = backend.to_numpy(x["shares"])
    assert best == pytest.approx(-(shares * np.log(shares)).sum((-1, -2)).mean(), rel=1e-4)


def test_a_student_of_tokens_learns_from_a_guided_teacher(small):
    task = image_student(wild_gpt(), guidance=1.5)
    state = train.run(task, 6, progress=False)
    assert state.history["loss"][-1] < state.history["loss"][0]
    assert task.card()["teacher"] == {"guidance": 1.5}


def test_the_students_are_recipes():
    for name in ("flow-shortcut", "flow-small", "image-gpt-student"):
        assert registry.find(name).name == name
