"""The ladder: rungs of one run can be compared, and quality decides which of them count."""

import copy
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from genlib import bench, ladder
from genlib.bench.count import Work
from genlib.data import fashion_mnist
from genlib.ladder import rungs
from genlib.models.flow import Flow, FlowConfig
from genlib.models.transformer import TransformerConfig

SLOW = "toy: slow"


def rung(name, tag, draw):
    def build():
        return rungs.Built(draw, 10, 40, 1, lambda n: Work(n * 10, n))

    return rungs.Rung(name, "fashion", "toys", tag, SLOW, build)


@pytest.fixture(scope="module")
def result():
    """Real images, slowly and quickly, others of the same kind, and noise."""
    images = fashion_mnist("subset").train_images

    def real(rows, seed):
        return images[rows.start : rows.stop]

    def slow(rows, seed):
        time.sleep(0.02)
        return real(rows, seed)

    def others(rows, seed):
        return images[1000 + rows.start : 1000 + rows.stop]

    def noise(rows, seed):
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (len(rows), 28, 28, 1)).astype(np.uint8)

    tags = rungs.TAGS
    made = [
        (SLOW, tags[0], slow),
        ("toy: fast", tags[0], real),
        ("other: again", tags[2], others),
        ("toy: fast, ONNX", tags[0], real),
    ]
    made.append(("toy: noise", tags[2], noise))
    lines = []
    found = ladder.run(
        [rung(*each) for each in made], images=200, processes=False, log=lines.append
    )
    assert lines
    return found


def test_a_result_is_json(result):
    assert json.loads(json.dumps(result)) == result


def test_a_rung_that_does_the_same_faster_is_found(result):
    assert ladder.fastest(result, SLOW, same=True, exported=False) == "toy: fast"
    assert ladder.ratio(result, SLOW, "toy: fast").low > 2
    assert result["rungs"]["toy: fast"]["ratio"]["16"][0] > 2


def test_another_family_is_no_speed_up():
    rows = {
        name: {"like": SLOW, "tag": "", "ratio": {"16": [1.0]}, "against": {SLOW: {"shown": True}}}
        for name in (SLOW, "toy: fast", "other: faster")
    }
    rows["other: faster"]["panel"] = rows["toy: fast"]["panel"] = rows[SLOW]["panel"] = "fashion"
    seconds = {SLOW: 1.0, "toy: fast": 0.5, "other: faster": 0.1}
    here = bench.environment()
    made = {name: bench.Record(name, each, (each,) * 9, 1, here) for name, each in seconds.items()}
    times = json.loads(bench.Comparison(SLOW, made, here).to_json())
    result = {"rungs": rows, "times": {"fashion": {"16": times}}}
    assert ladder.fastest(result, SLOW) == "toy: fast"


def test_speeds_of_one_run_and_quality_of_another_are_joined_for_equal_networks(result):
    judged = copy.deepcopy(result)
    judged["environment"]["date"] = "later"
    judged["floor"]["fashion"] = [1.0, 0.5, 2.0]
    for row in judged["rungs"].values():
        row |= {"fid": [7.0, 6.0, 8.0], "throughput": [0.0] * 3}
    judged["rungs"]["other: again"]["forwards"] += 1
    joined = ladder.with_quality(result, judged)
    assert set(joined["rungs"]) == set(result["rungs"]) - {"other: again"}
    for name, row in joined["rungs"].items():
        assert row["fid"] == [7.0, 6.0, 8.0]
        assert row["throughput"] == result["rungs"][name]["throughput"]
    assert joined["floor"] == judged["floor"]
    assert joined["judged"]["date"] == "later" != joined["environment"]["date"]
    judged["rungs"]["toy: fast"]["parameters"] += 1
    with pytest.raises(ValueError, match="toy: fast: parameters"):
        ladder.with_quality(result, judged)
    del judged["rungs"]["toy: fast"]
    with pytest.raises(ValueError, match="toy: fast"):
        ladder.with_quality(result, judged)


def test_equal_samples_share_their_quality(result):
    fast, slow = (result["rungs"][name] for name in ("toy: fast", SLOW))
    assert fast["fid"] == slow["fid"]
    assert fast["against"][SLOW] == {
        "fid": [1.0] * 3, "right": [0.0] * 3, "within": True, "shown": True,
    }  # fmt: skip


def test_noise_is_outside_of_the_margin_however_fast(result):
    against = result["rungs"]["toy: noise"]["against"][SLOW]
    assert against["fid"][1] > ladder.FID_MARGIN
    assert not against["within"]
    assert ladder.fastest(result, SLOW) != "toy: noise"


def test_images_of_the_same_kind_stand_near_the_slow_ones(result):
    low, high = result["rungs"]["other: again"]["against"][SLOW]["fid"][1:]
    assert low < 1.2
    assert high > 0.8


def test_a_row_counts_the_work(result):
    row = result["rungs"]["toy: fast"]
    assert row["gflop_per_image"] == pytest.approx(1e-8)
    assert 0 < row["share_of_peak"] < 1


def test_a_row_is_told_in_one_line(result):
    line = ladder.row_as_text(result["rungs"]["toy: fast"])
    assert "images/s" in line
    assert "FID" in line


def test_a_family_brings_its_slow_path_along():
    chosen = rungs.choose("coarse to fine")
    assert [r.name for r in chosen] == ["image GPT: textbook, eager", "coarse to fine"]
    everything = [r.name for r in rungs.available()]
    for names in ("all", ";".join(everything), "; ".join(everything) + ";"):
        assert [r.name for r in rungs.choose(names)] == everything


def test_every_rung_has_its_own_name_and_a_slow_path_of_its_panel():
    every = {r.name: r for r in rungs.available()}
    assert len(every) == len(rungs.available())
    for r in every.values():
        assert every[r.like].panel == r.panel
        assert r.tag in rungs.TAGS


def test_an_unknown_rung_is_refused_with_those_that_there_are():
    for names in ("diffusion", "flow; diffusion", "", ";", []):
        with pytest.raises(ValueError, match="scenes"):
            rungs.choose(names)


def test_too_few_images_or_rounds_are_refused():
    with pytest.raises(ValueError, match="80"):
        ladder.run([], images=10)
    with pytest.raises(ValueError, match="pairs = 3"):
        ladder.run([], images=0, pairs=3)


@pytest.mark.parametrize("names", [[SLOW], [SLOW, "once"], ["once"]])
def test_what_has_nothing_to_be_compared_with_is_timed_by_itself(names):
    def draw(rows, seed):
        return np.zeros((len(rows), 28, 28, 1), np.uint8)

    made = [rung(name, rungs.TAGS[0], draw) for name in names]
    made = [replace(r, batches=(1,)) if r.name == "once" else r for r in made]
    lines = []
    found = ladder.run(made, images=0, processes=False, log=lines.append)
    assert json.loads(json.dumps(found)) == found
    assert list(found["rungs"]) == names
    assert any(f"only {names[0]}, nothing to compare it with" in line for line in lines)
    for name, row in found["rungs"].items():
        assert row["latency"][0] > 0
        assert row["batch"] == (1 if name == "once" else 16)
        assert "images/s in batches of" in ladder.row_as_text(row)
    if len(names) == 2:
        assert set(found["rungs"]["once"]["ratio"]) == {"1"}


def test_predict_step_by_step_walks_where_the_compiled_loop_walks():
    shape = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
    model = Flow(FlowConfig(shape, text_width=8))
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    said = rng.standard_normal((2, 8)).astype(np.float32)
    expected = model.sample(said, 4, steps=3, guidance=2.0)
    np.testing.assert_allclose(rungs.predicted(model, said, 4, 3, 2.0), expected, atol=1e-4)


def test_memory_is_that_of_the_process_itself_not_of_its_parent():
    ballast = np.ones(200 * 2**17)  # 200 MB here are none of the child's
    code = "from genlib.ladder.rungs import most_memory as most; print(most())"
    child = float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )
    own = rungs.most_memory()
    assert 50 < child < own
    more = np.ones(2 * ballast.size)
    assert rungs.most_memory() >= max(own, more.nbytes / 2**20)


def test_a_rung_that_climbs_alone_tells_its_first_call_and_its_memory():
    found = rungs.alone("GAN: small, compiled")
    assert found["first_call"] > 0
    assert found["peak_megabytes"] > 50
