"""What holds for `genlib bench --callable`: the reader's own function under the bench's rules."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from genlib import cli
from genlib.bench import external, memory

MODULE = """
import numpy as np
calls = []
def double():
    return np.ones((200, 200)) @ np.ones((200, 200))
def slow():
    for _ in range(50):
        made = double()
    return made
def other_shape():
    return np.ones(3)
def nothing():
    double()
def raises():
    raise KeyError("no such weights")
def changes():
    calls.append(1)
    return np.full(3, len(calls))
def changes_kind():
    calls.append(1)
    return "text" if len(calls) % 2 else 1.0
def needs(a, b=1):
    return a
def strange():
    return object()
def too_big():
    raise MemoryError("Unable to allocate 9 TiB")
def mapping():
    return {"images": [np.zeros((2, 2), np.uint8)], "text": "a"}
number = 3
class Pipe:
    def __call__(self):
        return "said"
pipe = Pipe()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_of_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine_of_test", None)


def test_two_callables_are_compared_and_recorded(mine):
    result = external.run("mine_of_test:double", "mine_of_test:slow")
    assert result["ratio"][1] > 2  # the lower end: fifty times the work
    assert result["difference"] == 0
    for row in result["rows"].values():
        assert row["first_call"] > 0
        assert row["memory"]["megabytes"] > 10
    assert json.loads(json.dumps(result)) == result
    assert "as fast as mine_of_test:slow" in external.lines(result)[2]


def test_the_command_prints_the_row_and_writes_the_record(mine):
    arguments = ["bench", "--callable", "mine_of_test:double", "-o", "mine.json"]
    shown = CliRunner().invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "mine_of_test:double:" in shown.output
    record = json.loads((mine / "mine.json").read_text())
    assert record["schema"] == external.SCHEMA
    assert record["environment"]["hardware"]["cores"] >= 1


def test_a_record_that_stands_there_is_replaced_only_when_asked(mine, monkeypatch):
    """Before the work, and after it, when somebody else may have written there meanwhile."""
    arguments = ["bench", "--callable", "mine_of_test:double", "-o", "mine.json"]
    (mine / "mine.json").write_text("theirs")
    shown = CliRunner().invoke(cli.app, arguments)
    assert isinstance(shown.exception, FileExistsError)
    assert "--overwrite" in str(shown.exception)
    assert (mine / "mine.json").read_text() == "theirs"
    replaced = CliRunner().invoke(cli.app, [*arguments, "--overwrite"])
    assert replaced.exit_code == 0, replaced.output
    assert json.loads((mine / "mine.json").read_text())["schema"] == external.SCHEMA
    (mine / "mine.json").unlink()

    def slow(*_):
        (mine / "mine.json").write_text("theirs")
        return {"rows": {}}

    monkeypatch.setattr(external, "run", slow)
    assert isinstance(CliRunner().invoke(cli.app, arguments).exception, FileExistsError)
    assert (mine / "mine.json").read_text() == "theirs"


@pytest.mark.parametrize("pairs", [2, 0, 10_001])
def test_so_many_rounds_as_the_table_has_and_no_others(pairs, mine):
    told = rf"^pairs = {pairs}; give a whole number from 9 to 10,000\.$"
    with pytest.raises(ValueError, match=told):
        external.run("mine_of_test:double", pairs=pairs)
    arguments = ["bench", "--callable", "mine_of_test:double", "-o", "x.json"]
    shown = CliRunner().invoke(cli.app, [*arguments, "--pairs", str(pairs)])
    assert str(shown.exception).startswith(f"pairs = {pairs}; give ")
    assert not (mine / "x.json").exists()


def test_the_limit_is_that_of_the_numbers_that_are_multiplied(mine):
    pytest.importorskip("torch")
    (mine / "mine_of_test.py").write_text(
        "import torch\na = torch.ones(256, 256)\nb = a.bfloat16()\n"
        "def full():\n    return a @ a\ndef half():\n    return b @ b\n"
    )
    result = external.run("mine_of_test:half", "mine_of_test:full")
    limits = [result["rows"][f"mine_of_test:{n}"]["work"]["limit_of"] for n in ("full", "half")]
    assert [limit.rpartition(" ")[2] for limit in limits] == ["float32", "bfloat16"]
    assert "of the limit of" in external.lines(result)[0]


def test_another_function_without_a_first_one_is_refused(mine):
    shown = CliRunner().invoke(cli.app, ["bench", "--against", "a:b", "-o", "mine.json"])
    assert "--callable" in str(shown.exception)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("double", "module:function"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("mine_of_test:absent", "Check the spelling"),
        ("mine_of_test:number", "is a int"),
        ("mine_of_test:needs", "needs arguments: a"),
        ("mine_of_test:nothing", "returned nothing"),
        ("mine_of_test:raises", "KeyError: 'no such weights'"),
        ("mine_of_test:changes", "at its second call"),
        ("mine_of_test:changes_kind", "at its second call"),
        ("mine_of_test:strange", "cannot be compared"),
    ],
)
def test_what_cannot_be_measured_gets_one_sentence(mine, name, said):
    with pytest.raises(external.CallableError, match=said) as raised:
        external.run(name)
    assert len(str(raised.value)) < 400


def test_the_same_callable_twice_is_refused(mine):
    with pytest.raises(external.CallableError, match="twice"):
        external.run("mine_of_test:double", "mine_of_test:double")


def test_memory_that_ends_is_a_row(mine):
    result = external.run("mine_of_test:too_big", "mine_of_test:double")
    assert result["rows"]["mine_of_test:too_big"]["error"] == "out of memory"
    assert result["rows"]["mine_of_test:double"]["seconds"][0] > 0  # the other one is measured
    assert "ratio" not in result
    assert any("out of memory" in line for line in external.lines(result))


def test_objects_that_are_called_and_nested_results_pass(mine):
    for name in ("mine_of_test:pipe", "mine_of_test:mapping"):
        assert external.run(name)["rows"][name]["seconds"][0] >= 0


def test_outputs_of_another_shape_are_said_to_be_so(mine):
    result = external.run("mine_of_test:other_shape", "mine_of_test:double")
    assert result["difference"] is None


def test_rounding_is_no_change_and_another_token_is():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    ones = np.ones(100)
    assert external.difference([ones], [ones + 1e-6]) < external.SAME
    assert external.difference([ones], [-ones]) == pytest.approx(2)
    assert external.difference([image], [image]) == 0
    assert 0 < external.difference([image], [image ^ 1]) < 2 * external.SAME
    assert external.difference([np.array([1, 2])], [np.array([1, 3])]) == np.inf
    assert external.difference([np.array([np.nan])], [np.array([1.0])]) == np.inf


def test_lack_of_memory_is_known_from_every_library():
    said = (
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
    )
    assert all(memory.is_lack(RuntimeError(text)) for text in said)
    assert memory.is_lack(MemoryError())
    assert not memory.is_lack(RuntimeError("shapes differ"))


def test_the_peak_of_a_call_holds_what_it_made():
    def large():
        made = np.ones(2**24)  # 128 MB
        return made[:3].copy()

    result, most = memory.peak(large)
    assert result.tolist() == [1, 1, 1]
    assert most.added > 60
    assert most.where != "process" or most.megabytes > most.added
