"""Weights and their cards: whole and matching, or a clear refusal."""

import hashlib
import json
import os
import shutil

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genlib import files, weights
from genlib.weights import WeightsError, checkpoint

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ARRAYS = {"kernel": np.arange(6, dtype=np.float16).reshape(2, 3), "steps": np.array(7, np.int64)}


@pytest.fixture
def saved(tmp_path):
    weights.save(tmp_path / "w", ARRAYS, {"recipe": "test", "seed": 0})
    return tmp_path / "w"


@same_folder
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8, np.bool_]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        ),
        min_size=1,
        max_size=3,
    ).filter(lambda arrays: "__metadata__" not in arrays)
)
def test_arrays_come_back_as_they_were(tmp_path, arrays):
    weights.save(tmp_path / "w", arrays, {})
    loaded, _ = weights.load(tmp_path / "w")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_arrays_that_are_views_are_written_in_order(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    views = {"transposed": array.T, "strided": array[:, ::2], "big-endian": array.astype(">f4")}
    weights.save(tmp_path / "w", views, {})
    loaded, _ = weights.load(tmp_path / "w")
    for name, view in views.items():
        np.testing.assert_array_equal(loaded[name], view)


def test_the_card_keeps_its_content_and_the_hash_of_the_file(saved):
    _, card = weights.load(saved)
    content = saved.with_name("w.safetensors").read_bytes()
    assert card == {"recipe": "test", "seed": 0, "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("ending", ["", ".safetensors", ".json"])
def test_the_ending_may_be_given_or_not(saved, ending):
    assert weights.load(f"{saved}{ending}")[1]["recipe"] == "test"


def test_a_dot_in_a_name_is_no_ending(tmp_path):
    weights.save(tmp_path / "rate-0.5", ARRAYS, {})
    assert (tmp_path / "rate-0.5.safetensors").is_file()


def test_a_bare_name_means_a_file_here_before_a_shipped_one(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert weights.load("w")[1]["recipe"] == "test"
    assert weights.load("judge-fashion")[1]["recipe"] == "judge"


def test_every_shipped_file_matches_its_card():
    assert "judge-fashion" in weights.shipped()
    for name in weights.shipped():
        arrays, card = weights.load(name)
        assert all(np.isfinite(a).all() for a in arrays.values())
        if card["recipe"] == "text-teacher":  # fitted in one step, not trained
            assert {"model", "layer", "pooling", "captions"} <= card.keys()
        else:
            assert {"recipe", "seed", "hours", "hardware", "metrics"} <= card.keys()


def test_missing_files_are_named_with_what_is_shipped(saved):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors.*judge-fashion"):
        weights.load(saved.with_name("nothing"))
    saved.with_name("w.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"w\.json"):
        weights.load(saved)


@same_folder
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_any_change_to_the_arrays_file_is_refused(saved, at, bit, cut):
    file = saved.with_name("w.safetensors")
    content = bytearray(file.read_bytes())
    damaged = bytearray(content)
    at %= len(damaged)
    if cut:
        del damaged[at:]
    else:
        damaged[at] ^= 1 << bit
    file.write_bytes(damaged)
    with pytest.raises(WeightsError, match="SHA-256"):
        weights.load(saved)
    file.write_bytes(content)


@same_folder
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b'{"sha256": "' + b))
def test_any_bytes_as_a_card_are_refused(saved, junk):
    saved.with_name("w.json").write_bytes(junk)
    with pytest.raises(WeightsError):
        weights.load(saved)


@pytest.mark.parametrize("card", ["[]", "{}", "3", "null", "[" * 100_000, '{"sha256": [1]}'])
def test_json_that_is_no_card_is_refused(saved, card):
    saved.with_name("w.json").write_text(card)
    with pytest.raises(WeightsError):
        weights.load(saved)


@same_folder
@given(st.binary(max_size=100) | st.binary(max_size=90).map(lambda b: b"\x10" + bytes(7) + b))
def test_a_file_that_is_no_safetensors_is_refused_though_its_hash_fits(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    (tmp_path / "w.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(WeightsError, match="safetensors"):
        weights.load(tmp_path / "w")


def test_types_that_numpy_lacks_are_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0\0"
    (tmp_path / "w.safetensors").write_bytes(content)
    (tmp_path / "w.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(WeightsError, match="safetensors"):
        weights.load(tmp_path / "w")


def test_a_card_of_other_weights_is_refused(saved):
    weights.save(saved.with_name("v"), {"kernel": np.ones(2, np.float32)}, {})
    shutil.copy(saved.with_name("v.json"), saved.with_name("w.json"))
    with pytest.raises(WeightsError, match="another card"):
        weights.load(saved)


@pytest.mark.parametrize("value", [[1.0], np.array(["a"]), np.array([object()]), np.array([1j])])
def test_only_arrays_of_numbers_are_saved(tmp_path, value):
    with pytest.raises(TypeError, match="'x'"):
        weights.save(tmp_path / "w", {"x": value}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_card_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        weights.save(tmp_path / "w", ARRAYS, {"loss": float("nan")})
    with pytest.raises(TypeError):
        weights.save(tmp_path / "w", ARRAYS, {"loss": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_pair_whole(saved, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        weights.save(saved, {"kernel": np.zeros(3)}, {})
    assert weights.load(saved)[1]["recipe"] == "test"
    assert sorted(p.name for p in saved.parent.iterdir()) == ["w.json", "w.safetensors"]


# Keras models


def small_model(units=4):
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units), keras.layers.BatchNormalization()]
    )


def test_a_models_weights_pass_to_another_of_the_same_architecture(tmp_path):
    first, second = small_model(), small_model()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    weights.save(tmp_path / "w", weights.model_arrays(first), {})
    weights.assign(second, weights.load(tmp_path / "w")[0])
    np.testing.assert_array_equal(first.predict_on_batch(x), second.predict_on_batch(x))


def test_half_precision_halves_the_bytes_and_keeps_three_digits():
    model = small_model()
    full, half = weights.model_arrays(model), weights.model_arrays(model, "float16")
    assert sum(a.nbytes for a in full.values()) == 2 * sum(a.nbytes for a in half.values())
    for name in full:
        np.testing.assert_allclose(half[name], full[name], rtol=1e-3, atol=1e-6)


def test_a_weight_too_large_for_half_precision_is_named():
    model = small_model()
    model.layers[0].bias.assign(np.full(4, 1e6, np.float32))
    with pytest.raises(WeightsError, match=r"bias.*too large"):
        weights.model_arrays(model, "float16")


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_changed():
    model = small_model()
    before = weights.model_arrays(model)
    fewer = dict(list(before.items())[:-1])
    with pytest.raises(WeightsError, match="Got 5 arrays for the 6"):
        weights.assign(model, fewer)
    with pytest.raises(WeightsError, match="does not fit"):
        weights.assign(model, weights.model_arrays(small_model(5)))
    changed = {n: a + 1 for n, a in before.items()}
    last = list(changed)[-1]
    changed[last] = np.zeros(9)
    with pytest.raises(WeightsError, match=r"\(9,\)"):
        weights.assign(model, changed)
    for name, array in weights.model_arrays(model).items():
        np.testing.assert_array_equal(array, before[name])


# ---------------------------------------------------------------- a run's folder after a kill


def killed_before_the_rename(monkeypatch, write):
    """Runs a writer in a process that is gone when its temporary file is whole."""
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", lambda *_: os._exit(9))
        if (child := os.fork()) == 0:
            write()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def opened(run, description):
    with checkpoint.open_run(run, description):
        pass


def test_a_kill_while_a_run_is_opened_does_not_close_its_folder_for_ever(tmp_path, monkeypatch):
    run, description = tmp_path / "run", {"recipe": "gan"}
    killed_before_the_rename(monkeypatch, lambda: opened(run, description))
    assert len(list(run.iterdir())) == 2  # the lock, and half of the file that says whose it is
    opened(run, description)
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_what_a_kill_left_in_a_run_is_removed_when_it_goes_on(tmp_path, monkeypatch):
    run, description = tmp_path / "run", {"recipe": "gan"}
    opened(run, description)
    variables = {"w": keras.Variable(np.ones(3))}
    killed_before_the_rename(
        monkeypatch, lambda: checkpoint.save(run, checkpoint.State(1), variables)
    )
    (run / "samples").mkdir()
    killed_before_the_rename(
        monkeypatch, lambda: files.write_atomic(run / "samples" / "epoch-0001.png", b"half")
    )
    opened(run, description)
    left = sorted(path.name for path in run.rglob("*"))
    assert left == ["run.json", "samples"]
    assert checkpoint.restore(run, variables).epoch == 0


def test_files_of_the_user_s_are_never_taken_for_leftovers(tmp_path):
    for name in (".notes.20240101", ".a.b", "run.json.deadbeef.genlib", ".genlib", "notes"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(checkpoint.RunError, match="not empty"):
            opened(folder, {})
        assert (folder / name).read_text() == "mine"
