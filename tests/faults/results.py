"""What was found out about each fault, and the table of it."""

import hashlib
from typing import Any

from faults.fault import Fault, stands
from faults.faults import FAULTS

TIERS = {"fast": [], "slow": ["-m", "slow"]}  # what pytest is told
NOT_LIKELY = "not found by the likely tests"
Result = dict[str, Any]
Results = dict[str, dict[str, Result]]  # by fault and tier


def digest(fault: Fault) -> str:
    """Changes with the fault: what was found out about another one of its name does not count."""
    return hashlib.sha256("\0".join((fault.file, fault.old, fault.new)).encode()).hexdigest()[:12]


def known(results: Results, fault: Fault, tier: str) -> Result:
    """What is known of this very fault; nothing is an empty result."""
    found = results.get(fault.name, {}).get(tier, {})
    return found if found.get("fault") == digest(fault) else {}


def is_open(results: Results, fault: Fault, tier: str) -> bool:
    """Whether there is something to run: no answer yet, and for the slow tier no test of the fast one that has it."""
    answers = [known(results, fault, "fast"), known(results, fault, tier)]
    if any("test" in answer and stands(answer["test"]) for answer in answers):
        return False
    return answers[1].get("outcome") not in ("survived", "timed out")


def table(results: Results) -> str:
    """The results in Markdown."""

    def cell(result: Result) -> str:
        return f"`{result['test']}`" if "test" in result else str(result.get("outcome", ""))

    lines = [
        "# Planted faults\n",
        "Each was planted alone; the test is the first that failed. The slow tier is asked where the fast finds none.",
        "Written by `python tests/faults/plant.py --table`.\n",
        "| fault | file | what it breaks | fast tier | slow tier |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fault in FAULTS:
        tiers = (cell(known(results, fault, tier)) for tier in TIERS)
        cells = (fault.name, f"`{fault.file}`", fault.why, *tiers)
        lines.append(f"| {' | '.join(text.replace('|', '&#124;') for text in cells)} |")
    return "\n".join(lines) + "\n"
