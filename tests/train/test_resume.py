"""A run that is ended and resumed in new processes ends bit for bit as one that was not.

The fast tier stops and kills one run. The slow tier resumes each case at each of the 40 steps and kills it 12 times;
`python tests/train/resume_run.py CASE kill 30` kills it more often.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resume_run.py")
CASES = ("loader", "scan", "across")


@pytest.mark.parametrize(
    ("case", "mode", "count"),
    [
        ("loader", "both", 17),
        *(pytest.param(case, "stop", 1, marks=pytest.mark.slow) for case in CASES),
        *(pytest.param(case, "kill", 12, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_a_run_in_many_processes_ends_bit_equal(case, mode, count):
    done = subprocess.run([sys.executable, SCRIPT, case, mode, str(count)], capture_output=True, text=True)
    assert f"{case} {mode} {count}: bit-equal after " in done.stdout, done.stdout + done.stderr
