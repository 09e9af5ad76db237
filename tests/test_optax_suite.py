"""optax's own tests pass with jgd's optimizers in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SUITES = [
    # module, its global, test class, the least number of cases that concern a rule built here
    ("optax._src.alias_test", "alias", "AliasTest", 150),
    ("optax.schedules._schedule_test", "alias", "ScheduleAsLearningRateTest", 7),
    ("optax.contrib._common_test", "contrib", "ContribTest", 20),
]


@pytest.mark.parametrize(("module", "name", "tests", "at_least"), SUITES, ids=[suite[0] for suite in SUITES])
def test_every_case_of_optax_that_concerns_a_rule_built_here_passes(module, name, tests, at_least):
    # A process of its own, since these tests set flags for the whole process.
    command = [sys.executable, str(Path(__file__).with_name("optax_suite.py")), module, name, tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    ran, failed = map(int, re.search(r"ran (\d+), failed (\d+)", done.stdout).groups())
    assert failed == 0
    assert ran >= at_least  # a suite that skips everything proves nothing
