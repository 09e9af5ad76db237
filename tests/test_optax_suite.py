"""optax's own tests pass with jgd's names in them."""

import subprocess
import sys
from pathlib import Path

import pytest
from optax_suite import SUITES

# Suites of a few seconds run one after the other in one process: starting one takes as long. Sharding wants a process
# of its own, since it asks for eight devices.
ALONE = ["alias", "alias-convergence", "alias-wrapped", "lbfgs", "contrib", "contrib-convergence"]
ALONE += ["accumulation", "muon", "sharding"]
RUNS = [([name], f"{i}/{SUITES[name].shards}") for name in ALONE for i in range(SUITES[name].shards)]
RUNS.append(([name for name in SUITES if name not in ALONE], "0/1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suites", "shard"), RUNS, ids=[f"{names[0]}-{shard}" if len(names) == 1 else "the others" for names, shard in RUNS]
)
def test_every_case_of_optax_that_concerns_a_name_of_jgd_passes(suites, shard):
    # A process of its own, since these tests set flags for the whole process.
    command = [sys.executable, str(Path(__file__).with_name("optax_suite.py")), *suites, "--shard", shard]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
