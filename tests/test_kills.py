"""After kill -9 at any moment: the same command again ends as if nothing had been.

`GENLIB_KILLS=20` kills each command twenty times; an ordinary test has time for three, and on
another backend, which starts more slowly, for one.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FIRST = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
TIMES = int(os.environ.get("GENLIB_KILLS", "3" if FIRST else "1"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
@pytest.mark.parametrize("what", ["train", "export", "generate"])
def test_a_killed_command_ends_as_an_unbroken_one_when_it_is_given_again(what, tmp_path):
    program = Path(__file__).with_name("kills.py")
    command = [sys.executable, str(program), what, str(TIMES), "0", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)["outcomes"]
    assert len(outcomes) == TIMES
    wrong = [o for o in outcomes if o["again"] or not o["same"] or not o["tidy"]]
    assert not wrong, json.dumps(wrong, indent=1)
    assert {outcome["status"] for outcome in outcomes} == {-signal.SIGKILL}
