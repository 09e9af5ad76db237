"""A run that is ended and resumed in new processes ends bit for bit as one that was not.

The whole of it, a resumption at each of the 40 steps and 30 kills for each case: `JGD_FULL=1 pytest test_resume.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resume_run.py")
FULL = bool(os.environ.get("JGD_FULL"))


@pytest.mark.parametrize("case", ["loader", "scan", "across"])
@pytest.mark.parametrize(("mode", "count"), [("stop", 1 if FULL else 17), ("kill", 30 if FULL else 2)])
def test_a_run_in_many_processes_ends_bit_equal(case, mode, count):
    if mode == "kill" and case != "loader" and not FULL:
        pytest.skip("JGD_FULL=1 runs it")
    done = subprocess.run([sys.executable, SCRIPT, case, mode, str(count)], capture_output=True, text=True)
    assert f"{case} {mode} {count}: bit-equal after " in done.stdout, done.stdout + done.stderr
